//! The listener for browsers: paths, forms and what they lead to.

use std::convert::Infallible;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http_body_util::Full;
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming};
use hyper::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName,
    HeaderValue, LOCATION, ORIGIN, REFERRER_POLICY, RETRY_AFTER, SET_COOKIE, STRICT_TRANSPORT_SECURITY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use i2plan_config::parse_duration;
use i2plan_http::{Listener, Service, Unauthenticated, one, read};
use i2plan_ipc::api::meshd::{Ban, Session, SessionState, max_uses};
use i2plan_ipc::client::{ClientError, Endpoint};
use i2plan_ipc::member::LookupError;
use i2plan_ipc::rate::{Bucket, Quota};
use i2plan_ipc::secret::SecretText;
use i2plan_ipc::{ApiError, ErrorKind, Node, Role};
use i2plan_present::peer::DataPath;
use i2plan_present::remedy::sentence;
use i2plan_proto::invite::Invite;
use i2plan_rpcd::gateway::Caller;
use i2plan_rpcd::http::{Refusal, shows};
use i2plan_rpcd::token::Token;
use maud::{Markup, html as markup};
use tokio::sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::access::{self, cookie_name, cookies, is_own_form};
use super::control::random;
use super::form::{Form, MAX_FORM};
use super::live::{Live, ended, tell};
use super::pages::invites::Joining;
use super::pages::members::Selection;
use super::pages::node::EventFilter;
use super::pages::{self, Viewer, invites, members, node, page, refusal};
use super::programs::{self, CSRF_TOKEN, Programs, stranger};
use super::sessions::{Entered, Refused, Sessions};
use super::site::Site;

/// Questions to the node at once, of all sessions.
const QUESTIONS: usize = 8;

/// How long a request waits for its turn to ask.
const TURN: Duration = Duration::from_secs(2);

/// For how long it is not asked again whether the node is ready.
const READY_FRESH: Duration = Duration::from_secs(1);

/// How long the node may take to say so.
const READY_DEADLINE: Duration = Duration::from_secs(5);

/// How often a wrong link or token is told in the log.
const WARNINGS: Quota = Quota::every(Duration::from_secs(60), 3);

/// What pages may load and where their forms go. Nothing is inline, and nothing is elsewhere.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// What the worker may load in which a QR code is decoded: the decoder.
const WORKER_POLICY: &str = "default-src 'none'; script-src 'self'";

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

const PERMISSIONS: HeaderName = HeaderName::from_static("permissions-policy");

/// What of the host's devices pages may ask for, and what the one may that reads invites.
const NO_DEVICES: &str = "camera=(), microphone=(), geolocation=(), display-capture=()";
const CAMERA: &str = "camera=(self), microphone=(), geolocation=(), display-capture=()";

const HEADERS: [(HeaderName, &str); 5] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    // Without any, a browser would say no origin with a form.
    (REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// What all connections share.
#[derive(Debug)]
pub struct Web {
    meshd: Endpoint,
    programs: Programs,
    site: Site,
    started: Instant,
    sessions: Mutex<Sessions>,
    live: Live,
    joining: Mutex<Joining>,
    questions: Semaphore,
    warnings: Mutex<Bucket>,
    /// Why the node was not ready when it was asked last, if it was not.
    ready: AsyncMutex<Option<(Instant, Option<&'static str>)>>,
}

impl Web {
    /// Pages for the node whose `meshd` has this socket. `token` is what programs show.
    #[must_use]
    pub fn new(meshd: &Path, site: Site, token: Option<Token>) -> Arc<Self> {
        Arc::new(Self {
            meshd: Endpoint::resolved(meshd, Role::Meshd),
            programs: Programs::new(meshd, token),
            site,
            started: Instant::now(),
            sessions: Mutex::default(),
            live: Live::default(),
            joining: Mutex::default(),
            questions: Semaphore::new(QUESTIONS),
            warnings: Mutex::default(),
            ready: AsyncMutex::default(),
        })
    }

    /// Where the pages are.
    #[must_use]
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// `meshd`'s socket.
    #[must_use]
    pub fn meshd(&self) -> &Endpoint {
        &self.meshd
    }

    /// Since the start.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The links and sessions.
    pub fn sessions(&self) -> MutexGuard<'_, Sessions> {
        lock(&self.sessions)
    }

    /// What pages follow.
    #[must_use]
    pub fn live(&self) -> &Live {
        &self.live
    }

    fn warn(&self, what: &'static str) {
        if lock(&self.warnings).try_take(WARNINGS, self.now()) {
            warn!("{what}");
        }
    }

    async fn node(&self) -> Result<Node, Failure> {
        Ok(Node::connect_to(self.meshd.clone()).await?)
    }

    /// Why the node is not ready, if it is not. However many ask, it is asked once a second.
    async fn unready(&self) -> Option<&'static str> {
        let mut last = self.ready.lock().await;
        if let Some((at, why)) = *last
            && at.elapsed() < READY_FRESH
        {
            return why;
        }
        let status = async { Node::connect_to(self.meshd.clone()).await?.status().await };
        let why = match timeout(READY_DEADLINE, status).await {
            Ok(Ok(status)) => {
                let is_up = |session: &Session| session.state == SessionState::Up;
                // A static interface has one session.
                let up = is_up(&status.sam.data)
                    && (status.static_interface.is_some() || is_up(&status.sam.control));
                (!up).then_some("the sessions at the I2P router are not up\n")
            }
            _ => Some("meshd does not answer\n"),
        };
        *last = Some((Instant::now(), why));
        why
    }

    /// Begins to join; the page for that tells how it goes.
    fn begin_joining(self: &Arc<Self>, mut node: Node, code: SecretText) -> Result<(), Failure> {
        let mut joining = lock(&self.joining);
        if matches!(*joining, Joining::Running) {
            return Err(ApiError::conflict("this node is joining a network already").into());
        }
        *joining = Joining::Running;
        let web = Arc::clone(self);
        tokio::spawn(async move {
            let result = node.join(code).await;
            *lock(&web.joining) = match result {
                Ok(_) => Joining::Done,
                Err(error) => {
                    let failure = Failure::from(error);
                    Joining::Failed(failure.message, failure.hint)
                }
            };
            web.live.changed();
        });
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves for as long as the process lives.
pub async fn serve(listener: impl Listener, web: Arc<Web>) {
    let open = |place| Connection {
        web: Arc::clone(&web),
        place,
        permit: Mutex::default(),
        program: Mutex::default(),
    };
    match web.site.tls() {
        None => i2plan_http::serve(listener, open).await,
        Some(first) => {
            // A connection is made with the certificate of its time.
            let accept = |stream| web.site.tls().as_ref().unwrap_or(&first).acceptor().accept(stream);
            i2plan_http::serve_over(listener, accept, open).await;
        }
    }
}

/// One connection.
struct Connection {
    web: Arc<Web>,
    place: Unauthenticated,
    /// Its place among those of a session, once it has shown a cookie.
    permit: Mutex<Option<(String, OwnedSemaphorePermit)>>,
    /// Its place among those of programs, once it has shown the token.
    program: Mutex<Option<Arc<Caller>>>,
}

/// The body of an answer.
enum Body {
    /// All of it.
    Whole(Full<Bytes>),
    /// As it comes.
    Stream(mpsc::Receiver<Bytes>),
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(whole) => Pin::new(whole).poll_frame(cx),
            Self::Stream(receiver) => {
                receiver.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }
}

type Answer = Response<Body>;

impl Service for Connection {
    type Body = Body;

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let mut answer = match head.uri.path() {
            "/rpc" | "/metrics" => self.answer_program(&head, body).await.map(Body::Whole),
            _ => self.answer_browser(&head, body).await,
        };
        if self.is_left_over() {
            answer = closing(answer);
        }
        for (name, value) in HEADERS {
            answer.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        if self.web.site.is_strict() {
            let year = HeaderValue::from_static("max-age=31536000");
            answer.headers_mut().insert(STRICT_TRANSPORT_SECURITY, year);
        }
        let devices = if head.uri.path() == "/join" { CAMERA } else { NO_DEVICES };
        for (name, value) in
            [(CACHE_CONTROL, "no-store"), (CONTENT_SECURITY_POLICY, POLICY), (PERMISSIONS, devices)]
        {
            answer.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
        }
        answer
    }
}

impl Connection {
    async fn answer_browser(&self, head: &Parts, body: Incoming) -> Answer {
        let entered = match self.enter(head) {
            Err(answer) => return *answer,
            Ok(None) => {
                return match self.web.unready().await {
                    None => plain(StatusCode::OK, "ready\n"),
                    Some(why) => plain(StatusCode::SERVICE_UNAVAILABLE, why),
                };
            }
            Ok(Some(entered)) => entered,
        };
        let form = match head.method {
            Method::GET => Ok(Bytes::new()),
            _ => read(body, MAX_FORM).await,
        };
        match form {
            Ok(form) => self.serve(head, &entered, Form::read(&form)).await,
            Err(error) => say(error.status(), "The form was not read", "It is too long, or too slow.", None),
        }
    }

    async fn answer_program(&self, head: &Parts, body: Incoming) -> programs::Answer {
        let (caller, session) = match self.enter_program(head) {
            Ok(entered) => entered,
            Err(refusal) => return refusal.answer(),
        };
        let answering = self.web.programs.answer(&caller, head, body);
        let Some(session) = session else { return answering.await };
        tokio::select! {
            answer = answering => answer,
            // The calls of a batch that are still to come are not made.
            () = ended(&self.web, &session.id) => stranger().answer(),
        }
    }

    /// In whose name a program asks, and with which session if it has not shown the token.
    fn enter_program(&self, head: &Parts) -> Result<(Arc<Caller>, Option<Entered>), Refusal> {
        let (web, headers, site) = (&self.web, &head.headers, &self.web.site);
        let denied = |what: &str| Refusal::denied(StatusCode::FORBIDDEN, what);
        if !headers.contains_key(AUTHORIZATION) {
            access::check(&head.method, &head.uri, headers, site).map_err(denied)?;
            if access::is_foreign(headers) {
                return Err(denied(access::FOREIGN));
            }
            let session = self.enter_session(headers)?;
            let csrf = one(headers, CSRF_TOKEN).and_then(|csrf| csrf.to_str().ok());
            if head.method != Method::GET && !is_own_form(&session.csrf, csrf) {
                return Err(denied("X-CSRF-Token must be the csrf of the session's forms"));
            }
            return Ok((web.programs.admit(Some(&session))?, Some(session)));
        }
        access::check_host(&head.uri, headers, site).map_err(denied)?;
        if headers.contains_key(ORIGIN) {
            return Err(denied("web pages show no token"));
        }
        if !web.programs.token().is_some_and(|token| shows(headers, token)) {
            web.warn("refused a program that did not show the token");
            return Err(stranger());
        }
        let mut program = lock(&self.program);
        if let Some(caller) = &*program {
            return Ok((Arc::clone(caller), None));
        }
        self.place.leave();
        Ok((Arc::clone(program.insert(web.programs.admit(None)?)), None))
    }

    /// Whose the request is; none if it asks whether the node is ready, which everybody may. Else the answer.
    fn enter(&self, head: &Parts) -> Result<Option<Entered>, Box<Answer>> {
        if let Err(why) = access::check(&head.method, &head.uri, &head.headers, &self.web.site) {
            return Err(Box::new(closing(say(StatusCode::FORBIDDEN, "Not here", why, None))));
        }
        if !matches!(head.method, Method::GET | Method::POST) {
            let what = "GET or POST is expected.";
            return Err(Box::new(closing(say(StatusCode::METHOD_NOT_ALLOWED, "Not so", what, None))));
        }
        let open = match head.uri.path() {
            "/style.css" => Some(asset("text/css; charset=utf-8", pages::STYLE)),
            "/app.js" => Some(asset(JAVASCRIPT, pages::SCRIPT)),
            "/scan.js" => Some(asset(JAVASCRIPT, pages::SCAN)),
            "/icon.svg" => Some(asset("image/svg+xml", pages::ICON)),
            "/healthz" => Some(plain(StatusCode::OK, "ok\n")),
            "/readyz" => return Ok(None),
            "/login" if head.method == Method::GET => Some(self.login(head)),
            path => pages::QR.iter().find(|(name, _)| *name == path).map(|(_, text)| {
                let policy = HeaderValue::from_static(WORKER_POLICY);
                with(asset(JAVASCRIPT, text), CONTENT_SECURITY_POLICY, policy)
            }),
        };
        if let Some(answer) = open {
            return Err(Box::new(answer));
        }
        // Before the session: what other pages ask for is not to count as what it asks for.
        if access::is_foreign(&head.headers) {
            return Err(Box::new(closing(say(
                StatusCode::FORBIDDEN,
                "Not from there",
                access::FOREIGN,
                Some("Type the address into the browser, or open a link of `i2planctl web`."),
            ))));
        }
        let entered = self.enter_session(&head.headers).map_err(|refused| {
            Box::new(match refused {
                Refused::Unknown => say(
                    StatusCode::UNAUTHORIZED,
                    "No session",
                    "There is no session in this browser, or it has ended.",
                    Some("Run `i2planctl web` on this host, and open the link that it prints."),
                ),
                Refused::TooFast(wait) => {
                    let answer = say(
                        StatusCode::TOO_MANY_REQUESTS,
                        "Too many requests",
                        "This session asks for more than 20 pages a second.",
                        None,
                    );
                    let seconds = HeaderValue::from(wait.as_secs() + 1);
                    with(answer, RETRY_AFTER, seconds)
                }
                Refused::Crowded => {
                    let what = "This session has too many connections.";
                    closing(say(StatusCode::SERVICE_UNAVAILABLE, "Too many connections", what, None))
                }
            })
        })?;
        Ok(Some(entered))
    }

    /// The session whose cookie a request shows.
    fn enter_session(&self, headers: &HeaderMap) -> Result<Entered, Refused> {
        let now = self.web.now();
        let mut entered = cookies(headers, access::port(headers, &self.web.site))
            .map(|shown| self.web.sessions().enter(shown, now));
        let entered = entered.find(|entered| !matches!(entered, Err(Refused::Unknown)));
        let entered = entered.unwrap_or(Err(Refused::Unknown))?;
        let mut permit = lock(&self.permit);
        if permit.as_ref().is_none_or(|(id, _)| *id != entered.id) {
            let free = Arc::clone(&entered.connections).try_acquire_owned();
            *permit = Some((entered.id.clone(), free.map_err(|_| Refused::Crowded)?));
            self.place.leave();
        }
        Ok(entered)
    }

    /// Whether the session among whose connections this one is has ended: nothing bounds those any more.
    fn is_left_over(&self) -> bool {
        let permit = lock(&self.permit);
        permit.as_ref().is_some_and(|(id, _)| !self.web.sessions().is_open(id, self.web.now()))
    }

    /// Opens a session by a link.
    fn login(&self, head: &Parts) -> Answer {
        let query = Form::read(head.uri.query().unwrap_or_default().as_bytes());
        let token = query.get("token").unwrap_or_default();
        let opened = match random() {
            Ok(random) => self.web.sessions().redeem(token, &random, self.web.now()),
            Err(_) => None,
        };
        let Some(opened) = opened else {
            self.web.warn("refused a link that is used up, expired or wrong");
            return say(
                StatusCode::FORBIDDEN,
                "The link cannot be used",
                "It was used already, has expired, or is wrong.",
                Some("Run `i2planctl web` on this host for another."),
            );
        };
        info!("opened a session");
        // It may have taken the place of another.
        self.web.live.changed();
        let site = &self.web.site;
        let name = cookie_name(access::port(&head.headers, site));
        let secure = if site.tls().is_some() { "; Secure" } else { "" };
        let cookie = format!("{name}={}; Path=/; HttpOnly; SameSite=Strict{secure}", *opened);
        // After a redirect the browser would still say that the other page leads there, and send no cookie.
        let answer =
            if access::is_foreign(&head.headers) { html(StatusCode::OK, &pages::opened()) } else { go("/") };
        match HeaderValue::try_from(cookie) {
            Ok(mut cookie) => {
                cookie.set_sensitive(true);
                with(answer, SET_COOKIE, cookie)
            }
            Err(_) => answer,
        }
    }

    async fn serve(&self, head: &Parts, session: &Entered, form: Form) -> Answer {
        let path = head.uri.path();
        if head.method == Method::POST && !is_own_form(&session.csrf, form.get("csrf")) {
            return say(
                StatusCode::FORBIDDEN,
                "The form is not of this session",
                "Nothing was changed.",
                Some("Load the page again, and send the form from there."),
            );
        }
        let segments: Vec<_> = path.split('/').skip(1).collect();
        if head.method == Method::POST && !session.control && !matches!(segments[..], ["logout"]) {
            let own = matches!(segments[..], ["sessions", id, "end"] if id == session.id);
            if !own {
                return say(
                    StatusCode::FORBIDDEN,
                    "View only",
                    "This session may not change anything.",
                    Some("`i2planctl web --control` prints a link for a session that may."),
                );
            }
        }
        // Without a question to the node.
        match (&head.method, &segments[..]) {
            (&Method::GET, ["live"]) => {
                let mut answer = Response::new(Body::Stream(tell(Arc::clone(&self.web), session.id.clone())));
                let kind = HeaderValue::from_static("text/event-stream");
                answer.headers_mut().insert(CONTENT_TYPE, kind);
                return answer;
            }
            (&Method::POST, ["logout"]) => {
                self.web.sessions().end(Some(&session.id));
                self.web.live.changed();
                return say(StatusCode::OK, "Logged out", "The session has ended.", None);
            }
            (&Method::POST, ["sessions", id, "end"]) => {
                self.web.sessions().end(Some(id));
                self.web.live.changed();
                return go("/sessions");
            }
            _ => {}
        }
        let Ok(Ok(_turn)) = timeout(TURN, self.web.questions.acquire()).await else {
            let what = "Too many pages are being made.";
            return say(StatusCode::SERVICE_UNAVAILABLE, "Busy", what, Some("Try again in a moment."));
        };
        let done = match head.method {
            Method::POST => self.change(&segments, session, form).await,
            _ => self.show(path, &segments, head.uri.query().unwrap_or_default(), session).await,
        };
        done.unwrap_or_else(Failure::answer)
    }

    /// A page.
    async fn show(
        &self,
        path: &str,
        segments: &[&str],
        query: &str,
        session: &Entered,
    ) -> Result<Answer, Failure> {
        let mut node = self.web.node().await?;
        let status = node.status().await?;
        let viewer = Viewer { session, node: &status.name };
        let show = |title: &str, live: bool, content: Markup| {
            Ok(html(StatusCode::OK, &page(viewer, path, title, live, &content)))
        };
        let query = Form::read(query.as_bytes());
        let text = |name: &str| query.get(name).unwrap_or_default().to_owned();
        let own = status.node_id.as_deref();
        let minutes = query.get("minutes").and_then(|minutes| minutes.parse().ok()).unwrap_or(5);
        match segments {
            [""] => {
                let peers = node.peers().await?;
                let content = node::dashboard(&status, &peers, &self.web.live.history(), minutes);
                show("Dashboard", true, content)
            }
            ["peers"] => {
                let selection = Selection {
                    search: text("q"),
                    sort: text("sort"),
                    reversed: query.get("reversed").is_some(),
                    page: query.get("page").and_then(|page| page.parse().ok()).unwrap_or(0),
                };
                show("Peers", true, members::peers(node.peers().await?, DataPath::of(&status), &selection))
            }
            ["peers", id] => {
                let peers = node.peers().await?;
                match peers.iter().find(|peer| peer.node_id == *id) {
                    Some(peer) => {
                        let trips = node::round_trips_to(id, &self.web.live.history(), minutes);
                        show(&peer.name, true, members::details(viewer, peer, &peers, own, &trips))
                    }
                    None => Err(Failure::not_found("No member has this node id.")),
                }
            }
            ["tree"] => show("Invitations", true, members::tree(&status, &node.peers().await?)),
            ["routes"] => show("Routes", true, members::routes(node.routes().await?)),
            ["bans"] => show("Bans", true, members::bans(viewer, &node.bans().await?)),
            ["invites"] => {
                let (issued, peers) = (node.invites().await?, node.peers().await?);
                show("Invites", true, invites::list(viewer, &issued, &peers, status.network.is_some()))
            }
            ["join"] => {
                let joining = lock(&self.web.joining).clone();
                show("Join", true, invites::joining(viewer, status.network.as_ref(), &joining))
            }
            ["events"] => {
                let filter = EventFilter { show: text("show"), level: text("level"), search: text("q") };
                show("Events", true, node::events(&self.web.live.history(), &filter))
            }
            ["doctor"] => show("Doctor", true, node::examination(&status, &node.peers().await?)),
            ["settings"] => show("Settings", true, node::settings(viewer, &node.config().await?)),
            ["sessions"] => {
                let sessions = self.web.sessions().list(self.web.now());
                show("Sessions", true, node::sessions(viewer, &sessions))
            }
            _ => Err(Failure::not_found("There is no such page.")),
        }
    }

    /// What a form asks for.
    async fn change(&self, segments: &[&str], session: &Entered, mut form: Form) -> Result<Answer, Failure> {
        let mut node = self.web.node().await?;
        match segments {
            ["invites"] => {
                let expiry = form.get("expiry").and_then(parse_duration);
                let expiry = expiry
                    .ok_or_else(|| invalid("a duration is expected for the expiry, such as 24h or 7d"))?;
                let uses = form.get("uses").and_then(|uses| uses.parse().ok());
                let uses = uses.ok_or_else(|| invalid("a number of uses is expected"))?;
                let addresses = match form.get("addresses") {
                    None => None,
                    Some(text) => Some(
                        text.parse()
                            .map_err(|_| invalid("a number of addresses is expected, a power of two"))?,
                    ),
                };
                let name = form.get("network").map(str::to_owned);
                let made = node.create_invite(expiry, max_uses(uses)?, addresses, None, name).await?;
                let status = node.status().await?;
                let viewer = Viewer { session, node: &status.name };
                // Not live: the code is on this page alone.
                let content = invites::made(&made);
                Ok(html(StatusCode::OK, &page(viewer, "/invites", "New invite", false, &content)))
            }
            ["invites", id, "revoke"] => {
                node.revoke_invite((*id).to_owned()).await?;
                Ok(go("/invites"))
            }
            ["peers", id, "ping"] => {
                let answer = match node.ping((*id).to_owned()).await {
                    Ok(milliseconds) => Ok(milliseconds),
                    Err(ClientError::Api(error)) => Err(Failure::from(error)),
                    Err(error) => return Err(error.into()),
                };
                let (status, peers) = (node.status().await?, node.peers().await?);
                let peer = peers.iter().find(|peer| peer.node_id == *id);
                let peer = peer.ok_or_else(|| Failure::not_found("No member has this node id."))?;
                let viewer = Viewer { session, node: &status.name };
                let answer = answer.map_err(|failure| (failure.message, failure.hint));
                let trips = node::round_trips_to(id, &self.web.live.history(), 5);
                let content = markup! {
                    (members::pinged(&answer))
                    (members::details(viewer, peer, &peers, status.node_id.as_deref(), &trips))
                };
                Ok(html(StatusCode::OK, &page(viewer, "/peers", &peer.name, false, &content)))
            }
            ["bans"] => {
                let member = node.find_member(form.get("member").unwrap_or_default()).await?;
                ban(&mut node, member.node_id, &form).await?;
                Ok(go("/bans"))
            }
            ["peers", id, "ban"] => {
                let ban = ban(&mut node, (*id).to_owned(), &form).await?;
                Ok(go(&format!("/peers/{}", ban.node_id)))
            }
            ["bans", id, "remove"] => {
                node.remove_ban((*id).to_owned()).await?;
                Ok(go("/bans"))
            }
            ["settings"] => {
                let key = form.get("key").unwrap_or_default().to_owned();
                let value = form.get("value").unwrap_or_default().to_owned();
                node.set_config(key, value).await?;
                Ok(go("/settings"))
            }
            ["join"] => {
                let is_confirmed = form.get("confirmed").is_some();
                let code = SecretText::new(form.take("code").unwrap_or_default().trim().to_owned());
                let parsed: Invite = code
                    .expose()
                    .parse()
                    .map_err(|error| Failure::from(invalid(&format!("this is no invite code: {error}"))))?;
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
                if parsed.expires_at <= now {
                    return Err(invalid("the invite has expired; ask for another").into());
                }
                node.check_network(parsed.network.to_string(), parsed.subnet.to_string()).await?;
                if is_confirmed {
                    self.web.begin_joining(node, code)?;
                    return Ok(go("/join"));
                }
                let status = node.status().await?;
                let viewer = Viewer { session, node: &status.name };
                let content = invites::confirm(viewer, &parsed, code.expose());
                Ok(html(StatusCode::OK, &page(viewer, "/join", "Join this network?", false, &content)))
            }
            _ => Err(Failure::not_found("There is no such page.")),
        }
    }
}

/// Bans a member as a form says.
async fn ban(node: &mut Node, member: String, form: &Form) -> Result<Ban, Failure> {
    let duration = match form.get("duration") {
        None => None,
        Some(text) => Some(
            parse_duration(text)
                .ok_or_else(|| invalid("a duration is expected for the ban, such as 1h or 7d, or nothing"))?,
        ),
    };
    let description = form.get("description").unwrap_or_default().to_owned();
    Ok(node.add_ban(member, description, duration).await?)
}

/// Why there is no page.
struct Failure {
    status: StatusCode,
    message: String,
    hint: Option<String>,
}

impl Failure {
    fn not_found(message: &str) -> Self {
        Self { status: StatusCode::NOT_FOUND, message: message.to_owned(), hint: None }
    }

    fn answer(self) -> Answer {
        let title = if self.status == StatusCode::NOT_FOUND { "Not found" } else { "That did not work" };
        say(self.status, title, &self.message, self.hint.as_deref())
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let status = match error.kind {
            ErrorKind::Invalid => StatusCode::BAD_REQUEST,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Denied => StatusCode::FORBIDDEN,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            _ => StatusCode::BAD_GATEWAY,
        };
        Self { status, message: error.message, hint: error.remedy.as_ref().map(sentence) }
    }
}

impl From<LookupError> for Failure {
    fn from(error: LookupError) -> Self {
        let status = match error {
            LookupError::Client(error) => return error.into(),
            LookupError::Unknown { .. } => StatusCode::NOT_FOUND,
            LookupError::Ambiguous { .. } | LookupError::ThisNode { .. } => StatusCode::BAD_REQUEST,
        };
        let hint = "The list of peers has the members; name one by name, address or node id.".to_owned();
        Self { status, message: error.to_string(), hint: Some(hint) }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Api(error) => error.into(),
            error => Self {
                status: StatusCode::BAD_GATEWAY,
                message: format!("The node does not answer: {error}"),
                hint: Some("`i2planctl doctor` on this host says more.".to_owned()),
            },
        }
    }
}

fn invalid(message: &str) -> ApiError {
    ApiError::invalid(message.to_owned())
}

fn say(status: StatusCode, title: &str, message: &str, hint: Option<&str>) -> Answer {
    html(status, &refusal(title, message, hint))
}

fn html(status: StatusCode, page: &Markup) -> Answer {
    answer(status, "text/html; charset=utf-8", Bytes::copy_from_slice(page.0.as_bytes()))
}

fn plain(status: StatusCode, text: &'static str) -> Answer {
    answer(status, "text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()))
}

fn asset(kind: &'static str, text: &'static str) -> Answer {
    let answer = answer(StatusCode::OK, kind, Bytes::from_static(text.as_bytes()));
    // Another build may have another.
    with(answer, CACHE_CONTROL, HeaderValue::from_static("no-cache"))
}

fn answer(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut response = Response::new(Body::Whole(Full::new(body)));
    *response.status_mut() = status;
    with(response, CONTENT_TYPE, HeaderValue::from_static(kind))
}

/// Shows another page, by GET. The path is one of this node's own.
fn go(path: &str) -> Answer {
    let answer = answer(StatusCode::SEE_OTHER, "text/plain; charset=utf-8", Bytes::new());
    match HeaderValue::try_from(path) {
        Ok(path) => with(answer, LOCATION, path),
        Err(_) => answer,
    }
}

fn with(mut answer: Answer, name: HeaderName, value: HeaderValue) -> Answer {
    answer.headers_mut().insert(name, value);
    answer
}

/// The end of the connection, too.
fn closing(answer: Answer) -> Answer {
    with(answer, CONNECTION, HeaderValue::from_static("close"))
}

#[cfg(test)]
mod tests;

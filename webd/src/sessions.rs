//! One-time links, and the sessions that they open.
//!
//! Nothing here reads a clock or draws random numbers: both are arguments. Time is what has passed since the start.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use i2plan_ipc::api::webd;
use i2plan_ipc::rate::{Bucket, Quota};
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// How long a link can be used.
pub const LINK_LIFETIME: Duration = Duration::from_secs(5 * 60);

/// How long a session lasts.
pub const SESSION_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Links that were not used yet, at most: one more takes the place of the oldest.
pub const MAX_LINKS: usize = 16;

/// Sessions, at most: one more takes the place of the one that was not used for longest.
pub const MAX_SESSIONS: usize = 32;

/// Connections of one session.
pub const MAX_CONNECTIONS: usize = 16;

/// Requests of one session: 20 a second, 60 at once.
const REQUESTS: Quota = Quota::new(20, 60);

/// Random bytes for a session: its token, its token against forged forms, its id.
pub type SessionSeed = [u8; 32 + 16 + 8];

type Token = Zeroizing<[u8; 32]>;

#[derive(Debug)]
struct Link {
    token: Token,
    control: bool,
    made: Duration,
}

#[derive(Debug)]
struct Session {
    id: String,
    number: u32,
    token: Token,
    csrf: Zeroizing<String>,
    control: bool,
    opened: Duration,
    used: Duration,
    requests: Bucket,
    connections: Arc<Semaphore>,
}

/// What a session is to the request that shows its cookie.
#[derive(Debug, Clone)]
pub struct Entered {
    /// Its id.
    pub id: String,
    /// Which it is of those that are open, below [`MAX_SESSIONS`].
    pub number: u32,
    /// Whether it may change anything.
    pub control: bool,
    /// What its forms have to send.
    pub csrf: Zeroizing<String>,
    /// Its connections that are free.
    pub connections: Arc<Semaphore>,
}

/// Why a request does not enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There is no such session, or no more.
    Unknown,
    /// The session asks too much: one more may be asked after this time.
    TooFast(Duration),
    /// The session has too many connections.
    Crowded,
}

/// All links and sessions.
#[derive(Debug, Default)]
pub struct Sessions {
    links: Vec<Link>,
    sessions: Vec<Session>,
}

impl Sessions {
    /// Makes a link; returns its token.
    pub fn create_link(&mut self, control: bool, random: [u8; 32], now: Duration) -> Zeroizing<String> {
        self.expire(now);
        if self.links.len() >= MAX_LINKS {
            self.links.remove(0);
        }
        let token = Zeroizing::new(random);
        let text = Zeroizing::new(BASE64URL_NOPAD.encode(&*token));
        self.links.push(Link { token, control, made: now });
        text
    }

    /// Opens a session by the token of a link, which is used up then; returns the value of its cookie.
    pub fn redeem(&mut self, shown: &str, random: &SessionSeed, now: Duration) -> Option<Zeroizing<String>> {
        self.expire(now);
        let shown = decode(shown)?;
        let index = self.links.iter().position(|link| is(&link.token, &shown))?;
        let control = self.links.swap_remove(index).control;
        if self.sessions.len() >= MAX_SESSIONS {
            let idle = self.sessions.iter().enumerate().min_by_key(|(_, session)| session.used);
            let idle = idle.map(|(index, _)| index)?;
            self.sessions.swap_remove(idle);
        }
        let number = (0..).find(|number| self.sessions.iter().all(|session| session.number != *number))?;
        let mut token = Zeroizing::new([0; 32]);
        token.copy_from_slice(&random[..32]);
        let cookie = Zeroizing::new(BASE64URL_NOPAD.encode(&*token));
        self.sessions.push(Session {
            id: HEXLOWER.encode(&random[48..]),
            number,
            token,
            csrf: Zeroizing::new(BASE64URL_NOPAD.encode(&random[32..48])),
            control,
            opened: now,
            used: now,
            requests: Bucket::default(),
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        });
        Some(cookie)
    }

    /// A request shows this cookie.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn enter(&mut self, cookie: &str, now: Duration) -> Result<Entered, Refused> {
        self.expire(now);
        let shown = decode(cookie).ok_or(Refused::Unknown)?;
        let session = self.sessions.iter_mut().find(|session| is(&session.token, &shown));
        let session = session.ok_or(Refused::Unknown)?;
        session.used = now;
        if !session.requests.try_take(REQUESTS, now) {
            return Err(Refused::TooFast(session.requests.wait(REQUESTS, now)));
        }
        Ok(Entered {
            id: session.id.clone(),
            number: session.number,
            control: session.control,
            csrf: session.csrf.clone(),
            connections: Arc::clone(&session.connections),
        })
    }

    /// Whether a session is still open.
    #[must_use]
    pub fn is_open(&self, id: &str, now: Duration) -> bool {
        self.sessions.iter().any(|session| session.id == id && !session.is_over(now))
    }

    /// The sessions that are open.
    pub fn list(&mut self, now: Duration) -> Vec<webd::Session> {
        self.expire(now);
        let report = |session: &Session| webd::Session {
            id: session.id.clone(),
            control: session.control,
            age: now.saturating_sub(session.opened).as_secs(),
            idle: now.saturating_sub(session.used).as_secs(),
            expires_in: (session.opened + SESSION_LIFETIME).saturating_sub(now).as_secs(),
        };
        self.sessions.iter().map(report).collect()
    }

    /// Ends the session with this id; without one all of them, and forgets all links. Returns how many ended.
    pub fn end(&mut self, id: Option<&str>) -> u64 {
        let before = self.sessions.len();
        match id {
            Some(id) => self.sessions.retain(|session| session.id != id),
            None => {
                self.sessions.clear();
                self.links.clear();
            }
        }
        (before - self.sessions.len()) as u64
    }

    fn expire(&mut self, now: Duration) {
        self.links.retain(|link| now < link.made + LINK_LIFETIME);
        self.sessions.retain(|session| !session.is_over(now));
    }
}

impl Session {
    fn is_over(&self, now: Duration) -> bool {
        now >= self.opened + SESSION_LIFETIME
    }
}

fn decode(text: &str) -> Option<Token> {
    let bytes = Zeroizing::new(BASE64URL_NOPAD.decode(text.as_bytes()).ok()?);
    let mut token = Zeroizing::new([0; 32]);
    if bytes.len() != token.len() {
        return None;
    }
    token.copy_from_slice(&bytes);
    Some(token)
}

/// Whether two tokens are the same, in a time that says nothing of them.
fn is(token: &Token, shown: &Token) -> bool {
    token.as_slice().ct_eq(shown.as_slice()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn seed(number: u8) -> SessionSeed {
        [number; 56]
    }

    fn open(sessions: &mut Sessions, number: u8, now: Duration) -> Zeroizing<String> {
        let link = sessions.create_link(true, [number; 32], now);
        sessions.redeem(&link, &seed(number), now).unwrap()
    }

    #[test]
    fn a_link_opens_one_session_and_no_second() {
        let mut sessions = Sessions::default();
        let link = sessions.create_link(false, [1; 32], SECOND);
        let cookie = sessions.redeem(&link, &seed(2), SECOND).unwrap();
        assert!(sessions.redeem(&link, &seed(3), SECOND).is_none(), "it was replayed");
        let entered = sessions.enter(&cookie, SECOND).unwrap();
        assert!(!entered.control);
        // A link is no cookie.
        assert_eq!(sessions.enter(&link, SECOND).unwrap_err(), Refused::Unknown);
    }

    #[test]
    fn a_link_expires() {
        let mut sessions = Sessions::default();
        let link = sessions.create_link(true, [1; 32], SECOND);
        assert!(sessions.redeem(&link, &seed(2), SECOND + LINK_LIFETIME).is_none());
        assert!(sessions.links.is_empty());
    }

    #[test]
    fn a_session_expires_however_much_it_is_used() {
        let mut sessions = Sessions::default();
        let cookie = open(&mut sessions, 1, Duration::ZERO);
        let mut now = Duration::ZERO;
        while now < SESSION_LIFETIME {
            assert!(sessions.enter(&cookie, now).is_ok());
            now += SESSION_LIFETIME / 7;
        }
        assert_eq!(sessions.enter(&cookie, now).unwrap_err(), Refused::Unknown);
        assert!(sessions.sessions.is_empty());
    }

    #[test]
    fn what_is_no_token_opens_nothing() {
        let mut sessions = Sessions::default();
        open(&mut sessions, 1, SECOND);
        for shown in ["", "x", "====", &"A".repeat(43), &"A".repeat(44), "\u{1f980}"] {
            assert!(sessions.redeem(shown, &seed(2), SECOND).is_none());
            assert_eq!(sessions.enter(shown, SECOND).unwrap_err(), Refused::Unknown);
        }
    }

    #[test]
    fn a_flood_of_wrong_tokens_locks_nobody_out() {
        let mut sessions = Sessions::default();
        let link = sessions.create_link(true, [1; 32], SECOND);
        for number in 2..=255 {
            assert!(sessions.redeem(&BASE64URL_NOPAD.encode(&[number; 32]), &seed(9), SECOND).is_none());
        }
        assert!(sessions.redeem(&link, &seed(2), SECOND).is_some());
    }

    #[test]
    fn links_and_sessions_are_bounded() {
        let mut sessions = Sessions::default();
        let links: Vec<_> = (0..20).map(|number| sessions.create_link(true, [number; 32], SECOND)).collect();
        assert_eq!(sessions.links.len(), MAX_LINKS);
        assert!(sessions.redeem(&links[0], &seed(0), SECOND).is_none(), "the oldest went");
        sessions.links.clear();
        let first = open(&mut sessions, 100, SECOND);
        let cookies: Vec<_> = (1..=MAX_SESSIONS)
            .map(|number| {
                let now = SECOND * u32::try_from(number).unwrap();
                assert!(number == MAX_SESSIONS || sessions.enter(&first, now).is_ok());
                open(&mut sessions, u8::try_from(number).unwrap(), now)
            })
            .collect();
        assert_eq!(sessions.sessions.len(), MAX_SESSIONS);
        let mut numbers: Vec<_> = sessions.sessions.iter().map(|session| session.number as usize).collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..MAX_SESSIONS), "each has a number of its own");
        let now = SECOND * 40;
        assert!(sessions.enter(&first, now).is_ok(), "it was used");
        assert_eq!(
            sessions.enter(&cookies[0], now).unwrap_err(),
            Refused::Unknown,
            "it was idle for longest"
        );
    }

    #[test]
    fn a_session_that_asks_too_much_waits_and_others_do_not() {
        let mut sessions = Sessions::default();
        let (fast, other) = (open(&mut sessions, 1, SECOND), open(&mut sessions, 2, SECOND));
        let passed = (0..100).filter(|_| sessions.enter(&fast, SECOND).is_ok()).count();
        assert_eq!(passed, 60);
        assert!(matches!(sessions.enter(&fast, SECOND), Err(Refused::TooFast(wait)) if !wait.is_zero()));
        assert!(sessions.enter(&other, SECOND).is_ok());
        assert!(sessions.enter(&fast, SECOND * 2).is_ok());
    }

    #[test]
    fn sessions_are_listed_and_ended() {
        let mut sessions = Sessions::default();
        let (one, two) = (open(&mut sessions, 1, SECOND), open(&mut sessions, 2, SECOND));
        let listed = sessions.list(SECOND * 3);
        assert_eq!(listed.len(), 2);
        assert_eq!((listed[0].age, listed[0].expires_in), (2, 86_398));
        assert_eq!(sessions.end(Some("nothing")), 0);
        assert_eq!(sessions.end(Some(&listed[0].id)), 1);
        assert!(!sessions.is_open(&listed[0].id, SECOND) && sessions.is_open(&listed[1].id, SECOND));
        assert_eq!(sessions.enter(&one, SECOND).unwrap_err(), Refused::Unknown);
        assert!(sessions.enter(&two, SECOND).is_ok());
        let link = sessions.create_link(true, [7; 32], SECOND);
        assert_eq!(sessions.end(None), 1);
        assert!(sessions.redeem(&link, &seed(8), SECOND).is_none(), "links end with all sessions");
    }
}

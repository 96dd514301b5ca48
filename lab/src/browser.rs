//! A web browser that sees nothing but the pages of nodes: Chromium, driven over WebDriver.
//!
//! It runs in a namespace of its own whose only network is loopback, so that a page that loads something from elsewhere
//! shows. Ports of that loopback lead to ports of the nodes.
//!
//! WebDriver (<https://www.w3.org/TR/webdriver2/>) is JSON over HTTP, of which a dozen requests are needed. The libraries
//! for it are not used: thirtyfour has `serde_json` keep the order of keys in every program that is built with it, and
//! what fantoccini depends on is not under a license that `deny.toml` allows.

use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::process::{Child, Spawn};
use crate::sandbox::DIRECTORY;
use crate::{Failure, netns, testing, wait};

const CHROMIUM: &str = "/usr/bin/chromium";
const CHROMEDRIVER: &str = "/usr/bin/chromedriver";

/// The namespace.
pub const NAMESPACE: &str = "browser";

/// Where chromedriver listens in it.
const DRIVER: u16 = 9515;

/// How long a browser may take to start, or a page to become what is expected.
const SOON: Duration = Duration::from_secs(30);

/// The key under which WebDriver has the reference to an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Keys that have no character, as WebDriver has them.
pub mod key {
    /// Tab.
    pub const TAB: char = '\u{e004}';
    /// Enter.
    pub const ENTER: char = '\u{e007}';
}

/// Why there can be no browser, if there can be none.
#[must_use]
pub fn missing() -> Option<Failure> {
    let there = Path::new(CHROMIUM).exists() && Path::new(CHROMEDRIVER).exists();
    (!there).then(|| Failure::new("there is no Chromium: `apt-get install chromium chromium-driver`"))
}

/// The host on which browsers run, with the driver that starts them.
#[derive(Debug)]
pub struct Host {
    _driver: Child,
}

impl Host {
    /// Makes the namespace and starts the driver.
    ///
    /// # Errors
    /// If the kernel refuses, or the driver does not answer.
    pub async fn start() -> Result<Self, Failure> {
        netns::create(NAMESPACE)?;
        let log = Path::new(DIRECTORY).join("chromedriver.log");
        let driver = Spawn::new(Path::new(CHROMEDRIVER), [OsString::from(format!("--port={DRIVER}"))]);
        let driver = driver.namespace(Some(NAMESPACE)).log(&log).start()?;
        wait::until("chromedriver is ready", SOON, async || {
            Ok(ask("GET", "/status", &Value::Null).await?["ready"] == true)
        })
        .await?;
        Ok(Self { _driver: driver })
    }

    /// Has a port of the browsers' loopback lead to the same port of a node's.
    ///
    /// # Errors
    /// If the port is taken.
    pub fn reach(&self, node: &str, port: u16) -> Result<(), Failure> {
        let node = node.to_owned();
        self.serve(port, move |near| {
            let far = testing::tcp(&node, port)?;
            let (mut from, mut to) = (near.try_clone()?, far.try_clone()?);
            std::thread::spawn(move || {
                let copied = io::copy(&mut from, &mut to);
                // Whoever is still there learns that the other side has gone.
                let _ = to.shutdown(Shutdown::Both);
                copied
            });
            io::copy(&mut &far, &mut &near)?;
            near.shutdown(Shutdown::Both)
        })
    }

    /// Serves one page on a port of the browsers' loopback, whatever path is asked for: that of another origin.
    ///
    /// # Errors
    /// If the port is taken.
    pub fn serve_page(&self, port: u16, page: &'static str) -> Result<(), Failure> {
        self.serve(port, move |mut stream| {
            let mut lines = BufReader::new(stream.try_clone()?).lines();
            while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
                page.len()
            )
        })
    }

    fn serve(
        &self,
        port: u16,
        serve: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static,
    ) -> Result<(), Failure> {
        let listener = netns::within(NAMESPACE, move || Ok(TcpListener::bind(("127.0.0.1", port))?))?;
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let serve = serve.clone();
                // A browser that goes away in the middle is none of the others' business.
                std::thread::spawn(move || serve(stream));
            }
        });
        Ok(())
    }

    /// Starts a browser that knows nothing yet, with more arguments for Chromium.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn open(&self, name: &str, more: &[String]) -> Result<Browser, Failure> {
        // Not where logs of failed tests are looked for: it complains of all that this host lacks.
        let profile = format!("--user-data-dir=/run/chromium-{name}");
        let mut args: Vec<_> = [
            "--headless=new",
            // Its own sandbox takes namespaces that it does not get as root in here.
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            &profile,
        ]
        .map(str::to_owned)
        .to_vec();
        args.extend(more.iter().cloned());
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {
                "binary": CHROMIUM,
                "args": args,
                "perfLoggingPrefs": { "enableNetwork": true, "enablePage": false },
            },
            "goog:loggingPrefs": { "performance": "ALL", "browser": "ALL" },
        } } });
        let opened = ask("POST", "/session", &wanted).await?;
        let session =
            opened["sessionId"].as_str().ok_or_else(|| Failure::new(format!("no session: {opened}")))?;
        Ok(Browser { session: session.to_owned() })
    }
}

/// Asks the driver.
async fn ask(method: &'static str, path: &str, body: &Value) -> Result<Value, Failure> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{DRIVER}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let exchange = move || -> io::Result<(String, String)> {
        let mut stream = testing::tcp(NAMESPACE, DRIVER)?;
        stream.write_all(request.as_bytes())?;
        let mut reader = BufReader::new(stream);
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let before = head.len();
            reader.read_line(&mut head)?;
            match head[before..].trim() {
                "" => break,
                line => {
                    if let Some((_, value)) = line.to_ascii_lowercase().split_once("content-length:") {
                        length = value.trim().parse().map_err(io::Error::other)?;
                    }
                }
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        Ok((head, String::from_utf8(body).map_err(io::Error::other)?))
    };
    let (head, body) =
        tokio::task::spawn_blocking(exchange).await.map_err(|error| Failure::new(error.to_string()))??;
    let mut answer: Value = serde_json::from_str(&body)
        .map_err(|error| Failure::new(format!("{path}: {error}: {head}{body}")))?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(Failure::new(format!(
            "{path}: {}: {}",
            answer["value"]["error"], answer["value"]["message"]
        )));
    }
    Ok(answer["value"].take())
}

/// A browser with one window.
#[derive(Debug)]
pub struct Browser {
    session: String,
}

impl Browser {
    async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        ask("POST", &format!("/session/{}{path}", self.session), body).await
    }

    /// Goes to a page, as one types its address.
    ///
    /// # Errors
    /// If nobody answers there.
    pub async fn go(&self, url: &str) -> Result<(), Failure> {
        self.post("/url", &json!({ "url": url })).await.map(drop)
    }

    /// Runs a script in the page, with `arguments`; what it returns, waited for if that is a promise.
    ///
    /// # Errors
    /// If it throws.
    pub async fn run(&self, script: &str, arguments: Value) -> Result<Value, Failure> {
        self.post("/execute/sync", &json!({ "script": script, "args": arguments })).await
    }

    /// What a person sees of the page.
    ///
    /// # Errors
    /// If there is no page.
    pub async fn text(&self) -> Result<String, Failure> {
        let text = self.run("return document.body.innerText", json!([])).await?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// The path of the page, with what stands behind its question mark.
    ///
    /// # Errors
    /// If there is no page.
    pub async fn path(&self) -> Result<String, Failure> {
        let path = self.run("return location.pathname + location.search", json!([])).await?;
        Ok(path.as_str().unwrap_or_default().to_owned())
    }

    async fn element(&self, css: &str) -> Result<String, Failure> {
        let found = self.post("/element", &json!({ "using": "css selector", "value": css })).await?;
        Ok(found[ELEMENT].as_str().unwrap_or_default().to_owned())
    }

    /// Clicks on an element, which must be visible and nothing before it.
    ///
    /// # Errors
    /// If it is not.
    pub async fn click(&self, css: &str) -> Result<(), Failure> {
        let element = self.element(css).await?;
        self.post(&format!("/element/{element}/click"), &json!({})).await.map(drop)
    }

    /// Types into an element; into one for files, their paths.
    ///
    /// # Errors
    /// If there is none.
    pub async fn fill(&self, css: &str, text: &str) -> Result<(), Failure> {
        let element = self.element(css).await?;
        self.post(&format!("/element/{element}/value"), &json!({ "text": text })).await.map(drop)
    }

    /// Types on the keyboard.
    ///
    /// # Errors
    /// If there is no page.
    pub async fn press(&self, keys: &[char]) -> Result<(), Failure> {
        let steps: Vec<_> = keys
            .iter()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key })))
            .collect();
        let actions = json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": steps }] });
        self.post("/actions", &actions).await.map(drop)
    }

    /// Sends a command of the Chrome DevTools Protocol.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn devtools(&self, command: &str, params: Value) -> Result<Value, Failure> {
        self.post("/goog/cdp/execute", &json!({ "cmd": command, "params": params })).await
    }

    /// Makes the window this wide, in pixels, and dark or light.
    ///
    /// # Errors
    /// If it cannot be.
    pub async fn look(&self, width: u32, theme: &str) -> Result<(), Failure> {
        let height = width * 9 / 16;
        let metrics =
            json!({ "width": width, "height": height.max(640), "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await?;
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": theme }] });
        self.devtools("Emulation.setEmulatedMedia", features).await.map(drop)
    }

    /// A picture of the whole page, as PNG.
    ///
    /// # Errors
    /// If it cannot be taken.
    pub async fn picture(&self) -> Result<Vec<u8>, Failure> {
        let taken = self.devtools("Page.captureScreenshot", json!({ "captureBeyondViewport": true })).await?;
        BASE64
            .decode(taken["data"].as_str().unwrap_or_default().as_bytes())
            .map_err(|error| Failure::new(error.to_string()))
    }

    /// What the page has done since it was asked last, from one of the driver's logs.
    ///
    /// # Errors
    /// If there is no such log.
    pub async fn log(&self, name: &str) -> Result<Vec<String>, Failure> {
        let entries = self.post("/se/log", &json!({ "type": name })).await?;
        let entries = entries.as_array().into_iter().flatten();
        Ok(entries.filter_map(|entry| entry["message"].as_str().map(str::to_owned)).collect())
    }

    /// Waits until a script returns true.
    ///
    /// # Errors
    /// If it does not in time.
    pub async fn until(&self, what: &str, script: &str) -> Result<(), Failure> {
        let result = wait::until(what, SOON, async || Ok(self.run(script, json!([])).await? == true)).await;
        match result {
            Ok(()) => Ok(()),
            Err(failure) => {
                let text = self.text().await.unwrap_or_default();
                Err(Failure::new(format!("{failure}; the page says:\n{text}")))
            }
        }
    }

    /// Waits until the page has a text.
    ///
    /// # Errors
    /// If it does not get it in time.
    pub async fn until_shown(&self, text: &str) -> Result<(), Failure> {
        // Between two pages there is no body.
        let script = format!("return document.body?.innerText.includes({}) ?? false", json!(text));
        self.until(&format!("the page shows {text:?}"), &script).await
    }

    /// Ends it.
    ///
    /// # Errors
    /// If the driver does not answer.
    pub async fn quit(self) -> Result<(), Failure> {
        ask("DELETE", &format!("/session/{}", self.session), &Value::Null).await.map(drop)
    }
}

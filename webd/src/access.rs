//! Which requests are looked at.
//!
//! Everybody on this host can connect, and so can web pages in its browsers. A page whose own name leads here (DNS
//! rebinding) says that name in `Host`. A page of another origin that sends a form says its own in `Origin`; browsers
//! send that with every POST. The cookie is `SameSite=Strict`, but ports are of one site: a page of another port of
//! this host is held off by `Origin` and by the token of the session's forms, and with a GET by `Sec-Fetch-Site`.

use hyper::header::{COOKIE, HOST, HeaderMap, HeaderName, ORIGIN};
use hyper::{Method, Uri};
use i2plan_http::one;
use subtle::ConstantTimeEq as _;

use super::site::Site;

/// What browsers say of where a request comes from.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why such a request is not looked at.
pub const FOREIGN: &str = "The request comes from another site.";

/// Checks whether a request is for this listener, as far as the head says; returns its `Host`.
///
/// # Errors
/// A sentence that says why it is not looked at.
pub fn check_host<'a>(uri: &Uri, headers: &'a HeaderMap, site: &Site) -> Result<&'a str, &'static str> {
    let host = one(headers, HOST).and_then(|host| host.to_str().ok());
    host.filter(|host| uri.authority().is_none() && site.is_here(host))
        .ok_or("A Host that is an address or a name of this listener, with the port, is expected.")
}

/// Checks who sends a request that may come from a browser, as far as the head says.
///
/// # Errors
/// A sentence that says why it is not looked at.
pub fn check(method: &Method, uri: &Uri, headers: &HeaderMap, site: &Site) -> Result<(), &'static str> {
    let host = check_host(uri, headers, site)?;
    if method == Method::GET {
        return Ok(());
    }
    let origin = one(headers, ORIGIN).and_then(|origin| origin.to_str().ok());
    if !origin.is_some_and(|origin| site.is_own_origin(origin, host)) {
        return Err("The request comes from another page.");
    }
    if headers.get_all(SEC_FETCH_SITE).iter().any(|site| site != "same-origin") {
        return Err(FOREIGN);
    }
    Ok(())
}

/// Whether a browser says that another site, or another port, has it send the request. What has not come from a page,
/// such as an address that was typed, comes from nowhere else.
#[must_use]
pub fn is_foreign(headers: &HeaderMap) -> bool {
    headers.get_all(SEC_FETCH_SITE).iter().any(|site| site != "same-origin" && site != "none")
}

/// The port by which the browser asks.
#[must_use]
pub fn port(headers: &HeaderMap, site: &Site) -> u16 {
    let host = one(headers, HOST).and_then(|host| host.to_str().ok());
    host.and_then(|host| site.port(host)).unwrap_or_default()
}

/// The name of the cookie. Cookies are of all ports of a host; that of another node has another name.
#[must_use]
pub fn cookie_name(port: u16) -> String {
    format!("i2plan-{port}")
}

/// The values of cookies with the name of the session's. A page of another port of the host can have the browser send more
/// of them, before this one.
pub fn cookies(headers: &HeaderMap, port: u16) -> impl Iterator<Item = &str> {
    let name = cookie_name(port);
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter_map(move |(key, value)| (key == name).then_some(value))
}

/// Whether a form, or a program, has sent the token of its session.
#[must_use]
pub fn is_own_form(expected: &str, sent: Option<&str>) -> bool {
    sent.is_some_and(|sent| expected.as_bytes().ct_eq(sent.as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn passes(method: Method, uri: &str, pairs: &[(&'static str, &str)]) -> bool {
        passes_at("127.0.0.1:8080", method, uri, pairs)
    }

    fn passes_at(address: &str, method: Method, uri: &str, pairs: &[(&'static str, &str)]) -> bool {
        let site = Site::new(address.parse().unwrap(), None);
        check(&method, &uri.parse().unwrap(), &headers(pairs), &site).is_ok()
    }

    #[test]
    fn a_name_made_to_lead_here_is_refused() {
        for host in ["evil.example:8080", "localhost.evil.example:8080", "127.0.0.1:81", "127.0.0.1", ""] {
            assert!(!passes(Method::GET, "/", &[("host", host)]), "{host}");
        }
        assert!(!passes(Method::GET, "/", &[]));
        let twice = [("host", "127.0.0.1:8080"), ("host", "evil.example:8080")];
        assert!(!passes(Method::GET, "/", &twice));
        assert!(!passes(Method::GET, "http://127.0.0.1:8080/", &[("host", "127.0.0.1:8080")]));
        for host in ["127.0.0.1:8080", "localhost:8080", "[::1]:8080"] {
            assert!(passes(Method::GET, "/", &[("host", host)]), "{host}");
        }
    }

    #[test]
    fn a_form_of_another_page_is_refused() {
        let host = ("host", "127.0.0.1:8080");
        let own = ("origin", "http://127.0.0.1:8080");
        assert!(passes(Method::POST, "/bans", &[host, own]));
        assert!(passes(Method::POST, "/bans", &[host, own, ("sec-fetch-site", "same-origin")]));
        for origin in [
            "http://evil.example",
            "null",
            "http://127.0.0.1:9000",
            "http://localhost:8080",
            "https://127.0.0.1:8080",
        ] {
            assert!(!passes(Method::POST, "/bans", &[host, ("origin", origin)]), "{origin}");
        }
        assert!(!passes(Method::POST, "/bans", &[host]), "no browser leaves it out");
        for site in ["cross-site", "same-site", "none"] {
            assert!(!passes(Method::POST, "/bans", &[host, own, ("sec-fetch-site", site)]), "{site}");
        }
        for method in [Method::PUT, Method::DELETE, Method::OPTIONS] {
            assert!(!passes(method.clone(), "/bans", &[host]), "{method}");
        }
    }

    #[test]
    fn a_form_comes_to_a_unix_socket_by_the_port_that_leads_there() {
        let posts = |host: &str, origin: &str| {
            passes_at("unix:/s", Method::POST, "/bans", &[("host", host), ("origin", origin)])
        };
        for origin in ["http://localhost:9000", "https://localhost:9000"] {
            assert!(posts("localhost:9000", origin), "{origin}");
        }
        for origin in ["http://localhost:9001", "http://127.0.0.1:9000", "http://evil.example", "null"] {
            assert!(!posts("localhost:9000", origin), "{origin}");
        }
        assert!(!posts("evil.example", "http://evil.example"));
    }

    #[test]
    fn the_cookie_of_this_node_is_found_among_others() {
        let found = |value: &str| cookies(&headers(&[("cookie", value)]), 8080).collect::<Vec<_>>().join(",");
        assert_eq!(found("a=b; i2plan-8080=x; c=d"), "x");
        assert_eq!(found("i2plan-8080=y; i2plan-8080=x"), "y,x");
        assert_eq!(found("i2plan-8081=x; xi2plan-8080=y"), "");
        assert_eq!(found("i2plan-8080"), "");
    }

    #[test]
    fn a_form_needs_the_token_of_its_session() {
        assert!(is_own_form("token", Some("token")));
        for sent in [None, Some(""), Some("toke"), Some("token "), Some("tokem")] {
            assert!(!is_own_form("token", sent), "{sent:?}");
        }
    }
}

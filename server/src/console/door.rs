//! What no request gets past: it must be meant for this console and come from its
//! own page. A foreign page in the operator's browser can neither name the console
//! by a name of its own (DNS rebinding) nor ask it anything (request forgery).
//! Fetch Metadata: <https://www.w3.org/TR/fetch-metadata/>.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::{HOST, HeaderMap, HeaderName, ORIGIN};
use http::{HeaderValue, StatusCode, Uri};

use super::Console;
use super::answer::{Refused, with_headers};

/// The header that every question of the page has: a foreign page's browser would
/// have to ask the console whether it may send it, and is told no.
pub(super) const MARK: HeaderName = HeaderName::from_static("berth-console");
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// By which names this console may be called.
pub(super) struct Door {
    hosts: Vec<String>,
    scheme: &'static str,
}

impl Door {
    /// The door of a console at this address.
    pub(super) fn new(address: SocketAddr, names: &[String], tls: bool) -> Self {
        let mut hosts: Vec<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        let ip = address.ip();
        if !ip.is_unspecified() {
            hosts.push(ip.to_string());
        }
        if ip.is_loopback() || ip.is_unspecified() {
            hosts.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
        }
        Self { hosts, scheme: if tls { "https" } else { "http" } }
    }

    fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refused> {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        if !self.hosts.contains(&without_port(host)) {
            return Err(refused(
                StatusCode::MISDIRECTED_REQUEST,
                "this console is not known by the host that was asked for; add it to console.names",
            ));
        }
        let own = format!("{}://{host}", self.scheme);
        if headers.get(ORIGIN).is_some_and(|origin| !origin.as_bytes().eq_ignore_ascii_case(own.as_bytes())) {
            return Err(refused(StatusCode::FORBIDDEN, "this came from a page of another origin"));
        }
        if !uri.path().starts_with("/api") {
            return Ok(());
        }
        // Browsers that do not say where a request comes from are held by the mark.
        if headers.get(SITE).is_some_and(|site| site != HeaderValue::from_static("same-origin")) {
            return Err(refused(StatusCode::FORBIDDEN, "this came from a page of another site"));
        }
        if !headers.contains_key(MARK) {
            return Err(refused(StatusCode::FORBIDDEN, "the header Berth-Console is missing"));
        }
        Ok(())
    }
}

/// Lets in what may come in, and gives every answer its headers.
pub(super) async fn guard(State(console): State<Arc<Console>>, request: Request, next: Next) -> Response {
    let is_api = request.uri().path().starts_with("/api");
    let answer = match console.door.check(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into(),
    };
    with_headers(answer, is_api)
}

fn refused(status: StatusCode, why: &'static str) -> Refused {
    Refused::new(status, why)
}

/// The host of `host`, `host:port` or `[address]:port`, as names are compared.
fn without_port(host: &str) -> String {
    let bare = match host.strip_prefix('[') {
        Some(address) => address.split(']').next(),
        None => host.split(':').next(),
    };
    bare.unwrap_or_default().trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(door: &Door, path: &str, headers: &[(&'static str, &str)]) -> Option<StatusCode> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"));
        }
        let uri = Uri::try_from(path).expect("a path");
        door.check(&uri, &map).err().map(|refused| refused.status())
    }

    #[test]
    fn the_console_answers_to_its_own_names_only() {
        let door = Door::new(([127, 0, 0, 1], 7490).into(), &["Console.example.com".to_owned()], false);
        for host in ["127.0.0.1:7490", "localhost:8080", "[::1]:7490", "CONSOLE.example.com", "localhost.:1"]
        {
            assert_eq!(asks(&door, "/", &[("host", host)]), None, "{host}");
        }
        for host in
            ["evil.example", "127.0.0.1.evil.example:7490", "", "127.0.0.2", "console.example.com.evil"]
        {
            assert_eq!(asks(&door, "/", &[("host", host)]), Some(StatusCode::MISDIRECTED_REQUEST), "{host}");
        }
        let everywhere = Door::new(([0, 0, 0, 0], 7490).into(), &[], true);
        assert_eq!(
            asks(&everywhere, "/", &[("host", "0.0.0.0:7490")]),
            Some(StatusCode::MISDIRECTED_REQUEST)
        );
    }

    #[test]
    fn only_the_consoles_own_page_may_ask() {
        let door = Door::new(([127, 0, 0, 1], 7490).into(), &[], false);
        let host = ("host", "127.0.0.1:7490");
        let mark = ("berth-console", "1");
        assert_eq!(asks(&door, "/api/joins", &[host, mark]), None);
        assert_eq!(
            asks(
                &door,
                "/api/joins",
                &[host, mark, ("origin", "http://127.0.0.1:7490"), ("sec-fetch-site", "same-origin")]
            ),
            None
        );
        for wrong in [
            vec![host],
            vec![host, mark, ("origin", "http://127.0.0.1:8000")],
            vec![host, mark, ("origin", "https://127.0.0.1:7490")],
            vec![host, mark, ("origin", "null")],
            vec![host, mark, ("sec-fetch-site", "same-site")],
            vec![host, mark, ("sec-fetch-site", "none")],
        ] {
            assert_eq!(asks(&door, "/api/joins", &wrong), Some(StatusCode::FORBIDDEN), "{wrong:?}");
        }
        assert_eq!(asks(&door, "/", &[host, ("sec-fetch-site", "cross-site")]), None, "links may lead here");
    }
}

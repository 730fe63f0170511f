//! What lies at a URL, over HTTPS.

use http::header::{CONTENT_LENGTH, HOST, LOCATION, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use lab_core::Link;
use lab_core::execute::dial;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// The most that is fetched: the largest bundles there are, an operator's definitions, have 5 MB.
const LARGEST: usize = 64 << 20;
/// How long connecting may take, handshake included.
const CONNECT: Duration = Duration::from_secs(10);
/// How long all of it may take.
const WHOLE: Duration = Duration::from_secs(120);
/// How often one is sent elsewhere. Release assets of GitHub are one redirect away.
const REDIRECTS: usize = 5;

/// Returns what lies at `url`, wherever it is redirected to.
pub(super) async fn fetch(link: &Link, roots: Arc<RootCertStore>, url: &str) -> Result<Vec<u8>, String> {
    // The provider is named: the process-wide one belongs to the user's program.
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tls = TlsConnector::from(Arc::new(config));
    let mut place = Place::of(url)?;
    let whole = async {
        for _ in 0..=REDIRECTS {
            match get(link, &tls, &place).await? {
                Answer::Content(content) => return Ok(content),
                Answer::Elsewhere(to) => place = place.follow(&to)?,
            }
        }
        Err(format!("it was redirected more than {REDIRECTS} times"))
    };
    timeout(WHOLE, whole).await.unwrap_or_else(|_| Err(format!("it took longer than {} s", WHOLE.as_secs())))
}

/// Returns the authorities of this machine.
pub(super) fn roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable > 0 {
        return Ok(roots);
    }
    let why: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
    let why = if why.is_empty() { String::new() } else { format!(" ({})", why.join("; ")) };
    Err(format!(
        "this machine has no authorities to judge a server by{why}: install its package ca-certificates, or name a file of \
         them in SSL_CERT_FILE"
    ))
}

/// Where something lies.
#[derive(Clone, Debug, PartialEq)]
struct Place {
    host: String,
    port: u16,
    path: String,
}

impl Place {
    fn of(url: &str) -> Result<Place, String> {
        let uri: Uri = url.parse().map_err(|error| format!("{url} is not an address: {error}"))?;
        match (uri.scheme_str(), uri.host()) {
            (Some("https"), Some(host)) => Ok(Place {
                host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
                port: uri.port_u16().unwrap_or(443),
                path: uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
            }),
            _ => Err(format!("{url} is not fetched, since it does not begin with https://")),
        }
    }

    /// Returns where a redirect leads (RFC 9110, section 10.2.2).
    fn follow(&self, to: &str) -> Result<Place, String> {
        let to = to.split('#').next().unwrap_or_default();
        let elsewhere = |path: &str| Place { path: path.to_owned(), ..self.clone() };
        // A scheme ends at the first colon, and no path segment before one has a colon.
        let absolute = to.split(['/', '?']).next().is_some_and(|first| first.contains(':'));
        match to {
            _ if absolute => Place::of(to).map_err(|why| format!("it was redirected: {why}")),
            _ if to.starts_with("//") => Place::of(&format!("https:{to}")),
            _ if to.starts_with('/') => Ok(elsewhere(to)),
            _ => {
                let dir = self.path.split('?').next().unwrap_or_default().rsplit_once('/').map_or("", |(dir, _)| dir);
                Ok(elsewhere(&format!("{dir}/{to}")))
            }
        }
    }

    /// Returns what the server is called in a request.
    fn host(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == 443 { host } else { format!("{host}:{}", self.port) }
    }
}

enum Answer {
    Content(Vec<u8>),
    Elsewhere(String),
}

async fn get(link: &Link, tls: &TlsConnector, place: &Place) -> Result<Answer, String> {
    let name =
        ServerName::try_from(place.host.clone()).map_err(|_| format!("{} is no name of a server", place.host))?;
    let connect = async {
        // The link's own message names the target already.
        let stream = dial(link, &place.host, place.port).await.map_err(|error| error.to_string())?;
        let stream = tls.connect(name, stream).await.map_err(|error| format!("{}: {error}", place.host()))?;
        handshake(TokioIo::new(stream)).await.map_err(|error| format!("{}: {error}", place.host()))
    };
    let (mut sender, connection) = timeout(CONNECT, connect)
        .await
        .unwrap_or_else(|_| Err(format!("{}: no connection within {} s", place.host(), CONNECT.as_secs())))?;
    // It ends with the runtime, and its errors reach whoever waits for the answer.
    tokio::spawn(connection);
    let request = Request::get(&place.path)
        .header(HOST, place.host())
        // Some servers refuse whoever does not say one.
        .header(USER_AGENT, concat!("lab/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| format!("{}: {error}", place.host()))?;
    let (parts, body) = answer.into_parts();
    if matches!(parts.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        let to = parts.headers.get(LOCATION).and_then(|to| to.to_str().ok());
        let to = to.ok_or_else(|| format!("{} redirects, and does not say where to", place.host()))?;
        return Ok(Answer::Elsewhere(to.to_owned()));
    }
    if parts.status != StatusCode::OK {
        return Err(format!("{} answers {}", place.host(), parts.status));
    }
    let large = || format!("it has more than {} MiB, which is not fetched", LARGEST >> 20);
    let said = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if said.is_some_and(|length| length > LARGEST) {
        return Err(large());
    }
    let content =
        Limited::new(body, LARGEST).collect().await.map_err(|error| match error.is::<LengthLimitError>() {
            true => large(),
            false => format!("{}: {error}", place.host()),
        })?;
    Ok(Answer::Content(content.to_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_leads_where_it_says_and_only_to_https() {
        let from = Place::of("https://example.org:8443/a/b?c").unwrap();
        let check = |to: &str| {
            let to = from.follow(to)?;
            Ok::<String, String>(format!("{}{}", to.host(), to.path))
        };
        assert_eq!(check("https://other.example/x?y#z").unwrap(), "other.example/x?y");
        assert_eq!(check("//other.example/x").unwrap(), "other.example/x");
        assert_eq!(check("/x").unwrap(), "example.org:8443/x");
        assert_eq!(check("x:y/z").unwrap_err(), "it was redirected: x:y/z is not an address: invalid format");
        assert_eq!(check("x/y:z").unwrap(), "example.org:8443/a/x/y:z");
        assert_eq!(
            check("http://example.org/x").unwrap_err(),
            "it was redirected: http://example.org/x is not fetched, since it does not begin with https://"
        );
        assert_eq!(
            check("file:///etc/passwd").unwrap_err(),
            "it was redirected: file:///etc/passwd is not an address: invalid format"
        );
    }

    #[test]
    fn addresses_may_be_of_ipv6() {
        let place = Place::of("https://[::1]:8443/x").unwrap();
        assert_eq!((place.host.as_str(), place.host().as_str()), ("::1", "[::1]:8443"));
    }
}

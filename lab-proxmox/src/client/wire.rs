//! Requests over the wire: which endpoint, over which connection, and what came of it.
//!
//! A connection is made by [`lab_core::execute::dial`] and nothing else, so it goes the way that the run's link says or
//! not at all. A request is sent once: what is repeated, and when, is the engine's to say.

use super::error::{Error, Problem};
use super::tls;
use crate::provider::Proxmox;
use crate::request::{File, Method, Request};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::ext::ReasonPhrase;
use hyper_util::rt::TokioIo;
use lab_core::execute::dial;
use lab_core::{Effect, Link};
use rustls::pki_types::ServerName;
use serde_json::Value;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// The port of the API where an endpoint does not say another.
const PORT: u16 = 8006;
/// How long connecting may take, handshake included.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an answer may take. A node that passes a call on to another one gives up after 30 s and says so.
const ANSWER: Duration = Duration::from_secs(60);
/// How long a connection may lie unused. The server closes it after 5 s, and a request that meets that moment is lost.
const IDLE: Duration = Duration::from_secs(3);
/// The largest answer that is read. The largest there are, lists of a big cluster, have some hundred kilobytes.
const LARGEST: usize = 64 << 20;

/// The way to a cluster.
pub(super) struct Wire {
    link: Link,
    endpoints: Vec<Endpoint>,
    /// The endpoint that answered last.
    preferred: AtomicUsize,
    tls: TlsConnector,
    authorization: HeaderValue,
    idle: Mutex<Vec<Idle>>,
}

struct Endpoint {
    host: String,
    port: u16,
    name: ServerName<'static>,
}

struct Idle {
    sender: SendRequest<Full<Bytes>>,
    endpoint: usize,
    since: SystemTime,
}

/// An answer of the server.
pub(super) struct Answer {
    status: u16,
    phrase: Option<String>,
    body: Bytes,
}

impl Wire {
    pub(super) fn new(config: &Proxmox, link: &Link) -> Result<Wire, String> {
        let endpoints = config.endpoints.iter().map(|text| endpoint(text)).collect::<Result<Vec<_>, _>>()?;
        if endpoints.is_empty() {
            return Err("no endpoint is given".into());
        }
        let token = config.token.get().expose();
        if !token.split_once('=').is_some_and(|(name, secret)| name.contains('!') && !secret.is_empty()) {
            return Err("the token is not of the form USER@REALM!TOKENID=SECRET".into());
        }
        let mut authorization = HeaderValue::from_str(&format!("PVEAPIToken={token}"))
            .map_err(|_| "the token holds characters that it cannot hold".to_owned())?;
        authorization.set_sensitive(true);
        Ok(Wire {
            link: link.clone(),
            endpoints,
            preferred: AtomicUsize::new(0),
            tls: TlsConnector::from(Arc::new(tls::config(link, &config.trust)?)),
            authorization,
            idle: Mutex::default(),
        })
    }

    /// Sends a request and returns the data of the answer.
    pub(super) async fn send(&self, request: &Request) -> Result<Value, Error> {
        let answer = self.exchange(request).await?;
        answer.read(request)
    }

    async fn exchange(&self, request: &Request) -> Result<Answer, Error> {
        if let Some(idle) = self.kept() {
            match self.ask(idle.sender, idle.endpoint, request).await {
                Asked::Answered(answer) => return answer,
                // It was closed meanwhile, and nothing was sent on it.
                Asked::Unsent => {}
            }
        }
        let (sender, endpoint) = self.connect(request).await?;
        match self.ask(sender, endpoint, request).await {
            Asked::Answered(answer) => answer,
            Asked::Unsent => Err(failure(request, Problem::Unreachable, false, "the connection was closed at once")),
        }
    }

    async fn ask(&self, mut sender: SendRequest<Full<Bytes>>, endpoint: usize, request: &Request) -> Asked {
        let broken = |text: String| Asked::Answered(Err(failure(request, Problem::Unreachable, true, &text)));
        let message = match self.message(endpoint, request) {
            Ok(message) => message,
            Err(text) => return Asked::Answered(Err(failure(request, Problem::Refused, false, &text))),
        };
        let exchange = async {
            let response = match sender.try_send_request(message).await {
                Ok(response) => response,
                Err(mut error) => {
                    let unsent = error.take_message().is_some();
                    return Err(if unsent { None } else { Some(error.into_error().to_string()) });
                }
            };
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, LARGEST).collect().await.map_err(|error| Some(error.to_string()))?;
            let phrase = parts.extensions.get::<ReasonPhrase>();
            let phrase = phrase.map(|phrase| String::from_utf8_lossy(phrase.as_bytes()).into_owned());
            Ok(Answer { status: parts.status.as_u16(), phrase, body: body.to_bytes() })
        };
        match timeout(ANSWER, exchange).await {
            Ok(Ok(answer)) => {
                self.preferred.store(endpoint, Ordering::Relaxed);
                // The server closes the connection after whatever it refuses.
                if answer.status < 400 {
                    let idle = Idle { sender, endpoint, since: self.link.clock.now() };
                    self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(idle);
                }
                Asked::Answered(Ok(answer))
            }
            Ok(Err(None)) => Asked::Unsent,
            Ok(Err(Some(text))) => broken(text),
            Err(_) => broken(format!("there was no answer within {} s", ANSWER.as_secs())),
        }
    }

    fn kept(&self) -> Option<Idle> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.link.clock.now();
        idle.retain(|idle| now.duration_since(idle.since).is_ok_and(|idle| idle < IDLE) && !idle.sender.is_closed());
        // Some answers are complete before their connection is ready for the next request.
        let ready = idle.iter().position(|idle| idle.sender.is_ready())?;
        Some(idle.swap_remove(ready))
    }

    /// Connects to the first endpoint that answers, beginning with the one that answered last.
    async fn connect(&self, request: &Request) -> Result<(SendRequest<Full<Bytes>>, usize), Error> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut said = Vec::new();
        let mut untrusted = true;
        for n in 0..self.endpoints.len() {
            let n = (first + n) % self.endpoints.len();
            match timeout(CONNECT, self.establish(&self.endpoints[n])).await {
                Ok(Ok(sender)) => return Ok((sender, n)),
                Ok(Err((problem, text))) => {
                    untrusted &= problem == Problem::Untrusted;
                    said.push(text);
                }
                Err(_) => {
                    untrusted = false;
                    said.push(format!("{}: no connection within {} s", self.endpoints[n].target(), CONNECT.as_secs()));
                }
            }
        }
        let problem = if untrusted { Problem::Untrusted } else { Problem::Unreachable };
        Err(failure(request, problem, false, &said.join("; ")))
    }

    async fn establish(&self, endpoint: &Endpoint) -> Result<SendRequest<Full<Bytes>>, (Problem, String)> {
        let unreachable = |text: String| (Problem::Unreachable, text);
        // The link's own message names the target already.
        let stream =
            dial(&self.link, &endpoint.host, endpoint.port).await.map_err(|error| unreachable(error.to_string()))?;
        let stream = self.tls.connect(endpoint.name.clone(), stream).await.map_err(|error| {
            let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            let problem = match tls {
                Some(rustls::Error::InvalidCertificate(_) | rustls::Error::General(_)) => Problem::Untrusted,
                Some(_) | None => Problem::Unreachable,
            };
            (problem, format!("{}: {error}", endpoint.target()))
        })?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(error.to_string()))?;
        // It ends with the connection, whose errors reach whoever waits for an answer on it.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn message(&self, endpoint: usize, request: &Request) -> Result<http::Request<Full<Bytes>>, String> {
        let host = self.endpoints[endpoint].target();
        let builder = http::Request::builder()
            .method(request.method.name())
            .uri(request.target())
            .header(HOST, host)
            .header(ACCEPT, "application/json")
            .header(AUTHORIZATION, self.authorization.clone());
        let (builder, body) = match (&request.file, request.method) {
            (Some(file), _) => {
                let (kind, body) = multipart(&request.params, file);
                (builder.header(CONTENT_TYPE, kind), body)
            }
            (None, Method::Post | Method::Put) => {
                let builder = builder.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
                (builder, request.form().into_bytes())
            }
            // A body here is refused, also an empty one with a length.
            (None, Method::Get | Method::Delete) => (builder, Vec::new()),
        };
        builder.body(Full::new(Bytes::from(body))).map_err(|error| error.to_string())
    }
}

enum Asked {
    Answered(Result<Answer, Error>),
    /// The connection was closed before anything was sent.
    Unsent,
}

impl Endpoint {
    fn target(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

fn endpoint(text: &str) -> Result<Endpoint, String> {
    let wrong = || format!("{text:?} is not an endpoint: an address or a name, with :PORT when it is not {PORT}");
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => match text.split_once(':') {
            // More than one colon is an IPv6 address without brackets.
            Some((_, rest)) if rest.contains(':') => (text, None),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = port.map_or(Ok(PORT), |port| port.parse().map_err(|_| wrong()))?;
    let name = ServerName::try_from(host.to_owned()).map_err(|_| wrong())?;
    Ok(Endpoint { host: host.to_owned(), port, name })
}

/// Returns the content type and the body of an upload. The server reads the parts in this order, each with its
/// disposition as the first header, and the file last.
fn multipart(params: &[(String, String)], file: &File) -> (String, Vec<u8>) {
    let mut boundary = "lab-0d5f7ae1c2".to_owned();
    while file.content.windows(boundary.len()).any(|window| window == boundary.as_bytes()) {
        boundary.push('x');
    }
    let mut body = Vec::with_capacity(file.content.len() + 1024);
    for (name, value) in params {
        let part = format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend_from_slice(part.as_bytes());
    }
    let disposition = format!("Content-Disposition: form-data; name=\"filename\"; filename=\"{}\"", file.name);
    body.extend_from_slice(
        format!("--{boundary}\r\n{disposition}\r\nContent-Type: application/octet-stream\r\n\r\n").as_bytes(),
    );
    body.extend_from_slice(&file.content);
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    (format!("multipart/form-data; boundary={boundary}"), body)
}

impl Answer {
    /// Returns the data of the answer, or what went wrong in the server's own words.
    fn read(self, request: &Request) -> Result<Value, Error> {
        let body = serde_json::from_slice::<Value>(&self.body);
        if (200..300).contains(&self.status) {
            return match body {
                Ok(mut body) => Ok(body.get_mut("data").map(Value::take).unwrap_or_default()),
                Err(error) => {
                    let text = format!("the answer is not JSON: {error}");
                    Err(failure(request, Problem::Answer, request.changes(), &text))
                }
            };
        }
        let body = body.unwrap_or_default();
        let errors = body.get("errors").cloned().unwrap_or_default();
        let plain = (!self.body.is_empty() && body.is_null()).then(|| String::from_utf8_lossy(&self.body).into_owned());
        let message = body
            .get("message")
            .and_then(Value::as_str)
            .map(str::to_owned)
            .or(self.phrase)
            .or(plain)
            .unwrap_or_else(|| canonical(self.status));
        let mut text = message.trim().to_owned();
        if let Some(errors) = errors.as_object() {
            for (parameter, error) in errors {
                let error = error.as_str().unwrap_or_default().replace("\\n", "; ");
                text.push_str(&format!(" {parameter}: {}", error.trim().replace('\n', " ")));
            }
        }
        if let Some(needs) = request.needs.as_ref().filter(|_| self.status == 403 && !text.contains('(')) {
            text.push_str(&format!("; it needs {needs}"));
        }
        let problem = Problem::of(self.status, &text, &errors);
        // Parameters are checked, and rights are, before anything is done.
        let refused = problem.refuses() || matches!(self.status, 400 | 401 | 403 | 501);
        Err(failure(request, problem, !refused, &text))
    }
}

fn canonical(status: u16) -> String {
    let reason = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    reason.map_or_else(|| format!("status {status}"), |reason| format!("{status} {reason}"))
}

/// Returns the failure of a request. `sent`: whether the server may have acted on it.
fn failure(request: &Request, problem: Problem, sent: bool, text: &str) -> Error {
    let effect = if sent && request.changes() { Effect::Perhaps } else { Effect::None };
    Error { problem, effect, text: format!("{request}: {text}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(status: u16, phrase: Option<&str>, body: &str) -> Result<Value, Error> {
        let answer =
            Answer { status, phrase: phrase.map(str::to_owned), body: Bytes::copy_from_slice(body.as_bytes()) };
        answer.read(&Request::post("/nodes/pve1/qemu"))
    }

    #[test]
    fn an_answer_is_its_data() {
        assert_eq!(read(200, None, r#"{"data":{"a":1},"total":3}"#).unwrap(), json!({"a": 1}));
        assert_eq!(read(200, None, r#"{"data":null}"#).unwrap(), Value::Null);
    }

    #[test]
    fn the_words_of_an_error_are_found_wherever_the_server_puts_them() {
        let said = |status, phrase, body| read(status, phrase, body).unwrap_err().text;
        let request = "POST /nodes/pve1/qemu: ";
        assert_eq!(
            said(500, Some("VM is locked (clone)"), r#"{"data":null}"#),
            format!("{request}VM is locked (clone)")
        );
        let newer = r#"{"data":null,"message":"VM is locked (clone)\nand more"}"#;
        assert_eq!(said(500, Some("VM is locked (clone)"), newer), format!("{request}VM is locked (clone)\nand more"));
        let wrong = r#"{"data":null,"errors":{"vmid":"type check ('integer') failed - got 'x'\n"}}"#;
        assert_eq!(
            said(400, Some("Parameter verification failed."), wrong),
            format!("{request}Parameter verification failed. vmid: type check ('integer') failed - got 'x'")
        );
        assert_eq!(said(501, None, "for data too large"), format!("{request}for data too large"));
        assert_eq!(said(401, None, ""), format!("{request}401 Unauthorized"));
        assert_eq!(said(599, None, ""), format!("{request}status 599"));
    }

    #[test]
    fn only_what_was_certainly_refused_had_no_effect() {
        let effect = |status, phrase: &str| read(status, Some(phrase), "").unwrap_err().effect;
        for (status, phrase) in [
            (400, "Parameter verification failed."),
            (401, "Authentication failed!"),
            (403, "Permission check failed"),
            (500, "VM is locked (backup)"),
            (500, "unable to create VM 110 - VM 110 already exists on node 'pve1'"),
            (595, "Connection refused"),
        ] {
            assert_eq!(effect(status, phrase), Effect::None, "{phrase}");
        }
        for (status, phrase) in [(500, "something died"), (596, "Connection timed out"), (599, "Too many redirections")]
        {
            assert_eq!(effect(status, phrase), Effect::Perhaps, "{phrase}");
        }
    }

    #[test]
    fn endpoints_are_read_with_and_without_a_port() {
        for (text, target) in [
            ("192.168.10.2", "192.168.10.2:8006"),
            ("pve1.lan:443", "pve1.lan:443"),
            ("[fd00::2]:8443", "[fd00::2]:8443"),
            ("fd00::2", "[fd00::2]:8006"),
        ] {
            assert_eq!(endpoint(text).map(|endpoint| endpoint.target()), Ok(target.to_owned()));
        }
        for wrong in ["", "pve1:x", "a b", "[fd00::2"] {
            assert!(endpoint(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_upload_has_its_parts_in_the_order_that_is_read() {
        let file = File { name: "a.iso".into(), content: b"lab-0d5f7ae1c2".to_vec() };
        let (kind, body) = multipart(&[("content".into(), "iso".into())], &file);
        assert_eq!(kind, "multipart/form-data; boundary=lab-0d5f7ae1c2x");
        insta::assert_snapshot!(String::from_utf8(body).unwrap().replace("\r\n", "\n"), @r#"
        --lab-0d5f7ae1c2x
        Content-Disposition: form-data; name="content"

        iso
        --lab-0d5f7ae1c2x
        Content-Disposition: form-data; name="filename"; filename="a.iso"
        Content-Type: application/octet-stream

        lab-0d5f7ae1c2
        --lab-0d5f7ae1c2x--
        "#);
    }
}

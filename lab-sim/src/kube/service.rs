//! The API over HTTP/1.1, HTTP/2 and TLS.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls_pki_types::CertificateDer;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::Api;
use super::fault::Fault;
use super::refusal::Refusal;
use super::request::{Answer, Call, Identity, Watch, bookmark};

/// The body of an answer: all of it, or lines as they come.
pub struct Reply(Kind);

enum Kind {
    Whole(Option<Bytes>),
    Lines(mpsc::Receiver<Bytes>),
}

impl Reply {
    /// Returns the next piece of the body, or `None` at its end.
    pub async fn piece(&mut self) -> Option<Bytes> {
        match &mut self.0 {
            Kind::Whole(bytes) => bytes.take(),
            Kind::Lines(lines) => lines.recv().await,
        }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match &mut self.0 {
            Kind::Whole(bytes) => bytes.take(),
            Kind::Lines(lines) => ready!(lines.poll_recv(cx)),
        };
        Poll::Ready(piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// The connection is to be dropped without an answer, because a fault says so.
#[derive(Debug)]
pub struct Dropped;

impl std::fmt::Display for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection was dropped by an injected fault")
    }
}

impl std::error::Error for Dropped {}

impl Api {
    /// Accepts connections until the listener fails. Ends when the returned future is dropped; connections that are
    /// open then end with the API.
    ///
    /// # Errors
    /// Those of the listener.
    pub async fn serve(self, listener: TcpListener, tls: Arc<rustls::ServerConfig>) -> io::Result<()> {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (stream, _) = accepted?;
                    let (api, tls) = (self.clone(), tls.clone());
                    connections.spawn(async move { drop(api.serve_stream(stream, tls).await) });
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }

    /// Serves one connection: a TLS handshake, then HTTP. Who the client is, its certificate says; `tls` decides which
    /// certificates are taken.
    ///
    /// # Errors
    /// Those of the handshake and of the connection.
    pub async fn serve_stream<S>(&self, stream: S, tls: Arc<rustls::ServerConfig>) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut config = (*tls).clone();
        if config.alpn_protocols.is_empty() {
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        }
        let stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await?;
        let identity = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).and_then(identity);
        let api = self.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let (api, identity) = (api.clone(), identity.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.map_err(|_| Dropped)?.to_bytes();
                let header = |name: &str| {
                    parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_string()
                };
                let call = Call {
                    method: parts.method.to_string(),
                    path: parts.uri.path().into(),
                    query: parts.uri.query().unwrap_or_default().into(),
                    content_type: header("content-type"),
                    accept: header("accept"),
                    agent: header("user-agent"),
                    body: body.to_vec(),
                };
                api.respond(call, identity.as_ref()).await
            }
        });
        let builder = auto::Builder::new(TokioExecutor::new());
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            ended = connection => ended.map_err(io::Error::other),
            // What is down does not go on answering on connections that it had.
            () = self.stopped() => Ok(()),
        }
    }

    /// Answers a request of `identity` (`None`: no certificate), faults included.
    ///
    /// # Errors
    /// When a fault says that the connection drops.
    pub async fn respond(&self, call: Call, identity: Option<&Identity>) -> Result<Response<Reply>, Dropped> {
        let fault = self.fault(&call.method, &call.path);
        let mut after = false;
        match fault {
            Fault::None => {}
            Fault::Delay(pause) => self.clock().sleep(pause).await,
            Fault::DropBefore => return Err(Dropped),
            Fault::DropAfter => after = true,
            Fault::Status(code) => return Ok(refused(&Refusal::unavailable(code))),
        }
        let response = self.answered(&call, identity);
        if after { Err(Dropped) } else { Ok(response) }
    }

    pub(crate) fn answered(&self, call: &Call, identity: Option<&Identity>) -> Response<Reply> {
        let answer = self.with(|store, version| store.answer(call, identity, version));
        match answer {
            Err(refusal) => refused(&refusal),
            Ok(Answer::Text(code, text)) => response(code, "text/plain; charset=utf-8", Bytes::from(text), &[]),
            Ok(Answer::Json { code, body, content_type, warnings }) => {
                response(code, content_type, Bytes::from(body.to_string() + "\n"), &warnings)
            }
            Ok(Answer::Watch(watch)) => {
                let (sender, receiver) = mpsc::channel(64);
                self.spawn_watch(*watch, sender);
                Response::builder()
                    .status(200)
                    .header("content-type", "application/json")
                    .body(Reply(Kind::Lines(receiver)))
                    .expect("a plain response")
            }
        }
    }

    fn spawn_watch(&self, mut watch: Watch, sender: mpsc::Sender<Bytes>) {
        let (weak, mut changes) = (self.weak(), self.changes());
        let stopped = self.stopped();
        let serving = async move {
            let mut lines = std::mem::take(&mut watch.initial);
            // Real time: a client that asks to be cut off after five minutes means its own.
            let end = tokio::time::sleep(watch.timeout);
            tokio::pin!(end);
            let mut pulse = tokio::time::interval(Duration::from_secs(60));
            pulse.tick().await;
            loop {
                for line in lines.drain(..) {
                    if sender.send(text(&line)).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    () = &mut end => return,
                    () = sender.closed() => return,
                    changed = changes.changed() => if changed.is_err() { return },
                    _ = pulse.tick(), if watch.bookmarks => {
                        let line = bookmark(&watch.kind, watch.revision);
                        if sender.send(text(&line)).await.is_err() {
                            return;
                        }
                    }
                }
                let Some(api) = weak.upgrade() else { return };
                match api.with(|store, _| watch.next(store)) {
                    Ok(new) => lines = new,
                    Err(refusal) => {
                        let line = serde_json::json!({"type": "ERROR", "object": refusal.body()});
                        let _ = sender.send(text(&line)).await;
                        return;
                    }
                }
            }
        };
        tokio::spawn(async move {
            tokio::select! {
                () = serving => {}
                () = stopped => {}
            }
        });
    }
}

fn text(line: &Value) -> Bytes {
    Bytes::from(line.to_string() + "\n")
}

fn refused(refusal: &Refusal) -> Response<Reply> {
    response(refusal.code, "application/json", Bytes::from(refusal.body().to_string() + "\n"), &[])
}

fn response(code: u16, content_type: &str, body: Bytes, warnings: &[String]) -> Response<Reply> {
    let mut builder = Response::builder().status(code).header("content-type", content_type);
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        builder = builder.header("warning", format!("299 - \"{quoted}\""));
    }
    builder.body(Reply(Kind::Whole(Some(body)))).expect("a plain response")
}

pub(super) fn identity(certificate: &CertificateDer<'_>) -> Option<Identity> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let subject = certificate.subject();
    let user = subject.iter_common_name().next().and_then(|name| name.as_str().ok()).unwrap_or_default();
    let groups = subject.iter_organization().filter_map(|name| name.as_str().ok()).map(String::from);
    Some(Identity { user: user.into(), groups: groups.collect() })
}

//! A real API server as the control planes of a cluster show it: under their certificates, to their clients.
//!
//! The server itself listens on loopback and goes by the wall's clock; certificates in a simulated lab are of the lab's,
//! which runs ahead. So the machines take the connections, as a front proxy does that Kubernetes knows: they judge the
//! client's certificate, and tell the server for whom they speak. What a connection may suffer on the way, faults say.

use std::io;
use std::sync::Arc;

use http::{HeaderName, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use lab_core::Clock;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use super::service::{Dropped, identity};
use super::{Fault, Faults, Identity};
use crate::control_plane::{Connection, ControlPlane};

/// What is said for one hop only (RFC 9110, 7.6.1).
const HOP: [&str; 6] = ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"];

type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// A real control plane behind machines of the lab.
pub(crate) struct Front {
    pub(crate) plane: Arc<ControlPlane>,
    clients: Connection,
    inside: Connection,
    faults: Arc<Faults>,
    clock: Clock,
}

impl Front {
    pub(crate) fn new(plane: Arc<ControlPlane>, faults: Arc<Faults>, clock: Clock) -> io::Result<Front> {
        Ok(Front { clients: plane.front()?, inside: plane.connection(), plane, faults, clock })
    }

    /// Makes a request as the administrator, without faults; returns the status code and the body, null for one that is
    /// not JSON. `None`: the server did not answer. Not for watches.
    pub(crate) async fn request(
        &self,
        method: &str,
        target: &str,
        content_type: &str,
        agent: &str,
        body: &Value,
    ) -> Option<(u16, Value)> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder().method(method).uri(self.inside.uri(target));
        let request = request.header("accept", "application/json").header("user-agent", agent);
        let request = request.header("content-type", content_type).body(Full::new(Bytes::from(body))).ok()?;
        let answer = self.inside.send(request).await.ok()?;
        let code = answer.status().as_u16();
        let body = answer.into_body().collect().await.ok()?.to_bytes();
        Some((code, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }

    /// Begins a watch of a collection as the administrator, which first tells everything that is there.
    pub(crate) async fn watch(&self, path: &str) -> Option<Response<Incoming>> {
        let request = Request::builder().uri(self.inside.uri(&format!("{path}?watch=true&allowWatchBookmarks=true")));
        let request = request.header("accept", "application/json").header("user-agent", "lab-sim");
        self.inside.send(request.body(Full::new(Bytes::new())).ok()?).await.ok()
    }

    /// Serves one connection of a client; `tls` decides which certificates are taken.
    ///
    /// # Errors
    /// Those of the handshake and of the connection.
    pub(crate) async fn serve_stream<S>(self: Arc<Self>, stream: S, tls: Arc<rustls::ServerConfig>) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = TlsAcceptor::from(tls).accept(stream).await?;
        let client = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).and_then(identity);
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let (front, client) = (self.clone(), client.clone());
            async move { front.respond(request, client.as_ref()).await }
        });
        let connection = auto::Builder::new(TokioExecutor::new());
        connection.serve_connection(TokioIo::new(stream), service).await.map_err(io::Error::other)
    }

    async fn respond(&self, request: Request<Incoming>, client: Option<&Identity>) -> Result<Response<Body>, Dropped> {
        let mut after = false;
        match (self.faults)(request.method().as_str(), request.uri().path()) {
            Fault::None => {}
            Fault::Delay(pause) => self.clock.sleep(pause).await,
            Fault::DropBefore => return Err(Dropped),
            Fault::DropAfter => after = true,
            Fault::Status(code) => return Ok(failure(code, "the server is currently unable to handle the request")),
        }
        if request.headers().contains_key("upgrade") {
            return Ok(failure(501, "streams into pods are not simulated: there are no containers"));
        }
        let answer = self.onward(request, client).await?;
        if after {
            // Carried out in full, then lost.
            let _ = answer.into_body().collect().await;
            return Err(Dropped);
        }
        let (mut head, body) = answer.into_parts();
        HOP.iter().for_each(|name| drop(head.headers.remove(*name)));
        Ok(Response::from_parts(head, body.boxed_unsync()))
    }

    async fn onward(
        &self,
        request: Request<Incoming>,
        client: Option<&Identity>,
    ) -> Result<Response<Incoming>, Dropped> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| Dropped)?.to_bytes();
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let mut onward = Request::builder().method(head.method).uri(self.clients.uri(target));
        let ours = |name: &HeaderName| name.as_str().starts_with("x-remote-") || HOP.contains(&name.as_str());
        for (name, value) in head.headers.iter().filter(|(name, _)| !ours(name) && *name != "host") {
            onward = onward.header(name, value);
        }
        if let Some(client) = client {
            onward = onward.header("x-remote-user", &client.user);
            for group in &client.groups {
                onward = onward.header("x-remote-group", group);
            }
        }
        let onward = onward.body(Full::new(body)).map_err(|_| Dropped)?;
        self.clients.send(onward).await.map_err(|_| Dropped)
    }
}

fn failure(code: u16, message: &str) -> Response<Body> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "code": code,
    });
    let body = Full::new(Bytes::from(status.to_string())).map_err(|never| match never {}).boxed_unsync();
    let response = Response::builder().status(code).header("content-type", "application/json");
    response.body(body).expect("a plain response")
}

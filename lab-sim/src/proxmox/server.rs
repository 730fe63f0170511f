//! The API over TLS: HTTP/1.1, tokens, the nodes' proxies, and what goes wrong on the way.

use super::access;
use super::api;
use super::datacenter::Datacenter;
use super::refusal::Refusal;
use super::request::{self, Request};
use super::schema;
use crate::faults::Fault;
use crate::proxy::Dial;
use crate::tls::{self, Clients};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::ext::ReasonPhrase;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

/// How long a failed authentication waits for its answer.
const PENALTY: Duration = Duration::from_secs(3);
/// How long a kept connection may be idle, in real time: it is about the client's own pool.
const IDLE: Duration = Duration::from_secs(5);
/// The largest body that is no upload.
const BODY: usize = 512 * 1024;
/// How long one node waits for another.
const PROXY: Duration = Duration::from_secs(30);
/// How long a node looks for one that is not there.
const NO_ROUTE: Duration = Duration::from_secs(3);

/// Serves port 8006 of a host.
pub(crate) fn dial(datacenter: Arc<Datacenter>, host: String) -> Dial {
    let address = datacenter.host(&host).map(|host| host.address);
    let tls = tls::proxmox(&datacenter.spec.name, &host, address)
        .map_err(|error| error.to_string())
        .and_then(|issued| tls::server(issued, Clients::Anyone, &[b"http/1.1"], &datacenter.clock));
    let Ok(tls) = tls else { return Dial::Refused };
    Dial::Open(Box::new(move |stream| {
        Box::pin(async move {
            let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await else { return };
            let mut cuts = datacenter.cuts();
            let breaks = Arc::new(Notify::new());
            let service = hyper::service::service_fn(|request: http::Request<Incoming>| {
                let (datacenter, host, breaks) = (datacenter.clone(), host.clone(), breaks.clone());
                async move { Ok::<_, Infallible>(answer(&datacenter, &host, request, &breaks).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(IDLE)
                .serve_connection(TokioIo::new(stream), service);
            let lost = async {
                while cuts.changed().await.is_ok() {
                    if cuts.borrow().1 == host {
                        return;
                    }
                }
            };
            tokio::select! {
                _ = connection => {}
                () = breaks.notified() => {}
                () = lost => {}
            }
        })
    }))
}

async fn answer(
    datacenter: &Arc<Datacenter>,
    host: &str,
    request: http::Request<Incoming>,
    breaks: &Notify,
) -> Response<Full<Bytes>> {
    let Some((world, address)) = datacenter.world().zip(datacenter.host(host).map(|host| host.address)) else {
        return pending().await;
    };
    let name = format!("{} {}", request.method(), request.uri().path());
    let fault = world.injector.consult(address, &name);
    match fault {
        None | Some(Fault::ReplyLost | Fault::Reboot | Fault::GivenUp) => {}
        Some(Fault::TaskFails | Fault::TaskDies | Fault::TaskWarns) => {}
        Some(Fault::Latency(delay)) => world.pause(delay).await,
        // The daemon behind the proxy of the node does not answer.
        Some(Fault::Refused) => return written(Err(Refusal::bare(595, "Connection refused"))),
        Some(Fault::Dropped) => {
            breaks.notify_one();
            return pending().await;
        }
        Some(Fault::Dead) => {
            datacenter.power_loss(host, false);
            return pending().await;
        }
    }
    let result = respond(datacenter, host, request).await;
    match fault {
        Some(Fault::ReplyLost) => {
            breaks.notify_one();
            pending().await
        }
        Some(Fault::Reboot) => {
            datacenter.power_loss(host, true);
            pending().await
        }
        Some(Fault::GivenUp) => written(Err(Refusal::bare(596, "Connection timed out"))),
        None
        | Some(
            Fault::Latency(_)
            | Fault::Refused
            | Fault::Dropped
            | Fault::Dead
            | Fault::TaskFails
            | Fault::TaskDies
            | Fault::TaskWarns,
        ) => written(result),
    }
}

/// The value of a call, with what stands beside it in the envelope.
pub(super) struct Yield {
    pub(super) data: Value,
    pub(super) total: Option<usize>,
}

async fn respond(datacenter: &Arc<Datacenter>, host: &str, request: http::Request<Incoming>) -> Result<Yield, Refusal> {
    let (parts, body) = request.into_parts();
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    if header("host").is_none() {
        return Err(Refusal::bare(400, "bad request"));
    }
    if parts.headers.contains_key("transfer-encoding") {
        return Err(Refusal::bare(501, "chunked transfer encoding not supported"));
    }
    let method = parts.method.as_str();
    let length: usize = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    if ["GET", "DELETE"].contains(&method) && length > 0 {
        return Err(Refusal::bare(501, format!("Unexpected content for method '{method}'")));
    }
    let path = request::unescape(parts.uri.path());
    let kind = header("content-type").unwrap_or_default().to_owned();
    let upload = method == "POST" && kind.starts_with("multipart/form-data");
    if length > BODY && !upload {
        return Err(Refusal::bare(501, "for data too large"));
    }
    let body = body.collect().await.map_err(|_| Refusal::bare(400, "bad request"))?.to_bytes();
    let Some(rest) = path.strip_prefix("/api2/json") else {
        return Err(Refusal::bare(501, format!("not simulated: {path}")));
    };
    let token = match access::token(datacenter, header("authorization")) {
        Ok(token) => token,
        Err(refusal) => {
            datacenter.clock.sleep(PENALTY).await;
            return Err(refusal);
        }
    };
    let Some((call, in_path)) = schema::find(method, rest) else {
        return Err(Refusal::not_simulated(format!("{method} {rest}")));
    };
    let mut given = BTreeMap::new();
    let mut file = None;
    if upload {
        let (fields, sent) = request::multipart(&kind, &body)?;
        given.insert("filename".to_owned(), json!(sent.name));
        given.extend(fields);
        file = Some(sent);
    } else if kind.starts_with("application/json") {
        if !body.is_empty() {
            given = request::json(&body)?;
        }
    } else if !body.is_empty() {
        if !kind.is_empty() && !kind.starts_with("application/x-www-form-urlencoded") {
            return Err(Refusal::bare(415, format!("unsupported content type '{kind}'")));
        }
        request::form(&body, &mut given);
    }
    // Parameters of the query override those of the body.
    let mut query = BTreeMap::new();
    request::form(parts.uri.query().unwrap_or_default().as_bytes(), &mut query);
    given.extend(query);
    let node = match in_path.get("node").filter(|_| call.node.is_some() || call.path.starts_with("/nodes/{node}/")) {
        Some(node) => {
            reach(datacenter, host, node).await?;
            node.clone()
        }
        None => host.to_owned(),
    };
    let args = call.check(in_path, given)?;
    token.check(&call.check, &args, &datacenter.state())?;
    let forwarded = node != host;
    let request = Request { datacenter: datacenter.clone(), token, node, file };
    let work = api::call(call, request, args);
    if !forwarded {
        return work.await;
    }
    // The node that was asked gives up before the other one does; what was asked for goes on there.
    let work = tokio::spawn(work);
    tokio::select! {
        result = work => result.map_err(|_| Refusal::bare(599, "Too many redirections"))?,
        () = datacenter.clock.sleep(datacenter.clock.patience(PROXY)) => Err(Refusal::bare(596, "Connection timed out")),
    }
}

/// Passes a request on to the node that carries it out, if that one can be found and answers.
async fn reach(datacenter: &Arc<Datacenter>, host: &str, node: &str) -> Result<(), Refusal> {
    if node == "localhost" || node == host {
        return Ok(());
    }
    if datacenter.host(node).is_none() {
        let text = format!(
            "hostname lookup '{node}' failed - failed to get address info for: {node}: Name or service not known"
        );
        return Err(Refusal::died(text));
    }
    if !datacenter.is_up(node) {
        datacenter.clock.sleep(NO_ROUTE).await;
        return Err(Refusal::bare(595, "No route to host"));
    }
    Ok(())
}

fn written(result: Result<Yield, Refusal>) -> Response<Full<Bytes>> {
    let json = "application/json;charset=UTF-8";
    let builder = Response::builder().header("server", "pve-api-daemon/3.0").header("cache-control", "max-age=0");
    match result {
        Ok(Yield { data, total }) => {
            let mut body = json!({"data": data});
            if let Some(total) = total {
                body["total"] = json!(total);
            }
            builder
                .header("content-type", json)
                .body(Full::from(body.to_string()))
                .unwrap_or_else(|_| Response::new(Full::default()))
        }
        Err(refusal) => {
            let mut builder = builder
                .status(StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
                .header("connection", "close");
            if !refusal.bare {
                builder = builder.header("content-type", json);
            }
            let phrase: String =
                refusal.message.lines().next().unwrap_or_default().chars().filter(char::is_ascii).collect();
            if let Ok(phrase) = ReasonPhrase::try_from(Bytes::from(phrase)) {
                builder = builder.extension(phrase);
            }
            builder.body(Full::from(refusal.body())).unwrap_or_else(|_| Response::new(Full::default()))
        }
    }
}

//! Port 50000: TLS, who may call what, and the routing of calls between machines.

use super::config::Role;
use super::grpc::{self, Answer, Reply, ReplyBody};
use super::node::{Node, Port, Stage};
use super::{resources, verbs};
use crate::faults::Fault;
use crate::tls;
use crate::world::World;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use lab_talos::proto::{common, google};
use prost::Message;
use rustls::ServerConfig;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio_rustls::TlsAcceptor;
use tonic::{Code, Status};

/// How long, in real time, an ending machine goes on answering what it was asked.
pub(super) const GRACE: Duration = Duration::from_millis(300);

/// Which API the connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Maintenance,
    Configured,
}

/// Who calls.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) mode: Mode,
    /// The roles of its certificate; in maintenance mode everybody is a reader.
    pub(super) roles: BTreeSet<String>,
}

impl Caller {
    pub(super) fn is(&self, allowed: &[&str]) -> bool {
        allowed.iter().any(|role| self.roles.contains(*role))
    }
}

/// Serves one connection to its end.
pub(crate) async fn serve(stream: TcpStream, world: Arc<World>, node: Arc<Node>, tls: Arc<ServerConfig>, mode: Mode) {
    let mut cuts = node.cuts();
    cuts.mark_unchanged();
    let accepted = tokio::select! {
        accepted = TlsAcceptor::from(tls).accept(stream) => accepted,
        _ = cuts.changed() => return,
    };
    let Ok(stream) = accepted else { return };
    let caller = match mode {
        Mode::Maintenance => Caller { mode, roles: BTreeSet::from(["os:reader".to_owned()]) },
        Mode::Configured => {
            let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let Some((roles, only_client)) = leaf.and_then(tls::client) else { return };
            let config = node.config();
            let config = config.as_ref();
            if config.is_some_and(|config| config.flag("machine.features.apidCheckExtKeyUsage")) && !only_client {
                return;
            }
            // Without role-based access every certificate holder is everything.
            let restricted = config.and_then(|config| config.at("machine.features.rbac")).and_then(|on| on.as_bool());
            let roles = match restricted {
                Some(false) => BTreeSet::from(["os:admin".to_owned()]),
                Some(true) | None => roles.into_iter().collect(),
            };
            Caller { mode, roles }
        }
    };
    let breaks = Arc::new(Notify::new());
    let service = {
        let (world, node, breaks) = (world.clone(), node.clone(), breaks.clone());
        service_fn(move |request| {
            let (world, node, caller, breaks) = (world.clone(), node.clone(), caller.clone(), breaks.clone());
            async move { Ok::<_, Infallible>(request_of(request, world, node, caller, breaks).await) }
        })
    };
    let connection =
        hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = breaks.notified() => return,
        _ = cuts.changed() => {}
    }
    if cuts.borrow().hard {
        return;
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        _ = connection.as_mut() => {}
        () = breaks.notified() => {}
        () = tokio::time::sleep(GRACE) => {}
    }
}

/// Answers one request, or breaks the connection when that is what should go wrong.
async fn request_of(
    request: hyper::Request<Incoming>,
    world: Arc<World>,
    node: Arc<Node>,
    caller: Caller,
    breaks: Arc<Notify>,
) -> hyper::Response<ReplyBody> {
    let path = request.uri().path().to_owned();
    let fault = world.injector.consult(node.address(), &path);
    match fault {
        None | Some(Fault::ReplyLost | Fault::Reboot) => {}
        // For tasks of Proxmox only.
        Some(Fault::TaskFails | Fault::TaskDies | Fault::TaskWarns | Fault::GivenUp) => {}
        Some(Fault::Latency(delay)) => world.pause(delay).await,
        Some(Fault::Refused) => {
            return grpc::respond(Err(Status::unavailable("connection error: desc = \"transport: refused\"")));
        }
        Some(Fault::Dropped) => {
            breaks.notify_one();
            return pending().await;
        }
        Some(Fault::Dead) => {
            node.power_loss(&world, false);
            return pending().await;
        }
    }
    let answer = answer(request, &path, &world, &node, caller).await;
    match fault {
        Some(Fault::ReplyLost) => {
            breaks.notify_one();
            pending().await
        }
        Some(Fault::Reboot) => {
            node.power_loss(&world, true);
            pending().await
        }
        None
        | Some(
            Fault::Latency(_)
            | Fault::Refused
            | Fault::Dropped
            | Fault::Dead
            | Fault::TaskFails
            | Fault::TaskDies
            | Fault::TaskWarns
            | Fault::GivenUp,
        ) => grpc::respond(answer),
    }
}

async fn answer(
    request: hyper::Request<Incoming>,
    path: &str,
    world: &Arc<World>,
    node: &Arc<Node>,
    caller: Caller,
) -> Answer {
    let (head, body) = request.into_parts();
    let values = |name: &str| -> Vec<String> {
        head.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
    };
    let (one, many) = match caller.mode {
        // The maintenance service does not route.
        Mode::Maintenance => (Vec::new(), Vec::new()),
        Mode::Configured => (values("node"), values("nodes")),
    };
    let payload = grpc::read(body).await?;
    if !many.is_empty() {
        if path.starts_with("/cosi.") {
            return Err(Status::invalid_argument("one-2-many proxying is not supported for COSI methods"));
        }
        let mut parts = Vec::new();
        for target in many {
            let answer = forward(world, node, &target, &caller, path, &payload).await;
            parts.push((target, answer));
        }
        return join(path, parts).await;
    }
    match one.as_slice() {
        [] => local(world, node, &caller, path, &payload).await,
        [target] => forward(world, node, target, &caller, path, &payload).await,
        _ => Err(Status::invalid_argument("node metadata must be single-valued")),
    }
}

/// Answers on this machine.
async fn local(world: &Arc<World>, node: &Arc<Node>, caller: &Caller, path: &str, payload: &[u8]) -> Answer {
    if path.starts_with("/cosi.resource.State/") {
        return resources::call(world, node, caller, path, payload);
    }
    match caller.mode {
        Mode::Maintenance => verbs::maintenance(world, node, path, payload).await,
        Mode::Configured => {
            if !caller.is(allowed(path)) {
                return Err(Status::permission_denied("not authorized"));
            }
            verbs::call(world, node, path, payload).await
        }
    }
}

/// Answers on the machine that `target` names.
async fn forward(
    world: &Arc<World>,
    node: &Arc<Node>,
    target: &str,
    caller: &Caller,
    path: &str,
    payload: &[u8],
) -> Answer {
    let host = target.strip_suffix(":50000").unwrap_or(target).trim_start_matches('[').trim_end_matches(']');
    let address = world.resolve(host);
    if address == Some(node.address()) {
        return local(world, node, caller, path, payload).await;
    }
    let ours = node.config();
    if ours.as_ref().is_none_or(|config| config.role() == Role::Worker) {
        // A worker holds no client certificate to call others with.
        return Err(Status::permission_denied("no request forwarding"));
    }
    let refuse = |why: &str| Err(Status::unavailable(format!("connection error: desc = \"transport: {why}\"")));
    let Some(other) = address.and_then(|address| world.at(address)) else {
        world.pause(Duration::from_secs(20)).await;
        return refuse(&format!("Error while dialing: dial tcp {host}:50000: i/o timeout"));
    };
    let (stage, port) = {
        let state = other.state();
        (state.stage, state.port.clone())
    };
    match (stage, port) {
        (Stage::Off, _) | (_, Port::Gone) => {
            world.pause(Duration::from_secs(20)).await;
            refuse(&format!("Error while dialing: dial tcp {host}:50000: i/o timeout"))
        }
        (_, Port::Closed) => {
            refuse(&format!("Error while dialing: dial tcp {host}:50000: connect: connection refused"))
        }
        (_, Port::Maintenance(_)) => refuse(
            "authentication handshake failed: tls: failed to verify certificate: x509: certificate signed by unknown authority",
        ),
        (_, Port::Machine(_)) => {
            let theirs = other.config();
            let authority = |config: &Option<super::config::Config>| {
                config
                    .as_ref()
                    .and_then(|config| config.machine_authority().map(|(certificate, _)| certificate.to_owned()))
            };
            if authority(&theirs) != authority(&ours) {
                return refuse(
                    "authentication handshake failed: tls: failed to verify certificate: x509: certificate signed by unknown authority",
                );
            }
            local(world, &other, caller, path, payload).await
        }
    }
}

/// Joins what several machines answered: every part says who it is from, and a failure is a part too.
async fn join(path: &str, parts: Vec<(String, Answer)>) -> Answer {
    if is_stream(path) {
        let (send, receive) = mpsc::channel(16);
        for (target, answer) in parts {
            let send = send.clone();
            let tag = from(&target, None);
            match answer {
                Ok(Reply::Many(mut items)) => {
                    tokio::spawn(async move {
                        while let Some(item) = items.recv().await {
                            let item = match item {
                                Ok(item) => [tag.clone(), item].concat(),
                                Err(status) => from(&target, Some(&status)),
                            };
                            if send.send(Ok(item)).await.is_err() {
                                break;
                            }
                        }
                    });
                }
                Ok(Reply::One(item)) => {
                    let _ = send.send(Ok([tag, item].concat())).await;
                }
                Err(status) => {
                    let _ = send.send(Ok(from(&target, Some(&status)))).await;
                }
            }
        }
        return Ok(Reply::Many(receive));
    }
    let mut messages = Vec::new();
    for (target, answer) in parts {
        match answer {
            Ok(Reply::One(response)) => {
                // A field that comes twice is merged, so the name can go in front of whatever the message holds.
                for message in grpc::fields_one(&response) {
                    messages.extend(grpc::field_one(&[from(&target, None), message].concat()));
                }
            }
            Ok(Reply::Many(_)) => return Err(Status::internal("a unary method answered with a stream")),
            Err(status) => messages.extend(grpc::field_one(&from(&target, Some(&status)))),
        }
    }
    Ok(Reply::One(messages))
}

/// Encodes the metadata of a part: whom it is from, and how it failed.
fn from(target: &str, failure: Option<&Status>) -> Vec<u8> {
    let metadata = common::Metadata {
        hostname: target.to_owned(),
        error: failure.map(go_error).unwrap_or_default(),
        status: failure.map(|status| google::rpc::Status {
            code: status.code() as i32,
            message: status.message().to_owned(),
            details: Vec::new(),
        }),
    };
    grpc::field_one(&metadata.encode_to_vec())
}

/// Writes an error as Go's gRPC does.
fn go_error(status: &Status) -> String {
    let code = match status.code() {
        Code::Ok => "OK".to_owned(),
        Code::Cancelled => "Canceled".to_owned(),
        other => format!("{other:?}"),
    };
    format!("rpc error: code = {code} desc = {}", status.message())
}

fn is_stream(path: &str) -> bool {
    let method = path.rsplit('/').next().unwrap_or_default();
    const STREAMS: &[&str] = &[
        "Copy",
        "DiskUsage",
        "Dmesg",
        "EtcdSnapshot",
        "Events",
        "ImageList",
        "Kubeconfig",
        "List",
        "Logs",
        "PacketCapture",
        "Read",
        "HealthCheck",
    ];
    STREAMS.contains(&method) || method.ends_with("Stream")
}

/// Returns the roles that may call a method; one that is in no table is for administrators.
fn allowed(path: &str) -> &'static [&'static str] {
    const ADMIN: &[&str] = &["os:admin"];
    const OPERATOR: &[&str] = &["os:admin", "os:operator"];
    const BACKUP: &[&str] = &["os:admin", "os:operator", "os:etcd:backup"];
    const READ_ETCD: &[&str] = &["os:admin", "os:operator", "os:reader", "os:etcd:backup"];
    const READER: &[&str] = &["os:admin", "os:operator", "os:reader"];
    match path.rsplit('/').next().unwrap_or_default() {
        "EtcdAlarmDisarm" | "EtcdDefragment" | "ImagePull" | "PacketCapture" | "Reboot" | "Restart"
        | "ServiceStart" | "ServiceStop" | "ServiceRestart" | "Shutdown" => OPERATOR,
        "EtcdSnapshot" => BACKUP,
        "EtcdAlarmList" | "EtcdMemberList" | "EtcdStatus" => READ_ETCD,
        "Version" | "ServiceList" | "Events" | "Logs" | "LogsContainers" | "Dmesg" | "List" | "DiskUsage"
        | "HealthCheck" | "Disks" | "Time" | "TimeCheck" | "Hostname" | "Containers" | "CPUFreqStats" | "CPUInfo"
        | "DiskStats" | "LoadAvg" | "Memory" | "Mounts" | "NetworkDeviceStats" | "Processes" | "Stats"
        | "SystemStat" | "Netstat" | "ImageList" => READER,
        _ => ADMIN,
    }
}

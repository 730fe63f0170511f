//! The resources of a machine, as its COSI API shows them.
//!
//! They are computed from the machine's state whenever somebody asks, and a version counts how often each was seen
//! to change. Kinds that Talos has and this machine does not model are refused by name.

use super::apid::{Caller, Mode};
use super::config::{Role, yaml};
use super::grpc::{self, Answer, Reply};
use super::node::{Kubelet, Node, Stage};
use super::{validate, verbs};
use crate::rack::DiskKind;
use crate::world::World;
use lab_talos::proto::cosi::resource::{
    Event, EventType, GetRequest, GetResponse, ListRequest, ListResponse, Metadata, Resource, Spec, WatchRequest,
    WatchResponse,
};
use lab_talos::proto::definitions::enums::RuntimeMachineStage;
use lab_talos::proto::definitions::{etcd, hardware, k8s, network, runtime, v1alpha1};
use lab_talos::proto::resource::config::MachineConfigSpec;
use prost::Message;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use tonic::Status;

/// The spec each resource had when it was last looked at, and how often it changed since.
pub(crate) type Versions = BTreeMap<(String, String), (Vec<u8>, u64)>;

const NAMESPACES: &[&str] = &[
    "cluster",
    "config",
    "controlplane",
    "etcd",
    "files",
    "hardware",
    "k8s",
    "meta",
    "network",
    "network-config",
    "perf",
    "runtime",
    "secrets",
    "time",
    "v1alpha1",
    "cri",
    "kubespan",
    "siderolink",
    "security",
];

const MACHINE_CONFIGS: &str = "MachineConfigs.config.talos.dev";

/// The kinds that are modelled.
const MODELLED: &[&str] = &[
    MACHINE_CONFIGS,
    "MachineStatuses.runtime.talos.dev",
    "Services.v1alpha1.talos.dev",
    "Versions.runtime.talos.dev",
    "Disks.block.talos.dev",
    "SystemDisks.block.talos.dev",
    "SystemInformations.hardware.talos.dev",
    "EtcdMembers.etcd.talos.dev",
    "Nodenames.kubernetes.talos.dev",
    "NodeStatuses.kubernetes.talos.dev",
    "HostnameStatuses.net.talos.dev",
];

/// `VersionSpec` of the runtime package. The number of its field is the only one it can sensibly have; it was not
/// read from the definitions.
#[derive(Clone, PartialEq, prost::Message)]
struct VersionSpec {
    #[prost(string, tag = "1")]
    version: String,
}

/// `DiskSpec` of the block package, the fields that a simulated disk has.
#[derive(Clone, PartialEq, prost::Message)]
struct DiskSpec {
    #[prost(uint64, tag = "1")]
    size: u64,
    #[prost(uint64, tag = "2")]
    io_size: u64,
    #[prost(uint64, tag = "3")]
    sector_size: u64,
    #[prost(string, tag = "5")]
    model: String,
    #[prost(string, tag = "6")]
    serial: String,
    #[prost(string, tag = "11")]
    transport: String,
    #[prost(bool, tag = "12")]
    rotational: bool,
    #[prost(string, tag = "14")]
    dev_path: String,
    #[prost(string, tag = "15")]
    pretty_size: String,
}

/// `SystemDiskSpec` of the block package.
#[derive(Clone, PartialEq, prost::Message)]
struct SystemDiskSpec {
    #[prost(string, tag = "1")]
    disk_id: String,
    #[prost(string, tag = "2")]
    dev_path: String,
}

/// A resource before it has a version.
struct Bare {
    namespace: &'static str,
    kind: &'static str,
    id: String,
    proto: Vec<u8>,
    yaml: String,
}

fn bare(namespace: &'static str, kind: &'static str, id: &str, spec: &impl Message, readable: Value) -> Bare {
    Bare { namespace, kind, id: id.to_owned(), proto: spec.encode_to_vec(), yaml: yaml(&readable) }
}

/// Returns the resources of one kind, in the order of their ids.
fn current(node: &Node, world: &World, kind: &str) -> Vec<Resource> {
    let hostname = node.hostname();
    let version = node.version();
    let mut found = bares(node, &hostname, &version);
    found.retain(|bare| bare.kind == kind);
    found.sort_by(|one, other| one.id.cmp(&other.id));
    let now = verbs::timestamp(world.clock.now());
    let mut state = node.state();
    found
        .into_iter()
        .map(|bare| {
            let key = (bare.kind.to_owned(), bare.id.clone());
            let entry = state.versions.entry(key).or_insert_with(|| (bare.proto.clone(), 1));
            if entry.0 != bare.proto {
                *entry = (bare.proto.clone(), entry.1 + 1);
            }
            Resource {
                metadata: Some(Metadata {
                    namespace: bare.namespace.to_owned(),
                    r#type: bare.kind.to_owned(),
                    id: bare.id,
                    version: entry.1.to_string(),
                    phase: "running".to_owned(),
                    created: Some(now),
                    updated: Some(now),
                    ..Metadata::default()
                }),
                spec: Some(Spec { proto_spec: bare.proto, yaml_spec: bare.yaml }),
            }
        })
        .collect()
}

fn bares(node: &Node, hostname: &str, version: &str) -> Vec<Bare> {
    let state = node.state();
    let mut found = Vec::new();

    let (stage, word) = match state.stage {
        Stage::Off => (RuntimeMachineStage::MachineStageShuttingDown, "shuttingDown"),
        Stage::Booting => (RuntimeMachineStage::MachineStageBooting, "booting"),
        Stage::Installing => (RuntimeMachineStage::MachineStageInstalling, "installing"),
        Stage::Maintenance => (RuntimeMachineStage::MachineStageMaintenance, "maintenance"),
        Stage::Running => (RuntimeMachineStage::MachineStageRunning, "running"),
        Stage::Rebooting => (RuntimeMachineStage::MachineStageRebooting, "rebooting"),
        Stage::Resetting => (RuntimeMachineStage::MachineStageResetting, "resetting"),
        Stage::Upgrading => (RuntimeMachineStage::MachineStageUpgrading, "upgrading"),
    };
    let unmet = state.unmet(hostname);
    let conditions: Vec<Value> = unmet.iter().map(|(name, reason)| json!({"name": name, "reason": reason})).collect();
    let status = runtime::MachineStatusSpec {
        stage: stage as i32,
        status: Some(runtime::MachineStatusStatus {
            ready: unmet.is_empty(),
            unmet_conditions: unmet
                .iter()
                .map(|(name, reason)| runtime::UnmetCondition { name: (*name).to_owned(), reason: reason.clone() })
                .collect(),
        }),
    };
    let readable = json!({"stage": word, "status": {"ready": unmet.is_empty(), "unmetConditions": conditions}});
    found.push(bare("runtime", "MachineStatuses.runtime.talos.dev", "machine", &status, readable));

    let running = VersionSpec { version: version.to_owned() };
    found.push(bare("runtime", "Versions.runtime.talos.dev", "version", &running, json!({"version": version})));

    for (index, disk) in node.spec.disks.iter().enumerate() {
        let id = disk.path.trim_start_matches("/dev/");
        let transport = if disk.kind == DiskKind::Nvme { "nvme" } else { "sata" };
        let spec = DiskSpec {
            size: disk.size,
            io_size: 512,
            sector_size: 512,
            model: validate::model(disk).to_owned(),
            serial: validate::serial(node.fingerprint(), index),
            transport: transport.to_owned(),
            rotational: disk.kind == DiskKind::Hdd,
            dev_path: disk.path.clone(),
            pretty_size: format!("{} GB", disk.size / 1_000_000_000),
        };
        let readable = json!({
            "dev_path": spec.dev_path, "size": spec.size, "pretty_size": spec.pretty_size, "io_size": spec.io_size,
            "sector_size": spec.sector_size, "readonly": false, "cdrom": false, "model": spec.model,
            "serial": spec.serial, "transport": spec.transport, "rotational": spec.rotational,
        });
        found.push(bare("runtime", "Disks.block.talos.dev", id, &spec, readable));
    }

    let information = hardware::SystemInformationSpec {
        manufacturer: "lab".to_owned(),
        product_name: "Simulated machine".to_owned(),
        serial_number: validate::serial(node.fingerprint(), 99),
        uuid: node.uuid(),
        ..Default::default()
    };
    let readable = json!({
        "manufacturer": information.manufacturer, "productName": information.product_name,
        "serialnumber": information.serial_number, "uuid": information.uuid,
    });
    found.push(bare("hardware", "SystemInformations.hardware.talos.dev", "systeminformation", &information, readable));

    let name = network::HostnameStatusSpec { hostname: hostname.to_owned(), domainname: String::new() };
    let readable = json!({"hostname": hostname, "domainname": ""});
    found.push(bare("network", "HostnameStatuses.net.talos.dev", "hostname", &name, readable));

    if let Some((disk, _)) = &state.disk.system {
        let id = disk.trim_start_matches("/dev/");
        let spec = SystemDiskSpec { disk_id: id.to_owned(), dev_path: disk.clone() };
        let readable = json!({"diskID": id, "devPath": disk});
        found.push(bare("runtime", "SystemDisks.block.talos.dev", "system-disk", &spec, readable));
    }

    let Some(config) = &state.disk.config else { return found };
    let persistent = state.disk.staged.as_ref().unwrap_or(config);
    for (id, config) in [("v1alpha1", config), ("persistent", persistent)] {
        let spec = MachineConfigSpec { yaml_marshalled: config.bytes.clone() };
        found.push(Bare {
            namespace: "config",
            kind: MACHINE_CONFIGS,
            id: id.to_owned(),
            proto: spec.encode_to_vec(),
            yaml: String::from_utf8_lossy(&config.bytes).into_owned(),
        });
    }
    for (name, service) in &state.services {
        let spec =
            v1alpha1::ServiceSpec { running: service.state == "Running", healthy: service.healthy, unknown: false };
        let readable = json!({"running": spec.running, "healthy": spec.healthy, "unknown": false});
        found.push(bare("runtime", "Services.v1alpha1.talos.dev", name, &spec, readable));
    }
    let nodename = k8s::NodenameSpec {
        nodename: hostname.to_owned(),
        hostname_version: "1".to_owned(),
        skip_node_registration: false,
    };
    let readable = json!({"nodename": hostname, "hostnameVersion": "1", "skipNodeRegistration": false});
    found.push(bare("k8s", "Nodenames.kubernetes.talos.dev", "nodename", &nodename, readable));
    if state.kubelet != Kubelet::Unknown {
        let ready = state.kubelet == Kubelet::Ready;
        let spec = k8s::NodeStatusSpec { nodename: hostname.to_owned(), node_ready: ready, ..Default::default() };
        let readable = json!({"nodename": hostname, "nodeReady": ready, "unschedulable": false});
        found.push(bare("k8s", "NodeStatuses.kubernetes.talos.dev", hostname, &spec, readable));
    }
    let runs = state.services.get("etcd").is_some_and(|etcd| etcd.state == "Running");
    if let Some((_, id)) = state.disk.etcd.as_ref().filter(|_| runs && config.role() == Role::ControlPlane) {
        let member_id = format!("{id:016x}");
        let spec = etcd::MemberSpec { member_id: member_id.clone() };
        found.push(bare("etcd", "EtcdMembers.etcd.talos.dev", "local", &spec, json!({"memberID": member_id})));
    }
    found
}

/// Answers a call of `cosi.resource.State`.
pub(super) fn call(world: &Arc<World>, node: &Arc<Node>, caller: &Caller, path: &str, payload: &[u8]) -> Answer {
    if !caller.is(&["os:admin", "os:operator", "os:reader"]) {
        return Err(Status::permission_denied("not authorized"));
    }
    match path.rsplit('/').next().unwrap_or_default() {
        "Get" => {
            let request: GetRequest = grpc::decode(payload)?;
            admitted(caller, &request.namespace, &request.r#type)?;
            let resource = current(node, world, &request.r#type)
                .into_iter()
                .find(|resource| is(resource, &request.namespace, &request.id))
                .ok_or_else(|| {
                    Status::not_found(format!(
                        "resource {}({}/{}@undefined) doesn't exist",
                        request.r#type, request.namespace, request.id
                    ))
                })?;
            grpc::one(GetResponse { resource: Some(resource) })
        }
        "List" => {
            let request: ListRequest = grpc::decode(payload)?;
            admitted(caller, &request.namespace, &request.r#type)?;
            let options = request.options.unwrap_or_default();
            if !options.label_query.is_empty() || options.id_query.is_some_and(|query| !query.regexp.is_empty()) {
                return Err(verbs::not_simulated("cosi.resource.State/List with a query"));
            }
            let items = current(node, world, &request.r#type)
                .into_iter()
                .filter(|resource| lives_in(resource, &request.namespace))
                .map(|resource| ListResponse { resource: Some(resource) });
            grpc::many(items)
        }
        "Watch" => watch(world, node, caller, grpc::decode(payload)?),
        "Create" | "Update" | "Destroy" | "Teardown" | "TeardownAndDestroy" => {
            Err(Status::permission_denied("write access is not allowed"))
        }
        _ => Err(verbs::not_simulated(path)),
    }
}

/// Checks that a kind exists here and may be seen.
fn admitted(caller: &Caller, namespace: &str, kind: &str) -> Result<(), Status> {
    if !NAMESPACES.contains(&namespace) {
        return Err(Status::permission_denied(format!("namespace {namespace:?} is not supported")));
    }
    if !MODELLED.contains(&kind) {
        if kind.ends_with(".talos.dev") || kind.ends_with(".cosi.dev") {
            return Err(verbs::not_simulated(&format!("the resource type {kind}")));
        }
        return Err(Status::permission_denied(format!("resource type {kind:?} is not supported")));
    }
    if kind == MACHINE_CONFIGS && (caller.mode == Mode::Maintenance || !caller.is(&["os:admin"])) {
        return Err(Status::permission_denied("not authorized"));
    }
    Ok(())
}

fn lives_in(resource: &Resource, namespace: &str) -> bool {
    resource.metadata.as_ref().is_some_and(|metadata| metadata.namespace == namespace)
}

fn is(resource: &Resource, namespace: &str, id: &str) -> bool {
    resource.metadata.as_ref().is_some_and(|metadata| metadata.namespace == namespace && metadata.id == id)
}

fn watch(world: &Arc<World>, node: &Arc<Node>, caller: &Caller, request: WatchRequest) -> Answer {
    admitted(caller, &request.namespace, &request.r#type)?;
    let options = request.options.clone().unwrap_or_default();
    let wanted = request.id.clone().filter(|id| !id.is_empty());
    if wanted.is_some() && (options.bootstrap_contents || !options.label_query.is_empty()) {
        return Err(Status::unimplemented("bootstrap contents and label queries are not supported with an id"));
    }
    let plain = options.label_query.is_empty()
        && options.id_query.as_ref().is_none_or(|query| query.regexp.is_empty())
        && options.tail_events == 0
        && options.start_from_bookmark.is_none();
    if !plain {
        return Err(verbs::not_simulated("cosi.resource.State/Watch with a query, a tail or a bookmark"));
    }
    let (send, receive) = mpsc::channel(64);
    let (world, node) = (world.clone(), node.clone());
    let mut changes = node.changes();
    let mut cuts = node.cuts();
    world.clone().spawn(async move {
        let look = || -> BTreeMap<String, Resource> {
            current(&node, &world, &request.r#type)
                .into_iter()
                .filter(|resource| lives_in(resource, &request.namespace))
                .filter_map(|resource| Some((resource.metadata.as_ref()?.id.clone(), resource)))
                .filter(|(id, _)| wanted.as_ref().is_none_or(|wanted| wanted == id))
                .collect()
        };
        changes.mark_unchanged();
        let mut seen = look();
        let mut first = vec![WatchResponse { event: Vec::new() }];
        match &wanted {
            Some(id) => {
                let event = match seen.get(id) {
                    Some(resource) => event(EventType::Created, resource.clone(), None),
                    None => event(EventType::Destroyed, tombstone(&request.namespace, &request.r#type, id), None),
                };
                first.push(WatchResponse { event: vec![event] });
            }
            None if options.bootstrap_contents => {
                let mut events: Vec<Event> =
                    seen.values().map(|resource| event(EventType::Created, resource.clone(), None)).collect();
                if request.api_version >= 1 {
                    events.push(Event { event_type: EventType::Bootstrapped as i32, ..Event::default() });
                }
                if options.aggregated {
                    first.push(WatchResponse { event: events });
                } else {
                    first.extend(events.into_iter().map(|event| WatchResponse { event: vec![event] }));
                }
            }
            None => {}
        }
        for response in first {
            if send.send(Ok(response.encode_to_vec())).await.is_err() {
                return;
            }
        }
        loop {
            tokio::select! {
                _ = changes.changed() => {}
                _ = cuts.changed() => {
                    let _ = send.send(Err(Status::unavailable("transport is closing"))).await;
                    return;
                }
                () = send.closed() => return,
            }
            let now = look();
            let mut events = Vec::new();
            for (id, resource) in &now {
                match seen.get(id) {
                    None => events.push(event(EventType::Created, resource.clone(), None)),
                    Some(before) if before.spec != resource.spec => {
                        events.push(event(EventType::Updated, resource.clone(), Some(before.clone())));
                    }
                    Some(_) => {}
                }
            }
            for (id, before) in &seen {
                if !now.contains_key(id) {
                    events.push(event(EventType::Destroyed, before.clone(), None));
                }
            }
            seen = now;
            for event in events {
                if send.send(Ok(WatchResponse { event: vec![event] }.encode_to_vec())).await.is_err() {
                    return;
                }
            }
        }
    });
    Ok(Reply::Many(receive))
}

fn event(kind: EventType, resource: Resource, old: Option<Resource>) -> Event {
    Event { resource: Some(resource), event_type: kind as i32, old, error: None, bookmark: None }
}

fn tombstone(namespace: &str, kind: &str, id: &str) -> Resource {
    let metadata = Metadata {
        namespace: namespace.to_owned(),
        r#type: kind.to_owned(),
        id: id.to_owned(),
        version: "undefined".to_owned(),
        phase: "running".to_owned(),
        ..Metadata::default()
    };
    Resource { metadata: Some(metadata), spec: Some(Spec::default()) }
}

//! The verbs of the machine API.

use super::config::{Config, Role};
use super::etcd::{Identity, Stays};
use super::grpc::{self, Answer};
use super::life::tag;
use super::node::{Node, Start, Wipe};
use super::{apply, kubeconfig, validate};
use crate::faults::mix;
use crate::rack::DiskKind;
use crate::world::World;
use lab_talos::proto::{common, machine, storage};
use prost_types::Timestamp;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tonic::Status;

/// Answers a call in maintenance mode.
pub(super) async fn maintenance(world: &Arc<World>, node: &Arc<Node>, path: &str, payload: &[u8]) -> Answer {
    match path {
        "/machine.MachineService/ApplyConfiguration" => apply::maintenance(world, node, grpc::decode(payload)?),
        "/storage.StorageService/Disks" => disks(node),
        "/machine.MachineService/GenerateConfiguration" => Err(not_simulated(path)),
        "/machine.MachineService/Version"
        | "/machine.MachineService/Upgrade"
        | "/machine.MachineService/Reset"
        | "/machine.MachineService/MetaWrite"
        | "/machine.MachineService/MetaDelete" => {
            Err(Status::unimplemented("API is not implemented in maintenance mode"))
        }
        other => {
            let method = other.rsplit('/').next().unwrap_or_default();
            Err(Status::unimplemented(format!("method {method} not implemented")))
        }
    }
}

/// Answers a call on a configured machine; the caller may make it.
pub(super) async fn call(world: &Arc<World>, node: &Arc<Node>, path: &str, payload: &[u8]) -> Answer {
    match path {
        "/machine.MachineService/ApplyConfiguration" => apply::configured(world, node, grpc::decode(payload)?),
        "/machine.MachineService/Bootstrap" => bootstrap(world, node, grpc::decode(payload)?).await,
        "/machine.MachineService/EtcdForfeitLeadership" => forfeit(node),
        "/machine.MachineService/EtcdLeaveCluster" => leave(world, node),
        "/machine.MachineService/EtcdMemberList" => members(world, node, grpc::decode(payload)?).await,
        "/machine.MachineService/EtcdRemoveMemberByID" => remove(node, grpc::decode(payload)?),
        "/machine.MachineService/Hostname" => grpc::one(machine::HostnameResponse {
            messages: vec![machine::Hostname { metadata: None, hostname: node.hostname() }],
        }),
        "/machine.MachineService/Kubeconfig" => admin_kubeconfig(world, node),
        "/machine.MachineService/Reboot" => reboot(world, node),
        "/machine.MachineService/Reset" => reset(world, node, grpc::decode(payload)?),
        "/machine.MachineService/ServiceList" => services(node),
        "/machine.MachineService/Shutdown" => shutdown(world, node, grpc::decode(payload)?),
        "/machine.MachineService/Upgrade" => upgrade(world, node, grpc::decode(payload)?),
        "/machine.MachineService/Version" => version(node),
        "/storage.StorageService/Disks" => disks(node),
        other => Err(not_simulated(other)),
    }
}

pub(super) fn not_simulated(path: &str) -> Status {
    Status::unimplemented(format!("the simulated machine does not model {}", path.trim_start_matches('/')))
}

/// Returns an id that looks like those of Talos' actors.
fn actor(world: &World) -> String {
    let (high, low) = (mix(world.seed ^ world.next_number()), mix(world.next_number()));
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low >> 52,
        low >> 16
    )
}

pub(super) fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() as i32 }
}

fn control_plane(node: &Node, what: &str) -> Result<Config, Status> {
    node.config()
        .filter(|config| config.role() == Role::ControlPlane)
        .ok_or_else(|| Status::unimplemented(format!("{what} is only available on control plane nodes")))
}

/// The checks in the order of Talos. What stands between a person and a split cluster is only the local directory:
/// on another control plane this succeeds.
async fn bootstrap(world: &Arc<World>, node: &Arc<Node>, request: machine::BootstrapRequest) -> Answer {
    if request.recover_etcd {
        return Err(not_simulated("machine.MachineService/Bootstrap with recover_etcd"));
    }
    let cri = || node.state().services.get("cri").is_some_and(|cri| cri.healthy);
    if !cri() {
        world.pause(Duration::from_secs(1)).await;
        if !cri() {
            return Err(Status::failed_precondition("bootstrap is not available yet"));
        }
    }
    if node.config().is_none_or(|config| config.role() == Role::Worker) {
        return Err(Status::failed_precondition("bootstrap can only be performed on a control plane node"));
    }
    let empty = node.change(|state| {
        let empty = state.disk.etcd.is_none();
        // A second call before the first was carried out finds the sequencer busy and is dropped with an OK.
        state.bootstrapping |= empty;
        empty
    });
    if !empty {
        return Err(Status::already_exists("etcd data directory is not empty"));
    }
    grpc::one(machine::BootstrapResponse { messages: vec![machine::Bootstrap { metadata: None }] })
}

async fn members(world: &Arc<World>, node: &Arc<Node>, request: machine::EtcdMemberListRequest) -> Answer {
    let config = control_plane(node, "member list")?;
    let own = {
        let state = node.state();
        let runs = state.services.get("etcd").is_some_and(|etcd| etcd.state == "Running");
        state.disk.etcd.as_ref().filter(|_| runs).map(|(etcd, _)| etcd.clone())
    };
    // Without query_local any control plane's etcd is asked, so a node that has not joined yet knows the members too.
    let etcd = own
        .filter(|etcd| etcd.has_quorum())
        .or_else(|| if request.query_local { None } else { world.joinable(&Identity::of(&config)) });
    let Some(etcd) = etcd else {
        // What a live node says here was not observed; the client's connection to etcd times out.
        world.pause(Duration::from_secs(5)).await;
        return Err(Status::deadline_exceeded("context deadline exceeded"));
    };
    let url = |member: &super::etcd::Member, port: u16| {
        format!("https://{}", std::net::SocketAddr::new(member.address, port))
    };
    let members = etcd
        .members()
        .iter()
        .map(|member| machine::EtcdMember {
            id: member.id,
            // A member has no name until it started for the first time.
            hostname: if member.learner && !member.running { String::new() } else { member.hostname.clone() },
            peer_urls: vec![url(member, 2380)],
            client_urls: vec![url(member, 2379)],
            is_learner: member.learner,
        })
        .collect();
    grpc::one(machine::EtcdMemberListResponse {
        messages: vec![machine::EtcdMembers { metadata: None, legacy_members: Vec::new(), members }],
    })
}

fn own_etcd(node: &Node, what: &str) -> Result<(Arc<super::etcd::Etcd>, u64), Status> {
    control_plane(node, what)?;
    node.state().disk.etcd.clone().ok_or_else(|| Status::unavailable("etcd is not running on this node"))
}

fn forfeit(node: &Arc<Node>) -> Answer {
    let (etcd, id) = own_etcd(node, "forfeit leadership")?;
    let member = match etcd.leader() {
        Some(leader) if leader.id == id => etcd.forfeit(id).map(|leader| leader.hostname).unwrap_or_default(),
        _ => String::new(),
    };
    grpc::one(machine::EtcdForfeitLeadershipResponse {
        messages: vec![machine::EtcdForfeitLeadership { metadata: None, member }],
    })
}

fn leave(world: &Arc<World>, node: &Arc<Node>) -> Answer {
    let (etcd, id) = own_etcd(node, "leave cluster")?;
    match etcd.leave(id) {
        Ok(()) => {}
        Err(Stays::Last) => {
            return Err(Status::unknown("etcdserver: re-configuration failed due to not enough started members"));
        }
        Err(Stays::Quorum) => return Err(Status::unavailable("etcdserver: no leader")),
    }
    let since = world.clock.now();
    node.change(|state| {
        state.disk.etcd = None;
        state.api = false;
        state.services.insert("etcd", super::node::Service { state: "Finished", healthy: false, since });
    });
    world.forget_lost_clusters();
    grpc::one(machine::EtcdLeaveClusterResponse { messages: vec![machine::EtcdLeaveCluster { metadata: None }] })
}

fn remove(node: &Arc<Node>, request: machine::EtcdRemoveMemberByIdRequest) -> Answer {
    let (etcd, _) = own_etcd(node, "remove member")?;
    if !etcd.has_quorum() {
        return Err(Status::unavailable("etcdserver: no leader"));
    }
    if !etcd.remove(request.member_id) {
        return Err(Status::not_found("etcdserver: member not found"));
    }
    grpc::one(machine::EtcdRemoveMemberByIdResponse {
        messages: vec![machine::EtcdRemoveMemberById { metadata: None }],
    })
}

fn admin_kubeconfig(world: &Arc<World>, node: &Arc<Node>) -> Answer {
    let config = control_plane(node, "kubeconfig")?;
    let bytes = kubeconfig::archive(&config, world.clock.now()).map_err(Status::unknown)?;
    grpc::many([common::Data { metadata: None, bytes }])
}

fn reboot(world: &Arc<World>, node: &Arc<Node>) -> Answer {
    node.sequence(world, "reboot", false, Start::Reboot);
    grpc::one(machine::RebootResponse { messages: vec![machine::Reboot { metadata: None, actor_id: actor(world) }] })
}

/// The messages of the Shutdown call, which the provider has no use for.
#[derive(Clone, PartialEq, prost::Message)]
struct ShutdownRequest {
    #[prost(bool, tag = "1")]
    force: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Shutdown {
    #[prost(message, optional, tag = "1")]
    metadata: Option<common::Metadata>,
    #[prost(string, tag = "2")]
    actor_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ShutdownResponse {
    #[prost(message, repeated, tag = "1")]
    messages: Vec<Shutdown>,
}

fn shutdown(world: &Arc<World>, node: &Arc<Node>, request: ShutdownRequest) -> Answer {
    node.sequence(world, "shutdown", request.force, Start::Shutdown);
    grpc::one(ShutdownResponse { messages: vec![Shutdown { metadata: None, actor_id: actor(world) }] })
}

fn reset(world: &Arc<World>, node: &Arc<Node>, request: machine::ResetRequest) -> Answer {
    use machine::reset_request::WipeMode;
    let mode = request.mode();
    let invalid = |what: &str| Err(Status::unknown(format!("reset failed: invalid input, wipe mode {what} parameter")));
    if mode == WipeMode::UserDisks && !request.system_partitions_to_wipe.is_empty() {
        return invalid("USER_DISKS doesn't support SystemPartitionsToWipe");
    }
    if mode == WipeMode::SystemDisk && !request.user_disks_to_wipe.is_empty() {
        return invalid("SYSTEM_DISK doesn't support UserDisksToWipe");
    }
    let system = node.state().disk.system.as_ref().map(|(disk, _)| disk.clone());
    for disk in &request.user_disks_to_wipe {
        let found = node.spec.disks.iter().any(|found| found.path == *disk);
        if !found {
            return Err(Status::unknown(format!("reset user disk failed: device {disk} wasn't found")));
        }
        if system.as_ref() == Some(disk) {
            return Err(Status::unknown(format!("reset user disk failed: device {disk} is the system disk")));
        }
    }
    let mut wipe = Wipe::Partitions { state: false, ephemeral: false };
    for partition in &request.system_partitions_to_wipe {
        let Wipe::Partitions { state, ephemeral } = &mut wipe else { break };
        match partition.label.as_str() {
            _ if !partition.wipe => {}
            "STATE" => *state = true,
            "EPHEMERAL" => *ephemeral = true,
            // Without its boot partition the disk boots no more than an empty one.
            "BOOT" | "EFI" => wipe = Wipe::Everything,
            "META" | "BIOS" | "IMAGECACHE" => {}
            label if label.starts_with("u-") => {}
            label => {
                return Err(Status::unknown(format!(
                    "failed to get volume status with label {label:?}: resource VolumeStatuses.block.talos.dev(runtime/{label}@undefined) doesn't exist"
                )));
            }
        }
    }
    if request.system_partitions_to_wipe.is_empty() && mode != WipeMode::UserDisks {
        wipe = Wipe::Everything;
    }
    let start = Start::Reset { graceful: request.graceful, wipe, reboot: request.reboot };
    node.sequence(world, "reset", false, start);
    grpc::one(machine::ResetResponse { messages: vec![machine::Reset { metadata: None, actor_id: actor(world) }] })
}

fn services(node: &Arc<Node>) -> Answer {
    let services = node
        .state()
        .services
        .iter()
        .map(|(name, service)| machine::ServiceInfo {
            id: (*name).to_owned(),
            state: service.state.to_owned(),
            events: Some(machine::ServiceEvents::default()),
            health: Some(machine::ServiceHealth {
                unknown: service.state != "Running",
                healthy: service.healthy,
                last_message: String::new(),
                last_change: Some(timestamp(service.since)),
            }),
        })
        .collect();
    grpc::one(machine::ServiceListResponse { messages: vec![machine::ServiceList { metadata: None, services }] })
}

fn upgrade(world: &Arc<World>, node: &Arc<Node>, request: machine::UpgradeRequest) -> Answer {
    let version = tag(&request.image);
    let Some(target) = minor(&version) else {
        return Err(Status::unknown(format!(
            "error validating installer image {:?}: the image was not found",
            request.image
        )));
    };
    let etcd = node.state().disk.etcd.clone();
    if let Some((etcd, _)) = etcd.filter(|_| !request.force) {
        let members = etcd.members();
        if members.len() == 2 {
            return Err(Status::unknown(
                "error validating etcd for upgrade: etcd member count(2) is insufficient to maintain quorum if upgrade commences",
            ));
        }
        if let Some(down) = members.iter().find(|member| !member.running) {
            return Err(Status::unknown(format!(
                "error validating etcd for upgrade: etcd member {:016x} is not healthy",
                down.id
            )));
        }
    }
    // The installer judges what it may follow on; when it refuses, the sequence fails and the old version boots again.
    let host = node.minor();
    let fits = (target.saturating_sub(2)..=target + 1).contains(&host);
    let version = if fits { version } else { node.version() };
    node.sequence(world, "upgrade", false, Start::Upgrade { version });
    let ack = "Upgrade request received".to_owned();
    grpc::one(machine::UpgradeResponse {
        messages: vec![machine::Upgrade { metadata: None, ack, actor_id: actor(world) }],
    })
}

fn minor(version: &str) -> Option<u32> {
    version.strip_prefix("v1.")?.split('.').next()?.parse().ok()
}

fn version(node: &Arc<Node>) -> Answer {
    let rbac = node.config().and_then(|config| config.at("machine.features.rbac").and_then(serde_json::Value::as_bool));
    let version = machine::Version {
        metadata: None,
        version: Some(machine::VersionInfo {
            tag: node.version(),
            os: "linux".to_owned(),
            arch: "amd64".to_owned(),
            ..Default::default()
        }),
        platform: Some(machine::PlatformInfo { name: "metal".to_owned(), mode: "metal".to_owned() }),
        features: Some(machine::FeaturesInfo { rbac: rbac.unwrap_or(true) }),
    };
    grpc::one(machine::VersionResponse { messages: vec![version] })
}

fn disks(node: &Arc<Node>) -> Answer {
    use storage::disk::DiskType;
    let system = node.state().disk.system.as_ref().map(|(disk, _)| disk.clone());
    let disks = node
        .spec
        .disks
        .iter()
        .enumerate()
        .map(|(index, disk)| storage::Disk {
            size: disk.size,
            model: validate::model(disk).to_owned(),
            device_name: disk.path.clone(),
            serial: validate::serial(node.fingerprint(), index),
            r#type: match disk.kind {
                DiskKind::Nvme => DiskType::Nvme,
                DiskKind::Ssd => DiskType::Ssd,
                DiskKind::Hdd => DiskType::Hdd,
            } as i32,
            bus_path: format!("/pci0000:00/0000:00:01.{index}"),
            system_disk: system.as_ref() == Some(&disk.path),
            subsystem: "/sys/class/block".to_owned(),
            ..Default::default()
        })
        .collect();
    grpc::one(storage::DisksResponse { messages: vec![storage::Disks { metadata: None, disks }] })
}

//! A simulated lab that is switched on.

use crate::faults::{Call, Faults};
use crate::proxy::{Dialled, Proxy};
use crate::rack::{Contents, Options, Rack};
use crate::talos::etcd::Member;
use crate::talos::foreign;
use crate::talos::life::member_of;
use crate::talos::node::{Node, Stage, Start, destroys};
use crate::world::World;
use lab_core::{Clock, Link};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A simulated lab that is switched on; dropping it switches everything off.
pub struct Running {
    world: Arc<World>,
    proxy: Proxy,
    link: Link,
    summary: Vec<String>,
}

impl Running {
    pub(crate) async fn start(rack: &Rack, options: Options) -> io::Result<Running> {
        let clock = Clock::scaled(options.speed);
        let mut nodes: BTreeMap<IpAddr, Arc<Node>> = BTreeMap::new();
        for machine in &rack.machines {
            let taken = |nodes: &BTreeMap<_, _>| {
                let hosts = rack.proxmox.iter().flat_map(|cluster| &cluster.hosts);
                let mut others = rack.nfs.iter().map(|nfs| nfs.address).chain(hosts.map(|host| host.address));
                nodes.contains_key(&machine.address) || others.any(|other| other == machine.address)
            };
            if taken(&nodes) {
                let message = format!("{} stands in the rack twice", machine.address);
                return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
            }
            nodes.insert(machine.address, Arc::new(Node::new(machine.clone())));
        }
        let world = World::new(clock.clone(), nodes, rack, &options);
        for node in world.nodes.values() {
            if node.spec.holds == Contents::Foreign {
                let config = foreign(&node.spec).map_err(io::Error::other)?;
                let disk = node.spec.disks.first().map(|disk| disk.path.clone()).unwrap_or_default();
                let system = (disk, node.spec.media.clone());
                node.change(|state| {
                    state.disk.system = Some(system);
                    state.disk.config = Some(config.clone());
                });
                let member: Member = member_of(node, &world);
                let id = member.id;
                // Somebody else's: the stand-in is enough for what anybody does with it.
                let etcd = world.bootstrap(node, &config, member, None);
                etcd.set_running(id, node.spec.on);
            }
        }
        for node in world.nodes.values() {
            if node.spec.on {
                node.live(&world, Start::Standing);
            }
        }
        // Whoever dials from now on finds the machines as they stand.
        for node in world.nodes.values().filter(|node| node.spec.on) {
            let mut changes = node.changes();
            while !node.listens() && changes.changed().await.is_ok() {}
        }
        for datacenter in &world.datacenters {
            datacenter.switch_on().await;
        }
        let proxy = Proxy::start(world.clone()).await?;
        let link = Link::through(proxy.address()).on(clock);
        let summary = summary(rack, &options);
        Ok(Running { world, proxy, link, summary })
    }

    /// Returns how providers reach this lab: through its proxy, on its clock.
    pub fn link(&self) -> Link {
        self.link.clone()
    }

    /// Returns the address of the CONNECT proxy, on loopback.
    pub fn proxy(&self) -> SocketAddr {
        self.proxy.address()
    }

    /// Says what is simulated, line by line, and what is not.
    pub fn summary(&self) -> Vec<String> {
        self.summary.clone()
    }

    /// Says how a person reaches this lab with other tools, line by line.
    pub fn reach(&self) -> Vec<String> {
        let proxy = self.proxy();
        vec![
            format!(
                "HTTPS_PROXY=http://{proxy} talosctl --talosconfig FILE --endpoints ADDRESS --nodes ADDRESS version"
            ),
            format!("HTTPS_PROXY=http://{proxy} kubectl --kubeconfig FILE get nodes"),
        ]
    }

    /// Returns why connections to the Kubernetes API of a Proxmox guest broke: the last thousand, each as
    /// `192.168.10.21:16443: why`.
    pub fn broken(&self) -> Vec<String> {
        self.world.broken()
    }

    /// Returns the calls that reached the lab so far, in order: connections, machine calls, Kubernetes requests.
    pub fn calls(&self) -> Vec<Call> {
        self.world.injector.calls()
    }

    /// Replaces what goes wrong from now on; calls are counted from here.
    pub fn disturb(&self, faults: Faults) {
        self.world.injector.disturb(faults);
    }

    /// Returns the connections that were attempted through the proxy, in the order of their answers.
    pub fn dialled(&self) -> Vec<Dialled> {
        self.proxy.dialled()
    }

    /// Makes a machine lose power; it comes back by itself when `again`, and stays dead otherwise. A machine that is
    /// not in the rack is passed over.
    pub fn power_loss(&self, machine: IpAddr, again: bool) {
        for datacenter in &self.world.datacenters {
            if let Some(host) = datacenter.host_at(machine) {
                datacenter.power_loss(&host.name, again);
            }
        }
        if let Some(node) = self.world.nodes.get(&machine) {
            node.power_loss(&self.world, again);
        }
    }

    /// Takes away the lock that a killed task left on a machine of a Proxmox cluster, as root does on its node with
    /// `qm unlock`: no token may.
    pub fn unlock(&self, vm: u32) {
        for datacenter in &self.world.datacenters {
            datacenter.unlock(vm);
        }
    }

    /// Returns the volumes of Proxmox clusters that were deleted so far, in this order: `nas:110/vm-110-disk-0.raw`, and
    /// with the node in front where it lay on one, `pve1/local-zfs:vm-110-disk-0`.
    pub fn deleted_volumes(&self) -> Vec<String> {
        self.world.datacenters.iter().flat_map(|datacenter| datacenter.deleted()).collect()
    }

    /// Returns the whole simulated world as it is now, for comparisons.
    ///
    /// Random identities are left out: clusters are told apart by number, configurations by digest (which contains
    /// the keys a program generated), members by address. Kubernetes objects come without their volatile fields.
    pub fn world(&self) -> Value {
        let mut machines = Map::new();
        for (address, node) in &self.world.nodes {
            let hostname = node.hostname();
            let state = node.state();
            let config = state.disk.config.as_ref();
            machines.insert(
                address.to_string(),
                json!({
                    "stage": stage(state.stage),
                    "ready": state.unmet(&hostname).is_empty(),
                    "hostname": config.map(|_| hostname.as_str()),
                    "version": state.disk.system.as_ref().map(|(_, version)| version),
                    "disk": state.disk.system.as_ref().map(|(disk, _)| disk),
                    "role": config.and_then(|config| config.text("machine.type")),
                    "config": config.map(|config| hex(&Sha256::digest(&config.bytes))),
                    "etcd": state.disk.etcd.as_ref().map(|(etcd, _)| etcd.number),
                }),
            );
        }
        let clusters: Vec<Value> = self
            .world
            .etcds()
            .iter()
            .map(|etcd| {
                let mut members: Vec<Value> = etcd
                    .members()
                    .iter()
                    .map(|member| {
                        json!({
                            "address": member.address, "hostname": member.hostname,
                            "learner": member.learner, "running": member.running,
                        })
                    })
                    .collect();
                members.sort_by_key(Value::to_string);
                json!({
                    "number": etcd.number,
                    "name": etcd.name,
                    "members": members,
                    "quorum": etcd.has_quorum(),
                    "kubernetes": steady(etcd.kubernetes.snapshot()),
                })
            })
            .collect();
        let mut world = json!({"machines": machines, "clusters": clusters});
        if !self.world.datacenters.is_empty() {
            world["proxmox"] = self.world.datacenters.iter().map(|datacenter| datacenter.snapshot()).collect();
        }
        world
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.world.stop();
    }
}

/// Takes from nodes what changes with every boot and every heartbeat.
fn steady(mut objects: Value) -> Value {
    for node in objects.as_array_mut().into_iter().flatten().filter(|object| object["kind"] == "Node") {
        if let Some(info) = node.pointer_mut("/status/nodeInfo").and_then(Value::as_object_mut) {
            info.remove("bootID");
        }
        for condition in node.pointer_mut("/status/conditions").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(condition) = condition.as_object_mut() {
                condition.remove("lastHeartbeatTime");
            }
        }
    }
    objects
}

fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Off => "off",
        Stage::Booting => "booting",
        Stage::Installing => "installing",
        Stage::Maintenance => "maintenance",
        Stage::Running => "running",
        Stage::Rebooting => "rebooting",
        Stage::Resetting => "resetting",
        Stage::Upgrading => "upgrading",
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn summary(rack: &Rack, options: &Options) -> Vec<String> {
    let mut lines = Vec::new();
    for machine in &rack.machines {
        let name = machine.name.as_ref().map(|name| format!("{name}, ")).unwrap_or_default();
        let disks: Vec<_> =
            machine.disks.iter().map(|disk| format!("{} {} GB", disk.path, disk.size / 1_000_000_000)).collect();
        let holds = destroys(machine.holds).map(|what| format!(", holds {what}")).unwrap_or_default();
        let on = if machine.on { "" } else { ", switched off" };
        lines.push(format!(
            "{name}{}: a machine with {} cores, {} GiB, {}{holds}{on}",
            machine.address,
            machine.cores,
            machine.memory >> 30,
            disks.join(", "),
        ));
    }
    for cluster in &rack.proxmox {
        for host in &cluster.hosts {
            let on = if host.on { "" } else { ", switched off" };
            lines.push(format!(
                "{}, {}: a host of the Proxmox cluster {} with {} cores, {} GiB{on}",
                host.name,
                host.address,
                cluster.name,
                host.cores,
                host.memory >> 30,
            ));
        }
    }
    for nfs in &rack.nfs {
        lines.push(format!(
            "{}: an NFS server exporting {}; files are not simulated",
            nfs.address,
            nfs.exports.join(", ")
        ));
    }
    let (mut simulated, mut absent) = (Vec::new(), vec!["containers, packets, files"]);
    if !rack.machines.is_empty() {
        simulated.extend(["the Talos machine API", "etcd membership"]);
        absent.push("the add-ons Talos brings along (CoreDNS, Flannel, kube-proxy)");
    }
    let slow = match &options.control_plane {
        None => "",
        Some(assets) => {
            lines.push(format!(
                "Real, from {}: etcd, the API server, the controllers and the scheduler of Kubernetes; pods only say that they run.",
                assets.directory().display()
            ));
            ", ten while Kubernetes runs"
        }
    };
    if !rack.proxmox.is_empty() {
        simulated.extend(["the Proxmox API", "what its guests do at their first boot", "how MicroK8s joins"]);
        absent.push("what is inside MicroK8s' add-ons");
    }
    if slow.is_empty() {
        simulated.push("the Kubernetes API");
    }
    lines.push(format!(
        "Simulated: {}. Not simulated: {}. One second is {} simulated seconds{slow}, seed {}.",
        simulated.join(", "),
        absent.join("; "),
        options.speed,
        options.seed
    ));
    lines
}

//! A MicroK8s cluster as one component: its machines, what they are told, and the way in.

use super::channel::{Addon, Channel};
use super::guest::{Act, Deed, Healthy, Kubeconfig, KubeconfigOutputs, Member, MemberOutputs, Token, TokenOutputs};
use super::rollback::{Rollback, RolledBack};
use super::user_data::{network, user_data};
use crate::mac::Mac;
use crate::provider::Proxmox;
use crate::resource::{
    Address, CloudInit, CloudInitOutputs, Disk, Image, ImageOutputs, Network, Snapshot, Vm, VmOutputs,
};
use crate::size::{Gib, Mib};
use crate::slot::Slot;
use lab_core::{Component, Group, Handle, Host, Output, Placed, Scope, Secret, Urn};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

/// How long a machine may take from its first boot until it is a member: three joins, one after the other, and the
/// add-ons.
const SETTING_UP: Duration = Duration::from_secs(60 * 60);

/// A MicroK8s cluster on virtual machines, each with a control plane.
///
/// The first node founds it and turns the add-ons on; the others join one after the other. Nodes are added and removed
/// by their lines: one that goes is drained and forgotten before its machine goes. Whatever interrupts a node later is
/// done to one at a time, while enough of the others vote.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The machines. One, or three and more: with two, the loss of either stops both.
    pub nodes: Vec<Node>,
    /// The channel of the snap. Another one is gone to node by node.
    pub channel: Channel,
    /// What is turned on beside names. One that is added later is turned on then. They stay as they are afterwards:
    /// MicroK8s does not upgrade them, and one that is taken out of this list stays on.
    pub addons: Vec<Addon>,
    /// What the machines are made from.
    pub image: CloudImage,
    /// The cores of each machine.
    pub cores: u32,
    /// The memory of each machine.
    pub memory: Mib,
    /// The disk of each machine.
    pub disk: Gib,
    /// The storage of the disks.
    pub storage: String,
    /// The storage of ISO images and of the image.
    pub files: String,
    /// The bridge.
    pub bridge: String,
    /// The VLAN on it.
    pub vlan: Option<u16>,
    /// The largest packet in bytes.
    pub mtu: Option<u16>,
    /// DNS servers of the machines.
    pub nameservers: Vec<Ipv4Addr>,
    /// Time servers of the machines; none: as Ubuntu has them.
    pub ntp: Vec<String>,
    /// SSH keys of the user `ubuntu`, for people; nothing here needs one.
    pub ssh_keys: Vec<String>,
    /// More names and addresses for the certificate of the Kubernetes API.
    pub sans: Vec<String>,
    /// Keeps snapd from refreshing MicroK8s, and so restarting it, whenever it likes.
    pub hold: bool,
    /// Takes a snapshot of every machine before MicroK8s is taken to another channel on the first. They stay until
    /// somebody deletes them.
    pub snapshots: bool,
    /// Goes back to `channel` from the minor version after it, by those snapshots. It is done once, and may stay until
    /// the channel changes again.
    pub rollback: bool,
    /// Refuses nodes that share a host.
    pub spread: bool,
    /// Makes Proxmox VE refuse to destroy the machines.
    pub protection: bool,
    /// Tags of the machines.
    pub tags: BTreeSet<String>,
}

/// One node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name and address.
    pub host: Host,
    /// The number of its machine.
    pub vmid: u32,
    /// The Proxmox node that it is made on.
    pub on: String,
}

/// A disk image with cloud-init in it: Ubuntu's, of a dated directory, which does not move.
#[derive(Clone, Debug)]
pub struct CloudImage {
    /// The name that it is kept under: `noble-20260114.qcow2`.
    pub file: String,
    /// Where it is.
    pub url: String,
    /// The SHA-256 of it, in hexadecimal.
    pub sha256: String,
}

impl Node {
    /// Returns a node.
    pub fn new(host: Host, vmid: u32, on: impl Into<String>) -> Node {
        Node { host, vmid, on: on.into() }
    }

    /// Returns a node that is declared where its configuration stands.
    pub fn placed<T>(mut self, at: &Placed<T>) -> Node {
        if let Some(place) = &at.place {
            self.host.place = place.clone();
        }
        self
    }

    fn mac(&self) -> Mac {
        Mac::derived(&format!("{}/{}", self.vmid, self.host.name))
    }
}

impl Cluster {
    /// Returns a cluster without nodes yet, on `vmbr0`, with its files on `local`; the rest is set by struct update.
    pub fn new(channel: Channel, image: CloudImage, storage: impl Into<String>) -> Cluster {
        Cluster {
            nodes: Vec::new(),
            channel,
            addons: Vec::new(),
            image,
            cores: 4,
            memory: Gib(8).memory(),
            disk: Gib(40),
            storage: storage.into(),
            files: "local".into(),
            bridge: "vmbr0".into(),
            vlan: None,
            mtu: None,
            nameservers: Vec::new(),
            ntp: Vec::new(),
            ssh_keys: Vec::new(),
            sans: Vec::new(),
            hold: true,
            snapshots: true,
            rollback: false,
            spread: true,
            protection: false,
            tags: BTreeSet::new(),
        }
    }

    /// Returns what a node is told at its first boot, as cloud-init reads it. `token` is what the nodes join with.
    pub fn user_data(&self, node: &Node, token: &Secret<String>) -> Secret<String> {
        token.clone().map(|token| user_data(self, node, &token))
    }

    /// Returns the network configuration of a node, as cloud-init reads it.
    pub fn network(&self, node: &Node) -> String {
        network(self, node, node.mac())
    }

    /// Returns everything that is wrong with it, without looking at anything.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        match self.nodes.len() {
            0 => problems.push("a cluster needs a node".to_owned()),
            2 => problems.push("two nodes survive the loss of none: use one, or three".to_owned()),
            _ => {}
        }
        let mut names = BTreeMap::new();
        let mut on = BTreeMap::new();
        for node in &self.nodes {
            let name = &node.host.name;
            let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
            if name.is_empty() || !plain || name.starts_with('-') || name.ends_with('-') {
                problems
                    .push(format!("{name:?} is no host name: lower-case letters, digits, and hyphens between them"));
            }
            if names.insert(name, node).is_some() {
                problems.push(format!("two nodes are called {name}"));
            }
            if let Some(other) = on.insert(&node.on, node).filter(|_| self.spread) {
                let other = &other.host.name;
                problems.push(format!("{other} and {name} are both on {}: it takes two nodes with it", node.on));
            }
            if node.host.subnet.router().is_none() {
                problems.push(format!("{name} needs a gateway: its subnet names none"));
            }
        }
        if self.nameservers.is_empty() {
            problems.push("the machines need a DNS server: their addresses are static".to_owned());
        }
        if self.disk < Gib(20) {
            problems.push(format!("a disk of {} is too small for MicroK8s: 20 GiB is the least", self.disk));
        }
        if self.memory < Gib(4).memory() {
            problems.push(format!("{} of memory is too little for a control plane: 4 GiB is the least", self.memory));
        }
        for addon in &self.addons {
            problems.extend(addon.on(self.channel).err());
            if let Addon::Metallb(range) = addon {
                let within = self.nodes.iter().find(|node| (range.from..=range.to).contains(&node.host.address));
                if let Some(node) = within {
                    let (name, address) = (&node.host.name, node.host.address);
                    problems.push(format!("the range {range} of MetalLB holds {address}, which is {name}'s"));
                }
            }
        }
        problems
    }
}

/// What others are wired to.
#[derive(Clone, Debug)]
pub struct ClusterHandle {
    token: Handle<TokenOutputs>,
    kubeconfig: Handle<KubeconfigOutputs>,
    members: Vec<Handle<MemberOutputs>>,
}

impl ClusterHandle {
    /// Returns what the cluster's own objects live inside: another token is another cluster.
    pub fn container(&self) -> &Urn {
        self.token.urn()
    }

    /// Returns an administrator's kubeconfig.
    pub fn kubeconfig(&self) -> Output<Secret<String>> {
        self.kubeconfig.output(|outputs| outputs.kubeconfig)
    }

    /// Returns the resource that reads the kubeconfig: once it is ready, every node is a member.
    pub fn ready(&self) -> &Handle<KubeconfigOutputs> {
        &self.kubeconfig
    }

    /// Returns the nodes as members, in the order they were declared.
    pub fn members(&self) -> &[Handle<MemberOutputs>] {
        &self.members
    }
}

/// The machine of a node as it is declared.
struct Machine {
    /// What it is told.
    iso: Handle<CloudInitOutputs>,
    vm: Handle<VmOutputs>,
}

impl Component<Proxmox> for Cluster {
    type Handle = ClusterHandle;

    fn declare(self, scope: &Scope<'_, Proxmox>) -> ClusterHandle {
        for problem in self.problems() {
            scope.problem(problem);
        }
        let first = self.nodes.first().map(|node| node.host.name.clone()).unwrap_or_default();
        let token = scope.resource("token").add(Token { cluster: first });
        let images = self.images(scope);
        let numbers: Vec<(u32, Ipv4Addr)> = self.nodes.iter().map(|node| (node.vmid, node.host.address)).collect();
        let group = scope.stack().rolling("microk8s", 1);
        if self.nodes.len() > 1 {
            group.gate(scope, Healthy { nodes: numbers.clone() });
        }
        let machines: Vec<Machine> = self
            .nodes
            .iter()
            .map(|node| {
                let image = images.get(&node.on).expect("there is an image on every host of a node");
                self.machine(scope, &group, node, &token, image)
            })
            .collect();
        let back = self.rollback(scope, &machines);
        let members: Vec<Handle<MemberOutputs>> = self
            .nodes
            .iter()
            .zip(&machines)
            .map(|(node, machine)| self.member(scope, &group, node, &machine.vm, back.as_ref()))
            .collect();
        if let Some(first) = members.first().filter(|_| self.snapshots) {
            // All of them before the first node changes: what they are set back to has to fit together.
            for node in &self.nodes {
                let description =
                    format!("Before MicroK8s {}. Restore it with those of the other nodes.", self.channel);
                let snapshot = Snapshot { description, ..Snapshot::new(node.vmid, self.channel.snapshot()) };
                group.before(scope, first.urn(), &format!("{}-snapshot", node.host.name), snapshot);
            }
        }
        let mut kubeconfig = scope.resource("kubeconfig");
        for member in &members {
            kubeconfig = kubeconfig.depends_on(member);
        }
        let kubeconfig = kubeconfig.add(Kubeconfig { nodes: numbers, server: None });
        ClusterHandle { token, kubeconfig, members }
    }
}

impl Cluster {
    /// Declares the image on every host that needs it.
    fn images(&self, scope: &Scope<'_, Proxmox>) -> BTreeMap<String, Handle<ImageOutputs>> {
        let hosts: BTreeSet<&String> = self.nodes.iter().map(|node| &node.on).collect();
        let CloudImage { file, url, sha256 } = &self.image;
        // A file bears no mark: two stacks that used one would take it from each other.
        let file = format!("{}-{file}", scope.stack().name());
        let image = |on: &String| {
            let image = Image::new(on, &self.files, &file, url, sha256);
            (on.clone(), scope.resource(&format!("image-{on}")).add(image))
        };
        hosts.into_iter().map(image).collect()
    }

    /// Declares the machine of a node, and what it is told.
    fn machine(
        &self,
        scope: &Scope<'_, Proxmox>,
        group: &Group<'_>,
        node: &Node,
        token: &Handle<TokenOutputs>,
        image: &Handle<ImageOutputs>,
    ) -> Machine {
        let name = &node.host.name;
        let mac = node.mac();
        let (cluster, own) = (self.clone(), node.clone());
        let told = token.output(move |outputs| cluster.user_data(&own, &outputs.token));
        let iso = scope.resource(&format!("{name}-cloud-init")).declared_at(node.host.place.clone()).add(CloudInit {
            // Of the number, not of the content: what is told later is for the next machine of that number.
            instance: format!("{name}-{}", node.vmid),
            network: Some(self.network(node)),
            ..CloudInit::new(&node.on, &self.files, name, told)
        });
        let disk = Disk::from_image(&self.storage, self.disk, image.output(|image| image.volume));
        let vm = scope.resource(name).declared_at(node.host.place.clone()).rolling(group).add(Vm {
            disks: BTreeMap::from([(Slot::scsi(0), disk)]),
            networks: vec![Network {
                vlan: self.vlan,
                mtu: self.mtu,
                address: Some(Address::from(&node.host)),
                ..Network::new(&self.bridge, mac)
            }],
            iso: Some(iso.output(|iso| iso.volume).into()),
            tags: self.tags.clone(),
            protection: self.protection,
            ..Vm::new(node.vmid, name, &node.on, self.cores, self.memory)
        });
        self.around(scope, group, node, vm.urn(), "machine");
        Machine { iso, vm }
    }

    /// Declares that all machines are set back, where that is wanted.
    fn rollback(&self, scope: &Scope<'_, Proxmox>, machines: &[Machine]) -> Option<Handle<RolledBack>> {
        let next = Channel::stable(self.channel.minor() + 1).ok().filter(|_| self.rollback)?;
        let media = machines.iter().map(|machine| machine.iso.output(|iso| iso.volume).into());
        let nodes = self.nodes.iter().map(|node| node.vmid).zip(media).collect();
        let mut rollback = scope.resource(&format!("rollback-to-1-{}", self.channel.minor()));
        for machine in machines {
            rollback = rollback.depends_on(&machine.vm);
        }
        Some(rollback.add(Rollback { nodes, snapshot: next.snapshot() }))
    }

    /// Declares a node as a member.
    fn member(
        &self,
        scope: &Scope<'_, Proxmox>,
        group: &Group<'_>,
        node: &Node,
        vm: &Handle<VmOutputs>,
        back: Option<&Handle<RolledBack>>,
    ) -> Handle<MemberOutputs> {
        let name = &node.host.name;
        let peers = self.nodes.iter().map(|other| other.vmid).filter(|vmid| *vmid != node.vmid).collect();
        let founds = self.nodes.first().is_some_and(|first| first.vmid == node.vmid);
        let mut member =
            scope.resource(name).declared_at(node.host.place.clone()).rolling(group).depends_on(vm).timeout(SETTING_UP);
        if let Some(back) = back {
            member = member.depends_on(back);
        }
        let member = member.add(Member {
            vmid: node.vmid,
            name: name.clone(),
            channel: self.channel,
            address: Some(node.host.address),
            peers,
            rollback: self.rollback,
            addons: if founds { self.addons.clone() } else { Vec::new() },
        });
        self.around(scope, group, node, member.urn(), "member");
        member
    }

    /// Declares what is done around an interruption of a node.
    fn around(&self, scope: &Scope<'_, Proxmox>, group: &Group<'_>, node: &Node, urn: &Urn, what: &str) {
        let name = &node.host.name;
        let act = |deed| Act { vmid: node.vmid, name: name.clone(), deed };
        // A cluster of one has nowhere to move pods to.
        if self.nodes.len() > 1 {
            group.before(scope, urn, &format!("{name}-{what}-drain"), act(Deed::Drain));
            group.after(scope, urn, &format!("{name}-{what}-uncordon"), act(Deed::Uncordon));
        }
    }
}

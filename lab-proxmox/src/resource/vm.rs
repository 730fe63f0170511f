//! A virtual machine, as a resource.

mod change;
mod config;
mod sight;
#[cfg(test)]
mod tests;
mod verbs;

#[cfg(test)]
pub(super) use config::merged;

use crate::mac::Mac;
use crate::size::{Gib, Mib};
use crate::slot::Slot;
use lab_core::{Host, Input};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// A virtual machine of a Proxmox VE cluster.
///
/// It is found by its number anywhere in the cluster: one that was migrated, by hand or because its host was lost, is
/// the same machine. It is ours when its description bears our mark; one that was made by hand bears none and is taken
/// over by import, under the id `qemu/NUMBER`.
///
/// Only what is stated here is managed: other keys of its configuration are left alone. Disks grow and never vanish on
/// the way to something else: a smaller one is refused, one whose line is gone is deleted only with consent, and a
/// machine is not destroyed while it has a disk that the plan did not name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Vm {
    /// The number, unique in the cluster: 100 to 999999999.
    pub vmid: u32,
    /// The name, which is also the guest's host name: letters, digits and hyphens, dots between them.
    pub name: String,
    /// The node it is made on, by its short name.
    pub node: String,
    /// A group of machines of which each is made on another node: a plan that puts two of them on one is refused. Where
    /// the cluster moves them later is for a [`super::Rule`] to say.
    pub apart: Option<String>,
    /// Moves it back to its node whenever it is found on another one. Otherwise it stays where it is found.
    pub pinned: bool,
    /// What it is made from.
    pub source: Source,
    /// The cores of each socket.
    pub cores: u32,
    /// The sockets.
    pub sockets: u32,
    /// The kind of processor that the guest sees: `x86-64-v2-AES`, `host`.
    pub cpu: String,
    /// The memory.
    pub memory: Mib,
    /// The least memory when the host runs short; none: as Proxmox VE has it by default.
    pub balloon: Option<Mib>,
    /// The kind of machine that the guest sees: `q35`; none: as Proxmox VE has it by default.
    pub machine: Option<String>,
    /// The disks.
    pub disks: BTreeMap<Slot, Disk>,
    /// The network interfaces: `net0` and so on.
    pub networks: Vec<Network>,
    /// The volume of an ISO image in the drive `ide2`: [`super::CloudInitOutputs::volume`].
    pub iso: Option<Input<String>>,
    /// Gives the guest a serial console and shows that, as cloud images expect it.
    pub serial_console: bool,
    /// Talks to the guest agent, which must be installed in the guest.
    pub agent: bool,
    /// What it boots from, in this order; empty: from the first disk.
    pub boot: Vec<String>,
    /// Tags; Proxmox VE keeps them in lower case.
    pub tags: BTreeSet<String>,
    /// The pool it is a member of.
    pub pool: Option<Input<String>>,
    /// The description, in Markdown.
    pub description: String,
    /// Whether it runs.
    pub running: bool,
    /// Starts it with its host.
    pub on_boot: bool,
    /// When it is started and stopped among others. Needs the right `Sys.Modify` on `/`.
    pub startup: Option<Startup>,
    /// Makes Proxmox VE refuse to destroy it or its disks; it is lifted when this is no longer said.
    pub protection: bool,
}

/// What a machine is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// From its disks, each empty or made from an image.
    Disks,
    /// As a clone of a template: its disks are those of the template, grown to their size here.
    Template {
        /// The number of the template.
        vmid: u32,
        /// Copies the disks, to this storage or to that of the template; else they stay based on the template's.
        full: Option<FullClone>,
    },
}

/// Where the copies of a full clone's disks go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FullClone {
    /// To the storage that the template's disks are on.
    Same,
    /// To this storage.
    Storage(String),
}

/// A disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Disk {
    /// The storage it is on. It is where the disk is made; a disk that was moved by hand stays there.
    pub storage: String,
    /// Its size. It can be raised later and is then grown while the machine runs.
    pub size: Gib,
    /// The image it is made from: [`super::ImageOutputs::volume`]. Only looked at when it is made.
    pub image: Option<Input<String>>,
    /// Hands freed blocks back to the storage.
    pub discard: bool,
    /// Shows it to the guest as a solid state disk. Not on the virtio bus.
    pub ssd: bool,
    /// Gives it a thread of its own.
    pub io_thread: bool,
    /// Includes it in backups.
    pub backup: bool,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The bridge it is connected to: `vmbr0`.
    pub bridge: String,
    /// The VLAN, 1 to 4094; none: untagged.
    pub vlan: Option<u16>,
    /// Its hardware address.
    pub mac: Mac,
    /// Its static address, which is claimed. It is for the guest's network configuration, and given to it there.
    pub address: Option<Address>,
    /// Applies the firewall of Proxmox VE to it.
    pub firewall: bool,
    /// The largest packet in bytes; none: the bridge's.
    pub mtu: Option<u16>,
}

/// A static address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address.
    pub ip: Ipv4Addr,
    /// The length of the network's prefix in bits.
    pub prefix: u8,
    /// The gateway.
    pub gateway: Option<Ipv4Addr>,
}

/// When a machine is started and stopped among others on its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Startup {
    /// Its place: lower ones start first and stop last.
    pub order: u32,
    /// Seconds to wait after it was started.
    pub up: Option<u32>,
    /// Seconds that it may take to shut down.
    pub down: Option<u32>,
}

/// What a [`Vm`] yields, once it is there and runs if it should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmOutputs {
    /// Its number.
    pub vmid: u32,
    /// Its name.
    pub name: String,
    /// The static address of its first interface that has one.
    pub address: Option<Ipv4Addr>,
}

impl Vm {
    /// Returns a machine that is made from disks and runs: give it `disks` and `networks`.
    pub fn new(vmid: u32, name: impl Into<String>, node: impl Into<String>, cores: u32, memory: Mib) -> Vm {
        Vm {
            vmid,
            name: name.into(),
            node: node.into(),
            apart: None,
            pinned: false,
            source: Source::Disks,
            cores,
            sockets: 1,
            cpu: "x86-64-v2-AES".into(),
            memory,
            balloon: None,
            machine: None,
            disks: BTreeMap::new(),
            networks: Vec::new(),
            iso: None,
            serial_console: true,
            agent: true,
            boot: Vec::new(),
            tags: BTreeSet::new(),
            pool: None,
            description: String::new(),
            running: true,
            on_boot: true,
            startup: None,
            protection: false,
        }
    }

    /// Returns the static address of the first interface that has one.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.networks.iter().find_map(|network| network.address).map(|address| address.ip)
    }

    /// Returns which machine this is, for people.
    pub fn who(&self) -> String {
        format!("VM {} ({})", self.vmid, self.name)
    }
}

impl Disk {
    /// Returns an empty disk.
    pub fn new(storage: impl Into<String>, size: Gib) -> Disk {
        Disk { storage: storage.into(), size, image: None, discard: true, ssd: true, io_thread: true, backup: true }
    }

    /// Returns a disk made from an image and grown to `size`.
    pub fn from_image(storage: impl Into<String>, size: Gib, image: impl Into<Input<String>>) -> Disk {
        Disk { image: Some(image.into()), ..Disk::new(storage, size) }
    }
}

impl Network {
    /// Returns an interface on a bridge, untagged.
    pub fn new(bridge: impl Into<String>, mac: Mac) -> Network {
        Network { bridge: bridge.into(), vlan: None, mac, address: None, firewall: false, mtu: None }
    }
}

impl From<&Host> for Address {
    fn from(host: &Host) -> Address {
        Address { ip: host.address, prefix: host.subnet.prefix(), gateway: host.subnet.router() }
    }
}

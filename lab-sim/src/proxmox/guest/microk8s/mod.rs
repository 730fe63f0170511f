//! MicroK8s in guests: the snap, the join protocol, and the Kubernetes API that the members of a cluster serve.

mod api;
mod cluster;
mod command;
mod snap;

use super::super::datacenter::Datacenter;
use super::system::System;
use super::{Disk, Guest};
use std::sync::Arc;

pub(super) use api::Api;
pub(in crate::proxmox) use cluster::{Cluster, clusters};
pub(super) use command::command;
pub(super) use snap::{Snap, snap};

const BACKEND: &str = "/var/snap/microk8s/current/var/kubernetes/backend/cluster.yaml";
const ADMIN: &str = "/var/snap/microk8s/current/credentials/client.config";
const JOINING: &str = "/var/snap/microk8s/current/var/lock/join-in-progress";
/// How long the services take to start.
const START: u64 = 20;

/// Whether MicroK8s answers on a port of a guest.
pub(super) fn listens(datacenter: &Datacenter, id: u32, guest: &Guest, port: u16) -> bool {
    let Some(Some(cluster)) = datacenter.with_disk(id, |disk| disk.snap.as_ref().and(disk.cluster.clone())) else {
        return false;
    };
    let address = guest.facts().addresses().next();
    let runs = {
        let state = cluster.state();
        let member = address.and_then(|address| state.members.get(&address));
        member.is_some_and(|member| member.runs() && member.guest.is(guest)).then_some(state.clustered)
    };
    match (port, runs) {
        (25000, Some(_)) => true,
        (19001, Some(clustered)) => clustered,
        (16443, Some(_)) => cluster.has_quorum(),
        _ => false,
    }
}

impl Disk {
    /// Returns a file that MicroK8s keeps.
    pub(super) fn microk8s_file(&self, path: &str) -> Option<String> {
        let cluster = self.snap.as_ref().and(self.cluster.as_ref())?;
        match path {
            BACKEND => {
                let mut own = self.network.iter().flat_map(|interface| &interface.addresses);
                cluster.backend(own.next()?.0)
            }
            ADMIN => Some(cluster.admin.clone()),
            _ => None,
        }
    }
}

/// What of MicroK8s comes back by itself with a boot.
pub(super) fn booted(system: &Arc<System>) {
    let Some(cluster) = system.disk(|disk| disk.snap.as_ref().and(disk.cluster.clone())) else { return };
    let this = system.clone();
    system.guest.spawn(async move {
        this.takes(START).await;
        let Some(address) = this.address() else { return };
        // A machine that was set back runs what it ran then.
        let channel = this.disk(|disk| disk.snap.as_ref().map(|snap| snap.channel.clone()));
        if let Some(member) = cluster.state().members.get_mut(&address) {
            member.guest = this.guest.clone();
            member.up = true;
            if let Some(channel) = channel.filter(|channel| *channel != member.channel) {
                member.channel = channel;
                member.told = None;
            }
        }
        cluster.heartbeat(this.datacenter.now()).await;
    });
}

/// The services of a machine stopped: it comes back with its next boot.
pub(super) fn down(datacenter: &Datacenter, id: u32) {
    let cluster = datacenter.with_disk(id, |disk| disk.cluster.clone()).flatten();
    let address = datacenter.guest_of(id).and_then(|guest| guest.facts().addresses().next());
    if let Some((cluster, address)) = cluster.zip(address)
        && let Some(member) = cluster.state().members.get_mut(&address)
    {
        member.up = false;
    }
}

/// Returns the version of Kubernetes of a channel.
fn version(channel: &str) -> String {
    let track = channel.split(['/', '-']).next().unwrap_or_default();
    let minor: u32 = track.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(34);
    format!("v1.{minor}.5")
}

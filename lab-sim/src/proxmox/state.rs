//! What the nodes of a cluster agree on, and what lies on their disks.

use super::storage::{Definition, Place, Volume};
use super::task::Task;
use super::vm::{Config, Vm};
use std::collections::{BTreeMap, BTreeSet};

/// Everything there is in a cluster.
#[derive(Default)]
pub(super) struct State {
    /// The nodes that are down, each until the time of its return, if it returns.
    pub(super) down: BTreeSet<String>,
    pub(super) vms: BTreeMap<u32, Vm>,
    pub(super) storages: BTreeMap<String, Definition>,
    pub(super) volumes: BTreeMap<Place, Volume>,
    pub(super) tasks: BTreeMap<String, Task>,
    pub(super) pools: BTreeMap<String, Pool>,
    pub(super) ha: BTreeMap<u32, Highly>,
    pub(super) rules: BTreeMap<String, Config>,
    pub(super) backups: BTreeMap<String, Config>,
    /// The groups of nodes for machines that are kept running; only in version 8.
    pub(super) groups: BTreeMap<String, Config>,
    /// The volumes that were deleted, in this order, each with the node in front when it lay on one.
    pub(super) deleted: Vec<String>,
}

/// A pool.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool {
    pub(super) comment: Option<String>,
    pub(super) vms: BTreeSet<u32>,
    pub(super) storages: BTreeSet<String>,
}

/// A machine that the cluster keeps running.
#[derive(Clone, Debug)]
pub(super) struct Highly {
    /// Its definition, as it was given.
    pub(super) config: Config,
    /// What the manager is doing with it.
    pub(super) status: &'static str,
}

impl State {
    /// Returns the pool a machine is in.
    pub(super) fn pool_of(&self, vm: u32) -> Option<&str> {
        self.pools.iter().find(|(_, pool)| pool.vms.contains(&vm)).map(|(id, _)| id.as_str())
    }

    /// Deletes a volume.
    pub(super) fn discard(&mut self, place: &Place) {
        if self.volumes.remove(place).is_some() {
            let (volume, node) = place;
            self.deleted.push(if node.is_empty() { volume.clone() } else { format!("{node}/{volume}") });
        }
    }

    /// Returns where the volumes of a machine lie, named by its configuration or not.
    pub(super) fn places_of(&self, id: u32) -> BTreeSet<Place> {
        let own = self.volumes.iter().filter(|(_, volume)| volume.vm == Some(id));
        own.map(|(place, _)| place.clone()).collect()
    }

    /// Takes away a machine whose making failed, with the volumes that were made for it: not with those of another one
    /// that had its number before.
    pub(super) fn unmake(&mut self, id: u32, before: &BTreeSet<Place>) {
        self.vms.remove(&id);
        self.volumes.retain(|place, volume| volume.vm != Some(id) || before.contains(place));
        self.forget(id);
    }

    /// Returns a machine on the node that was asked.
    pub(super) fn vm(&self, id: u32, node: &str) -> Result<&Vm, String> {
        self.vms.get(&id).filter(|vm| vm.node == node).ok_or_else(|| missing(id, node))
    }

    pub(super) fn vm_mut(&mut self, id: u32, node: &str) -> Result<&mut Vm, String> {
        self.vms.get_mut(&id).filter(|vm| vm.node == node).ok_or_else(|| missing(id, node))
    }
}

fn missing(id: u32, node: &str) -> String {
    format!("Configuration file 'nodes/{node}/qemu-server/{id}.conf' does not exist")
}

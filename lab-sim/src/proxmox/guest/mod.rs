//! What runs inside a machine: a system that boots from its disk and obeys the cloud-init it is given.

mod addon;
mod cloud;
mod iso;
mod life;
mod microk8s;
mod script;
mod shell;
mod system;

use super::datacenter::Datacenter;
use microk8s::{Cluster, Snap};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::AbortHandle;

pub(super) use microk8s::clusters;
use system::Outcome;
pub(super) use system::System;

/// What a guest leaves on its disk: it survives a reboot, and goes along into snapshots and clones.
#[derive(Clone, Default)]
pub(super) struct Disk {
    /// The instance that cloud-init set up, once it did.
    instance: Option<String>,
    hostname: String,
    network: Vec<Interface>,
    /// Files by path.
    files: BTreeMap<String, String>,
    packages: BTreeSet<String>,
    /// The units that start with every boot.
    enabled: BTreeSet<String>,
    snap: Option<Snap>,
    cluster: Option<Arc<Cluster>>,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Files hold secrets.
        f.debug_struct("Disk")
            .field("instance", &self.instance)
            .field("hostname", &self.hostname)
            .finish_non_exhaustive()
    }
}

/// A guest that is switched on. Clones are handles of the same one.
#[derive(Clone)]
pub(crate) struct Guest {
    inner: Arc<Inner>,
}

struct Inner {
    facts: Mutex<Facts>,
    /// What goes on in it, to be ended.
    lives: Mutex<Vec<AbortHandle>>,
    alive: AtomicBool,
}

/// What is true of a guest now.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// The system is up, and obeys the power button.
    pub(super) up: bool,
    /// The guest agent answers.
    pub(super) agent: bool,
    /// Cloud-init has done what it was told.
    set_up: bool,
    pub(super) interfaces: Vec<Interface>,
    /// What was asked for and is not simulated.
    refused: Vec<String>,
    /// What the agent was told to run, and how it ended.
    pub(super) processes: BTreeMap<u64, Option<Outcome>>,
}

/// A network interface of a guest.
#[derive(Clone, Debug)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) mac: String,
    /// Its addresses, each with its prefix.
    pub(super) addresses: Vec<(IpAddr, u8)>,
}

impl Facts {
    /// Returns the addresses of all interfaces.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.interfaces.iter().flat_map(|interface| &interface.addresses).map(|(address, _)| *address)
    }
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").field("facts", &*self.facts()).finish_non_exhaustive()
    }
}

impl Guest {
    /// Begins the life of a machine that was switched on.
    pub(super) fn boot(datacenter: &Arc<Datacenter>, id: u32) -> Guest {
        let inner = Inner { facts: Mutex::default(), lives: Mutex::default(), alive: AtomicBool::new(true) };
        let guest = Guest { inner: Arc::new(inner) };
        guest.live(datacenter, id);
        guest
    }

    fn live(&self, datacenter: &Arc<Datacenter>, id: u32) {
        self.end();
        *self.facts() = Facts::default();
        self.inner.alive.store(true, Ordering::Relaxed);
        self.spawn(life::live(datacenter.clone(), id, self.clone()));
    }

    /// Lets something go on inside until the guest ends.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut lives = self.inner.lives.lock().unwrap_or_else(PoisonError::into_inner);
        lives.retain(|life| !life.is_finished());
        lives.push(tokio::spawn(work).abort_handle());
    }

    /// Begins anew, as after the reset button.
    pub(super) fn reset(&self, datacenter: &Arc<Datacenter>, id: u32) {
        microk8s::down(datacenter, id);
        self.live(datacenter, id);
    }

    /// Ends it at once.
    pub(super) fn end(&self) {
        self.inner.alive.store(false, Ordering::Relaxed);
        let lives = std::mem::take(&mut *self.inner.lives.lock().unwrap_or_else(PoisonError::into_inner));
        lives.iter().for_each(AbortHandle::abort);
        *self.facts() = Facts::default();
    }

    fn is_alive(&self) -> bool {
        self.inner.alive.load(Ordering::Relaxed)
    }

    /// Whether this is the same guest in the same machine.
    fn is(&self, other: &Guest) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    pub(super) fn facts(&self) -> MutexGuard<'_, Facts> {
        self.inner.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what two worlds are compared by.
    pub(super) fn world(&self) -> Value {
        let facts = self.facts();
        let addresses: Vec<_> = facts.addresses().collect();
        json!({
            "up": facts.up, "agent": facts.agent, "set up": facts.set_up, "addresses": addresses,
            "not simulated": facts.refused,
        })
    }
}

//! One simulated machine: what is on its disk and what it is doing.

use super::config::{Config, Role};
use super::etcd::Etcd;
use super::{kubelet, life};
use crate::faults::mix;
use crate::rack::{Contents, Machine};
use crate::world::World;
use rustls::ServerConfig;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// A machine.
pub(crate) struct Node {
    pub(crate) spec: Machine,
    state: Mutex<State>,
    /// Counts changes; resource watches wait on it.
    changed: watch::Sender<u64>,
    /// Counts the times all connections were cut.
    cut: watch::Sender<Cut>,
}

/// The connections of a machine end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cut {
    count: u64,
    /// As when power is lost; else what is being answered is answered first.
    pub(crate) hard: bool,
}

/// What a machine is doing now.
pub(crate) struct State {
    pub(crate) stage: Stage,
    pub(crate) port: Port,
    pub(crate) disk: Disk,
    /// How often it was booted.
    pub(crate) boots: u64,
    pub(crate) services: BTreeMap<&'static str, Service>,
    /// Whether its static pods serve the Kubernetes API.
    pub(crate) api: bool,
    pub(crate) kubelet: Kubelet,
    /// A bootstrap was accepted and not carried out yet.
    pub(crate) bootstrapping: bool,
    pub(crate) sequence: Option<&'static str>,
    /// The attempt of try mode that is pending, and the configuration it reverts to.
    pub(crate) trying: Option<(u64, Config)>,
    /// The configuration that maintenance mode accepted.
    pub(super) accepted: Option<Config>,
    pub(crate) versions: super::resources::Versions,
    life: Option<AbortHandle>,
}

/// What survives a reboot.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    /// The device Talos is installed on, and its version.
    pub(crate) system: Option<(String, String)>,
    /// The STATE partition.
    pub(crate) config: Option<Config>,
    /// Configuration that takes effect at the next boot.
    pub(crate) staged: Option<Config>,
    /// The etcd data on the EPHEMERAL partition: which cluster, which member of it.
    pub(crate) etcd: Option<(Arc<Etcd>, u64)>,
}

/// The stage as Talos reports it, and switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Off,
    Booting,
    Installing,
    Maintenance,
    Running,
    Rebooting,
    Resetting,
    Upgrading,
}

/// What answers on port 50000.
#[derive(Clone)]
pub(crate) enum Port {
    /// The machine does not answer at all.
    Gone,
    /// The machine answers, and nobody listens.
    Closed,
    Maintenance(Arc<ServerConfig>),
    Machine(Arc<ServerConfig>),
}

/// A service of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) state: &'static str,
    pub(crate) healthy: bool,
    pub(crate) since: SystemTime,
}

/// What the Kubernetes node of this machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kubelet {
    Unknown,
    NotReady,
    Ready,
}

/// What a life begins with.
pub(crate) enum Start {
    /// The machine is there already, in maintenance mode or running.
    Standing,
    /// The machine is switched on.
    Power,
    Reboot,
    Reset {
        graceful: bool,
        wipe: Wipe,
        reboot: bool,
    },
    Upgrade {
        version: String,
    },
    Shutdown,
}

/// What a reset wipes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wipe {
    /// The whole system disk.
    Everything,
    /// Partitions by label.
    Partitions { state: bool, ephemeral: bool },
}

impl Node {
    pub(crate) fn new(spec: Machine) -> Node {
        let stage = if spec.on { Stage::Booting } else { Stage::Off };
        let state = State {
            stage,
            port: Port::Gone,
            disk: Disk::default(),
            boots: 1,
            services: BTreeMap::new(),
            api: false,
            kubelet: Kubelet::Unknown,
            bootstrapping: false,
            sequence: None,
            trying: None,
            accepted: None,
            versions: Default::default(),
            life: None,
        };
        Node { spec, state: Mutex::new(state), changed: watch::channel(0).0, cut: watch::channel(Cut::default()).0 }
    }

    pub(crate) fn address(&self) -> IpAddr {
        self.spec.address
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes whoever watches.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.changed.send_modify(|count| *count += 1);
        result
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(crate) fn cuts(&self) -> watch::Receiver<Cut> {
        self.cut.subscribe()
    }

    pub(super) fn cut(&self, hard: bool) {
        self.cut.send_modify(|cut| *cut = Cut { count: cut.count + 1, hard });
    }

    /// Whether its machine API, of either kind, can be dialled.
    pub(crate) fn listens(&self) -> bool {
        match self.state().port {
            Port::Gone | Port::Closed => false,
            Port::Maintenance(_) | Port::Machine(_) => true,
        }
    }

    /// Returns the configuration in force.
    pub(crate) fn config(&self) -> Option<Config> {
        self.state().disk.config.clone()
    }

    /// Returns the version of Talos that runs.
    pub(crate) fn version(&self) -> String {
        self.state().disk.system.as_ref().map_or_else(|| self.spec.media.clone(), |(_, version)| version.clone())
    }

    /// Returns the minor version (of v1) that runs.
    pub(crate) fn minor(&self) -> u32 {
        self.version().trim_start_matches('v').split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(11)
    }

    /// Returns the host name: as configured, else one derived from the machine.
    pub(crate) fn hostname(&self) -> String {
        self.config().map_or_else(|| self.stable_name(), |config| self.hostname_of(&config))
    }

    /// Returns the host name that a configuration gives this machine.
    pub(crate) fn hostname_of(&self, config: &Config) -> String {
        config.hostname().map_or_else(|| self.stable_name(), str::to_owned)
    }

    fn stable_name(&self) -> String {
        const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let bits = mix(self.fingerprint());
        let letter = |index: u32| char::from(LETTERS[(bits >> (5 * index)) as usize % 32]);
        let name: String = (0..6).map(letter).collect();
        format!("talos-{}-{}", &name[..3], &name[3..])
    }

    /// Returns a number that tells this machine from others.
    pub(crate) fn fingerprint(&self) -> u64 {
        fingerprint(self.spec.address)
    }

    /// Returns the machine's UUID.
    pub(crate) fn uuid(&self) -> String {
        let (high, low) = (mix(self.fingerprint()), mix(self.fingerprint() ^ 1));
        format!(
            "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xfff,
            low >> 48 & 0xfff,
            low & 0xffff_ffff_ffff
        )
    }

    /// Begins a life, ending the one before.
    pub(crate) fn live(self: &Arc<Self>, world: &Arc<World>, start: Start) {
        let task = tokio::spawn(life::live(self.clone(), world.clone(), start));
        let before = self.state().life.replace(task.abort_handle());
        if let Some(before) = before {
            before.abort();
        }
    }

    /// Begins a sequence if none is in its way; the caller is told OK in either case, as by Talos.
    pub(crate) fn sequence(self: &Arc<Self>, world: &Arc<World>, name: &'static str, takeover: bool, start: Start) {
        let free = self.change(|state| {
            let free = match state.sequence {
                None => true,
                Some("reboot" | "reset") if name == "reboot" => true,
                Some(_) => takeover,
            };
            if free {
                state.sequence = Some(name);
            }
            free
        });
        if free {
            self.live(world, start);
        }
    }

    /// Ends everything at once: the world is dropped.
    pub(crate) fn stop(&self) {
        if let Some(life) = self.state().life.take() {
            life.abort();
        }
        self.cut(true);
    }

    /// The machine loses power and, if `again`, gets it back.
    pub(crate) fn power_loss(self: &Arc<Self>, world: &Arc<World>, again: bool) {
        self.stop();
        self.down(world);
        if again {
            self.live(world, Start::Power);
        } else {
            self.change(|state| state.stage = Stage::Off);
        }
    }

    /// Hands a configuration to the maintenance mode, which installs it.
    pub(crate) fn accept(&self, config: Config) {
        self.change(|state| state.accepted = Some(config));
    }

    /// Nothing runs any more.
    pub(super) fn down(self: &Arc<Self>, world: &Arc<World>) {
        let (etcd, config) = self.change(|state| {
            state.port = Port::Gone;
            state.services.clear();
            state.api = false;
            state.bootstrapping = false;
            state.kubelet = Kubelet::Unknown;
            (state.disk.etcd.clone(), state.disk.config.clone())
        });
        if let Some((etcd, member)) = etcd {
            etcd.set_running(member, false);
        }
        if let Some(config) = config {
            kubelet::lost(self, world, config);
        }
    }

    pub(super) fn service(&self, world: &World, name: &'static str, state: &'static str, healthy: bool) {
        let since = world.clock.now();
        self.change(|of| of.services.insert(name, Service { state, healthy, since }));
    }

    pub(super) fn stage(&self, stage: Stage) {
        self.change(|state| state.stage = stage);
    }
}

/// Returns a number that tells the machine at this address from others.
pub(super) fn fingerprint(address: IpAddr) -> u64 {
    let bits = match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    mix((bits >> 64) as u64) ^ mix(bits as u64)
}

impl State {
    /// Returns what keeps the machine from being ready, each with its reason.
    pub(crate) fn unmet(&self, hostname: &str) -> Vec<(&'static str, String)> {
        if !matches!(self.stage, Stage::Booting | Stage::Running) {
            return Vec::new();
        }
        let control_plane = self.disk.config.as_ref().is_some_and(|config| config.role() == Role::ControlPlane);
        let required: &[&str] = if control_plane {
            &["apid", "machined", "kubelet", "etcd", "trustd"]
        } else {
            &["apid", "machined", "kubelet"]
        };
        let mut unmet = Vec::new();
        let waits: Vec<_> = required
            .iter()
            .filter_map(|name| match self.services.get(name) {
                Some(Service { state: "Running", healthy: true, .. }) => None,
                Some(Service { state: "Running", .. }) => Some(format!("{name} not healthy")),
                _ => Some(format!("{name} not running")),
            })
            .collect();
        if !waits.is_empty() {
            unmet.push(("services", waits.join(", ")));
        }
        if control_plane && !self.api {
            let why = self.disk.etcd.as_ref().and_then(|(etcd, _)| etcd.kubernetes.problem());
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            unmet.push(("staticPods", format!("kube-apiserver-{hostname} not ready{why}")));
        }
        match self.kubelet {
            Kubelet::Unknown => unmet.push(("nodeReady", format!("node {hostname:?} status is not available yet"))),
            Kubelet::NotReady => unmet.push(("nodeReady", format!("node {hostname:?} is not ready"))),
            Kubelet::Ready => {}
        }
        unmet
    }
}

/// Whether a machine's first disk holds something that an installation would destroy.
pub(crate) fn destroys(contents: Contents) -> Option<&'static str> {
    match contents {
        Contents::Empty => None,
        Contents::Windows => Some("Windows"),
        Contents::Foreign => Some("Talos of another cluster"),
    }
}

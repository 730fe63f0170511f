//! One simulated machine: what is on its disk, what it is doing, and how its life goes on by itself.

use super::config::{Config, Role};
use super::etcd::{Etcd, Identity, Member, Stays};
use super::kubelet;
use crate::faults::mix;
use crate::rack::{Contents, Machine};
use crate::tls::{self, Authority, Clients, Leaf, Purpose};
use crate::world::World;
use rustls::ServerConfig;
use serde_json::Value;
use std::collections::BTreeMap;
use std::future::pending;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::task::AbortHandle;

// How long things take, in simulated time. The order of magnitude is that of mini PCs with NVMe drives.
const INSTALL: Duration = Duration::from_secs(180);
const DOWN: Duration = Duration::from_secs(110);
const STOPPING: Duration = Duration::from_secs(10);
const WIPE: Duration = Duration::from_secs(20);
const UPGRADE: Duration = Duration::from_secs(60);
const NETWORK: Duration = Duration::from_secs(5);
const SERVICES: Duration = Duration::from_secs(10);
const ETCD: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(5);
const PROMOTE: Duration = Duration::from_secs(15);
const STATIC_PODS: Duration = Duration::from_secs(20);
const NODE_READY: Duration = Duration::from_secs(15);

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
    accepted: Option<Config>,
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

    fn cut(&self, hard: bool) {
        self.cut.send_modify(|cut| *cut = Cut { count: cut.count + 1, hard });
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
        let task = tokio::spawn(live(self.clone(), world.clone(), start));
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
    fn down(self: &Arc<Self>, world: &Arc<World>) {
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

    fn service(&self, world: &World, name: &'static str, state: &'static str, healthy: bool) {
        let since = world.clock.now();
        self.change(|of| of.services.insert(name, Service { state, healthy, since }));
    }

    fn stage(&self, stage: Stage) {
        self.change(|state| state.stage = stage);
    }
}

/// A machine's life, until it is ended from outside.
async fn live(node: Arc<Node>, world: Arc<World>, start: Start) {
    let mut stands = false;
    match start {
        Start::Standing => stands = true,
        Start::Power => world.pause(DOWN).await,
        Start::Reboot => {
            node.stage(Stage::Rebooting);
            shut_down(&node, &world).await;
            world.pause(DOWN).await;
        }
        Start::Shutdown => {
            shut_down(&node, &world).await;
            node.stage(Stage::Off);
            return pending().await;
        }
        Start::Upgrade { version } => {
            node.stage(Stage::Upgrading);
            world.pause(UPGRADE).await;
            node.change(|state| {
                if let Some((_, installed)) = &mut state.disk.system {
                    *installed = version;
                }
                state.stage = Stage::Rebooting;
            });
            shut_down(&node, &world).await;
            world.pause(DOWN).await;
        }
        Start::Reset { graceful, wipe, reboot } => {
            if graceful && !leave_etcd(&node, &world) {
                // The sequence stops, and the node goes on as before.
                node.change(|state| state.sequence = None);
                return pending().await;
            }
            node.stage(Stage::Resetting);
            shut_down(&node, &world).await;
            world.pause(WIPE).await;
            node.change(|state| match wipe {
                Wipe::Everything => state.disk = Disk::default(),
                Wipe::Partitions { state: config, ephemeral } => {
                    if config {
                        state.disk.config = None;
                        state.disk.staged = None;
                    }
                    if ephemeral {
                        state.disk.etcd = None;
                    }
                }
            });
            world.forget_lost_clusters();
            // A wiped system disk has nothing to boot from, and the installation media was pulled out long ago.
            if !reboot || wipe == Wipe::Everything {
                node.stage(Stage::Off);
                return pending().await;
            }
            world.pause(DOWN).await;
        }
    }
    loop {
        node.change(|state| {
            state.sequence = None;
            if let Some(staged) = state.disk.staged.take() {
                state.disk.config = Some(staged);
            }
            if !stands {
                state.boots += 1;
            }
            state.stage = Stage::Booting;
            state.port = Port::Closed;
        });
        match node.config().filter(Config::is_complete) {
            Some(config) => {
                run(&node, &world, config, stands).await;
                return pending().await;
            }
            None => maintenance(&node, &world).await,
        }
        stands = false;
        world.pause(DOWN).await;
    }
}

async fn shut_down(node: &Arc<Node>, world: &Arc<World>) {
    // The reply to the call that began this goes out first.
    world.pause(Duration::from_secs(1)).await;
    node.change(|state| state.port = Port::Closed);
    node.cut(false);
    world.pause(STOPPING).await;
    node.down(world);
}

fn leave_etcd(node: &Arc<Node>, world: &Arc<World>) -> bool {
    let Some((etcd, member)) = node.state().disk.etcd.clone() else { return true };
    match etcd.leave(member) {
        Ok(()) => {
            node.change(|state| {
                state.disk.etcd = None;
                state.api = false;
            });
            world.forget_lost_clusters();
            true
        }
        Err(Stays::Last | Stays::Quorum) => false,
    }
}

/// Waits in maintenance mode for a configuration, and installs.
async fn maintenance(node: &Arc<Node>, world: &Arc<World>) {
    // The authority of maintenance mode lives in memory, has no name, and is another one at every boot.
    let tls = Authority::generate(None, &rcgen::PKCS_ED25519)
        .map_err(|error| error.to_string())
        .and_then(|(authority, _, _)| server(node, world, &authority, Clients::Anyone));
    let Ok(tls) = tls else { return pending().await };
    node.change(|state| {
        state.accepted = None;
        state.stage = Stage::Maintenance;
        state.port = Port::Maintenance(tls);
    });
    let mut changes = node.changes();
    let config = loop {
        if let Some(config) = node.state().accepted.take() {
            break config;
        }
        if changes.changed().await.is_err() {
            return pending().await;
        }
    };
    world.pause(Duration::from_secs(1)).await;
    node.change(|state| {
        state.port = Port::Closed;
        state.stage = Stage::Installing;
    });
    node.cut(false);
    if node.state().disk.system.is_none() {
        world.pause(INSTALL).await;
        let disk = super::validate::install_disk(&config, &node.spec);
        let version = config.text("machine.install.image").map_or_else(|| node.spec.media.clone(), tag);
        node.change(|state| state.disk.system = disk.map(|disk| (disk, version)));
    }
    node.change(|state| {
        state.disk.config = Some(config);
        state.stage = Stage::Rebooting;
        state.port = Port::Gone;
    });
}

/// Returns a number that tells the machine at this address from others.
pub(super) fn fingerprint(address: IpAddr) -> u64 {
    let bits = match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    mix((bits >> 64) as u64) ^ mix(bits as u64)
}

/// Returns the version that an installer image carries.
pub(super) fn tag(image: &str) -> String {
    let name = image.split('@').next().unwrap_or(image);
    let last = name.rsplit('/').next().unwrap_or(name);
    last.split_once(':').map_or("latest", |(_, tag)| tag).to_owned()
}

/// Runs as configured. `stands`: it did so already when the lab was switched on.
async fn run(node: &Arc<Node>, world: &Arc<World>, config: Config, stands: bool) {
    let pause = async |duration| {
        if !stands {
            world.pause(duration).await;
        }
    };
    node.service(world, "machined", "Running", true);
    node.service(world, "apid", "Waiting", false);
    node.service(world, "kubelet", "Waiting", false);
    if config.role() == Role::ControlPlane {
        node.service(world, "trustd", "Waiting", false);
        node.service(world, "etcd", "Waiting", false);
    }
    pause(NETWORK).await;
    let authority = machine_authority(node, world, &config).await;
    let Ok(tls) = server(node, world, &authority, clients(&config)) else { return pending().await };
    for name in ["apid", "containerd", "syslogd", "udevd", "auditd"] {
        node.service(world, name, "Running", true);
    }
    if config.role() == Role::ControlPlane {
        node.service(world, "trustd", "Running", true);
        node.service(world, "etcd", "Preparing", false);
    }
    node.change(|state| state.port = Port::Machine(tls));
    pause(SERVICES).await;
    node.service(world, "cri", "Running", true);
    node.service(world, "kubelet", "Running", true);

    if config.role() == Role::ControlPlane {
        etcd(node, world, &config, stands).await;
    }
    node.stage(Stage::Running);
    if config.role() == Role::ControlPlane {
        pause(STATIC_PODS).await;
        node.change(|state| state.api = true);
    }
    let etcd = loop {
        if let Some(etcd) = world.kubernetes(&config) {
            break etcd;
        }
        world.pause(RETRY).await;
    };
    kubelet::register(node, &etcd, &config);
    kubelet::report(node, world, &etcd, &config, "False");
    node.change(|state| state.kubelet = Kubelet::NotReady);
    pause(NODE_READY).await;
    kubelet::report(node, world, &etcd, &config, "True");
    node.change(|state| state.kubelet = Kubelet::Ready);
}

/// Returns the authority that signs this machine's certificate: its own, or for a worker that of a control plane which
/// knows the machine token.
async fn machine_authority(node: &Node, world: &World, config: &Config) -> Authority {
    loop {
        if let Some((certificate, Some(key))) = config.machine_authority()
            && let Ok(authority) = Authority::decode(certificate, key)
        {
            return authority;
        }
        for other in world.nodes.values().filter(|other| other.address() != node.address()) {
            let trusts = other.state().services.get("trustd").is_some_and(|service| service.healthy);
            let Some(theirs) = other.config().filter(|_| trusts) else { continue };
            let same = |path| theirs.text(path) == config.text(path);
            if same("machine.ca.crt")
                && same("machine.token")
                && let Some((certificate, Some(key))) = theirs.machine_authority()
                && let Ok(authority) = Authority::decode(certificate, key)
            {
                return authority;
            }
        }
        world.pause(RETRY).await;
    }
}

/// Returns which clients a configured machine lets in: those of its authority, and of the others it accepts.
fn clients(config: &Config) -> Clients {
    let own = config.machine_authority().map(|(certificate, _)| certificate);
    let others = config.at("machine.acceptedCAs").and_then(Value::as_array);
    let others = others.into_iter().flatten().filter_map(|other| other["crt"].as_str());
    Clients::Required(own.into_iter().chain(others).filter_map(|field| tls::decode_certificate(field).ok()).collect())
}

/// Issues the certificate of port 50000 anew, for a configuration that changed without a reboot.
pub(super) fn refresh(node: &Arc<Node>, world: &Arc<World>) {
    let (node, world) = (node.clone(), world.clone());
    world.clone().spawn(async move {
        let Some(config) = node.config() else { return };
        let authority = machine_authority(&node, &world, &config).await;
        if let Ok(tls) = server(&node, &world, &authority, clients(&config)) {
            node.change(|state| {
                if let Port::Machine(current) = &mut state.port {
                    *current = tls;
                }
            });
        }
    });
}

/// Returns the TLS side of port 50000.
fn server(node: &Node, world: &World, authority: &Authority, clients: Clients) -> Result<Arc<ServerConfig>, String> {
    let mut names = vec![node.hostname()];
    let mut addresses = vec![node.address()];
    if let Some(config) = node.config() {
        addresses.extend(config.virtual_addresses());
        for name in config.texts("machine.certSANs") {
            match name.parse() {
                Ok(address) => addresses.push(address),
                Err(_) => names.push(name),
            }
        }
    }
    let now = SystemTime::now();
    let leaf = Leaf {
        common_name: None,
        organizations: Vec::new(),
        addresses,
        names,
        // Clients judge it by the wall clock or by the lab's, which runs ahead. A real machine's lives for 24 hours and is
        // renewed in time; this one outlives every run.
        from: now - Duration::from_secs(10),
        until: world.clock.now() + Duration::from_secs(365 * 24 * 3600),
        purpose: Purpose::Server,
    };
    let issued = authority.issue(leaf, &rcgen::PKCS_ED25519).map_err(|error| error.to_string())?;
    tls::server(issued, clients, &[b"h2"], &world.clock)
}

/// Brings etcd up: with the data on disk, by a bootstrap, or by joining a cluster that exists.
async fn etcd(node: &Arc<Node>, world: &Arc<World>, config: &Config, stands: bool) {
    let pause = async |duration| {
        if !stands {
            world.pause(duration).await;
        }
    };
    let (etcd, id) = loop {
        if let Some(data) = node.state().disk.etcd.clone() {
            break data;
        }
        // Asked once: two await points between reading and clearing it would lose a call.
        let asked = node.state().bootstrapping;
        if asked {
            pause(ETCD / 2).await;
            let member = member_of(node, world);
            let id = member.id;
            let etcd = world.bootstrap(config, member);
            node.change(|state| {
                state.disk.etcd = Some((etcd, id));
                state.bootstrapping = false;
            });
            continue;
        }
        if let Some(cluster) = world.joinable(&Identity::of(config)) {
            let member = member_of(node, world);
            let id = member.id;
            if cluster.join(member) {
                node.change(|state| state.disk.etcd = Some((cluster, id)));
                continue;
            }
        }
        let mut changes = node.changes();
        tokio::select! {
            () = world.pause(RETRY) => {}
            _ = changes.changed() => {}
        }
    };
    node.service(world, "etcd", "Running", false);
    pause(ETCD).await;
    while etcd.member(id).is_none() {
        // Removed from the cluster while it was away: its data is of no use to anybody.
        node.service(world, "etcd", "Failed", false);
        world.pause(RETRY * 12).await;
    }
    etcd.set_running(id, true);
    while !etcd.has_quorum() {
        world.pause(RETRY).await;
    }
    while etcd.member(id).is_some_and(|member| member.learner) {
        world.pause(PROMOTE).await;
        etcd.promote(id);
    }
    node.service(world, "etcd", "Running", true);
}

pub(crate) fn member_of(node: &Node, world: &World) -> Member {
    Member {
        id: mix(world.seed ^ node.fingerprint() ^ world.next_number()) | 1 << 63,
        address: node.address(),
        hostname: node.hostname(),
        learner: false,
        running: true,
    }
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
            unmet.push(("staticPods", format!("kube-apiserver-{hostname} not ready")));
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

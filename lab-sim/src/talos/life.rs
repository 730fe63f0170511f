//! How the life of a machine goes on by itself: boot, maintenance, installation, services, etcd, and their ends.

use super::config::{Config, Role};
use super::etcd::{Identity, Member, Stays};
use super::kubelet;
use super::node::{Disk, Kubelet, Node, Port, Stage, Start, Wipe};
use crate::faults::mix;
use crate::tls::{self, Authority, Clients, Leaf, Purpose};
use crate::world::World;
use rustls::ServerConfig;
use serde_json::Value;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

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

/// A machine's life, until it is ended from outside.
pub(super) async fn live(node: Arc<Node>, world: Arc<World>, start: Start) {
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
        let own = node.state().disk.etcd.clone();
        if let Some((etcd, _)) = own
            && etcd.kubernetes.up().await.is_err()
        {
            // The machine says why, where it says what keeps it from being ready.
            std::future::pending::<()>().await;
        }
        node.change(|state| state.api = true);
    }
    let etcd = loop {
        if let Some(etcd) = world.kubernetes(&config) {
            break etcd;
        }
        world.pause(RETRY).await;
    };
    kubelet::register(node, world, &etcd, &config).await;
    kubelet::report(node, world, &etcd, &config, "False").await;
    node.change(|state| state.kubelet = Kubelet::NotReady);
    pause(NODE_READY).await;
    kubelet::report(node, world, &etcd, &config, "True").await;
    node.change(|state| state.kubelet = Kubelet::Ready);
    kubelet::beat(node, Arc::downgrade(&etcd), &config).await;
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
            world.bootstrap(node, config, member_of(node, world), world.control_plane.as_ref());
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

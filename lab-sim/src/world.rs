//! The simulated world: the machines by address, the clusters they made, and the ways in.

use crate::control_plane::Assets;
use crate::faults::{Fault, Injector};
use crate::proxmox::{self, Datacenter};
use crate::proxy::{Dial, Network, literal};
use crate::rack::{Nfs, Options, Rack};
use crate::talos::config::Config;
use crate::talos::etcd::{Etcd, Identity, Member};
use crate::talos::node::{Node, Port, Stage};
use crate::talos::{apid, kubelet};
use lab_core::Clock;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;

/// How long a client waits for an address that does not answer, in simulated time.
const NO_ANSWER: Duration = Duration::from_secs(20);

/// How many simulated seconds pass in a second while real processes do a part of the work, which take their time.
const REAL: u32 = 10;

/// How many connections that broke are remembered.
const BROKEN: usize = 1000;

/// Everything that is simulated.
pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) seed: u64,
    pub(crate) injector: Injector,
    pub(crate) nodes: BTreeMap<IpAddr, Arc<Node>>,
    pub(crate) names: BTreeMap<String, IpAddr>,
    pub(crate) nfs: Vec<Nfs>,
    pub(crate) datacenters: Vec<Arc<Datacenter>>,
    /// What a cluster's own control plane is run with, instead of the stand-in.
    pub(crate) control_plane: Option<Assets>,
    speed: u32,
    /// How many [`Slow`] there are.
    slow: Mutex<usize>,
    etcds: Mutex<Vec<Arc<Etcd>>>,
    born: AtomicU64,
    numbers: AtomicU64,
    tasks: Mutex<JoinSet<()>>,
    broken: Mutex<VecDeque<String>>,
    this: std::sync::Weak<World>,
}

/// A time in which real processes do a part of the work.
pub(crate) struct Slow(std::sync::Weak<World>);

impl Drop for Slow {
    fn drop(&mut self) {
        let Some(world) = self.0.upgrade() else { return };
        let mut slow = world.slow.lock().unwrap_or_else(PoisonError::into_inner);
        *slow -= 1;
        if *slow == 0 {
            world.clock.run_at(world.speed);
        }
    }
}

impl World {
    pub(crate) fn new(clock: Clock, nodes: BTreeMap<IpAddr, Arc<Node>>, rack: &Rack, options: &Options) -> Arc<World> {
        Arc::new_cyclic(|this: &std::sync::Weak<World>| World {
            datacenters: rack
                .proxmox
                .iter()
                .map(|cluster| Datacenter::new(cluster.clone(), clock.clone(), this.clone()))
                .collect(),
            clock,
            seed: options.seed,
            injector: Injector::new(options.seed, options.faults.clone()),
            nodes,
            names: rack.names.clone(),
            nfs: rack.nfs.clone(),
            control_plane: options.control_plane.clone(),
            speed: options.speed,
            slow: Mutex::default(),
            etcds: Mutex::default(),
            born: AtomicU64::new(0),
            numbers: AtomicU64::new(0),
            tasks: Mutex::default(),
            broken: Mutex::default(),
            this: this.clone(),
        })
    }

    /// Waits for so much simulated time.
    pub(crate) async fn pause(&self, duration: Duration) {
        self.clock.sleep(duration).await;
    }

    /// Runs something beside the machines' lives; it ends with the world.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Notes why a connection to a machine broke, for whoever asks afterwards.
    pub(crate) fn broke(&self, address: IpAddr, port: u16, why: &str) {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        if broken.len() == BROKEN {
            broken.pop_front();
        }
        broken.push_back(format!("{address}:{port}: {why}"));
    }

    pub(crate) fn broken(&self) -> Vec<String> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Ends everything.
    pub(crate) fn stop(&self) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        for node in self.nodes.values() {
            node.stop();
        }
        for datacenter in &self.datacenters {
            datacenter.stop();
        }
    }

    /// Lets time go by more slowly until all that this returned is dropped.
    pub(crate) fn slow_down(&self) -> Slow {
        let mut slow = self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        *slow += 1;
        self.clock.run_at(REAL.min(self.speed));
        Slow(self.this.clone())
    }

    /// Returns a number that was not returned before.
    pub(crate) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn etcds(&self) -> Vec<Arc<Etcd>> {
        self.etcds.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a new etcd cluster with `node` as its one member, which has its data before anybody finds the cluster: whoever
    /// switches the machine off then takes the member away. Whether there is a cluster already is not asked.
    pub(crate) fn bootstrap(
        self: &Arc<Self>,
        node: &Node,
        config: &Config,
        first: Member,
        control_plane: Option<&Assets>,
    ) -> Arc<Etcd> {
        let id = first.id;
        let number = self.born.fetch_add(1, Ordering::Relaxed) + 1;
        let kubernetes = kubelet::kubernetes(self, config, number, control_plane);
        let etcd = Arc::new(Etcd::bootstrapped(number, config, kubernetes, first));
        node.change(|state| {
            state.disk.etcd = Some((etcd.clone(), id));
            state.bootstrapping = false;
        });
        self.etcds.lock().unwrap_or_else(PoisonError::into_inner).push(etcd.clone());
        etcd
    }

    /// Returns the cluster that a control plane of this identity would find and join.
    pub(crate) fn joinable(&self, identity: &Identity) -> Option<Arc<Etcd>> {
        self.etcds().into_iter().find(|etcd| etcd.identity == *identity && etcd.has_quorum())
    }

    /// Drops the clusters whose data no machine holds any more.
    pub(crate) fn forget_lost_clusters(&self) {
        let held: Vec<u64> = self
            .nodes
            .values()
            .filter_map(|node| node.state().disk.etcd.as_ref().map(|(etcd, _)| etcd.number))
            .collect();
        self.etcds.lock().unwrap_or_else(PoisonError::into_inner).retain(|etcd| held.contains(&etcd.number));
    }

    /// Returns the cluster whose Kubernetes API a machine with this configuration finds: the one behind its endpoint,
    /// else any control plane's (KubePrism).
    pub(crate) fn kubernetes(&self, config: &Config) -> Option<Arc<Etcd>> {
        let authority = config.text("cluster.ca.crt").unwrap_or_default();
        let mut serving: Vec<_> = self
            .nodes
            .values()
            .filter_map(|node| Some((node.address(), self.serves(node)?)))
            .filter(|(_, etcd)| etcd.kubernetes_authority == authority)
            .collect();
        let endpoint = self.resolve(config.endpoint_host());
        serving.sort_by_key(|(address, etcd)| (Some(*address) != endpoint, etcd.number));
        serving.into_iter().next().map(|(_, etcd)| etcd)
    }

    /// Returns the cluster whose Kubernetes API this machine serves now.
    pub(crate) fn serves(&self, node: &Node) -> Option<Arc<Etcd>> {
        let state = node.state();
        let (etcd, member) = state.disk.etcd.as_ref().filter(|_| state.api)?;
        let running = etcd.member(*member).is_some_and(|member| member.running && !member.learner);
        (running && etcd.has_quorum() && etcd.kubernetes.is_up()).then(|| etcd.clone())
    }

    /// Returns the address of a host as the lab's DNS and its machines know it.
    pub(crate) fn resolve(&self, host: &str) -> Option<IpAddr> {
        literal(host)
            .or_else(|| self.names.get(host).copied())
            .or_else(|| self.nodes.values().find(|node| node.hostname() == host).map(|node| node.address()))
    }

    /// Returns the machine that answers at an address: the one that has it, or the one that holds it as the shared
    /// address of control planes.
    pub(crate) fn at(&self, address: IpAddr) -> Option<Arc<Node>> {
        self.nodes
            .get(&address)
            .cloned()
            .or_else(|| self.nodes.values().find(|node| self.holds_virtual(node, address)).cloned())
    }

    fn holds_virtual(&self, node: &Node, address: IpAddr) -> bool {
        let state = node.state();
        let shared = state.disk.config.as_ref().is_some_and(|config| config.virtual_addresses().contains(&address));
        shared && state.services.get("etcd").is_some_and(|etcd| etcd.healthy)
    }

    /// Says what becomes of a connection to a host of a Proxmox cluster.
    async fn proxmox(&self, world: &Arc<World>, address: IpAddr, port: u16) -> Option<Dial> {
        let (datacenter, host) = self
            .datacenters
            .iter()
            .find_map(|datacenter| Some((datacenter, datacenter.host_at(address)?.name.clone())))?;
        match self.injector.consult(address, &format!("connect {address}:{port}")) {
            None | Some(Fault::TaskFails | Fault::TaskDies | Fault::TaskWarns | Fault::GivenUp) => {}
            Some(Fault::Latency(delay)) => self.pause(delay).await,
            Some(Fault::Refused) => return Some(Dial::Refused),
            Some(Fault::Dropped | Fault::ReplyLost) => return Some(Dial::Broken),
            Some(Fault::Reboot) => {
                datacenter.power_loss(&host, true);
                return Some(Dial::Broken);
            }
            Some(Fault::Dead) => datacenter.power_loss(&host, false),
        }
        if !datacenter.is_up(&host) {
            world.pause(NO_ANSWER).await;
            return Some(Dial::NoAnswer);
        }
        Some(match port {
            8006 => proxmox::dial(datacenter.clone(), host),
            22 => Dial::NotSimulated("SSH"),
            _ => Dial::Refused,
        })
    }

    /// Says what becomes of a connection to a machine of a Proxmox cluster that is up and has this address.
    async fn guest(&self, address: IpAddr, port: u16) -> Option<Dial> {
        let datacenter = self.datacenters.iter().find(|datacenter| datacenter.guest_at(address).is_some())?;
        match self.injector.consult(address, &format!("connect {address}:{port}")) {
            None | Some(Fault::TaskFails | Fault::TaskDies | Fault::TaskWarns | Fault::GivenUp) => {}
            Some(Fault::Latency(delay)) => self.pause(delay).await,
            Some(Fault::Refused) => return Some(Dial::Refused),
            Some(Fault::Dropped | Fault::ReplyLost) => return Some(Dial::Broken),
            Some(fault @ (Fault::Reboot | Fault::Dead)) => {
                datacenter.guest_fails(address, fault == Fault::Reboot);
                return Some(Dial::Broken);
            }
        }
        datacenter.dial_guest(address, port)
    }

    async fn route(&self, host: &str, port: u16) -> Dial {
        // Held for the length of a connection only: the world is owned by who runs it.
        let Some(world) = self.this.upgrade() else { return Dial::Broken };
        let Some(address) = self.resolve(host) else {
            self.pause(NO_ANSWER).await;
            return Dial::NoAnswer;
        };
        if let Some(dial) = self.proxmox(&world, address, port).await {
            return dial;
        }
        if let Some(dial) = self.guest(address, port).await {
            return dial;
        }
        let Some(node) = self.at(address) else {
            if self.nfs.iter().any(|nfs| nfs.address == address) {
                return if port == 2049 { Dial::NotSimulated("NFS") } else { Dial::Refused };
            }
            self.pause(NO_ANSWER).await;
            return Dial::NoAnswer;
        };
        match self.injector.consult(address, &format!("connect {address}:{port}")) {
            None | Some(Fault::TaskFails | Fault::TaskDies | Fault::TaskWarns | Fault::GivenUp) => {}
            Some(Fault::Latency(delay)) => self.pause(delay).await,
            Some(Fault::Refused) => return Dial::Refused,
            Some(Fault::Dropped | Fault::ReplyLost) => return Dial::Broken,
            Some(Fault::Reboot) => {
                node.power_loss(&world, true);
                return Dial::Broken;
            }
            Some(Fault::Dead) => node.power_loss(&world, false),
        }
        let (stage, listens) = {
            let state = node.state();
            (state.stage, state.port.clone())
        };
        match (stage, port, listens) {
            (Stage::Off, ..) | (_, _, Port::Gone) => {
                self.pause(NO_ANSWER).await;
                Dial::NoAnswer
            }
            (_, 50000, Port::Maintenance(tls)) => Dial::Open(Box::new(move |stream| {
                Box::pin(apid::serve(stream, world, node, tls, apid::Mode::Maintenance))
            })),
            (_, 50000, Port::Machine(tls)) => Dial::Open(Box::new(move |stream| {
                Box::pin(apid::serve(stream, world, node, tls, apid::Mode::Configured))
            })),
            (_, 6443, Port::Machine(_)) => match self.serves(&node) {
                Some(etcd) => kubelet::serve(world, node, etcd),
                None => Dial::Refused,
            },
            (_, 10250, Port::Machine(_)) => Dial::NotSimulated("the kubelet"),
            (_, 2379 | 2380, Port::Machine(_)) if self.serves(&node).is_some() => Dial::NotSimulated("etcd"),
            (_, _, Port::Closed | Port::Maintenance(_) | Port::Machine(_)) => Dial::Refused,
        }
    }
}

impl Network for World {
    fn dial(&self, host: &str, port: u16) -> Pin<Box<dyn Future<Output = Dial> + Send + '_>> {
        let host = host.to_owned();
        Box::pin(async move { self.route(&host, port).await })
    }
}

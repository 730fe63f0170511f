//! The Kubernetes API of a cluster, and the port on which its members serve it.
//!
//! It is the embedded one, or a real control plane of this machine. That one takes its time to start, and every machine
//! that installs MicroK8s begins as a cluster of its own, which most of them leave a minute later: so it is started when
//! somebody wants to hear something of it. What it was told before then is told to it first.

use super::super::system::System;
use super::cluster::Cluster;
use super::listens;
use crate::control_plane::Membership;
use crate::kube::controllers::Settings;
use crate::kube::{self, Faults};
use crate::kubernetes::{self, Kubernetes};
use crate::proxmox::datacenter::Datacenter;
use crate::proxy::Dial;
use crate::tls::{self, Authority, Clients, Leaf, Purpose};
use lab_core::Clock;
use serde_json::Value;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard};

/// The range of the addresses of MicroK8s' services.
const SERVICES: &str = "10.152.183.0/24";
/// How long it takes until a request that nobody answered is made again.
const AGAIN: Duration = Duration::from_secs(5);

/// The Kubernetes API of a cluster.
pub(in crate::proxmox::guest) struct Api {
    kubernetes: OnceLock<Kubernetes>,
    start: Box<dyn Fn() -> Option<Kubernetes> + Send + Sync>,
    /// What it has to be told yet, in this order.
    told: Mutex<Vec<Told>>,
    clock: Clock,
}

/// A request whose answer nobody waits for.
struct Told {
    method: &'static str,
    path: String,
    body: Value,
}

impl Api {
    /// Returns the API of a new cluster, empty but for its system namespaces. `authority` are the certificate and the key
    /// of the cluster's own, in PEM.
    pub(super) fn new(
        system: &System,
        number: u64,
        version: String,
        authority: (String, String),
    ) -> Result<Api, String> {
        let clock = system.datacenter.clock.clone();
        let world = system.datacenter.world().ok_or("the world has ended")?;
        let mut settings = Settings { authority: authority.0.clone(), ..Settings::default() };
        settings.provisioners.insert("microk8s.io/hostpath".to_owned());
        let faults = faults(system);
        let kubernetes = OnceLock::new();
        let start: Box<dyn Fn() -> Option<Kubernetes> + Send + Sync> = match world.control_plane.clone() {
            Some(assets) => {
                let (weak, address) = (Arc::downgrade(&world), address(system));
                Box::new(move || {
                    let membership = Membership {
                        authority: authority.clone(),
                        service_accounts: None,
                        issuer: "https://kubernetes.default.svc".to_owned(),
                        services: SERVICES.to_owned(),
                        address,
                    };
                    let (assets, faults, settings) = (assets.clone(), faults.clone(), settings.clone());
                    Some(Kubernetes::real(&weak.upgrade()?, Ok(membership), assets, faults, settings))
                })
            }
            None => {
                let mut options = kube::Options::new(version, clock.clone());
                options.seed = world.seed.wrapping_add(number);
                let api = kube::Api::new(options);
                api.start_controllers(settings);
                api.inject(faults);
                kubernetes.get_or_init(|| Kubernetes::StandIn(api));
                Box::new(|| None)
            }
        };
        Ok(Api { kubernetes, start, told: Mutex::default(), clock })
    }

    /// Tells it something, as an administrator, once it is there.
    pub(in crate::proxmox::guest) async fn tell(&self, method: &'static str, path: impl Into<String>, body: &Value) {
        let mut told = self.told.lock().await;
        told.push(Told { method, path: path.into(), body: body.clone() });
        if let Some(kubernetes) = self.kubernetes.get() {
            self.catch_up(kubernetes, told).await;
        }
    }

    /// Asks it from within the cluster, as an administrator; returns the status and the body of the answer. The error is
    /// why there will never be any.
    pub(in crate::proxmox::guest) async fn ask(&self, path: &str) -> Result<(u16, Value), String> {
        let kubernetes = self.awake().await?;
        Ok(self.insist(kubernetes, "GET", path, &Value::Null).await)
    }

    /// Says that a node is alive, if there is somebody to hear it.
    pub(super) async fn beat(&self, node: &str) {
        if let Some(kubernetes) = self.kubernetes.get().filter(|kubernetes| kubernetes.is_up()) {
            kubernetes.beat(node).await;
        }
    }

    pub(in crate::proxmox::guest) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Returns every object as it is now, for comparisons.
    pub(super) fn snapshot(&self) -> Value {
        self.kubernetes.get().map_or(Value::Null, Kubernetes::snapshot)
    }

    /// Serves a connection to its end; the error is why it broke.
    async fn serve(&self, stream: TcpStream, tls: Arc<rustls::ServerConfig>) -> io::Result<()> {
        self.awake().await.map_err(io::Error::other)?.serve_stream(stream, tls).await
    }

    /// Ends it: the cluster is gone.
    pub(super) fn stop(&self) {
        if let Some(kubernetes) = self.kubernetes.get() {
            kubernetes.stop();
        }
    }

    /// Returns it as soon as it is up and knows everything.
    async fn awake(&self) -> Result<&Kubernetes, String> {
        let told = self.told.lock().await;
        let kubernetes = match self.kubernetes.get() {
            Some(kubernetes) => kubernetes,
            None => {
                let started = (self.start)().ok_or("the world has ended")?;
                self.kubernetes.get_or_init(|| started)
            }
        };
        kubernetes.up().await?;
        self.catch_up(kubernetes, told).await;
        Ok(kubernetes)
    }

    async fn catch_up(&self, kubernetes: &Kubernetes, mut told: MutexGuard<'_, Vec<Told>>) {
        for Told { method, path, body } in told.drain(..) {
            self.insist(kubernetes, method, &path, &body).await;
        }
    }

    /// Makes a request until it is answered.
    async fn insist(&self, kubernetes: &Kubernetes, method: &str, path: &str, body: &Value) -> (u16, Value) {
        loop {
            match kubernetes.request(method, path, "lab-sim", body).await {
                Some(answer) if !matches!(answer.0, 500 | 503 | 504) => return answer,
                _ => self.clock.sleep(AGAIN).await,
            }
        }
    }
}

fn address(system: &System) -> IpAddr {
    system.address().unwrap_or(IpAddr::from([0, 0, 0, 0]))
}

/// Lets what goes wrong in the lab go wrong with the requests to this API.
fn faults(system: &System) -> Arc<Faults> {
    let address = address(system);
    let datacenter = Arc::downgrade(&system.datacenter);
    Arc::new(move |method: &str, path: &str| {
        let Some((datacenter, world)) = datacenter.upgrade().and_then(|this| Some((this.clone(), this.world()?)))
        else {
            return kube::Fault::DropBefore;
        };
        let fault = world.injector.consult(address, &format!("{method} {path}"));
        kubernetes::suffered(fault, |again| datacenter.guest_fails(address, again))
    })
}

impl Datacenter {
    /// Serves a port of a guest.
    pub(crate) fn dial_guest(self: &Arc<Self>, address: IpAddr, port: u16) -> Option<Dial> {
        let (id, guest) = self.guest_at(address)?;
        if !listens(self, id, &guest, port) {
            return Some(if port == 22 { Dial::NotSimulated("SSH") } else { Dial::Refused });
        }
        if port != 16443 {
            return Some(Dial::NotSimulated(if port == 25000 { "the cluster agent" } else { "dqlite" }));
        }
        let cluster = self.with_disk(id, |disk| disk.cluster.clone()).flatten()?;
        let Ok(tls) = server(&cluster, address, self) else { return Some(Dial::Refused) };
        let this = self.clone();
        Some(Dial::Open(Box::new(move |stream| {
            Box::pin(async move {
                let connection = cluster.api.serve(stream, tls);
                let gone = async {
                    while listens(&this, id, &guest, 16443) {
                        this.clock.sleep(Duration::from_secs(5)).await;
                    }
                };
                let broke = tokio::select! {
                    served = connection => served.err().map(|error| error.to_string()),
                    () = gone => Some("the machine no longer serves".to_owned()),
                };
                if let Some((world, why)) = this.world().zip(broke) {
                    world.broke(address, port, &why);
                }
            })
        })))
    }
}

fn server(cluster: &Cluster, address: IpAddr, datacenter: &Datacenter) -> Result<Arc<rustls::ServerConfig>, String> {
    let authority = Authority::decode(&cluster.authority.0, &cluster.authority.1)?;
    let mut addresses = vec![address, IpAddr::from([127, 0, 0, 1]), IpAddr::from([10, 152, 183, 1])];
    let mut names = vec!["kubernetes".to_owned(), "kubernetes.default".to_owned(), "localhost".to_owned()];
    for san in &cluster.sans {
        match san.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(san.clone()),
        }
    }
    let leaf = Leaf {
        common_name: Some("127.0.0.1".to_owned()),
        organizations: vec!["Canonical".to_owned()],
        addresses,
        names,
        from: SystemTime::now() - Duration::from_secs(10),
        until: datacenter.now() + Duration::from_secs(365 * 24 * 3600),
        purpose: Purpose::Server,
    };
    let issued = authority.issue(leaf, &rcgen::PKCS_ECDSA_P256_SHA256).map_err(|error| error.to_string())?;
    tls::server(issued, Clients::Optional(vec![authority.certificate]), &[b"h2", b"http/1.1"], &datacenter.clock)
}

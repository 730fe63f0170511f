//! The Kubernetes API of a cluster, and the port on which its members serve it.
//!
//! Here alone is it known which API that is: the embedded one. Another has the calls of [`Api`], and is let in by the
//! certificates that the cluster's authority issues.

use super::super::system::System;
use super::cluster::Cluster;
use super::listens;
use crate::faults::Fault;
use crate::kube;
use crate::proxmox::datacenter::Datacenter;
use crate::proxy::Dial;
use crate::tls::{self, Authority, Clients, Leaf, Purpose};
use lab_core::Clock;
use serde_json::Value;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::TcpStream;

/// The Kubernetes API of a cluster.
pub(in crate::proxmox::guest) struct Api {
    embedded: kube::Api,
}

impl Api {
    /// Starts the API of a cluster, empty but for its system namespaces. `authority` is the certificate of the cluster's
    /// own, in PEM.
    pub(super) fn start(system: &System, number: u64, version: String, authority: String) -> Result<Api, String> {
        let datacenter = &system.datacenter;
        let world = datacenter.world().ok_or("the world has ended")?;
        let mut options = kube::Options::new(version, datacenter.clock.clone());
        options.seed = world.seed.wrapping_add(number);
        let embedded = kube::Api::new(options);
        let mut settings = kube::controllers::Settings { authority, ..kube::controllers::Settings::default() };
        settings.provisioners.insert("microk8s.io/hostpath".to_owned());
        embedded.start_controllers(settings);
        faults(&embedded, system);
        Ok(Api { embedded })
    }

    /// Asks it from within the cluster, as an administrator; returns the status and the body of the answer.
    pub(in crate::proxmox::guest) async fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.embedded.call(method, path, body)
    }

    pub(in crate::proxmox::guest) fn clock(&self) -> &Clock {
        self.embedded.clock()
    }

    /// Returns every object as it is now, for comparisons.
    pub(super) fn snapshot(&self) -> Value {
        self.embedded.snapshot()
    }

    /// Serves a connection.
    async fn serve(&self, stream: TcpStream, tls: Arc<rustls::ServerConfig>) {
        let _ = self.embedded.serve_stream(stream, tls).await;
    }

    /// Ends it: the cluster is gone.
    pub(super) fn stop(&self) {
        self.embedded.stop();
    }
}

/// Lets what goes wrong in the lab go wrong with the requests to this API.
fn faults(api: &kube::Api, system: &System) {
    let address = system.address().unwrap_or(IpAddr::from([0, 0, 0, 0]));
    let datacenter = Arc::downgrade(&system.datacenter);
    api.inject(Arc::new(move |method: &str, path: &str| {
        let Some((datacenter, world)) = datacenter.upgrade().and_then(|this| Some((this.clone(), this.world()?)))
        else {
            return kube::Fault::DropBefore;
        };
        match world.injector.consult(address, &format!("{method} {path}")) {
            None | Some(Fault::TaskFails | Fault::TaskDies | Fault::TaskWarns | Fault::GivenUp) => kube::Fault::None,
            Some(Fault::Latency(delay)) => kube::Fault::Delay(delay),
            Some(Fault::Refused) => kube::Fault::Status(503),
            Some(Fault::Dropped) => kube::Fault::DropBefore,
            Some(Fault::ReplyLost) => kube::Fault::DropAfter,
            Some(Fault::Reboot) => {
                datacenter.guest_fails(address, true);
                kube::Fault::DropAfter
            }
            Some(Fault::Dead) => {
                datacenter.guest_fails(address, false);
                kube::Fault::DropBefore
            }
        }
    }));
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
                tokio::select! {
                    _ = connection => {}
                    () = gone => {}
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

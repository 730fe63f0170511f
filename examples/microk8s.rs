//! MicroK8s for dev, staging and production: one program, a configuration file for each, and Proxmox VE below.
//!
//! ```console
//! $ cargo run --example microk8s -- --env dev rehearse
//! $ cargo run --example microk8s -- --env dev preview
//! $ cargo run --example microk8s -- --env dev up
//! $ cargo run --example microk8s -- --env staging up
//! ```
//!
//! Staging takes its versions over from dev, and production from staging, once they were applied there as a whole. What
//! interrupts waits for the maintenance window of its environment.

use lab::addons::{CertManager, ClusterIssuer, MetalLb};
use lab::kube::Kubernetes;
use lab::prelude::*;
use lab::proxmox::microk8s::{self, Addon, Channel, CloudImage};
use lab::proxmox::{Capacity, Fingerprint, Gib, Proxmox, Segment, Trust};
use lab::sim::proxmox::{self as simulated, Host, Image, Storage};
use lab::sim::{Rack, gigabytes};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

fn main() -> ExitCode {
    Lab::environments("microk8s", microk8s).configuration("examples/microk8s/{env}.toml").hardware(rack()).run()
}

/// What an environment is made of: `examples/microk8s/dev.toml` and so on.
#[derive(Debug, Deserialize)]
pub(crate) struct Environment {
    network: Subnet,
    vlan: u16,
    nameservers: Vec<Ipv4Addr>,
    pool: Range,
    versions: Source,
    addons: Vec<Service>,
    machines: Machines,
    nodes: Vec<Node>,
    #[serde(default)]
    protect: bool,
    /// Whether MicroK8s may go back to the minor version before.
    #[serde(default)]
    rollback: bool,
    #[serde(default)]
    maintenance: Windows,
    proxmox: Cluster,
}

/// Where the versions come from.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Source {
    Stated(Versions),
    PromotedFrom(String),
}

/// What is tried in one environment before it is used in the next.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Versions {
    channel: Channel,
    image: String,
    sha256: String,
}

/// What MicroK8s itself turns on.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Service {
    HostpathStorage,
    MetricsServer,
    Dashboard,
    Ingress,
    CertManager,
    Rbac,
    Registry,
}

#[derive(Debug, Deserialize)]
struct Machines {
    cores: u32,
    memory: u32,
    disk: u32,
    storage: String,
}

#[derive(Debug, Deserialize)]
struct Node {
    name: String,
    host: Placed<u32>,
    vmid: u32,
    on: String,
}

#[derive(Debug, Deserialize)]
struct Cluster {
    endpoints: Vec<String>,
    fingerprints: Vec<Fingerprint>,
}

/// What an environment yields, for its owner and for the next environment.
#[derive(Serialize, Deserialize)]
pub(crate) struct Microk8s {
    versions: Versions,
    kubeconfig: Output<Secret<String>>,
}

pub(crate) fn microk8s(stack: &Stack, here: Environment) -> Result<Microk8s, ProgramError> {
    stack.maintenance(here.maintenance);
    let versions = match here.versions {
        Source::Stated(versions) => versions,
        Source::PromotedFrom(env) => stack.promoted_from::<Microk8s>(&env)?.versions,
    };

    let trust = Trust::Fingerprints(here.proxmox.fingerprints);
    let pve = stack.provider(
        "pve",
        Proxmox { endpoints: here.proxmox.endpoints, ..Proxmox::new("pve", "", Secret::new(token()), trust) },
    );

    // What the hosts have to give, to all environments together, and what belongs to this one alone.
    for host in ["pve1", "pve2", "pve3"] {
        pve.resource(host).add(Capacity {
            cpu_percent: 150,
            memory_percent: 120,
            headroom_percent: 30,
            ..Capacity::new(host, 32, Gib(128).memory())
        });
    }
    pve.resource("segment").add(Segment::new("vmbr0", Some(here.vlan), here.network));

    // cert-manager is MicroK8s' own where it is turned on there.
    let brought = here.addons.iter().any(|service| matches!(service, Service::CertManager));
    let certificates = if brought { CertManager::existing() } else { CertManager::new() };

    // Three machines that become one cluster by themselves, each on a host of its own.
    let node = |node: Node| {
        let host = here.network.host(&node.name, node.host.value)?;
        Ok(microk8s::Node::new(host, node.vmid, node.on).placed(&node.host))
    };
    let image =
        CloudImage { file: "ubuntu.qcow2".into(), url: versions.image.clone(), sha256: versions.sha256.clone() };
    let cluster = pve.component("microk8s").protect(here.protect).add(microk8s::Cluster {
        nodes: here.nodes.into_iter().map(node).collect::<Result<_, ProgramError>>()?,
        addons: here.addons.into_iter().map(Addon::from).collect(),
        cores: here.machines.cores,
        memory: Gib(here.machines.memory).memory(),
        disk: Gib(here.machines.disk),
        vlan: Some(here.vlan),
        nameservers: here.nameservers,
        protection: here.protect,
        rollback: here.rollback,
        tags: BTreeSet::from([stack.env().unwrap_or("microk8s").to_owned()]),
        ..microk8s::Cluster::new(versions.channel, image, here.machines.storage)
    });

    // Everything declared on it lives inside that cluster.
    let k8s = stack.provider("k8s", Kubernetes::inside(cluster.container(), cluster.kubeconfig()));
    k8s.component("metallb").add(MetalLb::new(here.pool));
    let certificates = k8s.component("certificates").add(certificates);
    k8s.component("issuer").depends_on(&certificates.ready).add(ClusterIssuer::authority("microk8s"));

    Ok(Microk8s { versions, kubeconfig: cluster.kubeconfig() })
}

/// Returns the API token, `USER@REALM!TOKENID=SECRET`. Without one a plan can still be looked at and rehearsed.
fn token() -> String {
    std::env::var("PROXMOX_TOKEN").unwrap_or_else(|_| "lab@pve!lab=unknown".into())
}

/// The hardware that a rehearsal simulates, all environments on the same: told by hand, never derived from the program
/// above.
pub(crate) fn rack() -> Rack {
    let token = token();
    let (id, secret) = token.split_once('=').unwrap_or((&token, ""));
    let host =
        |n: u8| Host { memory: 128 << 30, cores: 32, ..Host::new(&format!("pve{n}"), [192, 168, 1, 10 + n].into()) };
    let noble =
        "https://cloud-images.ubuntu.com/releases/24.04/release-20260108/ubuntu-24.04-server-cloudimg-amd64.img";
    Rack::new().proxmox(simulated::Cluster {
        hosts: vec![host(1), host(2), host(3)],
        storages: vec![Storage::directory("local", gigabytes(100)), Storage::zfs("local-zfs", gigabytes(1800))],
        downloads: vec![Image::ubuntu("24.04", noble, &"0".repeat(64))],
        ..simulated::Cluster::new("pve", simulated::Token::new(id, secret))
    })
}

impl From<Service> for Addon {
    fn from(service: Service) -> Addon {
        match service {
            Service::HostpathStorage => Addon::HostpathStorage,
            Service::MetricsServer => Addon::MetricsServer,
            Service::Dashboard => Addon::Dashboard,
            Service::Ingress => Addon::Ingress,
            Service::CertManager => Addon::CertManager,
            Service::Rbac => Addon::Rbac,
            Service::Registry => Addon::Registry,
        }
    }
}

//! A whole cluster as one component: its secrets, its machines, its birth, and the way in.

use crate::authority::{AUTHORITY_LIFETIME, derive};
use crate::config::{Contract, Device, Interface, Role};
use crate::provider::Talos;
use crate::resource::{
    Bootstrap, Bootstrapped, Bundle, BundleOutputs, Configured, EtcdHealthy, Kubeconfig, KubeconfigOutputs, Machine,
};
use crate::secrets::{Secrets, issued};
use crate::talosconfig::Talosconfig;
use crate::version::{KubernetesVersion, TalosVersion};
use lab_core::{Component, Handle, Host, Input, Output, Scope, Secret, Urn};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// A Kubernetes cluster on bare machines that run Talos.
///
/// All machines are installed at the same time. Once the control planes are configured, etcd begins on the first one
/// and the others join by themselves. Whatever interrupts a machine later is done to one control plane at a time,
/// while etcd is healthy, and to one worker at a time.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The machines that run etcd and the Kubernetes API: an odd number of them.
    pub control_plane: Vec<Host>,
    /// The machines that run pods.
    pub workers: Vec<Host>,
    /// The version of Talos.
    pub talos: TalosVersion,
    /// The version of Kubernetes.
    pub kubernetes: KubernetesVersion,
    /// The URL of the Kubernetes API: at a control plane, at [`Cluster::vip`], or at a name.
    pub endpoint: String,
    /// The name; that of the component when not given.
    pub name: Option<String>,
    /// The disk of every machine to install on, all of whose contents are destroyed.
    pub install_disk: String,
    /// The disk of some machines by their name, where it is another one.
    pub install_disks: BTreeMap<String, String>,
    /// The installer image without its tag; one of an image factory holds system extensions.
    pub installer: String,
    /// Which generation of defaults a new cluster begins with; that of its first Talos when not given. A cluster keeps
    /// the one it began with, whatever is said later.
    pub contract: Option<Contract>,
    /// An address that the control planes share, for the endpoint: whichever leads etcd holds it.
    pub vip: Option<Ipv4Addr>,
    /// Gives every machine its address and gateway by configuration instead of leaving them to DHCP.
    pub static_addresses: bool,
    /// DNS servers instead of those from DHCP.
    pub nameservers: Vec<String>,
    /// Labels for the Kubernetes nodes of control planes.
    pub control_plane_labels: BTreeMap<String, String>,
    /// Labels for the Kubernetes nodes of workers.
    pub worker_labels: BTreeMap<String, String>,
    /// More arguments for the kernel.
    pub kernel_args: Vec<String>,
    /// More names and addresses for the certificates of the machine API and the Kubernetes API.
    pub additional_sans: Vec<String>,
    /// The DNS domain of services.
    pub dns_domain: String,
    /// Lets ordinary pods run on control planes.
    pub schedulable_control_planes: bool,
    /// More configuration documents for every machine, as YAML. They are stored in clear.
    pub documents: Vec<String>,
    /// The secrets of a cluster that exists, as `talosctl gen secrets` wrote them. Its machines are taken over when
    /// [`Cluster::adopt`] names them.
    pub existing: Option<Input<Secret<String>>>,
    /// The names of machines that are configured already and are taken over as they are, without a new installation.
    pub adopt: BTreeSet<String>,
}

impl Cluster {
    /// Returns a cluster with Talos' own defaults and no machines yet; the rest is set by struct update.
    pub fn new(talos: TalosVersion, kubernetes: KubernetesVersion, endpoint: impl Into<String>) -> Cluster {
        Cluster {
            control_plane: Vec::new(),
            workers: Vec::new(),
            talos,
            kubernetes,
            endpoint: endpoint.into(),
            name: None,
            install_disk: "/dev/sda".into(),
            install_disks: BTreeMap::new(),
            installer: "ghcr.io/siderolabs/installer".into(),
            contract: None,
            vip: None,
            static_addresses: false,
            nameservers: Vec::new(),
            control_plane_labels: BTreeMap::new(),
            worker_labels: BTreeMap::new(),
            kernel_args: Vec::new(),
            additional_sans: Vec::new(),
            dns_domain: "cluster.local".into(),
            schedulable_control_planes: false,
            documents: Vec::new(),
            existing: None,
            adopt: BTreeSet::new(),
        }
    }

    /// Returns everything that is wrong with it, without looking at any machine.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        match self.control_plane.len() {
            0 => problems.push("a cluster needs at least one control plane".to_owned()),
            n if n % 2 == 0 => problems.push(format!(
                "{n} control planes survive the loss of no more machines than {}: use an odd number",
                n - 1
            )),
            _ => {}
        }
        problems.extend(self.talos.refuses(self.kubernetes));
        let mut names = BTreeMap::new();
        let mut addresses = BTreeMap::new();
        for host in self.control_plane.iter().chain(&self.workers) {
            if let Some(other) = names.insert(&host.name, host) {
                problems
                    .push(format!("two machines are called {}: at {} and at {}", host.name, other.place, host.place));
            }
            if let Some(other) = addresses.insert(host.address, host) {
                let (name, place) = (&other.name, &other.place);
                problems.push(format!("{} and {name} ({place}) have the same address {}", host.name, host.address));
            }
        }
        for name in self.install_disks.keys().chain(&self.adopt) {
            if !names.contains_key(name) {
                problems.push(format!("{name} is said something about, but it is no machine of this cluster"));
            }
        }
        match crate::config::endpoint_host(&self.endpoint) {
            None => problems.push(format!("the endpoint {} is not a URL such as https://10.0.0.5:6443", self.endpoint)),
            Some(host) => {
                if let Ok(address) = host.parse::<Ipv4Addr>()
                    && self.vip != Some(address)
                    && !self.control_plane.iter().any(|host| host.address == address)
                {
                    problems.push(format!(
                        "the endpoint {} is at {address}, which is neither a control plane nor the shared address",
                        self.endpoint
                    ));
                }
            }
        }
        if let Some(vip) = self.vip
            && let Some(host) = addresses.get(&vip)
        {
            problems.push(format!("the shared address {vip} is that of {}", host.name));
        }
        if self.static_addresses {
            for host in addresses.values().filter(|host| host.subnet.router().is_none()) {
                problems.push(format!("{} needs a gateway for its own address: give {} one", host.name, host.subnet));
            }
        }
        if !self.adopt.is_empty() && self.existing.is_none() {
            problems.push("machines can only be taken over with the secrets of their cluster".into());
        }
        problems
    }

    fn interfaces(&self, host: &Host, role: Role) -> Vec<Interface> {
        let vip = match role {
            Role::ControlPlane => self.vip.map(|vip| vip.to_string()),
            Role::Worker => None,
        };
        if !self.static_addresses && vip.is_none() {
            return Vec::new();
        }
        let stated = self.static_addresses.then(|| format!("{}/{}", host.address, host.subnet.prefix()));
        vec![Interface {
            device: Device::Physical,
            addresses: stated.into_iter().collect(),
            gateway: host.subnet.router().filter(|_| self.static_addresses).map(|router| router.to_string()),
            dhcp: !self.static_addresses,
            vip,
        }]
    }

    fn machine(&self, host: &Host, role: Role, name: &str, bundle: &Handle<BundleOutputs>) -> Machine {
        let labels = match role {
            Role::ControlPlane => &self.control_plane_labels,
            Role::Worker => &self.worker_labels,
        };
        Machine {
            cluster: name.to_owned(),
            installer: self.installer.clone(),
            contract: bundle.output(|bundle| bundle.contract).into(),
            labels: labels.clone(),
            kernel_args: self.kernel_args.clone(),
            interfaces: self.interfaces(host, role),
            nameservers: self.nameservers.clone(),
            additional_sans: self.additional_sans.clone(),
            dns_domain: self.dns_domain.clone(),
            schedulable_control_planes: self.schedulable_control_planes,
            documents: self.documents.clone(),
            ..Machine::new(
                host.address.into(),
                &host.name,
                role,
                &self.endpoint,
                self.install_disks.get(&host.name).unwrap_or(&self.install_disk),
                (self.talos, self.kubernetes),
                bundle.output(|bundle| bundle.yaml),
            )
        }
    }
}

impl Component<Talos> for Cluster {
    type Handle = ClusterHandle;

    fn declare(self, scope: &Scope<'_, Talos>) -> ClusterHandle {
        for problem in self.problems() {
            scope.problem(problem);
        }
        let contract = self.contract.unwrap_or_else(|| self.talos.contract());
        let bundle = scope.resource("secrets").add(Bundle { contract, existing: self.existing.clone() });
        let secrets = || bundle.output(|bundle| bundle.yaml).into();
        let component = bundle.urn().path().rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("talos");
        let name = self.name.clone().unwrap_or_else(|| component.to_owned());
        let nodes: Vec<IpAddr> = self.control_plane.iter().map(|host| host.address.into()).collect();

        // Two clusters of one stack roll by themselves.
        let group = |what: &str| scope.stack().rolling(&format!("{}/{what}", bundle.urn().path()), 1);
        let (control_planes, workers) = (group("control-plane"), group("workers"));
        control_planes.gate(scope, EtcdHealthy { nodes: nodes.clone(), secrets: secrets() });

        let declare = |host: &Host, role: Role| -> Handle<Configured> {
            let group = match role {
                Role::ControlPlane => &control_planes,
                Role::Worker => &workers,
            };
            let mut machine = scope.resource(&host.name).declared_at(host.place.clone()).rolling(group);
            if self.adopt.contains(&host.name) {
                machine = machine.import(host.address.to_string());
            }
            machine.add(self.machine(host, role, &name, &bundle))
        };
        let control_plane: Vec<_> = self.control_plane.iter().map(|host| declare(host, Role::ControlPlane)).collect();
        let workers: Vec<_> = self.workers.iter().map(|host| declare(host, Role::Worker)).collect();

        let bootstrap = scope.resource("bootstrap").add(Bootstrap {
            nodes: control_plane.iter().map(|machine| machine.output(|machine| machine.address).into()).collect(),
            secrets: secrets(),
            cluster: bundle.output(|bundle| bundle.fingerprint).into(),
            endpoint: self.endpoint.clone(),
            vip: self.vip.map(IpAddr::from),
        });
        let kubeconfig = scope.resource("kubeconfig").add(Kubeconfig {
            nodes: nodes.clone(),
            secrets: secrets(),
            cluster: bootstrap.output(|bootstrap| bootstrap.cluster).into(),
        });
        ClusterHandle {
            name,
            endpoint: self.endpoint.clone(),
            nodes,
            bundle,
            control_plane,
            workers,
            bootstrap,
            kubeconfig,
        }
    }
}

/// A declared cluster: what others are wired to.
#[derive(Clone, Debug)]
pub struct ClusterHandle {
    name: String,
    endpoint: String,
    nodes: Vec<IpAddr>,
    bundle: Handle<BundleOutputs>,
    control_plane: Vec<Handle<Configured>>,
    workers: Vec<Handle<Configured>>,
    bootstrap: Handle<Bootstrapped>,
    kubeconfig: Handle<KubeconfigOutputs>,
}

impl ClusterHandle {
    /// Returns the name of the cluster.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the resource that everything in the cluster lives inside: its birth.
    pub fn container(&self) -> Urn {
        self.bootstrap.urn().clone()
    }

    /// Returns the URL of the Kubernetes API.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Returns an administrator's kubeconfig, known once the Kubernetes API is ready.
    pub fn kubeconfig(&self) -> Output<Secret<String>> {
        self.kubeconfig.output(|outputs| outputs.kubeconfig)
    }

    /// Returns an administrator's configuration for `talosctl`, valid as long as the cluster's own authority.
    pub fn talosconfig(&self) -> Output<Secret<String>> {
        let (name, nodes) = (self.name.clone(), self.nodes.clone());
        self.bundle.output(move |bundle| bundle.yaml.map(|yaml| talosconfig(&yaml, &name, &nodes)))
    }

    /// Returns the secrets bundle, as `talosctl gen secrets` writes it.
    pub fn secrets(&self) -> Output<Secret<String>> {
        self.bundle.output(|bundle| bundle.yaml)
    }

    /// Returns the control planes, in the order they were declared.
    pub fn control_plane(&self) -> &[Handle<Configured>] {
        &self.control_plane
    }

    /// Returns the workers, in the order they were declared.
    pub fn workers(&self) -> &[Handle<Configured>] {
        &self.workers
    }

    /// Returns the bootstrap, for what must come after it.
    pub fn bootstrap(&self) -> &Handle<Bootstrapped> {
        &self.bootstrap
    }

    /// Returns the resource that issues the kubeconfig: once it is ready, the Kubernetes API is.
    pub fn ready(&self) -> &Handle<KubeconfigOutputs> {
        &self.kubeconfig
    }

    /// Returns the question whether etcd is healthy, for a gate.
    pub fn etcd_healthy(&self) -> EtcdHealthy {
        EtcdHealthy { nodes: self.nodes.clone(), secrets: self.secrets().into() }
    }
}

/// Returns the client configuration for the cluster with this bundle: the same for the same bundle, so that it never
/// differs from itself. A bundle that is not one was refused before anything could read this.
fn talosconfig(bundle: &str, name: &str, nodes: &[IpAddr]) -> String {
    let config = || -> Result<String, String> {
        let secrets = Secrets::from_yaml(bundle).map_err(|error| error.to_string())?;
        let seed = <[u8; 32]>::from(Sha256::new_with_prefix(&secrets.os.key).finalize());
        let begin = issued(&secrets.os.crt)?;
        let credentials =
            secrets.admin(begin, AUTHORITY_LIFETIME, derive(seed, "talosconfig")).map_err(|error| error.to_string())?;
        let endpoints = nodes.iter().map(IpAddr::to_string).collect();
        Ok(Talosconfig::new(name, endpoints, Vec::new(), credentials).to_yaml())
    };
    config().unwrap_or_else(|error| format!("# {error}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_core::{Subnet, testing};

    fn hosts(names: &[(&str, u32)]) -> Vec<Host> {
        let lan = Subnet::new("10.69.1.0/24").unwrap();
        names.iter().map(|(name, n)| lan.host(name, *n).unwrap()).collect()
    }

    fn cluster() -> Cluster {
        Cluster {
            control_plane: hosts(&[("cp-1", 101), ("cp-2", 140), ("cp-3", 147)]),
            workers: hosts(&[("work-1", 151)]),
            ..Cluster::new(TalosVersion::V1_11, KubernetesVersion::V1_34, "https://10.69.1.101:6443")
        }
    }

    fn check(edit: impl FnOnce(&mut Cluster), expected: &[&str]) {
        let mut cluster = cluster();
        edit(&mut cluster);
        let problems = cluster.problems();
        assert_eq!(problems.len(), expected.len(), "{problems:?}");
        for (problem, expected) in problems.iter().zip(expected) {
            assert!(problem.contains(expected), "{problem:?} does not say {expected:?}");
        }
    }

    #[test]
    fn a_sound_cluster_has_no_problems() {
        check(|_| {}, &[]);
        check(|cluster| cluster.endpoint = "https://k8s.lan:6443".into(), &[]);
    }

    #[test]
    fn what_cannot_work_is_said_before_anything_is_touched() {
        check(|cluster| cluster.control_plane.truncate(2), &["2 control planes survive the loss of no more"]);
        check(|cluster| cluster.control_plane.clear(), &["at least one control plane", "neither a control plane"]);
        check(|cluster| cluster.endpoint = "https://10.69.1.151:6443".into(), &["neither a control plane"]);
        check(|cluster| cluster.endpoint = "10.69.1.101".into(), &["is not a URL"]);
        check(|cluster| cluster.kubernetes = KubernetesVersion::V1_35, &["not v1.35.0"]);
        check(|cluster| cluster.workers = hosts(&[("cp-1", 160)]), &["two machines are called cp-1"]);
        check(|cluster| cluster.workers = hosts(&[("work-1", 101)]), &["the same address 10.69.1.101"]);
        check(|cluster| cluster.adopt = ["cp-1".to_owned()].into(), &["only be taken over with the secrets"]);
        check(|cluster| drop(cluster.install_disks.insert("x".into(), "/dev/sdb".into())), &["x is said something"]);
        check(|cluster| cluster.static_addresses = true, &["gateway"; 4]);
        check(|cluster| cluster.vip = Some(Ipv4Addr::new(10, 69, 1, 151)), &["is that of work-1"]);
    }

    #[test]
    fn the_plan_of_a_cluster_says_which_disks_it_wipes() {
        let text = testing::plan_text("homelab", |stack| {
            let metal = stack.provider("metal", Talos::default());
            let cluster = metal.component("homelab").add(cluster());
            Ok((cluster.kubeconfig(), cluster.talosconfig()))
        });
        for (name, address) in [("cp-1", 101), ("cp-2", 140), ("cp-3", 147), ("work-1", 151)] {
            let wiped = format!("everything on /dev/sda of {name} (10.69.1.{address})");
            assert!(text.contains(&wiped), "{wiped:?} is not in {text}");
        }
        let steps = text.lines().filter(|line| line.contains("+ create")).count();
        assert_eq!(steps, 7, "{text}");
        assert!(!text.contains("problem"), "{text}");
    }

    #[test]
    fn a_talosconfig_is_the_same_for_the_same_bundle() {
        let bundle = include_str!("../tests/vectors/secrets.yaml");
        let config = talosconfig(bundle, "homelab", &["10.69.1.101".parse().unwrap()]);
        assert_eq!(config, talosconfig(bundle, "homelab", &["10.69.1.101".parse().unwrap()]));
        let read = Talosconfig::from_yaml(&config).unwrap();
        assert_eq!(read.contexts["homelab"].endpoints, ["10.69.1.101"]);
    }
}

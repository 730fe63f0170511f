//! Machine configurations, as `talosctl gen config` writes them.
//!
//! A configuration is a pure function of the cluster, the machine and the cluster's secrets. Which defaults it holds
//! is decided by the cluster's [`Contract`], not by the version a machine runs: the contract stays as it was when the
//! cluster was made, so that an upgrade of Talos does not rewrite configurations.

mod change;
mod generate;

pub use change::{Changed, changes};
pub use generate::generate;

use crate::yaml::Yaml;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Which generation of defaults a cluster's configurations follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Contract {
    /// Talos 1.11.
    #[serde(rename = "v1.11")]
    V1_11,
    /// Talos 1.12: the host name and other network settings live in documents of their own.
    #[serde(rename = "v1.12")]
    V1_12,
}

impl fmt::Display for Contract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Contract::V1_11 => "v1.11",
            Contract::V1_12 => "v1.12",
        })
    }
}

/// What the configurations of all machines of a cluster share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterConfig {
    /// The name of the cluster.
    pub name: String,
    /// The URL of the Kubernetes API: `https://10.69.1.101:6443`.
    pub endpoint: String,
    /// The version of Kubernetes without the letter: `1.34.1`.
    pub kubernetes: String,
    /// Which generation of defaults to follow.
    pub contract: Contract,
    /// More names and addresses for the certificates of the machine API and the Kubernetes API.
    pub additional_sans: Vec<String>,
    /// The DNS domain of services.
    pub dns_domain: String,
    /// Lets ordinary pods run on control planes.
    pub allow_scheduling_on_control_planes: bool,
}

impl ClusterConfig {
    /// Returns a cluster with Talos' own defaults.
    pub fn new(
        name: impl Into<String>,
        endpoint: impl Into<String>,
        kubernetes: impl Into<String>,
        contract: Contract,
    ) -> ClusterConfig {
        ClusterConfig {
            name: name.into(),
            endpoint: endpoint.into(),
            kubernetes: kubernetes.into(),
            contract,
            additional_sans: Vec::new(),
            dns_domain: "cluster.local".into(),
            allow_scheduling_on_control_planes: false,
        }
    }
}

/// What a machine is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs etcd and the Kubernetes API.
    ControlPlane,
    /// Runs pods.
    Worker,
}

/// What is particular to one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineConfig {
    /// What the machine is for.
    pub role: Role,
    /// The disk to install on: `/dev/sda`.
    pub install_disk: String,
    /// The installer image, with its tag.
    pub installer_image: String,
    /// More arguments for the kernel. Ignored by machines that boot a unified kernel image.
    pub extra_kernel_args: Vec<String>,
    /// The host name; without one Talos makes a stable one up.
    pub hostname: Option<String>,
    /// Labels for the Kubernetes node.
    pub node_labels: BTreeMap<String, String>,
    /// Annotations for the Kubernetes node.
    pub node_annotations: BTreeMap<String, String>,
    /// Network interfaces that are not left to DHCP.
    pub interfaces: Vec<Interface>,
    /// DNS servers instead of those from DHCP.
    pub nameservers: Vec<String>,
    /// More configuration documents, each whole: YAML text of one or several.
    pub documents: Vec<String>,
}

impl MachineConfig {
    /// Returns a machine that takes its network from DHCP.
    pub fn new(role: Role, install_disk: impl Into<String>, installer_image: impl Into<String>) -> MachineConfig {
        MachineConfig {
            role,
            install_disk: install_disk.into(),
            installer_image: installer_image.into(),
            extra_kernel_args: Vec::new(),
            hostname: None,
            node_labels: BTreeMap::new(),
            node_annotations: BTreeMap::new(),
            interfaces: Vec::new(),
            nameservers: Vec::new(),
            documents: Vec::new(),
        }
    }
}

/// A network interface with addresses of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Which interface.
    pub device: Device,
    /// Addresses with their prefix length: `10.69.1.101/24`.
    pub addresses: Vec<String>,
    /// The default gateway, when it is reached through this interface.
    pub gateway: Option<String>,
    /// Asks DHCP for more addresses.
    pub dhcp: bool,
    /// An address that the control planes share: whoever leads etcd holds it.
    pub vip: Option<String>,
}

/// How an interface is recognised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// By its name: `eth0`.
    Name(String),
    /// By its hardware address.
    Mac(String),
    /// The one physical interface there is.
    Physical,
}

/// Returns the host of the URL of a Kubernetes API, `https://10.69.1.101:6443`; `None` when it is no such URL.
pub(crate) fn endpoint_host(url: &str) -> Option<&str> {
    url.strip_prefix("https://").map(generate::host).filter(|host| !host.is_empty())
}

/// Reads a configuration back into its documents, to compare those instead of text: what a machine returns was
/// perhaps encoded anew by another tool.
///
/// # Errors
///
/// The parser's message, with the place.
pub fn parse(text: &str) -> Result<Vec<Yaml>, String> {
    Yaml::parse(text)
}

/// Tells which document this is: empty for the main one, else its kind, with its name where it has one
/// (`VolumeConfig/EPHEMERAL`).
pub fn identity(document: &Yaml) -> String {
    let part = |key: &str| document.at(&[key]).and_then(Yaml::as_str).unwrap_or_default();
    match (part("kind"), part("name")) {
        ("", _) => String::new(),
        (kind, "") => kind.to_owned(),
        (kind, name) => format!("{kind}/{name}"),
    }
}

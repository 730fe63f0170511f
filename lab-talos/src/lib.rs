//! Talos Linux for `lab`: machine configurations, the secrets of a cluster, and the client of a machine's API.
//!
//! Everything that needs no network is a pure function, in this order:
//!
//! ```
//! use lab_talos::config::{ClusterConfig, Contract, MachineConfig, Role, generate};
//! use lab_talos::secrets::Secrets;
//! use lab_talos::yaml::Yaml;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let bundle = include_str!("../tests/vectors/secrets.yaml");
//! let secrets = Secrets::from_yaml(bundle)?; // or Secrets::generate(seed, not_before)
//! let cluster = ClusterConfig::new("homelab", "https://10.69.1.101:6443", "1.34.1", Contract::V1_11);
//! let machine = MachineConfig {
//!     hostname: Some("cp-1".into()),
//!     ..MachineConfig::new(Role::ControlPlane, "/dev/sda", "ghcr.io/siderolabs/installer:v1.11.6")
//! };
//! let config = Yaml::to_stream(&generate(&cluster, &machine, &secrets)?);
//! assert!(config.contains("hostname: cp-1"));
//! # Ok(())
//! # }
//! ```
//!
//! [`client`] speaks to one machine at a time. It makes each call once: waiting, repeating and deciding what comes
//! next are the engine's.

pub mod authority;
pub mod client;
mod cluster;
pub mod config;
pub mod kubeconfig;
mod pem;
pub mod proto;
mod provider;
mod resource;
mod rsa_key;
pub mod secrets;
pub mod talosconfig;
mod version;
pub mod yaml;

pub use cluster::{Cluster, ClusterHandle};
pub use provider::{Client, Talos};
pub use resource::{
    Bootstrap, Bootstrapped, Bundle, BundleOutputs, Configured, EtcdHealthy, Kubeconfig, KubeconfigOutputs, Machine,
};
pub use version::{KubernetesVersion, TalosVersion};

//! Proxmox VE for `lab`: virtual machines and what they need, over the REST API of a cluster.
//!
//! - [`Proxmox`] is the provider: which cluster, where its nodes answer, the API token, and how an endpoint proves that
//!   it is one.
//! - [`Vm`], [`Image`], [`CloudInit`], [`Snapshot`], [`Pool`], [`BackupServer`], [`BackupJob`], [`HighAvailability`],
//!   [`Group`] and [`Rule`] are what can be declared.
//! - [`microk8s`] makes Kubernetes clusters of them.
//! - [`Segment`] and [`Capacity`] are known to the lab alone: what an environment occupies, what a host has to give.
//! - [`request`] builds what is sent, as values; [`client`] sends it.
//!
//! Nothing here needs more than an API token: no SSH, no right of `root@pam`, no file on a node.

pub mod client;
mod follow;
mod iso;
mod mac;
mod mark;
pub mod microk8s;
mod property;
mod provider;
pub mod request;
mod resource;
mod scalar;
mod size;
mod slot;

pub use client::Client;
pub use mac::Mac;
pub use provider::{Fingerprint, Proxmox, Trust};
pub use resource::{
    Address, Affinity, BackupJob, BackupJobOutputs, BackupServer, BackupServerOutputs, Capacity, CloudInit,
    CloudInitOutputs, Disk, FullClone, Group, GroupOutputs, HighAvailability, HighAvailabilityOutputs, Image,
    ImageOutputs, Keep, Network, Pool, PoolOutputs, Rule, RuleOutputs, Segment, Snapshot, SnapshotOutputs, Source,
    Startup, Vm, VmOutputs,
};
pub use size::{Gib, Mib};
pub use slot::{Bus, Slot};

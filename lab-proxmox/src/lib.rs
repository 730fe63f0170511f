//! Proxmox VE for `lab`: virtual machines and what they need, over the REST API of a cluster.
//!
//! - [`Proxmox`] is the provider: which cluster, where its nodes answer, the API token, and how an endpoint proves that
//!   it is one.
//! - [`Vm`], [`Image`], [`CloudInit`], [`Snapshot`], [`Pool`], [`BackupServer`], [`BackupJob`], [`HighAvailability`]
//!   and [`Rule`] are what can be declared.
//! - [`request`] builds what is sent, as values.
//!
//! Nothing here needs more than an API token: no SSH, no right of `root@pam`, no file on a node.

mod mac;
mod provider;
pub mod request;
mod resource;
mod size;
mod slot;

pub use mac::Mac;
pub use provider::{Fingerprint, Proxmox, Trust};
pub use resource::{
    Address, Affinity, BackupJob, BackupServer, CloudInit, CloudInitOutputs, Disk, FullClone, HighAvailability, Image,
    ImageOutputs, Keep, Network, Pool, Rule, Snapshot, Source, Startup, Vm, VmOutputs,
};
pub use size::{Gib, Mib};
pub use slot::{Bus, Slot};

//! A Proxmox VE cluster: its REST API over TLS, tasks that take time, storages, and virtual machines that act out their
//! cloud-init.
//!
//! Every request is checked against the schema of the API, with Proxmox' own texts; what is not modelled answers 501 with
//! its name. Not here: containers, firewalls, software-defined networks, replication, migration to other clusters, users
//! and roles beyond the tokens that the rack names, major versions other than 9, but for the groups
//! of version 8 that place what is kept running.

mod access;
mod agent;
mod api;
mod backup;
mod certificate;
mod cluster;
mod config;
mod content;
mod copy;
mod create;
mod datacenter;
mod disk;
mod drive;
mod format;
mod guest;
mod ha;
mod inventory;
mod migrate;
mod pool;
mod power;
mod refusal;
mod request;
mod schema;
mod server;
mod snapshot;
mod state;
mod storage;
mod storages;
mod task;
mod view;
mod vm;

pub(crate) use datacenter::Datacenter;
pub use inventory::{Cluster, Guest, Host, Image, Storage, StorageKind, System, Token};
pub use schema::valid;
pub(crate) use server::dial;

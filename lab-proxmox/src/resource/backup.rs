//! Backups: the server they go to and the jobs that make them.

use crate::provider::Fingerprint;
use lab_core::{Input, Secret};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A job that backs machines up at given times.
///
/// It is found by its name; ours is told by the mark in its comment. Backups stay when the job goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BackupJob {
    /// The name: a letter, then letters, digits, `-` and `_`.
    pub name: String,
    /// The machines, by number.
    pub vms: Vec<Input<u32>>,
    /// The storage that the backups go to.
    pub storage: Input<String>,
    /// When, as a calendar event: `02:30`, `mon..fri 02:00`.
    pub schedule: String,
    /// How many are kept.
    pub keep: Keep,
    /// Whether it is done at all.
    pub enabled: bool,
    /// What it is for, in one line.
    pub comment: String,
}

/// How many backups are kept of each machine; none of all: every one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// The newest of so many days.
    pub daily: u32,
    /// The newest of so many weeks.
    pub weekly: u32,
    /// The newest of so many months.
    pub monthly: u32,
}

/// A datastore of a Proxmox Backup Server, as a storage of the cluster.
///
/// It is found by its name. A storage bears no mark: one that was there before is somebody else's until it is imported.
/// Removing it leaves every backup where it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BackupServer {
    /// The name of the storage: a letter, then letters, digits, `.`, `-` and `_`.
    pub name: String,
    /// The server, by address or name.
    pub server: String,
    /// The datastore on it.
    pub datastore: String,
    /// The namespace within the datastore; none: its root.
    pub namespace: Option<String>,
    /// The user or API token: `backup@pbs`, `backup@pbs!lab`.
    pub user: String,
    /// Its password or secret.
    pub password: Input<Secret<String>>,
    /// The fingerprint of the server's certificate; none: one that the nodes' own authorities vouch for.
    pub fingerprint: Option<Fingerprint>,
    /// The nodes that use it; empty: all.
    pub nodes: BTreeSet<String>,
}

impl BackupJob {
    /// Returns a job that keeps every backup.
    pub fn new(
        name: impl Into<String>,
        storage: impl Into<Input<String>>,
        schedule: impl Into<String>,
        vms: Vec<Input<u32>>,
    ) -> BackupJob {
        BackupJob {
            name: name.into(),
            vms,
            storage: storage.into(),
            schedule: schedule.into(),
            keep: Keep::default(),
            enabled: true,
            comment: String::new(),
        }
    }
}

impl BackupServer {
    /// Returns a datastore in its root namespace, used by all nodes.
    pub fn new(
        name: impl Into<String>,
        server: impl Into<String>,
        datastore: impl Into<String>,
        user: impl Into<String>,
        password: impl Into<Input<Secret<String>>>,
    ) -> BackupServer {
        BackupServer {
            name: name.into(),
            server: server.into(),
            datastore: datastore.into(),
            namespace: None,
            user: user.into(),
            password: password.into(),
            fingerprint: None,
            nodes: BTreeSet::new(),
        }
    }
}

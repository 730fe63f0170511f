//! Backups: the server they go to and the jobs that make them.

use super::entry::{Entry, Params, changing, entry, with};
use crate::property;
use crate::provider::Fingerprint;
use crate::request::{Request, encode, storage};
use crate::scalar::field;
use lab_core::{Change, Impact, Input, Order, Path, Secret};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
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

/// What a [`BackupServer`] yields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupServerOutputs {
    /// The name of the storage, for [`BackupJob::storage`].
    pub storage: String,
}

/// What a [`BackupJob`] yields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupJobOutputs {
    /// Its name.
    pub name: String,
}

impl Keep {
    fn text(self) -> String {
        let kept = [("keep-daily", self.daily), ("keep-weekly", self.weekly), ("keep-monthly", self.monthly)];
        let kept: Vec<String> =
            kept.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name}={count}")).collect();
        if kept.is_empty() { "keep-all=1".into() } else { kept.join(",") }
    }

    fn read(text: &str) -> Keep {
        let parts = property::parse(text, "");
        let count = |name: &str| parts.get(name).and_then(|text| text.parse().ok()).unwrap_or_default();
        Keep { daily: count("keep-daily"), weekly: count("keep-weekly"), monthly: count("keep-monthly") }
    }
}

entry!(BackupJob, "proxmox:backup-job", BackupJobOutputs);

impl Entry for BackupJob {
    const KEY: &'static str = "id";

    fn name(&self) -> Option<String> {
        Some(self.name.clone())
    }
    fn who(name: &str) -> String {
        format!("the backup job {name}")
    }
    fn list() -> Request {
        Request::get("/cluster/backup")
    }
    fn wanted(&self) -> Params {
        let vms: Vec<String> = self.vms.iter().map(|vmid| vmid.get().to_string()).collect();
        Params::from([
            ("vmid".to_owned(), vms.join(",")),
            ("storage".to_owned(), self.storage.get().clone()),
            ("schedule".to_owned(), self.schedule.clone()),
            ("prune-backups".to_owned(), self.keep.text()),
            ("enabled".to_owned(), u8::from(self.enabled).to_string()),
            ("mode".to_owned(), "snapshot".to_owned()),
        ])
    }
    fn comment(&self) -> &str {
        &self.comment
    }
    fn create(&self, name: &str, params: Params) -> Request {
        with(Request::post("/cluster/backup").with("id", name), params)
    }
    fn update(&self, name: &str, mut set: Params, delete: &[&str]) -> Request {
        // Left out, a job that is changed would be enabled.
        set.entry("enabled".into()).or_insert_with(|| u8::from(self.enabled).to_string());
        changing(Request::put(format!("/cluster/backup/{}", encode(name))), set, delete)
    }
    fn remove(name: &str) -> Request {
        Request::delete(format!("/cluster/backup/{}", encode(name)))
    }
    fn outputs(&self) -> BackupJobOutputs {
        BackupJobOutputs { name: self.name.clone() }
    }
    fn live(&self, there: &Value) -> Value {
        let vms: Vec<u32> = field(there, "vmid").split(',').filter_map(|vmid| vmid.trim().parse().ok()).collect();
        let mut declared: Vec<u32> = self.vms.iter().map(|vmid| *vmid.get()).collect();
        let mut there_sorted = vms.clone();
        declared.sort_unstable();
        there_sorted.sort_unstable();
        json!({
            // Their order says nothing.
            "vms": if declared == there_sorted { json!(self.vms.iter().map(|vmid| *vmid.get()).collect::<Vec<_>>()) } else { json!(vms) },
            "storage": field(there, "storage"),
            "schedule": field(there, "schedule"),
            "keep": Keep::read(&field(there, "prune-backups")),
            "enabled": field(there, "enabled") != "0",
        })
    }
}

entry!(
    BackupServer,
    "proxmox:backup-server",
    BackupServerOutputs,
    fn change(&self, prior: &BackupServer, live: Option<&Value>) -> Change {
        for (name, wanted, before) in
            [("server", &self.server, &prior.server), ("datastore", &self.datastore, &prior.datastore)]
        {
            let there = live.and_then(|live| live.get(name)?.as_str()).unwrap_or(before);
            if wanted != there {
                let path = format!("/{name}");
                let path = path.as_str();
                let reason = (Path::from(path), "it is fixed for the life of a storage; the backups stay".to_owned());
                return Change::Replace(Impact { reasons: vec![reason], ..Impact::default() }, Order::DeleteFirst);
            }
        }
        Change::Update(Impact::default())
    }
);

impl Entry for BackupServer {
    const COMMENTED: bool = false;
    const KEY: &'static str = "storage";

    fn name(&self) -> Option<String> {
        Some(self.name.clone())
    }
    fn who(name: &str) -> String {
        format!("the storage {name}")
    }
    fn list() -> Request {
        storage::definitions()
    }
    fn seen_with(name: &str) -> String {
        format!("Datastore.Audit on /storage/{name}")
    }
    fn wanted(&self) -> Params {
        let mut wanted = Params::from([
            ("server".to_owned(), self.server.clone()),
            ("datastore".to_owned(), self.datastore.clone()),
            ("username".to_owned(), self.user.clone()),
            ("content".to_owned(), "backup".to_owned()),
        ]);
        if let Some(namespace) = &self.namespace {
            wanted.insert("namespace".into(), namespace.clone());
        }
        if let Some(fingerprint) = self.fingerprint {
            wanted.insert("fingerprint".into(), fingerprint.to_string().to_lowercase());
        }
        if !self.nodes.is_empty() {
            wanted.insert("nodes".into(), self.nodes.iter().cloned().collect::<Vec<_>>().join(","));
        }
        wanted
    }
    fn optional() -> &'static [&'static str] {
        &["namespace", "fingerprint", "nodes"]
    }
    fn fixed() -> &'static [&'static str] {
        &["server", "datastore"]
    }
    fn hidden(&self, prior: &BackupServer) -> bool {
        self.password.get() != prior.password.get()
    }
    fn create(&self, name: &str, params: Params) -> Request {
        let request = Request::post("/storage").with("storage", name).with("type", "pbs");
        with(request, params).with("password", self.password.get().expose())
    }
    fn update(&self, name: &str, set: Params, delete: &[&str]) -> Request {
        changing(storage::define(name), set, delete).with("password", self.password.get().expose())
    }
    fn remove(name: &str) -> Request {
        Request::delete(format!("/storage/{}", encode(name)))
    }
    fn outputs(&self) -> BackupServerOutputs {
        BackupServerOutputs { storage: self.name.clone() }
    }
    fn live(&self, there: &Value) -> Value {
        let nodes: BTreeSet<String> =
            field(there, "nodes").split(',').filter(|node| !node.is_empty()).map(str::to_owned).collect();
        let maybe = |name: &str| Some(field(there, name)).filter(|text| !text.is_empty());
        json!({
            "server": field(there, "server"),
            "datastore": field(there, "datastore"),
            "namespace": maybe("namespace"),
            "user": field(there, "username"),
            "fingerprint": maybe("fingerprint").map(|text| text.to_uppercase()),
            "nodes": nodes,
        })
    }
}

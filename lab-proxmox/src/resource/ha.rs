//! High availability: machines that the cluster keeps running, and the rules on which hosts it does.

use super::entry::{Entry, Params, changing, entry, with};
use crate::request::{Request, encode};
use crate::scalar::{field, number};
use lab_core::Input;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A machine that the cluster keeps running: it is started on another node when its own is lost.
///
/// Needs a cluster of at least three votes and disks on a storage that the nodes share. It is found by the machine's
/// number; ours is told by the mark in its comment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HighAvailability {
    /// The machine, by number.
    pub vmid: Input<u32>,
    /// How often a start that failed is repeated on the same node.
    pub max_restart: u32,
    /// How often it is then tried on another node.
    pub max_relocate: u32,
    /// What it is for, in one line.
    pub comment: String,
}

/// A rule on which hosts machines run that the cluster keeps running. Needs Proxmox VE 9.
///
/// It is found by its name; ours is told by the mark in its comment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rule {
    /// The name: a letter, then letters, digits, `-` and `_`.
    pub name: String,
    /// The machines, by number; each needs a [`HighAvailability`].
    pub vms: Vec<Input<u32>>,
    /// What the rule says.
    pub affinity: Affinity,
    /// What it is for, in one line.
    pub comment: String,
}

/// What a [`Rule`] says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Affinity {
    /// Each machine on another host.
    Apart,
    /// All machines on one host.
    Together,
    /// On these nodes, those of a higher number rather; nowhere else when `strict`.
    Nodes {
        /// The nodes and how much each is wanted.
        nodes: BTreeMap<String, u32>,
        /// Rather stopped than elsewhere.
        strict: bool,
    },
}

impl HighAvailability {
    /// Returns a machine that is kept running.
    pub fn new(vmid: impl Into<Input<u32>>) -> HighAvailability {
        HighAvailability { vmid: vmid.into(), max_restart: 1, max_relocate: 1, comment: String::new() }
    }
}

impl Rule {
    /// Returns a rule.
    pub fn new(name: impl Into<String>, affinity: Affinity, vms: Vec<Input<u32>>) -> Rule {
        Rule { name: name.into(), vms, affinity, comment: String::new() }
    }
}

/// What a [`HighAvailability`] yields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HighAvailabilityOutputs {
    /// The number of the machine, for [`Rule::vms`].
    pub vmid: u32,
}

/// What a [`Rule`] yields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleOutputs {
    /// Its name.
    pub name: String,
}

entry!(HighAvailability, "proxmox:ha", HighAvailabilityOutputs);

impl Entry for HighAvailability {
    const KEY: &'static str = "sid";

    fn name(&self) -> Option<String> {
        self.vmid.known().map(|vmid| format!("vm:{vmid}"))
    }
    fn who(name: &str) -> String {
        format!("the high availability of {name}")
    }
    fn list() -> Request {
        Request::get("/cluster/ha/resources")
    }
    fn item(name: &str) -> Option<Request> {
        Some(Request::get(format!("/cluster/ha/resources/{}", encode(name))))
    }
    fn wanted(&self) -> Params {
        Params::from([
            ("state".to_owned(), "started".to_owned()),
            ("max_restart".to_owned(), self.max_restart.to_string()),
            ("max_relocate".to_owned(), self.max_relocate.to_string()),
        ])
    }
    fn comment(&self) -> &str {
        &self.comment
    }
    fn create(&self, name: &str, params: Params) -> Request {
        with(Request::post("/cluster/ha/resources").with("sid", name), params)
    }
    fn update(&self, name: &str, set: Params, delete: &[&str]) -> Request {
        changing(Request::put(format!("/cluster/ha/resources/{}", encode(name))), set, delete)
    }
    fn remove(name: &str) -> Request {
        // Rules that name the machine are lines of their own.
        Request::delete(format!("/cluster/ha/resources/{}", encode(name)))
    }
    fn outputs(&self) -> HighAvailabilityOutputs {
        HighAvailabilityOutputs { vmid: *self.vmid.get() }
    }
    fn live(&self, there: &Value) -> Value {
        let count = |name: &str| there.get(name).and_then(number).unwrap_or(1);
        json!({ "max_restart": count("max_restart"), "max_relocate": count("max_relocate") })
    }
}

entry!(Rule, "proxmox:ha-rule", RuleOutputs);

impl Rule {
    fn resources(&self) -> String {
        self.vms.iter().map(|vmid| format!("vm:{}", vmid.get())).collect::<Vec<_>>().join(",")
    }
}

impl Affinity {
    fn kind(&self) -> &'static str {
        match self {
            Affinity::Apart | Affinity::Together => "resource-affinity",
            Affinity::Nodes { .. } => "node-affinity",
        }
    }

    fn params(&self) -> Params {
        match self {
            Affinity::Apart => Params::from([("affinity".into(), "negative".into())]),
            Affinity::Together => Params::from([("affinity".into(), "positive".into())]),
            Affinity::Nodes { nodes, strict } => {
                let nodes: Vec<String> = nodes.iter().map(|(node, priority)| format!("{node}:{priority}")).collect();
                Params::from([("nodes".into(), nodes.join(",")), ("strict".into(), u8::from(*strict).to_string())])
            }
        }
    }
}

impl Entry for Rule {
    const KEY: &'static str = "rule";

    fn name(&self) -> Option<String> {
        Some(self.name.clone())
    }
    fn who(name: &str) -> String {
        format!("the rule {name}")
    }
    fn list() -> Request {
        Request::get("/cluster/ha/rules")
    }
    fn item(name: &str) -> Option<Request> {
        Some(Request::get(format!("/cluster/ha/rules/{}", encode(name))))
    }
    fn wanted(&self) -> Params {
        let mut wanted = self.affinity.params();
        wanted.insert("resources".into(), self.resources());
        wanted
    }
    fn comment(&self) -> &str {
        &self.comment
    }
    fn create(&self, name: &str, params: Params) -> Request {
        with(Request::post("/cluster/ha/rules").with("rule", name).with("type", self.affinity.kind()), params)
    }
    fn update(&self, name: &str, set: Params, delete: &[&str]) -> Request {
        let request = Request::put(format!("/cluster/ha/rules/{}", encode(name))).with("type", self.affinity.kind());
        changing(request, set, delete)
    }
    fn remove(name: &str) -> Request {
        Request::delete(format!("/cluster/ha/rules/{}", encode(name)))
    }
    fn outputs(&self) -> RuleOutputs {
        RuleOutputs { name: self.name.clone() }
    }
    fn live(&self, there: &Value) -> Value {
        let mut vms: Vec<u32> = field(there, "resources")
            .split(',')
            .filter_map(|sid| sid.trim().strip_prefix("vm:")?.parse().ok())
            .collect();
        let declared: Vec<u32> = self.vms.iter().map(|vmid| *vmid.get()).collect();
        // Their order says nothing.
        if vms.len() == declared.len() && declared.iter().all(|vmid| vms.contains(vmid)) {
            vms = declared;
        }
        json!({ "vms": vms })
    }
}

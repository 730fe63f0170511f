//! High availability: machines that the cluster keeps running, and the rules on which hosts it does.

use super::entry::{Entry, Params, changing, entry, with};
use crate::request::{Request, encode};
use crate::scalar::{field, number, truth};
use lab_core::{Change, Impact, Input, Order, Path};
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
    /// The group of nodes that it runs on: [`GroupOutputs::name`]. Proxmox VE 8 only; version 9 has [`Rule`]s instead.
    pub group: Option<Input<String>>,
    /// What it is for, in one line.
    pub comment: String,
}

/// A group of nodes for machines that the cluster keeps running. Proxmox VE 8 only; version 9 has [`Rule`]s instead.
///
/// It is found by its name; ours is told by the mark in its comment. With a group of one node for each machine, and
/// each of them restricted, machines stay apart.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Group {
    /// The name: a letter, then letters, digits, `-` and `_`.
    pub name: String,
    /// The nodes and how much each is wanted: those of a higher number rather.
    pub nodes: BTreeMap<String, u32>,
    /// Rather stopped than elsewhere.
    pub restricted: bool,
    /// Moves machines back to a node that is wanted more, once it is there again.
    pub fail_back: bool,
    /// What it is for, in one line.
    pub comment: String,
}

/// A rule on which hosts machines run that the cluster keeps running. Needs Proxmox VE 9; version 8 has [`Group`]s.
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
        HighAvailability { vmid: vmid.into(), max_restart: 1, max_relocate: 1, group: None, comment: String::new() }
    }
}

impl Group {
    /// Returns a group of these nodes, none wanted more than another.
    pub fn new<N: Into<String>>(name: impl Into<String>, nodes: impl IntoIterator<Item = N>) -> Group {
        Group {
            name: name.into(),
            nodes: nodes.into_iter().map(|node| (node.into(), 0)).collect(),
            restricted: false,
            fail_back: true,
            comment: String::new(),
        }
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

/// What a [`Group`] yields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupOutputs {
    /// Its name, for [`HighAvailability::group`].
    pub name: String,
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
        let mut wanted = Params::from([
            ("state".to_owned(), "started".to_owned()),
            ("max_restart".to_owned(), self.max_restart.to_string()),
            ("max_relocate".to_owned(), self.max_relocate.to_string()),
        ]);
        if let Some(group) = &self.group {
            wanted.insert("group".to_owned(), group.get().clone());
        }
        wanted
    }
    fn optional() -> &'static [&'static str] {
        &["group"]
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
        let group = Some(field(there, "group")).filter(|group| !group.is_empty());
        json!({ "max_restart": count("max_restart"), "max_relocate": count("max_relocate"), "group": group })
    }
}

/// Writes nodes with how much each is wanted, as the server reads them.
fn written(nodes: &BTreeMap<String, u32>) -> String {
    let each = nodes.iter().map(|(node, priority)| match priority {
        0 => node.clone(),
        priority => format!("{node}:{priority}"),
    });
    each.collect::<Vec<_>>().join(",")
}

/// Reads nodes with how much each is wanted.
fn nodes(text: &str) -> BTreeMap<String, u32> {
    let parts = text.split([',', ';', ' ']).filter(|part| !part.is_empty());
    parts
        .map(|part| match part.split_once(':') {
            Some((node, priority)) => (node.to_owned(), priority.parse().unwrap_or_default()),
            None => (part.to_owned(), 0),
        })
        .collect()
}

/// Returns nodes as they are there, in the shape of the inputs. One that is in a list and not in the other cannot be
/// said in that shape: the text of the server stands for them all.
fn seen(wanted: &BTreeMap<String, u32>, there: &str) -> Value {
    let there = nodes(there);
    if there.keys().eq(wanted.keys()) { json!(there) } else { json!(written(&there)) }
}

entry!(Group, "proxmox:ha-group", GroupOutputs);

impl Entry for Group {
    const KEY: &'static str = "group";
    const VERSIONS: &'static str = "groups are of Proxmox VE 8; version 9 has rules instead";

    fn name(&self) -> Option<String> {
        Some(self.name.clone())
    }
    fn who(name: &str) -> String {
        format!("the group {name}")
    }
    fn list() -> Request {
        Request::get("/cluster/ha/groups")
    }
    fn wanted(&self) -> Params {
        Params::from([
            ("nodes".to_owned(), written(&self.nodes)),
            ("restricted".to_owned(), u8::from(self.restricted).to_string()),
            ("nofailback".to_owned(), u8::from(!self.fail_back).to_string()),
        ])
    }
    fn comment(&self) -> &str {
        &self.comment
    }
    fn create(&self, name: &str, params: Params) -> Request {
        with(Request::post("/cluster/ha/groups").with("group", name), params)
    }
    fn update(&self, name: &str, set: Params, delete: &[&str]) -> Request {
        changing(Request::put(format!("/cluster/ha/groups/{}", encode(name))), set, delete)
    }
    fn remove(name: &str) -> Request {
        Request::delete(format!("/cluster/ha/groups/{}", encode(name)))
    }
    fn outputs(&self) -> GroupOutputs {
        GroupOutputs { name: self.name.clone() }
    }
    fn live(&self, there: &Value) -> Value {
        json!({
            "nodes": seen(&self.nodes, &field(there, "nodes")),
            "restricted": truth(there, "restricted"),
            "fail_back": !truth(there, "nofailback"),
        })
    }
}

entry!(
    Rule,
    "proxmox:ha-rule",
    RuleOutputs,
    fn change(&self, prior: &Rule, live: Option<&Value>) -> Change {
        let about_nodes = |affinity: &Value| affinity.get("Nodes").is_some();
        let there = live.and_then(|live| live.get("affinity")).map(about_nodes);
        let there = there.unwrap_or_else(|| about_nodes(&json!(prior.affinity)));
        if about_nodes(&json!(self.affinity)) == there {
            return Change::Update(Impact::default());
        }
        let reason = (Path::from("/affinity"), "a rule about hosts cannot become one about nodes, or back".to_owned());
        Change::Replace(Impact { reasons: vec![reason], ..Impact::default() }, Order::DeleteFirst)
    }
);

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
                Params::from([("nodes".into(), written(nodes)), ("strict".into(), u8::from(*strict).to_string())])
            }
        }
    }
}

impl Entry for Rule {
    const KEY: &'static str = "rule";
    const VERSIONS: &'static str = "rules need Proxmox VE 9; version 8 has groups instead";

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
        let affinity = match (field(there, "type").as_str(), field(there, "affinity").as_str()) {
            ("node-affinity", _) => {
                let text = field(there, "nodes");
                let nodes = match &self.affinity {
                    Affinity::Nodes { nodes, .. } => seen(nodes, &text),
                    Affinity::Apart | Affinity::Together => json!(nodes(&text)),
                };
                json!({ "Nodes": { "nodes": nodes, "strict": truth(there, "strict") } })
            }
            (_, "negative") => json!(Affinity::Apart),
            (_, "positive") => json!(Affinity::Together),
            _ => Value::Null,
        };
        json!({ "vms": vms, "affinity": affinity })
    }
}

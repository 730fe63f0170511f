//! High availability: machines that the cluster keeps running, and the rules of their placement.

use super::api::{nothing, unknown};
use super::datacenter::Datacenter;
use super::refusal::{Answer, Refusal};
use super::request::Request;
use super::schema::{Args, Call};
use super::state::{Highly, State};
use super::vm::Config;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// How long until a node that is gone is fenced, and its machines are started elsewhere.
const FENCE: Duration = Duration::from_secs(120);
/// How long the manager takes to act on a request.
const ROUND: Duration = Duration::from_secs(10);

impl Highly {
    pub(super) fn new(config: Config) -> Highly {
        let status = if config.get("state").is_some_and(|state| state == "stopped") { "stopped" } else { "started" };
        Highly { config, status }
    }

    fn state(&self) -> &str {
        self.config.get("state").map_or("started", String::as_str)
    }

    pub(super) fn wants_started(&self) -> bool {
        ["started", "enabled"].contains(&self.state())
    }
}

impl Datacenter {
    /// Keeps a machine running from now on.
    pub(super) fn manage(self: &Arc<Self>, id: u32, config: Config) {
        self.state().ha.insert(id, Highly::new(config));
        self.settle(id);
    }

    pub(super) fn is_managed(&self, id: u32) -> bool {
        let state = self.state();
        state.ha.get(&id).is_some_and(|ha| ha.state() != "ignored")
    }

    /// Asks the manager for a state; it acts on it later.
    pub(super) fn request_state(self: &Arc<Self>, id: u32, wanted: &str) -> Result<(), String> {
        self.writable()?;
        {
            let mut state = self.state();
            let ha = state.ha.get_mut(&id).ok_or_else(|| format!("no such resource 'vm:{id}'"))?;
            ha.config.insert("state".to_owned(), wanted.to_owned());
        }
        self.settle(id);
        Ok(())
    }

    /// Lets the manager bring a machine into its state.
    pub(super) fn settle(self: &Arc<Self>, id: u32) {
        let this = self.clone();
        self.spawn(async move {
            this.clock.sleep(ROUND).await;
            if !this.quorate() {
                return;
            }
            let (wanted, running) = {
                let state = this.state();
                let (Some(ha), Some(machine)) = (state.ha.get(&id), state.vms.get(&id)) else { return };
                (ha.state().to_owned(), machine.running.is_some())
            };
            let status = match wanted.as_str() {
                "started" | "enabled" if !running => match this.boot(id) {
                    Ok(()) => "started",
                    Err(_) => "error",
                },
                "started" | "enabled" => "started",
                "stopped" | "disabled" => {
                    if running {
                        this.cut_power(id);
                    }
                    "stopped"
                }
                _ => "ignored",
            };
            if let Some(ha) = this.state().ha.get_mut(&id) {
                ha.status = status;
            }
        });
    }

    /// A host is gone: unless it is back in time, what is kept running is started on other hosts.
    pub(super) fn watch_over(self: &Arc<Self>, host: &str) {
        let (this, host) = (self.clone(), host.to_owned());
        self.spawn(async move {
            this.clock.sleep(FENCE).await;
            if this.is_up(&host) || !this.quorate() {
                return;
            }
            let waiting: Vec<u32> = {
                let state = this.state();
                let lost = |id: &u32| state.vms.get(id).is_some_and(|machine| machine.node == host);
                state.ha.iter().filter(|(id, ha)| ha.wants_started() && lost(id)).map(|(id, _)| *id).collect()
            };
            for id in waiting {
                this.recover(id);
            }
        });
    }

    fn recover(self: &Arc<Self>, id: u32) {
        let target = self.state().better_node(id, self);
        match target {
            Some(node) => {
                if let Some(machine) = self.state().vms.get_mut(&id) {
                    machine.node = node;
                    machine.lock = None;
                }
                let status = if self.boot(id).is_ok() { "started" } else { "error" };
                if let Some(ha) = self.state().ha.get_mut(&id) {
                    ha.status = status;
                }
            }
            None => {
                if let Some(ha) = self.state().ha.get_mut(&id) {
                    ha.status = "recovery";
                }
            }
        }
    }
}

impl Datacenter {
    /// Whether machines are placed by groups of nodes, as before version 9, and not by rules.
    fn has_groups(&self) -> bool {
        self.spec.version.starts_with("8.")
    }
}

impl State {
    /// Whether the group of a machine lets it run on a node.
    fn grouped(&self, id: u32, node: &str) -> bool {
        let group = self.ha.get(&id).and_then(|ha| ha.config.get("group")).and_then(|group| self.groups.get(group));
        let Some(group) = group.filter(|group| group.get("restricted").is_some_and(|restricted| restricted == "1"))
        else {
            return true;
        };
        let nodes = group.get("nodes").map(String::as_str).unwrap_or_default();
        nodes.split(',').any(|member| member.split(':').next() == Some(node))
    }

    /// Returns the node with the fewest machines that a lost one may go to: its disks are there, and no rule forbids it.
    fn better_node(&self, id: u32, datacenter: &Datacenter) -> Option<String> {
        let machine = self.vms.get(&id)?;
        let reachable = |node: &str| {
            machine.config.iter().filter(|(key, _)| super::vm::is_volume(key)).all(|(_, drive)| {
                let volume = super::vm::volume_of(drive);
                volume == "none"
                    || self
                        .storages
                        .get(volume.split(':').next().unwrap_or_default())
                        .is_some_and(|storage| storage.shared && storage.on(node))
            })
        };
        let apart = |node: &str| {
            let own = format!("vm:{id}");
            self.rules.values().filter(|rule| rule.get("disable").is_none_or(|disable| disable != "1")).all(|rule| {
                let resources: Vec<&str> =
                    rule.get("resources").map(|list| list.split(',').collect()).unwrap_or_default();
                if !resources.contains(&own.as_str()) {
                    return true;
                }
                let nodes: Vec<&str> = rule
                    .get("nodes")
                    .map(|nodes| nodes.split(',').map(|node| node.split(':').next().unwrap_or(node)).collect())
                    .unwrap_or_default();
                match (rule.get("type").map(String::as_str), rule.get("affinity").map(String::as_str)) {
                    (Some("node-affinity"), _) => {
                        rule.get("strict").is_none_or(|strict| strict != "1") || nodes.contains(&node)
                    }
                    (_, Some("negative")) => !resources.iter().filter(|other| **other != own).any(|other| {
                        let other = other.strip_prefix("vm:").and_then(|other| other.parse().ok());
                        other.and_then(|other: u32| self.vms.get(&other)).is_some_and(|other| other.node == node)
                    }),
                    _ => true,
                }
            })
        };
        let count = |node: &str| self.vms.values().filter(|machine| machine.node == node).count();
        let hosts = datacenter.spec.hosts.iter().map(|host| host.name.as_str());
        let fits = |node: &&str| !self.down.contains(*node) && reachable(node) && apart(node) && self.grouped(id, node);
        let fit = hosts.filter(fits);
        fit.min_by_key(|node| (count(node), node.to_string())).map(str::to_owned)
    }
}

const MIGRATED: &str = "ha groups have been migrated to rules";

/// Carries out a call below `/cluster/ha`.
pub(super) fn call(call: &Call, request: &Request, args: &Args) -> Answer {
    match (call.method.as_str(), call.path.as_str()) {
        (_, path) if path.starts_with("/cluster/ha/groups") => groups(call, request, args),
        ("GET", "/cluster/ha/status/current") => current(request),
        (_, path) if path.starts_with("/cluster/ha/resources") => resources(call, request, args),
        (_, path) if path.starts_with("/cluster/ha/rules") => rules(call, request, args),
        _ => Err(unknown(call)),
    }
}

fn resource(args: &Args) -> Result<u32, Refusal> {
    let sid = args.required("sid");
    if sid.starts_with("ct:") {
        return Err(Refusal::not_simulated("containers"));
    }
    let id = sid.strip_prefix("vm:").unwrap_or(sid).parse();
    id.map_err(|_| Refusal::parameter("sid", format!("unable to parse ha resource id '{sid}'")))
}

fn settings(request: &Request, args: &Args) -> Result<Config, Refusal> {
    if let Some(group) = args.text("group") {
        if !request.datacenter.has_groups() {
            return Err(Refusal::died(format!("invalid parameter 'group': {MIGRATED}")));
        }
        if !request.datacenter.state().groups.contains_key(group) {
            return Err(Refusal::died(format!("ha group '{group}' does not exist")));
        }
    }
    let own = ["sid", "type", "delete", "digest"];
    Ok(args
        .texts()
        .filter(|(key, _)| !own.contains(key))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect())
}

fn shown(id: u32, ha: &Highly) -> Value {
    let mut row = json!({"sid": format!("vm:{id}"), "type": "vm", "state": ha.state(), "digest": "0"});
    for (key, value) in &ha.config {
        row[key] = value.parse::<i64>().map_or_else(|_| json!(value), |number| json!(number));
    }
    row
}

fn resources(call: &Call, request: &Request, args: &Args) -> Answer {
    let datacenter = &request.datacenter;
    let missing = |id: u32| Refusal::died(format!("no such resource 'vm:{id}'"));
    match (call.method.as_str(), call.path.as_str()) {
        ("GET", "/cluster/ha/resources") => Ok(datacenter.state().ha.iter().map(|(id, ha)| shown(*id, ha)).collect()),
        ("GET", _) => {
            let id = resource(args)?;
            let state = datacenter.state();
            Ok(shown(id, state.ha.get(&id).ok_or_else(|| missing(id))?))
        }
        ("POST", _) => {
            let (id, config) = (resource(args)?, settings(request, args)?);
            datacenter.writable()?;
            {
                let state = datacenter.state();
                if state.ha.contains_key(&id) {
                    return Err(Refusal::died(format!("resource ID 'vm:{id}' already defined")));
                }
                if !state.vms.contains_key(&id) {
                    return Err(Refusal::died(format!("unable to find VM {id}")));
                }
            }
            datacenter.manage(id, config);
            nothing()
        }
        ("PUT", _) => {
            let (id, config) = (resource(args)?, settings(request, args)?);
            datacenter.writable()?;
            {
                let mut state = datacenter.state();
                let ha = state.ha.get_mut(&id).ok_or_else(|| missing(id))?;
                for key in args.list("delete") {
                    ha.config.remove(&key);
                }
                ha.config.extend(config);
            }
            datacenter.settle(id);
            nothing()
        }
        ("DELETE", _) => {
            let id = resource(args)?;
            datacenter.writable()?;
            let mut state = datacenter.state();
            state.ha.remove(&id).ok_or_else(|| missing(id))?;
            let purge = args.text("purge") != Some("0");
            if purge {
                state.leave_rules(id);
            }
            nothing()
        }
        _ => Err(unknown(call)),
    }
}

fn rule_row(name: &str, rule: &Config, order: usize) -> Value {
    let mut row = json!({"rule": name, "order": order + 1, "digest": "0"});
    for (key, value) in rule {
        row[key] = value.parse::<i64>().map_or_else(|_| json!(value), |number| json!(number));
    }
    row
}

/// Refuses a rule that names what is not there.
fn plausible(request: &Request, state: &State, rule: &Config) -> Result<(), Refusal> {
    let items = |key: &str| -> Vec<String> {
        rule.get(key).map(|list| list.split([',', ';', ' ']).map(str::to_owned).collect()).unwrap_or_default()
    };
    let unmanaged: Vec<String> = items("resources")
        .into_iter()
        .filter(|sid| {
            !sid.strip_prefix("vm:").and_then(|id| id.parse().ok()).is_some_and(|id: u32| state.ha.contains_key(&id))
        })
        .collect();
    if !unmanaged.is_empty() {
        return Err(Refusal::died(format!("cannot use unmanaged resource(s) {}.", unmanaged.join(", "))));
    }
    match rule.get("type").map(String::as_str) {
        Some("node-affinity") => {
            let nodes = items("nodes");
            if nodes.is_empty() {
                return Err(Refusal::parameter("nodes", "property is missing and it is not optional"));
            }
            for node in nodes {
                let node = node.split(':').next().unwrap_or_default();
                if request.datacenter.host(node).is_none() {
                    return Err(Refusal::died(format!("cannot use non-existent node(s) {node}.")));
                }
            }
        }
        Some("resource-affinity") => {
            if !rule.contains_key("affinity") {
                return Err(Refusal::parameter("affinity", "property is missing and it is not optional"));
            }
            if items("resources").len() < 2 {
                return Err(Refusal::died("rule is ineffective as there are less than two resources"));
            }
        }
        _ => {}
    }
    Ok(())
}

fn groups(call: &Call, request: &Request, args: &Args) -> Answer {
    let datacenter = &request.datacenter;
    if !datacenter.has_groups() {
        let verb = match call.method.as_str() {
            "POST" => "create group",
            "GET" if call.path == "/cluster/ha/groups" => "index groups",
            "GET" => "read group",
            "PUT" => "update group",
            _ => "delete group",
        };
        return Err(Refusal::died(format!("cannot {verb}: {MIGRATED}")));
    }
    let name = args.text("group").unwrap_or_default();
    let missing = || Refusal::died(format!("no such ha group '{name}'"));
    let given = || {
        let own = ["group", "type", "delete", "digest"];
        args.texts().filter(move |(key, _)| !own.contains(key)).map(|(key, value)| (key.to_owned(), value.to_owned()))
    };
    let row = |name: &str, group: &Config| {
        let mut row = json!({"group": name, "type": "group", "digest": "0"});
        for (key, value) in group {
            row[key] = value.parse::<i64>().map_or_else(|_| json!(value), |number| json!(number));
        }
        row
    };
    let mut state = datacenter.state();
    match (call.method.as_str(), call.path.as_str()) {
        ("GET", "/cluster/ha/groups") => Ok(state.groups.iter().map(|(name, group)| row(name, group)).collect()),
        ("GET", _) => Ok(row(name, state.groups.get(name).ok_or_else(missing)?)),
        ("POST", _) => {
            datacenter.writable()?;
            if state.groups.contains_key(name) {
                return Err(Refusal::died(format!("ha group ID '{name}' already defined")));
            }
            state.groups.insert(name.to_owned(), given().collect());
            nothing()
        }
        ("PUT", _) => {
            datacenter.writable()?;
            let group = state.groups.get_mut(name).ok_or_else(missing)?;
            for key in args.list("delete") {
                group.remove(&key);
            }
            group.extend(given());
            nothing()
        }
        ("DELETE", _) => {
            datacenter.writable()?;
            let uses = |ha: &Highly| ha.config.get("group").is_some_and(|group| group == name);
            if let Some((id, _)) = state.ha.iter().find(|(_, ha)| uses(ha)) {
                return Err(Refusal::died(format!("ha group is used by service 'vm:{id}'")));
            }
            state.groups.remove(name).ok_or_else(missing)?;
            nothing()
        }
        _ => Err(unknown(call)),
    }
}

fn rules(call: &Call, request: &Request, args: &Args) -> Answer {
    let datacenter = &request.datacenter;
    if datacenter.has_groups() {
        return Err(Refusal::new(501, format!("Method '{} {}' not implemented", call.method, call.path)));
    }
    let name = args.text("rule").unwrap_or_default();
    let missing = || Refusal::died(format!("no such ha rule '{name}'"));
    let own = ["rule", "delete", "digest"];
    let given =
        || args.texts().filter(|(key, _)| !own.contains(key)).map(|(key, value)| (key.to_owned(), value.to_owned()));
    let mut state = datacenter.state();
    match (call.method.as_str(), call.path.as_str()) {
        ("GET", "/cluster/ha/rules") => {
            let wanted = |rule: &Config| {
                let of = |key: &str, list: &str| {
                    args.text(key).is_none_or(|wanted| {
                        rule.get(list).is_some_and(|text| text.split(',').any(|item| item == wanted))
                    })
                };
                of("type", "type") && of("resource", "resources")
            };
            let rows = state.rules.iter().enumerate().filter(|(_, (_, rule))| wanted(rule));
            Ok(rows.map(|(order, (name, rule))| rule_row(name, rule, order)).collect())
        }
        ("GET", _) => Ok(rule_row(name, state.rules.get(name).ok_or_else(missing)?, 0)),
        ("POST", _) => {
            datacenter.writable()?;
            if state.rules.contains_key(name) {
                return Err(Refusal::died(format!("HA rule '{name}' already defined")));
            }
            let rule: Config = given().collect();
            plausible(request, &state, &rule)?;
            state.rules.insert(name.to_owned(), rule);
            nothing()
        }
        ("PUT", _) => {
            datacenter.writable()?;
            let mut rule = state.rules.get(name).cloned().ok_or_else(missing)?;
            if args.text("type") != rule.get("type").map(String::as_str) {
                return Err(Refusal::parameter("type", "the type of a rule cannot be changed"));
            }
            for key in args.list("delete") {
                rule.remove(&key);
            }
            rule.extend(given());
            plausible(request, &state, &rule)?;
            state.rules.insert(name.to_owned(), rule);
            nothing()
        }
        ("DELETE", _) => {
            datacenter.writable()?;
            state.rules.remove(name).ok_or_else(missing)?;
            nothing()
        }
        _ => Err(unknown(call)),
    }
}

fn current(request: &Request) -> Answer {
    let datacenter = &request.datacenter;
    let quorate = datacenter.quorate();
    let status = if quorate { "OK" } else { "No quorum on node!" };
    let mut rows = vec![json!({
        "id": "quorum", "type": "quorum", "node": request.node(), "status": status, "quorate": u8::from(quorate),
    })];
    let state = datacenter.state();
    for (id, ha) in &state.ha {
        let node = state.vms.get(id).map(|machine| machine.node.clone()).unwrap_or_default();
        rows.push(json!({
            "id": format!("service:vm:{id}"), "type": "service", "sid": format!("vm:{id}"), "node": node, "state": ha.status,
            "request_state": ha.state(), "crm_state": ha.status, "status": format!("vm:{id} ({node}, {})", ha.status),
        }));
    }
    Ok(json!(rows))
}

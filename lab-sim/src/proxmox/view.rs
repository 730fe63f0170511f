//! What is shown of a machine: its configuration, what is pending, its status.

use super::cluster::{boot_disk, memory, processors};
use super::datacenter::seconds;
use super::refusal::{Answer, Refusal};
use super::request::Request;
use super::schema::{self, Args};
use super::vm::{Config, Pending, Vm};
use serde_json::{Map, Value, json};

pub(super) fn list(request: &Request) -> Answer {
    let now = request.datacenter.now();
    let state = request.datacenter.state();
    let here = state.vms.iter().filter(|(_, machine)| machine.node == request.node);
    let seen = here.filter(|(id, _)| request.token.demand(&format!("/vms/{id}"), &["VM.Audit"], Some(&state)).is_ok());
    let rows = seen.map(|(id, machine)| {
        let since = machine.running.as_ref().map(|running| seconds(running.since));
        let mut row = json!({
            "vmid": id, "status": machine.status(), "cpus": processors(&machine.config), "maxmem": memory(&machine.config),
            "maxdisk": boot_disk(&state, machine), "uptime": since.map_or(0, |since| seconds(now).saturating_sub(since)),
            "name": machine.config.get("name").cloned().unwrap_or_else(|| format!("VM {id}")),
        });
        optional(&mut row, machine);
        row
    });
    Ok(rows.collect())
}

pub(super) fn index(request: &Request, args: &Args) -> Answer {
    request.datacenter.state().vm(args.vm(), request.node())?;
    let subdirectories = [
        "config", "pending", "unlink", "resize", "move", "migrate", "snapshot", "status", "agent", "clone", "template",
    ];
    Ok(subdirectories.iter().map(|name| json!({"subdir": name})).collect())
}

fn optional(row: &mut Value, machine: &Vm) {
    if machine.is_template() {
        row["template"] = json!(1);
    }
    if let Some(tags) = machine.config.get("tags") {
        row["tags"] = json!(tags);
    }
    if let Some(lock) = machine.lock {
        row["lock"] = json!(lock);
    }
    if let Some(running) = &machine.running {
        row["pid"] = json!(running.pid);
    }
}

/// GET .../config
pub(super) fn config(request: &Request, args: &Args) -> Answer {
    let state = request.datacenter.state();
    let machine = state.vm(args.vm(), request.node())?;
    let mut shown = match args.text("snapshot") {
        Some(name) => {
            let snapshot = machine.snapshots.get(name);
            let snapshot = snapshot.ok_or_else(|| Refusal::died(format!("snapshot '{name}' does not exist")))?;
            values(&snapshot.config)
        }
        None if args.flag("current") => values(&machine.config),
        None => values(&machine.wanted()),
    };
    shown.insert("digest".to_owned(), json!(machine.digest()));
    if let Some(lock) = machine.lock {
        shown.insert("lock".to_owned(), json!(lock));
    }
    if let Some(parent) = &machine.parent {
        shown.insert("parent".to_owned(), json!(parent));
    }
    Ok(Value::Object(shown))
}

/// Returns a configuration with its values as Proxmox writes them in JSON.
pub(super) fn values(config: &Config) -> Map<String, Value> {
    config.iter().map(|(key, value)| (key.clone(), shown(key, value))).collect()
}

fn shown(key: &str, value: &str) -> Value {
    if key == "cipassword" {
        return json!("**********");
    }
    match value.parse::<i64>() {
        Ok(number) if schema::is_number(key) => json!(number),
        _ => json!(value),
    }
}

/// GET .../pending
pub(super) fn pending(request: &Request, args: &Args) -> Answer {
    let state = request.datacenter.state();
    let machine = state.vm(args.vm(), request.node())?;
    let mut rows = Vec::new();
    for (key, value) in &machine.config {
        let mut row = json!({"key": key, "value": shown(key, value)});
        match machine.pending.get(key) {
            Some(Pending::Set(wanted)) => row["pending"] = shown(key, wanted),
            Some(Pending::Delete { force }) => row["delete"] = json!(if *force { 2 } else { 1 }),
            None => {}
        }
        rows.push(row);
    }
    for (key, pending) in machine.pending.iter().filter(|(key, _)| !machine.config.contains_key(*key)) {
        match pending {
            Pending::Set(wanted) => rows.push(json!({"key": key, "pending": shown(key, wanted)})),
            Pending::Delete { force } => rows.push(json!({"key": key, "delete": if *force { 2 } else { 1 }})),
        }
    }
    rows.push(json!({"key": "digest", "value": machine.digest()}));
    Ok(json!(rows))
}

/// GET .../status/current
pub(super) fn current(request: &Request, args: &Args) -> Answer {
    let now = request.datacenter.now();
    let state = request.datacenter.state();
    let id = args.vm();
    let machine = state.vm(id, request.node())?;
    let mut row = json!({
        "vmid": id, "status": machine.status(), "qmpstatus": machine.status(), "cpus": processors(&machine.config),
        "maxmem": memory(&machine.config), "maxdisk": boot_disk(&state, machine),
        "name": machine.config.get("name").cloned().unwrap_or_else(|| format!("VM {id}")),
        "uptime": 0, "cpu": 0, "mem": 0, "disk": 0, "diskread": 0, "diskwrite": 0, "netin": 0, "netout": 0,
        "ha": {"managed": 0},
    });
    optional(&mut row, machine);
    if let Some(running) = &machine.running {
        row["uptime"] = json!(seconds(now).saturating_sub(seconds(running.since)));
        row["mem"] = json!(memory(&machine.config) / 2);
        row["running-machine"] = json!("pc-i440fx-10.1+pve0");
        row["running-qemu"] = json!("10.1.2");
    }
    if super::agent::enabled(&machine.config) {
        row["agent"] = json!(1);
    }
    if let Some(ha) = state.ha.get(&id) {
        let wanted = ha.config.get("state").cloned().unwrap_or_else(|| "started".to_owned());
        row["ha"] = json!({"managed": 1, "state": wanted});
    }
    Ok(row)
}

//! What the cluster says about itself: version, nodes, resources.

use super::certificate::fingerprint;
use super::datacenter::{Datacenter, seconds};
use super::inventory::Host;
use super::refusal::{Answer, Refusal};
use super::request::Request;
use super::schema::Args;
use super::state::State;
use super::vm::{self, Vm};
use crate::tls;
use serde_json::{Value, json};

/// What a host keeps for itself, in bytes.
const HOST_MEMORY: u64 = 2 << 30;

pub(super) fn version(request: &Request) -> Answer {
    let version = &request.datacenter.spec.version;
    let release: Vec<&str> = version.split('.').take(2).collect();
    Ok(json!({"version": version, "release": release.join("."), "repoid": "4b2f0a91c87d3e56"}))
}

pub(super) fn status(request: &Request) -> Answer {
    let datacenter = &request.datacenter;
    let quorate = u8::from(datacenter.quorate());
    let hosts = &datacenter.spec.hosts;
    let mut rows = vec![json!({
        "type": "cluster", "id": "cluster", "name": datacenter.spec.name, "nodes": hosts.len(), "quorate": quorate,
        "version": hosts.len(),
    })];
    for (index, host) in hosts.iter().enumerate() {
        rows.push(json!({
            "type": "node", "id": format!("node/{}", host.name), "name": host.name, "nodeid": index + 1,
            "ip": host.address.to_string(), "online": u8::from(datacenter.is_up(&host.name)),
            "local": u8::from(host.name == request.node), "level": "",
        }));
    }
    Ok(json!(rows))
}

/// Returns the memory that machines on a host have, in bytes.
fn taken(state: &State, host: &str) -> u64 {
    let running = state.vms.values().filter(|machine| machine.node == host && machine.running.is_some());
    running.map(|machine| memory(&machine.config)).sum::<u64>() + HOST_MEMORY
}

/// Returns the memory of a configuration, in bytes.
pub(super) fn memory(config: &vm::Config) -> u64 {
    let text = config.get("memory").map_or("512", |memory| memory.strip_prefix("current=").unwrap_or(memory));
    text.parse::<u64>().unwrap_or(512) << 20
}

/// Returns the processors of a configuration.
pub(super) fn processors(config: &vm::Config) -> u64 {
    let number = |key: &str| config.get(key).and_then(|value| value.parse::<u64>().ok()).unwrap_or(1);
    number("cores") * number("sockets")
}

fn node_row(datacenter: &Datacenter, state: &State, host: &Host) -> Value {
    let mut row = json!({
        "id": format!("node/{}", host.name), "node": host.name, "type": "node", "level": "",
        "ssl_fingerprint": tls::proxmox(&datacenter.spec.name, &host.name, Some(host.address))
            .map(|issued| fingerprint(&issued.certificate)).unwrap_or_default(),
    });
    if state.down.contains(&host.name) {
        row["status"] = json!("offline");
        return row;
    }
    row["status"] = json!("online");
    row["maxcpu"] = json!(host.cores);
    row["cpu"] = json!(0.02);
    row["maxmem"] = json!(host.memory);
    row["mem"] = json!(taken(state, &host.name).min(host.memory));
    row["maxdisk"] = json!(100u64 << 30);
    row["disk"] = json!(8u64 << 30);
    row["uptime"] = json!(86_400);
    row
}

pub(super) fn nodes(request: &Request) -> Answer {
    let datacenter = &request.datacenter;
    let state = datacenter.state();
    Ok(datacenter.spec.hosts.iter().map(|host| node_row(datacenter, &state, host)).collect())
}

pub(super) fn node_status(request: &Request) -> Answer {
    let datacenter = &request.datacenter;
    let host = datacenter.host(request.node()).ok_or_else(|| Refusal::died("no such cluster node"))?;
    let state = datacenter.state();
    let used = taken(&state, &host.name).min(host.memory);
    Ok(json!({
        "uptime": 86_400, "cpu": 0.02, "wait": 0, "idle": 0, "loadavg": ["0.10", "0.08", "0.05"],
        "pveversion": format!("pve-manager/{}/4b2f0a91c87d3e56", datacenter.spec.version),
        "kversion": "Linux 6.14.8-2-pve #1 SMP PREEMPT_DYNAMIC", "current-kernel": {
            "sysname": "Linux", "release": "6.14.8-2-pve", "machine": "x86_64", "version": "#1 SMP PREEMPT_DYNAMIC",
        },
        "cpuinfo": {"cpus": host.cores, "cores": host.cores, "sockets": 1, "model": "simulated", "mhz": "3000", "flags": "", "hvm": "1", "user_hz": 100},
        "memory": {"total": host.memory, "used": used, "free": host.memory - used, "available": host.memory - used},
        "swap": {"total": 0, "used": 0, "free": 0},
        "rootfs": {"total": 100u64 << 30, "used": 8u64 << 30, "free": 92u64 << 30, "avail": 92u64 << 30},
        "boot-info": {"mode": "efi"},
    }))
}

pub(super) fn network(request: &Request, args: &Args) -> Answer {
    let host = request.datacenter.host(request.node()).ok_or_else(|| Refusal::died("no such cluster node"))?;
    let bridges = host.bridges.iter().enumerate().map(|(index, bridge)| {
        let mut row = json!({
            "iface": bridge, "type": "bridge", "active": 1, "autostart": 1, "bridge_ports": format!("eno{}", index + 1),
            "bridge_stp": "off", "bridge_fd": "0", "bridge_vlan_aware": 1, "bridge_vids": "2-4094", "method": "manual",
            "method6": "manual", "families": ["inet"], "priority": 4 + index,
        });
        if index == 0 {
            row["method"] = json!("static");
            row["address"] = json!(host.address.to_string());
        }
        row
    });
    let ports = (1..=host.bridges.len()).map(|index| {
        json!({"iface": format!("eno{index}"), "type": "eth", "active": 1, "exists": 1, "method": "manual", "method6": "manual", "families": ["inet"], "priority": 2 + index})
    });
    let wanted = |row: &Value| match args.text("type") {
        None => true,
        Some("any_bridge" | "any_local_bridge" | "include_sdn") => row["type"] == "bridge",
        Some(kind) => row["type"] == kind,
    };
    Ok(bridges.chain(ports).filter(wanted).collect())
}

pub(super) fn next_id(request: &Request, args: &Args) -> Answer {
    let state = request.datacenter.state();
    if let Some(id) = args.number("vmid") {
        let id = id as u32;
        return match state.vms.contains_key(&id) {
            true => Err(Refusal::parameter("vmid", format!("VM {id} already exists"))),
            false => Ok(json!(id.to_string())),
        };
    }
    let free = (100..=999_999u32).find(|id| !state.vms.contains_key(id));
    let free = free.ok_or_else(|| Refusal::died("unable to get any free VMID in range [100, 999999]"))?;
    Ok(json!(free.to_string()))
}

pub(super) fn resources(request: &Request, args: &Args) -> Answer {
    let datacenter = &request.datacenter;
    let now = datacenter.now();
    let state = datacenter.state();
    let kind = args.text("type");
    let wanted = |of: &str| kind.is_none_or(|kind| kind == of);
    let mut rows = Vec::new();
    if wanted("vm") {
        for (id, machine) in &state.vms {
            let path = format!("/vms/{id}");
            if request.token.demand(&path, &["VM.Audit"], Some(&state)).is_ok() {
                rows.push(vm_row(&state, *id, machine, now));
            }
        }
    }
    if wanted("node") {
        for host in &datacenter.spec.hosts {
            let mut row = node_row(datacenter, &state, host);
            if let Some(row) = row.as_object_mut() {
                row.remove("ssl_fingerprint");
            }
            rows.push(row);
        }
    }
    if kind.is_none() {
        for (pool, _) in state
            .pools
            .iter()
            .filter(|(pool, _)| request.token.demand(&format!("/pool/{pool}"), &["Pool.Audit"], None).is_ok())
        {
            rows.push(json!({"id": format!("/pool/{pool}"), "pool": pool, "type": "pool"}));
        }
    }
    if wanted("storage") {
        for (id, storage) in &state.storages {
            let path = format!("/storage/{id}");
            if request.token.demand_any(&path, &["Datastore.Audit", "Datastore.AllocateSpace"], None).is_err() {
                continue;
            }
            for host in datacenter.spec.hosts.iter().filter(|host| storage.on(&host.name) && !storage.disabled) {
                let up = !state.down.contains(&host.name);
                let mut row = json!({
                    "id": format!("storage/{}/{id}", host.name), "storage": id, "node": host.name, "type": "storage",
                    "plugintype": storage.kind, "content": storage.content.join(","),
                    "shared": u8::from(storage.shared), "status": if up { "available" } else { "unknown" },
                });
                if up {
                    row["maxdisk"] = json!(storage.size);
                    row["disk"] = json!(state.used(id, &host.name));
                }
                rows.push(row);
            }
        }
    }
    Ok(json!(rows))
}

/// Returns a machine as the statistics have it: status and name of a new one follow later.
fn vm_row(state: &State, id: u32, machine: &Vm, now: std::time::SystemTime) -> Value {
    let up = !state.down.contains(&machine.node);
    let status = if up { machine.rumoured(now) } else { "unknown" };
    let mut row = json!({
        "id": format!("qemu/{id}"), "vmid": id, "node": machine.node, "type": "qemu", "status": status,
        "template": u8::from(machine.is_template()),
    });
    if let Some(pool) = state.pool_of(id) {
        row["pool"] = json!(pool);
    }
    if let Some(tags) = machine.config.get("tags") {
        row["tags"] = json!(tags);
    }
    if let Some(lock) = machine.lock {
        row["lock"] = json!(lock);
    }
    if let Some(ha) = state.ha.get(&id) {
        row["hastate"] = json!(ha.status);
    }
    if status != "unknown" {
        row["name"] = json!(machine.config.get("name").cloned().unwrap_or_else(|| format!("VM {id}")));
        row["maxcpu"] = json!(processors(&machine.config));
        row["maxmem"] = json!(memory(&machine.config));
        row["maxdisk"] = json!(boot_disk(state, machine));
        row["disk"] = json!(0);
        let running = status == "running";
        row["cpu"] = if running { json!(0.01) } else { json!(0) };
        row["mem"] = json!(if running { memory(&machine.config) / 2 } else { 0 });
        let since = machine.running.as_ref().filter(|_| running).map(|running| seconds(running.since));
        row["uptime"] = json!(since.map_or(0, |since| seconds(now).saturating_sub(since)));
    }
    row
}

/// Returns the size of a machine's first disk, in bytes.
pub(super) fn boot_disk(state: &State, machine: &Vm) -> u64 {
    let first = vm::disks(&machine.config).next();
    first.and_then(|(_, volume)| state.volume(volume, &machine.node)).map_or(0, |volume| volume.size)
}

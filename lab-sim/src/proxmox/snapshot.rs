//! Snapshots of machines.

use super::api::nothing;
use super::datacenter::{Datacenter, seconds};
use super::refusal::{Answer, Refusal};
use super::request::Request;
use super::schema::Args;
use super::state::State;
use super::task::Worker;
use super::view;
use super::vm::{self, Snapshot};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// GET .../snapshot
pub(super) fn list(request: &Request, args: &Args) -> Answer {
    let state = request.datacenter.state();
    let machine = state.vm(args.vm(), request.node())?;
    let mut rows: Vec<Value> = machine
        .snapshots
        .iter()
        .map(|(name, snapshot)| {
            let mut row = json!({
                "name": name, "description": snapshot.description, "snaptime": seconds(snapshot.time),
                "vmstate": u8::from(snapshot.memory),
            });
            if let Some(parent) = &snapshot.parent {
                row["parent"] = json!(parent);
            }
            row
        })
        .collect();
    let mut current = json!({
        "name": "current", "description": "You are here!", "digest": machine.digest(),
        "running": u8::from(machine.running.is_some()),
    });
    if let Some(parent) = &machine.parent {
        current["parent"] = json!(parent);
    }
    rows.push(current);
    Ok(json!(rows))
}

/// GET .../snapshot/{snapname}/config
pub(super) fn config(request: &Request, args: &Args) -> Answer {
    let state = request.datacenter.state();
    let machine = state.vm(args.vm(), request.node())?;
    let name = args.required("snapname");
    let snapshot = machine.snapshots.get(name).ok_or_else(|| missing(name))?;
    let mut shown = view::values(&snapshot.config);
    shown.insert("snaptime".to_owned(), json!(seconds(snapshot.time)));
    shown.insert("description".to_owned(), json!(snapshot.description));
    Ok(Value::Object(shown))
}

/// PUT .../snapshot/{snapname}/config
pub(super) fn describe(request: &Request, args: &Args) -> Answer {
    request.datacenter.writable()?;
    let mut state = request.datacenter.state();
    let machine = state.vm_mut(args.vm(), request.node())?;
    machine.unlocked()?;
    let name = args.required("snapname");
    let snapshot = machine.snapshots.get_mut(name).ok_or_else(|| missing(name))?;
    args.text("description").unwrap_or_default().clone_into(&mut snapshot.description);
    nothing()
}

fn missing(name: &str) -> String {
    format!("snapshot '{name}' does not exist")
}

/// Returns the disks of a machine as they are.
fn disks(state: &State, id: u32) -> BTreeMap<String, (u64, super::storage::Data)> {
    let Some(machine) = state.vms.get(&id) else { return BTreeMap::new() };
    let of = |volume: &str| state.volume(volume, &machine.node).map(|known| (known.size, known.data.clone()));
    vm::disks(&machine.config).filter_map(|(_, volume)| Some((volume.to_owned(), of(volume)?))).collect()
}

fn possible(datacenter: &Datacenter, id: u32, node: &str, name: &str) -> Result<(), String> {
    let state = datacenter.state();
    let machine = state.vm(id, node)?;
    if machine.is_template() {
        return Err("you can't take a snapshot if it's a template".to_owned());
    }
    machine.unlocked()?;
    if machine.snapshots.contains_key(name) {
        return Err(format!("snapshot name '{name}' already used"));
    }
    let able = vm::disks(&machine.config).filter(|(key, _)| !key.starts_with("unused")).all(|(_, volume)| {
        let storage = state.storages.get(volume.split(':').next().unwrap_or_default());
        storage.zip(state.volume(volume, node)).is_some_and(|(storage, known)| storage.snapshots(known.format))
    });
    if able { Ok(()) } else { Err("snapshot feature is not available".to_owned()) }
}

/// POST .../snapshot
pub(super) async fn take(request: &Request, args: &Args) -> Answer {
    let id = args.vm();
    let name = args.required("snapname").to_owned();
    if ["current", "pending"].contains(&name.as_str()) {
        return Err(Refusal::died(format!("unable to use snapshot name '{name}' (reserved name)")));
    }
    let (description, memory) = (args.text("description").unwrap_or_default().to_owned(), args.flag("vmstate"));
    let datacenter = &request.datacenter;
    let node = request.node().to_owned();
    datacenter.state().vm(id, &node)?;
    datacenter.writable()?;
    let work = move |worker: Worker| async move {
        let datacenter = worker.datacenter.clone();
        let _lock = worker.take(id).await?;
        possible(&datacenter, id, &node, &name)?;
        let time = Duration::from_secs(if memory { 20 } else { 3 });
        let taken = |state: &mut State| {
            let disks = disks(state, id);
            let machine = state.vm_mut(id, &node)?;
            let parent = machine.parent.replace(name.clone());
            let memory = memory && machine.running.is_some();
            let (config, time) = (machine.config.clone(), datacenter.now());
            machine.snapshots.insert(name, Snapshot { config, description, time, parent, memory, disks });
            Ok(())
        };
        worker.locking((id, &node), "snapshot", time, taken).await
    };
    Ok(datacenter.begin(request, "qmsnapshot", &id.to_string(), work)?)
}

/// DELETE .../snapshot/{snapname}
pub(super) async fn delete(request: &Request, args: &Args) -> Answer {
    let id = args.vm();
    let name = args.required("snapname").to_owned();
    let datacenter = &request.datacenter;
    let node = request.node().to_owned();
    datacenter.state().vm(id, &node)?;
    datacenter.writable()?;
    let work = move |worker: Worker| async move {
        let _lock = worker.take_unlocked(id).await?;
        if !worker.datacenter.state().vm(id, &node)?.snapshots.contains_key(&name) {
            return Err(missing(&name));
        }
        let deleted = |state: &mut State| {
            let machine = state.vm_mut(id, &node)?;
            let gone = machine.snapshots.remove(&name);
            let parent = gone.and_then(|gone| gone.parent);
            for snapshot in machine.snapshots.values_mut().filter(|snapshot| snapshot.parent.as_ref() == Some(&name)) {
                snapshot.parent.clone_from(&parent);
            }
            if machine.parent.as_ref() == Some(&name) {
                machine.parent = parent;
            }
            Ok(())
        };
        worker.locking((id, &node), "snapshot-delete", Duration::from_secs(4), deleted).await
    };
    Ok(datacenter.begin(request, "qmdelsnapshot", &id.to_string(), work)?)
}

/// POST .../snapshot/{snapname}/rollback
pub(super) async fn rollback(request: &Request, args: &Args) -> Answer {
    let id = args.vm();
    let (name, start) = (args.required("snapname").to_owned(), args.flag("start"));
    let datacenter = &request.datacenter;
    let node = request.node().to_owned();
    datacenter.state().vm(id, &node)?;
    datacenter.writable()?;
    let work = move |worker: Worker| async move {
        let datacenter = worker.datacenter.clone();
        let _lock = worker.take(id).await?;
        let snapshot = {
            let state = datacenter.state();
            let machine = state.vm(id, &node)?;
            if machine.is_template() {
                return Err("you can't rollback if vm is a template".to_owned());
            }
            machine.unlocked()?;
            let snapshot = machine.snapshots.get(&name).cloned().ok_or_else(|| missing(&name))?;
            // ZFS goes back to the latest one only.
            let latest = machine.parent.as_ref() == Some(&name);
            let zfs = vm::disks(&snapshot.config).any(|(_, volume)| {
                let storage = volume.split(':').next().unwrap_or_default();
                datacenter.spec.storages.iter().any(|known| known.id == storage && known.kind.name() == "zfspool")
            });
            if zfs && !latest {
                return Err(format!("can't rollback, '{name}' is not most recent snapshot on '{id}'"));
            }
            snapshot
        };
        datacenter.cut_power(id);
        let memory = snapshot.memory;
        let back = |state: &mut State| {
            let machine = state.vm_mut(id, &node)?;
            let before = std::mem::replace(&mut machine.config, snapshot.config.clone());
            machine.pending.clear();
            machine.parent = Some(name.clone());
            // Disks that came later are no longer used, and stay.
            let later: Vec<String> = vm::disks(&before).map(|(_, volume)| volume.to_owned()).collect();
            for volume in later {
                super::config::detach(&mut machine.config, &volume);
            }
            for (volume, (size, data)) in &snapshot.disks {
                if let Some(known) = state.volume_mut(volume, &node) {
                    known.size = *size;
                    known.data = data.clone();
                }
            }
            Ok(())
        };
        worker.locking((id, &node), "rollback", Duration::from_secs(5), back).await?;
        if start || memory {
            datacenter.boot(id)?;
        }
        Ok(())
    };
    Ok(datacenter.begin(request, "qmrollback", &id.to_string(), work)?)
}

//! Moving machines to other nodes.

use super::refusal::{Answer, Refusal};
use super::request::Request;
use super::schema::Args;
use super::state::State;
use super::task::Worker;
use super::vm;
use serde_json::json;
use std::time::Duration;

/// Returns the volumes of a machine that only its node has: disks, and media.
fn local(state: &State, id: u32) -> (Vec<String>, Vec<String>) {
    let Some(machine) = state.vms.get(&id) else { return Default::default() };
    let drives = machine.config.iter().filter(|(key, _)| vm::is_volume(key));
    let here = drives.filter(|(_, drive)| {
        let volume = vm::volume_of(drive);
        let storage = volume.split(':').next().unwrap_or_default();
        volume != "none" && !state.storages.get(storage).is_some_and(|storage| storage.shared)
    });
    let (media, disks): (Vec<_>, Vec<_>) = here
        .map(|(_, drive)| (vm::is_cdrom(drive) && !drive.contains("-cloudinit"), vm::volume_of(drive).to_owned()))
        .partition(|(media, _)| *media);
    let names = |list: Vec<(bool, String)>| list.into_iter().map(|(_, volume)| volume).collect();
    (names(disks), names(media))
}

/// GET .../migrate
pub(super) fn preconditions(request: &Request, args: &Args) -> Answer {
    let datacenter = &request.datacenter;
    let state = datacenter.state();
    let id = args.vm();
    let machine = state.vm(id, request.node())?;
    let (disks, media) = local(&state, id);
    let others: Vec<&str> =
        datacenter.spec.hosts.iter().map(|host| host.name.as_str()).filter(|host| *host != request.node()).collect();
    let sizes = disks.iter().map(|volume| {
        json!({"volid": volume, "size": state.volume(volume, request.node()).map_or(0, |known| known.size), "cdrom": 0, "is_unused": 0})
    });
    let media = media.iter().map(|volume| json!({"volid": volume, "size": 0, "cdrom": 1, "is_unused": 0}));
    Ok(json!({
        "running": u8::from(machine.running.is_some()), "allowed_nodes": others, "not_allowed_nodes": {},
        "local_disks": sizes.chain(media).collect::<Vec<_>>(), "local_resources": [], "mapped-resources": [],
        "mapped-resource-info": {},
    }))
}

/// POST .../migrate
pub(super) async fn migrate(request: &Request, args: &Args) -> Answer {
    for root in ["force", "migration_type", "migration_network"] {
        if args.has(root) {
            return Err(Refusal::parameter(root, "Only root may use this option."));
        }
    }
    let datacenter = &request.datacenter;
    let (id, target) = (args.vm(), args.required("target").to_owned());
    let (online, with_disks) = (args.flag("online"), args.flag("with-local-disks"));
    let storage = args.text("targetstorage").map(str::to_owned);
    let node = request.node().to_owned();
    if target == node {
        return Err(Refusal::parameter("target", "target is local node."));
    }
    if datacenter.host(&target).is_none() {
        return Err(Refusal::parameter("target", format!("no such cluster node '{target}'")));
    }
    if !datacenter.is_up(&target) {
        return Err(Refusal::died(format!("target node '{target}' is offline")));
    }
    {
        let state = datacenter.state();
        let machine = state.vm(id, &node)?;
        machine.unlocked()?;
        if machine.running.is_some() && !online {
            return Err(Refusal::died("can't migrate running VM without --online"));
        }
    }
    datacenter.writable()?;
    let managed = datacenter.is_managed(id);
    if managed {
        let work = move |worker: Worker| async move {
            // The manager moves it later, whatever becomes of that.
            let datacenter = worker.datacenter.clone();
            let work = async move { drop(carry_out(&worker, id, &node, &target, with_disks, storage).await) };
            datacenter.spawn(work);
            Ok(())
        };
        return Ok(datacenter.begin(request, "hamigrate", &id.to_string(), work)?);
    }
    let work = move |worker: Worker| async move { carry_out(&worker, id, &node, &target, with_disks, storage).await };
    Ok(datacenter.begin(request, "qmigrate", &id.to_string(), work)?)
}

async fn carry_out(
    worker: &Worker,
    id: u32,
    node: &str,
    target: &str,
    with_disks: bool,
    storage: Option<String>,
) -> Result<(), String> {
    let datacenter = worker.datacenter.clone();
    let _lock = worker.take_unlocked(id).await?;
    let disks = {
        let state = datacenter.state();
        state.vm(id, node)?;
        let (disks, media) = local(&state, id);
        if let Some(volume) = media.first() {
            return Err(format!("can't migrate local cdrom '{volume}'"));
        }
        if !disks.is_empty() && !with_disks {
            return Err(format!("can't migrate local disk '{}': local disk migration is not enabled", disks[0]));
        }
        for volume in &disks {
            let own = volume.split(':').next().unwrap_or_default();
            let wanted = storage.as_deref().unwrap_or(own);
            super::drive::images(&state, wanted, target)?;
            if wanted != own && wanted != "1" {
                return Err("not simulated: migration to another storage".to_owned());
            }
        }
        disks
    };
    let copies = u32::try_from(disks.len()).unwrap_or(1);
    let moved = |state: &mut State| {
        if state.down.contains(target) {
            return Err("migration aborted: no route to the target node".to_owned());
        }
        for volume in &disks {
            let (from, to) = (state.place(volume, node), state.place(volume, target));
            if let Some(moved) = state.volumes.remove(&from) {
                state.volumes.insert(to, moved);
            }
        }
        target.clone_into(&mut state.vm_mut(id, node)?.node);
        Ok(())
    };
    worker.locking((id, node), "migrate", Duration::from_secs(10) + Duration::from_secs(40) * copies, moved).await
}

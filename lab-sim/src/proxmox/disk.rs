//! Disks of a machine that is there: grown, moved, removed.

use super::api::nothing;
use super::config::{PATIENCE, apply, detach};
use super::drive::{self};
use super::refusal::{Answer, Refusal};
use super::request::Request;
use super::schema::Args;
use super::task::Worker;
use super::vm::{self, Pending, written};
use std::time::Duration;

fn same(digest: Option<&str>, machine: &vm::Vm) -> Result<(), String> {
    match digest {
        Some(digest) if digest != machine.digest() => Err("checksum mismatch (file change by other user?)".to_owned()),
        _ => Ok(()),
    }
}

fn not_for_root(args: &Args) -> Result<(), Refusal> {
    if args.flag("skiplock") {
        return Err(Refusal::parameter("skiplock", "Only root may use this option."));
    }
    Ok(())
}

/// PUT .../resize
pub(super) async fn resize(request: &Request, args: &Args) -> Answer {
    not_for_root(args)?;
    let id = args.vm();
    let (disk, wanted) = (args.required("disk").to_owned(), args.required("size").to_owned());
    let digest = args.text("digest").map(str::to_owned);
    let datacenter = &request.datacenter;
    let node = request.node().to_owned();
    datacenter.state().vm(id, &node)?;
    datacenter.writable()?;
    let work = move |worker: Worker| async move {
        let datacenter = worker.datacenter.clone();
        let _lock = worker.take(id).await?;
        worker.takes(Duration::from_secs(2)).await?;
        let mut state = datacenter.state();
        let machine = state.vm(id, &node)?;
        same(digest.as_deref(), machine)?;
        machine.unlocked()?;
        let drive = machine.config.get(&disk).cloned().ok_or_else(|| format!("disk '{disk}' does not exist"))?;
        if vm::is_cdrom(&drive) {
            return Err("you can't resize a cdrom".to_owned());
        }
        let volume = vm::volume_of(&drive).to_owned();
        let known = state.volume_mut(&volume, &node).ok_or_else(|| format!("volume '{volume}' does not exist"))?;
        let change = vm::size(wanted.trim_start_matches('+')).ok_or("invalid size")?;
        let size = if wanted.starts_with('+') { known.size + change } else { change };
        if size < known.size {
            return Err("shrinking disks is not supported".to_owned());
        }
        known.size = size;
        let mut parts: Vec<String> =
            drive.split(',').filter(|part| !part.starts_with("size=")).map(str::to_owned).collect();
        parts.push(format!("size={}", written(size)));
        state.vm_mut(id, &node)?.config.insert(disk, parts.join(","));
        Ok(())
    };
    Ok(datacenter.begin(request, "resize", &id.to_string(), work)?)
}

/// PUT .../unlink
pub(super) async fn unlink(request: &Request, args: &Args) -> Answer {
    let id = args.vm();
    let datacenter = &request.datacenter;
    datacenter.writable()?;
    let _lock = datacenter.lock(id, datacenter.clock.patience(PATIENCE)).await?;
    let mut state = datacenter.state();
    let force = args.flag("force");
    let machine = state.vm_mut(id, request.node())?;
    machine.unlocked()?;
    for key in args.list("idlist") {
        if !vm::is_volume(&key) {
            return Err(Refusal::parameter("idlist", format!("invalid disk '{key}'")));
        }
        if machine.is_protected() {
            return Err(Refusal::died(format!("can't remove drive '{key}' - protection mode enabled")));
        }
        if machine.config.contains_key(&key) {
            machine.pending.insert(key, Pending::Delete { force });
        }
    }
    apply(&mut state, id, request.node())?;
    nothing()
}

/// POST .../move_disk
pub(super) async fn transfer(request: &Request, args: &Args) -> Answer {
    not_for_root(args)?;
    if args.has("target-vmid") || args.has("target-disk") {
        return Err(Refusal::not_simulated("moving a disk to another machine"));
    }
    let id = args.vm();
    let (disk, delete) = (args.required("disk").to_owned(), args.flag("delete"));
    let storage = args
        .text("storage")
        .ok_or_else(|| Refusal::parameter("storage", "property is missing and it is not optional"))?;
    request.token.demand(&format!("/storage/{storage}"), &["Datastore.AllocateSpace"], None)?;
    let (storage, format) = (storage.to_owned(), args.text("format").map(str::to_owned));
    let digest = args.text("digest").map(str::to_owned);
    let datacenter = &request.datacenter;
    let node = request.node().to_owned();
    {
        let state = datacenter.state();
        let machine = state.vm(id, &node)?;
        same(digest.as_deref(), machine)?;
        machine.unlocked()?;
        let drive = machine.config.get(&disk).ok_or_else(|| format!("disk '{disk}' does not exist"))?;
        let volume = vm::volume_of(drive);
        let unchanged = state
            .volume(volume, &node)
            .is_some_and(|known| format.as_deref().is_none_or(|format| format == known.format));
        if volume.starts_with(&format!("{storage}:")) && unchanged {
            return Err(Refusal::died("you can't move to the same storage with same format"));
        }
        drive::images(&state, &storage, &node)?;
    }
    datacenter.writable()?;
    let work = move |worker: Worker| async move {
        let datacenter = worker.datacenter.clone();
        let _lock = worker.take(id).await?;
        worker.takes(Duration::from_secs(30)).await?;
        let now = datacenter.now();
        let mut state = datacenter.state();
        let machine = state.vm(id, &node)?;
        machine.unlocked()?;
        let text = machine.config.get(&disk).cloned().ok_or_else(|| format!("disk '{disk}' does not exist"))?;
        let volume = vm::volume_of(&text).to_owned();
        let known = state.volume(&volume, &node).cloned().ok_or_else(|| format!("volume '{volume}' does not exist"))?;
        let new = drive::allocate(&mut state, &storage, &node, id, known.size, format.as_deref(), known.data, now)?;
        state.vm_mut(id, &node)?.config.insert(disk, text.replacen(&volume, &new, 1));
        if delete {
            state.free(&volume, &node)?;
        } else {
            detach(&mut state.vm_mut(id, &node)?.config, &volume);
        }
        Ok(())
    };
    Ok(datacenter.begin(request, "qmmove", &id.to_string(), work)?)
}

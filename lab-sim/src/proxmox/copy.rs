//! Copies of machines: clones and templates.

use super::config;
use super::datacenter::Datacenter;
use super::drive;
use super::refusal::{Answer, Refusal};
use super::request::Request;
use super::schema::Args;
use super::state::State;
use super::storage::{Volume, own_name};
use super::task::Worker;
use super::vm::{self, Config, Vm};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How long the copy of a disk takes.
const COPY: Duration = Duration::from_secs(30);

/// What a clone is to be.
#[derive(Clone)]
struct Wish {
    source: u32,
    id: u32,
    node: String,
    target: String,
    full: bool,
    storage: Option<String>,
    format: Option<String>,
    snapshot: Option<String>,
    name: Option<String>,
    description: Option<String>,
}

/// POST .../clone
pub(super) async fn clone(request: &Request, args: &Args) -> Answer {
    let datacenter = &request.datacenter;
    let source = args.vm();
    let id = args.number("newid").and_then(|id| u32::try_from(id).ok()).unwrap_or_default();
    let pool = args.text("pool").map(str::to_owned);
    let node = request.node().to_owned();
    let target = args.text("target").unwrap_or(&node).to_owned();
    if datacenter.host(&target).is_none() {
        return Err(Refusal::parameter("target", format!("no such cluster node '{target}'")));
    }
    if target != node && !datacenter.is_up(&target) {
        return Err(Refusal::died(format!("target node '{target}' is offline")));
    }
    let wish = {
        let mut state = datacenter.state();
        let machine = state.vm(source, &node)?;
        let full = if args.has("full") { args.flag("full") } else { !machine.is_template() };
        let wish = Wish {
            source,
            id,
            node: node.clone(),
            target: target.clone(),
            full,
            storage: args.text("storage").map(str::to_owned),
            format: args.text("format").map(str::to_owned),
            snapshot: args.text("snapname").map(str::to_owned),
            name: args.text("name").map(str::to_owned),
            description: args.text("description").map(str::to_owned),
        };
        possible(&state, &wish)?;
        if let Some(storage) = &wish.storage {
            request.token.demand(&format!("/storage/{storage}"), &["Datastore.AllocateSpace"], None)?;
        }
        if pool.as_ref().is_some_and(|pool| !state.pools.contains_key(pool)) {
            return Err(Refusal::died(format!("pool '{}' does not exist", pool.unwrap_or_default())));
        }
        if state.vms.contains_key(&id) {
            return Err(Refusal::died(format!("unable to create VM {id}: config file already exists")));
        }
        datacenter.writable()?;
        // Until its disks are there, the clone is locked and stands on the node of its source.
        let mut machine = Vm::new(&node, Config::new(), datacenter.now());
        machine.lock = Some("clone");
        state.vms.insert(id, machine);
        if let Some(pool) = pool.as_ref().and_then(|pool| state.pools.get_mut(pool)) {
            pool.vms.insert(id);
        }
        wish
    };
    let before = datacenter.state().places_of(id);
    let work = move |worker: Worker| async move {
        let datacenter = worker.datacenter.clone();
        let result = carry_out(&worker, &wish).await;
        match result {
            Err(error) if !Worker::killed(&error) => {
                datacenter.state().unmake(wish.id, &before);
                Err(format!("clone failed: {error}"))
            }
            other => other,
        }
    };
    let begun = datacenter.begin(request, "qmclone", &source.to_string(), work);
    if begun.is_err() {
        let mut state = datacenter.state();
        state.vms.remove(&id);
        state.forget(id);
    }
    Ok(begun?)
}

fn origin<'a>(machine: &'a Vm, wish: &Wish) -> Result<&'a Config, String> {
    match &wish.snapshot {
        None => Ok(&machine.config),
        Some(name) => machine
            .snapshots
            .get(name)
            .map(|snapshot| &snapshot.config)
            .ok_or_else(|| format!("snapshot '{name}' does not exist")),
    }
}

fn possible(state: &State, wish: &Wish) -> Result<(), Refusal> {
    let machine = state.vm(wish.source, &wish.node)?;
    machine.unlocked()?;
    let config = origin(machine, wish)?;
    if !wish.full {
        if wish.storage.is_some() {
            return Err(Refusal::parameter("storage", "parameter 'storage' not allowed for linked clones"));
        }
        if wish.format.is_some() {
            return Err(Refusal::parameter("format", "parameter 'format' not allowed for linked clones"));
        }
        if !machine.is_template() {
            return Err(Refusal::died(
                "Linked clone feature is not supported for drives of a machine that is no template",
            ));
        }
    }
    if let Some(storage) = &wish.storage {
        drive::images(state, storage, &wish.target)?;
        let shared = state.storages.get(storage).is_some_and(|storage| storage.shared);
        if wish.target != wish.node && !shared {
            return Err(Refusal::died(format!("can't clone to non-shared storage '{storage}'")));
        }
    }
    if wish.target != wish.node {
        let local = vm::disks(config).any(|(_, volume)| {
            let storage = volume.split(':').next().unwrap_or_default();
            !state.storages.get(storage).is_some_and(|storage| storage.shared)
        });
        if local {
            return Err(Refusal::died(format!("can't clone VM to node '{}' (VM uses local storage)", wish.target)));
        }
    }
    Ok(())
}

async fn carry_out(worker: &Worker, wish: &Wish) -> Result<(), String> {
    let datacenter = worker.datacenter.clone();
    // The source is held while its disks are read.
    let lock = worker.take(wish.source).await?;
    let disks = {
        let state = datacenter.state();
        let machine = state.vm(wish.source, &wish.node)?;
        vm::disks(origin(machine, wish)?).filter(|(key, _)| !key.starts_with("unused")).count()
    };
    let copies = u32::try_from(disks.max(1)).unwrap_or(1);
    worker.takes(if wish.full { COPY * copies } else { Duration::from_secs(2) }).await?;
    let now = datacenter.now();
    copy(&datacenter, wish, now)?;
    drop(lock);
    worker.log(format!(
        "create {} clone of VM {} as VM {}",
        if wish.full { "full" } else { "linked" },
        wish.source,
        wish.id
    ));
    Ok(())
}

fn copy(datacenter: &Arc<Datacenter>, wish: &Wish, now: SystemTime) -> Result<(), String> {
    let mut state = datacenter.state();
    let machine = state.vm(wish.source, &wish.node)?;
    let original = origin(machine, wish)?.clone();
    let template_name = machine.config.get("name").cloned().unwrap_or_else(|| wish.source.to_string());
    let saved =
        wish.snapshot.as_ref().and_then(|name| machine.snapshots.get(name)).map(|snapshot| snapshot.disks.clone());
    let mut built = Config::new();
    for (key, value) in &original {
        let keep = !key.starts_with("unused")
            && !["template", "smbios1", "vmgenid", "meta", "description", "protection", "parent"]
                .contains(&key.as_str());
        if keep {
            built.insert(key.clone(), value.clone());
        }
    }
    for (key, value) in original.iter().filter(|(key, _)| super::power::is_net(key)) {
        let model = value.split('=').next().unwrap_or("virtio");
        let rest = value.split_once(',').map(|(_, rest)| format!(",{rest}")).unwrap_or_default();
        built.insert(key.clone(), format!("{model}={}{rest}", config::mac(datacenter.draw())));
    }
    let drives: Vec<(String, String)> =
        original.iter().filter(|(key, _)| vm::is_drive(key)).map(|(key, drive)| (key.clone(), drive.clone())).collect();
    for (key, text) in drives {
        let volume = vm::volume_of(&text).to_owned();
        let storage = volume.split(':').next().unwrap_or_default().to_owned();
        let rest = text.split_once(',').map(|(_, rest)| format!(",{rest}")).unwrap_or_default();
        let is_cloud_init = own_name(&volume).contains("-cloudinit");
        if vm::is_cdrom(&text) && !is_cloud_init {
            continue;
        }
        let target = wish.storage.clone().unwrap_or_else(|| storage.clone());
        let new = if is_cloud_init {
            drive::cloud_init(&mut state, &target, &wish.target, wish.id, now)?
        } else {
            let known =
                state.volume(&volume, &wish.node).ok_or_else(|| format!("volume '{volume}' does not exist"))?.clone();
            let data = match saved.as_ref().and_then(|saved| saved.get(&volume)) {
                Some((_, data)) => data.clone(),
                None => known.data.clone(),
            };
            if wish.full {
                let format = wish.format.as_deref().or_else(|| (target == storage).then_some(known.format));
                drive::allocate(&mut state, &target, &wish.target, wish.id, known.size, format, data, now)?
            } else {
                linked(&mut state, &storage, &volume, &known, wish, now)?
            }
        };
        built.insert(key, format!("{new}{rest}"));
    }
    built.insert("name".to_owned(), wish.name.clone().unwrap_or_else(|| format!("Copy-of-VM-{template_name}")));
    if let Some(description) = &wish.description {
        built.insert("description".to_owned(), description.clone());
    }
    config::identity(datacenter, &mut built, now);
    let machine = state.vm_mut(wish.id, &wish.node)?;
    machine.config = built;
    machine.lock = None;
    machine.node.clone_from(&wish.target);
    Ok(())
}

/// Makes a disk that reads from its base; its identifier names both.
fn linked(
    state: &mut State,
    storage: &str,
    base: &str,
    known: &Volume,
    wish: &Wish,
    now: SystemTime,
) -> Result<String, String> {
    let name = drive::allocate(
        state,
        storage,
        &wish.target,
        wish.id,
        known.size,
        Some(known.format),
        known.data.clone(),
        now,
    )?;
    let place = state.place(&name, &wish.target);
    let Some(mut volume) = state.volumes.remove(&place) else { return Err(format!("volume '{name}' does not exist")) };
    volume.parent = Some(base.to_owned());
    let rest = |volume: &str| volume.split_once(':').map_or(volume.to_owned(), |(_, rest)| rest.to_owned());
    let id = format!("{storage}:{}/{}", rest(base), rest(&name));
    let place = state.place(&id, &wish.target);
    state.volumes.insert(place, volume);
    Ok(id)
}

/// POST .../template
pub(super) async fn template(request: &Request, args: &Args) -> Answer {
    let id = args.vm();
    if args.has("disk") {
        return Err(Refusal::not_simulated("making a template of one disk"));
    }
    let datacenter = &request.datacenter;
    let node = request.node().to_owned();
    check_template(datacenter, id, &node)?;
    datacenter.writable()?;
    let work = move |worker: Worker| async move {
        let datacenter = worker.datacenter.clone();
        let _lock = worker.take(id).await?;
        check_template(&datacenter, id, &node)?;
        worker.takes(Duration::from_secs(2)).await?;
        let mut state = datacenter.state();
        let disks: Vec<(String, String)> = {
            let machine = state.vm(id, &node)?;
            let drives = machine.config.iter().filter(|(key, drive)| vm::is_drive(key) && !vm::is_cdrom(drive));
            drives.map(|(key, drive)| (key.clone(), drive.clone())).collect()
        };
        for (key, drive) in disks {
            let volume = vm::volume_of(&drive).to_owned();
            let name = own_name(&volume);
            let renamed = volume.replace(name, &name.replacen("vm-", "base-", 1));
            let (from, to) = (state.place(&volume, &node), state.place(&renamed, &node));
            if let Some(moved) = state.volumes.remove(&from) {
                state.volumes.insert(to, moved);
            }
            let text = drive.replacen(&volume, &renamed, 1);
            state.vm_mut(id, &node)?.config.insert(key, text);
        }
        state.vm_mut(id, &node)?.config.insert("template".to_owned(), "1".to_owned());
        Ok(())
    };
    Ok(datacenter.begin(request, "qmtemplate", &id.to_string(), work)?)
}

fn check_template(datacenter: &Datacenter, id: u32, node: &str) -> Result<(), String> {
    let state = datacenter.state();
    let machine = state.vm(id, node)?;
    machine.unlocked()?;
    if !machine.snapshots.is_empty() {
        return Err("unable to create template, because VM contains snapshots".to_owned());
    }
    if machine.is_template() {
        return Err("you can't convert a template to a template".to_owned());
    }
    if machine.running.is_some() {
        return Err("you can't convert a VM to template if VM is running".to_owned());
    }
    Ok(())
}

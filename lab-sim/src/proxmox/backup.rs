//! Backup jobs, and backups made at once.

use super::api::{nothing, unknown};
use super::datacenter::seconds;
use super::refusal::{Answer, Refusal};
use super::request::Request;
use super::schema::{Args, Call};
use super::state::State;
use super::storage::{Data, Volume};
use super::task::Worker;
use super::vm::Config;
use serde_json::{Value, json};
use std::time::Duration;

/// Carries out a call below `/cluster/backup`.
pub(super) fn jobs(call: &Call, request: &Request, args: &Args) -> Answer {
    match (call.method.as_str(), call.path.as_str()) {
        ("GET", "/cluster/backup") => {
            let state = request.datacenter.state();
            Ok(state.backups.iter().map(|(id, job)| shown(id, job)).collect())
        }
        ("POST", _) => create(request, args),
        ("GET", _) => {
            let id = args.required("id");
            let state = request.datacenter.state();
            Ok(shown(id, state.backups.get(id).ok_or_else(|| missing(id))?))
        }
        ("PUT", _) => update(request, args),
        ("DELETE", _) => {
            request.datacenter.writable()?;
            let id = args.required("id");
            request.datacenter.state().backups.remove(id).ok_or_else(|| missing(id))?;
            nothing()
        }
        _ => Err(unknown(call)),
    }
}

fn missing(id: &str) -> Refusal {
    Refusal::parameter("id", format!("No such job '{id}'"))
}

fn shown(id: &str, job: &Config) -> Value {
    let mut row = json!({"id": id, "type": "vzdump"});
    for (key, value) in job {
        row[key] = match value.parse::<i64>() {
            Ok(number) if ["enabled", "all", "repeat-missed", "protected", "remove"].contains(&key.as_str()) => {
                json!(number)
            }
            _ => json!(value),
        };
    }
    row
}

fn read(args: &Args) -> Result<Config, Refusal> {
    if let Some(root) = ["dumpdir", "script", "tmpdir"].iter().find(|key| args.has(key)) {
        return Err(Refusal::parameter(root, "Only root may set this option."));
    }
    for old in ["starttime", "dow", "maxfiles"] {
        if args.has(old) {
            return Err(Refusal::not_simulated(format!("the old parameter {old} of a backup job")));
        }
    }
    let own = ["id", "delete", "digest"];
    Ok(args
        .texts()
        .filter(|(key, _)| !own.contains(key))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect())
}

fn plausible(request: &Request, job: &Config) -> Result<(), Refusal> {
    let chosen = ["vmid", "pool", "all"].iter().filter(|key| job.get(**key).is_some_and(|value| value != "0")).count();
    if chosen == 0 {
        return Err(Refusal::parameters(
            [("vmid".to_owned(), "property is missing and it is not optional".to_owned())].into(),
        ));
    }
    if chosen > 1 {
        return Err(Refusal::parameter("all", "option conflicts with option 'vmid'"));
    }
    if let Some(storage) = job.get("storage") {
        let state = request.datacenter.state();
        let known = state.storages.get(storage).ok_or_else(|| format!("storage '{storage}' does not exist"))?;
        if !known.holds("backup") {
            return Err(Refusal::died(format!("storage '{storage}' does not support backups")));
        }
    }
    Ok(())
}

fn create(request: &Request, args: &Args) -> Answer {
    let mut job = read(args)?;
    job.entry("enabled".to_owned()).or_insert_with(|| "1".to_owned());
    if !job.contains_key("schedule") {
        return Err(Refusal::parameter("schedule", "property is missing and it is not optional"));
    }
    plausible(request, &job)?;
    request.datacenter.writable()?;
    let id = args.text("id").map_or_else(
        || format!("backup-{:08x}-{:04x}", request.datacenter.draw() >> 32, request.datacenter.draw() & 0xffff),
        str::to_owned,
    );
    let mut state = request.datacenter.state();
    if state.backups.contains_key(&id) {
        return Err(Refusal::died(format!("Job '{id}' already exists")));
    }
    state.backups.insert(id, job);
    nothing()
}

fn update(request: &Request, args: &Args) -> Answer {
    let id = args.required("id");
    let mut job = request.datacenter.state().backups.get(id).cloned().ok_or_else(|| missing(id))?;
    for key in args.list("delete") {
        job.remove(&key);
    }
    job.extend(read(args)?);
    plausible(request, &job)?;
    request.datacenter.writable()?;
    request.datacenter.state().backups.insert(id.to_owned(), job);
    nothing()
}

/// POST /nodes/{node}/vzdump
pub(super) async fn now(request: &Request, args: &Args) -> Answer {
    let job = read(args)?;
    let storage = job.get("storage").cloned().unwrap_or_else(|| "local".to_owned());
    plausible(request, &job)?;
    let node = request.node().to_owned();
    let vms: Vec<u32> = {
        let state = request.datacenter.state();
        state.storage(&storage, &node)?;
        let wanted = args.list("vmid");
        let pool = args.text("pool");
        let here = state.vms.iter().filter(|(_, machine)| machine.node == node);
        here.map(|(id, _)| *id)
            .filter(|id| {
                args.flag("all") || wanted.contains(&id.to_string()) || pool.is_some() && state.pool_of(*id) == pool
            })
            .collect()
    };
    for vm in &vms {
        let state = request.datacenter.state();
        request.token.demand(&format!("/vms/{vm}"), &["VM.Backup"], Some(&state))?;
    }
    request.token.demand(&format!("/storage/{storage}"), &["Datastore.AllocateSpace"], None)?;
    request.datacenter.writable()?;
    let name = if let [one] = vms[..] { one.to_string() } else { String::new() };
    let work = move |worker: Worker| async move {
        let datacenter = worker.datacenter.clone();
        for vm in vms {
            let _lock = worker.take_unlocked(vm).await?;
            let written = |state: &mut State| {
                let now = datacenter.now();
                let size = state.vm(vm, &node).map(|machine| super::cluster::boot_disk(state, machine) / 4)?;
                let pbs = state.storages.get(&storage).is_some_and(|storage| storage.kind == "pbs");
                let id = match pbs {
                    true => format!("{storage}:backup/vm/{vm}/{}", stamp(now, '-', 'T', ':') + "Z"),
                    false => format!("{storage}:backup/vzdump-qemu-{vm}-{}.vma.zst", stamp(now, '_', '-', '_')),
                };
                let format = if pbs { "pbs-vm" } else { "vma.zst" };
                let place = state.place(&id, &node);
                let volume = Volume {
                    content: "backup",
                    format,
                    size,
                    vm: Some(vm),
                    parent: None,
                    since: now,
                    data: Data::default(),
                };
                state.volumes.insert(place, volume);
                Ok(())
            };
            worker.locking((vm, &node), "backup", Duration::from_secs(60), written).await?;
        }
        Ok(())
    };
    Ok(request.datacenter.begin(request, "vzdump", &name, work)?)
}

/// Writes a time in UTC with these separators.
fn stamp(time: std::time::SystemTime, dates: char, between: char, times: char) -> String {
    let text =
        prost_types::Timestamp { seconds: i64::try_from(seconds(time)).unwrap_or_default(), nanos: 0 }.to_string();
    let (date, rest) = text.trim_end_matches('Z').split_once('T').unwrap_or((&text, ""));
    format!("{}{between}{}", date.replace('-', &dates.to_string()), rest.replace(':', &times.to_string()))
}

//! Making and destroying machines.

use super::config::{self, Change, told};
use super::refusal::{Answer, Refusal};
use super::request::Request;
use super::schema::Args;
use super::task::Worker;
use super::vm::{self, Config, Vm};
use std::time::Duration;

/// POST /nodes/{node}/qemu
pub(super) async fn create(request: &Request, args: &Args) -> Answer {
    for absent in ["archive", "unique", "live-restore"] {
        if args.has(absent) {
            return Err(Refusal::not_simulated(format!("the parameter {absent}")));
        }
    }
    let id = args.vm();
    let pool = args.text("pool").map(str::to_owned);
    let start = args.flag("start");
    let highly = args.flag("ha-managed");
    let datacenter = &request.datacenter;
    let change = Change::read(request, args)?;
    {
        let mut state = datacenter.state();
        let place = format!("/vms/{id}");
        let in_pool = pool.as_ref().map(|pool| format!("/pool/{pool}"));
        if request.token.demand(&place, &["VM.Allocate"], Some(&state)).is_err() {
            let refusal = Refusal::forbidden(&place, "VM.Allocate");
            let pool = in_pool.as_ref().ok_or(refusal)?;
            request.token.demand(pool, &["VM.Allocate"], None)?;
        }
        if pool.as_ref().is_some_and(|pool| !state.pools.contains_key(pool)) {
            return Err(Refusal::died(format!("pool '{}' does not exist", pool.unwrap_or_default())));
        }
        if start {
            request.token.demand(&place, &["VM.PowerMgmt"], Some(&state))?;
        }
        if highly {
            request.token.demand("/", &["Sys.Console"], None)?;
        }
        if let Some(there) = state.vms.get(&id) {
            let text = format!("unable to create VM {id} - VM {id} already exists on node '{}'", there.node);
            return Err(Refusal::died(text));
        }
        change.allowed(request, id, &state)?;
        config::plausible(&change.set, true)?;
        datacenter.writable()?;
        let mut machine = Vm::new(request.node(), Config::new(), datacenter.now());
        machine.lock = Some("create");
        state.vms.insert(id, machine);
        if let Some(pool) = pool.as_ref().and_then(|pool| state.pools.get_mut(pool)) {
            pool.vms.insert(id);
        }
    }
    let node = request.node().to_owned();
    let before = datacenter.state().places_of(id);
    let work = move |worker: Worker| async move {
        let datacenter = worker.datacenter.clone();
        let made = make(&worker, &node, id, &change).await;
        if let Err(error) = made {
            if !Worker::killed(&error) {
                datacenter.state().unmake(id, &before);
                return Err(format!("unable to create VM {id} - {error}"));
            }
            return Err(error);
        }
        if highly {
            datacenter.manage(id, Config::new());
        }
        if start && let Err(error) = datacenter.boot(id) {
            worker.warn(&error);
        }
        Ok(())
    };
    let begun = datacenter.begin(request, "qmcreate", &id.to_string(), work);
    if begun.is_err() {
        let mut state = datacenter.state();
        state.vms.remove(&id);
        state.forget(id);
    }
    Ok(begun?)
}

async fn make(worker: &Worker, node: &str, id: u32, change: &Change) -> Result<(), String> {
    let datacenter = &worker.datacenter;
    worker.takes(Duration::from_secs(2) + change.cost()).await?;
    let now = datacenter.now();
    let mut state = datacenter.state();
    let mut built = change.set.clone();
    for (key, drive) in &change.drives {
        let (text, _) = drive.provide(&mut state, node, id, now)?;
        built.insert(key.clone(), text);
    }
    config::identity(datacenter, &mut built, now);
    if !built.contains_key("boot") {
        let order: Vec<&str> =
            built.keys().map(String::as_str).filter(|key| vm::is_drive(key) || key.starts_with("net")).collect();
        if !order.is_empty() {
            let order = format!("order={}", order.join(";"));
            built.insert("boot".to_owned(), order);
        }
    }
    let machine = state.vm_mut(id, node)?;
    machine.config = built;
    machine.lock = None;
    drop(state);
    worker.log(format!("created VM {id}"));
    Ok(())
}

/// DELETE /nodes/{node}/qemu/{vmid}
pub(super) async fn destroy(request: &Request, args: &Args) -> Answer {
    let id = args.vm();
    let (purge, unreferenced) = (args.flag("purge"), args.flag("destroy-unreferenced-disks"));
    if args.flag("skiplock") {
        return Err(Refusal::parameter("skiplock", "Only root may use this option."));
    }
    let datacenter = &request.datacenter;
    let check = move |datacenter: &super::datacenter::Datacenter, node: &str| -> Result<(), Refusal> {
        let state = datacenter.state();
        let machine = state.vm(id, node)?;
        if machine.is_protected() {
            return Err(Refusal::died(format!("can't remove VM {id} - protection mode enabled")));
        }
        machine.unlocked()?;
        if machine.running.is_some() {
            return Err(Refusal::died(format!("VM {id} is running - destroy failed")));
        }
        if state.ha.contains_key(&id) && !purge {
            let text = format!("unable to remove VM {id} - used in HA resources and purge parameter not set.");
            return Err(Refusal::died(text));
        }
        for (_, volume) in vm::disks(&machine.config) {
            let place = state.place(volume, node);
            let of = |(at, other): (&super::storage::Place, &super::storage::Volume)| {
                at.1 == place.1 && other.parent.as_deref() == Some(volume)
            };
            if state.volumes.iter().any(of) {
                return Err(Refusal::died(format!("base volume '{volume}' is still in use by linked clones")));
            }
        }
        datacenter.writable()?;
        Ok(())
    };
    check(datacenter, request.node())?;
    let node = request.node().to_owned();
    let work = move |worker: Worker| async move {
        let datacenter = worker.datacenter.clone();
        let _lock = worker.take(id).await?;
        check(&datacenter, &node).map_err(|refusal| told(&refusal))?;
        worker.takes(Duration::from_secs(4)).await?;
        check(&datacenter, &node).map_err(|refusal| told(&refusal))?;
        let mut state = datacenter.state();
        let Some(machine) = state.vms.remove(&id) else { return Ok(()) };
        state.free_all(&machine.config, id, &node);
        for snapshot in machine.snapshots.values() {
            state.free_all(&snapshot.config, id, &node);
        }
        if unreferenced {
            let left: Vec<_> = state
                .volumes
                .iter()
                .filter(|((_, at), volume)| {
                    (at == &node || at.is_empty()) && volume.vm == Some(id) && volume.content == "images"
                })
                .map(|(place, _)| place.clone())
                .collect();
            for place in left {
                state.discard(&place);
            }
        }
        state.forget(id);
        if purge {
            state.purge(id);
        }
        Ok(())
    };
    Ok(datacenter.begin(request, "qmdestroy", &id.to_string(), work)?)
}

impl super::state::State {
    /// Takes a machine out of what goes with it in any case.
    pub(super) fn forget(&mut self, id: u32) {
        for pool in self.pools.values_mut() {
            pool.vms.remove(&id);
        }
    }

    /// Takes a machine out of backup jobs and of what is kept running.
    pub(super) fn purge(&mut self, id: u32) {
        self.ha.remove(&id);
        self.leave_rules(id);
        for job in self.backups.values_mut() {
            without(job, "vmid", &id.to_string());
        }
        self.backups.retain(|_, job| job.get("vmid").is_none_or(|vms| !vms.is_empty()));
    }
}

impl super::state::State {
    /// Takes a machine out of the rules of placement; a rule about nothing goes.
    pub(super) fn leave_rules(&mut self, id: u32) {
        let name = format!("vm:{id}");
        for rule in self.rules.values_mut() {
            without(rule, "resources", &name);
        }
        self.rules.retain(|_, rule| rule.get("resources").is_none_or(|resources| !resources.is_empty()));
    }
}

fn without(config: &mut Config, key: &str, item: &str) {
    if let Some(list) = config.get_mut(key) {
        let rest: Vec<&str> = list.split(',').filter(|entry| *entry != item).collect();
        *list = rest.join(",");
    }
}

//! The provider contract, tried on something like Proxmox: long tasks with an id that can get lost, locks, a mark that
//! a thing does not bear while it is being made, changes that need a reboot.

mod contract;

use contract::{
    Lab, Log, Scenario, Server, World, leaves_nothing_behind_when_destroyed_half_made, survives_everything,
};
use lab_core::execute::CallFault;
use lab_core::plan::Verb;
use lab_core::{
    Change, Claim, Class, Error, Found, Id, Impact, Link, Lock, Made, Op, Owner, ProgramError, Provider, Realm,
    Resource, Result, Stack, Step, Types,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const TEMPLATE: u32 = 9000;

// --- The server.

#[derive(Clone)]
struct Pve {
    vms: BTreeMap<u32, Guest>,
    tasks: BTreeMap<String, Task>,
    started: u32,
}

#[derive(Clone, Default)]
struct Guest {
    description: String,
    memory: u64,
    /// What the memory will be after the next reboot.
    pending: Option<u64>,
    /// Memory can be changed while it runs.
    hotplug: bool,
    running: bool,
    lock: Option<&'static str>,
}

#[derive(Clone)]
struct Task {
    left: u32,
    vmid: u32,
    work: Work,
}

#[derive(Clone)]
enum Work {
    Clone(String),
    Start,
    Stop,
    Reboot,
    Destroy,
    /// A backup, say: something of somebody else's that holds the lock for a while.
    Other,
}

impl Default for Pve {
    fn default() -> Pve {
        let template = Guest { description: "a template".into(), memory: 1024, ..Guest::default() };
        Pve { vms: BTreeMap::from([(TEMPLATE, template)]), tasks: BTreeMap::new(), started: 0 }
    }
}

impl Pve {
    fn begin(&mut self, vmid: u32, lock: &'static str, ticks: u32, work: Work) -> String {
        self.started += 1;
        let id = format!("UPID:{}", self.started);
        if let Some(vm) = self.vms.get_mut(&vmid) {
            vm.lock = Some(lock);
        }
        self.tasks.insert(id.clone(), Task { left: ticks, vmid, work });
        id
    }

    fn unlocked(&mut self, vmid: u32) -> Result<&mut Guest> {
        let vm = self.vms.get_mut(&vmid).ok_or_else(|| Error::new(Class::Gone, format!("VM {vmid} does not exist")))?;
        match vm.lock {
            Some(lock) => Err(Error::again(format!("VM {vmid} is locked ({lock})"))),
            None => Ok(vm),
        }
    }
}

impl Server for Pve {
    type Sight = BTreeMap<u32, (u64, bool, Option<u64>, Option<&'static str>)>;

    fn tick(&mut self, _: &mut Log) {
        let mut ended = Vec::new();
        for (id, task) in self.tasks.iter_mut().filter(|(_, task)| task.left > 0) {
            task.left -= 1;
            if task.left == 0 {
                ended.push((id.clone(), task.vmid, task.work.clone()));
            }
        }
        for (_, vmid, work) in ended {
            if let (Work::Clone(_), Some(template)) = (&work, self.vms.get_mut(&TEMPLATE)) {
                template.lock = None;
            }
            let Some(vm) = self.vms.get_mut(&vmid) else { continue };
            vm.lock = None;
            match work {
                // Only now: while it is being cloned, a guest has the description of nobody.
                Work::Clone(description) => vm.description = description,
                Work::Start => vm.running = true,
                Work::Stop => vm.running = false,
                Work::Reboot => vm.memory = vm.pending.take().unwrap_or(vm.memory),
                Work::Destroy => {
                    self.vms.remove(&vmid);
                }
                Work::Other => {}
            }
        }
    }

    fn sight(&self) -> Self::Sight {
        self.vms.iter().map(|(id, vm)| (*id, (vm.memory, vm.running, vm.pending, vm.lock))).collect()
    }
}

/// A connection to a [`Pve`]: its API, call by call.
struct Api(Arc<World<Pve>>);

impl Api {
    fn guest(&self, vmid: u32) -> Result<Option<Guest>> {
        self.0.ask(|pve| Ok(pve.vms.get(&vmid).cloned()))
    }

    fn task_runs(&self, id: &str) -> Result<bool> {
        self.0.ask(|pve| Ok(pve.tasks.get(id).is_some_and(|task| task.left > 0)))
    }

    fn clone_template(&self, vmid: u32, hotplug: bool, description: &str) -> Result<String> {
        self.0.call(|pve, log| {
            pve.unlocked(TEMPLATE)?;
            if pve.vms.contains_key(&vmid) {
                return Err(Error::conflict(format!("VM {vmid} already exists")));
            }
            log.push(format!("clone {vmid}"));
            pve.unlocked(TEMPLATE)?.lock = Some("clone");
            pve.vms.insert(vmid, Guest { memory: 1024, hotplug, ..Guest::default() });
            Ok(pve.begin(vmid, "clone", 5, Work::Clone(description.to_owned())))
        })
    }

    fn configure(&self, vmid: u32, memory: u64) -> Result<()> {
        self.0.call(|pve, log| {
            let vm = pve.unlocked(vmid)?;
            if vm.pending.unwrap_or(vm.memory) != memory {
                log.push(format!("configure {vmid} {memory}"));
                if vm.running && !vm.hotplug { vm.pending = Some(memory) } else { vm.memory = memory }
            }
            Ok(())
        })
    }

    fn work(&self, vmid: u32, lock: &'static str, runs: bool, work: Work) -> Result<String> {
        self.0.call(|pve, log| {
            if pve.unlocked(vmid)?.running != runs {
                return Err(Error::conflict(format!("VM {vmid} is {}running", if runs { "not " } else { "" })));
            }
            log.push(format!("{lock} {vmid}"));
            Ok(pve.begin(vmid, lock, 3, work))
        })
    }
}

// --- The provider.

/// A Proxmox host.
#[derive(Clone, Serialize, Deserialize)]
struct Proxmox {
    host: String,
}

impl Provider for Proxmox {
    const NAME: &'static str = "pve";
    type Client = Api;

    fn realm(&self) -> Realm {
        Realm::Stated(format!("pve {}", self.host))
    }

    async fn connect(self, link: Link) -> Result<Api> {
        link.world().map(Api).ok_or_else(|| Error::invalid("the link does not lead to a Proxmox in memory"))
    }

    fn types(types: &mut Types<Proxmox>) {
        types.add::<Vm>();
    }
}

/// A virtual machine, cloned from the template. Found by its number; ours by the mark in its description.
#[derive(Clone, Serialize, Deserialize)]
struct Vm {
    vmid: u32,
    memory: u64,
    hotplug: bool,
}

/// Where an operation stands: only what cannot be read off the machine itself.
#[derive(Serialize, Deserialize)]
enum At {
    Task(String),
    Between,
}

fn next<O>(at: At, why: &str) -> Result<Step<O>> {
    let pause = match at {
        At::Task(_) => Duration::from_secs(1),
        At::Between => Duration::ZERO,
    };
    Ok(Step::next(json!(at), why, pause))
}

impl Vm {
    fn stand(&self, guest: &Guest) -> Step<u64> {
        let ready = guest.running && guest.pending.is_none();
        let live = Some(json!({ "memory": guest.pending.unwrap_or(guest.memory) }));
        let made = Made { live, ..Made::new(self.natural(), guest.memory) };
        if ready {
            Step::Done(made)
        } else {
            Step::Next {
                cursor: json!(At::Between),
                made: None,
                why: "it does not run yet".into(),
                pause: Duration::ZERO,
            }
        }
    }

    fn natural(&self) -> String {
        format!("pve/{}", self.vmid)
    }

    /// Waits for the task of the step before, if there was one and it is known.
    fn waits<O>(api: &Api, cursor: Option<&Value>) -> Result<Option<Step<O>>> {
        let at = cursor.map(At::deserialize).transpose();
        let at = at.map_err(|error| Error::invalid(format!("its cursor cannot be read: {error}")))?;
        match at {
            Some(At::Task(id)) if api.task_runs(&id)? => {
                let why = format!("task {id} runs");
                next(At::Task(id), &why).map(Some)
            }
            Some(At::Task(_) | At::Between) | None => Ok(None),
        }
    }
}

impl Resource<Proxmox> for Vm {
    const TYPE: &'static str = "pve:vm";
    type Outputs = u64;

    fn id(&self) -> Option<Id> {
        Some(self.natural().into())
    }

    fn claims(&self) -> Vec<Claim> {
        vec![Claim::number("vmid", u128::from(self.vmid))]
    }

    fn locks(&self) -> Vec<Lock> {
        vec![Lock::exclusive(format!("template {TEMPLATE}"))]
    }

    fn change(&self, prior: &Vm, _: Option<&Value>) -> Change {
        let reboots = self.memory != prior.memory && !self.hotplug;
        Change::Update(Impact {
            interrupts: reboots.then(|| format!("reboots VM {}", self.vmid)),
            unknown: vec!["".into()],
            ..Impact::default()
        })
    }

    async fn find(api: &Api, op: &Op<Vm>) -> Result<Found<u64>> {
        let Some(vm) = &op.inputs else { return Err(Error::invalid("its inputs can no longer be read")) };
        let Some(guest) = api.guest(vm.vmid)? else { return Ok(Found::Absent) };
        match guest.lock {
            // It will have a description, ours or not, when it is unlocked.
            Some("clone") => return Err(Error::again(format!("VM {} is locked (clone)", vm.vmid))),
            Some("destroy") => return Ok(Found::Leaving(owner(&guest), "it is being destroyed".into())),
            Some(_) | None => {}
        }
        Ok(Found::Present(owner(&guest), vm.stand(&guest)))
    }

    async fn apply(&self, api: &Api, op: &Op<Vm>) -> Result<Step<u64>> {
        if let Some(wait) = Vm::waits(api, op.cursor.as_ref())? {
            return Ok(wait);
        }
        let Some(guest) = api.guest(self.vmid)? else {
            if op.exists {
                return Err(Error::new(Class::Gone, format!("VM {} is gone", self.vmid)));
            }
            return next(At::Task(api.clone_template(self.vmid, self.hotplug, &op.mark)?), "the template is cloned");
        };
        if let Some(lock) = guest.lock {
            return Err(Error::again(format!("VM {} is locked ({lock})", self.vmid)));
        }
        if owner(&guest) != Owner::Marked(op.mark.clone()) {
            return Err(Error::conflict(format!("VM {} was made by somebody else meanwhile", self.vmid)));
        }
        if guest.pending.unwrap_or(guest.memory) != self.memory {
            api.configure(self.vmid, self.memory)?;
            return next(At::Between, "it is configured");
        }
        if !guest.running {
            return next(At::Task(api.work(self.vmid, "start", false, Work::Start)?), "it starts");
        }
        if guest.pending.is_some() {
            return next(At::Task(api.work(self.vmid, "reboot", true, Work::Reboot)?), "it reboots");
        }
        Ok(self.stand(&guest))
    }

    async fn delete(api: &Api, op: &Op<Vm>) -> Result<Step<()>> {
        let Some(vm) = &op.inputs else { return Err(Error::invalid("its inputs can no longer be read")) };
        if let Some(wait) = Vm::waits(api, op.cursor.as_ref())? {
            return Ok(wait);
        }
        match api.guest(vm.vmid)? {
            None => Ok(Step::gone()),
            Some(guest) if guest.running => next(At::Task(api.work(vm.vmid, "stop", true, Work::Stop)?), "it stops"),
            Some(_) => next(At::Task(api.work(vm.vmid, "destroy", false, Work::Destroy)?), "it is destroyed"),
        }
    }
}

fn owner(guest: &Guest) -> Owner {
    if guest.description.is_empty() { Owner::Unmarked } else { Owner::Marked(guest.description.clone()) }
}

// --- The programs.

fn vms(stack: &Stack, memory: u64) -> Result<(), ProgramError> {
    let pve = stack.provider("pve", Proxmox { host: "pve1".into() });
    pve.resource("live").add(Vm { vmid: 101, memory, hotplug: true });
    pve.resource("rigid").add(Vm { vmid: 102, memory, hotplug: false });
    Ok(())
}

fn small(stack: &Stack) -> Result<(), ProgramError> {
    vms(stack, 2048)
}

fn large(stack: &Stack) -> Result<(), ProgramError> {
    vms(stack, 4096)
}

fn one(stack: &Stack) -> Result<(), ProgramError> {
    let pve = stack.provider("pve", Proxmox { host: "pve1".into() });
    pve.resource("one").add(Vm { vmid: 101, memory: 2048, hotplug: true });
    Ok(())
}

fn none(stack: &Stack) -> Result<(), ProgramError> {
    stack.provider("pve", Proxmox { host: "pve1".into() });
    Ok(())
}

// --- What must hold.

#[test]
fn creating_survives_everything() {
    survives_everything::<Pve>(&Scenario { before: None, program: small, verb: Verb::Up });
}

#[test]
fn changing_survives_everything() {
    survives_everything::<Pve>(&Scenario { before: Some(small), program: large, verb: Verb::Up });
}

#[test]
fn removing_a_line_survives_everything() {
    survives_everything::<Pve>(&Scenario { before: Some(one), program: none, verb: Verb::Up });
}

#[test]
fn destroying_survives_everything() {
    survives_everything::<Pve>(&Scenario { before: Some(small), program: small, verb: Verb::Destroy });
}

#[test]
fn what_is_half_made_can_be_destroyed() {
    leaves_nothing_behind_when_destroyed_half_made::<Pve>(small);
}

#[test]
fn a_task_whose_id_was_lost_is_waited_for_and_not_begun_again() {
    let lab = Lab::<Pve>::new().killed(one, 1, CallFault::StopAfter);
    assert_eq!(lab.world.log(), ["clone 101"]);
    assert!(lab.bench.state().open().all(|(_, _, open)| open.cursor.is_none()), "the id was meant to get lost");
    lab.bench.up_whole(one);
    assert_eq!(lab.world.log(), ["clone 101", "configure 101 2048", "start 101"]);
}

#[test]
fn memory_changes_live_where_it_can_and_by_a_reboot_where_it_must() {
    let lab = Lab::<Pve>::after(Some(small));
    let plan = lab.bench.preview(large);
    let interrupted: Vec<_> = plan.steps.iter().map(|step| (step.urn.name(), step.interrupts.as_deref())).collect();
    assert_eq!(interrupted, [("live", None), ("rigid", Some("reboots VM 102"))]);
    lab.bench.up_whole(large);
    let log = lab.world.log();
    let changed: Vec<_> = log.iter().filter(|line| !line.starts_with("clone") && !line.starts_with("start")).collect();
    assert_eq!(
        changed,
        ["configure 101 2048", "configure 102 2048", "configure 101 4096", "configure 102 4096", "reboot 102"]
    );
}

#[test]
fn a_template_that_somebody_else_locked_is_waited_for() {
    let lab = Lab::<Pve>::new();
    lab.world.change(|pve| pve.begin(TEMPLATE, "backup", 9, Work::Other));
    lab.bench.up_whole(one);
    assert_eq!(lab.world.log(), ["clone 101", "configure 101 2048", "start 101"]);
}

#[test]
fn a_machine_of_somebody_elses_is_not_touched() {
    let lab = Lab::<Pve>::new();
    let theirs = Guest { description: "grandmother's photos".into(), memory: 512, running: true, ..Guest::default() };
    lab.world.change(|pve| pve.vms.insert(101, theirs));
    let before = lab.world.sight();
    insta::assert_snapshot!(lab.failures(one, Verb::Up), @"create lab::pve::::pve:vm::one: pve:vm pve/101 exists already and is not ours: it bears the mark grandmother's photos, which is not ours; it was not touched [take it over with `import one pve/101`, give ours another name, or remove the other one by hand]");
    assert_eq!(lab.world.sight(), before);
    assert_eq!(lab.world.log(), [""; 0]);
    assert!(lab.bench.state().records.is_empty(), "what was never made is not recorded");
}

#[test]
fn a_machine_that_is_somebody_elses_by_now_is_left_alone_by_destroy() {
    let lab = Lab::<Pve>::after(Some(one));
    let theirs = Guest { description: "grandmother's photos".into(), memory: 512, running: true, ..Guest::default() };
    lab.world.change(|pve| pve.vms.insert(101, theirs));
    let before = lab.world.sight();
    assert!(lab.run(one, Verb::Destroy).complete());
    assert_eq!(lab.world.sight(), before);
    assert!(lab.bench.state().records.is_empty());
}

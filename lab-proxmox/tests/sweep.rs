//! Everything that can be declared, made, changed and destroyed, with a fault at every request and every task in turn:
//! afterwards one more run gives the declared world, nothing is there twice, and no volume is gone that no plan named.
//!
//! A sample by default; every point with `LAB_TEST_POINTS=all cargo test -p lab-proxmox --test sweep`, and so many of each
//! sweep with a number instead of `all`.

mod simulated;

use lab_core::execute::Options;
use lab_core::plan::{Plan, Verb};
use lab_proxmox::request::{self, Request};
use lab_sim::{Fault, Faults};
use serde_json::Value;
use simulated::everything::{changed, inhabited, made};
use simulated::{Lab, Program, steady};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// One point of a sweep: at the `nth` call of this name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    name: String,
    nth: u64,
    fault: Kind,
}

/// What goes wrong there. The library's own has no order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Refused,
    Dropped,
    ReplyLost,
    GivenUp,
    HostReboots,
    TaskFails,
    TaskDies,
    TaskWarns,
}

impl Kind {
    fn fault(self) -> Fault {
        match self {
            Kind::Refused => Fault::Refused,
            Kind::Dropped => Fault::Dropped,
            Kind::ReplyLost => Fault::ReplyLost,
            Kind::GivenUp => Fault::GivenUp,
            Kind::HostReboots => Fault::Reboot,
            Kind::TaskFails => Fault::TaskFails,
            Kind::TaskDies => Fault::TaskDies,
            Kind::TaskWarns => Fault::TaskWarns,
        }
    }

    /// Returns what can go wrong with a call.
    fn of(call: &str) -> &'static [Kind] {
        use Kind::{Dropped, GivenUp, HostReboots, Refused, ReplyLost, TaskDies, TaskFails, TaskWarns};
        match call.split(' ').next() {
            Some("task") => &[Refused, TaskFails, TaskDies, TaskWarns, HostReboots],
            Some("connect") => &[Refused, Dropped],
            Some("GET") => &[Refused, Dropped, ReplyLost, GivenUp],
            Some(_) | None => &[Refused, Dropped, ReplyLost, GivenUp, HostReboots],
        }
    }
}

/// Returns the part of a call's name that is the same in every run.
fn lasting(name: &str) -> String {
    let drawn = ["UPID", "/content/local"].iter().filter_map(|part| name.find(part)).min();
    name[..drawn.unwrap_or(name.len())].to_owned()
}

/// The lab before the verb that is disturbed.
fn before(prelude: Option<Program>) -> Lab {
    let lab = Lab::of(inhabited(), Faults::none());
    // A volume that no configuration names, with the number of a machine that will be ours.
    let orphan = Request::post("/nodes/pve2/storage/local-zfs/content").with("vmid", 1102);
    let orphan = orphan.with("filename", "vm-1102-disk-0").with("size", "1G");
    lab.by_hand(async |client| client.send(&orphan).await.expect("it is allocated"));
    if let Some(prelude) = prelude {
        lab.whole(prelude, Verb::Up);
    }
    lab.running.disturb(Faults::none());
    lab
}

/// Returns which volumes a plan names, given the machines as they are.
fn named(plan: &Plan, world: &Value) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for step in &plan.steps {
        let Some(record) = step.mark.as_ref() else { continue };
        let words = step.destroys.clone().unwrap_or_default();
        for (vmid, machine) in world["machines"].as_object().into_iter().flatten() {
            let told = words.contains(&format!("VM {vmid} ("));
            for (key, drive) in machine["config"].as_object().into_iter().flatten() {
                let volume = drive.as_str().unwrap_or_default().split(',').next().unwrap_or_default();
                if told && words.contains(&format!("{key} (")) {
                    named.insert(volume.to_owned());
                }
            }
        }
        // A file goes with the resource that it is.
        if ["proxmox:image", "proxmox:cloud-init"].contains(&step.urn.kind()) {
            named.insert(format!("{}:{}", step.urn.name(), record.0));
        }
    }
    named
}

/// What a run leaves that was not disturbed.
struct Undisturbed {
    world: Value,
    calls: BTreeMap<String, u64>,
    deleted: BTreeSet<String>,
}

fn undisturbed(prelude: Option<Program>, program: Program, verb: Verb) -> Undisturbed {
    let lab = before(prelude);
    let (start, there) = (lab.running.calls().len(), lab.whole_world());
    let plan = lab.planned(program, verb, false);
    lab.whole(program, verb);
    if verb == Verb::Up {
        lab.settled(program);
    }
    let mut calls = BTreeMap::new();
    for call in &lab.running.calls()[start..] {
        *calls.entry(lasting(&call.name)).or_default() += 1;
    }
    // Every volume that is gone was named: a disk with its machine, a file as the resource that it is.
    let deleted = lab.running.deleted_volumes();
    let named = named(&plan, &there);
    for volume in &deleted {
        let id = volume.split_once('/').filter(|(node, _)| node.starts_with("pve")).map_or(&**volume, |(_, id)| id);
        let file = ["seed", "image"].iter().any(|name| {
            let ours = named.iter().any(|entry| entry.starts_with(&format!("{name}:")));
            ours && (id.starts_with("local:iso/shop-1-") || id == "local:import/noble.qcow2")
        });
        assert!(named.contains(id) || file, "{volume} was deleted and no plan named it: {named:#?}");
    }
    Undisturbed { world: settled(&lab), calls, deleted: deleted.iter().map(|volume| steady(volume)).collect() }
}

/// The world, without where the cluster started what it keeps running.
fn settled(lab: &Lab) -> Value {
    let mut world = lab.world();
    for vmid in ["1102", "1103"] {
        if let Some(machine) = world["machines"].get_mut(vmid).and_then(Value::as_object_mut) {
            machine.remove("node");
        }
    }
    world
}

/// Does what a person does where a task died on a node, until the run is over: takes its lock away, and what it had
/// made of a machine.
fn clears_away(lab: &Lab, over: &AtomicBool) {
    let mut locked = BTreeSet::new();
    loop {
        let last = over.load(Ordering::SeqCst);
        lab.at_rest();
        let world = lab.whole_world();
        let machines = world["machines"].as_object().into_iter().flatten();
        let now: BTreeSet<(u32, String, String)> = machines
            .filter_map(|(vmid, machine)| {
                let (lock, node) = (machine["lock"].as_str()?, machine["node"].as_str()?);
                Some((vmid.parse().ok()?, lock.to_owned(), node.to_owned()))
            })
            .collect();
        // What is locked with no task at work, and was so a moment ago, stays locked.
        for (vmid, lock, node) in locked.intersection(&now) {
            lab.running.unlock(*vmid);
            if ["create", "clone"].contains(&lock.as_str()) {
                lab.task(&request::vm::destroy(node, *vmid));
            }
        }
        if last && now.is_empty() {
            return;
        }
        locked = now;
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Returns what is wrong after one fault and one more run.
fn disturbed(
    point: &Point,
    prelude: Option<Program>,
    program: Program,
    verb: Verb,
    expected: &Undisturbed,
) -> Result<(), String> {
    let lab = before(prelude);
    lab.running.disturb(Faults::none().on(&point.name, point.nth, point.fault.fault()));
    let fatal = matches!(point.fault, Kind::TaskDies | Kind::HostReboots);
    let over = AtomicBool::new(false);
    let (_, first) = std::thread::scope(|scope| {
        if fatal {
            scope.spawn(|| clears_away(&lab, &over));
        }
        let carried = lab.carry_out(program, verb, false, Options::default());
        over.store(true, Ordering::SeqCst);
        carried
    })?;
    lab.running.disturb(Faults::none());
    let failed: Vec<String> = first.failed.iter().map(|failure| failure.error.clone()).collect();
    if !first.complete() || fatal {
        // A person who was told of a failure looks at everything.
        let (_, second) = lab.carry_out(program, verb, true, Options::default())?;
        if !second.complete() {
            return Err(format!("the next run fails, too: {:#?}\nafter {failed:#?}", second.failed));
        }
    }
    if verb == Verb::Up {
        let plan = lab.planned(program, Verb::Up, true);
        if !plan.is_empty() {
            return Err(format!("there is still something to do:\n{}", lab_core::plan::text(&plan)));
        }
    }
    let world = settled(&lab);
    if world != expected.world {
        let differs = differences("", &expected.world, &world);
        return Err(format!("the world is another one:\n{}\nafter {failed:#?}", differs.join("\n")));
    }
    let mut deleted = BTreeSet::new();
    for volume in lab.running.deleted_volumes() {
        let volume = steady(&volume);
        if !expected.deleted.contains(&volume) {
            return Err(format!("{volume} is gone, and no plan named it"));
        }
        if !deleted.insert(volume.clone()) {
            return Err(format!("{volume} was deleted twice: it was made again"));
        }
    }
    Ok(())
}

fn differences(path: &str, wanted: &Value, there: &Value) -> Vec<String> {
    match (wanted, there) {
        (Value::Object(wanted), Value::Object(there)) => {
            let keys: BTreeSet<&String> = wanted.keys().chain(there.keys()).collect();
            let none = Value::Null;
            let each = |key: &String| {
                differences(&format!("{path}/{key}"), wanted.get(key).unwrap_or(&none), there.get(key).unwrap_or(&none))
            };
            keys.into_iter().flat_map(each).collect()
        }
        (wanted, there) if wanted == there => Vec::new(),
        (wanted, there) => vec![format!("{path} is {there}, not {wanted}")],
    }
}

/// Disturbs a verb at every point, or at a sample of them.
fn sweep(prelude: Option<Program>, program: Program, verb: Verb, sample: usize) {
    // One after the other: each has two workers of its own.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let expected = undisturbed(prelude, program, verb);
    let wanted = std::env::var("LAB_TEST_POINTS").unwrap_or_default();
    let (all, sample) = (wanted == "all", wanted.parse().unwrap_or(sample));
    let mut points = Vec::new();
    for (name, count) in &expected.calls {
        for nth in 1..=*count {
            points.extend(Kind::of(name).iter().map(|fault| Point { name: name.clone(), nth, fault: *fault }));
        }
    }
    let total = points.len();
    if !all {
        // What changes something first, the first call of each name: the same everywhere, and spread over all kinds.
        points.sort_by_key(|point| (point.name.starts_with("GET") || point.name.starts_with("connect"), point.nth));
        let changes = points.iter().filter(|point| point.nth == 1).count();
        points.truncate(changes);
        let step = points.len().div_ceil(sample).max(1);
        points = points.into_iter().step_by(step).collect();
    }
    println!("{} of {total} points", points.len());
    let next = AtomicUsize::new(0);
    let work = || {
        let mut wrong = Vec::new();
        while let Some(point) = points.get(next.fetch_add(1, Ordering::SeqCst)) {
            if let Err(error) = disturbed(point, prelude, program, verb, &expected) {
                wrong.push(format!("{:?} at call {} of {}: {error}", point.fault, point.nth, point.name));
            }
        }
        wrong
    };
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let workers = [scope.spawn(work), scope.spawn(work)];
        workers.into_iter().flat_map(|worker| worker.join().expect("a point panicked")).collect()
    });
    assert!(wrong.is_empty(), "{} of {} points:\n{}", wrong.len(), points.len(), wrong.join("\n\n"));
}

#[test]
fn whatever_goes_wrong_while_everything_is_made_one_more_run_makes_it_whole() {
    sweep(None, made, Verb::Up, 24);
}

#[test]
fn whatever_goes_wrong_while_everything_is_changed_one_more_run_makes_it_whole() {
    sweep(Some(made), changed, Verb::Up, 24);
}

#[test]
fn whatever_goes_wrong_while_everything_is_destroyed_one_more_run_destroys_the_rest() {
    sweep(Some(made), made, Verb::Destroy, 18);
}

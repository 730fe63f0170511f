//! Kill anywhere, run again, with everything real but the hosts: the MicroK8s environment dev on its simulated rack, over
//! sockets.
//!
//! By default a sample that fits: a few crash points spread over the calls of an `up`, and one `up` in which every change
//! of the world loses its reply once. `LAB_TEST_POINTS=all` stops at every call, before and after it, loses the reply of
//! each, and stops at every journal write; a number takes so many of them, spread evenly. A run whose disk has failed
//! waits for the machines it waits for anyway, which takes minutes. The crash points of the same graph are tried in
//! memory (`crash_points.rs`).

mod microk8s;

use lab::execute::disk::{Crash, Fault as DiskFault, Verb as DiskVerb};
use lab::execute::{CallFault, Faults};
use lab::plan::Verb;
use lab::sim::{self, Fault};
use microk8s::essence::differences;
use microk8s::site::each;
use microk8s::{Dev, consistent, lines};
use std::sync::{Arc, OnceLock};

/// The undisturbed `up`: its world, how many calls the engine made, which operations of the disk were writes, and which
/// requests changed something, in order.
struct Undisturbed {
    world: Vec<String>,
    calls: usize,
    writes: Vec<usize>,
    changes: Vec<String>,
}

fn undisturbed() -> &'static Undisturbed {
    static ONCE: OnceLock<Undisturbed> = OnceLock::new();
    ONCE.get_or_init(|| {
        let dev = Dev::new(sim::Options::default());
        let faults = Arc::new(Faults::none());
        let report = dev.run(Verb::Up, &faults).expect("undisturbed");
        assert!(report.complete(), "undisturbed: {report:#?}");
        let operations = dev.disk.operations();
        let writes = operations.iter().enumerate().filter(|(_, operation)| operation.verb == DiskVerb::Write);
        let writes = writes.map(|(n, _)| n).collect();
        let changing =
            |name: &str| ["POST /", "PUT /", "PATCH /", "DELETE /"].iter().any(|verb| name.starts_with(verb));
        let mut changes: Vec<String> = Vec::new();
        for call in dev.running.calls().into_iter().filter(|call| changing(&call.name)) {
            // What the guests' own controllers do to Kubernetes is theirs to bear.
            if !changes.contains(&call.name) {
                changes.push(call.name);
            }
        }
        let world = dev.settled().expect("undisturbed");
        let count = |what: &str| world.iter().filter(|line| line.starts_with(what)).count();
        assert_eq!((count("machine "), count("cluster")), (3, 1), "{world:#?}");
        assert!(count("\"") > 50, "few objects show little: {world:#?}");
        Undisturbed { world, calls: faults.calls(), writes, changes }
    })
}

/// Where an `up` is disturbed.
#[derive(Clone, Copy, Debug)]
enum Point {
    Call(usize, CallFault),
    Write(usize, DiskFault, Crash),
}

/// Returns the points to try: as many as are asked for, of all there are.
fn points() -> Vec<Point> {
    let Undisturbed { calls, writes, .. } = undisturbed();
    let mut all = Vec::new();
    for n in 0..*calls {
        all.extend([CallFault::StopBefore, CallFault::StopAfter, CallFault::LoseReply].map(|f| Point::Call(n, f)));
    }
    for (n, write) in writes.iter().enumerate() {
        let (fault, crash) = [
            (DiskFault::StopBefore, Crash::Power),
            (DiskFault::StopWithin(40), Crash::Process),
            (DiskFault::StopAfter, Crash::PowerPartly(n as u64)),
        ][n % 3];
        all.push(Point::Write(*write, fault, crash));
    }
    let wanted = match std::env::var("LAB_TEST_POINTS").as_deref() {
        Ok("all") => all.len(),
        Ok(number) => number.parse().expect("LAB_TEST_POINTS is a number, or `all`"),
        Err(_) => 4,
    };
    let wanted = wanted.min(all.len());
    // Each kind of fault in its turn: a lost reply alone stops nothing.
    (0..wanted).map(|n| all[(n * all.len() / wanted / 3 * 3 + n % 3).min(all.len() - 1)]).collect()
}

impl Point {
    /// Disturbs an `up` here, then runs it once more. Returns whether it was stopped halfway: which calls are made depends
    /// on how long the machines take.
    fn check(self) -> Result<bool, String> {
        let mut dev = Dev::new(sim::Options::default());
        let (stopped, crash) = match self {
            Point::Call(n, fault) => (dev.run(Verb::Up, &Arc::new(Faults::at(n, fault)))?.stopped, Crash::Process),
            Point::Write(n, fault, crash) => {
                dev.disk.inject(n, fault);
                // How it ended is what the next run has to cope with.
                let _ = dev.run(Verb::Up, &Arc::default());
                (dev.disk.stopped(), crash)
            }
        };
        let left = dev.world();
        consistent(&left)?;
        // A comparison that sees no difference here would see none anywhere.
        let halfway = stopped && lines(&left) != undisturbed().world;
        dev.disk = dev.disk.reopen(crash);
        let whole = dev.run_whole(Verb::Up).and_then(|()| same(&dev.settled()?));
        whole.map_err(|error| format!("{error}\nconnections that broke: {:#?}", dev.running.broken()))?;
        Ok(halfway)
    }
}

fn same(world: &[String]) -> Result<(), String> {
    let expected = &undisturbed().world;
    if world == expected { Ok(()) } else { Err(format!("another world: {}", differences(expected, world))) }
}

#[test]
fn an_environment_goes_on_wherever_its_up_stopped() {
    let points = points();
    let done = each(&points, |point| point.check());
    let failed: Vec<_> =
        done.iter().filter_map(|(point, done)| Some(format!("{point:?}: {}", done.as_ref().err()?))).collect();
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), done.len(), failed.join("\n"));
    let stopped = done.iter().filter(|(_, stopped)| *stopped == Ok(true)).count();
    let Undisturbed { calls, writes, .. } = undisturbed();
    println!("{stopped} of {} points stopped an up of {calls} calls and {} journal writes", done.len(), writes.len());
    assert!(stopped > done.len() / 3, "only {stopped} of {} crash points were reached: {done:?}", done.len());
}

#[test]
fn every_change_of_the_world_may_lose_its_reply() {
    let lost = &undisturbed().changes;
    let faults = lost.iter().fold(sim::Faults::none(), |faults, name| faults.on(name, 1, Fault::ReplyLost));
    let dev = Dev::new(sim::Options { faults, ..sim::Options::default() });
    dev.run_whole(Verb::Up).expect("a lost reply does no harm");
    let struck = dev.running.calls().iter().filter(|call| call.fault == Some(Fault::ReplyLost)).count();
    println!("{struck} replies lost, of {} kinds of changes", lost.len());
    assert!(struck > 30, "only {struck} replies were lost, of {lost:#?}");
    same(&dev.settled().expect("settled")).expect("the undisturbed world");
}

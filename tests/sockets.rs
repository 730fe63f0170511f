//! Kill anywhere, run again, with everything real but the machines: the home lab on its simulated rack, over sockets.
//!
//! A stated sample: twelve crash points spread over the calls and the journal writes of an `up`, and the lost replies
//! that hurt most. All crash points of the same graph are tried in memory (`crash_points.rs`).

mod homelab;

use homelab::essence::differences;
use homelab::site::each;
use homelab::{HomeLab, consistent, essence};
use lab::execute::disk::{Crash, Fault as DiskFault, Verb as DiskVerb};
use lab::execute::{CallFault, Faults};
use lab::plan::Verb;
use lab::sim::{self, Fault};
use std::sync::{Arc, OnceLock};

/// The undisturbed `up`: its world, how many calls it made, and which operations of the disk were writes.
struct Undisturbed {
    world: Vec<String>,
    calls: usize,
    writes: Vec<usize>,
}

fn undisturbed() -> &'static Undisturbed {
    static ONCE: OnceLock<Undisturbed> = OnceLock::new();
    ONCE.get_or_init(|| {
        let lab = HomeLab::new(sim::Options::default());
        let faults = Arc::new(Faults::none());
        let report = lab.run(Verb::Up, &faults).expect("undisturbed");
        assert!(report.complete(), "undisturbed: {report:#?}");
        let operations = lab.disk.operations();
        let writes = operations.iter().enumerate().filter(|(_, operation)| operation.verb == DiskVerb::Write);
        let writes = writes.map(|(n, _)| n).collect();
        let world = lab.settled().expect("undisturbed");
        let count = |what: &str| world.iter().filter(|line| line.starts_with(what)).count();
        assert_eq!((count("machine "), count("cluster ")), (6, 1), "{world:#?}");
        assert!(count("\"") > 90, "few objects show little: {world:#?}");
        Undisturbed { world, calls: faults.calls(), writes }
    })
}

/// Where an `up` is stopped: so many percent into its calls or its journal writes.
#[derive(Clone, Copy, Debug)]
enum Point {
    Call(usize, CallFault),
    Write(usize, DiskFault, Crash),
}

const SAMPLE: [Point; 12] = [
    Point::Call(3, CallFault::StopAfter),
    Point::Call(8, CallFault::StopBefore),
    Point::Call(14, CallFault::StopAfter),
    Point::Call(25, CallFault::StopAfter),
    Point::Call(40, CallFault::StopBefore),
    Point::Call(55, CallFault::StopAfter),
    Point::Call(70, CallFault::StopAfter),
    Point::Write(10, DiskFault::StopAfter, Crash::Process),
    Point::Write(20, DiskFault::StopBefore, Crash::Power),
    Point::Write(40, DiskFault::StopWithin(40), Crash::Process),
    Point::Write(60, DiskFault::StopAfter, Crash::Power),
    Point::Write(80, DiskFault::StopBefore, Crash::PowerPartly(7)),
];

impl Point {
    /// Stops an `up` here, then runs it once more. Returns whether it was stopped halfway: which calls are made depends
    /// on how long the machines take.
    fn check(self) -> Result<bool, String> {
        let undisturbed = undisturbed();
        let mut lab = HomeLab::new(sim::Options::default());
        let (stopped, crash) = match self {
            Point::Call(percent, fault) => {
                let faults = Arc::new(Faults::at(undisturbed.calls * percent / 100, fault));
                (lab.run(Verb::Up, &faults)?.stopped, Crash::Process)
            }
            Point::Write(percent, fault, crash) => {
                lab.disk.inject(undisturbed.writes[undisturbed.writes.len() * percent / 100], fault);
                // How it ended is what the next run has to cope with.
                let _ = lab.run(Verb::Up, &Arc::default());
                (lab.disk.stopped(), crash)
            }
        };
        let left = lab.world();
        consistent(&left)?;
        // A comparison that sees no difference here would see none anywhere.
        let halfway = stopped && essence(&left) != undisturbed.world;
        lab.disk = lab.disk.reopen(crash);
        lab.run_whole(Verb::Up)?;
        same(&lab.settled()?)?;
        Ok(halfway)
    }
}

fn same(world: &[String]) -> Result<(), String> {
    let expected = &undisturbed().world;
    if world == expected { Ok(()) } else { Err(format!("another world: {}", differences(expected, world))) }
}

#[test]
fn the_home_lab_goes_on_over_sockets_wherever_its_up_stopped() {
    let Undisturbed { calls, writes, .. } = undisturbed();
    let done = each(&SAMPLE, |point| point.check());
    let failed: Vec<_> =
        done.iter().filter_map(|(point, done)| Some(format!("{point:?}: {}", done.as_ref().err()?))).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    let stopped = done.iter().filter(|(_, stopped)| *stopped == Ok(true)).count();
    println!("stopped at {stopped} points of {calls} calls and {} journal writes", writes.len());
    assert!(stopped > 9, "only {stopped} of {} crash points were reached: {done:?}", done.len());
}

#[test]
fn the_replies_that_hurt_most_may_be_lost() {
    let lost = [
        "/machine.MachineService/ApplyConfiguration",
        "/machine.MachineService/Bootstrap",
        "PATCH /api/v1/namespaces/",
    ];
    let faults = lost.iter().fold(sim::Faults::none(), |faults, name| faults.on(*name, 1, Fault::ReplyLost));
    let lab = HomeLab::new(sim::Options { faults, ..sim::Options::default() });
    lab.run_whole(Verb::Up).expect("a lost reply does no harm");
    let calls = lab.running.calls();
    for name in lost {
        let struck = calls.iter().filter(|call| call.name.contains(name) && call.fault == Some(Fault::ReplyLost));
        assert_eq!(struck.count(), 1, "no reply to {name} was lost");
    }
    let bootstraps = calls.iter().filter(|call| call.name.ends_with("/Bootstrap")).map(|call| call.machine);
    let machines: std::collections::BTreeSet<_> = bootstraps.collect();
    assert_eq!(machines.len(), 1, "a call that is made at most once was made elsewhere: {machines:?}");
    same(&lab.settled().expect("settled")).expect("the undisturbed world");
}

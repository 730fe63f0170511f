//! Thousands of runs on one state: it stays as large as what it describes, however they ended.
//!
//! Five hundred of each kind by default; ten thousand with
//! `LAB_TEST_RUNS=10000 cargo test -p lab-core --test many_runs`.

use lab_core::execute::disk::Verb as DiskVerb;
use lab_core::plan::Verb;
use lab_core::testing::{Bench, Memory, Search, Thing, Trial};
use lab_core::{ProgramError, Secret, Stack};

/// A program that says something else each time, with a secret that changes now and then.
fn program(n: usize) -> impl Fn(&Stack) -> Result<(), ProgramError> {
    move |stack: &Stack| {
        let rack = stack.provider("rack", Memory::at("rack"));
        let secret = Some(Secret::new(format!("hush about {}", n % 7)).into());
        let base = rack.resource("base").add(Thing { secret, ..Thing::new("base", format!("turn {n}")) });
        rack.resource("next").add(Thing::new("next", base.output(|base| base.text)));
        // A name that comes and goes.
        if n.is_multiple_of(3) {
            rack.resource("guest").add(Thing::new("guest", "x"));
        }
        Ok(())
    }
}

fn runs() -> usize {
    std::env::var("LAB_TEST_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(500)
}

fn size(bench: &Bench) -> usize {
    bench.disk().get("lab.journal").map_or(0, |bytes| bytes.len())
}

/// Runs a program over and over in the way of `turn`, and returns the largest size of the state within the first hundred
/// runs and since.
fn lives(turn: impl Fn(&Bench, usize) -> Bench) -> (usize, usize) {
    let search = Search::of([("a secret", "hush about "), ("a key", "key-of-base-"), ("a key", "key-of-next-")]);
    let (mut bench, mut early, mut largest) = (Bench::new(), 0, 0);
    for n in 0..runs().max(200) {
        bench = turn(&bench, n);
        if n < 100 {
            early = early.max(size(&bench));
        } else {
            largest = largest.max(size(&bench));
        }
        if n % 100 == 0 {
            // A disk in memory remembers all it ever was; of all these runs nothing of it is a secret in clear.
            bench.disk().everything().iter().for_each(|file| search.clean("a state", file));
            bench = bench.fork().on(copied(&bench));
        }
    }
    (early, largest)
}

fn copied(bench: &Bench) -> lab_core::testing::MemoryDisk {
    let disk = lab_core::testing::MemoryDisk::new();
    disk.put("lab.journal", &bench.disk().get("lab.journal").unwrap_or_default());
    disk
}

#[test]
fn runs_that_change_something_leave_a_state_that_is_no_larger() {
    let (early, largest) = lives(|bench, n| {
        bench.up_whole(program(n));
        bench.clone()
    });
    assert!(largest < early + 512, "{early} bytes at first, {largest} later");
}

#[test]
fn runs_that_change_nothing_write_nothing() {
    let bench = Bench::new();
    bench.up_whole(program(0));
    let disk = copied(&bench);
    let bench = bench.fork().on(disk.clone());
    let before = disk.get("lab.journal");
    for _ in 0..runs() {
        bench.up_whole(program(0));
    }
    assert_eq!(disk.get("lab.journal"), before);
    let wrote = disk
        .operations()
        .into_iter()
        .find(|operation| !matches!(operation.verb, DiskVerb::Read | DiskVerb::List | DiskVerb::SyncDir));
    assert_eq!(wrote, None);
}

/// Only a run that came to its end wrote a snapshot. Of those that were killed, each left its records behind those of
/// the one before, for ever.
#[test]
fn runs_that_are_killed_at_their_end_leave_a_state_within_its_bound() {
    let (_, largest) = lives(|bench, n| {
        let bench = bench.clone().keeping_frames();
        bench.up_whole(program(n));
        bench
    });
    assert!(largest < 600 << 10, "{largest} bytes for three things");
}

#[test]
fn runs_of_which_each_fails_leave_a_state_that_is_no_larger() {
    let cut_off = |n: usize| {
        move |stack: &Stack| {
            let rack = stack.provider("rack", Memory::at("rack"));
            rack.resource("base").add(Thing::new("base", format!("turn {n}")));
            let dead = stack.provider("dead", Memory::at("dead"));
            dead.resource("never").timeout(std::time::Duration::from_secs(1)).add(Thing::new("never", "x"));
            Ok(())
        }
    };
    let (early, largest) = lives(|bench, n| {
        bench.world().cut_off("dead", true);
        let report = bench.attempt(cut_off(n), Verb::Up, &Trial::default()).expect("it is started");
        assert_eq!(report.failed.len(), 1);
        bench.clone()
    });
    assert!(largest < early + 512, "{early} bytes at first, {largest} later");
}

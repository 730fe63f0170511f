//! A full or failing disk loses nothing: what was acknowledged stays, and the next run comes to the same end.

mod sample;

use lab_core::execute::disk::{Crash, Fault, Verb as DiskVerb};
use lab_core::execute::seal::Keys;
use lab_core::execute::{KeySource, Store};
use lab_core::model::{Event, Run};
use lab_core::plan::Verb;
use lab_core::testing::{Bench, Memory, MemoryDisk, Thing, Trial};
use lab_core::{ProgramError, Stack};
use sample::{Sample, deeds, run, run_whole, seeds, settled, world};
use std::sync::Arc;
use std::time::SystemTime;

/// Lets every disk operation of a run fail in turn, then runs again with room on the disk.
fn check(story: &str, before: Option<&Sample>, sample: &Sample, verb: Verb, faults: &[Fault]) {
    let base = Bench::new();
    if let Some(before) = before {
        base.up_whole(|stack| before.declare(stack));
        base.world().clear_log();
    }
    let undisturbed = base.fork();
    run_whole(&undisturbed, sample, verb, story);
    for (n, operation) in undisturbed.disk().operations().iter().enumerate() {
        if matches!(operation.verb, DiskVerb::Read | DiskVerb::List | DiskVerb::Remove) {
            continue;
        }
        for fault in faults {
            let bench = base.fork();
            bench.disk().inject(n, *fault);
            let story = format!("{story}: {fault:?} at {operation:?}");
            match run(&bench, sample, verb, &Trial::default()) {
                // A snapshot that could not be written is no loss.
                Ok(report) => assert!(!report.complete() || bench.state().open().count() == 0, "{story}"),
                Err(error) => assert!(!error.is_empty(), "{story}"),
            }
            let crash = [Crash::Process, Crash::Power, Crash::PowerPartly(n as u64)][n % 3];
            let bench = bench.crashed(crash);
            run_whole(&bench, sample, verb, &story);
            assert_eq!(world(&bench), world(&undisturbed), "{story}");
            assert_eq!(
                deeds(&bench),
                deeds(&undisturbed),
                "{story}: something was made or deleted twice, or not at all"
            );
            settled(&bench, sample, verb, &story);
        }
    }
}

#[test]
fn a_disk_that_is_full_at_any_write_loses_nothing() {
    for seed in 300..300 + seeds(2) {
        let sample = Sample::random(seed);
        let faults = [Fault::NoSpace, Fault::Short(20)];
        check(&format!("up {seed}: {sample:?}"), None, &sample, Verb::Up, &faults);
        check(&format!("destroy {seed}: {sample:?}"), Some(&sample), &sample, Verb::Destroy, &faults);
    }
}

#[test]
fn a_disk_that_fails_at_any_write_loses_nothing() {
    for seed in 310..310 + seeds(2) {
        let sample = Sample::random(seed);
        let faults = [Fault::Broken, Fault::BrokenAfter];
        check(&format!("up {seed}: {sample:?}"), None, &sample, Verb::Up, &faults);
        let changed = sample.changed(seed);
        check(&format!("change {seed}: {changed:?}"), Some(&sample), &changed, Verb::Up, &faults);
    }
}

#[test]
fn a_disk_that_stays_full_stops_the_run_before_anything_that_could_not_be_recorded() {
    let sample = Sample::random(320);
    let base = Bench::new();
    let undisturbed = base.fork();
    run_whole(&undisturbed, &sample, Verb::Up, "undisturbed");
    for n in 0..undisturbed.disk().operations().len() {
        let bench = base.fork();
        bench.disk().full_from(n);
        let _ = run(&bench, &sample, Verb::Up, &Trial::default());
        let bench = bench.crashed(Crash::Power);
        let state = bench.state();
        for (place, name, item) in bench.world().items() {
            let known =
                state.records.values().any(|record| item.mark.as_ref().is_none_or(|mark| *mark == record.mark.0));
            assert!(known, "full from {n}: {place}/{name} was made, and nothing durable says so");
        }
    }
}

/// With nothing to return, the last record is the end of the last operation: a run is complete only with that.
#[test]
fn a_run_whose_last_record_could_not_be_written_is_not_complete() {
    let program = |stack: &Stack| -> Result<(), ProgramError> {
        stack.provider("rack", Memory::at("rack")).resource("it").add(Thing::new("it", "x"));
        Ok(())
    };
    let base = Bench::new();
    let undisturbed = base.fork();
    undisturbed.up_whole(program);
    for n in 0..undisturbed.disk().operations().len() {
        let bench = base.fork();
        bench.disk().inject(n, Fault::NoSpace);
        let done = bench.attempt(program, Verb::Up, &Trial::default());
        let (state, complete) = (bench.crashed(Crash::Power).state(), done.is_ok_and(|report| report.complete()));
        assert!(!complete || (state.open().count(), state.records.len()) == (0, 1), "full at {n}: {state:#?}");
    }
}

#[test]
fn what_the_disk_says_comes_with_a_hint() {
    for fault in [Fault::NoSpace, Fault::Broken, Fault::Short(3)] {
        let disk = MemoryDisk::new();
        let keys = KeySource::Given(Keys::fixed());
        let event = Event::Ran(Run { verb: "up".into(), at: 1 });
        let (mut store, _) = Store::open(Arc::new(disk.clone()), "lab", keys.clone()).unwrap();
        store.commit(std::slice::from_ref(&event), SystemTime::UNIX_EPOCH).unwrap();
        let next = disk.operations().len();
        disk.inject(next, fault);
        let error = store.commit(std::slice::from_ref(&event), SystemTime::UNIX_EPOCH).unwrap_err();
        assert!(error.to_string().contains("lab.journal"), "it names the file: {error}");
        assert!(!error.hint().is_empty());
        // Nothing may follow what was perhaps not written.
        let later = store.commit(std::slice::from_ref(&event), SystemTime::UNIX_EPOCH).unwrap_err();
        assert!(later.to_string().contains("earlier"), "{later}");
        assert_eq!(Store::look(&disk, "lab", &keys).unwrap().state.runs.len(), 1);
    }
}

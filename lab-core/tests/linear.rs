//! What a large stack costs: counted, not timed.

use lab_core::execute::disk::{Crash, Disk, Fault, Verb as DiskVerb};
use lab_core::plan::Verb;
use lab_core::testing::{Bench, Memory, Thing, Trial};
use lab_core::{
    Error, Found, Handle, Input, Link, Made, Op, ProgramError, Provider, Realm, Resource, Stack, Step, Types,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What exists in the state alone.
#[derive(Clone, Serialize, Deserialize)]
struct Paper;

impl Provider for Paper {
    const NAME: &'static str = "paper";
    type Client = ();
    fn realm(&self) -> Realm {
        Realm::Stated("paper".into())
    }
    async fn connect(self, _: Link) -> lab_core::Result<()> {
        Ok(())
    }
    fn types(types: &mut Types<Paper>) {
        types.add::<Note>();
    }
}

/// A note that says what others say. One that is slow is not there at once.
#[derive(Clone, Serialize, Deserialize)]
struct Note {
    text: String,
    reads: Vec<Input<String>>,
    slow: bool,
}

impl Resource<Paper> for Note {
    const TYPE: &'static str = "paper:note";
    const GENERATED: bool = true;
    type Outputs = String;
    async fn find(_: &(), _: &Op<Note>) -> lab_core::Result<Found<String>> {
        Err(Error::invalid("nobody looks for a note"))
    }
    async fn apply(&self, _: &(), op: &Op<Note>) -> lab_core::Result<Step<String>> {
        if self.slow {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if op.cursor.is_none() {
                return Ok(Step::next("halfway".into(), "it takes two", Duration::from_secs(1)));
            }
        }
        Ok(Step::Done(Made::new(self.text.clone(), self.text.clone())))
    }
    async fn delete(_: &(), _: &Op<Note>) -> lab_core::Result<Step<()>> {
        Ok(Step::gone())
    }
}

/// Declares `depth` layers of `width` notes, each of which reads two of the layer above.
fn layers(stack: &Stack, depth: usize, width: usize) -> Result<(), ProgramError> {
    let paper = stack.provider("paper", Paper);
    let mut above: Vec<Handle<String>> = Vec::new();
    for layer in 0..depth {
        let note = |n: usize| {
            let others = [n, n + 1].into_iter().filter_map(|n| above.get(n % width));
            let reads = others.map(|other| other.output(|text| text).into()).collect();
            let text = format!("note {n} of layer {layer}");
            paper.resource(&format!("n{layer}-{n}")).add(Note { text, reads, slow: false })
        };
        above = (0..width).map(note).collect();
    }
    Ok(())
}

#[test]
fn what_needs_nobody_outside_is_one_flush_a_layer() {
    for (depth, width) in [(40, 10), (1, 900), (60, 1)] {
        let bench = Bench::new();
        let program = |stack: &Stack| layers(stack, depth, width);
        for verb in [Verb::Up, Verb::Destroy] {
            let report = bench.attempt(program, verb, &Trial::default()).unwrap();
            assert_eq!((report.complete(), report.done.len()), (true, depth * width));
            // The first of all connects; the file gets its name; the run is noted, and what it returned.
            let flushes = report.flushes as usize;
            assert!((depth..=depth + 8).contains(&flushes), "{verb} of {depth} layers of {width}: {flushes}");
        }
    }
}

#[test]
fn what_needs_somebody_outside_shares_a_flush_with_its_neighbours() {
    let bench = Bench::new();
    let program = |stack: &Stack| {
        let rack = stack.provider("rack", Memory::at("rack"));
        (0..160).for_each(|n| drop(rack.resource(&format!("t{n}")).add(Thing::new(&format!("t{n}"), "a"))));
        Ok(())
    };
    let report = bench.up(program);
    // Begin and end of sixteen at a time.
    assert!(report.flushes <= 2 * 160 / 16 + 8, "{}", report.flushes);
}

#[test]
fn an_unchanged_plan_writes_nothing() {
    let bench = Bench::new();
    bench.up_whole(|stack| layers(stack, 5, 10));
    let before = bench.disk().get("lab.journal");
    let report = bench.up(|stack| layers(stack, 5, 10));
    assert_eq!((report.done.len(), report.flushes), (0, 0));
    assert_eq!(bench.disk().get("lab.journal"), before);
}

#[test]
fn a_record_of_a_small_thing_is_small() {
    let bench = Bench::new();
    bench.up_whole(|stack| layers(stack, 10, 10));
    let bytes: usize =
        bench.disk().list().unwrap().iter().filter_map(|name| bench.disk().get(name)).map(|f| f.len()).sum();
    assert!(bytes < 100 * 1000, "{bytes} bytes for 100 notes");
}

#[test]
fn a_long_chain_is_planned_made_and_taken_away_again() {
    let program = |stack: &Stack| layers(stack, 5000, 1);
    let bench = Bench::new();
    bench.up_whole(program);
    assert!(bench.preview(program).is_empty());
    assert!(bench.destroy(program).complete());
    assert!(bench.state().records.is_empty());
}

#[test]
fn what_is_done_at_once_is_done_wholly_or_not_at_all_wherever_it_is_killed() {
    let program = |stack: &Stack| layers(stack, 4, 3);
    for verb in [Verb::Up, Verb::Destroy] {
        let base = Bench::new();
        if verb == Verb::Destroy {
            base.up_whole(program);
        }
        let undisturbed = base.fork();
        assert!(undisturbed.attempt(program, verb, &Trial::default()).unwrap().complete());
        let names = |bench: &Bench| bench.state().records.into_keys().collect::<Vec<_>>();
        for (n, operation) in undisturbed.disk().operations().iter().enumerate() {
            for fault in [Fault::StopBefore, Fault::StopWithin(100), Fault::StopAfter, Fault::Broken, Fault::NoSpace] {
                if matches!(operation.verb, DiskVerb::Read | DiskVerb::List | DiskVerb::Remove) {
                    continue;
                }
                let bench = base.fork();
                bench.disk().inject(n, fault);
                let _ = bench.attempt(program, verb, &Trial::default());
                let bench = bench.crashed([Crash::Process, Crash::Power, Crash::PowerPartly(n as u64)][n % 3]);
                let story = format!("{verb}: {fault:?} at {operation:?}");
                assert_eq!(bench.state().open().count(), 0, "{story}: nothing was begun and not ended");
                assert!(bench.attempt(program, verb, &Trial::default()).unwrap().complete(), "{story}");
                assert_eq!(names(&bench), names(&undisturbed), "{story}");
            }
        }
    }
}

#[test]
fn what_takes_its_time_holds_up_nobody() {
    let bench = Bench::new();
    let program = |stack: &Stack| {
        let paper = stack.provider("paper", Paper);
        for n in 0..40 {
            let note = Note { text: format!("{n}"), reads: Vec::new(), slow: n % 4 == 3 };
            paper.resource(&format!("n{n}")).add(note);
        }
        Ok(())
    };
    let report = bench.up(program);
    assert!(report.complete());
    let done: Vec<usize> = report.done.iter().map(|urn| urn.name()[1..].parse().unwrap()).collect();
    let first_slow = done.iter().position(|n| n % 4 == 3).unwrap();
    assert_eq!(first_slow, 30, "the thirty that are there at once come first: {done:?}");
    assert!(bench.preview(program).is_empty());
}

/// A lock that is taken by one lets the next one in when it is given back, however many wait.
#[test]
fn many_that_wait_for_one_lock_take_turns() {
    let bench = Bench::new();
    let program = |stack: &Stack| {
        let rack = stack.provider("rack", Memory::at("rack"));
        for n in 0..300 {
            let thing = Thing { lock: Some("the only one".into()), ..Thing::new(&format!("t{n}"), "a") };
            rack.resource(&format!("t{n}")).add(thing);
        }
        Ok(())
    };
    let report = bench.up(program);
    assert_eq!((report.complete(), report.done.len()), (true, 300));
}

#[test]
fn many_that_fail_are_told_one_by_one() {
    let bench = Bench::new();
    let program = |stack: &Stack| {
        let rack = stack.provider("rack", Memory::at("rack"));
        for n in 0..200 {
            let thing = rack.resource(&format!("t{n}")).add(Thing::new(&format!("t{n}"), "a"));
            let text = thing.output(|_| -> String { panic!("this closure is wrong") });
            rack.resource(&format!("u{n}")).add(Thing::new(&format!("u{n}"), text));
        }
        Ok(())
    };
    let report = bench.attempt(program, Verb::Up, &Trial::default()).unwrap();
    assert_eq!((report.done.len(), report.failed.len(), report.not_started.len()), (200, 200, 0));
}

//! The first ^C: nothing new starts, calls in flight finish, waits are left to their cursor. The second: abandon.

mod sample;

use lab_core::execute::disk::{Crash, Verb as DiskVerb};
use lab_core::execute::{Faults, Interrupt, Progress, Report};
use lab_core::plan::Verb;
use lab_core::testing::{Bench, Trial};
use sample::{Line, Sample, deeds, run, run_whole, seeds, settled, world};
use std::sync::Arc;

/// Runs `sample`, asked to stop after so many things were told, and returns what came of it and was told.
fn interrupted(bench: &Bench, sample: &Sample, verb: Verb, asks: &[usize]) -> (Report, Vec<Progress>) {
    let trial = Trial { ask_after: asks.to_vec(), ..Trial::default() };
    let report = run(bench, sample, verb, &trial).unwrap();
    let heard = trial.heard.lock().unwrap().clone();
    (report, heard)
}

/// Interrupts a run after each thing it tells, and runs again.
fn check(story: &str, before: Option<&Sample>, sample: &Sample, verb: Verb, twice: bool) {
    let base = Bench::new();
    if let Some(before) = before {
        run_whole(&base, before, Verb::Up, story);
        base.world().clear_log();
    }
    let undisturbed = base.fork();
    let (_, told) = interrupted(&undisturbed, sample, verb, &[]);
    assert!(told.len() > 3);
    for n in 1..told.len() {
        let bench = base.fork();
        let asks = if twice { vec![n, n] } else { vec![n] };
        let (report, heard) = interrupted(&bench, sample, verb, &asks);
        let story = format!("{story}: asked after {:?}", heard[n - 1]);
        assert!(report.interrupted, "{story}");
        assert!(!report.complete(), "{story}");
        if !twice {
            let late = heard[n..].iter().filter(|event| matches!(event, Progress::Started { .. })).count();
            assert_eq!(late, 0, "{story}: something new was started: {heard:#?}");
        }
        let plan = base.plan(|stack| sample.declare(stack), verb, &Default::default(), &[]);
        let accounted = report.done.len() + report.failed.len() + report.left.len() + report.not_started.len();
        assert_eq!(accounted, plan.steps.len(), "{story}: every step is accounted for: {report:#?}");
        assert!(report.failed.is_empty(), "{story}: to be interrupted is no failure: {report:#?}");
        run_whole(&bench, sample, verb, &story);
        assert_eq!(world(&bench), world(&undisturbed), "{story}");
        assert_eq!(deeds(&bench), deeds(&undisturbed), "{story}: something was made or deleted twice, or not at all");
        settled(&bench, sample, verb, &story);
    }
}

#[test]
fn the_next_run_comes_to_the_same_end_after_one_interrupt() {
    for seed in 700..700 + seeds(3) {
        let sample = Sample::random(seed);
        check(&format!("up {seed}: {sample:?}"), None, &sample, Verb::Up, false);
        check(&format!("destroy {seed}: {sample:?}"), Some(&sample), &sample, Verb::Destroy, false);
        let changed = sample.changed(seed);
        if changed != sample {
            check(&format!("change {seed}: {changed:?}"), Some(&sample), &changed, Verb::Up, false);
        }
    }
}

#[test]
fn the_next_run_comes_to_the_same_end_after_two() {
    for seed in 710..710 + seeds(2) {
        let sample = Sample::random(seed);
        check(&format!("up {seed}: {sample:?}"), None, &sample, Verb::Up, true);
        check(&format!("destroy {seed}: {sample:?}"), Some(&sample), &sample, Verb::Destroy, true);
    }
}

#[test]
fn a_wait_is_left_at_its_cursor_and_taken_up_there() {
    let sample = Sample::of([Line { calls: 3, ..Line::new("slow") }, Line::new("next").says_of("slow")]);
    let bench = Bench::new();
    // Told so far: the run began, the step started, it waits.
    let (report, heard) = interrupted(&bench, &sample, Verb::Up, &[3]);
    assert!(matches!(&heard[2], Progress::Waiting { .. }), "{heard:#?}");
    assert!(
        !heard.iter().skip(3).any(|event| matches!(event, Progress::Waiting { .. })),
        "the wait was left: {heard:#?}"
    );
    assert_eq!(report.not_started.len(), 1);
    assert_eq!(report.left.len(), 1);
    let state = bench.state();
    let (_, record, open) = state.open().next().expect("the creation is open");
    assert_eq!(open.cursor, Some(serde_json::json!({ "left": 3 })));
    assert_eq!(record.id.as_ref().map(|id| id.0.as_str()), Some("slow"), "what exists is known by its id");
    run_whole(&bench, &sample, Verb::Up, "again");
    assert_eq!(bench.world().log(), ["create rack/slow", "create rack/next"]);
}

#[test]
fn nothing_happens_when_it_is_asked_before_anything_began() {
    let sample = Sample::of([Line::new("a"), Line::new("b")]);
    let bench = Bench::new();
    let trial = Trial::default();
    trial.interrupt.ask();
    let report = run(&bench, &sample, Verb::Up, &trial).unwrap();
    assert!(report.interrupted && report.not_started.len() == 2, "{report:#?}");
    assert!(report.not_started.iter().all(|(_, why)| why.contains("interrupted")));
    assert_eq!(bench.world().count(), 0);
    assert_eq!(bench.state().open().count(), 0);
}

/// Asks so many times to stop, just before the call to a provider, or the operation of the disk, with number `n`.
fn asked_at(base: &Bench, sample: &Sample, verb: Verb, at: At, asks: usize) -> (Bench, Report) {
    let bench = base.fork();
    let interrupt = Interrupt::default();
    let (asked, trial) = (interrupt.clone(), Trial { interrupt, ..Trial::default() });
    let ask = move |now: usize, wanted: usize| (0..asks).filter(|_| now == wanted).for_each(|_| asked.ask());
    let (bench, trial) = match at {
        At::Call(n) => (bench, Trial { faults: Arc::new(Faults::watched(move |now| ask(now, n))), ..trial }),
        At::Write(n) => {
            let disk = bench.disk().clone().watched(move |now| ask(now, n));
            (bench.on(disk), trial)
        }
    };
    let report = run(&bench, sample, verb, &trial).unwrap();
    (bench, report)
}

#[derive(Clone, Copy, Debug)]
enum At {
    Call(usize),
    Write(usize),
}

/// Every call to a provider and every operation of the disk of an undisturbed run.
fn moments(base: &Bench, sample: &Sample, verb: Verb) -> (Bench, Vec<At>) {
    let bench = base.fork();
    let faults = Arc::new(Faults::none());
    let trial = Trial { faults: faults.clone(), ..Trial::default() };
    assert!(run(&bench, sample, verb, &trial).unwrap().complete());
    let writes = bench.disk().operations().into_iter().enumerate();
    let writes = writes.filter(|(_, operation)| matches!(operation.verb, DiskVerb::Write | DiskVerb::Flush));
    let all = (0..faults.calls()).map(At::Call).chain(writes.map(|(n, _)| At::Write(n))).collect();
    (bench, all)
}

#[test]
fn asked_once_or_twice_at_any_call_or_write_the_next_run_comes_to_the_same_end() {
    let mut points = 0;
    for seed in 720..720 + seeds(1) {
        let sample = Sample::random(seed);
        let changed = sample.changed(seed);
        for (before, program, verb) in
            [(None, &sample, Verb::Up), (Some(&sample), &changed, Verb::Up), (Some(&sample), &sample, Verb::Destroy)]
        {
            let base = Bench::new();
            if let Some(before) = before {
                run_whole(&base, before, Verb::Up, "before");
                base.world().clear_log();
            }
            let (undisturbed, moments) = moments(&base, program, verb);
            for at in moments {
                for asks in [1, 2] {
                    let (bench, report) = asked_at(&base, program, verb, at, asks);
                    let story = format!("{verb} {seed}, asked {asks} times at {at:?}: {program:?}");
                    assert!(report.failed.is_empty(), "{story}: to be interrupted is no failure: {report:#?}");
                    // A process that was told twice is gone; what it had asked for may still come to pass.
                    let bench = bench.crashed(Crash::Process);
                    run_whole(&bench, program, verb, &story);
                    assert_eq!(world(&bench), world(&undisturbed), "{story}");
                    assert_eq!(deeds(&bench), deeds(&undisturbed), "{story}: twice, or not at all");
                    settled(&bench, program, verb, &story);
                    points += 1;
                }
            }
        }
    }
    assert!(points > 60, "{points} points show little");
    println!("{points} points");
}

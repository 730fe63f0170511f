//! The first ^C: nothing new starts, calls in flight finish, waits are left to their cursor. The second: abandon.

mod sample;

use lab_core::execute::disk::{Crash, Verb as DiskVerb};
use lab_core::execute::{Faults, Progress, Report};
use lab_core::plan::Verb;
use lab_core::testing::{Bench, Trial};
use sample::{Line, Sample, deeds, run, run_whole, seeds, settled, world};
use std::sync::{Arc, Mutex};

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

/// What came of a run that was asked to stop.
struct Asked {
    /// What the next process finds: one that was told twice is gone, and what it had asked for may still come to pass.
    bench: Bench,
    report: Report,
    /// Everything that came up, in its order.
    passed: Vec<At>,
    /// How many steps were started after it was asked.
    late: usize,
}

/// Asks to stop once for each of `asks`, just before the call to a provider, or the operation of the disk, of that number.
fn asked_at(base: &Bench, sample: &Sample, verb: Verb, asks: &[At]) -> Asked {
    let trial = Trial::default();
    // What had come up, and how much had been told when it was asked.
    let seen: Arc<Mutex<(Vec<At>, Option<usize>)>> = Arc::default();
    let (noted, asks, interrupt, heard) = (seen.clone(), asks.to_vec(), trial.interrupt.clone(), trial.heard.clone());
    let pass: Arc<dyn Fn(At) + Send + Sync> = Arc::new(move |now| {
        let mut seen = noted.lock().unwrap();
        seen.0.push(now);
        for _ in asks.iter().filter(|at| **at == now) {
            seen.1.get_or_insert_with(|| heard.lock().unwrap().len());
            interrupt.ask();
        }
    });
    let (call, write) = (pass.clone(), pass);
    let bench = base.fork();
    let disk = bench.disk().clone().watched(move |n| write(At::Write(n)));
    let bench = bench.on(disk);
    let trial = Trial { faults: Arc::new(Faults::watched(move |n| call(At::Call(n)))), ..trial };
    let report = run(&bench, sample, verb, &trial).unwrap();
    let operations = bench.disk().operations();
    let (mut passed, told) = std::mem::take(&mut *seen.lock().unwrap());
    passed.retain(|at| match at {
        At::Call(_) => true,
        At::Write(n) => matches!(operations[*n].verb, DiskVerb::Write | DiskVerb::Flush),
    });
    let heard = trial.heard.lock().unwrap();
    let after = &heard[told.unwrap_or(heard.len())..];
    let late = after.iter().filter(|event| matches!(event, Progress::Started { .. })).count();
    Asked { bench: bench.crashed(Crash::Process), report, passed, late }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    Call(usize),
    Write(usize),
}

/// A program that is to be run, what stands before, and what an undisturbed run comes to.
struct Course<'a> {
    base: Bench,
    program: &'a Sample,
    verb: Verb,
    undisturbed: Bench,
    /// Every call to a provider, and every write and flush of the disk, of an undisturbed run.
    moments: Vec<At>,
}

impl Course<'_> {
    fn new<'a>(before: Option<&Sample>, program: &'a Sample, verb: Verb) -> Course<'a> {
        let base = Bench::new();
        if let Some(before) = before {
            run_whole(&base, before, Verb::Up, "before");
            base.world().clear_log();
        }
        let Asked { bench, report, passed, .. } = asked_at(&base, program, verb, &[]);
        assert!(report.complete(), "{report:#?}");
        Course { base, program, verb, undisturbed: bench, moments: passed }
    }

    fn asked_at(&self, asks: &[At]) -> Asked {
        asked_at(&self.base, self.program, self.verb, asks)
    }

    /// Nothing new was started, the next run is whole, nothing is made or deleted twice, and a second plan is empty.
    fn goes_on(&self, asked: &Asked, story: &str) {
        let Asked { bench, report, late, .. } = asked;
        assert!(report.failed.is_empty(), "{story}: to be interrupted is no failure: {report:#?}");
        assert_eq!(*late, 0, "{story}: something new was started");
        run_whole(bench, self.program, self.verb, story);
        assert_eq!(world(bench), world(&self.undisturbed), "{story}");
        assert_eq!(deeds(bench), deeds(&self.undisturbed), "{story}: twice, or not at all");
        settled(bench, self.program, self.verb, story);
    }
}

/// An `up` from nothing, one of the program after a person worked on it, and a `destroy`.
fn courses<'a>(sample: &'a Sample, changed: &'a Sample) -> [Course<'a>; 3] {
    [
        Course::new(None, sample, Verb::Up),
        Course::new(Some(sample), changed, Verb::Up),
        Course::new(Some(sample), sample, Verb::Destroy),
    ]
}

#[test]
fn asked_once_or_twice_at_any_call_or_write_the_next_run_comes_to_the_same_end() {
    let mut points = 0;
    for seed in 720..720 + seeds(1) {
        let sample = Sample::random(seed);
        let changed = sample.changed(seed);
        for course in courses(&sample, &changed) {
            for at in &course.moments {
                for asks in 1..=2 {
                    let asked = course.asked_at(&vec![*at; asks]);
                    let Course { verb, program, .. } = &course;
                    let story = format!("{verb} {seed}, asked {asks} times at {at:?}: {program:?}");
                    course.goes_on(&asked, &story);
                    points += 1;
                }
            }
        }
    }
    assert!(points > 60, "{points} points show little");
    println!("{points} points");
}

/// Every pair of moments would be too many: the first are spread, the second are all that still come. Calls take no time
/// here; where they do, and are abandoned, it is `simulation::exhaustive::a_run_that_is_asked_to_stop_…`.
#[test]
fn asked_again_at_any_later_call_or_write_the_next_run_comes_to_the_same_end() {
    const FIRST: usize = 12;
    let mut pairs = 0;
    for seed in 720..720 + seeds(2) {
        let sample = Sample::random(seed);
        let changed = sample.changed(seed);
        for course in courses(&sample, &changed) {
            for first in course.moments.iter().step_by(course.moments.len().div_ceil(FIRST).max(1)) {
                let once = course.asked_at(&[*first]);
                let still = once.passed.iter().skip_while(|at| *at != first).skip(1);
                for second in still {
                    let asked = course.asked_at(&[*first, *second]);
                    let Course { verb, program, .. } = &course;
                    let story = format!("{verb} {seed}, asked at {first:?} and at {second:?}: {program:?}");
                    assert!(asked.passed.contains(second), "{story}: it never came to the second");
                    course.goes_on(&asked, &story);
                    pairs += 1;
                }
            }
        }
    }
    assert!(pairs > 200, "{pairs} pairs show little");
    println!("{pairs} pairs");
}

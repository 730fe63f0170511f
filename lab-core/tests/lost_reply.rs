//! A lost reply does no harm: the call had its effect, its answer did not arrive, and the same run copes.

mod sample;

use lab_core::execute::{CallFault, Faults};
use lab_core::plan::Verb;
use lab_core::testing::{Bench, Trial};
use sample::{Disturbance, Line, Sample, deeds, disturbances, run, seeds, settled, world};
use std::sync::Arc;

/// Loses the reply of every call of a run in turn. Each time that run itself comes to the end of the undisturbed one.
fn check(story: &str, before: Option<&Sample>, sample: &Sample, verb: Verb, fault: CallFault) {
    let base = Bench::new();
    if let Some(before) = before {
        base.up_whole(|stack| before.declare(stack));
        base.world().clear_log();
    }
    let undisturbed = base.fork();
    sample::run_whole(&undisturbed, sample, verb, story);
    for point in disturbances(&base, sample, verb, &[fault], false) {
        let Disturbance::Call(n, fault) = point else { unreachable!("only calls are disturbed") };
        let bench = base.fork();
        let trial = Trial { faults: Arc::new(Faults::at(n, fault)), ..Trial::default() };
        let report = run(&bench, sample, verb, &trial).unwrap();
        let story = format!("{story}: {fault:?} at call {n}");
        assert!(report.complete(), "{story}: {report:#?}");
        assert_eq!(world(&bench), world(&undisturbed), "{story}");
        assert_eq!(deeds(&bench), deeds(&undisturbed), "{story}: something was made or deleted twice, or not at all");
        settled(&bench, sample, verb, &story);
    }
}

#[test]
fn a_lost_reply_is_looked_for_and_nothing_is_made_twice() {
    for seed in 100..100 + seeds(4) {
        let sample = Sample::random(seed);
        check(&format!("up {seed}: {sample:?}"), None, &sample, Verb::Up, CallFault::LoseReply);
        check(&format!("destroy {seed}: {sample:?}"), Some(&sample), &sample, Verb::Destroy, CallFault::LoseReply);
        let changed = sample.changed(seed);
        check(&format!("change {seed}: {changed:?}"), Some(&sample), &changed, Verb::Up, CallFault::LoseReply);
    }
}

#[test]
fn a_refused_call_is_made_again() {
    for seed in 100..100 + seeds(2) {
        let sample = Sample::random(seed);
        check(&format!("up {seed}: {sample:?}"), None, &sample, Verb::Up, CallFault::Refuse);
        check(&format!("destroy {seed}: {sample:?}"), Some(&sample), &sample, Verb::Destroy, CallFault::Refuse);
    }
}

#[test]
fn a_lost_reply_of_something_that_bears_no_mark_does_not_make_it_somebody_elses() {
    let sample = Sample::of([
        Line { unmarkable: true, ..Line::new("a") },
        Line { unmarkable: true, calls: 2, ..Line::new("b") },
    ]);
    check("unmarkable", None, &sample, Verb::Up, CallFault::LoseReply);
    check("unmarkable, gone", Some(&sample), &sample, Verb::Destroy, CallFault::LoseReply);
}

//! Unreachable is not gone: nothing is taken as absent because nothing answers.

mod sample;

use lab_core::plan::{Action, Seen, Verb};
use lab_core::testing::{Bench, Trial};
use sample::{Line, Sample, run, run_whole, settled, world};

fn program() -> Sample {
    Sample::of([
        Line::new("a"),
        Line::new("b").says_of("a"),
        Line::new("c").on("b"),
        Line { outside: true, ..Line::new("volume").on("b") },
    ])
}

fn applied() -> (Bench, Sample) {
    let (bench, sample) = (Bench::new(), program());
    run_whole(&bench, &sample, Verb::Up, "before");
    bench.world().clear_log();
    (bench, sample)
}

#[test]
fn a_refresh_says_unknown_and_the_state_keeps_everything() {
    let (bench, sample) = applied();
    let state = bench.state();
    bench.world().cut_off("rack", true);
    let seen = bench.refresh(|stack| sample.declare(stack));
    for name in ["a", "b"] {
        let (_, seen) = seen.seen.iter().find(|(urn, _)| urn.name() == name).unwrap();
        assert!(matches!(seen, Seen::Unknown(why) if why.contains("does not answer")), "{name}: {seen:?}");
    }
    assert_eq!(bench.state().records, state.records);
    let plan = bench.plan(|stack| sample.declare(stack), Verb::Up, &seen, &[]);
    assert!(plan.is_empty(), "{}", lab_core::plan::text(&plan));
}

#[test]
fn a_change_fails_without_making_anything_anew_and_goes_on_later() {
    let (bench, mut sample) = applied();
    bench.world().cut_off("rack", true);
    sample.line("a").text = sample::Says::Plain("changed".into());
    for _ in 0..2 {
        let report = run(&bench, &sample, Verb::Up, &Trial { refresh: true, ..Trial::default() }).unwrap();
        let failure = &report.failed[0];
        assert!(failure.error.contains("does not answer"), "{failure:?}");
        assert!(failure.hint.as_deref().is_some_and(|hint| hint.contains("reachable")), "{failure:?}");
        assert_eq!(bench.world().log(), Vec::<String>::new());
        assert_eq!(bench.state().records.len(), sample.lines.len());
    }
    bench.world().cut_off("rack", false);
    run_whole(&bench, &sample, Verb::Up, "reachable again");
    settled(&bench, &sample, Verb::Up, "reachable again");
}

#[test]
fn a_destroy_takes_nothing_for_deleted_that_does_not_answer() {
    let (bench, sample) = applied();
    bench.world().cut_off("rack", true);
    let report = bench.destroy(|stack| sample.declare(stack));
    assert!(!report.complete());
    let names: Vec<String> = bench.state().records.keys().map(|urn| urn.name().to_owned()).collect();
    assert!(names.contains(&"a".to_owned()) && names.contains(&"b".to_owned()), "{names:?}");
    bench.world().cut_off("rack", false);
    run_whole(&bench, &sample, Verb::Destroy, "reachable again");
    assert_eq!(bench.world().count(), 0);
    settled(&bench, &sample, Verb::Destroy, "reachable again");
}

#[test]
fn only_what_may_be_left_behind_is_left_behind() {
    let (bench, sample) = applied();
    let room = bench.world().items().into_iter().find(|(_, name, _)| name == "c").unwrap().0;
    bench.world().cut_off(&room, true);
    let plan = bench.plan(|stack| sample.declare(stack), Verb::Destroy, &Default::default(), &[]);
    let may: Vec<&str> = plan
        .steps
        .iter()
        .filter(|step| matches!(step.action, Action::Delete { may_leave: true, .. }))
        .map(|step| step.urn.name())
        .collect();
    assert_eq!(may, ["volume"]);
    let report = bench.destroy(|stack| sample.declare(stack));
    assert!(report.complete(), "what contains it goes all the same: {report:#?}");
    let state = bench.state();
    assert!(state.records.is_empty(), "{:#?}", state.records);
    let left: Vec<_> = state.condemned.values().map(|left| (left.urn.name(), left.left_behind)).collect();
    assert_eq!(left, [("volume", true)]);
    // It is listed at every run.
    let again = bench.plan(|stack| sample.declare(stack), Verb::Destroy, &Default::default(), &[]);
    assert!(again.steps.is_empty());
    assert!(
        again.warnings.iter().any(|warning| warning.contains("volume") && warning.contains("left behind")),
        "{:?}",
        again.warnings
    );
}

#[test]
fn what_has_no_effects_outside_is_not_left_behind_by_a_removed_line() {
    let (bench, sample) = applied();
    let room = bench.world().items().into_iter().find(|(_, name, _)| name == "c").unwrap().0;
    bench.world().cut_off(&room, true);
    let mut without = sample.clone();
    without.remove("c");
    without.remove("volume");
    let report = run(&bench, &without, Verb::Up, &Trial::default()).unwrap();
    assert_eq!(report.failed.len(), 2, "both have to be deleted by call: {report:#?}");
    assert_eq!(bench.state().records.len(), 4);
    assert!(bench.state().condemned.is_empty());
    bench.world().cut_off(&room, false);
    run_whole(&bench, &without, Verb::Up, "reachable again");
    settled(&bench, &without, Verb::Up, "reachable again");
}

#[test]
fn an_unfinished_creation_that_does_not_answer_stays_open() {
    let (bench, sample) = (Bench::new(), Sample::of([Line { calls: 3, ..Line::new("a") }]));
    let faults = std::sync::Arc::new(lab_core::execute::Faults::at(2, lab_core::execute::CallFault::StopAfter));
    let _ = run(&bench, &sample, Verb::Up, &Trial { faults, ..Trial::default() });
    assert_eq!(bench.state().open().count(), 1);
    bench.world().cut_off("rack", true);
    for verb in [Verb::Up, Verb::Destroy] {
        let report = run(&bench.fork(), &sample, verb, &Trial::default()).unwrap();
        assert!(report.failed.iter().all(|failure| failure.open || verb == Verb::Destroy), "{report:#?}");
        assert!(!report.complete());
    }
    let report = run(&bench, &sample, Verb::Up, &Trial::default()).unwrap();
    assert!(!report.complete());
    assert_eq!(bench.state().open().count(), 1);
    bench.world().cut_off("rack", false);
    run_whole(&bench, &sample, Verb::Up, "reachable again");
    assert_eq!(world(&bench).len(), 1);
    assert_eq!(bench.world().log(), ["create rack/a"]);
}

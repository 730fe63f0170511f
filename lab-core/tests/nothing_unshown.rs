//! Nothing is deleted that the shown plan did not delete; nothing is done that it did not show.

mod sample;

use lab_core::execute::{CallFault, Progress};
use lab_core::plan::{Action, Observations, Plan, Verb};
use lab_core::testing::{Bench, Memory, Thing, Trial};
use lab_core::{Mark, ProgramError, Stack, State};
use sample::{Dice, Disturbance, Line, Sample, disturbances, plain, run, run_whole, seeds};
use std::collections::BTreeSet;

/// Runs `sample` on the bench and compares what was called with the plan that was shown before.
fn check(bench: &Bench, sample: &Sample, verb: Verb, story: &str) {
    let plan = bench.plan(|stack| sample.declare(stack), verb, &Observations::default(), &[]);
    let state = bench.state();
    bench.world().clear_log();
    let before: BTreeSet<String> =
        bench.world().items().iter().map(|(place, name, _)| format!("{place}/{name}")).collect();
    let trial = Trial::default();
    let heard = trial.heard.clone();
    let Ok(report) = run(bench, sample, verb, &trial) else { return };
    let allowed = deletable(&plan, &state);
    let story = format!("{story}\n{}", lab_core::plan::text(&plan));
    for call in bench.world().log() {
        let (deed, path) = call.split_once(' ').unwrap();
        let name = path.rsplit('/').next().unwrap();
        match deed {
            // What this run itself made may be made room for again only if a step said so, too.
            "delete" => assert!(allowed.contains(name), "{story}: {call}, which the plan did not show"),
            "update" => assert!(shows(&plan, name, false), "{story}: {call}, which the plan did not show"),
            "create" => assert!(shows(&plan, name, true), "{story}: {call}, which the plan did not show"),
            other => panic!("{other} is no deed"),
        }
    }
    // What went without a call lay in something whose deletion was shown.
    let after: BTreeSet<String> =
        bench.world().items().iter().map(|(place, name, _)| format!("{place}/{name}")).collect();
    for path in before.difference(&after) {
        let shown = path.split('/').map(|part| part.split('#').next().unwrap()).any(|part| allowed.contains(part));
        assert!(shown, "{story}: {path} is gone");
    }
    let shown: BTreeSet<_> = plan.steps.iter().map(|step| step.urn.clone()).collect();
    for progress in heard.lock().unwrap().iter() {
        if let Progress::Started { urn, .. } = progress {
            assert!(shown.contains(urn), "{story}: {urn} was begun");
        }
    }
    assert_eq!(
        report.done.len() + report.failed.len() + report.not_started.len(),
        plan.steps.len(),
        "{story}: {report:#?}"
    );
}

/// The names of all things that the plan deletes: by a step, or as the first half of what it says may be a replacement.
fn deletable(plan: &Plan, state: &State) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for step in &plan.steps {
        let deletes = match step.action {
            Action::Delete { .. } => true,
            Action::Update | Action::Continue { .. } => step.permits.replace,
            _ => false,
        };
        let Some(mark) = step.mark.as_ref().filter(|_| deletes) else { continue };
        names.extend(names_of(state, mark));
    }
    names
}

fn names_of(state: &State, mark: &Mark) -> Vec<String> {
    let condemned = state.condemned.values().map(|condemned| &condemned.record);
    let records = state.records.values().map(|record| &**record).chain(condemned).filter(|record| record.mark == *mark);
    records
        .flat_map(|record| {
            let begun = record
                .open
                .as_deref()
                .and_then(|open| open.begun.id.clone().or(open.before.as_ref()?.begun.id.clone()));
            let name = record.spec.inputs.value()["name"].as_str().unwrap().to_owned();
            let marked = format!("{name}-{mark}");
            record.id.clone().into_iter().chain(begun).map(|id| id.0).chain([name, marked])
        })
        .collect()
}

fn shows(plan: &Plan, name: &str, creates: bool) -> bool {
    plan.steps.iter().any(|step| {
        let of_it = step.spec.as_ref().is_some_and(|spec| spec.inputs.value()["name"] == plain(name).as_str());
        of_it
            && match step.action {
                Action::Create | Action::Supersede | Action::Continue { .. } => true,
                Action::Update | Action::Renew => !creates || step.permits.replace,
                _ => false,
            }
    })
}

#[test]
fn over_random_programs_and_changes_only_what_was_shown_is_done() {
    for seed in 500..500 + seeds(25) {
        let bench = Bench::new();
        let mut sample = Sample::random(seed);
        for round in 0..4 {
            check(&bench, &sample, Verb::Up, &format!("seed {seed} round {round}"));
            sample = sample.changed(seed * 10 + round);
        }
        check(&bench, &sample, Verb::Destroy, &format!("seed {seed}"));
    }
}

#[test]
fn over_random_states_that_crashes_left_only_what_was_shown_is_done() {
    for seed in 530..530 + seeds(4) {
        let (before, dice) = (Sample::random(seed), &mut Dice::new(seed));
        let sample = before.changed(seed);
        let after = sample.changed(seed + 7);
        let base = Bench::new();
        run_whole(&base, &before, Verb::Up, "before");
        let points = disturbances(&base, &sample, Verb::Up, &[CallFault::StopBefore, CallFault::StopAfter], true);
        for point in points.into_iter().filter(|_| dice.one_in(3)) {
            for (sample, verb) in
                [(&sample, Verb::Up), (&after, Verb::Up), (&before, Verb::Up), (&before, Verb::Destroy)]
            {
                let bench = Disturbance::run(point, &base, &after, Verb::Up);
                check(&bench, sample, verb, &format!("seed {seed}: {point:?}"));
            }
        }
    }
}

/// An update was begun and cut off, and what it waits for turns it into a replacement on the next run. `continue` was
/// shown, nothing else: once it simply went on, with inputs that cannot be changed in place. That it may be replaced is
/// shown, and then it is.
#[test]
fn a_change_that_goes_on_is_no_replacement_in_disguise() {
    let program = |text: &str, stand: &str| {
        let mut b = Line::new("b").says(text);
        b.stand = sample::Says::Of("a".into());
        Sample::of([Line::new("a").says(stand), b])
    };
    let base = Bench::new();
    run_whole(&base, &program("one", "here"), Verb::Up, "before");
    let mut met = 0;
    for point in disturbances(&base, &program("two", "here"), Verb::Up, &[CallFault::StopAfter], false) {
        let bench = point.run(&base, &program("two", "here"), Verb::Up);
        let open = bench.state().open().count();
        bench.world().clear_log();
        let sample = program("two", "there");
        check(&bench, &sample, Verb::Up, &format!("{point:?}"));
        let b = bench.world().items().into_iter().find(|(_, name, _)| name == "b").unwrap().2;
        let moved_in_place = b.value["stand"] == "there" && !bench.world().log().contains(&"delete rack/b".to_owned());
        assert!(!moved_in_place, "{point:?}: it was moved, which a thing cannot be: {:?}", bench.world().log());
        met += open;
        // Planned again, it is shown as what it is, and done.
        let _ = run(&bench, &sample, Verb::Up, &Trial::default());
        sample::settled(&bench, &sample, Verb::Up, &format!("{point:?}"));
    }
    assert!(met > 0, "no update was cut off");
}

#[test]
fn what_is_retained_stays_when_its_line_goes_and_when_everything_is_destroyed() {
    for verb in [Verb::Up, Verb::Destroy] {
        let program = |lines: bool| {
            move |stack: &Stack| -> Result<(), ProgramError> {
                let rack = stack.provider("rack", Memory::at("rack"));
                if lines {
                    rack.resource("kept").retain().add(Thing::new("kept", "x"));
                    rack.resource("gone").add(Thing::new("gone", "x"));
                }
                Ok(())
            }
        };
        let bench = Bench::new();
        bench.up_whole(program(true));
        bench.world().clear_log();
        let report =
            bench.attempt(program(verb == Verb::Destroy), verb, &Trial::default()).expect("a plan to carry out");
        assert!(report.complete(), "{report:#?}");
        assert_eq!(bench.world().log(), ["delete rack/gone"]);
        assert!(bench.world().get("rack", "kept").is_some());
        assert!(bench.state().records.is_empty(), "it is nobody's from now on");
    }
}

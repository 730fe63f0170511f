//! Providers misbehave: they hang, lie, panic, contradict themselves, answer too late or with what no file can hold.
//! Each time the outcome is a stated one: the step fails and names the resource, the rest goes on, the state keeps the
//! truth, and the next run comes to the declared world.

mod yard;

use lab_core::execute::disk::Crash;
use lab_core::execute::{Faults, Report};
use lab_core::plan::{Action, Verb};
use lab_core::testing::{Bench, Trial};
use lab_core::*;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use yard::{Ask, Odd, Shop, Turn, Upset, Yard, failures, problem, problems, settled, steps, yard};

/// `it` at a place of its own, and what must not suffer from it: `other` elsewhere, `beside` at the same place.
fn program(it: &Odd) -> impl Fn(&Stack) -> Result<(), ProgramError> + Send + 'static + use<> {
    let it = it.clone();
    move |stack: &Stack| {
        let far = stack.provider("far", Shop::at("far"));
        let made = far.resource("it").timeout(Duration::from_secs(60)).add(it.clone());
        let shop = stack.provider("shop", Shop::at("shop"));
        shop.resource("other").add(Odd::new("other", "x"));
        shop.resource("after").add(Odd::new("after", made.output(|it| it.say)));
        Ok(())
    }
}

fn it(say: &str) -> Odd {
    Odd::new("it", say)
}

/// Runs `program` as far as it comes. Fails instead of waiting for ever: what has no deadline never ends.
fn run<T: serde::Serialize>(
    bench: &Bench,
    program: impl Fn(&Stack) -> Result<T, ProgramError> + Send + 'static,
    verb: Verb,
    trial: Trial,
) -> Report {
    let (ended, end) = mpsc::channel();
    let bench = bench.clone();
    // Nobody listens any more to one that comes too late.
    std::thread::spawn(move || ended.send(bench.attempt(program, verb, &trial)).ok());
    match end.recv_timeout(Duration::from_secs(60)) {
        Ok(report) => report.expect("it is started"),
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the run waits for ever"),
        Err(mpsc::RecvTimeoutError::Disconnected) => panic!("the run took the whole process along"),
    }
}

fn up(bench: &Bench, it: &Odd) -> Report {
    run(bench, program(it), Verb::Up, Trial::default())
}

/// The names of the steps that were done.
fn done(report: &Report) -> Vec<&str> {
    report.done.iter().map(|urn| urn.name()).collect()
}

/// The next run comes to the declared world, and everything was made once.
fn recovers(bench: &Bench, yard: &Yard, it: &Odd, made: &[&str]) {
    let report = up(bench, it);
    assert!(report.complete(), "{report:#?}");
    let mut log: Vec<String> = yard.log().into_iter().filter(|call| call.starts_with("create")).collect();
    log.sort();
    assert_eq!(log, made);
    let say = it.say.known().unwrap();
    assert_eq!(yard.things(), [format!("far/it={say}"), format!("shop/after={say}"), "shop/other=x".into()]);
    settled(bench, &program(it));
}

const ALL: [&str; 3] = ["create far/it", "create shop/after", "create shop/other"];

#[test]
fn what_hangs_is_given_up_at_its_deadline_and_named() {
    for (verb, upset) in [("apply", Upset::Hang), ("find", Upset::Hang), ("apply", Upset::Late)] {
        let (bench, yard) = yard();
        yard.upset(verb, "it", upset);
        let report = up(&bench, &it("x"));
        assert_eq!(
            failures(&report),
            ["create it: there was no answer before the deadline (tried for 60 s)"],
            "{verb} {upset:?}"
        );
        assert_eq!(done(&report), ["other"], "the rest goes on");
        assert_eq!(report.not_started.len(), 1, "what needs it waits for the next run");
        recovers(&bench, &yard, &it("x"), &ALL);
    }
}

#[test]
fn a_deletion_that_hangs_is_given_up_at_its_deadline_and_finished_by_the_next_run() {
    for upset in [Upset::Hang, Upset::Late, Upset::Never] {
        let (bench, yard) = yard();
        assert!(up(&bench, &it("x")).complete());
        yard.upset("delete", "it", upset);
        let report = run(&bench, program(&it("x")), Verb::Destroy, Trial::default());
        assert_eq!(report.failed.len(), 1, "{upset:?}: {report:#?}");
        assert!(report.failed[0].urn.name() == "it" && report.failed[0].open, "{upset:?}: {report:#?}");
        assert_eq!(bench.state().records.len(), 1, "{upset:?}: nothing is taken for deleted that was not");
        let report = run(&bench, program(&it("x")), Verb::Destroy, Trial::default());
        assert!(report.complete(), "{upset:?}: {report:#?}");
        assert_eq!(yard.things(), [""; 0], "{upset:?}");
        assert!(bench.state().records.is_empty());
    }
}

/// The deadline of a read or a gate was that of its answer only: a connection that was never made was waited for by
/// nobody's clock, and ^C did not reach it either.
#[test]
fn a_connection_that_hangs_is_given_up_at_the_deadline_of_who_needs_it() {
    let (bench, yard) = yard();
    yard.upset("connect", "far", Upset::Hang);
    let report = up(&bench, &it("x"));
    assert_eq!(failures(&report), ["create it: there was no connection before the deadline (tried for 60 s)"]);
    assert_eq!(done(&report), ["other"]);
    recovers(&bench, &yard, &it("x"), &ALL);

    let asks = |stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        let name = shop.resource("other").add(Odd::new("other", "x"));
        let far = stack.provider("far", Shop::at("far"));
        far.read("theirs", Ask { expect: Some(name.output(|other| other.say).into()), ..Ask::of("theirs") });
        Ok(())
    };
    let (bench, yard) = yard::yard();
    yard.plant("far", "theirs", serde_json::json!({ "say": "x" }));
    yard.upset("connect", "far", Upset::Hang);
    let report = run(&bench, asks, Verb::Up, Trial::default());
    assert_eq!(report.failed.len(), 1, "{report:#?}");
    assert_eq!(report.failed[0].urn.name(), "theirs");
    assert!(report.failed[0].error.contains("no connection"), "{report:#?}");
    assert_eq!(done(&report), ["other"]);
    assert!(run(&bench, asks, Verb::Up, Trial::default()).complete());
}

#[test]
fn a_connection_that_hangs_is_abandoned_by_the_second_interrupt() {
    for reads in [false, true] {
        let asks = move |stack: &Stack| {
            let far = stack.provider("far", Shop::at("far"));
            let shop = stack.provider("shop", Shop::at("shop"));
            let other = shop.resource("other").add(Odd::new("other", "x"));
            if reads {
                far.read("theirs", Ask { expect: Some(other.output(|other| other.say).into()), ..Ask::of("theirs") });
            } else {
                far.resource("it").add(Odd::new("it", other.output(|other| other.say)));
            }
            Ok(())
        };
        let (bench, yard) = yard();
        yard.upset("connect", "far", Upset::Hang);
        let trial = Trial::default();
        let interrupt = trial.interrupt.clone();
        yard.when_hanging(move || (0..2).for_each(|_| interrupt.ask()));
        let report = run(&bench, asks, Verb::Up, trial);
        assert!(report.interrupted && report.failed.is_empty(), "{report:#?}");
        assert_eq!((done(&report), report.left.len()), (vec!["other"], 1), "{report:#?}");
        assert_eq!(yard.log(), ["create shop/other"]);
    }
}

#[test]
fn a_read_that_hangs_is_given_up_at_its_deadline_and_named() {
    let (bench, yard) = yard();
    yard.plant("far", "theirs", serde_json::json!({ "say": "x" }));
    let asks = |stack: &Stack| {
        stack.provider("far", Shop::at("far")).read("theirs", Ask::of("theirs"));
        stack.provider("shop", Shop::at("shop")).resource("other").add(Odd::new("other", "x"));
        Ok(())
    };
    // Once while the plan is made, once when it is carried out.
    yard.upset("ask", "theirs", Upset::Hang);
    yard.upset("ask", "theirs", Upset::Hang);
    let report = run(&bench, asks, Verb::Up, Trial::default());
    assert_eq!(report.failed.len(), 1, "{report:#?}");
    assert_eq!(report.failed[0].urn.name(), "theirs");
    assert_eq!(done(&report), ["other"]);
    assert!(run(&bench, asks, Verb::Up, Trial::default()).complete());
}

#[test]
fn a_pause_without_end_is_a_step_that_took_too_long() {
    let (bench, yard) = yard();
    yard.upset("apply", "it", Upset::Never);
    let report = up(&bench, &it("x"));
    assert_eq!(failures(&report), ["create it: it took longer than 60 s: it takes for ever"]);
    assert_eq!(done(&report), ["other"]);
    recovers(&bench, &yard, &it("x"), &ALL);
}

#[test]
fn what_was_said_to_be_created_and_is_not_there_fails_by_name_and_is_created_by_the_next_run() {
    let (bench, yard) = yard();
    yard.upset("apply", "it", Upset::Lie);
    assert!(up(&bench, &it("x")).complete(), "nobody can know");
    assert_eq!(yard.things(), ["shop/after=x", "shop/other=x"]);
    // The next change finds out.
    let report = up(&bench, &it("y"));
    assert_eq!(failures(&report), ["update it: it is gone, and nothing of ours deleted it; nothing was changed"]);
    assert_eq!(report.failed[0].urn.name(), "it");
    recovers(&bench, &yard, &it("y"), &ALL);
    // So does a look.
    let (bench, yard) = yard::yard();
    yard.upset("apply", "it", Upset::Lie);
    assert!(up(&bench, &it("x")).complete());
    bench.refresh(program(&it("x")));
    recovers(&bench, &yard, &it("x"), &ALL);
}

/// Its record was dropped, as nothing had been made; the next run met what had, and took it for somebody else's.
#[test]
fn what_fails_as_if_it_had_done_nothing_and_was_made_is_found_by_the_next_run() {
    let (bench, yard) = yard();
    yard.upset("apply", "it", Upset::Deny(Class::Invalid));
    let report = up(&bench, &it("x"));
    assert_eq!(failures(&report), ["create it: it was upset"]);
    assert!(report.failed[0].open, "{report:#?}");
    recovers(&bench, &yard, &it("x"), &ALL);
}

#[test]
fn what_was_said_to_be_gone_and_is_still_there_is_not_taken_for_ours_again() {
    let (bench, yard) = yard();
    assert!(up(&bench, &it("x")).complete());
    yard.upset("delete", "it", Upset::Lie);
    let report = run(&bench, program(&it("x")), Verb::Destroy, Trial::default());
    assert!(report.complete(), "nobody can know");
    assert_eq!(yard.things(), ["far/it=x"]);
    let report = up(&bench, &it("y"));
    assert_eq!(report.failed.len(), 1, "{report:#?}");
    assert!(report.failed[0].error.contains("exists already and is not ours"), "{report:#?}");
    assert!(report.failed[0].hint.as_deref().unwrap().contains("import"), "{report:#?}");
    assert_eq!(yard.things(), ["far/it=x", "shop/other=x"], "it was not touched");
}

#[test]
fn a_change_that_was_said_to_be_made_and_was_not_is_seen_by_the_next_look() {
    let (bench, yard) = yard();
    assert!(up(&bench, &it("x")).complete());
    yard.upset("apply", "it", Upset::Lie);
    assert!(up(&bench, &it("y")).complete());
    assert_eq!(yard.things()[0], "far/it=x");
    let trial = Trial { refresh: true, ..Trial::default() };
    assert!(run(&bench, program(&it("y")), Verb::Up, trial).complete());
    assert_eq!(yard.things(), ["far/it=y", "shop/after=y", "shop/other=x"]);
    settled(&bench, &program(&it("y")));
}

#[test]
fn an_answer_that_no_file_can_hold_fails_its_step_and_nothing_else() {
    let (bench, yard) = yard();
    yard.upset("apply", "it", Upset::Deep);
    let report = up(&bench, &it("x"));
    assert_eq!(report.failed.len(), 1, "{report:#?}");
    assert_eq!(report.failed[0].urn.name(), "it");
    assert!(report.failed[0].open, "it was made");
    assert!(report.failed[0].error.contains("odd:thing answered with what cannot be stored"), "{report:#?}");
    assert_eq!(done(&report), ["other"], "the rest goes on, and is recorded");
    assert_eq!(bench.state().records.len(), 2);
    recovers(&bench, &yard, &it("x"), &ALL);
}

#[test]
fn a_call_that_panics_fails_its_step_and_the_rest_goes_on() {
    for (verb, name, upset) in [
        ("find", "it", Upset::Panic),
        ("find", "it", Upset::PanicAfter),
        ("apply", "it", Upset::Panic),
        ("apply", "it", Upset::PanicAfter),
        ("connect", "far", Upset::Panic),
    ] {
        let (bench, yard) = yard();
        if (verb, upset) == ("find", Upset::PanicAfter) {
            // Something has to be there for a look to find.
            assert!(up(&bench, &it("a")).complete());
        }
        yard.upset(verb, name, upset);
        let report = up(&bench, &it("x"));
        assert_eq!(report.failed.len(), 1, "{verb} {upset:?}: {report:#?}");
        let failure = &report.failed[0];
        assert!(failure.urn.name() == "it" && failure.error.contains("panicked"), "{verb} {upset:?}: {report:#?}");
        assert!(bench.state().records.keys().any(|urn| urn.name() == "other"), "{verb} {upset:?}: the rest goes on");
        recovers(&bench, &yard, &it("x"), &ALL);
    }
    let (bench, yard) = yard();
    assert!(up(&bench, &it("x")).complete());
    yard.upset("delete", "it", Upset::Panic);
    let report = run(&bench, program(&it("x")), Verb::Destroy, Trial::default());
    assert_eq!(failures(&report), ["delete it: the provider panicked: upset"]);
    assert_eq!(yard.things(), ["far/it=x"], "the rest goes on");
    assert!(run(&bench, program(&it("x")), Verb::Destroy, Trial::default()).complete());
}

/// A panic while the world was looked at took the process along when it was a read's, and was passed over in silence
/// when it was a resource's: the plan said nothing was wrong.
#[test]
fn a_panic_while_looking_is_something_that_nothing_is_known_of() {
    let (bench, yard) = yard();
    yard.plant("far", "theirs", serde_json::json!({ "say": "x" }));
    let asks = |stack: &Stack| {
        let far = stack.provider("far", Shop::at("far"));
        far.read("theirs", Ask::of("theirs"));
        far.resource("it").add(Odd::new("it", "x"));
        Ok(())
    };
    yard.upset("ask", "theirs", Upset::Panic);
    assert!(run(&bench, asks, Verb::Up, Trial::default()).complete(), "it is asked again when it is carried out");
    yard.upset("find", "it", Upset::Panic);
    yard.upset("ask", "theirs", Upset::Panic);
    let seen = bench.refresh(asks);
    let (urn, seen) = seen.seen.iter().next().expect("what was looked at is told");
    assert_eq!(urn.name(), "it");
    assert!(
        matches!(seen, lab_core::plan::Seen::Unknown(why) if why.contains("panicked")),
        "nothing is known of it: {seen:?}"
    );
    settled(&bench, asks);
}

#[test]
fn a_type_that_panics_while_the_plan_is_made_is_a_problem_of_the_plan_by_name() {
    for function in ["id", "claims", "outside", "creation"] {
        let (bench, _) = yard();
        let broken = Odd { breaks: Some(function.into()), ..it("x") };
        let told = problems(&bench.preview(program(&broken)));
        assert!(
            told.iter().any(|problem| problem.contains("odd:thing's") && problem.contains("panicked: upset")),
            "{function}: {told:?}"
        );
    }
    let (bench, _) = yard();
    assert!(up(&bench, &it("x")).complete());
    let told = problem(&bench, program(&Odd { breaks: Some("change".into()), ..it("y") }));
    assert!(told.contains("odd:thing's `change` panicked: upset"), "{told}");
}

/// A lock whose name could not be told was not taken, and two that must not be worked on together were.
#[test]
fn a_step_whose_locks_cannot_be_told_is_not_started_without_them() {
    let (bench, yard) = yard();
    let broken = Odd { breaks: Some("locks".into()), ..it("x") };
    let report = up(&bench, &broken);
    assert_eq!(failures(&report), ["create it: odd:thing's `locks` panicked: upset"]);
    assert_eq!(done(&report), ["other"]);
    recovers(&bench, &yard, &it("x"), &ALL);
}

/// What would be lost could not be told, and was therefore not asked about.
#[test]
fn what_cannot_say_what_its_removal_destroys_is_taken_to_destroy_something() {
    let (bench, _) = yard();
    let broken = Odd { breaks: Some("removal".into()), holds: Some("a film".into()), ..it("x") };
    assert!(up(&bench, &broken).complete());
    let plan = bench.plan(program(&broken), Verb::Destroy, &Default::default(), &[]);
    let step = plan.steps.iter().find(|step| step.urn.name() == "it").unwrap();
    assert!(matches!(step.action, Action::Delete { .. }));
    let destroys = step.destroys.as_deref().expect("consent is asked for");
    assert!(destroys.contains("`removal` panicked: upset"), "{destroys}");
}

/// A reply that comes after its deadline: the call was dropped here, and had its effect there, at any later moment.
#[test]
fn an_effect_that_comes_after_the_deadline_is_found_by_the_next_run() {
    for natural in [true, false] {
        let thing = || Odd { natural, ..it("x") };
        let (bench, yard) = yard();
        yard.upset("apply", "it", Upset::Late);
        assert!(up(&bench, &thing()).failed[0].open);
        assert_eq!(yard.things(), ["shop/other=x"], "not yet");
        yard.happen();
        let report = up(&bench, &thing());
        assert!(report.complete(), "{report:#?}");
        assert_eq!(yard.log(), ["create shop/other", "create far/it", "create shop/after"], "made once");
        settled(&bench, &program(&thing()));
    }
}

/// The late call arrives between the look of the next run and its call.
#[test]
fn a_late_call_that_overtakes_the_next_run_makes_nothing_twice() {
    for natural in [true, false] {
        for unmarkable in [false, true] {
            let thing = || Odd { natural, unmarkable, ..it("x") };
            let (bench, yard) = yard();
            yard.upset("apply", "it", Upset::Overtaken);
            let report = up(&bench, &thing());
            assert!(report.complete(), "natural {natural}, unmarkable {unmarkable}: {report:#?}");
            let made = yard.log().iter().filter(|call| *call == "create far/it").count();
            assert_eq!(made, 1, "natural {natural}, unmarkable {unmarkable}");
            settled(&bench, &program(&thing()));
        }
    }
}

#[test]
fn a_late_change_does_not_enter_the_state_and_is_seen_by_the_next_look() {
    let (bench, yard) = yard();
    assert!(up(&bench, &it("x")).complete());
    yard.upset("apply", "it", Upset::Late);
    let report = up(&bench, &it("y"));
    assert!(report.failed[0].open, "{report:#?}");
    // The person changed their mind, and the next run brought it to that.
    assert!(up(&bench, &it("z")).complete());
    assert_eq!(yard.things()[0], "far/it=z");
    let state = bench.state();
    yard.happen();
    assert_eq!(yard.things()[0], "far/it=y", "somebody else's change, as far as this run is concerned");
    assert_eq!(bench.state(), state, "nothing of it enters the state by itself");
    let trial = Trial { refresh: true, ..Trial::default() };
    let report = run(&bench, program(&it("z")), Verb::Up, trial);
    assert!(report.complete() && done(&report).contains(&"it"), "{report:#?}");
    assert_eq!(yard.things()[0], "far/it=z");
    settled(&bench, &program(&it("z")));
}

#[test]
fn a_late_deletion_takes_what_the_next_run_would_have_deleted() {
    let (bench, yard) = yard();
    assert!(up(&bench, &it("x")).complete());
    yard.log();
    yard.upset("delete", "it", Upset::Late);
    assert!(!run(&bench, program(&it("x")), Verb::Destroy, Trial::default()).complete());
    yard.happen();
    let report = run(&bench, program(&it("x")), Verb::Destroy, Trial::default());
    assert!(report.complete(), "{report:#?}");
    assert_eq!(yard.log().iter().filter(|call| *call == "delete far/it").count(), 1);
    assert!(bench.state().records.is_empty());
}

/// A run of `it` that a person gives up by asking twice while a call is in flight, and the run after.
struct GivenUp {
    /// What stands before.
    before: Option<Odd>,
    it: Odd,
    verb: Verb,
    /// The call of `it` that is in flight.
    call: &'static str,
    /// How often `it` has been made, changed and deleted in the end.
    made: [usize; 3],
}

impl GivenUp {
    fn made(it: Odd) -> GivenUp {
        GivenUp { before: None, it, verb: Verb::Up, call: "apply", made: [1, 0, 0] }
    }

    fn changed(turn: Turn, call: &'static str, made: [usize; 3]) -> GivenUp {
        let odd = |say: &str| Odd { turn, natural: turn == Turn::Update, ..it(say) };
        GivenUp { before: Some(odd("x")), it: odd("y"), verb: Verb::Up, call, made }
    }

    fn destroyed(it: Odd) -> GivenUp {
        GivenUp { before: Some(it.clone()), it, verb: Verb::Destroy, call: "delete", made: [0, 0, 1] }
    }

    /// Runs until the call is in flight and abandons it there. The process is gone then.
    fn abandon(&self) -> (Bench, Arc<Yard>) {
        let (bench, yard) = yard();
        if let Some(before) = &self.before {
            assert!(up(&bench, before).complete());
            yard.log();
        }
        yard.upset(self.call, "it", Upset::Late);
        let trial = Trial::default();
        let interrupt = trial.interrupt.clone();
        yard.when_hanging(move || (0..2).for_each(|_| interrupt.ask()));
        let report = run(&bench, program(&self.it), self.verb, trial);
        assert!(report.interrupted && report.failed.is_empty(), "{report:#?}");
        assert!(report.left.iter().any(|urn| urn.name() == "it"), "{report:#?}");
        assert!(bench.state().open().any(|(urn, ..)| urn.name() == "it"), "what was begun is recorded");
        (bench.crashed(Crash::Process), yard)
    }

    /// Everything was done once, is known, and nothing is left to do.
    fn ended(&self, bench: &Bench, yard: &Yard, report: &Report, story: &str) {
        assert!(report.complete(), "{story}: {report:#?}");
        let log = yard.log();
        let times = |verb: &str| log.iter().filter(|call| **call == format!("{verb} far/it")).count();
        assert_eq!(["create", "update", "delete"].map(times), self.made, "{story}: {log:?}");
        let state = bench.state();
        let mut known: Vec<_> = state.records.values().filter_map(|record| record.id.clone()).collect();
        let mut there: Vec<_> = yard.contents().items.keys().map(|(_, key)| Id(key.clone())).collect();
        known.sort();
        there.sort();
        assert_eq!(there, known, "{story}: what exists is what is known");
        assert!(state.condemned.is_empty() && state.open().next().is_none(), "{story}");
        match self.verb {
            Verb::Destroy => assert!(there.is_empty(), "{story}: {there:?}"),
            _ => {
                let say = self.it.say.known().unwrap();
                let said = |thing: &String| thing.starts_with("far/it") && thing.ends_with(&format!("={say}"));
                assert_eq!(yard.things().iter().filter(|thing| said(thing)).count(), 1, "{story}: {:?}", yard.things());
                settled(bench, &program(&self.it));
            }
        }
    }

    /// Lets the effect come before the next run, and at each of its calls. Returns how many moments that were.
    fn check(&self) -> usize {
        let GivenUp { before, it, verb, call, .. } = self;
        let story = format!("{verb}, {call} abandoned: {before:?} then {it:?}");
        let (bench, yard) = self.abandon();
        yard.happen();
        let report = run(&bench, program(it), *verb, Trial::default());
        self.ended(&bench, &yard, &report, &format!("{story}, the effect comes before the next run"));
        for at in 0.. {
            let (bench, yard) = self.abandon();
            let late = yard.clone();
            let happen = move |now| {
                if now == at {
                    late.happen();
                }
            };
            let trial = Trial { faults: Arc::new(Faults::watched(happen)), ..Trial::default() };
            let faults = trial.faults.clone();
            let report = run(&bench, program(it), *verb, trial);
            self.ended(&bench, &yard, &report, &format!("{story}, the effect comes at call {at} of the next run"));
            if faults.calls() <= at {
                return at + 1;
            }
        }
        unreachable!("a run ends")
    }
}

/// A call that was abandoned by who asked twice has its effect at any later moment.
#[test]
fn an_effect_that_comes_after_its_run_was_abandoned_is_nothing_twice() {
    let mut moments = 0;
    for natural in [true, false] {
        for unmarkable in [false, true] {
            moments += GivenUp::made(Odd { natural, unmarkable, ..it("x") }).check();
        }
        moments += GivenUp::destroyed(Odd { natural, ..it("x") }).check();
    }
    moments += GivenUp::changed(Turn::Update, "apply", [0, 1, 0]).check();
    for turn in [Turn::DeleteFirst, Turn::CreateFirst] {
        for call in ["apply", "delete"] {
            moments += GivenUp::changed(turn, call, [1, 0, 1]).check();
        }
    }
    assert!(moments > 30, "{moments} moments show little");
}

/// The effect has come, and the person wants something else by now.
#[test]
fn what_was_made_after_its_run_was_abandoned_is_what_the_next_program_says() {
    for natural in [true, false] {
        let odd = |say: &str| Odd { natural, ..it(say) };
        let making = GivenUp::made(odd("x"));
        let (bench, yard) = making.abandon();
        yard.happen();
        let report = up(&bench, &odd("y"));
        let next = GivenUp { it: odd("y"), made: [1, 1, 0], ..making };
        next.ended(&bench, &yard, &report, &format!("natural {natural}, changed"));

        let (bench, yard) = GivenUp::made(odd("x")).abandon();
        yard.happen();
        let report = run(&bench, program(&odd("x")), Verb::Destroy, Trial::default());
        let next = GivenUp { verb: Verb::Destroy, made: [1, 0, 1], ..GivenUp::made(odd("x")) };
        next.ended(&bench, &yard, &report, &format!("natural {natural}, destroyed"));
    }
}

#[test]
fn an_output_that_changes_unannounced_is_told_and_the_state_keeps_the_truth() {
    let (bench, yard): (Bench, Arc<Yard>) = yard();
    assert!(up(&bench, &it("x")).complete());
    let mut heard = Vec::new();
    yard.contents().items.iter_mut().for_each(|(_, item)| item.serial += 1000);
    let trial = Trial::default();
    let telling = trial.heard.clone();
    assert!(run(&bench, program(&it("y")), Verb::Up, trial).complete());
    for told in telling.lock().unwrap().iter() {
        if let lab_core::execute::Progress::Warning { urn: Some(urn), message } = told {
            heard.push(format!("{}: {message}", urn.name()));
        }
    }
    assert!(
        heard.iter().any(|told| told.starts_with("it: its output /number changed, which odd:thing did not announce")),
        "{heard:?}"
    );
    let record = bench.state().records.into_iter().find(|(urn, _)| urn.name() == "it").unwrap().1;
    assert_eq!(
        record.outputs.value()["number"],
        serde_json::json!(yard.contents().items[&("far".into(), "it".into())].serial)
    );
    assert_eq!(steps(&bench.preview(program(&it("y")))), [""; 0]);
}

//! Drift: what is declared, what was last applied, what is there.

mod yard;

use lab_core::execute::disk::{Crash, Disk};
use lab_core::execute::{CallFault, Faults};
use lab_core::plan::{Observations, Seen, Verb, drift};
use lab_core::testing::{Bench, Memory, Thing, Trial};
use lab_core::*;
use serde_json::{Value, json};
use std::sync::Arc;
use yard::{Odd, Shop, Yard, problems, settled, steps, yard};

fn program(say: &'static str) -> impl Fn(&Stack) -> Result<(), ProgramError> + Copy {
    move |stack: &Stack| {
        stack.provider("rack", Memory::at("rack")).resource("it").add(Thing::new("it", say));
        Ok(())
    }
}

fn drifted(bench: &Bench, change: impl FnOnce(&mut Value)) {
    bench.world().change("rack", "it", |item| change(&mut item.value));
    bench.world().clear_log();
}

fn refreshing() -> Trial {
    Trial { refresh: true, ..Trial::default() }
}

fn applied() -> Bench {
    let bench = Bench::new();
    bench.up_whole(program("applied"));
    bench
}

fn seen(bench: &Bench) -> Observations {
    bench.clone().on(bench.disk().reopen(lab_core::execute::disk::Crash::Process)).refresh(program("applied"))
}

#[test]
fn what_somebody_else_changed_is_shown_and_put_back() {
    let bench = applied();
    drifted(&bench, |value| value["text"] = "theirs".into());
    assert!(bench.preview(program("applied")).is_empty(), "what was not looked at is not known");
    let plan = bench.plan(program("applied"), Verb::Up, &seen(&bench), &[]);
    insta::assert_snapshot!(yard::shown(&plan), @r#"
      rack
        ~ update memory:thing it
            because /text was changed by somebody else: "applied" is "theirs"
    lab: 1 to update, 0 unchanged.
    "#);
    assert!(bench.attempt(program("applied"), Verb::Up, &refreshing()).unwrap().complete());
    assert_eq!(bench.world().log(), ["update rack/it"]);
    assert_eq!(bench.world().get("rack", "it").unwrap().value["text"], "applied");
}

#[test]
fn all_three_sides_are_told_apart() {
    let bench = applied();
    drifted(&bench, |value| value["text"] = "theirs".into());
    let plan = bench.plan(program("declared"), Verb::Up, &seen(&bench), &[]);
    let step = &plan.steps[0];
    assert_eq!(step.reasons, [r#"/text was changed by somebody else: "applied" is "theirs""#]);
    assert_eq!(step.diff.len(), 1);
    assert_eq!(
        (&step.diff[0].before, &step.diff[0].after),
        (&Some(json!("applied").into()), &Some(json!("declared").into()))
    );
    let bench = applied();
    drifted(&bench, |value| value["text"] = "declared".into());
    assert!(bench.attempt(program("declared"), Verb::Up, &refreshing()).unwrap().complete());
    assert_eq!(bench.world().get("rack", "it").unwrap().value["text"], "declared");
}

#[test]
fn drift_that_cannot_be_undone_in_place_is_a_replacement() {
    let bench = applied();
    drifted(&bench, |value| value["stand"] = "elsewhere".into());
    let plan = bench.plan(program("applied"), Verb::Up, &seen(&bench), &[]);
    assert_eq!(steps(&plan), ["delete it", "create it"]);
}

#[test]
fn what_is_gone_is_made_again_and_what_does_not_answer_is_left_alone() {
    let bench = applied();
    bench.world().take_away("rack", "it");
    assert!(bench.attempt(program("applied"), Verb::Up, &refreshing()).unwrap().complete());
    assert!(bench.world().get("rack", "it").is_some());
    bench.world().clear_log();
    bench.world().cut_off("rack", true);
    let seen = seen(&bench);
    assert!(matches!(seen.seen.values().next(), Some(Seen::Unknown(_))), "{seen:?}");
    assert_eq!(steps(&bench.plan(program("applied"), Verb::Up, &seen, &[])), [""; 0]);
}

#[test]
fn what_bears_its_name_and_is_somebody_elses_is_a_problem() {
    let bench = applied();
    bench.world().take_away("rack", "it");
    bench.world().plant("rack", "it", json!({ "text": "applied", "stand": "here" }));
    let said = problems(&bench.plan(program("applied"), Verb::Up, &seen(&bench), &[]));
    assert_eq!(said, ["it is not ours any more: it bears no mark of ours; import it, or give it another name"]);
}

#[test]
fn a_preview_that_looks_writes_nothing() {
    let bench = applied();
    drifted(&bench, |value| value["text"] = "theirs".into());
    let before = bench.disk().read("lab.journal").unwrap();
    bench.plan(program("applied"), Verb::Up, &seen(&bench), &[]);
    assert_eq!(bench.disk().read("lab.journal").unwrap(), before);
    assert_eq!(bench.world().log(), [""; 0]);
}

#[test]
fn refresh_makes_the_state_say_what_is_there_and_up_still_puts_it_back() {
    let bench = applied();
    drifted(&bench, |value| value["text"] = "theirs".into());
    bench.refresh(program("applied"));
    let record = bench.state().records.values().next().unwrap().clone();
    assert_eq!(record.outputs.value()["text"], "theirs");
    assert_eq!(record.spec.inputs.value()["text"], "applied", "what was applied stays what was applied");
    assert_eq!(steps(&bench.plan(program("applied"), Verb::Up, &seen(&bench), &[])), ["update it"]);
}

fn check(applied: Value, live: Value, expected: &[&str]) {
    let urn = Urn::new("lab", "rack", &[], "memory:thing", "it");
    let found = drift(&urn, None, &applied, &live, &Vault::new([7; 32]));
    assert_eq!(found.iter().map(|drift| drift.path.as_str()).collect::<Vec<_>>(), expected, "{applied} {live}");
}

#[test]
fn what_was_not_read_is_no_drift_and_null_says_that_it_is_not_there() {
    check(json!({ "a": 1, "b": 2 }), json!({ "a": 1 }), &[]);
    check(json!({ "a": 1, "b": 2 }), json!({ "a": 1, "b": null }), &["/b"]);
    check(json!({ "a": { "b": 1, "c": 2 } }), json!({ "a": { "b": 3 }, "more": 1 }), &["/a/b"]);
    check(json!({ "a": [1, { "b": 2 }] }), json!({ "a": [1, { "b": 3 }] }), &["/a/1/b"]);
    check(json!({ "a": [1] }), json!({ "a": [1, 2] }), &["/a"]);
    check(json!({ "a/b": 1 }), json!({ "a/b": 2 }), &["/a~1b"]);
}

#[test]
fn a_provider_that_cannot_be_connected_to_says_nothing_of_what_is_there() {
    let (bench, yard) = yard::yard();
    let program = |stack: &Stack| {
        stack.provider("shop", yard::Shop::at("shop")).resource("it").add(yard::Odd::new("it", "x"));
        Ok(())
    };
    bench.up_whole(program);
    yard.upset("connect", "shop", yard::Upset::Fail(Class::Unreachable));
    let seen = bench.refresh(program);
    assert!(matches!(seen.seen.values().next(), Some(Seen::Unknown(_))), "{seen:?}");
    assert_eq!(steps(&bench.plan(program, Verb::Up, &seen, &[])), [""; 0]);
    assert_eq!(bench.state().records.values().next().unwrap().status, Status::Ready);
}

/// What an earlier look had recorded decided what a change is, though the thing had been put right since.
#[test]
fn what_was_recorded_as_changed_by_somebody_else_is_looked_at_before_it_is_believed() {
    let bench = applied();
    drifted(&bench, |value| value["text"] = "theirs".into());
    bench.refresh(program("applied"));
    let shown = bench.plan(program("applied"), Verb::Up, &Observations::default(), &[]);
    assert_eq!(steps(&shown), ["update it"], "where nothing answers, it is as it was seen last");
    // Put right by hand.
    drifted(&bench, |value| value["text"] = "applied".into());
    bench.up_whole(program("applied"));
    assert_eq!(bench.world().log(), [""; 0]);
    let again = bench.plan(program("applied"), Verb::Up, &Observations::default(), &[]);
    assert!(again.is_empty(), "{}", lab_core::plan::text(&again));
}

/// One that yields what it says, and another that is made from that. It does not announce that what it yields may change.
fn pair(stack: &Stack) -> Result<(), ProgramError> {
    let shop = stack.provider("shop", Shop::at("shop"));
    let it = shop.resource("it").add(Odd { announces: Vec::new(), ..Odd::new("it", "applied") });
    shop.resource("user").add(Odd::new("user", it.output(|it| it.say)));
    Ok(())
}

/// Returns the pair as it was applied, with the one changed by somebody else.
fn changed_pair() -> (Bench, Arc<Yard>) {
    let (bench, yard) = yard();
    bench.up_whole(pair);
    let at = ("shop".to_owned(), "it".to_owned());
    yard.contents().items.get_mut(&at).unwrap().value["say"] = "theirs".into();
    yard.log();
    (bench, yard)
}

/// What somebody else changed is brought back, and with it what it yields: who is made from that was brought up to date with
/// what somebody else had said, and back again by the next run.
#[test]
fn who_is_made_from_what_is_brought_back_is_made_from_what_it_becomes() {
    for by_verb in [false, true] {
        let (bench, yard) = changed_pair();
        if by_verb {
            bench.refresh(pair);
        }
        assert!(bench.attempt(pair, Verb::Up, &Trial { refresh: !by_verb, ..Trial::default() }).unwrap().complete());
        assert_eq!(yard.log(), ["update shop/it"]);
        settled(&bench, pair);
    }
}

/// It was being brought back when the run died: the next one did not look at it, and made the other from what somebody else
/// had said.
#[test]
fn wherever_bringing_back_is_cut_off_nobody_is_made_from_what_somebody_else_said() {
    for (n, fault) in (0..4).flat_map(|n| [(n, CallFault::StopBefore), (n, CallFault::StopAfter)]) {
        let (bench, yard) = changed_pair();
        let faults = Arc::new(Faults::at(n, fault));
        bench.attempt(pair, Verb::Up, &Trial { faults, ..refreshing() }).unwrap();
        let bench = bench.crashed(Crash::Process).seeded(2);
        bench.up_whole(pair);
        let log = yard.log();
        assert!(!log.contains(&"update shop/user".to_owned()), "{fault:?} at call {n}: {log:?}");
        assert!(bench.attempt(pair, Verb::Up, &refreshing()).unwrap().complete());
        settled(&bench, pair);
    }
}

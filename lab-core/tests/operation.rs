//! An operation is begin, cursors, end: what each of them promises.

mod yard;

use lab_core::execute::disk::Crash;
use lab_core::execute::{CallFault, Faults, Progress};
use lab_core::plan::Verb;
use lab_core::testing::{Bench, Trial};
use lab_core::*;
use serde_json::Value;
use std::sync::Arc;
use yard::{Odd, Shop, Turn, Upset, Yard, failures, settled, steps, yard};

fn one(odd: Odd) -> impl Fn(&Stack) -> Result<(), ProgramError> {
    move |stack: &Stack| {
        stack.provider("shop", Shop::at("shop")).resource("it").add(odd.clone());
        Ok(())
    }
}

fn slow() -> Odd {
    Odd { calls: 3, ..Odd::new("it", "x") }
}

/// Returns what the journal says of operations, in order: `begin`, `cursor`, `end`.
fn journal(bench: &Bench) -> Vec<String> {
    let text = String::from_utf8(bench.disk().get("lab.journal").unwrap()).unwrap();
    let frames = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let records = frames.flat_map(|frame| frame["records"].as_array().cloned().unwrap_or_default());
    let told = records.filter_map(|record| Some(record["event"].as_str()?.to_owned()));
    told.filter(|event| ["begin", "cursor", "end"].contains(&event.as_str())).collect()
}

/// Stops the process at call `n` and returns what is on the disk and in the world then.
fn stopped(n: usize, fault: CallFault) -> (Bench, Arc<Yard>) {
    let (bench, yard) = yard();
    let trial = Trial { faults: Arc::new(Faults::at(n, fault)), ..Trial::default() };
    assert!(bench.attempt(one(slow()), Verb::Up, &trial).unwrap().stopped);
    (bench.crashed(Crash::Power), yard)
}

#[test]
fn the_beginning_is_durable_before_the_first_call_that_changes_anything() {
    // Call 0 looks, call 1 makes.
    let (bench, yard) = stopped(0, CallFault::StopAfter);
    assert_eq!((yard.log().len(), bench.state().open().count()), (0, 0), "a look needs no record");
    let (bench, yard) = stopped(1, CallFault::StopBefore);
    assert_eq!((yard.log().len(), bench.state().open().count()), (0, 1));
    let (bench, yard) = stopped(1, CallFault::StopAfter);
    assert_eq!((yard.log().len(), bench.state().open().count()), (1, 1), "whatever the power takes");
    let state = bench.state();
    let (urn, record, open) = state.open().next().unwrap();
    assert_eq!(urn.name(), "it");
    assert_eq!(open.begun.spec.inputs.value()["say"], "x", "what is needed to find it stands there");
    assert!(open.begun.absent, "that it was absent just before as well");
    assert_eq!((record.status, &open.begun.mark), (Status::Begun, &record.mark));
}

#[test]
fn every_cursor_is_written_before_the_call_that_uses_it() {
    let (bench, yard) = yard();
    bench.up_whole(one(slow()));
    assert_eq!(journal(&bench), ["begin", "cursor", "cursor", "cursor", "end"]);
    assert_eq!(yard.log(), ["create shop/it", "ready shop/it"]);
    let (bench, _) = stopped(3, CallFault::StopBefore);
    let state = bench.state();
    let (_, record, open) = state.open().next().unwrap();
    assert_eq!(open.cursor, Some(serde_json::json!({ "left": 2 })));
    assert_eq!(record.status, Status::Made, "it exists and is not ready");
}

#[test]
fn a_deadline_leaves_the_operation_open_with_its_cursor() {
    let (bench, yard) = yard();
    let program = |stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        let slow = Odd { calls: 30, ..Odd::new("it", "x") };
        shop.resource("it").timeout(std::time::Duration::from_secs(10)).add(slow);
        Ok(())
    };
    let report = bench.up(program);
    insta::assert_snapshot!(failures(&report).join("\n"), @"create it: it took longer than 10 s: 21 more calls");
    assert!(report.failed[0].open);
    let mark = bench.state().records.values().next().unwrap().mark.clone();
    // Each run takes it further; none makes it anew.
    assert!(!bench.up(program).complete());
    assert!(!bench.up(program).complete());
    bench.up_whole(program);
    assert_eq!(yard.log(), ["create shop/it", "ready shop/it"]);
    assert_eq!(bench.state().records.values().next().unwrap().mark, mark, "it is one operation");
    settled(&bench, program);
}

#[test]
fn a_call_that_never_answers_is_dropped_at_the_deadline_and_looked_for_by_the_next_run() {
    let (bench, yard) = yard();
    yard.upset("apply", "it", Upset::Hang);
    let report = bench.up(one(Odd::new("it", "x")));
    insta::assert_snapshot!(failures(&report).join("\n"), @"create it: there was no answer before the deadline (tried for 600 s)");
    assert!(report.failed[0].open);
    bench.up_whole(one(Odd::new("it", "x")));
    assert_eq!(yard.log(), ["create shop/it"], "it was there");
}

/// A provider that panics took the whole run along, or was taken for one that had done nothing.
#[test]
fn a_panic_may_have_had_an_effect() {
    for (upset, log) in [(Upset::Panic, 1), (Upset::PanicAfter, 1)] {
        let (bench, yard) = yard();
        yard.upset("apply", "it", upset);
        let report = bench.up(one(Odd::new("it", "x")));
        assert_eq!(failures(&report), ["create it: the provider panicked: upset"]);
        assert!(report.failed[0].open, "nobody knows what it did");
        assert_eq!(bench.state().open().count(), 1);
        bench.up_whole(one(Odd::new("it", "x")));
        assert_eq!(yard.log().len(), log, "{upset:?}");
        settled(&bench, &one(Odd::new("it", "x")));
    }
}

#[test]
fn what_is_made_and_not_ready_is_not_made_again() {
    let (bench, yard) = yard();
    let trial = Trial { faults: Arc::new(Faults::at(2, CallFault::StopBefore)), ..Trial::default() };
    assert!(bench.attempt(one(slow()), Verb::Up, &trial).unwrap().stopped);
    let bench = bench.crashed(Crash::Process);
    let plan = bench.preview(one(slow()));
    assert_eq!(steps(&plan), ["continue it"]);
    bench.up_whole(one(slow()));
    assert_eq!(yard.log(), ["create shop/it", "ready shop/it"]);
}

/// A machine was half made when its memory was changed in the program. The next run finished it from where it stood, with
/// the old memory, and recorded the new: no later plan saw a difference. The same happened when that run was killed in
/// its turn, whatever it had come to.
#[test]
fn what_was_begun_goes_on_with_todays_inputs() {
    let today = || one(Odd { say: "y".into(), ..slow() });
    for begun in 1..6 {
        for fault in [CallFault::StopBefore, CallFault::StopAfter] {
            for killed in 0..8 {
                let (bench, yard) = yard();
                let trial = |n, fault| Trial { faults: Arc::new(Faults::at(n, fault)), ..Trial::default() };
                bench.attempt(one(slow()), Verb::Up, &trial(begun, fault)).unwrap();
                let bench = bench.crashed(Crash::Process).seeded(2);
                bench.attempt(today(), Verb::Up, &trial(killed, fault)).unwrap();
                let bench = bench.crashed(Crash::Process).seeded(3);
                bench.up_whole(today());
                let where_ = format!("{fault:?} at {begun}, then at {killed}: {:?}", yard.log());
                assert_eq!(yard.things(), ["shop/it=y"], "{where_}");
                settled(&bench, &today());
            }
        }
    }
}

/// Begun again for another reason than its inputs, it was taken to be made from what was last begun.
#[test]
fn what_was_begun_with_other_inputs_is_known_to_be_behind_however_often_it_is_begun_again() {
    let today = || Odd { say: "y".into(), ..slow() };
    let patient = |stack: &Stack| {
        let declare = stack.provider("shop", Shop::at("shop")).resource("it");
        declare.timeout(std::time::Duration::from_secs(300)).add(today());
        Ok(())
    };
    let trial = |n, fault| Trial { faults: Arc::new(Faults::at(n, fault)), ..Trial::default() };
    for fault in [CallFault::StopBefore, CallFault::StopAfter] {
        for (second, third) in (0..4).flat_map(|second| (0..4).map(move |third| (second, third))) {
            let (bench, yard) = yard();
            bench.attempt(one(slow()), Verb::Up, &trial(2, fault)).unwrap();
            let bench = bench.crashed(Crash::Process).seeded(2);
            bench.attempt(one(today()), Verb::Up, &trial(second, fault)).unwrap();
            let bench = bench.crashed(Crash::Process).seeded(3);
            bench.attempt(patient, Verb::Up, &trial(third, fault)).unwrap();
            let bench = bench.crashed(Crash::Process).seeded(4);
            bench.up_whole(patient);
            assert_eq!(yard.things(), ["shop/it=y"], "{fault:?} at {second}, then at {third}: {:?}", yard.log());
            settled(&bench, patient);
        }
    }
}

#[test]
fn a_change_that_was_begun_goes_on_with_todays_inputs() {
    let say = |say: &str| one(Odd { say: say.into(), ..slow() });
    for begun in 1..6 {
        for fault in [CallFault::StopBefore, CallFault::StopAfter] {
            let (bench, yard) = yard();
            bench.up_whole(say("x"));
            let trial = Trial { faults: Arc::new(Faults::at(begun, fault)), ..Trial::default() };
            bench.attempt(say("y"), Verb::Up, &trial).unwrap();
            let bench = bench.crashed(Crash::Process).seeded(2);
            bench.up_whole(say("z"));
            assert_eq!(yard.things(), ["shop/it=z"], "{fault:?} at {begun}: {:?}", yard.log());
            settled(&bench, &say("z"));
        }
    }
}

#[test]
fn what_was_begun_and_is_wanted_otherwise_or_no_more_is_taken_away_first() {
    let begun = || stopped(2, CallFault::StopBefore);
    let (bench, yard) = begun();
    bench.up_whole(one(Odd { say: "y".into(), turn: Turn::DeleteFirst, ..slow() }));
    assert_eq!(yard.log(), ["create shop/it", "delete shop/it", "create shop/it", "ready shop/it"]);
    let (bench, yard) = begun();
    bench.up_whole(|_: &Stack| Ok(()));
    assert_eq!(yard.log(), ["create shop/it", "delete shop/it"]);
    assert!(bench.state().records.is_empty());
}

#[test]
fn a_failure_known_to_be_without_effect_ends_it() {
    let (bench, yard) = yard();
    yard.upset("apply", "it", Upset::Fail(Class::Invalid));
    let report = bench.up(one(Odd::new("it", "x")));
    assert!(!report.failed[0].open);
    assert_eq!(bench.state().open().count(), 0);
    assert!(bench.state().records.is_empty(), "nothing was made");
    let (bench, yard) = yard::yard();
    yard.upset("apply", "it", Upset::Perhaps(Class::Invalid));
    let report = bench.up(one(Odd::new("it", "x")));
    assert!(report.failed[0].open);
    assert_eq!(bench.state().open().count(), 1);
}

#[test]
fn a_failed_update_leaves_what_was_recorded() {
    let (bench, yard) = yard();
    bench.up_whole(one(Odd::new("it", "x")));
    let before = bench.state().records;
    yard.upset("apply", "it", Upset::Fail(Class::Invalid));
    assert!(!bench.up(one(Odd::new("it", "y"))).complete());
    assert_eq!(bench.state().records, before);
    let plan = bench.preview(one(Odd::new("it", "y")));
    assert_eq!(steps(&plan), ["update it"]);
}

#[test]
fn what_may_pass_is_tried_again_with_growing_pauses_and_told() {
    let (bench, yard) = yard();
    for class in [Class::Again, Class::Unreachable, Class::Again, Class::Conflict] {
        yard.upset("apply", "it", Upset::Fail(class));
    }
    yard.upset("find", "it", Upset::Fail(Class::Unreachable));
    let trial = Trial::default();
    assert!(bench.attempt(one(Odd::new("it", "x")), Verb::Up, &trial).unwrap().complete());
    let heard = trial.heard.lock().unwrap();
    assert_eq!(heard.iter().filter(|told| matches!(told, Progress::Retrying { .. })).count(), 5);
    assert_eq!(yard.log(), ["create shop/it"]);
}

#[test]
fn what_fails_again_and_again_is_tried_less_and_less_often() {
    let (bench, yard) = yard();
    (0..200).for_each(|_| yard.upset("apply", "it", Upset::Fail(Class::Again)));
    let program = |stack: &Stack| {
        let declare = stack.provider("shop", Shop::at("shop")).resource("it");
        declare.timeout(std::time::Duration::from_secs(120)).add(Odd::new("it", "x"));
        Ok(())
    };
    let trial = Trial::default();
    assert!(!bench.attempt(program, Verb::Up, &trial).unwrap().complete());
    let tries = trial.heard.lock().unwrap().iter().filter(|told| matches!(told, Progress::Retrying { .. })).count();
    // The first pauses last half a second and one second: as many of those would be over a hundred.
    assert!((6..20).contains(&tries), "{tries} times in two minutes");
}

#[test]
fn what_somebody_else_makes_between_our_look_and_our_call_is_looked_at_and_left_alone() {
    let (bench, yard) = yard();
    yard.upset("apply", "it", Upset::Sooner);
    let said = failures(&bench.up(one(Odd::new("it", "x")))).join("\n");
    assert!(said.contains("exists already and is not ours"), "{said}");
    assert_eq!(yard.things(), ["shop/it=theirs"]);
    assert_eq!((yard.log().len(), yard.contents().clashes), (0, 1), "once was enough");
    assert!(bench.state().records.is_empty(), "nothing was made");
}

#[test]
fn a_lost_reply_is_looked_for_before_anything_else() {
    for class in [Class::Again, Class::Unreachable, Class::Conflict] {
        let (bench, yard) = yard();
        yard.upset("apply", "it", Upset::After(class));
        bench.up_whole(one(Odd::new("it", "x")));
        assert_eq!(yard.log(), ["create shop/it"], "{class:?}");
        assert_eq!(yard.contents().clashes, 0, "{class:?}: it was to be made again before anybody looked");
        yard.upset("apply", "it", Upset::After(class));
        bench.up_whole(one(Odd::new("it", "y")));
        assert_eq!(yard.log(), ["update shop/it"], "{class:?}");
        yard.upset("delete", "it", Upset::After(class));
        bench.up_whole(|_: &Stack| Ok(()));
        assert_eq!(yard.log(), ["delete shop/it"], "{class:?}");
        assert!(bench.state().records.is_empty());
    }
}

#[test]
fn what_waits_says_what_it_waits_for() {
    let (bench, _) = yard();
    let trial = Trial::default();
    assert!(bench.attempt(one(slow()), Verb::Up, &trial).unwrap().complete());
    let heard = trial.heard.lock().unwrap();
    let waits: Vec<&str> = heard
        .iter()
        .filter_map(|told| match told {
            Progress::Waiting { why, .. } => Some(why.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(waits, ["3 more calls", "2 more calls", "1 more calls"]);
}

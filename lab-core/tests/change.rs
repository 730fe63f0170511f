//! Change is the type's own word: which outputs it will change, what it interrupts, what it destroys.

mod yard;

use lab_core::execute::disk::Crash;
use lab_core::execute::{CallFault, Faults, Progress};
use lab_core::plan::Verb;
use lab_core::testing::Trial;
use lab_core::*;
use std::sync::Arc;
use yard::{Odd, Shop, Turn, settled, shown, steps, yard};

/// A base, and one resource wired to each of two outputs of it.
fn program(base: Odd) -> impl Fn(&Stack) -> Result<(), ProgramError> {
    move |stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        let base = shop.resource("base").add(base.clone());
        shop.resource("room").add(Odd::new("room", base.output(|base| base.room)));
        shop.resource("echo").add(Odd::new("echo", base.output(|base| base.say)));
        shop.resource("length").add(Odd::new("length", base.output(|base| base.name.len().to_string())));
        Ok(())
    }
}

#[test]
fn only_what_the_type_marks_is_unknown_to_others() {
    let (bench, yard) = yard();
    bench.up_whole(program(Odd::new("base", "a")));
    yard.log();
    let plan = bench.preview(program(Odd::new("base", "b")));
    assert_eq!(steps(&plan), ["update base", "update echo"], "one label does not make everything maybe");
    bench.up_whole(program(Odd::new("base", "b")));
    assert_eq!(yard.log(), ["update shop/base", "update shop/echo"]);
}

#[test]
fn a_result_that_contradicts_what_was_announced_is_told_as_the_providers_mistake() {
    let (bench, _) = yard();
    let lying = |say: &str| program(Odd { renumbers: true, ..Odd::new("base", say) });
    bench.up_whole(lying("a"));
    let trial = Trial::default();
    assert!(bench.attempt(lying("b"), Verb::Up, &trial).unwrap().complete());
    let heard = trial.heard.lock().unwrap();
    let warnings: Vec<&str> = heard
        .iter()
        .filter_map(|told| match told {
            Progress::Warning { message, .. } => Some(message.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings
            .iter()
            .all(|text| text.contains("odd:thing did not announce") && text.contains("mistake of the provider"))
    );
    assert!(warnings.iter().any(|text| text.contains("/number")) && warnings.iter().any(|text| text.contains("/room")));
    drop(heard);
    // Nothing is lost: the next run brings what depends on it up to date.
    assert_eq!(steps(&bench.preview(lying("b"))), ["update room"]);
    bench.up_whole(lying("b"));
    settled(&bench, &lying("b"));
}

#[test]
fn a_difference_that_does_not_matter_outside_is_noted_without_a_call() {
    let (bench, yard) = yard();
    let quiet = |say: &str| program(Odd { turn: Turn::Nothing, ..Odd::new("base", say) });
    bench.up_whole(quiet("a"));
    yard.log();
    assert_eq!(steps(&bench.preview(quiet("b"))), [""; 0]);
    bench.up_whole(quiet("b"));
    assert_eq!(yard.log(), [""; 0]);
    let state = bench.state();
    let base = state.records.values().find(|record| record.id == Some(Id("base".into()))).unwrap();
    assert_eq!(base.spec.inputs.value()["say"], "b", "it is compared with what is declared now");
}

#[test]
fn what_is_interrupted_and_destroyed_is_shown() {
    let (bench, _) = yard();
    let one = |turn, say: &'static str| {
        move |stack: &Stack| {
            stack.provider("shop", Shop::at("shop")).resource("it").add(Odd { turn, ..Odd::new("it", say) });
            Ok(())
        }
    };
    bench.up_whole(one(Turn::Update, "a"));
    insta::assert_snapshot!(shown(&bench.preview(one(Turn::Interrupt, "b"))), @r#"
      shop
        ~ update odd:thing it
            interrupts: it is away
            /say: "a" -> "b"
            /turn: "Update" -> "Interrupt"
    lab: 1 to update, 0 unchanged.
    "#);
    insta::assert_snapshot!(shown(&bench.preview(one(Turn::Wipe, "b"))), @r#"
      shop
        ~ update odd:thing it
            destroys what it holds
            /say: "a" -> "b"
            /turn: "Update" -> "Wipe"
    This destroys data:
      what it holds (it)
    lab: 1 to update, 0 unchanged.
    "#);
}

#[test]
fn consent_stands_in_the_begin_record_and_holds_until_the_operation_ends() {
    let (bench, yard) = yard();
    let one = |wipes: &'static str| {
        move |stack: &Stack| {
            let odd = Odd { wipes: Some(wipes.into()), calls: 2, ..Odd::new("it", "x") };
            stack.provider("shop", Shop::at("shop")).resource("it").add(odd);
            Ok(())
        }
    };
    let destroyed = |plan: &plan::Plan| plan.destroys().map(|(_, what)| what.to_owned()).collect::<Vec<_>>();
    assert_eq!(destroyed(&bench.preview(one("/dev/sda"))), ["/dev/sda"]);
    let trial = Trial { faults: Arc::new(Faults::at(2, CallFault::StopBefore)), ..Trial::default() };
    assert!(bench.attempt(one("/dev/sda"), Verb::Up, &trial).unwrap().stopped);
    let bench = bench.crashed(Crash::Power).seeded(2);
    let state = bench.state();
    let (_, _, open) = state.open().next().unwrap();
    assert_eq!(open.begun.consent.as_deref(), Some("/dev/sda"));
    let plan = bench.preview(one("/dev/sda"));
    assert_eq!(destroyed(&plan), [""; 0], "it was agreed to");
    assert!(plan.steps[0].reasons.join(" ").contains("destroying /dev/sda was agreed to when it began"));
    assert_eq!(destroyed(&bench.preview(one("/dev/sdb"))), ["/dev/sdb"], "another disk was not");
    // The consent outlives any number of runs.
    let trial = Trial { faults: Arc::new(Faults::at(1, CallFault::StopAfter)), ..Trial::default() };
    assert!(bench.attempt(one("/dev/sda"), Verb::Up, &trial).unwrap().stopped);
    let bench = bench.crashed(Crash::Power).seeded(3);
    assert_eq!(destroyed(&bench.preview(one("/dev/sda"))), [""; 0]);
    bench.up_whole(one("/dev/sda"));
    assert_eq!(yard.log(), ["create shop/it", "ready shop/it"]);
}

/// Begun again with today's inputs, it was agreed to all the same: only the record of the first beginning said so.
#[test]
fn consent_holds_when_the_operation_goes_on_with_other_inputs() {
    let (bench, yard) = yard();
    let one = |say: &'static str| {
        move |stack: &Stack| {
            let odd = Odd { wipes: Some("/dev/sda".into()), calls: 3, ..Odd::new("it", say) };
            stack.provider("shop", Shop::at("shop")).resource("it").add(odd);
            Ok(())
        }
    };
    let trial = |n, fault| Trial { faults: Arc::new(Faults::at(n, fault)), ..Trial::default() };
    assert!(bench.attempt(one("x"), Verb::Up, &trial(2, CallFault::StopBefore)).unwrap().stopped);
    let bench = bench.crashed(Crash::Power).seeded(2);
    assert!(bench.attempt(one("y"), Verb::Up, &trial(1, CallFault::StopAfter)).unwrap().stopped);
    let bench = bench.crashed(Crash::Power).seeded(3);
    let state = bench.state();
    let (_, _, open) = state.open().next().unwrap();
    assert_eq!(open.begun.spec.inputs.value()["say"], "y", "it was begun again");
    assert_eq!(open.begun.consent.as_deref(), Some("/dev/sda"));
    assert_eq!(bench.preview(one("y")).destroys().count(), 0, "it is not asked again");
    bench.up_whole(one("y"));
    assert_eq!(yard.things(), ["shop/it=y"]);
}

//! Reads: questions about what exists already.

mod yard;

use lab_core::plan::{Observations, Verb};
use lab_core::testing::Bench;
use lab_core::*;
use serde_json::json;
use yard::{Ask, Odd, Shop, Upset, failures, settled, steps, yard};

/// Reads what `asked` says and wires it into a thing.
fn program(stack: &Stack) -> Result<(), ProgramError> {
    let shop = stack.provider("shop", Shop::at("shop"));
    let asked = shop.read("asked", Ask::of("theirs"));
    shop.resource("it").add(Odd::new("it", asked.output(|asked| asked)));
    Ok(())
}

#[test]
fn what_was_answered_is_an_output_like_any_other() {
    let (bench, yard) = yard();
    yard.plant("shop", "theirs", json!({ "say": "hello" }));
    assert_eq!(steps(&bench.preview(program)), ["read asked", "create it"]);
    bench.up_whole(program);
    assert_eq!(yard.things(), ["shop/it=hello", "shop/theirs=hello"]);
    assert_eq!(yard.log(), ["create shop/it"], "a read changes nothing");
    settled(&bench, program);
}

#[test]
fn another_answer_changes_what_depends_on_it() {
    let (bench, yard) = yard();
    yard.plant("shop", "theirs", json!({ "say": "hello" }));
    bench.up_whole(program);
    yard.plant("shop", "theirs", json!({ "say": "goodbye" }));
    assert!(bench.preview(program).is_empty(), "without looking the last answer holds");
    let asked = Urn::new("lab", "shop", &[], "odd:ask", "asked");
    let seen = Observations { answers: [(asked, json!("goodbye"))].into(), ..Observations::default() };
    let plan = bench.plan(program, Verb::Up, &seen, &[]);
    assert_eq!(steps(&plan), ["read asked", "update it"]);
    assert_eq!(plan.steps[1].diff[0].after, Some(json!("goodbye").into()), "it is known before");
    bench.up_whole(program);
    assert_eq!(yard.things()[0], "shop/it=goodbye");
    settled(&bench, program);
}

/// The line asks something else, and there is no answer to that: what depended on it got the one to the other question, at
/// every run.
#[test]
fn the_answer_to_another_question_is_no_answer() {
    let (bench, yard) = yard();
    yard.plant("shop", "theirs", json!({ "say": "hello" }));
    bench.up_whole(program);
    let other = |stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        let asked = shop.read("asked", Ask::of("typo"));
        shop.resource("it").add(Odd::new("it", asked.output(|asked| asked)));
        Ok(())
    };
    assert_eq!(steps(&bench.preview(other)), ["read asked", "update it"]);
    assert_eq!(failures(&bench.up(other)), ["read asked: it did not hold within 600 s: there is no typo"]);
    settled(&bench, program);
    yard.plant("shop", "typo", json!({ "say": "hello" }));
    bench.up_whole(other);
    settled(&bench, other);
}

#[test]
fn what_cannot_be_answered_yet_is_asked_again_until_the_deadline() {
    let (bench, yard) = yard();
    let report = bench.up(program);
    insta::assert_snapshot!(failures(&report).join("\n"), @"read asked: it did not hold within 600 s: there is no theirs");
    assert_eq!(report.not_started.len(), 1);
    yard.plant("shop", "theirs", json!({ "say": "hello" }));
    // The first is asked while observing.
    for _ in 0..3 {
        yard.upset("ask", "theirs", Upset::Fail(Class::Unreachable));
    }
    bench.up_whole(program);
}

#[test]
fn a_read_of_something_that_is_made_waits_for_it() {
    let (bench, yard) = yard();
    let program = |stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        let made = shop.resource("made").add(Odd { calls: 2, ..Odd::new("made", "x") });
        let expect = Some(made.output(|made| made.say).into());
        let asked = shop.read("asked", Ask { expect, ..Ask::of("made") });
        shop.resource("it").add(Odd::new("it", asked.output(|asked| asked)));
        Ok(())
    };
    bench.up_whole(program);
    assert_eq!(yard.log(), ["create shop/made", "ready shop/made", "create shop/it"]);
    settled(&bench, program);
}

#[test]
fn a_question_that_is_not_asked_any_more_is_forgotten_and_nothing_destroyed_for_it() {
    let (bench, yard): (Bench, _) = yard();
    yard.plant("shop", "theirs", json!({ "say": "hello" }));
    bench.up_whole(program);
    let without = |stack: &Stack| {
        stack.provider("shop", Shop::at("shop")).resource("it").add(Odd::new("it", "hello"));
        Ok(())
    };
    yard.log();
    bench.up_whole(without);
    assert!(bench.state().answers.is_empty());
    assert_eq!(yard.log(), [""; 0]);
    bench.up_whole(program);
    assert!(bench.destroy(program).complete());
    assert_eq!(yard.things(), ["shop/theirs=hello"], "what is only read stays");
    assert!(bench.state().answers.is_empty());
}

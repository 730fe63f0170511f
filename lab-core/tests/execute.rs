//! Execution decides nothing: it walks the plan, and what the plan did not show is not done.

mod yard;

use lab_core::plan::Verb;
use lab_core::testing::{Bench, Trial};
use lab_core::*;
use yard::{Odd, Shop, Turn, Upset, failures, settled, steps, yard};

/// A source, and a thing that says what the source says.
fn wired(source: Odd, sink: Odd) -> impl Fn(&Stack) -> Result<(), ProgramError> {
    move |stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        let source = shop.resource("source").add(source.clone());
        shop.resource("sink")
            .add(Odd { say: source.output(|source| source.say.to_lowercase()).into(), ..sink.clone() });
        Ok(())
    }
}

fn sink(turn: Turn) -> Odd {
    Odd { turn, ..Odd::new("sink", "") }
}

fn applied(turn: Turn) -> (Bench, std::sync::Arc<yard::Yard>) {
    let (bench, yard) = yard();
    bench.up_whole(wired(Odd::new("source", "a"), sink(turn)));
    yard.log();
    (bench, yard)
}

#[test]
fn a_step_that_may_stay_the_same_makes_no_call_when_it_does() {
    let (bench, yard) = applied(Turn::Update);
    let next = || wired(Odd::new("source", "A"), sink(Turn::Update));
    let plan = bench.preview(next());
    assert!(plan.steps[1].permits.same && !plan.steps[1].permits.replace, "{:#?}", plan.steps[1]);
    let finds = yard.contents().finds.len();
    bench.up_whole(next());
    assert_eq!(yard.log(), ["update shop/source"]);
    assert_eq!(yard.contents().finds[finds..], ["source"], "it is not even looked for");
    assert!(bench.preview(next()).is_empty());
}

#[test]
fn a_step_that_may_be_replaced_is_an_update_a_replacement_or_nothing_as_it_turns_out() {
    for (turn, say, expected) in [
        (Turn::Update, "b", vec!["update shop/source", "update shop/sink"]),
        (Turn::DeleteFirst, "b", vec!["update shop/source", "delete shop/sink", "create shop/sink"]),
        (Turn::DeleteFirst, "A", vec!["update shop/source"]),
    ] {
        let (bench, yard) = applied(turn);
        bench.up_whole(wired(Odd::new("source", say), sink(turn)));
        assert_eq!(yard.log(), expected, "{turn:?} {say}");
        assert!(bench.preview(wired(Odd::new("source", say), sink(turn))).is_empty());
    }
}

#[test]
fn a_replacement_that_only_showed_as_possible_may_stand_before_the_old_one_goes() {
    let twin = || Odd { natural: false, ..sink(Turn::CreateFirst) };
    let (bench, yard) = yard();
    bench.up_whole(wired(Odd::new("source", "a"), twin()));
    yard.log();
    bench.up_whole(wired(Odd::new("source", "b"), twin()));
    assert_eq!(yard.log(), ["update shop/source", "create shop/sink", "delete shop/sink"]);
    assert!(bench.state().condemned.is_empty());
    settled(&bench, &wired(Odd::new("source", "b"), twin()));
}

#[test]
fn a_replacement_that_only_showed_as_possible_goes_first_where_it_keeps_a_claim_or_its_name() {
    let claimant = Odd { natural: false, claims: vec![5.into()], ..sink(Turn::CreateFirst) };
    for odd in [claimant, sink(Turn::CreateFirst)] {
        let (bench, yard) = yard();
        bench.up_whole(wired(Odd::new("source", "a"), odd.clone()));
        yard.log();
        bench.up_whole(wired(Odd::new("source", "b"), odd));
        assert_eq!(yard.log(), ["update shop/source", "delete shop/sink", "create shop/sink"]);
    }
}

/// What depends on something that may be replaced could only be told "unknown": it was never looked at again.
#[test]
fn what_depends_on_one_that_may_be_replaced_follows_it() {
    let (bench, yard) = yard();
    let program = |say: &'static str| {
        move |stack: &Stack| {
            let shop = stack.provider("shop", Shop::at("shop"));
            let source = shop.resource("source").add(Odd::new("source", say));
            let middle = Odd { say: source.output(|source| source.say).into(), ..sink(Turn::DeleteFirst) };
            let middle = shop.resource("middle").add(middle);
            shop.resource("end").add(Odd::new("end", middle.output(|middle| middle.number.to_string())));
            Ok(())
        }
    };
    bench.up_whole(program("a"));
    yard.log();
    bench.up_whole(program("b"));
    assert_eq!(yard.log(), ["update shop/source", "delete shop/sink", "create shop/sink", "update shop/end"]);
    settled(&bench, program("b"));
}

#[test]
fn an_outcome_that_was_not_shown_stops_the_step() {
    // The type says what is interrupted and destroyed only when it knows the value.
    for (turn, expected) in [(Turn::Interrupt, "interrupt"), (Turn::Wipe, "destroy")] {
        let (bench, yard) = applied(turn);
        let shown = bench.preview(wired(Odd::new("source", "b"), sink(turn)));
        let shown = shown.steps[1].interrupts.is_some() || shown.steps[1].destroys.is_some();
        assert!(shown, "{turn:?} is shown when it is possible");
        let report = bench.up(wired(Odd::new("source", "b"), sink(turn)));
        assert!(report.complete(), "{expected}: {report:#?}");
        assert_eq!(yard.log().len(), 2);
    }
    // A protected thing may not be replaced, so the plan shows only "same".
    let (bench, yard) = yard();
    let program = |say: &'static str| {
        move |stack: &Stack| {
            let shop = stack.provider("shop", Shop::at("shop"));
            let source = shop.resource("source").add(Odd::new("source", say));
            let say = source.output(|source| source.say.to_lowercase());
            shop.resource("sink").protect(true).add(Odd { say: say.into(), ..sink(Turn::DeleteFirst) });
            shop.resource("apart").add(Odd::new("apart", say_of(say_text(say_len(&source)))));
            Ok(())
        }
    };
    bench.up_whole(program("a"));
    yard.log();
    let report = bench.up(program("b"));
    assert_eq!(
        failures(&report),
        ["update sink: it would have to be replaced, which the plan did not show; plan again"]
    );
    assert!(!yard.log().iter().any(|call| call.contains("sink")));
    bench.up_whole(program("A"));
}

/// A machine that was seen to be off is not interrupted. What its change takes was judged again once the last value was
/// there, without what had been seen: the step was refused for an interruption that there was none of.
#[test]
fn what_was_seen_when_it_was_planned_still_counts_when_the_last_value_is_there() {
    let (bench, yard) = applied(Turn::UnlessOff);
    let next = || wired(Odd::new("source", "b"), sink(Turn::UnlessOff));
    let sink = ("shop".to_owned(), "sink".to_owned());
    yard.contents().items.get_mut(&sink).expect("it was made").value["off"] = true.into();
    let plan = bench.plan(next(), Verb::Up, &bench.refresh(next()), &[]);
    assert_eq!(plan.steps[1].interrupts, None, "it is off");
    let trial = Trial { refresh: true, ..Trial::default() };
    let report = bench.attempt(next(), Verb::Up, &trial).expect("it can be planned");
    assert!(report.complete(), "{report:#?}");
    assert_eq!(yard.log(), ["update shop/source", "update shop/sink"]);
}

/// Somebody else had changed it, and the value that was waited for turned out to be what it was: it was brought back without
/// asking what that takes.
#[test]
fn what_bringing_it_back_takes_is_judged_once_the_value_is_there() {
    let (bench, yard) = yard();
    let program = |say: &'static str| wired(Odd::new("source", say), sink(Turn::ByValue));
    bench.up_whole(program("away"));
    yard.log();
    let it = ("shop".to_owned(), "sink".to_owned());
    yard.contents().items.get_mut(&it).expect("it was made").value["say"] = "theirs".into();
    let refreshed = || Trial { refresh: true, ..Trial::default() };
    let report = bench.attempt(program("AWAY"), Verb::Up, &refreshed()).expect("it can be planned");
    assert_eq!(
        failures(&report),
        ["update sink: it would interrupt: sink is away, which the plan did not show; plan again"]
    );
    assert_eq!(yard.log(), ["update shop/source"]);
    let plan = bench.plan(program("AWAY"), Verb::Up, &bench.refresh(program("AWAY")), &[]);
    assert_eq!(plan.steps[0].interrupts.as_deref(), Some("sink is away"));
    let report = bench.attempt(program("AWAY"), Verb::Up, &refreshed()).expect("it can be planned");
    assert!(report.complete(), "{report:#?}");
}

/// What was begun goes on with today's inputs. Whether these interrupt or destroy showed only with a value, and was not asked.
#[test]
fn what_was_begun_does_not_go_on_as_something_that_was_not_shown() {
    for (turn, say, expected) in [
        (Turn::ByValue, "away", Some("it would interrupt: sink is away, which the plan did not show; plan again")),
        (Turn::ByValue, "never", Some("it cannot be changed: /say: it never says that")),
        (Turn::ByValue, "other", None),
        // The plan shows it, and it is as possible as ever.
        (Turn::Wipe, "other", None),
    ] {
        let (bench, yard) = applied(turn);
        yard.upset("apply", "sink", Upset::Perhaps(Class::Invalid));
        let begun = bench.up(wired(Odd::new("source", "begun"), sink(turn)));
        assert!(begun.failed[0].open, "{begun:#?}");
        let report = bench.up(wired(Odd::new("source", say), sink(turn)));
        let expected: Vec<String> = expected.iter().map(|why| format!("continue sink: {why}")).collect();
        assert_eq!(failures(&report), expected, "{say}");
        assert_eq!(bench.state().open().count(), expected.len(), "{say}");
    }
}

/// What a value means may be known only with the value: the plan showed a plain update.
#[test]
fn an_interruption_or_a_refusal_that_was_not_shown_stops_the_step() {
    for (say, expected) in [
        ("AWAY", "update sink: it would interrupt: sink is away, which the plan did not show; plan again"),
        ("NEVER", "update sink: it cannot be changed: /say: it never says that"),
    ] {
        let (bench, yard) = applied(Turn::ByValue);
        let next = || wired(Odd::new("source", say), sink(Turn::ByValue));
        assert!(bench.preview(next()).steps.iter().all(|step| step.interrupts.is_none()));
        assert_eq!(failures(&bench.up(next())), [expected]);
        assert_eq!(yard.log(), ["update shop/source"], "{say}");
        let again = bench.preview(next());
        assert!(again.steps.iter().any(|step| step.interrupts.is_some()) != (say == "NEVER"), "{again:#?}");
        assert_eq!(again.problems.is_empty(), say == "AWAY", "{again:#?}");
    }
}

fn say_len(source: &Handle<yard::OddOutputs>) -> Output<usize> {
    source.output(|source| source.say.len())
}

fn say_text(n: Output<usize>) -> Output<String> {
    n.map(|n| n.to_string())
}

fn say_of(text: Output<String>) -> Input<String> {
    text.into()
}

/// Destroying what the plan did not name needs a new plan, however the value came about.
#[test]
fn data_that_was_not_named_is_not_destroyed() {
    let (bench, yard) = yard();
    let program = |say: &'static str| {
        move |stack: &Stack| {
            let shop = stack.provider("shop", Shop::at("shop"));
            let source = shop.resource("source").add(Odd::new("source", say));
            let wipes = Some(source.output(|source| source.say).into());
            shop.resource("disk").add(Odd { wipes, ..Odd::new("disk", "x") });
            Ok(())
        }
    };
    let plan = bench.preview(program("/dev/sda"));
    assert!(plan.destroys().next().is_none(), "nothing is known yet");
    let report = bench.up(program("/dev/sda"));
    assert_eq!(failures(&report), ["create disk: it would destroy /dev/sda, which the plan did not show; plan again"]);
    assert_eq!(yard.log(), ["create shop/source"]);
    let plan = bench.preview(program("/dev/sda"));
    assert_eq!(plan.destroys().map(|(_, what)| what).collect::<Vec<_>>(), ["/dev/sda"]);
    bench.up_whole(program("/dev/sda"));
    assert_eq!(yard.log(), ["create shop/disk"]);
}

/// a, b after a, c; d after b and c.
fn diamond(stack: &Stack) -> Result<(), ProgramError> {
    let shop = stack.provider("shop", Shop::at("shop"));
    let a = shop.resource("a").add(Odd::new("a", "x"));
    let b = shop.resource("b").depends_on(&a).add(Odd::new("b", "x"));
    let c = shop.resource("c").add(Odd::new("c", "x"));
    shop.resource("d").depends_on(&b).depends_on(&c).add(Odd::new("d", "x"));
    Ok(())
}

#[test]
fn independent_branches_go_on_past_a_failure_and_dependents_are_not_started_with_the_reason() {
    // One at a time, the other branch had not been started when the first failed.
    for parallel in [16, 1] {
        let (bench, yard) = yard();
        yard.upset("apply", "a", Upset::Fail(Class::Invalid));
        let report = bench.attempt(diamond, Verb::Up, &Trial { parallel, ..Trial::default() }).unwrap();
        assert_eq!(failures(&report), ["create a: it was upset"]);
        assert_eq!(yard.things(), ["shop/c=x"]);
        let not: Vec<String> = report.not_started.iter().map(|(urn, why)| format!("{}: {why}", urn.short())).collect();
        assert_eq!(not, ["b: it needs a, which failed", "d: it needs a, which failed"]);
        bench.up_whole(diamond);
        assert_eq!(yard.things().len(), 4);
    }
}

#[test]
fn what_does_not_depend_on_each_other_goes_at_the_same_time() {
    let (bench, yard) = yard();
    let program = |stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        for name in ["a", "b", "c", "d", "e"] {
            shop.resource(name).add(Odd { calls: 2, ..Odd::new(name, "x") });
        }
        Ok(())
    };
    bench.up_whole(program);
    assert_eq!(yard.contents().most_busy, 5);
    let (bench, yard) = yard::yard();
    let trial = Trial { parallel: 2, ..Trial::default() };
    assert!(bench.attempt(program, Verb::Up, &trial).unwrap().complete());
    assert_eq!(yard.contents().most_busy, 2);
}

#[test]
fn locks_bound_how_many_go_at_the_same_time() {
    for (capacity, weight, most) in [(1, 1, 1), (2, 1, 2), (4, 2, 2), (3, 2, 1), (1, 5, 1)] {
        let (bench, yard) = yard();
        bench.up_whole(|stack: &Stack| {
            let shop = stack.provider("shop", Shop::at("shop"));
            for name in ["a", "b", "c", "d", "e"] {
                let lock = Some(("template".to_owned(), capacity, weight));
                shop.resource(name).add(Odd { calls: 2, lock, ..Odd::new(name, "x") });
            }
            Ok(())
        });
        assert_eq!(yard.contents().most_busy, most, "capacity {capacity}, weight {weight}");
        assert_eq!(yard.things().len(), 5);
    }
}

/// A step that waited for a lock held up everything that had nothing to do with it.
#[test]
fn a_step_that_waits_for_a_lock_holds_up_nobody_else() {
    let (bench, yard) = yard();
    bench.up_whole(|stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        let lock = || Some(("template".to_owned(), 1, 1));
        shop.resource("a").add(Odd { calls: 5, lock: lock(), ..Odd::new("a", "x") });
        shop.resource("b").add(Odd { calls: 5, lock: lock(), ..Odd::new("b", "x") });
        shop.resource("z").add(Odd { calls: 1, ..Odd::new("z", "x") });
        Ok(())
    });
    let log = yard.log();
    let at = |call: &str| log.iter().position(|other| other == call).unwrap();
    assert!(at("ready shop/z") < at("create shop/b"), "{log:?}");
}

#[test]
fn an_edge_that_asks_for_created_does_not_wait_for_ready() {
    let (bench, yard) = yard();
    let program = |created: bool| {
        move |stack: &Stack| {
            let shop = stack.provider("shop", Shop::at("shop"));
            let slow = shop.resource("slow").add(Odd { calls: 3, ..Odd::new("slow", "x") });
            let next = shop.resource("next");
            let next = if created { next.after_created(&slow) } else { next.depends_on(&slow) };
            next.add(Odd::new("next", "x"));
            Ok(())
        }
    };
    bench.up_whole(program(true));
    assert_eq!(yard.log(), ["create shop/slow", "create shop/next", "ready shop/slow"]);
    let (bench, yard) = yard::yard();
    bench.up_whole(program(false));
    assert_eq!(yard.log(), ["create shop/slow", "ready shop/slow", "create shop/next"]);
}

/// What is needed and was created, and then failed to become ready, held up those that asked only for created.
#[test]
fn what_asked_only_for_created_is_not_held_up_by_what_failed_afterwards() {
    let (bench, yard) = yard();
    let program = |stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        let slow = shop.resource("slow").add(Odd { calls: 3, ..Odd::new("slow", "x") });
        let next = shop.resource("next").after_created(&slow).add(Odd { calls: 1, ..Odd::new("next", "x") });
        shop.resource("last").depends_on(&next).add(Odd::new("last", "x"));
        Ok(())
    };
    // The first call makes it, the second fails for good.
    yard.upset("apply", "slow", Upset::Hang);
    yard.log();
    let report = bench.up(program);
    assert!(report.complete() || report.failed.len() == 1, "{report:#?}");
    bench.up_whole(program);
    assert_eq!(yard.things().len(), 3);
    settled(&bench, program);
}

#[test]
fn destroying_goes_from_the_last_to_the_first() {
    let (bench, yard) = yard();
    bench.up_whole(diamond);
    yard.log();
    assert_eq!(steps(&bench.plan(diamond, Verb::Destroy, &plan::Observations::default(), &[]))[0], "delete d");
    assert!(bench.destroy(diamond).complete());
    let log = yard.log();
    let at = |name: &str| log.iter().position(|call| *call == format!("delete shop/{name}")).unwrap();
    assert!(at("d") < at("b") && at("b") < at("a") && at("d") < at("c"), "{log:?}");
}

#[test]
fn what_turns_out_to_matter_to_nobody_is_recorded_as_it_is_wanted() {
    let (bench, yard) = applied(Turn::Nothing);
    bench.up_whole(wired(Odd::new("source", "b"), sink(Turn::Nothing)));
    assert_eq!(yard.log(), ["update shop/source"]);
    let state = bench.state();
    let sink = state.records.values().find(|record| record.id == Some(Id("sink".into()))).unwrap();
    assert_eq!(sink.spec.inputs.value()["say"], "b");
}

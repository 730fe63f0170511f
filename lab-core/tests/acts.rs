//! What is done around a member of a rolling group: before it is interrupted and after, once each, wherever a run stops.

mod yard;

use lab_core::execute::disk::{Crash, Fault};
use lab_core::execute::{CallFault, Faults};
use lab_core::plan::Verb;
use lab_core::testing::{Bench, Trial};
use lab_core::*;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use yard::fleet::{Fleet, NAMES, applied, most_away, position};
use yard::{Chore, Odd, Shop, Turn, Upset, failures, settled, yard};

#[test]
fn acts_are_run_around_each_interrupted_member_every_time() {
    let fleet = Fleet { acts: true, members: 2, ..Fleet::default() };
    let (bench, yard) = applied(fleet);
    for say in ["new", "newer"] {
        bench.up_whole(fleet.saying(say).program());
        let round = |name: &str| {
            [
                "gate".to_owned(),
                format!("drain {name}"),
                format!("update shop/{name}"),
                format!("ready shop/{name}"),
                format!("uncordon {name}"),
            ]
        };
        let expected: Vec<String> = round("m1").into_iter().chain(round("m2")).chain(["gate".to_owned()]).collect();
        assert_eq!(yard.log(), expected);
        settled(&bench, fleet.saying(say).program());
    }
}

#[test]
fn acts_are_not_run_around_a_change_that_interrupts_nothing() {
    let fleet = Fleet { acts: true, turn: Turn::Update, members: 1, ..Fleet::default() };
    let (bench, yard) = applied(fleet);
    bench.up_whole(fleet.saying("new").program());
    let log = yard.log();
    assert!(!log.iter().any(|call| call.contains("drain") || call.contains("uncordon")), "{log:?}");
}

/// Two machines were away after a crash: the first that was half way, and the next that was begun.
#[test]
fn a_member_that_was_interrupted_by_a_crash_is_finished_before_another_starts() {
    let fleet = Fleet { acts: true, ..Fleet::default() };
    let next = Fleet { say: ["new"; 4], ..fleet };
    let calls = {
        let (bench, _) = applied(fleet);
        let trial = Trial::default();
        assert!(bench.attempt(next.program(), Verb::Up, &trial).unwrap().complete());
        trial.faults.calls()
    };
    for fault in [CallFault::StopBefore, CallFault::StopAfter] {
        for n in 0..calls {
            let (bench, yard) = applied(fleet);
            let trial = Trial { faults: Arc::new(Faults::at(n, fault)), ..Trial::default() };
            let report = bench.attempt(next.program(), Verb::Up, &trial).unwrap();
            assert!(report.stopped, "call {n}");
            let bench = bench.crashed(Crash::Process).seeded(2);
            let away: Vec<String> =
                yard.contents().items.iter().filter(|(_, item)| item.away).map(|((_, key), _)| key.clone()).collect();
            let before = yard.log();
            bench.up_whole(next.program());
            let log = yard.log();
            assert_eq!(most_away(&yard), 1, "{fault:?} at call {n}: {before:?} then {log:?}");
            if let Some(away) = away.first() {
                let first = log.iter().find(|call| call.contains("shop/"));
                assert_eq!(
                    first,
                    Some(&format!("ready shop/{away}")),
                    "{fault:?} at call {n}: {before:?} then {log:?}"
                );
            }
            let whole: Vec<String> = before.into_iter().chain(log).filter(|call| call != "gate").collect();
            for name in &NAMES[..3] {
                let about: Vec<&String> = whole.iter().filter(|call| call.ends_with(name)).collect();
                let expected = [
                    format!("drain {name}"),
                    format!("update shop/{name}"),
                    format!("ready shop/{name}"),
                    format!("uncordon {name}"),
                ];
                assert_eq!(about, expected.iter().collect::<Vec<_>>(), "{fault:?} at call {n}");
            }
            settled(&bench, next.program());
        }
    }
}

/// What was done around an interruption was still recorded when the next one came: a member that was back in service was
/// interrupted without being drained again, and stayed drained where nothing undid it.
#[test]
fn an_interruption_after_a_crash_has_acts_of_its_own() {
    let fleet = Fleet { acts: true, ..Fleet::default() };
    let next = fleet.saying("new");
    let calls = {
        let (bench, _) = applied(fleet);
        let trial = Trial::default();
        assert!(bench.attempt(next.program(), Verb::Up, &trial).unwrap().complete());
        trial.faults.calls()
    };
    for (fault, say) in [(CallFault::StopBefore, "old"), (CallFault::StopAfter, "old"), (CallFault::StopAfter, "third")]
    {
        for n in 0..calls {
            let (bench, yard) = applied(fleet);
            let trial = Trial { faults: Arc::new(Faults::at(n, fault)), ..Trial::default() };
            assert!(bench.attempt(next.program(), Verb::Up, &trial).unwrap().stopped, "call {n}");
            yard.contents().log.push("crash".into());
            let bench = bench.crashed(Crash::Process).seeded(2);
            bench.up_whole(fleet.saying(say).program());
            let log = yard.log();
            for name in &NAMES[..3] {
                let mut drained = false;
                for call in log.iter().filter(|call| call.ends_with(name)) {
                    let what = call.split(' ').next().unwrap_or_default();
                    assert!(what != "update" || drained, "{name} was not drained, {fault:?} at call {n}: {log:?}");
                    drained = (drained || what == "drain") && what != "uncordon";
                }
                assert!(!drained, "{name} stays drained, {fault:?} at call {n}: {log:?}");
            }
            settled(&bench, fleet.saying(say).program());
        }
    }
}

/// A member with something done before it is interrupted that bears a name, like the snapshot of a machine.
fn saved(say: &'static str) -> impl Fn(&Stack) -> Result<(), ProgramError> + Copy {
    move |stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        let group = stack.rolling("fleet", 1);
        let missed = Some("m1 takes its place".to_owned());
        let member = Odd { turn: Turn::Interrupt, calls: 2, missed, ..Odd::new("m1", say) };
        let member = shop.resource("m1").rolling(&group).add(member);
        group.before(&shop, member.urn(), "save-m1", Odd::new(&format!("m1 before {say}"), "x"));
        Ok(())
    }
}

/// It exists already: to make it anew failed at every run from then on.
#[test]
fn what_was_done_before_and_bears_a_name_is_not_made_twice() {
    for n in 0..6 {
        let (bench, yard) = yard();
        bench.up_whole(saved("old"));
        yard.log();
        let trial = Trial { faults: Arc::new(Faults::at(n, CallFault::StopAfter)), ..Trial::default() };
        assert!(bench.attempt(saved("new"), Verb::Up, &trial).unwrap().stopped, "call {n}");
        let bench = bench.crashed(Crash::Process).seeded(2);
        bench.up_whole(saved("new"));
        let made = yard.log().into_iter().filter(|call| call.contains("before")).count();
        assert_eq!(made, 1, "call {n}");
        bench.up_whole(saved("newer"));
        assert!(yard.log().contains(&"create shop/m1 before newer".to_owned()), "call {n}");
        settled(&bench, saved("newer"));
    }
}

/// A member that needs `x`, with windows in which they may be interrupted, and with what is done around it.
fn kept(say: &'static str, x: &'static str) -> impl Fn(&Stack) -> Result<(), ProgramError> + Copy {
    move |stack: &Stack| {
        stack.maintenance(Windows::new(["Sun 20:00-21:00"])?);
        let shop = stack.provider("shop", Shop::at("shop"));
        let group = stack.rolling("fleet", 1);
        let odd = |name: &str, say: &'static str| {
            let missed = Some(format!("{name} takes its place"));
            Odd { turn: Turn::Interrupt, calls: 2, missed, ..Odd::new(name, say) }
        };
        let x = shop.resource("x").add(odd("x", x));
        let member = shop.resource("m1").rolling(&group).depends_on(&x).add(odd("m1", say));
        group.before(&shop, member.urn(), "drain-m1", Chore { what: "drain m1".into() });
        group.after(&shop, member.urn(), "uncordon-m1", Chore { what: "uncordon m1".into() });
        group.after(&shop, member.urn(), "wake-m1", Chore { what: "wake m1".into() });
        Ok(())
    }
}

/// The member waited for something that its window held. That it was drained was forgotten, and nobody undid it.
#[test]
fn what_is_owed_and_held_is_still_owed() {
    let (bench, yard) = yard();
    let bench = bench.at(sunday(20));
    bench.up_whole(kept("old", "x"));
    yard.log();
    let mut n = 0;
    let (bench, log) = loop {
        let trial = Trial { faults: Arc::new(Faults::at(n, CallFault::StopAfter)), ..Trial::default() };
        let bench = bench.clone();
        assert!(bench.attempt(kept("new", "x"), Verb::Up, &trial).unwrap().stopped, "nothing was drained");
        let log = yard.log();
        if !log.is_empty() {
            break (bench.crashed(Crash::Process).seeded(2), log);
        }
        n += 1;
    };
    assert_eq!(log, ["drain m1"]);
    bench.clone().at(sunday(12)).up(kept("new", "y"));
    assert_eq!(yard.log(), [""; 0], "all of it is held");
    bench.up_whole(kept("old", "x"));
    let mut log = yard.log();
    log.sort();
    assert_eq!(log, ["uncordon m1", "wake m1"]);
}

/// The same, and the line of what came before is gone by then: it was forgotten at once, and what comes after with it.
#[test]
fn what_is_owed_and_held_is_still_owed_though_the_line_of_what_came_before_is_gone() {
    let program = |say: &'static str, x: &'static str, drain: bool| {
        move |stack: &Stack| {
            stack.maintenance(Windows::new(["Sun 20:00-21:00"])?);
            let shop = stack.provider("shop", Shop::at("shop"));
            let group = stack.rolling("fleet", 1);
            let odd = |name: &str, say: &'static str| Odd { turn: Turn::Interrupt, calls: 2, ..Odd::new(name, say) };
            let x = shop.resource("x").add(odd("x", x));
            let member = shop.resource("m1").rolling(&group).depends_on(&x).add(odd("m1", say));
            if drain {
                group.before(&shop, member.urn(), "drain-m1", Chore { what: "drain m1".into() });
            }
            group.after(&shop, member.urn(), "uncordon-m1", Chore { what: "uncordon m1".into() });
            Ok(())
        }
    };
    let (bench, yard) = yard();
    let bench = bench.at(sunday(20));
    bench.up_whole(program("old", "x", true));
    yard.log();
    let mut n = 0;
    let bench = loop {
        let trial = Trial { faults: Arc::new(Faults::at(n, CallFault::StopAfter)), ..Trial::default() };
        assert!(bench.attempt(program("new", "x", true), Verb::Up, &trial).unwrap().stopped, "nothing was drained");
        if yard.log() == ["drain m1"] {
            break bench.crashed(Crash::Process).seeded(2);
        }
        n += 1;
    };
    bench.clone().at(sunday(12)).up(program("new", "y", false));
    assert_eq!(yard.log(), [""; 0], "all of it is held");
    bench.up_whole(program("old", "x", false));
    assert_eq!(yard.log(), ["uncordon m1"]);
    settled(&bench, program("old", "x", false));
}

/// The member waited for something that its window held. What was saved before it was forgotten, and then to be made again.
#[test]
fn what_was_done_before_a_member_that_is_held_is_not_made_twice() {
    let program = |say: &'static str, x: &'static str| {
        move |stack: &Stack| {
            stack.maintenance(Windows::new(["Sun 20:00-21:00"])?);
            let shop = stack.provider("shop", Shop::at("shop"));
            let group = stack.rolling("fleet", 1);
            let x = shop.resource("x").add(Odd { turn: Turn::Interrupt, calls: 2, ..Odd::new("x", x) });
            let member = Odd { turn: Turn::Interrupt, calls: 2, ..Odd::new("m1", say) };
            let member = shop.resource("m1").rolling(&group).depends_on(&x).add(member);
            group.before(
                &shop,
                member.urn(),
                "save-m1",
                Odd { natural: true, ..Odd::new(&format!("m1 before {say}"), "x") },
            );
            Ok(())
        }
    };
    let (bench, yard) = yard();
    let bench = bench.at(sunday(20));
    bench.up_whole(program("old", "x"));
    yard.log();
    let trial = Trial { faults: Arc::new(Faults::at(2, CallFault::StopBefore)), ..Trial::default() };
    assert!(bench.attempt(program("new", "x"), Verb::Up, &trial).unwrap().stopped);
    assert_eq!(yard.log(), ["create shop/m1 before new"]);
    let bench = bench.crashed(Crash::Process).seeded(2);
    bench.clone().at(sunday(12)).up(program("new", "y"));
    assert_eq!(yard.log(), [""; 0], "all of it is held");
    bench.up_whole(program("new", "y"));
    assert_eq!(yard.log(), ["update shop/x", "ready shop/x", "update shop/m1", "ready shop/m1"]);
    settled(&bench, program("new", "y"));
}

/// One of two that come after was done, the other failed. Both were forgotten with the next interruption, which failed.
#[test]
fn what_comes_after_and_failed_is_owed_until_the_next_interruption_is_sure() {
    let (bench, yard) = yard();
    let bench = bench.at(sunday(20));
    bench.up_whole(kept("old", "x"));
    yard.upset("apply", "wake m1", Upset::Fail(Class::Invalid));
    assert_eq!(failures(&bench.up(kept("new", "x"))), ["create wake-m1: it was upset"]);
    yard.upset("apply", "drain m1", Upset::Fail(Class::Invalid));
    assert_eq!(failures(&bench.up(kept("third", "x"))), ["create drain-m1: it was upset"]);
    yard.log();
    bench.up_whole(kept("new", "x"));
    assert!(yard.log().contains(&"wake m1".to_owned()));
    settled(&bench, kept("new", "x"));
}

#[test]
fn the_plan_shows_gates_and_acts() {
    let fleet = Fleet { acts: true, members: 2, ..Fleet::default() };
    let (bench, _) = applied(fleet);
    let plan = bench.preview(fleet.saying("new").program());
    insta::assert_snapshot!(yard::shown(&plan), @r#"
      shop
        ? check odd:look fleet-0
        + create odd:chore drain-m1
        ~ update odd:thing m1
            interrupts: m1 is away
            /say: "old" -> "new"
        + create odd:chore uncordon-m1
        · forget odd:chore drain-m1
            because the interruption of m1 is over
        · forget odd:chore uncordon-m1
            because the interruption of m1 is over
        ? check odd:look fleet-1
        + create odd:chore drain-m2
        ~ update odd:thing m2
            interrupts: m2 is away
            /say: "old" -> "new"
        + create odd:chore uncordon-m2
        · forget odd:chore drain-m2
            because the interruption of m2 is over
        · forget odd:chore uncordon-m2
            because the interruption of m2 is over
        ? check odd:look fleet-2
    lab: 4 to create, 2 to update, 4 to forget, 3 to check, 0 unchanged.
    "#);
}

/// It died after a member was back in service, and before that was written down; the next run, of another change, died while
/// it drained it again; the third, which takes the change back, took the first uncordon for the one that it owed.
#[test]
fn whatever_is_cut_off_twice_no_member_stays_drained() {
    let fleet = Fleet { members: 1, acts: true, ..Fleet::default() };
    let next = fleet.saying("new");
    let calls = {
        let (bench, _) = applied(fleet);
        let trial = Trial::default();
        assert!(bench.attempt(next.program(), Verb::Up, &trial).unwrap().complete());
        trial.faults.calls()
    };
    for (first, second) in (0..calls).flat_map(|first| (0..calls).map(move |second| (first, second))) {
        let (bench, yard) = applied(fleet);
        let stopped = |bench: Bench, say, n, seed| {
            let trial = Trial { faults: Arc::new(Faults::at(n, CallFault::StopAfter)), ..Trial::default() };
            bench.attempt(fleet.saying(say).program(), Verb::Up, &trial).unwrap();
            bench.crashed(Crash::Process).seeded(seed)
        };
        let bench = stopped(bench, "new", first, 2);
        let bench = stopped(bench, "third", second, 3);
        bench.up_whole(fleet.saying("new").program());
        let mut drained = false;
        let log = yard.log();
        for call in &log {
            drained = (drained || call.starts_with("drain")) && !call.starts_with("uncordon");
        }
        assert!(!drained, "stays drained after calls {first} and {second}: {log:?}");
        settled(&bench, fleet.saying("new").program());
    }
}

/// A member with two things done before it and two after.
fn paired(say: &'static str) -> impl Fn(&Stack) -> Result<(), ProgramError> + Copy {
    move |stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        let group = stack.rolling("fleet", 1);
        let missed = Some("m1 takes its place".to_owned());
        let member = shop.resource("m1").rolling(&group);
        let member = member.add(Odd { turn: Turn::Interrupt, calls: 2, missed, ..Odd::new("m1", say) });
        for name in ["drain m1", "save m1"] {
            group.before(&shop, member.urn(), &name.replace(' ', "-"), Chore { what: name.into() });
        }
        for name in ["uncordon m1", "wake m1"] {
            group.after(&shop, member.urn(), &name.replace(' ', "-"), Chore { what: name.into() });
        }
        Ok(())
    }
}

/// A member with two things done before it and two after: what came after and failed was to be forgotten by both of those
/// before, in one frame, which no state takes; and every other step lost what it had to write.
#[test]
fn with_two_things_before_a_member_what_came_after_is_owed_once() {
    let (bench, yard) = yard();
    bench.up_whole(paired("old"));
    yard.upset("apply", "wake m1", Upset::Fail(Class::Invalid));
    assert_eq!(failures(&bench.up(paired("new"))), ["create wake-m1: it was upset"]);
    yard.log();
    bench.up_whole(paired("third"));
    let log = yard.log();
    for name in ["drain m1", "save m1", "uncordon m1", "wake m1"] {
        assert_eq!(log.iter().filter(|call| *call == name).count(), 1, "{name}: {log:?}");
    }
    settled(&bench, paired("third"));
}

/// A snapshot had been made before a change that was never made; before the next, another one, none was.
#[test]
fn what_bears_another_name_before_the_next_change_is_made() {
    let (bench, yard) = yard();
    bench.up_whole(saved("old"));
    let trial = Trial { faults: Arc::new(Faults::at(2, CallFault::StopBefore)), ..Trial::default() };
    yard.log();
    assert!(bench.attempt(saved("new"), Verb::Up, &trial).unwrap().stopped);
    assert_eq!(yard.log(), ["create shop/m1 before new"]);
    let bench = bench.crashed(Crash::Process).seeded(2);
    bench.up_whole(saved("newer"));
    assert!(yard.log().contains(&"create shop/m1 before newer".to_owned()));
    settled(&bench, saved("newer"));
}

/// A member was drained, or not uncordoned yet, when a run died; the next one took another member away first.
#[test]
fn a_drained_member_is_away_and_comes_first() {
    let fleet = Fleet { members: 2, acts: true, gate: false, ..Fleet::default() };
    let calls = {
        let (bench, _) = applied(fleet);
        let trial = Trial::default();
        assert!(bench.attempt(fleet.saying("new").program(), Verb::Up, &trial).unwrap().complete());
        trial.faults.calls()
    };
    for n in 0..calls {
        let (bench, yard) = applied(fleet);
        let trial = Trial { faults: Arc::new(Faults::at(n, CallFault::StopAfter)), ..Trial::default() };
        bench.attempt(fleet.saying("new").program(), Verb::Up, &trial).unwrap();
        let bench = bench.crashed(Crash::Process).seeded(2);
        bench.up_whole(fleet.saying("third").program());
        let mut away: Vec<String> = Vec::new();
        let log = yard.log();
        for call in &log {
            let (what, name) = call.split_once(' ').unwrap();
            match what {
                "drain" if !away.contains(&name.to_owned()) => away.push(name.to_owned()),
                "uncordon" => away.retain(|other| other != name),
                _ => {}
            }
            assert!(away.len() <= 1, "{away:?} are away, after call {n}: {log:?}");
        }
        settled(&bench, fleet.saying("third").program());
    }
}

/// What is done before a member was held, as what its provider needs was; the member has a window of its own, and was
/// interrupted all the same.
#[test]
fn a_member_waits_for_what_is_done_before_it_where_that_is_held() {
    let program = |say: &'static str| {
        move |stack: &Stack| {
            stack.maintenance(Windows::new(["Sun 20:00-21:00"])?);
            let shop = stack.provider("shop", Shop::at("shop"));
            let base = shop.resource("base").add(Odd { turn: Turn::DeleteFirst, ..Odd::new("base", say) });
            let group = stack.rolling("fleet", 1);
            group.maintenance(Windows::new(["Sun 12:00-13:00"])?);
            let inside = stack.provider("inside", Shop::inside(&base));
            let missed = Some("m1 takes its place".to_owned());
            let member = shop.resource("m1").rolling(&group);
            let member = member.add(Odd { turn: Turn::Interrupt, missed, ..Odd::new("m1", say) });
            group.before(&inside, member.urn(), "drain-m1", Chore { what: "drain m1".into() });
            Ok(())
        }
    };
    let (bench, yard) = yard();
    let bench = bench.at(sunday(12));
    bench.up_whole(program("old"));
    yard.log();
    bench.up(program("new"));
    let log = yard.log();
    assert!(!log.contains(&"update shop/m1".to_owned()), "{log:?}");
}

/// Everything was to be destroyed after a member had been drained, and that it was is forgotten only with the member.
#[test]
fn that_a_member_was_drained_is_known_until_it_is_gone() {
    let fleet = Fleet { members: 1, acts: true, gate: false, ..Fleet::default() };
    let (bench, yard) = applied(fleet);
    let mut n = 0;
    let bench = loop {
        let trial = Trial { faults: Arc::new(Faults::at(n, CallFault::StopAfter)), ..Trial::default() };
        bench.attempt(fleet.saying("new").program(), Verb::Up, &trial).unwrap();
        if yard.log().contains(&"drain m1".to_owned()) {
            break bench.crashed(Crash::Process).seeded(2);
        }
        n += 1;
    };
    let trial = Trial { faults: Arc::new(Faults::at(0, CallFault::StopBefore)), ..Trial::default() };
    bench.attempt(fleet.program(), Verb::Destroy, &trial).unwrap();
    let bench = bench.crashed(Crash::Process).seeded(3);
    bench.up_whole(fleet.program());
    assert_eq!(yard.log(), ["uncordon m1"]);
}

/// Of two things done before a member one had begun once more when the run died. The other was taken for done, as what comes
/// after, which said that it is over, was spent by the first.
#[test]
fn whatever_is_cut_off_everything_is_done_before_a_member_is_interrupted() {
    for n in 0..12 {
        let (bench, yard) = yard();
        bench.up_whole(paired("old"));
        yard.upset("apply", "m1", Upset::Fail(Class::Invalid));
        assert_eq!(failures(&bench.up(paired("new"))), ["update m1: it was upset"]);
        yard.upset("apply", "wake m1", Upset::Fail(Class::Invalid));
        assert_eq!(failures(&bench.up(paired("old"))), ["create wake-m1: it was upset"]);
        let trial = Trial { faults: Arc::new(Faults::at(n, CallFault::StopAfter)), ..Trial::default() };
        bench.attempt(paired("new"), Verb::Up, &trial).unwrap();
        let bench = bench.crashed(Crash::Process).seeded(2);
        bench.up_whole(paired("new"));
        let log = yard.log();
        let mut done: Vec<&str> = Vec::new();
        for call in &log {
            match call.as_str() {
                "drain m1" | "save m1" => done.push(call),
                "uncordon m1" => done.clear(),
                "update shop/m1" => {
                    let both = done.contains(&"drain m1") && done.contains(&"save m1");
                    assert!(both, "only {done:?} before it, after call {n}: {log:?}");
                }
                _ => {}
            }
        }
        settled(&bench, paired("new"));
    }
}

/// What is done before a member was done when the run died, and its line went; what comes after was not done any more.
#[test]
fn what_comes_after_is_owed_though_the_line_of_what_came_before_is_gone() {
    let program = |say: &'static str, before: bool| {
        move |stack: &Stack| {
            let shop = stack.provider("shop", Shop::at("shop"));
            let group = stack.rolling("fleet", 1);
            let missed = Some("m1 takes its place".to_owned());
            let member = shop.resource("m1").rolling(&group);
            let member = member.add(Odd { turn: Turn::Interrupt, missed, ..Odd::new("m1", say) });
            if before {
                group.before(&shop, member.urn(), "drain-m1", Chore { what: "drain m1".into() });
            }
            group.after(&shop, member.urn(), "uncordon-m1", Chore { what: "uncordon m1".into() });
            Ok(())
        }
    };
    let (bench, yard) = yard();
    bench.up_whole(program("old", true));
    yard.upset("apply", "m1", Upset::Fail(Class::Invalid));
    assert_eq!(failures(&bench.up(program("new", true))), ["update m1: it was upset"]);
    yard.log();
    bench.up_whole(program("old", false));
    assert_eq!(yard.log(), ["uncordon m1"]);
    settled(&bench, program("old", false));
}

/// Only the member was asked for: it was interrupted, and what is done after it was left for another time.
#[test]
fn with_a_member_that_is_asked_for_goes_what_is_done_around_it() {
    let fleet = Fleet { members: 1, acts: true, gate: false, ..Fleet::default() };
    let (bench, yard) = applied(fleet);
    yard.upset("apply", "m1", Upset::Fail(Class::Invalid));
    bench.up(fleet.saying("new").program());
    yard.log();
    let trial = Trial { targets: vec!["m1".into()], ..Trial::default() };
    assert!(bench.attempt(fleet.saying("new").program(), Verb::Up, &trial).unwrap().complete());
    assert_eq!(yard.log(), ["update shop/m1", "ready shop/m1", "uncordon m1"]);
}

/// A drained member whose lines are gone is away as well, and goes first.
#[test]
fn a_drained_member_whose_lines_are_gone_goes_first() {
    let fleet = Fleet { members: 3, acts: true, gate: false, ..Fleet::default() };
    let (bench, yard) = applied(fleet);
    // One after the other would be drained: the first fails, and the others are not begun.
    yard.upset("apply", "m1", Upset::Fail(Class::Invalid));
    bench.up(fleet.saying("new").program());
    let drained: Vec<String> = yard.log().into_iter().filter(|call| call.starts_with("drain")).collect();
    assert_eq!(drained, ["drain m1"]);
    let next = move |stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        let group = stack.rolling("fleet", 1);
        for name in &NAMES[1..3] {
            let missed = Some(format!("{name} takes its place"));
            let member = Odd { turn: Turn::Interrupt, calls: 2, missed, ..Odd::new(name, "new") };
            let member = shop.resource(name).rolling(&group).add(member);
            group.before(&shop, member.urn(), &format!("drain-{name}"), Chore { what: format!("drain {name}") });
            group.after(&shop, member.urn(), &format!("uncordon-{name}"), Chore { what: format!("uncordon {name}") });
        }
        Ok(())
    };
    bench.up_whole(next);
    let log = yard.log();
    let at = |what: &str| position(&log, what);
    assert!(at("delete shop/m1") < at("drain m2"), "{log:?}");
}

/// A member with something that is done after its interruption, and nothing before it.
fn checked(say: &'static str, anew: bool) -> impl Fn(&Stack) -> Result<(), ProgramError> + Copy {
    move |stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        let group = stack.rolling("fleet", 1);
        let turn = if anew { Turn::DeleteFirst } else { Turn::Interrupt };
        let member = shop.resource("m1").rolling(&group);
        let member = member.add(Odd { turn, calls: 2, ..Odd::new("m1", say) });
        group.after(&shop, member.urn(), "check-m1", Chore { what: "check m1".into() });
        Ok(())
    }
}

/// Nothing was recorded that would have said that it is owed.
#[test]
fn what_comes_after_and_failed_is_owed_though_nothing_came_before() {
    for anew in [false, true] {
        let (bench, yard) = yard();
        bench.up_whole(checked("old", anew));
        yard.upset("apply", "check m1", Upset::Fail(Class::Invalid));
        assert_eq!(failures(&bench.up(checked("new", anew))), ["create check-m1: it was upset"]);
        yard.log();
        bench.up_whole(checked("new", anew));
        assert_eq!(yard.log().iter().filter(|call| *call == "check m1").count(), 1, "replaced: {anew}");
        settled(&bench, checked("new", anew));
    }
}

/// The run died once the interruption was over, and before what comes after had begun.
#[test]
fn wherever_a_run_dies_what_comes_after_is_done_though_nothing_came_before() {
    for anew in [false, true] {
        let operations = {
            let (bench, _) = yard();
            bench.up_whole(checked("old", anew));
            let bench = bench.crashed(Crash::Process);
            bench.up_whole(checked("new", anew));
            bench.disk().operations().len()
        };
        for n in 0..operations {
            let (bench, yard) = yard();
            bench.up_whole(checked("old", anew));
            let bench = bench.crashed(Crash::Process);
            yard.log();
            bench.disk().inject(n, Fault::StopBefore);
            // What it says of the fault is said elsewhere.
            let _ = bench.attempt(checked("new", anew), Verb::Up, &Trial::default());
            let bench = bench.crashed(Crash::Power).seeded(2);
            bench.up_whole(checked("new", anew));
            let log = yard.log();
            let done = |what: &str| log.iter().filter(|call| *call == what).count();
            assert_eq!(done("check m1"), 1, "replaced: {anew}, operation {n}: {log:?}");
            assert_eq!(log.last().map(String::as_str), Some("check m1"), "replaced: {anew}, operation {n}: {log:?}");
            settled(&bench, checked("new", anew));
        }
    }
}

/// A destroy was cut off, or a run of a program without the member, and then it was wanted after all: with the end of the
/// deletion that they had begun it was forgotten that anything comes after. Then that failed, or the run died.
#[test]
fn what_comes_after_is_owed_to_a_member_whose_deletion_an_earlier_run_began() {
    let gone = |stack: &Stack| {
        stack.rolling("fleet", 1);
        Ok(())
    };
    let begun = |destroyed: bool, fault: CallFault| {
        for n in 0.. {
            let (bench, yard) = yard();
            bench.up_whole(checked("old", true));
            yard.log();
            let trial = Trial { faults: Arc::new(Faults::at(n, fault)), ..Trial::default() };
            let cut_off = match destroyed {
                true => bench.attempt(checked("old", true), Verb::Destroy, &trial),
                false => bench.attempt(gone, Verb::Up, &trial),
            };
            assert!(cut_off.unwrap().stopped, "no deletion was cut off");
            let bench = bench.crashed(Crash::Process).seeded(2);
            if bench.state().open().next().is_some() {
                return (bench, yard);
            }
        }
        unreachable!("every call was tried")
    };
    let checks = |log: &[String]| log.iter().filter(|call| *call == "check m1").count();
    for destroyed in [false, true] {
        for fault in [CallFault::StopBefore, CallFault::StopAfter] {
            let (bench, yard) = begun(destroyed, fault);
            yard.upset("apply", "check m1", Upset::Fail(Class::Invalid));
            assert_eq!(failures(&bench.up(checked("old", true))), ["create check-m1: it was upset"]);
            yard.log();
            bench.up_whole(checked("old", true));
            assert_eq!(yard.log(), ["check m1"], "destroyed: {destroyed}, {fault:?}");
            settled(&bench, checked("old", true));

            let operations = {
                let (bench, _) = begun(destroyed, fault);
                bench.up_whole(checked("old", true));
                bench.disk().operations().len()
            };
            for n in 0..operations {
                let (bench, yard) = begun(destroyed, fault);
                bench.disk().inject(n, Fault::StopBefore);
                // What it says of the fault is said elsewhere.
                let _ = bench.attempt(checked("old", true), Verb::Up, &Trial::default());
                let bench = bench.crashed(Crash::Power).seeded(3);
                bench.up_whole(checked("old", true));
                let log = yard.log();
                assert_eq!(checks(&log), 1, "destroyed: {destroyed}, {fault:?}, operation {n}: {log:?}");
                settled(&bench, checked("old", true));
            }
        }
    }
}

/// What is owed goes along with its member's new name.
#[test]
fn what_comes_after_is_owed_to_a_member_that_is_called_something_else() {
    let (bench, yard) = yard();
    bench.up_whole(checked("old", false));
    yard.upset("apply", "check m1", Upset::Fail(Class::Invalid));
    assert_eq!(failures(&bench.up(checked("new", false))), ["create check-m1: it was upset"]);
    yard.log();
    let renamed = |stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        let group = stack.rolling("fleet", 1);
        let member = shop.resource("first").was("m1").rolling(&group);
        let member = member.add(Odd { turn: Turn::Interrupt, calls: 2, ..Odd::new("m1", "new") });
        group.after(&shop, member.urn(), "check-first", Chore { what: "check first".into() });
        Ok(())
    };
    bench.up_whole(renamed);
    assert_eq!(yard.log(), ["check first"]);
    settled(&bench, renamed);
}

/// A member that stands on `x`, may be interrupted on Sunday evening, and has something done after that where it says so.
fn on_sundays(say: &'static str, check: bool) -> impl Fn(&Stack) -> Result<(), ProgramError> + Copy {
    move |stack: &Stack| {
        stack.maintenance(Windows::new(["Sun 20:00-21:00"])?);
        let shop = stack.provider("shop", Shop::at("shop"));
        let group = stack.rolling("fleet", 1);
        let x = shop.resource("x").add(Odd::new("x", "x"));
        let member = shop.resource("m1").rolling(&group).depends_on(&x);
        let member = member.add(Odd { turn: Turn::Interrupt, calls: 2, ..Odd::new("m1", say) });
        if check {
            group.after(&shop, member.urn(), "check-m1", Chore { what: "check m1".into() });
        }
        Ok(())
    }
}

fn sunday(hour: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(20_779 * 86_400 + hour * 3_600 + 60)
}

/// Of what a destroy takes away, nothing comes after.
#[test]
fn nothing_is_owed_to_what_a_destroy_took_away() {
    let (bench, yard) = yard();
    let bench = bench.at(sunday(20));
    bench.up_whole(on_sundays("old", true));
    yard.upset("delete", "x", Upset::Fail(Class::Invalid));
    assert_eq!(failures(&bench.attempt(on_sundays("old", true), Verb::Destroy, &Trial::default()).unwrap()).len(), 1);
    yard.log();
    bench.up_whole(on_sundays("old", true));
    assert_eq!(yard.log(), ["create shop/m1", "ready shop/m1"]);
}

/// What comes after failed; then the member went with its line, or in a destroy that was cut off, and came again.
#[test]
fn nothing_is_owed_to_a_member_that_went_and_came_again() {
    for destroyed in [false, true] {
        let (bench, yard) = yard();
        let bench = bench.at(sunday(20));
        bench.up_whole(on_sundays("old", true));
        yard.upset("apply", "check m1", Upset::Fail(Class::Invalid));
        assert_eq!(failures(&bench.up(on_sundays("new", true))), ["create check-m1: it was upset"]);
        if destroyed {
            yard.upset("delete", "x", Upset::Fail(Class::Invalid));
            let cut_off = bench.attempt(on_sundays("new", true), Verb::Destroy, &Trial::default()).unwrap();
            assert_eq!(failures(&cut_off).len(), 1);
        } else {
            bench.up_whole(|stack: &Stack| {
                stack.provider("shop", Shop::at("shop")).resource("x").add(Odd::new("x", "x"));
                Ok(())
            });
        }
        yard.log();
        bench.up_whole(on_sundays("new", true));
        assert_eq!(yard.log(), ["create shop/m1", "ready shop/m1"], "destroyed: {destroyed}");
        settled(&bench, on_sundays("new", true));
    }
}

/// What comes after failed, and its line went: the member had no window any more.
#[test]
fn what_is_owed_and_not_declared_any_more_lifts_no_window() {
    let (bench, yard) = yard();
    let bench = bench.at(sunday(20));
    bench.up_whole(on_sundays("old", true));
    yard.upset("apply", "check m1", Upset::Fail(Class::Invalid));
    assert_eq!(failures(&bench.up(on_sundays("new", true))), ["create check-m1: it was upset"]);
    yard.log();
    for check in [false, true] {
        bench.clone().at(sunday(12)).up(on_sundays("third", check));
        assert_eq!(yard.log(), [""; 0], "it is held");
    }
    bench.up_whole(on_sundays("third", true));
    assert_eq!(yard.log(), ["update shop/m1", "ready shop/m1", "check m1"]);
    settled(&bench, on_sundays("third", true));
}

/// It was refused, and had no effect.
#[test]
fn nothing_is_owed_to_a_member_that_was_not_interrupted_after_all() {
    let (bench, yard) = yard();
    let bench = bench.at(sunday(20));
    bench.up_whole(on_sundays("old", true));
    yard.upset("apply", "m1", Upset::Fail(Class::Invalid));
    assert_eq!(failures(&bench.up(on_sundays("wrong", true))), ["update m1: it was upset"]);
    yard.log();
    bench.clone().at(sunday(12)).up(on_sundays("right", true));
    assert_eq!(yard.log(), [""; 0], "it is held");
    settled(&bench, on_sundays("old", true));
}

/// The interruption was begun by a program that had nothing to be done after it.
#[test]
fn what_comes_after_is_owed_to_an_interruption_that_an_older_program_began() {
    let (bench, yard) = yard();
    let bench = bench.at(sunday(20));
    bench.up_whole(on_sundays("old", false));
    yard.log();
    let mut n = 0;
    let bench = loop {
        let trial = Trial { faults: Arc::new(Faults::at(n, CallFault::StopAfter)), ..Trial::default() };
        assert!(bench.attempt(on_sundays("new", false), Verb::Up, &trial).unwrap().stopped, "nothing was interrupted");
        if !yard.log().is_empty() {
            break bench.crashed(Crash::Process).seeded(2);
        }
        n += 1;
    };
    yard.upset("apply", "check m1", Upset::Fail(Class::Invalid));
    assert_eq!(failures(&bench.up(on_sundays("new", true))), ["create check-m1: it was upset"]);
    bench.up_whole(on_sundays("new", true));
    assert_eq!(yard.log(), ["ready shop/m1", "check m1"]);
    settled(&bench, on_sundays("new", true));
}

/// A member, and what it is drained in, which it does not lie in.
fn drained_in_a_box(say: &'static str) -> impl Fn(&Stack) -> Result<(), ProgramError> + Copy {
    move |stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        let around = shop.resource("box").add(Odd::new("box", "here"));
        let inside = stack.provider("inside", Shop::inside(&around));
        let group = stack.rolling("fleet", 1);
        let member = shop.resource("m1").rolling(&group);
        let member = member.add(Odd { turn: Turn::DeleteFirst, ..Odd::new("m1", say) });
        group.before(&inside, member.urn(), "drain-m1", Chore { what: "drain m1".into() });
        group.after(&shop, member.urn(), "uncordon-m1", Chore { what: "uncordon m1".into() });
        Ok(())
    }
}

/// A run died while a member was drained, in something else than the member lies in, and that was taken away. The drain was to
/// be made anew before the member goes, after what was recorded of it was forgotten, and that after the member went.
#[test]
fn a_drain_in_what_has_gone_is_done_anew_before_its_member_goes() {
    for fault in [CallFault::StopBefore, CallFault::StopAfter, CallFault::LoseReply] {
        for n in 0..8 {
            let (bench, yard) = yard();
            bench.up_whole(drained_in_a_box("old"));
            let trial = Trial { faults: Arc::new(Faults::at(n, fault)), refresh: true, ..Trial::default() };
            bench.attempt(drained_in_a_box("new"), Verb::Up, &trial).unwrap();
            let bench = bench.crashed(Crash::Process).seeded(2);
            yard.steal("shop", "box");
            let trial = Trial { refresh: true, ..Trial::default() };
            let report = bench.attempt(drained_in_a_box("new"), Verb::Up, &trial).unwrap();
            assert!(report.complete(), "{fault:?} at call {n}: {report:#?}");
            settled(&bench, drained_in_a_box("new"));
        }
    }
}

/// The same, and the next run died as well, before there was anything to drain it in. That it was drained was forgotten by then.
#[test]
fn that_a_member_was_drained_in_what_has_gone_is_known_until_it_is_drained_anew() {
    let mut drained = 0;
    for (n, m) in (0..8).flat_map(|n| (0..4).map(move |m| (n, m))) {
        let (bench, yard) = yard();
        bench.up_whole(drained_in_a_box("old"));
        yard.log();
        let trial = Trial { faults: Arc::new(Faults::at(n, CallFault::StopAfter)), ..Trial::default() };
        bench.attempt(drained_in_a_box("new"), Verb::Up, &trial).unwrap();
        let bench = bench.crashed(Crash::Process).seeded(2);
        if yard.log() != ["drain m1"] {
            continue;
        }
        drained += 1;
        yard.steal("shop", "box");
        let trial = Trial { faults: Arc::new(Faults::at(m, CallFault::StopBefore)), refresh: true, ..Trial::default() };
        bench.attempt(drained_in_a_box("new"), Verb::Up, &trial).unwrap();
        let bench = bench.crashed(Crash::Process).seeded(3);
        bench.up_whole(drained_in_a_box("old"));
        let log = yard.log();
        assert!(log.contains(&"uncordon m1".to_owned()), "call {n}, then {m}: {log:?}");
        settled(&bench, drained_in_a_box("old"));
    }
    assert!(drained > 0, "it was never stopped there");
}

/// What had been done around a member was declared as a thing of its own, when what it lay in had gone: that could not begin.
#[test]
fn what_was_an_act_and_is_one_no_more_is_made_in_the_next_container() {
    let alone = |stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        let around = shop.resource("box").add(Odd::new("box", "here"));
        let inside = stack.provider("inside", Shop::inside(&around));
        inside.resource("drain-m1").add(Chore { what: "drain m1".into() });
        shop.resource("m1").add(Odd { turn: Turn::DeleteFirst, ..Odd::new("m1", "new") });
        Ok(())
    };
    for n in 0..8 {
        let (bench, yard) = yard();
        bench.up_whole(drained_in_a_box("old"));
        let trial = Trial { faults: Arc::new(Faults::at(n, CallFault::StopAfter)), ..Trial::default() };
        bench.attempt(drained_in_a_box("new"), Verb::Up, &trial).unwrap();
        let bench = bench.crashed(Crash::Process).seeded(2);
        yard.steal("shop", "box");
        let report = bench.attempt(alone, Verb::Up, &Trial { refresh: true, ..Trial::default() }).unwrap();
        assert!(report.complete(), "call {n}: {report:#?}");
        settled(&bench, alone);
    }
}

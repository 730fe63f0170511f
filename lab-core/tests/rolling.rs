//! Rolling groups: at most so many members away at the same time, and only while the gates hold.

mod yard;

use lab_core::execute::disk::Crash;
use lab_core::execute::{CallFault, Faults};
use lab_core::plan::Verb;
use lab_core::testing::Trial;
use lab_core::*;
use std::sync::Arc;
use yard::fleet::{Fleet, NAMES, applied, forget, most_away, position};
use yard::{Look, Odd, Shop, Turn, Upset, failures, settled, yard};

#[test]
fn members_are_away_one_at_a_time_with_the_gate_before_each_and_after_the_last() {
    let (bench, yard) = applied(Fleet::default());
    let next = Fleet::default().saying("new");
    bench.up_whole(next.program());
    let expected = [
        "gate",
        "update shop/m1",
        "ready shop/m1",
        "gate",
        "update shop/m2",
        "ready shop/m2",
        "gate",
        "update shop/m3",
        "ready shop/m3",
        "gate",
    ];
    assert_eq!(yard.log(), expected);
    assert_eq!(most_away(&yard), 1);
    settled(&bench, next.program());
}

#[test]
fn as_many_as_allowed_are_away_at_the_same_time_and_never_more() {
    for (at_most, members) in [(2, 4), (3, 4), (2, 3)] {
        let fleet = Fleet { members, at_most, gate: false, ..Fleet::default() };
        let (bench, yard) = applied(fleet);
        bench.up_whole(fleet.saying("new").program());
        assert_eq!(most_away(&yard), at_most, "{members} members, {at_most} at most");
    }
}

#[test]
fn creation_is_not_rolled() {
    let (bench, yard) = yard();
    bench.up_whole(Fleet { gate: false, ..Fleet::default() }.program());
    let log = yard.log();
    assert!(log[..3].iter().all(|call| call.starts_with("create")), "{log:?}");
}

#[test]
fn a_change_that_interrupts_nothing_is_not_rolled() {
    let fleet = Fleet { turn: Turn::Update, ..Fleet::default() };
    let (bench, yard) = applied(fleet);
    bench.up_whole(fleet.saying("new").program());
    let log = yard.log();
    assert!(log[..3].iter().all(|call| call.starts_with("update")), "{log:?}");
}

#[test]
fn a_member_that_stays_as_it_is_is_not_touched() {
    let (bench, yard) = applied(Fleet { acts: true, ..Fleet::default() });
    let one = Fleet { acts: true, say: ["old", "new", "old", "old"], ..Fleet::default() };
    bench.up_whole(one.program());
    assert_eq!(yard.log(), ["gate", "drain m2", "update shop/m2", "ready shop/m2", "uncordon m2", "gate"]);
    settled(&bench, one.program());
}

#[test]
fn it_stops_at_the_first_failure_and_leaves_the_rest_untouched() {
    let (bench, yard) = applied(Fleet::default());
    yard.upset("apply", "m2", Upset::Fail(Class::Invalid));
    let report = bench.up(Fleet::default().saying("new").program());
    assert_eq!(failures(&report), ["update m2: it was upset"]);
    assert_eq!(yard.log(), ["gate", "update shop/m1", "ready shop/m1", "gate"]);
    assert_eq!(yard.things(), ["shop/m1=new", "shop/m2=old", "shop/m3=old"]);
    let (left, why) = &report.not_started[0];
    assert_eq!(why, "it needs m2, which failed", "{left}");
}

#[test]
fn a_gate_that_does_not_hold_stops_it() {
    let (bench, yard) = applied(Fleet::default());
    yard.upset("ask", "gate", Upset::Fail(Class::Invalid));
    let report = bench.up(Fleet::default().saying("new").program());
    assert_eq!(report.failed.len(), 1);
    assert_eq!(yard.log(), [""; 0]);
    assert_eq!(yard.things(), ["shop/m1=old", "shop/m2=old", "shop/m3=old"]);
}

#[test]
fn a_gate_that_does_not_hold_yet_is_waited_for() {
    let (bench, yard) = applied(Fleet::default());
    (0..3).for_each(|_| yard.upset("ask", "gate", Upset::Fail(Class::Again)));
    bench.up_whole(Fleet::default().saying("new").program());
    assert_eq!(yard.log()[..2], ["gate", "update shop/m1"]);
}

/// A failure leaves a member away; the program changes before the next run.
#[test]
fn what_is_away_already_counts_and_goes_first() {
    let (bench, yard) = applied(Fleet::default());
    let next = Fleet::default().saying("new");
    // The third is changed first, alone, and its last calls fail for good.
    let third = Fleet { say: ["old", "old", "new", "old"], ..Fleet::default() };
    let trial = Trial { faults: Arc::new(Faults::at(3, CallFault::StopAfter)), ..Trial::default() };
    assert!(bench.attempt(third.program(), Verb::Up, &trial).unwrap().stopped);
    let bench = bench.crashed(Crash::Process).seeded(2);
    let away = yard.contents().items[&("shop".to_owned(), "m3".to_owned())].away;
    assert!(away, "{:?}", yard.log());
    yard.log();
    bench.up_whole(next.program());
    let log = yard.log();
    assert_eq!(log[0], "ready shop/m3", "{log:?}");
    assert_eq!(most_away(&yard), 1, "{log:?}");
}

/// Its creation did not end; it was not counted, and another was taken away beside it.
#[test]
fn a_member_that_never_became_ready_is_finished_before_another_is_taken_away() {
    let (bench, yard) = applied(Fleet { members: 2, ..Fleet::default() });
    let third = Fleet::default();
    let trial = Trial { faults: Arc::new(Faults::at(1, CallFault::StopAfter)), ..Trial::default() };
    assert!(bench.attempt(third.program(), Verb::Up, &trial).unwrap().stopped);
    assert_eq!(yard.log(), ["create shop/m3"]);
    let bench = bench.crashed(Crash::Process).seeded(2);
    bench.up_whole(Fleet { say: ["new", "new", "old", "old"], ..third }.program());
    let log = yard.log();
    assert_eq!(log[0], "ready shop/m3", "{log:?}");
}

/// Deleting one to make another in its place takes it away like a reboot does; all of them went at the same time.
#[test]
fn replaced_members_go_one_at_a_time_too() {
    let fleet = Fleet { turn: Turn::DeleteFirst, gate: false, ..Fleet::default() };
    let (bench, yard) = applied(fleet);
    bench.up_whole(fleet.saying("new").program());
    let log = yard.log();
    let about = |name: &str| {
        let at: Vec<usize> = log.iter().enumerate().filter(|(_, call)| call.ends_with(name)).map(|(n, _)| n).collect();
        (at[0], at[at.len() - 1])
    };
    let mut spans: Vec<(usize, usize)> = ["m1", "m2", "m3"].into_iter().map(about).collect();
    spans.sort_unstable();
    assert!(spans.windows(2).all(|pair| pair[0].1 < pair[1].0), "{log:?}");
}

#[test]
fn members_whose_lines_go_leave_one_at_a_time() {
    let fleet = Fleet { members: 4, ..Fleet::default() };
    let (bench, yard) = applied(fleet);
    bench.up_whole(Fleet { members: 2, ..fleet }.program());
    assert_eq!(yard.log(), ["gate", "delete shop/m3", "gate", "delete shop/m4", "gate"]);
}

/// The gate was asked of a member that was half taken away, and would not have held.
#[test]
fn a_member_that_was_being_taken_away_goes_first_and_no_gate_is_asked_of_it() {
    let fleet = Fleet { members: 4, ..Fleet::default() };
    let (bench, yard) = applied(fleet);
    let fewer = Fleet { members: 2, ..fleet };
    // The gate, the look, the deletion.
    let trial = Trial { faults: Arc::new(Faults::at(2, CallFault::StopBefore)), ..Trial::default() };
    assert!(bench.attempt(fewer.program(), Verb::Up, &trial).unwrap().stopped);
    assert_eq!(yard.log(), ["gate"]);
    let bench = bench.crashed(Crash::Process).seeded(2);
    assert_eq!(bench.state().open().count(), 1);
    bench.up_whole(fewer.program());
    assert_eq!(yard.log(), ["delete shop/m3", "gate", "delete shop/m4", "gate"]);
}

/// Destroying keeps to no turns. Where it died and the members are wanted after all, the deletion of each was begun, and only
/// a look tells who has gone: one that still stood was taken away beside it.
#[test]
fn of_members_that_a_destroy_began_to_delete_those_that_stand_come_last() {
    for standing in [vec!["m3"], vec!["m1", "m3"], vec!["m2", "m3"]] {
        let (bench, yard) = applied(Fleet::default());
        for name in &standing {
            yard.upset("delete", name, Upset::Perhaps(Class::Unreachable));
        }
        // Three looks, and the deletion of each is begun; that of the third is not asked for any more.
        let trial = Trial { faults: Arc::new(Faults::at(3, CallFault::StopBefore)), ..Trial::default() };
        assert!(bench.attempt(Fleet::default().program(), Verb::Destroy, &trial).unwrap().stopped);
        let bench = bench.crashed(Crash::Process).seeded(2);
        assert_eq!(bench.state().open().count(), 3);
        let things = yard.things();
        assert_eq!(things, standing.iter().map(|name| format!("shop/{name}=old")).collect::<Vec<_>>());
        forget(&yard);
        yard.contents().upsets.clear();
        bench.up_whole(Fleet::default().program());
        let log = yard.log();
        let mut gone = 3 - standing.len();
        for call in &log {
            assert!(!call.starts_with("delete") || gone == 0, "{standing:?} stood: {log:?}");
            gone = gone + usize::from(call.starts_with("delete")) - usize::from(call.starts_with("ready"));
        }
        settled(&bench, Fleet::default().program());
    }
}

/// They took turns, with a gate between them: it was asked of a cluster that was not there yet.
#[test]
fn members_that_are_still_being_made_go_on_together_and_no_gate_is_asked() {
    let (bench, yard) = yard();
    let fleet = Fleet::default();
    let trial = Trial { faults: Arc::new(Faults::at(4, CallFault::StopAfter)), ..Trial::default() };
    assert!(bench.attempt(fleet.program(), Verb::Up, &trial).unwrap().stopped);
    let made = yard.log();
    assert!(made.iter().all(|call| call.starts_with("create")), "none is ready: {made:?}");
    let bench = bench.crashed(Crash::Process).seeded(2);
    bench.up_whole(fleet.program());
    let log = yard.log();
    assert!(!log.contains(&"gate".to_owned()), "{log:?}");
    settled(&bench, fleet.program());
}

#[test]
fn members_whose_successors_stand_before_they_go_take_no_turns() {
    let fleet = Fleet { turn: Turn::CreateFirst, ..Fleet::default() };
    let (bench, yard) = applied(fleet);
    bench.up_whole(fleet.saying("new").program());
    let log = yard.log();
    assert!(log[..3].iter().all(|call| call.starts_with("create")), "{log:?}");
    assert!(!log.contains(&"gate".to_owned()), "{log:?}");
    settled(&bench, fleet.saying("new").program());
}

/// Between its two halves nothing is recorded of it. It was taken for a new one, and another was taken away beside it.
#[test]
fn a_replacement_that_was_stopped_between_its_halves_is_finished_before_another_is_taken_away() {
    let fleet = Fleet { turn: Turn::DeleteFirst, gate: false, members: 2, ..Fleet::default() };
    let next = fleet.saying("new");
    let mut between = 0;
    for after in 1.. {
        let (bench, yard) = applied(fleet);
        let trial = Trial { ask_after: vec![after], ..Trial::default() };
        if bench.attempt(next.program(), Verb::Up, &trial).unwrap().complete() {
            break;
        }
        between += usize::from(bench.state().records.len() < 2);
        bench.up_whole(next.program());
        let mut missing: Option<String> = None;
        let log = yard.log();
        for call in &log {
            match call.split_once(' ') {
                Some(("delete", name)) => {
                    assert_eq!(missing.replace(name.to_owned()), None, "asked after {after}: {log:?}");
                }
                Some(("ready", name)) if missing.as_deref() == Some(name) => missing = None,
                _ => {}
            }
        }
        settled(&bench, next.program());
    }
    assert!(between > 0, "it was never stopped there");
}

/// What is new goes first, before anybody is taken away, unless it needs what one of them becomes: that was a circle.
#[test]
fn a_new_member_that_needs_what_another_becomes_comes_after_it() {
    let program = |say: &'static str, joins: bool| {
        move |stack: &Stack| {
            let shop = stack.provider("shop", Shop::at("shop"));
            let group = stack.rolling("fleet", 1);
            let member =
                |name: &str, say: Input<String>| Odd { turn: Turn::Interrupt, calls: 2, ..Odd::new(name, say) };
            let first = shop.resource("m1").rolling(&group).add(member("m1", say.into()));
            shop.resource("m2").rolling(&group).add(member("m2", say.into()));
            if joins {
                shop.resource("m3").rolling(&group).add(member("m3", first.output(|first| first.say).into()));
            }
            Ok(())
        }
    };
    let (bench, yard) = yard();
    bench.up_whole(program("old", false));
    yard.log();
    bench.up_whole(program("new", true));
    let log = yard.log();
    let made = log.iter().position(|call| call == "create shop/m3");
    let changed = log.iter().position(|call| call == "ready shop/m1");
    assert!(changed < made, "{log:?}");
    settled(&bench, program("new", true));
}

/// Half made in a first run, inside something that changes in the next, which takes another member's line away: the
/// change waited for that member to go, the member for its turn, and its turn for the change.
#[test]
fn a_container_that_changes_does_not_wait_for_the_turns_of_what_it_holds() {
    let program = |say: &'static str, both: bool| {
        move |stack: &Stack| {
            let container = stack.provider("shop", Shop::at("shop")).resource("box").add(Odd::new("box", say));
            let inside = stack.provider("inside", Shop::inside(&container));
            let group = stack.rolling("fleet", 1);
            for name in ["m1", "m2"].into_iter().take(1 + usize::from(both)) {
                inside.resource(name).rolling(&group).add(Odd { calls: 3, ..Odd::new(name, "x") });
            }
            Ok(())
        }
    };
    let (bench, yard) = yard();
    // The box is looked for and made, m1 is looked for and made, and begins to become ready.
    let trial = Trial { faults: Arc::new(Faults::at(5, CallFault::StopAfter)), ..Trial::default() };
    assert!(bench.attempt(program("old", true), Verb::Up, &trial).unwrap().stopped);
    let bench = bench.crashed(Crash::Process).seeded(2);
    assert_eq!(bench.state().records.len(), 3, "{:?}", yard.log());
    bench.up_whole(program("new", false));
    assert_eq!(yard.things().len(), 2, "{:?}", yard.things());
    settled(&bench, program("new", false));
}

/// Who may turn out to be replaced may be taken away: it went while another one was.
#[test]
fn a_member_that_may_be_replaced_takes_its_turn() {
    let program = |say: &'static str| {
        move |stack: &Stack| {
            let shop = stack.provider("shop", Shop::at("shop"));
            let group = stack.rolling("fleet", 1);
            group.gate(&shop, Look { tolerates: 0 });
            let base = shop.resource("base").add(Odd { turn: Turn::DeleteFirst, ..Odd::new("base", say) });
            for name in &NAMES[..2] {
                let member = Odd { turn: Turn::DeleteFirst, calls: 2, ..Odd::new(name, base.output(|base| base.room)) };
                shop.resource(name).rolling(&group).add(member);
            }
            Ok(())
        }
    };
    let (bench, yard) = yard();
    bench.up_whole(program("old"));
    yard.log();
    bench.up_whole(program("new"));
    let log = yard.log();
    let at = |what: &str| position(&log, what);
    assert!(at("ready shop/m1") < at("delete shop/m2"), "{log:?}");
    settled(&bench, program("new"));
}

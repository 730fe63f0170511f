//! What the simulation found, each as the small life that showed it.

use crate::check::{Living, live, quiet};
use crate::life::{Life, Meddling, Round, Verb};
use crate::program::{Acts, Fleet, Kind, Line, Program, Says};
use crate::world::Mishap;

fn of(lines: impl IntoIterator<Item = Line>) -> Program {
    Program { lines: lines.into_iter().collect(), ..Program::default() }
}

fn up(program: &Program) -> Round {
    quiet(program, Verb::Up)
}

fn killed(program: &Program, call: usize, how: Mishap) -> Round {
    Round { mishaps: vec![(call, how)], ..up(program) }
}

fn check(rounds: impl IntoIterator<Item = Round>, hours: u64) {
    crate::hush();
    let life = Life { seed: 0, rounds: rounds.into_iter().collect(), hours, ends: true };
    if let Err(broken) = crate::watched(&format!("{life:?}"), || live(&life)) {
        panic!("{}: {}{life:?}", broken.property, broken.how);
    }
}

/// Lives these rounds, of which the last has to come to its end: nobody has to change a program for it, or run it again.
fn comes_to_its_end(rounds: impl IntoIterator<Item = Round>) -> Living {
    crate::hush();
    let mut living = Living::new(0);
    let last = rounds
        .into_iter()
        .map(|round| living.round(&round).unwrap_or_else(|broken| panic!("{}: {}", broken.property, broken.how)));
    let last = last.last().expect("there is a round");
    assert!(last.complete(), "{}", last.told());
    living
}

/// A thing was made, and the process died before it could write that down. When the next run found it, its time had
/// passed: it was recorded as it was, overdue, and only the run after that renewed it.
#[test]
fn what_fell_due_while_its_creation_was_cut_off_is_renewed_by_the_next_run() {
    let program = of([Line { expires: Some(3_600), ..Line::new("t") }]);
    check([killed(&program, 1, Mishap::KillAfter)], 2);
}

/// The same of a thing whose creation takes several calls, and had begun.
#[test]
fn what_fell_due_before_it_was_finished_is_renewed_by_the_run_that_finishes_it() {
    let program = of([Line { expires: Some(3_600), steps: 2, ..Line::new("t") }]);
    check([killed(&program, 2, Mishap::KillAfter)], 2);
}

/// It was due, and what it is made from might have changed in the same run. That turned out not to be so, and with that
/// its renewal was dropped.
#[test]
fn what_is_due_is_renewed_though_what_it_is_made_from_might_have_changed() {
    let source = Line { expires: Some(7_200), ..Line::new("source") };
    let user = Line { text: Says::Of("source".into()), expires: Some(3_600), ..Line::new("user") };
    check([up(&of([source, user]))], 3);
}

/// A container was to be replaced, with another one in it that holds something. What was innermost was forgotten at
/// once; then the replacement failed, and what was forgotten was still there.
#[test]
fn what_a_nested_container_holds_is_forgotten_only_once_the_outer_one_is_gone() {
    let on = |tag: &str, on: &str| Line { on: Some(on.into()), ..Line::new(tag) };
    let volume = Line { outside: true, ..on("volume", "nested") };
    let program = of([Line::new("box"), on("nested", "box"), on("deep", "nested"), volume]);
    let mut next = program.clone();
    next.lines[0].stand = Says::plain("there");
    for call in 0..8 {
        check([up(&program), killed(&next, call, Mishap::Fail), up(&program)], 0);
    }
}

/// A thing was made, and the process died before it could write that down. The program was changed: the thing is
/// protected now, and has a reason to be replaced. What was found was recorded as the older program said.
#[test]
fn what_is_recorded_of_something_found_is_what_todays_program_says() {
    let program = of([Line::new("t"), Line::new("u")]);
    let mut next = program.clone();
    next.lines[0].trigger = Some(1);
    next.lines[1].protect = Some(true);
    let destroyed = Round { verb: Verb::Destroy, ..up(&next) };
    for call in 0..6 {
        check([killed(&program, call, Mishap::KillAfter), up(&next), destroyed.clone()], 0);
    }
}

/// A provider that panicked while a question was asked before planning took the whole run down.
#[test]
fn a_provider_that_panics_at_a_question_has_not_answered_and_no_more() {
    let program = of([Line { kind: Kind::Look, ..Line::new("q") }, Line::new("t")]);
    let planted = Round { meddling: vec![Meddling::Plants("q".into())], ..up(&program) };
    check([planted, killed(&program, 0, Mishap::Panic)], 0);
}

/// A thing was renamed in the program, and somebody else had changed it. What a refresh had seen stood under its old
/// name, and was passed over.
#[test]
fn what_was_seen_of_a_thing_goes_along_with_its_new_name() {
    let program = of([Line::new("t")]);
    let mut next = program.clone();
    next.lines[0].name = "t-new".into();
    let changed = Round { refresh: true, meddling: vec![Meddling::Changes("t".into())], ..up(&next) };
    check([up(&program), changed], 0);
}

/// Somebody took a container away, and with it a thing that was protected. Every plan was refused from then on: it
/// would be deleted, though it was gone, and nothing that the program could say lifted that.
#[test]
fn what_is_gone_with_its_container_is_no_longer_protected() {
    let guarded = Line { on: Some("box".into()), protect: Some(true), ..Line::new("guarded") };
    let program = of([Line::new("box"), guarded]);
    let taken = Round { refresh: true, meddling: vec![Meddling::Takes("box".into())], ..up(&program) };
    check([up(&program), taken.clone()], 0);
    check([up(&program), Round { program: of([]), ..taken }], 0);
}

/// A person asked to stop while something was at hand that needs nobody outside. It was offered over and over and never
/// taken, so that a processor was kept busy until the calls in flight were over; on a clock that only goes on when nobody
/// is busy, for ever.
#[test]
fn what_is_at_hand_when_somebody_asks_to_stop_is_left_alone() {
    let bundle = Line { kind: Kind::Bundle, ..Line::new("bundle") };
    let user = Line { secret: Some(Says::Of("bundle".into())), ..Line::new("user") };
    let program = of([Line::new("slow"), bundle, user]);
    for asks in 1..8 {
        for latency in [0, 1, 3, 5, 7, 9, 11, 13] {
            let stopped = Round { asks: vec![asks], parallel: 16, latency, ..quiet(&program, Verb::Destroy) };
            check([up(&program), stopped], 0);
        }
    }
}

/// What is replaced waited for the deletion of what needs it; that waited for who lets go of it; and who lets go of it needs
/// the next one of what is replaced. Refused as a circle, though each line of it was an everyday change.
#[test]
fn who_lets_go_only_with_what_is_made_anew_is_not_waited_for() {
    let of_text = |tag: &str, of: &str| Line { text: Says::Of(of.into()), ..Line::new(tag) };
    let user = Line { secret: Some(Says::Of("base".into())), ..of_text("user", "middle") };
    let program = of([Line::new("base"), of_text("middle", "base"), user]);
    let mut next = program.clone();
    next.lines[0].trigger = Some(1);
    next.remove("middle");
    check([up(&program), up(&next)], 0);
    for call in 0..8 {
        check([up(&program), killed(&next, call, Mishap::KillAfter)], 0);
    }
}

/// A machine was taken away while its line was protected, and the line went after it. It was forgotten, but what it had
/// held was to be deleted by call, in a place that nobody could enter: no run came to an end any more.
#[test]
fn what_a_protected_container_held_is_forgotten_with_it_once_that_is_gone() {
    let inside = Line { on: Some("box".into()), ..Line::new("inside") };
    for (protect, retain) in [(Some(true), false), (None, true)] {
        let around = Line { protect, retain, ..Line::new("box") };
        let program = of([around, inside.clone()]);
        let taken = Round { refresh: true, meddling: vec![Meddling::Takes("box".into())], ..up(&of([])) };
        check([up(&program), taken], 0);
    }
}

/// A container went with its line, and another one was to hold what it had held. That was to be deleted by call first, in a
/// container that was gone already, as somebody had taken it away, or as its own deletion had been cut off.
#[test]
fn what_a_container_held_goes_with_it_though_another_one_is_to_hold_it() {
    let inside = Line { on: Some("box".into()), ..Line::new("inside") };
    let marked = Line { marked: true, ..Line::new("box") };
    let program = of([marked.clone(), inside.clone()]);
    let next = of([Line { name: "box-2".into(), ..marked }, inside]);
    let taken = Round { meddling: vec![Meddling::Takes("box".into())], ..up(&next) };
    check([up(&program), taken], 0);
    let destroyed = |call| Round { verb: Verb::Destroy, ..killed(&program, call, Mishap::KillAfter) };
    for call in 0..6 {
        check([up(&program), destroyed(call), up(&next)], 0);
    }
}

/// What has effects outside of its container could not be reached, and was given up as left behind; then its container
/// could not be reached either, and stood. The next run found a stranger in it, with our own mark.
#[test]
fn nothing_is_left_behind_whose_container_stands() {
    let volume = Line { outside: true, on: Some("box".into()), ..Line::new("volume") };
    let program = of([Line::new("box"), volume]);
    let unreachable = Round { cut_off: Some("rack".into()), ..quiet(&program, Verb::Destroy) };
    check([up(&program), unreachable], 0);
}

/// A creation was cut off. What it was wired to is made anew, so that it has to be another thing: only a second run did
/// that, as the first had not shown it.
#[test]
fn what_was_begun_may_turn_out_to_be_replaced() {
    let program = of([Line::new("base"), Line { stand: Says::Of("base".into()), ..Line::new("user") }]);
    let mut next = program.clone();
    next.lines[0].text = Says::plain("text 1 of base");
    next.lines[0].trigger = Some(1);
    for call in 0..6 {
        comes_to_its_end([killed(&program, call, Mishap::KillAfter), up(&next)]);
    }
}

/// Somebody had changed a thing, and a refresh recorded that. The next plan passed it over, and brought what is made from it
/// up to date with what somebody else had said.
#[test]
fn what_a_refresh_has_recorded_is_put_right_by_the_next_run() {
    let program = of([Line::new("base"), Line { text: Says::Of("base".into()), ..Line::new("user") }]);
    let changed = Round { meddling: vec![Meddling::Changes("base".into())], ..quiet(&program, Verb::Refresh) };
    let living = comes_to_its_end([up(&program), changed, up(&program)]);
    let effects = &living.lab.world.contents().effects;
    let done: Vec<(&str, &str)> = effects.iter().map(|effect| (effect.tag.as_str(), effect.text.as_str())).collect();
    assert_eq!(done, [("base", "text of base")]);
}

/// A part was asked for that had been taken away. With it came who had needed it and goes, and with that who no longer needs
/// that: what is gone already waits for nobody.
#[test]
fn what_is_gone_already_waits_for_nobody() {
    let after = Line { after: Some("base".into()), ..Line::new("after") };
    let user = Line { text: Says::Of("after".into()), ..Line::new("user") };
    let program = of([Line::new("base"), after, user]);
    let mut next = program.clone();
    next.remove("after");
    let taken = Round { meddling: vec![Meddling::Takes("base".into())], refresh: true, ..up(&next) };
    check([up(&program), Round { verb: Verb::Target(vec!["base".into()]), ..taken }], 0);
}

/// A thing with effects outside had been superseded, and was still there when its container went: the way to it went with
/// that.
#[test]
fn what_lost_its_name_is_deleted_before_what_contains_it() {
    let volume = Line { outside: true, marked: true, lingers: 4, on: Some("box".into()), ..Line::new("volume") };
    let program = of([Line::new("box"), volume]);
    let mut next = program.clone();
    next.lines[1].stand = Says::plain("there");
    next.lines[1].lingers = 0;
    for call in 0..8 {
        check([up(&program), killed(&next, call, Mishap::KillAfter), up(&of([]))], 0);
    }
}

/// The deletion of something unfinished was cut off, and a line of another name wants what bears its identity. That was
/// made, and then deleted for the one of before.
#[test]
fn what_bears_the_identity_of_something_unfinished_that_goes_is_that() {
    let thing = Line { steps: 2, lingers: 2, unmarkable: true, ..Line::new("t") };
    let program = of([thing.clone()]);
    let renamed = of([Line { part: true, ..thing }]);
    for asks in 1..6 {
        for call in 0..6 {
            let stopped = Round { asks: vec![asks], ..up(&program) };
            check([stopped, killed(&of([]), call, Mishap::KillAfter), up(&renamed)], 0);
        }
    }
}

/// What a thing says is left to others, and others said something. A run that saw this went on with what was recorded for
/// whatever is made from it.
#[test]
fn what_is_made_from_something_is_made_from_what_was_seen_of_it() {
    let base = Line { ignore: true, ..Line::new("base") };
    let program = of([base, Line { text: Says::Of("base".into()), ..Line::new("user") }]);
    let changed = Round { refresh: true, meddling: vec![Meddling::Changes("base".into())], ..up(&program) };
    check([up(&program), changed], 0);
}

/// A member was made anew, and what comes after failed before it was begun. The next time, it was taken away without being
/// drained: that was done, as far as was recorded, around the time before.
#[test]
fn a_member_that_is_whole_is_drained_before_it_is_taken_away_again() {
    let fleet = Fleet { at_most: 2, gate: false, acts: Acts::Around };
    let program = |stand: &str, trigger: Option<u64>| {
        let member = Line { stand: Says::plain(stand), trigger, fleet: Some(0), ..Line::new("m") };
        Program { fleets: vec![fleet.clone()], ..of([member]) }
    };
    for call in 0..16 {
        let stopped = killed(&program("there", None), call, Mishap::Panic);
        check([up(&program("here", None)), stopped, up(&program("there", Some(1)))], 0);
    }
}

/// Something with effects outside had been superseded in a container that is replaced as well: its deletion waited for its
/// successor, that for the next container, and that for its deletion.
#[test]
fn what_lost_its_name_goes_with_a_container_that_makes_room() {
    let volume = Line { outside: true, marked: true, steps: 2, on: Some("box".into()), ..Line::new("volume") };
    let program = of([Line::new("box"), volume]);
    let mut next = program.clone();
    next.lines[1].stand = Says::plain("there");
    let mut last = next.clone();
    last.lines[0].stand = Says::plain("there");
    for call in 0..8 {
        check([up(&program), killed(&next, call, Mishap::KillAfter), up(&last)], 0);
    }
}

/// Who needed what lies inside a container that is replaced is superseded, and needs that container itself.
#[test]
fn who_is_superseded_with_what_makes_room_is_not_waited_for() {
    let inside = Line { on: Some("box".into()), ..Line::new("inside") };
    let user = |of: &str, stand: &str| Line {
        text: Says::Of(of.into()),
        stand: Says::plain(stand),
        marked: true,
        ..Line::new("user")
    };
    let program = of([Line::new("box"), inside, user("inside", "here")]);
    let next = of([Line { trigger: Some(1), ..Line::new("box") }, user("box", "there")]);
    comes_to_its_end([up(&program), up(&next)]);
}

/// A container hands its number on to another one, and who needed what it held needs that.
#[test]
fn who_lets_go_of_what_is_inside_does_not_hold_up_a_number() {
    let inside = Line { on: Some("box".into()), ..Line::new("inside") };
    let user = |of: &str| Line { text: Says::Of(of.into()), ..Line::new("user") };
    let program = of([Line { number: Some(5), ..Line::new("box") }, inside, user("inside")]);
    let next = of([Line { number: Some(5), ..Line::new("other") }, user("other")]);
    comes_to_its_end([up(&program), up(&next)]);
}

/// Who needed something that goes is superseded, and the next of it lies in what makes room: that waited for what goes, which
/// waited for who was superseded.
#[test]
fn what_goes_does_not_wait_for_who_is_superseded_once_room_is_made() {
    let source = Line { text: Says::Of("box".into()), ..Line::new("source") };
    let inside = Line { on: Some("box".into()), ..Line::new("inside") };
    let user = |stand| Line { text: Says::Of("inside".into()), stand, marked: true, ..Line::new("user") };
    let program = of([Line::new("box"), source, inside.clone(), user(Says::Of("source".into()))]);
    let room = Line { stand: Says::plain("there"), ..Line::new("box") };
    let next = of([room, inside, user(Says::plain("there"))]);
    comes_to_its_end([up(&program), up(&next)]);
}

/// A run died between the two halves of a member's replacement, and the member was called something else by then: nothing
/// recorded of it could be moved, and it stayed drained.
#[test]
fn a_member_that_is_called_something_else_between_its_halves_is_not_left_drained() {
    for acts in [Acts::Around, Acts::Twice, Acts::After] {
        let program = |stand: &str, name: &str| {
            let was = (name != "m").then(|| "m".to_owned()).into_iter().collect();
            let member = Line { name: name.into(), was, stand: Says::plain(stand), fleet: Some(0), ..Line::new("m") };
            Program { fleets: vec![Fleet { at_most: 1, gate: false, acts }], ..of([member]) }
        };
        for call in 0..12 {
            for how in [Mishap::KillBefore, Mishap::KillAfter] {
                let stopped = killed(&program("there", "m"), call, how);
                let again = killed(&program("there", "other"), 1, how);
                check([up(&program("here", "m")), stopped, again, up(&program("there", "other"))], 0);
            }
        }
    }
}

/// A run was stopped once a container had gone, and before what is retained in it was forgotten: that was taken to stay, and
/// what it held to be there.
#[test]
fn what_is_retained_in_what_has_gone_is_known_to_be_gone() {
    let kept = Line { on: Some("box".into()), retain: true, ..Line::new("kept") };
    let deep = Line { on: Some("kept".into()), ..Line::new("deep") };
    let program = of([Line::new("box"), kept, deep]);
    let next = of([Line::new("other")]);
    for after in 0..12 {
        check([up(&program), Round { asks: vec![after], ..up(&next) }], 0);
    }
    for call in 0..6 {
        check([up(&program), killed(&next, call, Mishap::KillAfter)], 0);
    }
}

/// What comes after a member's interruption was begun, and what both lie in was taken away. The act was to be made anew in the
/// next container, after what was recorded of it was forgotten, and that after what is owed was done: a circle that nobody
/// could get out of.
#[test]
fn what_is_owed_in_a_container_that_has_gone_is_done_in_the_next_one() {
    for acts in [Acts::Around, Acts::Twice, Acts::After] {
        let program = |text: &str| {
            let member = Line { on: Some("box".into()), text: Says::plain(text), fleet: Some(0), ..Line::new("m") };
            Program { fleets: vec![Fleet { at_most: 1, gate: false, acts }], ..of([Line::new("box"), member]) }
        };
        for call in 0..10 {
            let stopped = killed(&program("there"), call, Mishap::KillAfter);
            let taken = Round { refresh: true, meddling: vec![Meddling::Takes("box".into())], ..up(&program("there")) };
            comes_to_its_end([up(&program("here")), stopped, taken]);
        }
    }
}

/// What somebody needs no more was deleted though they are held by a maintenance window: they went without it until that opened.
/// They could not be waited for, as what they need instead comes after the deletion.
#[test]
fn what_is_needed_until_a_window_opens_stays_until_then() {
    let of_text = |tag: &str, of: &str| Line { text: Says::Of(of.into()), ..Line::new(tag) };
    let user = Line { after: Some("old".into()), ..Line::new("user") };
    let program = Program { window: Some(8), ..of([Line::new("base"), of_text("old", "base"), user]) };
    let base = Line { stand: Says::plain("there"), ..Line::new("base") };
    let next = of([base, of_text("new", "base"), of_text("user", "new")]);
    let next = Program { window: Some(8), ..next };
    for hours in 0..24 {
        check([up(&program), Round { hours, ..up(&next) }], 24);
    }
}

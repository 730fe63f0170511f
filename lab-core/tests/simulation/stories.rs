//! What the simulation found, each as the small life that showed it.

use crate::check::{live, quiet};
use crate::life::{Life, Meddling, Round, Verb};
use crate::program::{Kind, Line, Program, Says};
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

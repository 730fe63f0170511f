//! Moves: what goes by another name is the same thing, found by its identity first.

mod yard;

use lab_core::execute::Store;
use lab_core::*;
use yard::{Odd, Shop, problems, settled, steps, yard};

/// Things on one shop: the name in the program, what it was, the thing.
type Line = (&'static str, &'static [&'static str], &'static str);

fn program(lines: &'static [Line]) -> impl Fn(&Stack) -> Result<(), ProgramError> + Copy {
    move |stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        for (name, was, thing) in lines {
            let declare = was.iter().fold(shop.resource(name), |declare, was| declare.was(was));
            let natural = !thing.starts_with('?');
            declare.add(Odd { natural, ..Odd::new(thing, *thing) });
        }
        Ok(())
    }
}

fn moves(plan: &plan::Plan) -> Vec<String> {
    plan.moves.iter().map(|(from, to)| format!("{} -> {}", from.short(), to.short())).collect()
}

/// Applies one program, then another, and expects nothing but moves.
fn check(before: &'static [Line], after: &'static [Line], expected: &[&str]) {
    let (bench, yard) = yard();
    bench.up_whole(program(before));
    yard.log();
    let plan = bench.preview(program(after));
    assert_eq!((moves(&plan), steps(&plan)), (expected.iter().map(|step| (*step).to_owned()).collect(), vec![]));
    bench.up_whole(program(after));
    assert_eq!(yard.log(), [""; 0], "a move makes no call");
    settled(&bench, program(after));
}

#[test]
fn a_thing_under_another_name_is_moved_by_its_identity() {
    check(&[("a", &[], "one")], &[("b", &[], "one")], &["a -> b"]);
}

#[test]
fn two_things_swap_names() {
    check(&[("a", &[], "one"), ("b", &[], "two")], &[("a", &[], "two"), ("b", &[], "one")], &["a -> b", "b -> a"]);
}

#[test]
fn three_things_move_round() {
    check(
        &[("a", &[], "one"), ("b", &[], "two"), ("c", &[], "three")],
        &[("a", &[], "three"), ("b", &[], "one"), ("c", &[], "two")],
        &["a -> b", "b -> c", "c -> a"],
    );
}

#[test]
fn what_has_no_identity_is_found_by_the_names_it_had() {
    check(&[("a", &[], "?one")], &[("b", &["ancient", "a"], "?one")], &["a -> b"]);
}

#[test]
fn its_own_name_counts_more_than_one_it_had() {
    check(&[("a", &[], "?one"), ("b", &[], "?two")], &[("a", &[], "?one"), ("b", &["a"], "?two")], &[]);
}

/// The line `b` kept what it had, as its own name counts more: what was `a` was deleted, and `c` was made anew.
#[test]
fn names_that_are_handed_on_in_a_chain_move_all_of_it() {
    check(
        &[("a", &[], "?one"), ("b", &[], "?two")],
        &[("b", &["a"], "?one"), ("c", &["b"], "?two")],
        &["a -> b", "b -> c"],
    );
    check(
        &[("a", &[], "?one"), ("b", &[], "?two"), ("c", &[], "?three")],
        &[("d", &["c"], "?three"), ("c", &["b"], "?two"), ("b", &["ancient", "a"], "?one")],
        &["a -> b", "b -> c", "c -> d"],
    );
}

#[test]
fn a_name_is_not_handed_on_by_what_gets_none_for_it() {
    let (bench, _) = yard();
    let before = program(&[("a", &[], "?one"), ("b", &[], "?two")]);
    bench.up_whole(before);
    let plan = bench.preview(program(&[("a", &[], "?one"), ("b", &["a"], "?two"), ("c", &["b"], "?three")]));
    assert_eq!((moves(&plan), steps(&plan)), (vec![], vec!["create c".to_owned()]));
}

/// The line that had been `a` took over what the line `a` still meant, when it came first.
#[test]
fn a_name_that_was_is_taken_over_only_from_what_nobody_means_any_more() {
    let (bench, _) = yard();
    bench.up_whole(program(&[("a", &[], "?one")]));
    let plan = bench.preview(program(&[("a", &[], "?one"), ("b", &["a"], "?two")]));
    assert_eq!((moves(&plan), steps(&plan)), (vec![], vec!["create b".to_owned()]));
    let plan = bench.preview(program(&[("b", &["a"], "?two"), ("a", &[], "?one")]));
    assert_eq!((moves(&plan), steps(&plan)), (vec![], vec!["create b".to_owned()]), "whatever the order of the lines");
}

/// Identities over the whole graph first: the machine called `b` becomes `a`, a new one comes under `b`, and what was
/// called `a` has no line any more.
#[test]
fn a_name_that_is_taken_over_leaves_its_old_holder_to_be_deleted() {
    let (bench, yard) = yard();
    bench.up_whole(program(&[("a", &[], "one"), ("b", &[], "two")]));
    yard.log();
    let after = program(&[("a", &[], "two"), ("b", &[], "three")]);
    let plan = bench.preview(after);
    assert!(moves(&plan).contains(&"b -> a".to_owned()), "{:?}", moves(&plan));
    bench.up_whole(after);
    let mut log = yard.log();
    log.sort();
    assert_eq!(log, ["create shop/three", "delete shop/one"]);
    assert_eq!(yard.things(), ["shop/three=three", "shop/two=two"]);
    settled(&bench, after);
}

#[test]
fn a_move_takes_its_dependents_and_what_it_contains_along() {
    let (bench, yard) = yard();
    let named = |name: &'static str| {
        move |stack: &Stack| {
            let shop = stack.provider("shop", Shop::at("shop"));
            let container = shop.resource(name).add(Odd::new("box", "box"));
            let inside = stack.provider("inside", Shop::inside(&container));
            inside.resource("child").add(Odd::new("child", container.output(|container| container.room)));
            Ok(())
        }
    };
    bench.up_whole(named("a"));
    yard.log();
    bench.up_whole(named("b"));
    assert_eq!(yard.log(), [""; 0]);
    settled(&bench, named("b"));
    assert!(bench.destroy(named("b")).complete());
    assert_eq!(yard.things(), [""; 0]);
}

#[test]
fn all_moves_are_one_record() {
    let (bench, _) = yard();
    bench.up_whole(program(&[("a", &[], "one"), ("b", &[], "two")]));
    let plan = bench.preview(program(&[("a", &[], "two"), ("b", &[], "one")]));
    let mut state = bench.state();
    state.apply(&Event::Moved { moves: plan.moves.clone() }).unwrap();
    assert!(state.apply(&Event::Moved { moves: plan.moves[..1].to_vec() }).is_err(), "half of a swap is no legal move");
    bench.up_whole(program(&[("a", &[], "two"), ("b", &[], "one")]));
    let text = String::from_utf8(bench.disk().get("lab.journal").unwrap()).unwrap();
    assert_eq!(text.matches("\"event\":\"moved\"").count(), 1, "{text}");
    let _ = Store::look(bench.disk(), "lab", &execute::KeySource::Given(execute::seal::Keys::fixed())).unwrap();
}

/// A natural identity is a claim. One line took the record, the other was to create what was there already.
#[test]
fn two_lines_for_one_thing_are_a_problem_not_a_move() {
    let (bench, _) = yard();
    bench.up_whole(program(&[("a", &[], "one")]));
    let plan = bench.preview(program(&[("a", &[], "one"), ("b", &[], "one")]));
    insta::assert_snapshot!(problems(&plan).join("\n"), @"odd:thing one is declared as a at lab-core/tests/moves.rs and as b at lab-core/tests/moves.rs; remove one of the two");
}

#[test]
fn a_moved_thing_may_change_in_the_same_run() {
    let (bench, yard) = yard();
    bench.up_whole(program(&[("a", &[], "one")]));
    yard.log();
    let after = |stack: &Stack| {
        stack.provider("shop", Shop::at("shop")).resource("b").add(Odd::new("one", "louder"));
        Ok(())
    };
    let plan = bench.preview(after);
    assert_eq!((moves(&plan), steps(&plan)), (vec!["a -> b".to_owned()], vec!["update b".to_owned()]));
    bench.up_whole(after);
    assert_eq!(yard.things(), ["shop/one=louder"]);
}

/// Its container was looked for under the name that it had: the child was taken for one whose container is gone, and
/// forgotten.
#[test]
fn what_goes_out_of_a_moved_container_is_deleted_by_call() {
    let (bench, yard) = yard();
    let named = |name: &'static str, child: bool| {
        move |stack: &Stack| {
            let container = stack.provider("shop", Shop::at("shop")).resource(name).add(Odd::new("box", "box"));
            let inside = stack.provider("inside", Shop::inside(&container));
            if child {
                inside.resource("child").add(Odd::new("child", "x"));
            }
            Ok(())
        }
    };
    bench.up_whole(named("a", true));
    yard.log();
    bench.up_whole(named("b", false));
    assert_eq!(yard.log(), ["delete shop/box#1/child"]);
    settled(&bench, named("b", false));
}

#[test]
fn an_identity_that_nothing_recorded_has_falls_back_to_the_names() {
    let (bench, yard) = yard();
    bench.up_whole(program(&[("a", &[], "one")]));
    yard.log();
    let after = program(&[("b", &["a"], "two")]);
    let plan = bench.preview(after);
    let replaced = vec!["delete b".to_owned(), "create b".to_owned()];
    assert_eq!((moves(&plan), steps(&plan)), (vec!["a -> b".to_owned()], replaced));
    bench.up_whole(after);
    assert_eq!(yard.log(), ["delete shop/one", "create shop/two"]);
    settled(&bench, after);
}

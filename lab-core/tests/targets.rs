//! Targets: a selection that is closed, so that a part leaves a state as sound as the whole.

mod yard;

use lab_core::plan::{Observations, Verb};
use lab_core::testing::{Bench, Trial};
use lab_core::*;
use yard::{Odd, Shop, Turn, problems, settled, steps, yard};

struct Pair;

impl Component<Shop> for Pair {
    type Handle = Handle<yard::OddOutputs>;
    fn declare(self, scope: &Scope<'_, Shop>) -> Self::Handle {
        scope.resource("left").add(Odd::new("left", "x"));
        scope.resource("right").add(Odd::new("right", "x"))
    }
}

fn program(say: &'static str) -> impl Fn(&Stack) -> Result<(), ProgramError> + Copy {
    move |stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        let base = shop.resource("base").add(Odd { turn: Turn::DeleteFirst, ..Odd::new("base", say) });
        shop.resource("wired").add(Odd::new("wired", base.output(|base| base.room)));
        shop.resource("alone").add(Odd::new("alone", say));
        shop.component("pair").add(Pair);
        stack.provider("inside", Shop::inside(&base)).resource("child").add(Odd::new("child", "x"));
        Ok(())
    }
}

fn planned(bench: &Bench, say: &'static str, targets: &[&str]) -> Vec<String> {
    steps(&bench.plan(program(say), Verb::Up, &Observations::default(), targets))
}

#[test]
fn what_is_selected_comes_with_everything_it_needs_and_nothing_else() {
    let (bench, _) = yard();
    assert_eq!(planned(&bench, "a", &["wired"]), ["create base", "create wired"]);
    assert_eq!(planned(&bench, "a", &["alone"]), ["create alone"]);
    assert_eq!(planned(&bench, "a", &["child"]), ["create base", "create child"]);
    assert_eq!(planned(&bench, "a", &["pair"]), ["create pair/left", "create pair/right"], "a whole component");
    assert_eq!(planned(&bench, "a", &["pair/left"]), ["create pair/left"]);
    assert_eq!(planned(&bench, "a", &["lab::shop::::odd:thing::alone"]), ["create alone"]);
    assert_eq!(planned(&bench, "a", &["odd:thing alone"]), ["create alone"]);
}

#[test]
fn a_part_and_then_the_rest_is_the_whole() {
    let (bench, yard) = yard();
    let trial = |targets: &[&str]| Trial { targets: targets.iter().map(|t| (*t).into()).collect(), ..Trial::default() };
    assert!(bench.attempt(program("a"), Verb::Up, &trial(&["wired"])).unwrap().complete());
    assert_eq!(yard.log(), ["create shop/base", "create shop/wired"]);
    bench.up_whole(program("a"));
    settled(&bench, program("a"));
    assert_eq!(yard.log().len(), 4);
}

/// Of a container that is replaced only the container was selected: its children were forgotten and not made again, and
/// what was wired to it kept the address of one that was gone.
#[test]
fn selecting_a_replacement_selects_what_it_takes_down() {
    let (bench, yard) = yard();
    bench.up_whole(program("a"));
    yard.log();
    let planned = planned(&bench, "b", &["base"]);
    for step in ["delete base", "create base", "forget child", "create child"] {
        assert!(planned.contains(&step.to_owned()), "{step} in {planned:?}");
    }
    assert!(!planned.iter().any(|step| step.contains("alone") || step.contains("pair")), "{planned:?}");
    let trial = Trial { targets: vec!["base".into()], ..Trial::default() };
    assert!(bench.attempt(program("b"), Verb::Up, &trial).unwrap().complete());
    bench.up_whole(program("b"));
    settled(&bench, program("b"));
}

/// The successor was selected, and the one that it takes the place of was left standing beside it.
#[test]
fn selecting_what_needs_a_successor_selects_the_end_of_the_one_before() {
    let (bench, yard) = yard();
    let program = |say: &'static str| {
        move |stack: &Stack| {
            let shop = stack.provider("shop", Shop::at("shop"));
            let twin = Odd { natural: false, turn: Turn::CreateFirst, ..Odd::new("twin", say) };
            let twin = shop.resource("twin").add(twin);
            shop.resource("user").add(Odd::new("user", twin.output(|twin| twin.room)));
            Ok(())
        }
    };
    bench.up_whole(program("a"));
    let mut planned = steps(&bench.plan(program("b"), Verb::Up, &Observations::default(), &["user"]));
    planned.sort();
    assert_eq!(planned, ["delete twin", "supersede twin", "update user"]);
    let trial = Trial { targets: vec!["user".into()], ..Trial::default() };
    assert!(bench.attempt(program("b"), Verb::Up, &trial).unwrap().complete());
    assert_eq!(yard.things().len(), 2, "{:?}", yard.things());
    settled(&bench, program("b"));
}

/// What it held was not selected with it, and stayed in the state though it was gone.
#[test]
fn deleting_one_selects_whoever_has_to_let_go_first() {
    let (bench, yard) = yard();
    bench.up_whole(program("a"));
    let plan = bench.plan(program("a"), Verb::Destroy, &Observations::default(), &["base"]);
    let mut all = steps(&plan);
    all.sort();
    assert_eq!(all, ["delete base", "delete wired", "forget child"]);
    yard.log();
    let trial = Trial { targets: vec!["base".into()], ..Trial::default() };
    assert!(bench.attempt(program("a"), Verb::Destroy, &trial).unwrap().complete());
    assert_eq!(yard.log(), ["delete shop/wired", "delete shop/base"]);
    bench.up_whole(program("a"));
    settled(&bench, program("a"));
}

#[test]
fn a_target_that_is_not_there_is_a_problem_with_a_suggestion() {
    let (bench, _) = yard();
    let plan = bench.plan(program("a"), Verb::Up, &Observations::default(), &["wierd", "alone", "pear/left"]);
    insta::assert_snapshot!(problems(&plan).join("\n"), @r#"
    there is no "pear/left" to target; did you mean "pair/left"? `state list` shows what there is
    there is no "wierd" to target; did you mean "wired"? `state list` shows what there is
    "#);
    let half = bench.plan(program("a"), Verb::Up, &Observations::default(), &["al", "pai"]);
    assert_eq!(problems(&half).len(), 2, "half a name is nobody's: {:?}", problems(&half));
}

#[test]
fn a_part_does_not_settle_the_outputs_of_the_stack() {
    let (bench, _) = yard();
    let returning = |stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        let a = shop.resource("a").add(Odd::new("a", "x"));
        shop.resource("b").add(Odd::new("b", "x"));
        Ok(a.output(|a| a.room))
    };
    let trial = Trial { targets: vec!["b".into()], ..Trial::default() };
    assert!(bench.attempt(returning, Verb::Up, &trial).unwrap().complete());
    assert!(bench.state().outputs.is_null());
    bench.up_whole(returning);
    assert_eq!(bench.state().outputs, "shop/a#2");
}

#[test]
fn a_part_notes_nothing_of_the_rest() {
    let (bench, _) = yard();
    let program = |say: &'static str, guard: bool| {
        move |stack: &Stack| {
            let shop = stack.provider("shop", Shop::at("shop"));
            shop.resource("a").add(Odd::new("a", say));
            shop.resource("b").protect(guard).add(Odd::new("b", "x"));
            Ok(())
        }
    };
    bench.up_whole(program("x", true));
    let trial = Trial { targets: vec!["a".into()], ..Trial::default() };
    assert!(bench.attempt(program("y", false), Verb::Up, &trial).unwrap().complete());
    let protects = || bench.state().records.values().filter(|record| record.spec.protect).count();
    assert_eq!(protects(), 1, "its protection was lifted by a run that was about another");
    bench.up_whole(program("y", false));
    assert_eq!(protects(), 0);
}

/// What was not asked for was held by its window; then nothing seemed to be left out, and what the program returns was
/// computed from what had not been made.
#[test]
fn what_is_held_and_was_not_asked_for_is_left_out() {
    let program = |say: &'static str| {
        move |stack: &Stack| {
            stack.maintenance(Windows::new(["Sun 20:00-21:00"])?);
            let shop = stack.provider("shop", Shop::at("shop"));
            if say == "new" {
                shop.resource("asked").add(Odd::new("asked", "x"));
            }
            let base = Odd { turn: Turn::DeleteFirst, ..Odd::new("base", say) };
            let base = shop.resource("base").add(base);
            if say == "old" {
                return Ok(base.output(|base| base.say));
            }
            let wired = shop.resource("wired").add(Odd::new("wired", base.output(|base| base.room)));
            Ok(wired.output(|wired| wired.room))
        }
    };
    let noon = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(20_779 * 86_400 + 12 * 3_600);
    let (bench, _) = yard();
    let bench = bench.at(noon);
    bench.up_whole(program("old"));
    let trial = Trial { targets: vec!["asked".into()], ..Trial::default() };
    let report = bench.attempt(program("new"), Verb::Up, &trial).unwrap();
    assert!(report.complete(), "{report:#?}");
}

//! Protection is recorded, and only an applied `.protect(false)` lifts it.

mod yard;

use lab_core::plan::{Observations, Verb};
use lab_core::*;
use yard::{Odd, Shop, Turn, problems, steps, yard};

#[derive(Clone, Copy)]
struct Line {
    guard: Option<bool>,
    say: &'static str,
    turn: Turn,
}

const PROTECTED: Line = Line { guard: Some(true), say: "a", turn: Turn::DeleteFirst };

fn program(line: Option<Line>) -> impl Fn(&Stack) -> Result<(), ProgramError> + Copy {
    move |stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        if let Some(Line { guard, say, turn }) = line {
            let declare = shop.resource("it");
            let declare = match guard {
                Some(guard) => declare.protect(guard),
                None => declare,
            };
            declare.add(Odd { turn, ..Odd::new("it", say) });
        }
        Ok(())
    }
}

#[test]
fn what_was_applied_as_protected_is_neither_deleted_nor_replaced_nor_destroyed() {
    let (bench, yard) = yard();
    bench.up_whole(program(Some(PROTECTED)));
    yard.log();
    let gone = bench.preview(program(None));
    let replaced = bench.preview(program(Some(Line { say: "b", ..PROTECTED })));
    let destroyed = bench.plan(program(Some(PROTECTED)), Verb::Destroy, &Observations::default(), &[]);
    let said: Vec<String> = [gone, replaced, destroyed].iter().flat_map(problems).collect();
    insta::assert_snapshot!(said.join("\n"), @r"
    odd:thing it is protected, and would be deleted: its line is gone; apply it with `.protect(false)` first
    odd:thing it is protected, and would be deleted: it would be replaced; apply it with `.protect(false)` first
    odd:thing it is protected, and would be deleted: everything is destroyed; apply it with `.protect(false)` first
    ");
    for verb in [Verb::Up, Verb::Destroy] {
        assert!(bench.attempt(program(None), verb, &Default::default()).is_err());
    }
    assert_eq!(yard.log(), [""; 0]);
}

#[test]
fn taking_the_line_away_together_with_its_protection_does_not_lift_it() {
    let (bench, _) = yard();
    bench.up_whole(program(Some(PROTECTED)));
    let sly = Line { guard: Some(false), say: "b", ..PROTECTED };
    assert_eq!(problems(&bench.preview(program(Some(sly)))).len(), 1);
    bench.up_whole(program(Some(Line { guard: Some(false), ..PROTECTED })));
    bench.up_whole(program(Some(sly)));
    bench.up_whole(program(None));
}

/// Leaving the word out is easily done by mistake: the protection was gone with the next run.
#[test]
fn leaving_the_word_out_does_not_lift_it() {
    let (bench, _) = yard();
    bench.up_whole(program(Some(PROTECTED)));
    bench.up_whole(program(Some(Line { guard: None, ..PROTECTED })));
    assert_eq!(problems(&bench.preview(program(None))).len(), 1);
    // Changed in place without the word as well.
    bench.up_whole(program(Some(Line { guard: None, say: "c", turn: Turn::Update })));
    assert_eq!(problems(&bench.preview(program(None))).len(), 1);
    bench.up_whole(program(Some(Line { guard: Some(false), say: "c", turn: Turn::Update })));
    assert_eq!(steps(&bench.preview(program(None))), ["delete it"]);
}

#[test]
fn what_is_protected_may_be_changed_in_place() {
    let (bench, yard) = yard();
    bench.up_whole(program(Some(PROTECTED)));
    yard.log();
    bench.up_whole(program(Some(Line { say: "b", turn: Turn::Update, ..PROTECTED })));
    assert_eq!(yard.log(), ["update shop/it"]);
}

#[test]
fn another_place_is_a_replacement_and_refused() {
    let (bench, _) = yard();
    bench.up_whole(program(Some(PROTECTED)));
    let plan = bench.preview(|stack: &Stack| {
        stack.provider("shop", Shop::at("elsewhere")).resource("it").add(Odd::new("it", "a"));
        Ok(())
    });
    assert!(problems(&plan)[0].contains("it is protected"), "{:?}", problems(&plan));
}

#[test]
fn a_component_protects_what_is_in_it_unless_that_says_otherwise() {
    struct Both;
    impl Component<Shop> for Both {
        type Handle = ();
        fn declare(self, scope: &Scope<'_, Shop>) {
            scope.resource("kept").add(Odd::new("kept", "x"));
            scope.resource("free").protect(false).add(Odd::new("free", "x"));
        }
    }
    let (bench, _) = yard();
    bench.up_whole(|stack: &Stack| {
        stack.provider("shop", Shop::at("shop")).component("both").protect(true).add(Both);
        Ok(())
    });
    let said = problems(&bench.preview(program(None)));
    assert!(said.len() == 1 && said[0].contains("both/kept is protected"), "{said:?}");
}

/// It was declared and not applied yet: the plan said that there was nothing to do, and the destroy took it away.
#[test]
fn what_is_declared_as_protected_is_not_destroyed_though_it_was_not_applied_yet() {
    let (bench, yard) = yard();
    bench.up_whole(program(Some(Line { guard: None, ..PROTECTED })));
    yard.log();
    let destroyed = bench.plan(program(Some(PROTECTED)), Verb::Destroy, &Observations::default(), &[]);
    insta::assert_snapshot!(problems(&destroyed).join("\n"), @"odd:thing it is protected, and would be deleted: everything is destroyed; apply it with `.protect(false)` first");
    assert!(bench.attempt(program(Some(PROTECTED)), Verb::Destroy, &Default::default()).is_err());
    assert_eq!(yard.log(), [""; 0]);
}

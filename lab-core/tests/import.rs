//! Import: what exists already is taken over by its identity, and only so.

mod yard;

use lab_core::plan::Verb;
use lab_core::testing::Trial;
use lab_core::*;
use serde_json::json;
use yard::{Odd, Shop, failures, problems, settled, steps, yard};

fn importing(say: &'static str, id: Option<&'static str>) -> impl Fn(&Stack) -> Result<(), ProgramError> + Copy {
    move |stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        let declare = shop.resource("it");
        let declare = match id {
            Some(id) => declare.import(id),
            None => declare,
        };
        declare.add(Odd::new("it", say));
        Ok(())
    }
}

#[test]
fn what_is_there_and_not_ours_is_adopted_only_by_import() {
    let (bench, yard) = yard();
    yard.plant("shop", "it", json!({ "say": "theirs" }));
    let report = bench.up(importing("theirs", None));
    assert_eq!(failures(&report).len(), 1);
    assert!(failures(&report)[0].contains("exists already and is not ours"), "{report:#?}");
    assert_eq!(
        report.failed[0].hint.as_deref().unwrap_or_default().split(',').next(),
        Some("take it over with `import it it`")
    );
    assert_eq!(yard.log(), [""; 0]);
    assert_eq!(steps(&bench.preview(importing("theirs", Some("it")))), ["import it"]);
    bench.up_whole(importing("theirs", Some("it")));
    assert_eq!(yard.log(), [""; 0], "taking over makes no call");
    settled(&bench, importing("theirs", Some("it")));
    settled(&bench, importing("theirs", None));
}

#[test]
fn what_differs_shows_as_an_update_afterwards() {
    let (bench, yard) = yard();
    yard.plant("shop", "it", json!({ "say": "theirs" }));
    bench.up_whole(importing("ours", Some("it")));
    assert_eq!(yard.things(), ["shop/it=theirs"]);
    let plan = bench.preview(importing("ours", Some("it")));
    insta::assert_snapshot!(yard::shown(&plan), @r#"
      shop
        ~ update odd:thing it
            /say: "theirs" -> "ours"
    lab: 1 to update, 0 unchanged.
    "#);
    bench.up_whole(importing("ours", Some("it")));
    assert_eq!((yard.things(), yard.log()), (vec!["shop/it=ours".to_owned()], vec!["update shop/it".to_owned()]));
    settled(&bench, importing("ours", None));
}

#[test]
fn an_imported_thing_is_ours_afterwards_and_goes_with_its_line() {
    let (bench, yard) = yard();
    yard.plant("shop", "it", json!({ "say": "theirs" }));
    bench.up_whole(importing("theirs", Some("it")));
    assert!(
        bench.state().records.values().next().unwrap().unmarked,
        "it bears no mark of ours before its first change"
    );
    bench.up_whole(|_: &Stack| Ok(()));
    assert_eq!(yard.log(), ["delete shop/it"]);
}

#[test]
fn after_its_first_change_it_bears_our_mark() {
    let (bench, yard) = yard();
    yard.plant("shop", "it", json!({ "say": "theirs" }));
    bench.up_whole(importing("ours", Some("it")));
    bench.up_whole(importing("ours", Some("it")));
    let record = bench.state().records.values().next().unwrap().clone();
    assert!(!record.unmarked);
    assert_eq!(yard.contents().items[&("shop".to_owned(), "it".to_owned())].mark, Some(record.mark.0));
}

#[test]
fn an_identity_under_which_there_is_nothing_cannot_be_imported() {
    let (bench, yard) = yard();
    let report = bench.up(importing("x", Some("nowhere")));
    assert_eq!(failures(&report), ["import it: there is nothing with this identity to import"]);
    assert!(bench.state().records.is_empty());
    assert_eq!(yard.log(), [""; 0]);
}

#[test]
fn what_bears_a_mark_of_another_state_is_adopted_with_it() {
    let (bench, yard) = yard();
    bench.up_whole(importing("x", None));
    let mark = yard.contents().items[&("shop".to_owned(), "it".to_owned())].mark.clone();
    // The state is lost; the thing is still there, with the mark it was given.
    let bench = lab_core::testing::Bench::new().over(yard.clone()).knows::<Shop>().seeded(77);
    assert!(failures(&bench.up(importing("x", None)))[0].contains("is not ours"));
    bench.up_whole(importing("x", Some("it")));
    assert_eq!(Some(bench.state().records.values().next().unwrap().mark.0.clone()), mark);
    settled(&bench, importing("x", None));
}

#[test]
fn what_others_read_of_it_is_what_was_found() {
    let (bench, yard) = yard();
    yard.plant("shop", "it", json!({ "say": "theirs" }));
    let program = |stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        let it = shop.resource("it").import("it").add(Odd::new("it", "theirs"));
        shop.resource("wired").add(Odd::new("wired", it.output(|it| it.say)));
        Ok(())
    };
    bench.attempt(program, Verb::Up, &Trial::default()).unwrap();
    assert_eq!(yard.things(), ["shop/it=theirs", "shop/wired=theirs"]);
    settled(&bench, program);
}

/// Odd things that are found by their marks, each imported: what it is called, and its identity.
fn lines(lines: &'static [(&'static str, &'static str)]) -> impl Fn(&Stack) -> Result<(), ProgramError> + Copy {
    move |stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        for (name, id) in lines {
            shop.resource(name).import(*id).add(marked());
        }
        Ok(())
    }
}

fn marked() -> Odd {
    Odd { natural: false, ..Odd::new("tree", "x") }
}

#[test]
fn what_one_line_has_is_not_imported_by_another() {
    let (bench, yard) = yard();
    yard.plant("shop", "tree", json!({ "say": "x" }));
    let both = lines(&[("a", "tree"), ("b", "tree")]);
    let plan = bench.preview(both);
    assert_eq!(problems(&plan).len(), 1, "{:#?}", plan.problems);
    assert!(problems(&plan)[0].starts_with("odd:thing tree is declared as a at "), "{:#?}", plan.problems);
    // One after the other, it had two owners.
    bench.up_whole(lines(&[("a", "tree")]));
    let plan = bench.preview(both);
    let twice = "b would import tree, which is a already; remove one of the two; of the same thing by another name say \
                 `.was(\"a\")`, or `state forget a` first";
    assert_eq!(problems(&plan), [twice]);
    assert_eq!(yard.log(), [""; 0]);
}

#[test]
fn what_goes_with_its_line_is_not_imported_by_another_at_the_same_time() {
    let (bench, yard) = yard();
    yard.plant("shop", "tree", json!({ "say": "x" }));
    bench.up_whole(lines(&[("a", "tree")]));
    let plan = bench.preview(lines(&[("b", "tree")]));
    assert!(problems(&plan)[0].starts_with("b would import tree, which is a already"), "{:?}", problems(&plan));
    // What is retained is nobody's from then on.
    let retained = |stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        shop.resource("a").import("tree").retain().add(marked());
        Ok(())
    };
    bench.up_whole(retained);
    bench.up_whole(lines(&[("b", "tree")]));
    settled(&bench, lines(&[("b", "tree")]));
    assert_eq!(yard.log(), [""; 0]);
}

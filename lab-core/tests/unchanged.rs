//! What is unchanged is left alone: its provider is not even constructed.

mod yard;

use lab_core::plan::Verb;
use lab_core::testing::Trial;
use lab_core::*;
use std::time::Duration;
use yard::{Odd, Shop, settled, steps, yard};

fn program(place: &'static str, odd: Odd) -> impl Fn(&Stack) -> Result<(), ProgramError> {
    move |stack: &Stack| {
        stack.provider("shop", Shop::at(place)).resource("it").add(odd.clone());
        stack.provider("other", Shop::at("other")).resource("kept").add(Odd::new("kept", "x"));
        Ok(())
    }
}

#[test]
fn its_provider_is_not_constructed_and_nothing_is_written() {
    let (bench, yard) = yard();
    bench.up_whole(program("shop", Odd::new("it", "x")));
    let written = bench.disk().get("lab.journal").unwrap();
    yard.contents().connects.clear();
    bench.up_whole(program("shop", Odd::new("it", "x")));
    assert!(yard.contents().connects.is_empty());
    assert_eq!(bench.disk().get("lab.journal").unwrap(), written, "nothing is written for what is unchanged");
    bench.up_whole(program("shop", Odd::new("it", "y")));
    assert_eq!(yard.contents().connects, ["shop"], "only where something is to be done");
}

#[test]
fn realm_and_inputs_are_what_is_compared() {
    let (bench, _) = yard();
    bench.up_whole(program("shop", Odd::new("it", "x")));
    let state = bench.state();
    let record = state.records.values().find(|record| record.spec.provider == "shop").unwrap();
    let of = |realm: &str, version: u32, inputs: &serde_json::Value| {
        digest(&serde_json::json!({ "realm": realm, "type": "odd:thing", "version": version, "inputs": inputs }))
    };
    assert_eq!(record.spec.digest.to_string(), of("shop", 1, &record.spec.inputs.value()));
    assert_eq!(steps(&bench.preview(program("shop", Odd::new("it", "y")))), ["update it"]);
    assert_eq!(steps(&bench.preview(program("elsewhere", Odd::new("it", "x")))), ["delete it", "create it"]);
}

#[test]
fn credentials_are_no_part_of_it() {
    use lab_core::testing::{Bench, Memory, Thing};
    let bench = Bench::new();
    let keyed = |n: u32| {
        move |stack: &Stack| {
            let rack = stack.provider("rack", Memory::at("rack"));
            let one = rack.resource("one").add(Thing::new("one", "x"));
            let key = one.output(move |one| one.key.map(|key| format!("{key}-{n}")));
            stack.provider("room", Memory::inside(&one).key(key)).resource("in").add(Thing::new("in", "x"));
            Ok(())
        }
    };
    bench.up_whole(keyed(1));
    assert!(bench.preview(keyed(2)).is_empty(), "how to get in has changed, not what is there");
}

#[test]
fn what_is_due_is_renewed_and_not_before() {
    let (bench, yard) = yard();
    let due = 1_800_000_100;
    let program = || program("shop", Odd { due: Some(due), ..Odd::new("it", "x") });
    bench.up_whole(program());
    yard.log();
    settled(&bench, &program());
    let later = bench.clone().at(std::time::UNIX_EPOCH + Duration::from_secs(due));
    let plan = later.preview(program());
    assert_eq!(steps(&plan), ["renew it"]);
    assert_eq!(plan.steps[0].reasons, ["it is due"]);
}

#[test]
fn a_realm_that_is_new_or_unknown_makes_every_child_a_create() {
    let (bench, yard) = yard();
    let nested = |place: &'static str| {
        move |stack: &Stack| {
            let shop = stack.provider("shop", Shop::at(place));
            let container = shop.resource("box").add(Odd::new("box", "x"));
            let inside = stack.provider("inside", Shop::inside(&container));
            inside.resource("a").add(Odd::new("a", "x"));
            inside.resource("b").add(Odd::new("b", "x"));
            Ok(())
        }
    };
    let first = bench.preview(nested("here"));
    assert_eq!(steps(&first), ["create box", "create a", "create b"]);
    assert!(!first.steps[1].realm_known);
    bench.up_whole(nested("here"));
    yard.log();
    bench.up_whole(nested("there"));
    let log = yard.log();
    assert!(log.iter().any(|call| call.starts_with("create there/box#") && call.ends_with("/a")), "{log:?}");
    assert!(!log.iter().any(|call| call.starts_with("update")), "{log:?}");
    settled(&bench, nested("there"));
}

#[test]
fn ignored_inputs_are_neither_compared_nor_sent_again() {
    let (bench, yard) = yard();
    let program = |say: &'static str, calls: u32| {
        move |stack: &Stack| {
            let declare = stack.provider("shop", Shop::at("shop")).resource("it").ignore("/say");
            declare.add(Odd { calls, ..Odd::new("it", say) });
            Ok(())
        }
    };
    bench.up_whole(program("first", 0));
    assert!(bench.preview(program("second", 0)).is_empty());
    // Somebody else sets it, and it stays as it is when another input changes.
    yard.contents().items.get_mut(&("shop".into(), "it".into())).unwrap().value["say"] = "theirs".into();
    let trial = Trial { refresh: true, ..Trial::default() };
    assert!(bench.attempt(program("second", 0), Verb::Up, &trial).unwrap().done.is_empty(), "drift there is theirs");
}

#[test]
fn what_is_sent_once_is_neither_compared_nor_stored() {
    use lab_core::testing::{Bench, Memory, Thing};
    let bench = Bench::new();
    let told = |token: &'static str| {
        move |stack: &Stack| {
            let token = Some(Secret::from(token));
            stack.provider("rack", Memory::at("rack")).resource("it").add(Thing { token, ..Thing::new("it", "x") });
            Ok(())
        }
    };
    bench.up_whole(told("a-claim-token"));
    let state = bench.state();
    assert_eq!(state.secrets.len(), 1, "what it yields is sealed; what it was told is not even that");
    assert!(state.records.values().next().unwrap().spec.inputs.value().get("token").is_none());
    assert!(bench.preview(told("another-token")).is_empty());
}

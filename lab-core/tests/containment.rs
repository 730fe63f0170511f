//! Containment: what lives inside something goes with it, unless it has effects outside.

mod yard;

use lab_core::plan::{Observations, Seen, Verb};
use lab_core::testing::{Bench, Memory, Thing, Trial};
use lab_core::*;
use std::collections::BTreeSet;
use yard::{Odd, Shop, failures, problems, settled, steps};

/// A box that stands somewhere, with a plain thing, a volume with effects outside and a nested box in it; and a
/// thing outside that is wired to the plain one.
#[derive(Clone, Copy)]
struct Rack {
    stand: &'static str,
    volume: bool,
    plain: bool,
    guard: Option<bool>,
    deep: bool,
}

impl Default for Rack {
    fn default() -> Rack {
        Rack { stand: "here", volume: true, plain: true, guard: None, deep: false }
    }
}

impl Rack {
    fn declare(&self, stack: &Stack) -> Result<(), ProgramError> {
        let rack = stack.provider("rack", Memory::at("rack"));
        let container = rack.resource("box").add(Thing { stand: self.stand.into(), ..Thing::new("box", "box") });
        let inside = stack.provider("inside", Memory::inside(&container));
        if self.plain {
            let plain = inside.resource("plain");
            let plain = match self.guard {
                Some(guard) => plain.protect(guard),
                None => plain,
            };
            let plain = plain.add(Thing::new("plain", "in"));
            rack.resource("wired").add(Thing::new("wired", plain.output(|plain| plain.room)));
        }
        if self.volume {
            inside.resource("volume").add(Thing { outside: true, ..Thing::new("volume", "data") });
        }
        if self.deep {
            let nested = inside.resource("nested").add(Thing::new("nested", "box"));
            let deepest = stack.provider("deepest", Memory::inside(&nested));
            deepest.resource("pearl").protect(true).add(Thing::new("pearl", "white"));
        }
        Ok(())
    }
}

fn applied(rack: Rack) -> Bench {
    let bench = Bench::new().knows::<Memory>();
    bench.up_whole(|stack| rack.declare(stack));
    settled(&bench, |stack| rack.declare(stack));
    bench.world().clear_log();
    bench
}

fn nothing(_: &Stack) -> Result<(), ProgramError> {
    Ok(())
}

#[test]
fn what_a_destroyed_container_holds_goes_without_a_call() {
    let bench = applied(Rack { volume: false, ..Rack::default() });
    bench.up_whole(nothing);
    let log = bench.world().log();
    assert!(!log.iter().any(|call| call.contains("plain")), "{log:?}");
    assert!(log.contains(&"delete rack/box".to_owned()), "{log:?}");
    assert!(bench.state().records.is_empty());
}

#[test]
fn what_has_effects_outside_is_deleted_by_call_before_its_container() {
    let bench = applied(Rack { plain: false, ..Rack::default() });
    assert!(bench.destroy(|stack| Rack { plain: false, ..Rack::default() }.declare(stack)).complete());
    assert_eq!(bench.world().log(), ["delete rack/box#1/volume", "delete rack/box"]);
}

/// An unreachable cluster could not be destroyed in one run: what was left behind counted as failed, and held up the
/// deletion of the machine.
#[test]
fn what_cannot_be_reached_is_left_behind_and_told_at_every_run() {
    let rack = Rack { plain: false, ..Rack::default() };
    let bench = applied(rack);
    bench.world().cut_off("rack/box#1", true);
    let trial = Trial::default();
    let report = bench.attempt(|stack| rack.declare(stack), Verb::Destroy, &trial).unwrap();
    assert!(report.complete(), "{report:#?}");
    assert_eq!(bench.world().log(), ["delete rack/box"]);
    let state = bench.state();
    assert!(state.records.is_empty());
    assert_eq!(state.condemned.values().map(|left| left.urn.name()).collect::<Vec<_>>(), ["volume"]);
    let warned = |plan: lab_core::plan::Plan| plan.warnings.join("\n");
    assert!(warned(bench.preview(nothing)).contains("volume was left behind"));
    assert!(warned(bench.preview(|stack| rack.declare(stack))).contains("volume was left behind"));
    bench.up_whole(nothing);
    assert_eq!(bench.state().condemned.len(), 1, "it stays until a person forgets it");
}

#[test]
fn a_container_that_vanished_took_its_children_along() {
    let rack = Rack { volume: false, ..Rack::default() };
    let bench = applied(rack);
    bench.world().take_away("rack", "box");
    bench.refresh(|stack| rack.declare(stack));
    bench.up_whole(|stack| rack.declare(stack));
    let log = bench.world().log();
    assert!(!log.iter().any(|call| call.starts_with("delete")), "{log:?}");
    assert!(log.iter().any(|call| call.starts_with("create rack/box#") && call.ends_with("/plain")), "{log:?}");
    settled(&bench, |stack| rack.declare(stack));
}

/// Seen to be gone by the same run, not by an earlier refresh: its children were to be deleted by calls into a
/// container that was not there.
#[test]
fn a_container_seen_to_be_gone_takes_its_children_along_in_the_same_plan() {
    let rack = Rack { volume: false, ..Rack::default() };
    let bench = applied(rack);
    bench.world().take_away("rack", "box");
    let mut seen = Observations::default();
    let urn = bench.state().records.keys().find(|urn| urn.name() == "box").unwrap().clone();
    seen.seen.insert(urn, Seen::Gone);
    let plan = bench.plan(|stack| rack.declare(stack), Verb::Up, &seen, &[]);
    assert!(!steps(&plan).iter().any(|step| step.starts_with("delete")), "{:#?}", steps(&plan));
    let trial = Trial { refresh: true, ..Trial::default() };
    let report = bench.attempt(|stack| rack.declare(stack), Verb::Up, &trial).unwrap();
    assert!(report.complete(), "{report:#?}");
    settled(&bench, |stack| rack.declare(stack));
}

#[test]
fn what_a_vanished_container_left_outside_is_told_and_kept() {
    let rack = Rack { plain: false, ..Rack::default() };
    let bench = applied(rack);
    bench.world().take_away("rack", "box");
    let trial = Trial { refresh: true, ..Trial::default() };
    let report = bench.attempt(nothing, Verb::Up, &trial).unwrap();
    assert!(report.complete(), "{report:#?}");
    assert_eq!(bench.state().condemned.len(), 1, "{:#?}", bench.state());
    assert!(bench.preview(nothing).warnings[0].contains("volume was left behind"));
}

#[test]
fn a_replaced_container_gets_everything_it_had_and_what_was_outside_is_deleted_in_the_old_one() {
    let bench = applied(Rack::default());
    let moved = Rack { stand: "there", ..Rack::default() };
    bench.up_whole(|stack| moved.declare(stack));
    let log = bench.world().log();
    let at = |call: &str| log.iter().position(|other| other == call).unwrap_or_else(|| panic!("{call} in {log:?}"));
    let new = log.iter().find(|call| call.starts_with("create rack/box#")).unwrap();
    let room = new.trim_start_matches("create ").rsplit_once('/').unwrap().0.to_owned();
    assert_ne!(room, "rack/box#1");
    let order = ["delete rack/box#1/volume", "delete rack/box", "create rack/box", &format!("create {room}/volume")];
    let positions: Vec<usize> = order.iter().map(|call| at(call)).collect();
    assert!(positions.is_sorted(), "{log:?}");
    assert!(at(&format!("create {room}/plain")) < at("update rack/wired"), "{log:?}");
    assert!(!log.iter().any(|call| call.ends_with("plain") && call.starts_with("delete")), "{log:?}");
    settled(&bench, |stack| moved.declare(stack));
}

#[test]
fn the_plan_shows_what_a_replacement_takes_down() {
    let bench = applied(Rack { volume: false, ..Rack::default() });
    let plan = bench.preview(|stack| Rack { volume: false, stand: "there", ..Rack::default() }.declare(stack));
    insta::assert_snapshot!(yard::shown(&plan), @r#"
      rack
        ± replace memory:thing box
            because /stand: a thing cannot be moved
            /stand: "here" -> "there"
        ~ update memory:thing wired
            may stay as it is, once its inputs are known
            /text: "rack/box#1/plain#2" -> known after plain
      inside
        + create memory:thing plain
            because what contains it is made anew
    lab: 1 to create, 1 to replace, 1 to update, 0 unchanged.
    "#);
}

#[test]
fn something_protected_inside_blocks_the_replacement_and_the_end_of_its_container() {
    let guarded = Rack { guard: Some(true), volume: false, ..Rack::default() };
    let bench = applied(guarded);
    // What the new program says does not lift what was applied.
    let lifted = Rack { guard: Some(false), ..guarded };
    for (what, plan) in [
        ("replaced", bench.preview(|stack| Rack { stand: "there", ..guarded }.declare(stack))),
        ("replaced, not lifted", bench.preview(|stack| Rack { stand: "there", ..lifted }.declare(stack))),
        (
            "its line gone as well",
            bench.preview(|stack| Rack { stand: "there", plain: false, ..guarded }.declare(stack)),
        ),
        ("gone", bench.preview(nothing)),
        ("destroyed", bench.plan(|stack| guarded.declare(stack), Verb::Destroy, &Observations::default(), &[])),
    ] {
        let all = problems(&plan).join("\n");
        assert!(all.contains("memory:thing plain is protected, and would be deleted"), "{what}: {all}");
    }
    bench.up_whole(|stack| lifted.declare(stack));
    bench.up_whole(|stack| Rack { stand: "there", ..lifted }.declare(stack));
}

/// Whether a container has to be replaced showed only with a value: what it held was not in the plan, and would have gone
/// with it.
#[test]
fn a_container_is_not_replaced_by_a_plan_that_could_not_say_so() {
    let (bench, yard) = yard::yard();
    let program = |say: &'static str| {
        move |stack: &Stack| {
            let shop = stack.provider("shop", yard::Shop::at("shop"));
            let source = shop.resource("source").add(yard::Odd::new("source", say));
            let say = source.output(|source| source.say);
            let container = yard::Odd { turn: yard::Turn::DeleteFirst, ..yard::Odd::new("box", say) };
            let container = shop.resource("box").add(container);
            stack
                .provider("inside", yard::Shop::inside(&container))
                .resource("child")
                .add(yard::Odd::new("child", "x"));
            Ok(())
        }
    };
    bench.up_whole(program("a"));
    yard.log();
    let report = bench.up(program("b"));
    assert_eq!(
        failures(&report),
        ["update box: it would have to be replaced, which the plan did not show; plan again"]
    );
    assert_eq!(yard.log(), ["update shop/source"]);
    bench.up_whole(program("b"));
    assert_eq!(yard.things().len(), 3, "{:?}", yard.things());
    settled(&bench, program("b"));
}

#[test]
fn protection_reaches_up_through_every_container() {
    let deep = Rack { deep: true, volume: false, plain: false, ..Rack::default() };
    let bench = applied(deep);
    let plan = bench.preview(|stack| Rack { stand: "there", ..deep }.declare(stack));
    assert!(problems(&plan).join("\n").contains("pearl is protected"), "{:?}", problems(&plan));
    let plan = bench.preview(nothing);
    assert!(problems(&plan).join("\n").contains("pearl is protected"), "{:?}", problems(&plan));
}

#[test]
fn a_container_that_cannot_be_deleted_keeps_its_children_in_the_state() {
    let (bench, yard) = yard::yard();
    let program = |stack: &Stack| {
        let shop = stack.provider("shop", yard::Shop::at("shop"));
        let container = shop.resource("box").add(yard::Odd::new("box", "box"));
        let inside = stack.provider("inside", yard::Shop::inside(&container));
        inside.resource("child").add(yard::Odd::new("child", "in"));
        Ok(())
    };
    bench.up_whole(program);
    yard.upset("delete", "box", yard::Upset::Fail(Class::Invalid));
    let report = bench.up(nothing);
    assert_eq!(failures(&report), ["delete box: it was upset"]);
    assert_eq!(report.not_started.len(), 1, "{report:#?}");
    assert_eq!(bench.state().records.len(), 2);
    bench.up_whole(nothing);
    assert!(bench.state().records.is_empty());
}

#[test]
fn a_child_whose_line_goes_is_deleted_by_call_while_its_container_stays() {
    let bench = applied(Rack::default());
    bench.up_whole(|stack| Rack { volume: false, ..Rack::default() }.declare(stack));
    assert_eq!(bench.world().log(), ["delete rack/box#1/volume"]);
    bench.up_whole(|stack| Rack { volume: false, plain: false, ..Rack::default() }.declare(stack));
    assert_eq!(bench.world().log()[1..], ["delete rack/wired", "delete rack/box#1/plain"]);
}

/// What its provider was told came from elsewhere: it lives inside all the same.
#[test]
fn what_lives_inside_waits_until_its_container_is_ready_though_nothing_it_is_told_comes_from_there() {
    let (bench, yard) = yard::yard();
    let program = |stack: &Stack| {
        let shop = stack.provider("shop", yard::Shop::at("shop"));
        let container = shop.resource("box").add(yard::Odd { calls: 3, ..yard::Odd::new("box", "box") });
        let inside = yard::Shop { place: "within".into(), inside: Some(container.urn().clone()) };
        stack.provider("inside", inside).resource("child").add(yard::Odd::new("child", "in"));
        Ok(())
    };
    bench.up_whole(program);
    assert_eq!(yard.log(), ["create shop/box", "ready shop/box", "create within/child"]);
}

#[test]
fn nothing_connects_to_a_container_before_it_exists() {
    let (bench, yard) = yard::yard();
    let program = |stack: &Stack| {
        let shop = stack.provider("shop", yard::Shop::at("shop"));
        let container = shop.resource("box").add(yard::Odd { calls: 3, ..yard::Odd::new("box", "box") });
        let inside = stack.provider("inside", yard::Shop::inside(&container));
        inside.resource("child").add(yard::Odd::new("child", "in"));
        Ok(())
    };
    bench.up_whole(program);
    assert_eq!(yard.contents().connects, ["shop", "shop/box#1"]);
    assert_eq!(yard.log(), ["create shop/box", "ready shop/box", "create shop/box#1/child"]);
}

/// What was taken from a child went over to the new container that replaces its own. The new one waited until the child
/// was forgotten, the child until nobody was wired to it any more, and whoever was, for the new one: a circle.
#[test]
fn what_a_replaced_container_held_is_forgotten_wherever_it_stopped() {
    let program = |new: bool| {
        move |stack: &Stack| {
            let rack = stack.provider("rack", Memory::at("rack"));
            let stand = if new { "there" } else { "here" };
            let container = rack.resource("box").add(Thing { stand: stand.into(), ..Thing::new("box", "box") });
            let inside = stack.provider("inside", Memory::inside(&container));
            let text = if new {
                container.output(|container| container.room)
            } else {
                inside.resource("child").add(Thing::new("child", "in")).output(|child| child.text)
            };
            inside.resource("other").add(Thing::new("other", "in"));
            rack.resource("wired").add(Thing::new("wired", text));
            Ok(())
        }
    };
    let applied = || {
        let bench = Bench::new().knows::<Memory>();
        bench.up_whole(program(false));
        bench
    };
    for after in 1.. {
        let bench = applied();
        let trial = Trial { ask_after: vec![after], ..Trial::default() };
        let whole = bench.attempt(program(true), Verb::Up, &trial).unwrap().complete();
        bench.up_whole(program(true));
        let log = bench.world().log();
        assert!(!log.iter().any(|call| call.starts_with("delete") && call.ends_with("child")), "{log:?}");
        assert_eq!(bench.state().records.len(), 3, "asked after {after}");
        settled(&bench, program(true));
        if whole {
            break;
        }
    }
}

/// It was deleted by call after the outermost was gone, and with it every way in.
#[test]
fn what_has_effects_outside_is_deleted_before_whatever_contains_it_at_any_depth() {
    let program = |stack: &Stack| {
        let outer = stack.provider("rack", Memory::at("rack")).resource("outer").add(Thing::new("outer", "x"));
        let middle =
            stack.provider("in-outer", Memory::inside(&outer)).resource("middle").add(Thing::new("middle", "x"));
        let inside = stack.provider("in-middle", Memory::inside(&middle));
        inside.resource("volume").add(Thing { outside: true, lingers: 2, ..Thing::new("volume", "data") });
        Ok(())
    };
    for destroy in [false, true] {
        let bench = Bench::new().knows::<Memory>();
        bench.up_whole(program);
        bench.world().clear_log();
        if destroy {
            assert!(bench.destroy(program).complete());
        } else {
            bench.up_whole(nothing);
        }
        assert_eq!(bench.world().log(), ["delete rack/outer#1/middle#2/volume", "delete rack/outer"]);
    }
}

/// A thing in a thing in a thing. What lay deepest was forgotten before anything was deleted: a destroy that was killed
/// then, or whose deletion failed, left it behind as somebody else's, and the next `up` asked for it to be imported.
#[test]
fn what_lies_at_any_depth_is_known_until_the_container_that_is_deleted_is_gone() {
    let program = |stack: &Stack| {
        let outer = stack.provider("shop", Shop::at("shop")).resource("outer").add(Odd::new("outer", "x"));
        let middle = stack.provider("in-outer", Shop::inside(&outer)).resource("middle").add(Odd::new("middle", "x"));
        stack.provider("in-middle", Shop::inside(&middle)).resource("inner").add(Odd::new("inner", "x"));
        Ok(())
    };
    let (bench, yard) = yard::yard();
    bench.up_whole(program);
    let before = bench.state().records;
    assert_eq!(before.len(), 3);
    yard.upset("delete", "outer", yard::Upset::Fail(Class::Invalid));
    assert!(!bench.destroy(program).complete());
    let left: Vec<&str> = before
        .keys()
        .map(Urn::name)
        .filter(|name| !bench.state().records.keys().any(|urn| urn.name() == *name))
        .collect();
    assert_eq!(left, [""; 0], "nothing was deleted, and these are forgotten");
    yard.log();
    bench.up_whole(program);
    assert_eq!(yard.log(), [""; 0], "everything is there");
    assert!(bench.destroy(program).complete());
    assert!(bench.state().records.is_empty());
}

/// A machine went, with an app on it; something elsewhere had the app's address, and says another one now. The machine was
/// deleted first.
#[test]
fn who_needs_what_lies_inside_lets_go_before_the_container_is_deleted() {
    let program = |inside: bool| {
        move |stack: &Stack| {
            let rack = stack.provider("rack", Memory::at("rack"));
            let mut text: Input<String> = "elsewhere".into();
            if inside {
                let container = rack.resource("box").add(Thing::new("box", "box"));
                let within = stack.provider("inside", Memory::inside(&container));
                text = within.resource("app").add(Thing::new("app", "in")).output(|app| app.room).into();
            }
            rack.resource("wired").add(Thing::new("wired", text));
            Ok(())
        }
    };
    let bench = Bench::new().knows::<Memory>();
    bench.up_whole(program(true));
    bench.world().clear_log();
    bench.up_whole(program(false));
    assert_eq!(bench.world().log(), ["update rack/wired", "delete rack/box"]);
    settled(&bench, program(false));
}

/// What could not be reached was left behind at once, and what took its number was made while it stood. It takes the number
/// only where what had it is gone.
#[test]
fn what_is_left_behind_keeps_what_it_occupies() {
    let volume = |name: &str| Thing { outside: true, claims: vec![7], ..Thing::new(name, "data") };
    let program = |inside: bool| {
        move |stack: &Stack| {
            let rack = stack.provider("rack", Memory::at("rack"));
            match inside {
                true => {
                    let container = rack.resource("box").add(Thing::new("box", "box"));
                    stack.provider("inside", Memory::inside(&container)).resource("volume").add(volume("volume"));
                }
                false => drop(rack.resource("other").add(volume("other"))),
            }
            Ok(())
        }
    };
    let bench = Bench::new().knows::<Memory>();
    bench.up_whole(program(true));
    bench.world().clear_log();
    bench.world().cut_off("rack/box#1", true);
    let report = bench.up(program(false));
    assert_eq!(bench.world().log(), ["delete rack/box"]);
    let not: Vec<String> = report.not_started.iter().map(|(urn, why)| format!("{}: {why}", urn.short())).collect();
    assert_eq!(not, ["other: number 7 is still taken by volume, which was left behind"]);
    let mark = bench.state().condemned.keys().next().unwrap().clone();
    let expected = format!(
        "number 7 of other is still taken by volume, which was left behind when what contained it went; delete that by \
         hand, then `state forget {mark}`"
    );
    assert_eq!(problems(&bench.preview(program(false))), [expected]);
}

/// It was taken over by another line, and every plan still said to delete it by hand.
#[test]
fn what_was_left_behind_and_is_taken_over_is_left_over_no_more() {
    let volume = || Thing { outside: true, claims: vec![7], ..Thing::new("volume", "data") };
    let boxed = |stack: &Stack| {
        let container = stack.provider("rack", Memory::at("rack")).resource("box").add(Thing::new("box", "box"));
        stack.provider("inside", Memory::inside(&container)).resource("volume").add(volume());
        Ok(())
    };
    let taken = |import: bool| {
        move |stack: &Stack| {
            let there = stack.provider("there", Memory::at("elsewhere"));
            let line = there.resource("kept");
            let line = if import { line.import("volume") } else { line };
            line.add(volume());
            Ok(())
        }
    };
    let bench = Bench::new().knows::<Memory>();
    bench.up_whole(boxed);
    let item = bench.world().get("rack/box#1", "volume").unwrap();
    bench.world().cut_off("rack/box#1", true);
    bench.up_whole(nothing);
    assert_eq!(bench.state().condemned.len(), 1);
    // Where it really is.
    bench.world().plant("elsewhere", "volume", item.value.clone());
    bench.world().change("elsewhere", "volume", |volume| volume.mark = item.mark);
    bench.up_whole(taken(true));
    assert!(bench.state().condemned.is_empty(), "{:?}", bench.state().condemned);
    settled(&bench, taken(true));
    settled(&bench, taken(false));
    assert_eq!(bench.preview(taken(false)).warnings, [""; 0]);
}

/// Two things with effects outside lay in what could not be reached, one needing the other. The one that was passed over
/// held up the other, and that their container: no run came to its end.
#[test]
fn whatever_cannot_be_reached_is_left_behind_together() {
    let program = |stack: &Stack| {
        let rack = stack.provider("rack", Memory::at("rack"));
        let inside = Memory::inside(&rack.resource("box").add(Thing::new("box", "box")));
        let inside = stack.provider("inside", inside);
        let volume = |name: &str, text: Input<String>| Thing { outside: true, ..Thing::new(name, text) };
        let base = inside.resource("base").add(volume("base", "data".into()));
        let copy = inside.resource("copy").add(volume("copy", base.output(|base| base.text).into()));
        let nested = inside.resource("nested").add(Thing::new("nested", "box"));
        let deep = stack.provider("deep", Memory::inside(&nested));
        deep.resource("deepest").add(volume("deepest", copy.output(|copy| copy.text).into()));
        Ok(())
    };
    let bench = Bench::new().knows::<Memory>();
    bench.up_whole(program);
    let places: BTreeSet<String> = bench.world().items().into_iter().map(|(place, ..)| place).collect();
    for place in places.iter().filter(|place| *place != "rack") {
        bench.world().cut_off(place, true);
    }
    assert!(bench.destroy(program).complete());
    let left: Vec<String> = bench.state().condemned.values().map(|left| left.urn.short()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(bench.state().records.is_empty());
}

/// A container that is retained was to be replaced, and its deletion was begun; then its line went. What it holds was
/// forgotten, though it stays.
#[test]
fn what_lies_in_something_retained_is_not_forgotten_though_a_deletion_was_begun() {
    let program = |stand: &'static str| {
        move |stack: &Stack| {
            let rack = stack.provider("rack", Memory::at("rack"));
            let container = rack.resource("box").retain();
            let container = container.add(Thing { stand: stand.into(), lingers: 1, ..Thing::new("box", "box") });
            stack.provider("inside", Memory::inside(&container)).resource("app").add(Thing::new("app", "in"));
            Ok(())
        }
    };
    let bench = Bench::new().knows::<Memory>();
    bench.up_whole(program("here"));
    bench.world().cut_off("rack", true);
    bench.up(program("there"));
    let trial = Trial {
        faults: std::sync::Arc::new(lab_core::execute::Faults::at(1, lab_core::execute::CallFault::StopBefore)),
        ..Trial::default()
    };
    bench.world().cut_off("rack", false);
    bench.attempt(program("there"), Verb::Up, &trial).unwrap();
    let bench = bench.crashed(lab_core::execute::disk::Crash::Process).seeded(2);
    bench.world().clear_log();
    let plan = bench.plan(program("here"), Verb::Destroy, &Observations::default(), &[]);
    assert_eq!(steps(&plan), ["delete app", "forget box"]);
}

/// Retained are things whose line goes, not those whose place goes: the plan said that it stays.
#[test]
fn what_is_retained_and_lies_in_what_goes_is_shown_to_go() {
    let program = |stack: &Stack| {
        let rack = stack.provider("rack", Memory::at("rack"));
        let container = rack.resource("box").add(Thing::new("box", "box"));
        let inside = stack.provider("inside", Memory::inside(&container));
        inside.resource("kept").retain().add(Thing::new("kept", "in"));
        rack.resource("other").retain().add(Thing::new("other", "there"));
        Ok(())
    };
    let bench = Bench::new().knows::<Memory>();
    bench.up_whole(program);
    let plan = bench.plan(program, Verb::Destroy, &Observations::default(), &[]);
    let reasons = |name: &str| plan.steps.iter().find(|step| step.urn.short() == name).expect(name).reasons.clone();
    assert_eq!(reasons("kept"), ["it goes with what contains it, though it is retained"]);
    assert_eq!(reasons("other"), ["it is retained"]);
    assert!(bench.destroy(program).complete());
    assert!(bench.state().records.is_empty());
}

//! A plan is a pure function: everything that will happen, why, and everything that keeps it from happening.

mod yard;

use lab_core::execute::seal::Keys;
use lab_core::execute::{Refused, SavedPlan, state_digest};
use lab_core::plan::{Observations, Request, Verb};
use lab_core::testing::{Bench, Memory, Thing};
use lab_core::*;
use yard::{Ask, Odd, Shop, Turn, problems, shown, yard};

/// A bit of everything: kept, updated, replaced, made, deleted, unknown.
fn program(next: bool) -> impl Fn(&Stack) -> Result<Output<String>, ProgramError> + Copy {
    move |stack: &Stack| {
        let rack = stack.provider("rack", Memory::at("rack"));
        let say = if next { "new" } else { "old" };
        rack.resource("kept").add(Thing::new("kept", "same"));
        let fragile = rack.resource("fragile").add(Thing { fragile: true, ..Thing::new("fragile", say) });
        let moved = Thing { stand: say.into(), data: Some("the photos".into()), ..Thing::new("moved", "x") };
        let moved = rack.resource("moved").add(moved);
        rack.resource("wired").add(Thing::new("wired", fragile.output(|fragile| fragile.text)));
        rack.resource("secret")
            .add(Thing { secret: Some(moved.output(|moved| moved.key).into()), ..Thing::new("secret", "x") });
        if next {
            rack.component("group").add(Group);
        } else {
            rack.resource("gone").add(Thing { data: Some("the diary".into()), ..Thing::new("gone", "x") });
        }
        Ok(fragile.output(|fragile| fragile.text))
    }
}

struct Group;

impl Component<Memory> for Group {
    type Handle = ();
    fn declare(self, scope: &Scope<'_, Memory>) {
        scope.resource("fresh").add(Thing::new("fresh", "x"));
    }
}

#[test]
fn it_shows_every_step_with_what_changes_why_what_is_unknown_interrupted_and_destroyed() {
    let bench = Bench::new();
    bench.up_whole(program(false));
    let plan = bench.preview(program(true));
    insta::assert_snapshot!(shown(&plan), @r#"
      rack
        ~ update memory:thing fragile
            interrupts: fragile is away for a while
            /text: "old" -> "new"
        ± replace memory:thing moved
            because /stand: a thing cannot be moved
            destroys the photos
            /stand: "old" -> "new"
        ~ update memory:thing wired
            may stay as it is, once its inputs are known
            /text: "old" -> known after fragile
        ~ update memory:thing secret
            may stay as it is, once its inputs are known
            /secret: [secret] -> known after moved
        - delete memory:thing gone
            destroys the diary
      rack / group
        + create memory:thing fresh
    This destroys data:
      the photos (moved)
      the diary (gone)
    lab: 1 to create, 1 to replace, 3 to update, 1 to delete, 1 unchanged.
    "#);
}

#[test]
fn it_shows_what_is_made_for_the_first_time() {
    insta::assert_snapshot!(shown(&Bench::new().preview(program(true))), @r"
      rack
        + create memory:thing kept
        + create memory:thing fragile
        + create memory:thing moved
        + create memory:thing wired
        + create memory:thing secret
      rack / group
        + create memory:thing fresh
    lab: 6 to create, 0 unchanged.
    ");
}

#[test]
fn it_is_a_pure_function_of_what_it_is_given() {
    let bench = Bench::new();
    bench.up_whole(program(false));
    let (declared, state, seen) = (bench.load(program(true)), bench.state(), Observations::default());
    let request = Request::new(Verb::Up, bench.now());
    let one = plan::plan(&declared, &state, &seen, &request);
    let two = plan::plan(&bench.load(program(true)), &state, &seen, &request);
    assert_eq!((one.digest(), &one), (two.digest(), &two));
    assert_eq!(bench.state(), state);
}

#[test]
fn without_observations_nothing_is_connected_to_and_nothing_written() {
    let (bench, yard) = yard();
    let program = |stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        let a = shop.resource("a").add(Odd::new("a", "x"));
        shop.read("ask", Ask::of("a"));
        stack.provider("inside", Shop::inside(&a)).resource("b").add(Odd::new("b", "x"));
        Ok(())
    };
    bench.preview(program);
    assert!(yard.contents().connects.is_empty());
    assert!(bench.disk().get("lab.journal").is_none());
    bench.up_whole(program);
    let connects = yard.contents().connects.len();
    bench.preview(|stack: &Stack| {
        stack.provider("shop", Shop::at("shop")).resource("a").add(Odd::new("a", "y"));
        Ok(())
    });
    assert_eq!(yard.contents().connects.len(), connects);
}

#[test]
fn what_is_not_known_says_after_which_step_it_will_be() {
    let bench = Bench::new();
    let program = |stack: &Stack| {
        let rack = stack.provider("rack", Memory::at("rack"));
        let a = rack.resource("a").add(Thing::new("a", "x"));
        let b = rack.resource("b").add(Thing::new("b", "x"));
        let both = join(&a.output(|a| a.room), &b.output(|b| b.room));
        rack.resource("c").add(Thing::new("c", both.map(|(a, b)| format!("{a} {b}"))));
        Ok(())
    };
    let plan = bench.preview(program);
    let step = plan.steps.iter().find(|step| step.urn.name() == "c").unwrap();
    let unknown: Vec<_> = step.unknown.iter().map(|unknown| (unknown.path.as_str(), &unknown.from)).collect();
    let from: Vec<Urn> = ["a", "b"].iter().map(|name| Urn::new("lab", "rack", &[], "memory:thing", name)).collect();
    assert_eq!(unknown, [("/text", &from)]);
}

#[test]
fn every_problem_is_reported_not_only_the_first() {
    let bench = Bench::new();
    let plan = bench.preview(|stack: &Stack| {
        let rack = stack.provider("rack", Memory::at("rack"));
        rack.resource("a").add(Thing { claims: vec![1], ..Thing::new("a", "x") });
        rack.resource("b").add(Thing { claims: vec![1], ..Thing::new("b", "x") });
        rack.resource("b").add(Thing::new("b2", "x"));
        rack.resource("has space").add(Thing::new("c", "x"));
        stack.problem("the subnet has no gateway");
        let a = rack.resource("d").add(Thing::new("d", "x"));
        rack.resource("e").add(Thing::new("e", a.output(|_| -> String { panic!("a bad closure") })));
        Ok(())
    });
    // What a closure does is seen once there is something to compute it from.
    insta::assert_snapshot!(problems(&plan).join("\n"), @r#"
    number 1 of a overlaps number 1 of b; give one of them another place
    memory:thing b is declared twice: here and at lab-core/tests/plan.rs; give one of them another name
    the name "has space" holds `::`, `/`, white space or control characters
    the subnet has no gateway
    "#);
}

#[test]
fn a_plan_with_problems_is_not_carried_out() {
    let (bench, yard) = yard();
    let program = |stack: &Stack| {
        stack.provider("shop", Shop::at("shop")).resource("a").add(Odd::new("a", "x"));
        stack.problem("something is wrong");
        Ok(())
    };
    let refused = bench.attempt(program, Verb::Up, &Default::default()).unwrap_err();
    assert!(refused.contains("something is wrong"), "{refused}");
    assert_eq!(yard.log(), [""; 0]);
}

fn saying(say: &'static str) -> impl Fn(&Stack) -> Result<(), ProgramError> + Copy {
    move |stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        shop.resource("a").add(Odd { turn: Turn::Update, ..Odd::new("a", say) });
        Ok(())
    }
}

fn saved(bench: &Bench, program: impl Fn(&Stack) -> Result<(), ProgramError>, executable: &str) -> SavedPlan {
    let declared = bench.load(&program);
    let seen = Observations::default();
    let plan = plan::plan(&declared, &bench.state(), &seen, &Request::new(Verb::Up, bench.now()));
    let at = bench.now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let digest = state_digest(&bench.state());
    SavedPlan::new(plan, seen, Vec::new(), at, digest, executable.into(), &declared.vault, &Keys::fixed()).unwrap()
}

#[test]
fn a_saved_plan_is_applied_exactly_or_refused() {
    let (bench, _) = yard();
    bench.up_whole(saying("a"));
    let kept = saved(&bench, saying("b"), "exe");
    let kept = SavedPlan::from_bytes("plan", &kept.to_bytes()).unwrap();
    let again = |bench: &Bench, program, executable: &str| {
        let now = saved(bench, program, executable);
        kept.check(&now.plan, &now.state, &now.executable).map_err(|refused| refused.to_string())
    };
    assert_eq!(again(&bench, saying("b"), "exe"), Ok(()));
    let refused = |what: &str| Err(format!("apply the plan: {what} has changed since it was made"));
    assert_eq!(again(&bench, saying("c"), "exe"), refused("the program, or something it is configured with,"));
    assert_eq!(again(&bench, saying("b"), "another"), refused("the program"));
    bench.up_whole(|stack: &Stack| {
        saying("a")(stack)?;
        stack.provider("other", Shop::at("shop")).resource("b").add(Odd::new("b", "x"));
        Ok(())
    });
    assert_eq!(again(&bench, saying("b"), "exe"), refused("the state"));
    let other = Bench::new().named("other");
    assert!(matches!(kept.check(&other.preview(saying("b")), &kept.state, "exe"), Err(Refused::Stack { .. })));
}

#[test]
fn a_saved_plan_of_another_format_says_so() {
    let newer = SavedPlan::from_bytes("plan", b"{\"format\": 99}").unwrap_err();
    assert_eq!(newer.to_string(), "read the plan plan: it has format 99, this version knows 1");
    assert!(matches!(SavedPlan::from_bytes("plan", b"{}").unwrap_err(), Refused::Unreadable { .. }));
    assert!(matches!(SavedPlan::from_bytes("plan", b"\x7fELF").unwrap_err(), Refused::Unreadable { .. }));
}

#[test]
fn what_a_replacement_and_a_removal_interrupt_is_shown() {
    let (bench, _) = yard();
    let program = |say: &'static str, both: bool| {
        move |stack: &Stack| {
            let shop = stack.provider("shop", Shop::at("shop"));
            for name in if both { vec!["router", "switch"] } else { vec!["router"] } {
                let missed = Some(format!("what needs the {name}"));
                shop.resource(name).add(Odd { turn: Turn::DeleteFirst, missed, ..Odd::new(name, say) });
            }
            Ok(())
        }
    };
    bench.up_whole(program("a", true));
    let plan = bench.preview(program("b", false));
    let interrupts = |verb: &str, name: &str| {
        let step = plan.steps.iter().find(|step| step.urn.name() == name && step.removes());
        step.unwrap_or_else(|| panic!("nothing {verb} {name}")).interrupts.clone()
    };
    assert_eq!(interrupts("replaces", "router").as_deref(), Some("what needs the router"));
    assert_eq!(interrupts("removes", "switch").as_deref(), Some("what needs the switch"));
}

#[test]
fn what_was_seen_is_saved_with_the_plan() {
    let (bench, _) = yard();
    let declared = bench.load(saying("a"));
    let asked = Urn::new("lab", "shop", &[], "odd:ask", "asked");
    let seen = Observations { answers: [(asked, serde_json::json!("x"))].into(), ..Observations::default() };
    let plan = plan::plan(&declared, &bench.state(), &seen, &Request::new(Verb::Up, bench.now()));
    let saved =
        SavedPlan::new(plan, seen.clone(), Vec::new(), 1, String::new(), "exe".into(), &declared.vault, &Keys::fixed());
    let back = SavedPlan::from_bytes("plan", &saved.unwrap().to_bytes()).unwrap();
    assert_eq!(back.observations, seen, "it is planned again from the same");
}

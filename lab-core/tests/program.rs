//! What is wrong with a program is told with its line, before anything is planned or done.

mod yard;

use lab_core::testing::{Bench, Memory, Thing};
use lab_core::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use yard::{Odd, Shop, problem, problems, yard};

#[test]
fn a_name_is_declared_once() {
    let (bench, _) = yard();
    let program = |stack: &Stack| {
        let shop = stack.provider("shop", Shop::at("shop"));
        shop.resource("it").add(Odd::new("one", "x"));
        shop.resource("it").add(Odd::new("two", "x"));
        Ok(())
    };
    insta::assert_snapshot!(problem(&bench, program), @"odd:thing it is declared twice: here and at lab-core/tests/program.rs; give one of them another name");
}

#[test]
fn two_providers_and_two_components_may_each_have_one_of_a_name() {
    struct Group;
    impl Component<Shop> for Group {
        type Handle = ();
        fn declare(self, scope: &Scope<'_, Shop>) {
            let name = format!("{}-it", scope.provider_name());
            scope.resource("it").add(Odd { natural: false, ..Odd::new(&name, "x") });
        }
    }
    let (bench, yard) = yard();
    bench.up_whole(|stack: &Stack| {
        for name in ["one", "two"] {
            let shop = stack.provider(name, Shop::at(name));
            shop.component("left").add(Group);
            shop.component("right").add(Group);
        }
        Ok(())
    });
    assert_eq!(yard.things().len(), 4);
}

#[test]
fn a_provider_is_declared_once() {
    let (bench, _) = yard();
    let said = problem(&bench, |stack: &Stack| {
        stack.provider("shop", Shop::at("one"));
        stack.provider("shop", Shop::at("two"));
        Ok(())
    });
    assert_eq!(said, "a provider named shop is declared already, at lab-core/tests/program.rs");
}

#[test]
fn a_problem_names_the_line_that_added_the_outermost_component() {
    struct Outer;
    impl Component<Memory> for Outer {
        type Handle = ();
        fn declare(self, scope: &Scope<'_, Memory>) {
            scope.component("inner").add(Inner);
        }
    }
    struct Inner;
    impl Component<Memory> for Inner {
        type Handle = ();
        fn declare(self, scope: &Scope<'_, Memory>) {
            scope.problem("the address is not in the subnet");
            scope.resource("a").add(Thing { claims: vec![1], ..Thing::new("a", "x") });
            scope.resource("b").add(Thing { claims: vec![1], ..Thing::new("b", "x") });
        }
    }
    let mut line = 0;
    let bench = Bench::new();
    let lines = std::cell::Cell::new(0);
    let plan = bench.preview(|stack: &Stack| {
        let rack = stack.provider("rack", Memory::at("rack"));
        lines.set(line!() + 1);
        rack.component("outer").add(Outer);
        Ok(())
    });
    line += lines.get();
    assert_eq!(plan.problems.len(), 2);
    assert!(
        plan.problems.iter().flat_map(|problem| &problem.places).all(|place| place.line == line),
        "{:#?}",
        plan.problems
    );
}

#[test]
fn a_circle_is_named_as_a_path_that_comes_back() {
    let bench = Bench::new();
    // A handle comes from a declaration, so a circle takes a provider that lives in what is declared on it.
    let declared = bench.load(|stack: &Stack| {
        let rack = stack.provider("rack", Memory::at("rack"));
        let a = rack.resource("a").add(Thing::new("a", "x"));
        let b = rack.resource("b").add(Thing::new("b", a.output(|a| a.text)));
        rack.resource("c").depends_on(&b).add(Thing::new("c", "x"));
        Ok(())
    });
    let mut turned = declared.clone();
    let c = turned.nodes[2].urn.clone();
    Arc::make_mut(&mut turned.nodes[0].options).after.push((c, EdgeKind::After));
    let graph = plan::Graph::new(&turned);
    let said: Vec<&str> = graph.problems.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(said, ["these need each other in a circle: a needs c needs b needs a"]);
    assert_eq!(graph.problems[0].places.len(), 3, "each with its line");
}

#[test]
fn what_is_needed_has_to_be_declared_in_this_stack() {
    let bench = Bench::new();
    let carried = std::cell::RefCell::new(None);
    bench.load(|stack: &Stack| {
        let rack = stack.provider("rack", Memory::at("rack"));
        *carried.borrow_mut() = Some(rack.resource("a").add(Thing::new("a", "x")));
        Ok(())
    });
    let a: Handle<_> = carried.borrow().clone().unwrap();
    let said = problem(&bench, |stack: &Stack| {
        let rack = stack.provider("rack", Memory::at("rack"));
        rack.resource("b").depends_on(&a).add(Thing::new("b", "x"));
        Ok(())
    });
    assert_eq!(said, "b needs lab::rack::::memory:thing::a, which this stack does not declare");
}

/// A type in whose map a person may write any key.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Free {
    name: String,
    #[serde(default)]
    free: BTreeMap<String, String>,
}

impl Resource<Shop> for Free {
    const TYPE: &'static str = "odd:free_form";
    type Outputs = ();
    async fn find(_: &yard::Counter, _: &Op<Free>) -> Result<Found<()>> {
        Ok(Found::Absent)
    }
    async fn apply(&self, _: &yard::Counter, _: &Op<Free>) -> Result<Step<()>> {
        Ok(Step::Done(Made::new(self.name.as_str(), ())))
    }
    async fn delete(_: &yard::Counter, _: &Op<Free>) -> Result<Step<()>> {
        Ok(Step::gone())
    }
}

fn free_form(free: &[&str]) -> impl Fn(&Stack) -> Result<(), ProgramError> {
    let free: BTreeMap<String, String> = free.iter().map(|key| ((*key).to_owned(), "x".to_owned())).collect();
    move |stack: &Stack| {
        let free = free.clone();
        stack.provider("shop", Shop::at("shop")).resource("it").add(Free { name: "it".into(), free });
        Ok(())
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Ports { ports: BTreeMap<u16, String> },
}

/// Integer keys do not come back from an internally tagged enum.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Keyed {
    tagged: Tagged,
}

impl Resource<Shop> for Keyed {
    const TYPE: &'static str = "odd:keyed";
    type Outputs = ();
    async fn find(_: &yard::Counter, _: &Op<Keyed>) -> Result<Found<()>> {
        Ok(Found::Absent)
    }
    async fn apply(&self, _: &yard::Counter, _: &Op<Keyed>) -> Result<Step<()>> {
        Ok(Step::Done(Made::new("keyed", ())))
    }
    async fn delete(_: &yard::Counter, _: &Op<Keyed>) -> Result<Step<()>> {
        Ok(Step::gone())
    }
}

#[test]
fn what_does_not_come_back_as_it_went_is_a_problem_with_its_line() {
    let (bench, _) = yard();
    let plan = bench.preview(|stack: &Stack| {
        let tagged = Tagged::Ports { ports: BTreeMap::from([(80, "http".to_owned())]) };
        stack.provider("shop", Shop::at("shop")).resource("it").add(Keyed { tagged });
        Ok(())
    });
    assert_eq!(plan.problems.len(), 1, "{:#?}", plan.problems);
    assert!(plan.problems[0].places[0].file.ends_with("program.rs"));
    insta::assert_snapshot!(problems(&plan).join("\n"), @r#"
    odd:keyed it cannot be stored: it does not come back from JSON: invalid type: string "80", expected u16
    "#);
    assert_eq!(problems(&bench.preview(free_form(&[]))), [""; 0]);
}

#[test]
fn the_engines_own_keys_are_not_a_users() {
    let (bench, _) = yard();
    let said = ["$lab.secret", "$lab.unknown", "$lab.anything"]
        .map(|key| problems(&bench.preview(free_form(&[key]))).join("\n"));
    insta::assert_snapshot!(said.join("\n"), @r#"
    odd:free_form it cannot be stored: keys that begin with "$lab." are reserved
    odd:free_form it cannot be stored: at /free stands a key that begins with "$lab.", which is reserved (or an output under `flatten`)
    odd:free_form it cannot be stored: at /free stands a key that begins with "$lab.", which is reserved (or an output under `flatten`)
    "#);
}

#[test]
fn what_a_program_fails_with_is_told_before_anything_else() {
    let (bench, yard) = yard();
    let failing = |stack: &Stack| {
        stack.provider("shop", Shop::at("shop")).resource("it").add(Odd::new("it", "x"));
        let _: std::net::Ipv4Addr = "10.69.1.300".parse()?;
        Ok(())
    };
    assert_eq!(bench.try_load(failing).err().unwrap().to_string(), "invalid IPv4 address syntax");
    assert!(bench.attempt(failing, plan::Verb::Up, &Default::default()).is_err());
    assert!(yard.contents().connects.is_empty());
}

/// What a producer returns and a consumer imports.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Address {
    room: String,
    key: Secret<String>,
}

#[derive(Serialize)]
struct Produced {
    room: Output<String>,
    key: Output<Secret<String>>,
}

fn producer(name: &'static str) -> impl Fn(&Stack) -> Result<Produced, ProgramError> {
    move |stack: &Stack| {
        let made = stack.provider("rack", Memory::at("rack")).resource("made").add(Thing::new(name, "x"));
        Ok(Produced { room: made.output(|made| made.room), key: made.output(|made| made.key) })
    }
}

fn consumer(stack: &Stack) -> Result<(), ProgramError> {
    let address: Address = stack.outputs_of("producer")?;
    let secret = Some(Input::from(address.key));
    stack
        .provider("rack", Memory::at("rack"))
        .resource("used")
        .add(Thing { secret, ..Thing::new("used", address.room) });
    Ok(())
}

#[test]
fn a_stack_reads_what_another_returned_when_it_was_last_applied() {
    let bench = Bench::new().named("consumer");
    let other = bench.clone().named("producer");
    let never = bench.try_load(consumer).err().unwrap().to_string();
    assert_eq!(never, "stack producer was never applied in this lab directory: run its `up` first");
    other.up_whole(producer("made"));
    bench.up_whole(consumer);
    let used = bench.world().get("rack", "used").unwrap().value;
    assert_eq!(used["text"], "rack/made#1");
    assert_eq!(used["secret"], "key-of-made-1".len());
    assert!(bench.preview(consumer).is_empty());
    // Only what the producer was applied as counts, and it shows as a change here.
    other.up_whole(producer("moved"));
    let plan = bench.preview(consumer);
    assert_eq!(yard::steps(&plan), ["update used"]);
    #[derive(Deserialize)]
    struct Wrong {
        #[expect(dead_code, reason = "it is only asked for")]
        rooms: Vec<String>,
    }
    let wrong = bench.try_load(|stack: &Stack| stack.outputs_of::<Wrong>("producer").map(|_| ())).err().unwrap();
    assert!(wrong.to_string().starts_with("the outputs of stack producer are not of the type"), "{wrong}");
}

/// The plan said that there was nothing to do, and the run failed each time, with a word about the disk.
#[test]
fn what_the_program_returns_and_cannot_be_computed_is_a_problem_of_the_plan() {
    let bench = Bench::new();
    let program = |stack: &Stack| -> std::result::Result<Output<String>, ProgramError> {
        let rack = stack.provider("rack", Memory::at("rack"));
        let thing = rack.resource("made").add(Thing::new("made", "made"));
        Ok(thing.output(|_| -> String { panic!("no such door") }))
    };
    let report = bench.up(program);
    let [failure] = report.failed.as_slice() else { panic!("{report:#?}") };
    assert!(failure.error.contains("no such door"), "{failure:?}");
    let hint = failure.hint.as_deref().unwrap_or_default();
    assert!(hint.contains("returns") && !hint.contains("disk"), "{hint}");
    let problems = yard::problems(&bench.preview(program));
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("no such door"), "{problems:?}");
}

/// What it is computed from changes in the same run, which is what mends it.
#[test]
fn what_the_program_returns_may_not_be_computable_before_its_source_has_changed() {
    let bench = Bench::new();
    let program = |text: &'static str| {
        move |stack: &Stack| -> std::result::Result<Output<String>, ProgramError> {
            let rack = stack.provider("rack", Memory::at("rack"));
            let thing = rack.resource("made").add(Thing::new("made", text));
            Ok(thing.output(|thing| thing.text.strip_prefix("10.").expect("an address").to_owned()))
        }
    };
    assert_eq!(bench.up(program("none")).failed.len(), 1);
    assert_eq!(yard::problems(&bench.preview(program("10.1"))), [""; 0]);
    bench.up_whole(program("10.1"));
}

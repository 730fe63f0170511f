//! Environments: one program, a stack and a configuration file for each, and one lab directory.

use insta::assert_snapshot;
use lab_cli::{Lab, Surroundings};
use lab_core::execute::seal::{Ids, Keys};
use lab_core::execute::{KeySource, Simulated, Simulator};
use lab_core::testing::{Memory, Thing, World};
use lab_core::{Clock, Link, Output, Placed, ProgramError, Stack, Windows};
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

#[derive(Deserialize)]
struct Environment {
    cellar: String,
    number: Placed<u64>,
    #[serde(default)]
    says: Option<String>,
    #[serde(default)]
    promoted_from: Option<String>,
    #[serde(default)]
    maintenance: Windows,
}

#[derive(Serialize, Deserialize)]
struct Shelf {
    says: String,
    room: Output<String>,
}

fn shelf(stack: &Stack, here: Environment) -> Result<Shelf, ProgramError> {
    stack.maintenance(here.maintenance);
    let says = match (here.says, here.promoted_from) {
        (Some(says), _) => says,
        (None, Some(env)) => stack.promoted_from::<Shelf>(&env)?.says,
        (None, None) => return Err(ProgramError::new("neither `says` nor `promoted_from`")),
    };
    let memory = stack.provider("memory", Memory::at(&here.cellar));
    let place = here.number.place.clone().ok_or_else(|| ProgramError::new("a file has lines"))?;
    let thing = Thing { claims: vec![here.number.value], fragile: true, ..Thing::new("shelf", says.as_str()) };
    let shelf = memory.resource("shelf").declared_at(place).add(thing);
    Ok(Shelf { says, room: shelf.output(|shelf| shelf.room) })
}

/// A directory with configuration files, and a world in memory.
struct Bench {
    dir: tempfile::TempDir,
    world: Arc<World>,
    now: SystemTime,
}

struct Ran {
    exit: u8,
    out: String,
    err: String,
}

impl Bench {
    fn new() -> Bench {
        let bench = Bench {
            dir: tempfile::tempdir().unwrap(),
            world: Arc::default(),
            // Sunday, the 22nd of November 2026, noon, in UTC.
            now: SystemTime::UNIX_EPOCH + Duration::from_secs(20_779 * 86_400 + 12 * 3_600),
        };
        bench.write("dev", "cellar = \"dev\"\nnumber = 1\nsays = \"hello\"\n");
        bench.write("staging", "cellar = \"staging\"\nnumber = 2\npromoted_from = \"dev\"\n");
        bench
    }

    fn write(&self, env: &str, text: &str) {
        std::fs::write(self.dir.path().join(format!("shelf-{env}.toml")), text).unwrap();
    }

    fn run(&self, arguments: &str) -> Ran {
        let (mut around, transcript) = Surroundings::captured();
        around.link = Some(Link::memory(self.world.clone()).on(Clock::starting(self.now, 1000)));
        around.keys = Some(KeySource::Given(Keys::fixed()));
        around.executable = Some("this program".into());
        around.ids = Arc::new(Ids::seeded(1));
        let dir = self.dir.path().display().to_string();
        let lab = Lab::environments("shelf", shelf).configuration(&format!("{dir}/shelf-{{env}}.toml"));
        let lab = lab.hardware(Memoria);
        let state = format!("{dir}/state");
        let words = ["shelf", "--state", state.as_str()].into_iter().chain(arguments.split_whitespace());
        let exit = lab.run_with(words, around);
        let plain = |text: String| text.replace(&dir, "DIR");
        Ran { exit, out: plain(transcript.out()), err: plain(transcript.err()) }
    }

    #[track_caller]
    fn done(&self, arguments: &str) -> String {
        let ran = self.run(arguments);
        assert_eq!((ran.exit, ran.err.as_str()), (0, ""), "{arguments}: {}", ran.out);
        ran.out
    }
}

/// A world in memory to rehearse on.
struct Memoria;

impl Simulator for Memoria {
    fn start(&self, _seed: u64) -> Pin<Box<dyn Future<Output = io::Result<Simulated>> + Send + '_>> {
        Box::pin(async {
            let world: Arc<World> = Arc::default();
            let shown = world.clone();
            Ok(Simulated {
                link: Link::memory(world).on(Clock::scaled(1000)),
                summary: vec!["a cellar, in memory".into()],
                reach: Vec::new(),
                world: Box::new(move || shown.dump()),
                guard: Box::new(()),
            })
        })
    }
}

#[test]
fn an_environment_is_rehearsed_after_those_it_takes_over_from() {
    let bench = Bench::new();
    bench.write("production", "cellar = \"production\"\nnumber = 3\npromoted_from = \"staging\"\n");
    assert_snapshot!(bench.done("rehearse --env production"), @r#"
    Rehearsal: nothing of this is real.
      a cellar, in memory
    shelf-production takes over from shelf-staging, which is rehearsed first.
    shelf-staging takes over from shelf-dev, which is rehearsed first.
      memory
        + create memory:thing shelf  DIR/shelf-dev.toml:2
      outputs
        room: [unknown]
        says: "hello"
    shelf-dev: 1 to create, 0 unchanged.
      + memory:thing shelf created
    shelf-dev: 1 done.
      room: dev/shelf#1
      says: hello
      memory
        + create memory:thing shelf  DIR/shelf-staging.toml:2
      outputs
        room: [unknown]
        says: "hello"
    shelf-staging: 1 to create, 0 unchanged.
      + memory:thing shelf created
    shelf-staging: 1 done.
      room: staging/shelf#2
      says: hello
      memory
        + create memory:thing shelf  DIR/shelf-production.toml:2
      outputs
        room: [unknown]
        says: "hello"
    shelf-production: 1 to create, 0 unchanged.
      + memory:thing shelf created
    shelf-production: 1 done.
      room: production/shelf#3
      says: hello
    The second plan of shelf-dev is empty: 1 resources are as the program says.
    The second plan of shelf-staging is empty: 1 resources are as the program says.
    The second plan of shelf-production is empty: 1 resources are as the program says.
    "#);
    assert_eq!(bench.world.count(), 0, "the real world was left alone");
    // What takes over from each other in a circle cannot be rehearsed, nor be applied.
    bench.write("dev", "cellar = \"dev\"\nnumber = 1\npromoted_from = \"production\"\n");
    let ran = bench.run("rehearse --env production");
    assert_eq!(ran.exit, 1);
    assert_snapshot!(ran.err, @"
    error: the program failed, so nothing was planned
      cause: stack shelf-production was never applied in this lab directory: run its `up` first
    ");
}

#[test]
fn each_environment_is_a_stack_of_its_own_in_one_directory() {
    let bench = Bench::new();
    bench.done("up --yes --env dev");
    bench.done("up --yes --env staging");
    assert_eq!(bench.world.get("staging", "shelf").unwrap().value["text"], "hello");
    let verified = bench.done("state verify --env dev");
    assert!(verified.contains("shelf-dev.journal") && verified.contains("shelf-staging.journal"), "{verified}");
    assert_snapshot!(bench.done("output --env staging"), @"
      room: staging/shelf#2
      says: hello
    ");
    bench.done("destroy --yes --env dev");
    assert_eq!(bench.world.count(), 1);
}

#[test]
fn an_environment_is_one_that_has_a_file() {
    let bench = Bench::new();
    let ran = bench.run("preview");
    assert_eq!(ran.exit, 64);
    assert_snapshot!(ran.err, @"
    error: which environment is meant was not said
      try: `--env dev` or `--env staging`
    ");
    let ran = bench.run("preview --env prod");
    assert_eq!(ran.exit, 64);
    assert_snapshot!(ran.err, @r#"
    error: there is no environment "prod"
      cause: there is no DIR/shelf-prod.toml
      try: `--env dev` or `--env staging`
    "#);
    assert!(!bench.dir.path().join("state").exists(), "nothing was written");
}

#[test]
fn every_problem_of_a_configuration_is_told_and_nothing_is_planned() {
    let bench = Bench::new();
    let wrong =
        "cellar = 7\nnumbr = 1\nsays = \"hello\"\nmaintenance = [\"Tue 20:00-21:00\", \"Tuesday 20:00-21:00\"]\n";
    bench.write("dev", wrong);
    let ran = bench.run("up --yes --env dev");
    assert_eq!((ran.exit, ran.out.as_str()), (1, ""));
    assert_snapshot!(ran.err, @r#"
    error: DIR/shelf-dev.toml has 4 problems; nothing was planned
      cause: DIR/shelf-dev.toml:1:1: number: is missing
        DIR/shelf-dev.toml:1:10: cellar: a string is needed, and this is integer `7`
        DIR/shelf-dev.toml:2:1: numbr: there is no such key; did you mean "number"?
        DIR/shelf-dev.toml:4:35: maintenance[1]: "Tuesday 20:00-21:00" is not a window such as `Tue 20:00-21:00`: "Tuesday" is no day: `daily`, or of Sun, Mon, Tue, Wed, Thu, Fri, Sat
    "#);
    assert_eq!(bench.world.count(), 0);
}

#[test]
fn a_clash_of_two_environments_names_the_lines_of_both_files() {
    let bench = Bench::new();
    bench.done("up --yes --env dev");
    bench.write("staging", "cellar = \"staging\"\npromoted_from = \"dev\"\nnumber = 1\n");
    let ran = bench.run("up --yes --env staging");
    assert_eq!(ran.exit, 1);
    assert!(
        ran.out.contains("problem: number 1 of shelf in stack shelf-dev overlaps number 1 of shelf (DIR/shelf-dev.toml:2, DIR/shelf-staging.toml:3)"),
        "{}",
        ran.out
    );
}

#[test]
fn what_is_held_is_shown_and_done_in_its_window() {
    let mut bench = Bench::new();
    bench.done("up --yes --env dev");
    let held = "cellar = \"dev\"\nnumber = 1\nsays = \"goodbye\"\nmaintenance = [\"Sun 20:00-21:00\"]\n";
    bench.write("dev", held);
    assert_snapshot!(bench.done("up --env dev"), @r#"
      held until Sun 2026-11-22 20:00 UTC, when the maintenance window opens
        ~ update memory:thing shelf  DIR/shelf-dev.toml:2
            interrupts: shelf is away for a while
            /text: "hello" -> "goodbye"
    shelf-dev: nothing to do, 1 held until Sun 2026-11-22 20:00 UTC, 0 unchanged.
    What is held waits for its maintenance window: run it again from Sun 2026-11-22 20:00 UTC.
    "#);
    let event = bench.done("preview --json --env dev");
    let event: serde_json::Value = serde_json::from_str(event.lines().last().unwrap()).unwrap();
    assert_eq!(event["held"][0]["name"], "shelf");
    assert_eq!(event["held"][0]["until"], 20_779_u64 * 86_400 + 20 * 3_600);
    // What is held was not tried, so nothing of it is promoted.
    bench.done("up --yes --env staging");
    assert_eq!(bench.world.get("staging", "shelf").unwrap().value["text"], "hello");
    bench.now += Duration::from_secs(8 * 3_600);
    bench.done("up --yes --env dev");
    assert_eq!(bench.world.get("dev", "shelf").unwrap().value["text"], "goodbye");
    assert!(bench.done("preview --env staging").contains("1 to update"));
}

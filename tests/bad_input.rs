//! Bad input gets one clear error and changes nothing: the text of each is what a person sees.

mod simulated;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lab::execute::LabDir;
use lab::execute::disk::{Crash, Verb as DiskVerb};
use lab::execute::seal::Keys;
use lab::kube::{Kubernetes, namespace};
use lab::prelude::*;
use lab::sim::{Machine, Options, Rack};
use lab::talos::authority::Authority;
use lab::talos::secrets::Secrets;
use lab::talos::{Cluster, KubernetesVersion, Talos, TalosVersion};
use lab::testing::{Bench, Memory, Thing, Trial, World};
use lab::{Found, Link, Made, Op, Provider, Realm, Resource, Step, Types, Urn};
use serde_json::Value;
use simulated::{Desk, Ran, Simulated};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const JOURNAL: &str = "state/homelab.journal";

#[derive(Serialize)]
struct Home {
    kubeconfig: Output<Secret<String>>,
    secrets: Output<Secret<String>>,
}

/// One machine, its cluster, and one object in it.
fn home(stack: &Stack) -> Result<Home, ProgramError> {
    with(stack, |_, _| {})
}

type K8s<'a> = lab::Scope<'a, Kubernetes>;

fn with(stack: &Stack, more: impl FnOnce(&K8s<'_>, Output<Secret<String>>)) -> Result<Home, ProgramError> {
    let lan = Subnet::new("10.69.1.0/24")?;
    let metal = stack.provider("metal", Talos::default());
    let cluster = metal.component("homelab").add(Cluster {
        control_plane: vec![lan.host("talos-cp-1", 101)?],
        install_disk: "/dev/nvme0n1".into(),
        ..Cluster::new(TalosVersion::V1_11, KubernetesVersion::V1_34, "https://10.69.1.101:6443")
    });
    let k8s = stack.provider("k8s", Kubernetes::inside(&cluster.container(), cluster.kubeconfig()));
    k8s.resource("media").add(namespace("media"));
    more(&k8s, cluster.kubeconfig());
    Ok(Home { kubeconfig: cluster.kubeconfig(), secrets: cluster.secrets() })
}

/// The lab as it stands after an `up`, for all tests here: none of them changes it.
struct Standing {
    there: Simulated,
    files: BTreeMap<PathBuf, Vec<u8>>,
    keys: Keys,
    kubeconfig: String,
    secrets: String,
}

fn standing() -> &'static Standing {
    static STANDING: OnceLock<Standing> = OnceLock::new();
    STANDING.get_or_init(|| {
        let rack = Rack::new().machine(Machine::new([10, 69, 1, 101].into()));
        let there = Simulated::start(&rack, Options::default());
        let (desk, lab) = (Desk::new(), Lab::new("homelab", home));
        let ran = desk.run(&there, &lab, "up --yes");
        assert_eq!(ran.exit, 0, "{}\n{}", ran.out, ran.err);
        let ran = desk.run(&there, &lab, "preview --out @plan");
        assert_eq!(ran.exit, 0, "{}\n{}", ran.out, ran.err);
        let output = |name: &str| desk.run(&there, &lab, &format!("output {name} --raw --show-secrets")).out;
        let (kubeconfig, secrets) = (output("kubeconfig"), output("secrets"));
        Standing { files: desk.files(), keys: desk.keys(), kubeconfig, secrets, there }
    })
}

fn desk() -> Desk {
    let standing = standing();
    Desk::with(&standing.files, standing.keys.clone())
}

/// What a person is told: the problems of the plan, then the errors.
fn told(ran: &Ran) -> String {
    let problems = ran.out.lines().filter(|line| line.starts_with("problem: "));
    let all: String = problems.map(|line| format!("{line}\n")).chain([ran.err.clone()]).collect();
    // Which line it is changes with every change of this file.
    let mut parts = all.split("bad_input.rs:");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |told, part| {
        assert!(part.starts_with(|c: char| c.is_ascii_digit()), "a place without a line: {all}");
        told + "bad_input.rs:LINE" + part.trim_start_matches(|c: char| c.is_ascii_digit())
    })
}

/// Runs a command line on a copy of the standing lab, after `spoil` has done something to its files, and returns what a
/// person is told, having checked that it failed and that nothing was changed: not a byte of the state, nothing there.
fn check_in<T: Serialize + 'static>(
    program: impl Fn(&Stack) -> Result<T, ProgramError> + 'static,
    arguments: &str,
    exit: u8,
    name: &str,
    spoil: impl FnOnce(&Desk),
) -> String {
    let (standing, desk) = (standing(), desk());
    spoil(&desk);
    let (before, world) = (states(&desk), standing.there.world());
    let ran = desk.run(&standing.there, &Lab::new(name, program), arguments);
    assert_eq!(ran.exit, exit, "{}\n{}", ran.out, ran.err);
    assert_eq!(states(&desk), before, "the state was changed");
    assert_eq!(standing.there.world(), world, "the lab was changed");
    told(&ran)
}

fn check<T: Serialize + 'static>(
    program: impl Fn(&Stack) -> Result<T, ProgramError> + 'static,
    arguments: &str,
    spoil: impl FnOnce(&Desk),
) -> String {
    check_in(program, arguments, 1, "homelab", spoil)
}

/// The states on a desk, by file, as text that a failed assertion can show.
fn states(desk: &Desk) -> BTreeMap<PathBuf, String> {
    let journals = desk.files().into_iter().filter(|(path, _)| path.extension().is_some_and(|ext| ext == "journal"));
    journals.map(|(path, bytes)| (path, String::from_utf8_lossy(&bytes).into_owned())).collect()
}

/// Rewrites a file.
fn edit(desk: &Desk, name: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    let path = desk.path(name);
    std::fs::write(&path, change(std::fs::read(&path).unwrap())).unwrap();
}

/// Replaces numbers that differ from run to run.
fn numbers(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c.is_ascii_digit() {
            true if out.ends_with('N') => {}
            true => out.push('N'),
            false => out.push(c),
        }
    }
    out
}

#[test]
fn a_corrupt_state_is_refused_naming_the_place() {
    // One bit of the first record.
    let flip = |desk: &Desk| {
        edit(desk, JOURNAL, |mut bytes| {
            let second = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
            bytes[second + 120] ^= 1;
            bytes
        });
    };
    let said = check(home, "up --yes", flip);
    insta::assert_snapshot!(numbers(&said), @"
    error: failed to read DIR/state/homelab.journal
      cause: the snapshot is damaged at byte N: its content does not fit its SHA-N in the header
      try: nothing was changed; restore this file from a backup, and check the disk it was on
    ");
    for arguments in ["preview", "destroy --yes", "refresh", "drift", "output", "state list", "state verify"] {
        assert_eq!(check(home, arguments, flip), said, "{arguments}");
    }
    let garbage = |desk: &Desk| edit(desk, JOURNAL, |_| b"PK\x03\x04 not what it was\n".to_vec());
    insta::assert_snapshot!(check(home, "up --yes", garbage), @"
    error: failed to read DIR/state/homelab.journal
      cause: the header is damaged at byte 0: its line is not JSON
      try: nothing was changed; restore this file from a backup, and check the disk it was on
    ");
    let empty = |desk: &Desk| edit(desk, JOURNAL, |_| Vec::new());
    insta::assert_snapshot!(check(home, "up --yes", empty), @"
    error: failed to read DIR/state/homelab.journal
      cause: the header is damaged at byte 0: the file is empty
      try: nothing was changed; restore this file from a backup, and check the disk it was on
    ");
}

fn halve(desk: &Desk) {
    edit(desk, JOURNAL, |mut bytes| {
        bytes.truncate(bytes.len() / 2);
        bytes
    });
}

#[test]
fn a_state_that_lost_a_part_of_its_snapshot_or_header_is_refused() {
    // Things in memory, and so many that a snapshot is taken.
    let many = |stack: &Stack| {
        let rack = stack.provider("rack", Memory::at("rack"));
        (0..40)
            .for_each(|n| drop(rack.resource(&format!("thing-{n}")).add(Thing::new(&format!("thing-{n}"), "hello"))));
        Ok(())
    };
    let (standing, desk, lab) = (standing(), Desk::new(), Lab::new("homelab", many));
    let world = Arc::new(World::default());
    let run = |arguments: &str| {
        let in_memory = |around: &mut lab::Surroundings| around.link = Some(Link::memory(world.clone()));
        desk.run_in(&standing.there, &lab, arguments, in_memory)
    };
    assert_eq!(run("up --yes --parallel 1").exit, 0);
    let whole = desk.files()[&PathBuf::from(JOURNAL)].clone();
    halve(&desk);
    let before = states(&desk);
    for arguments in ["up --yes", "destroy --yes", "preview", "state list"] {
        let ran = run(arguments);
        assert_eq!(ran.exit, 1, "{arguments}: {}\n{}", ran.out, ran.err);
        assert_eq!((states(&desk), world.count()), (before.clone(), 40), "{arguments}");
        if arguments == "up --yes" {
            insta::assert_snapshot!(numbers(&told(&ran)), @"
            error: failed to read DIR/state/homelab.journal
              cause: the snapshot is damaged at byte N: it has N bytes, only N are there
              try: nothing was changed; restore this file from a backup, and check the disk it was on
            ");
        }
    }
    edit(&desk, JOURNAL, |_| whole[..20].to_vec());
    let before = states(&desk);
    let ran = run("up --yes");
    insta::assert_snapshot!(told(&ran), @"
    error: failed to read DIR/state/homelab.journal
      cause: the header is damaged at byte 0: its line has no end
      try: nothing was changed; restore this file from a backup, and check the disk it was on
    ");
    assert_eq!((ran.exit, states(&desk), world.count()), (1, before, 40));
}

#[test]
fn a_state_that_was_cut_in_the_middle_is_refused() {
    insta::assert_snapshot!(numbers(&check(home, "up --yes", halve)), @"
    error: failed to read DIR/state/homelab.journal
      cause: the snapshot is damaged at byte N: it has N bytes, only N are there
      try: nothing was changed; restore this file from a backup, and check the disk it was on
    ");
}

#[test]
fn a_state_of_a_newer_format_is_refused() {
    let newer = |desk: &Desk| {
        edit(desk, JOURNAL, |bytes| {
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.lines().next().unwrap().contains(r#""format":1"#), "{text}");
            text.replacen(r#""format":1"#, r#""format":7"#, 1).into_bytes()
        });
    };
    insta::assert_snapshot!(check(home, "up --yes", newer), @"
    error: failed to read DIR/state/homelab.journal
      cause: it has format 7, this version reads formats up to 1
      try: update lab to the version that wrote the file, or a later one
    ");
}

#[test]
fn a_state_with_other_keys_is_refused() {
    let standing = standing();
    let desk = Desk::with(&standing.files, Keys::throwaway());
    let before = desk.files();
    let ran = desk.run(&standing.there, &Lab::new("homelab", home), "destroy --yes");
    assert_eq!(ran.exit, 1);
    let (before_key, _) = told(&ran).split_once("age1").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    insta::assert_snapshot!(before_key, @"
    error: failed to open the secrets of stack homelab
      cause: open a sealed secret: no key of this process fits; it has
    ");
    assert_eq!(desk.files()[&PathBuf::from(JOURNAL)], before[&PathBuf::from(JOURNAL)]);
}

#[test]
fn a_plan_of_something_else_is_refused() {
    insta::assert_snapshot!(check_in(home, "up @plan", 1, "attic", |_| {}), @"
    error: failed to apply the plan
      cause: it is of stack homelab, this program's is attic
      try: apply it with the program and the `--env` that made it
    ");
    insta::assert_snapshot!(check(home, "up @plan --env dev", |_| {}), @"
    error: failed to apply the plan
      cause: it is of stack homelab, this program's is homelab-dev
      try: apply it with the program and the `--env` that made it
    ");
    let changed = |stack: &Stack| {
        with(stack, |k8s, _| {
            k8s.resource("music").add(namespace("music"));
        })
    };
    insta::assert_snapshot!(check(changed, "up @plan", |_| {}), @"
    error: failed to apply the plan
      cause: the program, or something it is configured with, has changed since it was made
      try: look at a new one with `preview --out`; nothing was changed
    ");
    insta::assert_snapshot!(check(home, "destroy @plan --yes", |_| {}), @"
    error: failed to destroy
      cause: the plan was made for `up`
      try: `up PLAN` does it
    ");
    let cut = |desk: &Desk| {
        edit(desk, "plan", |mut bytes| {
            bytes.truncate(bytes.len() / 2);
            bytes
        });
    };
    insta::assert_snapshot!(numbers(&check(home, "up @plan", cut)), @"
    error: failed to read the plan DIR/plan
      cause: EOF while parsing a string at line N column N
      try: make it anew with `preview --out`
    ");
    let newer = |desk: &Desk| {
        edit(desk, "plan", |bytes| {
            let mut plan: Value = serde_json::from_slice(&bytes).unwrap();
            plan["format"] = 7.into();
            plan.to_string().into_bytes()
        });
    };
    insta::assert_snapshot!(check(home, "up @plan", newer), @"
    error: failed to read the plan DIR/plan
      cause: it has format 7, this version knows 1
      try: use the version of lab that wrote it, or make it anew with `preview --out`
    ");
    let other = |desk: &Desk| edit(desk, "plan", |_| br#"{"name": "package.json"}"#.to_vec());
    insta::assert_snapshot!(check(home, "up @plan", other), @"
    error: failed to read the plan DIR/plan
      cause: it is not a plan of lab
      try: make it anew with `preview --out`
    ");
    insta::assert_snapshot!(check(home, "up @nowhere", |_| {}), @"
    error: failed to read the plan DIR/nowhere
      cause: No such file or directory (os error 2)
      try: `preview --out DIR/nowhere` makes it
    ");
}

#[test]
fn a_duplicate_name_is_a_problem_with_both_lines() {
    let twice = |stack: &Stack| {
        with(stack, |k8s, _| {
            k8s.resource("media").add(namespace("films"));
        })
    };
    insta::assert_snapshot!(check(twice, "up --yes", |_| {}), @"
    problem: kubernetes:object media is declared twice: here and at tests/bad_input.rs:LINE; give one of them another name (tests/bad_input.rs:LINE)
    error: the plan has a problem; nothing was changed
    ");
}

#[test]
fn a_circle_is_named_as_a_path() {
    let circle = |stack: &Stack| {
        with(stack, |k8s, kubeconfig| {
            // What lives inside `second` is needed to make it.
            let second = Urn::new("homelab", "k8s", &[], "kubernetes:object", "second");
            let nested = k8s.stack().provider("nested", Kubernetes::inside(&second, kubeconfig));
            let first = nested.resource("first").add(namespace("first"));
            k8s.resource("second").depends_on(&first).add(namespace("second"));
        })
    };
    insta::assert_snapshot!(check(circle, "up --yes", |_| {}), @"
    problem: these need each other in a circle: first needs second needs first (tests/bad_input.rs:LINE, tests/bad_input.rs:LINE); remove one of these dependencies
    error: the plan has a problem; nothing was changed
    ");
}

#[test]
fn an_unknown_target_comes_with_a_suggestion() {
    insta::assert_snapshot!(check(home, "up --yes --target homelab/talos-pc-1", |_| {}), @r#"
    problem: there is no "homelab/talos-pc-1" to target; did you mean "homelab/talos-cp-1"? `state list` shows what there is
    error: the plan has a problem; nothing was changed
    "#);
    insta::assert_snapshot!(check(home, "state forget medai --yes", |_| {}), @r#"
    error: there is no "medai" in the state
      try: did you mean "media"?
    "#);
    insta::assert_snapshot!(check(home, "import medai x --yes", |_| {}), @r#"
    error: there is no "medai" in what the program declares
      try: did you mean "media"?
    "#);
    insta::assert_snapshot!(check(home, "output kubeconfg", |_| {}), @r#"
    error: there is no output "kubeconfg"
      try: there are kubeconfig, secrets
    "#);
}

/// A provider that panics where it is told to.
#[derive(Clone, Serialize, Deserialize)]
struct Shaky(String);

#[derive(Clone, Serialize, Deserialize)]
struct Plate;

impl Shaky {
    fn reach(&self, place: &str) {
        assert!(self.0 != place, "dropped a plate while it had to {place}");
    }
}

impl Provider for Shaky {
    const NAME: &'static str = "shaky";
    type Client = Shaky;

    fn realm(&self) -> Realm {
        self.reach("say where it is");
        Realm::Stated("the kitchen".into())
    }

    async fn connect(self, _: Link) -> lab::Result<Shaky> {
        self.reach("connect");
        Ok(self)
    }

    fn types(types: &mut Types<Shaky>) {
        types.add::<Plate>();
    }
}

impl Resource<Shaky> for Plate {
    const TYPE: &'static str = "shaky:plate";
    type Outputs = ();

    async fn find(client: &Shaky, _: &Op<Plate>) -> lab::Result<Found<()>> {
        client.reach("find");
        Ok(Found::Absent)
    }

    async fn apply(&self, client: &Shaky, _: &Op<Plate>) -> lab::Result<Step<()>> {
        client.reach("apply");
        Ok(Step::Done(Made::new("plate", ())))
    }

    async fn delete(_: &Shaky, _: &Op<Plate>) -> lab::Result<Step<()>> {
        Ok(Step::gone())
    }
}

fn shaky(place: &'static str) -> impl Fn(&Stack) -> Result<Home, ProgramError> + 'static {
    move |stack: &Stack| {
        let home = home(stack)?;
        stack.provider("kitchen", Shaky(place.into())).resource("plate").add(Plate);
        Ok(home)
    }
}

/// Runs an `up` that begins, fails at its one step and leaves what was there as it was, and returns what is told.
fn check_run<T: Serialize + 'static>(
    program: impl Fn(&Stack) -> Result<T, ProgramError> + 'static,
    exit: u8,
) -> String {
    check_run_and(program, exit, home)
}

/// The same, where `better` is what has to succeed afterwards.
fn check_run_and<T: Serialize + 'static>(
    program: impl Fn(&Stack) -> Result<T, ProgramError> + 'static,
    exit: u8,
    better: impl Fn(&Stack) -> Result<Home, ProgramError> + 'static,
) -> String {
    let (standing, desk) = (standing(), desk());
    let world = standing.there.world();
    let listed = desk.run(&standing.there, &Lab::new("homelab", home), "state list").out;
    let ran = desk.run(&standing.there, &Lab::new("homelab", program), "up --yes");
    assert_eq!(ran.exit, exit, "{}\n{}", ran.out, ran.err);
    assert_eq!(standing.there.world(), world, "the lab was changed");
    if exit == 1 {
        let now = desk.run(&standing.there, &Lab::new("homelab", home), "state list").out;
        assert_eq!(now, listed, "something was recorded");
    }
    let ran_again = desk.run(&standing.there, &Lab::new("homelab", better), "up --yes");
    assert_eq!(ran_again.exit, 0, "that is all that was wrong: {}\n{}", ran_again.out, ran_again.err);
    told(&ran)
}

#[test]
fn a_provider_that_panics_is_a_failure_of_its_resource() {
    insta::assert_snapshot!(check(shaky("say where it is"), "up --yes", |_| {}), @"
    problem: what provider kitchen points at cannot be told: shaky's `realm` panicked: dropped a plate while it had to say where it is (tests/bad_input.rs:LINE)
    error: the plan has a problem; nothing was changed
    ");
    insta::assert_snapshot!(check_run(shaky("connect"), 1), @"
    error: failed to create shaky:plate plate (tests/bad_input.rs:LINE)
      cause: the provider panicked while it connected: dropped a plate while it had to connect
    ");
    insta::assert_snapshot!(check_run(shaky("find"), 1), @"
    error: failed to create shaky:plate plate (tests/bad_input.rs:LINE)
      cause: the provider panicked: dropped a plate while it had to find
    ");
    // What a call did that panicked is not known: it stays open, and the next run finds out.
    insta::assert_snapshot!(check_run_and(shaky("apply"), 3, shaky("rest")), @"
    error: failed to create shaky:plate plate (tests/bad_input.rs:LINE)
      cause: the provider panicked: dropped a plate while it had to apply
      try: run it again: it goes on from here
    ");
}

/// The home and a cluster that is there already, with one object in it.
fn elsewhere(kubeconfig: String) -> impl Fn(&Stack) -> Result<Home, ProgramError> + 'static {
    move |stack: &Stack| {
        let home = home(stack)?;
        let kubeconfig = Secret::new(kubeconfig.clone());
        stack.provider("school", Kubernetes::stated("school", kubeconfig)).resource("books").add(namespace("books"));
        Ok(home)
    }
}

#[test]
fn an_endpoint_that_does_not_answer_is_named() {
    let kubeconfig = standing().kubeconfig.replace("10.69.1.101", "10.69.1.99");
    insta::assert_snapshot!(check_run(elsewhere(kubeconfig), 1), @"
    error: failed to create kubernetes:object books (tests/bad_input.rs:LINE)
      cause: read v1/Namespace books: the API server does not answer: client error (Connect): tunnel error: unsuccessful (https://10.69.1.99:6443) (tried for 600 s)
      try: check that it is switched on and reachable; nothing is taken to be gone because of this
    ");
}

#[test]
fn a_certificate_that_has_expired_is_told() {
    let standing = standing();
    let secrets = Secrets::from_yaml(&standing.secrets).unwrap();
    let authority = Authority::parse(&secrets.kubernetes).unwrap();
    let then = UNIX_EPOCH + Duration::from_secs(1_600_000_000);
    let pair = authority.issue_client("system:masters", Some("admin"), then, Duration::from_secs(86_400), [7; 32]);
    let line = |line: &str| match line.split_once(':') {
        Some((key, _)) if key.trim() == "client-certificate-data" => format!("{key}: {}\n", STANDARD.encode(&pair.crt)),
        Some((key, _)) if key.trim() == "client-key-data" => format!("{key}: {}\n", STANDARD.encode(&pair.key)),
        Some(_) | None => format!("{line}\n"),
    };
    let kubeconfig: String = standing.kubeconfig.lines().map(line).collect();
    assert_ne!(kubeconfig, standing.kubeconfig);
    insta::assert_snapshot!(check_run(elsewhere(kubeconfig), 1), @"
    error: failed to create kubernetes:object books (tests/bad_input.rs:LINE)
      cause: read v1/Namespace books: no trust between us and the API server: connection error: received fatal alert: CertificateExpired: the client certificate of the kubeconfig expired at 2020-09-14T12:26:40Z; give its provider a new kubeconfig (https://10.69.1.101:6443)
      try: check the credentials of its provider
    ");
    insta::assert_snapshot!(check_run(elsewhere("kind: Config\n".into()), 1), @"
    error: failed to create kubernetes:object books (tests/bad_input.rs:LINE)
      cause: connect to the cluster: the kubeconfig cannot be used: it has no current-context
    ");
}

#[test]
fn a_full_disk_stops_the_run_before_anything_is_made() {
    let bench = Bench::new().named("homelab");
    let program = |names: &'static [&'static str]| {
        move |stack: &Stack| {
            let rack = stack.provider("rack", Memory::at("rack"));
            names.iter().for_each(|name| drop(rack.resource(name).add(Thing::new(name, "hello"))));
            Ok(())
        }
    };
    bench.up_whole(program(&["first"]));
    let next = program(&["first", "second"]);
    let undisturbed = bench.fork();
    undisturbed.up_whole(next);
    let operations = undisturbed.disk().operations();
    let opened = operations.iter().position(|operation| operation.verb == DiskVerb::Rename).unwrap();
    let begun = operations[opened..].iter().position(|operation| operation.verb == DiskVerb::Write).unwrap() + opened;
    let check = |full_from: usize| {
        let bench = bench.fork();
        let made = bench.world().count();
        bench.disk().full_from(full_from);
        let said = match bench.attempt(next, lab::plan::Verb::Up, &Trial::default()) {
            Err(error) => error,
            Ok(report) => {
                assert!(!report.complete());
                let one = |failure: &lab::execute::Failure| {
                    let hint = failure.hint.as_deref().unwrap_or_default();
                    format!("{} {}: {}; {hint}", failure.action, failure.urn.short(), failure.error)
                };
                report.failed.iter().map(one).collect::<Vec<_>>().join("\n")
            }
        };
        assert_eq!(bench.world().count(), made, "nothing is made that cannot be recorded");
        let there_is_room = bench.crashed(Crash::Process);
        assert_eq!(there_is_room.state().records.len(), 1);
        there_is_room.up_whole(next);
        assert_eq!(there_is_room.world().count(), made + 1);
        said
    };
    insta::assert_snapshot!(check(0), @"record homelab: write a copy of memory/homelab.journal: no space left on device; see that the disk is in order and has room, then run it again: it goes on from what is stored");
    insta::assert_snapshot!(check(begun), @"record homelab: write memory/homelab.journal: no space left on device; see that the disk is in order and has room, then run it again: it goes on from what is stored");
}

#[test]
fn a_second_process_is_told_who_holds_the_lab() {
    let holder = std::cell::Cell::new(None);
    let since = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let said = check(home, "up --yes", |desk| {
        holder.set(Some(LabDir::new(desk.path("state")).lock("destroy", since).unwrap()));
    });
    let said = said.replace(&std::process::id().to_string(), "PID");
    let (before, after) = said.split_once("process PID").unwrap();
    let (_, after) = after.split_once(')').unwrap();
    insta::assert_snapshot!(format!("{before}process PID){after}"), @"
    error: failed to lock DIR/state
      cause: `destroy` (process PID) has held it since 2027-01-15T08:00:00Z; wait for it to end
    ");
    drop(holder);
}

#[test]
fn a_command_line_that_is_not_understood_says_what_was_meant() {
    let usage = |arguments: &str| check_in(home, arguments, 64, "homelab", |_| {});
    insta::assert_snapshot!(usage("prewiev"), @"
    error: unrecognized subcommand 'prewiev'

      tip: a similar subcommand exists: 'preview'

    Usage: homelab [OPTIONS] [COMMAND]

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(usage("up --targe media"), @"
    error: unexpected argument '--targe' found

      tip: a similar argument exists: '--target'

    Usage: homelab up --target <NAME> [PLAN]

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(usage("up --parallel none"), @"
    error: invalid value 'none' for '--parallel <N>': a number is needed

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(usage("up @plan --target media"), @"
    error: the argument '[PLAN]' cannot be used with '--target <NAME>'

    Usage: homelab up <PLAN>

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(usage("import media"), @"
    error: the following required arguments were not provided:
      <ID>

    Usage: homelab import <TARGET> <ID>

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(usage("output --raw"), @"
    error: the following required arguments were not provided:
      <NAME>

    Usage: homelab output --raw <NAME>

    For more information, try '--help'.
    ");
}

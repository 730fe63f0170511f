//! What a person sees and a script gets: the verbs, their words and their exit codes.

mod homelab;

use homelab::{Bench, answering, changed, clashing, complaining, files, needy, numbered, program, with_data};
use insta::assert_snapshot;
use lab_cli::Surroundings;
use lab_core::execute::{Interrupt, LabDir, Mounts};
use lab_core::testing::{Memory, Thing};
use lab_core::{ProgramError, Stack};
use serde_json::Value;
use std::time::{Duration, SystemTime};

#[test]
fn a_preview_shows_a_tree_and_writes_nothing() {
    let bench = Bench::new();
    let ran = bench.run(program, "preview");
    assert_eq!((ran.exit, ran.err.as_str()), (0, ""));
    assert_snapshot!(ran.out, @"
      memory / home
        + create memory:thing rack  lab-cli/tests/homelab/mod.rs:26
        + create memory:thing table  lab-cli/tests/homelab/mod.rs:26
      outputs
        key: [unknown]
        room: [unknown]
    homelab: 2 to create, 0 unchanged.
    ");
    assert!(!bench.state().exists(), "not even the directory");
    assert_eq!(bench.world.log(), Vec::<String>::new());
}

#[test]
fn up_shows_the_plan_does_it_and_names_the_outputs() {
    let bench = Bench::new();
    let ran = bench.run(program, "up --yes");
    assert_eq!((ran.exit, ran.err.as_str()), (0, ""));
    assert_snapshot!(ran.out, @"
      memory / home
        + create memory:thing rack  lab-cli/tests/homelab/mod.rs:26
        + create memory:thing table  lab-cli/tests/homelab/mod.rs:26
      outputs
        key: [unknown]
        room: [unknown]
    homelab: 2 to create, 0 unchanged.
      + memory:thing home/rack created
      + memory:thing home/table created
    homelab: 2 done.
      key: [secret]
      room: cellar/rack#1
    ");
    assert_eq!(bench.world.count(), 2);
}

#[test]
fn a_second_preview_is_empty_and_looking_leaves_the_state_alone() {
    let bench = Bench::new();
    bench.run(program, "up --yes");
    let before = files(&bench.state());
    let ran = bench.run(program, "preview --refresh --exit-code");
    assert_eq!((ran.exit, ran.err.as_str()), (0, ""));
    assert_snapshot!(ran.out, @"homelab: nothing to do, 2 unchanged.");
    for looking in ["preview", "drift", "output", "state list", "state verify", "state show rack"] {
        bench.run(program, looking);
    }
    assert_eq!(files(&bench.state()), before);
}

#[test]
fn a_change_is_shown_by_property_and_asked_for_by_exit_code() {
    let bench = Bench::new();
    bench.run(program, "up --yes");
    let ran = bench.run(changed, "preview --exit-code");
    assert_eq!((ran.exit, ran.err.as_str()), (2, ""));
    assert_snapshot!(ran.out, @r#"
      memory / home
        ~ update memory:thing rack  lab-cli/tests/homelab/mod.rs:33
            /text: "ready" -> "busy"
        ~ update memory:thing table  lab-cli/tests/homelab/mod.rs:33
            may stay as it is, once its inputs are known
            /text: "in ready" -> known after home/rack
      outputs
        key: [secret]
        room: "cellar/rack#1"
    homelab: 2 to update, 0 unchanged.
    "#);
}

#[test]
fn destroy_takes_everything_away() {
    let bench = Bench::new();
    bench.run(program, "up --yes");
    let ran = bench.run(program, "destroy --yes");
    assert_eq!((ran.exit, ran.err.as_str()), (0, ""));
    assert_snapshot!(ran.out, @"
      memory / home
        - delete memory:thing table  lab-cli/tests/homelab/mod.rs:26
        - delete memory:thing rack  lab-cli/tests/homelab/mod.rs:26
    homelab: 2 to delete, 0 unchanged.
      - memory:thing home/table deleted
      - memory:thing home/rack deleted
    homelab: 2 done.
    ");
    assert_eq!(bench.world.count(), 0);
}

#[test]
fn nothing_is_done_without_consent() {
    let bench = Bench::new();
    let ran = bench.run(program, "up");
    assert_eq!(ran.exit, 1);
    assert_snapshot!(ran.err, @"
    error: nothing was changed: the plan needs consent, and there is nobody to ask
      try: `--yes` consents to the plan that is shown; `preview --out FILE` keeps one to look at first
    ");
    let ran = bench.run_in(program, "up", answering("n"));
    assert_eq!(ran.exit, 1);
    assert_snapshot!(ran.err, @"Do this? [y/N] error: it was declined; nothing was changed");
    assert_eq!(bench.world.count(), 0);
    let ran = bench.run_in(program, "up", answering("y"));
    assert_eq!(ran.exit, 0);
    assert_eq!(bench.world.count(), 2);
}

#[test]
fn destroying_data_needs_the_whole_word() {
    let bench = Bench::new();
    bench.run(with_data, "up --yes");
    let ran = bench.run_in(with_data, "destroy", answering("y"));
    assert_eq!(ran.exit, 1);
    assert!(ran.out.contains("every film on it"), "{}", ran.out);
    assert_snapshot!(ran.err, @"This destroys data, as listed above. Type `yes` to do it: error: it was declined; nothing was changed");
    assert_eq!(bench.world.count(), 1);
    assert_eq!(bench.run_in(with_data, "destroy", answering("yes")).exit, 0);
    assert_eq!(bench.world.count(), 0);
}

#[test]
fn a_saved_plan_is_done_without_asking() {
    let bench = Bench::new();
    let ran = bench.run(program, "preview --out @plan");
    let command = "homelab --state DIR/state up DIR/plan";
    assert!(ran.out.ends_with(&format!("The plan is in DIR/plan. `{command}` does exactly this.\n")), "{}", ran.out);
    let ran = bench.run(program, "up @plan");
    assert_eq!((ran.exit, ran.err.as_str()), (0, ""));
    assert_eq!(bench.world.count(), 2);
}

#[test]
fn the_command_that_does_a_saved_plan_names_the_environment_and_the_way_out() {
    let bench = Bench::new();
    let ran = bench.run(program, "preview --out @plan --env attic --proxy http://127.0.0.1:3128 --trust-lock");
    let command = "homelab --state DIR/state --trust-lock --env attic --proxy http://127.0.0.1:3128 up DIR/plan";
    assert!(ran.out.ends_with(&format!("`{command}` does exactly this.\n")), "{}", ran.out);
}

#[test]
fn the_command_that_does_a_saved_plan_can_be_copied_whatever_a_directory_is_called() {
    let bench = Bench::new();
    let plan = bench.file("Bob's plan").display().to_string();
    let ran = bench.run_words(program, &["preview", "--out", &plan], |_| {});
    assert!(ran.out.ends_with("`homelab --state DIR/state up \"DIR/Bob's plan\"` does exactly this.\n"), "{}", ran.out);
}

#[test]
fn a_saved_plan_is_refused_once_something_has_changed() {
    let bench = Bench::new();
    bench.run(program, "preview --out @plan");
    let ran = bench.run(changed, "up @plan");
    assert_eq!(ran.exit, 1);
    assert_snapshot!(ran.err, @"
    error: failed to apply the plan
      cause: the program, or something it is configured with, has changed since it was made
      try: look at a new one with `preview --out`; nothing was changed
    ");
    let other = |around: &mut lab_cli::Surroundings| around.executable = Some("another build".into());
    let ran = bench.run_in(program, "up @plan", other);
    assert_eq!(ran.exit, 1);
    assert_snapshot!(ran.err, @"
    error: failed to apply the plan
      cause: the program has changed since it was made
      try: look at a new one with `preview --out`; nothing was changed
    ");
    assert_eq!(bench.world.count(), 0);
    bench.run(program, "up --yes");
    let ran = bench.run(program, "up @plan");
    assert_eq!(ran.exit, 1);
    assert_snapshot!(ran.err, @"
    error: failed to apply the plan
      cause: the state has changed since it was made
      try: look at a new one with `preview --out`; nothing was changed
    ");
    let ran = bench.run(program, "destroy @plan");
    assert_eq!(ran.exit, 1);
    assert_snapshot!(ran.err, @"
    error: failed to destroy
      cause: the plan was made for `up`
      try: `up PLAN` does it
    ");
    assert_eq!(bench.run(program, "up @nowhere").exit, 1);
}

#[test]
fn a_saved_plan_to_destroy_data_is_asked_for_all_the_same() {
    let bench = Bench::new();
    bench.run(with_data, "up --yes");
    assert_eq!(bench.run(with_data, "preview --destroy --out @plan").exit, 0);
    assert_eq!(bench.run(with_data, "destroy @plan").exit, 1);
    assert_eq!(bench.world.count(), 1);
    assert_eq!(bench.run(with_data, "destroy @plan --yes").exit, 0);
    assert_eq!(bench.world.count(), 0);
}

#[test]
fn a_plan_with_a_problem_is_shown_and_refused() {
    let bench = Bench::new();
    let ran = bench.run(clashing, "up --yes");
    assert_eq!(ran.exit, 1);
    assert_snapshot!(ran.out, @"
      memory
        + create memory:thing one  lab-cli/tests/homelab/mod.rs:47
        + create memory:thing two  lab-cli/tests/homelab/mod.rs:48
    problem: number 7 of one overlaps number 7 of two (lab-cli/tests/homelab/mod.rs:47, lab-cli/tests/homelab/mod.rs:48); give one of them another place
    homelab: 2 to create, 0 unchanged, 1 problem.
    ");
    assert_snapshot!(ran.err, @"error: the plan has a problem; nothing was changed");
    assert_eq!(bench.run(clashing, "preview --out @plan").exit, 1);
    assert!(!bench.file("plan").exists());
}

#[test]
fn an_unknown_target_names_a_near_one() {
    let bench = Bench::new();
    let ran = bench.run(program, "up --yes --target home/tabel");
    assert_eq!(ran.exit, 1);
    assert_snapshot!(ran.out, @r#"
    problem: there is no "home/tabel" to target; did you mean "home/table"? `state list` shows what there is
    homelab: nothing to do, 0 unchanged, 1 problem.
    "#);
    bench.run(program, "up --yes");
    let ran = bench.run(program, "state show rakc");
    assert_eq!(ran.exit, 1);
    assert_snapshot!(ran.err, @r#"
    error: there is no "rakc" in the state
      try: did you mean "home/rack"?
    "#);
}

#[test]
fn a_failure_says_what_where_why_and_goes_on_when_run_again() {
    let bench = Bench::new();
    bench.world.plant("cellar", "table", Value::Null);
    let ran = bench.run(program, "up --yes");
    assert_eq!(ran.exit, 3, "the rack is there");
    assert_snapshot!(ran.out, @"
      memory / home
        + create memory:thing rack  lab-cli/tests/homelab/mod.rs:26
        + create memory:thing table  lab-cli/tests/homelab/mod.rs:26
      outputs
        key: [unknown]
        room: [unknown]
    homelab: 2 to create, 0 unchanged.
      + memory:thing home/rack created
      ! memory:thing home/table failed
    homelab: 1 done, 1 failed. Run it again once the cause is gone.
    ");
    assert_snapshot!(ran.err, @"
    error: failed to create memory:thing home/table (lab-cli/tests/homelab/mod.rs:26)
      cause: memory:thing table exists already and is not ours: it bears no mark of ours; it was not touched
      try: take it over with `import home/table table`, give ours another name, or remove the other one by hand
    ");
    bench.world.take_away("cellar", "table");
    assert_eq!(bench.run(program, "up --yes").exit, 0);
}

#[test]
fn what_one_failure_keeps_from_starting_is_said_once() {
    let bench = Bench::new();
    bench.world.plant("cellar", "power", Value::Null);
    let ran = bench.run(needy, "up --yes");
    assert_eq!(ran.exit, 1, "nothing was changed");
    let (_, after_the_plan) = ran.out.split_once("0 unchanged.\n").unwrap();
    assert_snapshot!(after_the_plan, @"
      ! memory:thing power failed
      · memory:thing amplifier, memory:thing lamp, memory:thing printer and 2 more not started: it needs power, which failed
    homelab: 0 done, 1 failed, 5 not started. Run it again once the cause is gone.
    ");
}

#[test]
fn a_second_process_is_told_who_holds_the_lab() {
    let bench = Bench::new();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let lock = LabDir::new(bench.state()).lock("up", now).unwrap();
    let ran = bench.run(program, "destroy --yes");
    assert_eq!(ran.exit, 1);
    let expected = "error: failed to lock DIR/state\n  cause: `up` (process ";
    assert!(ran.err.starts_with(expected), "{}", ran.err);
    assert!(ran.err.contains("has held it since 2027-01-15T08:00:00Z; wait for it to end"), "{}", ran.err);
    assert_eq!(bench.run(program, "preview").exit, 0, "looking needs no lock");
    drop(lock);
    assert_eq!(bench.run(program, "destroy --yes").exit, 0);
}

#[test]
fn a_state_on_a_file_system_that_may_not_keep_its_lock_is_refused_unless_somebody_vouches_for_it() {
    let bench = Bench::new();
    let shared = |around: &mut Surroundings| {
        let mounts = "36 22 0:45 / / rw,relatime - cifs //nas/lab rw,vers=3.1.1\n";
        around.mounts = Some(Mounts::parse(mounts));
    };
    let ran = bench.run_in(program, "up --yes", shared);
    assert_eq!((ran.exit, bench.world.count()), (1, 0));
    assert_snapshot!(ran.err, @"
    error: failed to lock DIR/state
      cause: it is SMB (`cifs`), which is not known to tell other machines of a lock
      try: keep the state on a local disk; or say `--trust-lock` where no other machine ever runs this lab
    ");
    assert_eq!(bench.run_in(program, "preview", shared).exit, 0, "looking needs no lock");
    assert_eq!(bench.run_in(program, "up --yes --trust-lock", shared).exit, 0);
}

#[test]
fn outputs_are_shown_without_their_secrets_unless_asked() {
    let bench = Bench::new();
    let ran = bench.run(program, "output");
    assert_eq!(ran.exit, 1);
    assert_snapshot!(ran.err, @"
    error: stack homelab has no outputs
      try: they are there after a complete `up`
    ");
    bench.run(program, "up --yes");
    assert_snapshot!(bench.run(program, "output").out, @"
    key: [secret]
    room: cellar/rack#1
    ");
    assert_eq!(bench.run(program, "output key --raw --show-secrets").out, "key-of-rack-1");
    assert_eq!(
        bench.run(program, "output --json --show-secrets").out,
        "{\"key\":\"key-of-rack-1\",\"room\":\"cellar/rack#1\"}\n"
    );
    let ran = bench.run(program, "output kee");
    assert_eq!(ran.exit, 1);
    assert_snapshot!(ran.err, @r#"
    error: there is no output "kee"
      try: there are key, room
    "#);
}

#[test]
fn no_secret_is_printed_or_stored_in_clear() {
    let bench = Bench::new();
    let mut printed = String::new();
    for arguments in [
        "up --yes",
        "preview --refresh --out @plan",
        "state list",
        "state show rack",
        "drift",
        "output --json",
        "refresh --json",
        "destroy --yes --json",
    ] {
        let ran = bench.run(program, arguments);
        assert_eq!(ran.exit, 0, "{arguments}: {}", ran.err);
        printed += &ran.out;
        printed += &ran.err;
    }
    assert!(!printed.contains("key-of-rack"), "{printed}");
    for (path, content) in files(bench.file("").as_path()) {
        assert!(!String::from_utf8_lossy(&content).contains("key-of-rack"), "{}", path.display());
    }
}

#[test]
fn drift_shows_what_is_declared_applied_and_there() {
    let bench = Bench::new();
    bench.run(program, "up --yes");
    bench.world.change("cellar", "rack", |item| item.value["text"] = "upside down".into());
    let ran = bench.run(changed, "drift --exit-code");
    assert_eq!((ran.exit, ran.err.as_str()), (2, ""));
    assert_snapshot!(ran.out, @"
      memory:thing home/rack  lab-cli/tests/homelab/mod.rs:33
        /text: declared busy, last applied ready, live upside down
    homelab: 1 drifted, 1 as they were left, 0 not known.
    ");
    bench.world.take_away("cellar", "table");
    assert_snapshot!(bench.run(program, "refresh").out, @"
      - memory:thing home/table is gone
      ~ memory:thing home/rack was seen anew
    homelab: 2 looked at, 2 recorded anew, 0 not known.
    ");
    assert_snapshot!(bench.run(program, "preview").out, @r#"
      memory / home
        ~ update memory:thing rack  lab-cli/tests/homelab/mod.rs:26
            because /text was changed by somebody else: "ready" is "upside down"
        + create memory:thing table  lab-cli/tests/homelab/mod.rs:26
            because it was there and is gone
      outputs
        key: [unknown]
        room: [unknown]
    homelab: 1 to create, 1 to update, 0 unchanged.
    "#);
}

#[test]
fn what_exists_already_is_taken_over_by_its_identity() {
    let bench = Bench::new();
    bench.world.plant("cellar", "rack", serde_json::json!({"text": "ready", "stand": "here"}));
    assert_eq!(bench.run(program, "up --yes").exit, 1, "it is somebody else's");
    let ran = bench.run(program, "import home/rack rack --yes");
    assert_eq!((ran.exit, ran.err.as_str()), (0, ""));
    assert_snapshot!(ran.out, @"
      memory / home
        = import memory:thing rack  lab-cli/tests/homelab/mod.rs:26
    homelab: 1 to import, 0 unchanged.
      = memory:thing home/rack imported
    homelab: 1 done.
    ");
    assert_eq!(bench.run(program, "up --yes").exit, 0);
    assert_eq!(bench.world.count(), 2);
    let ran = bench.run(program, "import home/rack rack --yes");
    assert_eq!(ran.exit, 1);
    assert_snapshot!(ran.err, @"
    error: failed to import memory:thing home/rack
      cause: it is in the state already
      try: `state show` tells as what; `state forget` makes room for another
    ");
}

#[test]
fn the_state_is_listed_verified_and_forgotten() {
    let bench = Bench::new();
    bench.run(program, "up --yes");
    assert_snapshot!(bench.run(program, "state list").out, @"
      memory / home
        memory:thing rack  rack
        memory:thing table  table
    homelab: 2 recorded.
    ");
    let ran = bench.run(program, "state verify");
    assert!(ran.exit == 0 && ran.out.contains("sound DIR/state/homelab.journal: "), "{}", ran.out);
    assert_eq!(bench.run(program, "state forget home/table").exit, 1);
    let ran = bench.run_in(program, "state forget home/table", answering("y"));
    assert_eq!(ran.exit, 0);
    assert_eq!(ran.out, "memory:thing home/table is forgotten.\n");
    assert_eq!(bench.world.count(), 2, "nothing was called");
    std::fs::write(bench.state().join("homelab.journal"), "no journal").unwrap();
    let ran = bench.run(program, "state verify");
    assert_eq!(ran.exit, 1);
    assert_snapshot!(ran.err, @"
    error: failed to read DIR/state/homelab.journal
      cause: the header is damaged at byte 0: its line has no end
      try: nothing was changed; restore this file from a backup, and check the disk it was on
    ");
}

/// A box, and in it a volume that is somewhere else.
fn boxed(stack: &Stack) -> Result<(), ProgramError> {
    let memory = stack.provider("memory", Memory::at("cellar"));
    let container = memory.resource("box").add(Thing::new("box", "box"));
    let inside = stack.provider("inside", Memory::inside(&container));
    let volume = inside.resource("volume").timeout(Duration::from_secs(60));
    volume.add(Thing { outside: true, ..Thing::new("volume", "data") });
    Ok(())
}

/// What was left over was forgotten instead of what stands under its name, without a word.
#[test]
fn of_what_stands_and_what_is_left_over_under_one_name_a_person_says_which_is_forgotten() {
    let bench = Bench::new();
    assert_eq!(bench.run(boxed, "up --yes").exit, 0);
    bench.world.cut_off("cellar/box#1", true);
    assert_eq!(bench.run(boxed, "destroy --yes").exit, 0);
    assert_eq!(bench.run(boxed, "up --yes").exit, 0);
    let ran = bench.run(boxed, "state forget volume --yes");
    assert_eq!(ran.exit, 1, "{}", ran.out);
    assert!(ran.err.contains("\"volume\" may be any of 2"), "{}", ran.err);
    let left =
        ran.err.lines().find_map(|line| line.split(" is left over: ").nth(1)).expect("it says which is left over");
    let left = left.split('`').nth(1).expect("a command").rsplit(' ').next().expect("a mark").to_owned();
    let ran = bench.run(boxed, &format!("state forget {left} --yes"));
    assert_eq!((ran.exit, ran.out.as_str()), (0, "memory:thing volume, which is left over, is forgotten.\n"));
    let ran = bench.run(boxed, "preview");
    assert_eq!((ran.exit, ran.err.as_str()), (0, ""));
    assert!(ran.out.contains("nothing to do, 2 unchanged"), "{}", ran.out);
}

#[test]
fn a_rotated_key_opens_everything_and_changes_no_plan() {
    let bench = Bench::new();
    let key = "# mine\nAGE-SECRET-KEY-1V4MX2UNEVFHKG7FQDDHX7AMNYP6XS6TNYPKXZC38WVSXKETEYYSSWQAH65\n";
    std::fs::write(bench.file("age.key"), key).unwrap();
    let run = |arguments: &str| {
        let ran = bench.run_in(program, arguments, |around| {
            around.keys = None;
            around.variables.insert("LAB_AGE_KEY_FILE".into(), bench.file("age.key").display().to_string());
        });
        let printed = format!("{}{}", ran.out, ran.err);
        assert!(!printed.contains("AGE-SECRET-KEY"), "{arguments}: {printed}");
        ran
    };
    assert_eq!(run("up --yes").exit, 0);
    let shown = run("output key --show-secrets").out;
    assert_eq!(run("preview --destroy --out @plan").exit, 0);
    let ran = run("state rotate");
    assert_eq!((ran.exit, ran.err.as_str()), (0, ""));
    let new = std::fs::read_to_string(bench.file("age.key")).unwrap();
    let recipient = new.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap();
    assert_snapshot!(ran.out.replace(recipient, "age1..."), @"
      homelab: 3 secrets sealed anew
    The key is a new one: age1..., in DIR/age.key. Keep a copy of it: without it nothing is opened.
    The keys before it are in DIR/age.key.old. Copies of the state made earlier, and other labs with this key file, still need them; remove that file when none of them does.
    Plans that were saved before are refused from now on; `homelab --state DIR/state preview --out FILE` makes new ones.
    Whoever has the old key and a copy of the state made earlier can read the secrets in it: change those, too.
    ");
    assert_snapshot!(run("preview --exit-code").out, @"homelab: nothing to do, 2 unchanged.");
    assert_eq!(run("output key --show-secrets").out, shown);
    let refused = run("destroy @plan --yes");
    assert_eq!(refused.exit, 1);
    assert_snapshot!(refused.err, @"
    error: failed to apply the plan
      cause: the state has changed since it was made
      try: look at a new one with `preview --out`; nothing was changed
    ");
    // Without the keys that were put aside, the old plan is not even opened, and the state is.
    std::fs::remove_file(bench.file("age.key.old")).unwrap();
    assert_eq!(run("preview --exit-code").exit, 0);
    let refused = run("destroy @plan --yes");
    assert_snapshot!(refused.err.replace(recipient, "age1..."), @"
    error: failed to open the secrets of the plan
      cause: open a sealed secret: no key of DIR/age.key fits; it has age1...
      try: make it anew with `preview --out`: the key was rotated since, or it is somebody else's plan
    ");
    // Back to the key from before.
    std::fs::write(bench.file("mine.key"), key).unwrap();
    let ran = run("state rotate --json --to @mine.key");
    assert_eq!(ran.exit, 0, "{}", ran.err);
    let event: Value = serde_json::from_str(ran.out.trim()).unwrap();
    assert_eq!((event["event"].as_str(), event["new"].as_bool()), (Some("rotated"), Some(true)));
    assert_eq!(event["stacks"]["homelab"], 3);
    assert_eq!(run("output key --show-secrets").out, shown);
    let ran = run("state rotate --to @nowhere.key");
    assert_eq!(ran.exit, 1);
    assert_snapshot!(ran.err, @"
    error: failed to read the key file DIR/nowhere.key
      cause: there is no such file
      try: `age-keygen -o FILE` makes one; without `--to` a new key is made here
    ");
    for (path, bytes) in files(&bench.state()) {
        assert!(!String::from_utf8_lossy(&bytes).contains("AGE-SECRET-KEY"), "{}", path.display());
    }
}

#[test]
fn events_are_a_json_object_a_line_with_a_version() {
    let bench = Bench::new();
    let ran = bench.run(program, "up --yes --json --parallel 1");
    assert_eq!((ran.exit, ran.err.as_str()), (0, ""));
    let events: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().all(|event| event["version"] == 1));
    let names: Vec<&str> = events.iter().filter_map(|event| event["event"].as_str()).collect();
    assert_snapshot!(names.join(" "), @"plan began started finished started waiting waiting finished ended result");
    let plan = &events[0];
    assert_eq!(plan["summary"]["steps"], serde_json::json!({"create": 2}));
    assert_eq!(plan["steps"][0]["name"], "home/rack");
    assert_snapshot!(events.last().unwrap(), @r#"{"done":2,"event":"result","exit":0,"failed":0,"flushes":10,"interrupted":false,"not_started":0,"open":0,"outputs":{"key":"[secret]","room":"cellar/rack#1"},"stack":"homelab","verb":"up","version":1,"warnings":[]}"#);
    // Names, places, what changes from what to what, and what the outside answered.
    let ran = bench.run(changed, "preview --json");
    let plan: Value = serde_json::from_str(ran.out.lines().next().unwrap()).unwrap();
    let rack = &plan["steps"][0];
    assert_eq!((rack["name"].as_str(), rack["type"].as_str()), (Some("home/rack"), Some("memory:thing")));
    assert_eq!(rack["place"]["file"], "lab-cli/tests/homelab/mod.rs");
    let diff = rack["diff"].to_string();
    assert!(diff.contains("\"ready\"") && diff.contains("\"busy\""), "{diff}");
    bench.world.change("cellar", "rack", |item| item.value["text"] = "upside down".into());
    let ran = bench.run(program, "drift --json");
    assert!(ran.out.contains("upside down") && !ran.out.contains("key-of-rack"), "{}", ran.out);
    let ran = bench.run(program, "up --json --env none --target nothing");
    assert_eq!((ran.exit, ran.err.as_str()), (1, ""));
    assert_snapshot!(ran.out.lines().last().unwrap(), @r#"{"cause":null,"event":"error","exit":1,"hint":null,"version":1,"what":"the plan has a problem; nothing was changed"}"#);
}

#[test]
fn what_a_provider_warns_of_is_said_at_once_and_again_when_the_run_is_over() {
    let ran = Bench::new().run(complaining, "up --yes");
    assert_eq!((ran.exit, ran.err.as_str()), (0, "warning: memory:thing box: its lid is loose: [secret]\n"));
    let end = "homelab: 1 done, 1 warning.\n  warning: memory:thing box: its lid is loose: [secret]\n";
    assert!(ran.out.ends_with(end), "{}", ran.out);
    let ran = Bench::new().run(complaining, "up --yes --json");
    let events: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told = events.iter().filter(|event| event["event"] == "warning").count();
    assert_eq!(told, 1, "{}", ran.out);
    let result = events.last().unwrap();
    assert_eq!(result["warnings"][0]["message"], "its lid is loose: [secret]");
    assert!(result["warnings"][0]["urn"].as_str().unwrap().ends_with("box"), "{result}");
    assert!(!(ran.out + &ran.err).contains("hunter2"));
}

#[test]
fn what_the_outside_would_make_of_a_plan_stands_beside_its_steps() {
    let bench = Bench::new();
    let ran = bench.run(complaining, "preview");
    assert!(!ran.out.contains("its lid"), "nobody is asked: {}", ran.out);
    let ran = bench.run(complaining, "preview --refresh --out @plan");
    assert!(ran.out.contains("its lid is loose: [secret]"), "{}", ran.out);
    assert!(!ran.out.contains("hunter2"), "{}", ran.out);
    // What was said is no part of the plan that is kept.
    let ran = bench.run(complaining, "up @plan --yes");
    assert_eq!(ran.exit, 0, "{}", ran.err);
    let ran = bench.run(complaining, "preview --refresh --exit-code");
    assert_eq!(ran.exit, 0, "nothing is asked where nothing is done: {}", ran.out);
    bench.run(complaining, "state forget box --yes");
    let ran = bench.run(complaining, "preview --refresh");
    let refused = "warning: memory:thing box would be refused: something is called box already\n";
    assert!(ran.out.contains(refused), "{}", ran.out);
}

#[test]
fn environments_are_stacks_side_by_side_that_see_what_the_others_occupy() {
    let bench = Bench::new();
    assert_eq!(bench.run(numbered, "up --yes --env dev").exit, 0);
    let ran = bench.run(numbered, "preview --env staging");
    assert_eq!(ran.exit, 1);
    assert_snapshot!(ran.out, @"
      memory
        + create memory:thing one  lab-cli/tests/homelab/mod.rs:55
    problem: number 7 of one in stack homelab-dev overlaps number 7 of one (lab-cli/tests/homelab/mod.rs:55, lab-cli/tests/homelab/mod.rs:55); give one of them another place
    homelab-staging: 1 to create, 0 unchanged, 1 problem.
    ");
    bench.run(numbered, "destroy --yes --env dev");
    assert_eq!(bench.run(numbered, "up --yes --env staging").exit, 0);
}

#[test]
fn an_interrupted_run_says_so_and_goes_on_when_run_again() {
    let bench = Bench::new();
    let interrupt = Interrupt::default();
    interrupt.ask();
    let interrupted = |around: &mut lab_cli::Surroundings| around.interrupt = Some(interrupt);
    let ran = bench.run_in(program, "up --yes", interrupted);
    assert_eq!(ran.exit, 3);
    assert!(
        ran.out.ends_with("2 not started. It was interrupted; run it again, and it goes on from here.\n"),
        "{}",
        ran.out
    );
    assert_eq!(bench.run(program, "up --yes").exit, 0);
}

#[test]
fn what_does_not_answer_is_named_and_never_taken_for_gone() {
    let bench = Bench::new();
    bench.run(program, "up --yes");
    bench.world.cut_off("cellar", true);
    let ran = bench.run(program, "drift --exit-code");
    assert_eq!(ran.exit, 1, "nobody may take that for as it was left");
    assert_snapshot!(ran.out, @"homelab: 0 drifted, 0 as they were left, 2 not known.");
    assert_eq!(bench.run(program, "drift").exit, 0);
    let ran = bench.run(program, "preview --refresh");
    assert_eq!(ran.exit, 0);
    assert_snapshot!(ran.out, @"homelab: nothing to do, 2 unchanged.");
    assert_snapshot!(ran.err, @"
    warning: nothing is known of memory:thing home/rack: cellar does not answer
    warning: nothing is known of memory:thing home/table: cellar does not answer
    ");
}

#[test]
fn a_pipe_gets_plain_text_and_a_terminal_colours() {
    let bench = Bench::new();
    assert!(!bench.run(program, "preview").out.contains('\u{1b}'));
    assert!(bench.run(program, "preview --color always").out.contains("\u{1b}[32m+"));
    let colourful = |around: &mut lab_cli::Surroundings| around.colors = true;
    assert!(bench.run_in(program, "preview", colourful).out.contains('\u{1b}'));
    assert!(!bench.run_in(program, "preview --color never", colourful).out.contains('\u{1b}'));
}

#[test]
fn a_rehearsal_ends_with_an_empty_second_plan_and_leaves_nothing() {
    let bench = Bench::new();
    let ran = bench.run(program, "rehearse");
    assert_eq!((ran.exit, ran.err.as_str()), (0, ""));
    assert_snapshot!(ran.out, @"
    Rehearsal: nothing of this is real.
      a cellar, in memory
      memory / home
        + create memory:thing rack  lab-cli/tests/homelab/mod.rs:26
        + create memory:thing table  lab-cli/tests/homelab/mod.rs:26
      outputs
        key: [unknown]
        room: [unknown]
    homelab: 2 to create, 0 unchanged.
      + memory:thing home/rack created
      + memory:thing home/table created
    homelab: 2 done.
      key: [secret]
      room: cellar/rack#1
    The second plan is empty: 2 resources are as the program says.
    ");
    assert!(!bench.state().exists());
    assert_eq!(bench.world.count(), 0, "the real world was left alone");
}

#[test]
fn a_program_that_never_comes_to_rest_fails_its_rehearsal() {
    fn restless(stack: &Stack) -> Result<(), ProgramError> {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        let memory = stack.provider("memory", lab_core::testing::Memory::at("cellar"));
        let said = format!("run {}", RUNS.fetch_add(1, Ordering::SeqCst));
        memory.resource("clock").add(lab_core::testing::Thing::new("clock", said));
        Ok(())
    }
    let ran = Bench::new().run(restless, "rehearse");
    assert_eq!(ran.exit, 1);
    assert!(ran.err.starts_with("error: a second plan has to be empty"), "{}", ran.err);
}

#[test]
fn a_program_that_fails_or_panics_is_one_clear_error() {
    fn failing(_: &Stack) -> Result<(), ProgramError> {
        Err(ProgramError::new("there is no cellar"))
    }
    fn panicking(_: &Stack) -> Result<(), ProgramError> {
        panic!("the light is off")
    }
    let bench = Bench::new();
    let ran = bench.run(failing, "up --yes");
    assert_eq!(ran.exit, 1);
    assert_snapshot!(ran.err, @"
    error: the program failed, so nothing was planned
      cause: there is no cellar
    ");
    let ran = bench.run(panicking, "preview");
    assert_eq!(ran.exit, 1);
    assert_snapshot!(ran.err, @"
    error: the program failed, so nothing was planned
      cause: it panicked: the light is off
    ");
}

#[test]
fn what_others_wrote_moves_no_cursor() {
    fn program(_: &Stack) -> Result<(), ProgramError> {
        Err(ProgramError::new("the API said \u{1b}[2J\u{1b}]0;title\u{7} and\r\nmore\tof it"))
    }
    let ran = Bench::new().run(program, "preview");
    assert_eq!(ran.exit, 1);
    assert!(ran.err.contains("the API said \u{fffd}[2J\u{fffd}]0;title\u{fffd} and\n"), "{:?}", ran.err);
    assert!(ran.err.contains("more\tof it"), "{:?}", ran.err);
}

#[test]
fn what_others_wrote_is_an_output_as_it_is_and_moves_no_cursor() {
    #[derive(serde::Serialize)]
    struct Said {
        banner: &'static str,
    }
    fn program(stack: &Stack) -> Result<Said, ProgramError> {
        homelab::program(stack)?;
        Ok(Said { banner: "\u{1b}[2Jwelcome\r\nhome" })
    }
    let bench = Bench::new();
    assert_eq!(bench.run(program, "up --yes").exit, 0);
    assert_eq!(bench.run(program, "output banner").out, "\u{1b}[2Jwelcome\r\nhome\n");
    let seen = bench.run_in(program, "output banner", |around| around.terminal = true);
    assert_eq!(seen.out, "\u{fffd}[2Jwelcome\u{fffd}\nhome\n");
    let raw = bench.run_in(program, "output banner --raw", |around| around.terminal = true);
    assert_eq!(raw.out, "\u{1b}[2Jwelcome\r\nhome");
}

#[test]
fn a_command_line_that_is_not_understood_exits_64() {
    let bench = Bench::new();
    for arguments in ["", "upp", "up --parallel 0", "up @plan --target rack", "preview --color mauve"] {
        assert_eq!(bench.run(program, arguments).exit, 64, "{arguments}");
    }
    let ran = bench.run_in(program, "preview --proxy https://proxy.example:3128", |around| around.link = None);
    assert_eq!(ran.exit, 64);
    assert_snapshot!(ran.err, @r#"
    error: failed to use the proxy "https://proxy.example:3128" that --proxy names
      cause: it is not of the form http://IP:PORT
      try: name it by its address, as in `--proxy http://127.0.0.1:3128`, or say `--proxy direct`
    "#);
    let ran = bench.run_in(program, "preview", |around| {
        around.link = None;
        around.variables.insert("HTTPS_PROXY".into(), "http://proxy.example:3128".into());
    });
    assert_eq!(ran.exit, 64);
    assert!(ran.err.contains("that HTTPS_PROXY names"), "{}", ran.err);
    let ran = bench.run(program, "--help");
    assert_eq!((ran.exit, ran.err.as_str()), (0, ""));
    assert_snapshot!(ran.out, @"
    The lab homelab: preview what would be done, do it, take it away again.

    Usage: homelab [OPTIONS] [COMMAND]

    Commands:
      preview   Show what `up` would do; changes nothing
      up        Make the world match the program
      destroy   Take away everything the program made
      refresh   Look at everything that is recorded and record what is seen
      drift     Show what was changed by somebody else: as declared, as last applied, as it is
      import    Take over something that exists already, for a resource the program declares
      output    Show what the program returned when it was last applied
      state     Look at what is recorded, check it, seal it for another key, forget
      rehearse  Apply the program to a simulated lab and check that a second plan is empty

    Options:
      -h, --help  Print help

    Everywhere:
          --state <DIR>   Directory of the lab's state [default: .lab]
          --trust-lock    Lock the state directory even where locks may not hold: NFS without them, SMB, FUSE, 9p
          --env <NAME>    Environment: a stack of its own, named `<lab>-<NAME>`
          --proxy <URL>   Proxy for every connection: `http://IP:PORT` or `direct`; else $LAB_PROXY or $HTTPS_PROXY
          --json          Print a stream of events, a JSON object a line
          --color <WHEN>  Colours: `auto` (on a terminal, unless $NO_COLOR is set), `always` or `never`

    Exit codes:
      0   done, or nothing to do
      1   failed or refused; nothing that was begun is left open
      2   `--exit-code` was given and there is something to do
      3   partly done: something was interrupted, left open or not started; run the same command again
      64  the command line was not understood

    Files:
      --state DIR      the state of every stack of this lab and one lock for all; back it up. A directory that does not
                       keep a lock is refused; `--trust-lock` where no other machine ever runs this lab
      LAB_AGE_KEY_FILE the key that seals secrets in it; else lab/age.key in the user's configuration directory

    A first evening:
      preview                look at what would be done; changes nothing
      preview --out plan     the same, kept in a file
      up plan                do exactly that, or refuse because something has changed since
      up                     plan, show, ask, do; after a failure or a crash, run it again
      destroy                take everything away again
    ");
}

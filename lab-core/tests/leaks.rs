//! Whatever stops a run, and whatever the run was for: every byte that it leaves behind and everything that it says is
//! free of secrets in clear.
//!
//! Each story runs undisturbed first, which tells how many calls and disk operations it has; then with each of them
//! failing in turn. A disk in memory keeps every byte that was ever written, also of files that were replaced or removed.

use lab_core::execute::disk::{Crash, Fault, Verb as DiskVerb};
use lab_core::execute::seal::Keys;
use lab_core::execute::{CallFault, Faults, SavedPlan, rotate, state_digest};
use lab_core::plan::{self, Observations, Verb};
use lab_core::testing::{Bench, Memory, Search, Thing, Trial};
use lab_core::{ProgramError, Secret, Stack};
use serde_json::json;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

const INPUT: &str = "correct-horse-battery-input";
const TOKEN: &str = "claim-token-sent-once-0815";
const RETURNED: &str = "returned-by-the-program";
const CHANGED: &str = "the-secret-that-came-after";

fn search() -> Search {
    Search::of([
        ("an input", INPUT),
        ("an initial input", TOKEN),
        ("what was returned", RETURNED),
        ("a changed input", CHANGED),
        ("an output, and a provider's configuration", "key-of-a-"),
        ("an output", "key-of-inside-"),
    ])
}

fn program(
    secret: &'static str,
    stand: &'static str,
) -> impl Fn(&Stack) -> Result<Secret<String>, ProgramError> + Copy {
    move |stack| {
        let rack = stack.provider("rack", Memory::at("rack"));
        let a = rack.resource("a").add(Thing {
            secret: Some(Secret::from(secret).into()),
            token: Some(Secret::from(TOKEN)),
            stand: stand.into(),
            calls: 1,
            ..Thing::new("a", "x")
        });
        // A credential that comes out of another resource.
        let inside = stack.provider("inside", Memory::inside(&a).key(a.output(|a| a.key)));
        inside.resource("inside").add(Thing { secret: Some(a.output(|a| a.key).into()), ..Thing::new("inside", "y") });
        Ok(Secret::from(RETURNED))
    }
}

fn importing(stack: &Stack) -> Result<(), ProgramError> {
    let rack = stack.provider("rack", Memory::at("rack"));
    rack.resource("a").import("a").add(Thing { secret: Some(Secret::from(INPUT).into()), ..Thing::new("a", "x") });
    Ok(())
}

/// Searches everything that a bench has and says.
fn clean(story: &str, bench: &Bench, trial: &Trial, said: &str) {
    let search = search();
    search.clean(story, said);
    bench.disk().everything().iter().for_each(|file| search.clean(story, file));
    for event in trial.heard.lock().unwrap().iter() {
        search.clean(story, format!("{event:?} {}", serde_json::to_string(event).unwrap()));
    }
}

/// Lets a story go wrong at each call and at each operation of the disk.
fn check(story: &str, base: &Bench, tell: &dyn Fn(&Bench, &Trial) -> String) {
    let undisturbed = base.fork();
    let trial = Trial::default();
    let said = tell(&undisturbed, &trial);
    clean(story, &undisturbed, &trial, &said);
    for n in 0..trial.faults.calls() {
        for fault in [CallFault::StopBefore, CallFault::StopAfter, CallFault::LoseReply] {
            let bench = base.fork();
            let trial = Trial { faults: Arc::new(Faults::at(n, fault)), ..Trial::default() };
            let said = tell(&bench, &trial);
            clean(&format!("{story}: {fault:?} at call {n}"), &bench, &trial, &said);
        }
    }
    for (n, operation) in undisturbed.disk().operations().iter().enumerate() {
        if matches!(operation.verb, DiskVerb::Read | DiskVerb::List) {
            continue;
        }
        for fault in [Fault::StopWithin(40), Fault::Short(200), Fault::BrokenAfter] {
            let bench = base.fork();
            bench.disk().inject(n, fault);
            let trial = Trial::default();
            let said = tell(&bench, &trial);
            let story = format!("{story}: {fault:?} at {operation:?}");
            clean(&story, &bench, &trial, &said);
            let after = bench.crashed(Crash::PowerPartly(n as u64));
            clean(&story, &after, &Trial::default(), "");
        }
    }
}

/// Runs a verb of a program, and returns everything that was said of it.
fn ran<T: serde::Serialize>(
    bench: &Bench,
    program: impl Fn(&Stack) -> Result<T, ProgramError> + Copy,
    verb: Verb,
    trial: &Trial,
) -> String {
    let report = bench.attempt(program, verb, trial);
    format!("{report:?}")
}

#[test]
fn whatever_stops_a_run_leaves_nothing_in_clear() {
    let first = program(INPUT, "here");
    let base = Bench::new().keeping_frames();
    check("a first up", &base, &|bench, trial| ran(bench, first, Verb::Up, trial));
    base.up_whole(first);
    check("a change", &base, &|bench, trial| ran(bench, program(CHANGED, "here"), Verb::Up, trial));
    check("a replacement", &base, &|bench, trial| ran(bench, program(CHANGED, "there"), Verb::Up, trial));
    check("a destroy", &base, &|bench, trial| ran(bench, first, Verb::Destroy, trial));
    check("a refresh", &base, &|bench, trial| ran(bench, first, Verb::Up, &Trial { refresh: true, ..trial.clone() }));
}

#[test]
fn an_import_leaves_nothing_in_clear() {
    let base = Bench::new().keeping_frames();
    base.world().plant("rack", "a", json!({ "text": "theirs", "stand": "here" }));
    check("an import", &base, &|bench, trial| ran(bench, importing, Verb::Up, trial));
}

#[test]
fn a_saved_plan_leaves_nothing_in_clear() {
    let base = Bench::new().keeping_frames();
    base.up_whole(program(INPUT, "here"));
    for (verb, program) in [(Verb::Up, program(CHANGED, "there")), (Verb::Destroy, program(INPUT, "here"))] {
        let declared = base.load(program);
        let plan = base.plan(program, verb, &Observations::default(), &[]);
        search().clean("a plan", plan::text(&plan));
        let state = state_digest(&base.state());
        let seen = Observations::default();
        let saved = SavedPlan::new(plan, seen, Vec::new(), 1, state, "exe".into(), &declared.vault, &Keys::fixed());
        let bytes = saved.unwrap().to_bytes();
        search().clean("a saved plan", &bytes);
        // Cut off, it is refused; the refusal quotes nothing of it.
        for cut in (0..bytes.len()).step_by(97) {
            let refused = SavedPlan::from_bytes("plan", &bytes[..cut]).unwrap_err();
            search().clean("a refusal", format!("{refused} {refused:?}"));
        }
        let back = SavedPlan::from_bytes("plan", &bytes).unwrap();
        let refused = back.vault(&Keys::throwaway()).unwrap_err();
        search().clean("a refusal", format!("{refused} {refused:?} {back:?}"));
    }
}

#[test]
fn a_rotation_leaves_nothing_in_clear() {
    let base = Bench::new().keeping_frames();
    base.up_whole(program(INPUT, "here"));
    let key = "AGE-SECRET-KEY-1V4MX2UNEVFHKG7FQDDHX7AMNYP6XS6TNYPKXZC38WVSXKETEYYSSWQAH65";
    base.disk().put("age.key", key.as_bytes());
    check("a rotation", &base, &|bench, _| {
        let rotated =
            rotate(Arc::new(bench.disk().clone()), &["lab".to_owned()], bench.disk(), "age.key", None, UNIX_EPOCH);
        let said = format!("{rotated:?}") + &rotated.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(!said.contains("AGE-SECRET-KEY-1"), "{said}");
        said
    });
}

#[test]
fn a_leak_that_is_planted_is_found_in_every_story() {
    let planted = |stack: &Stack| -> Result<(), ProgramError> {
        // The mistake that this test is about: a secret as an ordinary text.
        stack.provider("rack", Memory::at("rack")).resource("a").add(Thing::new("a", INPUT));
        Ok(())
    };
    let base = Bench::new().keeping_frames();
    let found = |tell: &dyn Fn(&Bench, &Trial) -> String| {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check("a leak", &base, tell))).is_err()
    };
    assert!(found(&|bench, trial| ran(bench, planted, Verb::Up, trial)), "in a file");
    assert!(found(&|_, _| format!("said: {}", INPUT)), "in what was said");
    let encoded: String = INPUT.bytes().map(|byte| format!("{byte:02x}")).collect();
    assert!(found(&|bench, _| {
        bench.disk().put("elsewhere", encoded.as_bytes());
        String::new()
    }));
    assert!(!found(&|bench, trial| ran(bench, importing, Verb::Destroy, trial)), "and only then");
}

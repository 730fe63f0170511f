//! Kill anywhere, run again: the declared world, no duplicate, no orphan, no question.
//!
//! Each test counts the calls and the disk operations of a run, stops at each of them, runs again, and expects what
//! the undisturbed run gives. More programs: `LAB_TEST_SEEDS=200 cargo test -p lab-core --test crash`.

mod sample;

use lab_core::execute::seal::Keys;
use lab_core::execute::{CallFault, KeySource, Store};
use lab_core::plan::Verb;
use lab_core::testing::{Bench, Trial};
use sample::{Line, SECRETS, Sample, deeds, disturbances, run, run_whole, seeds, settled, world};

/// At how many points a life is disturbed at most, unless more programs are asked for: then at all of them.
const USUAL: usize = 30;

const STOPS: [CallFault; 3] = [CallFault::StopBefore, CallFault::StopAfter, CallFault::LoseReply];

/// What came before, what is run and disturbed, and what is run afterwards.
struct Life<'a> {
    before: Option<&'a Sample>,
    disturbed: (&'a Sample, Verb),
    after: (&'a Sample, Verb),
}

/// Disturbs a life at every point, and returns at how many.
fn check(story: &str, life: &Life<'_>) -> usize {
    let base = Bench::new();
    if let Some(before) = life.before {
        run_whole(&base, before, Verb::Up, &format!("{story}: before"));
        settled(&base, before, Verb::Up, &format!("{story}: before"));
        base.world().clear_log();
    }
    let (disturbed, verb) = life.disturbed;
    let (after, after_verb) = life.after;
    let undisturbed = base.fork();
    run_whole(&undisturbed, disturbed, verb, &format!("{story}: undisturbed"));
    let same = std::ptr::eq(disturbed, after) && verb == after_verb;
    if !same {
        run_whole(&undisturbed, after, after_verb, &format!("{story}: undisturbed, then changed"));
    }
    settled(&undisturbed, after, after_verb, &format!("{story}: undisturbed"));
    let mut points = disturbances(&base, disturbed, verb, &STOPS, true);
    if std::env::var_os("LAB_TEST_SEEDS").is_none() {
        // Which ones differs from program to program, so that together they are everywhere.
        let every = points.len().div_ceil(USUAL);
        let first = deeds(&undisturbed).len() % every;
        points = points.into_iter().skip(first).step_by(every).collect();
    }
    for point in &points {
        let story = format!("{story}: {point:?}");
        let bench = point.run(&base, disturbed, verb);
        let left = format!(
            "{:?}",
            bench.state().open().map(|(urn, _, open)| (urn.short(), open.begun.deed)).collect::<Vec<_>>()
        );
        let story = format!("{story}, leaving open {left}");
        run_whole(&bench, after, after_verb, &story);
        assert_eq!(world(&bench), world(&undisturbed), "{story}");
        if same {
            assert_eq!(
                deeds(&bench),
                deeds(&undisturbed),
                "{story}: something was made or deleted twice, or not at all"
            );
        }
        settled(&bench, after, after_verb, &story);
    }
    points.len()
}

/// Every run of these suites is searched; this is what the search is worth.
#[test]
fn every_secret_of_a_random_program_would_be_found_in_clear() {
    let mut known = 0;
    for seed in 0..20 {
        let bench = Bench::new();
        for sample in [Sample::random(seed), Sample::random(seed).changed(seed)] {
            run_whole(&bench, &sample, Verb::Up, "searched");
            let look = Store::look(bench.disk(), "lab", &KeySource::Given(Keys::fixed())).unwrap();
            for fingerprint in look.state.secrets.keys() {
                let secret = look.vault.get(fingerprint).unwrap();
                assert!(!SECRETS.found(secret.to_string()).is_empty(), "{secret} is not looked for: {sample:?}");
                known += 1;
            }
        }
    }
    assert!(known > 100, "{known} secrets show little");
    // The mistake that this is about: a secret as an ordinary text.
    let planted = Sample::of([Line { token: true, ..Line::new("r0").says("token of r0") }]);
    let found = std::panic::catch_unwind(|| run(&Bench::new(), &planted, Verb::Up, &Trial::default()));
    assert!(found.is_err(), "a planted secret is not found");
}

#[test]
fn a_first_up_goes_on_wherever_it_stopped() {
    for seed in 0..seeds(4) {
        let sample = Sample::random(seed);
        let points = check(
            &format!("seed {seed}: {sample:?}"),
            &Life { before: None, disturbed: (&sample, Verb::Up), after: (&sample, Verb::Up) },
        );
        assert!(points > 20, "few points show little");
    }
}

#[test]
fn a_changed_program_goes_on_wherever_it_stopped() {
    for seed in 0..seeds(8) {
        let (before, sample) = (Sample::random(seed), Sample::random(seed).changed(seed));
        let story = format!("seed {seed}: {before:?} then {sample:?}");
        check(&story, &Life { before: Some(&before), disturbed: (&sample, Verb::Up), after: (&sample, Verb::Up) });
    }
}

#[test]
fn a_destroy_goes_on_wherever_it_stopped() {
    for seed in 0..seeds(4) {
        let sample = Sample::random(seed);
        let story = format!("seed {seed}: {sample:?}");
        check(
            &story,
            &Life { before: Some(&sample), disturbed: (&sample, Verb::Destroy), after: (&sample, Verb::Destroy) },
        );
    }
}

#[test]
fn a_replaced_container_goes_on_wherever_it_stopped() {
    for seed in 0..seeds(2) {
        let mut before = Sample::random(seed);
        let container = before.lines[0].name.clone();
        before.lines[0].create_first = seed % 2 == 0;
        before.lines.push(Line { calls: 1, ..Line::new("inside").on(&container) });
        before.lines.push(Line { outside: true, ..Line::new("far").on("inside").says_of("inside") });
        let mut sample = before.clone();
        sample.lines[0] = sample.lines[0].clone().at("elsewhere");
        let story = format!("seed {seed}: {before:?} with {container} replaced");
        check(&story, &Life { before: Some(&before), disturbed: (&sample, Verb::Up), after: (&sample, Verb::Up) });
    }
}

#[test]
fn a_program_that_changed_between_the_crash_and_the_next_run_is_what_counts() {
    for seed in 0..seeds(2) {
        let before = Sample::random(seed);
        let sample = before.changed(seed);
        let after = sample.changed(seed + 1000);
        let story = format!("seed {seed}: {before:?} then {sample:?} then {after:?}");
        check(&story, &Life { before: None, disturbed: (&before, Verb::Up), after: (&sample, Verb::Up) });
        check(&story, &Life { before: Some(&before), disturbed: (&sample, Verb::Up), after: (&before, Verb::Up) });
        check(&story, &Life { before: Some(&before), disturbed: (&sample, Verb::Up), after: (&after, Verb::Up) });
        check(&story, &Life { before: Some(&before), disturbed: (&sample, Verb::Destroy), after: (&before, Verb::Up) });
        check(&story, &Life { before: Some(&before), disturbed: (&sample, Verb::Up), after: (&before, Verb::Destroy) });
    }
}

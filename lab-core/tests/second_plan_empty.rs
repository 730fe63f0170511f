//! A second plan is empty, with and without looking, and a second run does nothing.

mod sample;

use lab_core::plan::Verb;
use lab_core::testing::{Bench, Trial};
use sample::{Line, Sample, run, run_whole, seeds, settled};

fn check(bench: &Bench, sample: &Sample, story: &str) {
    run_whole(bench, sample, Verb::Up, story);
    settled(bench, sample, Verb::Up, story);
    let seen = bench.refresh(|stack| sample.declare(stack));
    let plan = bench.plan(|stack| sample.declare(stack), Verb::Up, &seen, &[]);
    assert!(plan.is_empty(), "{story}: after a look:\n{}", lab_core::plan::text(&plan));
    bench.world().clear_log();
    let journal = bench.disk().get("lab.journal");
    let report = run(bench, sample, Verb::Up, &Trial { refresh: true, ..Trial::default() }).unwrap();
    assert!(report.complete() && report.done.is_empty(), "{story}: {report:#?}");
    assert_eq!(bench.world().log(), Vec::<String>::new(), "{story}: something was called");
    assert_eq!(bench.disk().get("lab.journal"), journal, "{story}: something was written");
}

#[test]
fn after_a_first_up() {
    for seed in 400..400 + seeds(30) {
        let sample = Sample::random(seed);
        check(&Bench::new(), &sample, &format!("seed {seed}: {sample:?}"));
    }
}

#[test]
fn after_change_upon_change_back_and_forth() {
    for seed in 430..430 + seeds(15) {
        let bench = Bench::new();
        let mut sample = Sample::random(seed);
        let first = sample.clone();
        for round in 0..4 {
            check(&bench, &sample, &format!("seed {seed} round {round}: {sample:?}"));
            sample = sample.changed(seed * 10 + round);
        }
        check(&bench, &first, &format!("seed {seed} back to {first:?}"));
    }
}

#[test]
fn after_a_destroy_and_after_everything_is_made_anew() {
    for seed in 450..450 + seeds(10) {
        let bench = Bench::new();
        let sample = Sample::random(seed);
        let story = format!("seed {seed}: {sample:?}");
        check(&bench, &sample, &story);
        run_whole(&bench, &sample, Verb::Destroy, &story);
        settled(&bench, &sample, Verb::Destroy, &story);
        assert_eq!(bench.world().count(), 0, "{story}");
        check(&bench, &sample, &story);
    }
}

#[test]
fn after_somebody_else_changed_and_removed_things() {
    for seed in 460..460 + seeds(15) {
        let bench = Bench::new();
        let sample = Sample::random(seed);
        let story = format!("seed {seed}: {sample:?}");
        check(&bench, &sample, &story);
        for (n, (place, name, _)) in bench.world().items().iter().enumerate() {
            match n % 3 {
                0 => bench.world().change(place, name, |item| item.value["text"] = "drifted".into()),
                1 if place == "rack" && !sample.lines.iter().any(|line| line.on.as_deref() == Some(name)) => {
                    bench.world().take_away(place, name);
                }
                _ => {}
            }
        }
        let report = run(&bench, &sample, Verb::Up, &Trial { refresh: true, ..Trial::default() }).unwrap();
        assert!(report.complete(), "{story}: {report:#?}");
        check(&bench, &sample, &story);
    }
}

#[test]
fn after_a_container_was_replaced() {
    let bench = Bench::new();
    let sample = |stand: &str| {
        Sample::of([Line::new("a").at(stand), Line::new("b").on("a"), Line::new("c").on("b").says_of("b")])
    };
    check(&bench, &sample("here"), "before");
    check(&bench, &sample("there"), "replaced");
}

/// A destroy was a circle: what lies inside is forgotten after its container went, and something outside that needed
/// it had to wait for that, while the container waited for the one outside.
#[test]
fn after_a_destroy_of_what_is_woven_in_and_out_of_containers() {
    for seed in 600..600 + seeds(40) {
        let bench = Bench::new();
        let sample = Sample::random(seed);
        let story = format!("seed {seed}: {sample:?}");
        run_whole(&bench, &sample, Verb::Up, &story);
        run_whole(&bench, &sample, Verb::Destroy, &story);
        settled(&bench, &sample, Verb::Destroy, &story);
    }
}

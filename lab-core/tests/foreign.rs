//! Nothing of somebody else's is adopted, changed or deleted.

mod sample;

use lab_core::execute::Report;
use lab_core::plan::Verb;
use lab_core::testing::{Bench, Item, Trial};
use sample::{Line, Sample, run, seeds};
use serde_json::json;

fn foreign() -> serde_json::Value {
    json!({ "text": "somebody's", "stand": "here", "secret": null })
}

fn up(bench: &Bench, sample: &Sample) -> Report {
    run(bench, sample, Verb::Up, &Trial::default()).unwrap()
}

fn untouched(bench: &Bench, name: &str, before: &Item, story: &str) {
    assert_eq!(bench.world().get("rack", name).as_ref(), Some(before), "{story}: it was touched");
    let touched: Vec<_> =
        bench.world().log().into_iter().filter(|call| call.ends_with(&format!(" rack/{name}"))).collect();
    assert!(touched.is_empty(), "{story}: {touched:?}");
}

#[test]
fn what_is_there_already_is_never_adopted_and_the_message_says_import() {
    for seed in 200..200 + seeds(6) {
        let sample = Sample::random(seed);
        for line in sample.lines.iter().filter(|line| line.on.is_none() && !line.create_first) {
            for mark in [None, Some("0123456789abcdef0123456789abcdef".to_owned())] {
                let bench = Bench::new();
                bench.world().plant("rack", &line.thing, foreign());
                bench.world().change("rack", &line.thing, |item| item.mark = mark.clone());
                let planted = bench.world().get("rack", &line.thing).unwrap();
                let story = format!("{} with mark {mark:?} in {sample:?}", line.name);
                // Run again, it is refused again.
                for _ in 0..2 {
                    let report = up(&bench, &sample);
                    let failure = report.failed.iter().find(|failure| failure.urn.name() == line.name);
                    let failure = failure.unwrap_or_else(|| panic!("{story}: it did not fail: {report:#?}"));
                    assert!(failure.error.contains("exists already and is not ours"), "{story}: {}", failure.error);
                    assert!(
                        failure.hint.as_deref().is_some_and(|hint| hint.contains("import")),
                        "{story}: {failure:?}"
                    );
                    assert!(!failure.open, "{story}: nothing of it was begun");
                    untouched(&bench, &line.thing, &planted, &story);
                }
                let report = bench.destroy(|stack| sample.declare(stack));
                assert!(report.complete(), "{story}: {report:#?}");
                untouched(&bench, &line.thing, &planted, &story);
                assert_eq!(bench.world().count(), 1, "{story}: everything of ours is gone");
            }
        }
    }
}

#[test]
fn what_took_the_place_of_ours_is_neither_changed_nor_deleted() {
    for create_first in [false, true] {
        let before = Sample::of([Line { create_first, ..Line::new("a") }, Line::new("b").says_of("a")]);
        let bench = Bench::new();
        bench.up_whole(|stack| before.declare(stack));
        let name = bench
            .state()
            .records
            .values()
            .find_map(|record| record.id.clone().filter(|id| id.0.starts_with('a')))
            .unwrap();
        bench.world().take_away("rack", &name.0);
        bench.world().plant("rack", &name.0, foreign());
        bench.world().clear_log();
        let planted = bench.world().get("rack", &name.0).unwrap();
        let sample = Sample::of([Line { create_first, ..Line::new("a") }.says("new"), Line::new("b").says_of("a")]);
        let report = up(&bench, &sample);
        assert!(report.failed.iter().any(|failure| failure.error.contains("is not ours any more")), "{report:#?}");
        untouched(&bench, &name.0, &planted, "changed");
        let moved = Sample::of([Line { create_first, ..Line::new("a") }.at("there"), Line::new("b").says_of("a")]);
        up(&bench.fork(), &moved);
        untouched(&bench, &name.0, &planted, "replaced");
        assert!(bench.destroy(|stack| before.declare(stack)).complete());
        untouched(&bench, &name.0, &planted, "destroyed");
    }
}

#[test]
fn what_bears_no_mark_is_ours_only_by_what_the_state_says() {
    let sample = Sample::of([Line { unmarkable: true, ..Line::new("a") }]);
    let bench = Bench::new();
    bench.world().plant("rack", "a", foreign());
    let planted = bench.world().get("rack", "a").unwrap();
    let report = up(&bench, &sample);
    assert_eq!(report.failed.len(), 1, "{report:#?}");
    untouched(&bench, "a", &planted, "unmarkable");
    bench.world().take_away("rack", "a");
    bench.up_whole(|stack| sample.declare(stack));
    assert!(bench.destroy(|stack| sample.declare(stack)).complete());
    assert_eq!(bench.world().count(), 0, "what we made is ours though nothing on it says so");
}

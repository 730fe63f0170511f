//! A replaced cluster gets everything it had, under every kind of child.

mod sample;

use lab_core::execute::CallFault;
use lab_core::plan::Verb;
use lab_core::testing::Bench;
use sample::{Line, Sample, Says, deeds, disturbances, run_whole, settled, world};

/// A container with every kind of child, at a stand.
fn program(stand: &str, create_first: bool) -> Sample {
    let on = |name: &str| Line::new(name).on("cluster");
    Sample::of([
        Line::new("before"),
        Line { create_first, calls: 1, lingers: 1, ..Line::new("cluster").at(stand).says_of("before") },
        on("plain"),
        Line { calls: 2, lingers: 2, ..on("slow") },
        Line { secret: Some(Says::Of("plain".into())), ..on("keeper") },
        Line { token: true, ..on("once-told") },
        Line { unmarkable: true, ..on("unmarkable") },
        Line { create_first: true, ..on("first") },
        Line { claim: Some(7), ..on("claimer") },
        Line { lock: true, ..on("locked") },
        on("chained").says_of("slow"),
        Line { after: Some("chained".into()), ..on("patient") },
        on("room").says_of("plain"),
        Line::new("deep").on("room").says_of("keeper"),
        Line { outside: true, lingers: 1, ..Line::new("volume").on("room") },
        Line { outside: true, ..on("record") },
        Line::new("user").says_of("deep"),
    ])
}

fn check(before: &Sample, after: &Sample, story: &str) -> Bench {
    let bench = Bench::new();
    run_whole(&bench, before, Verb::Up, story);
    bench.world().clear_log();
    run_whole(&bench, after, Verb::Up, story);
    let fresh = Bench::new();
    run_whole(&fresh, after, Verb::Up, story);
    assert_eq!(world(&bench), world(&fresh), "{story}");
    settled(&bench, after, Verb::Up, story);
    bench
}

#[test]
fn every_kind_of_child_is_there_again() {
    for create_first in [false, true] {
        let before = program("here", create_first);
        let bench = check(&before, &program("there", create_first), "moved");
        let deeds = deeds(&bench);
        for line in before.lines.iter().filter(|line| line.on.is_some()) {
            let made = deeds
                .iter()
                .filter(|deed| deed.starts_with("create") && deed.ends_with(&format!("/{}", line.thing)))
                .count();
            assert_eq!(made, 1, "{} was not made anew, once: {deeds:#?}", line.name);
            let deleted = deeds
                .iter()
                .filter(|deed| deed.starts_with("delete") && deed.ends_with(&format!("/{}", line.thing)))
                .count();
            assert_eq!(
                deleted,
                usize::from(line.outside),
                "what has effects outside is deleted by call, the rest goes along: {}",
                line.name
            );
        }
    }
}

#[test]
fn children_that_change_in_the_same_run_are_made_as_they_are_wanted_now() {
    let before = program("here", false);
    for n in 2..before.lines.len() {
        let mut after = program("there", false);
        let line = &mut after.lines[n];
        line.text = Says::Plain("changed with it".into());
        line.stand = Says::Plain("moved with it".into());
        check(&before, &after, &format!("{} changed too", before.lines[n].name));
        let mut after = program("there", false);
        after.remove(&before.lines[n].name);
        check(&before, &after, &format!("{} removed too", before.lines[n].name));
    }
    let mut after = program("there", false);
    after.lines.push(Line::new("added").on("cluster").says_of("first"));
    check(&before, &after, "one added too");
    let mut after = program("there", false);
    after.rename("plain", "renamed");
    check(&before, &after, "one renamed too");
}

#[test]
fn a_container_within_a_replaced_container_is_made_anew_with_what_it_holds() {
    let line = |stand: &str| {
        Sample::of([
            Line::new("a").at(stand),
            Line::new("b").on("a"),
            Line::new("c").on("b"),
            Line { outside: true, ..Line::new("d").on("c") },
        ])
    };
    let bench = check(&line("here"), &line("there"), "nested");
    let inner = bench.world().items().into_iter().filter(|(place, ..)| place != "rack").count();
    assert_eq!(inner, 3);
    // However deep it lies: the way in goes with what is around it.
    let log = bench.world().log();
    let at = |end: &str| log.iter().position(|call| call.starts_with("delete") && call.ends_with(end));
    assert!(at("/d").is_some() && at("/d") < at("rack/a"), "{log:?}");
}

#[test]
fn a_container_that_somebody_removed_is_made_anew_with_what_it_held() {
    let sample = program("here", false);
    let bench = Bench::new();
    run_whole(&bench, &sample, Verb::Up, "before");
    let expected = world(&bench);
    let serial = bench.world().get("rack", "cluster").unwrap().serial;
    for (place, name, _) in bench.world().items() {
        if place.contains(&format!("#{serial}")) {
            bench.world().take_away(&place, &name);
        }
    }
    bench.world().take_away("rack", "cluster");
    let trial = lab_core::testing::Trial { refresh: true, ..Default::default() };
    let report = sample::run(&bench, &sample, Verb::Up, &trial).unwrap();
    assert!(report.complete(), "{report:#?}");
    assert_eq!(world(&bench), expected);
}

#[test]
fn a_replacement_that_is_cut_off_anywhere_is_finished_with_all_that_it_held() {
    let on = |name: &str| Line::new(name).on("cluster");
    let cluster = |stand: &str| Line { calls: 1, lingers: 1, ..Line::new("cluster").at(stand) };
    let volume = || Line { outside: true, ..on("volume") };
    let before = Sample::of([cluster("here"), on("plain"), on("given-up"), volume()]);
    let after = Sample::of([cluster("there"), on("plain"), volume()]);
    let (base, fresh) = (Bench::new(), Bench::new());
    run_whole(&base, &before, Verb::Up, "before");
    run_whole(&fresh, &after, Verb::Up, "fresh");
    for point in disturbances(&base, &after, Verb::Up, &[CallFault::StopBefore, CallFault::StopAfter], true) {
        let bench = point.run(&base, &after, Verb::Up);
        let story = format!("{point:?}");
        run_whole(&bench, &after, Verb::Up, &story);
        assert_eq!(world(&bench), world(&fresh), "{story}");
        settled(&bench, &after, Verb::Up, &story);
    }
}

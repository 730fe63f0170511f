//! The state is a fold over events that refuses illegal moves; a journal is replayed or refused, never guessed at.

mod sample;

use lab_core::execute::disk::{Crash, FaultyDisk};
use lab_core::execute::journal::Journal;
use lab_core::execute::seal::Keys;
use lab_core::execute::{KeySource, Store, StoreError};
use lab_core::plan::Verb;
use lab_core::testing::{Bench, Trial};
use lab_core::*;
use sample::{Sample, run, seeds};
use serde_json::json;
use std::sync::Arc;

fn urn(name: &str) -> Urn {
    Urn::new("lab", "rack", &[], "memory:thing", name)
}

fn spec() -> Spec {
    serde_json::from_value(json!({
        "kind": "memory:thing", "version": 1, "provider": "rack", "realm": "memory rack", "inputs": { "name": "a" },
        "digest": "", "place": Place { file: "main.rs".into(), line: 1 },
    }))
    .unwrap()
}

fn begin(deed: Deed, op: &str, mark: &str) -> Event {
    let begun = json!({
        "op": op, "mark": mark, "deed": deed, "spec": spec(), "why": Why::Declared, "seed": 1, "absent": deed.makes(),
    });
    Event::Begin { urn: urn("a"), begun: serde_json::from_value(begun).unwrap() }
}

fn cursor(op: &str, made: bool) -> Event {
    let made = made.then(|| MadeRecord { id: Id("a".into()), outputs: Tree::default(), live: None, due: None });
    Event::Cursor { urn: urn("a"), op: Mark(op.into()), cursor: json!(1), made }
}

fn end(op: &str, ended: Ended) -> Event {
    Event::End { urn: urn("a"), op: Mark(op.into()), ended, unmarked: false }
}

fn ready() -> Ended {
    Ended::Ready(MadeRecord { id: Id("a".into()), outputs: Tree::default(), live: None, due: None })
}

/// Takes in everything but the last, which is refused or not.
fn check(events: &[Event], refused: Option<&str>) {
    let mut state = State::default();
    let (last, first) = events.split_last().unwrap();
    first.iter().for_each(|event| state.apply(event).unwrap_or_else(|error| panic!("{error}: {event:?}")));
    match (state.apply(last), refused) {
        (Ok(()), None) => {}
        (Err(illegal), Some(why)) => assert!(illegal.0.contains(why), "{illegal} instead of {why}"),
        (Ok(()), Some(why)) => panic!("it was not refused, though {why}: {events:#?}"),
        (Err(illegal), None) => panic!("{illegal}: {events:#?}"),
    }
}

#[test]
fn an_operation_is_begin_cursors_end() {
    use Deed::{Create, Delete, Update};
    check(&[begin(Create, "1", "1"), cursor("1", false), cursor("1", true), end("1", ready())], None);
    check(&[begin(Create, "1", "1"), begin(Create, "1", "1")], None);
    check(&[begin(Create, "1", "1"), end("1", ready()), begin(Update, "2", "1"), end("2", ready())], None);
    check(&[begin(Create, "1", "1"), begin(Delete, "2", "1"), end("2", Ended::Deleted)], None);
    check(
        &[begin(Create, "1", "1"), end("1", ready()), begin(Deed::Supersede, "2", "2"), begin(Delete, "3", "1")],
        None,
    );
}

#[test]
fn what_cannot_be_is_refused() {
    use Deed::{Create, Delete, Import, Supersede, Update};
    let made = [begin(Create, "1", "1"), end("1", ready())];
    let after = |events: &[Event]| [made.to_vec(), events.to_vec()].concat();
    check(&[end("1", ready())], Some("no such open operation"));
    check(&[cursor("1", false)], Some("no such open operation"));
    check(&[begin(Update, "1", "1")], Some("not in the state"));
    check(&[begin(Delete, "1", "1")], Some("not in the state"));
    check(&[begin(Create, "1", "1"), begin(Update, "2", "1")], Some("does not exist"));
    check(&[begin(Create, "1", "1"), begin(Supersede, "2", "2")], Some("exists"));
    check(&[begin(Create, "1", "1"), cursor("2", false)], Some("no such open operation"));
    check(&[begin(Create, "1", "1"), end("2", ready())], Some("no such open operation"));
    check(&[begin(Create, "1", "1"), end("1", Ended::Deleted)], Some("cannot"));
    check(
        &[begin(Create, "1", "1"), cursor("1", false), end("1", Ended::Failed("x".into()))],
        Some("stands at a cursor"),
    );
    check(&[begin(Create, "1", "1"), Event::Vanished { urn: urn("a") }], Some("still being made"));
    check(&after(&[end("1", ready())]), Some("no such open operation"));
    check(&after(&[begin(Create, "2", "2")]), Some("exists"));
    check(&after(&[begin(Import, "2", "2")]), Some("exists"));
    check(&after(&[begin(Update, "2", "1"), begin(Update, "3", "1")]), Some("another operation"));
    check(&after(&[begin(Delete, "2", "1"), end("2", ready())]), Some("cannot"));
    check(&after(&[begin(Delete, "2", "9")]), Some("not in the state"));
    // A deletion is gone on with, never cut off: each would be kept within the next, deeper than can be read again.
    check(&after(&[begin(Delete, "2", "1"), begin(Delete, "2", "1")]), None);
    check(&after(&[begin(Delete, "2", "1"), begin(Delete, "3", "1")]), Some("another deletion"));
    check(&after(&[Event::Forgot { urns: vec![urn("b")], marks: vec![] }]), Some("not in the state"));
    check(&after(&[Event::Forgot { urns: vec![], marks: vec![Mark("1".into())] }]), Some("not condemned"));
    check(&after(&[Event::Noted { urn: urn("b"), spec: Box::new(spec()) }]), Some("not in the state"));
    check(&after(&[Event::LeftBehind { urn: urn("b"), mark: None }]), Some("not in the state"));
    check(&after(&[Event::Moved { moves: vec![(urn("b"), urn("c"))] }]), Some("not in the state"));
    check(&after(&[Event::Moved { moves: vec![(urn("a"), urn("b")), (urn("a"), urn("b"))] }]), Some("taken"));
}

#[test]
fn a_failure_without_effect_leaves_what_was_there_before() {
    use Deed::{Create, Delete, Supersede, Update};
    let replay = |events: &[Event]| {
        let mut state = State::default();
        events.iter().for_each(|event| state.apply(event).unwrap());
        state
    };
    let failed = |op: &str| end(op, Ended::Failed("x".into()));
    assert_eq!(replay(&[begin(Create, "1", "1"), failed("1")]), State::default());
    let made = replay(&[begin(Create, "1", "1"), end("1", ready())]);
    for deed in [Update, Delete] {
        assert_eq!(replay(&[begin(Create, "1", "1"), end("1", ready()), begin(deed, "2", "1"), failed("2")]), made);
    }
    assert_eq!(replay(&[begin(Create, "1", "1"), end("1", ready()), begin(Supersede, "2", "2"), failed("2")]), made);
    let open = replay(&[begin(Create, "1", "1")]);
    assert_eq!(
        replay(&[begin(Create, "1", "1"), begin(Delete, "2", "1"), failed("2")]),
        open,
        "the creation is open again"
    );
}

/// Runs lives of random programs and returns the journals they left.
fn journals() -> Vec<(String, FaultyDisk)> {
    (600..600 + seeds(6))
        .map(|seed| {
            let bench = Bench::new().keeping_frames();
            let mut sample = Sample::random(seed);
            for round in 0..4 {
                let _ = run(&bench, &sample, Verb::Up, &Trial::default());
                sample = sample.changed(seed + round);
            }
            let _ = run(&bench, &sample, Verb::Destroy, &Trial::default());
            (format!("seed {seed}"), bench.disk().reopen(Crash::Process))
        })
        .collect()
}

#[test]
fn every_prefix_of_a_journal_is_a_valid_state() {
    for (story, disk) in journals() {
        let opened = Journal::read(&disk, "lab").unwrap();
        let mut state: State =
            opened.snapshot.map_or_else(State::default, |snapshot| serde_json::from_value(snapshot).unwrap());
        let mut events = 0;
        for frame in opened.frames {
            for record in frame {
                let event: Event = serde_json::from_value(record.clone()).unwrap();
                assert_eq!(serde_json::to_value(&event).unwrap(), record, "{story}: an event comes back as it went");
                state.apply(&event).unwrap_or_else(|error| panic!("{story}: {error}"));
                events += 1;
            }
            let again: State = serde_json::from_value(serde_json::to_value(&state).unwrap()).unwrap();
            assert_eq!(again, state, "{story}: a snapshot comes back as it went");
            for (urn, record, open) in state.open() {
                assert!(open.begun.deed != Deed::Create || open.begun.op == record.mark, "{story}: {urn}");
            }
            for fingerprint in state.referenced() {
                assert!(state.secrets.contains_key(&fingerprint), "{story}: a secret is referred to and not sealed");
            }
            let mut pruned = state.clone();
            pruned.prune();
            assert_eq!(pruned.records, state.records);
            assert_eq!(
                pruned.referenced(),
                pruned.secrets.keys().cloned().collect(),
                "{story}: what is kept is referred to"
            );
            for record in state.records.values().filter(|record| record.open.is_some()) {
                let key = lab_core::connection(&record.spec.provider, &record.spec.realm);
                assert!(pruned.providers.contains_key(&key), "{story}: what is open can still be reached");
            }
        }
        assert!(events > 20, "{story}: a short life shows little");
    }
}

fn look(disk: &FaultyDisk) -> Result<State, StoreError> {
    Store::look(disk, "lab", &KeySource::Given(Keys::fixed())).map(|look| look.state)
}

#[test]
fn a_damaged_journal_is_refused_with_its_place_and_a_hint_and_never_read_otherwise() {
    let (_, disk) = journals().remove(0);
    let whole = look(&disk).unwrap();
    let bytes = disk.get("lab.journal").unwrap();
    let last = bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap();
    for at in (0..bytes.len()).step_by(97) {
        let damaged = disk.reopen(Crash::Process);
        damaged.flip("lab.journal", at, (at % 8) as u8);
        match look(&damaged) {
            Err(error) => {
                assert!(error.to_string().contains("lab.journal"), "byte {at}: it names the file: {error}");
                assert!(!error.hint().is_empty());
            }
            Ok(_) => assert!(at > last, "byte {at} of {}: only the last frame may be cut", bytes.len()),
        }
    }
    for at in (last..bytes.len()).step_by(7) {
        let torn = disk.reopen(Crash::Process);
        torn.put("lab.journal", &bytes[..at]);
        assert_ne!(look(&torn).unwrap(), whole, "a torn frame is not half believed");
    }
    for at in (1..200).step_by(13) {
        let torn = disk.reopen(Crash::Process);
        torn.put("lab.journal", &bytes[..bytes.len().min(at)]);
        assert!(at > 120 || look(&torn).is_err(), "a torn header is refused");
    }
}

#[test]
fn a_newer_format_and_an_unknown_or_impossible_record_are_refused_by_name() {
    let disk = FaultyDisk::new();
    let (mut journal, _) = Journal::open(Arc::new(disk.clone()), "lab").unwrap();
    journal.append(&[json!({ "event": "ran", "verb": "up", "at": 1 })]).unwrap();
    let good = disk.get("lab.journal").unwrap();
    let newer = disk.reopen(Crash::Process);
    newer
        .put("lab.journal", &String::from_utf8(good).unwrap().replacen("\"format\":1", "\"format\":2", 1).into_bytes());
    let error = look(&newer).unwrap_err();
    assert!(error.to_string().contains("format 2") && error.hint().contains("update"), "{error}");
    journal.append(&[json!({ "event": "teleported", "urn": "x" })]).unwrap();
    let error = look(&disk).unwrap_err();
    assert!(error.to_string().contains("record 1 of frame 2"), "{error}");
    assert!(!error.hint().is_empty());

    let disk = FaultyDisk::new();
    let (mut journal, _) = Journal::open(Arc::new(disk.clone()), "lab").unwrap();
    journal
        .append(&[json!({ "event": "ran", "verb": "up", "at": 1 }), serde_json::to_value(end("1", ready())).unwrap()])
        .unwrap();
    let error = look(&disk).unwrap_err();
    assert!(error.to_string().contains("record 2 of frame 1 cannot follow"), "{error}");
}

/// A run over a long journal is compacted as it closes; cut off anywhere in that, nothing is lost.
#[test]
fn a_snapshot_that_is_cut_off_loses_nothing() {
    use lab_core::execute::disk::Fault;
    let (sample, bench) = (Sample::random(610), Bench::new());
    sample::run_whole(&bench, &sample, Verb::Up, "before");
    let compact = |disk: &FaultyDisk| {
        let (mut store, _) = Store::open(Arc::new(disk.clone()), "lab", KeySource::Given(Keys::fixed()))?;
        store.compact()
    };
    let expected = bench.state();
    let undisturbed = bench.fork();
    compact(undisturbed.disk()).unwrap();
    let operations = undisturbed.disk().operations().len();
    assert!(operations > 4);
    for n in 0..operations {
        for fault in [
            Fault::StopBefore,
            Fault::StopWithin(40),
            Fault::StopAfter,
            Fault::NoSpace,
            Fault::Broken,
            Fault::BrokenAfter,
            Fault::Short(30),
        ] {
            let bench = bench.fork();
            bench.disk().inject(n, fault);
            let _ = compact(bench.disk());
            for crash in [Crash::Process, Crash::Power, Crash::PowerPartly(n as u64)] {
                let bench = bench.crashed(crash);
                let state = bench.state();
                assert_eq!(
                    (&state.records, &state.outputs),
                    (&expected.records, &expected.outputs),
                    "{fault:?} at {n}, {crash:?}"
                );
                sample::settled(&bench, &sample, Verb::Up, &format!("{fault:?} at {n}, {crash:?}"));
            }
        }
    }
    sample::run_whole(&undisturbed, &sample, Verb::Destroy, "after a snapshot");
}

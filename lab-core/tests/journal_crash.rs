//! Nothing that was acknowledged is ever lost: stop and fail at every operation, then look.

use lab_core::execute::disk::{Crash, Fault, FaultyDisk, Verb};
use lab_core::execute::journal::{Journal, JournalError, Opened};
use serde_json::{Value, json};
use std::sync::Arc;

const CRASHES: [Crash; 5] =
    [Crash::Process, Crash::Power, Crash::PowerPartly(1), Crash::PowerPartly(2), Crash::PowerPartly(3)];

/// What a writer believes: the records that were acknowledged, and those it does not know about.
#[derive(Debug, Default)]
struct Belief {
    acknowledged: Vec<Value>,
    attempted: Vec<Value>,
    error: Option<JournalError>,
}

fn open(disk: &FaultyDisk) -> Result<(Journal, Opened), JournalError> {
    Journal::open(Arc::new(disk.clone()), "homelab")
}

/// Everything a journal holds, in order. A snapshot here is the list of what it replaced.
fn content(opened: Opened) -> Vec<Value> {
    let snapshot = opened.snapshot.map(|all| all.as_array().unwrap().clone()).unwrap_or_default();
    snapshot.into_iter().chain(opened.frames.into_iter().flatten()).collect()
}

/// A life with everything in it: two processes, frames of one and more records, two compactions.
fn live(disk: &FaultyDisk) -> Belief {
    let mut belief = Belief::default();
    let mut number = 0;
    for _process in 0..2 {
        let (mut journal, opened) = match open(disk) {
            Ok(opened) => opened,
            Err(error) => return Belief { error: Some(error), ..belief },
        };
        assert_eq!(content(opened), belief.acknowledged);
        for step in 0..4 {
            let records: Vec<Value> = (0..=number % 3).map(|part| json!({"n": number, "part": part})).collect();
            number += 1;
            belief.attempted = records.clone();
            if let Err(error) = journal.append(&records) {
                return Belief { error: Some(error), ..belief };
            }
            belief.acknowledged.append(&mut belief.attempted);
            if step == 2
                && let Err(error) = journal.compact(&Value::Array(belief.acknowledged.clone()))
            {
                return Belief { error: Some(error), ..belief };
            }
            debug_assert!(!records.is_empty());
        }
    }
    belief
}

/// After a crash: what was acknowledged is there, and at most the frame that was under way, whole. Then life goes on,
/// and survives the power going at its end.
fn check(disk: &FaultyDisk, belief: &Belief, crash: Crash, story: &str) {
    let disk = disk.reopen(crash);
    let (mut journal, opened) = open(&disk).unwrap_or_else(|error| panic!("{story}: {error}"));
    let found = content(opened);
    let with_attempted: Vec<Value> = belief.acknowledged.iter().chain(&belief.attempted).cloned().collect();
    assert!(found == belief.acknowledged || found == with_attempted, "{story}: found {found:?}, believed {belief:?}");
    // Whatever the engine may act on now must not go away any more.
    let later = content(Journal::read(&disk.reopen(Crash::Power), "homelab").unwrap());
    assert_eq!(later, found, "{story}: what was shown was not durable");
    journal.append(&[json!("life goes on")]).unwrap_or_else(|error| panic!("{story}: {error}"));
    let later = content(Journal::read(&disk.reopen(Crash::Power), "homelab").unwrap());
    assert_eq!(later.split_last(), Some((&json!("life goes on"), &found[..])), "{story}");
    assert!(disk.get("homelab.journal.tmp").is_none(), "{story}: a temporary file is left");
}

/// Runs `faults(operation)` at each operation of the undisturbed life.
fn disturb(faults: impl Fn(Verb, usize) -> Vec<Fault>, crashes: &[Crash]) {
    let undisturbed = FaultyDisk::new();
    assert!(live(&undisturbed).error.is_none());
    let operations = undisturbed.operations();
    assert!(operations.len() > 30, "a life with few operations shows little");
    for (at, operation) in operations.iter().enumerate() {
        for fault in faults(operation.verb, operation.bytes) {
            let disk = FaultyDisk::new();
            disk.inject(at, fault);
            let belief = live(&disk);
            for crash in crashes {
                check(&disk, &belief, *crash, &format!("{fault:?} at operation {at}, {operation:?}, then {crash:?}"));
            }
        }
    }
}

#[test]
fn a_stop_before_or_after_any_operation_loses_nothing() {
    disturb(|_, _| vec![Fault::StopBefore, Fault::StopAfter], &CRASHES);
}

#[test]
fn a_stop_in_the_middle_of_a_write_loses_nothing() {
    let points = |verb, bytes: usize| match verb {
        Verb::Write => [1, 9, 75, bytes / 2, bytes - 66, bytes - 2, bytes - 1].map(Fault::StopWithin).to_vec(),
        _ => vec![],
    };
    disturb(points, &[Crash::Process, Crash::PowerPartly(4), Crash::PowerPartly(5)]);
}

#[test]
fn an_error_of_any_operation_loses_nothing() {
    disturb(|_, _| vec![Fault::NoSpace, Fault::Broken], &CRASHES);
    disturb(|_, bytes| vec![Fault::BrokenAfter, Fault::Short(bytes / 2)], &CRASHES);
}

#[test]
fn a_power_loss_that_keeps_any_part_of_what_was_under_way_loses_nothing() {
    let crashes: Vec<Crash> = (10..50).map(Crash::PowerPartly).collect();
    // Where most is under way: written or renamed, not flushed.
    let points = |verb, _| match verb {
        Verb::Flush | Verb::SyncDir => vec![Fault::StopBefore],
        _ => vec![],
    };
    disturb(points, &crashes);
}

#[test]
fn a_disk_that_fills_up_at_any_point_loses_nothing_and_says_so() {
    let undisturbed = FaultyDisk::new();
    live(&undisturbed);
    for at in 0..undisturbed.operations().len() {
        let disk = FaultyDisk::new();
        disk.full_from(at);
        let belief = live(&disk);
        if let Some(error) = &belief.error {
            assert!(error.hint().contains("make room"), "{error}");
            assert!(error.to_string().contains("no space left"), "{error}");
        }
        check(&disk, &belief, Crash::Process, &format!("full from operation {at}"));
    }
}

#[test]
fn after_a_failed_write_or_flush_the_journal_answers_nothing_but_errors() {
    for (fault, verb) in [(Fault::Broken, Verb::Flush), (Fault::Short(10), Verb::Write)] {
        let disk = FaultyDisk::new();
        let (mut journal, _) = open(&disk).unwrap();
        journal.append(&[json!(1)]).unwrap();
        let next = disk.operations().len();
        disk.inject(if verb == Verb::Write { next } else { next + 1 }, fault);
        assert!(matches!(journal.append(&[json!(2)]), Err(JournalError::Disk { .. })));
        let asked = disk.operations().len();
        assert_eq!(disk.operations()[asked - 1].verb, verb);
        // The disk would take it now. Nobody knows what lies before it.
        let error = journal.append(&[json!(3)]).unwrap_err();
        assert!(matches!(error, JournalError::Poisoned { .. }));
        assert!(error.to_string().contains("run the command again"), "{error}");
        assert!(matches!(journal.append(&[]), Err(JournalError::Poisoned { .. })));
        assert!(matches!(journal.compact(&json!([1, 3])), Err(JournalError::Poisoned { .. })));
        assert_eq!(disk.operations().len(), asked, "a poisoned journal leaves the disk alone");
    }
}

/// A flush failed, the process ended, the next one found the frame: it was in the kernel's memory only, marked clean.
/// It went on behind it, and when the power went, a hole was left in front of acknowledged frames.
#[test]
fn a_frame_whose_flush_failed_is_written_again_before_anything_follows_it() {
    let disk = FaultyDisk::new();
    let (mut journal, _) = open(&disk).unwrap();
    journal.append(&[json!(1)]).unwrap();
    disk.inject(disk.operations().len() + 1, Fault::Broken);
    assert!(journal.append(&[json!(2)]).is_err());
    drop(journal);
    let disk = disk.reopen(Crash::Process);
    let (mut journal, opened) = open(&disk).unwrap();
    assert_eq!(content(opened), [json!(1), json!(2)]);
    journal.append(&[json!(3)]).unwrap();
    let after = Journal::read(&disk.reopen(Crash::Power), "homelab").unwrap();
    assert_eq!(content(after), [json!(1), json!(2), json!(3)]);
}

#[test]
fn a_compaction_without_room_leaves_the_journal_usable() {
    let disk = FaultyDisk::new();
    let (mut journal, _) = open(&disk).unwrap();
    journal.append(&[json!(1)]).unwrap();
    for ahead in 0..3 {
        disk.inject(disk.operations().len() + ahead, Fault::NoSpace);
        assert!(journal.compact(&json!(["never"])).is_err());
        assert!(disk.get("homelab.journal.tmp").is_none() || ahead == 0, "room is wanted now");
    }
    journal.append(&[json!(2)]).unwrap();
    assert_eq!(content(open(&disk.reopen(Crash::Power)).unwrap().1), [json!(1), json!(2)]);
}

/// The rename was reported as failed and had happened: what went on in the old file was in no file any more.
#[test]
fn a_compaction_that_may_or_may_not_have_happened_ends_the_writing() {
    for (verb, fault) in [
        (Verb::Rename, Fault::BrokenAfter),
        (Verb::Rename, Fault::Broken),
        (Verb::SyncDir, Fault::BrokenAfter),
        (Verb::SyncDir, Fault::Broken),
    ] {
        let disk = FaultyDisk::new();
        let (mut journal, _) = open(&disk).unwrap();
        journal.append(&[json!(1)]).unwrap();
        // Create, write, flush, rename, flush the directory.
        disk.inject(disk.operations().len() + if verb == Verb::Rename { 3 } else { 4 }, fault);
        assert!(journal.compact(&json!([1])).is_err());
        assert_eq!(disk.operations().last().unwrap().verb, verb);
        assert!(matches!(journal.append(&[json!(2)]), Err(JournalError::Poisoned { .. })), "{fault:?} at {verb:?}");
        for crash in CRASHES {
            assert_eq!(content(open(&disk.reopen(crash)).unwrap().1), [json!(1)]);
        }
    }
}

#[test]
fn a_snapshot_that_was_shown_does_not_go_away() {
    let disk = FaultyDisk::new();
    let (mut journal, _) = open(&disk).unwrap();
    journal.append(&[json!("long history")]).unwrap();
    disk.inject(disk.operations().len() + 3, Fault::StopAfter);
    assert!(journal.compact(&json!("its essence")).is_err());
    let disk = disk.reopen(Crash::Process);
    let shown = open(&disk).unwrap().1;
    assert_eq!(shown.snapshot, Some(json!("its essence")));
    assert_eq!(Journal::read(&disk.reopen(Crash::Power), "homelab").unwrap(), shown);
}

#[test]
fn long_random_lives_with_a_random_fault_each_lose_nothing() {
    for seed in 0..300_u64 {
        let disk = FaultyDisk::new();
        let roll = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let faults = [
            Fault::StopBefore,
            Fault::StopAfter,
            Fault::StopWithin((roll % 200) as usize),
            Fault::Short((roll % 150) as usize),
            Fault::Broken,
            Fault::BrokenAfter,
        ];
        disk.inject((roll / 7 % 50) as usize, faults[(seed % 6) as usize]);
        let belief = live(&disk);
        check(&disk, &belief, Crash::PowerPartly(seed), &format!("seed {seed}"));
    }
}

//! The disk fails at every operation of a run: what was acknowledged stays, the state is sound or says what is damaged,
//! and a flush that failed is never taken for one that did not.
//!
//! Usually at some of the operations; at all of them, for more programs, with
//! `LAB_TEST_SEEDS=50 cargo test -p lab-core --test failing_disk`.

mod sample;

use lab_core::execute::disk::{Crash, Fault, FaultyDisk, Operation, Verb as DiskVerb};
use lab_core::execute::journal::{Journal, Report as Verified};
use lab_core::execute::seal::{KeyFile, Keys, SealError};
use lab_core::execute::{KeySource, Progress, Store, rotate};
use lab_core::plan::Verb;
use lab_core::testing::{Bench, Memory, Thing, Trial};
use lab_core::{Event, Run, Secret, Stack, State, Status};
use sample::{Dice, SECRETS, Sample, deeds, run, run_whole, seeds, settled, world};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// At how many points a run is disturbed at most, unless more programs are asked for: then at all of them.
const USUAL: usize = 12;

/// Takes some of `points`, which ones by `salt`, or all.
fn some<T>(points: Vec<T>, salt: usize) -> Vec<T> {
    if std::env::var_os("LAB_TEST_SEEDS").is_some() {
        return points;
    }
    let every = points.len().div_ceil(USUAL).max(1);
    points.into_iter().skip(salt % every).step_by(every).collect()
}

/// What `state verify` does: the file from end to end, and what it adds up to.
fn verify(disk: &FaultyDisk, story: &str) -> (Option<Verified>, State) {
    let report = Journal::verify(disk, "lab").unwrap_or_else(|error| panic!("{story}: {error}"));
    let look = Store::look(disk, "lab", &KeySource::Given(Keys::fixed()));
    (report, look.unwrap_or_else(|error| panic!("{story}: {error}")).state)
}

/// What a person was told is so: created means recorded as there, deleted means recorded no more.
fn acknowledged(told: &[Progress], before: &State, state: &State, story: &str) {
    for event in told {
        let Progress::Finished { urn, action, same: false } = event else { continue };
        // A replacement is told as its two halves; the later word counts.
        let later = told.iter().rev().find_map(|event| match event {
            Progress::Finished { urn: other, action, same: false } if other == urn => Some(*action),
            _ => None,
        });
        let record = state.records.get(urn);
        match later {
            Some("create" | "update" | "replace" | "continue") => {
                let there = record.is_some_and(|record| record.status == Status::Ready);
                assert!(there, "{story}: {action} of {urn:?} was told and is gone: {record:#?}");
            }
            // What replaces it may be there, written and not acknowledged; it bears another mark.
            Some("delete") => {
                let old = before.records.get(urn).map(|record| &record.mark);
                let back = record.filter(|record| Some(&record.mark) == old);
                assert!(back.is_none(), "{story}: {urn:?} was told to be deleted and is back: {back:#?}");
            }
            _ => {}
        }
    }
}

/// A run that is disturbed, and where it begins.
struct Story<'a> {
    base: Bench,
    sample: &'a Sample,
    verb: Verb,
    told: String,
}

impl<'a> Story<'a> {
    fn new(before: Option<&Sample>, sample: &'a Sample, verb: Verb) -> Story<'a> {
        let base = Bench::new();
        let told = format!("{verb}: {sample:?}");
        if let Some(before) = before {
            run_whole(&base, before, Verb::Up, &told);
            base.world().clear_log();
        }
        Story { base, sample, verb, told }
    }

    /// Returns what the undisturbed run asks of the disk, and the bench after it.
    fn undisturbed(&self) -> (Vec<Operation>, Bench) {
        let bench = self.base.fork();
        run_whole(&bench, self.sample, self.verb, &self.told);
        (bench.disk().operations(), bench)
    }

    /// Runs it with a fault at operation `n`, and checks everything after each of the crashes.
    fn disturb(&self, n: usize, fault: Fault, crashes: &[Crash], undisturbed: &Bench) {
        let bench = self.base.fork();
        let before = bench.state();
        // Looking has counted: the fault is meant for the run.
        let bench = bench.fork();
        bench.disk().inject(n, fault);
        let trial = Trial::default();
        // How it ended is what the next run has to cope with.
        let _ = run(&bench, self.sample, self.verb, &trial);
        let told = trial.heard.lock().expect("nobody panicked").clone();
        for crash in crashes {
            let operation = bench.disk().operations().get(n).cloned();
            let story = format!("{fault:?} at {n}, {operation:?}, then {crash:?}; {}", self.told);
            // Another future of the same past: the world is this run's, too.
            let next = bench.fork().on(bench.disk().reopen(*crash));
            let (_, state) = verify(next.disk(), &story);
            acknowledged(&told, &before, &state, &story);
            run_whole(&next, self.sample, self.verb, &story);
            verify(next.disk(), &story);
            assert_eq!(world(&next), world(undisturbed), "{story}");
            assert_eq!(deeds(&next), deeds(undisturbed), "{story}: made or deleted twice, or not at all");
            settled(&next, self.sample, self.verb, &story);
        }
    }
}

/// An `up`, one after a person worked on the program, and a `destroy`.
fn stories(seed: u64, check: impl Fn(&Story<'_>)) {
    let sample = Sample::random(seed);
    let changed = sample.changed(seed);
    check(&Story::new(None, &sample, Verb::Up));
    check(&Story::new(Some(&sample), &changed, Verb::Up));
    check(&Story::new(Some(&sample), &sample, Verb::Destroy));
}

#[test]
fn whatever_fails_at_whatever_operation_nothing_that_was_told_is_gone() {
    for seed in 8000..8000 + seeds(1) {
        stories(seed, |story| {
            let (operations, undisturbed) = story.undisturbed();
            let mut points = Vec::new();
            for (n, operation) in operations.iter().enumerate() {
                let faults = match operation.verb {
                    DiskVerb::Write => vec![
                        Fault::NoSpace,
                        Fault::Broken,
                        Fault::BrokenAfter,
                        Fault::Short(1),
                        Fault::Short(operation.bytes / 2),
                        Fault::Short(operation.bytes.saturating_sub(1)),
                    ],
                    DiskVerb::Flush
                    | DiskVerb::Create
                    | DiskVerb::Rename
                    | DiskVerb::Link
                    | DiskVerb::Remove
                    | DiskVerb::SyncDir => vec![Fault::NoSpace, Fault::Broken, Fault::BrokenAfter],
                    DiskVerb::Read | DiskVerb::List => vec![Fault::Broken],
                };
                points.extend(faults.into_iter().map(|fault| (n, fault)));
            }
            let salt = operations.len();
            for (n, fault) in some(points, salt) {
                let crashes = [Crash::Process, Crash::Power, Crash::PowerPartly(n as u64), Crash::PowerPartly(!0)];
                story.disturb(n, fault, &crashes, &undisturbed);
            }
        });
    }
}

/// The page cache, taken apart: at the moments at which most is under way, every subset of what may have reached the
/// disk, torn at the bounds of its sectors, names included.
#[test]
fn whatever_part_of_the_unflushed_a_power_loss_keeps_nothing_that_was_told_is_gone() {
    let mut subsets = 0;
    for seed in 8100..8100 + seeds(2) {
        let sample = Sample::random(seed);
        let base = Bench::new().on(FaultyDisk::new().with_sector(512));
        let undisturbed = base.fork();
        run_whole(&undisturbed, &sample, Verb::Up, "undisturbed");
        let operations = undisturbed.disk().operations();
        let under_way = |operation: &Operation| {
            matches!(operation.verb, DiskVerb::Flush | DiskVerb::SyncDir | DiskVerb::Rename | DiskVerb::Write)
        };
        let points = (0..operations.len()).filter(|n| under_way(&operations[*n])).collect();
        for n in some(points, seed as usize) {
            for fault in [Fault::StopBefore, Fault::Broken] {
                let bench = base.fork();
                bench.disk().inject(n, fault);
                let trial = Trial::default();
                let _ = run(&bench, &sample, Verb::Up, &trial);
                let told = trial.heard.lock().expect("nobody panicked").clone();
                let unflushed = bench.disk().unflushed();
                let mut dice = Dice::new(n as u64);
                // All of them, while that is feasible; else each alone, all but each, and some.
                let keeps: Vec<u64> = match unflushed {
                    0..=6 => (0..1 << unflushed).collect(),
                    _ => (0..unflushed.min(64))
                        .flat_map(|bit| [1 << bit, !(1 << bit)])
                        .chain((0..32).map(|_| dice.roll()))
                        .collect(),
                };
                for bits in keeps {
                    let story = format!("{fault:?} at {n}, {:?}, kept {bits:b} of {unflushed}", operations[n]);
                    let disk = bench.disk().reopen(Crash::PowerKeeps(bits));
                    let (_, state) = verify(&disk, &story);
                    acknowledged(&told, &State::default(), &state, &story);
                    subsets += 1;
                }
                // To the end from one of them: which, is chosen by the seed.
                let next = bench.fork().on(bench.disk().reopen(Crash::PowerKeeps(dice.roll())));
                run_whole(&next, &sample, Verb::Up, &format!("{fault:?} at {n}"));
                assert_eq!(world(&next), world(&undisturbed), "{fault:?} at {n}");
                assert_eq!(deeds(&next), deeds(&undisturbed), "{fault:?} at {n}");
            }
        }
    }
    assert!(subsets > 200, "{subsets} subsets show little");
    println!("{subsets} subsets");
}

/// What `fsync` says once, it says once: a file whose flush has failed is not written to, flushed or put in place by
/// the same process any more.
#[test]
fn a_flush_that_failed_is_not_tried_again() {
    let sample = Sample::random(8200);
    let base = Bench::new();
    let undisturbed = base.fork();
    run_whole(&undisturbed, &sample, Verb::Up, "undisturbed");
    let operations = undisturbed.disk().operations();
    let flushes: Vec<usize> = (0..operations.len()).filter(|n| operations[*n].verb == DiskVerb::Flush).collect();
    assert!(flushes.len() > 5);
    for n in flushes {
        let bench = base.fork();
        bench.disk().inject(n, Fault::Broken);
        let _ = run(&bench, &sample, Verb::Up, &Trial::default());
        let all = bench.disk().operations();
        let failed = all[n].name.clone();
        // A file of that name that is made anew is another file.
        let again = all[n + 1..]
            .iter()
            .take_while(|operation| operation.verb != DiskVerb::Create || operation.name != failed)
            .find(|operation| operation.name == failed && matches!(operation.verb, DiskVerb::Write | DiskVerb::Flush));
        assert_eq!(again, None, "{failed} was used after its flush failed at {n}");
        if failed.ends_with(".journal") {
            let later = all[n + 1..].iter().filter(|operation| {
                matches!(operation.verb, DiskVerb::Create | DiskVerb::Write | DiskVerb::Flush | DiskVerb::Rename)
            });
            assert_eq!(later.count(), 0, "something was recorded behind what may not be there");
        }
    }
}

#[test]
fn a_compaction_that_fails_at_any_operation_loses_nothing_and_the_next_run_makes_up_for_it() {
    let event = |n: u64| Event::Ran(Run { verb: format!("up {n}"), at: n });
    let keys = KeySource::Given(Keys::fixed());
    let filled = || {
        let disk = FaultyDisk::new();
        let (mut store, _) = Store::open(Arc::new(disk.clone()), "lab", keys.clone()).expect("it opens");
        (0..5).for_each(|n| store.commit(&[event(n)], UNIX_EPOCH).expect("it is written"));
        (disk, store)
    };
    let (disk, store) = filled();
    let before = disk.operations().len();
    store.close().expect("it is compacted");
    let count = disk.operations().len() - before;
    assert!(count >= 5, "create, write, flush, rename, flush the directory");
    for n in 0..count {
        for fault in
            [Fault::NoSpace, Fault::Broken, Fault::BrokenAfter, Fault::Short(40), Fault::StopBefore, Fault::StopAfter]
        {
            for crash in [Crash::Process, Crash::Power, Crash::PowerPartly(1), Crash::PowerPartly(2)] {
                let (disk, store) = filled();
                disk.inject(before + n, fault);
                let said = store.close();
                let story = format!("{fault:?} at {n}, {crash:?}, said {said:?}");
                let disk = disk.reopen(crash);
                assert_eq!(verify(&disk, &story).1.runs.len(), 5, "{story}");
                let (mut store, _) = Store::open(Arc::new(disk.clone()), "lab", keys.clone()).expect("it opens");
                store.commit(&[event(5)], UNIX_EPOCH).unwrap_or_else(|error| panic!("{story}: {error}"));
                store.close().unwrap_or_else(|error| panic!("{story}: {error}"));
                let (report, state) = verify(&disk.reopen(Crash::Power), &story);
                assert_eq!((state.runs.len(), report.map(|report| report.frames)), (6, Some(0)), "{story}");
            }
        }
    }
}

const KEY: &str = "age.key";

fn key_file(named: bool) -> KeyFile {
    KeyFile { path: "config/age.key".into(), named }
}

fn a_key(disk: &FaultyDisk) -> Result<Keys, SealError> {
    key_file(false).load_or_create_on(disk, KEY, UNIX_EPOCH)
}

/// The life of a key: made by one process, which seals something; used by the next, which seals more. Whatever was
/// sealed has to open, whatever happened to either.
///
/// The first process died when the key's name was there and not yet durable. The second sealed with it. Then the power
/// went, and with it the key: what it had sealed was lost for good.
#[test]
fn a_key_whose_making_fails_anywhere_opens_all_that_was_sealed_with_it() {
    let undisturbed = FaultyDisk::new();
    a_key(&undisturbed).expect("a key");
    let count = undisturbed.operations().len();
    assert!(count >= 7, "look, create, write, flush, link, remove, flush the directory");
    let faults = [
        Fault::NoSpace,
        Fault::Broken,
        Fault::BrokenAfter,
        Fault::Short(30),
        Fault::StopBefore,
        Fault::StopWithin(60),
        Fault::StopAfter,
    ];
    let crashes: Vec<Crash> =
        [Crash::Process, Crash::Power].into_iter().chain((0..8).map(Crash::PowerPartly)).collect();
    for n in 0..count {
        for fault in faults {
            for first in &crashes {
                for second in &crashes {
                    let story = format!("{fault:?} at {n}, then {first:?}, then {second:?}");
                    let mut sealed = Vec::new();
                    let disk = FaultyDisk::new();
                    disk.inject(n, fault);
                    sealed.extend(a_key(&disk).ok().map(|keys| keys.seal(b"first")));
                    let disk = disk.reopen(*first);
                    let keys = a_key(&disk).unwrap_or_else(|error| panic!("{story}: {error}"));
                    sealed.push(keys.seal(b"second"));
                    let disk = disk.reopen(*second);
                    let keys = key_file(true).load_from(&disk, KEY).unwrap_or_else(|error| panic!("{story}: {error}"));
                    for sealed in sealed {
                        assert!(keys.open(&sealed).is_ok(), "{story}: what was sealed does not open any more");
                    }
                }
            }
        }
    }
}

/// A rotation died when its new key file had its name and not yet durably. The next one finished it: it sealed
/// everything for that key, the power went, and the name went back to the old key.
#[test]
fn a_rotation_that_finishes_another_seals_nothing_for_a_key_that_may_go_away() {
    let prepared = || {
        let (lab, keys) = (FaultyDisk::new(), FaultyDisk::new());
        let made = a_key(&keys).expect("a key");
        Bench::new().on(lab.clone()).with_keys(made).up_whole(|stack: &Stack| {
            let secret = Some(Secret::new("hush about it".to_owned()).into());
            let thing = Thing { secret, ..Thing::new("vault", "x") };
            stack.provider("rack", Memory::at("rack")).resource("vault").add(thing);
            Ok(())
        });
        (lab.reopen(Crash::Power), keys.reopen(Crash::Power))
    };
    let turn = |lab: &FaultyDisk, keys: &FaultyDisk| {
        rotate(Arc::new(lab.clone()), &["lab".into()], keys, KEY, None, UNIX_EPOCH + Duration::from_secs(60))
    };
    let (lab, keys) = prepared();
    turn(&lab, &keys).expect("undisturbed");
    for n in 0..keys.operations().len() {
        for fault in [Fault::StopBefore, Fault::StopAfter, Fault::Broken, Fault::BrokenAfter] {
            for crash in [Crash::Power, Crash::PowerPartly(1), Crash::PowerPartly(2), Crash::PowerPartly(3)] {
                let (lab, keys) = prepared();
                keys.inject(n, fault);
                let said = turn(&lab, &keys);
                SECRETS.clean("a rotation", format!("{said:?}"));
                // The process died, the machine did not; the next one finishes it, and then the machine dies, too.
                let (lab, keys) = (lab.reopen(Crash::Process), keys.reopen(Crash::Process));
                turn(&lab, &keys).expect("it is finished");
                let (lab, keys) = (lab.reopen(Crash::Power), keys.reopen(crash));
                let story = format!("{fault:?} at {n}, then {crash:?}");
                let known = key_file(true).load_from(&keys, KEY).unwrap_or_else(|error| panic!("{story}: {error}"));
                let look = Store::look(&lab, "lab", &KeySource::Given(known));
                let look = look.unwrap_or_else(|error| panic!("{story}: {error}"));
                assert!(!look.state.secrets.is_empty());
                lab.everything().iter().for_each(|file| SECRETS.clean(&story, file));
                for fingerprint in look.state.secrets.keys() {
                    assert!(look.vault.get(fingerprint).is_ok(), "{story}: a secret is lost");
                }
            }
        }
    }
}

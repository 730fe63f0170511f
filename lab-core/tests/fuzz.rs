//! Whatever stands in a file, reading it comes back: no panic, no overflow of the stack, no memory that is only claimed.
//!
//! The targets of the fuzzer over their seeds and a bounded number of mutations, the same in every run. More of them:
//! `LAB_TEST_MUTATIONS=100000 cargo test --release -p lab-core --test fuzz`. Inputs that once broke something lie
//! in `tests/fuzz/TARGET/` and are tried first.

use lab_core::testing::fuzz::{Mutator, TARGETS, Target, target};
use serde_json::Value;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::process::Command;

/// What each thread of a run has.
const STACK: usize = 2 << 20;

fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// How many mutations a target is tried with.
fn mutations() -> usize {
    std::env::var("LAB_TEST_MUTATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(500)
}

/// Reads `bytes`, and says how to read them again should that not come back.
fn read(target: &Target, story: &str, bytes: &[u8]) -> Result<(), String> {
    let kept = std::env::temp_dir().join(format!("lab-fuzz-{}-{}", target.name, std::process::id()));
    // Whatever ends this process, what did so lies there.
    if std::env::var_os("LAB_TEST_KEEP").is_some() {
        std::fs::write(&kept, bytes).unwrap();
    }
    catch_unwind(|| (target.run)(bytes)).map_err(|panic| {
        std::fs::write(&kept, bytes).unwrap();
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned())).unwrap_or_default();
        format!(
            "{}, {story}: {said}\n  put it into lab-core/tests/fuzz/{}: {}",
            target.name,
            target.name,
            kept.display()
        )
    })
}

/// Reads everything there is for a target.
fn replay(target: &'static Target) {
    replay_with(target, mutations());
}

fn replay_with(target: &'static Target, mutations: usize) {
    let work = move || {
        let mut failed = Vec::new();
        let found = here().join("tests/fuzz").join(target.name);
        let mut known: Vec<PathBuf> =
            std::fs::read_dir(found).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
        known.sort();
        for path in known {
            failed.extend(read(target, &path.display().to_string(), &std::fs::read(&path).unwrap()).err());
        }
        let seeds = target.seeds();
        assert!(!seeds.is_empty(), "{}: there is nothing to begin with", target.name);
        for (n, seed) in seeds.iter().enumerate() {
            failed.extend(read(target, &format!("seed {n}"), seed).err());
            let mut mutator = Mutator::new(n as u64);
            for m in 0..mutations.div_ceil(seeds.len()) {
                failed.extend(read(target, &format!("seed {n}, mutation {m}"), &mutator.mutate(seed)).err());
            }
            // Cut off somewhere, which is what a crash does.
            let cuts = mutations.div_ceil(5 * seeds.len()).max(1);
            for cut in (0..seed.len()).step_by(seed.len().div_ceil(cuts).max(1)) {
                failed.extend(read(target, &format!("seed {n}, cut at {cut}"), &seed[..cut]).err());
            }
        }
        assert!(
            failed.is_empty(),
            "{} inputs break it, such as\n{}",
            failed.len(),
            failed[..failed.len().min(8)].join("\n")
        );
    };
    std::thread::Builder::new().stack_size(STACK).spawn(work).unwrap().join().unwrap();
}

#[test]
fn a_damaged_or_forged_journal_is_read_or_refused() {
    replay(target("journal").unwrap());
}

#[test]
fn a_forged_snapshot_is_read_or_refused() {
    replay(target("snapshot").unwrap());
}

#[test]
fn forged_records_are_read_or_refused() {
    replay(target("records").unwrap());
}

#[test]
fn a_run_on_a_forged_state_ends() {
    replay(target("run").unwrap());
}

#[test]
fn a_damaged_or_forged_plan_is_read_or_refused() {
    replay(target("plan").unwrap());
}

#[test]
fn damaged_keys_and_sealed_texts_are_read_or_refused() {
    replay(target("key_file").unwrap());
    replay(target("sealed").unwrap());
}

#[test]
fn what_a_lock_or_a_clock_says_is_read_or_refused() {
    replay(target("holder").unwrap());
    replay(target("clock").unwrap());
}

#[test]
fn deletions_that_cut_off_deletions_nest_no_deeper_than_can_be_read() {
    let records = target("records").unwrap();
    let begun =
        records.seeds().into_iter().filter_map(|seed| serde_json::from_slice::<Vec<Value>>(&seed).ok()).flatten();
    let begun = begun.into_iter().find(|record| record["event"] == "begin").expect("something has begun");
    for many in [3, 60, 120, 20_000] {
        let again = |n: usize| {
            let mut record = begun.clone();
            record["begun"]["op"] = format!("op{n}").into();
            record["begun"]["deed"] = "delete".into();
            record
        };
        let all: Vec<Value> = std::iter::once(begun.clone()).chain((0..many).map(again)).collect();
        let bytes = serde_json::to_vec(&all).unwrap();
        let work = move || (records.run)(&bytes);
        std::thread::Builder::new().stack_size(STACK).spawn(work).unwrap().join().unwrap();
    }
}

#[test]
fn every_target_is_one_of_the_fuzzers() {
    let fuzzer = here().join("../fuzz");
    let manifest = std::fs::read_to_string(fuzzer.join("Cargo.toml")).unwrap();
    // The others are those of other crates, which have tests of their own.
    let ours = |path: &PathBuf| std::fs::read_to_string(path).unwrap().contains("lab_core::testing::fuzz");
    let there = std::fs::read_dir(fuzzer.join("fuzz_targets")).unwrap().map(|file| file.unwrap().path());
    assert_eq!(there.filter(ours).count(), TARGETS.len());
    for target in TARGETS {
        let source = std::fs::read_to_string(fuzzer.join(format!("fuzz_targets/{}.rs", target.name))).unwrap();
        assert!(source.contains(&format!("target({:?})", target.name)), "{source}");
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{}.rs\"", target.name)), "{}", target.name);
    }
}

#[test]
fn seeds_and_mutations_are_the_same_in_every_run() {
    for target in TARGETS {
        assert_eq!(target.seeds(), target.seeds(), "{}", target.name);
        for (n, seed) in target.seeds().iter().enumerate() {
            assert_eq!(Mutator::new(n as u64).mutate(seed), Mutator::new(n as u64).mutate(seed));
        }
    }
}

/// In a process that may have a quarter of what the largest claim asks for, everything is read all the same.
#[cfg(target_os = "linux")]
#[test]
fn a_length_that_is_only_claimed_reserves_no_memory() {
    const WITHIN: &str = "LAB_TEST_WITHIN";
    if std::env::var_os(WITHIN).is_some() {
        return TARGETS.iter().for_each(|target| replay_with(target, 50));
    }
    let test = std::env::current_exe().unwrap();
    let script = "ulimit -v 1048576 && exec \"$0\" --exact a_length_that_is_only_claimed_reserves_no_memory";
    let child = Command::new("sh").args(["-c", script]).arg(test).env(WITHIN, "").output().unwrap();
    let said = [child.stdout, child.stderr].concat();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&said));
}

//! What lies on a disk changes by itself, or is copied while it is written: refused with its place, or a moment of the
//! past, and never anything else.
//!
//! One bit of every byte by default; all eight with `LAB_TEST_SEEDS=1 cargo test -p lab-core --test bit_rot`.

mod sample;

use lab_core::execute::disk::FaultyDisk;
use lab_core::execute::journal::{Journal, JournalError};
use lab_core::execute::seal::Keys;
use lab_core::execute::{KeySource, Store, StoreError};
use lab_core::plan::Verb;
use lab_core::testing::Bench;
use sample::{Line, Sample, Says, run_whole};

const FILE: &str = "lab.journal";

/// A state as a killed `up` leaves it: a snapshot, and behind it frames with an operation's every kind of record.
fn state() -> Vec<u8> {
    let bench = Bench::new();
    let mut sample = Sample::of([
        Line { secret: Some(Says::Plain("hush".into())), ..Line::new("a") },
        Line { calls: 1, ..Line::new("b").says_of("a") },
    ]);
    run_whole(&bench, &sample, Verb::Up, "first");
    sample.line("a").text = Says::Plain("other".into());
    let bench = bench.keeping_frames();
    run_whole(&bench, &sample, Verb::Up, "second");
    let bytes = bench.disk().get(FILE).expect("a state");
    let report = Journal::verify(bench.disk(), "lab").expect("it is sound").expect("it is there");
    assert!(report.snapshot.is_some() && report.frames > 3 && report.cut.is_none(), "{report:?}");
    bytes
}

/// The parts of a file, as a message calls them, and where they begin.
fn parts(bytes: &[u8]) -> Vec<(String, usize)> {
    let mut starts = vec![0];
    starts.extend(bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1));
    starts.pop();
    let name = |n: usize| match n {
        0 => "the header".to_owned(),
        1 => "the snapshot".to_owned(),
        n => format!("frame {}", n - 1),
    };
    starts.into_iter().enumerate().map(|(n, start)| (name(n), start)).collect()
}

/// What `state verify` says of a file with these bytes.
fn verify(bytes: &[u8]) -> Result<Option<u64>, StoreError> {
    let disk = FaultyDisk::new();
    disk.put(FILE, bytes);
    let report = Journal::verify(&disk, "lab")?.expect("it is there");
    if report.cut.as_ref().is_some_and(|cut| cut.bytes % 16 != 0) {
        // What it adds up to is what it adds up to without that end; opening the keys each time takes its time.
        return Ok(report.cut.map(|cut| cut.bytes));
    }
    Store::look(&disk, "lab", &KeySource::Given(Keys::fixed()))?;
    Ok(report.cut.map(|cut| cut.bytes))
}

/// A single bit of the last frame, the one that the killed run had been told was durable, was enough to cut it off as
/// torn: what it had made was somebody else's for the next run, or was made again under another name.
#[test]
fn every_bit_that_flips_is_refused_with_its_place() {
    let bytes = state();
    let parts = parts(&bytes);
    let all = std::env::var_os("LAB_TEST_SEEDS").is_some();
    let mut flipped = 0;
    for at in 0..bytes.len() {
        let (part, start) = parts.iter().rev().find(|(_, start)| *start <= at).expect("the first begins at 0");
        for bit in (0..8).filter(|bit| all || *bit == at % 8) {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            flipped += 1;
            match verify(&bytes) {
                Err(StoreError::Journal(JournalError::Damaged { part: named, offset, .. })) => {
                    assert_eq!((&named, offset), (part, *start as u64), "bit {bit} of byte {at}");
                }
                // A flip in these words is not to be told from a file that always had others.
                Err(StoreError::Journal(JournalError::Foreign { .. } | JournalError::Newer { .. })) => {
                    assert_eq!(part, "the header", "bit {bit} of byte {at}");
                }
                other => panic!("bit {bit} of byte {at}, in {part}, goes unnoticed: {other:?}"),
            }
        }
    }
    println!("{flipped} bits in {} parts", parts.len());
}

#[test]
fn several_bits_of_the_last_frame_are_no_torn_end_either() {
    let bytes = state();
    let (part, start) = parts(&bytes).pop().expect("a last frame");
    for step in [2, 3, 7, 31] {
        let mut bytes = bytes.clone();
        let end = bytes.len() - 1;
        bytes[start..end].iter_mut().step_by(step).for_each(|byte| *byte ^= 1);
        let error = verify(&bytes).expect_err("it is damaged").to_string();
        assert!(error.contains(&part) && error.contains(&format!("byte {start}")), "{error}");
    }
}

#[test]
fn a_sector_that_reads_as_zeros_in_the_middle_is_refused_and_at_the_end_cut() {
    let bytes = state();
    let parts = parts(&bytes);
    let last = parts.last().expect("a last frame").1;
    for start in (0..bytes.len()).step_by(64) {
        let end = (start + 64).min(bytes.len());
        let mut bytes = bytes.clone();
        bytes[start..end].fill(0);
        match verify(&bytes) {
            // Nothing but the last frame can have been under way when the power went.
            Ok(cut) => assert!(start >= last && cut.is_some(), "zeros from {start} to {end} go unnoticed"),
            Err(StoreError::Journal(JournalError::Damaged { part, .. })) => {
                let hit = parts.iter().rev().find(|(_, at)| *at < end && *at <= start).expect("a part").0.clone();
                let next = parts.iter().rev().find(|(_, at)| *at < end).expect("a part").0.clone();
                assert!(part == hit || part == next, "zeros from {start} to {end}: {part}");
            }
            Err(other) => panic!("zeros from {start} to {end}: {other}"),
        }
    }
}

/// A file that only grows, or is replaced as a whole, is copied as a beginning of itself.
#[test]
fn whatever_a_copy_has_of_a_state_is_a_moment_of_its_past_or_refused_with_its_place() {
    let bytes = state();
    let parts = parts(&bytes);
    let frames = parts[2].1;
    let mut moments = 0;
    for end in 0..=bytes.len() {
        match verify(&bytes[..end]) {
            Ok(cut) => {
                assert!(end >= frames, "a copy of {end} bytes lacks its beginning");
                let whole = parts.iter().map(|(_, start)| *start).chain([bytes.len()]).filter(|at| *at <= end).max();
                let torn = (end - whole.unwrap_or_default()) as u64;
                assert_eq!(cut.unwrap_or_default(), torn, "a copy of {end} bytes");
                moments += usize::from(torn == 0);
            }
            Err(StoreError::Journal(JournalError::Damaged { part, .. })) => {
                let expected = if end < parts[1].1 { "the header" } else { "the snapshot" };
                assert_eq!(part, expected, "a copy of {end} bytes");
            }
            Err(other) => panic!("a copy of {end} bytes: {other}"),
        }
    }
    assert_eq!(moments, parts.len() - 1, "one after the snapshot, and one after each frame");
}

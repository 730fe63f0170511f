//! What a journal keeps and what it refuses, on a sound disk.

use lab_core::execute::disk::{Crash, Disk, FaultyDisk, RealDisk, Verb};
use lab_core::execute::journal::{FORMAT, Journal, JournalError, MAX_FRAME, Opened, canonical, sha256};
use serde_json::{Value, json};
use std::sync::Arc;

const FILE: &str = "homelab.journal";

fn open(disk: &FaultyDisk) -> Result<(Journal, Opened), JournalError> {
    Journal::open(Arc::new(disk.clone()), "homelab")
}

/// A disk with a snapshot and three frames, and where in the file the parts begin.
fn example() -> (FaultyDisk, Vec<usize>) {
    let disk = FaultyDisk::new();
    let (mut journal, _) = open(&disk).unwrap();
    journal.append(&[json!({"begin": "before the snapshot"})]).unwrap();
    journal.compact(&json!({"resources": {"a": 1}})).unwrap();
    for n in 1..=3 {
        journal.append(&[json!({"begin": n}), json!({"end": n})]).unwrap();
    }
    let bytes = disk.get(FILE).unwrap();
    let mut starts = vec![0];
    starts.extend(bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1));
    assert_eq!(starts.len(), 6, "header, snapshot, three frames, end");
    (disk, starts)
}

fn damage(disk: &FaultyDisk) -> (String, u64, String) {
    let before = disk.get(FILE);
    let refused = match open(disk) {
        Err(JournalError::Damaged { part, offset, what, file }) => {
            assert!(file.ends_with(FILE), "{file}");
            (part, offset, what)
        }
        other => panic!("expected damage, got {other:?}"),
    };
    assert_eq!(disk.get(FILE), before, "a refused file is left as it is");
    refused
}

#[test]
fn what_was_appended_is_read_back_frame_by_frame() {
    let disk = FaultyDisk::new();
    let (mut journal, opened) = open(&disk).unwrap();
    assert_eq!(opened, Opened::default());
    journal.append(&[json!({"z": 1, "a": "ü\n\"quoted\""}), json!(null)]).unwrap();
    journal.append(&[json!([0.1, -7, 18446744073709551615u64])]).unwrap();
    drop(journal);
    let (_, opened) = open(&disk).unwrap();
    let frames =
        vec![vec![json!({"z": 1, "a": "ü\n\"quoted\""}), json!(null)], vec![json!([0.1, -7, 18446744073709551615u64])]];
    assert_eq!(opened, Opened { snapshot: None, frames, cut: None });
}

#[test]
fn the_file_is_lines_that_a_person_can_read() {
    let (disk, _) = example();
    let text = String::from_utf8(disk.get(FILE).unwrap()).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["magic"], "lab journal");
    assert_eq!(lines[0]["format"], FORMAT);
    assert_eq!(lines[0]["snapshot"]["sha256"], sha256(text.lines().nth(1).unwrap().as_bytes()));
    assert_eq!(lines[1], json!({"resources": {"a": 1}}));
    assert_eq!(lines[3]["n"], 2);
    assert_eq!(lines[3]["records"], json!([{"begin": 2}, {"end": 2}]));
    assert_eq!(lines[3]["after"], lines[2]["sha256"], "frames are chained");
    assert_eq!(lines[2]["after"], sha256(text.lines().next().unwrap().as_bytes()), "from the header on");
}

#[test]
fn a_frame_is_one_write_and_one_flush_and_nothing_is_written_for_nothing() {
    let disk = FaultyDisk::new();
    let (mut journal, _) = open(&disk).unwrap();
    journal.append(&[]).unwrap();
    assert!(disk.operations().iter().all(|op| matches!(op.verb, Verb::Read | Verb::List)), "looking leaves no trace");
    journal.append(&[json!(1)]).unwrap();
    let before = disk.operations().len();
    journal.append(&[json!(2), json!(3), json!(4)]).unwrap();
    let verbs: Vec<_> = disk.operations()[before..].iter().map(|op| op.verb).collect();
    assert_eq!(verbs, [Verb::Write, Verb::Flush]);
}

#[test]
fn a_snapshot_takes_the_place_of_the_frames_before_it() {
    let (disk, _) = example();
    let (mut journal, opened) = open(&disk).unwrap();
    assert_eq!(opened.snapshot, Some(json!({"resources": {"a": 1}})));
    assert_eq!(opened.frames.len(), 3);
    assert_eq!(journal.frames(), 3);
    journal.compact(&json!("all of it")).unwrap();
    assert_eq!((journal.frames(), journal.frame_bytes()), (0, 0));
    journal.append(&[json!("and one more")]).unwrap();
    let size = disk.get(FILE).unwrap().len() as u64;
    assert_eq!(journal.base_bytes() + journal.frame_bytes(), size);
    let opened = Journal::read(&disk, "homelab").unwrap();
    assert_eq!(opened.snapshot, Some(json!("all of it")));
    assert_eq!(opened.frames, [[json!("and one more")]]);
}

#[test]
fn a_torn_last_frame_is_cut_wherever_it_was_torn_and_appending_goes_on() {
    let (disk, starts) = example();
    let whole = disk.get(FILE).unwrap();
    for end in starts[4] + 1..starts[5] {
        let torn = FaultyDisk::new();
        torn.put(FILE, &whole[..end]);
        let (mut journal, opened) = open(&torn).unwrap();
        let cut = opened.cut.expect("a cut");
        assert_eq!((cut.frame, cut.offset, cut.bytes), (3, starts[4] as u64, (end - starts[4]) as u64));
        assert_eq!(opened.frames.len(), 2);
        journal.append(&[json!("instead")]).unwrap();
        // Cut durably: even if the power goes now, nothing of the torn frame is left.
        let opened = Journal::read(&torn.reopen(Crash::Power), "homelab").unwrap();
        assert_eq!(opened.cut, None);
        assert_eq!(opened.frames[2], [json!("instead")]);
    }
}

#[test]
fn reading_never_cuts() {
    let (disk, starts) = example();
    let torn = disk.get(FILE).unwrap()[..starts[5] - 1].to_vec();
    disk.put(FILE, &torn);
    disk.put("homelab.journal.tmp", b"half a snap");
    let asked = disk.operations().len();
    let opened = Journal::read(&disk, "homelab").unwrap();
    let report = Journal::verify(&disk, "homelab").unwrap().unwrap();
    assert_eq!(opened.cut.as_ref().map(|cut| cut.frame), Some(3));
    assert_eq!((report.frames, report.records, report.cut), (2, 4, opened.cut));
    assert_eq!(disk.get(FILE).unwrap(), torn);
    assert!(disk.operations()[asked..].iter().all(|op| op.verb == Verb::Read));
    assert_eq!(Journal::verify(&disk, "staging").unwrap(), None);
}

#[test]
fn a_flipped_bit_anywhere_is_refused_with_its_place() {
    let (disk, starts) = example();
    let size = disk.get(FILE).unwrap().len();
    for at in 0..size {
        let disk = disk.reopen(Crash::Process);
        disk.flip(FILE, at, (at % 8) as u8);
        let part = starts.iter().rposition(|start| *start <= at).unwrap();
        match Journal::read(&disk, "homelab") {
            Ok(opened) => panic!("the flip at byte {at} goes unnoticed: {:?}", opened.cut),
            Err(JournalError::Damaged { part: named, offset, .. }) => {
                let names = ["the header", "the snapshot", "frame 1", "frame 2", "frame 3"];
                assert_eq!((named.as_str(), offset), (names[part], starts[part] as u64), "a flip at byte {at}");
            }
            // A flip in these words is not to be told from a file that always had others.
            Err(JournalError::Foreign { .. } | JournalError::Newer { .. }) => assert_eq!(part, 0),
            Err(other) => panic!("a flip at byte {at}: {other}"),
        }
    }
}

#[test]
fn every_single_bit_of_a_frame_in_the_middle_counts() {
    let (disk, starts) = example();
    for at in starts[3]..starts[4] {
        for bit in 0..8 {
            let disk = disk.reopen(Crash::Process);
            disk.flip(FILE, at, bit);
            let error = Journal::read(&disk, "homelab").unwrap_err();
            assert!(error.to_string().contains("frame 2 is damaged"), "{error}");
        }
    }
}

#[test]
fn a_damaged_frame_before_a_valid_one_is_refused_naming_both() {
    let (disk, starts) = example();
    disk.flip(FILE, starts[2] + 200, 3);
    let (part, offset, what) = damage(&disk);
    assert_eq!((part.as_str(), offset), ("frame 1", starts[2] as u64));
    assert!(what.contains(&format!("a valid frame 2 follows at byte {}", starts[3])), "{what}");
}

#[test]
fn two_damaged_frames_at_the_end_are_not_taken_for_one_torn_write() {
    let (disk, starts) = example();
    disk.flip(FILE, starts[3] + 20, 0);
    disk.flip(FILE, starts[4] + 20, 0);
    let (part, offset, _) = damage(&disk);
    assert_eq!((part.as_str(), offset), ("frame 2", starts[3] as u64));
}

#[test]
fn a_frame_that_is_missing_twice_there_or_from_elsewhere_is_refused() {
    let (disk, starts) = example();
    let whole = disk.get(FILE).unwrap();
    let line = |n: usize| &whole[starts[n]..starts[n + 1]];
    let check = |lines: &[&[u8]], expected: &str| {
        let disk = FaultyDisk::new();
        disk.put(FILE, &lines.concat());
        assert_eq!(damage(&disk).0, expected);
    };
    check(&[line(0), line(1), line(3), line(4)], "frame 1");
    check(&[line(0), line(1), line(2), line(4)], "frame 2");
    check(&[line(0), line(1), line(2), line(2), line(3)], "frame 2");
    // The frames of another life of the same stack: same numbers, another chain.
    let other = FaultyDisk::new();
    let (mut journal, _) = open(&other).unwrap();
    journal.append(&[json!({"begin": 1}), json!({"end": 1})]).unwrap();
    let foreign = other.get(FILE).unwrap();
    let foreign = foreign.split_inclusive(|byte| *byte == b'\n').nth(1).unwrap();
    check(&[line(0), line(1), foreign], "frame 1");
}

#[test]
fn a_truncated_header_or_snapshot_is_refused() {
    let (disk, starts) = example();
    let whole = disk.get(FILE).unwrap();
    for end in 0..starts[2] {
        disk.put(FILE, &whole[..end]);
        let (part, offset, _) = damage(&disk);
        let expected = if end < starts[1] { ("the header", 0) } else { ("the snapshot", starts[1] as u64) };
        assert_eq!((part.as_str(), offset), expected, "cut to {end} bytes");
    }
}

#[test]
fn an_absurd_length_is_refused_before_it_is_believed() {
    let (disk, starts) = example();
    let text = String::from_utf8(disk.get(FILE).unwrap()).unwrap();
    let (before, last) = text.split_at(starts[4]);
    for absurd in [MAX_FRAME as u64 + 1, u64::MAX] {
        let (head, tail) = last.split_once("\"bytes\":").unwrap();
        let tail = tail.split_once(',').unwrap().1;
        disk.put(FILE, format!("{before}{head}\"bytes\":{absurd},{tail}").as_bytes());
        let (part, _, what) = damage(&disk);
        assert_eq!(part, "frame 3");
        assert!(what.contains(&absurd.to_string()), "{what}");
    }
}

#[test]
fn a_newer_format_is_refused_and_says_what_to_do() {
    let disk = FaultyDisk::new();
    disk.put(FILE, b"{\"format\":2,\"magic\":\"lab journal\",\"novelty\":true}\nwhatever comes then\n");
    let error = open(&disk).unwrap_err();
    assert_eq!(error.to_string(), "read memory/homelab.journal: it has format 2, this version reads formats up to 1");
    assert!(error.hint().contains("update lab"));
}

#[test]
fn a_file_of_something_else_is_refused() {
    let disk = FaultyDisk::new();
    disk.put(FILE, b"{\"version\":4,\"serial\":12}\n");
    assert!(matches!(open(&disk), Err(JournalError::Foreign { .. })));
    disk.put(FILE, b"[1]\n");
    assert!(matches!(open(&disk), Err(JournalError::Foreign { .. })));
}

#[test]
fn what_could_not_be_read_back_is_not_written() {
    let disk = FaultyDisk::new();
    let (mut journal, _) = open(&disk).unwrap();
    let nested = |levels| (0..levels).fold(json!(0), |inner, _| json!([inner]));
    assert!(matches!(journal.append(&[nested(101)]), Err(JournalError::Unreadable { .. })));
    assert!(matches!(journal.compact(&nested(101)), Err(JournalError::Unreadable { .. })));
    journal.append(&[nested(100)]).expect("a refused record does no harm");
    journal.compact(&nested(100)).unwrap();
    assert_eq!(open(&disk).unwrap().1.snapshot, Some(nested(100)));
}

#[test]
fn an_unfinished_copy_is_ignored_and_cleaned_away() {
    let (disk, _) = example();
    disk.put("homelab.journal.tmp", b"half a snap");
    disk.put("staging.journal.tmp", b"another stack's, which may be at it right now");
    let (_, opened) = open(&disk).unwrap();
    assert_eq!(opened.frames.len(), 3);
    assert_eq!(disk.list().unwrap(), ["homelab.journal", "staging.journal.tmp"]);
}

#[test]
fn a_real_directory_holds_the_same_bytes_as_one_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("deep").join("state");
    let real: Arc<dyn Disk> = Arc::new(RealDisk::new(&state));
    assert_eq!(Journal::open(real.clone(), "homelab").unwrap().1, Opened::default());
    assert!(!state.exists(), "looking leaves no trace");
    for n in 1..=3 {
        let (mut journal, opened) = Journal::open(real.clone(), "homelab").unwrap();
        assert_eq!(opened.frames.len() as u64, n - 1);
        journal.append(&[json!({"begin": n})]).unwrap();
    }
    let memory = FaultyDisk::new();
    let (mut journal, _) = open(&memory).unwrap();
    for n in 1..=3 {
        journal.append(&[json!({"begin": n})]).unwrap();
    }
    assert_eq!(real.read(FILE).unwrap(), memory.get(FILE));
    assert_eq!(real.list().unwrap(), [FILE]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(state.join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn canonical_json_does_not_depend_on_how_a_value_was_built() {
    let value = json!({"b": [1, 1.0, {"y": null, "x": true}], "a": "ü/\u{7}", "": 0.1});
    let text = r#"{"":0.1,"a":"ü/\u0007","b":[1,1.0,{"x":true,"y":null}]}"#;
    assert_eq!(String::from_utf8(canonical(&value)).unwrap(), text);
    let again: Value = serde_json::from_str(text).unwrap();
    assert_eq!(canonical(&again), canonical(&value));
    // The neighbours of a number that a quick parser confuses.
    let number = json!(5.0e-324_f64 + 1.2345678901234567e-7);
    assert_eq!(serde_json::from_slice::<Value>(&canonical(&number)).unwrap(), number);
}

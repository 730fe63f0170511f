//! What a disk promises, and that the one in memory breaks no more than it says.

use lab_core::execute::disk::{Crash, Disk, Fault, FaultyDisk, RealDisk, Verb, replace, temporary};
use std::collections::BTreeSet;
use std::io::ErrorKind;

/// Whatever holds for a disk without faults holds for both.
fn check(disk: &dyn Disk) {
    assert_eq!(disk.list().unwrap(), [""; 0]);
    assert_eq!(disk.read("a").unwrap(), None);
    let mut file = replace(disk, "a", b"one").unwrap();
    file.write(b" two").unwrap();
    file.flush().unwrap();
    assert_eq!(disk.read("a").unwrap().unwrap(), b"one two", "the file is open at its end, under its new name");
    replace(disk, "a", b"three").unwrap();
    file.write(b" lost").unwrap();
    assert_eq!(disk.read("a").unwrap().unwrap(), b"three", "a replaced file is another one");
    disk.create("b").unwrap();
    disk.rename("b", "c").unwrap();
    disk.create("a").unwrap();
    assert_eq!(disk.read("a").unwrap().unwrap(), b"", "created anew, it is empty");
    assert_eq!(disk.list().unwrap(), ["a", "c"]);
    disk.remove("c").unwrap();
    assert_eq!(disk.remove("c").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.rename("c", "d").unwrap_err().kind(), ErrorKind::NotFound);
    assert!(disk.place("a").ends_with("a"));
    disk.sync_dir().unwrap();
}

#[test]
fn a_directory_and_one_in_memory_behave_alike() {
    check(&FaultyDisk::new());
    let dir = tempfile::tempdir().unwrap();
    check(&RealDisk::new(dir.path().join("made").join("when needed")));
}

#[test]
fn a_name_that_leads_out_of_the_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let disk = RealDisk::new(dir.path().join("lab"));
    for name in ["../a", "a/b", "..", "", "/a", "a/"] {
        assert_eq!(disk.create(name).map(drop).unwrap_err().kind(), ErrorKind::InvalidInput, "`{name}`");
        assert_eq!(disk.read(name).unwrap_err().kind(), ErrorKind::InvalidInput, "`{name}`");
    }
}

#[test]
fn a_replacement_without_room_leaves_the_old_file_and_nothing_else() {
    let disk = FaultyDisk::new();
    replace(&disk, "plan", b"old").unwrap();
    disk.full_from(disk.operations().len() + 1);
    assert_eq!(replace(&disk, "plan", b"new").map(drop).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(disk.list().unwrap(), ["plan"]);
    assert_eq!(disk.get("plan").unwrap(), b"old");
    assert_eq!(disk.get(&temporary("plan")), None);
}

#[test]
fn a_power_loss_takes_what_was_not_flushed() {
    let disk = FaultyDisk::new();
    let mut file = replace(&disk, "a", b"kept").unwrap();
    file.write(b" lost").unwrap();
    disk.create("b").unwrap();
    assert_eq!(disk.reopen(Crash::Process).get("a").unwrap(), b"kept lost");
    let after = disk.reopen(Crash::Power);
    assert_eq!((after.get("a").unwrap(), after.get("b")), (b"kept".to_vec(), None));
}

#[test]
fn a_power_loss_may_keep_the_later_and_lose_the_earlier() {
    let disk = FaultyDisk::new();
    let mut file = replace(&disk, "a", b"").unwrap();
    file.write(&[b'x'; 96]).unwrap();
    let found: BTreeSet<Vec<u8>> =
        (0..200).map(|seed| disk.reopen(Crash::PowerPartly(seed)).get("a").unwrap()).collect();
    assert_eq!(found.len(), 12, "every subset of three sectors, and zeros where the file is known to have grown");
    assert!(found.contains(&[[0; 32], [0; 32], [b'x'; 32]].concat()), "a hole reads as zeros");
}

#[test]
fn a_later_flush_does_not_bring_back_what_a_failed_one_forgot() {
    let disk = FaultyDisk::new();
    let mut file = replace(&disk, "a", b"one,").unwrap();
    file.write(b"two,").unwrap();
    disk.inject(disk.operations().len(), Fault::Broken);
    assert!(file.flush().is_err());
    file.write(b"three").unwrap();
    file.flush().unwrap();
    assert_eq!(disk.get("a").unwrap(), b"one,two,three");
    assert_eq!(disk.reopen(Crash::Power).get("a").unwrap(), b"one,\0\0\0\0three");
}

#[test]
fn a_stopped_process_does_nothing_more() {
    let disk = FaultyDisk::new();
    disk.inject(1, Fault::StopWithin(2));
    assert!(replace(&disk, "a", b"bytes").is_err());
    assert!(disk.stopped() && disk.read("a").is_err());
    let verbs: Vec<Verb> = disk.operations().iter().map(|operation| operation.verb).collect();
    assert_eq!(verbs, [Verb::Create, Verb::Write]);
    let next = disk.reopen(Crash::Process);
    assert_eq!(next.get(&temporary("a")).unwrap(), b"by");
    assert!(next.operations().is_empty() && !next.stopped());
}

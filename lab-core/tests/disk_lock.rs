//! Two processes never write one lab directory.

use lab_core::execute::lock::{Lock, LockError, rfc3339};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

#[test]
fn a_second_one_is_told_who_since_when_and_doing_what() {
    let dir = tempfile::tempdir().unwrap();
    let lab = dir.path().join("lab");
    let now = UNIX_EPOCH + Duration::from_secs(1_767_225_600);
    let first = Lock::take(&lab, "up", now).unwrap();
    let error = Lock::take(&lab, "destroy", now).unwrap_err();
    let text = error.to_string();
    let pid = std::process::id();
    assert!(text.starts_with(&format!("lock {}: `up` (process {pid}", lab.display())), "{text}");
    assert!(text.ends_with(") has held it since 2026-01-01T00:00:00Z; wait for it to end"), "{text}");
    let holder = Lock::holder(&lab).unwrap();
    assert_eq!((holder.pid, holder.verb.as_str(), holder.since.as_str()), (pid, "up", "2026-01-01T00:00:00Z"));
    // What the kernel calls the machine, where it can be asked.
    if let Ok(host) = std::fs::read_to_string("/proc/sys/kernel/hostname") {
        assert_eq!(holder.host, host.trim());
        let told = format!("`up` (process {pid} on {})", host.trim());
        assert!(host.trim().is_empty() || text.contains(&told), "{text}");
    }
    drop(first);
    assert_eq!(Lock::holder(&lab), None, "nobody is named who does not hold it");
    let second = Lock::take(&lab, "destroy", now).unwrap();
    assert_eq!(Lock::holder(&lab).unwrap().verb, "destroy");
    drop(second);
}

#[test]
fn a_holder_that_has_not_said_its_name_still_holds() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Lock::take(dir.path(), "up", UNIX_EPOCH).unwrap();
    std::fs::write(dir.path().join("lock.holder"), "{\"pid\":").unwrap();
    let error = Lock::take(dir.path(), "up", UNIX_EPOCH).unwrap_err();
    assert!(matches!(error, LockError::Held { holder: None, .. }));
}

#[test]
fn the_lock_of_a_killed_process_is_free_and_its_name_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "holds_the_lock_until_it_is_killed", "--ignored", "--nocapture"])
        .env("LAB_TEST_LOCK", dir.path())
        .stdout(Stdio::piped())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("locked")), "the child takes the lock");
    match Lock::take(dir.path(), "up", UNIX_EPOCH) {
        Err(LockError::Held { holder: Some(holder), .. }) => {
            assert_eq!((holder.pid, holder.verb.as_str()), (child.id(), "rehearse"));
        }
        other => panic!("two processes hold the lock: {other:?}"),
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let _mine = Lock::take(dir.path(), "up", UNIX_EPOCH).expect("the kernel releases what a dead process held");
    assert_eq!(Lock::holder(dir.path()).unwrap().pid, std::process::id());
}

/// A process that is being started has a copy of every open file until it has become the other program. The lock was
/// released by closing the file, so it outlived its holder by that moment.
#[test]
fn a_released_lock_is_free_even_while_other_processes_are_being_started() {
    let dir = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    let start = || Command::new(&program).arg("--list").stdout(Stdio::null()).status().unwrap();
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| (0..60).for_each(|_| assert!(start().success())));
        while !starting.is_finished() {
            drop(Lock::take(dir.path(), "up", UNIX_EPOCH).expect("nobody else takes it"));
        }
    });
}

/// The process that is killed above.
#[test]
#[ignore = "is started by another test"]
fn holds_the_lock_until_it_is_killed() {
    let Some(dir) = std::env::var_os("LAB_TEST_LOCK") else { return };
    let _lock = Lock::take(dir.as_ref(), "rehearse", UNIX_EPOCH).unwrap();
    println!("locked");
    // Ends when the parent does, whether or not it gets to the kill.
    let _ = std::io::stdin().lines().next();
}

#[test]
fn times_are_written_as_rfc_3339() {
    // Computed with `date -u -d @SECONDS +%FT%TZ`.
    for (seconds, text) in [
        (0, "1970-01-01T00:00:00Z"),
        (951_782_399, "2000-02-28T23:59:59Z"),
        (951_782_400, "2000-02-29T00:00:00Z"),
        (951_868_800, "2000-03-01T00:00:00Z"),
        (1_709_210_096, "2024-02-29T12:34:56Z"),
        (1_767_225_599, "2025-12-31T23:59:59Z"),
        (4_107_542_400, "2100-03-01T00:00:00Z"),
    ] {
        assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), text);
    }
}

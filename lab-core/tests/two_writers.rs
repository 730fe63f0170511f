//! Two processes cannot both write: real processes race for the lock of one lab directory.
//!
//! The children are this very test binary, told by the environment to hold the lock.

use lab_core::Event;
use lab_core::execute::lock::{Lock, LockError};
use lab_core::execute::seal::Keys;
use lab_core::execute::{KeySource, LabDir, LabError, Store};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

const HOLD: &str = "LAB_TEST_HOLD";

struct Holder {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Holder {
    /// Starts a process that tries for the lock of `dir`, and keeps it until it is told to end.
    fn start(dir: &Path) -> Holder {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "holds_the_lock_when_it_is_told_to", "--nocapture", "--test-threads=1"])
            .env(HOLD, dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Holder { child, out }
    }

    /// Returns whether it got the lock, or what it was told.
    fn answer(&mut self) -> Result<(), String> {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.out.read_line(&mut line).unwrap() > 0, "the process ended without an answer");
            // The harness prints the name of the test on the same line.
            if line.contains("<held>") {
                return Ok(());
            }
            if let Some((_, why)) = line.split_once("<refused>") {
                return Err(why.trim().to_owned());
            }
        }
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

/// Not a test of its own: what the processes of the other tests run.
#[test]
fn holds_the_lock_when_it_is_told_to() {
    let Some(dir) = std::env::var_os(HOLD) else { return };
    match LabDir::new(dir).lock("up", SystemTime::now()) {
        Ok(_lock) => {
            println!("<held>");
            std::io::stdout().flush().unwrap();
            let _ = std::io::stdin().read_line(&mut String::new());
        }
        Err(error) => println!("<refused>{error}"),
    }
}

#[test]
fn of_many_processes_that_race_one_gets_the_lock_and_the_others_are_told_who() {
    let dir = tempfile::tempdir().unwrap();
    let mut racers: Vec<Holder> = (0..6).map(|_| Holder::start(dir.path())).collect();
    let answers: Vec<Result<(), String>> = racers.iter_mut().map(Holder::answer).collect();
    let winners: Vec<usize> = (0..racers.len()).filter(|n| answers[*n].is_ok()).collect();
    assert_eq!(winners.len(), 1, "{answers:?}");
    let LockError::Held { holder, .. } = Lock::take(dir.path(), "destroy", SystemTime::now()).unwrap_err() else {
        panic!("it is not held")
    };
    let holder = holder.expect("who holds it");
    assert_eq!((holder.pid, holder.verb.as_str()), (racers[winners[0]].child.id(), "up"));
    racers.into_iter().for_each(Holder::end);
    Lock::take(dir.path(), "destroy", SystemTime::now()).expect("it is free once the holder ended");
}

#[test]
fn the_lock_of_a_process_that_was_killed_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let mut holder = Holder::start(dir.path());
    holder.answer().unwrap();
    let told = LabDir::new(dir.path()).lock("up", SystemTime::now()).map(drop).unwrap_err().to_string();
    let pid = holder.child.id().to_string();
    assert!(told.contains(&pid) && told.contains("`up`") && told.contains("since"), "{told}");
    holder.child.kill().unwrap();
    holder.child.wait().unwrap();
    let begun = Instant::now();
    let taken = LabDir::new(dir.path()).lock("up", SystemTime::now());
    taken.expect("the kernel released it");
    assert!(begun.elapsed() < Duration::from_secs(5), "nothing is waited for");
}

#[test]
fn a_second_lock_in_the_same_process_is_refused_too() {
    let dir = tempfile::tempdir().unwrap();
    let first = Lock::take(dir.path(), "up", SystemTime::now()).unwrap();
    assert!(matches!(Lock::take(dir.path(), "up", SystemTime::now()), Err(LockError::Held { .. })));
    drop(first);
    Lock::take(dir.path(), "up", SystemTime::now()).unwrap();
}

const COUNT: &str = "LAB_TEST_COUNT";
const TURNS: u64 = 5;
const WRITERS: usize = 4;

/// Not a test of its own either: records so many runs, a lock each, waiting for its turn.
#[test]
fn counts_when_it_is_told_to() {
    let Some(dir) = std::env::var_os(COUNT) else { return };
    let dir = LabDir::new(dir);
    let mut left = TURNS;
    while left > 0 {
        match dir.lock("up", SystemTime::now()) {
            Ok(_lock) => {
                let (mut store, cut) = dir.open("lab", KeySource::Given(Keys::fixed())).unwrap();
                assert_eq!(cut, None, "the writer before came to its end");
                // What was read is what is written back, one more: of two at once, one would be lost.
                let count = store.state().outputs.as_u64().unwrap_or_default() + 1;
                store.commit(&[Event::Returned { outputs: count.into() }], SystemTime::now()).unwrap();
                // Now and then as a killed one leaves it.
                if count % 3 > 0 {
                    store.close().unwrap();
                }
                left -= 1;
            }
            Err(LabError::Lock(LockError::Held { .. })) => std::thread::yield_now(),
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn of_processes_that_write_whenever_they_may_none_loses_what_another_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let writers: Vec<Child> = (0..WRITERS)
        .map(|_| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "counts_when_it_is_told_to", "--test-threads=1"])
                .env(COUNT, dir.path())
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut writer in writers {
        assert!(writer.wait().unwrap().success());
    }
    let look = Store::look(&*LabDir::new(dir.path()).disk(), "lab", &KeySource::Given(Keys::fixed())).unwrap();
    assert_eq!(look.state.outputs, serde_json::json!(TURNS * WRITERS as u64));
}

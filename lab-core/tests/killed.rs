//! `kill -9`, at random moments, of real processes: random programs on a real directory, over a world in this process.
//!
//! A life begins with an `up`, goes on with an `up` of the program after a person worked on it, and ends with a
//! `destroy`. Each of the three is killed over and over before it may come to its end.
//!
//! A few kills by default; hundreds with `LAB_TEST_KILLS=500 cargo test -p lab-core --test killed -- --nocapture`.

mod life;
mod sample;

use lab_core::execute::journal::Journal;
use lab_core::execute::seal::{KeyFile, Keys};
use lab_core::plan::Verb;
use lab_core::testing::Bench;
use life::{DONE, Ground, HELD};
use sample::{Dice, Sample, deeds, run_whole, settled, world};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// How often one phase of a life is killed before it may come to its end.
const KILLS_OF_A_PHASE: usize = 4;

fn kills(usual: usize) -> usize {
    std::env::var("LAB_TEST_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(usual)
}

#[test]
fn lives() {
    life::live();
}

/// Counts what was done to processes, and knows how long one takes.
struct Reaper {
    dice: Dice,
    killed: usize,
    /// Of these, in the middle of something.
    under_way: usize,
    survived: usize,
    /// How long to wait at most: shorter after one that was too late, longer after one that was in time.
    usual: Duration,
}

impl Reaper {
    fn new(seed: u64) -> Reaper {
        Reaper { dice: Dice::new(seed), killed: 0, under_way: 0, survived: 0, usual: Duration::from_millis(60) }
    }

    /// Lets a program run until it is killed, a few times, and then to its end.
    fn phase(&mut self, ground: &Ground, verb: Verb, seed: u64, changed: bool) {
        for _ in 0..KILLS_OF_A_PHASE {
            let mut child = ground.start(verb, seed, changed);
            let moment = self.usual.mul_f64(self.dice.below(1000) as f64 / 1000.0);
            std::thread::sleep(moment);
            child.kill().expect("killed");
            match ground.end(child) {
                (None, _) => {
                    self.killed += 1;
                    self.usual = self.usual.mul_f64(1.1);
                }
                (Some(DONE), _) => {
                    self.survived += 1;
                    self.usual = self.usual.mul_f64(0.8).max(Duration::from_millis(8));
                    break;
                }
                (code, said) => panic!("{verb} of {seed} failed by itself with {code:?}: {said}"),
            }
            let state = ground.sound(&format!("{verb} of {seed}, killed after {moment:?}"));
            self.under_way += usize::from(state.open().next().is_some());
        }
        let (code, said) = ground.end(ground.start(verb, seed, changed));
        assert_eq!(code, Some(DONE), "the last {verb} of {seed}: {said}");
        ground.sound(&format!("{verb} of {seed}, at its end"));
    }

    fn told(&self, began: Instant) {
        let Reaper { killed, under_way, survived, .. } = self;
        println!("{killed} kills, {under_way} of them with something open, {survived} too late, {:?}", began.elapsed());
        assert!(*under_way > 0, "nothing was killed in the middle of anything");
    }
}

#[test]
fn a_program_that_is_killed_over_and_over_comes_to_the_declared_world_with_nothing_made_twice() {
    let (began, mut reaper, mut seed) = (Instant::now(), Reaper::new(1), 4000);
    while reaper.killed < kills(24) {
        seed += 1;
        let sample = Sample::random(seed);
        let changed = sample.changed(seed);
        let (ground, undisturbed) = (Ground::new(), Bench::new());
        for (program, verb, is_changed) in
            [(&sample, Verb::Up, false), (&changed, Verb::Up, true), (&changed, Verb::Destroy, true)]
        {
            let story = format!("{verb} of {seed}: {program:?}");
            run_whole(&undisturbed, program, verb, &story);
            reaper.phase(&ground, verb, seed, is_changed);
            let bench = ground.looked();
            assert_eq!(world(&bench), world(&undisturbed), "{story}");
            assert_eq!(deeds(&bench), deeds(&undisturbed), "{story}: made or deleted twice, or not at all");
            settled(&bench, program, verb, &story);
            bench.world().clear_log();
            undisturbed.world().clear_log();
        }
    }
    reaper.told(began);
}

#[test]
fn a_program_that_is_changed_between_two_kills_comes_to_the_world_it_declares_last() {
    let (began, mut reaper, mut seed) = (Instant::now(), Reaper::new(2), 5000);
    while reaper.killed < kills(12) {
        seed += 1;
        let sample = Sample::random(seed);
        let changed = sample.changed(seed);
        let (ground, undisturbed) = (Ground::new(), Bench::new());
        let story = format!("{seed}: {sample:?}, then {changed:?}");
        // Killed in the middle of the first, gone on with the second: from the beginning, and from what stands.
        for (first, verb, is_changed) in [(false, Verb::Up, true), (false, Verb::Destroy, true)] {
            let mut child = ground.start(Verb::Up, seed, first);
            let moment = reaper.usual.mul_f64(reaper.dice.below(1000) as f64 / 1000.0);
            std::thread::sleep(moment);
            child.kill().expect("killed");
            reaper.killed += usize::from(ground.end(child).0.is_none());
            ground.sound(&story);
            reaper.phase(&ground, verb, seed, is_changed);
            run_whole(&undisturbed, &changed, verb, &story);
            let bench = ground.looked();
            assert_eq!(world(&bench), world(&undisturbed), "{story}");
            settled(&bench, &changed, verb, &story);
        }
    }
    reaper.told(began);
}

#[test]
fn the_lock_of_a_killed_process_never_stands_in_the_way_of_the_next() {
    let ground = Ground::new();
    for _ in 0..5 {
        let mut child = ground.start(Verb::Up, 4001, false);
        std::thread::sleep(Duration::from_millis(20));
        child.kill().expect("killed");
        ground.end(child);
        // At once, and without a word.
        let lock = lab_core::execute::lock::Lock::take(&ground.dir(), "up", SystemTime::now());
        drop(lock.expect("the kernel releases what a dead process held"));
    }
}

/// What the processes of the next test do: make a key, and seal something with it.
#[test]
fn makes_a_key() {
    let Some(dir) = std::env::var_os("LAB_TEST_KEY") else { return };
    let dir = Path::new(&dir);
    let file = KeyFile { path: dir.join("config").join("age.key"), named: false };
    let keys = file.load_or_create(&dir.join("lab"), SystemTime::now()).expect("a key");
    std::fs::write(dir.join(format!("sealed-{}", std::process::id())), keys.seal(b"hush")).expect("room");
}

#[test]
fn a_key_whose_making_is_killed_is_whole_or_not_there_and_opens_what_it_sealed() {
    let (mut dice, mut killed) = (Dice::new(3), 0);
    for round in 0..kills(24).max(8) {
        let dir = tempfile::tempdir().expect("a directory");
        let start = || {
            Command::new(std::env::current_exe().expect("an executable"))
                .args(["--exact", "makes_a_key", "--test-threads=1"])
                .env("LAB_TEST_KEY", dir.path())
                .stdout(Stdio::null())
                .spawn()
                .expect("it starts")
        };
        for _ in 0..2 {
            let mut child = start();
            std::thread::sleep(Duration::from_micros(dice.below(12_000) as u64));
            child.kill().expect("killed");
            killed += usize::from(child.wait().expect("a child").code().is_none());
        }
        assert!(start().wait().expect("a child").success(), "round {round}");
        let text = std::fs::read_to_string(dir.path().join("config").join("age.key")).expect("the key");
        let keys = Keys::parse(&text, "the file").expect("a whole key");
        for entry in std::fs::read_dir(dir.path()).expect("a directory").flatten() {
            if entry.file_name().to_string_lossy().starts_with("sealed-") {
                let sealed = std::fs::read_to_string(entry.path()).expect("a file");
                // Killed while it was written down, it is not the key's fault.
                if keys.seal(b"hush").len() == sealed.len() {
                    assert_eq!(keys.open(&sealed).expect("it opens"), b"hush", "round {round}");
                }
            }
        }
    }
    assert!(killed > 0, "nothing was killed in time");
}

/// What a copy of the directory shows that was made while it was in use: a state that was true at some moment.
#[test]
fn a_directory_that_is_copied_while_it_is_in_use_is_a_moment_of_its_past() {
    let ground = Ground::new();
    let (mut copies, mut last) = (0, 0);
    for (verb, changed) in [(Verb::Up, false), (Verb::Up, true), (Verb::Destroy, true)] {
        let mut child = ground.start(verb, 4002, changed);
        while child.try_wait().expect("a child").is_none() {
            let copied = life::copy(&ground.dir());
            // Refused, it would have to say why; torn, it says what is cut off. It is neither with this copy program.
            let report = Journal::verify(&copied, "lab").unwrap_or_else(|error| panic!("a copy: {error}"));
            let state = lab_core::execute::Store::look(&copied, "lab", &life::keys()).expect("it adds up").state;
            let runs = state.runs.len();
            assert!(runs >= last, "a copy shows what was before the copy before it");
            (copies, last) = (copies + usize::from(report.is_some()), runs);
        }
        assert_eq!(ground.end(child).0, Some(DONE));
    }
    assert!(copies > 3, "{copies} copies show little");
}

#[test]
fn of_processes_that_run_one_program_at_once_one_does_and_the_others_are_told() {
    let sample = Sample::random(4003);
    let (ground, undisturbed) = (Ground::new(), Bench::new());
    run_whole(&undisturbed, &sample, Verb::Up, "undisturbed");
    let racers: Vec<_> = (0..4).map(|_| ground.start(Verb::Up, 4003, false)).collect();
    let codes: Vec<Option<i32>> = racers.into_iter().map(|child| ground.end(child).0).collect();
    assert!(codes.iter().all(|code| [Some(DONE), Some(HELD)].contains(code)), "{codes:?}");
    assert!(codes.contains(&Some(DONE)), "{codes:?}");
    let bench = ground.looked();
    assert_eq!(deeds(&bench), deeds(&undisturbed), "made twice, or not at all");
    settled(&bench, &sample, Verb::Up, "raced");
}

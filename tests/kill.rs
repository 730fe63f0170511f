//! `kill -9`, twenty times, at seeded moments of the home lab's `up`; then one `up` to its end. More often:
//! `LAB_TEST_KILLS=100 cargo test --test kill`.
//!
//! The lab runs in this process. What is killed is the example's executable, on a state directory like anybody's.

mod homelab;

use homelab::essence::at_rest;
use homelab::{HomeLab, consistent, essence};
use lab::execute::seal::KeyFile;
use lab::execute::{KeySource, LabDir, Store};
use lab::sim;
use lab::testing::Search;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// Simulated seconds in a second: a machine installs and boots in five seconds, so that moments differ.
const SPEED: u32 = 100;

/// How often it is killed.
fn kills() -> usize {
    std::env::var("LAB_TEST_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(20)
}

/// Returns the example's executable, which `cargo test` builds before it runs tests.
fn executable() -> PathBuf {
    let test = std::env::current_exe().expect("this test is an executable");
    let profile = test.ancestors().nth(2).expect("it lies in target/PROFILE/deps");
    let path = profile.join("examples").join(format!("homelab{}", std::env::consts::EXE_SUFFIX));
    assert!(path.exists(), "{} is not there; `cargo build --example homelab` makes it", path.display());
    path
}

/// One life of the lab: a rack, and a state directory.
struct Life {
    lab: HomeLab,
    dir: tempfile::TempDir,
    executable: PathBuf,
}

impl Life {
    fn new(seed: u64) -> Life {
        let lab = HomeLab::new(sim::Options { speed: SPEED, seed, ..sim::Options::default() });
        let life = Life { lab, dir: tempfile::tempdir().expect("a directory"), executable: executable() };
        // A key file that is named has to be there.
        let key = KeyFile { path: life.path("age.key"), named: false };
        key.load_or_create(&life.path("state"), SystemTime::now()).expect("a key");
        life
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(self.dir.path()).join(name)
    }

    fn command(&self, verb: &[&str]) -> Command {
        let mut command = Command::new(&self.executable);
        command
            .args(verb)
            .arg("--state")
            .arg(self.path("state"))
            .arg("--proxy")
            .arg(format!("http://{}", self.lab.running.proxy()))
            .env("LAB_AGE_KEY_FILE", self.path("age.key"))
            .env("LAB_CLOCK", self.lab.running.link().clock.to_string())
            .stdin(Stdio::null());
        command
    }

    /// Where everything is written that its processes say.
    fn said(&self) -> File {
        File::options().create(true).append(true).open(self.path("said")).expect("a file")
    }

    fn up(&self) -> Child {
        self.command(&["up", "--yes"]).stdout(self.said()).stderr(self.said()).spawn().expect("it starts")
    }

    fn done(&self, verb: &[&str], exit: i32) -> String {
        let Output { status, stdout, stderr } = self.command(verb).output().expect("it runs");
        let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert_eq!(status.code(), Some(exit), "{verb:?}: {said}");
        self.said().write_all(said.as_bytes()).expect("room");
        said
    }

    /// Searches whatever lies there, and whatever was said, for every secret that the state has by now, in clear; returns
    /// how many there are.
    fn clean(&self) -> usize {
        let dir = LabDir::new(self.path("state"));
        let file = KeyFile { path: self.path("age.key"), named: true };
        let keys = KeySource::File { file, lab: dir.path().to_owned() };
        if !dir.path().exists() {
            return 0;
        }
        let look = Store::look(&*dir.disk(), "homelab", &keys).expect("a state that can be read after a kill");
        let mut search = Search::default();
        for fingerprint in look.state.secrets.keys() {
            let value = look.vault.get(fingerprint).expect("a secret that opens");
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            search.add(fingerprint.as_str(), text);
        }
        let found = search.found_in_dir(dir.path()).expect("a directory that can be read");
        assert!(found.is_empty(), "secrets in clear: {found:#?}");
        let said = std::fs::read(self.path("said")).expect("what was said");
        assert!(search.found(&said).is_empty(), "secrets were said: {:#?}", search.found(&said));
        look.state.secrets.len()
    }

    /// Runs `up` to its end, and checks everything there is to check.
    fn end(&self) {
        self.done(&["up", "--yes"], 0);
        self.done(&["preview", "--exit-code", "--refresh"], 0);
        self.done(&["state", "verify"], 0);
        let world = at_rest(|| self.lab.world()).expect("at rest");
        consistent(&world).expect("a consistent world");
        let lines = essence(&world);
        let ready =
            lines.iter().filter(|line| line.starts_with("machine ") && line.contains(r#""ready":true"#)).count();
        assert_eq!(ready, 6, "{lines:#?}");
        assert_eq!(world["clusters"][0]["members"].as_array().map(Vec::len), Some(3), "{}", world["clusters"]);
        let records = self.done(&["state", "list", "--json"], 0);
        assert!(!records.contains("\"open\":true"), "{records}");
        self.clean();
        assert!(self.said().metadata().expect("a file").len() > 1000, "what was said is little");
    }
}

/// Numbers by seed.
fn roll(seed: u64) -> u64 {
    let z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x2545_f491_4f6c_dd1d);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn an_up_that_is_killed_over_and_over_ends_in_the_declared_world() {
    let began = Instant::now();
    let (mut killed, mut lives, mut searched) = (0, 0, 0);
    let kills = kills();
    while killed < kills {
        lives += 1;
        let life = Life::new(lives);
        while killed < kills {
            let mut child = life.up();
            // The first seconds of a first run go into making keys; killed only then, it would never come further.
            std::thread::sleep(Duration::from_millis(200 + roll(killed as u64) % 4000));
            if let Some(status) = child.try_wait().expect("a child") {
                // It was done before it could be killed: on to another life.
                assert!(
                    status.success(),
                    "an up failed by itself after {killed} kills: {status}; {}",
                    life.done(&["up", "--yes"], 0)
                );
                break;
            }
            child.kill().expect("killed");
            child.wait().expect("a dead child");
            killed += 1;
            consistent(&life.lab.world()).expect("a consistent world after a kill");
            searched += life.clean();
        }
        life.end();
    }
    assert!(searched > 0, "there was something to search for");
    println!("{killed} kills in {lives} lives of the lab, {:?}", began.elapsed());
}

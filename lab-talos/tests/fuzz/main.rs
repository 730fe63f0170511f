//! Whatever a machine, a file or a user hands over as YAML: reading it comes back. No panic, no overflow of the stack, no
//! memory beyond what the input has.
//!
//! More mutations: `LAB_TEST_MUTATIONS=10000 cargo test --release -p lab-talos --test fuzz`.

mod read;

use lab_core::testing::fuzz::Mutator;
use read::{ORDINARY, read, seeds};
use std::panic::catch_unwind;
use std::process::Command;

/// What each thread of a run has.
const STACK: usize = 2 << 20;

fn replay() {
    let count = std::env::var("LAB_TEST_MUTATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(40);
    let work = move || {
        let mut failed = Vec::new();
        let mut check = |story: String, text: &str| {
            if let Err(panic) = catch_unwind(|| read(text)) {
                let said = panic.downcast_ref::<String>().cloned();
                let said = said.or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned()));
                let shown: String = text.chars().take(300).collect();
                failed.push(format!("{story}: {}\n{shown}", said.unwrap_or_default()));
            }
        };
        // What once broke something lies where that of the engine does.
        let found = concat!(env!("CARGO_MANIFEST_DIR"), "/../lab-core/tests/fuzz/yaml");
        for file in std::fs::read_dir(found).into_iter().flatten() {
            let path = file.unwrap().path();
            check(path.display().to_string(), &String::from_utf8_lossy(&std::fs::read(&path).unwrap()));
        }
        for (n, seed) in seeds().iter().enumerate() {
            check(format!("seed {n}"), seed);
            let mut mutator = Mutator::new(n as u64);
            // The last ones are there for their depth, and take their time.
            let count = if n < ORDINARY { count } else { count / 20 };
            for m in 0..count {
                let bytes = mutator.mutate(seed.as_bytes());
                check(format!("seed {n}, mutation {m}"), &String::from_utf8_lossy(&bytes));
            }
        }
        assert!(failed.is_empty(), "{} texts break it:\n{}", failed.len(), failed.join("\n"));
    };
    std::thread::Builder::new().stack_size(STACK).spawn(work).unwrap().join().unwrap();
}

#[test]
fn any_yaml_is_read_or_refused() {
    replay();
}

/// In a process that may have a gigabyte.
#[cfg(target_os = "linux")]
#[test]
fn a_few_lines_do_not_become_gigabytes() {
    const WITHIN: &str = "LAB_TEST_WITHIN";
    if std::env::var_os(WITHIN).is_some() {
        return seeds().iter().for_each(|seed| read(seed));
    }
    let test = std::env::current_exe().unwrap();
    let script = "ulimit -v 1048576 && exec \"$0\" --exact a_few_lines_do_not_become_gigabytes";
    let child = Command::new("sh").args(["-c", script]).arg(test).env(WITHIN, "").output().unwrap();
    let said = [child.stdout, child.stderr].concat();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&said));
}

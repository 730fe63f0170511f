//! Whatever stands in a configuration file: reading it comes back. No panic, no overflow of the stack, no memory beyond
//! what the file has, and a problem has its place.
//!
//! More mutations: `LAB_TEST_MUTATIONS=10000 cargo test --release -p lab-cli --test fuzz`.

use lab_cli::configuration;
use lab_core::testing::fuzz::Mutator;
use lab_core::{Placed, Range, Secret, Subnet};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::panic::catch_unwind;
use std::process::Command;

/// What each thread of a run has.
const STACK: usize = 2 << 20;

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "what matters is whether it is read")]
struct Site {
    network: Subnet,
    pool: Placed<Range>,
    nodes: Vec<Node>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    token: Option<Secret<u32>>,
    #[serde(default)]
    kind: Option<Kind>,
    #[serde(default)]
    inner: Option<Box<Site>>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "what matters is whether it is read")]
struct Node {
    name: String,
    address: Ipv4Addr,
    #[serde(default)]
    memory: u32,
    #[serde(default)]
    rate: f32,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(dead_code, reason = "what matters is whether it is read")]
enum Kind {
    Plain,
    Named(String),
    Both { one: bool, two: Option<char> },
}

const GOOD: &str = r#"
network = "10.0.0.0/24"
pool = "10.0.0.50-10.0.0.60"
token = 7
kind = "plain"
labels = { a = "1", "b.c" = "2" }

[[nodes]]
name = "one"
address = "10.0.0.1"
memory = 0xFFFF_FFFF

[[nodes]]
name = "two" # é漢😀
address = "10.0.0.2"
rate = 1e3

[inner]
network = "10.1.0.0/24"
pool = "10.1.0.1-10.1.0.2"
nodes = []
kind.both = { one = true, two = "x" }
"#;

/// Reads a text as the types that a program may have.
fn read(text: &str) {
    let mut problems = Vec::new();
    problems.extend(configuration::read::<Site>("site.toml", text).err().into_iter().flatten());
    problems.extend(configuration::read::<Value>("site.toml", text).err().into_iter().flatten());
    problems.extend(configuration::read::<BTreeMap<String, Node>>("site.toml", text).err().into_iter().flatten());
    let lines = text.matches('\n').count() as u32 + 1;
    for problem in problems {
        assert!((1..=lines).contains(&problem.place.line) && problem.column > 0, "{problem}");
        let _ = problem.to_string();
    }
}

fn seeds() -> Vec<String> {
    let mut seeds = vec![GOOD.to_owned(), String::new(), "a = 1\na = 2\n[a]\n[[a]]\n".to_owned()];
    for n in [100, 5_000] {
        seeds.push(format!("{}a = 1\n", "a.".repeat(n)));
        seeds.push(format!("[{}a]\nb = 1\n", "a.".repeat(n)));
        seeds.push(format!("inner = {}1{}\n", "[".repeat(n), "]".repeat(n)));
        seeds.push(format!("inner = {}1{}\n", "{ inner = ".repeat(n), " }".repeat(n)));
        seeds.push((0..n).map(|n| format!("key{n} = {n}\n")).collect());
    }
    seeds
}

#[test]
fn any_configuration_is_read_or_refused_with_places() {
    let count = std::env::var("LAB_TEST_MUTATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(100);
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
        for (n, seed) in seeds().iter().enumerate() {
            check(format!("seed {n}"), seed);
            let mut mutator = Mutator::new(n as u64);
            // The large ones are there for their depth.
            let count = if seed.len() > 4096 { count / 50 } else { count };
            for m in 0..count {
                let bytes = mutator.mutate(seed.as_bytes());
                check(format!("seed {n}, mutation {m}"), &String::from_utf8_lossy(&bytes));
            }
        }
        assert!(failed.is_empty(), "{} texts break it:\n{}", failed.len(), failed.join("\n"));
    };
    std::thread::Builder::new().stack_size(STACK).spawn(work).unwrap().join().unwrap();
}

/// In a process that may have a gigabyte.
#[cfg(target_os = "linux")]
#[test]
fn a_few_lines_of_configuration_do_not_become_gigabytes() {
    const WITHIN: &str = "LAB_TEST_WITHIN";
    if std::env::var_os(WITHIN).is_some() {
        return seeds().iter().for_each(|seed| read(seed));
    }
    let test = std::env::current_exe().unwrap();
    let script = "ulimit -v 1048576 && exec \"$0\" --exact a_few_lines_of_configuration_do_not_become_gigabytes";
    let child = Command::new("sh").args(["-c", script]).arg(test).env(WITHIN, "").output().unwrap();
    let said = [child.stdout, child.stderr].concat();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&said));
}

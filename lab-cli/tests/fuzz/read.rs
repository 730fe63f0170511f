//! What a configuration file is read as, and the files to begin with: for the tests here and for the fuzzer.

use lab_cli::configuration;
use lab_core::{Placed, Range, Secret, Subnet};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

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

/// Reads a text as the types that a program may have. Every problem has a place in it.
pub(crate) fn read(text: &str) {
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

/// Returns files as they should be, and some that are famous for what they broke.
pub(crate) fn seeds() -> Vec<String> {
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

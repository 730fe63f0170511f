//! Whatever a machine, a file or a user hands over as YAML: reading it comes back. No panic, no overflow of the stack, no
//! memory beyond what the input has.
//!
//! More mutations: `LAB_TEST_MUTATIONS=10000 cargo test --release -p lab-talos --test fuzz`.

use lab_core::testing::fuzz::Mutator;
use lab_talos::config;
use lab_talos::kubeconfig::Kubeconfig;
use lab_talos::secrets::Secrets;
use lab_talos::talosconfig::Talosconfig;
use lab_talos::yaml::Yaml;
use lab_talos::{KubernetesVersion, TalosVersion};
use std::panic::catch_unwind;
use std::process::Command;

/// What each thread of a run has.
const STACK: usize = 2 << 20;

/// Reads a text as everything that it might be.
fn read(text: &str) {
    if let Ok(documents) = Yaml::parse(text) {
        let written = Yaml::to_stream(&documents);
        let read = Yaml::parse(&written);
        let same = read.as_ref().is_ok_and(|read| same_all(read, &documents));
        assert!(same, "what is written is not what was read: {written}\n{documents:?}\n{read:?}");
        // What a control plane has is read back from its configuration.
        let _ = Secrets::from_control_plane(&documents).map_err(|error| error.to_string());
    }
    let _ = config::parse(text);
    let _ = Secrets::from_yaml(text).map_err(|error| error.to_string());
    let _ = Talosconfig::from_yaml(text).map(|read| read.to_yaml());
    let _ = Kubeconfig::parse(text);
    let _ = (text.parse::<TalosVersion>(), text.parse::<KubernetesVersion>());
}

/// Returns true when two trees are the same, a whole number being itself however it was written.
fn same(one: &Yaml, other: &Yaml) -> bool {
    match (one, other) {
        (Yaml::Float(one), Yaml::Float(other)) => one == other || one.is_nan() && other.is_nan(),
        (Yaml::Int(int), Yaml::Float(float)) | (Yaml::Float(float), Yaml::Int(int)) => *int as f64 == *float,
        (Yaml::List(one), Yaml::List(other)) => same_all(one, other),
        (Yaml::Map(one), Yaml::Map(other)) => {
            one.len() == other.len()
                && one.iter().zip(other).all(|((key, one), (other_key, other))| key == other_key && same(one, other))
        }
        (one, other) => one == other,
    }
}

fn same_all(one: &[Yaml], other: &[Yaml]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
}

/// How many of the seeds are files as there are.
const ORDINARY: usize = 12;

fn seeds() -> Vec<String> {
    let ordinary: [&str; ORDINARY] = [
        include_str!("vectors/controlplane.yaml"),
        include_str!("vectors/worker.yaml"),
        include_str!("vectors/controlplane-v1.12.yaml"),
        include_str!("vectors/secrets.yaml"),
        include_str!("vectors/talosconfig.yaml"),
        "v1.11.6",
        "1.34.1",
        "",
        "---\n---\n...\n",
        "a: &a [1]\nb: *a\n",
        "? [complex, key]\n: value\n",
        "a: 0x7fffffffffffffff\nb: 1e400\nc: .nan\nd: 2001-01-01\ne: 0o17\nf: 1_000\n",
    ];
    let mut seeds = ordinary.map(str::to_owned).to_vec();
    // Deep, and an alias of aliases of aliases: a few lines that stand for thousands of millions of values.
    for (open, close) in [("[", "]"), ("{a: ", "}"), ("- ", ""), ("? ", ""), ("&a ", ""), ("!t ", "")] {
        seeds.push(format!("{}0{}", open.repeat(5_000), close.repeat(5_000)));
    }
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        laughs += &format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(", "));
    }
    seeds.push(laughs);
    seeds
}

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

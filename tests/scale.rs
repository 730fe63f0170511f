//! Graphs from files: what `examples/scale.rs` makes of them, and what it says to files that are none.

#[path = "../examples/scale.rs"]
mod scale;

use lab::Surroundings;
use serde_json::{Value, json};
use std::path::PathBuf;

/// A graph file, and a state beside it.
struct Bench {
    dir: tempfile::TempDir,
}

struct Ran {
    exit: u8,
    out: String,
    err: String,
}

impl Bench {
    fn new(graph: &Value) -> Bench {
        let bench = Bench { dir: tempfile::tempdir().unwrap() };
        bench.write(graph);
        bench
    }

    fn write(&self, graph: &Value) {
        std::fs::write(self.graph(), graph.to_string()).unwrap();
    }

    fn graph(&self) -> PathBuf {
        self.dir.path().join("graph.json")
    }

    fn run(&self, verb: &str) -> Ran {
        let (mut surroundings, transcript) = Surroundings::captured();
        // Where a key would be made, if there were any secret.
        let config = self.dir.path().join("config").display().to_string();
        surroundings.variables.insert("XDG_CONFIG_HOME".into(), config);
        let state = self.dir.path().join("state");
        let mut line = vec!["scale".into(), self.graph().into_os_string(), "--state".into(), state.into()];
        line.extend(verb.split(' ').map(Into::into));
        let exit = scale::lab().run_with(line, surroundings);
        Ran { exit, out: transcript.out(), err: transcript.err() }
    }

    fn last_line(&self, verb: &str) -> String {
        let ran = self.run(verb);
        assert_eq!((ran.exit, ran.err.as_str()), (0, ""), "{verb}: {}", ran.out);
        ran.out.lines().last().unwrap_or_default().to_owned()
    }
}

fn layers(count: usize, width: usize) -> Value {
    let entry = |k: usize| {
        let deps: Vec<usize> = match k.checked_sub(width) {
            Some(above) => vec![above, above / width * width + (above + 1) % width],
            None => Vec::new(),
        };
        json!({"k": k, "name": format!("n{k}"), "inputs": {"size": k, "zone": "a"}, "deps": deps})
    };
    (0..count).map(entry).collect()
}

/// Asserts what is said to a file that is no graph.
#[track_caller]
fn refused(graph: Value, why: &str) {
    let bench = Bench::new(&graph);
    let ran = bench.run("up --yes");
    assert_eq!(ran.exit, 1, "{}", ran.out);
    let place = bench.graph().display().to_string();
    assert!(ran.err.contains(&format!("{place} is not a graph: {why}")), "{}", ran.err);
    assert!(!bench.dir.path().join("state/scale.journal").exists());
}

#[test]
fn a_graph_is_made_found_unchanged_and_taken_away_again() {
    let bench = Bench::new(&layers(60, 10));
    assert_eq!(bench.last_line("up --yes"), "scale: 60 done.");
    assert_eq!(bench.last_line("preview --exit-code"), "scale: nothing to do, 60 unchanged.");
    let shown = bench.run("state show n25").out;
    assert!(shown.contains("\"n15\"") && shown.contains("\"n16\""), "it reads the names of what it needs: {shown}");
    assert_eq!(bench.last_line("destroy --yes"), "scale: 60 done.");
    assert_eq!(bench.last_line("preview --destroy --exit-code"), "scale: nothing to do, 0 unchanged.");
}

#[test]
fn other_inputs_are_an_update_and_nothing_that_only_reads_the_name_is_touched() {
    let mut graph = layers(30, 10);
    let bench = Bench::new(&graph);
    bench.last_line("up --yes");
    graph[3]["inputs"] = json!([1, 2.5, null, {"deep": {"er": true}}]);
    bench.write(&graph);
    assert_eq!(bench.last_line("up --yes"), "scale: 1 done.");
    assert_eq!(bench.last_line("preview --exit-code"), "scale: nothing to do, 30 unchanged.");
}

#[test]
fn entries_may_come_in_any_order_and_without_inputs() {
    let bench = Bench::new(&json!([
        {"k": 9, "name": "roof", "deps": [4, 4]},
        {"k": 4, "name": "wall", "inputs": "brick", "deps": [7]},
        {"k": 7, "name": "floor", "inputs": {}, "more": "is not read"},
    ]));
    let ran = bench.run("up --yes");
    assert_eq!((ran.exit, ran.err.as_str()), (0, ""));
    let made: Vec<&str> = ran.out.lines().filter_map(|line| line.strip_suffix(" created")).collect();
    assert_eq!(made, ["  + scale:echo floor", "  + scale:echo wall", "  + scale:echo roof"]);
}

#[test]
fn what_is_no_graph_is_refused_with_its_place() {
    refused(json!({"nodes": []}), "invalid type: map, expected a sequence at line 1 column 0");
    refused(json!([{"k": 1, "name": 2}]), "invalid type: integer `2`, expected a string at line 1 column 16");
    refused(json!([{"name": "a"}]), "missing field `k` at line 1 column 13");
    let entry = |k: usize, name: &str, deps: &[usize]| json!({"k": k, "name": name, "deps": deps});
    refused(json!([entry(0, "a", &[3])]), r#"entry 0 (k 0, "a") depends on k 3, which no entry has"#);
    refused(
        json!([entry(0, "a", &[]), entry(0, "b", &[])]),
        r#"entry 1 (k 0, "b") has the same k as entry 0 (k 0, "a")"#,
    );
    refused(
        json!([entry(0, "a", &[]), entry(1, "a", &[])]),
        r#"entry 1 (k 1, "a") has the same name as entry 0 (k 0, "a")"#,
    );
    refused(json!([entry(5, "a/b", &[])]), r#"entry 0 (k 5, "a/b"): the name "a/b" holds"#);
    refused(
        json!([entry(0, "a", &[0])]),
        r#"these depend on each other in a circle: entry 0 (k 0, "a") needs entry 0 (k 0, "a")"#,
    );
    refused(
        json!([entry(0, "a", &[1]), entry(1, "b", &[2]), entry(2, "c", &[1])]),
        r#"these depend on each other in a circle: entry 1 (k 1, "b") needs entry 2 (k 2, "c") needs entry 1 (k 1, "b")"#,
    );
    let circle = (0..20).map(|k| entry(k, &format!("n{k}"), &[(k + 1) % 20])).collect();
    refused(circle, r#"these depend on each other in a circle: entry 0 (k 0, "n0") needs entry 1"#);
    let deep = (0..70).fold(json!(1), |inner, _| json!([inner]));
    refused(
        json!([{"k": 0, "name": "a", "inputs": deep}]),
        r#"entry 0 (k 0, "a"): its inputs are nested deeper than 64 levels"#,
    );
}

#[test]
fn a_graph_that_is_missing_is_asked_for() {
    for (line, exit, says) in [
        (vec!["scale", "up", "--yes"], 64, "<GRAPH>"),
        (vec!["scale", "--help"], 0, "Usage: scale [OPTIONS] <GRAPH>"),
        (vec!["scale", "no-such.json", "preview"], 1, "failed to read no-such.json"),
    ] {
        let (mut surroundings, transcript) = Surroundings::captured();
        surroundings.variables.insert("XDG_CONFIG_HOME".into(), "/nowhere".into());
        assert_eq!(scale::lab().run_with(line, surroundings), exit);
        let said = transcript.out() + &transcript.err();
        assert!(said.contains(says), "{said}");
    }
}

#[test]
fn commands_that_are_suggested_name_the_graph() {
    let bench = Bench::new(&layers(10, 10));
    let file = bench.dir.path().join("plan");
    let out = bench.run(&format!("preview --out {}", file.display())).out;
    let state = bench.dir.path().join("state");
    let command = format!("`scale {} --state {} up {}`", bench.graph().display(), state.display(), file.display());
    assert!(out.contains(&command), "{out}");
}

/// Each of so many needs the one before: whatever recurses over dependencies ends here.
#[test]
fn a_chain_may_be_long() {
    let chain = |k: usize| {
        let deps: Vec<usize> = k.checked_sub(1).into_iter().collect();
        json!({"k": k, "name": format!("n{k}"), "inputs": {}, "deps": deps})
    };
    let bench = Bench::new(&(0..20_000).map(chain).collect());
    assert!(bench.last_line("preview").contains("20000 to create"));
}

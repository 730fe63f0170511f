//! The MicroK8s environment dev of `examples/microk8s.rs` on its simulated rack.
#![allow(dead_code, reason = "each test file uses its own part")]

use essence::objects;
use lab::sim::Rack;
use lab::{Declared, Stack, Vault};
use serde_json::Value;
use site::{Program, Site};
use std::collections::BTreeMap;

#[path = "../essence/mod.rs"]
pub(crate) mod essence;
#[allow(dead_code, reason = "its `main` is not called here")]
#[path = "../../examples/microk8s.rs"]
pub(crate) mod example;
#[path = "../site/mod.rs"]
pub(crate) mod site;

const FILE: &str = "examples/microk8s/dev.toml";

/// The rack of the environment dev, with that on it.
pub(crate) type Dev = Site<Environment>;

/// The environment dev, as its file says.
pub(crate) struct Environment;

impl Program for Environment {
    const STACK: &'static str = "microk8s-dev";

    fn rack() -> Rack {
        example::rack()
    }

    fn declare(secrets: Vault) -> Result<Declared, String> {
        let text = std::fs::read_to_string(FILE).map_err(|error| format!("{FILE}: {error}"))?;
        let here = lab::configuration::read(FILE, &text);
        let here = here.map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
        let program = |stack: &Stack| example::microk8s(stack, here);
        let declared = Stack::load(Environment::STACK, Some("dev"), secrets, BTreeMap::new(), program);
        declared.map_err(|error| error.to_string())
    }

    /// The simulated Proxmox cluster.
    fn part(mut world: Value) -> Value {
        world["proxmox"][0].take()
    }

    fn consistent(world: &Value) -> Result<(), String> {
        consistent(world)
    }

    fn lines(world: &Value) -> Vec<String> {
        lines(world)
    }
}

/// The world as lines: the machines, the volumes, the clusters with every Kubernetes object. What is drawn by lot is left
/// out.
pub(crate) fn lines(world: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for (number, machine) in world["machines"].as_object().into_iter().flatten() {
        lines.push(unmarked(&format!("machine {number}: {machine}")));
    }
    for volume in world["volumes"].as_array().into_iter().flatten() {
        lines.push(unmarked(&format!("volume {} on {}: {}", volume["volume"], volume["node"], volume["size"])));
    }
    for cluster in world["clusters"].as_array().into_iter().flatten() {
        lines.push(format!("cluster: {}, quorum {}, {}", cluster["members"], cluster["quorum"], cluster["addons"]));
        lines.extend(objects(cluster));
    }
    lines.sort();
    lines
}

/// Marks are drawn by lot, and so is the token whose digest is in the names of media: one is like the other here.
fn unmarked(text: &str) -> String {
    let mut plain = String::new();
    let mut run = String::new();
    for c in text.chars().chain(['\0']) {
        if c.is_ascii_hexdigit() && !c.is_ascii_uppercase() {
            run.push(c);
            continue;
        }
        plain.push_str(if run.len() == 32 { "MARK" } else { &run });
        run.clear();
        if c != '\0' {
            plain.push(c);
        }
    }
    plain
}

/// What has to hold at every moment: machines that were declared, nothing asked of a guest that it does not know, and
/// never two clusters of more than one machine.
pub(crate) fn consistent(world: &Value) -> Result<(), String> {
    for (number, machine) in world["machines"].as_object().into_iter().flatten() {
        if !["11001", "11002", "11003"].contains(&number.as_str()) {
            return Err(format!("nobody has declared machine {number}"));
        }
        let unknown = &machine["guest"]["not simulated"];
        if unknown.as_array().is_some_and(|unknown| !unknown.is_empty()) {
            return Err(format!("machine {number} was asked for what is not simulated: {unknown}"));
        }
    }
    let clusters = world["clusters"].as_array().map(Vec::as_slice).unwrap_or_default();
    let sizes = clusters.iter().map(|cluster| cluster["members"].as_array().map_or(0, Vec::len));
    let joined = sizes.filter(|members| *members > 1).count();
    if joined > 1 { Err(format!("the environment was split into {joined} clusters")) } else { Ok(()) }
}

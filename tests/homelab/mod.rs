//! The home lab of `examples/homelab.rs` on its simulated rack.
#![allow(dead_code, reason = "each test file uses its own part")]

use lab::sim::Rack;
use lab::{Declared, Stack, Vault};
use serde_json::{Value, json};
use site::{Program, Site};
use std::collections::BTreeMap;

#[path = "../essence/mod.rs"]
pub(crate) mod essence;
#[allow(dead_code, reason = "its `main` is not called here")]
#[path = "../../examples/homelab.rs"]
pub(crate) mod example;
#[path = "../site/mod.rs"]
pub(crate) mod site;

/// The home lab's rack, with the home lab on it.
pub(crate) type HomeLab = Site<Home>;

/// The home lab.
pub(crate) struct Home;

impl Program for Home {
    const STACK: &'static str = "homelab";

    fn rack() -> Rack {
        example::rack()
    }

    fn declare(secrets: Vault) -> Result<Declared, String> {
        let declared = Stack::load(Home::STACK, None, secrets, BTreeMap::new(), example::homelab);
        declared.map_err(|error| error.to_string())
    }

    fn part(world: Value) -> Value {
        world
    }

    fn consistent(world: &Value) -> Result<(), String> {
        consistent(world)
    }

    fn lines(world: &Value) -> Vec<String> {
        essence(world)
    }
}

/// The world as lines: the machines, the clusters, every Kubernetes object with its spec. Keys, and names and numbers
/// that are drawn, are left out.
pub(crate) fn essence(world: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for (address, machine) in world["machines"].as_object().into_iter().flatten() {
        let mut machine = machine.clone();
        machine["config"] = json!(!machine["config"].is_null());
        lines.push(format!("machine {address}: {machine}"));
    }
    for cluster in world["clusters"].as_array().into_iter().flatten() {
        lines.push(format!("cluster {}: {}, quorum {}", cluster["name"], cluster["members"], cluster["quorum"]));
        lines.extend(essence::objects(cluster));
    }
    lines.sort();
    lines
}

/// What has to hold at every moment: never two clusters, never a member too many or twice.
pub(crate) fn consistent(world: &Value) -> Result<(), String> {
    let clusters = world["clusters"].as_array().map(Vec::as_slice).unwrap_or_default();
    if clusters.len() > 1 {
        return Err(format!("the lab was split into {} clusters", clusters.len()));
    }
    for cluster in clusters {
        let members = cluster["members"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut addresses: Vec<_> = members.iter().map(|member| member["address"].to_string()).collect();
        addresses.sort();
        addresses.dedup();
        if members.len() > 3 || addresses.len() < members.len() {
            return Err(format!("these are not three members of etcd: {}", cluster["members"]));
        }
    }
    Ok(())
}

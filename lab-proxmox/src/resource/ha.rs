//! High availability: machines that the cluster keeps running, and the rules on which hosts it does.

use lab_core::Input;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A machine that the cluster keeps running: it is started on another node when its own is lost.
///
/// Needs a cluster of at least three votes and disks on a storage that the nodes share. It is found by the machine's
/// number; ours is told by the mark in its comment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HighAvailability {
    /// The machine, by number.
    pub vmid: Input<u32>,
    /// How often a start that failed is repeated on the same node.
    pub max_restart: u32,
    /// How often it is then tried on another node.
    pub max_relocate: u32,
    /// What it is for, in one line.
    pub comment: String,
}

/// A rule on which hosts machines run that the cluster keeps running. Needs Proxmox VE 9.
///
/// It is found by its name; ours is told by the mark in its comment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rule {
    /// The name: a letter, then letters, digits, `-` and `_`.
    pub name: String,
    /// The machines, by number; each needs a [`HighAvailability`].
    pub vms: Vec<Input<u32>>,
    /// What the rule says.
    pub affinity: Affinity,
    /// What it is for, in one line.
    pub comment: String,
}

/// What a [`Rule`] says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Affinity {
    /// Each machine on another host.
    Apart,
    /// All machines on one host.
    Together,
    /// On these nodes, those of a higher number rather; nowhere else when `strict`.
    Nodes {
        /// The nodes and how much each is wanted.
        nodes: BTreeMap<String, u32>,
        /// Rather stopped than elsewhere.
        strict: bool,
    },
}

impl HighAvailability {
    /// Returns a machine that is kept running.
    pub fn new(vmid: impl Into<Input<u32>>) -> HighAvailability {
        HighAvailability { vmid: vmid.into(), max_restart: 1, max_relocate: 1, comment: String::new() }
    }
}

impl Rule {
    /// Returns a rule.
    pub fn new(name: impl Into<String>, affinity: Affinity, vms: Vec<Input<u32>>) -> Rule {
        Rule { name: name.into(), vms, affinity, comment: String::new() }
    }
}

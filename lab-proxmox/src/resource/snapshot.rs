//! A snapshot of a virtual machine.

use lab_core::Input;
use serde::{Deserialize, Serialize};

/// A snapshot of a virtual machine's disks, and of its memory if wanted.
///
/// It is found by its name on the machine, under the id `qemu/NUMBER/NAME`, and ours when its description bears our
/// mark. It never changes: another one is another snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// The number of the machine.
    pub vmid: Input<u32>,
    /// The name: a letter, then letters, digits, `-` and `_`, at most 40.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Includes the memory, so that a rollback goes on where the machine was.
    pub memory: bool,
}

impl Snapshot {
    /// Returns a snapshot of the disks.
    pub fn new(vmid: impl Into<Input<u32>>, name: impl Into<String>) -> Snapshot {
        Snapshot { vmid: vmid.into(), name: name.into(), description: String::new(), memory: false }
    }
}

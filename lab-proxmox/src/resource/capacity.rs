//! What a host offers to the machines on it, so that a plan which takes more is refused.

use crate::client::Client;
use crate::provider::Proxmox;
use crate::size::Mib;
use lab_core::{Claim, Error, Found, Made, Op, Resource, Result, Step};
use serde::{Deserialize, Serialize};

/// What a host offers to its machines, in all stacks of the lab directory together.
///
/// It exists only in the state: nothing on the host is asked or changed. A plan whose machines on this node take more
/// is refused, naming each of them. Machines that the lab does not know are not counted; leave headroom for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// The node, by its short name.
    pub node: String,
    /// The hardware threads of its processors.
    pub cpus: u32,
    /// Its memory.
    pub memory: Mib,
    /// How many virtual CPUs are given out for a hundred threads: 150 overcommits by half.
    pub cpu_percent: u32,
    /// How much memory is given out for a hundred MiB.
    pub memory_percent: u32,
    /// How much of both is kept free, in percent: for the host itself, and for machines of a host that is lost.
    pub headroom_percent: u32,
}

impl Capacity {
    /// Returns what a host offers that gives out just what it has.
    pub fn new(node: impl Into<String>, cpus: u32, memory: Mib) -> Capacity {
        Capacity { node: node.into(), cpus, memory, cpu_percent: 100, memory_percent: 100, headroom_percent: 0 }
    }

    fn offered(&self, amount: u32, percent: u32) -> u128 {
        u128::from(amount) * u128::from(percent) * u128::from(100u32.saturating_sub(self.headroom_percent)) / 10_000
    }
}

fn memory_of(node: &str) -> String {
    format!("MiB of memory on {node}")
}

fn cpus_of(node: &str) -> String {
    format!("virtual CPUs on {node}")
}

/// Returns the share of a machine in the memory of its node.
pub(super) fn memory(node: &str, amount: Mib) -> Claim {
    Claim::share(memory_of(node), u128::from(amount.0)).of_realm()
}

/// Returns the share of a machine in the processors of its node.
pub(super) fn cpus(node: &str, count: u32) -> Claim {
    Claim::share(cpus_of(node), u128::from(count)).of_realm()
}

impl Resource<Proxmox> for Capacity {
    const TYPE: &'static str = "proxmox:capacity";
    const GENERATED: bool = true;
    type Outputs = ();

    fn claims(&self) -> Vec<Claim> {
        vec![
            Claim::room(memory_of(&self.node), self.offered(self.memory.0, self.memory_percent)).of_realm(),
            Claim::room(cpus_of(&self.node), self.offered(self.cpus, self.cpu_percent)).of_realm(),
        ]
    }

    async fn find(_: &Client, _: &Op<Capacity>) -> Result<Found<()>> {
        Err(Error::invalid("what a host offers is only in the state"))
    }

    async fn apply(&self, _: &Client, _: &Op<Capacity>) -> Result<Step<()>> {
        Ok(Step::Done(Made::new(self.node.clone(), ())))
    }

    async fn delete(_: &Client, _: &Op<Capacity>) -> Result<Step<()>> {
        Ok(Step::gone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_offered_is_overcommitted_first_and_then_kept_free() {
        let host = Capacity {
            cpu_percent: 150,
            memory_percent: 120,
            headroom_percent: 30,
            ..Capacity::new("pve1", 16, Mib(65536))
        };
        let claims: Vec<String> = host.claims().iter().map(ToString::to_string).collect();
        assert_eq!(claims, ["MiB of memory on pve1 55050", "virtual CPUs on pve1 16"]);
    }
}

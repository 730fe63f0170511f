//! Going back after an upgrade: all nodes of a cluster are set back to their snapshots.

use crate::client::{Client, Problem, Task, Upid};
use crate::provider::Proxmox;
use crate::request;
use crate::request::vm::Power;
use crate::scalar::{field, list};
use lab_core::{Error, Found, Impact, Input, Made, Op, Resource, Result, Step};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;

/// How long to wait before asking again how far a task is.
const POLL: Duration = Duration::from_secs(2);
/// How long to wait before trying again what failed for a reason that passes.
const AGAIN: Duration = Duration::from_secs(5);
/// The drive of the medium that tells a machine what it is.
const MEDIUM: &str = "ide2";

/// All nodes of a cluster, set back to what they were: done once.
///
/// A member alone that was set back would split the history of the datastore. So every machine is stopped, then every
/// one is set back, and only then the first is started again. Nothing is stopped unless all of them have the snapshot.
/// Each of these may be repeated, and which is next is recorded before it is begun: a rollback that was interrupted goes
/// on where it was.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rollback {
    /// The numbers of the nodes' machines, and the medium that each is told by now: that of the snapshot may be gone, and
    /// without it no machine starts.
    pub nodes: Vec<(u32, Input<String>)>,
    /// The name of their snapshots.
    pub snapshot: String,
}

/// What a [`Rollback`] yields: nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledBack {}

/// Where a rollback stands: what is done to which of the nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct At {
    phase: Phase,
    node: usize,
    /// The task that is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task: Option<String>,
}

/// What is done to all nodes before the next is done to any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    Stop,
    Restore,
    Medium,
    Start,
}

impl At {
    fn next<O>(phase: Phase, node: usize, why: String, pause: Duration) -> Step<O> {
        Step::next(json!(At { phase, node, task: None }), why, pause)
    }
}

impl Rollback {
    /// Refuses to begin when a node has nothing to be set back to.
    async fn check(&self, client: &Client) -> Result<()> {
        for (vmid, _) in &self.nodes {
            let node = node_of(client, *vmid).await?;
            let listed = client.send(&request::vm::snapshots(&node, *vmid)).await?;
            if !list(&listed).iter().any(|row| field(row, "name") == self.snapshot) {
                let snapshot = &self.snapshot;
                return Err(Error::invalid(format!("VM {vmid} has no snapshot {snapshot}: nothing was set back")));
            }
        }
        Ok(())
    }
}

async fn node_of(client: &Client, vmid: u32) -> Result<String> {
    let place = client.locate(vmid).await?;
    Ok(place.ok_or_else(|| Error::invalid(format!("there is no VM {vmid} to set back")))?.node)
}

impl Resource<Proxmox> for Rollback {
    const TYPE: &'static str = "microk8s:rollback";
    const ONCE: bool = true;
    const GENERATED: bool = true;
    type Outputs = RolledBack;

    fn creation(&self) -> Impact {
        Impact {
            interrupts: Some("every node is stopped, and started again".into()),
            destroys: Some(format!("everything the cluster has stored since its snapshots {}", self.snapshot)),
            ..Impact::default()
        }
    }

    async fn find(_: &Client, _: &Op<Rollback>) -> Result<Found<RolledBack>> {
        Ok(Found::Absent)
    }

    async fn apply(&self, client: &Client, op: &Op<Rollback>) -> Result<Step<RolledBack>> {
        let at = op.cursor.clone().and_then(|cursor| serde_json::from_value::<At>(cursor).ok());
        let Some(At { phase, mut node, task }) = at else {
            self.check(client).await?;
            return Ok(At::next(Phase::Stop, 0, "every node has its snapshot".into(), Duration::ZERO));
        };
        if let Some(upid) = task.as_ref().and_then(|task| task.parse::<Upid>().ok()) {
            let vmid = self.nodes.get(node).map(|(vmid, _)| *vmid).unwrap_or_default();
            let ended = client.task(&upid).await?;
            if let Task::Warned(said) = &ended {
                op.warn(format!("VM {vmid}: {}: done, with {said}", phase.does()));
            }
            match ended {
                Task::Runs => {
                    let why = format!("VM {vmid}: {}", phase.does());
                    return Ok(Step::next(json!(At { phase, node, task }), why, POLL));
                }
                // Whether it runs can be looked at; whether it was set back cannot.
                Task::Ended | Task::Warned(_) if phase == Phase::Restore => node += 1,
                Task::Ended | Task::Warned(_) | Task::Lost => {}
                Task::Failed(said) => {
                    let text = format!("VM {vmid}: {}: {said}", phase.does());
                    let ended = said.split(" [log: ").next().unwrap_or_default();
                    // What another run was told, this one tries again.
                    if Problem::said(ended).passes() || !client.watches(&upid) {
                        return Ok(At::next(phase, node, text, AGAIN));
                    }
                    return Err(Error::invalid(text).perhaps());
                }
            }
        }
        let Some((vmid, medium)) = self.nodes.get(node).map(|(vmid, medium)| (*vmid, medium.get())) else {
            return Ok(match phase {
                Phase::Stop => At::next(Phase::Restore, 0, "every node is stopped".into(), Duration::ZERO),
                Phase::Restore => At::next(Phase::Medium, 0, "every node is set back".into(), Duration::ZERO),
                Phase::Medium => At::next(Phase::Start, 0, "every node has its medium".into(), Duration::ZERO),
                Phase::Start => Step::Done(Made::new(self.snapshot.as_str(), RolledBack {})),
            });
        };
        let on = node_of(client, vmid).await?;
        let status = field(&client.send(&request::vm::status(&on, vmid)).await?, "status");
        let config = client.send(&request::vm::config(&on, vmid)).await?;
        let wanted = format!("{medium},media=cdrom");
        let there = match phase {
            Phase::Stop => status == "stopped",
            Phase::Restore => false,
            Phase::Medium => field(&config, MEDIUM).starts_with(&wanted),
            Phase::Start => status == "running",
        };
        if there {
            return Ok(At::next(phase, node + 1, format!("VM {vmid} is {status}"), Duration::ZERO));
        }
        let request = match phase {
            // What it would still write is thrown away.
            Phase::Stop => request::vm::power(&on, vmid, Power::Stop),
            Phase::Restore => request::vm::rollback(&on, vmid, &self.snapshot, false),
            Phase::Medium => {
                let set = [(MEDIUM.to_owned(), wanted)];
                request::vm::configure(&on, vmid, &field(&config, "digest"), &set, &[])
            }
            Phase::Start => request::vm::power(&on, vmid, Power::Start),
        };
        let task = client.begin(&request).await?.map(|upid| upid.to_string());
        if task.is_none() && phase == Phase::Restore {
            return Err(Error::again(format!("VM {vmid}: nothing says how far its rollback is")).perhaps());
        }
        Ok(Step::next(json!(At { phase, node, task }), format!("VM {vmid}: {}", phase.does()), POLL))
    }

    async fn delete(_: &Client, _: &Op<Rollback>) -> Result<Step<()>> {
        Ok(Step::gone())
    }
}

impl Phase {
    fn does(self) -> &'static str {
        match self {
            Phase::Stop => "it stops",
            Phase::Restore => "it is set back",
            Phase::Medium => "it gets its medium",
            Phase::Start => "it starts",
        }
    }
}

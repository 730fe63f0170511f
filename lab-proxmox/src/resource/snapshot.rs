//! A snapshot of a virtual machine.

use super::vm::Vm;
use crate::client::{Client, Problem};
use crate::follow::{self, At};
use crate::mark;
use crate::provider::Proxmox;
use crate::request;
use crate::scalar::{field, list};
use lab_core::{Change, Error, Found, Id, Impact, Input, Made, Op, Order, Owner, Path, Resource, Result, Step};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

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

/// What a [`Snapshot`] yields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotOutputs {
    /// The number of the machine.
    pub vmid: u32,
    /// The name.
    pub name: String,
}

/// Where a snapshot is, and what it says about itself if it is there.
struct There {
    vmid: u32,
    name: String,
    node: String,
    description: Option<String>,
    /// Whether the machine is busy with a snapshot, and so what is there is not complete.
    busy: Option<String>,
}

async fn look(client: &Client, id: &Id) -> Result<Option<There>> {
    let wrong = || Error::invalid(format!("{id:?} is not the id of a snapshot, such as qemu/110/before"));
    let (vm, name) = id.0.rsplit_once('/').ok_or_else(wrong)?;
    let vmid = Vm::number(&Id(vm.to_owned()))?;
    // With the machine go its snapshots.
    let Some(place) = client.locate(vmid).await? else { return Ok(None) };
    let status = match client.send(&request::vm::status(&place.node, vmid)).await {
        Ok(status) => status,
        Err(error) if error.problem == Problem::Missing => {
            return Err(Error::again(format!("VM {vmid} is on its way from {} to another node", place.node)));
        }
        Err(error) => return Err(error.into()),
    };
    let listed = client.send(&request::vm::snapshots(&place.node, vmid)).await?;
    let row = list(&listed).iter().find(|row| field(row, "name") == name);
    let busy = Some(field(&status, "lock")).filter(|lock| lock.starts_with("snapshot") || lock == "rollback");
    let description = row.map(|row| field(row, "description"));
    Ok(Some(There { vmid, name: name.to_owned(), node: place.node, description, busy }))
}

impl Snapshot {
    fn target(&self) -> Id {
        Id(format!("qemu/{}/{}", self.vmid.get(), self.name))
    }
}

fn target(op: &Op<Snapshot>) -> Result<Id> {
    let id = op.id.clone().or_else(|| op.inputs.as_ref().map(Snapshot::target));
    id.ok_or_else(|| Error::invalid("neither the id of the snapshot nor its inputs are known"))
}

fn owner(description: &str) -> Owner {
    mark::read(description).1.map_or(Owner::Unmarked, Owner::Marked)
}

impl There {
    fn made(&self) -> Made<SnapshotOutputs> {
        let outputs = SnapshotOutputs { vmid: self.vmid, name: self.name.clone() };
        Made::new(format!("qemu/{}/{}", self.vmid, self.name), outputs)
    }
}

impl Resource<Proxmox> for Snapshot {
    const TYPE: &'static str = "proxmox:snapshot";
    type Outputs = SnapshotOutputs;

    fn id(&self) -> Option<Id> {
        self.vmid.known().map(|vmid| Id(format!("qemu/{vmid}/{}", self.name)))
    }

    fn change(&self, prior: &Snapshot, _: Option<&Value>) -> Change {
        if self.description == prior.description && self.memory == prior.memory {
            return Change::None;
        }
        let reason = (Path::root(), "a snapshot is what it was when it was taken: another one is taken".to_owned());
        let destroys = Some(format!("the snapshot {}", prior.name));
        Change::Replace(Impact { reasons: vec![reason], destroys, ..Impact::default() }, Order::DeleteFirst)
    }

    fn removal(&self) -> Impact {
        Impact { destroys: Some(format!("the snapshot {}", self.name)), ..Impact::default() }
    }

    async fn find(client: &Client, op: &Op<Snapshot>) -> Result<Found<SnapshotOutputs>> {
        let Some(there) = look(client, &target(op)?).await? else { return Ok(Found::Absent) };
        let Some(description) = &there.description else { return Ok(Found::Absent) };
        let owner = owner(description);
        if let Some(lock) = &there.busy {
            let text = format!("VM {} is locked ({lock}): a snapshot is being taken or deleted", there.vmid);
            return Err(Error::again(text));
        }
        Ok(Found::Present(owner, Step::Done(there.made())))
    }

    async fn apply(&self, client: &Client, op: &Op<Snapshot>) -> Result<Step<SnapshotOutputs>> {
        if let Some(step) = follow::wait(client, op).await? {
            return Ok(step);
        }
        let vmid = *self.vmid.get();
        let Some(there) = look(client, &self.target()).await? else {
            return Err(Error::again(format!("there is no VM {vmid} to take a snapshot of")));
        };
        if let Some(description) = &there.description {
            if owner(description) != Owner::Marked(op.mark.clone()) && !op.exists {
                return Err(Error::conflict(format!("VM {vmid} has got a snapshot {} meanwhile", self.name)));
            }
            if let Some(lock) = &there.busy {
                return Ok(At::Between.next(format!("VM {vmid} is locked ({lock})"), Duration::from_secs(2)));
            }
            return Ok(Step::Done(there.made()));
        }
        let description = mark::write(&self.description, &op.mark);
        let request = request::vm::snapshot(&there.node, vmid, &self.name, &description, self.memory);
        follow::begin(client, &request, format!("the snapshot {} of VM {vmid} is taken", self.name)).await
    }

    async fn delete(client: &Client, op: &Op<Snapshot>) -> Result<Step<()>> {
        if let Some(step) = follow::wait(client, op).await? {
            return Ok(step);
        }
        let Some(there) = look(client, &target(op)?).await? else { return Ok(Step::gone()) };
        match there.description.as_deref().map(owner) {
            None => return Ok(Step::gone()),
            Some(Owner::Marked(mark)) if mark != op.mark => return Ok(Step::gone()),
            Some(_) => {}
        }
        let request = request::vm::delete_snapshot(&there.node, there.vmid, &there.name);
        let does = format!("the snapshot {} of VM {} is deleted", there.name, there.vmid);
        follow::begin(client, &request, does).await
    }
}

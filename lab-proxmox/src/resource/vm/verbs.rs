//! How a machine is found, brought to what is desired, and destroyed.
//!
//! Every step is decided by the facts: what the configuration says, what is pending in it, whether it runs. The cursor
//! only says which task to wait for, so a run that was killed anywhere goes on from what is there.

use super::config;
use super::sight::Sight;
use super::{FullClone, Source, Vm, VmOutputs};
use crate::client::{Client, Place};
use crate::follow::{self, At};
use crate::provider::Proxmox;
use crate::request::{self, vm::Power};
use crate::resource::capacity;
use crate::slot::Slot;
use lab_core::{Change, Claim, Class, Error, Found, Id, Impact, Lock, Made, Op, Owner, Resource, Result, Step};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long to wait before looking again at something that needs a moment.
const MOMENT: Duration = Duration::from_secs(2);
/// How many seconds a guest is given to shut down before it is switched off.
const SHUTDOWN: u32 = 120;
/// What waits for the next boot without being worth one: the guest only looks at it when it boots.
const LAZY: [&str; 2] = ["ide2", "boot"];

impl Vm {
    /// Returns the number that an id names.
    pub(crate) fn number(id: &Id) -> Result<u32> {
        let number = id.0.strip_prefix("qemu/").unwrap_or(&id.0).parse();
        number.map_err(|_| Error::invalid(format!("{id:?} is not the id of a machine, such as qemu/110")))
    }

    fn number_of(op: &Op<Vm>) -> Result<u32> {
        match (&op.id, &op.inputs) {
            (Some(id), _) => Vm::number(id),
            (None, Some(vm)) => Ok(vm.vmid),
            (None, None) => Err(Error::invalid("neither the number of the machine nor its inputs are known")),
        }
    }

    fn made(&self, sight: &Sight) -> Made<VmOutputs> {
        let outputs = VmOutputs { vmid: self.vmid, name: self.name.clone(), address: self.address() };
        Made { live: Some(sight.live(self)), ..Made::new(format!("qemu/{}", self.vmid), outputs) }
    }

    /// Makes the machine. It does not run yet.
    async fn create(&self, client: &Client, op: &Op<Vm>) -> Result<Step<VmOutputs>> {
        let pool = self.pool.as_ref().map(|pool| pool.get().as_str());
        match &self.source {
            Source::Disks => {
                let config = self.creation(&op.mark);
                let request = request::vm::create(&self.node, self.vmid, pool, &config);
                follow::begin(client, &request, format!("{} is made on {}", self.who(), self.node)).await
            }
            Source::Template { vmid, full } => {
                let template = client.locate(*vmid).await?.ok_or_else(|| {
                    Error::invalid(format!("there is no template {vmid} that {} could be cloned from", self.who()))
                })?;
                if !template.template {
                    return Err(Error::invalid(format!("{vmid} ({}) is not a template", template.name)));
                }
                let request = request::vm::clone(&request::vm::Clone {
                    node: &template.node,
                    template: *vmid,
                    vmid: self.vmid,
                    name: &self.name,
                    description: &crate::mark::write(&self.description, &op.mark),
                    target: Some(self.node.as_str()).filter(|node| *node != template.node),
                    full: full.is_some(),
                    storage: match full {
                        Some(FullClone::Storage(storage)) => Some(storage),
                        Some(FullClone::Same) | None => None,
                    },
                    pool,
                });
                follow::begin(client, &request, format!("{} is cloned from {vmid} ({})", self.who(), template.name))
                    .await
            }
        }
    }

    /// Takes the next step from what is there to what is desired; `None`: there is none to take.
    async fn converge(&self, client: &Client, op: &Op<Vm>, sight: &Sight) -> Result<Option<Step<VmOutputs>>> {
        let node = sight.place.node.as_str();
        let who = self.who();
        let Some(todo) = self.todo(op.inputs.as_ref(), &op.mark, sight)? else { return Ok(None) };
        let step = match todo {
            Todo::Migrate => {
                let request = request::vm::migrate(node, self.vmid, &self.node, sight.runs);
                follow::begin(client, &request, format!("{who} moves from {node} to {}", self.node)).await?
            }
            Todo::Configure { set, delete } => {
                let what: Vec<&str> =
                    set.iter().map(|(key, _)| key.as_str()).chain(delete.iter().map(|key| key.as_str())).collect();
                let does = format!("{who} is configured: {}", what.join(", "));
                let request = request::vm::configure(node, self.vmid, &sight.digest, &set, &delete);
                follow::begin(client, &request, does).await?
            }
            Todo::DeleteDisk(slot) => {
                let request = request::vm::delete_disk(node, self.vmid, &slot.to_string());
                follow::begin(client, &request, format!("{who}: {slot} and its volume are deleted")).await?
            }
            Todo::Grow(slot, bytes) => {
                let request = request::vm::resize(node, self.vmid, &slot.to_string(), bytes, &sight.digest);
                follow::begin(client, &request, format!("{who}: {slot} grows to {} GiB", bytes >> 30)).await?
            }
            Todo::Join(pool) => {
                client.send(&request::pool::join(&pool, self.vmid)).await?;
                At::Between.next(format!("{who} joins the pool {pool}"), Duration::ZERO)
            }
            Todo::LeavePool(pool) => {
                client.send(&request::pool::leave(&pool, self.vmid)).await?;
                At::Between.next(format!("{who} leaves the pool {pool}"), Duration::ZERO)
            }
            Todo::Reboot(keys) => {
                let does = format!("{who} reboots, so that {} takes effect", keys.join(", "));
                // What the cluster keeps running would be started again in the middle.
                let power =
                    if sight.managed { Power::Reboot(self.patience()) } else { Power::Shutdown(self.patience()) };
                follow::begin(client, &request::vm::power(node, self.vmid, power), does).await?
            }
            Todo::Start => {
                follow::begin(client, &request::vm::power(node, self.vmid, Power::Start), format!("{who} starts"))
                    .await?
            }
            Todo::Stop => {
                let power = Power::Shutdown(self.patience());
                follow::begin(client, &request::vm::power(node, self.vmid, power), format!("{who} shuts down")).await?
            }
        };
        Ok(Some(settled(step, sight)))
    }

    fn patience(&self) -> u32 {
        self.startup.and_then(|startup| startup.down).unwrap_or(SHUTDOWN)
    }

    /// Returns what is to be done next; `None` when everything is as desired. `prior`: the inputs last applied, which
    /// say what was ours and no longer is.
    pub(crate) fn todo(&self, prior: Option<&Vm>, mark: &str, sight: &Sight) -> Result<Option<Todo>> {
        if self.pinned && sight.place.node != self.node {
            return Ok(Some(Todo::Migrate));
        }
        let (set, delete) = self.differences(prior, mark, sight);
        if !set.is_empty() || !delete.is_empty() {
            return Ok(Some(Todo::Configure { set, delete }));
        }
        for (slot, disk) in &self.disks {
            let Some(there) = sight.disk(*slot) else { continue };
            match there.bytes {
                Some(bytes) if bytes > disk.size.bytes() => {
                    return Err(Error::invalid(format!(
                        "a disk cannot shrink: {slot} of {} has {} bytes, which is more than {}",
                        self.who(),
                        bytes,
                        disk.size
                    )));
                }
                // A change that waits for the reboot carries the size of before, and would take the growth back.
                Some(bytes) if bytes < disk.size.bytes() && !sight.pending.contains(&slot.to_string()) => {
                    return Ok(Some(Todo::Grow(*slot, disk.size.bytes())));
                }
                Some(_) | None => {}
            }
        }
        for slot in prior.iter().flat_map(|prior| prior.disks.keys()) {
            if !self.disks.contains_key(slot) && sight.disk(*slot).is_some() {
                return Ok(Some(Todo::DeleteDisk(*slot)));
            }
        }
        let pool = self.pool.as_ref().map(|pool| pool.get());
        let before = prior.and_then(|prior| prior.pool.as_ref()).map(|pool| pool.get());
        match (pool, &sight.place.pool) {
            (Some(pool), there) if there.as_ref() != Some(pool) => return Ok(Some(Todo::Join(pool.clone()))),
            (None, Some(there)) if before == Some(there) => return Ok(Some(Todo::LeavePool(there.clone()))),
            (Some(_) | None, _) => {}
        }
        if sight.runs && !self.running {
            return Ok(Some(Todo::Stop));
        }
        if sight.runs {
            let keys = self.keys(mark);
            let disks: Vec<String> = self.disks.keys().map(ToString::to_string).collect();
            let gone = prior.map(|prior| prior.keys(mark)).unwrap_or_default();
            let ours = |key: &&String| keys.contains_key(*key) || disks.contains(key) || gone.contains_key(*key);
            let waits: Vec<String> =
                sight.pending.iter().filter(|key| !LAZY.contains(&key.as_str())).filter(ours).cloned().collect();
            if !waits.is_empty() {
                return Ok(Some(Todo::Reboot(waits)));
            }
        }
        if !sight.runs && self.running {
            return Ok(Some(Todo::Start));
        }
        Ok(None)
    }

    /// Returns which keys are to be set and which deleted.
    fn differences(&self, prior: Option<&Vm>, mark: &str, sight: &Sight) -> (Vec<(String, String)>, Vec<String>) {
        let keys = self.keys(mark);
        let mut set: BTreeMap<String, String> = BTreeMap::new();
        for (key, wanted) in &keys {
            let there = sight.get(key);
            if !config::same(key, wanted, there) {
                set.insert(key.clone(), config::merged(key, wanted, there));
            }
        }
        for (slot, disk) in &self.disks {
            let key = slot.to_string();
            match sight.get(&key) {
                // A template's disks are there already; another one is made here.
                None => {
                    set.insert(key, disk.creation());
                }
                Some(there) => {
                    let wanted = crate::property::print(&disk.options(), "file");
                    if !config::same(&key, &wanted, Some(there)) {
                        set.insert(key.clone(), config::merged(&key, &wanted, Some(there)));
                    }
                }
            }
        }
        let mut delete: Vec<String> = prior
            .map(|prior| prior.keys(mark))
            .unwrap_or_default()
            .into_keys()
            .filter(|key| !keys.contains_key(key) && sight.get(key).is_some())
            .collect();
        // The list of interfaces is stated as a whole.
        for n in self.networks.len()..32 {
            let key = format!("net{n}");
            if sight.get(&key).is_some() && !delete.contains(&key) {
                delete.push(key);
            }
        }
        (set.into_iter().collect(), delete)
    }
}

/// The HA manager takes its time: what it was asked for is not asked again at once.
fn settled(step: Step<VmOutputs>, sight: &Sight) -> Step<VmOutputs> {
    match step {
        Step::Next { cursor, made, why, pause } if sight.managed => {
            Step::Next { cursor, made, why, pause: pause.max(Duration::from_secs(5)) }
        }
        step => step,
    }
}

/// What is to be done next with a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Todo {
    Migrate,
    Configure {
        set: Vec<(String, String)>,
        delete: Vec<String>,
    },
    DeleteDisk(Slot),
    Grow(Slot, u64),
    Join(String),
    LeavePool(String),
    /// So that these keys take effect.
    Reboot(Vec<String>),
    Start,
    Stop,
}

fn locked(vmid: u32, lock: &str, node: &str) -> Error {
    let then = match lock {
        // What was being made has no description yet, and nothing else that says whose it is.
        "create" | "clone" => format!(", and `qm destroy {vmid}` what it has made of the machine"),
        _ => String::new(),
    };
    Error::again(format!(
        "VM {vmid} is locked ({lock}); if no task is at work on it, one that died has left the lock behind, and on \
         {node} `qm unlock {vmid}` takes it away{then}"
    ))
}

impl Resource<Proxmox> for Vm {
    const TYPE: &'static str = "proxmox:vm";
    type Outputs = VmOutputs;

    fn id(&self) -> Option<Id> {
        Some(Id(format!("qemu/{}", self.vmid)))
    }

    fn claims(&self) -> Vec<Claim> {
        let mut claims =
            vec![Claim::number("VM id", u128::from(self.vmid)).of_realm(), Claim::name("host name", &self.name)];
        for network in &self.networks {
            let mac = network.mac;
            claims.push(Claim { text: mac.to_string(), ..Claim::number("MAC", mac.number()) });
            claims.extend(network.address.map(|address| Claim::address(address.ip.into())));
        }
        if let Some(group) = &self.apart {
            claims.push(Claim::name(format!("host of one of {group}:"), &self.node).of_realm());
        }
        if self.running {
            claims.push(capacity::memory(&self.node, self.memory));
            claims.push(capacity::cpus(&self.node, self.cores * self.sockets));
        }
        claims
    }

    fn locks(&self) -> Vec<Lock> {
        let mut locks = vec![Lock { name: format!("proxmox node {}", self.node), capacity: 4, weight: 1 }];
        let storages: std::collections::BTreeSet<&String> = self.disks.values().map(|disk| &disk.storage).collect();
        for storage in storages {
            locks.push(Lock { name: format!("proxmox storage {storage}"), capacity: 2, weight: 1 });
        }
        if let Source::Template { vmid, .. } = self.source {
            locks.push(Lock { name: format!("proxmox template {vmid}"), capacity: 4, weight: 1 });
        }
        locks
    }

    fn change(&self, prior: &Vm, live: Option<&Value>) -> Change {
        self.judge(prior, live)
    }

    fn removal(&self) -> Impact {
        self.loss()
    }

    async fn find(client: &Client, op: &Op<Vm>) -> Result<Found<VmOutputs>> {
        let vmid = Vm::number_of(op)?;
        let place = match client.locate(vmid).await? {
            None => return Ok(Found::Absent),
            Some(Place { vm: false, node, .. }) => {
                let owner = Owner::Other(format!("{vmid} is a container on {node}"));
                return Ok(Found::Present(owner, At::Between.next("it is a container", MOMENT)));
            }
            Some(place) => place,
        };
        let node = place.node.clone();
        let Some(sight) = Sight::of(client, vmid, place).await? else {
            let text = format!("VM {vmid} is listed on {node} and is not there: it is moving, or going");
            return Err(Error::again(text));
        };
        match sight.lock.as_deref() {
            // It has a description, ours or not, only when it is unlocked.
            Some(lock @ ("create" | "clone")) => return Err(locked(vmid, lock, &node)),
            Some("destroyed") => return Ok(Found::Leaving(sight.owner(), "it is being destroyed".into())),
            Some(_) | None => {}
        }
        let owner = sight.owner();
        let Some(vm) = &op.inputs else {
            return Ok(Found::Present(owner, At::Between.next("its inputs can no longer be read", MOMENT)));
        };
        let mark = match &owner {
            Owner::Marked(mark) => mark.clone(),
            Owner::Unmarked | Owner::Unmarkable | Owner::Other(_) => op.mark.clone(),
        };
        let made = vm.made(&sight);
        // One that bears no mark lacks nothing else because of that.
        let found = vm.todo(None, &mark, &sight.bearing(&mark, &owner));
        Ok(match found {
            // One that this operation is at work on is not complete before everything is as it should be; any other is
            // what it is.
            Ok(Some(todo)) if owner == Owner::Marked(op.mark.clone()) && !op.deleting => {
                let cursor = op.cursor.clone().unwrap_or_else(|| serde_json::json!(At::Between));
                Found::Present(owner, Step::Next { cursor, made: Some(made), why: todo.why(), pause: Duration::ZERO })
            }
            // What it can never become is for the plan or the next step to say.
            Ok(_) | Err(_) => Found::Present(owner, Step::Done(made)),
        })
    }

    async fn apply(&self, client: &Client, op: &Op<Vm>) -> Result<Step<VmOutputs>> {
        if let Some(step) = follow::wait(client, op).await? {
            return Ok(step);
        }
        let Some(sight) = Vm::look(client, self.vmid).await? else {
            if op.exists {
                return Err(Error::new(Class::Gone, format!("{} does not exist any more", self.who())));
            }
            return self.create(client, op).await;
        };
        if let Some(lock) = &sight.lock {
            return Err(locked(self.vmid, lock, &sight.place.node));
        }
        match sight.owner() {
            Owner::Marked(mark) if mark == op.mark => {}
            // It was judged to be ours a moment ago: it is taken over by this.
            Owner::Unmarked if op.exists => {}
            Owner::Marked(_) | Owner::Unmarked | Owner::Unmarkable | Owner::Other(_) => {
                return Err(Error::conflict(format!("{} was made by somebody else meanwhile", self.who())));
            }
        }
        match self.converge(client, op, &sight).await? {
            Some(step) => Ok(step),
            None => Ok(Step::Done(self.made(&sight))),
        }
    }

    async fn delete(client: &Client, op: &Op<Vm>) -> Result<Step<()>> {
        let vmid = Vm::number_of(op)?;
        if let Some(step) = follow::wait(client, op).await? {
            return Ok(step);
        }
        let Some(sight) = Vm::look(client, vmid).await? else { return Ok(Step::gone()) };
        let node = sight.place.node.as_str();
        if let Some(lock) = &sight.lock {
            return Err(locked(vmid, lock, node));
        }
        if let Owner::Marked(mark) = sight.owner()
            && mark != op.mark
        {
            // Ours is gone, and its number was given to another one.
            return Ok(Step::gone());
        }
        let Some(vm) = &op.inputs else {
            let text =
                format!("what VM {vmid} was made from can no longer be read, and so not which disks are its own");
            return Err(Error::invalid(text));
        };
        let known: Vec<String> = vm.disks.keys().map(ToString::to_string).collect();
        let others: Vec<String> = sight
            .volumes()
            .into_iter()
            .filter(|(key, _)| !known.contains(key))
            // The disks of a template are cloned with it; the plan named them as such.
            .filter(|(key, _)| !(vm.disks.is_empty() && vm.source != Source::Disks && !key.starts_with("unused")))
            .map(|(key, volume)| format!("{key} ({volume})"))
            .collect();
        if !others.is_empty() {
            return Err(Error::invalid(format!(
                "{} has {}, which the plan did not name and which would be destroyed with it: detach it and give it to \
                 another machine, delete it by hand, or declare it",
                vm.who(),
                others.join(", ")
            )));
        }
        if sight.says("protection") {
            return Err(Error::invalid(format!(
                "{} is protected on {node}: take the protection away first, with `protection: false` or by hand",
                vm.who()
            )));
        }
        let power = Power::Shutdown(vm.patience());
        let (request, does) = if sight.runs {
            (request::vm::power(node, vmid, power), format!("{} shuts down", vm.who()))
        } else {
            (request::vm::destroy(node, vmid), format!("{} is destroyed", vm.who()))
        };
        follow::begin(client, &request, does).await
    }
}

impl Sight {
    /// Returns the same machine as one that bears `mark`, when it is one that bears none.
    fn bearing(&self, mark: &str, owner: &Owner) -> Sight {
        let mut sight = self.clone();
        if *owner == Owner::Unmarked {
            let words = sight.get("description").unwrap_or_default().to_owned();
            sight.config.insert("description".into(), crate::mark::write(&words, mark));
        }
        sight
    }
}

impl Todo {
    fn why(&self) -> String {
        match self {
            Todo::Migrate => "it is not on its node".into(),
            Todo::Configure { set, delete } => {
                let keys: Vec<&str> =
                    set.iter().map(|(key, _)| key.as_str()).chain(delete.iter().map(String::as_str)).collect();
                format!("it is not as it should be: {}", keys.join(", "))
            }
            Todo::DeleteDisk(slot) => format!("it still has {slot}"),
            Todo::Grow(slot, _) => format!("{slot} has not grown yet"),
            Todo::Join(pool) => format!("it is not in the pool {pool}"),
            Todo::LeavePool(pool) => format!("it is still in the pool {pool}"),
            Todo::Reboot(keys) => format!("{} takes effect with a reboot", keys.join(", ")),
            Todo::Start => "it does not run".into(),
            Todo::Stop => "it runs".into(),
        }
    }
}

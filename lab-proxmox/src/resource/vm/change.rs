//! What becoming another machine takes: nothing, a change while it runs, a reboot, another machine.

use super::{Disk, Source, Vm};
use lab_core::{Change, Impact, Order, Path};
use serde_json::Value;

impl Vm {
    /// Returns what becoming this from `prior` takes. `live`: what is there in the shape of the inputs.
    pub(crate) fn judge(&self, prior: &Vm, live: Option<&Value>) -> Change {
        let seen = live.and_then(|live| overlaid(prior, live)).unwrap_or_else(|| prior.clone());
        if self.vmid != prior.vmid {
            let reason = (Path::from("/vmid"), "a machine keeps its number for life".to_owned());
            let impact = Impact { reasons: vec![reason], ..prior.loss() };
            return Change::Replace(impact, Order::DeleteFirst);
        }
        let mut weight = Weight::default();
        for (slot, disk) in &self.disks {
            match seen.disks.get(slot) {
                None => weight.live(&format!("/disks/{slot}"), "the disk is added while it runs"),
                Some(before) => self.judge_disk(&slot.to_string(), disk, before, &mut weight),
            }
        }
        if !weight.refused.is_empty() {
            return Change::Refuse(weight.refused);
        }
        let gone: Vec<String> = prior
            .disks
            .iter()
            .filter(|(slot, _)| !self.disks.contains_key(slot))
            .map(|(slot, disk)| {
                weight.live(&format!("/disks/{slot}"), "the disk is taken away and its volume deleted");
                format!("{slot} ({} on {})", disk.size, disk.storage)
            })
            .collect();
        self.judge_rest(&seen, &mut weight);
        if !weight.matters && gone.is_empty() {
            return Change::None;
        }
        let interrupts = if seen.running && !self.running {
            Some(format!("stops {}", self.who()))
        } else if seen.running && weight.reboots {
            Some(format!("reboots {}", self.who()))
        } else {
            weight.interrupts
        };
        let destroys = (!gone.is_empty()).then(|| format!("{} of {}", disks(&gone), self.who()));
        let mut unknown = Vec::new();
        if self.name != prior.name {
            unknown.push(Path::from("/name"));
        }
        if self.address() != prior.address() {
            unknown.push(Path::from("/address"));
        }
        Change::Update(Impact { reasons: weight.reasons, interrupts, destroys, unknown })
    }

    fn judge_disk(&self, slot: &str, disk: &Disk, before: &Disk, weight: &mut Weight) {
        let path = |field: &str| format!("/disks/{slot}/{field}");
        if disk.size < before.size {
            let text = format!("a disk cannot shrink: {slot} of {} is {}, not {}", self.who(), before.size, disk.size);
            weight.refused.push((Path::from(path("size").as_str()), text));
        }
        if disk.size > before.size {
            weight.live(&path("size"), "grown while it runs; the guest takes the room at its next boot");
        }
        for (field, differs) in [
            ("discard", disk.discard != before.discard),
            ("ssd", disk.ssd != before.ssd),
            ("io_thread", disk.io_thread != before.io_thread),
        ] {
            if differs {
                weight.reboot(&path(field), "the guest sees it after a reboot");
            }
        }
        if disk.backup != before.backup {
            weight.live(&path("backup"), "taken over while it runs");
        }
    }

    fn judge_rest(&self, seen: &Vm, weight: &mut Weight) {
        for (path, differs, why) in [
            ("/cores", self.cores != seen.cores, "the number of cores changes with a reboot"),
            ("/sockets", self.sockets != seen.sockets, "the number of sockets changes with a reboot"),
            ("/cpu", self.cpu != seen.cpu, "the kind of processor changes with a reboot"),
            ("/memory", self.memory != seen.memory, "the memory changes with a reboot"),
            ("/machine", self.machine.is_some() && self.machine != seen.machine, "the machine changes with a reboot"),
            ("/serial_console", self.serial_console && !seen.serial_console, "the console comes with a reboot"),
            ("/agent", self.agent != seen.agent, "the agent's channel comes and goes with a reboot"),
        ] {
            if differs {
                weight.reboot(path, why);
            }
        }
        for (path, differs) in [
            ("/name", self.name != seen.name),
            ("/description", self.description != seen.description),
            ("/tags", self.tags() != seen.tags()),
            ("/on_boot", self.on_boot != seen.on_boot),
            ("/startup", self.startup != seen.startup),
            ("/protection", self.protection != seen.protection),
            ("/boot", self.boot != seen.boot),
            ("/running", self.running != seen.running),
            ("/pool", same(&self.pool, &seen.pool) != Some(true)),
        ] {
            if differs {
                weight.live(path, "taken over while it runs");
            }
        }
        let off = |vm: &Vm| vm.balloon.is_some_and(|balloon| balloon.0 == 0);
        if off(self) != off(seen) {
            weight.reboot("/balloon", "the device that takes memory back comes and goes with a reboot");
        } else if self.balloon != seen.balloon {
            weight.live("/balloon", "taken over while it runs");
        }
        if same(&self.iso, &seen.iso) != Some(true) {
            weight.live("/iso", "the guest reads it at its next boot");
        }
        for n in 0..self.networks.len().max(seen.networks.len()) {
            let path = format!("/networks/{n}");
            match (self.networks.get(n), seen.networks.get(n)) {
                (Some(after), Some(before)) if after.mac != before.mac => {
                    weight.interrupts = Some(format!("cuts {} off its network for a moment", self.who()));
                    weight.live(&path, "another address is another interface: it is unplugged and plugged in again");
                }
                (Some(after), Some(before)) if after != before => weight.live(&path, "changed while it runs"),
                (Some(_), None) => weight.live(&path, "the interface is added while it runs"),
                (None, Some(_)) => weight.live(&path, "the interface is taken away while it runs"),
                (Some(_), Some(_)) | (None, None) => {}
            }
        }
        if self.pinned && (!seen.pinned || self.node != seen.node) {
            let how = if seen.running { "moved while it runs" } else { "moved" };
            weight.live("/node", how);
        }
    }

    fn tags(&self) -> std::collections::BTreeSet<String> {
        self.tags.iter().map(|tag| tag.to_ascii_lowercase()).collect()
    }

    /// Returns what goes with the machine.
    pub(crate) fn loss(&self) -> Impact {
        let all: Vec<String> = match (&self.source, self.disks.is_empty()) {
            (Source::Template { .. }, true) => vec!["those of its template".into()],
            (Source::Template { .. } | Source::Disks, _) => {
                self.disks.iter().map(|(slot, disk)| format!("{slot} ({} on {})", disk.size, disk.storage)).collect()
            }
        };
        let destroys = if all.is_empty() { self.who() } else { format!("{} with {}", self.who(), disks(&all)) };
        let interrupts = self.running.then(|| format!("stops {}", self.who()));
        Impact { destroys: Some(destroys), interrupts, ..Impact::default() }
    }
}

fn disks(named: &[String]) -> String {
    format!("the {} {}", if named.len() == 1 { "disk" } else { "disks" }, named.join(", "))
}

/// Returns whether two inputs are the same; nothing when that is not known yet.
fn same(a: &Option<lab_core::Input<String>>, b: &Option<lab_core::Input<String>>) -> Option<bool> {
    match (a, b) {
        (None, None) => Some(true),
        (Some(a), Some(b)) => Some(a.known()? == b.known()?),
        (Some(_), None) | (None, Some(_)) => Some(false),
    }
}

/// Returns the machine as it was applied, with what was seen of it instead. A list of another length is another list,
/// and a disk that is not there is left out.
fn overlaid(prior: &Vm, live: &Value) -> Option<Vm> {
    fn over(value: &mut Value, live: &Value) {
        match (value, live) {
            (Value::Object(value), Value::Object(live)) => {
                for (key, live) in live {
                    match value.get_mut(key) {
                        Some(Value::Object(_)) if live.is_null() => {
                            value.remove(key);
                        }
                        Some(value) => over(value, live),
                        None => {
                            value.insert(key.clone(), live.clone());
                        }
                    }
                }
            }
            (Value::Array(value), Value::Array(live)) if value.len() == live.len() => {
                value.iter_mut().zip(live).for_each(|(value, live)| over(value, live));
            }
            (value, live) => *value = live.clone(),
        }
    }
    let mut value = serde_json::to_value(prior).ok()?;
    over(&mut value, live);
    serde_json::from_value(value).ok()
}

/// What a change weighs.
#[derive(Default)]
struct Weight {
    reasons: Vec<(Path, String)>,
    refused: Vec<(Path, String)>,
    reboots: bool,
    matters: bool,
    interrupts: Option<String>,
}

impl Weight {
    fn live(&mut self, path: &str, why: &str) {
        self.matters = true;
        self.reasons.push((Path::from(path), why.to_owned()));
    }

    fn reboot(&mut self, path: &str, why: &str) {
        self.reboots = true;
        self.live(path, why);
    }
}

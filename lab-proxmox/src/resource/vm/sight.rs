//! A machine as it is there.

use super::config::{self, Config};
use super::{Address, Disk, Vm};
use crate::client::{Client, Place, Problem};
use crate::mark;
use crate::request;
use crate::scalar::{field, list, text, truth};
use crate::size;
use crate::slot::Slot;
use lab_core::{Error, Owner, Result};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A machine as it is there.
#[derive(Clone, Debug)]
pub(crate) struct Sight {
    pub(crate) place: Place,
    /// The configuration, with what is pending in it.
    pub(crate) config: Config,
    /// What the configuration was read as: a change of an older one is refused.
    pub(crate) digest: String,
    /// The keys that take effect with the next boot.
    pub(crate) pending: BTreeSet<String>,
    pub(crate) runs: bool,
    pub(crate) lock: Option<String>,
    /// Whether the cluster keeps it running.
    pub(crate) managed: bool,
}

/// A disk as it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct There {
    /// The volume.
    pub(crate) volume: String,
    /// Its size in bytes, where it is said.
    pub(crate) bytes: Option<u64>,
    text: String,
}

impl Sight {
    /// Looks at a machine. `None`: it is not on that node any more.
    pub(crate) async fn of(client: &Client, vmid: u32, place: Place) -> Result<Option<Sight>> {
        let answers = async {
            let config = client.send(&request::vm::config(&place.node, vmid)).await?;
            let status = client.send(&request::vm::status(&place.node, vmid)).await?;
            let pending = client.send(&request::vm::pending(&place.node, vmid)).await?;
            Ok((config, status, pending))
        };
        let (config, status, pending) = match answers.await {
            Ok(answers) => answers,
            Err(crate::client::Error { problem: Problem::Missing, .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let digest = field(&config, "digest");
        let lock = Some(field(&config, "lock")).filter(|lock| !lock.is_empty());
        let lock = lock.or_else(|| Some(field(&status, "lock")).filter(|lock| !lock.is_empty()));
        let keys = config.as_object().into_iter().flatten();
        let config = keys.filter_map(|(key, value)| Some((key.clone(), text(value)?))).collect();
        let waits = |entry: &&Value| {
            let changes = entry.get("pending").and_then(text).is_some_and(|after| after != field(entry, "value"));
            changes || truth(entry, "delete") || field(entry, "delete") == "2"
        };
        Ok(Some(Sight {
            place,
            config,
            digest,
            pending: list(&pending).iter().filter(waits).map(|entry| field(entry, "key")).collect(),
            runs: field(&status, "status") == "running",
            lock,
            managed: status.get("ha").is_some_and(|ha| truth(ha, "managed")),
        }))
    }

    /// Returns whose it says it is.
    pub(crate) fn owner(&self) -> Owner {
        match self.mark() {
            Some(mark) => Owner::Marked(mark),
            None => Owner::Unmarked,
        }
    }

    fn mark(&self) -> Option<String> {
        mark::read(self.get("description").unwrap_or_default()).1
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.config.get(key).map(String::as_str)
    }

    pub(crate) fn says(&self, key: &str) -> bool {
        self.get(key).and_then(crate::property::truth).unwrap_or_default()
    }

    /// Returns a disk.
    pub(crate) fn disk(&self, slot: Slot) -> Option<There> {
        self.get(&slot.to_string()).map(There::read)
    }

    /// Returns every volume with data that the configuration names, by its key: disks and what was one, not media.
    pub(crate) fn volumes(&self) -> BTreeMap<String, String> {
        let holds = |key: &str| {
            let bus = key.trim_end_matches(|c: char| c.is_ascii_digit());
            bus.len() < key.len() && ["scsi", "virtio", "sata", "ide", "unused", "efidisk", "tpmstate"].contains(&bus)
        };
        let medium = |text: &str| {
            let parts = crate::property::parse(text, "file");
            let file = parts.get("file").map(String::as_str).unwrap_or_default();
            parts.get("media").is_some_and(|media| media == "cdrom") || file == "none"
        };
        let disks = self.config.iter().filter(|(key, text)| holds(key) && !medium(text));
        disks.map(|(key, text)| (key.clone(), There::read(text).volume)).collect()
    }

    /// Returns the machine in the shape of its inputs, as far as it was read.
    pub(crate) fn live(&self, vm: &Vm) -> Value {
        let plain = |key: &str| self.get(key).map_or(Value::Null, |text| json!(text));
        let count = |key: &str, default: u64| json!(self.get(key).map_or(Some(default), |text| text.parse().ok()));
        let part = |key: &str, part: &str| self.get(key).and_then(|text| config::part(key, text, part));
        let mut live = json!({
            "name": plain("name"),
            "description": mark::read(self.get("description").unwrap_or_default()).0,
            "cores": count("cores", 1),
            "sockets": count("sockets", 1),
            "memory": part("memory", "current").map_or(Some(512), |text| text.parse::<u64>().ok()),
            "agent": part("agent", "enabled").is_some(),
            "on_boot": self.says("onboot"),
            "protection": self.says("protection"),
            "running": self.runs,
            "tags": self.tags(),
            "networks": self.networks(vm),
            "disks": self.disks(vm),
        });
        let mut put = |name: &str, value: Value| live[name] = value;
        if let Some(cpu) = part("cpu", "cputype") {
            put("cpu", json!(cpu));
        }
        if vm.balloon.is_some() {
            put(
                "balloon",
                self.get("balloon").and_then(|text| text.parse::<u64>().ok()).map_or(Value::Null, Value::from),
            );
        }
        if vm.machine.is_some() {
            put("machine", part("machine", "type").map_or(Value::Null, Value::from));
        }
        if vm.iso.is_some() {
            put("iso", part("ide2", "file").map_or(Value::Null, Value::from));
        }
        if vm.pool.is_some() {
            put("pool", json!(self.place.pool));
        }
        if vm.pinned {
            put("node", json!(self.place.node));
        }
        if vm.startup.is_some() {
            let seconds = |name: &str| part("startup", name).and_then(|text| text.parse::<u64>().ok());
            let order = seconds("order");
            let live = |order| json!({"order": order, "up": seconds("up"), "down": seconds("down")});
            put("startup", order.map_or(Value::Null, live));
        }
        live
    }

    fn tags(&self) -> Value {
        let tags = self.get("tags").and_then(|text| config::part("tags", text, "")).unwrap_or_default();
        json!(tags.split(';').filter(|tag| !tag.is_empty()).collect::<Vec<_>>())
    }

    /// Returns the interfaces. Their addresses are the guest's affair and not seen here.
    fn networks(&self, vm: &Vm) -> Value {
        let mut networks = Vec::new();
        for n in 0..32 {
            let key = format!("net{n}");
            let Some(text) = self.get(&key) else {
                // A gap cannot be said as inputs have it.
                if n < vm.networks.len() {
                    networks.push(Value::Null);
                }
                continue;
            };
            let part = |name: &str| config::part(&key, text, name);
            let number = |name: &str| part(name).and_then(|text| text.parse::<u16>().ok());
            let address: Option<Address> = vm.networks.get(n).and_then(|network| network.address);
            networks.push(json!({
                "bridge": part("bridge"),
                "vlan": number("tag"),
                "mac": part("macaddr"),
                "address": address,
                "firewall": part("firewall").is_some(),
                "mtu": number("mtu"),
            }));
        }
        Value::Array(networks)
    }

    fn disks(&self, vm: &Vm) -> Value {
        let live = vm.disks.iter().map(|(slot, disk)| {
            let live = match self.disk(*slot) {
                Some(there) => there.live(*slot, disk),
                None => Value::Null,
            };
            (slot.to_string(), live)
        });
        Value::Object(live.collect())
    }
}

impl There {
    fn read(text: &str) -> There {
        let parts = crate::property::parse(text, "file");
        let volume = parts.get("file").or_else(|| parts.get("volume")).cloned().unwrap_or_default();
        There { volume, bytes: parts.get("size").and_then(|size| size::parse(size)), text: text.to_owned() }
    }

    fn live(&self, slot: Slot, disk: &Disk) -> Value {
        let key = slot.to_string();
        let part = |name: &str| config::part(&key, &self.text, name);
        let gib = self.bytes.filter(|bytes| bytes % (1 << 30) == 0).map(|bytes| bytes >> 30);
        json!({
            // What is no whole number of GiB was not made by us, and is grown to one.
            "size": gib.or(self.bytes.map(|bytes| bytes.div_ceil(1 << 30))).unwrap_or(u64::from(disk.size.0)),
            "discard": part("discard").is_some_and(|discard| discard == "on"),
            "ssd": part("ssd").is_some(),
            "io_thread": part("iothread").is_some(),
            "backup": part("backup").is_none(),
        })
    }
}

impl Vm {
    /// Looks for the machine wherever it is.
    pub(crate) async fn look(client: &Client, vmid: u32) -> Result<Option<Sight>> {
        let Some(place) = client.locate(vmid).await? else { return Ok(None) };
        if !place.vm {
            return Err(Error::invalid(format!("the machine with the number {vmid} is a container")));
        }
        let node = place.node.clone();
        match Sight::of(client, vmid, place).await? {
            Some(sight) => Ok(Some(sight)),
            // The list lags behind a migration, and behind the end of a machine.
            None => {
                Err(Error::again(format!("VM {vmid} is listed on {node} and is not there: it is moving, or going")))
            }
        }
    }
}

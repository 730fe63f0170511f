//! Changing a machine's configuration: what is in force at once and what waits for the next start.

use super::api::nothing;
use super::cluster::memory;
use super::datacenter::Datacenter;
use super::drive::Drive;
use super::refusal::{Answer, Refusal};
use super::request::Request;
use super::schema::{self, Args};
use super::state::State;
use super::vm::{self, Config, Pending, Vm};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How long Proxmox waits for another's hold on a machine's configuration.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Parameters of a change that are no keys of the configuration.
const CONTROL: [&str; 19] = [
    "node",
    "vmid",
    "digest",
    "delete",
    "revert",
    "force",
    "skiplock",
    "background_delay",
    "import-working-storage",
    "archive",
    "unique",
    "storage",
    "pool",
    "start",
    "bwlimit",
    "live-restore",
    "ha-managed",
    "cdrom",
    "extended",
];

/// In force at once, whether the machine runs or not.
const LIVE: [&str; 11] = [
    "description",
    "hookscript",
    "lock",
    "migrate_downtime",
    "migrate_speed",
    "name",
    "onboot",
    "protection",
    "shares",
    "startup",
    "tags",
];

/// What a request wants of a configuration.
pub(super) struct Change {
    pub(super) set: BTreeMap<String, String>,
    pub(super) drives: BTreeMap<String, Drive>,
    delete: Vec<String>,
    revert: Vec<String>,
    force: bool,
    digest: Option<String>,
}

impl Change {
    pub(super) fn read(request: &Request, args: &Args) -> Result<Change, Refusal> {
        for root in ["skiplock"] {
            if args.flag(root) {
                return Err(Refusal::parameter(root, "Only root may use this option."));
            }
        }
        for absent in ["background_delay", "import-working-storage", "cdrom"] {
            if args.has(absent) {
                return Err(Refusal::not_simulated(format!("the parameter {absent}")));
            }
        }
        let keys = args.texts().filter(|(key, _)| !CONTROL.contains(key));
        let mut set = BTreeMap::new();
        let mut drives = BTreeMap::new();
        for (key, value) in keys {
            if vm::is_drive(key) {
                drives.insert(key.to_owned(), Drive::read(key, value)?);
            }
            set.insert(key.to_owned(), normal(&request.datacenter, key, value)?);
        }
        let delete = args.list("delete");
        if let Some(key) = delete.iter().find(|key| set.contains_key(*key)) {
            let text = format!("you can't use '-{key}' and -delete {key}' at the same time");
            return Err(Refusal::parameter("delete", text));
        }
        Ok(Change {
            set,
            drives,
            delete,
            revert: args.list("revert"),
            force: args.flag("force"),
            digest: args.text("digest").map(str::to_owned),
        })
    }

    /// Refuses what the token may not do and what no storage can give.
    pub(super) fn allowed(&self, request: &Request, id: u32, state: &State) -> Result<(), Refusal> {
        let set = self.set.iter().map(|(key, value)| (key.as_str(), Some(value.as_str())));
        let deleted = self.delete.iter().chain(&self.revert).map(|key| (key.as_str(), None));
        request.token.check_keys(id, set.chain(deleted), state)?;
        for drive in self.drives.values() {
            if let Some((storage, privilege)) = drive.needs() {
                request.token.demand_any(
                    &format!("/storage/{storage}"),
                    &[privilege, "Datastore.AllocateSpace"],
                    None,
                )?;
            }
            drive.possible(state, request.node())?;
        }
        Ok(())
    }

    pub(super) fn cost(&self) -> Duration {
        self.drives.values().map(Drive::cost).sum()
    }

    fn check(&self, machine: &Vm) -> Result<(), Refusal> {
        machine.unlocked()?;
        if self.digest.as_ref().is_some_and(|digest| *digest != machine.digest()) {
            return Err(Refusal::died("checksum mismatch (file change by other user?)"));
        }
        Ok(())
    }
}

/// PUT .../config
pub(super) async fn update(request: &Request, args: &Args) -> Answer {
    let id = args.vm();
    let change = Change::read(request, args)?;
    begin(request, id, &change)?;
    let datacenter = &request.datacenter;
    let lock = datacenter.lock(id, datacenter.clock.patience(PATIENCE)).await?;
    datacenter.clock.sleep(change.cost()).await;
    carry_out(datacenter, request.node(), id, &change)?;
    drop(lock);
    nothing()
}

/// POST .../config
pub(super) async fn update_task(request: &Request, args: &Args) -> Answer {
    let id = args.vm();
    let change = Change::read(request, args)?;
    begin(request, id, &change)?;
    let node = request.node().to_owned();
    let work = move |worker: super::task::Worker| async move {
        let datacenter = worker.datacenter.clone();
        let _lock = worker.take(id).await?;
        worker.log(format!("update VM {id}: {}", change.set.keys().cloned().collect::<Vec<_>>().join(" ")));
        worker.takes(Duration::from_secs(1) + change.cost()).await?;
        carry_out(&datacenter, &node, id, &change).map_err(|refusal| told(&refusal))
    };
    Ok(request.datacenter.begin(request, "qmconfig", &id.to_string(), work)?)
}

/// Returns what a task says that dies of a refusal.
pub(super) fn told(refusal: &Refusal) -> String {
    let mut text = refusal.message.clone();
    for (name, error) in &refusal.errors {
        text += &format!("\n{name}: {}", error.trim_end());
    }
    text
}

fn begin(request: &Request, id: u32, change: &Change) -> Result<(), Refusal> {
    let state = request.datacenter.state();
    let machine = state.vm(id, request.node())?;
    change.allowed(request, id, &state)?;
    if change.set.is_empty() && change.delete.is_empty() && change.revert.is_empty() {
        return Err(Refusal::died("no options specified"));
    }
    request.datacenter.writable()?;
    change.check(machine)
}

fn carry_out(datacenter: &Arc<Datacenter>, node: &str, id: u32, change: &Change) -> Result<(), Refusal> {
    let now = datacenter.now();
    let mut state = datacenter.state();
    let state = &mut *state;
    let machine = state.vm_mut(id, node)?;
    change.check(machine)?;
    for key in &change.revert {
        machine.pending.remove(key);
    }
    for key in &change.delete {
        let drive = machine.config.get(key).filter(|drive| vm::is_volume(key) && !vm::is_cdrom(drive));
        if drive.is_some() && machine.is_protected() {
            return Err(Refusal::died(format!("can't remove drive '{key}' - protection mode enabled")));
        }
        match machine.config.contains_key(key) {
            true => drop(machine.pending.insert(key.clone(), Pending::Delete { force: change.force })),
            // Deleting what is not set is a warning in a log.
            false => drop(machine.pending.remove(key)),
        }
    }
    let mut wanted = machine.wanted();
    wanted.extend(change.set.clone());
    plausible(&wanted, change.set.contains_key("boot"))?;
    for (key, value) in &change.set {
        let value = match change.drives.get(key) {
            Some(drive) => drive.provide(state, node, id, now)?.0,
            None => value.clone(),
        };
        state.vm_mut(id, node)?.pending.insert(key.clone(), Pending::Set(value));
    }
    apply(state, id, node)?;
    Ok(())
}

/// Brings into force what can be now: everything when it does not run, else what is live or can be plugged.
pub(super) fn apply(state: &mut State, id: u32, node: &str) -> Result<(), String> {
    let machine = state.vm(id, node)?;
    let ready: Vec<(String, Pending)> = machine
        .pending
        .iter()
        .filter(|(key, pending)| machine.running.is_none() || live(&machine.config, key, pending))
        .map(|(key, pending)| (key.clone(), pending.clone()))
        .collect();
    for (key, pending) in ready {
        let machine = state.vm_mut(id, node)?;
        machine.pending.remove(&key);
        let before = machine.config.remove(&key);
        let (after, force) = match pending {
            Pending::Set(value) => (Some(value), false),
            Pending::Delete { force } => (None, force),
        };
        if let Some(value) = &after {
            machine.config.insert(key.clone(), value.clone());
        }
        let Some(before) =
            before.filter(|before| vm::is_volume(&key) && !vm::is_cdrom(before) || ends_cloud_init(before))
        else {
            continue;
        };
        let volume = vm::volume_of(&before).to_owned();
        if after.as_deref().map(vm::volume_of) == Some(volume.as_str()) {
            continue;
        }
        let ours = state.volume(&volume, node).is_some_and(|known| known.vm == Some(id));
        if key.starts_with("unused") || force || ends_cloud_init(&before) {
            if ours {
                state.free(&volume, node)?;
            }
        } else {
            detach(&mut state.vm_mut(id, node)?.config, &volume);
        }
    }
    Ok(())
}

fn ends_cloud_init(drive: &str) -> bool {
    super::storage::own_name(vm::volume_of(drive)).contains("-cloudinit")
}

/// Notes a disk that no drive holds any more, unless it is noted.
pub(super) fn detach(config: &mut Config, volume: &str) {
    if config.values().any(|drive| vm::volume_of(drive) == volume) {
        return;
    }
    let free = (0..256).map(|index| format!("unused{index}")).find(|key| !config.contains_key(key));
    if let Some(key) = free {
        config.insert(key, volume.to_owned());
    }
}

fn live(config: &Config, key: &str, pending: &Pending) -> bool {
    let stem = key.trim_end_matches(|letter: char| letter.is_ascii_digit());
    let hotplug = config.get("hotplug").map_or("network,disk,usb", String::as_str);
    let has =
        |feature: &str| hotplug == "1" && feature != "cloudinit" || hotplug.split(',').any(|known| known == feature);
    let changes_medium = match pending {
        Pending::Set(value) => vm::is_cdrom(value) && config.get(key).is_some_and(|before| vm::is_cdrom(before)),
        Pending::Delete { .. } => false,
    };
    match stem {
        _ if LIVE.contains(&key) || key == "vmstatestorage" || stem == "unused" => true,
        "net" => has("network"),
        "scsi" | "virtio" => has("disk") && !rebuilt(config.get(key), pending),
        "balloon" => off(config.get(key).map(String::as_str)) == off(pending.value()),
        "ide" | "sata" => changes_medium,
        "cpulimit" | "cpuunits" => true,
        "ciuser" | "cipassword" | "citype" | "ciupgrade" | "cicustom" | "ipconfig" | "nameserver" | "searchdomain"
        | "sshkeys" => has("cloudinit"),
        _ => false,
    }
}

/// Whether a change of a drive is one for which its device has to be made anew.
fn rebuilt(before: Option<&String>, pending: &Pending) -> bool {
    let (Some(before), Some(after)) = (before, pending.value()) else { return false };
    let fixed = ["aio", "cache", "discard", "iothread", "product", "queues", "ro", "ssd", "vendor"];
    let same_volume = vm::volume_of(before) == vm::volume_of(after);
    same_volume && fixed.iter().any(|option| vm::drive_option(before, option) != vm::drive_option(after, option))
}

/// Whether there is no device that takes memory back from the guest.
fn off(balloon: Option<&str>) -> bool {
    balloon == Some("0")
}

/// Refuses a configuration that contradicts itself.
pub(super) fn plausible(config: &Config, order_changes: bool) -> Result<(), Refusal> {
    let balloon = config.get("balloon").and_then(|balloon| balloon.parse::<u64>().ok()).unwrap_or(0);
    if balloon << 20 > memory(config) {
        return Err(Refusal::died("balloon value too large (must be smaller than assigned memory)"));
    }
    let order = config
        .get("boot")
        .filter(|_| order_changes)
        .and_then(|boot| schema::properties("boot", boot).ok()?.remove("order"));
    for device in order.iter().flat_map(|order| order.split(';')).filter(|device| !device.is_empty()) {
        if !config.contains_key(device) {
            return Err(Refusal::died(format!("invalid bootorder: device '{device}' does not exist'")));
        }
    }
    Ok(())
}

/// Returns a value as Proxmox stores it.
pub(super) fn normal(datacenter: &Datacenter, key: &str, value: &str) -> Result<String, Refusal> {
    let stem = key.trim_end_matches(|letter: char| letter.is_ascii_digit());
    match stem {
        "tags" => {
            let mut tags: Vec<String> =
                value.split([',', ';', ' ']).filter(|tag| !tag.is_empty()).map(str::to_ascii_lowercase).collect();
            tags.sort();
            tags.dedup();
            Ok(tags.join(";"))
        }
        "net" => {
            let mut parts = schema::properties(key, value).map_err(|text| Refusal::parameter(key, text))?;
            let model = parts.remove("model").unwrap_or_default();
            let mac = parts.remove("macaddr").unwrap_or_else(|| mac(datacenter.draw()));
            let mut text = format!("{model}={}", mac.to_ascii_uppercase());
            for (name, value) in parts {
                text += &format!(",{name}={value}");
            }
            Ok(text)
        }
        _ => Ok(value.to_owned()),
    }
}

/// Returns a hardware address with the prefix of Proxmox.
pub(super) fn mac(number: u64) -> String {
    format!("BC:24:11:{:02X}:{:02X}:{:02X}", number & 0xff, number >> 8 & 0xff, number >> 16 & 0xff)
}

/// Returns what every new machine gets by itself.
pub(super) fn identity(datacenter: &Datacenter, config: &mut Config, now: SystemTime) {
    let uuid = || super::datacenter::uuid(datacenter.draw());
    config.entry("smbios1".to_owned()).or_insert_with(|| format!("uuid={}", uuid()));
    config.entry("vmgenid".to_owned()).or_insert_with(uuid);
    config
        .entry("meta".to_owned())
        .or_insert_with(|| format!("creation-qemu=10.1.2,ctime={}", super::datacenter::seconds(now)));
}

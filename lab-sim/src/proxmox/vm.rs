//! A virtual machine of the cluster: its configuration, what is pending of it, its snapshots, whether it runs.

use super::guest::Guest;
use super::storage::Data;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// How long the statistics that nodes tell each other are old at most.
const GOSSIP: Duration = Duration::from_secs(10);

/// Keys of a configuration, as Proxmox writes them to the file.
pub(super) type Config = BTreeMap<String, String>;

/// A virtual machine.
#[derive(Clone, Debug)]
pub(super) struct Vm {
    pub(super) node: String,
    /// What is in force.
    pub(super) config: Config,
    /// What waits for the next start.
    pub(super) pending: BTreeMap<String, Pending>,
    pub(super) snapshots: BTreeMap<String, Snapshot>,
    /// The snapshot that the present state came from.
    pub(super) parent: Option<String>,
    pub(super) lock: Option<&'static str>,
    pub(super) running: Option<Running>,
    /// What the other nodes still believe, and since when it is wrong.
    pub(super) rumour: (&'static str, SystemTime),
}

/// A change that is not in force yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pending {
    Set(String),
    Delete { force: bool },
}

impl Pending {
    /// Returns what it will be; nothing when it will not be.
    pub(super) fn value(&self) -> Option<&str> {
        match self {
            Pending::Set(value) => Some(value),
            Pending::Delete { .. } => None,
        }
    }
}

/// A virtual machine that runs.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) since: SystemTime,
    pub(super) pid: u64,
    pub(super) guest: Guest,
}

/// A snapshot.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) config: Config,
    pub(super) description: String,
    pub(super) time: SystemTime,
    pub(super) parent: Option<String>,
    /// With the memory of the running machine.
    pub(super) memory: bool,
    /// The size and the data of each disk.
    pub(super) disks: BTreeMap<String, (u64, Data)>,
}

impl Vm {
    pub(super) fn new(node: &str, config: Config, now: SystemTime) -> Vm {
        Vm {
            node: node.to_owned(),
            config,
            pending: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            parent: None,
            lock: None,
            running: None,
            rumour: ("unknown", now),
        }
    }

    pub(super) fn is_template(&self) -> bool {
        self.config.get("template").is_some_and(|template| template == "1")
    }

    pub(super) fn is_protected(&self) -> bool {
        self.config.get("protection").is_some_and(|protection| protection == "1")
    }

    pub(super) fn status(&self) -> &'static str {
        if self.running.is_some() { "running" } else { "stopped" }
    }

    /// Returns the status as the statistics have it.
    pub(super) fn rumoured(&self, now: SystemTime) -> &'static str {
        let (status, since) = self.rumour;
        let old = now.duration_since(since).is_ok_and(|age| age < GOSSIP);
        if old { status } else { self.status() }
    }

    /// Lets it run or not; the statistics follow later.
    pub(super) fn set_running(&mut self, running: Option<Running>, now: SystemTime) {
        self.rumour = (self.rumoured(now), now);
        self.running = running;
    }

    /// Returns the configuration with what is pending, as it is shown by default.
    pub(super) fn wanted(&self) -> Config {
        let mut config = self.config.clone();
        for (key, pending) in &self.pending {
            match pending {
                Pending::Set(value) => drop(config.insert(key.clone(), value.clone())),
                Pending::Delete { .. } => drop(config.remove(key)),
            }
        }
        config
    }

    /// Returns the digest of the configuration file. Proxmox takes the SHA-1 of the text; callers only compare it, so
    /// here it is as many digits of another hash.
    pub(super) fn digest(&self) -> String {
        let mut text = format!("{:?}{:?}{:?}{:?}", self.config, self.pending, self.parent, self.lock);
        for (name, snapshot) in &self.snapshots {
            text += &format!("[{name}]{:?}{}", snapshot.config, snapshot.description);
        }
        let bytes = Sha256::digest(text);
        bytes.iter().take(20).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Refuses what a lock forbids.
    pub(super) fn unlocked(&self) -> Result<(), String> {
        match self.lock {
            Some(lock) => Err(format!("VM is locked ({lock})")),
            None => Ok(()),
        }
    }
}

/// Whether a key of the configuration names a drive.
pub(super) fn is_drive(key: &str) -> bool {
    let stem = key.trim_end_matches(|letter: char| letter.is_ascii_digit());
    stem.len() < key.len() && ["ide", "scsi", "sata", "virtio", "efidisk", "tpmstate"].contains(&stem)
}

/// Whether a key names a drive or a disk that was detached.
pub(super) fn is_volume(key: &str) -> bool {
    is_drive(key) || key.strip_prefix("unused").is_some_and(|index| index.parse::<u32>().is_ok())
}

/// Returns the volume of a drive's text.
pub(super) fn volume_of(drive: &str) -> &str {
    let first = drive.split(',').next().unwrap_or_default();
    first.strip_prefix("file=").or_else(|| first.strip_prefix("volume=")).unwrap_or(first)
}

/// Returns an option of a drive's text.
pub(super) fn drive_option<'a>(drive: &'a str, name: &str) -> Option<&'a str> {
    drive.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
}

/// Whether a drive's text is a CD-ROM and not the cloud-init drive.
pub(super) fn is_cdrom(drive: &str) -> bool {
    drive_option(drive, "media") == Some("cdrom")
}

/// Returns the disks of a configuration: drives that are not CD-ROMs, and detached ones.
pub(super) fn disks(config: &Config) -> impl Iterator<Item = (&str, &str)> {
    let drives = config.iter().filter(|(key, drive)| is_volume(key) && !is_cdrom(drive));
    drives.map(|(key, drive)| (key.as_str(), volume_of(drive)))
}

/// Returns what is said of a drive of this size.
pub(super) fn written(size: u64) -> String {
    for (unit, letter) in [(1u64 << 40, 'T'), (1 << 30, 'G'), (1 << 20, 'M'), (1 << 10, 'K')] {
        if size >= unit && size.is_multiple_of(unit) {
            return format!("{}{letter}", size / unit);
        }
    }
    size.to_string()
}

/// Reads a size with its binary unit, in bytes.
pub(super) fn size(text: &str) -> Option<u64> {
    let text = text.strip_suffix("iB").unwrap_or(text);
    let number = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit: u64 = match &text[number.len()..] {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1 << 40,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    Some((number * unit as f64) as u64)
}

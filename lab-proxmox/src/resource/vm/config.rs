//! The configuration of a machine, key by key: what is wanted, what is there, and what has to be sent.
//!
//! Each value is read into its parts before it is compared, and only the parts that are ours are: what somebody set
//! beside them by hand stays.

use super::{Disk, Network, Source, Vm};
use crate::mark;
use crate::property::{self, Parts};
use std::collections::BTreeMap;

/// A configuration as it is there: keys and their texts.
pub(crate) type Config = BTreeMap<String, String>;

/// The one part of a value that has no others.
const WHOLE: &str = "";

/// What a network interface can be in a guest: each is also the name of a part that holds the address.
const MODELS: [&str; 5] = ["virtio", "e1000", "e1000e", "rtl8139", "vmxnet3"];

/// How the value of a key is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A text or a number.
    Plain,
    /// A truth of its own.
    Truth,
    /// A description: whether it ends in a line break says nothing.
    Text,
    /// A set of tags.
    Tags,
    /// A property string: the name of its unnamed part, and the parts that are ours.
    Parts(&'static str, &'static [&'static str]),
    /// A network interface.
    Net,
}

impl Form {
    fn of(key: &str) -> Form {
        let bus = key.trim_end_matches(|c: char| c.is_ascii_digit());
        match bus {
            "net" => Form::Net,
            "scsi" | "virtio" | "sata" => Form::Parts("file", &["discard", "ssd", "iothread", "backup"]),
            "ide" => Form::Parts("file", &["file", "media"]),
            "agent" => Form::Parts("enabled", &["enabled"]),
            "boot" => Form::Parts("legacy", &["order"]),
            "memory" => Form::Parts("current", &["current"]),
            "cpu" => Form::Parts("cputype", &["cputype"]),
            "machine" | "vga" => Form::Parts("type", &["type"]),
            "startup" => Form::Parts("order", &["order", "up", "down"]),
            "tags" => Form::Tags,
            "description" => Form::Text,
            "onboot" | "protection" | "template" => Form::Truth,
            _ => Form::Plain,
        }
    }

    /// Reads a value into its parts; parts that say what is so without them are left out.
    fn read(self, text: &str) -> Parts {
        let whole = |text: String| Parts::from([(WHOLE.to_owned(), text)]);
        match self {
            Form::Plain => whole(text.to_owned()),
            Form::Text => whole(text.trim_end().to_owned()),
            Form::Truth => match property::truth(text) {
                Some(true) => whole("1".into()),
                Some(false) | None => Parts::new(),
            },
            Form::Tags => {
                let mut tags: Vec<String> =
                    text.split([';', ',', ' ']).filter(|tag| !tag.is_empty()).map(str::to_ascii_lowercase).collect();
                tags.sort();
                tags.dedup();
                if tags.is_empty() { Parts::new() } else { whole(tags.join(";")) }
            }
            Form::Parts(unnamed, _) => tidy(property::parse(text, unnamed)),
            Form::Net => {
                let mut parts = property::parse(text, "model");
                for model in MODELS {
                    if let Some(mac) = parts.remove(model) {
                        parts.insert("model".into(), model.into());
                        parts.insert("macaddr".into(), mac.to_ascii_uppercase());
                    }
                }
                tidy(parts)
            }
        }
    }

    fn write(self, parts: &Parts) -> String {
        match self {
            Form::Plain | Form::Text | Form::Tags => parts.get(WHOLE).cloned().unwrap_or_default(),
            Form::Truth => u8::from(parts.contains_key(WHOLE)).to_string(),
            // A truth that is not said is no, and here it has to be said.
            Form::Parts(unnamed @ "enabled", _) if !parts.contains_key(unnamed) => {
                let mut parts = parts.clone();
                parts.insert(unnamed.to_owned(), "0".to_owned());
                property::print(&parts, unnamed)
            }
            Form::Parts(unnamed, _) => property::print(parts, unnamed),
            Form::Net => {
                let mut parts = parts.clone();
                let model = parts.remove("model").unwrap_or_else(|| "virtio".into());
                let first = match parts.remove("macaddr") {
                    Some(mac) => format!("{model}={mac}"),
                    None => model,
                };
                let rest = property::print(&parts, "");
                if rest.is_empty() { first } else { format!("{first},{rest}") }
            }
        }
    }

    fn ours(self, part: &str) -> bool {
        match self {
            Form::Plain | Form::Text | Form::Tags | Form::Truth => true,
            Form::Parts(_, ours) => ours.contains(&part),
            Form::Net => ["model", "macaddr", "bridge", "tag", "firewall", "mtu"].contains(&part),
        }
    }
}

/// Leaves out what is so anyway, and writes truths in one way.
fn tidy(parts: Parts) -> Parts {
    parts
        .into_iter()
        .filter_map(|(name, value)| {
            let value = match (name.as_str(), value.as_str()) {
                ("discard", "ignore") | ("replicate" | "backup", "1" | "on" | "yes" | "true") => return None,
                ("discard", _) => value,
                ("firewall" | "link_down" | "ssd" | "iothread" | "enabled" | "backup", text) => {
                    match property::truth(text) {
                        Some(false) if name != "backup" => return None,
                        Some(truth) => u8::from(truth).to_string(),
                        None => value,
                    }
                }
                _ => value,
            };
            Some((name, value))
        })
        .collect()
}

/// Returns whether `there` already says, in all that is ours, what `wanted` says.
pub(crate) fn same(key: &str, wanted: &str, there: Option<&str>) -> bool {
    let form = Form::of(key);
    let ours = |parts: Parts| -> Parts { parts.into_iter().filter(|(part, _)| form.ours(part)).collect() };
    ours(form.read(wanted)) == ours(there.map(|there| form.read(there)).unwrap_or_default())
}

/// Returns the value to send: what is wanted, with what others set beside it.
pub(crate) fn merged(key: &str, wanted: &str, there: Option<&str>) -> String {
    let form = Form::of(key);
    let mut parts: Parts = there.map(|there| form.read(there)).unwrap_or_default();
    parts.retain(|part, _| !form.ours(part));
    parts.extend(form.read(wanted));
    form.write(&parts)
}

/// Returns the value of one part of a key.
pub(crate) fn part(key: &str, text: &str, part: &str) -> Option<String> {
    Form::of(key).read(text).remove(part)
}

impl Vm {
    /// Returns every key that is stated, without disks: they have rules of their own.
    pub(crate) fn keys(&self, operation: &str) -> Config {
        let mut keys = Config::new();
        let mut put = |key: &str, value: String| {
            keys.insert(key.to_owned(), value);
        };
        put("name", self.name.clone());
        put("description", mark::write(&self.description, operation));
        put("cores", self.cores.to_string());
        put("sockets", self.sockets.to_string());
        put("cpu", self.cpu.clone());
        put("memory", self.memory.0.to_string());
        put("ostype", "l26".into());
        put("scsihw", "virtio-scsi-single".into());
        put("agent", format!("enabled={}", u8::from(self.agent)));
        put("onboot", u8::from(self.on_boot).to_string());
        put("protection", u8::from(self.protection).to_string());
        if let Some(balloon) = self.balloon {
            put("balloon", balloon.0.to_string());
        }
        if let Some(machine) = &self.machine {
            put("machine", machine.clone());
        }
        if self.serial_console {
            put("serial0", "socket".into());
            put("vga", "serial0".into());
        }
        let boot = if self.boot.is_empty() {
            self.disks.keys().take(1).map(ToString::to_string).collect()
        } else {
            self.boot.clone()
        };
        if !boot.is_empty() {
            put("boot", format!("order={}", boot.join(";")));
        }
        if !self.tags.is_empty() {
            let mut tags: Vec<String> = self.tags.iter().map(|tag| tag.to_ascii_lowercase()).collect();
            tags.sort();
            tags.dedup();
            put("tags", tags.join(";"));
        }
        if let Some(startup) = self.startup {
            let mut text = format!("order={}", startup.order);
            for (name, seconds) in [("up", startup.up), ("down", startup.down)] {
                if let Some(seconds) = seconds {
                    text.push_str(&format!(",{name}={seconds}"));
                }
            }
            put("startup", text);
        }
        if let Some(iso) = &self.iso {
            put("ide2", format!("{},media=cdrom", iso.get()));
        }
        for (n, network) in self.networks.iter().enumerate() {
            put(&format!("net{n}"), network.text());
        }
        keys
    }

    /// Returns every key and disk that a machine is made with.
    pub(crate) fn creation(&self, operation: &str) -> Vec<(String, String)> {
        let mut keys = self.keys(operation);
        if self.source == Source::Disks {
            for (slot, disk) in &self.disks {
                keys.insert(slot.to_string(), disk.creation());
            }
        }
        keys.into_iter().collect()
    }
}

impl Disk {
    /// Returns the options of a disk, as a property string without its volume.
    pub(crate) fn options(&self) -> Parts {
        let mut parts = Parts::new();
        let mut put = |name: &str, value: &str| parts.insert(name.to_owned(), value.to_owned());
        if self.discard {
            put("discard", "on");
        }
        if self.ssd {
            put("ssd", "1");
        }
        if self.io_thread {
            put("iothread", "1");
        }
        if !self.backup {
            put("backup", "0");
        }
        parts
    }

    /// Returns the value that makes the disk: of its size, or of that of the image it is made from.
    pub(crate) fn creation(&self) -> String {
        let mut parts = self.options();
        match &self.image {
            Some(image) => {
                parts.insert("file".into(), format!("{}:0", self.storage));
                parts.insert("import-from".into(), image.get().clone());
            }
            None => {
                parts.insert("file".into(), format!("{}:{}", self.storage, self.size.0));
            }
        }
        property::print(&parts, "file")
    }
}

impl Network {
    fn text(&self) -> String {
        let mut text = format!("virtio={},bridge={}", self.mac, self.bridge);
        for (name, value) in [("tag", self.vlan), ("mtu", self.mtu)] {
            if let Some(value) = value {
                text.push_str(&format!(",{name}={value}"));
            }
        }
        if self.firewall {
            text.push_str(",firewall=1");
        }
        text
    }
}

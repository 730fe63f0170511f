//! Drives: what the text of one asks for, and the volume it gets.

use super::inventory::System;
use super::refusal::Refusal;
use super::schema;
use super::state::State;
use super::storage::{Data, Volume};
use super::vm::{self, written};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// The size of a cloud-init drive, in bytes.
const CLOUD_INIT: u64 = 4 << 20;

/// What a drive's text asks for.
#[derive(Clone, Debug)]
pub(super) struct Drive {
    pub(super) key: String,
    options: BTreeMap<String, String>,
    wish: Wish,
}

#[derive(Clone, Debug)]
enum Wish {
    /// A new volume of this size, in bytes.
    New {
        storage: String,
        size: u64,
    },
    /// A new volume with the content of another.
    Import {
        storage: String,
        from: String,
    },
    CloudInit {
        storage: String,
    },
    /// A volume that is there.
    Existing(String),
    /// A CD-ROM drive without a medium.
    Empty,
}

impl Drive {
    /// Reads the text of a drive.
    pub(super) fn read(key: &str, text: &str) -> Result<Drive, Refusal> {
        let mut options = schema::properties(key, text).map_err(|text| Refusal::parameter(key, text))?;
        let file = options.remove("file").unwrap_or_default();
        let import = options.remove("import-from");
        let cdrom = options.get("media").is_some_and(|media| media == "cdrom");
        let (storage, rest) = file.split_once(':').unwrap_or(("", ""));
        let number: Option<f64> = rest.parse().ok().filter(|_| !rest.is_empty());
        let wish = match (file.as_str(), import, number) {
            ("none" | "cdrom", ..) => Wish::Empty,
            (path, ..) if path.starts_with('/') => {
                return Err(Refusal::died("Only root can pass arbitrary filesystem paths."));
            }
            (_, Some(from), Some(0.0)) if from.starts_with('/') => {
                return Err(Refusal::died(format!("Only root can pass arbitrary filesystem paths. ({from})")));
            }
            (_, Some(from), Some(0.0)) => Wish::Import { storage: storage.to_owned(), from },
            (_, Some(_), _) => {
                let text = "'import-from' requires special syntax - use <storage ID>:0,import-from=<source>";
                return Err(Refusal::parameter(key, text));
            }
            (_, None, Some(size)) => {
                let size = if key.starts_with("efidisk") { 528 << 10 } else { (size * (1u64 << 30) as f64) as u64 };
                Wish::New { storage: storage.to_owned(), size }
            }
            _ if rest == "cloudinit" => Wish::CloudInit { storage: storage.to_owned() },
            _ => {
                if rest.starts_with("iso/") && !cdrom {
                    return Err(Refusal::parameter(key, "explicit 'media=cdrom' is required for iso images"));
                }
                Wish::Existing(file)
            }
        };
        Ok(Drive { key: key.to_owned(), options, wish })
    }

    /// Returns what has to be allowed on which storage.
    pub(super) fn needs(&self) -> Option<(&str, &'static str)> {
        match &self.wish {
            Wish::New { storage, .. } | Wish::Import { storage, .. } | Wish::CloudInit { storage } => {
                Some((storage, "Datastore.AllocateSpace"))
            }
            Wish::Existing(volume) => volume.split_once(':').map(|(storage, _)| (storage, "Datastore.Audit")),
            Wish::Empty => None,
        }
    }

    /// Refuses what cannot be had on a node.
    pub(super) fn possible(&self, state: &State, node: &str) -> Result<(), String> {
        match &self.wish {
            Wish::New { storage, .. } | Wish::CloudInit { storage } => {
                images(state, storage, node)?;
            }
            Wish::Import { storage, from } => {
                images(state, storage, node)?;
                let (source, _) = from.split_once(':').unwrap_or((from, ""));
                state.storage(source, node)?;
                let volume = state.volume(from, node).ok_or_else(|| format!("volume '{from}' does not exist"))?;
                if !["images", "import"].contains(&volume.content) {
                    return Err(format!(
                        "{}: cannot import from '{from}': content type '{}' is not 'images' or 'import'",
                        self.key, volume.content
                    ));
                }
            }
            Wish::Existing(volume) => {
                let (storage, _) = volume.split_once(':').unwrap_or((volume, ""));
                state.storage(storage, node)?;
                if self.options.get("media").is_none_or(|media| media != "cdrom")
                    && state.volume(volume, node).is_none()
                {
                    return Err(format!("volume '{volume}' does not exist"));
                }
            }
            Wish::Empty => {}
        }
        Ok(())
    }

    /// Returns how long it takes until the volume is there.
    pub(super) fn cost(&self) -> Duration {
        match self.wish {
            Wish::New { .. } | Wish::CloudInit { .. } => Duration::from_secs(1),
            Wish::Import { .. } => Duration::from_secs(25),
            Wish::Existing(_) | Wish::Empty => Duration::ZERO,
        }
    }

    /// Makes the volume and returns the text for the configuration, and the volume when it is new.
    pub(super) fn provide(
        &self,
        state: &mut State,
        node: &str,
        id: u32,
        now: SystemTime,
    ) -> Result<(String, Option<String>), String> {
        self.possible(state, node)?;
        let mut options = self.options.clone();
        let format = options.remove("format");
        let (volume, new) = match &self.wish {
            Wish::Empty => ("none".to_owned(), None),
            Wish::Existing(volume) => {
                if let Some(known) = state.volume(volume, node) {
                    options.insert("size".to_owned(), written(known.size));
                }
                (volume.clone(), None)
            }
            Wish::CloudInit { storage } => {
                let volume = cloud_init(state, storage, node, id, now)?;
                options.insert("media".to_owned(), "cdrom".to_owned());
                (volume.clone(), Some(volume))
            }
            Wish::New { storage, size } => {
                let volume = allocate(state, storage, node, id, *size, format.as_deref(), Data::default(), now)?;
                options.insert("size".to_owned(), written(*size));
                (volume.clone(), Some(volume))
            }
            Wish::Import { storage, from } => {
                let source = state.volume(from, node).ok_or_else(|| format!("volume '{from}' does not exist"))?;
                let size = source.data.image.unwrap_or(source.size);
                let data = Data { bytes: None, sha256: None, image: None, ..source.data.clone() };
                let volume = allocate(state, storage, node, id, size, format.as_deref(), data, now)?;
                options.insert("size".to_owned(), written(size));
                (volume.clone(), Some(volume))
            }
        };
        let mut text = volume;
        for (key, value) in &options {
            text += &format!(",{key}={value}");
        }
        Ok((text, new))
    }
}

/// Refuses a storage that does not take disks of machines.
pub(super) fn images(state: &State, storage: &str, node: &str) -> Result<(), String> {
    if !state.storage(storage, node)?.holds("images") {
        return Err(format!("storage '{storage}' does not support vm images"));
    }
    Ok(())
}

/// Makes a disk for a machine; returns its volume identifier.
#[expect(clippy::too_many_arguments, reason = "each is a fact of the one disk that is made")]
pub(super) fn allocate(
    state: &mut State,
    storage: &str,
    node: &str,
    id: u32,
    size: u64,
    format: Option<&str>,
    data: Data,
    now: SystemTime,
) -> Result<String, String> {
    images(state, storage, node)?;
    let definition = state.storage(storage, node)?;
    let formats = definition.formats();
    let format = match format {
        Some(wanted) => {
            *formats.iter().find(|known| **known == wanted).ok_or_else(|| format!("unsupported format '{wanted}'"))?
        }
        None => definition
            .options
            .get("format")
            .and_then(|wanted| formats.iter().find(|known| *known == wanted))
            .copied()
            .unwrap_or(if definition.is_files() { "qcow2" } else { "raw" }),
    };
    // A ZFS volume reserves its size; the others are thin.
    let reserved = definition.kind == "zfspool" && !definition.options.contains_key("sparse");
    let (limit, name) = (definition.size, state.free_name(storage, node, id, format));
    if reserved {
        let taken: u64 = state.volumes_on(storage, node).map(|(_, volume)| volume.size).sum();
        if taken + size > limit {
            let dataset = name.split_once(':').map_or(name.as_str(), |(_, name)| name);
            return Err(format!("zfs error: cannot create 'rpool/data/{dataset}': out of space"));
        }
    }
    let place = state.place(&name, node);
    let volume = Volume { content: "images", format, size, vm: Some(id), parent: None, since: now, data };
    state.volumes.insert(place, volume);
    Ok(name)
}

/// Makes a cloud-init drive for a machine; returns its volume identifier.
pub(super) fn cloud_init(
    state: &mut State,
    storage: &str,
    node: &str,
    id: u32,
    now: SystemTime,
) -> Result<String, String> {
    images(state, storage, node)?;
    let name = match state.storage(storage, node)?.is_files() {
        true => format!("{storage}:{id}/vm-{id}-cloudinit.qcow2"),
        false => format!("{storage}:vm-{id}-cloudinit"),
    };
    let place = state.place(&name, node);
    if state.volumes.contains_key(&place) {
        return Err(format!("unable to create cloud-init drive: volume '{name}' already exists"));
    }
    let volume = Volume {
        content: "images",
        format: "raw",
        size: CLOUD_INIT,
        vm: Some(id),
        parent: None,
        since: now,
        data: Data::default(),
    };
    state.volumes.insert(place, volume);
    Ok(name)
}

impl Volume {
    /// Returns a disk that was there before.
    pub(super) fn disk(size: u64, id: u32, system: System, now: SystemTime) -> Volume {
        let data = Data { system, ..Data::default() };
        Volume { content: "images", format: "raw", size, vm: Some(id), parent: None, since: now, data }
    }
}

impl State {
    /// Frees a volume, unless another one is based on it.
    pub(super) fn free(&mut self, volume: &str, node: &str) -> Result<(), String> {
        let place = self.place(volume, node);
        let based =
            self.volumes.iter().any(|((_, at), other)| at == &place.1 && other.parent.as_deref() == Some(volume));
        if based {
            return Err(format!("base volume '{volume}' is still in use by linked clones"));
        }
        self.discard(&place);
        Ok(())
    }

    /// Frees the volumes that the drives of a configuration name and that belong to this machine.
    pub(super) fn free_all(&mut self, config: &vm::Config, id: u32, node: &str) {
        let owned: Vec<String> = config
            .iter()
            .filter(|(key, _)| vm::is_volume(key))
            .map(|(_, drive)| vm::volume_of(drive).to_owned())
            .filter(|volume| self.volume(volume, node).is_some_and(|known| known.vm == Some(id)))
            .collect();
        for volume in owned {
            // One that others are based on was refused before.
            let _ = self.free(&volume, node);
        }
    }
}

//! Storages and what lies on them.

use super::guest::Disk;
use super::inventory::{Image, Storage, StorageKind, System};
use super::state::State;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

/// A storage, as `/etc/pve/storage.cfg` defines it.
#[derive(Clone, Debug)]
pub(super) struct Definition {
    /// Its type, in Proxmox' words.
    pub(super) kind: String,
    pub(super) content: Vec<String>,
    pub(super) size: u64,
    pub(super) nodes: Vec<String>,
    pub(super) disabled: bool,
    /// One place for all nodes.
    pub(super) shared: bool,
    pub(super) options: BTreeMap<String, String>,
    /// Its password; it is never shown.
    pub(super) password: Option<String>,
}

/// Where a volume lies: its storage, and the node for local storages, else nothing.
pub(super) type Place = (String, String);

/// A volume.
#[derive(Clone, Debug)]
pub(super) struct Volume {
    pub(super) content: &'static str,
    pub(super) format: &'static str,
    /// Its size as the guest sees it, in bytes; of a file that is no disk, its length.
    pub(super) size: u64,
    /// The machine it belongs to.
    pub(super) vm: Option<u32>,
    /// The base of a linked clone.
    pub(super) parent: Option<String>,
    pub(super) since: SystemTime,
    pub(super) data: Data,
}

/// What is in a volume.
#[derive(Clone, Debug, Default)]
pub(super) struct Data {
    /// The bytes, of a file that was uploaded.
    pub(super) bytes: Option<Arc<Vec<u8>>>,
    pub(super) sha256: Option<String>,
    /// The size of the disk in it, where it is an image.
    pub(super) image: Option<u64>,
    pub(super) system: System,
    /// What a guest that booted from it left there.
    pub(super) disk: Disk,
}

impl Definition {
    pub(super) fn of(storage: &Storage) -> Definition {
        Definition {
            kind: storage.kind.name().to_owned(),
            content: storage.content.clone(),
            size: storage.size,
            nodes: storage.nodes.clone(),
            disabled: false,
            shared: matches!(storage.kind, StorageKind::Nfs | StorageKind::Cifs | StorageKind::Pbs),
            options: storage.options.clone(),
            password: None,
        }
    }

    /// Whether volumes are files in directories.
    pub(super) fn is_files(&self) -> bool {
        ["dir", "nfs", "cifs"].contains(&self.kind.as_str())
    }

    pub(super) fn holds(&self, content: &str) -> bool {
        self.content.iter().any(|kind| kind == content)
    }

    pub(super) fn on(&self, node: &str) -> bool {
        self.nodes.is_empty() || self.nodes.iter().any(|known| known == node)
    }

    /// Returns what a storage of this type can hold at all.
    pub(super) fn possible(kind: &str) -> &'static [&'static str] {
        match kind {
            "dir" | "nfs" | "cifs" => &["images", "rootdir", "vztmpl", "iso", "backup", "snippets", "import", "none"],
            "lvm" | "lvmthin" | "zfspool" | "rbd" => &["images", "rootdir", "none"],
            "pbs" => &["backup", "none"],
            _ => &[],
        }
    }

    /// Returns the formats that disks can have on a storage of this type, the default first.
    pub(super) fn formats(&self) -> &'static [&'static str] {
        if self.is_files() { &["raw", "qcow2", "vmdk"] } else { &["raw"] }
    }

    /// Whether a snapshot of a disk in this format is possible.
    pub(super) fn snapshots(&self, format: &str) -> bool {
        match self.kind.as_str() {
            "lvmthin" | "zfspool" | "rbd" => true,
            _ => self.is_files() && format == "qcow2",
        }
    }
}

impl Volume {
    /// Returns the volume of a file that is there already.
    pub(super) fn image(content: &'static str, image: &Image, now: SystemTime) -> Volume {
        let name = file_name(&image.url);
        Volume {
            content,
            format: format_of(name, content),
            size: image.size,
            vm: None,
            parent: None,
            since: now,
            data: Data {
                bytes: None,
                sha256: Some(image.sha256.to_ascii_lowercase()),
                image: Some(image.disk),
                system: image.system.clone(),
                disk: Disk::default(),
            },
        }
    }
}

/// Returns the last part of a path or an address.
pub(super) fn file_name(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}

/// Returns what a file with this name is, and its name as Proxmox would keep it.
pub(super) fn format_of(name: &str, content: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or_default() {
        "qcow2" => "qcow2",
        "vmdk" => "vmdk",
        "ova" => "ova",
        _ if content == "iso" => "iso",
        "zst" if content == "backup" => "vma.zst",
        _ => "raw",
    }
}

impl State {
    /// Returns a storage that a node can use.
    pub(super) fn storage(&self, id: &str, node: &str) -> Result<&Definition, String> {
        let storage = self.storages.get(id).ok_or_else(|| format!("storage '{id}' does not exist"))?;
        if storage.disabled {
            return Err(format!("storage '{id}' is disabled"));
        }
        if !storage.on(node) {
            return Err(format!("storage '{id}' is not available on node '{node}'"));
        }
        Ok(storage)
    }

    /// Returns where a volume with this identifier lies, seen from a node.
    pub(super) fn place(&self, volume: &str, node: &str) -> Place {
        let storage = volume.split(':').next().unwrap_or_default();
        let shared = self.storages.get(storage).is_some_and(|storage| storage.shared);
        (volume.to_owned(), if shared { String::new() } else { node.to_owned() })
    }

    /// Returns a volume, seen from a node. A linked clone is known by its own name and by the name with its base.
    pub(super) fn volume(&self, volume: &str, node: &str) -> Option<&Volume> {
        self.volumes.get(&self.place(volume, node))
    }

    pub(super) fn volume_mut(&mut self, volume: &str, node: &str) -> Option<&mut Volume> {
        let place = self.place(volume, node);
        self.volumes.get_mut(&place)
    }

    /// Returns the volumes of a storage, seen from a node.
    pub(super) fn volumes_on<'a>(
        &'a self,
        storage: &'a str,
        node: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Volume)> + 'a {
        let shared = self.storages.get(storage).is_some_and(|storage| storage.shared);
        let here = if shared { "" } else { node };
        let of = move |id: &str| id.split(':').next() == Some(storage);
        self.volumes
            .iter()
            .filter(move |((id, at), _)| at == here && of(id))
            .map(|((id, _), volume)| (id.as_str(), volume))
    }

    /// Returns how many bytes of a storage are taken. Thin volumes take what an installed system does.
    pub(super) fn used(&self, storage: &str, node: &str) -> u64 {
        let taken = |volume: &Volume| match volume.content {
            "images" => (volume.size / 10).max(4 << 20),
            _ => volume.size,
        };
        self.volumes_on(storage, node).map(|(_, volume)| taken(volume)).sum()
    }

    /// Returns a free name for a disk of a machine, as a volume identifier.
    pub(super) fn free_name(&self, storage: &str, node: &str, vm: u32, format: &str) -> String {
        let files = self.storages.get(storage).is_some_and(Definition::is_files);
        let taken: Vec<&str> = self.volumes_on(storage, node).map(|(id, _)| own_name(id)).collect();
        let stem = |index: u32| format!("vm-{vm}-disk-{index}");
        let free = |index: &u32| !taken.iter().any(|name| name.split('.').next() == Some(stem(*index).as_str()));
        let name = stem((0..).find(free).unwrap_or_default());
        if files { format!("{storage}:{vm}/{name}.{format}") } else { format!("{storage}:{name}") }
    }
}

/// Returns the last part of a volume identifier: without the storage, the directory and the base.
pub(super) fn own_name(volume: &str) -> &str {
    let rest = volume.split_once(':').map_or(volume, |(_, rest)| rest);
    rest.rsplit('/').next().unwrap_or(rest)
}

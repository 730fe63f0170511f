//! What a simulated Proxmox cluster consists of, told by the user: hosts, storages, images, tokens.

use crate::tls;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A Proxmox cluster in the rack.
///
/// ```
/// use lab_sim::proxmox::{Cluster, Host, Image, Storage, Token};
/// use lab_sim::{Rack, gigabytes};
///
/// let cluster = Cluster {
///     hosts: vec![
///         Host { memory: 128 << 30, cores: 32, ..Host::new("pve1", "10.0.0.11".parse()?) },
///         Host { memory: 128 << 30, cores: 32, ..Host::new("pve2", "10.0.0.12".parse()?) },
///         Host { memory: 128 << 30, cores: 32, ..Host::new("pve3", "10.0.0.13".parse()?) },
///     ],
///     storages: vec![
///         Storage::directory("local", gigabytes(100)),
///         Storage::zfs("local-zfs", gigabytes(1800)),
///         Storage::nfs("nas", "10.0.0.5", gigabytes(8000)),
///     ],
///     ..Cluster::new("homelab", Token::new("lab@pve!lab", "11111111-2222-3333-4444-555555555555"))
/// };
/// assert!(cluster.fingerprint("pve1").contains(':'));
/// let rack = Rack::new().proxmox(cluster);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// The version of Proxmox VE on all hosts, `9.1.2`. Only major version 9 is simulated, and with `8.4.2`
    /// its groups of nodes for high availability in place of rules.
    pub version: String,
    /// The hosts, each with a vote.
    pub hosts: Vec<Host>,
    /// The storages, as `/etc/pve/storage.cfg` defines them.
    pub storages: Vec<Storage>,
    /// The API tokens it knows.
    pub tokens: Vec<Token>,
    /// The images that can be downloaded from the internet.
    pub downloads: Vec<Image>,
    /// Virtual machines that are there already, made by hand.
    pub guests: Vec<Guest>,
}

/// A host of a Proxmox cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its node name, without a domain.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its memory, in bytes.
    pub memory: u64,
    /// Its logical processors.
    pub cores: u32,
    /// Its bridges; all are VLAN-aware.
    pub bridges: Vec<String>,
    /// Whether it is switched on.
    pub on: bool,
}

/// A storage of a Proxmox cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Its identifier.
    pub id: String,
    /// Its type.
    pub kind: StorageKind,
    /// What it may hold, in the words of Proxmox: `images`, `iso`, `import`, `snippets`, `backup`, `rootdir`, `vztmpl`.
    pub content: Vec<String>,
    /// Its size, in bytes; of a local storage, on every host.
    pub size: u64,
    /// The hosts that have it; empty for all.
    pub nodes: Vec<String>,
    /// More of its definition, such as `server` and `export`.
    pub options: BTreeMap<String, String>,
    /// Files that lie on it already, on every host that has it.
    pub holds: Vec<Image>,
}

/// The type of a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageKind {
    /// A directory of each host.
    Directory,
    /// An LVM thin pool of each host.
    LvmThin,
    /// A ZFS pool of each host.
    Zfs,
    /// An NFS share.
    Nfs,
    /// An SMB share.
    Cifs,
    /// A Proxmox Backup Server.
    Pbs,
}

/// A disk image or an installation medium.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Where it is downloaded from; on a storage, the name of its file.
    pub url: String,
    /// Its SHA-256, in hex.
    pub sha256: String,
    /// The size of the file, in bytes.
    pub size: u64,
    /// The size of the disk in it, in bytes.
    pub disk: u64,
    /// What boots from it.
    pub system: System,
}

/// What boots from a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum System {
    /// Nothing.
    #[default]
    Nothing,
    /// An Ubuntu Server cloud image of this release, like `24.04`: it obeys cloud-init.
    Ubuntu(String),
}

/// An API token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its identifier, `user@realm!name`.
    pub id: String,
    /// Its secret, a UUID.
    pub secret: String,
    /// What it may do, as privileges by path; a deeper path replaces what a higher one grants. Empty: everything.
    pub grants: BTreeMap<String, Vec<String>>,
}

/// A virtual machine that was made by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Its identifier, 100 or more.
    pub id: u32,
    /// The host it is on.
    pub node: String,
    /// Its configuration, as Proxmox keeps it. A disk is written with its size: `scsi0: local-zfs:vm-100-disk-0,size=32G`.
    pub config: BTreeMap<String, String>,
    /// What boots from its first disk.
    pub system: System,
    /// Whether it runs.
    pub on: bool,
}

impl Cluster {
    /// Returns a cluster of Proxmox VE 9.1 without hosts and storages, that knows one token.
    pub fn new(name: &str, token: Token) -> Cluster {
        Cluster {
            name: name.to_owned(),
            version: "9.1.2".to_owned(),
            hosts: Vec::new(),
            storages: Vec::new(),
            tokens: vec![token],
            downloads: Vec::new(),
            guests: Vec::new(),
        }
    }

    /// Returns the SHA-256 fingerprint of the certificate that a host shows, in Proxmox' form. It follows from the names
    /// of the cluster and of the host.
    pub fn fingerprint(&self, host: &str) -> String {
        let address = self.hosts.iter().find(|known| known.name == host).map(|host| host.address);
        tls::proxmox(&self.name, host, address)
            .map(|issued| super::certificate::fingerprint(&issued.certificate))
            .unwrap_or_default()
    }
}

impl Cluster {
    /// Returns the SHA-256 of the certificate that a host shows.
    pub(crate) fn certificate(&self, host: &Host) -> Option<[u8; 32]> {
        let issued = tls::proxmox(&self.name, &host.name, Some(host.address)).ok()?;
        Some(super::certificate::digest(&issued.certificate))
    }

    /// Returns the certificate of the cluster's authority in PEM, `/etc/pve/pve-root-ca.pem` on its hosts.
    pub fn authority(&self) -> String {
        let Ok((certificate, _)) = tls::proxmox_authority(&self.name) else { return String::new() };
        let text = STANDARD.encode(&certificate);
        let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    }
}

impl Host {
    /// Returns a host with 64 GiB of memory, 16 logical processors and the bridge `vmbr0`, switched on.
    pub fn new(name: &str, address: IpAddr) -> Host {
        Host {
            name: name.to_owned(),
            address,
            memory: 64 << 30,
            cores: 16,
            bridges: vec!["vmbr0".to_owned()],
            on: true,
        }
    }
}

impl Storage {
    fn new(id: &str, kind: StorageKind, content: &[&str], size: u64) -> Storage {
        Storage {
            id: id.to_owned(),
            kind,
            content: content.iter().map(ToString::to_string).collect(),
            size,
            nodes: Vec::new(),
            options: BTreeMap::new(),
            holds: Vec::new(),
        }
    }

    /// Returns a directory of each host for ISO images, imports, snippets and backups; `size` in bytes.
    pub fn directory(id: &str, size: u64) -> Storage {
        let storage =
            Storage::new(id, StorageKind::Directory, &["iso", "vztmpl", "backup", "import", "snippets"], size);
        storage.option("path", &format!("/var/lib/{id}"))
    }

    /// Returns an LVM thin pool of each host for disks; `size` in bytes.
    pub fn lvm_thin(id: &str, size: u64) -> Storage {
        let storage = Storage::new(id, StorageKind::LvmThin, &["images", "rootdir"], size);
        storage.option("vgname", "pve").option("thinpool", "data")
    }

    /// Returns a ZFS pool of each host for disks; `size` in bytes.
    pub fn zfs(id: &str, size: u64) -> Storage {
        Storage::new(id, StorageKind::Zfs, &["images", "rootdir"], size).option("pool", "rpool/data")
    }

    /// Returns an NFS share of all hosts for disks and files; `size` in bytes.
    pub fn nfs(id: &str, server: &str, size: u64) -> Storage {
        let content = ["images", "iso", "import", "snippets", "backup"];
        let storage = Storage::new(id, StorageKind::Nfs, &content, size);
        storage
            .option("server", server)
            .option("export", &format!("/srv/{id}"))
            .option("path", &format!("/mnt/pve/{id}"))
    }

    /// Returns an SMB share of all hosts for files; `size` in bytes.
    pub fn cifs(id: &str, server: &str, size: u64) -> Storage {
        let storage = Storage::new(id, StorageKind::Cifs, &["iso", "import", "backup"], size);
        storage.option("server", server).option("share", id).option("path", &format!("/mnt/pve/{id}"))
    }

    /// Returns a Proxmox Backup Server; `size` in bytes.
    pub fn pbs(id: &str, server: &str, size: u64) -> Storage {
        let storage = Storage::new(id, StorageKind::Pbs, &["backup"], size);
        storage.option("server", server).option("datastore", id).option("username", "lab@pbs")
    }

    /// Adds an option to its definition.
    pub fn option(mut self, key: &str, value: &str) -> Storage {
        self.options.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Puts a file on it.
    pub fn file(mut self, image: Image) -> Storage {
        self.holds.push(image);
        self
    }
}

impl StorageKind {
    /// Returns the type as Proxmox names it.
    pub fn name(self) -> &'static str {
        match self {
            StorageKind::Directory => "dir",
            StorageKind::LvmThin => "lvmthin",
            StorageKind::Zfs => "zfspool",
            StorageKind::Nfs => "nfs",
            StorageKind::Cifs => "cifs",
            StorageKind::Pbs => "pbs",
        }
    }
}

impl Image {
    /// Returns an Ubuntu Server cloud image as it is published at `url`, with its SHA-256.
    pub fn ubuntu(release: &str, url: &str, sha256: &str) -> Image {
        Image {
            url: url.to_owned(),
            sha256: sha256.to_ascii_lowercase(),
            size: 600 << 20,
            disk: 3584 << 20,
            system: System::Ubuntu(release.to_owned()),
        }
    }
}

impl Token {
    /// Returns a token that may do everything.
    pub fn new(id: &str, secret: &str) -> Token {
        Token { id: id.to_owned(), secret: secret.to_owned(), grants: BTreeMap::new() }
    }

    /// Grants privileges on a path and below; a token with any grant has no others.
    pub fn allow(mut self, path: &str, privileges: &[&str]) -> Token {
        self.grants.insert(path.to_owned(), privileges.iter().map(ToString::to_string).collect());
        self
    }
}

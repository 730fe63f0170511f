//! What stands in the rack: the hardware inventory, told by the user.
//!
//! It is deliberately not derived from a program: a machine that the program names and that is not here does not
//! answer, as in life.

use crate::control_plane::Assets;
use crate::faults::Faults;
use crate::proxmox;
use crate::running::Running;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

/// The hardware inventory of a simulated lab.
///
/// ```
/// use lab_sim::{Contents, Disk, Machine, Rack, gigabytes};
///
/// let rack = Rack::new()
///     .machine(Machine {
///         disks: vec![Disk::nvme("/dev/nvme0n1", gigabytes(500))],
///         memory: 32 << 30,
///         cores: 16,
///         holds: Contents::Windows,
///         ..Machine::new("10.69.1.101".parse()?)
///     })
///     .nfs("10.69.1.163".parse()?, ["/mnt/media"]);
/// assert_eq!(rack.machines.len(), 1);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rack {
    /// The machines, in the order they were told.
    pub machines: Vec<Machine>,
    /// The Proxmox clusters.
    pub proxmox: Vec<proxmox::Cluster>,
    /// The NFS servers.
    pub nfs: Vec<Nfs>,
    /// Names that the lab's DNS knows.
    pub names: BTreeMap<String, IpAddr>,
}

/// One machine, booted from Talos installation media unless its disk holds Talos already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// What the label on it says; only for people.
    pub name: Option<String>,
    /// The address it gets from DHCP.
    pub address: IpAddr,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// Its memory, in bytes.
    pub memory: u64,
    /// Its logical processors.
    pub cores: u32,
    /// What is on its first disk.
    pub holds: Contents,
    /// The Talos version of the installation media it is booted from.
    pub media: String,
    /// Whether it is switched on.
    pub on: bool,
}

/// What is on a machine's first disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Nothing.
    Empty,
    /// Windows, as mini PCs are shipped; installing wipes it.
    Windows,
    /// Talos, running as the only control plane of somebody else's cluster.
    Foreign,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Its device path.
    pub path: String,
    /// Its size, in bytes.
    pub size: u64,
    /// Its kind.
    pub kind: DiskKind,
}

/// The kind of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskKind {
    /// An NVMe drive.
    Nvme,
    /// A SATA solid-state drive.
    Ssd,
    /// A hard disk.
    Hdd,
}

/// An NFS server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nfs {
    /// Its address.
    pub address: IpAddr,
    /// The directories it exports.
    pub exports: Vec<String>,
}

/// How a simulated lab runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Decides everything that is random in the world: identifiers and faults by chance. Keys are always fresh.
    pub seed: u64,
    /// How many simulated seconds pass in a second.
    pub speed: u32,
    /// What goes wrong.
    pub faults: Faults,
    /// The binaries of a real control plane, which then runs the clusters instead of the embedded stand-in. It takes its
    /// time: while one runs, ten simulated seconds pass in a second, and no more.
    pub control_plane: Option<Assets>,
}

impl Default for Options {
    /// A machine installs and boots in half a second, and nothing goes wrong.
    fn default() -> Options {
        Options { seed: 1, speed: 900, faults: Faults::none(), control_plane: None }
    }
}

impl Rack {
    /// Returns an empty rack.
    pub fn new() -> Rack {
        Rack::default()
    }

    /// Puts a machine in.
    pub fn machine(mut self, machine: Machine) -> Rack {
        self.machines.push(machine);
        self
    }

    /// Puts a Proxmox cluster in.
    pub fn proxmox(mut self, cluster: proxmox::Cluster) -> Rack {
        self.proxmox.push(cluster);
        self
    }

    /// Puts an NFS server in.
    pub fn nfs<E: Into<String>>(mut self, address: IpAddr, exports: impl IntoIterator<Item = E>) -> Rack {
        self.nfs.push(Nfs { address, exports: exports.into_iter().map(Into::into).collect() });
        self
    }

    /// Makes the lab's DNS know a name.
    pub fn name(mut self, name: impl Into<String>, address: IpAddr) -> Rack {
        self.names.insert(name.into(), address);
        self
    }

    /// Switches the lab on. It runs on the current tokio runtime until the answer is dropped.
    ///
    /// # Errors
    ///
    /// When two things claim one address, or no port of 127.0.0.1 can be listened on.
    pub async fn start(&self, options: Options) -> io::Result<Running> {
        Running::start(self, options).await
    }
}

impl Machine {
    /// Returns a machine with one empty NVMe disk of 500 GB, 16 GiB of memory and 8 cores.
    pub fn new(address: IpAddr) -> Machine {
        Machine {
            name: None,
            address,
            disks: vec![Disk::nvme("/dev/nvme0n1", gigabytes(500))],
            memory: 16 << 30,
            cores: 8,
            holds: Contents::Empty,
            media: "v1.11.6".to_owned(),
            on: true,
        }
    }
}

impl Disk {
    /// Returns an NVMe drive; `size` in bytes.
    pub fn nvme(path: &str, size: u64) -> Disk {
        Disk { path: path.to_owned(), size, kind: DiskKind::Nvme }
    }

    /// Returns a SATA solid-state drive; `size` in bytes.
    pub fn ssd(path: &str, size: u64) -> Disk {
        Disk { path: path.to_owned(), size, kind: DiskKind::Ssd }
    }

    /// Returns a hard disk; `size` in bytes.
    pub fn hdd(path: &str, size: u64) -> Disk {
        Disk { path: path.to_owned(), size, kind: DiskKind::Hdd }
    }
}

/// Returns so many gigabytes (10^9), as disks are sold, in bytes.
pub const fn gigabytes(count: u64) -> u64 {
    count * 1_000_000_000
}

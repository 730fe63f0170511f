//! What can be declared on a Proxmox VE cluster.

mod backup;
mod cloud_init;
mod entry;
mod ha;
mod image;
mod pool;
mod snapshot;
mod vm;

pub use backup::{BackupJob, BackupJobOutputs, BackupServer, BackupServerOutputs, Keep};
pub use cloud_init::{CloudInit, CloudInitOutputs};
pub use ha::{Affinity, HighAvailability, HighAvailabilityOutputs, Rule, RuleOutputs};
pub use image::{Image, ImageOutputs};
pub use pool::{Pool, PoolOutputs};
pub use snapshot::{Snapshot, SnapshotOutputs};
pub use vm::{Address, Disk, FullClone, Network, Source, Startup, Vm, VmOutputs};

//! What can be declared on a Proxmox VE cluster.

mod backup;
mod capacity;
mod cloud_init;
mod entry;
mod ha;
mod image;
mod pool;
mod segment;
mod snapshot;
#[cfg(test)]
mod valid;
mod vm;

pub use backup::{BackupJob, BackupJobOutputs, BackupServer, BackupServerOutputs, Keep};
pub use capacity::Capacity;
pub use cloud_init::{CloudInit, CloudInitOutputs};
pub use ha::{Affinity, Group, GroupOutputs, HighAvailability, HighAvailabilityOutputs, Rule, RuleOutputs};
pub use image::{Image, ImageOutputs};
pub use pool::{Pool, PoolOutputs};
pub use segment::Segment;
pub use snapshot::{Snapshot, SnapshotOutputs};
pub use vm::{Address, Disk, FullClone, Network, Source, Startup, Vm, VmOutputs};

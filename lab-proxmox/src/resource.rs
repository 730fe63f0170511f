//! What can be declared on a Proxmox VE cluster.

mod backup;
mod cloud_init;
mod ha;
mod image;
mod pool;
mod snapshot;
mod vm;

pub use backup::{BackupJob, BackupServer, Keep};
pub use cloud_init::{CloudInit, CloudInitOutputs};
pub use ha::{Affinity, HighAvailability, Rule};
pub use image::{Image, ImageOutputs};
pub use pool::Pool;
pub use snapshot::Snapshot;
pub use vm::{Address, Disk, FullClone, Network, Source, Startup, Vm, VmOutputs};

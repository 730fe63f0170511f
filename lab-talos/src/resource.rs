//! What can be declared on a [`crate::Talos`] provider.

mod bootstrap;
mod bundle;
mod etcd;
mod kubeconfig;
mod machine;

pub use bootstrap::{Bootstrap, Bootstrapped};
pub use bundle::{Bundle, BundleOutputs};
pub use etcd::EtcdHealthy;
pub use kubeconfig::{Kubeconfig, KubeconfigOutputs};
pub use machine::{Configured, Machine};

use lab_core::{Error, Op};
use std::time::{Duration, SystemTime};

/// Returns the inputs of an operation, without which nobody can get into a machine.
fn inputs<R>(op: &Op<R>) -> lab_core::Result<&R> {
    op.inputs
        .as_ref()
        .ok_or_else(|| Error::invalid("its recorded inputs can no longer be read, and they held the way in"))
}

/// Returns the seconds since 1970, as cursors hold them.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

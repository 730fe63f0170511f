//! The simulated lab: the same program, the same addresses, another network.
//!
//! A [`Rack`] says which hardware there is. Switched on, it is [`Running`]: Talos machines that install, boot, reboot
//! and form clusters, and the Kubernetes API of those clusters, in this process and behind an HTTP CONNECT proxy on
//! loopback. Providers reach it through the [`lab_core::Link`] of the running lab and cannot tell the difference;
//! `talosctl` and `kubectl` can be pointed at the proxy too.
//!
//! What is not modelled answers `Unimplemented` or 501 with its name, never success. Simulated time runs faster than
//! the wall's, and faults strike as a [`Faults`] plan says.

mod control_plane;
mod faults;
pub mod kube;
mod kubernetes;
pub mod proxmox;
mod proxy;
mod rack;
mod running;
mod simulator;
mod talos;
mod tls;
mod world;

pub use control_plane::{ASSETS_VARIABLE, Assets, ControlPlane};
pub use faults::{Call, Fault, Faults};
pub use proxy::Dialled;
pub use rack::{Contents, Disk, DiskKind, Machine, Nfs, Options, Rack, gigabytes};
pub use running::Running;

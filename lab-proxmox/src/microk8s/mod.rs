//! MicroK8s on virtual machines: a highly available cluster by cloud-init alone.
//!
//! Each machine is told at its first boot how to become a member; nothing is run in it by SSH. A guarded unit installs
//! the snap, waits for its turn and joins, and says in a file that it has. What comes later goes through the guest
//! agent: another channel, node by node, with its pods moved away; the kubeconfig; a node that leaves.
//!
//! The token needs the rights `VM.GuestAgent.Unrestricted` and `VM.GuestAgent.FileRead` (Proxmox VE 8: `VM.Monitor`).
//!
//! Going back after an upgrade: before the first node goes to another minor version, a snapshot of every machine is
//! taken. With the channel of before and `Cluster::rollback`, the next `up` stops all machines, sets all of them back
//! and starts them again: a member alone that is set back would split the history of the datastore. What the cluster has
//! stored since is lost, and the plan says so.

mod channel;
mod cluster;
mod guest;
mod rollback;
mod user_data;

pub use channel::{Addon, Channel};
pub use cluster::{CloudImage, Cluster, ClusterHandle, Node};
pub use guest::{Act, Acted, Deed, Healthy, Kubeconfig, KubeconfigOutputs, Member, MemberOutputs, Token, TokenOutputs};
pub use rollback::{Rollback, RolledBack};

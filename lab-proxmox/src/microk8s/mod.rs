//! MicroK8s on virtual machines: a highly available cluster by cloud-init alone.
//!
//! Each machine is told at its first boot how to become a member; nothing is run in it by SSH. A guarded unit installs
//! the snap, waits for its turn and joins, and says in a file that it has. What comes later goes through the guest
//! agent: another channel, node by node, with its pods moved away; the kubeconfig; a node that leaves.
//!
//! The token needs the rights `VM.GuestAgent.Unrestricted` and `VM.GuestAgent.FileRead` (Proxmox VE 8: `VM.Monitor`).
//!
//! Going back after a failed upgrade: the machines' snapshots are restored all together and with all machines stopped,
//! since a member alone that is set back splits the history of the datastore.

mod channel;
mod cluster;
mod guest;
mod user_data;

pub use channel::{Addon, Channel};
pub use cluster::{CloudImage, Cluster, ClusterHandle, Node};
pub use guest::{Act, Acted, Deed, Healthy, Kubeconfig, KubeconfigOutputs, Member, MemberOutputs, Token, TokenOutputs};

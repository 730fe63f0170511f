//! What a guest is told at its first boot, as an ISO image on a storage.

use lab_core::{Input, Secret};
use serde::{Deserialize, Serialize};

/// What cloud-init in a guest reads at its first boot (its data source `NoCloud`), as an ISO image that is built here
/// and uploaded: no snippet on a node, no SSH.
///
/// The mark is part of the file's name, so ours are told from others, and another content is always another file: it is
/// there before the machine is told of it, and the old one goes afterwards.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CloudInit {
    /// The node whose storage it goes to. On a storage that nodes share, any of them.
    pub node: String,
    /// The storage; it must allow ISO images.
    pub storage: String,
    /// The host name of the guest. The file is called after it.
    pub host: String,
    /// Which instance this is. A guest that sees another one does everything anew that is done once.
    pub instance: String,
    /// The user data: `#cloud-config` and so on.
    pub user_data: Input<Secret<String>>,
    /// The network configuration, version 2; none: the guest uses DHCP.
    pub network: Option<String>,
}

/// What a [`CloudInit`] yields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudInitOutputs {
    /// The volume for [`super::Vm::iso`].
    pub volume: String,
}

impl CloudInit {
    /// Returns what the guest `host` is told.
    pub fn new(
        node: impl Into<String>,
        storage: impl Into<String>,
        host: impl Into<String>,
        user_data: impl Into<Input<Secret<String>>>,
    ) -> CloudInit {
        let host = host.into();
        CloudInit {
            node: node.into(),
            storage: storage.into(),
            instance: host.clone(),
            host,
            user_data: user_data.into(),
            network: None,
        }
    }
}

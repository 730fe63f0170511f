//! A disk image or installation medium on a storage, downloaded by the node itself.

use serde::{Deserialize, Serialize};

/// An image that a node downloads onto one of its storages, checked against its checksum.
///
/// It is found by its file name among the contents of the storage. A file bears no mark: one that was there before is
/// somebody else's until it is imported, under the id `NODE/VOLUME`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The node that downloads it. On a storage that nodes share, any of them.
    pub node: String,
    /// The storage; it must allow this kind of content.
    pub storage: String,
    /// The name of the file: `noble-20260114.qcow2`. A disk image ends in `.qcow2`, `.raw` or `.vmdk`, a medium in
    /// `.iso` or `.img`.
    pub file: String,
    /// Where it is.
    pub url: String,
    /// The SHA-256 of the file, in hexadecimal.
    pub sha256: String,
}

/// What an [`Image`] yields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageOutputs {
    /// The volume: `local:import/noble-20260114.qcow2`.
    pub volume: String,
}

impl Image {
    /// Returns an image.
    pub fn new(
        node: impl Into<String>,
        storage: impl Into<String>,
        file: impl Into<String>,
        url: impl Into<String>,
        sha256: impl Into<String>,
    ) -> Image {
        Image { node: node.into(), storage: storage.into(), file: file.into(), url: url.into(), sha256: sha256.into() }
    }

    /// Returns the kind of content that Proxmox VE takes it for.
    pub(crate) fn content(&self) -> &'static str {
        let medium = [".iso", ".img"].iter().any(|ending| self.file.ends_with(ending));
        if medium { "iso" } else { "import" }
    }

    /// Returns the volume that the file becomes.
    pub fn volume(&self) -> String {
        format!("{}:{}/{}", self.storage, self.content(), self.file)
    }
}

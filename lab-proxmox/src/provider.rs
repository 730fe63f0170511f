//! The provider: one Proxmox VE cluster and how to get into it.

use crate::client::Client;
use crate::microk8s::{self, Act, Member, Token};
use crate::resource::{
    BackupJob, BackupServer, Capacity, CloudInit, Group, HighAvailability, Image, Pool, Rule, Segment, Snapshot, Vm,
};
use lab_core::{Error, Input, Link, Provider, Realm, Result as Outcome, Secret, Types};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

/// One Proxmox VE cluster, or a single host, and how to get into it.
///
/// Every node serves the whole API, so any endpoint will do; the others are tried when one does not answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Proxmox {
    /// What the cluster is called here. Its identity: it must stay the same as long as the cluster does.
    pub cluster: String,
    /// Where nodes serve the API, in the order in which they are tried: an address or a name, with `:PORT` when that
    /// is not 8006.
    pub endpoints: Vec<String>,
    /// An API token with its secret: `USER@REALM!TOKENID=SECRET`.
    pub token: Input<Secret<String>>,
    /// How an endpoint proves that it is one.
    pub trust: Trust,
}

/// How an endpoint proves that it is one of the cluster. That anything is accepted cannot be said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trust {
    /// Its certificate has one of these fingerprints: one for each endpoint.
    Fingerprints(Vec<Fingerprint>),
    /// Its certificate was issued, for the name it is reached by, by this authority: PEM, such as a cluster's
    /// `/etc/pve/pve-root-ca.pem`.
    Authority(String),
}

impl Proxmox {
    /// Returns a cluster that is reached at one endpoint.
    pub fn new(
        cluster: impl Into<String>,
        endpoint: impl Into<String>,
        token: impl Into<Input<Secret<String>>>,
        trust: Trust,
    ) -> Proxmox {
        Proxmox { cluster: cluster.into(), endpoints: vec![endpoint.into()], token: token.into(), trust }
    }
}

impl Provider for Proxmox {
    const NAME: &'static str = "proxmox";
    type Client = Client;

    fn realm(&self) -> Realm {
        Realm::Stated(format!("proxmox:{}", self.cluster))
    }

    async fn connect(self, link: Link) -> Outcome<Client> {
        Client::new(&self, link).map_err(|error| Error::invalid(format!("cluster {}: {error}", self.cluster)))
    }

    fn types(types: &mut Types<Proxmox>) {
        types.add::<Image>().add::<CloudInit>().add::<Pool>().add::<Vm>().add::<Snapshot>();
        types.add::<Token>().add::<Member>().add::<microk8s::Kubeconfig>().add::<Act>();
        types.add::<BackupServer>().add::<BackupJob>().add::<HighAvailability>();
        types.add::<Group>().add::<Rule>();
        types.add::<Segment>().add::<Capacity>();
    }
}

/// The SHA-256 of a certificate, as Proxmox VE shows it: `A1:B2:…`, 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Returns the fingerprint of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Fingerprint {
        Fingerprint(Sha256::digest(certificate).into())
    }
}

impl From<[u8; 32]> for Fingerprint {
    fn from(digest: [u8; 32]) -> Fingerprint {
        Fingerprint(digest)
    }
}

impl FromStr for Fingerprint {
    type Err = String;

    fn from_str(text: &str) -> Result<Fingerprint, String> {
        let wrong = || format!("{text:?} is not a SHA-256 fingerprint: 32 hexadecimal bytes with colons between them");
        let mut bytes = [0; 32];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(Fingerprint(bytes)) }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02X}", if n == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fingerprint, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_proxmox_shows_it() {
        let fingerprint = Fingerprint::of(b"a certificate");
        let text = fingerprint.to_string();
        assert_eq!(text.len(), 95);
        assert_eq!(text.parse::<Fingerprint>().unwrap(), fingerprint);
        assert_eq!(text.to_lowercase().parse::<Fingerprint>().unwrap(), fingerprint);
        for wrong in ["", "A1:B2", &text[1..], &format!("{text}:00"), &text.replace(':', "")] {
            assert!(wrong.parse::<Fingerprint>().is_err(), "{wrong}");
        }
    }
}

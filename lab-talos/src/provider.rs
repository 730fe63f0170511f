//! The provider: bare machines on one network, reached by their addresses.
//!
//! It has no credentials of its own. A cluster's secrets are made inside the graph, so each resource brings them as
//! an input; what is shared here is only the way to the machines.

use crate::client::{self, Phase, Reason};
use crate::resource::{Bootstrap, Bundle, Kubeconfig, Machine};
use crate::secrets::{Credentials, Secrets};
use lab_core::{Class, Error, Link, Provider, Realm, Result, Secret, Types};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// The machines of one network, to be run with Talos Linux.
///
/// Machines are physical and an address is what tells them apart, so the network is all the identity there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Talos {
    /// Which network the addresses belong to, for those who have several with the same ones.
    pub network: Option<String>,
}

/// The way to the machines.
pub struct Client {
    link: Link,
    /// By the digest of the bundle: reading it and issuing a certificate is not free, and every step needs both.
    known: Mutex<BTreeMap<[u8; 32], Access>>,
}

/// How to get into the machines of one cluster.
#[derive(Clone)]
pub(crate) struct Access {
    pub(crate) secrets: Arc<Secrets>,
    credentials: Credentials,
    until: SystemTime,
}

/// What a look at a machine showed.
pub(crate) enum Look {
    /// It waits for a configuration; the certificate it showed has this fingerprint.
    Maintenance(String),
    /// It is one of the cluster.
    Ours(client::Machine),
    /// It does not answer, or not in a way that proves anything.
    Silent(Error),
}

impl Provider for Talos {
    const NAME: &'static str = "talos";
    type Client = Client;

    fn realm(&self) -> Realm {
        Realm::Stated(match &self.network {
            Some(network) => format!("metal:{network}"),
            None => "metal".into(),
        })
    }

    async fn connect(self, link: Link) -> Result<Client> {
        Ok(Client { link, known: Mutex::default() })
    }

    fn types(types: &mut Types<Talos>) {
        types.add::<Bundle>().add::<Machine>().add::<Bootstrap>().add::<Kubeconfig>();
    }
}

impl Client {
    /// How long a certificate that is issued for a run may be used: a run ends before.
    const LIFETIME: Duration = Duration::from_secs(24 * 3600);
    /// How far clocks of machines may lag behind ours: some have no battery, and take a while to hear of the time.
    const SKEW: Duration = Duration::from_secs(3600);

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// Returns the way into the machines of the cluster with these secrets.
    pub(crate) fn access(&self, bundle: &Secret<String>) -> Result<Access> {
        let digest: [u8; 32] = Sha256::digest(bundle.expose()).into();
        let now = self.link.clock.now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(access) = known.get(&digest).filter(|access| now < access.until) {
            return Ok(access.clone());
        }
        // What is wrong with a bundle is said without its text.
        let secrets = Secrets::from_yaml(bundle.expose()).map_err(|error| Error::invalid(error.to_string()))?;
        let credentials = secrets
            .admin(now - Client::SKEW, Client::LIFETIME + Client::SKEW, Secrets::seed())
            .map_err(|error| Error::invalid(error.to_string()))?;
        let access = Access { secrets: Arc::new(secrets), credentials, until: now + Client::LIFETIME / 2 };
        known.insert(digest, access.clone());
        Ok(access)
    }

    /// Returns a connection to one machine of the cluster, made when it is used.
    pub(crate) fn machine(&self, address: IpAddr, access: &Access) -> Result<client::Machine> {
        client::Machine::secure(&self.link, &address.to_string(), &access.credentials).map_err(refused)
    }

    /// Looks what the machine is to the cluster.
    ///
    /// # Errors
    ///
    /// When it is somebody else's, which no second look changes.
    pub(crate) async fn look(&self, address: IpAddr, access: &Access) -> Result<Look> {
        match client::probe(&self.link, &address.to_string(), Some(&access.credentials)).await {
            Phase::Maintenance { fingerprint } => Ok(Look::Maintenance(fingerprint)),
            Phase::Ours => Ok(Look::Ours(self.machine(address, access)?)),
            Phase::Foreign(failure) if failure.reason == Reason::CertificateExpired => {
                let what = format!("{address} says that our certificate has expired; is its clock, or ours, wrong?");
                Err(Error::unauthorised(what))
            }
            Phase::Foreign(failure) => Err(Error::invalid(format!(
                "{address} already belongs to another Talos cluster: it does not accept this cluster's certificate \
                 ({failure}); reset it to maintenance mode, or give the secrets bundle of its cluster to adopt it"
            ))),
            Phase::Unreachable(failure) => Ok(Look::Silent(Error::unreachable(format!(
                "{address} does not answer as a Talos machine ({failure}); is it switched on, booted from Talos \
                 installation media or its disk, and does it have this address?"
            )))),
        }
    }
}

/// Translates the failure of a call that changes nothing.
pub(crate) fn refused(error: client::Error) -> Error {
    let class = match &error {
        client::Error::Unreachable(failure) if failure.reason == Reason::CertificateExpired => Class::Unauthorised,
        client::Error::Unreachable(_) => Class::Unreachable,
        client::Error::NotAuthorised(_) => Class::Unauthorised,
        client::Error::Invalid(_) | client::Error::Unimplemented(_) => Class::Invalid,
        client::Error::AlreadyExists(_) => Class::Conflict,
        // A resource that is not there yet comes as the machine boots.
        client::Error::Maintenance(_)
        | client::Error::FailedPrecondition(_)
        | client::Error::NotFound(_)
        | client::Error::Deadline(_)
        | client::Error::Other { .. } => Class::Again,
    };
    Error::new(class, error.to_string())
}

/// Translates the failure of a call that changes something, which says what was attempted.
pub(crate) fn failed(attempt: &str, error: client::Error) -> Error {
    let perhaps = error.may_have_effect();
    let mut error = refused(error);
    error.message = format!("{attempt}: {}", error.message);
    if perhaps { error.perhaps() } else { error }
}

//! The secrets of a cluster, as a resource: made without a call, and then kept.

use crate::config::Contract;
use crate::provider::{Client, Talos};
use crate::secrets::Secrets;
use lab_core::{Error, Found, Input, Made, Op, Resource, Result, Secret, Step};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::time::Duration;

/// How far the clocks of those may lag who have to trust a new authority: a machine that ran Windows keeps the local time,
/// until Talos hears of the right one.
const LAG: Duration = Duration::from_secs(24 * 3600);

/// The secrets of one cluster: generated once, or those of a cluster that exists.
///
/// It exists in the state only, sealed. It never changes: other secrets are another cluster. Nothing outside bears
/// witness of it, so an operation that was cut off before its end is begun anew, with other secrets that nobody used.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bundle {
    /// Which generation of defaults the cluster begins with. It stays with the cluster for life.
    pub contract: Contract,
    /// The YAML of `talosctl gen secrets`, for a cluster that exists.
    pub existing: Option<Input<Secret<String>>>,
}

/// What a [`Bundle`] yields.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BundleOutputs {
    /// The bundle, as `talosctl gen secrets` writes it.
    pub yaml: Secret<String>,
    /// The certificate of the authority of the machine API, PEM.
    pub os_ca: String,
    /// Tells the cluster from all others: the digest of that certificate, in hexadecimal digits.
    pub fingerprint: String,
    /// The generation of defaults that the cluster began with.
    pub contract: Contract,
}

impl Bundle {
    fn made(&self, secrets: &Secrets) -> Made<BundleOutputs> {
        let digest = Sha256::digest(&secrets.os.crt);
        let fingerprint: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        let outputs = BundleOutputs {
            yaml: Secret::new(secrets.to_yaml()),
            os_ca: secrets.os.crt.clone(),
            fingerprint: fingerprint.clone(),
            contract: self.contract,
        };
        Made::new(fingerprint, outputs)
    }

    fn given(&self) -> Result<Option<Made<BundleOutputs>>> {
        let Some(existing) = &self.existing else { return Ok(None) };
        let secrets = Secrets::from_yaml(existing.get().expose()).map_err(|error| Error::invalid(error.to_string()))?;
        Ok(Some(self.made(&secrets)))
    }
}

impl Resource<Talos> for Bundle {
    const TYPE: &'static str = "talos:secrets";
    const ONCE: bool = true;
    const GENERATED: bool = true;
    type Outputs = BundleOutputs;

    async fn find(_: &Client, _: &Op<Bundle>) -> Result<Found<BundleOutputs>> {
        // It is kept in the state only, where the engine looks by itself.
        Ok(Found::Absent)
    }

    async fn apply(&self, client: &Client, _: &Op<Bundle>) -> Result<Step<BundleOutputs>> {
        if let Some(made) = self.given()? {
            return Ok(Step::Done(made));
        }
        let from = client.link().clock.now() - LAG;
        // The operation's own randomness is stored in clear. The search for primes takes its time on a thread.
        let secrets = tokio::task::spawn_blocking(move || Secrets::generate(Secrets::seed(), from))
            .await
            .map_err(|error| Error::again(format!("generating secrets: {error}")))?;
        Ok(Step::Done(self.made(&secrets)))
    }

    async fn delete(_: &Client, _: &Op<Bundle>) -> Result<Step<()>> {
        Ok(Step::gone())
    }
}

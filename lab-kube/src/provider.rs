//! One cluster and how to get into it.

use crate::client::Client;
use crate::object::Object;
use lab_core::{Input, Link, Provider, Realm, Result, Secret, Types, Urn};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One Kubernetes cluster: where its objects live, and the kubeconfig that leads there.
///
/// The kubeconfig is resolved anew at every run and is part of no diff, so its certificates may be renewed. It must hold
/// its credentials itself: no file, no environment variable and no program of the machine is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kubernetes {
    /// Which cluster it is, by its own identity.
    pub cluster: Which,
    /// How to get in: a kubeconfig in YAML.
    pub kubeconfig: Input<Secret<String>>,
}

/// Which cluster is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Which {
    /// The one that this resource makes: for Talos, its bootstrap. When it is made anew, so is everything in it.
    Inside(Urn),
    /// One that exists already, by a name that stays the same as long as the cluster does.
    Stated(String),
}

impl Kubernetes {
    /// Returns the cluster that a resource makes.
    ///
    /// ```
    /// use lab_core::{Output, Secret, Stack, Urn};
    /// use lab_kube::{Kubernetes, namespace};
    ///
    /// fn declare(stack: &Stack, bootstrap: &Urn, kubeconfig: Output<Secret<String>>) {
    ///     let k8s = stack.provider("homelab", Kubernetes::inside(bootstrap, kubeconfig));
    ///     k8s.resource("media").add(namespace("media"));
    /// }
    /// ```
    pub fn inside(container: &Urn, kubeconfig: impl Into<Input<Secret<String>>>) -> Kubernetes {
        Kubernetes { cluster: Which::Inside(container.clone()), kubeconfig: kubeconfig.into() }
    }

    /// Returns a cluster that exists already, under a name of your choice.
    pub fn stated(name: impl Into<String>, kubeconfig: impl Into<Input<Secret<String>>>) -> Kubernetes {
        Kubernetes { cluster: Which::Stated(name.into()), kubeconfig: kubeconfig.into() }
    }
}

impl Provider for Kubernetes {
    const NAME: &'static str = "kubernetes";
    type Client = Client;

    fn realm(&self) -> Realm {
        match &self.cluster {
            Which::Inside(container) => Realm::Inside(container.clone()),
            Which::Stated(name) => Realm::Stated(format!("kubernetes:{name}")),
        }
    }

    async fn connect(self, link: Link) -> Result<Client> {
        Ok(Client::connect(self.kubeconfig.get().expose().as_bytes(), &link)?)
    }

    fn types(types: &mut Types<Kubernetes>) {
        types.add::<Object<Value>>();
    }
}

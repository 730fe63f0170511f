//! The definitions of custom kinds that the components install, as data of the operators' own releases.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use lab_core::model::{Component, Handle, Scope};
use lab_kube::{Kubernetes, Object};

/// The custom kinds of one operator, as the files that define them; at least one. Its handle is ready when all are.
pub(crate) struct Definitions(pub(crate) &'static [&'static str]);

impl Component<Kubernetes> for Definitions {
    type Handle = Handle<lab_kube::ObjectOutputs>;

    fn declare(self, scope: &Scope<'_, Kubernetes>) -> Self::Handle {
        let mut before: Vec<Handle<lab_kube::ObjectOutputs>> = Vec::new();
        for (n, file) in self.0.iter().enumerate() {
            let definition = parse(file);
            let mut kind = scope.resource(&definition.spec.names.plural);
            // They need no order among themselves; the last one comes after all others to stand for them.
            if n + 1 == self.0.len() {
                kind = before.iter().fold(kind, |kind, other| kind.depends_on(other));
            }
            before.push(kind.add(Object::new(definition)));
        }
        before.pop().expect("an operator has custom kinds")
    }
}

/// Returns the definition in this file of `data`.
///
/// # Panics
///
/// When the file is no definition. It is part of the crate, and a test reads every one.
pub(crate) fn parse(yaml: &str) -> CustomResourceDefinition {
    serde_saphyr::from_str(yaml).expect("a definition that comes with the crate parses")
}

macro_rules! files {
    ($dir:literal: $($file:literal),+ $(,)?) => {
        [$(include_str!(concat!("../data/", $dir, "/", $file, ".yaml"))),+]
    };
}

/// MetalLB 0.14.9: all of them, since its controller and speaker watch also those of BGP.
pub(crate) const METALLB: [&str; 7] = files!("metallb":
    "metallb.io_bfdprofiles",
    "metallb.io_bgpadvertisements",
    "metallb.io_bgppeers",
    "metallb.io_communities",
    "metallb.io_ipaddresspools",
    "metallb.io_l2advertisements",
    "metallb.io_servicel2statuses",
);

/// cert-manager 1.21.1.
pub(crate) const CERT_MANAGER: [&str; 6] = files!("cert-manager":
    "acme.cert-manager.io_challenges",
    "acme.cert-manager.io_orders",
    "cert-manager.io_certificaterequests",
    "cert-manager.io_certificates",
    "cert-manager.io_clusterissuers",
    "cert-manager.io_issuers",
);

//! The definitions of custom kinds that the components install, as data of the operators' own releases.

use lab_core::model::{Component, Handle, Scope};
use lab_kube::{Kubernetes, Object};
use serde_json::Value;

/// The custom kinds of one operator, as the files that define them; at least one. Its handle is ready when all are.
pub(crate) struct Definitions(pub(crate) &'static [&'static str]);

impl Component<Kubernetes> for Definitions {
    type Handle = Handle<lab_kube::ObjectOutputs>;

    fn declare(self, scope: &Scope<'_, Kubernetes>) -> Self::Handle {
        let mut before: Vec<Handle<lab_kube::ObjectOutputs>> = Vec::new();
        for (n, file) in self.0.iter().enumerate() {
            let definition = parse(file);
            let plural = definition["spec"]["names"]["plural"].as_str().expect("a definition names its kind");
            let mut kind = scope.resource(plural);
            // They need no order among themselves; the last one comes after all others to stand for them.
            if n + 1 == self.0.len() {
                kind = before.iter().fold(kind, |kind, other| kind.depends_on(other));
            }
            before.push(kind.add(Object::new(definition)));
        }
        before.pop().expect("an operator has custom kinds")
    }
}

/// Returns the definition in this file of `data`, as it is written: k8s-openapi's type would make `1` of a minimum a
/// `1.0`, and lose what it does not know.
///
/// # Panics
///
/// When the file is no definition. It is part of the crate, and a test reads every one.
pub(crate) fn parse(yaml: &str) -> Value {
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

#[cfg(test)]
mod tests {
    use super::*;
    use lab_kube::{Kind, kinds};

    #[test]
    fn every_definition_is_of_a_kind_that_is_known() {
        for file in METALLB.iter().chain(&CERT_MANAGER) {
            let definition = parse(file);
            assert_eq!(definition["kind"], "CustomResourceDefinition");
            let defined = Kind::defined_by(&definition);
            let of = |kind: &&Kind| kinds::known(&kind.api_version(), &kind.kind).is_some_and(|known| known == **kind);
            assert!(defined.iter().any(|kind| of(&kind)), "{defined:?}");
        }
    }

    #[test]
    fn numbers_stay_as_they_are_written() {
        let pools = parse("a: {minimum: 1, default: \"1\", maximum: 1.5, pattern: 0x1}");
        assert_eq!(pools["a"].to_string(), r#"{"default":"1","maximum":1.5,"minimum":1,"pattern":1}"#);
    }
}

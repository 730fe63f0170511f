//! The configuration of a machine that belongs to somebody else's cluster.

use super::config::Config;
use crate::rack::Machine;
use crate::tls::Authority;

/// Returns the configuration of the only control plane of a cluster that nobody here has the keys of.
///
/// The service-account key is left out: nothing here signs with it, and it takes seconds to make.
pub(crate) fn foreign(machine: &Machine) -> Result<Config, String> {
    let generate = |organization, algorithm| {
        Authority::generate(Some(organization), algorithm)
            .map(|(_, certificate, key)| (certificate, key))
            .map_err(|error| error.to_string())
    };
    let (os_crt, os_key) = generate("talos", &rcgen::PKCS_ED25519)?;
    let (etcd_crt, etcd_key) = generate("etcd", &rcgen::PKCS_ECDSA_P256_SHA256)?;
    let (k8s_crt, k8s_key) = generate("kubernetes", &rcgen::PKCS_ECDSA_P256_SHA256)?;
    let address = machine.address;
    let endpoint = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
    let disk = machine.disks.first().map_or("/dev/sda", |disk| disk.path.as_str());
    let media = &machine.media;
    let text = format!(
        "version: v1alpha1
machine:
    type: controlplane
    token: foreig.nforeignforeign0
    ca:
        crt: {os_crt}
        key: {os_key}
    network:
        hostname: foreign-{}
    install:
        disk: {disk}
        image: ghcr.io/siderolabs/installer:{media}
cluster:
    id: Zm9yZWlnbiBjbHVzdGVyLCBub2JvZHkncyBrZXlzISE=
    clusterName: foreign
    controlPlane:
        endpoint: https://{endpoint}:6443
    ca:
        crt: {k8s_crt}
        key: {k8s_key}
    etcd:
        ca:
            crt: {etcd_crt}
            key: {etcd_key}
",
        address.to_string().replace(['.', ':'], "-"),
    );
    Config::decode(text.as_bytes(), 11)
}

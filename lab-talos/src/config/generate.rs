//! The generator: inputs to documents. Order of keys and presence of empty parts are those of Talos' machinery library.

use super::{ClusterConfig, Contract, Device, Interface, MachineConfig, Role, parse};
use crate::authority::Pair;
use crate::pem;
use crate::secrets::Secrets;
use crate::yaml::Yaml;

/// Returns the documents of one machine's configuration; [`Yaml::to_stream`] writes them.
///
/// # Errors
///
/// When one of the machine's own documents is not YAML.
pub fn generate(cluster: &ClusterConfig, machine: &MachineConfig, secrets: &Secrets) -> Result<Vec<Yaml>, String> {
    let main = Yaml::map([
        ("version", Yaml::from("v1alpha1")),
        ("debug", false.into()),
        ("persist", true.into()),
        ("machine", machine_section(cluster, machine, secrets)),
        ("cluster", cluster_section(cluster, machine.role, secrets)),
    ]);
    let mut documents = vec![main];
    if cluster.contract >= Contract::V1_12 {
        // The two keys exclude each other: a stated name must not come with `auto`.
        let (key, value) = match &machine.hostname {
            Some(hostname) => ("hostname", hostname.as_str()),
            None => ("auto", "stable"),
        };
        documents.push(Yaml::map([("apiVersion", "v1alpha1"), ("kind", "HostnameConfig"), (key, value)]));
    }
    for text in &machine.documents {
        documents.extend(parse(text)?);
    }
    Ok(documents)
}

/// An authority in a configuration; workers know its certificate only.
fn authority(pair: &Pair, role: Role) -> Yaml {
    let key = match role {
        Role::ControlPlane => pem::wrap(&pair.key),
        Role::Worker => String::new(),
    };
    Yaml::map([("crt", pem::wrap(&pair.crt)), ("key", key)])
}

fn machine_section(cluster: &ClusterConfig, machine: &MachineConfig, secrets: &Secrets) -> Yaml {
    let kind = match machine.role {
        Role::ControlPlane => "controlplane",
        Role::Worker => "worker",
    };
    let kubelet = Yaml::map([
        ("image", Yaml::from(format!("ghcr.io/siderolabs/kubelet:v{}", cluster.kubernetes))),
        ("defaultRuntimeSeccompProfileEnabled", true.into()),
        ("disableManifestsDirectory", true.into()),
    ]);
    let mut section = Yaml::map([
        ("type", Yaml::from(kind)),
        ("token", (&secrets.trustd_token).into()),
        ("ca", authority(&secrets.os, machine.role)),
        ("certSANs", Yaml::list(&cluster.additional_sans)),
        ("kubelet", kubelet),
        ("network", network(cluster, machine)),
        ("install", install(cluster, machine)),
        ("features", features(cluster)),
    ]);
    let mut labels = machine.node_labels.clone();
    if machine.role == Role::ControlPlane {
        labels.entry("node.kubernetes.io/exclude-from-external-load-balancers".into()).or_default();
    }
    if !labels.is_empty() {
        section.set("nodeLabels", Yaml::map(labels));
    }
    if !machine.node_annotations.is_empty() {
        section.set("nodeAnnotations", Yaml::map(machine.node_annotations.clone()));
    }
    section
}

fn network(cluster: &ClusterConfig, machine: &MachineConfig) -> Yaml {
    let mut network = Yaml::Map(Vec::new());
    if let Some(hostname) = machine.hostname.as_ref().filter(|_| cluster.contract < Contract::V1_12) {
        network.set("hostname", hostname);
    }
    if !machine.interfaces.is_empty() {
        network.set("interfaces", Yaml::list(machine.interfaces.iter().map(interface)));
    }
    if !machine.nameservers.is_empty() {
        network.set("nameservers", Yaml::list(&machine.nameservers));
    }
    network
}

fn interface(interface: &Interface) -> Yaml {
    let mut yaml = match &interface.device {
        Device::Name(name) => Yaml::map([("interface", name)]),
        Device::Mac(mac) => Yaml::map([("deviceSelector", Yaml::map([("hardwareAddr", mac)]))]),
        Device::Physical => Yaml::map([("deviceSelector", Yaml::map([("physical", true)]))]),
    };
    if !interface.addresses.is_empty() {
        yaml.set("addresses", Yaml::list(&interface.addresses));
    }
    if let Some(gateway) = &interface.gateway {
        let everywhere = if gateway.contains(':') { "::/0" } else { "0.0.0.0/0" };
        yaml.set("routes", Yaml::list([Yaml::map([("network", everywhere), ("gateway", gateway)])]));
    }
    yaml.set("dhcp", interface.dhcp);
    if let Some(address) = &interface.vip {
        yaml.set("vip", Yaml::map([("ip", address)]));
    }
    yaml
}

fn install(cluster: &ClusterConfig, machine: &MachineConfig) -> Yaml {
    let mut install = Yaml::map([("disk", &machine.install_disk)]);
    if !machine.extra_kernel_args.is_empty() {
        install.set("extraKernelArgs", Yaml::list(&machine.extra_kernel_args));
    }
    install.set("image", &machine.installer_image);
    install.set("wipe", false);
    if cluster.contract >= Contract::V1_12 {
        install.set("grubUseUKICmdline", true);
    }
    install
}

fn features(cluster: &ClusterConfig) -> Yaml {
    let mut features = Yaml::Map(Vec::new());
    if cluster.contract < Contract::V1_12 {
        for key in ["rbac", "stableHostname", "apidCheckExtKeyUsage"] {
            features.set(key, true);
        }
    }
    features.set("diskQuotaSupport", true);
    features.set("kubePrism", Yaml::map([("enabled", Yaml::from(true)), ("port", 7445.into())]));
    features.set("hostDNS", Yaml::map([("enabled", true), ("forwardKubeDNSToHost", true)]));
    features
}

fn cluster_section(cluster: &ClusterConfig, role: Role, secrets: &Secrets) -> Yaml {
    let host = host(&cluster.endpoint);
    let (pods, services) = match host.contains(':') {
        true => ("fc00:db8:10::/56", "fc00:db8:20::/112"),
        false => ("10.244.0.0/16", "10.96.0.0/12"),
    };
    let network = Yaml::map([
        ("dnsDomain", Yaml::from(&cluster.dns_domain)),
        ("podSubnets", Yaml::list([pods])),
        ("serviceSubnets", Yaml::list([services])),
    ]);
    let mut section = Yaml::map([
        ("id", Yaml::from(&secrets.cluster_id)),
        ("secret", (&secrets.cluster_secret).into()),
        ("controlPlane", Yaml::map([("endpoint", &cluster.endpoint)])),
        ("clusterName", (&cluster.name).into()),
        ("network", network),
        ("token", (&secrets.bootstrap_token).into()),
    ]);
    if role == Role::ControlPlane {
        for (key, value) in [
            ("aescbcEncryptionSecret", &secrets.aescbc_encryption_secret),
            ("secretboxEncryptionSecret", &secrets.secretbox_encryption_secret),
        ] {
            if !value.is_empty() {
                section.set(key, value);
            }
        }
    }
    section.set("ca", authority(&secrets.kubernetes, role));
    if role == Role::ControlPlane {
        let image = |name: &str| format!("registry.k8s.io/{name}:v{}", cluster.kubernetes);
        section.set("aggregatorCA", authority(&secrets.aggregator, role));
        section.set("serviceAccount", Yaml::map([("key", pem::wrap(&secrets.service_account))]));
        section.set("apiServer", api_server(cluster, host, image("kube-apiserver")));
        section.set("controllerManager", Yaml::map([("image", image("kube-controller-manager"))]));
        section.set("proxy", Yaml::map([("image", image("kube-proxy"))]));
        section.set("scheduler", Yaml::map([("image", image("kube-scheduler"))]));
    }
    let registries = Yaml::map([("kubernetes", Yaml::map([("disabled", true)])), ("service", Yaml::Map(Vec::new()))]);
    section.set("discovery", Yaml::map([("enabled", Yaml::from(true)), ("registries", registries)]));
    if role == Role::ControlPlane {
        section.set("etcd", Yaml::map([("ca", authority(&secrets.etcd, role))]));
        if cluster.allow_scheduling_on_control_planes {
            section.set("allowSchedulingOnControlPlanes", true);
        }
    }
    section
}

fn api_server(cluster: &ClusterConfig, host: &str, image: String) -> Yaml {
    let mut section = Yaml::map([("image", image)]);
    if cluster.contract < Contract::V1_12 {
        let names = [host].into_iter().chain(cluster.additional_sans.iter().map(String::as_str));
        section.set("certSANs", Yaml::list(names));
        section.set("disablePodSecurityPolicy", true);
    } else if !cluster.additional_sans.is_empty() {
        section.set("certSANs", Yaml::list(&cluster.additional_sans));
    }
    let nobody = || Yaml::List(Vec::new());
    // Talos keeps this part as a plain map, and Go writes those with sorted keys.
    let pod_security = Yaml::map([
        ("apiVersion", Yaml::from("pod-security.admission.config.k8s.io/v1alpha1")),
        (
            "defaults",
            Yaml::map([
                ("audit", "restricted"),
                ("audit-version", "latest"),
                ("enforce", "baseline"),
                ("enforce-version", "latest"),
                ("warn", "restricted"),
                ("warn-version", "latest"),
            ]),
        ),
        (
            "exemptions",
            Yaml::map([
                ("namespaces", Yaml::list(["kube-system"])),
                ("runtimeClasses", nobody()),
                ("usernames", nobody()),
            ]),
        ),
        ("kind", "PodSecurityConfiguration".into()),
    ]);
    let plugin = Yaml::map([("name", Yaml::from("PodSecurity")), ("configuration", pod_security)]);
    section.set("admissionControl", Yaml::list([plugin]));
    let policy = Yaml::map([
        ("apiVersion", Yaml::from("audit.k8s.io/v1")),
        ("kind", "Policy".into()),
        ("rules", Yaml::list([Yaml::map([("level", "Metadata")])])),
    ]);
    section.set("auditPolicy", policy);
    section
}

/// Returns the host part of a URL, without the brackets of an IPv6 address.
pub(super) fn host(url: &str) -> &str {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split('/').next().unwrap_or(authority);
    match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_an_endpoint_is_found() {
        for (url, expected) in [
            ("https://10.5.0.2:6443", "10.5.0.2"),
            ("https://k8s.example.org", "k8s.example.org"),
            ("https://[fd00::1]:6443/", "fd00::1"),
        ] {
            assert_eq!(host(url), expected);
        }
    }
}

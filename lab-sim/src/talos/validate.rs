//! What a machine says against a configuration that could be decoded.
//!
//! The texts are Talos'. Not modelled: CEL expressions of disk selectors, encryption, and what only later documents
//! than those below can get wrong.

use super::config::{Config, host};
use crate::rack::{Disk, DiskKind, Machine};
use serde_json::Value;
use std::net::IpAddr;

/// Returns the warnings, or what is wrong as one text. `installed`: install instructions are not needed any more.
pub(super) fn validate(config: &Config, installed: bool) -> Result<Vec<String>, String> {
    let mut warnings = Vec::new();
    let mut errors = Vec::new();
    if config.is_complete() {
        main(config, installed, &mut warnings, &mut errors);
    }
    for document in &config.others {
        if let Err(error) = other(document) {
            errors.push(error);
        }
    }
    joined(errors).map_or(Ok(warnings), Err)
}

/// Checks what needs the machine at hand.
pub(super) fn runtime(config: &Config, machine: &Machine) -> Result<(), String> {
    if config.is_complete() && install_disk(config, machine).is_none() {
        let wanted = config.text("machine.install.disk").map_or_else(
            || config.at("machine.install.diskSelector").map(Value::to_string).unwrap_or_default(),
            str::to_owned,
        );
        return Err(joined(vec![format!("no disks matched the expression: {wanted}")]).unwrap_or_default());
    }
    Ok(())
}

/// Returns the path of the disk that a configuration installs on, when the machine has it.
pub(super) fn install_disk(config: &Config, machine: &Machine) -> Option<String> {
    if let Some(selector) = config.at("machine.install.diskSelector").and_then(Value::as_object) {
        let matches = |(index, disk): &(usize, &Disk)| {
            selector.iter().all(|(key, wanted)| {
                let wanted = wanted.as_str().unwrap_or_default();
                match key.as_str() {
                    "type" => wanted == kind(disk),
                    "name" => wanted == disk.path,
                    "model" => wanted == model(disk),
                    "serial" => wanted == serial(fingerprint(machine), *index),
                    // A selector that is not modelled matches nothing, rather than the wrong disk.
                    _ => false,
                }
            })
        };
        return machine.disks.iter().enumerate().find(matches).map(|(_, disk)| disk.path.clone());
    }
    let wanted = config.text("machine.install.disk")?;
    machine.disks.iter().find(|disk| disk.path == wanted).map(|disk| disk.path.clone())
}

fn fingerprint(machine: &Machine) -> u64 {
    super::node::fingerprint(machine.address)
}

pub(super) fn kind(disk: &Disk) -> &'static str {
    match disk.kind {
        DiskKind::Nvme => "nvme",
        DiskKind::Ssd => "ssd",
        DiskKind::Hdd => "hdd",
    }
}

pub(super) fn model(disk: &Disk) -> &'static str {
    match disk.kind {
        DiskKind::Nvme => "SIMULATED NVME",
        DiskKind::Ssd => "SIMULATED SSD",
        DiskKind::Hdd => "SIMULATED HDD",
    }
}

pub(super) fn serial(fingerprint: u64, index: usize) -> String {
    format!("SIM{:010X}", crate::faults::mix(fingerprint ^ index as u64) >> 24)
}

/// Joins errors as Go's multierror does; `None` when there are none.
fn joined(errors: Vec<String>) -> Option<String> {
    let count = match errors.len() {
        0 => return None,
        1 => "1 error occurred:".to_owned(),
        more => format!("{more} errors occurred:"),
    };
    let list: Vec<_> = errors.iter().map(|error| format!("\t* {error}")).collect();
    Some(format!("{count}\n{}\n\n", list.join("\n")))
}

fn main(config: &Config, installed: bool, warnings: &mut Vec<String>, errors: &mut Vec<String>) {
    if config.at("persist").and_then(Value::as_bool) == Some(false) {
        errors.push(".persist should be enabled".to_owned());
    }
    if config.at("machine").is_none() {
        errors.push("machine instructions are required".to_owned());
        return;
    }
    if config.at("cluster").is_none() {
        errors.push("cluster instructions are required".to_owned());
        return;
    }
    let kind = config.text("machine.type").unwrap_or_default();
    let control_plane = matches!(kind, "controlplane" | "init");
    let has = |path| config.text(path).is_some();

    if !control_plane && config.at("cluster.etcd").is_some() {
        errors.push("etcd config is only allowed on control plane machines".to_owned());
    }
    cluster(config, control_plane, warnings, errors);

    let accepted = config.at("machine.acceptedCAs").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if !has("machine.ca.crt") && !accepted {
        errors.push("issuing CA or some accepted CAs are required (.machine.ca, machine.acceptedCAs)".to_owned());
    }
    match kind {
        "controlplane" | "init" => {
            if !has("machine.ca.crt") {
                errors.push("issuing CA is required (.machine.ca)".to_owned());
            } else if !has("machine.ca.key") {
                errors.push("issuing CA key is required for controlplane nodes (.machine.ca.key)".to_owned());
            }
        }
        "worker" | "join" | "" => {
            if kind != "worker" {
                warnings.push(format!("use \"worker\" instead of {kind:?} for machine type"));
            }
            if has("cluster.ca.key") {
                errors.push(
                    "issuing Kubernetes API CA key is not allowed on non-controlplane nodes (.cluster.ca)".to_owned(),
                );
            }
            if has("machine.ca.key") {
                errors
                    .push("issuing Talos API CA key is not allowed on non-controlplane nodes (.machine.ca)".to_owned());
            }
            if !config.virtual_addresses().is_empty() {
                errors.push("virtual (shared) IP is not allowed on non-controlplane nodes".to_owned());
            }
        }
        other => errors.push(format!("unknown machine type {other:?}")),
    }
    if !installed {
        if config.at("machine.install").is_none() {
            errors.push("install instructions are required in \"metal\" mode".to_owned());
        } else if !has("machine.install.disk") && config.at("machine.install.diskSelector").is_none() {
            errors.push("either install disk or diskSelector should be defined".to_owned());
        }
    }
    if config.at("machine.install.extensions").and_then(Value::as_array).is_some_and(|list| !list.is_empty()) {
        warnings.push(
            ".machine.install.extensions is deprecated, please see https://www.talos.dev/latest/talos-guides/install/boot-assets/"
                .to_owned(),
        );
    }
    for interface in config.at("machine.network.interfaces").and_then(Value::as_array).into_iter().flatten() {
        network_interface(interface, warnings, errors);
    }
    kubelet(config, errors);
    labels(config, errors);
    access(config, errors);
    if let Some(partitions) = config.at("machine.systemDiskEncryption").and_then(Value::as_object) {
        for (name, partition) in partitions {
            if partition["keys"].as_array().is_none_or(Vec::is_empty) {
                errors.push(format!("partition {:?}: no encryption keys provided", name.to_uppercase()));
            }
        }
    }
    if config.flag("machine.network.kubespan.enabled")
        && config.at("cluster.discovery.enabled").and_then(Value::as_bool) == Some(false)
    {
        errors.push(".cluster.discovery should be enabled when .machine.network.kubespan is enabled".to_owned());
    }
}

fn cluster(config: &Config, control_plane: bool, warnings: &mut Vec<String>, errors: &mut Vec<String>) {
    match config.text("cluster.controlPlane.endpoint") {
        None => errors.push("cluster controlplane endpoint is required".to_owned()),
        Some(endpoint) if host(endpoint).is_empty() => {
            errors.push("invalid controlplane endpoint: hostname must not be blank".to_owned());
        }
        Some(_) => {}
    }
    if config.text("cluster.ca.key").is_some() && !control_plane && !is_worker(config) {
        errors.push("cluster CA key is not allowed on non-controlplane nodes (.cluster.ca)".to_owned());
    } else if config.text("cluster.ca.key").is_some() && !control_plane {
        errors.insert(0, "cluster CA key is not allowed on non-controlplane nodes (.cluster.ca)".to_owned());
    }
    if let Some(name) = config.text("cluster.network.dnsDomain")
        && !is_dns_name(name)
    {
        errors.push(format!("{name:?} is not a valid DNS name"));
    }
    let urls = config.texts("cluster.network.cni.urls");
    match config.text("cluster.network.cni.name") {
        Some("custom") if urls.is_empty() => {
            warnings.push("\"urls\" field should not be empty for \"custom\" CNI".to_owned());
        }
        Some(name @ ("none" | "flannel")) if !urls.is_empty() => {
            errors.push(format!("\"urls\" field should be empty for {name:?} CNI"));
        }
        None | Some("flannel" | "custom" | "none") => {}
        Some(_) => errors.push("cni name should be one of [\"flannel\", \"custom\", \"none\"]".to_owned()),
    }
    let mut seen = Vec::new();
    for manifest in config.at("cluster.inlineManifests").and_then(Value::as_array).into_iter().flatten() {
        let name = manifest["name"].as_str().unwrap_or_default();
        if seen.contains(&name) {
            errors.push(format!("inline manifest name {name:?} is duplicate"));
        }
        seen.push(name);
    }
}

fn is_worker(config: &Config) -> bool {
    matches!(config.text("machine.type"), None | Some("worker" | "join"))
}

fn is_dns_name(name: &str) -> bool {
    name.len() <= 255
        && name.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_')
        })
}

fn network_interface(interface: &Value, warnings: &mut Vec<String>, errors: &mut Vec<String>) {
    let name = interface["interface"].as_str().unwrap_or_default();
    if name.is_empty() && interface.get("deviceSelector").is_none() {
        errors.push(
            "[networking.os.device.interface], [networking.os.device.deviceSelector]: required either config section to be set"
                .to_owned(),
        );
    }
    if interface["cidr"].as_str().is_some_and(|cidr| !cidr.is_empty()) {
        warnings.push(format!(
            "{name:?}: machine.network.interface.cidr is deprecated, please use machine.network.interface.addresses"
        ));
    }
    if interface.get("bond").is_some() && interface.get("bridge").is_some() {
        errors.push(format!(
            "interface has both bridge and bond sections set {name:?}: config sections are mutually exclusive"
        ));
    }
    for address in interface["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !is_cidr(address) && address.parse::<IpAddr>().is_err() {
            errors.push(format!("[networking.os.device.addresses] {name:?}: invalid CIDR address: {address}"));
        }
    }
    for (index, route) in interface["routes"].as_array().into_iter().flatten().enumerate() {
        if let Some(gateway) = route["gateway"].as_str().filter(|gateway| !gateway.is_empty())
            && gateway.parse::<IpAddr>().is_err()
        {
            errors.push(format!("[networking.os.device.route[{index}].gateway] {gateway:?}: invalid network address"));
        }
    }
}

fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let limit = match address.parse() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    length.parse::<u8>().is_ok_and(|length| length <= limit)
}

fn kubelet(config: &Config, errors: &mut Vec<String>) {
    const PROTECTED: &[&str] = &[
        "apiVersion",
        "authentication",
        "authorization",
        "cgroupRoot",
        "kind",
        "kubeletCgroups",
        "port",
        "protectKernelDefaults",
        "resolvConf",
        "rotateCertificates",
        "systemCgroups",
        "staticPodPath",
        "seccompDefault",
    ];
    for key in
        config.at("machine.kubelet.extraConfig").and_then(Value::as_object).into_iter().flatten().map(|(key, _)| key)
    {
        if PROTECTED.contains(&key.as_str()) {
            errors.push(format!("kubelet configuration field {key:?} can't be overridden"));
        }
    }
    for subnet in config.texts("machine.kubelet.nodeIP.validSubnets") {
        if !is_cidr(subnet.trim_start_matches('!')) {
            errors.push(format!("kubelet nodeIP subnet is not valid: {subnet:?}"));
        }
    }
}

fn labels(config: &Config, errors: &mut Vec<String>) {
    let wrong: Vec<String> = config
        .map("machine.nodeLabels")
        .keys()
        .filter_map(|key| {
            let name = key.rsplit('/').next().unwrap_or(key);
            let plain = |letter: char| letter.is_ascii_alphanumeric();
            let fits = !name.is_empty()
                && name.len() <= 63
                && name.starts_with(plain)
                && name.ends_with(plain)
                && name.chars().all(|letter| plain(letter) || "-_.".contains(letter));
            (!fits).then(|| format!("name {name:?} is invalid"))
        })
        .collect();
    if let Some(text) = joined(wrong) {
        errors.push(format!("invalid machine node labels: {text}"));
    }
}

fn access(config: &Config, errors: &mut Vec<String>) {
    if !config.flag("machine.features.kubernetesTalosAPIAccess.enabled") {
        return;
    }
    const ROLES: &[&str] = &["os:admin", "os:operator", "os:reader", "os:etcd:backup"];
    for role in config.texts("machine.features.kubernetesTalosAPIAccess.allowedRoles") {
        if !ROLES.contains(&role.as_str()) {
            errors.push(format!("invalid role {role:?} in allowed roles for Kubernetes Talos API Access"));
        }
    }
}

/// Checks one of the further documents.
fn other(document: &Value) -> Result<(), String> {
    let name = document["name"].as_str().unwrap_or_default();
    match document["kind"].as_str().unwrap_or_default() {
        "VolumeConfig" => {
            if !["STATE", "EPHEMERAL", "IMAGECACHE"].contains(&name) {
                return Err("only [\"STATE\" \"EPHEMERAL\" \"IMAGECACHE\"] volumes are supported".to_owned());
            }
            sizes(document)
        }
        "UserVolumeConfig" => {
            let mut wrong = Vec::new();
            if name.is_empty() {
                wrong.push("name is required".to_owned());
            }
            if name.is_empty() || name.len() > 34 {
                wrong.push("name must be between 1 and 34 characters long".to_owned());
            }
            if !name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-') {
                wrong.push(
                    "name can only contain lowercase and uppercase ASCII letters, digits, and hyphens".to_owned(),
                );
            }
            let provisioning = &document["provisioning"];
            if provisioning.get("minSize").is_none() && provisioning.get("maxSize").is_none() {
                wrong.push("min size or max size is required".to_owned());
            }
            if wrong.is_empty() { sizes(document) } else { Err(wrong.join("\n")) }
        }
        "NetworkRuleConfig" if document["portSelector"]["ports"].as_array().is_none_or(Vec::is_empty) => {
            Err("portSelector.ports is required".to_owned())
        }
        "SideroLinkConfig" => {
            let url = document["apiUrl"].as_str().unwrap_or_default();
            let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
            let path = rest.split('?').next().unwrap_or_default().split_once('/').map_or("", |(_, path)| path);
            if path.is_empty() { Ok(()) } else { Err("apiUrl path must be empty".to_owned()) }
        }
        "WatchdogTimerConfig" => {
            let timeout = document["timeout"].as_str().and_then(super::kubeconfig::duration);
            match timeout {
                Some(timeout) if timeout.as_secs() < 10 => Err("watchdog timeout: minimum value is 10s".to_owned()),
                Some(_) | None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

fn sizes(document: &Value) -> Result<(), String> {
    let size = |key: &str| document["provisioning"][key].as_str().and_then(bytes);
    match (size("minSize"), size("maxSize")) {
        (Some(least), Some(most)) if least > most => Err("min size is greater than max size".to_owned()),
        _ => Ok(()),
    }
}

/// Reads a size like `10GiB` or `20GB`.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let factor = match text[digits..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return None,
    };
    number.checked_mul(factor)
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;

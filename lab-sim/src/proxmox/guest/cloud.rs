//! What a guest is told at its first boot, and how it acts it out.

use super::super::vm::{self, Config};
use super::system::System;
use super::{Interface, iso, shell};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use std::sync::Arc;

/// What a guest is told.
pub(super) struct Seed {
    pub(super) instance: String,
    pub(super) hostname: Option<String>,
    user_data: String,
    network: Option<Value>,
}

/// Keys of a cloud-config that change nothing that is simulated.
const WITHOUT_EFFECT: [&str; 22] = [
    "package_update",
    "package_upgrade",
    "package_reboot_if_required",
    "users",
    "user",
    "password",
    "chpasswd",
    "ssh_pwauth",
    "ssh_authorized_keys",
    "disable_root",
    "ntp",
    "timezone",
    "locale",
    "growpart",
    "resize_rootfs",
    "manage_etc_hosts",
    "preserve_hostname",
    "final_message",
    "apt",
    "ssh_deletekeys",
    "keyboard",
    "prefer_fqdn_over_hostname",
];

impl System {
    /// Finds what this guest is told: a medium called `cidata`, else the options of its configuration.
    pub(super) fn seed(&self, config: &Config) -> Result<Option<Seed>, String> {
        let media = self.datacenter.media(self.id);
        for bytes in media {
            let Some(medium) = iso::read(&bytes).filter(|medium| medium.label.eq_ignore_ascii_case("cidata")) else {
                continue;
            };
            let text = |name: &str| medium.files.get(name).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            // Without both of these the data source is none.
            let (Some(user_data), Some(meta)) = (text("user-data"), text("meta-data")) else { continue };
            let meta = yaml(&meta).map_err(|problem| format!("meta-data: {problem}"))?;
            let network = match text("network-config") {
                Some(network) => Some(yaml(&network).map_err(|problem| format!("network-config: {problem}"))?),
                None => None,
            };
            let field = |name: &str| meta[name].as_str().map(str::to_owned);
            return Ok(Some(Seed {
                instance: field("instance-id").unwrap_or_else(|| "iid-datasource-none".to_owned()),
                hostname: field("local-hostname").or_else(|| field("hostname")),
                user_data,
                network,
            }));
        }
        let drive =
            config.values().any(|drive| super::super::storage::own_name(vm::volume_of(drive)).contains("-cloudinit"));
        if !drive {
            return Ok(None);
        }
        if config.contains_key("cicustom") {
            return Err("snippets of cicustom are not simulated".to_owned());
        }
        // The instance follows from the content, as with Proxmox: what changes it makes another instance.
        let keys = ["name", "ciuser", "cipassword", "sshkeys", "nameserver", "searchdomain", "ipconfig0", "net0"];
        let told: Vec<String> = keys.iter().filter_map(|key| Some(format!("{key}={}", config.get(*key)?))).collect();
        Ok(Some(Seed {
            instance: told.join(";"),
            hostname: config.get("name").cloned(),
            user_data: "#cloud-config\n{}\n".to_owned(),
            network: Some(generated(config)),
        }))
    }

    /// Acts out what it is told. What is done once is done when the instance is another one.
    pub(super) async fn set_up(self: &Arc<Self>, seed: &Seed, config: &Config) {
        let data = match user_data(&seed.user_data) {
            Ok(data) => data,
            Err(problem) => return self.refuse(&format!("user-data: {problem}")),
        };
        let interfaces = match &seed.network {
            Some(network) => match interfaces(network, config) {
                Ok(interfaces) => interfaces,
                Err(problem) => {
                    self.refuse(&format!("network-config: {problem}"));
                    Vec::new()
                }
            },
            // By DHCP; nobody in the lab gives it an address that the lab would know.
            None => Vec::new(),
        };
        if self.disk(|disk| disk.instance.as_ref() == Some(&seed.instance)) {
            return;
        }
        let hostname = data.get("hostname").or_else(|| data.get("fqdn")).and_then(Value::as_str);
        let hostname =
            hostname.map(|name| name.split('.').next().unwrap_or(name).to_owned()).or_else(|| seed.hostname.clone());
        self.disk(|disk| {
            disk.network = interfaces.clone();
            disk.hostname = hostname.unwrap_or_else(|| "ubuntu".to_owned());
            disk.files.entry("/etc/hosts".to_owned()).or_insert_with(|| "127.0.0.1 localhost\n".to_owned());
        });
        self.guest.facts().interfaces = interfaces;
        for key in data.keys() {
            let known = ["hostname", "fqdn", "write_files", "packages", "runcmd", "bootcmd"].contains(&key.as_str());
            if !known && !WITHOUT_EFFECT.contains(&key.as_str()) {
                self.refuse(&format!("user-data: the module of {key}"));
            }
        }
        self.commands(data.get("bootcmd"), "bootcmd").await;
        let files = || data.get("write_files").and_then(Value::as_array).into_iter().flatten();
        files().filter(|file| file["defer"] != true).for_each(|file| self.file(file));
        self.takes(10).await;
        let packages: Vec<&str> =
            data.get("packages").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        if !packages.is_empty() {
            self.takes(25).await;
            self.disk(|disk| disk.packages.extend(packages.iter().map(ToString::to_string)));
            if packages.contains(&"qemu-guest-agent") {
                // The package starts its unit when the device is there.
                self.disk(|disk| disk.enabled.insert("qemu-guest-agent".to_owned()));
                if self.datacenter.has_agent_device(self.id) {
                    self.begin("qemu-guest-agent");
                }
            }
        }
        files().filter(|file| file["defer"] == true).for_each(|file| self.file(file));
        self.commands(data.get("runcmd"), "runcmd").await;
        self.disk(|disk| {
            disk.instance = Some(seed.instance.clone());
            disk.files.insert("/var/lib/cloud/instance/boot-finished".to_owned(), "0\n".to_owned());
        });
    }

    fn file(&self, file: &Value) {
        let Some(path) = file["path"].as_str() else { return self.refuse("user-data: write_files without a path") };
        let content = file["content"].as_str().unwrap_or_default();
        let content = match file["encoding"].as_str() {
            None | Some("text/plain") => content.to_owned(),
            Some("b64" | "base64") => match STANDARD.decode(content.trim()) {
                Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Err(_) => return self.refuse(&format!("user-data: {path} is not base64")),
            },
            Some(other) => return self.refuse(&format!("user-data: the encoding {other} of {path}")),
        };
        if file.get("source").is_some() {
            return self.refuse(&format!("user-data: the source of {path}"));
        }
        self.put(path, &content, file["append"] == true);
    }

    async fn commands(self: &Arc<Self>, commands: Option<&Value>, module: &str) {
        for (index, command) in commands.and_then(Value::as_array).into_iter().flatten().enumerate() {
            let outcome = match command {
                Value::String(text) => shell::run(self, text, &[module.to_owned()], "").await,
                Value::Array(words) => {
                    let words: Vec<String> = words
                        .iter()
                        .map(|word| word.as_str().map_or_else(|| word.to_string(), str::to_owned))
                        .collect();
                    self.command(&words, "").await
                }
                _ => continue,
            };
            if outcome.code == 127 {
                self.refuse(&format!("{module}, entry {}: {}", index + 1, outcome.err.trim()));
            }
        }
    }
}

fn yaml(text: &str) -> Result<Value, String> {
    serde_saphyr::from_str(text).map_err(|error| error.to_string())
}

fn user_data(text: &str) -> Result<Map<String, Value>, String> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    if text.lines().next().map(str::trim) != Some("#cloud-config") {
        return Err("its first line is not #cloud-config, and nothing else is simulated".to_owned());
    }
    match yaml(text)? {
        Value::Object(map) => Ok(map),
        Value::Null => Ok(Map::new()),
        _ => Err("it is no mapping".to_owned()),
    }
}

/// Returns the hardware address of each network device of a machine, in lower case.
fn devices(config: &Config) -> Vec<String> {
    let nets = config.iter().filter(|(key, _)| super::super::power::is_net(key));
    let mac = |text: &str| text.split(',').next()?.split_once('=').map(|(_, mac)| mac.to_ascii_lowercase());
    nets.filter_map(|(_, text)| mac(text)).collect()
}

/// Returns the interfaces that a network configuration of version 2 sets up; a device that it does not match has none.
fn interfaces(network: &Value, config: &Config) -> Result<Vec<Interface>, String> {
    let network = network.get("network").unwrap_or(network);
    if network["version"] != 2 {
        return Err(format!("version {} is not simulated", network["version"]));
    }
    let devices = devices(config);
    let mut interfaces = Vec::new();
    for (id, settings) in network["ethernets"].as_object().into_iter().flatten() {
        let wanted = settings["match"]["macaddress"].as_str();
        if settings.get("set-name").is_some() && wanted.is_none() {
            return Err(format!("{id}: set-name needs match.macaddress"));
        }
        // Hardware addresses are compared as they are written: in capitals, nothing matches.
        let Some(mac) = devices.iter().find(|mac| wanted.is_none_or(|wanted| wanted == *mac)) else { continue };
        let mut addresses = Vec::new();
        for text in settings["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let parsed =
                text.split_once('/').and_then(|(address, prefix)| Some((address.parse().ok()?, prefix.parse().ok()?)));
            addresses.push(parsed.ok_or_else(|| format!("{id}: {text:?} is no address with a prefix"))?);
        }
        let name = settings["set-name"].as_str().unwrap_or(id).to_owned();
        interfaces.push(Interface { name, mac: mac.clone(), addresses });
    }
    Ok(interfaces)
}

/// Returns the network configuration that Proxmox would generate, in version 2.
fn generated(config: &Config) -> Value {
    let mut ethernets = Map::new();
    let nets = config.iter().filter(|(key, _)| super::super::power::is_net(key));
    for ((key, _), mac) in nets.zip(devices(config)) {
        let index = key.trim_start_matches("net");
        let Some(told) = config.get(&format!("ipconfig{index}")) else { continue };
        let address = vm::drive_option(told, "ip").filter(|address| address.contains('/'));
        let addresses: Vec<&str> = address.into_iter().collect();
        let name = format!("eth{index}");
        ethernets.insert(
            name.clone(),
            serde_json::json!({"match": {"macaddress": mac}, "set-name": name, "addresses": addresses}),
        );
    }
    serde_json::json!({"version": 2, "ethernets": ethernets})
}

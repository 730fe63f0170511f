//! The named formats of parameters, with the texts that refuse a value.

use regex::Regex;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::OnceLock;

/// Checks a value against a named format. A format that is not known takes any text.
pub(super) fn check(format: &str, value: &str) -> Result<(), String> {
    if let Some(element) = format.strip_suffix("-list") {
        return split_list(value).iter().try_for_each(|item| check(element, item));
    }
    if let Some(inner) = format.strip_suffix("-opt") {
        return if value.is_empty() { Ok(()) } else { check(inner, value) };
    }
    match format {
        "pve-ipv4-config" if ["dhcp", "manual"].contains(&value) => Ok(()),
        "pve-ipv4-config" => told(cidr4(value), "value does not look like a valid ipv4 network configuration"),
        "pve-ipv6-config" if ["auto", "dhcp", "manual"].contains(&value) => Ok(()),
        "pve-ipv6-config" => told(cidr6(value), "value does not look like a valid ipv6 network configuration"),
        "CIDRv4" => told(cidr4(value), "value does not look like a valid IPv4 CIDR network"),
        "CIDRv6" => told(cidr6(value), "value does not look like a valid IPv6 CIDR network"),
        "CIDR" => told(cidr4(value) || cidr6(value), "value does not look like a valid CIDR network"),
        "ipv6" => told(value.parse::<Ipv6Addr>().is_ok(), "value does not look like a valid IPv6 address"),
        "ip" => told(
            matches("ipv4", value) == Some(true) || value.parse::<Ipv6Addr>().is_ok(),
            "value does not look like a valid IP address",
        ),
        "address" => told(
            value.parse::<Ipv6Addr>().is_ok() || matches("dns-name", value) == Some(true),
            &format!("value does not look like a valid address: {value}"),
        ),
        "pve-storage-content" => told(
            ["none", "images", "rootdir", "vztmpl", "iso", "backup", "snippets", "import"].contains(&value),
            &format!("invalid content type '{value}'"),
        ),
        "pve-volume-id-or-qm-path" if ["none", "cdrom"].contains(&value) || value.starts_with('/') => Ok(()),
        "pve-volume-id-or-absolute-path" if value.starts_with('/') => Ok(()),
        "pve-volume-id-or-qm-path" | "pve-volume-id-or-absolute-path" => check("pve-volume-id", value),
        "pve-startup-order" => told(
            value.split(',').all(|part| {
                let (key, number) = part.split_once('=').unwrap_or(("order", part));
                ["order", "up", "down"].contains(&key) && digits(number)
            }),
            "unable to parse startup options",
        ),
        "pve-hotplug-features" => {
            let features = ["network", "disk", "cpu", "memory", "usb", "cloudinit"];
            let fine = ["0", "1"].contains(&value) || split_list(value).iter().all(|item| features.contains(item));
            told(fine, "unable to parse hotplug option")
        }
        "pve-cpuset" => told(
            value.split(',').all(|part| {
                let (from, to) = part.split_once('-').unwrap_or((part, part));
                digits(from) && digits(to)
            }),
            "unable to parse cpuset option",
        ),
        "pve-storage-id" if value.len() < 2 => Err(format!("storage ID '{value}' cannot be shorter than 2 characters")),
        "pve-poolid" if value.split('/').count() > 3 => {
            Err(format!("pool name '{value}' nested too deeply (max levels = 3)"))
        }
        "pve-ha-resource-id" => {
            let id = value.strip_prefix("vm:").or_else(|| value.strip_prefix("ct:"));
            told(
                id.is_some_and(|id| matches("pve-vmid", id) == Some(true)),
                &format!("invalid HA resource ID '{value}'"),
            )
        }
        "pve-ha-resource-or-vm-id" => {
            if digits(value) {
                check("pve-vmid", value)
            } else {
                check("pve-ha-resource-id", value)
            }
        }
        "pve-ha-node" => {
            let (node, priority) = value.split_once(':').unwrap_or((value, "0"));
            told(
                matches("pve-node", node) == Some(true) && digits(priority),
                "value does not look like a valid ha node list",
            )
        }
        "pve-calendar-event" => calendar(value),
        _ => {
            let Some(rule) = rules().get(format) else { return Ok(()) };
            told(rule.pattern.is_match(value), &rule.text.replace("{v}", value))
        }
    }
}

/// Splits a list the way Proxmox does: by commas, semicolons, zero bytes and white space.
pub(super) fn split_list(value: &str) -> Vec<&str> {
    let separators = |letter: char| matches!(letter, ',' | ';' | '\0') || letter.is_whitespace();
    value.split(separators).filter(|item| !item.is_empty()).collect()
}

struct Rule {
    pattern: Regex,
    text: &'static str,
}

fn rules() -> &'static BTreeMap<&'static str, Rule> {
    static RULES: OnceLock<BTreeMap<&'static str, Rule>> = OnceLock::new();
    RULES.get_or_init(|| {
        let octet = "(?:25[0-5]|2[0-4][0-9]|[1-9]?[0-9]|1[0-9][0-9])";
        let ipv4 = format!(r"(?:{octet}\.){{3}}{octet}");
        let rules: [(&'static str, &str, &'static str); 20] = [
            ("pve-vmid", "[1-9][0-9]{2,8}", "value does not look like a valid VM ID"),
            ("pve-node", "[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?", "value does not look like a valid node name"),
            ("pve-configid", "(?i)[a-z][a-z0-9_-]+", "invalid configuration ID '{v}'"),
            ("pve-storage-id", "(?i)[a-z][a-z0-9._-]*[a-z0-9]", "storage ID '{v}' contains illegal characters"),
            ("pve-bridge-id", r"[-_.\w\d]+", "invalid bridge ID '{v}'"),
            ("pve-poolid", "[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+){0,2}", "pool name '{v}' contains invalid characters"),
            ("pve-tag", r"(?i)[a-z0-9_][a-z0-9_\-+.]*", "invalid characters in tag"),
            (
                "mac-addr",
                "(?i)[a-f0-9][02468ace](?::[a-f0-9]{2}){5}",
                "value does not look like a valid unicast MAC address",
            ),
            ("ipv4", &ipv4, "value does not look like a valid IPv4 address"),
            (
                "dns-name",
                r"([a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?\.)*[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?",
                "value does not look like a valid DNS name",
            ),
            ("pve-iface", r"(?i)[a-z][a-z0-9_]{1,20}([:.]\d+)?", "invalid network interface name '{v}'"),
            ("disk-size", r"\d+(\.\d+)?([KMGT](?:iB)?)?", "value does not look like a valid disk size: {v}"),
            ("urlencoded", "[-%a-zA-Z0-9_.!~*'()]*", "invalid urlencoded string: {v}"),
            ("pve-volume-id", "(?i)([a-z][a-z0-9._-]*[a-z0-9]):(.+)", "unable to parse volume ID '{v}'"),
            ("pve-storage-path", "/[^;()]+.*", "value does not look like a valid absolute path"),
            (
                "pve-qm-bootdev",
                r"(?:net|ide|scsi|virtio|sata|usb|hostpci)\d+|efidisk0|tpmstate0",
                "invalid boot device '{v}'",
            ),
            ("pve-qm-bootdisk", r"(?:ide|scsi|virtio|sata)\d+", "invalid bootdisk '{v}'"),
            ("pve-task-status-type", "(?i)(ok|error|warning|unknown)", "invalid status '{v}'"),
            ("pve-storage-server", r"[A-Za-z0-9:.\-]+", "value does not look like a valid server name or IP address"),
            (
                "pve-storage-vgname",
                r"(?i)[a-z0-9][a-z0-9\-_.]*[a-z0-9]",
                "lvm volume group name '{v}' contains illegal characters",
            ),
        ];
        let built = rules.into_iter().filter_map(|(name, pattern, text)| {
            Some((name, Rule { pattern: Regex::new(&format!("^(?:{pattern})$")).ok()?, text }))
        });
        built.collect()
    })
}

fn matches(format: &str, value: &str) -> Option<bool> {
    rules().get(format).map(|rule| rule.pattern.is_match(value))
}

fn told(fine: bool, text: &str) -> Result<(), String> {
    if fine { Ok(()) } else { Err(text.to_owned()) }
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn cidr4(value: &str) -> bool {
    let Some((address, prefix)) = value.split_once('/') else { return false };
    address.parse::<Ipv4Addr>().is_ok() && prefix.parse::<u8>().is_ok_and(|prefix| (8..=32).contains(&prefix))
}

fn cidr6(value: &str) -> bool {
    let Some((address, prefix)) = value.split_once('/') else { return false };
    address.parse::<Ipv6Addr>().is_ok() && prefix.parse::<u8>().is_ok_and(|prefix| (8..=128).contains(&prefix))
}

/// Checks the usual calendar events: `[days] [date] [time]`, such as `02:30`, `mon..fri 2:00`, `sat *:0/15`, `daily`.
fn calendar(value: &str) -> Result<(), String> {
    static EVENT: OnceLock<Option<Regex>> = OnceLock::new();
    let event = EVENT.get_or_init(|| {
        let day = "(?:mon|tue|wed|thu|fri|sat|sun)(?:day|sday|nesday|rsday|urday)?";
        let days = format!(r"{day}(?:(?:\.\.|,|-){day})*");
        let number = r"(?:\*|\d+)(?:\.\.\d+)?(?:/\d+)?";
        let numbers = format!("{number}(?:,{number})*");
        let date = format!(r"(?:{numbers}-){{1,2}}{numbers}");
        let time = format!("{numbers}(?::{numbers}){{0,2}}");
        let named = "minutely|hourly|daily|weekly|monthly|yearly|annually|quarterly|semiannually|semi-annually";
        Regex::new(&format!("(?i)^(?:{named}|(?:{days})?(?: ?{date})?(?: ?{time})?)$")).ok()
    });
    let fine = !value.is_empty() && event.as_ref().is_some_and(|event| event.is_match(value));
    told(fine, &format!("invalid calendar event '{value}' - unable to parse calendar event"))
}

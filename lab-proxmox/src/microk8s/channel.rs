//! Which MicroK8s: a channel of its snap, and what the track of a channel still has.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A channel of the snap: `1.34/stable`, `1.32-strict/candidate`.
///
/// A track is always named: `latest` takes a cluster to the next minor version whenever that appears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Channel {
    minor: u16,
    strict: bool,
    risk: Risk,
}

/// How much a channel is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Risk {
    Stable,
    Candidate,
    Beta,
    Edge,
}

/// The tracks whose add-ons are known, by their minor version of Kubernetes 1.
const KNOWN: std::ops::RangeInclusive<u16> = 28..=35;

/// Something that MicroK8s brings and can turn on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Addon {
    /// Names in the cluster. Always on: without it, nothing finds anything.
    Dns,
    /// Volumes on the disk of the node a pod runs on. Not for anything that must survive that node.
    HostpathStorage,
    /// The web interface. Gone after 1.35.
    Dashboard,
    /// How much pods and nodes use.
    MetricsServer,
    /// Addresses for Services, from this range.
    Metallb(lab_core::Range),
    /// The way in for web traffic: NGINX until 1.34, Traefik from 1.35 on. Its class is `public`.
    Ingress,
    /// Certificates that are issued and renewed.
    CertManager,
    /// Roles that are enforced. Without it, everybody who gets in may do everything.
    Rbac,
    /// A registry on port 32000 of every node, on hostpath storage.
    Registry,
}

impl Channel {
    /// Returns the stable channel of a minor version: 34 for `1.34/stable`.
    ///
    /// # Errors
    ///
    /// A track whose add-ons are not known.
    pub fn stable(minor: u16) -> Result<Channel, String> {
        if KNOWN.contains(&minor) {
            return Ok(Channel { minor, strict: false, risk: Risk::Stable });
        }
        Err(format!("the tracks of MicroK8s that are known go from 1.{} to 1.{}", KNOWN.start(), KNOWN.end()))
    }

    /// Returns the minor version of Kubernetes 1.
    pub fn minor(self) -> u16 {
        self.minor
    }

    /// Returns whether it is the strictly confined build.
    pub fn is_strict(self) -> bool {
        self.strict
    }

    /// Returns whether a cluster on this channel can be set back to `before` by the snapshots that were taken there: it
    /// is the minor version before.
    pub fn follows(self, before: Channel) -> bool {
        self.strict == before.strict && self.minor == before.minor + 1
    }

    /// Returns the name of the snapshots that are taken before a cluster goes to this channel.
    pub(super) fn snapshot(self) -> String {
        format!("before-1-{}", self.minor)
    }

    /// Returns why a cluster on this channel cannot go to `next` in one step; `None` when it can.
    ///
    /// MicroK8s goes one minor version at a time and never back: what its datastore holds may be of the newer version
    /// already.
    pub fn refuses(self, next: Channel) -> Option<String> {
        if self.strict != next.strict {
            return Some("the strictly confined build is another snap: it is installed on new machines".into());
        }
        if next.minor < self.minor {
            return Some(format!(
                "{self} is newer: going back loses what the datastore has learned since; `rollback` consents to that"
            ));
        }
        if next.minor > self.minor + 1 {
            return Some(format!("MicroK8s goes one minor version at a time: 1.{} comes next", self.minor + 1));
        }
        None
    }
}

impl Addon {
    /// Returns what `microk8s enable` calls it.
    pub fn name(&self) -> &'static str {
        match self {
            Addon::Dns => "dns",
            Addon::HostpathStorage => "hostpath-storage",
            Addon::Dashboard => "dashboard",
            Addon::MetricsServer => "metrics-server",
            Addon::Metallb(_) => "metallb",
            Addon::Ingress => "ingress",
            Addon::CertManager => "cert-manager",
            Addon::Rbac => "rbac",
            Addon::Registry => "registry",
        }
    }

    /// Returns the argument of `microk8s enable`.
    pub fn argument(&self) -> String {
        match self {
            // Without a range it asks, and waits for an answer that nobody gives.
            Addon::Metallb(range) => format!("metallb:{range}"),
            Addon::Dns
            | Addon::HostpathStorage
            | Addon::Dashboard
            | Addon::MetricsServer
            | Addon::Ingress
            | Addon::CertManager
            | Addon::Rbac
            | Addon::Registry => self.name().into(),
        }
    }

    /// Returns the version that a track brings, as `microk8s status` names it, where that is known; an error when the
    /// track does not have it.
    pub fn on(&self, channel: Channel) -> Result<Option<&'static str>, String> {
        let versions: [(u16, &'static str); 3] = match self {
            Addon::Dns => [(32, "1.10.1"), (34, "1.12.3"), (35, "1.13.1")],
            Addon::HostpathStorage => [(32, "1.4.2"), (34, "1.5.0"), (35, "1.5.0")],
            Addon::Dashboard => [(32, "2.6.0"), (34, "7.13.0"), (35, "7.14.0")],
            Addon::MetricsServer => [(32, "0.6.3"), (34, "0.8.0"), (35, "0.8.0")],
            Addon::Metallb(_) => [(32, "0.13.3"), (34, "0.15.2"), (35, "0.15.2")],
            Addon::Ingress => [(32, "nginx 1.8"), (34, "nginx 1.13"), (35, "traefik 3.6")],
            Addon::CertManager => [(32, "1.8"), (34, "1.18.2"), (35, "1.19.1")],
            Addon::Rbac | Addon::Registry => return Ok(None),
        };
        if channel.minor > 35 && *self == Addon::Dashboard {
            return Err(format!("the track of {channel} has no dashboard any more: 1.35 was the last"));
        }
        Ok(versions.iter().find(|(minor, _)| *minor == channel.minor).map(|(_, version)| *version))
    }

    /// Returns what a person should know of it when a cluster goes from one channel to another, if anything.
    pub fn advice(&self, from: Channel, to: Channel) -> Option<&'static str> {
        match self {
            Addon::Ingress if from.minor < 35 && to.minor >= 35 => {
                Some("its controller becomes Traefik instead of NGINX: annotations differ")
            }
            Addon::Dashboard if from.minor < 35 && to.minor == 35 => Some("1.35 is the last track that has it"),
            _ => None,
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let strict = if self.strict { "-strict" } else { "" };
        let risk = match self.risk {
            Risk::Stable => "stable",
            Risk::Candidate => "candidate",
            Risk::Beta => "beta",
            Risk::Edge => "edge",
        };
        write!(f, "1.{}{strict}/{risk}", self.minor)
    }
}

impl FromStr for Channel {
    type Err = String;

    fn from_str(text: &str) -> Result<Channel, String> {
        let wrong = || format!("{text:?} is not a channel such as 1.34/stable");
        let (track, risk) = text.split_once('/').ok_or_else(wrong)?;
        if track.starts_with("latest") {
            return Err(format!(
                "{text:?} jumps to the next minor version by itself: name a track, such as 1.34/stable"
            ));
        }
        let (version, strict) = match track.strip_suffix("-strict") {
            Some(version) => (version, true),
            None => (track, false),
        };
        let minor: u16 = version.strip_prefix("1.").and_then(|minor| minor.parse().ok()).ok_or_else(wrong)?;
        let risk = match risk {
            "stable" => Risk::Stable,
            "candidate" => Risk::Candidate,
            "beta" => Risk::Beta,
            "edge" => Risk::Edge,
            _ => return Err(wrong()),
        };
        Ok(Channel { strict, risk, ..Channel::stable(minor)? })
    }
}

impl TryFrom<String> for Channel {
    type Error = String;

    fn try_from(text: String) -> Result<Channel, String> {
        text.parse()
    }
}

impl From<Channel> for String {
    fn from(channel: Channel) -> String {
        channel.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_names_a_track_that_is_known() {
        for text in ["1.28/stable", "1.34/candidate", "1.35-strict/edge"] {
            assert_eq!(text.parse::<Channel>().unwrap().to_string(), text);
        }
        for wrong in
            ["latest/stable", "latest/edge", "1.34", "1.27/stable", "1.36/stable", "2.0/stable", "1.34/best", ""]
        {
            assert!(wrong.parse::<Channel>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_cluster_goes_one_minor_version_at_a_time_and_never_back() {
        let channel = |text: &str| text.parse::<Channel>().unwrap();
        assert_eq!(channel("1.33/stable").refuses(channel("1.34/stable")), None);
        assert_eq!(channel("1.34/stable").refuses(channel("1.34/candidate")), None);
        assert!(channel("1.32/stable").refuses(channel("1.34/stable")).unwrap().contains("1.33 comes next"));
        assert!(channel("1.34/stable").refuses(channel("1.33/stable")).unwrap().contains("going back"));
        assert!(channel("1.34/stable").refuses(channel("1.34-strict/stable")).is_some());
    }

    #[test]
    fn metallb_is_never_turned_on_without_its_range() {
        let range = "192.168.10.50-69".parse().unwrap();
        assert_eq!(Addon::Metallb(range).argument(), "metallb:192.168.10.50-192.168.10.69");
        assert_eq!(Addon::Ingress.on("1.34/stable".parse().unwrap()), Ok(Some("nginx 1.13")));
        let (from, to) = ("1.34/stable".parse().unwrap(), "1.35/stable".parse().unwrap());
        assert!(Addon::Ingress.advice(from, to).unwrap().contains("Traefik"));
    }
}

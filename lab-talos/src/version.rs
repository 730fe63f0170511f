//! Versions that a cluster is declared with: of Talos and of Kubernetes, which have to fit each other.

use crate::config::Contract;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

macro_rules! version {
    ($(#[$doc:meta])* $name:ident { $($(#[$line_doc:meta])* $line:ident = $minor:literal, $patch:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name {
            minor: u32,
            patch: u32,
        }

        impl $name {
            $($(#[$line_doc])* pub const $line: $name = $name { minor: $minor, patch: $patch };)*

            /// Returns version `1.minor.patch`.
            pub const fn new(minor: u32, patch: u32) -> $name {
                $name { minor, patch }
            }

            /// Returns another patch release of the same line: `V1_34.patch(2)`.
            pub const fn patch(self, patch: u32) -> $name {
                $name { minor: self.minor, patch }
            }

            /// Returns the number of the line, which is the second one.
            pub const fn minor(&self) -> u32 {
                self.minor
            }

            /// Returns the version without the letter: `1.34.1`.
            pub fn number(&self) -> String {
                format!("1.{}.{}", self.minor, self.patch)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "v1.{}.{}", self.minor, self.patch)
            }
        }

        impl FromStr for $name {
            type Err = String;

            /// Reads `v1.34.1` or `1.34.1`.
            fn from_str(text: &str) -> Result<$name, String> {
                let (minor, patch) = parse(text).ok_or_else(|| format!("{text:?} is not a version such as v1.34.1"))?;
                Ok($name { minor, patch })
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<$name, String> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(version: $name) -> String {
                version.to_string()
            }
        }
    };
}

version! {
    /// A version of Talos Linux, 1.x.
    TalosVersion {
        /// The last known release of the 1.11 line.
        V1_11 = 11, 6;
        /// The last known release of the 1.12 line.
        V1_12 = 12, 11;
    }
}

version! {
    /// A version of Kubernetes, 1.x.
    KubernetesVersion {
        /// The default of Talos 1.11.
        V1_34 = 34, 1;
        /// The default of Talos 1.12.
        V1_35 = 35, 0;
    }
}

fn parse(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.strip_prefix('v').unwrap_or(text).split('.');
    let numbers = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    (numbers.0 == "1" && parts.next().is_none()).then_some((numbers.1, numbers.2))
}

impl TalosVersion {
    /// Returns the generation of defaults that a cluster begins with on this version.
    pub fn contract(&self) -> Contract {
        if self.minor >= 12 { Contract::V1_12 } else { Contract::V1_11 }
    }

    /// Says why this version cannot run that Kubernetes, if it cannot. A Talos line runs the six Kubernetes lines
    /// that end with its own default.
    pub fn refuses(&self, kubernetes: KubernetesVersion) -> Option<String> {
        let last = self.minor + 23;
        let first = last.saturating_sub(5);
        (!(first..=last).contains(&kubernetes.minor))
            .then(|| format!("Talos {self} runs Kubernetes 1.{first} to 1.{last}, not {kubernetes}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_written_with_the_letter() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(text.parse::<TalosVersion>().ok().map(|version| version.to_string()).as_deref(), expected);
        };
        check("v1.11.2", Some("v1.11.2"));
        check("1.12.0", Some("v1.12.0"));
        check("v1.11", None);
        check("v2.0.0", None);
        check("v1.11.2-beta.0", None);
        assert_eq!(serde_json::to_value(TalosVersion::V1_11.patch(2)).unwrap(), "v1.11.2");
        assert!(TalosVersion::V1_11.patch(9) < TalosVersion::V1_12.patch(0));
    }

    #[test]
    fn a_kubernetes_that_the_talos_cannot_run_is_refused() {
        let check = |talos: TalosVersion, kubernetes: &str, fits: bool| {
            assert_eq!(talos.refuses(kubernetes.parse().unwrap()).is_none(), fits, "{talos} {kubernetes}");
        };
        check(TalosVersion::V1_11, "1.29.0", true);
        check(TalosVersion::V1_11, "1.34.99", true);
        check(TalosVersion::V1_11, "1.35.0", false);
        check(TalosVersion::V1_11, "1.28.9", false);
        check(TalosVersion::V1_12, "1.35.0", true);
    }
}

//! Amounts of memory and disk, each in the unit that Proxmox VE counts it in.

use serde::{Deserialize, Serialize};
use std::fmt;

/// An amount of memory in MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mib(pub u32);

/// The size of a disk in GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Gib(pub u32);

impl Gib {
    /// Returns the same amount as memory.
    pub fn memory(self) -> Mib {
        Mib(self.0 * 1024)
    }

    /// Returns the size in bytes.
    pub fn bytes(self) -> u64 {
        u64::from(self.0) << 30
    }
}

impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1024) { write!(f, "{} GiB", self.0 / 1024) } else { write!(f, "{} MiB", self.0) }
    }
}

impl fmt::Display for Gib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} GiB", self.0)
    }
}

/// Returns the bytes of a size as a disk's `size=` has it: `20G`, `3584M`, `1.5T`, or bytes without a unit. Units are
/// binary.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let text = text.strip_suffix("iB").unwrap_or(text);
    let (number, shift) = match text.chars().last()? {
        'K' => (&text[..text.len() - 1], 10),
        'M' => (&text[..text.len() - 1], 20),
        'G' => (&text[..text.len() - 1], 30),
        'T' => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    match number.split_once('.') {
        None => number.parse::<u64>().ok()?.checked_mul(1 << shift),
        // Fractions are rare and short; what matters is that 1.5T is not read as 1T.
        Some((whole, fraction)) if !fraction.is_empty() && fraction.len() <= 6 => {
            let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
            let number = whole.parse::<u128>().ok()? * scale + fraction.parse::<u128>().ok()?;
            u64::try_from((number << shift) / scale).ok()
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_every_form_that_a_configuration_holds() {
        let gib = 1u64 << 30;
        for (text, bytes) in [
            ("20G", 20 * gib),
            ("20480M", 20 * gib),
            ("3584M", 3584 << 20),
            ("1.5T", 1536 * gib),
            ("528K", 528 << 10),
            ("512", 512),
            ("4GiB", 4 * gib),
        ] {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
        for wrong in ["", "G", "x", "1.G", "1.2.3G", "-1G"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}

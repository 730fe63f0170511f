//! The hardware address of a network interface.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

/// The hardware address of a network interface: `BC:24:11:4F:00:1A`.
///
/// An address that is left to Proxmox VE changes whenever the interface is written again, and a network configuration
/// that looks for another one leaves the machine without network. So it is always stated.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

impl Mac {
    /// Returns an address in the range of Proxmox VE (`BC:24:11`) that depends on nothing but `text`: the same text
    /// always has the same address.
    pub fn derived(text: &str) -> Mac {
        let hash = Sha256::digest(text.as_bytes());
        Mac([0xbc, 0x24, 0x11, hash[0], hash[1], hash[2]])
    }

    /// Returns the address as one number.
    pub fn number(self) -> u128 {
        self.0.iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
    }

    /// Returns the address in lower case, as network configurations of guests match it.
    pub fn lower(self) -> String {
        self.to_string().to_ascii_lowercase()
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Mac, String> {
        let wrong = |why: &str| format!("{text:?} is not a MAC address such as BC:24:11:4F:00:1A: {why}");
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(|| wrong("it has not six parts"))?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong("a part is not hexadecimal"))?;
        }
        if parts.next().is_some() {
            return Err(wrong("it has not six parts"));
        }
        if bytes[0] & 1 == 1 {
            return Err(wrong("it is a group's, not one interface's"));
        }
        Ok(Mac(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02X}:{b:02X}:{c:02X}:{d:02X}:{e:02X}:{g:02X}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mac({self})")
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Mac, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_in_either_case_and_written_in_one() {
        let mac: Mac = "bc:24:11:4f:00:1a".parse().unwrap();
        assert_eq!(mac.to_string(), "BC:24:11:4F:00:1A");
        assert_eq!(mac.lower(), "bc:24:11:4f:00:1a");
        for wrong in ["", "bc:24:11:4f:00", "bc:24:11:4f:00:1a:00", "bd:24:11:4f:00:1a", "bc:24:11:4f:0:1a", "x"] {
            assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_derived_address_depends_on_its_text_alone() {
        assert_eq!(Mac::derived("dev/110/0"), Mac::derived("dev/110/0"));
        assert_ne!(Mac::derived("dev/110/0"), Mac::derived("dev/110/1"));
        assert!(Mac::derived("x").to_string().starts_with("BC:24:11:"));
    }
}

//! What tells whether something is still what was applied.

use super::value::hex;
use super::word::read_text;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};
use std::fmt;

/// A SHA-256, or none: of what is not known yet there is none. Written in hexadecimal, none as an empty text.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest(Option<[u8; 32]>);

impl Digest {
    /// None, as long as something is not known.
    pub const NONE: Digest = Digest(None);

    /// Returns the digest of some bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Some(Sha256::digest(bytes).into()))
    }

    /// Returns true where there is none.
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|bytes| f.write_str(&hex(bytes)))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let Read(digest) = read_text(deserializer, "a SHA-256 in hexadecimal")?;
        digest.ok_or_else(|| de::Error::custom("a digest is a SHA-256 in hexadecimal, or empty"))
    }
}

/// A digest out of a file, if it is one.
struct Read(Option<Digest>);

impl From<&str> for Read {
    fn from(text: &str) -> Read {
        if text.is_empty() {
            return Read(Some(Digest::NONE));
        }
        let nibble = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let mut bytes = [0; 32];
        if pairs.len() != bytes.len() || !rest.is_empty() {
            return Read(None);
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            let (Some(high), Some(low)) = (nibble(*high), nibble(*low)) else { return Read(None) };
            *byte = high << 4 | low;
        }
        Read(Some(Digest(Some(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_read_as_it_was_written() {
        for digest in [Digest::NONE, Digest::of(b""), Digest::of(b"abc")] {
            let text = serde_json::to_string(&digest).expect("it is a text");
            assert_eq!(serde_json::from_str::<Digest>(&text).expect("it was written"), digest);
        }
        // FIPS 180-2, B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of(b"abc").to_string(), abc);
        let (upper, long) = (abc.to_uppercase(), format!("{abc}00"));
        for odd in ["b", &abc[1..], &abc[2..], upper.as_str(), long.as_str(), "none"] {
            let error = serde_json::from_value::<Digest>(odd.into()).expect_err(odd);
            assert_eq!(error.to_string(), "a digest is a SHA-256 in hexadecimal, or empty");
        }
    }
}

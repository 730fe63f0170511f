//! A value that must never be seen.

use super::value::{self, Marker};
use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A value that is never printed and never reaches the disk in clear.
///
/// It has no `Display`, its `Debug` is redacted, and serialising it outside the engine is an error; within the engine
/// it becomes a marker with a keyed fingerprint. Secretness follows the type: an output that is a `Secret<T>` stays
/// one through every projection.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Makes a secret of `value`.
    pub fn new(value: T) -> Secret<T> {
        Secret(value)
    }

    /// Returns the value in clear. Meant for the line that hands it to the outside, and greppable for that reason.
    ///
    /// # Panics
    ///
    /// Within the closure of an output: what comes out of it would be an ordinary value, printed and stored in clear.
    /// There, [`Secret::map`] computes one secret from another.
    #[track_caller]
    pub fn expose(&self) -> &T {
        assert!(
            !value::Session::is_aside(),
            "a secret is exposed in the closure of an output; use `Secret::map` there"
        );
        &self.0
    }

    /// Computes another secret from this one.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Secret<U> {
        Secret(f(self.0))
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl<T> From<T> for Secret<T> {
    fn from(value: T) -> Secret<T> {
        Secret(value)
    }
}

impl From<&str> for Secret<String> {
    fn from(value: &str) -> Secret<String> {
        Secret(value.to_owned())
    }
}

impl<T: Serialize> Serialize for Secret<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        value::write_secret(&self.0).map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Secret<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret<T>, D::Error> {
        // In clear it comes from a person's configuration file.
        let value = match value::deserialize_marker(deserializer)? {
            (_, Some(Marker::Secret(fingerprint))) => value::read_secret(&fingerprint).map_err(D::Error::custom)?,
            (value, Some(Marker::Unknown(_)) | None) => value,
        };
        // The error of a failed parse could quote the secret: say only that it failed.
        T::deserialize(value).map(Secret).map_err(|_| D::Error::custom("a secret is not of the expected type"))
    }
}

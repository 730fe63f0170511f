//! The shelf: what was fetched once, kept by its content.

use super::disk::{Disk, replace};
use crate::model::{Call, Ran, RunError, Supply, digest_of_bytes};
use std::path::Path;
use std::sync::Arc;

/// What was fetched once, kept by its content: a file for each, named by its SHA-256.
///
/// It is compared with its name whenever it is read, so what was damaged is fetched anew and nobody has to remove it.
/// For the same reason it takes no lock: two processes that keep the same thing at the same time write the same bytes.
/// Only what has the digest that was asked for is kept.
///
/// What lies here was fetched from a public address, and is not sealed.
pub struct Shelf {
    disk: Arc<dyn Disk>,
    beyond: Arc<dyn Supply>,
}

impl Shelf {
    /// Returns the shelf in a directory; what is not on it comes from `beyond`.
    pub fn new(disk: Arc<dyn Disk>, beyond: Arc<dyn Supply>) -> Shelf {
        Shelf { disk, beyond }
    }

    fn kept(&self, sha256: &str) -> Result<Vec<u8>, Option<String>> {
        let place = || self.disk.place(sha256);
        match self.disk.read(sha256) {
            Ok(Some(bytes)) if digest_of_bytes(&bytes) == sha256 => Ok(bytes),
            Ok(Some(_)) => Err(Some(format!("what was kept in {} is damaged", place()))),
            Ok(None) => Err(None),
            Err(error) => Err(Some(format!("what was kept in {} cannot be read: {error}", place()))),
        }
    }

    fn keep(&self, sha256: &str, bytes: &[u8]) -> Result<(), String> {
        match replace(&*self.disk, sha256, bytes) {
            Ok(_) => Ok(()),
            // Another process may have given it its name meanwhile.
            Err(_) if self.kept(sha256).is_ok() => Ok(()),
            Err(error) => Err(format!("it cannot be kept in {}: {error}", self.disk.place(sha256))),
        }
    }
}

impl Supply for Shelf {
    fn fetch(&self, url: &str, sha256: &str) -> Result<Vec<u8>, String> {
        if sha256.is_empty() {
            return self.beyond.fetch(url, sha256);
        }
        let damaged = match self.kept(sha256) {
            Ok(bytes) => return Ok(bytes),
            Err(damaged) => damaged,
        };
        let bytes = self.beyond.fetch(url, sha256).map_err(|why| match damaged {
            Some(damaged) => format!("{why}; {damaged}"),
            None => why,
        })?;
        if digest_of_bytes(&bytes) == sha256 {
            self.keep(sha256, &bytes)?;
        }
        Ok(bytes)
    }

    fn read(&self, file: &Path) -> Result<Vec<u8>, String> {
        self.beyond.read(file)
    }

    fn run(&self, call: &Call) -> Result<Ran, RunError> {
        self.beyond.run(call)
    }
}

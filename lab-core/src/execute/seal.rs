//! How secrets are stored: sealed with age.
//!
//! The key never lies in the lab directory, so a copied or published state gives nothing away. What is deliberately not
//! here: which values are secret, and where sealed text is put.

use super::disk::{Disk, RealDisk};
use super::journal::sha256;
use super::lock::rfc3339;
use crate::model::hex;
use age::secrecy::ExposeSecret;
use age::x25519::Identity;
use age::{DecryptError, Decryptor};
use base64::{Engine, prelude::BASE64_STANDARD};
use rand::{RngCore, rngs::OsRng};
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// The environment variable that names the key file.
pub const KEY_FILE_VARIABLE: &str = "LAB_AGE_KEY_FILE";

/// What follows the name of a key file in that of the keys that sealed before.
pub(super) const EARLIER: &str = ".old";

/// The keys of this user. The first one seals, all of them open.
#[derive(Clone)]
pub struct Keys {
    identities: Vec<Identity>,
    place: String,
}

/// Where the key file is, and whether the user said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    /// The path.
    pub path: PathBuf,
    /// Whether [`KEY_FILE_VARIABLE`] names it. Such a file is never created: a mistyped path or a disk that is not
    /// mounted must not lead to a new key.
    pub named: bool,
}

/// Why secrets cannot be sealed or opened. Never contains key material or plain text.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// There is no key file.
    #[error("open sealed secrets: there is no key file {path}")]
    Missing {
        /// Where it was looked for.
        path: String,
        /// Whether [`KEY_FILE_VARIABLE`] names it.
        named: bool,
    },
    /// Neither the variable nor a home directory says where the key is.
    #[error("find the key file: neither LAB_AGE_KEY_FILE nor a home directory is set")]
    Nowhere,
    /// The key file lies in the lab directory, next to what it locks.
    #[error("use the key file {path}: it lies in the lab directory {lab}")]
    Inside {
        /// The key file.
        path: String,
        /// The lab directory.
        lab: String,
    },
    /// The key file cannot be understood.
    #[error("read the key file {path}: {what}")]
    Malformed {
        /// The key file.
        path: String,
        /// What is wrong, by line and never by content.
        what: String,
    },
    /// The key file cannot be read or written.
    #[error("{attempt} the key file {path}: {source}")]
    Disk {
        /// `read`, `create` or `replace`.
        attempt: &'static str,
        /// The key file.
        path: String,
        /// What the file system said.
        source: io::Error,
    },
    /// Somebody else is replacing the keys.
    #[error("replace the keys in {path}: another rotation of them is under way")]
    Busy {
        /// The directory of the key file.
        path: String,
    },
    /// No key fits.
    #[error("open a sealed secret: no key of {place} fits; it has {}", recipients.join(", "))]
    WrongKey {
        /// Where the keys come from.
        place: String,
        /// The public halves of the keys that were tried.
        recipients: Vec<String>,
    },
    /// The sealed text is not what was written.
    #[error("open a sealed secret: it is damaged: {what}")]
    Damaged {
        /// What is wrong.
        what: String,
    },
}

impl SealError {
    /// Returns what the user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            SealError::Missing { named: true, .. } => {
                "point LAB_AGE_KEY_FILE at an existing key file; `age-keygen -o FILE` makes a new one"
            }
            SealError::Missing { named: false, .. } => {
                "bring the key file from the machine that ran `up`, or point LAB_AGE_KEY_FILE at it"
            }
            SealError::Nowhere => "set LAB_AGE_KEY_FILE to the path of a key file",
            SealError::Inside { .. } => "move the key file out of the lab directory and point LAB_AGE_KEY_FILE at it",
            SealError::Malformed { .. } => "the file needs one AGE-SECRET-KEY-1... per line, as age-keygen writes it",
            SealError::Disk { .. } => "see that the file and its directory belong to you and can be read and written",
            SealError::Busy { .. } => "wait for it to end, then run the command again",
            SealError::WrongKey { .. } => {
                "add the key that sealed it as another line of the key file (after a rotation it is in the file of the \
                 same name that ends in .old), or point LAB_AGE_KEY_FILE at the right one"
            }
            SealError::Damaged { .. } => "restore the state from a backup",
        }
    }
}

impl KeyFile {
    /// Returns where the key file of this process's user is.
    pub fn locate() -> Result<KeyFile, SealError> {
        KeyFile::locate_in(|name| std::env::var_os(name))
    }

    /// Returns where the key file is, given an environment: `LAB_AGE_KEY_FILE`, else `lab/age.key` in
    /// `XDG_CONFIG_HOME`, else in `.config` of `HOME`. Empty variables count as unset.
    pub fn locate_in(variable: impl Fn(&str) -> Option<OsString>) -> Result<KeyFile, SealError> {
        let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(path) = set(KEY_FILE_VARIABLE) {
            return Ok(KeyFile { path, named: true });
        }
        // The XDG base directory specification: relative paths are to be ignored.
        let config = set("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
        let config = config.or_else(|| set("HOME").map(|home| home.join(".config"))).ok_or(SealError::Nowhere)?;
        Ok(KeyFile { path: config.join("lab").join("age.key"), named: false })
    }

    /// Reads the keys: those of the file, and behind them those that a rotation has put aside next to it.
    pub fn load(&self) -> Result<Keys, SealError> {
        let (dir, name) = self.placed("read")?;
        self.load_from(&RealDisk::new(dir), &name)
    }

    /// Reads the keys of the file `name` on `disk`; see [`KeyFile::load`].
    pub fn load_from(&self, disk: &dyn Disk, name: &str) -> Result<Keys, SealError> {
        let path = self.path.display().to_string();
        let read = |name: &str, path: &str| {
            let failed = |source| SealError::Disk { attempt: "read", path: path.to_owned(), source };
            let Some(bytes) = disk.read(name).map_err(failed)? else { return Ok(None) };
            // Only that it is no text, never what it is.
            let text = String::from_utf8(bytes)
                .map_err(|_| failed(io::Error::new(io::ErrorKind::InvalidData, "it is not valid UTF-8")))?;
            Keys::parse(&text, path).map(Some)
        };
        let keys = read(name, &path)?.ok_or(SealError::Missing { path, named: self.named })?;
        let aside = format!("{name}{EARLIER}");
        match read(&aside, &disk.place(&aside))? {
            Some(earlier) => Ok(keys.before(earlier)),
            None => Ok(keys),
        }
    }

    /// Returns where a rotation puts the keys aside that sealed before: next to the file, wherever links lead to.
    pub fn earlier(&self) -> PathBuf {
        let mut path = resolved(&self.path).into_os_string();
        path.push(EARLIER);
        path.into()
    }

    /// Refuses a key that lies in the lab directory `lab`, next to what it locks.
    pub(super) fn outside(&self, lab: &Path) -> Result<(), SealError> {
        if resolved(&self.path).starts_with(resolved(lab)) {
            let (path, lab) = (self.path.display().to_string(), lab.display().to_string());
            return Err(SealError::Inside { path, lab });
        }
        Ok(())
    }

    /// Returns the directory and the name of the file, wherever links lead to.
    pub(super) fn placed(&self, attempt: &'static str) -> Result<(PathBuf, String), SealError> {
        let path = resolved(&self.path);
        let name = path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        name.zip(path.parent()).map(|(name, dir)| (dir.to_owned(), name)).ok_or_else(|| SealError::Disk {
            attempt,
            path: self.path.display().to_string(),
            source: io::ErrorKind::InvalidInput.into(),
        })
    }

    /// Reads the keys; makes a key first when there is no file and the user did not name one. The file gets mode 0600.
    ///
    /// `lab` is the lab directory, in which the key must not lie.
    pub fn load_or_create(&self, lab: &Path, now: SystemTime) -> Result<Keys, SealError> {
        self.outside(lab)?;
        let (dir, name) = self.placed("create")?;
        self.load_or_create_on(&RealDisk::new(dir), &name, now)
    }

    /// Reads or makes the keys of the file `name` on `disk`; see [`KeyFile::load_or_create`].
    pub fn load_or_create_on(&self, disk: &dyn Disk, name: &str, now: SystemTime) -> Result<Keys, SealError> {
        let failed = |source| SealError::Disk { attempt: "create", path: self.path.display().to_string(), source };
        match self.load_from(disk, name) {
            Err(SealError::Missing { named: false, .. }) => {
                create(disk, name, now).map_err(failed)?;
                self.load_from(disk, name)
            }
            Ok(keys) => {
                // Whoever made it may have died before its name was durable. What is sealed now must open after a
                // power loss, too.
                keep_names(disk).map_err(failed)?;
                Ok(keys)
            }
            missing => missing,
        }
    }
}

/// Makes a key file, durable before anything is sealed with it. One that appeared meanwhile is left alone.
fn create(disk: &dyn Disk, name: &str, now: SystemTime) -> io::Result<()> {
    let text = Keys::throwaway().text("created", now);
    let staged = format!(".{name}.{}", Ids::random().next());
    let mut file = disk.create(&staged)?;
    // A link, not a rename: of two processes that make the first key, the second must not overwrite it.
    let linked = file.write(text.as_bytes()).and_then(|()| file.flush()).and_then(|()| disk.link(&staged, name));
    let removed = disk.remove(&staged);
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        linked => linked?,
    }
    removed?;
    disk.sync_dir()
}

/// Makes the names of key files durable before anything is sealed for what was read under them.
pub(super) fn keep_names(disk: &dyn Disk) -> io::Result<()> {
    match disk.sync_dir() {
        // A directory of somebody else's, or of a kind that is not flushed: whoever put the key there answers for it.
        Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput) => Ok(()),
        synced => synced,
    }
}

impl Keys {
    /// Reads the keys of this process's user; see [`KeyFile::locate_in`].
    pub fn load() -> Result<Keys, SealError> {
        KeyFile::locate()?.load()
    }

    /// Reads the keys of this process's user, and makes one when there is none and something must be sealed now; see
    /// [`KeyFile::load_or_create`].
    pub fn load_or_create(lab: &Path) -> Result<Keys, SealError> {
        KeyFile::locate()?.load_or_create(lab, SystemTime::now())
    }

    /// Returns the keys in the text of a key file: an identity per line, empty lines and comments (`#`) left out.
    /// `place` is what messages call it.
    pub fn parse(text: &str, place: impl Into<String>) -> Result<Keys, SealError> {
        let path = place.into();
        let mut identities = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let identity = line.parse::<Identity>().map_err(|what| {
                let what = format!("line {} is not an x25519 identity: {what}", index + 1);
                SealError::Malformed { path: path.clone(), what }
            })?;
            identities.push(identity);
        }
        if identities.is_empty() {
            return Err(SealError::Malformed { path, what: "there is no key in it".into() });
        }
        Ok(Keys { identities, place: path })
    }

    /// Returns a new key that lives in memory only: for a rehearsal.
    pub fn throwaway() -> Keys {
        Keys { identities: vec![Identity::generate()], place: "this process".into() }
    }

    /// Returns always the same key, for tests. Everybody knows it.
    pub fn fixed() -> Keys {
        let known = "AGE-SECRET-KEY-1V4MX2UNEVFHKG7FQDDHX7AMNYP6XS6TNYPKXZC38WVSXKETEYYSSWQAH65";
        Keys::parse(known, "the test").expect("the fixed key is one")
    }

    /// Returns the public half of the key that seals: `age1...`.
    pub fn recipient(&self) -> String {
        self.identities[0].to_public().to_string()
    }

    /// Returns the public halves of all keys, the one that seals first.
    pub fn recipients(&self) -> Vec<String> {
        self.identities.iter().map(|identity| identity.to_public().to_string()).collect()
    }

    /// Returns these keys with those of `earlier` behind them: the first of these seals, all of both open.
    pub(super) fn before(mut self, earlier: Keys) -> Keys {
        let known = self.recipients();
        let new = earlier.identities.into_iter().filter(|key| !known.contains(&key.to_public().to_string()));
        self.identities.extend(new);
        self
    }

    /// Returns a key file with the key that seals, and says in it since when: `created`.
    pub(super) fn text(&self, since: &str, now: SystemTime) -> String {
        let identity = &self.identities[0];
        let (time, public) = (rfc3339(now), identity.to_public());
        format!("# {since}: {time}\n# public key: {public}\n{}\n", identity.to_string().expose_secret())
    }

    /// Returns true when `sealed` was sealed for the key that seals now. Its content is not looked at.
    pub fn is_current(&self, sealed: &str) -> bool {
        let Ok(bytes) = BASE64_STANDARD.decode(sealed) else { return false };
        let first = std::iter::once(&self.identities[0] as &dyn age::Identity);
        Decryptor::new_buffered(&bytes[..]).and_then(|decryptor| decryptor.decrypt(first)).is_ok()
    }

    /// Seals `plain`: base64 of an age file for the first key. Sealing twice gives two different texts.
    pub fn seal(&self, plain: &[u8]) -> String {
        let sealed = age::encrypt(&self.identities[0].to_public(), plain);
        BASE64_STANDARD.encode(sealed.expect("one x25519 recipient can always be sealed for in memory"))
    }

    /// Opens what any of the keys has sealed.
    pub fn open(&self, sealed: &str) -> Result<Vec<u8>, SealError> {
        let damaged = |what: &str| SealError::Damaged { what: what.to_owned() };
        let bytes = BASE64_STANDARD.decode(sealed).map_err(|_| damaged("it is not base64"))?;
        let mut plain = Vec::new();
        let identities = self.identities.iter().map(|identity| identity as &dyn age::Identity);
        let mut reader = Decryptor::new_buffered(&bytes[..])
            .and_then(|decryptor| decryptor.decrypt(identities))
            .map_err(|error| match error {
                DecryptError::NoMatchingKeys => {
                    SealError::WrongKey { place: self.place.clone(), recipients: self.recipients() }
                }
                DecryptError::UnknownFormat => damaged("it is not an age file that this version knows"),
                // The type is not ours and may grow.
                _ => damaged("it is not an intact age file"),
            })?;
        reader.read_to_end(&mut plain).map_err(|_| damaged("its content is not what was sealed"))?;
        Ok(plain)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("place", &self.place).field("identities", &"[secret]").finish()
    }
}

/// Where the ids of operations come from: 128 bits each, as 32 hexadecimal digits.
#[derive(Debug)]
pub struct Ids(Source);

#[derive(Debug)]
enum Source {
    Random,
    Seeded { seed: u64, given: AtomicU64 },
}

impl Ids {
    /// Returns ids from the operating system's random numbers: unique for ever, in whatever lab.
    pub fn random() -> Ids {
        Ids(Source::Random)
    }

    /// Returns the same sequence of ids for the same seed, on every platform and in every version.
    pub fn seeded(seed: u64) -> Ids {
        Ids(Source::Seeded { seed, given: AtomicU64::new(0) })
    }

    /// Returns the next id.
    pub fn next(&self) -> String {
        match &self.0 {
            Source::Random => {
                let mut id = [0; 16];
                OsRng.fill_bytes(&mut id);
                hex(&id)
            }
            Source::Seeded { seed, given } => {
                let number = given.fetch_add(1, Ordering::Relaxed);
                let mut id = sha256(format!("lab id {seed} {number}").as_bytes());
                id.truncate(32);
                id
            }
        }
    }
}

/// Returns a path with its links followed as far as it exists, for comparing places.
pub(super) fn resolved(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut missing = Vec::new();
    let mut at = absolute.as_path();
    loop {
        if let Ok(real) = at.canonicalize() {
            return missing.iter().rev().fold(real, |path, part| path.join(part));
        }
        match (at.parent(), at.file_name()) {
            (Some(parent), Some(part)) => {
                missing.push(part.to_owned());
                at = parent;
            }
            _ => return absolute,
        }
    }
}

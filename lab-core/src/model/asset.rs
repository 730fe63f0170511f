//! What a program is made with beside its source: bytes from elsewhere, and what a local tool makes of them.
//!
//! A program does no I/O. What it needs from outside of itself it asks its [`Stack`] for, which passes it on to the
//! [`Supply`] that it was loaded with. What is deliberately not here: how anything is fetched, kept or run. The store is
//! [`crate::execute::Shelf`]; the rest comes from whoever loads the program.

use super::declare::Place;
use super::scope::Stack;
use super::value::digest_of_bytes;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes that a program is made with: a bundle of manifests, a chart.
///
/// From a URL with [`Stack::asset`], from a file with [`Stack::file`], from the executable itself with
/// [`Asset::given`]. Where one could not be had, the plan has a problem that says why, and it has no bytes: who is made
/// of it declares nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Asset {
    name: String,
    digest: String,
    bytes: Option<Arc<[u8]>>,
}

impl Asset {
    /// Returns an asset whose bytes the program holds itself, as by `include_bytes!`. `name` is what messages call it.
    pub fn given(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Asset {
        let bytes = bytes.into();
        Asset { name: name.into(), digest: digest_of_bytes(&bytes), bytes: Some(bytes.into()) }
    }

    fn missing(name: &str) -> Asset {
        Asset { name: name.to_owned(), digest: String::new(), bytes: None }
    }

    /// Returns what messages call it: its URL, or its path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns its SHA-256 in lower-case hexadecimal digits; empty when it could not be had.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Returns its bytes; `None` when it could not be had, which the plan says.
    pub fn bytes(&self) -> Option<&Arc<[u8]>> {
        self.bytes.as_ref()
    }
}

impl fmt::Debug for Asset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asset").field("name", &self.name).field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// What a program's outside gives it while it declares. All of it blocks.
///
/// Errors are fragments that fit after what was attempted.
pub trait Supply: Send + Sync {
    /// Returns what `url` yields. Something kept from earlier may be returned in its place when its SHA-256 is `sha256`.
    ///
    /// The digest is compared by whoever asks: that another content is there is no failure of this call. `sha256` is
    /// empty when none is known.
    ///
    /// # Errors
    ///
    /// Why it cannot be had.
    fn fetch(&self, url: &str, sha256: &str) -> Result<Vec<u8>, String>;

    /// Returns the content of a file; a relative path is one of the working directory.
    ///
    /// # Errors
    ///
    /// Why it cannot be read.
    fn read(&self, file: &Path) -> Result<Vec<u8>, String>;

    /// Runs a program of this machine to its end.
    ///
    /// # Errors
    ///
    /// That there is none, or why it did not come to its end. How it ended is no error.
    fn run(&self, call: &Call) -> Result<Ran, RunError>;
}

/// Nothing from outside: every question is refused. What a program is loaded with that needs nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSupply;

impl Supply for NoSupply {
    fn fetch(&self, _: &str, _: &str) -> Result<Vec<u8>, String> {
        Err("nothing is fetched here".into())
    }

    fn read(&self, _: &Path) -> Result<Vec<u8>, String> {
        Err("no file is read here".into())
    }

    fn run(&self, _: &Call) -> Result<Ran, RunError> {
        Err(RunError::Failed("no program is run here".into()))
    }
}

/// One call of a program of this machine.
///
/// It gets a directory of its own that is thrown away, as its working directory and home; of the environment only
/// `PATH` and what is given here. So it finds no configuration of a person, and what it does depends on its arguments.
#[derive(Clone, PartialEq, Eq)]
pub struct Call {
    /// The program, looked for in `PATH`.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<Argument>,
    /// What it reads from its standard input.
    pub input: Vec<u8>,
    /// Environment variables.
    pub variables: BTreeMap<String, String>,
}

/// An argument of a [`Call`].
#[derive(Clone, PartialEq, Eq)]
pub enum Argument {
    /// This text.
    Text(String),
    /// The path of a file of this name that is made for the call.
    File(String, Arc<[u8]>),
    /// This path, made absolute: a relative one is of the working directory of the process that declares.
    Path(PathBuf),
}

impl Call {
    /// Returns a call without arguments.
    pub fn new(program: impl Into<String>) -> Call {
        Call { program: program.into(), arguments: Vec::new(), input: Vec::new(), variables: BTreeMap::new() }
    }

    /// Adds an argument.
    pub fn arg(mut self, text: impl Into<String>) -> Call {
        self.arguments.push(Argument::Text(text.into()));
        self
    }

    /// Adds the path of a file that is made for the call, as an argument.
    pub fn file(mut self, name: impl Into<String>, bytes: Arc<[u8]>) -> Call {
        self.arguments.push(Argument::File(name.into(), bytes));
        self
    }

    /// Adds a path as an argument.
    pub fn path(mut self, path: impl Into<PathBuf>) -> Call {
        self.arguments.push(Argument::Path(path.into()));
        self
    }

    /// Gives it something to read.
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Call {
        self.input = input.into();
        self
    }
}

/// As it would be typed; what it reads is not shown.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.program)?;
        for argument in &self.arguments {
            match argument {
                Argument::Text(text) => write!(f, " {text}")?,
                Argument::File(name, _) => write!(f, " {name}")?,
                Argument::Path(path) => write!(f, " {}", path.display())?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Call({self})")
    }
}

/// What became of a [`Call`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// What it ended with; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to its standard output.
    pub out: Vec<u8>,
    /// What it wrote to its standard error.
    pub err: String,
}

/// Why a [`Call`] came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunError {
    /// There is no such program in `PATH`.
    Missing,
    /// It could not be started, or did not come to its end.
    Failed(String),
}

impl Stack {
    /// Returns what `url` yields, which has to have this SHA-256. Blocks while it is fetched, which happens once: from
    /// then on it is read from the shelf in the lab directory, without a network.
    ///
    /// `url` is `https://...`. `sha256` is written as 64 hexadecimal digits, with or without `sha256:` before them.
    /// Whatever goes wrong is a problem of the plan, with the line that asks for it; so is another content, with its
    /// digest, and a digest that is left empty.
    #[track_caller]
    pub fn asset(&self, url: &str, sha256: &str) -> Asset {
        let place = Place::here();
        self.pinned(url, sha256).unwrap_or_else(|problem| self.without(url, place, problem))
    }

    /// Returns the content of a file; a relative path is one of the working directory. A file that cannot be read is a
    /// problem of the plan, with the line that asks for it.
    #[track_caller]
    pub fn file(&self, path: impl AsRef<Path>) -> Asset {
        let (place, path) = (Place::here(), path.as_ref());
        let name = path.display().to_string();
        match self.supply().read(path) {
            Ok(bytes) => Asset::given(name, bytes),
            Err(why) => self.without(&name, place, format!("failed to read {name}: {why}")),
        }
    }

    /// Runs a program of this machine to its end, for a component that cannot be declared without it.
    ///
    /// # Errors
    ///
    /// That there is no such program, or that it did not come to its end.
    pub fn run(&self, call: &Call) -> Result<Ran, RunError> {
        self.supply().run(call)
    }

    fn pinned(&self, url: &str, sha256: &str) -> Result<Asset, String> {
        if !url.starts_with("https://") {
            return Err(format!("{url} is not fetched: an asset's address begins with https://"));
        }
        let wanted = sha256.strip_prefix("sha256:").unwrap_or(sha256).to_ascii_lowercase();
        if !wanted.is_empty() && (wanted.len() != 64 || !wanted.bytes().all(|byte| byte.is_ascii_hexdigit())) {
            return Err(format!("{sha256:?} is not the SHA-256 of {url}: that has 64 hexadecimal digits"));
        }
        let bytes = self.supply().fetch(url, &wanted).map_err(|why| format!("failed to fetch {url}: {why}"))?;
        let asset = Asset::given(url, bytes);
        if asset.digest == wanted {
            return Ok(asset);
        }
        let found = &asset.digest;
        Err(match wanted.as_str() {
            "" => format!(
                "{url} has the SHA-256 {found}, and the program does not say which it has to have: write that, if you \
                 trust what is there now"
            ),
            _ => format!(
                "{url} has the SHA-256 {found}, and not {wanted}: what is there now is not what was pinned; write the \
                 new digest, if you trust it"
            ),
        })
    }

    fn without(&self, name: &str, place: Place, problem: String) -> Asset {
        self.lack(place, problem);
        Asset::missing(name)
    }
}

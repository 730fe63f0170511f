//! An outside in memory, for programs that ask theirs for something.

use crate::model::{Call, Ran, RunError, Supply};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An outside in memory: what URLs yield, what files hold, what programs do. Clones are the same one.
#[derive(Clone, Default)]
pub struct Pantry {
    inside: Arc<Mutex<Inside>>,
}

#[derive(Default)]
struct Inside {
    urls: BTreeMap<String, Vec<u8>>,
    files: BTreeMap<PathBuf, Vec<u8>>,
    programs: BTreeMap<String, Arc<Program>>,
    asked: Vec<String>,
}

type Program = dyn Fn(&Call) -> Result<Ran, RunError> + Send + Sync;

impl Pantry {
    /// Returns one without anything in it.
    pub fn new() -> Pantry {
        Pantry::default()
    }

    /// Lets a URL yield this from now on.
    pub fn put(&self, url: &str, bytes: impl Into<Vec<u8>>) {
        self.inside().urls.insert(url.to_owned(), bytes.into());
    }

    /// Takes what a URL yields away: it cannot be reached.
    pub fn take(&self, url: &str) {
        self.inside().urls.remove(url);
    }

    /// Lets a file hold this.
    pub fn write(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.inside().files.insert(PathBuf::from(path), bytes.into());
    }

    /// Lets a program of this name do what a function says.
    pub fn install(&self, name: &str, program: impl Fn(&Call) -> Result<Ran, RunError> + Send + Sync + 'static) {
        self.inside().programs.insert(name.to_owned(), Arc::new(program));
    }

    /// Returns what was fetched, read and run since the last time, in order.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.inside().asked)
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Supply for Pantry {
    fn fetch(&self, url: &str, _: &str) -> Result<Vec<u8>, String> {
        let mut inside = self.inside();
        inside.asked.push(format!("fetch {url}"));
        inside.urls.get(url).cloned().ok_or_else(|| "it cannot be reached".into())
    }

    fn read(&self, file: &Path) -> Result<Vec<u8>, String> {
        let mut inside = self.inside();
        inside.asked.push(format!("read {}", file.display()));
        inside.files.get(file).cloned().ok_or_else(|| "there is no such file".into())
    }

    fn run(&self, call: &Call) -> Result<Ran, RunError> {
        let program = {
            let mut inside = self.inside();
            inside.asked.push(format!("run {call}"));
            inside.programs.get(&call.program).cloned().ok_or(RunError::Missing)?
        };
        program(call)
    }
}

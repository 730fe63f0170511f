//! This machine and its network, as far as a program may use them while it declares.

mod fetch;
mod run;

use lab_core::{Call, Link, Ran, RunError, Supply};
use rustls::RootCertStore;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

/// This machine and its network, as far as a program may use them while it declares: what lies at a URL, its files, the
/// programs in its `PATH`.
///
/// What is fetched is fetched over HTTPS, by the way that the run's [`Link`] says; in a rehearsal nothing is. It may have 64 MiB at most, come after at most five redirects, all of them to `https://`, and take
/// two minutes.
pub struct Machine {
    link: Link,
    roots: Option<Arc<RootCertStore>>,
    path: OsString,
    refuses: Option<String>,
}

impl Machine {
    /// Returns this machine, with the outside behind `link`, and programs found in `path`, written as in `PATH`. A server
    /// is trusted when an authority of this machine vouches for it.
    pub fn new(link: Link, path: impl Into<OsString>) -> Machine {
        Machine { link, roots: None, path: path.into(), refuses: None }
    }

    /// Returns the same machine trusting servers that one of these authorities vouches for, and no others.
    pub fn trusting(mut self, roots: RootCertStore) -> Machine {
        self.roots = Some(Arc::new(roots));
        self
    }

    /// Returns the same machine without its network: `why` is said whenever something is to be fetched.
    pub(crate) fn alone(mut self, why: String) -> Machine {
        self.refuses = Some(why);
        self
    }
}

impl Supply for Machine {
    fn fetch(&self, url: &str, _: &str) -> Result<Vec<u8>, String> {
        if let Some(why) = &self.refuses {
            return Err(why.clone());
        }
        let roots = match &self.roots {
            Some(roots) => roots.clone(),
            None => Arc::new(fetch::roots()?),
        };
        // A program is loaded within the runtime of its run, where nothing may block on another one.
        std::thread::scope(|scope| {
            let fetch = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.map_err(|error| error.to_string())?.block_on(fetch::fetch(&self.link, roots, url))
            });
            fetch.join().unwrap_or_else(|_| Err("fetching it panicked".into()))
        })
    }

    fn read(&self, file: &Path) -> Result<Vec<u8>, String> {
        std::fs::read(file).map_err(|error| match std::path::absolute(file) {
            Ok(whole) if whole != file => format!("{error} ({})", whole.display()),
            _ => error.to_string(),
        })
    }

    fn run(&self, call: &Call) -> Result<Ran, RunError> {
        run::run(&self.path, call)
    }
}

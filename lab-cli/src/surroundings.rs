//! What a command line finds around it: streams, a person, variables, the network, itself.

use lab_core::execute::seal::Ids;
use lab_core::execute::{Interrupt, KeySource, Mounts};
use lab_core::{Link, Supply};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// What a command line finds around it.
///
/// [`Surroundings::process`] is the real one; [`Surroundings::captured`] is for tests, in the same process.
pub struct Surroundings {
    /// Where results go.
    pub out: Box<dyn Write + Send>,
    /// Where errors, warnings and questions go.
    pub err: Box<dyn Write + Send>,
    /// Where a person answers; `None` when there is nobody to ask.
    pub answers: Option<Box<dyn BufRead + Send>>,
    /// True when both streams are a terminal, so that lines can be drawn over.
    pub terminal: bool,
    /// Whether to colour when `--color` does not say.
    pub colors: bool,
    /// Environment variables.
    pub variables: BTreeMap<String, String>,
    /// How the outside is reached; `None` as `--proxy` says.
    pub link: Option<Link>,
    /// The keys that seal secrets; `None` for the user's own.
    pub keys: Option<KeySource>,
    /// The digest of the executable, which saved plans are pinned to; `None` to read the running one.
    pub executable: Option<String>,
    /// The file systems of this machine, by which a lock is trusted; `None` to ask the kernel.
    pub mounts: Option<Mounts>,
    /// Where the ids of operations come from.
    pub ids: Arc<Ids>,
    /// What a program may use while it declares, beside what is kept in the lab directory; `None` for this
    /// [`Machine`](crate::Machine).
    pub supply: Option<Arc<dyn Supply>>,
    /// How a run is interrupted; `None` for ^C.
    pub interrupt: Option<Interrupt>,
    /// True when the process ends with the command line: memory is then left to the system, all at once.
    pub ending: bool,
}

/// What a captured command line printed.
#[derive(Clone, Default)]
pub struct Transcript {
    out: Buffer,
    err: Buffer,
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Surroundings {
    /// Returns the surroundings of this process.
    pub fn process() -> Surroundings {
        let (out, err) = (io::stdout(), io::stderr());
        let colors = match anstream::AutoStream::choice(&out) {
            anstream::ColorChoice::Always | anstream::ColorChoice::AlwaysAnsi => true,
            anstream::ColorChoice::Auto | anstream::ColorChoice::Never => false,
        };
        let stdin = io::stdin();
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let person = stdin.is_terminal() && err.is_terminal();
        Surroundings {
            terminal: out.is_terminal() && err.is_terminal() && !dumb,
            colors,
            answers: person.then(|| Box::new(io::BufReader::new(stdin)) as Box<dyn BufRead + Send>),
            out: Box::new(out),
            err: Box::new(err),
            // What is not Unicode is nothing that is asked for.
            variables: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            link: None,
            keys: None,
            executable: None,
            mounts: None,
            ids: Arc::new(Ids::random()),
            supply: None,
            interrupt: None,
            ending: true,
        }
    }

    /// Returns surroundings that print into a transcript: piped, without colours, with nobody to ask, without
    /// variables.
    pub fn captured() -> (Surroundings, Transcript) {
        let transcript = Transcript::default();
        let surroundings = Surroundings {
            out: Box::new(transcript.out.clone()),
            err: Box::new(transcript.err.clone()),
            answers: None,
            terminal: false,
            colors: false,
            variables: BTreeMap::new(),
            link: None,
            keys: None,
            executable: None,
            mounts: None,
            ids: Arc::new(Ids::random()),
            supply: None,
            interrupt: None,
            ending: false,
        };
        (surroundings, transcript)
    }
}

impl Transcript {
    /// Returns what was printed to the standard output.
    pub fn out(&self) -> String {
        self.out.text()
    }

    /// Returns what was printed to the standard error.
    pub fn err(&self) -> String {
        self.err.text()
    }
}

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the SHA-256 of the running executable.
pub(crate) fn executable() -> io::Result<String> {
    let mut file = std::fs::File::open(std::env::current_exe()?)?;
    let mut digest = Sha256::new();
    io::copy(&mut file, &mut digest)?;
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

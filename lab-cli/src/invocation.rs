//! One call of the command line: what was asked for everywhere, and what it works with.

use crate::arguments::{Color, Global, STATE};
use crate::lab::Lab;
use crate::machine::Machine;
use crate::screen::Screen;
use crate::surroundings::{Surroundings, executable};
use crate::trouble::Trouble;
use lab_core::execute::disk::RealDisk;
use lab_core::execute::seal::{Ids, KeyFile};
use lab_core::execute::{Interrupt, KeySource, LabDir, Mounts, Shelf};
use lab_core::{Link, Route, Supply};
use std::collections::BTreeMap;
use std::io::BufRead;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The clock of a simulated lab that another process runs, as `rehearse --keep` names it.
pub(crate) const CLOCK_VARIABLE: &str = "LAB_CLOCK";

/// Where in the lab directory lies what was fetched.
const SHELF: &str = "assets";

/// One call of the command line.
#[derive(Clone)]
pub(crate) struct Invocation<'a> {
    pub(crate) lab: &'a Lab,
    /// The words that this program is called by, for commands to be copied.
    pub(crate) name: Vec<String>,
    pub(crate) global: Global,
    pub(crate) screen: Screen,
    pub(crate) ids: Arc<Ids>,
    /// How a run is interrupted; `None` for ^C.
    pub(crate) interrupt: Option<Interrupt>,
    /// True when the process ends with this call.
    pub(crate) ending: bool,
    /// The stacks that this one is done for first, the outermost first.
    pub(crate) waiting: Vec<String>,
    answers: Arc<Mutex<Option<Box<dyn BufRead + Send>>>>,
    variables: BTreeMap<String, String>,
    link: Option<Link>,
    keys: Option<KeySource>,
    executable: Option<String>,
    mounts: Option<Mounts>,
    supply: Option<Arc<dyn Supply>>,
    /// Where what was fetched is kept.
    shelf: PathBuf,
    /// True when the outside is a simulated lab, which has no internet.
    rehearsing: bool,
}

impl<'a> Invocation<'a> {
    pub(crate) fn new(lab: &'a Lab, name: Vec<String>, global: Global, around: Surroundings) -> Invocation<'a> {
        let colors = match global.color {
            Color::Auto => around.colors,
            Color::Always => true,
            Color::Never => false,
        };
        let shelf = global.state.join(SHELF);
        let screen = Screen::new(around.out, around.err, around.terminal, colors, global.json);
        Invocation {
            lab,
            name,
            global,
            screen,
            ids: around.ids,
            interrupt: around.interrupt,
            ending: around.ending,
            waiting: Vec::new(),
            answers: Arc::new(Mutex::new(around.answers)),
            variables: around.variables,
            link: around.link,
            keys: around.keys,
            executable: around.executable,
            mounts: around.mounts,
            supply: around.supply,
            shelf,
            rehearsing: false,
        }
    }

    /// Returns the same call on another state, with other keys, to another outside. What was fetched for the lab is still
    /// there: it says nothing of the state, and a rehearsal has no network to fetch it again.
    pub(crate) fn elsewhere(&self, state: PathBuf, keys: KeySource, link: Link) -> Invocation<'a> {
        let proxy = match &link.route {
            Route::Proxy(address) => Some(format!("http://{address}")),
            Route::Direct | Route::Nowhere => None,
        };
        Invocation {
            // Nobody else knows of it.
            global: Global { state, trust_lock: true, proxy, ..self.global.clone() },
            ending: false,
            rehearsing: true,
            link: Some(link),
            keys: Some(keys),
            ..self.clone()
        }
    }

    /// Returns the same call for another environment, which this one waits for.
    pub(crate) fn before(&self, env: &str) -> Invocation<'a> {
        let mut waiting = self.waiting.clone();
        waiting.push(self.stack());
        Invocation { global: Global { env: Some(env.to_owned()), ..self.global.clone() }, waiting, ..self.clone() }
    }

    /// Returns the lab directory.
    pub(crate) fn directory(&self) -> LabDir {
        let dir = LabDir::new(&self.global.state);
        let dir = match &self.mounts {
            Some(mounts) => dir.among(mounts.clone()),
            None => dir,
        };
        if self.global.trust_lock { dir.trusted() } else { dir }
    }

    /// Returns the name of the stack: the lab's, and the environment's where there is one.
    pub(crate) fn stack(&self) -> String {
        match &self.global.env {
            Some(env) => format!("{}-{env}", self.lab.name),
            None => self.lab.name.clone(),
        }
    }

    /// Returns what is to be done as a command that speaks of the same stack, in the same state and by the same way out.
    /// A shell takes it as it is.
    pub(crate) fn command(&self, what: &[&str]) -> String {
        let Global { state, trust_lock, env, proxy, json: _, color: _ } = &self.global;
        let mut words = self.name.clone();
        if state != Path::new(STATE) {
            words.extend(["--state".to_owned(), state.display().to_string()]);
        }
        words.extend(trust_lock.then(|| "--trust-lock".to_owned()));
        for (option, value) in [("--env", env), ("--proxy", proxy)] {
            words.extend(value.iter().flat_map(|value| [option.to_owned(), value.clone()]));
        }
        words.extend(what.iter().map(|word| (*word).to_owned()));
        let words = || words.iter().map(String::as_str);
        // Only a word with a NUL in it cannot be quoted, and no system hands a program such a word.
        shlex::try_join(words()).unwrap_or_else(|_| words().collect::<Vec<_>>().join(" "))
    }

    /// Returns how the outside is reached.
    pub(crate) fn link(&self) -> Result<Link, Trouble> {
        if let Some(link) = &self.link {
            return Ok(link.clone());
        }
        let variable = |name: &str| {
            let value = self.variables.get(name).or_else(|| self.variables.get(&name.to_lowercase()));
            value.filter(|value| !value.is_empty()).map(|value| (name.to_owned(), value.clone()))
        };
        let said = self.global.proxy.clone().map(|value| ("--proxy".to_owned(), value));
        match said.or_else(|| variable("LAB_PROXY")).or_else(|| variable("HTTPS_PROXY")) {
            None => Ok(Link::direct()),
            Some((_, value)) if value == "direct" => Ok(Link::direct()),
            Some((source, value)) => {
                let link = proxy(&value).map(Link::through).ok_or_else(|| {
                    Trouble::new(format!("failed to use the proxy {value:?} that {source} names"))
                        .because("it is not of the form http://IP:PORT")
                        .hint("name it by its address, as in `--proxy http://127.0.0.1:3128`, or say `--proxy direct`")
                        .usage()
                })?;
                // Only a lab behind a proxy can be simulated, and only a simulated one has a clock of its own.
                match variable(CLOCK_VARIABLE) {
                    None => Ok(link),
                    Some((source, clock)) => clock.parse().map(|clock| link.on(clock)).map_err(|why: String| {
                        Trouble::new(format!("failed to use the clock that {source} names")).because(why).usage()
                    }),
                }
            }
        }
    }

    /// Returns what the program may use while it declares.
    pub(crate) fn supply(&self) -> Result<Arc<dyn Supply>, Trouble> {
        let beyond = match &self.supply {
            Some(supply) => supply.clone(),
            None => {
                let path = self.variables.get("PATH").cloned().unwrap_or_default();
                let machine = Machine::new(self.link()?, path);
                let why = || {
                    let kept = self.shelf.display();
                    let name = self.name.join(" ");
                    format!("nothing is fetched in a rehearsal; `{name} preview` fetches it, and keeps it in {kept}")
                };
                Arc::new(if self.rehearsing { machine.alone(why()) } else { machine }) as Arc<dyn Supply>
            }
        };
        Ok(Arc::new(Shelf::new(Arc::new(RealDisk::new(&self.shelf)), beyond)))
    }

    /// Returns where the keys come from that seal secrets.
    pub(crate) fn keys(&self) -> Result<KeySource, Trouble> {
        match &self.keys {
            Some(keys) => Ok(keys.clone()),
            None => {
                let file = KeyFile::locate_in(|name| self.variables.get(name).map(Into::into))?;
                // A file that somebody named and that is not there is a mistake to be told before anything is begun.
                if file.named {
                    file.load()?;
                }
                Ok(KeySource::File { file, lab: self.global.state.clone() })
            }
        }
    }

    /// Returns the digest of the executable.
    pub(crate) fn executable(&self) -> Result<String, Trouble> {
        match &self.executable {
            Some(digest) => Ok(digest.clone()),
            None => executable().map_err(|error| Trouble::new("failed to read the running executable").because(error)),
        }
    }

    /// Asks a person, and returns what was answered; `None` when there is nobody.
    pub(crate) fn ask(&self, question: &str) -> Option<String> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let answers = answers.as_mut().filter(|_| !self.screen.json())?;
        self.screen.question(question);
        let mut answer = String::new();
        match answers.read_line(&mut answer) {
            Ok(_) => Some(answer.trim().to_lowercase()),
            Err(_) => None,
        }
    }
}

/// Returns the address of a proxy as a person writes it.
fn proxy(text: &str) -> Option<SocketAddr> {
    let rest = text.strip_prefix("http://")?;
    rest.strip_suffix('/').unwrap_or(rest).parse().ok()
}

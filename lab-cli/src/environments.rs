//! Environments: one program, a stack and a configuration file for each.

use crate::configuration;
use crate::lab::Lab;
use crate::trouble::Trouble;
use lab_core::{Declared, Neighbours, ProgramError, Stack, Supply, Vault};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What stands for the environment in the name of a configuration file.
const HOLE: &str = "{env}";

/// A named program for several environments, which is still to be told where their configuration lies.
///
/// Made by [`Lab::environments`].
#[must_use = "`configuration` makes a lab of it"]
pub struct Environments {
    name: String,
    load: Box<Load>,
}

type Load = dyn Fn(&Text<'_>, &str, Option<&str>, Vault, Neighbours, Arc<dyn Supply>) -> Result<Declared, Unloaded>;

/// The text of a configuration file, and what it is called.
struct Text<'a> {
    file: &'a str,
    text: &'a str,
}

/// Why a program did not load.
pub(crate) enum Unloaded {
    /// It failed.
    Program(ProgramError),
    /// It was not run.
    Trouble(Trouble),
}

/// Where the configuration of each environment lies.
pub(crate) struct Files {
    pattern: String,
}

impl Lab {
    /// Returns the lab called `name`, which `program` declares for one environment at a time.
    ///
    /// ```no_run
    /// use lab_cli::Lab;
    /// use lab_core::{ProgramError, Stack, Subnet};
    /// use serde::Deserialize;
    /// use std::process::ExitCode;
    ///
    /// #[derive(Deserialize)]
    /// struct Environment {
    ///     network: Subnet,
    ///     nodes: u8,
    /// }
    ///
    /// fn main() -> ExitCode {
    ///     Lab::environments("microk8s", microk8s).configuration("environments/{env}.toml").run()
    /// }
    ///
    /// fn microk8s(_stack: &Stack, _here: Environment) -> Result<(), ProgramError> {
    ///     Ok(())
    /// }
    /// ```
    ///
    /// `--env dev` then runs it with what `environments/dev.toml` says, on a stack of its own, `microk8s-dev`. All
    /// stacks lie in one lab directory with one lock, so what they occupy is compared, and what one returns another
    /// may read ([`Stack::promoted_from`]).
    pub fn environments<C: DeserializeOwned + 'static, T: Serialize>(
        name: &str,
        program: impl Fn(&Stack, C) -> Result<T, ProgramError> + 'static,
    ) -> Environments {
        Environments {
            name: name.to_owned(),
            load: Box::new(move |text, stack, env, vault, neighbours, supply| {
                let here: C = configuration::read(text.file, text.text).map_err(|problems| {
                    let listed: Vec<String> = problems.iter().map(ToString::to_string).collect();
                    let n = problems.len();
                    let many = if n == 1 { "a problem".to_owned() } else { format!("{n} problems") };
                    let what = format!("{} has {many}; nothing was planned", text.file);
                    Unloaded::Trouble(Trouble::new(what).because(listed.join("\n")))
                })?;
                let program = |stack: &Stack| program(stack, here);
                Stack::load_with(stack, env, vault, neighbours, supply, program).map_err(Unloaded::Program)
            }),
        }
    }
}

impl Environments {
    /// Says where the configuration of an environment lies: a file in TOML, `{env}` in its name standing for that of
    /// the environment. Relative paths begin at the working directory. The environments are those that have a file.
    ///
    /// It is read and checked before anything else: keys that nothing knows are refused, and every problem is listed
    /// with file, line and column.
    pub fn configuration(self, pattern: &str) -> Lab {
        let files = Files { pattern: pattern.to_owned() };
        let (name, load) = (self.name, self.load);
        let read = Files { pattern: pattern.to_owned() };
        let mut lab = Lab::loading(&name, move |stack, env, vault, neighbours, supply| {
            let Some(env) = env else { return Err(Unloaded::Trouble(read.unsaid())) };
            let file = read.file(env);
            let file = file.display().to_string();
            let text = std::fs::read_to_string(&file)
                .map_err(|error| Unloaded::Trouble(Trouble::new(format!("failed to read {file}")).because(error)))?;
            load(&Text { file: &file, text: &text }, stack, Some(env), vault, neighbours, supply)
        });
        lab.environments = Some(files);
        lab
    }
}

impl Files {
    /// Returns the file of an environment.
    fn file(&self, env: &str) -> PathBuf {
        PathBuf::from(self.pattern.replace(HOLE, env))
    }

    /// Returns the environments that have a file, in order.
    pub(crate) fn known(&self) -> Vec<String> {
        let pattern = Path::new(&self.pattern);
        let dir = pattern.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = pattern.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let Some((before, after)) = name.split_once(HOLE) else { return Vec::new() };
        let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
        let mut known: Vec<String> = entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                Some(name.strip_prefix(before)?.strip_suffix(after)?.to_owned())
            })
            .filter(|env| !env.is_empty())
            .collect();
        known.sort();
        known
    }

    /// Refuses an environment that has no file.
    pub(crate) fn check(&self, env: Option<&str>) -> Result<(), Trouble> {
        let Some(env) = env else { return Err(self.unsaid()) };
        let known = self.known();
        if known.iter().any(|known| known == env) {
            return Ok(());
        }
        let why = format!("there is no {}", self.file(env).display());
        Err(Trouble::new(format!("there is no environment {env:?}")).because(why).hint(self.hint(&known)).usage())
    }

    fn unsaid(&self) -> Trouble {
        Trouble::new("which environment is meant was not said").hint(self.hint(&self.known())).usage()
    }

    fn hint(&self, known: &[String]) -> String {
        if known.is_empty() {
            let dir = std::env::current_dir().unwrap_or_default();
            return format!("write {}; the working directory is {}", self.pattern, dir.display());
        }
        let options: Vec<String> = known.iter().map(|env| format!("`--env {env}`")).collect();
        options.join(" or ")
    }
}

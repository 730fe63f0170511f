//! A lab: a named program, ready to be a command line.

use crate::arguments::{Arguments, Rehearse, Verb};
use crate::environments::{Files, Unloaded};
use crate::invocation::Invocation;
use crate::surroundings::Surroundings;
use crate::trouble::{FAILED, Trouble, USAGE};
use crate::{drift, import, output, panics, preview, refresh, rehearse, state, up};
use clap::{Arg, CommandFactory, FromArgMatches, value_parser};
use lab_core::execute::Simulator;
use lab_core::plan;
use lab_core::{Declared, Neighbours, ProgramError, Provider, Stack, Supply, Vault, Vocabulary};
use serde::Serialize;
use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;

/// A named program, ready to be a command line.
///
/// The last three lines of a lab: `fn main() -> ExitCode { Lab::new("homelab", homelab).hardware(rack()).run() }`.
pub struct Lab {
    pub(crate) name: String,
    load: Box<Load>,
    pub(crate) hardware: Option<Box<dyn Simulator>>,
    vocabulary: Vocabulary,
    rehearse_by_default: bool,
    /// Where the configuration of each environment lies, when there is one.
    pub(crate) environments: Option<Files>,
    own: Option<Own>,
}

/// The program's own argument, and what was given for it.
struct Own {
    name: String,
    help: String,
    given: Rc<RefCell<OsString>>,
}

/// What the program's own argument is called among the others.
const OWN: &str = "own";

type Load = dyn Fn(&str, Option<&str>, Vault, Neighbours, Arc<dyn Supply>) -> Result<Declared, Unloaded>;

impl Lab {
    /// Returns the lab called `name`, which `program` declares.
    pub fn new<T: Serialize>(name: &str, program: impl Fn(&Stack) -> Result<T, ProgramError> + 'static) -> Lab {
        Lab::loading(name, move |stack, env, vault, neighbours, supply| {
            Stack::load_with(stack, env, vault, neighbours, supply, &program).map_err(Unloaded::Program)
        })
    }

    pub(crate) fn loading(
        name: &str,
        load: impl Fn(&str, Option<&str>, Vault, Neighbours, Arc<dyn Supply>) -> Result<Declared, Unloaded> + 'static,
    ) -> Lab {
        Lab {
            name: name.to_owned(),
            load: Box::new(load),
            hardware: None,
            vocabulary: Vocabulary::default(),
            rehearse_by_default: false,
            environments: None,
            own: None,
        }
    }

    /// Returns the lab called `name` whose program takes an argument of its own, before the verb: `scale graph.json up`.
    /// `argument` is what the argument is called and what its help says.
    pub fn with_argument<T: Serialize>(
        name: &str,
        argument: (&str, &str),
        program: impl Fn(&Stack, &OsStr) -> Result<T, ProgramError> + 'static,
    ) -> Lab {
        let given = Rc::new(RefCell::new(OsString::new()));
        let told = given.clone();
        let own = Own { name: argument.0.to_owned(), help: argument.1.to_owned(), given };
        Lab { own: Some(own), ..Lab::new(name, move |stack| program(stack, &told.borrow())) }
    }

    /// Gives `rehearse` something to start: the hardware of this lab, simulated.
    pub fn hardware(mut self, simulator: impl Simulator + 'static) -> Lab {
        self.hardware = Some(Box::new(simulator));
        self
    }

    /// Makes providers of the kind `P` known though the program declares none any more, so that what was made through
    /// them can still be deleted.
    pub fn knows<P: Provider>(mut self) -> Lab {
        self.vocabulary.learn::<P>();
        self
    }

    /// Rehearses when there are no arguments, instead of explaining itself.
    pub fn rehearse_by_default(mut self) -> Lab {
        self.rehearse_by_default = true;
        self
    }

    /// Runs the command line of this process.
    pub fn run(self) -> ExitCode {
        panics::remember();
        ExitCode::from(self.run_with(std::env::args_os(), Surroundings::process()))
    }

    /// Runs the command line `arguments`, the name of the executable first, in the given surroundings, and returns its
    /// exit code. Blocks; starts its own runtime.
    pub fn run_with<A: Into<OsString> + Clone>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        surroundings: Surroundings,
    ) -> u8 {
        let arguments = match self.understand(arguments, surroundings) {
            Ok(understood) => understood,
            Err(exit) => return exit,
        };
        let (verb, invocation) = arguments;
        let screen = invocation.screen.clone();
        let attempt = catch_unwind(AssertUnwindSafe(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            let runtime = runtime.map_err(|error| Trouble::new("failed to start").because(error))?;
            let exit = runtime.block_on(self.do_it(verb, &invocation));
            // What was abandoned is not waited for.
            runtime.shutdown_background();
            exit
        }));
        match attempt {
            Ok(Ok(exit)) => exit,
            Ok(Err(trouble)) => {
                screen.trouble(&trouble);
                trouble.exit
            }
            Err(panic) => {
                let trouble = Trouble::new("lab itself has failed").because(panics::told(&*panic)).hint(
                    "this is a mistake of lab; please report it. What was begun is recorded: run the command again",
                );
                screen.trouble(&trouble);
                FAILED
            }
        }
    }

    /// Returns what is asked for; prints an explanation and returns an exit code when nothing is.
    fn understand<A: Into<OsString> + Clone>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        mut surroundings: Surroundings,
    ) -> Result<(Verb, Invocation<'_>), u8> {
        let about = format!("The lab {}: preview what would be done, do it, take it away again.", self.name);
        let mut command = Arguments::command().name(self.name.clone()).about(about);
        if let Some(own) = &self.own {
            let argument = Arg::new(OWN).value_name(own.name.clone()).help(own.help.clone());
            command = command.arg(argument.value_parser(value_parser!(OsString)).required(true));
        }
        let parsed = command.try_get_matches_from_mut(arguments).and_then(|matches| {
            if let (Some(own), Some(given)) = (&self.own, matches.try_get_one::<OsString>(OWN).ok().flatten()) {
                own.given.replace(given.clone());
            }
            Arguments::from_arg_matches(&matches)
        });
        let mut explain = |text: clap::builder::StyledStr, failed: bool| {
            let text = if surroundings.colors { text.ansi().to_string() } else { text.to_string() };
            let stream = if failed { &mut surroundings.err } else { &mut surroundings.out };
            // Nobody reads; then nobody needs the explanation.
            let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
            if failed { USAGE } else { 0 }
        };
        let arguments = match parsed {
            Ok(arguments) => arguments,
            Err(error) => return Err(explain(error.render(), error.use_stderr())),
        };
        let verb = match arguments.verb {
            Some(verb) => verb,
            None if self.rehearse_by_default => Verb::Rehearse(Rehearse::default()),
            None => return Err(explain(command.render_help(), true)),
        };
        let mut name = vec![command.get_bin_name().map_or_else(|| self.name.clone(), str::to_owned)];
        name.extend(self.own.iter().map(|own| own.given.borrow().display().to_string()));
        Ok((verb, Invocation::new(self, name, arguments.global, surroundings)))
    }

    async fn do_it(&self, verb: Verb, invocation: &Invocation<'_>) -> Result<u8, Trouble> {
        if let Some(files) = &self.environments {
            files.check(invocation.global.env.as_deref())?;
        }
        match verb {
            Verb::Preview(preview) => preview::preview(invocation, &preview).await,
            Verb::Up(run) => up::up(invocation, plan::Verb::Up, &run).await,
            Verb::Destroy(run) => up::up(invocation, plan::Verb::Destroy, &run).await,
            Verb::Refresh => refresh::refresh(invocation).await,
            Verb::Drift(drift) => drift::drift(invocation, &drift).await,
            Verb::Import(import) => import::import(invocation, &import).await,
            Verb::Output(output) => output::output(invocation, &output),
            Verb::State(state) => state::state(invocation, &state).await,
            Verb::Rehearse(rehearse) => rehearse::rehearse(invocation, &rehearse).await,
        }
    }

    /// Runs the program and returns what it declares.
    pub(crate) fn load(
        &self,
        stack: &str,
        env: Option<&str>,
        vault: Vault,
        neighbours: Neighbours,
        supply: Arc<dyn Supply>,
    ) -> Result<Declared, Trouble> {
        let known = vault.clone();
        let attempt = catch_unwind(AssertUnwindSafe(|| (self.load)(stack, env, vault, neighbours, supply)));
        let failed =
            |why: String| Trouble::new("the program failed, so nothing was planned").because(known.scrub(&why));
        let mut declared = match attempt {
            Ok(Ok(declared)) => declared,
            Ok(Err(Unloaded::Program(error))) => {
                return Err(Trouble { needs: error.needs().map(str::to_owned), ..failed(error.to_string()) });
            }
            Ok(Err(Unloaded::Trouble(trouble))) => return Err(trouble),
            Err(panic) => return Err(failed(format!("it panicked: {}", panics::told(&*panic)))),
        };
        declared.vocabulary.merge(&self.vocabulary);
        Ok(declared)
    }
}

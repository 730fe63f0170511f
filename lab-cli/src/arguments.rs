//! The arguments of a command line, as data.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Explains what a person or a script has to know beyond the verbs.
const AFTER: &str = "\
Exit codes:
  0   done, or nothing to do
  1   failed or refused; nothing that was begun is left open
  2   `--exit-code` was given and there is something to do
  3   partly done: something was interrupted, left open or not started; run the same command again
  64  the command line was not understood

Files:
  --state DIR      the state of every stack of this lab and one lock for all; back it up. A directory that does not
                   keep a lock is refused; `--trust-lock` where no other machine ever runs this lab
  LAB_AGE_KEY_FILE the key that seals secrets in it; else lab/age.key in the user's configuration directory

A first evening:
  preview                look at what would be done; changes nothing
  preview --out plan     the same, kept in a file
  up plan                do exactly that, or refuse because something has changed since
  up                     plan, show, ask, do; after a failure or a crash, run it again
  destroy                take everything away again";

/// One call of the command line.
#[derive(Debug, Parser)]
#[command(disable_help_subcommand = true, after_help = AFTER, max_term_width = 110)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
}

/// Where the state is unless another place is named.
pub(crate) const STATE: &str = ".lab";

/// What every verb understands.
#[derive(Args, Clone, Debug)]
pub(crate) struct Global {
    /// Directory of the lab's state
    #[arg(long, global = true, value_name = "DIR", default_value = STATE, help_heading = "Everywhere")]
    pub(crate) state: PathBuf,
    /// Lock the state directory even where locks may not hold: NFS without them, SMB, FUSE, 9p
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub(crate) trust_lock: bool,
    /// Environment: a stack of its own, named `<lab>-<NAME>`
    #[arg(long, global = true, value_name = "NAME", help_heading = "Everywhere")]
    pub(crate) env: Option<String>,
    /// Proxy for every connection: `http://IP:PORT` or `direct`; else $LAB_PROXY or $HTTPS_PROXY
    #[arg(long, global = true, value_name = "URL", help_heading = "Everywhere")]
    pub(crate) proxy: Option<String>,
    /// Print a stream of events, a JSON object a line
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub(crate) json: bool,
    /// Colours: `auto` (on a terminal, unless $NO_COLOR is set), `always` or `never`
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        hide_possible_values = true,
        hide_default_value = true,
        help_heading = "Everywhere"
    )]
    pub(crate) color: Color,
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show what `up` would do; changes nothing
    Preview(Preview),
    /// Make the world match the program
    Up(Run),
    /// Take away everything the program made
    Destroy(Run),
    /// Look at everything that is recorded and record what is seen
    Refresh,
    /// Show what was changed by somebody else: as declared, as last applied, as it is
    Drift(Drift),
    /// Take over something that exists already, for a resource the program declares
    Import(Import),
    /// Show what the program returned when it was last applied
    Output(Output),
    /// Look at what is recorded, check it, seal it for another key, forget
    #[command(subcommand)]
    State(State),
    /// Apply the program to a simulated lab and check that a second plan is empty
    Rehearse(Rehearse),
}

#[derive(Args, Debug)]
pub(crate) struct Preview {
    /// Keep the plan in a file, for `up FILE`
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Exit with 2 when there is something to do
    #[arg(long)]
    pub(crate) exit_code: bool,
    /// Plan for `destroy` instead of `up`
    #[arg(long)]
    pub(crate) destroy: bool,
    #[command(flatten)]
    pub(crate) scope: Scope,
}

/// What a plan is about.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Scope {
    /// Look at everything that is recorded first, for what was changed by somebody else, and ask what would come of the
    /// plan
    #[arg(long)]
    pub(crate) refresh: bool,
    /// Only this and what it needs: a URN, a name with its path, or a component; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) target: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Run {
    /// A plan that `preview --out` has written: done exactly, or refused
    #[arg(value_name = "PLAN", conflicts_with_all = ["refresh", "target"])]
    pub(crate) plan: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) consent: Consent,
    #[command(flatten)]
    pub(crate) scope: Scope,
}

/// How a plan is carried out.
#[derive(Args, Clone, Debug)]
pub(crate) struct Consent {
    /// Consent to the plan that is shown, also where it destroys data
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// How many steps run at the same time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = parallel)]
    pub(crate) parallel: usize,
}

fn parallel(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least one step has to run".into()),
        Ok(n) => Ok(n),
        Err(_) => Err("a number is needed".into()),
    }
}

#[derive(Args, Debug)]
pub(crate) struct Drift {
    /// Exit with 2 when anything is not as it was left, else with 1 when something could not be looked at
    #[arg(long)]
    pub(crate) exit_code: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Import {
    /// The resource as the program declares it: a URN or a name with its path
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
    /// Its identity in the outside system
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

#[derive(Args, Debug)]
pub(crate) struct Output {
    /// Only this one
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Show secrets in clear
    #[arg(long)]
    pub(crate) show_secrets: bool,
    /// Print exactly the value and nothing else, for a file: `output kubeconfig --raw --show-secrets`
    #[arg(long, requires = "name")]
    pub(crate) raw: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum State {
    /// List what is recorded
    List,
    /// Show everything that is recorded of one resource
    Show {
        /// A URN or a name with its path
        #[arg(value_name = "NAME")]
        target: String,
    },
    /// Check the state files of all stacks from end to end
    Verify,
    /// Make a new key and seal the secrets of all stacks anew; no value and no plan changes
    Rotate {
        /// Use the first key of this file instead of a new one
        #[arg(long, value_name = "KEY_FILE")]
        to: Option<PathBuf>,
    },
    /// Stop managing a resource without touching it
    Forget {
        /// A URN, a name with its path, or the mark of something that was left behind
        #[arg(value_name = "NAME")]
        target: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Rehearse {
    /// Leave the simulated lab running afterwards, until ^C, and say how to reach it
    #[arg(long)]
    pub(crate) keep: bool,
    /// Everything random in the simulated lab follows from this number
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
}

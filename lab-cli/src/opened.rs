//! A stack, opened: its state, what the program declares, and how the outside is reached.

use crate::invocation::Invocation;
use crate::screen::Screen;
use crate::trouble::Trouble;
use lab_core::execute::journal::Cut;
use lab_core::execute::lock::Lock;
use lab_core::execute::{self, KeySource, LabDir, Ledger, Look, Opening, SavedPlan, Store};
use lab_core::plan::{self, ForeignClaim, Observations, Plan, Request, Seen, Verb};
use lab_core::{Declared, Link, State, Vault};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A stack, opened.
pub(crate) struct Opened {
    pub(crate) declared: Arc<Declared>,
    pub(crate) ledger: Ledger,
    pub(crate) link: Link,
    pub(crate) keys: KeySource,
    foreign: Vec<ForeignClaim>,
    // Held until everything above is done with.
    _lock: Option<Lock>,
}

/// Returns the lab directory.
pub(crate) fn directory(invocation: &Invocation<'_>) -> LabDir {
    invocation.directory()
}

/// Returns the state of the stack without opening it for writing and without running the program.
pub(crate) fn look(invocation: &Invocation<'_>) -> Result<Look, Trouble> {
    let look = Store::look(&*directory(invocation).disk(), &invocation.stack(), &invocation.keys()?)?;
    passed_over(invocation, look.cut.as_ref(), "passed over");
    Ok(look)
}

/// Says that the end of a journal was not read: of what it told, nothing is known.
fn passed_over(invocation: &Invocation<'_>, cut: Option<&Cut>, done: &str) {
    if let Some(cut) = cut {
        invocation.screen.warning(&format!(
            "the last {} bytes of {} are half written and are {done}: {}",
            cut.bytes, cut.file, cut.why
        ));
    }
}

/// Opens the state of the stack for writing, without running the program. `verb` is what a second process is told.
pub(crate) fn write(invocation: &Invocation<'_>, verb: &str) -> Result<(Store, Lock), Trouble> {
    let dir = directory(invocation);
    let lock = dir.lock(verb, SystemTime::now())?;
    let (store, cut) = dir.open(&invocation.stack(), invocation.keys()?)?;
    passed_over(invocation, cut.as_ref(), "cut off");
    Ok((store, lock))
}

/// What comes of the program.
struct Loaded {
    declared: Declared,
    link: Link,
    keys: KeySource,
    foreign: Vec<ForeignClaim>,
}

/// May still change what is declared.
type Adapt<'a> = &'a mut dyn FnMut(&mut Declared) -> Result<(), Trouble>;

/// Loads the program. What is secret in it goes to `vault`.
fn load(invocation: &Invocation<'_>, vault: Vault, adapt: Adapt<'_>) -> Result<Loaded, Trouble> {
    let (dir, stack, keys) = (directory(invocation), invocation.stack(), invocation.keys()?);
    let link = invocation.link()?;
    let (outputs, foreign) = execute::neighbours(&*dir.disk(), &dir.stacks()?, &stack, &keys, &vault)?;
    let mut declared = {
        let _loading = invocation.screen.busy("loading the program");
        let (env, supply) = (invocation.global.env.as_deref(), invocation.supply()?);
        invocation.lab.load(&stack, env, vault, outputs, supply)?
    };
    adapt(&mut declared)?;
    Ok(Loaded { declared, link, keys, foreign })
}

/// Loads the program while the state is still being read. What is wrong with the state is said first.
fn meanwhile(
    invocation: &Invocation<'_>,
    opening: Opening,
    torn: &str,
    adapt: Adapt<'_>,
) -> Result<(Store, Loaded), Trouble> {
    let (vault, opening) = opening.vault()?;
    let loaded = load(invocation, vault, adapt);
    let (store, cut) = opening.finish()?;
    passed_over(invocation, cut.as_ref(), torn);
    Ok((store, loaded?))
}

impl Opened {
    /// Opens the stack for looking: nothing is written, not even a directory.
    pub(crate) fn look(invocation: &Invocation<'_>) -> Result<Opened, Trouble> {
        let disk = directory(invocation).disk();
        let opening = Opening::to_look(disk, &invocation.stack(), invocation.keys()?);
        let (store, loaded) = meanwhile(invocation, opening, "passed over", &mut |_| Ok(()))?;
        Ok(Opened::of(store, loaded, None))
    }

    /// Opens the stack for writing. With a saved plan, its secrets and the key of their fingerprints are taken over.
    /// `adapt` may still change what is declared.
    pub(crate) fn write(
        invocation: &Invocation<'_>,
        verb: &str,
        saved: Option<&SavedPlan>,
        adapt: Adapt<'_>,
    ) -> Result<Opened, Trouble> {
        let Some(saved) = saved else {
            let dir = directory(invocation);
            let lock = dir.lock(verb, SystemTime::now())?;
            let opening = Opening::to_write(dir.disk(), &invocation.stack(), invocation.keys()?);
            let (store, loaded) = meanwhile(invocation, opening, "cut off", adapt)?;
            return Ok(Opened::of(store, loaded, Some(lock)));
        };
        let (mut store, lock) = write(invocation, verb)?;
        let vault = saved.vault(&invocation.keys()?.for_opening()?)?;
        if store.state().key.is_none() {
            store.adopt(vault);
        } else {
            for fingerprint in saved.secrets.keys() {
                let value = vault.get(fingerprint);
                let unreadable = |why| Trouble::new("failed to open the secrets of the plan").because(why);
                store.vault().put(&value.map_err(unreadable)?);
            }
        }
        let loaded = load(invocation, store.vault().clone(), adapt)?;
        Ok(Opened::of(store, loaded, Some(lock)))
    }

    fn of(store: Store, loaded: Loaded, lock: Option<Lock>) -> Opened {
        let Loaded { declared, link, keys, foreign } = loaded;
        let ledger = Ledger::new(store, link.clock.clone());
        Opened { declared: Arc::new(declared), ledger, link, keys, foreign, _lock: lock }
    }

    /// Returns the state as it is now.
    pub(crate) fn state(&self) -> State {
        self.ledger.with(|store| store.state().clone())
    }

    /// Returns the time, to the second: what a saved plan can hold.
    pub(crate) fn now(&self) -> u64 {
        self.link.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
    }

    /// Looks at the world, as far as is asked for, and says what nothing could be learned of.
    pub(crate) async fn observe(&self, screen: &Screen, refresh: bool) -> Observations {
        let looking = screen.busy(if refresh { "looking at everything that is recorded" } else { "looking" });
        let seen = execute::observe(self.declared.clone(), &self.ledger, &self.link, refresh).await;
        drop(looking);
        for (urn, seen) in &seen.seen {
            if let Seen::Unknown(why) = seen {
                screen.warning(&format!("nothing is known of {} {}: {why}", urn.kind(), urn.short()));
            }
        }
        seen
    }

    /// Returns the plan. `at` is in seconds since 1970.
    pub(crate) fn plan(&self, verb: Verb, targets: &[String], seen: &Observations, at: u64) -> Plan {
        let now = UNIX_EPOCH + Duration::from_secs(at);
        let request = Request { verb, targets: targets.to_vec(), now, foreign: self.foreign.clone() };
        self.ledger.with(|store| plan::plan(&self.declared, store.state(), seen, &request))
    }

    /// Returns the plan with what the outside would make of it beside the steps, for a person to read.
    pub(crate) async fn probe(&self, screen: &Screen, plan: &Plan) -> Plan {
        let asking = screen.busy("asking what would come of it");
        let probed = execute::probe(plan, self.declared.clone(), &self.ledger, &self.link).await;
        drop(asking);
        let mut plan = plan.clone();
        plan.heed(&probed);
        plan
    }

    /// Closes the state, and lets go of the lock. `plan` is done with. Where the process ends, memory is left to the
    /// system: to put it away piece by piece takes as long as to plan with it. Only the plan makes room for the state
    /// where that is written once more: the two together would be the most that a run ever needs.
    pub(crate) fn close(self, plan: Option<Plan>, ending: bool) -> Result<(), Trouble> {
        let Opened { declared, ledger, link: _, keys: _, foreign: _, _lock } = self;
        if ending {
            std::mem::forget(declared);
            match ledger.with(|store| store.frames()) {
                0 => std::mem::forget(plan),
                _ => drop(plan),
            }
            return Ok(ledger.leave()?);
        }
        Ok(ledger.close()?)
    }
}

//! `rehearse`: the unchanged program on a simulated lab, in a state directory that is thrown away.

use crate::arguments::{self, Consent};
use crate::invocation::{CLOCK_VARIABLE, Invocation};
use crate::opened::Opened;
use crate::show;
use crate::trouble::{FAILED, Trouble};
use crate::up::finish;
use lab_core::execute::seal::{KEY_FILE_VARIABLE, KeyFile, Keys};
use lab_core::execute::{KeySource, Simulated};
use lab_core::plan::{Seen, Tone, Verb};
use serde_json::json;
use std::io;
use std::path::Path;
use std::time::SystemTime;

pub(crate) async fn rehearse(invocation: &Invocation<'_>, arguments: &arguments::Rehearse) -> Result<u8, Trouble> {
    let screen = &invocation.screen;
    let Some(hardware) = &invocation.lab.hardware else {
        return Err(Trouble::new("there is nothing to rehearse on")
            .because("the program does not say which hardware there is")
            .hint("give it one: `Lab::new(...).hardware(rack)`"));
    };
    let failed = |what: &str| {
        let what = format!("failed to {what}");
        move |error: io::Error| Trouble::new(what).because(error)
    };
    let away = tempfile::Builder::new()
        .prefix("lab-rehearsal-")
        .tempdir()
        .map_err(failed("make a directory to throw away"))?;
    let (state, key) = (away.path().join("state"), away.path().join("age.key"));
    let keys = if arguments.keep {
        // Another terminal needs the key too.
        let file = KeyFile { path: key.clone(), named: false };
        file.load_or_create(&state, SystemTime::now())?;
        KeySource::File { file, lab: state.clone() }
    } else {
        KeySource::Given(Keys::throwaway())
    };
    let simulated = hardware.start(arguments.seed).await.map_err(failed("start the simulated lab"))?;
    screen.line(0, &[(Tone::Strong, "Rehearsal: nothing of this is real.")]);
    simulated.summary.iter().for_each(|line| screen.line(1, &[(Tone::Faint, line)]));
    screen.event("rehearsal", json!({"seed": arguments.seed, "summary": simulated.summary}));

    let there = invocation.elsewhere(state.clone(), keys, simulated.link.clone());
    let mut done = Vec::new();
    // Nothing is left to go on from when it fails: the whole lab is thrown away.
    let mut exit = if first(&there, &mut done).await? == 0 { 0 } else { FAILED };
    if exit == 0 {
        for there in &done {
            exit = exit.max(second(there, done.len() > 1).await?);
        }
    }
    screen.event("rehearsed", json!({"stack": there.stack(), "exit": exit}));
    if arguments.keep {
        keep(&there, &simulated, &key);
        if let Err(error) = tokio::signal::ctrl_c().await {
            screen.warning(&format!("the simulated lab ends now: ^C cannot be waited for: {error}"));
            exit = FAILED;
        }
    }
    drop(simulated);
    away.close().map_err(failed("remove the directory of the rehearsal"))?;
    Ok(exit)
}

/// Applies the program, and before it the environments that it takes something over from: they share the lab directory
/// and the hardware, as they will in life. Every one that was applied goes into `done`, in that order.
async fn first<'a>(invocation: &Invocation<'a>, done: &mut Vec<Invocation<'a>>) -> Result<u8, Trouble> {
    let opened = loop {
        let trouble = match Opened::write(invocation, "rehearse", None, &mut |_| Ok(())) {
            Ok(opened) => break opened,
            Err(trouble) => trouble,
        };
        let Some(before) = before(invocation, &trouble, done) else { return Err(trouble) };
        let (stack, needed) = (invocation.stack(), before.stack());
        let text = format!("{stack} takes over from {needed}, which is rehearsed first.");
        invocation.screen.line(0, &[(Tone::Strong, &text)]);
        match Box::pin(first(&before, done)).await? {
            0 => {}
            failed => return Ok(failed),
        }
    };
    let consent = Consent { yes: true, parallel: 16 };
    let seen = opened.observe(&invocation.screen, false).await;
    let plan = opened.plan(Verb::Up, &[], &seen, opened.now());
    let exit = finish(invocation, opened, plan, &consent, false).await?;
    if exit == 0 {
        done.push(invocation.clone());
    }
    Ok(exit)
}

/// Returns the environment of this lab that has to be applied first, unless it was, or it is what needs the other.
fn before<'a>(invocation: &Invocation<'a>, trouble: &Trouble, done: &[Invocation<'_>]) -> Option<Invocation<'a>> {
    let env = trouble.needs.as_deref()?.strip_prefix(&invocation.lab.name)?.strip_prefix('-')?;
    let before = invocation.before(env);
    if let Some(files) = &invocation.lab.environments {
        files.check(Some(env)).ok()?;
    }
    let waits = before.waiting.contains(&before.stack());
    let known = done.iter().any(|done| done.stack() == before.stack());
    (!waits && !known).then_some(before)
}

/// Plans again, having looked at everything; there must be nothing to do. `one_of` several.
async fn second(invocation: &Invocation<'_>, one_of: bool) -> Result<u8, Trouble> {
    let screen = &invocation.screen;
    let which = if one_of { format!(" of {}", invocation.stack()) } else { String::new() };
    let opened = Opened::look(invocation)?;
    let seen = opened.observe(screen, true).await;
    let plan = opened.plan(Verb::Up, &[], &seen, opened.now());
    let unknown = seen.seen.values().filter(|seen| matches!(seen, Seen::Unknown(_))).count();
    if plan.is_empty() && unknown > 0 {
        let what = format!("{unknown} resources{which} could not be looked at for the second plan");
        screen.trouble(&Trouble::new(what).hint("what kept them from answering is said above"));
        return Ok(FAILED);
    }
    if plan.is_empty() {
        screen.line(
            0,
            &[
                (Tone::Create, &format!("The second plan{which} is empty")),
                (Tone::Plain, &format!(": {} resources are as the program says.", plan.same)),
            ],
        );
        return Ok(0);
    }
    screen.line(0, &[(Tone::Error, &format!("The second plan{which} is not empty:"))]);
    show::plan(screen, &plan);
    let hint = "look for a value that differs at every run, or a provider that reads back something else than it wrote";
    // Not the end of it: a lab that is kept can be looked into.
    screen.trouble(&Trouble::new("a second plan has to be empty, and this one is not").hint(hint));
    Ok(FAILED)
}

/// Says how a person reaches the simulated lab.
fn keep(invocation: &Invocation<'_>, simulated: &Simulated, key: &Path) {
    let screen = &invocation.screen;
    let (state, proxy) = (&invocation.global.state, &invocation.global.proxy);
    let clock = simulated.link.clock.to_string();
    screen.event("kept", json!({"proxy": proxy, "clock": clock, "state": state, "key": key, "reach": simulated.reach}));
    screen.line(0, &[(Tone::Strong, "The simulated lab keeps running until ^C. In another terminal:")]);
    let mut invocation = invocation.clone();
    // Another terminal may be anywhere.
    if let (Ok(path), [name, ..]) = (std::env::current_exe(), &mut invocation.name[..]) {
        *name = path.display().to_string();
    }
    screen.line(1, &[(Tone::Plain, &format!("export {KEY_FILE_VARIABLE}={}", key.display()))]);
    // Its certificates are issued on its own clock, and waiting is done on it too.
    screen.line(1, &[(Tone::Plain, &format!("export {CLOCK_VARIABLE}={clock}"))]);
    for what in [&["preview", "--out", "plan"][..], &["up", "plan"], &["drift"], &["output"], &["destroy"]] {
        screen.line(1, &[(Tone::Plain, &invocation.command(what))]);
    }
    simulated.reach.iter().for_each(|line| screen.line(1, &[(Tone::Plain, line)]));
}

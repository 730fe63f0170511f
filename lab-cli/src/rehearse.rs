//! `rehearse`: the unchanged program on a simulated lab, in a state directory that is thrown away.

use crate::arguments::{self, Consent};
use crate::invocation::{CLOCK_VARIABLE, Invocation};
use crate::opened::Opened;
use crate::show;
use crate::trouble::{FAILED, Trouble};
use crate::up::finish;
use lab_core::Route;
use lab_core::execute::seal::{KEY_FILE_VARIABLE, KeyFile, Keys};
use lab_core::execute::{KeySource, Simulated};
use lab_core::plan::{Tone, Verb};
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
    let consent = Consent { yes: true, parallel: 16 };
    let opened = Opened::write(&there, "rehearse", None, &mut |_| Ok(()))?;
    let seen = opened.observe(screen, false).await;
    let plan = opened.plan(Verb::Up, &[], &seen, opened.now());
    let mut exit = match finish(&there, opened, plan, &consent, false).await? {
        0 => second(&there).await?,
        // Nothing is left to go on from: the whole lab is thrown away.
        _ => FAILED,
    };
    screen.event("rehearsed", json!({"stack": there.stack(), "exit": exit}));
    if arguments.keep {
        keep(&there, &simulated, &state, &key);
        if let Err(error) = tokio::signal::ctrl_c().await {
            screen.warning(&format!("the simulated lab ends now: ^C cannot be waited for: {error}"));
            exit = FAILED;
        }
    }
    drop(simulated);
    away.close().map_err(failed("remove the directory of the rehearsal"))?;
    Ok(exit)
}

/// Plans again, having looked at everything; there must be nothing to do.
async fn second(invocation: &Invocation<'_>) -> Result<u8, Trouble> {
    let screen = &invocation.screen;
    let opened = Opened::look(invocation)?;
    let seen = opened.observe(screen, true).await;
    let plan = opened.plan(Verb::Up, &[], &seen, opened.now());
    if plan.is_empty() {
        screen.line(
            0,
            &[
                (Tone::Create, "The second plan is empty"),
                (Tone::Plain, &format!(": {} resources are as the program says.", plan.same)),
            ],
        );
        return Ok(0);
    }
    screen.line(0, &[(Tone::Error, "The second plan is not empty:")]);
    show::plan(screen, &plan);
    let hint = "look for a value that differs at every run, or a provider that reads back something else than it wrote";
    // Not the end of it: a lab that is kept can be looked into.
    screen.trouble(&Trouble::new("a second plan has to be empty, and this one is not").hint(hint));
    Ok(FAILED)
}

/// Says how a person reaches the simulated lab.
fn keep(invocation: &Invocation<'_>, simulated: &Simulated, state: &Path, key: &Path) {
    let screen = &invocation.screen;
    let proxy = match simulated.link.route {
        Route::Proxy(address) => Some(format!("http://{address}")),
        Route::Direct | Route::Nowhere => None,
    };
    let clock = simulated.link.clock.to_string();
    screen.event("kept", json!({"proxy": proxy, "clock": clock, "state": state, "key": key, "reach": simulated.reach}));
    screen.line(0, &[(Tone::Strong, "The simulated lab keeps running until ^C. In another terminal:")]);
    let command = std::env::current_exe().map_or_else(|_| invocation.name.clone(), |path| path.display().to_string());
    let option = proxy.map(|proxy| format!(" --proxy {proxy}")).unwrap_or_default();
    let env = invocation.global.env.as_ref().map(|env| format!(" --env {env}")).unwrap_or_default();
    screen.line(1, &[(Tone::Plain, &format!("export {KEY_FILE_VARIABLE}={}", key.display()))]);
    // Its certificates are issued on its own clock, and waiting is done on it too.
    screen.line(1, &[(Tone::Plain, &format!("export {CLOCK_VARIABLE}={clock}"))]);
    for verb in ["preview --out plan", "up plan", "drift", "output", "destroy"] {
        screen.line(1, &[(Tone::Plain, &format!("{command} --state {}{option}{env} {verb}", state.display()))]);
    }
    simulated.reach.iter().for_each(|line| screen.line(1, &[(Tone::Plain, line)]));
}

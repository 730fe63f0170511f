//! `up` and `destroy`: plan, show, ask, do.

use crate::arguments::{Consent, Run};
use crate::invocation::Invocation;
use crate::opened::Opened;
use crate::preview::refuse;
use crate::progress;
use crate::show;
use crate::trouble::{FAILED, PARTLY, Trouble};
use lab_core::execute::{Interrupt, Options, Refused, Report, SavedPlan, Warned, execute, state_digest};
use lab_core::plan::{Plan, Tone, Verb};
use lab_core::{Urn, redact};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::Path;

/// How many steps make it worth saying how often the disk was waited for.
const MANY: usize = 100;

pub(crate) async fn up(invocation: &Invocation<'_>, verb: Verb, run: &Run) -> Result<u8, Trouble> {
    let saved = run.plan.as_deref().map(read).transpose()?;
    if let Some(saved) = &saved {
        fits(invocation, saved, verb)?;
    }
    let opened = Opened::write(invocation, &verb.to_string(), saved.as_ref(), &mut |_| Ok(()))?;
    let plan = match &saved {
        Some(saved) => {
            let plan = opened.plan(verb, &saved.targets, &saved.observations, saved.at);
            saved.check(&plan, &state_digest(&opened.state()), &invocation.executable()?)?;
            plan
        }
        None => {
            let seen = opened.observe(&invocation.screen, run.scope.refresh).await;
            let plan = opened.plan(verb, &run.scope.target, &seen, opened.now());
            if run.scope.refresh { opened.probe(&invocation.screen, &plan).await } else { plan }
        }
    };
    finish(invocation, opened, plan, &run.consent, saved.is_some()).await
}

fn read(file: &Path) -> Result<SavedPlan, Trouble> {
    let shown = file.display().to_string();
    let bytes = std::fs::read(file).map_err(|error| {
        let trouble = Trouble::new(format!("failed to read the plan {shown}")).because(&error);
        match error.kind() {
            std::io::ErrorKind::NotFound => trouble.hint(format!("`preview --out {shown}` makes it")),
            _ => trouble,
        }
    })?;
    Ok(SavedPlan::from_bytes(&shown, &bytes)?)
}

/// Refuses what can be told from the file alone, before anything is locked.
fn fits(invocation: &Invocation<'_>, saved: &SavedPlan, verb: Verb) -> Result<(), Trouble> {
    let ours = invocation.stack();
    if saved.plan.stack != ours {
        return Err(Refused::Stack { theirs: saved.plan.stack.clone(), ours }.into());
    }
    if saved.verb() != verb {
        let theirs = saved.verb();
        return Err(Trouble::new(format!("failed to {verb}"))
            .because(format!("the plan was made for `{theirs}`"))
            .hint(format!("`{theirs} PLAN` does it")));
    }
    Ok(())
}

/// Shows a plan, asks for consent, carries it out, and closes the state.
pub(crate) async fn finish(
    invocation: &Invocation<'_>,
    opened: Opened,
    plan: Plan,
    consent: &Consent,
    saved: bool,
) -> Result<u8, Trouble> {
    show::plan(&invocation.screen, &plan);
    refuse(&plan)?;
    consented(invocation, &plan, consent.yes, saved)?;
    let report = carry_out(invocation, &opened, &plan, consent.parallel).await;
    let exit = result(invocation, &opened, &plan, &report);
    opened.close(Some(plan), invocation.ending)?;
    Ok(exit)
}

/// Asks whether the plan that was shown is to be done.
fn consented(invocation: &Invocation<'_>, plan: &Plan, yes: bool, saved: bool) -> Result<(), Trouble> {
    let destroys = plan.destroys().count() > 0;
    // A plan in a file was looked at before; what it destroys is asked for all the same.
    if yes || plan.is_empty() || (saved && !destroys) {
        return Ok(());
    }
    let question =
        if destroys { "This destroys data, as listed above. Type `yes` to do it:" } else { "Do this? [y/N]" };
    match invocation.ask(question).as_deref() {
        Some("yes") => Ok(()),
        Some("y") if !destroys => Ok(()),
        Some(_) => Err(Trouble::new("it was declined; nothing was changed")),
        None => Err(Trouble::new("nothing was changed: the plan needs consent, and there is nobody to ask")
            .hint("`--yes` consents to the plan that is shown; `preview --out FILE` keeps one to look at first")),
    }
}

/// Carries out a plan that was consented to.
pub(crate) async fn carry_out(invocation: &Invocation<'_>, opened: &Opened, plan: &Plan, parallel: usize) -> Report {
    let interrupt = invocation.interrupt.clone().unwrap_or_default();
    let listening = invocation.interrupt.is_none().then(|| listen(invocation, interrupt.clone()));
    let options = Options {
        parallel,
        sink: progress::sink(&invocation.screen),
        interrupt,
        ids: invocation.ids.clone(),
        ..Options::default()
    };
    let report = execute(plan, opened.declared.clone(), opened.ledger.clone(), opened.link.clone(), options).await;
    if let Some(listening) = listening {
        listening.abort();
    }
    report
}

/// Listens to ^C: once, and what is in flight is finished; twice, and it is abandoned; three times, and that is that.
fn listen(invocation: &Invocation<'_>, interrupt: Interrupt) -> tokio::task::JoinHandle<()> {
    let screen = invocation.screen.clone();
    tokio::spawn(async move {
        // One listener for all of them: what is pressed while the answer to the one before is written counts.
        let Ok(mut presses) = presses() else { return };
        for message in [
            "interrupted: what is in flight is finished, nothing new is started; ^C again abandons it",
            "abandoned: the next run finds out what became of it",
        ] {
            if presses.recv().await.is_none() {
                return;
            }
            screen.warning(message);
            interrupt.ask();
        }
        if presses.recv().await.is_some() {
            std::process::exit(PARTLY.into());
        }
    })
}

#[cfg(unix)]
fn presses() -> std::io::Result<tokio::signal::unix::Signal> {
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
}

#[cfg(windows)]
fn presses() -> std::io::Result<tokio::signal::windows::CtrlC> {
    tokio::signal::windows::ctrl_c()
}

/// Says what came of a run, and returns the exit code.
fn result(invocation: &Invocation<'_>, opened: &Opened, plan: &Plan, report: &Report) -> u8 {
    let screen = &invocation.screen;
    let open = report.failed.iter().filter(|failure| failure.open).count();
    let partly = report.interrupted || open > 0 || !report.done.is_empty();
    let exit = match (report.complete(), partly) {
        (true, _) => 0,
        (false, true) => PARTLY,
        (false, false) => FAILED,
    };
    // What concerns the whole run was no step, so no step has told it.
    let steps: BTreeSet<&Urn> = plan.steps.iter().map(|step| &step.urn).collect();
    for failure in report.failed.iter().filter(|failure| !steps.contains(&failure.urn)) {
        let what = format!("failed to {} what happened to {}", failure.action, plan.stack);
        let (cause, hint) = (Some(failure.error.clone()), failure.hint.clone());
        screen.trouble(&Trouble { what, cause, hint, exit, needs: None });
    }
    let outputs = opened.ledger.with(|store| store.state().outputs.clone());
    let mut parts = vec![format!("{} done", report.done.len())];
    // Of a few steps nobody asks.
    if report.done.len() >= MANY {
        parts.push(format!("{} flushes", report.flushes));
    }
    let rest = [
        (report.failed.len(), "failed"),
        (report.left.len(), "left where it stands"),
        (report.not_started.len(), "not started"),
    ];
    for (n, what) in rest {
        if n > 0 {
            parts.push(format!("{n} {what}"));
        }
    }
    match report.warnings.len() {
        0 => {}
        1 => parts.push("1 warning".to_owned()),
        more => parts.push(format!("{more} warnings")),
    }
    let again = match (exit, report.interrupted) {
        (0, _) => "",
        (_, true) => " It was interrupted; run it again, and it goes on from here.",
        (_, false) if open > 0 => " What was begun is recorded; run it again, and it goes on from here.",
        (_, false) => " Run it again once the cause is gone.",
    };
    if !plan.is_empty() || exit != 0 {
        let tone = if exit == 0 { Tone::Strong } else { Tone::Error };
        screen.line(0, &[(tone, &format!("{}: {}.", plan.stack, parts.join(", "))), (Tone::Plain, again)]);
    }
    // What scrolled by while the run was at work is said once more where it is read.
    for Warned { urn, message } in &report.warnings {
        let about = urn.as_ref().map(|urn| format!("{} {}: ", urn.kind(), urn.short())).unwrap_or_default();
        screen.line(1, &[(Tone::Warning, "warning: "), (Tone::Plain, &format!("{about}{message}"))]);
    }
    if let Some(first) = plan.held.iter().min_by_key(|held| held.until) {
        let text = format!("What is held waits for its maintenance window: run it again from {}.", first.shown);
        screen.line(0, &[(Tone::Plain, &text)]);
    }
    if exit == 0 && plan.verb == Verb::Up && plan.settles() {
        show::outputs(screen, &redact(&outputs));
    }
    screen.event(
        "result",
        json!({
            "stack": plan.stack,
            "verb": plan.verb,
            "done": report.done.len(),
            "failed": report.failed.len(),
            "not_started": report.not_started.len(),
            "open": open,
            "flushes": report.flushes,
            "interrupted": report.interrupted,
            "warnings": report.warnings,
            "outputs": redact(&outputs),
            "exit": exit,
        }),
    );
    exit
}

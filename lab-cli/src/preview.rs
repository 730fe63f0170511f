//! `preview`: what `up` would do. Writes nothing but the plan, where that is asked for.

use crate::arguments::Preview;
use crate::invocation::Invocation;
use crate::opened::Opened;
use crate::show;
use crate::trouble::{CHANGES, Trouble};
use lab_core::execute::disk::{Disk, RealDisk};
use lab_core::execute::{SavedPlan, state_digest};
use lab_core::plan::{Observations, Plan, Tone, Verb};
use serde_json::json;
use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

pub(crate) async fn preview(invocation: &Invocation<'_>, arguments: &Preview) -> Result<u8, Trouble> {
    let opened = Opened::look(invocation)?;
    let verb = if arguments.destroy { Verb::Destroy } else { Verb::Up };
    let seen = opened.observe(&invocation.screen, arguments.scope.refresh).await;
    let at = opened.now();
    let plan = opened.plan(verb, &arguments.scope.target, &seen, at);
    // What is saved is the plan itself: what others would make of it today is no part of it.
    let probed = match arguments.scope.refresh {
        true => Some(opened.probe(&invocation.screen, &plan).await),
        false => None,
    };
    show::plan(&invocation.screen, probed.as_ref().unwrap_or(&plan));
    refuse(&plan)?;
    let exit = if arguments.exit_code && !plan.is_empty() { CHANGES } else { 0 };
    let Some(file) = &arguments.out else {
        opened.close(Some(plan), invocation.ending)?;
        return Ok(exit);
    };
    save(invocation, &opened, plan, seen, &arguments.scope.target, at, file)?;
    let shown = file.display().to_string();
    let command = invocation.command(&[&verb.to_string(), &shown]);
    invocation.screen.line(0, &[(Tone::Plain, &format!("The plan is in {shown}. `{command}` does exactly this."))]);
    invocation.screen.event("saved", json!({"file": shown, "verb": verb}));
    Ok(exit)
}

/// Refuses a plan with problems.
pub(crate) fn refuse(plan: &Plan) -> Result<(), Trouble> {
    match plan.problems.len() {
        0 => Ok(()),
        1 => Err(Trouble::new("the plan has a problem; nothing was changed")),
        n => Err(Trouble::new(format!("the plan has {n} problems; nothing was changed"))),
    }
}

fn save(
    invocation: &Invocation<'_>,
    opened: &Opened,
    plan: Plan,
    seen: Observations,
    targets: &[String],
    at: u64,
    file: &Path,
) -> Result<(), Trouble> {
    let failed = |why: String| Trouble::new(format!("failed to save the plan as {}", file.display())).because(why);
    let keys = opened.keys.for_sealing(SystemTime::now())?;
    let state = state_digest(&opened.state());
    let executable = invocation.executable()?;
    let vault = &opened.declared.vault;
    let saved = SavedPlan::new(plan, seen, targets.to_vec(), at, state, executable, vault, &keys).map_err(failed)?;
    // Written beside it and renamed: there is never half a plan under its name, and what is said to be there is durable.
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = tempfile::NamedTempFile::new_in(dir).and_then(|mut staged| {
        staged.write_all(&saved.to_bytes())?;
        staged.as_file().sync_all()?;
        staged.persist(file)?;
        RealDisk::new(dir).sync_dir()
    });
    written.map_err(|error| failed(error.to_string()))
}

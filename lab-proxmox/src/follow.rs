//! The cursor of every operation: the task that is waited for.

use crate::client::{Client, Problem, Task, Upid};
use crate::request::Request;
use lab_core::{Error, Op, Result, Step};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;

/// How long to wait before asking again how far a task is.
const POLL: Duration = Duration::from_secs(2);
/// How a task ends that said nothing at its end.
const KILLED: &str = "unexpected status";
/// How long to wait before trying again what failed for a reason that passes.
const AGAIN: Duration = Duration::from_secs(5);

/// Where an operation stands: what cannot be read off the thing itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum At {
    /// A task is at work.
    Task {
        /// Its identity.
        upid: String,
        /// What it does, for people.
        does: String,
    },
    /// Nothing is: the facts say what comes next.
    Between,
}

impl At {
    /// Returns where the operation stands; a cursor of another version says nothing, and looking again does no harm.
    pub(crate) fn of<R>(op: &Op<R>) -> Option<At> {
        op.cursor.clone().and_then(|cursor| serde_json::from_value(cursor).ok())
    }

    /// Returns the step that stands here.
    pub(crate) fn next<O>(&self, why: impl Into<String>, pause: Duration) -> Step<O> {
        Step::next(json!(self), why, pause)
    }
}

/// Waits for the task of the step before. `None`: there is none, or it has ended, and the facts say what comes next.
///
/// # Errors
///
/// When a task of this run failed for a reason that does not pass. What an earlier run's task failed with was told
/// then: this run tries again.
pub(crate) async fn wait<R, O>(client: &Client, op: &Op<R>) -> Result<Option<Step<O>>> {
    let Some(At::Task { upid, does }) = At::of(op) else { return Ok(None) };
    let Ok(upid) = upid.parse::<Upid>() else { return Ok(None) };
    match client.task(&upid).await? {
        Task::Runs => {
            let at = At::Task { upid: upid.to_string(), does: does.clone() };
            Ok(Some(at.next(does, POLL)))
        }
        Task::Ended | Task::Lost => Ok(None),
        Task::Warned(said) => {
            op.warn(format!("{does}: done, with {said}"));
            Ok(None)
        }
        Task::Failed(_) if !client.watches(&upid) => Ok(None),
        Task::Failed(said) if said.starts_with(KILLED) => Err(Error::invalid(format!(
            "{does}: its task was killed on {} ({said}); what it was at work on may still be locked",
            upid.node()
        ))
        .perhaps()),
        Task::Failed(said) => {
            let text = format!("{does}: {said}");
            let ended = said.split(" [log: ").next().unwrap_or_default();
            // It met something that is different by now: the facts say what comes next.
            if Problem::said(ended).passes() {
                return Ok(Some(At::Between.next(text, AGAIN)));
            }
            Err(Error::invalid(text).perhaps())
        }
    }
}

/// Begins a task and returns the step that waits for it.
pub(crate) async fn begin<O>(client: &Client, request: &Request, does: impl Into<String>) -> Result<Step<O>> {
    let does = does.into();
    Ok(match client.begin(request).await? {
        Some(upid) => At::Task { upid: upid.to_string(), does: does.clone() }.next(does, Duration::from_millis(500)),
        None => At::Between.next(does, Duration::ZERO),
    })
}

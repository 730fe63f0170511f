//! A yard of odd things: a provider in memory whose things do exactly what a test tells them to, and short ways to say
//! what a plan and a run came to.
//!
//! [`lab_core::testing::Thing`] is well-behaved; what is here panics, hangs, lies, takes its time and comes in
//! versions.

// Each test file uses its own part of it, and none of it is reached from elsewhere.
#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test file uses its own part")]

pub mod fleet;
mod odd;

pub use odd::{Ask, Chore, Counter, Look, Odd, OddOutputs, Shop, Turn, Upset, Yard};

use lab_core::plan::{Action, Plan};
use lab_core::testing::{Bench, Trial};
use lab_core::{ProgramError, Stack};
use serde::Serialize;
use std::sync::Arc;

/// Returns a bench over an empty yard.
pub fn yard() -> (Bench, Arc<Yard>) {
    let yard = Arc::new(Yard::default());
    (Bench::new().over(yard.clone()).knows::<Shop>().keeping_frames(), yard)
}

/// Returns what a plan does, in its order: `create a`, `delete b`.
pub fn steps(plan: &Plan) -> Vec<String> {
    assert_eq!(problems(plan), [""; 0], "the plan has problems");
    plan.steps.iter().map(|step| format!("{} {}", word(&step.action), step.urn.short())).collect()
}

fn word(action: &Action) -> &'static str {
    match action {
        Action::Create => "create",
        Action::Supersede => "supersede",
        Action::Import { .. } => "import",
        Action::Update => "update",
        Action::Renew => "renew",
        Action::Continue { .. } => "continue",
        Action::Delete { .. } => "delete",
        Action::Forget { .. } => "forget",
        Action::LeaveBehind => "leave behind",
        Action::Read => "read",
        Action::Gate { .. } => "check",
    }
}

/// Returns every problem of a plan, with the lines of this program told by their file only: line numbers move.
pub fn problems(plan: &Plan) -> Vec<String> {
    plan.problems
        .iter()
        .map(|problem| match &problem.hint {
            Some(hint) => format!("{}; {hint}", unlined(&problem.message)),
            None => unlined(&problem.message),
        })
        .collect()
}

/// Returns `text` without the numbers of lines.
pub fn unlined(text: &str) -> String {
    let mut parts = text.split(".rs:");
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        result.push_str(".rs");
        result.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    result
}

/// Returns the plan as text without the places: those are for one test.
pub fn shown(plan: &Plan) -> String {
    unlined(&lab_core::plan::text(plan))
        .lines()
        .map(|line| line.split("  lab-core").next().unwrap_or(line).to_owned() + "\n")
        .collect()
}

/// Returns the problem that keeps `program` from being planned; there has to be exactly one.
pub fn problem<T: Serialize>(bench: &Bench, program: impl Fn(&Stack) -> Result<T, ProgramError>) -> String {
    let all = problems(&bench.preview(program));
    assert_eq!(all.len(), 1, "{all:#?}");
    all[0].clone()
}

/// Returns the URN's short name and the error of each failure.
pub fn failures(report: &lab_core::execute::Report) -> Vec<String> {
    report
        .failed
        .iter()
        .map(|failure| format!("{} {}: {}", failure.action, failure.urn.short(), failure.error))
        .collect()
}

/// Expects that a second plan is empty, looking at everything or not.
pub fn settled<T: Serialize>(bench: &Bench, program: impl Fn(&Stack) -> Result<T, ProgramError> + Copy) {
    let again = bench.preview(program);
    assert!(again.is_empty(), "a second plan is not empty: {}", lab_core::plan::text(&again));
    let trial = Trial { refresh: true, ..Trial::default() };
    let report = bench.attempt(program, lab_core::plan::Verb::Up, &trial).expect("a second plan has no problems");
    assert!(report.complete() && report.done.is_empty(), "a second run does something: {report:#?}");
}

//! Plans and values, as they are shown.

use crate::screen::Screen;
use lab_core::plan::{Plan, Step, Tone, render};
use lab_core::redact;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Shows a plan.
pub(crate) fn plan(screen: &Screen, plan: &Plan) {
    screen.lines(&render(plan));
    if screen.json() {
        screen.event("plan", event(plan));
    }
}

/// Returns a plan as an event: steps and counts, secrets and unknowns by name.
fn event(plan: &Plan) -> Value {
    let steps: Vec<Value> = plan.steps.iter().map(|step| step_event(step, plan)).collect();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for step in &steps {
        *counts.entry(step["action"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
    }
    let moves: Vec<Value> = plan.moves.iter().map(|(from, to)| json!({"from": from, "to": to})).collect();
    let held: Vec<Value> = plan
        .held
        .iter()
        .map(|held| {
            let mut shown = step_event(&held.step, plan);
            shown["until"] = held.until.into();
            shown["because"] = json!(held.because);
            shown
        })
        .collect();
    let destroys: Vec<Value> = plan.destroys().map(|(urn, what)| json!({"urn": urn, "what": what})).collect();
    json!({
        "stack": plan.stack,
        "verb": plan.verb,
        "empty": plan.is_empty(),
        "partial": plan.partial,
        "summary": {"steps": counts, "moves": plan.moves.len(), "held": plan.held.len(), "same": plan.same, "problems": plan.problems.len()},
        "steps": steps,
        "held": held,
        "moves": moves,
        "destroys": destroys,
        "problems": plan.problems,
        "warnings": plan.warnings,
        "outputs": redact(&plan.outputs),
        "digest": plan.digest(),
    })
}

fn step_event(step: &Step, plan: &Plan) -> Value {
    let mut shown = match redact(&serde_json::to_value(step).unwrap_or_default()) {
        Value::Object(shown) => shown,
        _ => Map::new(),
    };
    // What is recorded is no part of what is shown; the differences are.
    for field in ["spec", "mark", "realm_known", "live", "fresh", "claims_deferred"] {
        shown.remove(field);
    }
    let action = shown.get("action").and_then(|action| action.get("do")).cloned().unwrap_or_default();
    shown.insert("action".into(), action);
    shown.insert("type".into(), step.urn.kind().into());
    shown.insert("name".into(), step.urn.short().into());
    let after: Vec<Value> = step.after.iter().map(|after| json!(plan.steps[after.step].urn)).collect();
    shown.insert("after".into(), after.into());
    Value::Object(shown)
}

/// Shows the outputs of a stack: a line each.
pub(crate) fn outputs(screen: &Screen, outputs: &Value) {
    if let Value::Object(outputs) = outputs {
        for (name, value) in outputs {
            screen.line(1, &[(Tone::Plain, &format!("{name}: ")), (Tone::Plain, &text(value))]);
        }
    }
}

/// Returns a value as a person reads it: text as it is, everything else as JSON.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

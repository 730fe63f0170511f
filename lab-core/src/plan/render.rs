//! A plan as text: the same lines for a terminal, a pipe and a snapshot.

use super::diff::Delta;
use super::order::verb;
use super::plan::{Action, Plan, Step};
use crate::model::{Tree, Urn, redact};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// One line: how deep it is indented, and pieces of text with their tone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Depth; two spaces each.
    pub depth: usize,
    /// Pieces, left to right.
    pub pieces: Vec<(Tone, String)>,
}

/// What a piece of text is, for whoever colours it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Ordinary text.
    Plain,
    /// A heading or a name.
    Strong,
    /// Something beside the point: a source line.
    Faint,
    /// Something new.
    Create,
    /// Something changed.
    Update,
    /// Something taken away.
    Delete,
    /// Something made anew.
    Replace,
    /// Something to be careful about.
    Warning,
    /// Something wrong.
    Error,
}

impl Line {
    fn new(depth: usize, tone: Tone, text: impl Into<String>) -> Line {
        Line { depth, pieces: vec![(tone, text.into())] }
    }

    fn and(mut self, tone: Tone, text: impl Into<String>) -> Line {
        self.pieces.push((tone, text.into()));
        self
    }
}

/// Returns a plan as plain text.
pub fn text(plan: &Plan) -> String {
    let mut text = String::new();
    for line in render(plan) {
        let content: String = line.pieces.iter().map(|(_, piece)| piece.as_str()).collect();
        let whole = format!("{}{content}", "  ".repeat(line.depth));
        text.push_str(whole.trim_end());
        text.push('\n');
    }
    text
}

/// Returns a plan as lines: what happens as a tree of providers and components, what it means, what is wrong.
pub fn render(plan: &Plan) -> Vec<Line> {
    let mut lines = Vec::new();
    let halves = Halves::of(plan.steps.iter());
    for (from, to) in &plan.moves {
        lines.push(
            Line::new(1, Tone::Update, "> ")
                .and(Tone::Plain, format!("move {} {} to {}", from.kind(), from.short(), to.short())),
        );
    }
    let mut tree: BTreeMap<(&str, &str), Vec<&Step>> = BTreeMap::new();
    let mut order: Vec<(&str, &str)> = Vec::new();
    for step in &plan.steps {
        let branch = (step.urn.provider(), step.urn.path());
        if !tree.contains_key(&branch) {
            order.push(branch);
        }
        tree.entry(branch).or_default().push(step);
    }
    for branch in order {
        let (provider, path) = branch;
        let place =
            if path.is_empty() { provider.to_owned() } else { format!("{provider} / {}", path.replace('/', " / ")) };
        lines.push(Line::new(1, Tone::Strong, place));
        let steps = &tree[&branch];
        for step in steps {
            // The two halves of a replacement are one thing to a reader; shown where the new one is made.
            if !halves.away(step) {
                show_step(step, &halves, &mut lines);
            }
        }
    }
    waiting(plan, &mut lines);
    let outputs = Some(&plan.outputs).filter(|outputs| {
        !plan.steps.is_empty() && plan.settles() && !crate::model::value_diff::is_leaf(Some(outputs))
    });
    if let Some(outputs) = outputs.and_then(Value::as_object).filter(|outputs| !outputs.is_empty()) {
        lines.push(Line::new(1, Tone::Strong, "outputs"));
        for (name, value) in outputs {
            lines.push(Line::new(2, Tone::Plain, format!("{name}: ")).and(Tone::Faint, show(value)));
        }
    }
    for warning in &plan.warnings {
        lines.push(Line::new(0, Tone::Warning, "warning: ").and(Tone::Plain, warning));
    }
    for problem in &plan.problems {
        lines.push(Line::new(0, Tone::Error, "problem: ").and(Tone::Plain, problem.to_string()));
    }
    let destroyed: Vec<(&Urn, &str)> = plan.destroys().collect();
    if !destroyed.is_empty() {
        lines.push(Line::new(0, Tone::Delete, "This destroys data:"));
        for (urn, what) in destroyed {
            lines.push(Line::new(1, Tone::Plain, format!("{what} ({})", urn.short())));
        }
    }
    lines.push(Line::new(0, Tone::Strong, summary(plan, &halves)));
    lines
}

/// Shows what is held, by when its window opens.
fn waiting(plan: &Plan, lines: &mut Vec<Line>) {
    let mut by_time: BTreeMap<(u64, &str), Vec<&Step>> = BTreeMap::new();
    for held in &plan.held {
        by_time.entry((held.until, &held.shown)).or_default().push(&held.step);
    }
    for ((_, shown), steps) in by_time {
        lines.push(Line::new(1, Tone::Warning, format!("held until {shown}, when the maintenance window opens")));
        // Shown as if they were all there is: the halves of a replacement are found among themselves.
        let halves = Halves::of(steps.iter().copied());
        steps.iter().filter(|step| !halves.away(step)).for_each(|step| show_step(step, &halves, lines));
    }
}

/// Returns the plan in one sentence.
fn summary(plan: &Plan, halves: &Halves<'_>) -> String {
    let mut counts: BTreeMap<(u8, &str), usize> = BTreeMap::new();
    for step in plan.steps.iter().filter(|step| !halves.away(step)) {
        let what = match (&step.action, halves.replacement(step)) {
            (_, true) => (2, "to replace"),
            (Action::Create | Action::Supersede, false) => (0, "to create"),
            (Action::Import { .. }, false) => (1, "to import"),
            (Action::Update, false) => (3, "to update"),
            (Action::Renew, false) => (4, "to renew"),
            (Action::Continue { .. }, false) => (5, "to continue"),
            (Action::Delete { .. }, false) => (6, "to delete"),
            (Action::Forget { .. }, false) => (7, "to forget"),
            (Action::LeaveBehind, false) => (8, "to leave behind"),
            (Action::Read, false) => (9, "to read"),
            (Action::Gate { .. }, false) => (10, "to check"),
        };
        *counts.entry(what).or_default() += 1;
    }
    let mut parts: Vec<String> = counts.iter().map(|((_, what), n)| format!("{n} {what}")).collect();
    if !plan.moves.is_empty() {
        parts.push(format!("{} to move", plan.moves.len()));
    }
    if parts.is_empty() {
        parts.push("nothing to do".into());
    }
    if let Some(first) = plan.held.iter().min_by_key(|held| held.until) {
        let held = plan.held.iter().map(|held| &held.step);
        let halves = Halves::of(held.clone());
        let n = held.filter(|step| !halves.away(step)).count();
        parts.push(format!("{n} held until {}", first.shown));
    }
    parts.push(format!("{} unchanged", plan.same));
    if !plan.problems.is_empty() {
        let n = plan.problems.len();
        parts.push(format!("{n} problem{}", if n == 1 { "" } else { "s" }));
    }
    format!("{}: {}.", plan.stack, parts.join(", "))
}

/// Which steps are the halves of a replacement.
struct Halves<'a> {
    made: BTreeSet<&'a Urn>,
    replaced: BTreeSet<&'a Urn>,
    /// The first step that takes away what has this name.
    removals: BTreeMap<&'a Urn, &'a Step>,
}

impl<'a> Halves<'a> {
    fn of(steps: impl Iterator<Item = &'a Step> + Clone) -> Halves<'a> {
        let mut halves = Halves { made: BTreeSet::new(), replaced: BTreeSet::new(), removals: BTreeMap::new() };
        let removed: BTreeSet<&Urn> = steps.clone().filter(|step| step.removes()).map(|step| &step.urn).collect();
        // Only what goes can be replaced: of what is only made, nothing has to be kept.
        for step in steps.filter(|step| removed.contains(&step.urn)) {
            if anew(step) {
                halves.made.insert(&step.urn);
            }
            if matches!(step.action, Action::Delete { .. }) {
                halves.replaced.insert(&step.urn);
            }
            if step.removes() {
                halves.removals.entry(&step.urn).or_insert(step);
            }
        }
        halves
    }

    /// Returns true for the half that is not shown. What stays somewhere is no half of anything.
    fn away(&self, step: &Step) -> bool {
        let stays = matches!(step.action, Action::Forget { stays: true, .. } | Action::LeaveBehind);
        step.removes() && !stays && self.made.contains(&step.urn)
    }

    /// Returns true for the half that is shown.
    fn replacement(&self, step: &Step) -> bool {
        anew(step) && self.replaced.contains(&step.urn)
    }
}

fn anew(step: &Step) -> bool {
    matches!(step.action, Action::Create | Action::Supersede | Action::Import { .. })
}

fn show_step(step: &Step, halves: &Halves<'_>, lines: &mut Vec<Line>) {
    let replaced = halves.replacement(step);
    let (sign, tone) = match (&step.action, replaced) {
        (_, true) => ("± ", Tone::Replace),
        (Action::Create | Action::Supersede, false) => ("+ ", Tone::Create),
        (Action::Import { .. }, false) => ("= ", Tone::Create),
        (Action::Update | Action::Renew | Action::Continue { .. }, false) => ("~ ", Tone::Update),
        (Action::Delete { .. }, false) => ("- ", Tone::Delete),
        (Action::Forget { .. } | Action::LeaveBehind, false) => ("· ", Tone::Faint),
        (Action::Read | Action::Gate { .. }, false) => ("? ", Tone::Faint),
    };
    let what = if replaced { "replace" } else { verb(&step.action) };
    let mut line = Line::new(2, tone, sign)
        .and(Tone::Plain, format!("{what} {} ", step.urn.kind()))
        .and(Tone::Strong, step.urn.name());
    if let Some(place) = &step.place {
        line = line.and(Tone::Faint, format!("  {place}"));
    }
    lines.push(line);
    let removal = halves.removals.get(&step.urn).copied().filter(|_| replaced);
    let mut reasons: Vec<&String> = removal.into_iter().flat_map(|removal| &removal.reasons).collect();
    reasons
        .extend(step.reasons.iter().filter(|reason| !removal.is_some_and(|removal| removal.reasons.contains(reason))));
    for reason in reasons {
        lines.push(Line::new(4, Tone::Faint, format!("because {reason}")));
    }
    if step.permits.replace {
        lines.push(Line::new(4, Tone::Warning, "may be replaced, once its inputs are known"));
    } else if step.permits.same {
        lines.push(Line::new(4, Tone::Faint, "may stay as it is, once its inputs are known"));
    }
    if step.claims_deferred {
        lines.push(Line::new(4, Tone::Faint, "what it occupies is checked once its inputs are known"));
    }
    let interrupts = step.interrupts.as_ref().or(removal.and_then(|removal| removal.interrupts.as_ref()));
    if let Some(interrupts) = interrupts {
        lines.push(Line::new(4, Tone::Warning, format!("interrupts: {interrupts}")));
    }
    let destroys = [step.destroys.as_ref(), removal.and_then(|removal| removal.destroys.as_ref())];
    for destroys in destroys.into_iter().flatten() {
        lines.push(Line::new(4, Tone::Delete, format!("destroys {destroys}")));
    }
    // What is new is shown by the program; only what changes is shown here.
    if matches!(step.action, Action::Create | Action::Import { .. }) && !replaced {
        return;
    }
    step.diff.iter().for_each(|delta| lines.push(show_delta(delta, step)));
}

fn show_delta(delta: &Delta, step: &Step) -> Line {
    let path = delta.path.to_string();
    match (&delta.before, &delta.after) {
        (None, Some(after)) => Line::new(4, Tone::Create, format!("{path}: {}", after_text(after, delta, step))),
        (Some(before), None) => Line::new(4, Tone::Delete, format!("{path}: {} -> absent", show(&before.value()))),
        (Some(before), Some(after)) => Line::new(4, Tone::Update, format!("{path}: "))
            .and(Tone::Delete, show(&before.value()))
            .and(Tone::Plain, " -> ")
            .and(Tone::Create, after_text(after, delta, step)),
        (None, None) => Line::new(4, Tone::Plain, path),
    }
}

fn after_text(after: &Tree, delta: &Delta, step: &Step) -> String {
    match step.unknown.iter().find(|unknown| unknown.path == delta.path) {
        Some(unknown) => {
            let from: Vec<String> = unknown.from.iter().map(Urn::short).collect();
            format!("known after {}", from.join(", "))
        }
        None => show(&after.value()),
    }
}

/// Returns a value as a person reads it: short, secrets and unknowns by name.
fn show(value: &Value) -> String {
    let text = match redact(value) {
        Value::String(text) if text == "[secret]" || text == "[unknown]" => text,
        value => value.to_string(),
    };
    if text.chars().count() <= 120 {
        return text;
    }
    let start: String = text.chars().take(117).collect();
    format!("{start}...")
}

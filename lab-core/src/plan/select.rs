//! Targets: a selection that is closed, so that a part of a plan leaves a state as sound as the whole.

use super::plan::{Problem, Step};
use crate::model::{Declared, State, Urn};
use std::collections::{BTreeMap, BTreeSet};

/// Returns only the selected steps and everything they wait for, and whether anything was left out.
///
/// A target is a URN or what a person would call the resource. Selected with a step is everything it waits for, the
/// other half of a replacement, and what is made anew in a container that is.
pub(super) fn select(
    steps: Vec<Step>,
    targets: &[String],
    declared: &Declared,
    state: &State,
    problems: &mut Vec<Problem>,
) -> (Vec<Step>, bool) {
    if targets.is_empty() {
        return (steps, false);
    }
    let declared_urns = declared.nodes.iter().map(|node| &node.urn);
    let known: BTreeSet<&Urn> = declared_urns.chain(state.records.keys()).collect();
    let mut wanted: BTreeSet<&Urn> = BTreeSet::new();
    for target in targets {
        let meant: Vec<&Urn> = known.iter().copied().filter(|urn| names(urn, target)).collect();
        if meant.is_empty() {
            problems.push(unknown_target(target, &known));
        }
        wanted.extend(meant);
    }
    let mut by_name: BTreeMap<&Urn, Vec<usize>> = BTreeMap::new();
    let mut within: BTreeMap<&Urn, Vec<usize>> = BTreeMap::new();
    for (n, step) in steps.iter().enumerate() {
        by_name.entry(&step.urn).or_default().push(n);
        if let Some(container) = state.records.get(&step.urn).and_then(|record| record.spec.container.as_ref()) {
            within.entry(container).or_default().push(n);
        }
    }
    let mut acts: BTreeMap<&Urn, Vec<usize>> = BTreeMap::new();
    for node in &declared.nodes {
        if let (Some(act), Some(steps)) = (&node.options.act, by_name.get(&node.urn)) {
            acts.entry(&act.member).or_default().extend(steps);
        }
    }
    let mut chosen: BTreeSet<usize> = BTreeSet::new();
    let mut todo: Vec<usize> = wanted.iter().filter_map(|urn| by_name.get(urn)).flatten().copied().collect();
    while let Some(n) = todo.pop() {
        if !chosen.insert(n) {
            continue;
        }
        let step = &steps[n];
        todo.extend(step.after.iter().map(|after| after.step));
        todo.extend(&by_name[&step.urn]);
        // With a member goes what is done around it.
        todo.extend(acts.get(&step.urn).into_iter().flatten());
        // What a container holds goes with it, whether or not anything waits for that.
        if step.removes() {
            todo.extend(within.get(&step.urn).into_iter().flatten());
        }
    }
    let partial = chosen.len() < steps.len();
    let position: BTreeMap<usize, usize> = chosen.iter().enumerate().map(|(new, old)| (*old, new)).collect();
    let steps = steps
        .into_iter()
        .enumerate()
        .filter(|(n, _)| chosen.contains(n))
        .map(|(_, mut step)| {
            step.after.iter_mut().for_each(|after| after.step = position[&after.step]);
            step
        })
        .collect();
    (steps, partial)
}

/// Returns true when a person who says `target` means `urn`: the URN, the name with its path, or a whole component.
pub fn names(urn: &Urn, target: &str) -> bool {
    urn.as_str() == target
        || urn.short() == target
        || urn.short().strip_prefix(target).is_some_and(|rest| rest.starts_with('/'))
        || format!("{} {}", urn.kind(), urn.short()) == target
}

fn unknown_target(target: &str, known: &BTreeSet<&Urn>) -> Problem {
    let hint = nearest(known.iter().copied(), target)
        .map(|near| format!("did you mean {near:?}? `state list` shows what there is"));
    Problem { urn: None, places: Vec::new(), message: format!("there is no {target:?} to target"), hint }
}

/// Returns the name among `urns` that is most like `target`, for a hint.
pub fn nearest<'a>(urns: impl Iterator<Item = &'a Urn>, target: &str) -> Option<String> {
    urns.map(Urn::short).min_by_key(|name| distance(name, target))
}

/// Returns Levenshtein's distance between two texts, for hints.
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

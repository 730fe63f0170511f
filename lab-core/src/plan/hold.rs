//! Maintenance windows: what is disruptive is held outside of them, with everything that waits for it.

use super::plan::{Action, HeldStep, Step};
use crate::model::{Declared, Node, Opening, State, Urn, When, Why, Windows};
use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

/// Returns the steps that are taken and those that are held, both in their order. `now` decides.
///
/// Held for its own sake is a step that interrupts something, destroys data or replaces what exists. What is under way
/// is finished, whatever the time: it is down already. With a held step goes whatever waits for it, the other half of
/// a replacement, what the container that it takes away holds, what is done around a member, and what it still needs until
/// then.
pub(super) fn hold(
    mut steps: Vec<Step>,
    declared: &Declared,
    state: &State,
    now: SystemTime,
) -> (Vec<Step>, Vec<HeldStep>) {
    if declared.windows.0.is_empty() && declared.groups.values().all(|group| group.windows.is_none()) {
        return (steps, Vec::new());
    }
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let nodes: BTreeMap<&Urn, &Node> = declared.nodes.iter().map(|node| (&node.urn, node)).collect();
    let mut held: BTreeMap<usize, (u64, String, Option<Urn>)> = BTreeMap::new();
    let around = state.under_way();
    // What was begun with something, or around it, is to be finished.
    let under_way = |urn: &Urn| around.contains(urn) || state.record(urn).is_some_and(|record| !record.is_whole());
    for n in 0..steps.len() {
        if !disrupts(&steps[n]) || under_way(&steps[n].urn) {
            continue;
        }
        match windows(&steps[n].urn, declared, &nodes, state).at(now) {
            Opening::Always => {}
            Opening::From(until, shown) => {
                held.insert(n, (until, shown, None));
            }
            Opening::Until(end) => {
                for first in beginning(n, &steps, &nodes) {
                    steps[first].begin_by = Some(end);
                }
            }
        }
    }
    spread(&steps, &nodes, state, &under_way, &mut held);
    split(steps, held)
}

/// Returns true when a step takes something away from its users, or may.
fn disrupts(step: &Step) -> bool {
    let impact = step.interrupts.is_some() || step.destroys.is_some();
    match step.action {
        Action::Supersede => true,
        Action::Update | Action::Renew | Action::Continue { .. } => impact || step.permits.replace,
        Action::Delete { why, condemned: false, .. } => impact || why == Why::Replaced,
        // Nobody uses what has lost its name, nor what is not there yet.
        Action::Delete { condemned: true, .. }
        | Action::Create
        | Action::Import { .. }
        | Action::Forget { .. }
        | Action::LeaveBehind
        | Action::Read
        | Action::Gate { .. } => false,
    }
}

/// Returns when something may be interrupted: as its rolling group says, else as the stack does.
fn windows<'a>(urn: &Urn, declared: &'a Declared, nodes: &BTreeMap<&Urn, &Node>, state: &State) -> &'a Windows {
    let group = match nodes.get(urn) {
        Some(node) => node.options.rolling.as_ref(),
        None => state.records.get(urn).and_then(|record| record.spec.rolling.as_ref()),
    };
    let group = group.and_then(|group| declared.groups.get(group));
    group.and_then(|group| group.windows.as_ref()).unwrap_or(&declared.windows)
}

/// Returns the steps that a disruption begins with: what is done before a member is interrupted, or the step itself.
/// Once they have begun, the window may close: what is half done is finished.
fn beginning(n: usize, steps: &[Step], nodes: &BTreeMap<&Urn, &Node>) -> Vec<usize> {
    let before: Vec<usize> = steps
        .iter()
        .enumerate()
        .filter(|(_, step)| step.makes())
        .filter(|(_, step)| {
            let act = nodes.get(&step.urn).and_then(|node| node.options.act.as_ref());
            act.is_some_and(|act| act.when == When::Before && act.member == steps[n].urn)
        })
        .map(|(before, _)| before)
        .collect();
    if before.is_empty() { vec![n] } else { before }
}

/// Adds everything that cannot be done without what is held.
fn spread(
    steps: &[Step],
    nodes: &BTreeMap<&Urn, &Node>,
    state: &State,
    under_way: &dyn Fn(&Urn) -> bool,
    held: &mut BTreeMap<usize, (u64, String, Option<Urn>)>,
) {
    let made: BTreeSet<&Urn> = steps.iter().filter(|step| step.makes()).map(|step| &step.urn).collect();
    // What lost its name in an earlier run is no half of anything that this one does.
    let earlier =
        |step: &Step| !step.makes() && step.mark.as_ref().is_some_and(|mark| state.condemned.contains_key(mark));
    loop {
        let named = || held.keys().copied().filter(|n| !earlier(&steps[*n]));
        let names: BTreeMap<&Urn, usize> = named().map(|n| (&steps[n].urn, n)).collect();
        let gone: BTreeSet<&Urn> =
            named().map(|n| &steps[n]).filter(|step| step.removes()).map(|step| &step.urn).collect();
        let inside = |urn: &Urn| {
            let container = state.record(urn).and_then(|it| state.around(it).find(|around| gone.contains(around)));
            container.and_then(|container| names.get(container).copied())
        };
        // A member waits for what is done before it is interrupted.
        let before: BTreeMap<&Urn, usize> = held
            .keys()
            .filter_map(|n| {
                let act = nodes.get(&steps[*n].urn)?.options.act.as_ref()?;
                (act.when == When::Before).then_some((&act.member, *n))
            })
            .collect();
        // What is no longer wanted goes once those that needed it have let go, however deep in it that lies.
        let mut users: BTreeMap<&Urn, Vec<usize>> = BTreeMap::new();
        let records = named().filter_map(|n| Some((n, state.record(&steps[n].urn)?)));
        for (n, record) in records.filter(|(_, record)| record.spec.member.is_none()) {
            for edge in &record.spec.edges {
                let around = state.record(&edge.to).into_iter().flat_map(|needed| state.around(needed));
                [&edge.to].into_iter().chain(around).for_each(|urn| users.entry(urn).or_default().push(n));
            }
        }
        let user = |n: usize, step: &Step| match step.action {
            Action::Delete { condemned: false, .. } if !made.contains(&step.urn) && !under_way(&step.urn) => {
                users.get(&step.urn)?.iter().copied().find(|user| !free_between(*user, n, steps, held))
            }
            _ => None,
        };
        let cause = |n: usize, step: &Step| {
            let waits = step.after.iter().map(|after| after.step).find(|after| held.contains_key(after));
            // Also what was done around it by a line that is gone: forgotten now, it could not say any more that something
            // is owed.
            let member = match nodes.get(&step.urn) {
                Some(node) => node.options.act.as_ref().map(|act| &act.member),
                None => state.record(&step.urn).and_then(|record| record.spec.member.as_ref()),
            };
            let member = member.and_then(|member| names.get(member).copied());
            let other = names.get(&step.urn).copied().filter(|other| *other != n && !earlier(step));
            let along = step.removes().then(|| inside(&step.urn)).flatten();
            waits.or(other).or(member).or(along).or_else(|| user(n, step)).or_else(|| before.get(&step.urn).copied())
        };
        let more: Vec<(usize, usize)> = steps
            .iter()
            .enumerate()
            .filter(|(n, _)| !held.contains_key(n))
            .filter_map(|(n, step)| Some((n, cause(n, step)?)))
            .collect();
        if more.is_empty() {
            return;
        }
        for (n, cause) in more {
            let (until, shown, _) = held[&cause].clone();
            let because = (steps[n].urn != steps[cause].urn).then(|| steps[cause].urn.clone());
            held.insert(n, (until, shown, because));
        }
    }
}

/// Returns true when something that `who` waits for, and that waits for `what`, is not held: it has its window now, or is under
/// way. Held for `who`, whose own window may never open together with that, it might never be done.
fn free_between<T>(who: usize, what: usize, steps: &[Step], held: &BTreeMap<usize, T>) -> bool {
    // What is waited for comes first.
    let mut waits: BTreeSet<usize> = [what].into();
    for (n, step) in steps.iter().enumerate().take(who).skip(what + 1) {
        if step.after.iter().any(|after| waits.contains(&after.step)) {
            waits.insert(n);
        }
    }
    let (mut passed, mut todo) = (BTreeSet::new(), vec![who]);
    while let Some(n) = todo.pop() {
        let needs = steps[n].after.iter().map(|after| after.step);
        todo.extend(needs.filter(|need| *need != what && waits.contains(need) && passed.insert(*need)));
    }
    passed.iter().any(|between| !held.contains_key(between))
}

/// Takes the held steps out; nothing that is left waits for them.
fn split(steps: Vec<Step>, mut held: BTreeMap<usize, (u64, String, Option<Urn>)>) -> (Vec<Step>, Vec<HeldStep>) {
    let mut position = Vec::with_capacity(steps.len());
    let mut kept = 0;
    for n in 0..steps.len() {
        position.push(kept);
        kept += usize::from(!held.contains_key(&n));
    }
    let (mut taken, mut waiting) = (Vec::new(), Vec::new());
    for (n, mut step) in steps.into_iter().enumerate() {
        match held.remove(&n) {
            Some((until, shown, because)) => {
                step.after.clear();
                if let Some(because) = &because {
                    step.reasons.push(format!("it waits for {}, which is held", because.short()));
                }
                waiting.push(HeldStep { step, until, shown, because });
            }
            None => {
                step.after.iter_mut().for_each(|after| after.step = position[after.step]);
                taken.push(step);
            }
        }
    }
    (taken, waiting)
}

//! What each step waits for.

use super::claims::Held;
use super::plan::{Action, After, Problem, Step, needs};
use crate::model::{Edge, State, Urn};
use petgraph::algo::{kosaraju_scc, toposort};
use petgraph::graphmap::DiGraphMap;
use std::collections::{BTreeMap, BTreeSet};

/// Fills in what each step waits for and returns them in an order that satisfies it.
///
/// - What is made comes after what it needs is made.
/// - What is deleted goes after everything that needed it is gone, or no longer needs it.
/// - What a replaced container held is forgotten after the container went and before it is made anew.
/// - What takes over a claim comes after what held it let go.
pub(super) fn order(
    mut steps: Vec<Step>,
    edges: &BTreeMap<Urn, Vec<Edge>>,
    state: &State,
    held: &[Held],
    problems: &mut Vec<Problem>,
) -> Vec<Step> {
    let mut makes: BTreeMap<&Urn, usize> = BTreeMap::new();
    let mut removes: BTreeMap<&Urn, Vec<usize>> = BTreeMap::new();
    for (n, step) in steps.iter().enumerate() {
        if step.makes() {
            makes.insert(&step.urn, n);
        } else if step.removes() {
            removes.entry(&step.urn).or_default().push(n);
        }
    }
    let mut after: Vec<Vec<After>> = steps.iter().map(|step| step.after.clone()).collect();
    let mut wait = |who: usize, what: usize, created: bool| {
        if who != what && !after[who].iter().any(|after| after.step == what) {
            after[who].push(After { step: what, created });
        }
    };
    for (n, step) in steps.iter().enumerate() {
        if step.makes() {
            for (to, created) in edges.get(&step.urn).into_iter().flat_map(|edges| needs(edges)) {
                if let Some(make) = makes.get(to) {
                    wait(n, *make, created);
                }
            }
        }
        for remove in removes.get(&step.urn).into_iter().flatten().copied().filter(|_| step.makes()) {
            // A superseded or condemned thing goes when its successor stands; otherwise it makes room first.
            if matches!(step.action, Action::Supersede) || condemned(&steps[remove]) {
                wait(remove, n, false);
            } else {
                wait(n, remove, false);
            }
        }
    }
    // Who needed what, as recorded: they let go before it goes. What goes along with its container lets go when that
    // does, which may be what waits for this: then there is nothing to wait for.
    let mut wishes = Vec::new();
    for (urn, record) in &state.records {
        for edge in &record.spec.edges {
            for remove in removes.get(&edge.to).into_iter().flatten().copied() {
                let own: Vec<usize> = removes.get(urn).into_iter().flatten().copied().collect();
                let inside = record.spec.container.as_ref() == Some(&edge.to);
                for gone in own.iter().copied().filter(|gone| !condemned(&steps[*gone])) {
                    // What lives inside is forgotten once the container is gone; what is deleted by call goes before.
                    let forgotten = inside && !matches!(steps[gone].action, Action::Delete { .. });
                    let along = !matches!(steps[gone].action, Action::Delete { .. })
                        && record.spec.container.as_ref().is_some_and(|container| removes.contains_key(container));
                    if forgotten && matches!(steps[remove].action, Action::Delete { .. }) {
                        wait(gone, remove, false);
                    } else if along {
                        wishes.push((remove, gone));
                    } else {
                        wait(remove, gone, false);
                    }
                }
                if let Some(make) = makes.get(urn).copied().filter(|_| own.is_empty()) {
                    let successor = makes.get(&edge.to);
                    let room_first = successor.is_some_and(|make| {
                        !matches!(steps[*make].action, Action::Supersede) && !condemned(&steps[remove])
                    });
                    if !room_first {
                        wait(remove, make, false);
                    }
                }
            }
        }
    }
    // What a container held is forgotten before anything is made in the new one.
    for (urn, record) in &state.records {
        let Some(container) = &record.spec.container else { continue };
        if let (Some(make), Some(gone)) = (makes.get(container), removes.get(urn)) {
            gone.iter().filter(|gone| !condemned(&steps[**gone])).for_each(|gone| wait(*make, *gone, false));
        }
    }
    // What is deleted by call goes before anything around it does, however deep it lies: the way in goes with that.
    for (urn, record) in &state.records {
        let calls = removes.get(urn).into_iter().flatten().copied();
        for call in calls.filter(|n| matches!(steps[*n].action, Action::Delete { condemned: false, .. })) {
            let around = |urn: &Urn| state.records.get(urn).and_then(|record| record.spec.container.as_ref());
            let mut passed = BTreeSet::new();
            let mut outer = record.spec.container.as_ref();
            while let Some(container) = outer.filter(|container| passed.insert(*container)) {
                let goes = removes.get(container).into_iter().flatten().copied();
                goes.filter(|n| !condemned(&steps[*n])).for_each(|goes| wait(goes, call, false));
                outer = around(container);
            }
        }
    }
    // What goes without a call goes with the container that is deleted, however far around it that lies: it is there
    // until then, and has to be known until then.
    for (urn, record) in &state.records {
        let silent =
            |n: &usize| !matches!(steps[*n].action, Action::Delete { .. } | Action::Forget { stays: true, .. });
        let silent = removes.get(urn).into_iter().flatten().copied().filter(silent).filter(|n| !condemned(&steps[*n]));
        for gone in silent {
            let mut passed = BTreeSet::new();
            let mut outer = record.spec.container.as_ref();
            while let Some(container) = outer.filter(|container| passed.insert(*container)) {
                let goes = removes.get(container).into_iter().flatten().copied();
                let deleted = |n: &usize| matches!(steps[*n].action, Action::Delete { condemned: false, .. });
                goes.filter(deleted).for_each(|goes| wait(gone, goes, false));
                outer = state.records.get(container).and_then(|record| record.spec.container.as_ref());
            }
        }
    }
    // What takes over a claim comes after what held it.
    for (n, step) in steps.iter().enumerate() {
        let Some(spec) = step.spec.as_ref().filter(|_| step.makes()) else { continue };
        for claim in &spec.claims {
            for holder in held.iter().filter(|held| held.urn != step.urn && held.claim.clashes(claim)) {
                let lets_go =
                    removes.get(&holder.urn).and_then(|removes| removes.first()).or_else(|| makes.get(&holder.urn));
                if let Some(lets_go) = lets_go {
                    wait(n, *lets_go, false);
                }
            }
        }
    }
    for (who, what) in wishes {
        if who != what && !after[who].iter().any(|after| after.step == what) && !waits(&after, what, who) {
            after[who].push(After { step: what, created: false });
        }
    }
    for (step, mut after) in steps.iter_mut().zip(after) {
        after.sort();
        step.after = after;
    }
    sorted(steps, problems)
}

/// Returns true when `who` waits for `what`, directly or not.
fn waits(after: &[Vec<After>], who: usize, what: usize) -> bool {
    let (mut passed, mut todo) = (BTreeSet::new(), vec![who]);
    while let Some(n) = todo.pop() {
        if n == what {
            return true;
        }
        if passed.insert(n) {
            todo.extend(after[n].iter().map(|after| after.step));
        }
    }
    false
}

/// Sorts steps so that each comes after what it waits for; a circle is a problem.
pub(super) fn sorted(steps: Vec<Step>, problems: &mut Vec<Problem>) -> Vec<Step> {
    let mut graph = DiGraphMap::<usize, ()>::new();
    for (n, step) in steps.iter().enumerate() {
        graph.add_node(n);
        step.after.iter().for_each(|after| {
            graph.add_edge(after.step, n, ());
        });
    }
    if toposort(&graph, None).is_err() {
        for ring in kosaraju_scc(&graph).into_iter().filter(|ring| ring.len() > 1) {
            let names: Vec<String> =
                ring.iter().map(|n| format!("{} {}", verb(&steps[*n].action), steps[*n].urn.short())).collect();
            problems.push(Problem {
                urn: Some(steps[ring[0]].urn.clone()),
                places: ring.iter().filter_map(|n| steps[*n].place.clone()).collect(),
                message: format!("these steps wait for each other: {}", names.join(", ")),
                hint: Some("apply one of these changes alone first".into()),
            });
        }
        return steps;
    }
    let order = stable(&graph, steps.len());
    let mut position = vec![0; steps.len()];
    order.iter().enumerate().for_each(|(n, old)| position[*old] = n);
    let mut slots: Vec<Option<Step>> = steps.into_iter().map(Some).collect();
    order
        .into_iter()
        .filter_map(|old| slots[old].take())
        .map(|mut step| {
            step.after.iter_mut().for_each(|after| after.step = position[after.step]);
            step.after.sort();
            step
        })
        .collect()
}

/// Returns an order in which everything comes after what it waits for, the lowest position first among equals
/// (Kahn's algorithm).
pub(super) fn stable(graph: &DiGraphMap<usize, ()>, len: usize) -> Vec<usize> {
    use petgraph::Direction::{Incoming, Outgoing};
    let mut waiting: Vec<usize> = (0..len).map(|n| graph.neighbors_directed(n, Incoming).count()).collect();
    let mut ready: std::collections::BTreeSet<usize> = (0..len).filter(|n| waiting[*n] == 0).collect();
    let mut order = Vec::with_capacity(len);
    while let Some(n) = ready.pop_first() {
        order.push(n);
        for next in graph.neighbors_directed(n, Outgoing) {
            waiting[next] -= 1;
            if waiting[next] == 0 {
                ready.insert(next);
            }
        }
    }
    order
}

fn condemned(step: &Step) -> bool {
    match step.action {
        Action::Delete { condemned, .. } | Action::Forget { condemned, .. } => condemned,
        Action::Create
        | Action::Supersede
        | Action::Import { .. }
        | Action::Update
        | Action::Renew
        | Action::Continue { .. }
        | Action::LeaveBehind
        | Action::Read
        | Action::Gate { .. } => false,
    }
}

/// Returns the verb of an action, for messages.
pub(crate) fn verb(action: &Action) -> &'static str {
    match action {
        Action::Create => "create",
        Action::Supersede => "replace",
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

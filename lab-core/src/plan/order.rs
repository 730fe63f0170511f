//! What each step waits for.

use super::claims::holders;
use super::plan::{Action, After, Problem, Step, needs};
use crate::model::{Deed, Edge, Open, Record, State, Status, Urn};
use petgraph::algo::kosaraju_scc;
use petgraph::graphmap::DiGraphMap;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Fills in what each step waits for and returns them in an order that satisfies it. `more` is needed by some beside what
/// their specs say.
///
/// - What is made comes after what it needs is made.
/// - What is deleted goes after everything that needed it is gone, or no longer needs it.
/// - What a container held is forgotten once the container went, and each before it is made anew.
/// - What takes over a claim comes after what held it let go.
pub(super) fn order(
    mut steps: Vec<Step>,
    more: &BTreeMap<Urn, Vec<Edge>>,
    state: &State,
    problems: &mut Vec<Problem>,
) -> Vec<Step> {
    let mut makes: HashMap<&Urn, usize> = HashMap::new();
    let mut removes: HashMap<&Urn, Vec<usize>> = HashMap::new();
    for (n, step) in steps.iter().enumerate() {
        if step.makes() {
            makes.insert(&step.urn, n);
        } else if step.removes() {
            removes.entry(&step.urn).or_default().push(n);
        }
    }
    // What each step waits for, and whether it is enough that it exists. One step may wait for all others.
    let mut after: Vec<BTreeMap<usize, bool>> =
        steps.iter().map(|step| step.after.iter().map(|after| (after.step, after.created)).collect()).collect();
    let mut wait = |who: usize, what: usize, created: bool| {
        if who != what {
            after[who].entry(what).or_insert(created);
        }
    };
    let lost_its_name = |step: &Step| step.mark.as_ref().and_then(|mark| state.condemned.get(mark));
    let condemned = |step: &Step| match step.action {
        Action::LeaveBehind => lost_its_name(step).is_some(),
        _ => condemned(step),
    };
    // What a thing lies in, and is deleted by call in this plan.
    let deleted_around = |step: &Step| -> Vec<usize> {
        let thing = step.mark.as_ref().and_then(|mark| state.thing(&step.urn, mark));
        let outer = thing.into_iter().flat_map(|record| state.around(record));
        let deleted = |n: &usize| matches!(steps[*n].action, Action::Delete { condemned: false, .. });
        outer.flat_map(|outer| removes.get(outer).into_iter().flatten()).copied().filter(deleted).collect()
    };
    // A superseded or condemned thing goes when its successor stands, unless it has what that takes, or goes with what it
    // lies in; otherwise it makes room first.
    let room_first = |remove: usize, make: usize| {
        let claims = || steps[make].spec.iter().flat_map(|spec| &spec.claims);
        let has = |old: &Record| claims().any(|claim| old.occupies().any(|taken| taken.clashes(claim)));
        let outlives = matches!(steps[make].action, Action::Supersede) || condemned(&steps[remove]);
        let goes_along = || !deleted_around(&steps[remove]).is_empty();
        !outlives || lost_its_name(&steps[remove]).is_some_and(|old| has(&old.record) || goes_along())
    };
    // What stands already stands when it is changed.
    let succeeded = |step: &Step| {
        let changes = |open: &Open| open.begun.deed == Deed::Update;
        let stands = |record: &Record| record.status == Status::Ready && record.open.as_deref().is_none_or(changes);
        lost_its_name(step).is_some() && state.record(&step.urn).is_some_and(stands)
    };
    for (n, step) in steps.iter().enumerate() {
        if step.makes() {
            let edges = step.spec.as_ref().map(|spec| &spec.edges).into_iter().chain(more.get(&step.urn));
            for (to, created) in edges.flat_map(|edges| needs(edges)) {
                if let Some(make) = makes.get(to) {
                    wait(n, *make, created);
                }
            }
        }
        for remove in removes.get(&step.urn).into_iter().flatten().copied().filter(|_| step.makes()) {
            if room_first(remove, n) {
                wait(n, remove, false);
            } else if !succeeded(&steps[remove]) {
                wait(remove, n, false);
            }
        }
    }
    // Who needed what, as recorded: they let go before it goes. What goes along with its container lets go when that
    // does, which may be what waits for this: then there is nothing to wait for. Neither is there where what somebody
    // lets go for is only made once this has gone: then it is without what it needs in between, as whatever needs
    // something that makes room.
    let (mut lets_go, mut from_inside, mut along) = (Vec::new(), Vec::new(), Vec::new());
    let nothing = BTreeMap::new();
    let recorded = if removes.is_empty() { &nothing } else { &state.records };
    // What takes something away: its own deletion, else that of what it lies in. What is gone, or stays, nothing does.
    let takes = |remove: usize| -> Vec<usize> {
        if matches!(steps[remove].action, Action::Delete { .. }) {
            return vec![remove];
        }
        if matches!(steps[remove].action, Action::Forget { stays: true, .. }) {
            return Vec::new();
        }
        deleted_around(&steps[remove])
    };
    // What happened around a member needs nothing any more.
    for (urn, record) in recorded.iter().filter(|(_, record)| record.spec.member.is_none()) {
        for edge in &record.spec.edges {
            for remove in removes.get(&edge.to).into_iter().flatten().copied() {
                let takes = takes(remove);
                let (old, own): (Vec<usize>, Vec<usize>) =
                    removes.get(urn).into_iter().flatten().copied().partition(|gone| condemned(&steps[*gone]));
                let inside = record.spec.container.as_ref() == Some(&edge.to);
                for gone in own.iter().copied() {
                    let called = matches!(steps[gone].action, Action::Delete { .. });
                    // What lives inside is forgotten once the container is gone; what is deleted by call goes before.
                    if inside && !called && takes == [remove] {
                        wait(gone, remove, false);
                    } else if !called && state.around(record).any(|outer| removes.contains_key(outer)) {
                        along.push((remove, gone));
                        let with = deleted_around(&steps[gone]);
                        along.extend(takes.iter().flat_map(|takes| with.iter().map(|with| (*takes, *with))));
                    } else if takes == [remove] {
                        wait(remove, gone, false);
                    } else {
                        from_inside.extend(takes.iter().map(|takes| (*takes, gone)));
                    }
                }
                let makes_room = makes.get(&edge.to).is_some_and(|successor| room_first(remove, *successor));
                if let Some(make) = makes.get(urn).copied().filter(|_| own.is_empty() && !makes_room) {
                    // What is superseded needs it until it is gone.
                    let superseded = matches!(steps[make].action, Action::Supersede);
                    let old = old.iter().copied().filter(|_| superseded);
                    if takes == [remove] {
                        lets_go.push((remove, make));
                        lets_go.extend(old.map(|old| (remove, old)));
                    } else {
                        let users = [make].into_iter().chain(old);
                        from_inside.extend(users.flat_map(|user| takes.iter().map(move |takes| (*takes, user))));
                    }
                }
            }
        }
    }
    // What has lost its name let go of what it needs by going, too.
    for (n, step) in steps.iter().enumerate().filter(|(_, step)| condemned(step)) {
        for edge in lost_its_name(step).into_iter().flat_map(|old| &old.record.spec.edges) {
            let goes = removes.get(&edge.to).into_iter().flatten().copied();
            from_inside.extend(goes.flat_map(takes).map(|takes| (takes, n)));
        }
    }
    // What is deleted by call goes before anything around it does, however deep it lies: the way in goes with that. What
    // goes without a call goes with the container that is deleted: it is there until then, and has to be known until then.
    for (n, step) in steps.iter().enumerate().filter(|(_, step)| step.removes()) {
        let Some(record) = step.mark.as_ref().and_then(|mark| state.thing(&step.urn, mark)) else { continue };
        // That something was done before a member is taken away is known until it is.
        let forgotten = record.spec.member.iter().filter(|_| matches!(step.action, Action::Forget { .. }));
        let members = forgotten.flat_map(|member| removes.get(member).into_iter().flatten());
        members.copied().for_each(|member| wait(n, member, false));
        for container in state.around(record) {
            let goes = removes.get(container).into_iter().flatten().copied().filter(|goes| !condemned(&steps[*goes]));
            for goes in goes {
                match (&step.action, &steps[goes].action) {
                    (Action::Delete { .. }, _) => wait(goes, n, false),
                    (Action::Forget { stays: true, .. }, _) => {}
                    (_, Action::Delete { .. }) => wait(n, goes, false),
                    (..) => {}
                }
            }
        }
    }
    grant(&mut after, lets_go);
    // What takes over a claim comes after what held it: after that goes, and what stays, after it becomes what it is to be.
    let holders = holders(state);
    for (n, step) in steps.iter().enumerate() {
        let Some(spec) = step.spec.as_ref().filter(|_| step.makes()) else { continue };
        for claim in &spec.claims {
            for (holder, _) in holders.of(claim).filter(|(holder, _)| *holder.urn != step.urn) {
                let of_it = |goes: &usize| steps[*goes].mark.as_ref().is_none_or(|mark| *mark == holder.record.mark);
                let goes = removes.get(holder.urn).into_iter().flatten().copied().find(of_it);
                let stays = || state.record(holder.urn).is_some_and(|named| named.mark == holder.record.mark);
                let becomes = || makes.get(holder.urn).copied().filter(|_| stays());
                if let Some(lets_go) = goes.or_else(becomes).filter(|lets_go| *lets_go != n) {
                    after[n].entry(lets_go).or_insert(false);
                }
            }
        }
    }
    grant(&mut after, from_inside);
    grant(&mut after, along);
    for (step, after) in steps.iter_mut().zip(after) {
        step.after = after.into_iter().map(|(step, created)| After { step, created }).collect();
    }
    sorted(steps, problems)
}

/// Lets each of `wishes` wait for the other, but for those that would close a circle.
fn grant(after: &mut [BTreeMap<usize, bool>], wishes: Vec<(usize, usize)>) {
    let mut granted = Vec::new();
    for (who, what) in wishes {
        if who != what && !after[who].contains_key(&what) {
            after[who].insert(what, false);
            granted.push((who, what));
        }
    }
    let needs = |after: &[BTreeMap<usize, bool>]| -> Vec<Vec<usize>> {
        after.iter().map(|after| after.keys().copied().collect()).collect()
    };
    if granted.is_empty() || stable(&needs(after)).len() == after.len() {
        return;
    }
    // Only those in a circle are in doubt.
    let rings: Vec<Vec<usize>> = kosaraju_scc(&graph(&needs(after)));
    let mut ring_of = vec![0; after.len()];
    rings.iter().enumerate().for_each(|(n, ring)| ring.iter().for_each(|step| ring_of[*step] = n));
    granted.retain(|(who, what)| ring_of[*who] == ring_of[*what]);
    for (who, what) in &granted {
        after[*who].remove(what);
    }
    for (who, what) in granted {
        if !waits(after, what, who) {
            after[who].insert(what, false);
        }
    }
}

/// Returns true when `who` waits for `what`, directly or not.
fn waits(after: &[BTreeMap<usize, bool>], who: usize, what: usize) -> bool {
    let (mut passed, mut todo) = (BTreeSet::new(), vec![who]);
    while let Some(n) = todo.pop() {
        if n == what {
            return true;
        }
        if passed.insert(n) {
            todo.extend(after[n].keys());
        }
    }
    false
}

/// Sorts steps so that each comes after what it waits for; a circle is a problem.
pub(super) fn sorted(mut steps: Vec<Step>, problems: &mut Vec<Problem>) -> Vec<Step> {
    let needs: Vec<Vec<usize>> = steps.iter().map(|step| step.after.iter().map(|after| after.step).collect()).collect();
    let order = stable(&needs);
    if order.len() < steps.len() {
        for ring in kosaraju_scc(&graph(&needs)).into_iter().filter(|ring| ring.len() > 1) {
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
    let mut position = vec![0; steps.len()];
    order.iter().enumerate().for_each(|(n, old)| position[*old] = n);
    for step in &mut steps {
        step.after.iter_mut().for_each(|after| after.step = position[after.step]);
        step.after.sort();
    }
    // In place: the steps are most of a plan, and most often in order already.
    for n in 0..steps.len() {
        while position[n] != n {
            let there = position[n];
            steps.swap(n, there);
            position.swap(n, there);
        }
    }
    steps
}

/// Returns an order in which everything comes after what it needs, the lowest position first among equals (Kahn's
/// algorithm). What is in a circle, or behind one, is left out.
pub(super) fn stable(needs: &[Vec<usize>]) -> Vec<usize> {
    let mut waiting: Vec<usize> = vec![0; needs.len()];
    let mut waiters: Vec<Vec<usize>> = vec![Vec::new(); needs.len()];
    for (n, needs) in needs.iter().enumerate() {
        for need in needs {
            waiting[n] += 1;
            waiters[*need].push(n);
        }
    }
    let mut ready: BTreeSet<usize> = (0..needs.len()).filter(|n| waiting[*n] == 0).collect();
    let mut order = Vec::with_capacity(needs.len());
    while let Some(n) = ready.pop_first() {
        order.push(n);
        for waiter in &waiters[n] {
            waiting[*waiter] -= 1;
            if waiting[*waiter] == 0 {
                ready.insert(*waiter);
            }
        }
    }
    order
}

/// Returns the same as a graph whose circles can be told.
pub(super) fn graph(needs: &[Vec<usize>]) -> DiGraphMap<usize, ()> {
    let mut graph = DiGraphMap::new();
    for (n, needs) in needs.iter().enumerate() {
        graph.add_node(n);
        needs.iter().for_each(|need| {
            graph.add_edge(*need, n, ());
        });
    }
    graph
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

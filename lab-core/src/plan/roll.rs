//! Rolling groups: who is interrupted when, and what must hold in between.

use super::make::Planner;
use super::order;
use super::plan::{Action, After, HeldStep, Problem, Step};
use crate::model::{Declared, Edge, EdgeKind, Node, Record, State, Status, Urn, When};
use std::collections::{BTreeMap, BTreeSet};

/// Plans the acts around members that are interrupted, and those that an earlier run left unfinished.
pub(super) fn acts(planner: &mut Planner<'_>) {
    let interrupted: BTreeSet<Urn> =
        planner.steps.iter().filter(|step| disrupts(step)).map(|step| step.urn.clone()).collect();
    let graph = planner.graph;
    let declared = planner.declared;
    let act = |n: &usize| declared.nodes[*n].options.act.as_ref().map(|act| (*n, &act.member, act.when));
    let acts: Vec<(usize, &Urn, When)> = graph.order.iter().filter_map(act).collect();
    let recorded = |n: usize| planner.pairs.recorded[n];
    let unfinished: BTreeSet<&Urn> =
        acts.iter().filter(|(n, ..)| recorded(*n).is_some()).map(|(_, member, _)| *member).collect();
    // What comes after has begun: the interruption that is recorded is over, and the next one has acts of its own. Where
    // nothing comes after, nothing tells, and what comes before is done once more.
    let over = |member: &Urn| {
        let mut after = acts.iter().filter(|(_, other, when)| *when == When::After && *other == member).peekable();
        let settled = |record: &Record| record.status == Status::Ready && record.open.is_none();
        match after.peek() {
            Some(_) => after.any(|(n, ..)| recorded(*n).is_some()),
            None => planner.state.records.get(member).is_some_and(|record| settled(record)),
        }
    };
    let todo: Vec<(usize, &Urn, When, bool)> = acts
        .iter()
        .filter_map(|(n, member, when)| {
            let done = recorded(*n).is_some_and(|record| record.status == Status::Ready && record.open.is_none());
            let anew = interrupted.contains(*member) && over(member);
            // What comes before is only of use before; what comes after is owed once anything has begun.
            let owed = interrupted.contains(*member) || (*when == When::After && unfinished.contains(member));
            (owed && (anew || !done)).then_some((*n, *member, *when, anew))
        })
        .collect();
    for (n, member, when, anew) in todo {
        if anew {
            planner.anew(n, &format!("it was done around an earlier interruption of {}", member.short()));
        } else {
            planner.node(n);
        }
        if when == When::After {
            planner.edge_to(&declared.nodes[n].urn, Edge { to: member.clone(), kind: EdgeKind::After });
        }
    }
}

/// Returns true when a step takes its member away from its users for a while.
fn disrupts(step: &Step) -> bool {
    match step.action {
        // Where the next one stands before this one goes, nobody misses it.
        Action::Delete { condemned, .. } => !condemned,
        // What was not there is missed by nobody.
        Action::Create | Action::Supersede | Action::Continue { making: true, .. } => false,
        Action::Import { .. } | Action::Update | Action::Renew | Action::Continue { making: false, .. } => {
            step.interrupts.is_some()
        }
        Action::Forget { .. } | Action::LeaveBehind | Action::Read | Action::Gate { .. } => false,
    }
}

/// One member of a group, with what is done around it.
struct Member {
    urn: Urn,
    first: Vec<usize>,
    last: Vec<usize>,
    /// An operation on it is open: it is down already, as far as is known, and no gate can be asked of it.
    down: bool,
    /// It was seen to stand, though a destroy began to delete it.
    stands: bool,
    /// It is declared and nothing is recorded of it: new, or between the two halves of a replacement that was cut off.
    missing: bool,
}

/// How far a member is away before its turn; in this order they come up again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Away {
    Down,
    Missing,
    /// It stands, and what was begun takes it away. No gate is asked: what it asks for may have gone with the others.
    Leaving,
    Not,
}

impl Member {
    fn steps(&self) -> impl Iterator<Item = usize> {
        self.first.iter().chain(&self.last).copied()
    }
}

/// Puts the disruptive steps of each group in turns, with gates between them. `standing` are those whose deletion was begun
/// and that were seen to be there all the same, `held` is what is not done now.
pub(super) fn roll(
    mut steps: Vec<Step>,
    declared: &Declared,
    state: &State,
    standing: &BTreeSet<Urn>,
    held: &[HeldStep],
    problems: &mut Vec<Problem>,
) -> Vec<Step> {
    let before = steps.len();
    forget_acts(&mut steps, declared, state, held);
    for group in declared.groups.values() {
        let members = members(&steps, declared, state, standing, &group.name);
        if members.is_empty() {
            continue;
        }
        let gate = |steps: &mut Vec<Step>, turn: usize, after: &[usize]| -> Vec<usize> {
            let mut added = Vec::new();
            for (n, gate) in group.gates.iter().enumerate() {
                let name = format!("{}-{turn}", group.name);
                let urn = Urn::new(&declared.stack, &gate.provider, &[], gate.query.name(), &name);
                let mut step = Step::blank(&urn, Action::Gate { group: group.name.clone(), gate: n });
                step.place = Some(gate.place.clone());
                step.after = after.iter().map(|step| After { step: *step, created: false }).collect();
                steps.push(step);
                added.push(steps.len() - 1);
            }
            added
        };
        for turn in 0..members.len() {
            let earlier: Vec<usize> = match turn.checked_sub(group.at_most) {
                Some(earlier) => members[..=earlier].iter().flat_map(|member| member.last.clone()).collect(),
                None => Vec::new(),
            };
            let away = members[turn].down || members[turn].missing;
            let gates = if away { Vec::new() } else { gate(&mut steps, turn, &earlier) };
            for first in &members[turn].first {
                for step in earlier.iter().chain(&gates) {
                    steps[*first].after.push(After { step: *step, created: false });
                }
            }
        }
        let all: Vec<usize> = members.iter().flat_map(|member| member.last.clone()).collect();
        gate(&mut steps, members.len(), &all);
    }
    if steps.len() == before && declared.groups.is_empty() {
        return steps;
    }
    for step in &mut steps {
        step.after.sort();
        step.after.dedup_by_key(|after| after.step);
    }
    order::sorted(steps, problems)
}

fn members(steps: &[Step], declared: &Declared, state: &State, standing: &BTreeSet<Urn>, group: &str) -> Vec<Member> {
    let mut acts: BTreeMap<&Urn, (Vec<usize>, Vec<usize>)> = BTreeMap::new();
    let positions: BTreeMap<&Urn, usize> =
        steps.iter().enumerate().filter(|(_, step)| step.makes()).map(|(n, step)| (&step.urn, n)).collect();
    for node in &declared.nodes {
        let (Some(act), Some(position)) = (&node.options.act, positions.get(&node.urn)) else { continue };
        let (before, after) = acts.entry(&act.member).or_default();
        match act.when {
            When::Before => before.push(*position),
            When::After => after.push(*position),
        }
    }
    let mut by_name: BTreeMap<&Urn, Vec<usize>> = BTreeMap::new();
    steps.iter().enumerate().for_each(|(n, step)| by_name.entry(&step.urn).or_default().push(n));
    let mut members: Vec<Member> = Vec::new();
    let mut known: BTreeSet<&Urn> = BTreeSet::new();
    let mut rolls = false;
    for node in declared.nodes.iter().filter(|node| node.options.rolling.as_deref() == Some(group)) {
        let own: Vec<usize> = by_name.get(&node.urn).cloned().unwrap_or_default();
        let (before, after) = acts.get(&node.urn).cloned().unwrap_or_default();
        let record = state.records.get(&node.urn);
        let down = record.is_some_and(|record| record.open.is_some() || record.status != Status::Ready);
        let disrupted = own.iter().any(|n| disrupts(&steps[*n])) || !after.is_empty();
        let missing = record.is_none();
        rolls |= disrupted;
        if own.is_empty() || !(disrupted || down || missing) {
            continue;
        }
        let first = if before.is_empty() { own.clone() } else { before.clone() };
        let last = if after.is_empty() { own } else { after };
        known.insert(&node.urn);
        let stands = standing.contains(&node.urn);
        members.push(Member { urn: node.urn.clone(), first, last, down, stands, missing });
    }
    // A member whose line is gone is taken away in its turn as well.
    for (n, step) in steps.iter().enumerate() {
        let record = state.records.get(&step.urn);
        let member = record.is_some_and(|record| record.spec.rolling.as_deref() == Some(group));
        let deleted = matches!(step.action, Action::Delete { condemned: false, .. });
        if member && deleted && known.insert(&step.urn) {
            let (urn, own) = (step.urn.clone(), vec![n]);
            let down = record.is_some_and(|record| record.open.is_some());
            rolls = true;
            let stands = standing.contains(&urn);
            members.push(Member { urn, first: own.clone(), last: own, down, stands, missing: false });
        }
    }
    // Where nobody is taken away, those that are still being made need no turns.
    if !rolls {
        members.clear();
    }
    debug_assert!(members.iter().map(|member| &member.urn).collect::<BTreeSet<_>>().len() == members.len());
    in_turn(members, steps)
}

/// Puts members in the order of their turns: none before those that it waits for anyway. What is down already counts, and
/// goes before everybody who is not; where it waits for one of them, the circle is a problem of the plan. Of those that a
/// destroy began to delete, who still stands comes after who has gone.
fn in_turn(members: Vec<Member>, steps: &[Step]) -> Vec<Member> {
    let mut of: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (n, member) in members.iter().enumerate() {
        member.steps().for_each(|step| of.entry(step).or_default().push(n));
    }
    let needs: Vec<BTreeSet<usize>> = members
        .iter()
        .enumerate()
        .map(|(n, member)| {
            let (mut passed, mut todo): (BTreeSet<usize>, Vec<usize>) = (BTreeSet::new(), member.steps().collect());
            let mut needs = BTreeSet::new();
            while let Some(step) = todo.pop() {
                if passed.insert(step) {
                    needs.extend(of.get(&step).into_iter().flatten().filter(|other| **other != n));
                    todo.extend(steps[step].after.iter().map(|after| after.step));
                }
            }
            needs.retain(|other: &usize| !member.down || members[*other].down);
            needs
        })
        .collect();
    let away = |member: &Member| match member {
        Member { down: true, stands: false, .. } => Away::Down,
        Member { missing: true, .. } => Away::Missing,
        Member { down: true, stands: true, .. } => Away::Leaving,
        Member { down: false, .. } => Away::Not,
    };
    let mut left: BTreeSet<(Away, usize)> = members.iter().enumerate().map(|(n, member)| (away(member), n)).collect();
    let mut taken: BTreeSet<usize> = BTreeSet::new();
    let mut order = Vec::new();
    while let Some(first) = left.first().copied() {
        let next = left.iter().copied().find(|(_, n)| needs[*n].is_subset(&taken)).unwrap_or(first);
        left.remove(&next);
        taken.insert(next.1);
        order.push(next.1);
    }
    let mut members: Vec<Option<Member>> = members.into_iter().map(Some).collect();
    order.into_iter().filter_map(|n| members[n].take()).collect()
}

/// The step of a member waits for what is done before it; when everything around it is done, the acts are forgotten,
/// so that the next interruption does them anew.
///
/// Where an earlier interruption left acts behind, these are forgotten first. Wherever that stops, it is known whether what
/// comes before is in effect, and what comes after is owed as long as it may be: what came before is forgotten before what
/// came after, and that, unless all of it ended, only once what comes before is done again.
fn forget_acts(steps: &mut Vec<Step>, declared: &Declared, state: &State, held: &[HeldStep]) {
    let mut by_member: BTreeMap<&Urn, Vec<(&Node, When)>> = BTreeMap::new();
    for node in &declared.nodes {
        if let Some(act) = &node.options.act {
            by_member.entry(&act.member).or_default().push((node, act.when));
        }
    }
    if by_member.is_empty() {
        return;
    }
    let mut by_name: BTreeMap<Urn, Vec<usize>> = BTreeMap::new();
    steps.iter().enumerate().for_each(|(n, step)| by_name.entry(step.urn.clone()).or_default().push(n));
    let of = |urn: &Urn| by_name.get(urn).into_iter().flatten().copied();
    let held: BTreeSet<&Urn> = held.iter().map(|held| &held.step.urn).collect();
    for (member, acts) in by_member {
        let own: Vec<usize> = of(member).collect();
        let (mut before, mut after, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        // What an earlier interruption left behind, and whether all that comes after was done by then.
        let (mut stale_before, mut stale_after, mut over) = (Vec::new(), Vec::new(), true);
        for (node, when) in &acts {
            let (makes, forgets): (Vec<usize>, Vec<usize>) = of(&node.urn).partition(|n| steps[*n].makes());
            let record = state.record(&node.urn);
            if !makes.is_empty() || record.is_some() {
                kept.push((*node, *when));
            }
            let (made, stale) = match when {
                When::Before => (&mut before, &mut stale_before),
                When::After => {
                    over &= record.is_some_and(|record| record.status == Status::Ready && record.open.is_none());
                    (&mut after, &mut stale_after)
                }
            };
            made.extend(makes);
            stale.extend(forgets);
        }
        let mut wait = |who: &[usize], what: &[usize]| {
            for n in who {
                steps[*n].after.extend(what.iter().map(|step| After { step: *step, created: false }));
            }
        };
        wait(&before, &stale_before);
        wait(&stale_after, &stale_before);
        let (first, then) = if over { (&stale_after, &before) } else { (&before, &stale_after) };
        wait(then, first);
        wait(&own, &before);
        wait(&own, &stale_after);
        // What is owed and held is still owed.
        if held.contains(member) || acts.iter().any(|(node, _)| held.contains(&node.urn)) {
            continue;
        }
        let all = [&before[..], &after, &own].concat();
        let (first, last): (Vec<_>, Vec<_>) = kept.into_iter().partition(|(_, when)| *when == When::Before);
        let mut forgotten = Vec::new();
        for acts in [first, last] {
            let earlier = [&all[..], &forgotten].concat();
            for (node, _) in acts {
                let mut step = Step::blank(&node.urn, Action::Forget { condemned: false, stays: true });
                step.reasons.push(format!("the interruption of {} is over", member.short()));
                step.place = Some(node.place.clone());
                step.after = earlier.iter().map(|step| After { step: *step, created: false }).collect();
                forgotten.push(steps.len());
                steps.push(step);
            }
        }
    }
}

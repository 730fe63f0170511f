//! Rolling groups: who is interrupted when, and what must hold in between.

use super::make::Planner;
use super::order;
use super::plan::{Action, After, HeldStep, Problem, Step};
use crate::model::{Declared, Edge, EdgeKind, Node, Record, State, Urn, When};
use std::collections::{BTreeMap, BTreeSet};

/// Plans the acts around members that are interrupted, and those that an earlier run left unfinished.
pub(super) fn acts(planner: &mut Planner<'_>) {
    let interrupted: BTreeSet<Urn> =
        planner.steps.iter().filter(|step| step.disrupts()).map(|step| step.urn.clone()).collect();
    let graph = planner.graph;
    let declared = planner.declared;
    let act = |n: &usize| declared.nodes[*n].options.act.as_ref().map(|act| (*n, &act.member, act.when));
    let acts: Vec<(usize, &Urn, When)> = graph.order.iter().filter_map(act).collect();
    if acts.is_empty() {
        return;
    }
    let recorded = |n: usize| planner.pairs.recorded[n];
    let names = Names::of(declared, planner.state);
    let unfinished = planner.state.under_way().into_iter().chain(planner.state.owed.keys());
    let unfinished: BTreeSet<&Urn> = unfinished.map(|member| names.now(member)).collect();
    // What comes after was begun, or what came before is spent: the interruption that is recorded is over, and the next one
    // has acts of its own.
    let any = |member: &Urn, when: When, is: &dyn Fn(usize) -> bool| {
        acts.iter().any(|(n, other, at)| *at == when && *other == member && is(*n))
    };
    let spent = |n: usize| recorded(n).is_some_and(|record| record.spent);
    let after = |member: &Urn| any(member, When::After, &|n| recorded(n).is_some_and(|record| !record.spent));
    let over = |member: &Urn| after(member) || any(member, When::Before, &spent);
    // By another name it is another one: a snapshot of before the next change.
    let other = |n: usize| {
        let begun = |record: &Record| record.open.as_ref().and_then(|open| open.begun.id.clone());
        let named = |record: &Record| match (record.id.clone().or_else(|| begun(record)), &declared.nodes[n].id) {
            (Some(old), Some(new)) => old != *new,
            _ => false,
        };
        recorded(n).is_some_and(named)
    };
    // What comes before is only of use before; what comes after is owed once anything has begun.
    let anew = |n: usize, member: &Urn, when: When| {
        spent(n)
            || interrupted.contains(member)
                && match when {
                    When::Before => after(member) || other(n),
                    When::After => over(member),
                }
    };
    let owed =
        |member: &Urn, when: When| interrupted.contains(member) || (when == When::After && unfinished.contains(member));
    let todo: Vec<(usize, &Urn, When, bool)> = acts
        .iter()
        .map(|(n, member, when)| (*n, *member, *when, anew(*n, member, *when)))
        .filter(|(n, member, when, anew)| owed(member, *when) && (*anew || !recorded(*n).is_some_and(Record::is_whole)))
        .collect();
    for (n, member, when, anew) in todo {
        if anew {
            planner.anew(n);
        } else {
            planner.node(n);
        }
        if when == When::After {
            planner.edge_to(&declared.nodes[n].urn, Edge { to: member.clone(), kind: EdgeKind::After });
        }
    }
}

/// What members are called now that had another name when something was done around them. What is recorded of a member
/// moves with its new name, and what was done around it says that; between the two halves of a replacement nothing is
/// recorded of it.
struct Names<'a>(BTreeMap<Urn, &'a Urn>);

impl<'a> Names<'a> {
    fn of(declared: &'a Declared, state: &State) -> Names<'a> {
        let members = declared.nodes.iter().filter(|node| node.options.rolling.is_some());
        let former = members.flat_map(|node| node.options.was.iter().map(|was| (node.urn.renamed(was), &node.urn)));
        let free = |(former, _): &(Urn, &Urn)| state.record(former).is_none() && declared.node(former).is_none();
        Names(former.filter(free).collect())
    }

    fn now<'n>(&self, member: &'n Urn) -> &'n Urn
    where
        'a: 'n,
    {
        self.0.get(member).copied().unwrap_or(member)
    }
}

/// One member of a group, with what is done around it.
struct Member {
    urn: Urn,
    first: Vec<usize>,
    last: Vec<usize>,
    /// An operation on it is open.
    open: bool,
    /// Because of that, or because it was drained, it is down already, as far as is known, and no gate can be asked of it.
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
    let names = Names::of(declared, state);
    let around: BTreeSet<&Urn> = state.under_way().into_iter().map(|member| names.now(member)).collect();
    let owed: BTreeSet<&Urn> = state.owed.keys().map(|member| names.now(member)).collect();
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
        // Drained, or not uncordoned yet, it is away as well.
        let open = record.is_some_and(|record| !record.is_whole());
        let owed = !after.is_empty() && owed.contains(&node.urn);
        let down = open || owed || around.contains(&node.urn);
        let disrupted = own.iter().any(|n| steps[*n].disrupts()) || !after.is_empty();
        let missing = record.is_none();
        rolls |= disrupted;
        let all = [&before[..], &own, &after].concat();
        if all.is_empty() || !(disrupted || down || missing) {
            continue;
        }
        let first = [&before, &own, &after].into_iter().find(|steps| !steps.is_empty()).cloned().unwrap_or_default();
        let last = [after, own, before].into_iter().find(|steps| !steps.is_empty()).unwrap_or_default();
        known.insert(&node.urn);
        let stands = standing.contains(&node.urn);
        members.push(Member { urn: node.urn.clone(), first, last, open, down, stands, missing });
    }
    // A member whose line is gone is taken away in its turn as well.
    for (n, step) in steps.iter().enumerate() {
        let record = state.records.get(&step.urn);
        let member = record.is_some_and(|record| record.spec.rolling.as_deref() == Some(group));
        let deleted = matches!(step.action, Action::Delete { condemned: false, .. });
        if member && deleted && known.insert(&step.urn) {
            let (urn, own) = (step.urn.clone(), vec![n]);
            let open = record.is_some_and(|record| !record.is_whole());
            let down = open || around.contains(&step.urn);
            rolls = true;
            let stands = standing.contains(&urn);
            members.push(Member { urn, first: own.clone(), last: own, open, down, stands, missing: false });
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
            needs.retain(|other: &usize| !member.open || members[*other].open);
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
/// so that the next interruption does them anew. As long as anything of them is recorded, what comes after is owed: what was
/// done before is done once more without being forgotten in between.
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
    let names = Names::of(declared, state);
    let mut gone: BTreeMap<&Urn, Vec<usize>> = BTreeMap::new();
    for (n, step) in steps.iter().enumerate().filter(|(_, step)| matches!(step.action, Action::Forget { .. })) {
        if let Some(member) = state.record(&step.urn).and_then(|record| record.spec.member.as_ref()) {
            gone.entry(names.now(member)).or_default().push(n);
        }
    }
    for (member, acts) in by_member {
        let own: Vec<usize> = of(member).collect();
        let (mut before, mut after, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        for (node, when) in &acts {
            let makes: Vec<usize> = of(&node.urn).filter(|n| steps[*n].makes()).collect();
            if !makes.is_empty() || state.record(&node.urn).is_some() {
                kept.push((*node, *when));
            }
            match when {
                When::Before => before.extend(makes),
                When::After => after.extend(makes),
            }
        }
        for n in &own {
            steps[*n].after.extend(before.iter().map(|step| After { step: *step, created: false }));
        }
        // What is owed and held is still owed.
        if held.contains(member) || acts.iter().any(|(node, _)| held.contains(&node.urn)) {
            continue;
        }
        let all = [&before[..], &after, &own].concat();
        // What was done before by a line that is gone says that something is owed until that is done.
        for n in gone.get(member).into_iter().flatten() {
            steps[*n].after.extend(all.iter().map(|step| After { step: *step, created: false }));
        }
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

//! Which recorded thing is meant by which line: by identity first, by name after.

use super::graph::Graph;
use super::pairs::Pairs;
use crate::model::{Declared, Node, Record, State, Status, Urn};
use std::collections::{BTreeMap, BTreeSet};

/// Returns old and new names of what goes by another name now, all to be moved at once.
///
/// Identities are matched over the whole graph before any name is: two machines that swapped names swap records. What
/// has no identity, or one that nothing recorded has, is matched by its own name, then by the names it had. Where `b` was
/// `a` and `c` was `b`, both move, unless something recorded is `c` already.
pub(super) fn moves(declared: &Declared, graph: &Graph, state: &State, pairs: &Pairs<'_>) -> Vec<(Urn, Urn)> {
    if graph.order.iter().all(|n| at_home(&declared.nodes[*n], pairs.recorded[*n])) {
        return Vec::new();
    }
    let mut by_id: BTreeMap<(&str, &str, &str), &Urn> = BTreeMap::new();
    for (urn, record) in &state.records {
        if let Some(id) = recorded_id(record) {
            by_id.insert((&record.spec.kind, &record.spec.provider, id), urn);
        }
    }
    let mut taken: BTreeSet<&Urn> = BTreeSet::new();
    let mut matched: BTreeMap<&Urn, &Urn> = BTreeMap::new();
    let nodes: Vec<_> = graph.order.iter().map(|n| &declared.nodes[*n]).collect();
    for node in &nodes {
        let (Some(kind), Some(id)) = (node.resource(), &node.id) else { continue };
        if let Some(urn) = by_id.get(&(kind.name(), node.provider.as_str(), id.0.as_str()))
            && taken.insert(urn)
        {
            matched.insert(&node.urn, urn);
        }
    }
    // Names that are handed on in a chain: whoever has taken over another's name leaves its own to the next.
    let owners: BTreeMap<&Urn, &Node> = nodes
        .iter()
        .filter(|node| node.resource().is_some() && !matched.contains_key(&node.urn) && !taken.contains(&node.urn))
        .filter(|node| state.records.contains_key(&node.urn))
        .map(|node| (&node.urn, *node))
        .collect();
    for node in &nodes {
        let new = node.resource().is_some() && !matched.contains_key(&node.urn) && !owners.contains_key(&node.urn);
        let free = |urn: &Urn| state.records.get_key_value(urn).map(|(urn, _)| urn).filter(|urn| !taken.contains(*urn));
        if !new {
            continue;
        }
        let chain = handed_on(node, &owners, &free, &mut BTreeSet::new()).unwrap_or_default();
        // Of one link only, it is a former name like any other.
        for (to, from) in chain.iter().copied().filter(|_| chain.len() > 1) {
            matched.insert(to, from);
            taken.insert(from);
        }
    }
    // All own names before any former one: a name is taken over only from what no line means any more.
    for former in [false, true] {
        for node in &nodes {
            if node.resource().is_none() || matched.contains_key(&node.urn) {
                continue;
            }
            let names: Vec<Urn> = match former {
                false => vec![node.urn.clone()],
                true => node.options.was.iter().map(|name| node.urn.renamed(name)).collect(),
            };
            let mut records = names.iter().filter_map(|urn| state.records.get_key_value(urn).map(|(urn, _)| urn));
            if let Some(urn) = records.find(|urn| !taken.contains(*urn)) {
                matched.insert(&node.urn, urn);
                taken.insert(urn);
            }
        }
    }
    let mut moves: Vec<(Urn, Urn)> =
        matched.iter().filter(|(to, from)| to != from).map(|(to, from)| ((*from).clone(), (*to).clone())).collect();
    // A record whose name is needed by a moved one, and that no line means, makes room under a name of its own.
    let targets: BTreeSet<Urn> = moves.iter().map(|(_, to)| to.clone()).collect();
    for urn in state.records.keys() {
        if targets.contains(urn) && !taken.contains(urn) {
            let mut n = 1;
            let room = loop {
                let room = urn.renamed(&format!("{}~{n}", urn.name()));
                if !state.records.contains_key(&room) && !targets.contains(&room) {
                    break room;
                }
                n += 1;
            };
            moves.push((urn.clone(), room));
        }
    }
    moves.sort();
    moves
}

/// Returns true when a node is recorded under its own name and says no other identity than that record does. Where that
/// is so of all, no name is anybody else's.
fn at_home(node: &Node, record: Option<&Record>) -> bool {
    match (node.resource(), record, &node.id) {
        (None, _, _) => true,
        (Some(_), None, _) => false,
        (Some(_), Some(_), None) => true,
        (Some(kind), Some(record), Some(id)) => {
            let there = (record.spec.kind.as_str(), record.spec.provider.as_str(), recorded_id(record));
            there == (kind.name(), node.provider.as_str(), Some(id.0.as_str()))
        }
    }
}

/// Returns which node takes over which record so that `node` gets one of its former names: from what no line means any
/// more, or from a node that takes over one of its own former names in turn.
fn handed_on<'a, 's>(
    node: &'a Node,
    owners: &BTreeMap<&Urn, &'a Node>,
    free: &dyn Fn(&Urn) -> Option<&'s Urn>,
    passed: &mut BTreeSet<&'s Urn>,
) -> Option<Vec<(&'a Urn, &'s Urn)>> {
    for was in &node.options.was {
        let Some(former) = free(&node.urn.renamed(was)).filter(|former| passed.insert(*former)) else { continue };
        let mut chain = match owners.get(former) {
            None => Vec::new(),
            Some(owner) => match handed_on(owner, owners, free, passed) {
                Some(chain) => chain,
                None => continue,
            },
        };
        chain.push((&node.urn, former));
        return Some(chain);
    }
    None
}

fn recorded_id(record: &Record) -> Option<&str> {
    match record.status {
        Status::Gone => None,
        Status::Begun | Status::Made | Status::Ready => {
            // Of what is being made, the identity that was wanted: it may be there already under that, also where its
            // deletion was begun since.
            let mut begun = std::iter::successors(record.open.as_deref(), |open| open.before.as_deref());
            let making = begun.find(|open| open.begun.deed.makes());
            let begun = making.and_then(|open| open.begun.id.as_ref());
            record.id.as_ref().or(begun).map(|id| id.0.as_str())
        }
    }
}

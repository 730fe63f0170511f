//! Which recorded thing is meant by which line: by identity first, by name after.

use super::graph::Graph;
use crate::model::{Declared, Record, State, Status, Urn};
use std::collections::{BTreeMap, BTreeSet};

/// Returns old and new names of what goes by another name now, all to be moved at once.
///
/// Identities are matched over the whole graph before any name is: two machines that swapped names swap records. What
/// has no identity, or one that nothing recorded has, is matched by its own name, then by the names it had.
pub(super) fn moves(declared: &Declared, graph: &Graph<'_>, state: &State) -> Vec<(Urn, Urn)> {
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
        let Some(kind) = node.resource() else { continue };
        let Ok(Some(id)) = kind.id(&node.inputs, &declared.vault) else { continue };
        if let Some(urn) = by_id.get(&(kind.name(), node.provider.as_str(), id.0.as_str()))
            && taken.insert(urn)
        {
            matched.insert(&node.urn, urn);
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

fn recorded_id(record: &Record) -> Option<&str> {
    match record.status {
        Status::Gone => None,
        Status::Begun | Status::Made | Status::Ready => {
            // Of what is being made, the identity that was wanted: it may be there already under that.
            let making = record.open.as_deref().filter(|open| open.begun.deed.makes());
            let begun = making.and_then(|open| open.begun.id.as_ref());
            record.id.as_ref().or(begun).map(|id| id.0.as_str())
        }
    }
}

//! What is declared, beside what is recorded under the same name.

use crate::model::{Declared, Record, State, Urn};

/// What is declared, beside what is recorded under the same name: found once, for whoever needs both.
pub(super) struct Pairs<'a> {
    /// What is recorded of each node, by its position in what is declared.
    pub(super) recorded: Vec<Option<&'a Record>>,
    /// What is recorded and not declared, in the order of names.
    pub(super) left: Vec<(&'a Urn, &'a Record)>,
}

impl<'a> Pairs<'a> {
    pub(super) fn new(declared: &Declared, state: &'a State) -> Pairs<'a> {
        let mut pairs = Pairs { recorded: vec![None; declared.nodes.len()], left: Vec::new() };
        for (urn, record) in &state.records {
            match declared.position(urn) {
                Some(n) => pairs.recorded[n] = Some(record),
                None => pairs.left.push((urn, record)),
            }
        }
        // Of what is declared twice, which is a problem of the program, both lines mean the same.
        for (n, node) in declared.nodes.iter().enumerate().filter(|_| declared.repeats()) {
            pairs.recorded[n] = declared.position(&node.urn).and_then(|other| pairs.recorded[other]);
        }
        pairs
    }
}

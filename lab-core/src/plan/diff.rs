//! Property-level differences between two trees.

use crate::model::value_diff::is_leaf;
use crate::model::{Path, Tree};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;

/// One property that differs. Secrets and unknowns are markers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delta {
    /// Where.
    pub path: Path,
    /// What it was; None when it was not there.
    pub before: Option<Tree>,
    /// What it will be; None when it will not be there.
    pub after: Option<Tree>,
}

/// Returns the properties in which `after` differs from `before`, in order of their paths.
pub fn diff(before: &Tree, after: &Tree) -> Vec<Delta> {
    if before.is_null() && !after.is_null() {
        // Of what is new there is nothing to look into. A plan of a hundred thousand new things has as many of these lists,
        // with room for one each.
        return vec![Delta { path: Path::root(), before: Some(before.clone()), after: Some(after.clone()) }];
    }
    let mut deltas = Vec::new();
    if before != after {
        walk(Some(&before.value()), Some(&after.value()), &Path::root(), &mut deltas);
    }
    deltas
}

fn walk(before: Option<&Value>, after: Option<&Value>, path: &Path, deltas: &mut Vec<Delta>) {
    match (before, after) {
        (Some(a), Some(b)) if a == b => {}
        (Some(Value::Object(a)), Some(Value::Object(b))) if !is_leaf(before) && !is_leaf(after) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                walk(a.get(key), b.get(key), &path.at(key), deltas);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for n in 0..a.len().max(b.len()) {
                walk(a.get(n), b.get(n), &path.at(n), deltas);
            }
        }
        (before, after) => {
            deltas.push(Delta { path: path.clone(), before: before.map(Tree::from), after: after.map(Tree::from) });
        }
    }
}

//! Three-way drift: what is declared, what was last applied, what is there.

use crate::model::{Change, ErasedType, Path, Tree, Urn, Vault};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One property that is not as it was left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    /// Of which resource.
    pub urn: Urn,
    /// Where.
    pub path: Path,
    /// What the program says now; None when it no longer says anything.
    pub declared: Option<Value>,
    /// What was last applied.
    pub applied: Value,
    /// What is there; None when it is not there.
    pub live: Option<Value>,
}

/// Returns every property of `applied` that `live` shows differently. A path that `live` leaves out at the level of a
/// map was not read and is not drift; `null` says that it is not there.
pub fn drift(urn: &Urn, declared: Option<&Value>, applied: &Value, live: &Value, vault: &Vault) -> Vec<Drift> {
    let mut found = Vec::new();
    walk(applied, live, &Path::root(), vault, &mut |path, applied, live| {
        let declared = declared.and_then(|declared| crate::model::value_at(declared, path)).cloned();
        let live = (!live.is_null()).then(|| live.clone());
        found.push(Drift { urn: urn.clone(), path: path.clone(), declared, applied: applied.clone(), live });
    });
    found
}

/// Returns what a type says of what is not as it was `applied`, by path: who has set it, where that is known.
pub fn said(kind: &dyn ErasedType, applied: &Tree, live: &Value, vault: &Vault) -> Vec<(Path, String)> {
    match kind.change(applied, applied, Some(live), vault) {
        Ok(Change::Update(impact) | Change::Replace(impact, _)) => impact.reasons,
        Ok(Change::None | Change::Refuse(_)) | Err(_) => Vec::new(),
    }
}

fn walk(applied: &Value, live: &Value, path: &Path, vault: &Vault, found: &mut dyn FnMut(&Path, &Value, &Value)) {
    if applied == live || crate::model::same_secret(applied, live, vault) {
        return;
    }
    match (applied, live) {
        (Value::Object(a), Value::Object(l)) if !crate::model::value_diff::is_leaf(Some(applied)) => {
            for (key, applied) in a {
                if let Some(live) = l.get(key) {
                    walk(applied, live, &path.at(key), vault, found);
                }
            }
        }
        (Value::Array(a), Value::Array(l)) if a.len() == l.len() => {
            for (n, (applied, live)) in a.iter().zip(l).enumerate() {
                walk(applied, live, &path.at(n), vault, found);
            }
        }
        (applied, live) => found(path, applied, live),
    }
}

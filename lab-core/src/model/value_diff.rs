//! What the plan may know of the encoding: whether a value is one thing or a tree.

use super::value::{Marker, marker};
use serde_json::Value;

/// Returns true when `value` is a marker, and so one thing though it looks like a map.
pub(crate) fn is_leaf(value: Option<&Value>) -> bool {
    match value.and_then(marker) {
        Some(Marker::Unknown(_) | Marker::Secret(_)) => true,
        None => false,
    }
}

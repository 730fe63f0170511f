//! A pool: a named group of machines, for rights and for overview.

use serde::{Deserialize, Serialize};

/// A pool of machines. It is found by its name; ours is told by the mark in its comment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// The name: a letter, then letters, digits, `.`, `-` and `_`; up to three such parts with `/` between them.
    pub name: String,
    /// What it is for, in one line.
    pub comment: String,
}

impl Pool {
    /// Returns a pool.
    pub fn new(name: impl Into<String>) -> Pool {
        Pool { name: name.into(), comment: String::new() }
    }
}

//! A pool: a named group of machines, for rights and for overview.

use super::entry::{Entry, Params, entry};
use crate::request::{self, Request};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

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

/// What a [`Pool`] yields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolOutputs {
    /// Its name, for [`super::Vm::pool`].
    pub name: String,
}

entry!(Pool, "proxmox:pool", PoolOutputs);

impl Entry for Pool {
    const KEY: &'static str = "poolid";

    fn name(&self) -> Option<String> {
        Some(self.name.clone())
    }
    fn who(name: &str) -> String {
        format!("the pool {name}")
    }
    fn list() -> Request {
        request::pool::list(None)
    }
    fn seen_with(name: &str) -> String {
        format!("Pool.Audit on /pool/{name}")
    }
    fn wanted(&self) -> Params {
        Params::new()
    }
    fn comment(&self) -> &str {
        &self.comment
    }
    fn create(&self, name: &str, params: Params) -> Request {
        request::pool::create(name, params.get("comment").map(String::as_str).unwrap_or_default())
    }
    fn update(&self, name: &str, set: Params, _: &[&str]) -> Request {
        request::pool::describe(name, set.get("comment").map(String::as_str).unwrap_or_default())
    }
    fn remove(name: &str) -> Request {
        request::pool::delete(name)
    }
    fn outputs(&self) -> PoolOutputs {
        PoolOutputs { name: self.name.clone() }
    }
    fn live(&self, _: &Value) -> Value {
        json!({ "name": self.name })
    }
}

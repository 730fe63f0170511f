//! What a simulated outside has to offer, so that a program can be rehearsed on it unchanged.

use crate::model::Link;
use serde_json::Value;
use std::future::Future;
use std::pin::Pin;

/// A simulated outside that can be started.
pub trait Simulator: Send + Sync {
    /// Starts it. What goes wrong in it follows `seed`.
    fn start(&self, seed: u64) -> Pin<Box<dyn Future<Output = std::io::Result<Simulated>> + Send + '_>>;
}

/// A simulated outside that is running; it ends when this is dropped.
pub struct Simulated {
    /// How it is reached.
    pub link: Link,
    /// What is simulated, said plainly, a line each.
    pub summary: Vec<String>,
    /// How a person reaches it with other tools, a line each.
    pub reach: Vec<String>,
    /// Returns everything in it, for comparing one world with another.
    pub world: Box<dyn Fn() -> Value + Send + Sync>,
    /// What keeps it running.
    pub guard: Box<dyn std::any::Any + Send + Sync>,
}

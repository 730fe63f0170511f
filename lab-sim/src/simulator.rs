//! A rack is an outside that a program can be rehearsed on.

use crate::rack::{Options, Rack};
use lab_core::execute::{Simulated, Simulator};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

impl Simulator for Rack {
    fn start(&self, seed: u64) -> Pin<Box<dyn Future<Output = io::Result<Simulated>> + Send + '_>> {
        Box::pin(async move {
            let running = Arc::new(Rack::start(self, Options { seed, ..Options::default() }).await?);
            let shown = running.clone();
            Ok(Simulated {
                link: running.link(),
                summary: running.summary(),
                reach: running.reach(),
                world: Box::new(move || shown.world()),
                guard: Box::new(running),
            })
        })
    }
}

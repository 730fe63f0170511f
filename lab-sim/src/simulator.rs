//! A rack is an outside that a program can be rehearsed on: with a real control plane where `KUBEBUILDER_ASSETS` names
//! one, else with the embedded stand-in.

use crate::control_plane::Assets;
use crate::rack::{Options, Rack};
use lab_core::execute::{Simulated, Simulator};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

impl Simulator for Rack {
    fn start(&self, seed: u64) -> Pin<Box<dyn Future<Output = io::Result<Simulated>> + Send + '_>> {
        Box::pin(async move {
            // With less than a whole control plane the stand-in does more.
            let control_plane = Assets::find()?.filter(Assets::are_complete);
            let options = Options { seed, control_plane, ..Options::default() };
            let running = Arc::new(Rack::start(self, options).await?);
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

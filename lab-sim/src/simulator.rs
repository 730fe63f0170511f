//! A rack is an outside that a program can be rehearsed on: with a real control plane where `KUBEBUILDER_ASSETS` names
//! one, else with the embedded stand-in.

use crate::control_plane::Assets;
use crate::rack::{Options, Rack};
use lab_core::execute::{Simulated, Simulator};
use std::collections::BTreeMap;
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
                // The real hosts' certificates cannot be shown, so those that stand in for them are told.
                link: running.link().standing_in(self.certificates()),
                summary: running.summary(),
                reach: running.reach(),
                world: Box::new(move || shown.world()),
                guard: Box::new(running),
            })
        })
    }
}

impl Rack {
    /// Returns the SHA-256 of the certificate that each Proxmox host shows, by its address and by the names that lead there.
    fn certificates(&self) -> BTreeMap<String, [u8; 32]> {
        let mut certificates = BTreeMap::new();
        for cluster in &self.proxmox {
            for host in &cluster.hosts {
                let Some(digest) = cluster.certificate(host) else { continue };
                certificates.insert(host.address.to_string(), digest);
                let names = self.names.iter().filter(|(_, address)| **address == host.address);
                certificates.extend(names.map(|(name, _)| (name.clone(), digest)));
            }
        }
        certificates
    }
}

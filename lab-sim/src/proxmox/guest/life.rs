//! How the life of a guest goes on by itself: it boots, and cloud-init sets it up.

use super::super::datacenter::Datacenter;
use super::super::inventory::System;
use super::super::vm;
use super::Guest;
use std::sync::Arc;
use std::time::Duration;

/// How long the firmware and the kernel take.
const KERNEL: Duration = Duration::from_secs(15);

/// A guest's life, until it is ended from outside.
pub(super) async fn live(datacenter: Arc<Datacenter>, id: u32, guest: Guest) {
    datacenter.clock.sleep(KERNEL).await;
    let Some(System::Ubuntu(_)) = datacenter.system(id) else { return };
    guest.facts().up = true;
}

impl Datacenter {
    /// Returns what boots from a machine's disk.
    fn system(&self, id: u32) -> Option<System> {
        let state = self.state();
        let machine = state.vms.get(&id)?;
        let (_, volume) = vm::disks(&machine.config).find(|(key, _)| !key.starts_with("unused"))?;
        state.volume(volume, &machine.node).map(|volume| volume.data.system.clone())
    }
}

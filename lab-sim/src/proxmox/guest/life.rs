//! How the life of a guest goes on by itself: it boots, and cloud-init sets it up.

use super::super::datacenter::Datacenter;
use super::super::inventory::System as Image;
use super::super::power::has_agent;
use super::super::vm::{self, Config};
use super::system::System;
use super::{Disk, Guest, microk8s};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long the firmware and the kernel take.
const KERNEL: Duration = Duration::from_secs(15);

/// A guest's life, until it is ended from outside.
pub(super) async fn live(datacenter: Arc<Datacenter>, id: u32, guest: Guest) {
    datacenter.clock.sleep(KERNEL).await;
    let Some((Image::Ubuntu(_), config)) = datacenter.boots(id) else { return };
    let system = Arc::new(System { datacenter, id, guest });
    system.guest.facts().up = true;
    system.guest.facts().interfaces = system.disk(|disk| disk.network.clone());
    // What was enabled before starts; what cloud-init enables now, it starts itself.
    let units: Vec<String> = system.disk(|disk| disk.enabled.iter().cloned().collect());
    for unit in units {
        if unit != "qemu-guest-agent" || has_agent(&config) {
            system.begin(&unit);
        }
    }
    microk8s::booted(&system);
    match system.seed(&config) {
        Ok(Some(seed)) => system.set_up(&seed, &config).await,
        Ok(None) => {}
        Err(problem) => system.refuse(&problem),
    }
    system.guest.facts().set_up = true;
}

impl Datacenter {
    /// Returns what boots from a machine's disk, and its configuration.
    fn boots(&self, id: u32) -> Option<(Image, Config)> {
        let state = self.state();
        let machine = state.vms.get(&id)?;
        let volume = boot_volume(&machine.config)?;
        let image = state.volume(volume, &machine.node)?.data.system.clone();
        Some((image, machine.config.clone()))
    }

    /// Looks at or changes what a guest left on its disk.
    pub(super) fn with_disk<T>(&self, id: u32, act: impl FnOnce(&mut Disk) -> T) -> Option<T> {
        let mut state = self.state();
        let machine = state.vms.get(&id)?;
        let (volume, node) = (boot_volume(&machine.config)?.to_owned(), machine.node.clone());
        state.volume_mut(&volume, &node).map(|volume| act(&mut volume.data.disk))
    }

    /// Returns the media in a machine's CD-ROM drives, the last device first.
    pub(super) fn media(&self, id: u32) -> Vec<Arc<Vec<u8>>> {
        let state = self.state();
        let Some(machine) = state.vms.get(&id) else { return Vec::new() };
        let drives = machine.config.iter().rev().filter(|(key, drive)| vm::is_drive(key) && vm::is_cdrom(drive));
        drives.filter_map(|(_, drive)| state.volume(vm::volume_of(drive), &machine.node)?.data.bytes.clone()).collect()
    }

    pub(super) fn has_agent_device(&self, id: u32) -> bool {
        self.state().vms.get(&id).is_some_and(|machine| has_agent(&machine.config))
    }

    /// Returns the guest of a machine that runs.
    pub(in super::super) fn guest_of(&self, id: u32) -> Option<Guest> {
        self.state().vms.get(&id)?.running.as_ref().map(|running| running.guest.clone())
    }

    /// A guest crashes; it comes back when `again`, and stays off otherwise.
    pub(crate) fn guest_fails(self: &Arc<Self>, address: IpAddr, again: bool) {
        match self.guest_at(address) {
            Some((id, guest)) if again => guest.reset(self, id),
            Some((id, _)) => self.cut_power(id),
            None => {}
        }
    }

    /// Returns the running guest that has an address.
    pub(crate) fn guest_at(&self, address: IpAddr) -> Option<(u32, Guest)> {
        let state = self.state();
        let running = state.vms.iter().filter_map(|(id, machine)| Some((*id, machine.running.as_ref()?.guest.clone())));
        let mut found = running.filter(|(_, guest)| guest.facts().addresses().any(|own| own == address));
        found.next()
    }
}

/// Returns the disk that a machine boots from: the first one in the order, else the first there is.
fn boot_volume(config: &Config) -> Option<&str> {
    let order = config.get("boot").and_then(|boot| vm::drive_option(boot, "order")).unwrap_or_default();
    let is_disk = |key: &str| config.get(key).filter(|drive| vm::is_drive(key) && !vm::is_cdrom(drive));
    let first = order.split(';').find_map(is_disk).or_else(|| config.keys().find_map(|key| is_disk(key)));
    first.map(|drive| vm::volume_of(drive))
}

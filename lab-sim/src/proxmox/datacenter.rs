//! A Proxmox cluster that is switched on.

use super::guest;
use super::inventory::{Cluster, Host};
use super::request::Request;
use super::state::State;
use super::storage::{Definition, Volume, file_name};
use super::storages;
use super::task::{Task, Worker};
use super::vm::{self, Vm};
use crate::faults::mix;
use crate::world::World;
use lab_core::Clock;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::future::Future;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// How long a host is down when it loses power and gets it back.
const REBOOT: Duration = Duration::from_secs(180);

/// A Proxmox cluster.
pub(crate) struct Datacenter {
    pub(super) spec: Cluster,
    pub(super) clock: Clock,
    world: Weak<World>,
    state: Mutex<State>,
    /// How many hosts are down, to be read by who holds the state.
    missing: AtomicUsize,
    /// The machines whose configuration somebody holds.
    locks: Mutex<BTreeSet<u32>>,
    /// Counts the times connections were cut, with the node whose.
    cut: watch::Sender<(u64, String)>,
}

/// Holds a machine's configuration until dropped.
pub(super) struct Lock {
    datacenter: Arc<Datacenter>,
    vm: u32,
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.datacenter.locks.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.vm);
    }
}

impl Datacenter {
    pub(crate) fn new(spec: Cluster, clock: Clock, world: Weak<World>) -> Arc<Datacenter> {
        let now = clock.now();
        let mut state = State::default();
        for storage in &spec.storages {
            let definition = Definition::of(storage);
            for image in &storage.holds {
                let content = if definition.holds("import") && !image.url.ends_with(".iso") { "import" } else { "iso" };
                let id = format!("{}:{content}/{}", storage.id, file_name(&image.url));
                let nodes: Vec<String> = if definition.shared {
                    vec![String::new()]
                } else {
                    spec.hosts.iter().map(|host| host.name.clone()).filter(|host| definition.on(host)).collect()
                };
                for node in nodes {
                    state.volumes.insert((id.clone(), node), Volume::image(content, image, now));
                }
            }
            state.storages.insert(storage.id.clone(), definition);
        }
        state.down = spec.hosts.iter().filter(|host| !host.on).map(|host| host.name.clone()).collect();
        for guest in &spec.guests {
            let mut machine = Vm::new(&guest.node, guest.config.clone(), UNIX_EPOCH);
            machine
                .config
                .entry("smbios1".to_owned())
                .or_insert_with(|| format!("uuid={}", uuid(mix(guest.id.into()))));
            for (index, (_, volume)) in vm::disks(&machine.config).enumerate() {
                let size = machine.config.values().find(|drive| vm::volume_of(drive) == volume);
                let size =
                    size.and_then(|drive| vm::drive_option(drive, "size")).and_then(vm::size).unwrap_or(32 << 30);
                let system = if index == 0 { guest.system.clone() } else { super::inventory::System::Nothing };
                let place = state.place(volume, &guest.node);
                state.volumes.insert(place, Volume::disk(size, guest.id, system, now));
            }
            state.vms.insert(guest.id, machine);
        }
        Arc::new(Datacenter {
            missing: AtomicUsize::new(state.down.len()),
            spec,
            clock,
            world,
            state: Mutex::new(state),
            locks: Mutex::default(),
            cut: watch::channel((0, String::new())).0,
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the world, unless it ended.
    pub(super) fn world(&self) -> Option<Arc<World>> {
        self.world.upgrade()
    }

    pub(super) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// Runs something beside; it ends with the world.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(world) = self.world() {
            world.spawn(task);
        }
    }

    /// Returns a number that was not returned before; it follows from the seed.
    pub(super) fn draw(&self) -> u64 {
        self.world().map_or(0, |world| mix(world.seed ^ mix(world.next_number())))
    }

    /// Returns a number counted up from 1.
    pub(super) fn count(&self) -> u64 {
        self.world().map_or(0, |world| world.next_number())
    }

    pub(super) fn host(&self, name: &str) -> Option<&Host> {
        self.spec.hosts.iter().find(|host| host.name == name)
    }

    /// Returns the host that has an address.
    pub(crate) fn host_at(&self, address: IpAddr) -> Option<&Host> {
        self.spec.hosts.iter().find(|host| host.address == address)
    }

    pub(crate) fn is_up(&self, host: &str) -> bool {
        !self.state().down.contains(host)
    }

    /// Whether a majority of the nodes is there.
    pub(super) fn quorate(&self) -> bool {
        let down = self.missing.load(Ordering::Relaxed);
        (self.spec.hosts.len() - down) * 2 > self.spec.hosts.len()
    }

    /// Refuses a write to the configuration that the nodes share when no majority is there to agree.
    pub(super) fn writable(&self) -> Result<(), String> {
        if self.quorate() { Ok(()) } else { Err("cluster not ready - no quorum?".to_owned()) }
    }

    /// Takes a machine's configuration, or says what Proxmox says when somebody else keeps it too long.
    pub(super) async fn lock(self: &Arc<Self>, vm: u32, patience: Duration) -> Result<Lock, String> {
        let until = self.now() + patience;
        loop {
            if self.locks.lock().unwrap_or_else(PoisonError::into_inner).insert(vm) {
                return Ok(Lock { datacenter: self.clone(), vm });
            }
            if self.now() >= until {
                return Err(format!("can't lock file '/var/lock/qemu-server/lock-{vm}.conf' - got timeout"));
            }
            self.clock.sleep(Duration::from_millis(500)).await;
        }
    }

    /// Returns what changes when the connections of a node are cut.
    pub(super) fn cuts(&self) -> watch::Receiver<(u64, String)> {
        self.cut.subscribe()
    }

    /// A host loses power and, if `again`, gets it back.
    pub(crate) fn power_loss(self: &Arc<Self>, host: &str, again: bool) {
        let now = self.now();
        {
            let mut state = self.state();
            state.down.insert(host.to_owned());
            self.missing.store(state.down.len(), Ordering::Relaxed);
            for task in state.tasks.values_mut().filter(|task| task.node == host && task.end.is_none()) {
                task.kill(now);
            }
            for machine in state.vms.values_mut().filter(|machine| machine.node == host) {
                if let Some(running) = &machine.running {
                    running.guest.end();
                }
                machine.set_running(None, now);
            }
        }
        self.cut.send_modify(|(count, node)| {
            *count += 1;
            host.clone_into(node);
        });
        self.watch_over(host);
        if again {
            let (this, host) = (self.clone(), host.to_owned());
            self.spawn(async move {
                this.clock.sleep(REBOOT).await;
                // It is back with a task at work that starts its guests, and never without: who waits until nothing is at
                // work does not meet them half way.
                let back = host.clone();
                let work = move |worker: Worker| async move {
                    worker.datacenter.comes_back(&back).await;
                    Ok(())
                };
                if Task::begin(&this, &host, "startall", "", "root@pam", work).is_err() {
                    this.comes_back(&host).await;
                }
            });
        }
    }

    /// Does what `qm unlock` does.
    pub(crate) fn unlock(&self, vm: u32) {
        if let Some(machine) = self.state().vms.get_mut(&vm) {
            machine.lock = None;
        }
    }

    /// Returns the volumes that were deleted so far.
    pub(crate) fn deleted(&self) -> Vec<String> {
        self.state().deleted.clone()
    }

    /// Ends everything that guests do: the world is dropped.
    pub(crate) fn stop(&self) {
        for machine in self.state().vms.values() {
            if let Some(running) = &machine.running {
                running.guest.end();
            }
        }
    }

    /// Begins what was on when the rack was switched on.
    pub(crate) async fn switch_on(self: &Arc<Self>) {
        for guest in self.spec.guests.iter().filter(|guest| guest.on && self.is_up(&guest.node)) {
            if let Err(text) = self.boot(guest.id) {
                // Told to be on, and cannot be: as after a host's start, it stays off.
                debug_assert!(!text.is_empty());
            }
        }
    }

    async fn comes_back(self: &Arc<Self>, host: &str) {
        {
            let mut state = self.state();
            state.down.remove(host);
            self.missing.store(state.down.len(), Ordering::Relaxed);
        }
        self.start_at_boot(host).await;
    }

    async fn start_at_boot(self: &Arc<Self>, host: &str) {
        let waiting: Vec<u32> = {
            let state = self.state();
            let wanted = |(id, machine): (&u32, &Vm)| {
                let onboot = machine.config.get("onboot").is_some_and(|value| value == "1");
                let here = machine.node == host && machine.lock.is_none() && machine.running.is_none();
                (here && (onboot || state.ha.get(id).is_some_and(|ha| ha.wants_started()))).then_some(*id)
            };
            state.vms.iter().filter_map(wanted).collect()
        };
        for id in waiting {
            // A machine that cannot start stays off, as on a real host.
            let _ = self.boot(id);
        }
    }

    /// Begins a task and returns its identifier; `work` does it.
    pub(super) fn begin<F, W>(
        self: &Arc<Self>,
        request: &Request,
        kind: &'static str,
        id: &str,
        work: W,
    ) -> Result<Value, String>
    where
        W: FnOnce(Worker) -> F,
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        Task::begin(self, request.node(), kind, id, &request.token.id, work).map(Value::from)
    }

    /// Returns the cluster as it is now, for comparisons: without what differs from run to run.
    pub(crate) fn snapshot(&self) -> Value {
        let state = self.state();
        let mut machines = Map::new();
        for (id, machine) in &state.vms {
            let mut config = machine.wanted();
            for volatile in ["smbios1", "vmgenid", "meta"] {
                config.remove(volatile);
            }
            machines.insert(
                id.to_string(),
                json!({
                    "node": machine.node,
                    "status": machine.status(),
                    "lock": machine.lock,
                    "config": config,
                    "pending": machine.pending.keys().collect::<Vec<_>>(),
                    "snapshots": machine.snapshots.keys().collect::<Vec<_>>(),
                    "pool": state.pool_of(*id),
                    "guest": machine.running.as_ref().map(|running| running.guest.world()),
                }),
            );
        }
        let volumes: Vec<Value> = state
            .volumes
            .iter()
            .map(|((id, node), volume)| json!({"volume": id, "node": node, "size": volume.size}))
            .collect();
        let mut world = json!({
            "name": self.spec.name,
            "down": state.down,
            "machines": machines,
            "volumes": volumes,
            "pools": state.pools.iter().map(|(id, pool)| (id, &pool.comment)).collect::<Vec<_>>(),
            "ha": state.ha.iter().map(|(id, ha)| (id, &ha.config)).collect::<Vec<_>>(),
            "rules": state.rules,
            "backups": state.backups,
            "groups": state.groups,
            "storages": state.storages.iter().map(|(id, storage)| {
                let password = storage.password.as_ref().map(|password| mix_text(password));
                json!({"definition": storages::definition(id, storage), "password": password})
            }).collect::<Vec<_>>(),
        });
        let clusters = guest::clusters(state.volumes.values().map(|volume| &volume.data.disk));
        drop(state);
        world["clusters"] = clusters.iter().map(|cluster| cluster.world()).collect();
        world
    }
}

/// Returns a number that stands for a secret in comparisons.
fn mix_text(text: &str) -> u64 {
    text.bytes().fold(0, |sum, byte| mix(sum ^ u64::from(byte)))
}

/// Returns a UUID of version 4 made of a number.
pub(super) fn uuid(number: u64) -> String {
    let more = mix(number);
    format!(
        "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
        number >> 32,
        number >> 16 & 0xffff,
        number & 0xfff,
        more >> 48 & 0xfff,
        more & 0xffff_ffff_ffff
    )
}

/// Returns a time as seconds since 1970.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

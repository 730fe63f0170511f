//! Switching machines on and off.

use super::config::apply;
use super::datacenter::Datacenter;
use super::guest::Guest;
use super::refusal::{Answer, Refusal};
use super::request::Request;
use super::schema::{self, Args};
use super::task::Worker;
use super::vm::{self, Running};
use std::sync::Arc;
use std::time::Duration;

/// How long a system takes to shut down.
const DOWN: Duration = Duration::from_secs(8);
/// How long a shutdown is waited for, unless told otherwise.
const SHUTDOWN: u64 = 60;
/// How long a look at the guest takes.
const LOOK: Duration = Duration::from_millis(500);

impl Datacenter {
    /// Starts a machine: what is pending comes into force, and its guest begins to live.
    pub(super) fn boot(self: &Arc<Self>, id: u32) -> Result<(), String> {
        self.writable()?;
        let now = self.now();
        let mut state = self.state();
        let machine = state.vms.get(&id).ok_or_else(|| format!("no such VM ('{id}')"))?;
        let node = machine.node.clone();
        if state.down.contains(&node) {
            return Err(format!("node '{node}' is not online"));
        }
        if machine.is_template() {
            return Err("you can't start a vm if it's a template".to_owned());
        }
        machine.unlocked()?;
        if machine.running.is_some() {
            return Err(format!("VM {id} already running"));
        }
        apply(&mut state, id, &node)?;
        let machine = state.vm(id, &node)?;
        for (key, drive) in machine.config.iter().filter(|(key, _)| vm::is_drive(key)) {
            let volume = vm::volume_of(drive);
            if volume != "none" && volume != "cdrom" {
                let storage = volume.split(':').next().unwrap_or_default();
                state.storage(storage, &node)?;
                if state.volume(volume, &node).is_none() {
                    return Err(format!("{key}: volume '{volume}' does not exist"));
                }
            }
        }
        let bridges = self.host(&node).map(|host| host.bridges.clone()).unwrap_or_default();
        for (_, net) in machine.config.iter().filter(|(key, _)| is_net(key)) {
            if let Some(bridge) =
                vm::drive_option(net, "bridge").filter(|bridge| !bridges.iter().any(|known| known == bridge))
            {
                return Err(format!("bridge '{bridge}' does not exist"));
            }
        }
        let guest = Guest::boot(self, id);
        let pid = 2000 + self.count();
        state.vm_mut(id, &node)?.set_running(Some(Running { since: now, pid, guest }), now);
        Ok(())
    }

    /// Switches a machine off at once.
    pub(super) fn cut_power(&self, id: u32) {
        let now = self.now();
        let mut state = self.state();
        let Some(machine) = state.vms.get_mut(&id) else { return };
        if let Some(running) = &machine.running {
            running.guest.end();
        }
        machine.set_running(None, now);
        let node = machine.node.clone();
        // Whatever waited for the stop comes into force; a volume that others are based on stays.
        let _ = apply(&mut state, id, &node);
    }

    /// Presses the power button and waits until the machine is off.
    async fn press(&self, id: u32, timeout: Duration) -> Result<(), String> {
        let until = self.now() + timeout;
        let Some(guest) = self.guest_of(id) else { return Ok(()) };
        while self.now() < until {
            if guest.facts().up {
                self.clock.sleep(DOWN).await;
                self.cut_power(id);
                return Ok(());
            }
            self.clock.sleep(LOOK).await;
        }
        Err("VM quit/powerdown failed - got timeout".to_owned())
    }
}

pub(super) fn is_net(key: &str) -> bool {
    key.strip_prefix("net").is_some_and(|index| index.parse::<u32>().is_ok())
}

fn begin(request: &Request, args: &Args, must_run: bool) -> Result<u32, Refusal> {
    if args.flag("skiplock") {
        return Err(Refusal::parameter("skiplock", "Only root may use this option."));
    }
    let id = args.vm();
    let state = request.datacenter.state();
    let machine = state.vm(id, request.node())?;
    if must_run && machine.running.is_none() {
        return Err(Refusal::died(format!("VM {id} not running")));
    }
    Ok(id)
}

pub(super) async fn start(request: &Request, args: &Args) -> Answer {
    let id = begin(request, args, false)?;
    let datacenter = &request.datacenter;
    if datacenter.is_managed(id) {
        let work = move |worker: Worker| async move { worker.datacenter.request_state(id, "started") };
        return Ok(datacenter.begin(request, "hastart", &id.to_string(), work)?);
    }
    let work = move |worker: Worker| async move {
        let datacenter = worker.datacenter.clone();
        let _lock = worker.take(id).await?;
        worker.takes(Duration::from_secs(3)).await?;
        datacenter.boot(id)
    };
    Ok(datacenter.begin(request, "qmstart", &id.to_string(), work)?)
}

pub(super) async fn stop(request: &Request, args: &Args) -> Answer {
    let id = begin(request, args, false)?;
    let datacenter = &request.datacenter;
    if datacenter.is_managed(id) {
        let work = move |worker: Worker| async move { worker.datacenter.request_state(id, "stopped") };
        return Ok(datacenter.begin(request, "hastop", &id.to_string(), work)?);
    }
    let work = move |worker: Worker| async move {
        let datacenter = worker.datacenter.clone();
        let _lock = worker.take_unlocked(id).await?;
        worker.takes(Duration::from_secs(2)).await?;
        datacenter.cut_power(id);
        Ok(())
    };
    Ok(datacenter.begin(request, "qmstop", &id.to_string(), work)?)
}

pub(super) async fn shutdown(request: &Request, args: &Args) -> Answer {
    let id = begin(request, args, false)?;
    let (timeout, force) = (args.number("timeout"), args.flag("forceStop"));
    let datacenter = &request.datacenter;
    if datacenter.is_managed(id) {
        let work = move |worker: Worker| async move { worker.datacenter.request_state(id, "stopped") };
        return Ok(datacenter.begin(request, "hastop", &id.to_string(), work)?);
    }
    let work = move |worker: Worker| async move {
        let datacenter = worker.datacenter.clone();
        let _lock = worker.take_unlocked(id).await?;
        worker.takes(Duration::from_secs(1)).await?;
        let timeout = Duration::from_secs(timeout.unwrap_or_else(|| patience(&datacenter, id)));
        match datacenter.press(id, timeout).await {
            Err(_) if force => {
                worker.log("VM still running - terminating now with SIGTERM");
                datacenter.cut_power(id);
                Ok(())
            }
            other => other,
        }
    };
    Ok(datacenter.begin(request, "qmshutdown", &id.to_string(), work)?)
}

pub(super) async fn reboot(request: &Request, args: &Args) -> Answer {
    let id = begin(request, args, true)?;
    let timeout = args.number("timeout");
    let work = move |worker: Worker| async move {
        let datacenter = worker.datacenter.clone();
        let _lock = worker.take_unlocked(id).await?;
        worker.takes(Duration::from_secs(1)).await?;
        let timeout = Duration::from_secs(timeout.unwrap_or_else(|| patience(&datacenter, id)));
        datacenter.press(id, timeout).await?;
        datacenter.boot(id)
    };
    Ok(request.datacenter.begin(request, "qmreboot", &id.to_string(), work)?)
}

pub(super) async fn reset(request: &Request, args: &Args) -> Answer {
    let id = begin(request, args, true)?;
    let work = move |worker: Worker| async move {
        let datacenter = worker.datacenter.clone();
        let _lock = worker.take_unlocked(id).await?;
        worker.takes(Duration::from_secs(1)).await?;
        let guest = datacenter.guest_of(id).ok_or_else(|| format!("VM {id} not running"))?;
        guest.reset(&datacenter, id);
        Ok(())
    };
    Ok(request.datacenter.begin(request, "qmreset", &id.to_string(), work)?)
}

/// Returns how many seconds a machine is given to shut down.
fn patience(datacenter: &Datacenter, id: u32) -> u64 {
    let state = datacenter.state();
    let startup = state.vms.get(&id).and_then(|machine| machine.config.get("startup"));
    let down = startup.and_then(|startup| vm::drive_option(startup, "down")?.parse().ok());
    down.unwrap_or(SHUTDOWN)
}

/// Whether a configuration has the guest agent.
pub(super) fn has_agent(config: &vm::Config) -> bool {
    let agent = config.get("agent").and_then(|agent| schema::properties("agent", agent).ok());
    agent.is_some_and(|agent| agent.get("enabled").is_some_and(|enabled| enabled == "1"))
}

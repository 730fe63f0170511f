//! Tasks: what takes longer than a request, with its log and its end.

use super::config::PATIENCE;
use super::datacenter::{Datacenter, Lock, seconds};
use super::refusal::{Answer, Refusal};
use super::request::Request;
use super::schema::Args;
use super::state::State;
use super::vm::Vm;
use crate::faults::Fault;
use serde_json::{Value, json};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::task::AbortHandle;

/// How a task ends that was killed.
const KILLED: &str = "unexpected status";
/// What a task says that a fault made fail.
const FAILED: &str = "command 'qemu-img convert' failed: got signal 9";

/// A task.
pub(super) struct Task {
    pub(super) node: String,
    kind: &'static str,
    id: String,
    user: String,
    pid: u64,
    pstart: u64,
    start: SystemTime,
    /// When and how it ended.
    pub(super) end: Option<(SystemTime, String)>,
    log: Vec<String>,
    abort: Option<AbortHandle>,
}

/// What does a task's work, seen from inside.
pub(super) struct Worker {
    pub(super) datacenter: Arc<Datacenter>,
    upid: String,
    fault: Option<Fault>,
    host: String,
}

impl Task {
    /// Begins a task on a node.
    pub(super) fn begin<F, W>(
        datacenter: &Arc<Datacenter>,
        node: &str,
        kind: &'static str,
        id: &str,
        user: &str,
        work: W,
    ) -> Result<String, String>
    where
        W: FnOnce(Worker) -> F,
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let world = datacenter.world().ok_or("got no worker upid - start worker failed")?;
        let address =
            datacenter.host(node).map(|host| host.address).ok_or("got no worker upid - start worker failed")?;
        let fault = world.injector.consult(address, &format!("task {kind} {id}"));
        if fault == Some(Fault::Refused) {
            return Err("got no worker upid - start worker failed".to_owned());
        }
        let start = datacenter.now();
        let pid = 1000 + world.next_number();
        let pstart = seconds(start) % 0x0fff_ffff;
        let upid = format!("UPID:{node}:{pid:08X}:{pstart:08X}:{:08X}:{kind}:{id}:{user}:", seconds(start));
        let task = Task {
            node: node.to_owned(),
            kind,
            id: id.to_owned(),
            user: user.to_owned(),
            pid,
            pstart,
            start,
            end: None,
            log: Vec::new(),
            abort: None,
        };
        datacenter.state().tasks.insert(upid.clone(), task);
        let worker = Worker { datacenter: datacenter.clone(), upid: upid.clone(), fault, host: node.to_owned() };
        if fault == Some(Fault::TaskWarns) {
            worker.warn("volume may be slow: simulated warning");
        }
        let (this, name) = (datacenter.clone(), upid.clone());
        let work = work(worker);
        let running = tokio::spawn(async move {
            let result = work.await;
            this.finish(&name, result);
        });
        let abort = running.abort_handle();
        // The world's set ends it when the world ends.
        datacenter.spawn(async move { drop(running.await) });
        if let Some(task) = datacenter.state().tasks.get_mut(&upid) {
            task.abort = Some(abort);
        }
        Ok(upid)
    }

    /// Ends it as when its process is killed.
    pub(super) fn kill(&mut self, now: SystemTime) {
        if let Some(abort) = &self.abort {
            abort.abort();
        }
        self.end = Some((now, KILLED.to_owned()));
    }

    fn warnings(&self) -> usize {
        self.log.iter().filter(|line| line.starts_with("WARN: ")).count()
    }

    fn describe(&self, upid: &str) -> Value {
        let (user, token) = self.user.split_once('!').unwrap_or((&self.user, ""));
        let mut described = json!({
            "upid": upid, "node": self.node, "pid": self.pid, "pstart": self.pstart, "starttime": seconds(self.start),
            "type": self.kind, "id": self.id, "user": user,
        });
        if !token.is_empty() {
            described["tokenid"] = json!(token);
        }
        described
    }
}

impl Worker {
    /// Works for so long; a fault strikes in the middle of it. The error is how the task ends.
    pub(super) async fn takes(&self, time: Duration) -> Result<(), String> {
        let half = time / 2;
        self.datacenter.clock.sleep(half).await;
        match self.fault {
            Some(Fault::TaskFails) => return Err(FAILED.to_owned()),
            Some(Fault::TaskDies | Fault::Dropped) => return Err(KILLED.to_owned()),
            Some(Fault::Dead | Fault::Reboot) => {
                self.datacenter.power_loss(&self.host, self.fault == Some(Fault::Reboot));
                return Err(KILLED.to_owned());
            }
            Some(Fault::Latency(delay)) => self.datacenter.clock.sleep(delay).await,
            // A task has no reply of its own, and the rest is not about the middle of it.
            None | Some(Fault::Refused | Fault::ReplyLost | Fault::TaskWarns | Fault::GivenUp) => {}
        }
        self.datacenter.clock.sleep(half).await;
        Ok(())
    }

    /// Takes a machine's configuration for as long as the answer is kept, or says what Proxmox says when somebody else
    /// keeps it too long.
    pub(super) async fn take(&self, vm: u32) -> Result<Lock, String> {
        self.datacenter.lock(vm, self.datacenter.clock.patience(PATIENCE)).await
    }

    /// Takes a machine that nothing locks.
    pub(super) async fn take_unlocked(&self, vm: u32) -> Result<Lock, String> {
        let lock = self.take(vm).await?;
        let state = self.datacenter.state();
        state.vms.get(&vm).map_or_else(|| Err(format!("no such VM ('{vm}')")), Vm::unlocked)?;
        drop(state);
        Ok(lock)
    }

    /// Works on a machine for so long, which says meanwhile that it is locked, and then has `effect`. A task that is
    /// killed leaves the lock behind.
    pub(super) async fn locking<T>(
        &self,
        (vm, node): (u32, &str),
        lock: &'static str,
        time: Duration,
        effect: impl FnOnce(&mut State) -> Result<T, String>,
    ) -> Result<T, String> {
        self.datacenter.state().vm_mut(vm, node)?.lock = Some(lock);
        let worked = self.takes(time).await;
        if let Err(end) = &worked
            && Worker::killed(end)
        {
            return Err(end.clone());
        }
        let mut state = self.datacenter.state();
        state.vm_mut(vm, node)?.lock = None;
        worked?;
        effect(&mut state)
    }

    /// Whether this is the end of a killed task, which cleans nothing up.
    pub(super) fn killed(error: &str) -> bool {
        error == KILLED
    }

    pub(super) fn log(&self, line: impl Into<String>) {
        if let Some(task) = self.datacenter.state().tasks.get_mut(&self.upid) {
            task.log.push(line.into());
        }
    }

    /// Says a warning; the task then ends in WARNINGS.
    pub(super) fn warn(&self, line: &str) {
        self.log(format!("WARN: {line}"));
    }
}

impl Datacenter {
    fn finish(&self, upid: &str, result: Result<(), String>) {
        let now = self.now();
        let mut state = self.state();
        let Some(task) = state.tasks.get_mut(upid).filter(|task| task.end.is_none()) else { return };
        let end = match result {
            Ok(()) if task.warnings() > 0 => {
                let end = format!("WARNINGS: {}", task.warnings());
                task.log.push(format!("TASK {end}"));
                end
            }
            Ok(()) => {
                task.log.push("TASK OK".to_owned());
                "OK".to_owned()
            }
            Err(error) if Worker::killed(&error) => error,
            Err(error) => {
                task.log.push(format!("TASK ERROR: {error}"));
                error
            }
        };
        task.end = Some((now, end));
    }
}

/// GET /nodes/{node}/tasks/{upid}/status
pub(super) fn status(request: &Request, args: &Args) -> Answer {
    with(request, args, |upid, task| {
        let mut described = task.describe(upid);
        match &task.end {
            Some((_, end)) => {
                described["status"] = json!("stopped");
                described["exitstatus"] = json!(end);
            }
            None => described["status"] = json!("running"),
        }
        described
    })
}

/// GET /nodes/{node}/tasks/{upid}/log
pub(super) fn log(request: &Request, args: &Args) -> Answer {
    let start = args.number("start").unwrap_or(0) as usize;
    let limit = args.number("limit").unwrap_or(50) as usize;
    let limit = if limit == 0 { usize::MAX } else { limit };
    with(request, args, |_, task| {
        if task.log.is_empty() {
            return json!([{"n": 1, "t": "no content"}]);
        }
        let lines = task.log.iter().enumerate().skip(start).take(limit);
        lines.map(|(index, line)| json!({"n": index + 1, "t": line})).collect()
    })
}

/// DELETE /nodes/{node}/tasks/{upid}
pub(super) fn stop(request: &Request, args: &Args) -> Answer {
    let now = request.datacenter.now();
    with(request, args, |_, task| {
        if task.end.is_none() {
            task.log.push("received interrupt".to_owned());
            task.kill(now);
            task.end = Some((now, "received interrupt".to_owned()));
        }
        Value::Null
    })
}

fn with(request: &Request, args: &Args, act: impl FnOnce(&str, &mut Task) -> Value) -> Answer {
    let upid = args.required("upid");
    if !upid.starts_with("UPID:") || upid.split(':').count() != 9 {
        return Err(Refusal::parameter("upid", "unable to parse worker upid"));
    }
    let mut state = request.datacenter.state();
    let task = state.tasks.get_mut(upid).filter(|task| task.node == request.node());
    let task = task.ok_or_else(|| Refusal::parameter("upid", "no such task"))?;
    let owner = task.user.split('!').next() == request.token.id.split('!').next();
    if !owner {
        request.token.demand(&format!("/nodes/{}", request.node()), &["Sys.Audit"], None)?;
    }
    Ok(act(upid, task))
}

/// GET /nodes/{node}/tasks and GET /cluster/tasks
pub(super) fn list(request: &Request, args: &Args, node: Option<&str>) -> Answer {
    let state = request.datacenter.state();
    let source = args.text("source").unwrap_or("archive");
    let limit = args.number("limit").unwrap_or(50) as usize;
    let kinds = args.list("statusfilter");
    let mut rows: Vec<(&String, &Task)> = state
        .tasks
        .iter()
        .filter(|(_, task)| node.is_none_or(|node| task.node == node))
        .filter(|(_, task)| match source {
            "active" => task.end.is_none(),
            "archive" if node.is_some() => task.end.is_some(),
            _ => true,
        })
        .filter(|(_, task)| args.text("typefilter").is_none_or(|kind| kind == task.kind))
        .filter(|(_, task)| args.text("vmid").is_none_or(|vm| task.id.split('@').next() == Some(vm)))
        .filter(|(_, task)| args.number("since").is_none_or(|since| seconds(task.start) >= since))
        .filter(|(_, task)| args.number("until").is_none_or(|until| seconds(task.start) <= until))
        .filter(|(_, task)| !args.flag("errors") || task.end.as_ref().is_some_and(|(_, end)| end != "OK"))
        .filter(|(_, task)| {
            let kind = match task.end.as_ref().map(|(_, end)| end.as_str()) {
                Some("OK") => "ok",
                Some(KILLED) | None => "unknown",
                Some(end) if end.starts_with("WARNINGS") => "warning",
                Some(_) => "error",
            };
            kinds.is_empty() || kinds.iter().any(|wanted| wanted.eq_ignore_ascii_case(kind))
        })
        .collect();
    rows.sort_by_key(|(upid, task)| (std::cmp::Reverse(task.start), (*upid).clone()));
    let rows = rows.into_iter().skip(args.number("start").unwrap_or(0) as usize).take(limit).map(|(upid, task)| {
        let mut row = task.describe(upid);
        if let Some((time, end)) = &task.end {
            row["endtime"] = json!(seconds(*time));
            row["status"] = json!(end);
        }
        row
    });
    Ok(rows.collect())
}

//! The connection to one cluster: requests go out, answers and classified errors come back.
//!
//! It neither retries, nor polls, nor sleeps: the engine owns pauses and deadlines. What is understood here is what
//! every resource needs: where a machine is, how far a task is, what the guest agent says.

mod error;
mod task;
mod tls;
mod wire;

pub use error::{Error, Problem};
pub use task::{Task, Upid};

use crate::provider::Proxmox;
use crate::request::{self, Request};
use crate::scalar::{field, list, number, text, truth};
use lab_core::{Effect, Link};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use wire::Wire;

/// How long a task may be unknown after it was begun: its log appears a moment later.
const APPEARS: Duration = Duration::from_secs(20);

/// A connection to a cluster.
pub struct Client {
    wire: Wire,
    link: Link,
    /// The tasks of this run. What one of them ended with is news; an earlier run's was told then.
    watched: Mutex<BTreeSet<String>>,
}

/// Where a machine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The node.
    pub node: String,
    /// Whether it is a virtual machine, and not a container.
    pub vm: bool,
    /// Its name.
    pub name: String,
    /// The pool that it is a member of.
    pub pool: Option<String>,
    /// Whether it is a template.
    pub template: bool,
}

/// How a program in a guest went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// What it ended with; a signal counts as failure.
    pub code: u64,
    /// What it wrote.
    pub output: String,
    /// What it wrote to its error stream.
    pub error: String,
}

impl Client {
    /// Returns a client for a cluster. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// A configuration that cannot be used: no endpoint, a token of another form, an authority that cannot be read.
    pub fn new(config: &Proxmox, link: Link) -> Result<Client, String> {
        Ok(Client { wire: Wire::new(config, &link)?, link, watched: Mutex::default() })
    }

    /// Sends a request and returns the data of the answer.
    ///
    /// # Errors
    ///
    /// Whatever a call can fail with; here and below see [`Problem`].
    pub async fn send(&self, request: &Request) -> Result<Value, Error> {
        self.wire.send(request).await
    }

    /// Sends a request that begins a task, and returns that. Some are done at once and have none.
    ///
    /// # Errors
    ///
    /// Whatever a call can fail with.
    pub async fn begin(&self, request: &Request) -> Result<Option<Upid>, Error> {
        let answer = self.send(request).await?;
        let Some(upid) = text(&answer).filter(|text| text.starts_with("UPID:")) else { return Ok(None) };
        self.watch(&upid);
        let upid = upid.parse::<Upid>().map_err(|said| answered(request, Effect::Perhaps, &said))?;
        Ok(Some(upid))
    }

    fn watch(&self, upid: &str) {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).insert(upid.to_owned());
    }

    /// Returns whether a task was begun, or seen to run, through this connection.
    pub(crate) fn watches(&self, upid: &Upid) -> bool {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).contains(&upid.to_string())
    }

    /// Returns how far a task is.
    ///
    /// # Errors
    ///
    /// Whatever a call can fail with. A node that does not answer is one; one that the cluster says is offline took
    /// its tasks with it.
    pub async fn task(&self, upid: &Upid) -> Result<Task, Error> {
        let status = match self.send(&request::task::status(upid.node(), &upid.to_string())).await {
            Ok(status) => status,
            Err(error) if error.problem == Problem::NoTask => {
                let age = self.link.clock.now().duration_since(upid.started()).unwrap_or_default();
                return Ok(if age < APPEARS { Task::Runs } else { Task::Lost });
            }
            Err(error) if error.problem == Problem::NodeUnreachable => {
                return if self.online(upid.node()).await? == Some(false) { Ok(Task::Lost) } else { Err(error) };
            }
            Err(error) => return Err(error),
        };
        if field(&status, "status") == "running" {
            self.watch(&upid.to_string());
            return Ok(Task::Runs);
        }
        match field(&status, "exitstatus") {
            ended if ended == "OK" => Ok(Task::Ended),
            ended if ended.starts_with("WARNINGS") => {
                Ok(Task::Warned(format!("{ended}{}", self.tail(upid).await.unwrap_or_default())))
            }
            ended => {
                let ended = if ended.is_empty() { "unexpected status".to_owned() } else { ended };
                // The last words of a log often repeat the status.
                let tail = self.tail(upid).await.unwrap_or_default();
                Ok(Task::Failed(format!("{ended}{tail}")))
            }
        }
    }

    /// Returns the last lines of a task's log, for people.
    async fn tail(&self, upid: &Upid) -> Result<String, Error> {
        let log = self.send(&request::task::log(upid.node(), &upid.to_string(), 0).with("limit", 500)).await?;
        let lines: Vec<String> = list(&log).iter().map(|line| field(line, "t")).collect();
        let said: Vec<&str> = lines.iter().map(|line| line.trim()).filter(|line| !line.is_empty()).collect();
        let said: Vec<&str> = said.into_iter().filter(|line| *line != "no content" && *line != "TASK OK").collect();
        let last = said[said.len().saturating_sub(3)..].join(" / ");
        Ok(if last.is_empty() { last } else { format!(" [log: {last}]") })
    }

    /// Returns whether a node is online, as the others see it; nothing when the cluster has no such node.
    ///
    /// # Errors
    ///
    /// Whatever a call can fail with.
    pub async fn online(&self, node: &str) -> Result<Option<bool>, Error> {
        let nodes = self.send(&request::nodes()).await?;
        let row = list(&nodes).iter().find(|row| field(row, "node") == node);
        Ok(row.map(|row| field(row, "status") == "online"))
    }

    /// Returns where a machine is, wherever in the cluster. `None` is a proven absence.
    ///
    /// # Errors
    ///
    /// Whatever a call can fail with. A machine that exists and may not be seen is one: it is not absent.
    pub async fn locate(&self, vmid: u32) -> Result<Option<Place>, Error> {
        let request = request::vm::list();
        let all = self.send(&request).await?;
        let row = list(&all).iter().find(|row| row.get("vmid").and_then(number) == Some(u64::from(vmid)));
        if let Some(row) = row {
            return Ok(Some(Place {
                node: field(row, "node"),
                vm: field(row, "type") != "lxc",
                name: field(row, "name"),
                pool: Some(field(row, "pool")).filter(|pool| !pool.is_empty()),
                template: truth(row, "template"),
            }));
        }
        // The list leaves out what the token may not see. Whether the number is taken is said to everybody.
        match self.send(&request::vm::free(vmid)).await {
            Ok(_) => Ok(None),
            Err(error) if error.problem == Problem::Exists => Err(Error {
                problem: Problem::Forbidden,
                effect: Effect::None,
                text: format!(
                    "there is a machine with the number {vmid} that the token may not see; it needs VM.Audit on \
                     /vms/{vmid}, or the machine needs another number"
                ),
            }),
            Err(error) => Err(error),
        }
    }

    /// Returns whether the guest agent of a machine answers.
    ///
    /// # Errors
    ///
    /// Whatever a call can fail with, but not that the agent is silent or the machine does not run.
    pub async fn agent_answers(&self, vmid: u32) -> Result<bool, Error> {
        let node = self.node_of(vmid).await?;
        match self.send(&request::vm::agent_ping(&node, vmid)).await {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.problem, Problem::AgentSilent | Problem::NotRunning | Problem::Timeout) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads a file in a guest through its agent, at most 16 MiB. `None`: there is no such file.
    ///
    /// # Errors
    ///
    /// Whatever a call can fail with; [`Problem::AgentSilent`] while the guest boots. The text of an error never holds
    /// the contents.
    pub async fn read_file(&self, vmid: u32, file: &str) -> Result<Option<String>, Error> {
        let node = self.node_of(vmid).await?;
        let request = request::vm::agent_read(&node, vmid, file);
        match self.send(&request).await {
            Ok(answer) => match answer.get("content").and_then(Value::as_str) {
                Some(content) => Ok(Some(content.to_owned())),
                None => Err(answered(&request, Effect::None, "the answer has no content")),
            },
            Err(Error { problem: Problem::Agent(said), .. }) if said.contains("No such file") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Begins a program in a guest through its agent and returns its process id.
    ///
    /// # Errors
    ///
    /// Whatever a call can fail with; [`Problem::AgentSilent`] while the guest boots.
    pub async fn run(&self, vmid: u32, command: &[&str]) -> Result<u64, Error> {
        let node = self.node_of(vmid).await?;
        let request = request::vm::agent_run(&node, vmid, command);
        let answer = self.send(&request).await?;
        let pid = answer.get("pid").and_then(number);
        pid.ok_or_else(|| answered(&request, Effect::Perhaps, "the answer has no process id"))
    }

    /// Returns how a program in a guest went; nothing while it runs.
    ///
    /// # Errors
    ///
    /// Whatever a call can fail with. A process that the guest no longer knows, since it has booted, is one.
    pub async fn ran(&self, vmid: u32, pid: u64) -> Result<Option<Ran>, Error> {
        let node = self.node_of(vmid).await?;
        let answer = self.send(&request::vm::agent_ran(&node, vmid, pid)).await?;
        if !truth(&answer, "exited") {
            return Ok(None);
        }
        let signal = answer.get("signal").and_then(number).map(|signal| 128 + signal);
        let code = answer.get("exitcode").and_then(number).or(signal).unwrap_or_default();
        Ok(Some(Ran { code, output: field(&answer, "out-data"), error: field(&answer, "err-data") }))
    }

    async fn node_of(&self, vmid: u32) -> Result<String, Error> {
        let missing = || Error {
            problem: Problem::Missing,
            effect: Effect::None,
            text: format!("the cluster has no machine with the number {vmid}"),
        };
        Ok(self.locate(vmid).await?.ok_or_else(missing)?.node)
    }
}

fn answered(request: &Request, effect: Effect, said: &str) -> Error {
    Error { problem: Problem::Answer, effect, text: format!("{request}: {said}") }
}

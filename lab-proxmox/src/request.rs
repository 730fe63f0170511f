//! What is sent to a cluster, as values: every request is built here and sent elsewhere.
//!
//! Parameters are forms with `0` and `1` for truths, which every version takes. What reads or deletes has no body, so
//! its parameters are part of the path's query.

use std::fmt;

/// One request to the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is done.
    pub method: Method,
    /// The path below `/api2/json`, its segments encoded.
    pub path: String,
    /// The parameters, in clear; one may occur several times.
    pub params: Vec<(String, String)>,
    /// The file of an upload.
    pub file: Option<File>,
    /// Which privileges it needs, where the server does not name them when it refuses: it does not when there is more
    /// than one way.
    pub needs: Option<String>,
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Makes, or begins a task.
    Post,
    /// Changes.
    Put,
    /// Deletes.
    Delete,
}

/// A file to upload.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    /// What it is called.
    pub name: String,
    /// What is in it.
    pub content: Vec<u8>,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A file may hold secrets.
        f.debug_struct("File").field("name", &self.name).field("bytes", &self.content.len()).finish()
    }
}

impl Method {
    /// Returns the name in HTTP.
    pub fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
        }
    }
}

impl Request {
    fn new(method: Method, path: String) -> Request {
        Request { method, path, params: Vec::new(), file: None, needs: None }
    }

    /// Returns a request that reads.
    pub fn get(path: impl Into<String>) -> Request {
        Request::new(Method::Get, path.into())
    }

    /// Returns a request that makes something or begins a task.
    pub fn post(path: impl Into<String>) -> Request {
        Request::new(Method::Post, path.into())
    }

    /// Returns a request that changes something.
    pub fn put(path: impl Into<String>) -> Request {
        Request::new(Method::Put, path.into())
    }

    /// Returns a request that deletes something.
    pub fn delete(path: impl Into<String>) -> Request {
        Request::new(Method::Delete, path.into())
    }

    /// Returns the same request with a parameter.
    pub fn with(mut self, name: impl Into<String>, value: impl ToString) -> Request {
        self.params.push((name.into(), value.to_string()));
        self
    }

    /// Returns the same request with a parameter, if there is a value for it.
    pub fn maybe(self, name: impl Into<String>, value: Option<impl ToString>) -> Request {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Returns the same request with a truth.
    pub fn truth(self, name: impl Into<String>, truth: bool) -> Request {
        self.with(name, u8::from(truth))
    }

    /// Returns the same request with the privileges that it needs.
    fn needing(self, needs: String) -> Request {
        Request { needs: Some(needs), ..self }
    }

    /// Returns the value of a parameter.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// Returns whether it can change anything.
    pub fn changes(&self) -> bool {
        self.method != Method::Get
    }

    /// Returns the parameters as a form.
    pub fn form(&self) -> String {
        let pairs = self.params.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value)));
        pairs.collect::<Vec<_>>().join("&")
    }

    /// Returns the path with its query: what reads or deletes must not have a body.
    pub fn target(&self) -> String {
        let form = self.form();
        match self.method {
            Method::Get | Method::Delete if !form.is_empty() => format!("/api2/json{}?{form}", self.path),
            Method::Get | Method::Delete | Method::Post | Method::Put => format!("/api2/json{}", self.path),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method.name(), self.path)
    }
}

/// Returns a text as it may stand in a path, a query or a form: all but unreserved characters percent-encoded. `;`
/// would separate parameters.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// Returns what asks for the version of the server.
pub fn version() -> Request {
    Request::get("/version")
}

/// Returns what asks for the nodes.
pub fn nodes() -> Request {
    Request::get("/nodes")
}

/// Requests about machines.
pub mod vm {
    use super::{Request, encode};

    /// What is done to a machine's power.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Power {
        /// Starts it.
        Start,
        /// Switches it off.
        Stop,
        /// Asks the guest to shut down, and switches it off when it did not within the seconds.
        Shutdown(u32),
        /// Asks the guest to shut down and starts it again, with what was pending.
        Reboot(u32),
    }

    fn path(node: &str, vmid: u32) -> String {
        format!("/nodes/{}/qemu/{vmid}", encode(node))
    }

    /// Returns what lists every machine of the cluster that the token may see.
    pub fn list() -> Request {
        Request::get("/cluster/resources").with("type", "vm")
    }

    /// Returns what asks whether a number is free: it is refused when it is not, whoever may see the machine.
    pub fn free(vmid: u32) -> Request {
        Request::get("/cluster/nextid").with("vmid", vmid)
    }

    /// Returns what reads the configuration, with what is pending in it.
    pub fn config(node: &str, vmid: u32) -> Request {
        Request::get(format!("{}/config", path(node, vmid)))
    }

    /// Returns what reads which keys of the configuration wait for a reboot.
    pub fn pending(node: &str, vmid: u32) -> Request {
        Request::get(format!("{}/pending", path(node, vmid)))
    }

    /// Returns what reads whether it runs.
    pub fn status(node: &str, vmid: u32) -> Request {
        Request::get(format!("{}/status/current", path(node, vmid)))
    }

    /// Returns what makes a machine with this configuration.
    pub fn create(node: &str, vmid: u32, pool: Option<&str>, config: &[(String, String)]) -> Request {
        let mut request = Request::post(format!("/nodes/{}/qemu", encode(node))).with("vmid", vmid).maybe("pool", pool);
        request.params.extend(config.iter().cloned());
        request
    }

    /// A clone of a template.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Clone<'a> {
        /// The node that the template is on.
        pub node: &'a str,
        /// The template.
        pub template: u32,
        /// The number of the clone.
        pub vmid: u32,
        /// Its name.
        pub name: &'a str,
        /// Its description.
        pub description: &'a str,
        /// The node it goes to, when that is another.
        pub target: Option<&'a str>,
        /// Copies the disks.
        pub full: bool,
        /// The storage that the copies go to.
        pub storage: Option<&'a str>,
        /// The pool.
        pub pool: Option<&'a str>,
    }

    /// Returns what clones a template.
    pub fn clone(clone: &Clone<'_>) -> Request {
        let Clone { vmid, template, pool, .. } = clone;
        let or = pool.map(|pool| format!(" or /pool/{pool}")).unwrap_or_default();
        let needs = format!("VM.Clone on /vms/{template} and VM.Allocate on /vms/{vmid}{or}");
        Request::post(format!("{}/clone", path(clone.node, clone.template)))
            .with("newid", clone.vmid)
            .with("name", clone.name)
            .with("description", clone.description)
            .maybe("target", clone.target)
            .truth("full", clone.full)
            .maybe("storage", clone.storage)
            .maybe("pool", clone.pool)
            .needing(needs)
    }

    /// Returns what changes the configuration, in a task: disks may take longer than a call may.
    pub fn configure(node: &str, vmid: u32, digest: &str, set: &[(String, String)], delete: &[String]) -> Request {
        let mut request = Request::post(format!("{}/config", path(node, vmid))).with("digest", digest);
        request.params.extend(set.iter().cloned());
        let delete = (!delete.is_empty()).then(|| delete.join(","));
        request.maybe("delete", delete)
    }

    /// Returns what grows a disk to `bytes`.
    pub fn resize(node: &str, vmid: u32, disk: &str, bytes: u64, digest: &str) -> Request {
        // Without a unit it is bytes, and a size must be a multiple of 512; ours are whole GiB.
        Request::put(format!("{}/resize", path(node, vmid)))
            .with("disk", disk)
            .with("size", format!("{}G", bytes >> 30))
            .with("digest", digest)
    }

    /// Returns what takes a disk away and deletes its volume.
    pub fn delete_disk(node: &str, vmid: u32, disk: &str) -> Request {
        Request::put(format!("{}/unlink", path(node, vmid))).with("idlist", disk).truth("force", true)
    }

    /// Returns what switches a machine.
    pub fn power(node: &str, vmid: u32, power: Power) -> Request {
        let status = |what: &str| Request::post(format!("{}/status/{what}", path(node, vmid)));
        match power {
            Power::Start => status("start"),
            Power::Stop => status("stop"),
            Power::Shutdown(seconds) => status("shutdown").with("timeout", seconds).truth("forceStop", true),
            Power::Reboot(seconds) => status("reboot").with("timeout", seconds),
        }
    }

    /// Returns what moves a machine to another node.
    pub fn migrate(node: &str, vmid: u32, target: &str, runs: bool) -> Request {
        // Disks on storages that the nodes do not share are copied; without this they would refuse to go.
        Request::post(format!("{}/migrate", path(node, vmid)))
            .with("target", target)
            .truth("online", runs)
            .truth("with-local-disks", true)
    }

    /// Returns what destroys a machine with the disks that its configuration names, and takes it out of jobs, rules and
    /// replication. Disks that only look as if they were its own stay.
    pub fn destroy(node: &str, vmid: u32) -> Request {
        Request::delete(path(node, vmid)).truth("purge", true).truth("destroy-unreferenced-disks", false)
    }

    /// Returns what lists the snapshots.
    pub fn snapshots(node: &str, vmid: u32) -> Request {
        Request::get(format!("{}/snapshot", path(node, vmid)))
    }

    /// Returns what takes a snapshot.
    pub fn snapshot(node: &str, vmid: u32, name: &str, description: &str, memory: bool) -> Request {
        Request::post(format!("{}/snapshot", path(node, vmid)))
            .with("snapname", name)
            .with("description", description)
            .truth("vmstate", memory)
    }

    /// Returns what deletes a snapshot.
    pub fn delete_snapshot(node: &str, vmid: u32, name: &str) -> Request {
        Request::delete(format!("{}/snapshot/{}", path(node, vmid), encode(name)))
    }

    /// Returns what takes a machine back to a snapshot, and starts it if wanted.
    pub fn rollback(node: &str, vmid: u32, name: &str, start: bool) -> Request {
        Request::post(format!("{}/snapshot/{}/rollback", path(node, vmid), encode(name))).truth("start", start)
    }

    /// Returns what asks the guest agent whether it lives.
    pub fn agent_ping(node: &str, vmid: u32) -> Request {
        Request::post(format!("{}/agent/ping", path(node, vmid)))
    }

    /// Returns what reads a file in the guest.
    pub fn agent_read(node: &str, vmid: u32, file: &str) -> Request {
        Request::get(format!("{}/agent/file-read", path(node, vmid))).with("file", file)
    }

    /// Returns what runs a program in the guest.
    pub fn agent_run(node: &str, vmid: u32, command: &[&str]) -> Request {
        let request = Request::post(format!("{}/agent/exec", path(node, vmid)));
        command.iter().fold(request, |request, word| request.with("command", word))
    }

    /// Returns what asks how a program in the guest went.
    pub fn agent_ran(node: &str, vmid: u32, pid: u64) -> Request {
        Request::get(format!("{}/agent/exec-status", path(node, vmid))).with("pid", pid)
    }
}

/// Requests about tasks.
pub mod task {
    use super::{Request, encode};

    /// Returns what asks how far a task is.
    pub fn status(node: &str, upid: &str) -> Request {
        Request::get(format!("/nodes/{}/tasks/{}/status", encode(node), encode(upid)))
    }

    /// Returns what reads the log of a task, from its `start`-th line.
    pub fn log(node: &str, upid: &str, start: u64) -> Request {
        Request::get(format!("/nodes/{}/tasks/{}/log", encode(node), encode(upid))).with("start", start)
    }
}

/// Requests about pools.
pub mod pool {
    use super::Request;

    /// Returns what lists the pools, or one with its members.
    pub fn list(name: Option<&str>) -> Request {
        Request::get("/pools").maybe("poolid", name)
    }

    /// Returns what makes a pool.
    pub fn create(name: &str, comment: &str) -> Request {
        Request::post("/pools").with("poolid", name).with("comment", comment)
    }

    /// Returns what changes what a pool says about itself.
    pub fn describe(name: &str, comment: &str) -> Request {
        Request::put("/pools").with("poolid", name).with("comment", comment)
    }

    /// Returns what makes a machine a member, wherever it was one before.
    pub fn join(name: &str, vmid: u32) -> Request {
        Request::put("/pools").with("poolid", name).with("vms", vmid).truth("allow-move", true)
    }

    /// Returns what takes a machine out of a pool.
    pub fn leave(name: &str, vmid: u32) -> Request {
        Request::put("/pools").with("poolid", name).with("vms", vmid).truth("delete", true)
    }

    /// Returns what deletes a pool, which must be empty.
    pub fn delete(name: &str) -> Request {
        Request::delete("/pools").with("poolid", name)
    }
}

/// Requests about storages and what is on them.
pub mod storage {
    use super::{File, Request, encode};

    fn path(node: &str, storage: &str) -> String {
        format!("/nodes/{}/storage/{}", encode(node), encode(storage))
    }

    /// Returns what lists the volumes of one kind of content.
    pub fn content(node: &str, storage: &str, content: &str) -> Request {
        Request::get(format!("{}/content", path(node, storage))).with("content", content)
    }

    /// Returns what asks how a storage is doing on a node.
    pub fn status(node: &str, storage: &str) -> Request {
        Request::get(format!("{}/status", path(node, storage)))
    }

    /// Returns what makes a node download a file and check its SHA-256.
    pub fn download(node: &str, storage: &str, content: &str, file: &str, url: &str, sha256: &str) -> Request {
        Request::post(format!("{}/download-url", path(node, storage)))
            .with("url", url)
            .with("content", content)
            .with("filename", file)
            .with("checksum", sha256)
            .with("checksum-algorithm", "sha256")
            .needing(format!(
                "Datastore.AllocateTemplate on /storage/{storage}, and Sys.AccessNetwork on /nodes/{node} or Sys.Audit \
                 and Sys.Modify on /"
            ))
    }

    /// Returns what uploads a file, which the server checks against its SHA-256.
    pub fn upload(node: &str, storage: &str, content: &str, file: File, sha256: &str) -> Request {
        // The server reads the parts in this order and no other.
        let request = Request::post(format!("{}/upload", path(node, storage)))
            .with("content", content)
            .with("checksum-algorithm", "sha256")
            .with("checksum", sha256);
        Request { file: Some(file), ..request }
    }

    /// Returns what deletes a volume.
    pub fn delete(node: &str, storage: &str, volume: &str) -> Request {
        Request::delete(format!("{}/content/{}", path(node, storage), encode(volume)))
    }

    /// Returns what changes how a storage is defined.
    pub fn define(storage: &str) -> Request {
        Request::put(format!("/storage/{}", encode(storage)))
    }

    /// Returns what lists how storages are defined.
    pub fn definitions() -> Request {
        Request::get("/storage")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_deletes_has_its_parameters_in_the_query_and_what_changes_in_its_body() {
        let destroy = vm::destroy("pve1", 110);
        assert_eq!(destroy.target(), "/api2/json/nodes/pve1/qemu/110?purge=1&destroy-unreferenced-disks=0");
        let resize = vm::resize("pve1", 110, "scsi0", 100 << 30, "abc");
        assert_eq!(resize.target(), "/api2/json/nodes/pve1/qemu/110/resize");
        assert_eq!(resize.form(), "disk=scsi0&size=100G&digest=abc");
    }

    #[test]
    fn what_separates_parameters_is_encoded_within_them() {
        let request = Request::post("/x").with("boot", "order=scsi0;net0").with("description", "a b\nc&d=ü");
        assert_eq!(request.form(), "boot=order%3Dscsi0%3Bnet0&description=a%20b%0Ac%26d%3D%C3%BC");
    }

    #[test]
    fn a_command_keeps_its_words_apart() {
        assert_eq!(vm::agent_run("pve1", 110, &["cat", "/a b"]).form(), "command=cat&command=%2Fa%20b");
    }

    #[test]
    fn a_file_is_not_shown() {
        let file = File { name: "a.iso".into(), content: b"secret".to_vec() };
        assert_eq!(format!("{file:?}"), r#"File { name: "a.iso", bytes: 6 }"#);
    }
}

//! A guest from inside: its files, its commands, its units.

use super::super::datacenter::Datacenter;
use super::microk8s;
use super::{Disk, Guest, shell};
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// A running system.
pub(in super::super) struct System {
    pub(in super::super) datacenter: Arc<Datacenter>,
    pub(in super::super) id: u32,
    pub(in super::super) guest: Guest,
}

/// How a command ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Outcome {
    pub(in super::super) code: i32,
    pub(in super::super) out: String,
    pub(in super::super) err: String,
}

impl Outcome {
    pub(super) fn fine(out: impl Into<String>) -> Outcome {
        Outcome { code: 0, out: out.into(), err: String::new() }
    }

    pub(super) fn failed(code: i32, text: impl Into<String>) -> Outcome {
        let text = text.into();
        Outcome { code, out: String::new(), err: if text.is_empty() { text } else { text + "\n" } }
    }

    /// What this stand-in does not do: whoever asked learns it, and the guest is marked.
    pub(super) fn not_simulated(what: &str) -> Outcome {
        Outcome::failed(127, format!("not simulated: {what}"))
    }

    fn when(holds: bool) -> Outcome {
        Outcome { code: i32::from(!holds), ..Outcome::default() }
    }
}

type Running<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

impl System {
    /// Looks at or changes what is on the disk; the default when the disk is gone.
    pub(super) fn disk<T: Default>(&self, act: impl FnOnce(&mut Disk) -> T) -> T {
        self.datacenter.with_disk(self.id, act).unwrap_or_default()
    }

    pub(super) async fn takes(&self, seconds: u64) {
        self.datacenter.clock.sleep(Duration::from_secs(seconds)).await;
    }

    /// Notes what was asked for and is not simulated.
    pub(in super::super) fn refuse(&self, what: &str) {
        let mut facts = self.guest.facts();
        if !facts.refused.iter().any(|known| known == what) {
            facts.refused.push(what.to_owned());
        }
    }

    pub(in super::super) fn read(&self, path: &str) -> Option<String> {
        if path == "/dev/null" {
            return Some(String::new());
        }
        self.disk(|disk| disk.microk8s_file(path).or_else(|| disk.files.get(path).cloned()))
    }

    pub(in super::super) fn put(&self, path: &str, text: &str, append: bool) {
        if path == "/dev/null" {
            return;
        }
        self.disk(|disk| {
            let file = disk.files.entry(path.to_owned()).or_default();
            if !append {
                file.clear();
            }
            file.push_str(text);
        });
    }

    fn exists(&self, path: &str) -> bool {
        let below = format!("{}/", path.trim_end_matches('/'));
        self.read(path).is_some() || self.disk(|disk| disk.files.keys().any(|file| file.starts_with(&below)))
    }

    /// Whether a connection to `/dev/tcp/ADDRESS/PORT` is taken.
    pub(super) fn connects(&self, path: &str) -> bool {
        let mut parts = path.strip_prefix("/dev/tcp/").unwrap_or_default().split('/');
        let target =
            parts.next().and_then(|address| address.parse().ok()).zip(parts.next().and_then(|port| port.parse().ok()));
        target.is_some_and(|(address, port)| self.listens(address, port))
    }

    fn listens(&self, address: IpAddr, port: u16) -> bool {
        self.datacenter
            .guest_at(address)
            .is_some_and(|(id, guest)| microk8s::listens(&self.datacenter, id, &guest, port))
    }

    /// Returns the address that others know this guest by.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.guest.facts().addresses().next()
    }

    pub(in super::super) fn hostname(&self) -> String {
        self.disk(|disk| disk.hostname.clone())
    }

    /// Runs a command; 127 is one that is not simulated.
    pub(in super::super) fn command<'a>(self: &'a Arc<Self>, words: &'a [String], input: &'a str) -> Running<'a> {
        Box::pin(async move {
            let Some((path, rest)) = words.split_first() else { return Outcome::default() };
            let name = path.rsplit('/').next().unwrap_or(path);
            let arguments: Vec<&str> = rest.iter().map(String::as_str).collect();
            match name {
                ":" | "true" | "chmod" | "chown" | "sync" | "mkdir" | "ln" => Outcome::default(),
                "false" => Outcome::failed(1, ""),
                "echo" => {
                    let (end, words) = match arguments.as_slice() {
                        ["-n", words @ ..] => ("", words),
                        words => ("\n", words),
                    };
                    Outcome::fine(words.join(" ") + end)
                }
                "[" | "test" => self.test(name, &arguments),
                "cat" if arguments.is_empty() => Outcome::fine(input),
                "cat" => {
                    let mut all = String::new();
                    for file in &arguments {
                        match self.read(file) {
                            Some(text) => all += &text,
                            None => return Outcome::failed(1, format!("cat: {file}: No such file or directory")),
                        }
                    }
                    Outcome::fine(all)
                }
                "touch" => {
                    arguments.iter().for_each(|file| self.put(file, "", true));
                    Outcome::default()
                }
                "rm" => self.remove(&arguments),
                "mv" | "cp" => self.transfer(name == "mv", &arguments),
                "grep" => self.grep(&arguments, input),
                "head" | "tail" => self.cut(name == "head", &arguments, input),
                "seq" => match arguments.as_slice() {
                    [last] => numbers("1", last),
                    [first, last] => numbers(first, last),
                    _ => Outcome::not_simulated(&words.join(" ")),
                },
                "sleep" => match arguments.as_slice() {
                    [seconds] => match seconds.trim_end_matches('s').parse() {
                        Ok(seconds) => {
                            self.takes(seconds).await;
                            Outcome::default()
                        }
                        Err(_) => Outcome::not_simulated(&words.join(" ")),
                    },
                    _ => Outcome::not_simulated(&words.join(" ")),
                },
                "date" if arguments.is_empty() => Outcome::fine("Thu Jan  1 00:00:00 UTC 2026\n"),
                "hostname" if arguments.is_empty() => Outcome::fine(self.hostname() + "\n"),
                "timeout" => match rest {
                    [_, rest @ ..] if !rest.is_empty() => self.command(rest, input).await,
                    _ => Outcome::not_simulated(&words.join(" ")),
                },
                "bash" | "sh" => match rest {
                    [flag, script, arguments @ ..] if flag == "-c" || flag == "-ec" => {
                        let script = if flag == "-ec" { format!("set -e\n{script}") } else { script.clone() };
                        let arguments = if arguments.is_empty() { vec![name.to_owned()] } else { arguments.to_vec() };
                        shell::run(self, &script, &arguments, input).await
                    }
                    [script, ..] if !script.starts_with('-') => match self.read(script) {
                        Some(text) => shell::run(self, &text, rest, input).await,
                        None => Outcome::failed(127, format!("{script}: No such file or directory")),
                    },
                    _ => Outcome::not_simulated(&words.join(" ")),
                },
                "curl" => self.curl(&arguments, words).await,
                "systemctl" => self.systemctl(&arguments, words),
                "cloud-init" => match arguments.as_slice() {
                    ["status", ..] => Outcome::fine(format!("status: {}\n", self.status())),
                    _ => Outcome::not_simulated(&words.join(" ")),
                },
                "snap" => microk8s::snap(self, &arguments, words).await,
                _ if name == "microk8s" || name.starts_with("microk8s.") => {
                    if !self.disk(|disk| disk.snap.is_some()) {
                        return Outcome::failed(127, format!("{path}: command not found"));
                    }
                    microk8s::command(self, &arguments, words).await
                }
                _ => match self.read(path).filter(|text| path.starts_with('/') && text.starts_with("#!")) {
                    Some(text) => shell::run(self, &text, words, input).await,
                    None => Outcome::not_simulated(&words.join(" ")),
                },
            }
        })
    }

    /// Returns what `cloud-init status` says.
    pub(super) fn status(&self) -> &'static str {
        let facts = self.guest.facts();
        match (facts.refused.is_empty(), facts.set_up) {
            (false, _) => "error",
            (true, true) => "done",
            (true, false) => "running",
        }
    }

    fn test(&self, name: &str, arguments: &[&str]) -> Outcome {
        let arguments = match (name, arguments) {
            ("[", [inside @ .., "]"]) => inside,
            ("[", _) => return Outcome::failed(2, "[: missing `]'"),
            (_, all) => all,
        };
        let number = |text: &str| text.parse::<i64>().unwrap_or_default();
        let holds = match arguments {
            [] => false,
            ["!", rest @ ..] => return Outcome::when(self.test("test", rest).code != 0),
            ["-e" | "-f" | "-d" | "-r" | "-x", path] => self.exists(path),
            ["-s", path] => self.read(path).is_some_and(|text| !text.is_empty()),
            ["-n", text] | [text] => !text.is_empty(),
            ["-z", text] => text.is_empty(),
            [a, "=" | "==", b] => a == b,
            [a, "!=", b] => a != b,
            [a, "-eq", b] => number(a) == number(b),
            [a, "-ne", b] => number(a) != number(b),
            [a, "-gt", b] => number(a) > number(b),
            [a, "-ge", b] => number(a) >= number(b),
            [a, "-lt", b] => number(a) < number(b),
            [a, "-le", b] => number(a) <= number(b),
            other => return Outcome::not_simulated(&format!("test {}", other.join(" "))),
        };
        Outcome::when(holds)
    }

    fn remove(&self, arguments: &[&str]) -> Outcome {
        let force = arguments.iter().any(|word| word.starts_with('-') && word.contains('f'));
        for path in arguments.iter().filter(|word| !word.starts_with('-')) {
            let below = format!("{path}/");
            let gone = self.disk(|disk| {
                let before = disk.files.len();
                disk.files.retain(|file, _| file != path && !file.starts_with(&below));
                before != disk.files.len()
            });
            if !gone && !force {
                return Outcome::failed(1, format!("rm: cannot remove '{path}': No such file or directory"));
            }
        }
        Outcome::default()
    }

    fn transfer(&self, gone: bool, arguments: &[&str]) -> Outcome {
        let paths: Vec<&str> = arguments.iter().filter(|word| !word.starts_with('-')).copied().collect();
        let [from, to] = paths[..] else { return Outcome::not_simulated("mv or cp of several files") };
        let Some(text) = self.read(from) else {
            return Outcome::failed(1, format!("cannot stat '{from}': No such file or directory"));
        };
        self.put(to, &text, false);
        if gone {
            self.disk(|disk| drop(disk.files.remove(from)));
        }
        Outcome::default()
    }

    fn grep(&self, arguments: &[&str], input: &str) -> Outcome {
        let (flags, rest): (Vec<&str>, Vec<&str>) = arguments.iter().partition(|word| word.starts_with('-'));
        let known = ["-q", "-c", "-F", "-E", "-v", "-qF", "-qE", "-Fq", "-s"];
        if let Some(flag) = flags.iter().find(|flag| !known.contains(flag)) {
            return Outcome::not_simulated(&format!("grep {flag}"));
        }
        let has = |letter: char| flags.iter().any(|flag| flag.contains(letter));
        let [pattern, files @ ..] = rest.as_slice() else { return Outcome::failed(2, "usage: grep") };
        let text = match files {
            [] => input.to_owned(),
            [file] => match self.read(file) {
                Some(text) => text,
                None => return Outcome::failed(2, format!("grep: {file}: No such file or directory")),
            },
            _ => return Outcome::not_simulated("grep in several files"),
        };
        let pattern = if has('F') { regex::escape(pattern) } else { (*pattern).to_owned() };
        let Ok(pattern) = regex::Regex::new(&pattern) else { return Outcome::failed(2, "grep: invalid pattern") };
        let found: Vec<&str> = text.lines().filter(|line| pattern.is_match(line) != has('v')).collect();
        let out = match (has('q'), has('c')) {
            (true, _) => String::new(),
            (false, true) => format!("{}\n", found.len()),
            (false, false) => found.iter().map(|line| format!("{line}\n")).collect(),
        };
        Outcome { code: i32::from(found.is_empty()), out, err: String::new() }
    }

    fn cut(&self, head: bool, arguments: &[&str], input: &str) -> Outcome {
        let (count, files) = match arguments {
            ["-n", count, files @ ..] => (count.parse().unwrap_or(10), files),
            files => (10, files),
        };
        let text = match files {
            [] => input.to_owned(),
            [file] => match self.read(file) {
                Some(text) => text,
                None => {
                    return Outcome::failed(1, format!("cannot open '{file}' for reading: No such file or directory"));
                }
            },
            _ => return Outcome::not_simulated("head or tail of several files"),
        };
        let lines: Vec<&str> = text.lines().collect();
        let range = if head { 0..lines.len().min(count) } else { lines.len().saturating_sub(count)..lines.len() };
        Outcome::fine(lines[range].iter().map(|line| format!("{line}\n")).collect::<String>())
    }

    async fn curl(&self, arguments: &[&str], words: &[String]) -> Outcome {
        let url = arguments.iter().find(|word| word.starts_with("https://"));
        let target = url.and_then(|url| url.strip_prefix("https://")?.split_once('/'));
        let Some((authority, path)) = target else { return Outcome::not_simulated(&words.join(" ")) };
        let (address, port) = authority.rsplit_once(':').unwrap_or((authority, "443"));
        let reached = address.parse().ok().zip(port.parse().ok());
        let Some((address, port)) = reached else { return Outcome::not_simulated(&words.join(" ")) };
        if !self.listens(address, port) {
            self.takes(1).await;
            return Outcome::failed(
                7,
                format!("curl: (7) Failed to connect to {address} port {port}: Connection refused"),
            );
        }
        match (port, path) {
            (25000, "health") => Outcome::fine("{\"status\":\"OK\"}\n"),
            _ => Outcome::not_simulated(&words.join(" ")),
        }
    }

    fn systemctl(self: &Arc<Self>, arguments: &[&str], words: &[String]) -> Outcome {
        let flags = ["--now", "--no-block", "--quiet", "-q"];
        let now = arguments.contains(&"--now");
        let plain: Vec<&str> = arguments.iter().filter(|word| !flags.contains(word)).copied().collect();
        let unit = |name: &str| name.trim_end_matches(".service").to_owned();
        match plain.as_slice() {
            ["daemon-reload"] => Outcome::default(),
            ["enable", names @ ..] if !names.is_empty() => {
                for name in names {
                    let name = unit(name);
                    if !self.knows(&name) {
                        return Outcome::failed(
                            1,
                            format!("Failed to enable unit: Unit file {name}.service does not exist."),
                        );
                    }
                    self.disk(|disk| disk.enabled.insert(name.clone()));
                    if now {
                        self.begin(&name);
                    }
                }
                Outcome::default()
            }
            ["disable", names @ ..] => {
                self.disk(|disk| disk.enabled.retain(|known| !names.iter().any(|name| unit(name) == *known)));
                Outcome::default()
            }
            ["start" | "restart", names @ ..] if !names.is_empty() => {
                for name in names {
                    let name = unit(name);
                    if !self.knows(&name) {
                        return Outcome::failed(
                            5,
                            format!("Failed to start {name}.service: Unit {name}.service not found."),
                        );
                    }
                    self.begin(&name);
                }
                Outcome::default()
            }
            _ => Outcome::not_simulated(&words.join(" ")),
        }
    }

    fn knows(&self, unit: &str) -> bool {
        match unit {
            "qemu-guest-agent" => self.disk(|disk| disk.packages.contains(unit)),
            "snapd" | "systemd-timesyncd" | "ssh" => true,
            _ => self.read(&format!("/etc/systemd/system/{unit}.service")).is_some(),
        }
    }

    /// Starts a unit; what it runs goes on beside.
    pub(super) fn begin(self: &Arc<Self>, unit: &str) {
        if unit == "qemu-guest-agent" {
            self.guest.facts().agent = true;
            return;
        }
        let Some(text) = self.read(&format!("/etc/systemd/system/{unit}.service")) else { return };
        let value = |key: &str| {
            text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('=')).map(str::to_owned)
        };
        let words: Vec<String> = value("ExecStart").unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        let again = value("Restart").is_some_and(|policy| ["on-failure", "always"].contains(&policy.as_str()));
        let pause = value("RestartSec").and_then(|pause| pause.trim_end_matches('s').parse().ok()).unwrap_or(1);
        let (system, unit) = (self.clone(), unit.to_owned());
        self.guest.spawn(async move {
            loop {
                let outcome = system.command(&words, "").await;
                if outcome.code == 127 {
                    system.refuse(&format!("{unit}.service: {}", outcome.err.trim()));
                }
                // What is not simulated does not get better by another attempt.
                if outcome.code == 0 || !again || system.status() == "error" {
                    return;
                }
                system.takes(pause).await;
            }
        });
    }
}

fn numbers(first: &str, last: &str) -> Outcome {
    match (first.parse::<i64>(), last.parse::<i64>()) {
        (Ok(first), Ok(last)) => Outcome::fine((first..=last).map(|number| format!("{number}\n")).collect::<String>()),
        _ => Outcome::failed(1, "seq: invalid argument"),
    }
}

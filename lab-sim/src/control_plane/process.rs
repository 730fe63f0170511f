//! Processes that end with ours.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the end of a killed process is waited for.
const ENDED: Duration = Duration::from_secs(2);

/// Runs a program whose end is tied to ours: when this process is gone, however it went, its end of the pipe closes and
/// the program is killed. No signal handler can promise that of `kill -9`.
const GUARD: &str = r#"exec 3<&0 </dev/null
"$@" 3<&- & program=$!
(read -r _ <&3; kill -9 $program 2>/dev/null) & guard=$!
exec 3<&-
wait $program; code=$?
kill $guard 2>/dev/null
exit $code"#;

/// A program that runs until this is dropped, or this process is gone.
pub(super) struct Process {
    pub(super) name: &'static str,
    child: Child,
}

impl Process {
    /// Starts the program.
    pub(super) fn start(name: &'static str, program: &Path, arguments: &[String], log: File) -> io::Result<Process> {
        let child = guarded(program, arguments, log)
            .map_err(|error| io::Error::new(error.kind(), format!("start {name}: {error}")))?;
        Ok(Process { name, child })
    }

    /// Returns whether the program has ended by itself.
    pub(super) fn has_ended(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The guard kills its program once our end of the pipe is closed.
        drop(self.child.stdin.take());
        let until = Instant::now() + ENDED;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Starts a program that ends when the child's standard input is closed.
fn guarded(program: &Path, arguments: &[String], log: File) -> io::Result<Child> {
    Command::new("sh")
        .args(["-c", GUARD, "guard"])
        .arg(program)
        .args(arguments)
        // What the proxies of this process are for is not the business of a server on loopback.
        .envs(["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"].map(|name| (name, "")))
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn alive(process: &str) -> bool {
        Command::new("kill").args(["-0", process]).stderr(Stdio::null()).status().unwrap().success()
    }

    fn until(what: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !what() {
            assert!(Instant::now() < deadline, "it does not happen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_program_ends_with_the_process_that_started_it() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let script = "echo $$; exec sleep 1000".to_owned();
        let mut child =
            guarded(Path::new("sh"), &["-c".into(), script], File::create(&log).unwrap()).expect("a shell starts");
        until(|| fs::read_to_string(&log).unwrap().ends_with('\n'));
        let program = fs::read_to_string(&log).unwrap().trim().to_owned();
        assert!(alive(&program));
        // What the kernel does with a pipe of a process that is killed.
        drop(child.stdin.take());
        until(|| !alive(&program));
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn the_end_of_a_program_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let log = File::create(directory.path().join("log")).unwrap();
        let child = guarded(Path::new("sh"), &["-c".into(), "exit 7".into()], log).unwrap();
        // Not `wait`: that closes the pipe first, and is the end of the program.
        let child = std::cell::RefCell::new(child);
        until(|| child.borrow_mut().try_wait().unwrap().is_some());
        assert_eq!(child.borrow_mut().wait().unwrap().code(), Some(7));
    }
}

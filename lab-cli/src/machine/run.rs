//! Programs of this machine, run to their end in a directory that is thrown away.

use lab_core::{Argument, Call, Ran, RunError};
use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a program may take.
const WHOLE: Duration = Duration::from_secs(120);
/// The most that is read of what it writes.
const LARGEST: u64 = 64 << 20;
/// How often is looked whether it has ended.
const PAUSE: Duration = Duration::from_millis(5);

pub(super) fn run(path: &OsStr, call: &Call) -> Result<Ran, RunError> {
    run_within(path, call, WHOLE)
}

fn run_within(path: &OsStr, call: &Call, whole: Duration) -> Result<Ran, RunError> {
    let failed = |what: &str, error: std::io::Error| RunError::Failed(format!("{what}: {error}"));
    let program = find(path, &call.program).ok_or(RunError::Missing)?;
    let away = tempfile::Builder::new()
        .prefix("lab-run-")
        .tempdir()
        .map_err(|error| failed("a directory for it cannot be made", error))?;
    let arguments = arguments(call, away.path()).map_err(|error| failed("its arguments cannot be made", error))?;
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(away.path())
        .env_clear()
        .env("PATH", path)
        .env("HOME", away.path())
        .env("TMPDIR", away.path())
        .envs(&call.variables)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed("it cannot be started", error))?;
    let (input, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let given = call.input.clone();
    // Its own thread: who writes more than a pipe holds, to somebody who does not read, waits.
    thread::spawn(move || {
        // It need not read what it is given.
        let _ = input.map(|mut input| input.write_all(&given));
    });
    let (out, err) = (reading(out), reading(err));
    let code = wait(&mut child, whole)?;
    let (out, err) = (read(out)?, read(err)?);
    Ok(Ran { code, out, err: String::from_utf8_lossy(&err).into_owned() })
}

fn wait(child: &mut Child, whole: Duration) -> Result<Option<i32>, RunError> {
    let began = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status.code()),
            Ok(None) if began.elapsed() < whole => thread::sleep(PAUSE),
            waited => {
                // Nothing waits for it any more, whether it takes notice or not.
                let _ = child.kill().and_then(|()| child.wait());
                return Err(RunError::Failed(match waited {
                    Err(error) => format!("its end cannot be waited for: {error}"),
                    Ok(_) => format!("it did not end within {} s", whole.as_secs()),
                }));
            }
        }
    }
}

type Reading = Option<JoinHandle<std::io::Result<Vec<u8>>>>;

fn reading(pipe: Option<impl Read + Send + 'static>) -> Reading {
    let read = |pipe: &mut dyn Read| {
        let mut all = Vec::new();
        pipe.take(LARGEST + 1).read_to_end(&mut all).map(|_| all)
    };
    pipe.map(|mut pipe| thread::spawn(move || read(&mut pipe)))
}

fn read(reading: Reading) -> Result<Vec<u8>, RunError> {
    let all = reading.and_then(|reading| reading.join().ok()).unwrap_or_else(|| Ok(Vec::new()));
    match all {
        Ok(all) if all.len() as u64 > LARGEST => {
            Err(RunError::Failed(format!("it writes more than {} MiB", LARGEST >> 20)))
        }
        Ok(all) => Ok(all),
        Err(error) => Err(RunError::Failed(format!("what it writes cannot be read: {error}"))),
    }
}

/// Returns where a program is, looked for as a shell would.
fn find(path: &OsStr, program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|file| runs(file));
    }
    let dirs = std::env::split_paths(path).filter(|dir| dir.is_absolute());
    dirs.map(|dir| dir.join(program)).find(|file| runs(file))
}

#[cfg(unix)]
fn runs(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn runs(file: &Path) -> bool {
    file.is_file()
}

fn arguments(call: &Call, away: &Path) -> std::io::Result<Vec<OsString>> {
    let argument = |argument: &Argument| match argument {
        Argument::Text(text) => Ok(text.into()),
        Argument::Path(path) => std::path::absolute(path).map(PathBuf::into_os_string),
        Argument::File(name, bytes) => {
            let name = Path::new(name).file_name().unwrap_or(OsStr::new("file"));
            let file = away.join(name);
            std::fs::write(&file, bytes)?;
            Ok(file.into_os_string())
        }
    };
    call.arguments.iter().map(argument).collect()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// Returns a directory that is a `PATH` of one program, this shell script, and of what it is written with.
    fn script(text: &str) -> (tempfile::TempDir, OsString) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tool");
        std::fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:/bin:/usr/bin", dir.path().display()).into();
        (dir, path)
    }

    fn ran(text: &str, call: &Call) -> Ran {
        let (_dir, path) = script(text);
        run(&path, call).unwrap()
    }

    #[test]
    fn a_program_gets_its_arguments_its_files_and_its_input() {
        let call = Call::new("tool").arg("--x").file("chart.tgz", b"archive".as_slice().into()).input("given");
        let ran = ran("echo \"$1 $(basename \"$2\") $(cat \"$2\") $(cat)\"; echo warned >&2; exit 3", &call);
        assert_eq!((ran.code, ran.err.as_str()), (Some(3), "warned\n"));
        assert_eq!(String::from_utf8(ran.out).unwrap(), "--x chart.tgz archive given\n");
    }

    #[test]
    fn it_sees_nothing_of_the_person_and_leaves_nothing() {
        let mut call = Call::new("tool");
        call.variables.insert("GIVEN".into(), "yes".into());
        let ran = ran("touch \"$HOME/left\"; pwd; env | cut -d= -f1 | grep -v -e _ -e PWD -e SHLVL | sort", &call);
        let out = String::from_utf8(ran.out).unwrap();
        let (home, variables) = out.split_once('\n').unwrap();
        assert_eq!(variables, "GIVEN\nHOME\nPATH\nTMPDIR\n");
        assert!(!Path::new(home).exists(), "{home}");
    }

    #[test]
    fn what_is_more_than_a_pipe_holds_stops_nobody() {
        let call = Call::new("tool").input(vec![b'x'; 1 << 20]);
        assert_eq!(ran("exec cat", &call).out.len(), 1 << 20);
        // And who does not read is not waited for.
        assert_eq!(ran("exit 0", &call).code, Some(0));
    }

    #[test]
    fn a_path_is_made_absolute_before_the_directory_changes() {
        let ran = ran("test -f \"$1\" && echo there", &Call::new("tool").path("Cargo.toml"));
        assert_eq!(String::from_utf8(ran.out).unwrap(), "there\n");
    }

    #[test]
    fn a_program_that_is_not_there_or_does_not_end_is_said() {
        assert_eq!(run(OsStr::new("/nowhere"), &Call::new("tool")), Err(RunError::Missing));
        let (_dir, path) = script("exec sleep 600");
        assert_eq!(
            run_within(&path, &Call::new("tool"), Duration::ZERO),
            Err(RunError::Failed("it did not end within 0 s".into()))
        );
        let (_dir, path) = script("kill -9 $$");
        assert_eq!(run(&path, &Call::new("tool")).unwrap().code, None);
    }
}

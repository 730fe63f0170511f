//! A small lab in memory, and a command line over it. The programs stand in a file of their own, so that the lines
//! that snapshots name stay where they are.

use lab_cli::{Lab, Surroundings, Transcript};
use lab_core::execute::seal::{Ids, Keys};
use lab_core::execute::{KeySource, Simulated, Simulator};
use lab_core::testing::{Memory, Thing, World};
use lab_core::{Clock, Link, Output, ProgramError, Secret, Stack};
use serde::Serialize;
use std::future::Future;
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

/// What the small lab yields.
#[derive(Serialize)]
pub(crate) struct Homelab {
    pub(crate) room: Output<String>,
    pub(crate) key: Output<Secret<String>>,
}

/// A rack, and a table that stands in it.
pub(crate) fn program(stack: &Stack) -> Result<Homelab, ProgramError> {
    let memory = stack.provider("memory", Memory::at("cellar"));
    let rack = memory.component("home").add(Rack { says: "ready" });
    Ok(Homelab { room: rack.output(|rack| rack.room), key: rack.output(|rack| rack.key) })
}

/// The same lab with another text on its rack.
pub(crate) fn changed(stack: &Stack) -> Result<Homelab, ProgramError> {
    let memory = stack.provider("memory", Memory::at("cellar"));
    let rack = memory.component("home").add(Rack { says: "busy" });
    Ok(Homelab { room: rack.output(|rack| rack.room), key: rack.output(|rack| rack.key) })
}

/// A disk with data on it.
pub(crate) fn with_data(stack: &Stack) -> Result<(), ProgramError> {
    let memory = stack.provider("memory", Memory::at("cellar"));
    memory.resource("disk").add(Thing { data: Some("every film on it".into()), ..Thing::new("disk", "films") });
    Ok(())
}

/// Two things at the same number.
pub(crate) fn clashing(stack: &Stack) -> Result<(), ProgramError> {
    let memory = stack.provider("memory", Memory::at("cellar"));
    memory.resource("one").add(Thing { claims: vec![7], ..Thing::new("one", "") });
    memory.resource("two").add(Thing { claims: vec![7], ..Thing::new("two", "") });
    Ok(())
}

/// A thing at a number, the same in every environment.
pub(crate) fn numbered(stack: &Stack) -> Result<(), ProgramError> {
    let memory = stack.provider("memory", Memory::at(stack.env().unwrap_or("cellar")));
    memory.resource("one").add(Thing { claims: vec![7], ..Thing::new("one", "") });
    Ok(())
}

/// Five things that need one.
pub(crate) fn needy(stack: &Stack) -> Result<(), ProgramError> {
    let memory = stack.provider("memory", Memory::at("cellar"));
    let power = memory.resource("power").add(Thing::new("power", "on"));
    for name in ["amplifier", "lamp", "printer", "router", "switch"] {
        memory.resource(name).depends_on(&power).add(Thing::new(name, ""));
    }
    Ok(())
}

/// A thing that has something to say, its secret among it.
pub(crate) fn complaining(stack: &Stack) -> Result<(), ProgramError> {
    let memory = stack.provider("memory", Memory::at("cellar"));
    memory.resource("box").add(Thing {
        complaint: Some("its lid is loose:".into()),
        secret: Some(Secret::new("hunter2-hunter2".to_owned()).into()),
        calls: 2,
        ..Thing::new("box", "full")
    });
    Ok(())
}

struct Rack {
    says: &'static str,
}

impl lab_core::Component<Memory> for Rack {
    type Handle = lab_core::Handle<lab_core::testing::ThingOutputs>;

    fn declare(self, scope: &lab_core::Scope<'_, Memory>) -> Self::Handle {
        let rack = scope.resource("rack").add(Thing::new("rack", self.says));
        let said = rack.output(|rack| format!("in {}", rack.text));
        scope.resource("table").add(Thing { calls: 2, ..Thing::new("table", said) });
        rack
    }
}

/// A lab directory and a world, in which command lines are run.
pub(crate) struct Bench {
    pub(crate) world: Arc<World>,
    dir: tempfile::TempDir,
    name: &'static str,
}

/// What came of a command line.
pub(crate) struct Ran {
    pub(crate) exit: u8,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Bench {
    pub(crate) fn new() -> Bench {
        Bench { world: Arc::default(), dir: tempfile::tempdir().unwrap(), name: "homelab" }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a command line of `program`.
    pub(crate) fn run<T: Serialize + 'static>(
        &self,
        program: fn(&Stack) -> Result<T, ProgramError>,
        arguments: &str,
    ) -> Ran {
        self.run_in(program, arguments, |_| {})
    }

    /// Runs a command line of `program` whose surroundings are a little different.
    pub(crate) fn run_in<T: Serialize + 'static>(
        &self,
        program: fn(&Stack) -> Result<T, ProgramError>,
        arguments: &str,
        differ: impl FnOnce(&mut Surroundings),
    ) -> Ran {
        let words: Vec<String> = arguments.split_whitespace().map(|argument| self.place(argument)).collect();
        self.run_words(program, &words.iter().map(String::as_str).collect::<Vec<_>>(), differ)
    }

    /// Runs a command line of these words.
    pub(crate) fn run_words<T: Serialize + 'static>(
        &self,
        program: fn(&Stack) -> Result<T, ProgramError>,
        words: &[&str],
        differ: impl FnOnce(&mut Surroundings),
    ) -> Ran {
        let (mut around, transcript): (Surroundings, Transcript) = Surroundings::captured();
        around.link = Some(Link::memory(self.world.clone()).on(Clock::scaled(1000)));
        around.keys = Some(KeySource::Given(Keys::fixed()));
        around.executable = Some("this program".into());
        around.ids = Arc::new(Ids::seeded(1));
        differ(&mut around);
        let lab = Lab::new(self.name, program).hardware(Memoria);
        let state = self.state().display().to_string();
        let mut all = vec!["homelab".to_owned(), "--state".to_owned(), state.clone()];
        all.extend(words.iter().map(|word| (*word).to_owned()));
        let exit = lab.run_with(all, around);
        let plain = |text: String| text.replace(&self.dir.path().display().to_string(), "DIR");
        Ran { exit, out: plain(transcript.out()), err: plain(transcript.err()) }
    }

    /// Files are named `@plan` in command lines.
    fn place(&self, argument: &str) -> String {
        match argument.strip_prefix('@') {
            Some(file) => self.file(file).display().to_string(),
            None => argument.to_owned(),
        }
    }
}

/// Lets a person answer.
pub(crate) fn answering(answer: &str) -> impl FnOnce(&mut Surroundings) + use<> {
    let answer = format!("{answer}\n");
    move |around| around.answers = Some(Box::new(Cursor::new(answer)))
}

/// Returns every file below `dir`, by path, with its content.
pub(crate) fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let content = std::fs::read(&path).unwrap();
            found.push((path, content));
        }
    }
    found.sort();
    found
}

/// A world in memory to rehearse on.
struct Memoria;

impl Simulator for Memoria {
    fn start(&self, _seed: u64) -> Pin<Box<dyn Future<Output = io::Result<Simulated>> + Send + '_>> {
        Box::pin(async {
            let world = Arc::new(World::default());
            let shown = world.clone();
            Ok(Simulated {
                link: Link::memory(world).on(Clock::scaled(1000)),
                summary: vec!["a cellar, in memory".into()],
                reach: Vec::new(),
                world: Box::new(move || shown.dump()),
                guard: Box::new(()),
            })
        })
    }
}

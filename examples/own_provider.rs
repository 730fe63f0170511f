//! A provider of one's own: text files in a directory. `cargo run --example own_provider -- up`

use lab::prelude::*;
use lab::{Error, Found, Id, Link, Made, Op, Owner, Provider, Realm, Resource, Step, Types};
use std::{fs, io, path::PathBuf};

/// A directory that exists.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Directory(pub(crate) PathBuf);

impl Provider for Directory {
    const NAME: &'static str = "directory";
    type Client = PathBuf;
    fn realm(&self) -> Realm {
        Realm::Stated(format!("directory {}", self.0.display()))
    }
    async fn connect(self, _: Link) -> lab::Result<PathBuf> {
        Ok(self.0)
    }
    fn types(types: &mut Types<Directory>) {
        types.add::<TextFile>();
    }
}

/// A text file. Found by its name; it bears no mark, so it is ours when our state recorded it.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct TextFile {
    pub(crate) name: String,
    pub(crate) text: Input<String>,
}

impl Resource<Directory> for TextFile {
    const TYPE: &'static str = "directory:file";
    type Outputs = PathBuf;
    fn id(&self) -> Option<Id> {
        Some(self.name.clone().into())
    }
    async fn find(directory: &PathBuf, op: &Op<TextFile>) -> lab::Result<Found<PathBuf>> {
        let (path, name) = place(directory, op);
        match fs::read_to_string(&path) {
            Ok(text) => {
                let live = Some(serde_json::json!({ "text": text }));
                Ok(Found::Present(Owner::Unmarkable, Step::Done(Made { live, ..Made::new(name, path) })))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Absent),
            Err(error) => Err(Error::again(error.to_string())),
        }
    }
    async fn apply(&self, directory: &PathBuf, op: &Op<TextFile>) -> lab::Result<Step<PathBuf>> {
        let (path, name) = place(directory, op);
        fs::write(&path, self.text.get()).map_err(|error| Error::again(error.to_string()).perhaps())?;
        Ok(Step::Done(Made::new(name, path)))
    }
    async fn delete(directory: &PathBuf, op: &Op<TextFile>) -> lab::Result<Step<()>> {
        fs::remove_file(place(directory, op).0).map_err(|error| Error::again(error.to_string()))?;
        Ok(Step::gone())
    }
}

fn place(directory: &std::path::Path, op: &Op<TextFile>) -> (PathBuf, String) {
    let name = op.id.clone().map(|id| id.0).unwrap_or_default();
    (directory.join(&name), name)
}

#[allow(dead_code, reason = "the other examples use this file as a module")]
fn main() -> ExitCode {
    Lab::new("notes", |stack: &Stack| {
        let here = stack.provider("here", Directory(std::env::temp_dir()));
        here.resource("hello").add(TextFile { name: "hello.txt".into(), text: "hello\n".into() });
        Ok(())
    })
    .run()
}

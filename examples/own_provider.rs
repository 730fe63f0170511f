//! A provider of one's own: text files in a directory. `cargo run --example own_provider -- up`

use lab::prelude::*;
use lab::{Error, Found, Link, Made, Op, Owner, Provider, Realm, Resource, Step, Types};
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

/// A text file. Found by its name; a file bears no mark, so it is ours when our state recorded it.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct TextFile {
    pub(crate) name: String,
    pub(crate) text: Input<String>,
}

impl Resource<Directory> for TextFile {
    const TYPE: &'static str = "directory:file";
    type Outputs = PathBuf;

    fn id(&self) -> Option<lab::Id> {
        Some(self.name.clone().into())
    }
    async fn find(directory: &PathBuf, op: &Op<TextFile>) -> lab::Result<Found<PathBuf>> {
        let path = path(directory, op)?;
        match fs::read_to_string(&path) {
            Ok(text) => {
                let live = Some(serde_json::json!({ "text": text }));
                let made = Made { live, ..Made::new(op.id.clone().unwrap_or("".into()).0, path) };
                Ok(Found::Present(Owner::Unmarkable, Step::Done(made)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Absent),
            Err(error) => Err(Error::again(format!("read {}: {error}", path.display()))),
        }
    }
    async fn apply(&self, directory: &PathBuf, op: &Op<TextFile>) -> lab::Result<Step<PathBuf>> {
        let path = path(directory, op)?;
        fs::write(&path, self.text.get()).map_err(|error| Error::again(format!("write {}: {error}", path.display())))?;
        Ok(Step::Done(Made::new(self.name.as_str(), path)))
    }
    async fn delete(directory: &PathBuf, op: &Op<TextFile>) -> lab::Result<Step<()>> {
        let path = path(directory, op)?;
        fs::remove_file(&path).map_err(|error| Error::again(format!("remove {}: {error}", path.display())))?;
        Ok(Step::gone())
    }
}

fn path(directory: &std::path::Path, op: &Op<TextFile>) -> lab::Result<PathBuf> {
    let id = op.id.as_ref().ok_or_else(|| Error::invalid("the file has no name"))?;
    Ok(directory.join(&id.0))
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

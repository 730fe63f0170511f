//! A component: a named group of resources, as a struct with one `declare`.

#[path = "own_provider.rs"]
mod own_provider;

use lab::prelude::*;
use own_provider::{Directory, TextFile};
use std::path::PathBuf;

/// A diary: a file for each day, and a table of contents.
struct Diary {
    days: Vec<&'static str>,
}

impl Component<Directory> for Diary {
    type Handle = Handle<PathBuf>;

    fn declare(self, scope: &Scope<'_, Directory>) -> Handle<PathBuf> {
        if self.days.is_empty() {
            scope.problem("a diary needs at least one day");
        }
        for day in &self.days {
            let file = TextFile { name: format!("{day}.txt"), text: format!("Dear diary, it is {day}.\n").into() };
            scope.resource(day).add(file);
        }
        let contents = self.days.join("\n");
        scope.resource("contents").add(TextFile { name: "contents.txt".into(), text: contents.into() })
    }
}

fn main() -> ExitCode {
    Lab::new("diaries", |stack: &Stack| {
        let here = stack.provider("here", Directory(std::env::temp_dir()));
        let diary = here.component("diary").add(Diary { days: vec!["monday", "tuesday"] });
        Ok(diary.output(|path| path))
    })
    .run()
}

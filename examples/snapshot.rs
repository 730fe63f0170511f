//! A snapshot test of a whole lab, in three lines. `cargo test --example snapshot`

#[path = "own_provider.rs"]
mod own_provider;

use lab::prelude::*;
use own_provider::{Directory, TextFile};

fn shelf(stack: &Stack) -> Result<(), ProgramError> {
    let here = stack.provider("here", Directory("/srv/notes".into()));
    let first = here.resource("first").add(TextFile { name: "first.txt".into(), text: "hello\n".into() });
    let text = first.output(|path| path.display().to_string());
    here.resource("second").protect(true).add(TextFile { name: "second.txt".into(), text: text.into() });
    Ok(())
}

#[test]
fn the_shelf_is_what_it_was() {
    insta::assert_snapshot!(lab::testing::plan_text("shelf", shelf), @"
      here
        + create directory:file first  examples/snapshot.rs:11
        + create directory:file second  examples/snapshot.rs:13
    shelf: 2 to create, 0 unchanged.
    ");
}

fn main() -> ExitCode {
    Lab::new("shelf", shelf).run()
}

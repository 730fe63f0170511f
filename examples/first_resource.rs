//! A first resource, and a second one that needs it.
//!
//! ```console
//! $ cargo run --example first_resource -- preview
//! $ cargo run --example first_resource -- up
//! $ cargo run --example first_resource -- destroy
//! ```

#[path = "own_provider.rs"]
mod own_provider;

use lab::prelude::*;
use own_provider::{Directory, TextFile};

fn main() -> ExitCode {
    Lab::new("first", first).run()
}

fn first(stack: &Stack) -> Result<Output<String>, ProgramError> {
    let here = stack.provider("here", Directory(std::env::temp_dir()));
    let greeting = here.resource("greeting").add(TextFile { name: "greeting.txt".into(), text: "hello\n".into() });
    // The second file tells where the first one is. That it comes second follows from that, and needs no word.
    let place = greeting.output(|path| path.display().to_string());
    here.resource("signpost").add(TextFile { name: "signpost.txt".into(), text: place.clone().into() });
    Ok(place)
}

//! Two stacks in one lab directory: what the first one returns, the second one reads by type.
//!
//! ```console
//! $ cargo run --example two_stacks -- network up
//! $ cargo run --example two_stacks -- website up
//! ```

#[path = "own_provider.rs"]
mod own_provider;

use lab::Surroundings;
use lab::prelude::*;
use own_provider::{Directory, TextFile};

/// What the network's stack returns, and others import.
#[derive(Serialize, Deserialize)]
struct Network {
    gateway: Output<String>,
}

fn network(stack: &Stack) -> Result<Network, ProgramError> {
    let here = stack.provider("here", Directory(std::env::temp_dir()));
    let router = here.resource("router").add(TextFile { name: "router.txt".into(), text: "10.0.0.1\n".into() });
    Ok(Network { gateway: router.output(|path| path.display().to_string()) })
}

fn website(stack: &Stack) -> Result<(), ProgramError> {
    // Pinned to what was last applied; an error with the next command when it never was.
    let network: Network = stack.outputs_of("network")?;
    let here = stack.provider("here", Directory(std::env::temp_dir()));
    here.resource("page").add(TextFile { name: "page.txt".into(), text: network.gateway.into() });
    Ok(())
}

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().collect();
    // The first word chooses the stack; the rest is the command line of any lab.
    let named = arguments.get(1).is_some_and(|first| first == "network" || first == "website");
    let stack = if named { arguments.remove(1) } else { String::new() };
    let lab = match stack.as_str() {
        "website" => Lab::new("website", website),
        _ => Lab::new("network", network),
    };
    ExitCode::from(lab.run_with(arguments, Surroundings::process()))
}

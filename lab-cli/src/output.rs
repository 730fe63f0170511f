//! `output`: what the program returned when it was last applied. Reads the state only.

use crate::arguments;
use crate::invocation::Invocation;
use crate::opened;
use crate::show;
use crate::trouble::Trouble;
use lab_core::{redact, reveal};
use serde_json::Value;

pub(crate) fn output(invocation: &Invocation<'_>, arguments: &arguments::Output) -> Result<u8, Trouble> {
    let look = opened::look(invocation)?;
    let stack = invocation.stack();
    if look.state.outputs.is_null() {
        return Err(Trouble::new(format!("stack {stack} has no outputs")).hint("they are there after a complete `up`"));
    }
    let shown = |value: &Value| {
        if arguments.show_secrets {
            let failed = |why| Trouble::new(format!("failed to open the secrets of stack {stack}")).because(why);
            reveal(value, &look.vault).map_err(failed)
        } else {
            Ok(redact(value))
        }
    };
    let screen = &invocation.screen;
    let value = match &arguments.name {
        None => shown(&look.state.outputs)?,
        Some(name) => match look.state.outputs.get(name) {
            Some(value) => shown(value)?,
            None => return Err(unknown(name, &look.state.outputs)),
        },
    };
    if arguments.raw {
        screen.exactly(show::text(&value).as_bytes());
    } else if screen.json() {
        screen.exactly(format!("{value}\n").as_bytes());
    } else if arguments.name.is_some() {
        let text = show::text(&value);
        screen.result(&format!("{}\n", text.trim_end_matches('\n')));
    } else if value.is_object() {
        show::outputs(screen, &value);
    } else {
        screen.result(&format!("{}\n", show::text(&value)));
    }
    Ok(0)
}

fn unknown(name: &str, outputs: &Value) -> Trouble {
    let names: Vec<&str> = outputs.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    let trouble = Trouble::new(format!("there is no output {name:?}"));
    match names.is_empty() {
        false => trouble.hint(format!("there are {}", names.join(", "))),
        true => trouble.hint("the program returns none by name"),
    }
}

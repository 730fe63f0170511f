//! A secret is wired into an input that is stored in clear.

use lab_core::Stack;
use lab_core::testing::{Memory, Thing};

fn program(stack: &Stack) {
    let rack = stack.provider("rack", Memory::at("rack"));
    let a = rack.resource("a").add(Thing::new("a", "x"));
    rack.resource("b").add(Thing::new("b", a.output(|a| a.key)));
}

fn main() {}

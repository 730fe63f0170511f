//! Something is declared once a value is known: what exists would depend on what is learned while applying.

use lab_core::Stack;
use lab_core::testing::{Memory, Thing};

fn program(stack: &Stack) {
    let rack = stack.provider("rack", Memory::at("rack"));
    let a = rack.resource("a").add(Thing::new("a", "x"));
    let _ = a.output(|a| rack.resource(&a.text).add(Thing::new("b", "x")).urn().clone());
}

fn main() {}

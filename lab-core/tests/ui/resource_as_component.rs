//! A resource is added as a component.

use lab_core::Stack;
use lab_core::testing::{Memory, Thing};

fn program(stack: &Stack) {
    let rack = stack.provider("rack", Memory::at("rack"));
    rack.component("it").add(Thing::new("it", "x"));
}

fn main() {}

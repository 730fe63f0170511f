//! `.add` is forgotten.

#![deny(unused_must_use)]

use lab_core::Stack;
use lab_core::testing::Memory;

fn program(stack: &Stack) {
    let rack = stack.provider("rack", Memory::at("rack"));
    rack.resource("it").protect(true);
    rack.component("them");
}

fn main() {}

#![no_main]

#[path = "../../lab-cli/tests/fuzz/read.rs"]
#[expect(dead_code, reason = "the seeds are for another program")]
mod read;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| read::read(text));

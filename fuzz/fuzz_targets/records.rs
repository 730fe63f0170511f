#![no_main]

use lab_core::testing::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(target) = fuzz::target("records") {
        (target.run)(bytes);
    }
});

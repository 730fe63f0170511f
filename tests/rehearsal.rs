//! `cargo run --example homelab`, in this process: every resource is created, a second plan is empty, and what was
//! simulated is said plainly.

use lab::{Lab, Surroundings};

#[allow(dead_code, reason = "its `main` is not called here")]
#[path = "../examples/homelab.rs"]
mod example;

#[test]
fn the_home_lab_is_rehearsed_whole() {
    let (surroundings, transcript) = Surroundings::captured();
    let lab = Lab::new("homelab", example::homelab).hardware(example::rack()).rehearse_by_default();
    let exit = lab.run_with(["homelab"], surroundings);
    let said = transcript.out();
    assert_eq!(exit, 0, "{said}\n{}", transcript.err());
    assert!(said.contains("nothing of this is real"), "{said}");
    assert!(said.contains("10.69.1.101"), "{said}");
    assert!(said.contains("nothing to do"), "{said}");
}

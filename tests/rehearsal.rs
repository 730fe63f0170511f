//! `cargo run --example homelab`, in this process: every resource is created, a second plan is empty, and what was
//! simulated is said plainly. And the way back.

mod homelab;

use homelab::{HomeLab, example};
use lab::plan::Verb;
use lab::{Lab, Surroundings, sim};

#[test]
fn the_home_lab_is_rehearsed_whole() {
    let (surroundings, transcript) = Surroundings::captured();
    let lab = Lab::new("homelab", example::homelab).hardware(example::rack()).rehearse_by_default();
    let exit = lab.run_with(["homelab"], surroundings);
    let said = transcript.out();
    assert_eq!(exit, 0, "{said}\n{}", transcript.err());
    assert!(said.contains("nothing of this is real"), "{said}");
    assert!(said.contains("10.69.1.101"), "{said}");
    assert!(said.contains("The second plan is empty"), "{said}");
}

#[test]
fn destroying_the_home_lab_leaves_machines_in_maintenance_and_nothing_else() {
    let lab = HomeLab::new(sim::Options::default());
    lab.run_whole(Verb::Up).expect("up");
    lab.run_whole(Verb::Destroy).expect("destroy");
    let world = lab.world();
    assert_eq!(world["clusters"].as_array().map(Vec::len), Some(0), "{}", world["clusters"]);
    let machines = world["machines"].as_object().expect("machines");
    assert_eq!(machines.len(), 6);
    for (address, machine) in machines {
        assert_eq!(machine["stage"], "maintenance", "{address}: {machine}");
        assert!(machine["config"].is_null() && machine["etcd"].is_null(), "{address}: {machine}");
    }
    let plan = lab.second_plan().expect("a plan");
    assert_eq!(plan.steps.len(), 100, "everything is to be made again:\n{}", lab::plan::text(&plan));
}

//! The MicroK8s environment dev with a real control plane in its machines. Without one this test says so and passes;
//! `tests/control-plane/README.md` says how to get one.

mod microk8s;
mod real;

use lab::plan::Verb;
use lab::sim;
use microk8s::Dev;

#[test]
fn a_microk8s_environment_comes_up_on_a_real_control_plane() {
    let Some(assets) = real::assets("a_microk8s_environment_comes_up_on_a_real_control_plane") else { return };
    // What real processes need, they need of the machines' time, too: a deadline of theirs is no shorter than here.
    let dev = Dev::new(sim::Options { speed: 40, control_plane: Some(assets), ..sim::Options::default() });
    dev.run_whole(Verb::Up).unwrap();
    let world = dev.settled().unwrap();
    // An account that only a real controller manager has.
    assert!(world.iter().any(|line| line.contains("deployment-controller")), "{world:#?}");
    dev.run_whole(Verb::Destroy).unwrap();
    assert_eq!(dev.world()["clusters"].as_array().map(Vec::len), Some(0));
}

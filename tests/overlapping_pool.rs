//! The lab's own document gives worker 1 the address 10.69.1.151 and MetalLB the addresses 10.69.1.150 to .160. The
//! plan is refused before anything is touched, naming both sides and both lines.

use lab::addons::MetalLb;
use lab::kube::Kubernetes;
use lab::prelude::*;
use lab::talos::{self, KubernetesVersion, Talos, TalosVersion};
use lab::testing::Bench;

fn as_first_written(stack: &Stack) -> Result<(), ProgramError> {
    let lan = Subnet::new("10.69.1.0/24")?.gateway("10.69.1.1")?;
    let metal = stack.provider("metal", Talos::default());
    let cluster = metal.component("homelab").add(talos::Cluster {
        control_plane: vec![lan.host("talos-cp-1", 101)?],
        workers: vec![lan.host("talos-work-1", 151)?, lan.host("talos-work-2", 197)?],
        install_disk: "/dev/nvme0n1".into(),
        ..talos::Cluster::new(TalosVersion::V1_11, KubernetesVersion::V1_34, "https://10.69.1.101:6443")
    });
    let k8s = stack.provider("k8s", Kubernetes::inside(&cluster.container(), cluster.kubeconfig()));
    k8s.component("metallb").add(MetalLb::new(lan.range(150, 160)?));
    Ok(())
}

#[test]
fn a_pool_that_holds_a_machine_is_refused_with_both_lines() {
    let plan = Bench::new().named("homelab").preview(as_first_written);
    let problems: Vec<String> = plan.problems.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(problems.join("\n"), @"address 10.69.1.150-10.69.1.160 of metallb/pool overlaps address 10.69.1.151 of homelab/talos-work-1 (tests/overlapping_pool.rs:20, tests/overlapping_pool.rs:15); give one of them another place");
}

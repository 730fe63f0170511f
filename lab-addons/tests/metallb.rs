//! MetalLB: in which order it comes, and what it occupies.

mod cluster;

use cluster::{declare, things};
use lab_addons::{Install, MetalLb};
use lab_core::model::{Declared, Subnet};
use lab_core::plan::render_graph;

fn metallb(install: Install) -> Declared {
    declare(|k8s| {
        let pool = Subnet::new("10.69.1.0/24").unwrap().range(200, 210).unwrap();
        k8s.component("metallb").add(MetalLb { install, ..MetalLb::new(pool) });
    })
}

/// The graph without the bodies, which are long and not what this is about.
fn graph(declared: &Declared) -> String {
    let graph = render_graph(declared);
    let lines = graph.lines().filter(|line| !line.trim_start().starts_with('{'));
    lines.map(|line| line.replace("kubernetes:object ", "")).collect::<Vec<_>>().join("\n")
}

#[test]
fn an_installed_one_comes_in_the_order_that_a_cluster_needs() {
    insta::assert_snapshot!(graph(&metallb(Install::Native)), @r"
    stack homelab
      metallb/namespace on k8s
      metallb/kinds/bfdprofiles on k8s
      metallb/kinds/bgpadvertisements on k8s
      metallb/kinds/bgppeers on k8s
      metallb/kinds/communities on k8s
      metallb/kinds/ipaddresspools on k8s
      metallb/kinds/l2advertisements on k8s
      metallb/kinds/servicel2statuses on k8s
          after metallb/kinds/bfdprofiles
          after metallb/kinds/bgpadvertisements
          after metallb/kinds/bgppeers
          after metallb/kinds/communities
          after metallb/kinds/ipaddresspools
          after metallb/kinds/l2advertisements
      metallb/controller/account on k8s
          after metallb/namespace
      metallb/controller/role on k8s
          after metallb/namespace
      metallb/controller/binding on k8s
          after metallb/controller/account
          after metallb/controller/role
          after metallb/namespace
      metallb/controller/cluster-role on k8s
          after metallb/namespace
      metallb/controller/cluster-binding on k8s
          after metallb/controller/binding
          after metallb/controller/cluster-role
          after metallb/namespace
      metallb/controller on k8s
          after metallb/controller/cluster-binding
          after metallb/kinds/servicel2statuses
      metallb/speaker/account on k8s
          after metallb/namespace
      metallb/speaker/role on k8s
          after metallb/namespace
      metallb/speaker/binding on k8s
          after metallb/speaker/account
          after metallb/speaker/role
          after metallb/namespace
      metallb/speaker/cluster-role on k8s
          after metallb/namespace
      metallb/speaker/cluster-binding on k8s
          after metallb/speaker/binding
          after metallb/speaker/cluster-role
          after metallb/namespace
      metallb/excluded on k8s
          after metallb/namespace
      metallb/speaker on k8s
          after metallb/speaker/cluster-binding
          after metallb/controller
          after metallb/excluded
      metallb/pool on k8s
          after metallb/controller
      metallb/advertisement on k8s
          after metallb/pool
          after metallb/speaker
    ");
}

#[test]
fn of_an_existing_one_only_the_pool_and_its_advertisement_are_declared() {
    let things = things(&metallb(Install::Existing));
    let names: Vec<&str> = things.iter().map(|thing| thing.name.as_str()).collect();
    assert_eq!(names, ["IPAddressPool metallb-system/lan", "L2Advertisement metallb-system/lan"]);
    assert_eq!(things[0].body["spec"]["addresses"][0], "10.69.1.200-10.69.1.210");
}

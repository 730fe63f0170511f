//! `cargo run --example microk8s -- --env production rehearse`, in this process: dev, staging and production from nothing
//! to ready, in one lab directory and on one rack, each with what it takes over from the one before.

#[path = "../examples/microk8s.rs"]
#[expect(dead_code, reason = "its `main` is for people")]
mod example;
mod simulated;

use lab::{Lab, Surroundings, sim};
use simulated::{Desk, Simulated};

#[test]
fn the_three_environments_are_rehearsed_side_by_side() {
    let (surroundings, transcript) = Surroundings::captured();
    let lab = Lab::environments("microk8s", example::microk8s).configuration("examples/microk8s/{env}.toml");
    let lab = lab.hardware(example::rack());
    let exit = lab.run_with(["microk8s", "--env", "production", "rehearse"], surroundings);
    let said = transcript.out();
    assert_eq!((exit, transcript.err().as_str()), (0, ""), "{said}");
    for line in [
        "Rehearsal: nothing of this is real.",
        "  pve1, 192.168.1.11: a host of the Proxmox cluster pve with 32 cores, 128 GiB",
        "microk8s-production takes over from microk8s-staging, which is rehearsed first.",
        "microk8s-staging takes over from microk8s-dev, which is rehearsed first.",
        "  + microk8s:kubeconfig microk8s/kubeconfig created",
        "  + kubernetes:object issuer/issuer created",
    ] {
        assert!(said.lines().any(|said| said == line), "{line}: {said}");
    }
    for stack in ["microk8s-dev", "microk8s-staging", "microk8s-production"] {
        assert!(said.contains(&format!("The second plan of {stack} is empty")), "{stack}: {said}");
    }
}

/// The simulated hosts cannot show the certificates of anybody's own.
#[test]
fn an_environment_that_pins_hosts_of_ones_own_is_rehearsed_all_the_same() {
    let desk = Desk::new();
    let text = std::fs::read_to_string("examples/microk8s/dev.toml").unwrap();
    let own: String = text
        .lines()
        .map(|line| match line.trim().strip_prefix('"') {
            Some(pin) if pin.matches(':').count() == 31 => format!("    \"00{}\n", &pin[2..]),
            Some(_) | None => format!("{line}\n"),
        })
        .collect();
    assert_eq!(own.matches("\"00:").count(), 3, "{own}");
    std::fs::write(desk.path("dev.toml"), own).unwrap();
    let pattern = desk.path("{env}.toml").display().to_string();
    let lab = || Lab::environments("microk8s", example::microk8s).configuration(&pattern).hardware(example::rack());
    let (surroundings, transcript) = Surroundings::captured();
    let exit = lab().run_with(["microk8s", "--env", "dev", "rehearse"], surroundings);
    let said = transcript.out();
    assert_eq!((exit, transcript.err().as_str()), (0, ""), "{said}");
    assert!(said.contains("The second plan is empty"), "{said}");
    // Whatever is no rehearsal meets the same hosts and refuses them.
    let there = Simulated::start(&example::rack(), sim::Options::default());
    let ran = desk.run(&there, &lab(), "up --yes --env dev");
    assert_ne!(ran.exit, 0);
    assert!((ran.out + &ran.err).contains("which is not a pinned one"));
    assert_eq!(there.world()["proxmox"][0]["machines"], serde_json::json!({}));
}

#[test]
fn a_clash_with_what_stands_in_the_same_rack_is_refused_with_both_sides() {
    let (there, desk) = (Simulated::start(&example::rack(), sim::Options::default()), Desk::new());
    let pattern = desk.path("{env}.toml").display().to_string();
    let write = |env: &str, edit: &dyn Fn(String) -> String| {
        let text = std::fs::read_to_string(format!("examples/microk8s/{env}.toml")).unwrap();
        std::fs::write(desk.path(&format!("{env}.toml")), edit(text)).unwrap();
    };
    write("dev", &|text| text);
    let lab = || Lab::environments("microk8s", example::microk8s).configuration(&pattern);
    write("staging", &|text| text);
    let ran = desk.run(&there, &lab(), "up --yes --env dev");
    assert_eq!((ran.exit, ran.err.as_str()), (0, ""), "{}", ran.out);
    let machines = || there.world()["proxmox"][0]["machines"].clone();
    let before = machines();
    let clashes: [(&dyn Fn(String) -> String, &str); 3] = [
        (&|text| text.replace("vmid = 12002", "vmid = 11002"), "VM id 11002 of microk8s/staging-2"),
        (&|text| text.replace("name = \"staging-2\"", "name = \"dev-2\""), "host name dev-2 of microk8s/dev-2"),
        (&|text| text.replace("192.168.20.", "192.168.10."), "address 192.168.10.22 of microk8s/staging-2"),
    ];
    for (edit, side) in clashes {
        write("staging", edit);
        let ran = desk.run(&there, &lab(), "up --yes --env staging");
        assert_eq!(ran.exit, 1, "{}", ran.out);
        assert!(ran.err.contains("nothing was changed"), "{}", ran.err);
        for told in [side, "microk8s/dev-2 in stack microk8s-dev", "DIR/dev.toml:42", "DIR/staging.toml:43"] {
            assert!(ran.out.contains(told), "{told}: {}", ran.out);
        }
    }
    assert_eq!(machines(), before, "nothing was done");
    // Without a clash it stands beside the other, which is as it was.
    write("staging", &|text| text);
    let ran = desk.run(&there, &lab(), "up --yes --env staging");
    assert_eq!((ran.exit, ran.err.as_str()), (0, ""), "{}", ran.out);
    for env in ["dev", "staging"] {
        let ran = desk.run(&there, &lab(), &format!("preview --refresh --exit-code --env {env}"));
        assert_eq!((ran.exit, ran.err.as_str()), (0, ""), "{}", ran.out);
    }
    assert_eq!(machines().as_object().map(serde_json::Map::len), Some(6));
}

//! A home lab, whole: six mini PCs become a Talos cluster, and the cluster gets addresses, certificates, storage,
//! monitoring and Plex. Without arguments it is rehearsed on simulated hardware; `-- --help` shows the rest.

use lab::addons::monitoring::Grafana;
use lab::addons::{CertManager, ClusterIssuer, LocalPath, MetalLb, Monitoring, NfsCsi, Traefik, nfs};
use lab::kube::Kubernetes;
use lab::plex::Plex;
use lab::prelude::*;
use lab::sim::{Contents, Disk, Machine, Rack, gigabytes};
use lab::talos::{self, KubernetesVersion, Talos, TalosVersion};

fn main() -> ExitCode {
    Lab::new("homelab", homelab).hardware(rack()).rehearse_by_default().run()
}

/// What the lab yields: `cargo run --example homelab -- output`.
#[derive(Serialize)]
pub(crate) struct Homelab {
    kubeconfig: Output<Secret<String>>,
    talosconfig: Output<Secret<String>>,
    plex: Input<String>,
}

pub(crate) fn homelab(stack: &Stack) -> Result<Homelab, ProgramError> {
    let lan = Subnet::new("10.69.1.0/24")?.gateway("10.69.1.1")?;

    // Bare metal: three control planes, three workers. Installing wipes their disks, and the plan says so.
    let metal = stack.provider("metal", Talos::default());
    let cluster = metal.component("homelab").add(talos::Cluster {
        control_plane: vec![lan.host("talos-cp-1", 101)?, lan.host("talos-cp-2", 140)?, lan.host("talos-cp-3", 147)?],
        workers: vec![lan.host("talos-work-1", 151)?, lan.host("talos-work-2", 197)?, lan.host("talos-work-3", 179)?],
        install_disk: "/dev/nvme0n1".into(),
        ..talos::Cluster::new(
            TalosVersion::V1_11.patch(2),
            KubernetesVersion::V1_34.patch(1),
            "https://10.69.1.101:6443",
        )
    });

    // Everything declared on it lives inside that cluster. Nothing connects before the cluster exists.
    let k8s = stack.provider("k8s", Kubernetes::inside(&cluster.container(), cluster.kubeconfig()));

    // Addresses on the LAN, the way in, and certificates.
    let metallb = k8s.component("metallb").add(MetalLb::new(lan.range(200, 210)?));
    let ingress = k8s
        .component("ingress")
        .depends_on(&metallb.ready)
        .add(Traefik { address: Some(lan.address(200)?), ..Traefik::new() });
    let certificates = k8s.component("certificates").add(CertManager::new());
    k8s.component("issuer").depends_on(&certificates.ready).add(ClusterIssuer::authority("homelab"));

    // Storage: the nodes' own disks for databases, the NAS for media.
    let disks = k8s.component("disks").add(LocalPath::new());
    let driver = k8s.component("nfs").add(NfsCsi::new());
    let media = k8s.resource("media").depends_on(&driver.ready).add(nfs::storage_class("10.69.1.163", "/mnt/media"));

    let password = std::env::var("GRAFANA_PASSWORD").unwrap_or_else(|_| "change me".into());
    k8s.component("monitoring").depends_on(&ingress.class).add(Monitoring {
        days: 30,
        host: Some("prometheus.k8s.local".into()),
        grafana: Some(Grafana { host: Some("grafana.k8s.local".into()), ..Grafana::new(Secret::new(password)) }),
        ..Monitoring::new(disks.output(|class| class.name))
    });

    let plex = k8s.component("plex").depends_on(&metallb.ready).depends_on(&ingress.class).add(Plex {
        config_class: disks.output(|class| class.name).into(),
        claim: std::env::var("PLEX_CLAIM").ok().map(Secret::new),
        address: Some(lan.address(201)?),
        host: Some("plex.k8s.local".into()),
        open_to: vec![lan.to_string()],
        ..Plex::new(media.output(|class| class.name))
    });

    Ok(Homelab { kubeconfig: cluster.kubeconfig(), talosconfig: cluster.talosconfig(), plex: plex.url() })
}

/// The hardware that a rehearsal simulates: told by hand, never derived from the program above. A machine that is not
/// in the rack does not answer.
pub(crate) fn rack() -> Rack {
    let ser5 = |name: &str, host: u8| Machine {
        name: Some(name.into()),
        disks: vec![Disk::nvme("/dev/nvme0n1", gigabytes(500))],
        memory: gigabytes(32),
        cores: 16,
        holds: Contents::Windows,
        ..Machine::new([10, 69, 1, host].into())
    };
    Rack::new()
        .machine(ser5("Beelink SER5, top left", 101))
        .machine(ser5("Beelink SER5, top right", 140))
        .machine(ser5("Beelink SER5, middle left", 147))
        .machine(ser5("Beelink SER5, middle right", 151))
        .machine(ser5("Beelink SER5, bottom left", 197))
        .machine(ser5("Beelink SER5, bottom right", 179))
        .nfs([10, 69, 1, 163].into(), ["/mnt/media"])
}

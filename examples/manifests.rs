//! Manifests that somebody else has published, a resource for each object, and an object of the kind that they define, as
//! a type of one's own. Without arguments it is rehearsed on simulated hardware.

use lab::Asset;
use lab::kube::crds::Metadata;
use lab::kube::{Kubernetes, ManifestBundle, Object};
use lab::prelude::*;
use lab::sim::{Disk, Machine, Rack, gigabytes};
use lab::talos::{self, KubernetesVersion, Talos, TalosVersion};

/// A guest book: one's own kind is a struct with the fields that are set, and whatever serialises will do.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct GuestBook {
    api_version: String,
    kind: String,
    metadata: Metadata,
    spec: Pages,
}

/// What a guest book is to be like.
#[derive(Clone, Serialize, Deserialize)]
struct Pages {
    title: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pages: Option<u32>,
}

impl GuestBook {
    fn new(metadata: Metadata, spec: Pages) -> GuestBook {
        GuestBook { api_version: "example.org/v1".into(), kind: "GuestBook".into(), metadata, spec }
    }
}

fn guestbooks(stack: &Stack) -> Result<(), ProgramError> {
    let lan = Subnet::new("10.69.1.0/24")?.gateway("10.69.1.1")?;
    let cluster = stack.provider("metal", Talos::default()).component("cluster").add(talos::Cluster {
        control_plane: vec![lan.host("cp-1", 101)?],
        workers: vec![lan.host("work-1", 151)?],
        install_disk: "/dev/nvme0n1".into(),
        ..talos::Cluster::new(
            TalosVersion::V1_11.patch(2),
            KubernetesVersion::V1_34.patch(1),
            "https://10.69.1.101:6443",
        )
    });
    let k8s = stack.provider("k8s", Kubernetes::inside(&cluster.container(), cluster.kubeconfig()));

    // Here the executable holds it. From a release it would be `stack.asset("https://...", "sha256:...")`, fetched once;
    // from a file `stack.file("guestbook.yaml")`.
    let manifest = Asset::given("guestbook.yaml", include_str!("manifests/guestbook.yaml"));
    let password = std::env::var("GUESTBOOK_PASSWORD").unwrap_or_else(|_| "better than published".into());
    let operator = k8s.component("operator").add(
        ManifestBundle::new(manifest)
            .image("registry.example.org", "registry.home.arpa")
            .set("Deployment guestbooks/operator", "/spec/replicas", 2)
            .secret("Secret guestbooks/operator", "/stringData/password", Secret::new(password)),
    );

    let hall =
        GuestBook::new(Metadata::new("guestbooks", "hall"), Pages { title: "Who was here".into(), pages: Some(200) });
    // What is known only later is set by path, whatever the type.
    let host = operator.object("Service guestbooks/operator")?.output(|service| service.address);
    k8s.resource("hall").depends_on(&operator).add(Object::new(hall).set("/spec/host", host));
    Ok(())
}

fn rack() -> Rack {
    let machine = |host: u8| Machine {
        disks: vec![Disk::nvme("/dev/nvme0n1", gigabytes(500))],
        ..Machine::new([10, 69, 1, host].into())
    };
    Rack::new().machine(machine(101)).machine(machine(151))
}

fn main() -> ExitCode {
    Lab::new("guestbooks", guestbooks).hardware(rack()).rehearse_by_default().run()
}

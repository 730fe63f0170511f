//! A program with every resource there is, as it is made and as it is changed.

use super::{IMAGE, SHA256, cluster, proxmox};
use lab_core::{Handle, Input, ProgramError, Resource, Scope, Secret, Stack};
use lab_proxmox::{
    Affinity, BackupJob, BackupServer, Capacity, CloudInit, Disk, Gib, HighAvailability, Image, Keep, Mac, Mib,
    Network, Pool, Proxmox, Rule, Segment, Slot, Snapshot, Source, Vm,
};
use lab_sim::proxmox::{Cluster, Guest, System};
use std::collections::{BTreeMap, BTreeSet};

/// The cluster with a template, and a machine of somebody else's with a disk and one that is detached.
pub(crate) fn inhabited() -> Cluster {
    let guest = |id: u32, node: &str, config: &[(&str, &str)]| Guest {
        id,
        node: node.into(),
        config: config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        system: System::Ubuntu("24.04".into()),
        on: false,
    };
    Cluster {
        guests: vec![
            guest(
                9001,
                "pve1",
                &[("name", "noble"), ("template", "1"), ("scsi0", "nas:9001/base-9001-disk-0.qcow2,size=4G")],
            ),
            guest(
                300,
                "pve2",
                &[
                    ("name", "photos"),
                    ("scsi0", "nas:300/vm-300-disk-0.qcow2,size=64G"),
                    ("unused0", "local-zfs:vm-300-disk-1"),
                ],
            ),
        ],
        ..cluster()
    }
}

fn add<R: Resource<Proxmox>>(pve: &Scope<'_, Proxmox>, name: &str, resource: R) -> Handle<R::Outputs> {
    pve.resource(name).add(resource)
}

fn program(stack: &Stack, later: bool) -> Result<(), ProgramError> {
    let pve = &stack.provider("pve", proxmox());
    let either = |first: &str, then: &str| if later { then.to_owned() } else { first.to_owned() };
    add(pve, "room-1", Capacity::new("pve1", 16, Mib(65536)));
    add(pve, "shop", Segment::new("vmbr0", Some(110), lab_core::Subnet::new("192.168.10.0/24")?));
    let [shop, mail] = ["shop", "mail"].map(|name| {
        let pool = add(pve, name, Pool { comment: either("", "what sells"), ..Pool::new(name) });
        pool.output(|pool| pool.name)
    });
    let image = add(pve, "image", Image::new("pve1", "local", "noble.qcow2", IMAGE, SHA256));
    let user_data = Secret::new(format!("#cloud-config\nruncmd: [[echo, {}]]\n", either("one", "two")));
    let seed = add(pve, "seed", CloudInit::new("pve1", "local", "shop-1", user_data));

    let disk = Disk::from_image("local-zfs", Gib(if later { 40 } else { 20 }), image.output(|image| image.volume));
    let network = Network { vlan: Some(110), ..Network::new("vmbr0", Mac::derived("shop-1")) };
    let first = add(
        pve,
        "first",
        Vm {
            disks: BTreeMap::from([(Slot::scsi(0), disk)]),
            networks: vec![network],
            iso: Some(seed.output(|seed| seed.volume).into()),
            pool: Some(if later { mail } else { shop }.into()),
            ..Vm::new(1101, "shop-1", "pve1", 2, Mib(if later { 4096 } else { 2048 }))
        },
    );
    let mut disks = BTreeMap::from([(Slot::scsi(0), Disk::new("nas", Gib(8)))]);
    disks.insert(Slot::scsi(if later { 2 } else { 1 }), Disk::new("nas", Gib(2)));
    let second = add(pve, "second", Vm { disks, ..Vm::new(1102, "shop-2", "pve2", 1, Mib(1024)) });
    let third = add(
        pve,
        "third",
        Vm {
            source: Source::Template { vmid: 9001, full: None },
            disks: BTreeMap::from([(Slot::scsi(0), Disk::new("nas", Gib(10)))]),
            description: either("", "cloned"),
            ..Vm::new(1103, "shop-3", "pve3", 1, Mib(1024))
        },
    );
    let name = either("fresh", "again");
    add(pve, "before", Snapshot::new(first.output(|vm| vm.vmid), name));

    let password = Secret::new(either("one", "two"));
    let server = BackupServer::new("vault", "10.0.0.9", "homelab", "backup@pbs", password);
    let nodes = if later { BTreeSet::from(["pve1".to_owned()]) } else { BTreeSet::new() };
    let vault = add(pve, "vault", BackupServer { nodes, ..server });
    let vms: Vec<Input<u32>> = vec![first.output(|vm| vm.vmid).into(), second.output(|vm| vm.vmid).into()];
    let job = BackupJob::new("nightly", vault.output(|vault| vault.storage), either("02:30", "03:30"), vms);
    add(pve, "nightly", BackupJob { keep: Keep { daily: 7, ..Keep::default() }, ..job });
    let mut kept = Vec::new();
    for (name, vm) in [("kept-2", &second), ("kept-3", &third)] {
        let max_restart = if later { 3 } else { 1 };
        let ha = HighAvailability { max_restart, ..HighAvailability::new(vm.output(|vm| vm.vmid)) };
        kept.push(add(pve, name, ha).output(|ha| ha.vmid).into());
    }
    add(pve, "spread", Rule { comment: either("", "one host each"), ..Rule::new("spread", Affinity::Apart, kept) });
    Ok(())
}

/// Everything, as it is made.
pub(crate) fn made(stack: &Stack) -> Result<(), ProgramError> {
    program(stack, false)
}

/// Everything, changed.
pub(crate) fn changed(stack: &Stack) -> Result<(), ProgramError> {
    program(stack, true)
}

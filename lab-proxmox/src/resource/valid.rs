//! Every request that can be made is one that the API has: its path, the names of its parameters, their types.

use super::entry::{Entry, Params};
use super::*;
use crate::mark;
use crate::provider::Fingerprint;
use crate::request::{self, File, Method, Request, vm::Power};
use crate::size::{Gib, Mib};
use crate::slot::Slot;
use lab_core::Secret;
use std::collections::{BTreeMap, BTreeSet};

const MARK: &str = "0123456789abcdef0123456789abcdef";
const NODE: &str = "pve-1";
const UPID: &str = "UPID:pve-1:0003A4F2:01B2C3D4:66A0B1C2:qmcreate:110:lab@pve!lab:";
/// The digest that a configuration was read with.
const READ: &str = "da39a3ee5e6b4b0d3255bfef95601890afd80709";
const DIGEST: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

#[track_caller]
fn check(request: &Request) {
    // What is empty does not arrive.
    assert!(request.params.iter().all(|(_, value)| !value.is_empty()), "{request}: {:?}", request.params);
    let body = matches!(request.method, Method::Post | Method::Put);
    let mut form = if body { request.form() } else { String::new() };
    if let Some(file) = &request.file {
        form.push_str(&format!("&filename={}", request::encode(&file.name)));
    }
    let valid = lab_sim::proxmox::valid(request.method.name(), &request.target(), &form);
    assert_eq!(valid, Ok(()), "{request} with {:?}", request.params);
}

#[test]
fn what_is_no_request_of_the_api_is_refused() {
    let refused = |request: Request| {
        let form = request.form();
        lab_sim::proxmox::valid(request.method.name(), &request.target(), &form).unwrap_err()
    };
    assert!(refused(Request::get("/nodez")).contains("there is no call"));
    assert!(refused(Request::put("/pools")).contains("poolid"));
    assert!(refused(Request::put("/pools").with("poolid", "a").with("colour", "red")).contains("colour"));
    assert!(refused(request::vm::create(NODE, 99, None, &[])).contains("vmid"));
    let keys = [("net0".to_owned(), "virtio,bridge=vmbr0,tag=5000".to_owned())];
    assert!(refused(request::vm::create(NODE, 110, None, &keys)).contains("4094"));
}

/// Every function of [`request`] that makes one, by its name, with what it makes at its limits.
fn plain() -> Vec<(&'static str, Vec<Request>)> {
    use request::{pool, storage, task, vm};
    let clone = vm::Clone {
        node: NODE,
        template: 9000,
        vmid: 999_999_999,
        name: "dev-1.lab.example",
        description: "managed by lab: 0\nand more; a=b, c",
        target: None,
        full: false,
        storage: None,
        pool: None,
    };
    let full = vm::Clone {
        full: true,
        storage: Some("local-lvm"),
        target: Some("pve2"),
        pool: Some("shop/front/a"),
        ..clone.clone()
    };
    let file = File { name: "shop-1.iso".into(), content: vec![0; 4] };
    let (set, delete) = ([("memory".to_owned(), "16".to_owned())], ["net3".to_owned(), "startup".to_owned()]);
    let powers = [Power::Start, Power::Stop, Power::Shutdown(120), Power::Reboot(0)];
    vec![
        ("version", vec![request::version()]),
        ("nodes", vec![request::nodes()]),
        ("vm::list", vec![vm::list()]),
        ("vm::free", vec![vm::free(100)]),
        ("vm::config", vec![vm::config(NODE, 100)]),
        ("vm::pending", vec![vm::pending(NODE, 100)]),
        ("vm::status", vec![vm::status(NODE, 100)]),
        ("vm::create", vec![vm::create(NODE, 100, Some("shop"), &set), vm::create(NODE, 999_999_999, None, &[])]),
        ("vm::clone", vec![vm::clone(&clone), vm::clone(&full)]),
        (
            "vm::configure",
            vec![vm::configure(NODE, 100, READ, &set, &delete), vm::configure(NODE, 100, READ, &set, &[])],
        ),
        ("vm::resize", vec![vm::resize(NODE, 100, "scsi30", 1 << 40, READ)]),
        ("vm::delete_disk", ["scsi0", "virtio15", "sata5"].map(|disk| vm::delete_disk(NODE, 100, disk)).into()),
        ("vm::power", powers.map(|power| vm::power(NODE, 100, power)).into()),
        ("vm::migrate", [true, false].map(|runs| vm::migrate(NODE, 100, "pve2", runs)).into()),
        ("vm::destroy", vec![vm::destroy(NODE, 100)]),
        ("vm::snapshots", vec![vm::snapshots(NODE, 100)]),
        ("vm::snapshot", [true, false].map(|memory| vm::snapshot(NODE, 100, "before_1", "words\nMARK", memory)).into()),
        ("vm::delete_snapshot", vec![vm::delete_snapshot(NODE, 100, "before_1")]),
        ("vm::rollback", [true, false].map(|start| vm::rollback(NODE, 100, "before_1", start)).into()),
        ("vm::agent_ping", vec![vm::agent_ping(NODE, 100)]),
        ("vm::agent_read", vec![vm::agent_read(NODE, 100, "/var/snap/microk8s/current/credentials/client.config")]),
        (
            "vm::agent_run",
            vec![vm::agent_run(NODE, 100, &["sh", "-c", "a; b && c=d"]), vm::agent_run(NODE, 100, &["a"])],
        ),
        ("vm::agent_ran", vec![vm::agent_ran(NODE, 100, 4711)]),
        ("task::status", vec![task::status(NODE, UPID)]),
        ("task::log", vec![task::log(NODE, UPID, 0), task::log(NODE, UPID, 0).with("limit", 500)]),
        ("pool::list", vec![pool::list(None), pool::list(Some("shop/front"))]),
        ("pool::create", vec![pool::create("shop", "words (MARK)")]),
        ("pool::describe", vec![pool::describe("shop/front", "words (MARK)")]),
        ("pool::join", vec![pool::join("shop", 100)]),
        ("pool::leave", vec![pool::leave("shop", 100)]),
        ("pool::delete", vec![pool::delete("shop/front")]),
        ("storage::content", ["iso", "import", "images"].map(|kind| storage::content(NODE, "local-lvm", kind)).into()),
        ("storage::status", vec![storage::status(NODE, "local")]),
        (
            "storage::download",
            vec![storage::download(NODE, "local", "import", "a.qcow2", "https://example.com/a b.img?x=1&y=2", DIGEST)],
        ),
        ("storage::upload", vec![storage::upload(NODE, "local", "iso", file, DIGEST)]),
        ("storage::delete", vec![storage::delete(NODE, "local", "local:iso/shop-1.iso")]),
        ("storage::define", vec![storage::define("vault").with("nodes", "pve1")]),
        ("storage::definitions", vec![storage::definitions()]),
    ]
}

#[test]
fn every_request_is_one_of_the_api() {
    for (_, requests) in plain() {
        requests.iter().for_each(check);
    }
}

#[test]
fn no_request_is_left_out_here() {
    let mut module = String::new();
    let mut written = BTreeSet::new();
    for line in include_str!("../request.rs").lines() {
        let text = line.trim_start();
        if let Some(name) = text.strip_prefix("pub mod ") {
            module = format!("{}::", name.trim_end_matches(" {"));
        }
        let (Some(rest), true) = (text.strip_prefix("pub fn "), text.contains("-> Request {")) else { continue };
        let name = rest.split('(').next().unwrap_or_default();
        // What begins and adds to any request makes none by itself.
        let builds = module.is_empty() && ["get", "post", "put", "delete", "with", "maybe", "truth"].contains(&name);
        if !builds {
            written.insert(format!("{module}{name}"));
        }
    }
    let checked: BTreeSet<String> = plain().into_iter().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(checked, written);
}

/// Checks everything that is sent about an entry.
fn entry<R: Entry>(entry: &R) {
    let name = entry.name().expect("a name");
    check(&R::list());
    R::item(&name).iter().for_each(check);
    let mut params = entry.wanted();
    if R::COMMENTED {
        params.insert("comment".into(), mark::write_line(entry.comment(), MARK));
    }
    check(&entry.create(&name, params.clone()));
    params.retain(|key, _| !R::fixed().contains(&key.as_str()));
    check(&entry.update(&name, params.clone(), &[]));
    params.retain(|key, _| !R::optional().contains(&key.as_str()));
    check(&entry.update(&name, params.clone(), R::optional()));
    for (key, value) in params {
        check(&entry.update(&name, Params::from([(key, value)]), &[]));
    }
    check(&R::remove(&name));
}

#[test]
fn everything_about_entries_is_of_the_api() {
    for comment in ["", "what; it is=for, in words: ü"] {
        let comment = comment.to_owned();
        entry(&Pool { comment: comment.clone(), ..Pool::new("shop/front") });
        let ha = HighAvailability {
            max_restart: 0,
            max_relocate: 10,
            comment: comment.clone(),
            ..HighAvailability::new(110)
        };
        entry(&ha);
        let nodes = BTreeMap::from([("pve1".to_owned(), 2), ("pve2".to_owned(), 0)]);
        entry(&Group {
            nodes: nodes.clone(),
            restricted: true,
            fail_back: false,
            comment: comment.clone(),
            ..Group::new("shop", ["a"])
        });
        for affinity in [Affinity::Apart, Affinity::Together, Affinity::Nodes { nodes, strict: true }] {
            entry(&Rule { comment: comment.clone(), ..Rule::new("spread_1", affinity, vec![110.into(), 111.into()]) });
        }
        let job = BackupJob::new("nightly-1", "vault".to_owned(), "mon..fri 02:00", vec![110.into(), 111.into()]);
        entry(&job);
        let keep = Keep { daily: 7, weekly: 4, monthly: 12 };
        entry(&BackupJob { keep, enabled: false, schedule: "02:30".into(), comment, ..job });
    }
    let server = BackupServer::new("vault", "10.0.0.9", "homelab", "backup@pbs!lab", Secret::new("a;b&c=d".to_owned()));
    entry(&server);
    let all = BackupServer {
        namespace: Some("shop/front".into()),
        fingerprint: Some(Fingerprint::of(b"a certificate")),
        nodes: BTreeSet::from(["pve1".to_owned(), "pve2".to_owned()]),
        ..server
    };
    entry(&all);
}

#[test]
fn every_configuration_of_a_machine_is_of_the_api() {
    let network = |n: u16| Network {
        vlan: Some(if n == 0 { 1 } else { 4094 }),
        firewall: n > 0,
        mtu: (n > 0).then_some(1500),
        ..Network::new("vmbr0", crate::Mac::derived(&n.to_string()))
    };
    let least = Vm {
        agent: false,
        serial_console: false,
        on_boot: false,
        running: false,
        ..Vm::new(100, "a", NODE, 1, Mib(16))
    };
    let every =
        ["scsi0", "scsi30", "virtio0", "virtio15", "sata0", "sata5"].map(|slot| slot.parse::<Slot>().expect("a slot"));
    let disks = every.into_iter().enumerate().map(|(n, slot)| {
        let plain = slot.bus() != crate::Bus::Virtio;
        let disk = match n {
            0 => Disk::from_image("local-lvm", Gib(100), "local:import/noble.qcow2".to_owned()),
            _ => Disk {
                discard: n % 2 == 0,
                io_thread: slot.bus() != crate::Bus::Sata,
                backup: false,
                ..Disk::new("nas", Gib(1))
            },
        };
        (slot, Disk { ssd: plain, io_thread: disk.io_thread, ..disk })
    });
    let most = Vm {
        sockets: 4,
        cpu: "host".into(),
        balloon: Some(Mib(512)),
        machine: Some("q35".into()),
        disks: disks.collect(),
        networks: (0..32).map(network).collect(),
        iso: Some("local:iso/shop-1.iso".to_owned().into()),
        boot: vec!["scsi0".into(), "ide2".into(), "net0".into()],
        tags: BTreeSet::from(["k8s".to_owned(), "Dev_1.x+y-z".to_owned()]),
        description: "words; and=more, in\ntwo lines ü".into(),
        startup: Some(Startup { order: 1, up: Some(30), down: Some(60) }),
        protection: true,
        ..Vm::new(999_999_999, "shop-1.lab.example", NODE, 128, Mib(1 << 20))
    };
    let short = Vm { startup: Some(Startup { order: 0, up: None, down: None }), ..most.clone() };
    for machine in [least, most, short] {
        let keys = machine.creation(MARK);
        check(&request::vm::create(NODE, machine.vmid, None, &keys));
        // Each key alone as well, as a change sends it: with what others set beside it.
        for (key, wanted) in machine.keys(MARK) {
            let there = match key.trim_end_matches(|c: char| c.is_ascii_digit()) {
                "net" => Some("virtio=BC:24:11:00:00:01,bridge=vmbr9,rate=5,queues=2,link_down=1"),
                "ide" => Some("local:iso/other.iso,media=cdrom,size=374K"),
                "agent" => Some("1,fstrim_cloned_disks=1"),
                "cpu" => Some("cputype=kvm64,flags=+aes"),
                "vga" => Some("type=std,memory=32"),
                _ => None,
            };
            let merged = super::vm::merged(&key, &wanted, there);
            check(&request::vm::configure(NODE, machine.vmid, READ, &[(key.clone(), merged)], &[]));
            if !["name", "description"].contains(&key.as_str()) {
                let set = [("onboot".to_owned(), "1".to_owned())];
                let set = if key == "onboot" { &[][..] } else { &set[..] };
                check(&request::vm::configure(NODE, machine.vmid, READ, set, &[key]));
            }
        }
        for (slot, disk) in &machine.disks {
            let wanted = crate::property::print(&disk.options(), "file");
            let there = "local-lvm:vm-110-disk-0,cache=writeback,size=100G,serial=abc";
            let merged = super::vm::merged(&slot.to_string(), &wanted, Some(there));
            check(&request::vm::configure(NODE, machine.vmid, READ, &[(slot.to_string(), merged)], &[]));
        }
    }
}

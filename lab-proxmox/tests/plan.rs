//! What a plan says before anything is touched: what a change of each field takes, and what clashes.

mod simulated;

use lab_core::plan::{Plan, Verb, text};
use lab_core::{ProgramError, Stack, Subnet};
use lab_proxmox::{Address, Capacity, Disk, Gib, Mac, Mib, Network, Pool, Proxmox, Segment, Slot, Source, Startup, Vm};
use serde_json::Value;
use simulated::{Lab, Program, proxmox};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

type Outcome = Result<(), ProgramError>;

/// What a change takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    /// No call at all.
    Nothing,
    /// A change while the machine runs.
    Live,
    /// A stop and a start.
    Reboot,
    /// A stop.
    Stop,
    /// A moment without network.
    Cut,
    /// Another machine.
    Replacement,
    /// It is refused.
    Refusal,
}

type Edit = fn(&mut Vm);

/// Every field of a machine, what changing it takes, and the words for it.
const FIELDS: [(&str, Edit, Takes, &str); 38] = {
    use Takes::{Cut, Live, Nothing, Reboot, Refusal, Replacement, Stop};
    [
        ("vmid", |vm| vm.vmid = 1299, Replacement, "/vmid: a machine keeps its number for life"),
        ("name", |vm| vm.name = "mail".into(), Live, "/name: taken over while it runs"),
        ("node", |vm| vm.node = "pve2".into(), Nothing, ""),
        ("apart", |vm| vm.apart = Some("shop".into()), Nothing, ""),
        ("pinned", |vm| (vm.pinned, vm.node) = (true, "pve2".into()), Live, "/node: moved while it runs"),
        ("source", |vm| vm.source = Source::Template { vmid: 9000, full: None }, Nothing, ""),
        ("cores", |vm| vm.cores = 4, Reboot, "/cores: the number of cores changes with a reboot"),
        ("sockets", |vm| vm.sockets = 2, Reboot, "/sockets: the number of sockets changes with a reboot"),
        ("cpu", |vm| vm.cpu = "host".into(), Reboot, "/cpu: the kind of processor changes with a reboot"),
        ("memory", |vm| vm.memory = Mib(4096), Reboot, "/memory: the memory changes with a reboot"),
        ("balloon", |vm| vm.balloon = Some(Mib(1024)), Live, "/balloon: taken over while it runs"),
        (
            "balloon",
            |vm| vm.balloon = Some(Mib(0)),
            Reboot,
            "/balloon: the device that takes memory back comes and goes with a reboot",
        ),
        ("machine", |vm| vm.machine = Some("q35".into()), Reboot, "/machine: the machine changes with a reboot"),
        (
            "disks",
            |vm| drop(vm.disks.insert(Slot::scsi(3), Disk::new("local-zfs", Gib(1)))),
            Live,
            "/disks/scsi3: the disk is added while it runs",
        ),
        (
            "disks",
            |vm| drop(vm.disks.remove(&Slot::scsi(1))),
            Live,
            "/disks/scsi1: the disk is taken away and its volume deleted",
        ),
        (
            "disks",
            |vm| disk(vm).size = Gib(16),
            Live,
            "/disks/scsi0/size: grown while it runs; the guest takes the room at its next boot",
        ),
        (
            "disks",
            |vm| disk(vm).size = Gib(4),
            Refusal,
            "a disk cannot shrink: scsi0 of VM 1201 (shop) is 8 GiB, not 4 GiB",
        ),
        ("disks", |vm| disk(vm).storage = "nas".into(), Nothing, ""),
        ("disks", |vm| disk(vm).image = Some("local:import/a.qcow2".to_owned().into()), Nothing, ""),
        ("disks", |vm| disk(vm).discard = false, Reboot, "/disks/scsi0/discard: the guest sees it after a reboot"),
        ("disks", |vm| disk(vm).ssd = false, Reboot, "/disks/scsi0/ssd: the guest sees it after a reboot"),
        ("disks", |vm| disk(vm).io_thread = false, Reboot, "/disks/scsi0/io_thread: the guest sees it after a reboot"),
        ("disks", |vm| disk(vm).backup = false, Live, "/disks/scsi0/backup: taken over while it runs"),
        (
            "networks",
            |vm| vm.networks[0].mac = Mac::derived("other"),
            Cut,
            "/networks/0: another address is another interface: it is unplugged and plugged in again",
        ),
        ("networks", |vm| vm.networks[0].vlan = Some(20), Live, "/networks/0: changed while it runs"),
        (
            "networks",
            |vm| vm.networks.push(Network::new("vmbr0", Mac::derived("second"))),
            Live,
            "/networks/1: the interface is added while it runs",
        ),
        ("networks", |vm| vm.networks.clear(), Live, "/networks/0: the interface is taken away while it runs"),
        ("iso", |vm| vm.iso = Some("none".to_owned().into()), Live, "/iso: the guest reads it at its next boot"),
        ("serial_console", |vm| vm.serial_console = true, Reboot, "/serial_console: the console comes with a reboot"),
        ("agent", |vm| vm.agent = false, Reboot, "/agent: the agent's channel comes and goes with a reboot"),
        ("boot", |vm| vm.boot = vec!["scsi0".into(), "net0".into()], Live, "/boot: taken over while it runs"),
        ("tags", |vm| vm.tags.extend(["new".to_owned()]), Live, "/tags: taken over while it runs"),
        ("pool", |vm| vm.pool = Some("shop".to_owned().into()), Live, "/pool: taken over while it runs"),
        ("description", |vm| vm.description = "mail".into(), Live, "/description: taken over while it runs"),
        ("running", |vm| vm.running = false, Stop, "/running: taken over while it runs"),
        ("on_boot", |vm| vm.on_boot = false, Live, "/on_boot: taken over while it runs"),
        (
            "startup",
            |vm| vm.startup = Some(Startup { order: 1, up: None, down: Some(60) }),
            Live,
            "/startup: taken over while it runs",
        ),
        ("protection", |vm| vm.protection = true, Live, "/protection: taken over while it runs"),
    ]
};

fn disk(vm: &mut Vm) -> &mut Disk {
    vm.disks.get_mut(&Slot::scsi(0)).expect("it has one")
}

fn shop() -> Vm {
    Vm {
        disks: BTreeMap::from([
            (Slot::scsi(0), Disk::new("local-zfs", Gib(8))),
            (Slot::scsi(1), Disk::new("local-zfs", Gib(1))),
        ]),
        networks: vec![Network::new("vmbr0", Mac::derived("shop"))],
        serial_console: false,
        ..Vm::new(1201, "shop", "pve1", 2, Mib(2048))
    }
}

thread_local! {
    /// What the program declares: programs are functions.
    static DECLARED: RefCell<Vec<Vm>> = const { RefCell::new(Vec::new()) };
}

fn declared(stack: &Stack) -> Outcome {
    let pve = stack.provider("pve", proxmox());
    pve.resource("pool").add(Pool::new("shop"));
    DECLARED.with_borrow(|machines| {
        for (n, machine) in machines.iter().enumerate() {
            pve.resource(&format!("machine-{n}")).add(machine.clone());
        }
    });
    Ok(())
}

#[test]
fn every_field_of_a_machine_is_in_the_table() {
    let Value::Object(fields) = serde_json::to_value(shop()).unwrap() else { panic!("a machine is a map") };
    let fields: BTreeSet<&str> = fields.keys().map(String::as_str).collect();
    let table: BTreeSet<&str> = FIELDS.iter().map(|(field, ..)| *field).collect();
    assert_eq!(table, fields);
    let Value::Object(parts) = serde_json::to_value(Disk::new("a", Gib(1))).unwrap() else { panic!("so is a disk") };
    assert_eq!(parts.len(), 7, "a part of a disk is missing in the table: {parts:?}");
}

/// The plan says what a change takes and why, and that is what it takes.
#[test]
fn a_plan_says_what_a_change_takes_and_it_takes_no_more_and_no_less() {
    let mut wrong = Vec::new();
    for (field, edit, takes, words) in FIELDS {
        let lab = Lab::new();
        DECLARED.set(vec![shop()]);
        lab.whole(declared, Verb::Up);
        let mut after = shop();
        edit(&mut after);
        DECLARED.set(vec![after]);
        let plan = lab.planned(declared, Verb::Up, false);
        if let Err(text) = said(&plan, takes, words) {
            wrong.push(format!("{field}: {text}"));
            continue;
        }
        if takes == Takes::Refusal {
            continue;
        }
        lab.running.disturb(lab_sim::Faults::none());
        let calls = lab.running.calls().len();
        lab.whole(declared, Verb::Up);
        lab.settled(declared);
        let switched: Vec<String> = lab.running.calls()[calls..]
            .iter()
            .map(|call| call.name.clone())
            .filter(|name| {
                ["task qmshutdown", "task qmreboot", "task qmstop"].iter().any(|task| name.starts_with(task))
            })
            .collect();
        let expected = matches!(takes, Takes::Reboot | Takes::Stop | Takes::Replacement);
        if expected == switched.is_empty() {
            wrong.push(format!("{field}: the plan says {takes:?}, and it took {switched:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn said(plan: &Plan, takes: Takes, words: &str) -> Result<(), String> {
    let shown = || format!("it says\n{}\n{:?}", text(plan), plan.problems);
    if takes == Takes::Refusal {
        let refused = plan.problems.iter().any(|problem| problem.message.contains(words));
        return if refused { Ok(()) } else { Err(shown()) };
    }
    if !plan.problems.is_empty() {
        return Err(shown());
    }
    let step = plan.steps.iter().find(|step| step.urn.kind() == "proxmox:vm" && step.spec.is_some());
    let interrupts = step.and_then(|step| step.interrupts.as_deref());
    let right = match takes {
        Takes::Nothing => step.is_none() || interrupts.is_none(),
        Takes::Live => step.is_some() && interrupts.is_none(),
        Takes::Reboot => interrupts == Some("reboots VM 1201 (shop)"),
        Takes::Stop => interrupts == Some("stops VM 1201 (shop)"),
        Takes::Cut => interrupts == Some("cuts VM 1201 (shop) off its network for a moment"),
        Takes::Replacement => plan.steps.len() == 2,
        Takes::Refusal => false,
    };
    let reason =
        words.is_empty() || plan.steps.iter().any(|step| step.reasons.iter().any(|reason| reason.contains(words)));
    if right && reason { Ok(()) } else { Err(shown()) }
}

/// Two sides of a clash, what is said, and the same without one.
#[track_caller]
fn clashes(program: Program, said: &[&str], lines: usize) {
    let lab = Lab::new();
    let plan = lab.planned(program, Verb::Up, false);
    let problems: Vec<_> = plan.problems.iter().map(ToString::to_string).collect();
    let clash = problems.iter().position(|problem| said.iter().all(|said| problem.contains(said)));
    let clash = clash.unwrap_or_else(|| panic!("{said:?} is not said: {problems:#?}"));
    assert_eq!(plan.problems[clash].places.len(), lines, "each line is named: {}", problems[clash]);
    assert!(!lab.running.calls().iter().any(|call| !call.name.starts_with("GET") && !call.name.starts_with("connect")));
}

fn two(stack: &Stack, edit: impl FnOnce(&mut Vm, &mut Vm)) -> Outcome {
    let pve = stack.provider("pve", proxmox());
    let plain = |vmid, name: &str, node| Vm {
        networks: vec![],
        disks: BTreeMap::new(),
        ..Vm::new(vmid, name, node, 2, Mib(2048))
    };
    let (mut first, mut second) = (plain(1201, "shop", "pve1"), plain(1202, "mail", "pve2"));
    edit(&mut first, &mut second);
    pve.resource("first").add(first);
    pve.resource("second").add(second);
    Ok(())
}

fn interface(mac: &str, address: Option<[u8; 4]>) -> Vec<Network> {
    let address = address.map(|ip| Address { ip: ip.into(), prefix: 24, gateway: None });
    vec![Network { address, ..Network::new("vmbr0", Mac::derived(mac)) }]
}

#[test]
fn two_machines_do_not_have_one_number_name_address_or_interface() {
    clashes(|stack| two(stack, |_, second| second.vmid = 1201), &["VM id 1201", "first", "second"], 2);
    clashes(|stack| two(stack, |_, second| second.name = "shop".into()), &["host name shop", "first", "second"], 2);
    let address: Program = |stack| {
        two(stack, |first, second| {
            first.networks = interface("a", Some([192, 168, 10, 21]));
            second.networks = interface("b", Some([192, 168, 10, 21]));
        })
    };
    clashes(address, &["192.168.10.21", "first", "second"], 2);
    let mac: Program = |stack| {
        two(stack, |first, second| {
            first.networks = interface("a", None);
            second.networks = interface("a", None);
        })
    };
    clashes(mac, &["MAC BC:24:11", "first", "second"], 2);
    let lab = Lab::new();
    let fine: Program = |stack| {
        two(stack, |first, second| {
            first.networks = interface("a", Some([192, 168, 10, 21]));
            second.networks = interface("b", Some([192, 168, 10, 22]));
        })
    };
    assert_eq!(lab.planned(fine, Verb::Up, false).problems, []);
}

#[test]
fn machines_that_are_to_be_apart_are_not_put_on_one_host() {
    fn apart(stack: &Stack, node: &str) -> Outcome {
        two(stack, |first, second| {
            (first.apart, second.apart) = (Some("shop".into()), Some("shop".into()));
            second.node = node.into();
        })
    }
    clashes(|stack| apart(stack, "pve1"), &["pve1", "shop", "first", "second"], 2);
    let fine: Program = |stack| apart(stack, "pve2");
    assert_eq!(Lab::new().planned(fine, Verb::Up, false).problems, []);
}

#[test]
fn two_environments_do_not_share_a_vlan_or_an_address() {
    fn segments(stack: &Stack, vlan: u16, subnet: &str) -> Outcome {
        let pve = stack.provider("pve", proxmox());
        pve.resource("dev").add(Segment::new("vmbr0", Some(110), Subnet::new("192.168.10.0/24")?));
        pve.resource("staging").add(Segment::new("vmbr0", Some(vlan), Subnet::new(subnet)?));
        Ok(())
    }
    clashes(|stack| segments(stack, 110, "192.168.20.0/24"), &["VLAN of vmbr0: 110", "dev", "staging"], 2);
    clashes(|stack| segments(stack, 120, "192.168.10.128/25"), &["192.168.10.", "dev", "staging"], 2);
    let fine: Program = |stack| segments(stack, 120, "192.168.20.0/24");
    assert_eq!(Lab::new().planned(fine, Verb::Up, false).problems, []);
}

#[test]
fn a_host_gives_no_more_than_the_policy_allows() {
    fn on_one_host(stack: &Stack, edit: impl FnOnce(&mut Capacity, &mut Vm)) -> Outcome {
        let pve = stack.provider("pve", proxmox());
        // Half again as many processors as there are, no more memory than there is, a quarter of both kept free.
        let mut host = Capacity { cpu_percent: 150, headroom_percent: 25, ..Capacity::new("pve1", 16, Mib(32768)) };
        let mut second = Vm::new(1202, "mail", "pve1", 10, Mib(12288));
        edit(&mut host, &mut second);
        pve.resource("host").add(host);
        pve.resource("first").add(Vm::new(1201, "shop", "pve1", 8, Mib(12288)));
        pve.resource("second").add(second);
        Ok(())
    }
    let fits: Program = |stack| on_one_host(stack, |_, _| {});
    assert_eq!(Lab::new().planned(fits, Verb::Up, false).problems, []);
    let memory: Program = |stack| on_one_host(stack, |_, second| second.memory = Mib(12289));
    clashes(memory, &["MiB of memory on pve1", "24576", "24577", "first", "second"], 3);
    let cpus: Program = |stack| on_one_host(stack, |_, second| second.cores = 11);
    clashes(cpus, &["virtual CPUs on pve1", "18", "19", "first", "second"], 3);
    // What does not run takes nothing, and what is on another host takes it there.
    let stopped: Program = |stack| on_one_host(stack, |_, second| (second.cores, second.running) = (64, false));
    assert_eq!(Lab::new().planned(stopped, Verb::Up, false).problems, []);
    let elsewhere: Program = |stack| on_one_host(stack, |_, second| (second.cores, second.node) = (64, "pve2".into()));
    assert_eq!(Lab::new().planned(elsewhere, Verb::Up, false).problems, []);
}

/// A provider is known by its cluster: another cluster has numbers of its own.
#[test]
fn what_is_in_another_cluster_is_another_number() {
    fn program(stack: &Stack) -> Outcome {
        let other = Proxmox { cluster: "other".into(), ..proxmox() };
        for (name, provider) in [("pve", proxmox()), ("other", other)] {
            let scope = stack.provider(name, provider);
            scope.resource("pool").add(Pool::new("shop"));
        }
        Ok(())
    }
    assert_eq!(Lab::new().planned(program, Verb::Up, false).problems, []);
}

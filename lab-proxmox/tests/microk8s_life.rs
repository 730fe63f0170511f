//! The life of a MicroK8s cluster after its birth, against simulated machines: nodes come and go, MicroK8s goes to
//! another version and back, and a node is found dead.

mod simulated;

use lab_core::execute::Faults;
use lab_core::plan::{Verb, text};
use lab_core::{Op, ProgramError, Resource, Stack, Step, Subnet, Warnings, Why};
use lab_proxmox::Gib;
use lab_proxmox::microk8s::{Addon, CloudImage, Cluster, Member, Node};
use lab_proxmox::request::Request;
use lab_sim::Fault;
use serde_json::Value;
use simulated::{IMAGE, Lab, Program, SHA256, cluster as hosts, proxmox};
use std::sync::Arc;

/// A cluster of these nodes on this channel.
fn declare(
    stack: &Stack,
    nodes: &[u8],
    channel: &str,
    edit: impl FnOnce(Cluster) -> Cluster,
) -> Result<(), ProgramError> {
    let lan = Subnet::new("192.168.10.0/24")?.gateway("192.168.10.1")?;
    let pve = stack.provider("pve", proxmox());
    let node = |n: &u8| -> Result<Node, ProgramError> {
        let host = lan.host(&format!("dev-{n}"), u32::from(20 + n))?;
        Ok(Node::new(host, 11_000 + u32::from(*n), format!("pve{}", (n - 1) % 3 + 1)))
    };
    let image = CloudImage { file: "noble.qcow2".into(), url: IMAGE.into(), sha256: SHA256.into() };
    let cluster = Cluster {
        nodes: nodes.iter().map(node).collect::<Result<_, _>>()?,
        addons: vec![Addon::Ingress],
        nameservers: vec!["192.168.10.1".parse()?],
        memory: Gib(4).memory(),
        cores: 2,
        spread: false,
        ..Cluster::new(
            channel.parse::<lab_proxmox::microk8s::Channel>().map_err(ProgramError::new)?,
            image,
            "local-zfs",
        )
    };
    pve.component("microk8s").add(edit(cluster));
    Ok(())
}

fn three(stack: &Stack) -> Result<(), ProgramError> {
    declare(stack, &[1, 2, 3], "1.34/stable", |cluster| cluster)
}

fn four(stack: &Stack) -> Result<(), ProgramError> {
    declare(stack, &[1, 2, 3, 4], "1.34/stable", |cluster| cluster)
}

fn with_a_registry(stack: &Stack) -> Result<(), ProgramError> {
    let addons = vec![Addon::Ingress, Addon::Registry, Addon::Rbac];
    declare(stack, &[1, 2, 3], "1.34/stable", |cluster| Cluster { addons, ..cluster })
}

fn without_the_founder(stack: &Stack) -> Result<(), ProgramError> {
    declare(stack, &[2, 3, 4], "1.34/stable", |cluster| cluster)
}

fn newer(stack: &Stack) -> Result<(), ProgramError> {
    declare(stack, &[1, 2, 3], "1.35/stable", |cluster| cluster)
}

fn newer_without_snapshots(stack: &Stack) -> Result<(), ProgramError> {
    declare(stack, &[1, 2, 3], "1.35/stable", |cluster| Cluster { snapshots: false, ..cluster })
}

fn back(stack: &Stack) -> Result<(), ProgramError> {
    declare(stack, &[1, 2, 3], "1.34/stable", |cluster| Cluster { rollback: true, ..cluster })
}

/// The names of the members, and whether all of them run.
fn members(lab: &Lab) -> Vec<String> {
    let world = lab.world();
    let clusters = world["clusters"].as_array().unwrap();
    assert_eq!(clusters.len(), 1, "{clusters:#?}");
    let members = clusters[0]["members"].as_array().unwrap();
    assert!(members.iter().all(|member| member["running"] == true), "{members:#?}");
    members.iter().map(|member| member["name"].as_str().unwrap().to_owned()).collect()
}

/// The Kubernetes nodes: name and version, and whether pods may come.
fn nodes(lab: &Lab) -> Vec<(String, String, bool)> {
    let world = lab.world();
    let objects = world["clusters"][0]["kubernetes"].as_array().unwrap().clone();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let nodes = objects.iter().filter(|object| object["kind"] == "Node");
    nodes
        .map(|node| {
            let version = text(&node["status"]["nodeInfo"]["kubeletVersion"]);
            (text(&node["metadata"]["name"]), version, node["spec"]["unschedulable"] != true)
        })
        .collect()
}

fn all_at(version: &str) -> Vec<(String, String, bool)> {
    (1..=3).map(|n| (format!("dev-{n}"), version.to_owned(), true)).collect()
}

/// The calls that reached the cluster since there were so many, without those that only look.
fn changes(lab: &Lab, since: usize) -> Vec<String> {
    let calls = lab.running.calls();
    let changing = |name: &&str| ["POST", "PUT", "DELETE"].iter().any(|verb| name.starts_with(verb));
    calls[since..].iter().map(|call| call.name.as_str()).filter(changing).map(str::to_owned).collect()
}

/// The machine that a call is about.
fn machine(call: &str) -> Option<u32> {
    call.split("/qemu/").nth(1)?.split('/').next()?.parse().ok()
}

/// Between two of its attempts, the founder's script saw that it was alone, and then a peer that was in a cluster: its own.
/// It asked to join that, was told that it is known there, and the cluster was told to forget it: what it founded went
/// without it, and its own script waited until its deadline for a MicroK8s that nobody served any more.
#[test]
fn the_founder_of_a_cluster_does_not_join_who_has_just_joined_it() {
    let lab = Lab::new();
    lab.whole(three, Verb::Up);
    lab.settled(three);
    assert_eq!(members(&lab), ["dev-1", "dev-2", "dev-3"]);
    // Every machine came to that by itself: nobody was told anything.
    let told = changes(&lab, 0).into_iter().filter(|call| call.ends_with("/agent/exec"));
    assert_eq!(told.collect::<Vec<_>>(), Vec::<String>::new());
    // What stands in the way of the next attempt is left nowhere.
    for vmid in [11_001, 11_002, 11_003] {
        let left = lab.by_hand(async |client| client.read_file(vmid, "/var/lib/lab/microk8s.err").await.unwrap());
        assert_eq!(left, None, "{vmid}");
    }
}

/// A machine made anew is refused by the cluster that knows its predecessor, until that is forgotten. What it said then
/// was still there while it was long a member, and the cluster forgot it once more.
#[test]
fn a_machine_that_is_lost_is_made_anew_and_takes_the_place_of_the_one_before_it() {
    let lab = Lab::new();
    lab.whole(three, Verb::Up);
    for vmid in [11_001, 11_002] {
        let node = format!("pve{}", vmid - 11_000);
        lab.task(&Request::post(format!("/nodes/{node}/qemu/{vmid}/status/stop")));
        lab.task(&Request::delete(format!("/nodes/{node}/qemu/{vmid}")));
        let since = lab.running.calls().len();
        lab.looking(three, Verb::Up);
        lab.settled(three);
        let mut names = members(&lab);
        names.sort();
        assert_eq!(names, ["dev-1", "dev-2", "dev-3"]);
        assert_eq!(nodes(&lab), all_at("v1.34.5"));
        // It was forgotten once, by one of the others.
        let told: Vec<String> = changes(&lab, since).into_iter().filter(|call| call.ends_with("/agent/exec")).collect();
        assert!(told.iter().all(|call| machine(call) != Some(vmid)), "{told:#?}");
    }
}

/// The first of [`three`] as a member.
fn founder() -> Member {
    Member {
        vmid: 11_001,
        name: "dev-1".into(),
        channel: "1.34/stable".parse().unwrap(),
        address: Some([192, 168, 10, 21].into()),
        peers: vec![11_002, 11_003],
        rollback: false,
        addons: Vec::new(),
    }
}

/// An operation on a member of which nothing is known.
fn operation() -> Op<Member> {
    Op {
        mark: "a mark".into(),
        id: None,
        inputs: None,
        exists: false,
        deleting: false,
        cursor: None,
        why: Why::Declared,
        now: std::time::SystemTime::UNIX_EPOCH,
        seed: 0,
        warnings: Warnings::default(),
    }
}

/// When a whole cluster goes, the machine of a member that has left already goes while others still leave.
#[test]
fn a_member_leaves_though_the_machine_that_was_asked_for_it_goes_first() {
    let lab = Lab::new();
    lab.whole(three, Verb::Up);
    let leaving = Op { inputs: Some(founder()), exists: true, deleting: true, ..operation() };
    let delete = |cursor: Value| {
        let op = Op { cursor: (!cursor.is_null()).then_some(cursor), ..leaving.clone() };
        lab.by_hand(async |client| Member::delete(client, &op).await.unwrap())
    };
    let Step::Next { cursor, why, .. } = delete(Value::Null) else { panic!("a drain takes a while") };
    assert!(why.starts_with("VM 11002 runs `/snap/bin/microk8s kubectl drain dev-1"), "{why}");
    lab.task(&Request::post("/nodes/pve2/qemu/11002/status/stop"));
    lab.task(&Request::delete("/nodes/pve2/qemu/11002"));
    let Step::Next { cursor, why, .. } = delete(cursor) else { panic!("nobody has forgotten it") };
    assert_eq!((&cursor, why.as_str()), (&Value::Null, "VM 11002 is gone: another member is asked"));
    let Step::Next { why, .. } = delete(cursor) else { panic!("a drain takes a while") };
    assert!(why.starts_with("VM 11003 runs"), "{why}");
}

/// Lets the founder of [`three`] leave by way of `asked`, until it is gone or that was asked for often enough. Returns
/// whether it is, and what was said last.
fn leave(lab: &Lab, asked: u32) -> (bool, String) {
    let cursor = serde_json::json!({"Next": {"vmid": asked, "stage": "Remove"}});
    let mut op = Op { inputs: Some(founder()), exists: true, deleting: true, cursor: Some(cursor), ..operation() };
    let (mut refused, mut last) = (0, String::new());
    lab.by_hand(async |client| {
        while refused < 6 {
            match Member::delete(client, &op).await.unwrap() {
                Step::Done(_) => return (true, last),
                Step::Next { cursor, why, pause, .. } => {
                    if why.contains("ended with") {
                        (refused, last) = (refused + 1, why);
                    }
                    op.cursor = (!cursor.is_null()).then_some(cursor);
                    lab.running.link().clock.sleep(pause).await;
                }
            }
        }
        (false, last)
    })
}

/// Lets a machine make its cluster forget a node.
fn forget(lab: &Lab, by: u32, name: &str) {
    lab.by_hand(async |client| {
        let pid = client.run(by, &["/snap/bin/microk8s", "remove-node", name, "--force"]).await.unwrap();
        while client.ran(by, pid).await.unwrap().is_none() {
            lab.running.link().clock.sleep(std::time::Duration::from_secs(1)).await;
        }
    });
}

/// Members that leave at the same time ask each other. Who had left already said that MicroK8s is not running, and was
/// asked again and again, until the deadline if need be.
#[test]
fn a_member_leaves_though_the_one_that_was_asked_for_it_has_left() {
    let lab = Lab::new();
    lab.whole(three, Verb::Up);
    forget(&lab, 11_003, "dev-2");
    assert!(leave(&lab, 11_002).0);
    assert_eq!(members(&lab), ["dev-3"]);
}

#[test]
fn the_last_member_leaves_though_nobody_else_serves() {
    let lab = Lab::new();
    lab.whole(three, Verb::Up);
    forget(&lab, 11_001, "dev-2");
    forget(&lab, 11_001, "dev-3");
    assert!(leave(&lab, 11_003).0);
}

/// Without a majority nobody can forget anybody: that is no reason to say that it has been done.
#[test]
fn a_member_does_not_leave_a_cluster_that_is_down() {
    let lab = Lab::new();
    lab.whole(three, Verb::Up);
    for vmid in [11_001, 11_002] {
        lab.task(&Request::post(format!("/nodes/pve{}/qemu/{vmid}/status/stop", vmid - 11_000)));
    }
    let (gone, why) = leave(&lab, 11_003);
    assert!(!gone);
    assert_eq!(why, "VM 11003: `/snap/bin/microk8s remove-node dev-1 --force` ended with 1: microk8s is not running");
    lab.task(&Request::post("/nodes/pve2/qemu/11002/status/start"));
    assert!(leave(&lab, 11_003).0);
}

#[test]
fn what_a_member_said_before_it_was_one_makes_nobody_forget_it() {
    let lab = Lab::new();
    lab.whole(three, Verb::Up);
    let why = lab.by_hand(async |client| {
        // As it stands between a join that was refused and the end of the next attempt.
        let before = "rm -f /var/lib/lab/microk8s.done; echo 'failed to join: already known to dqlite' >/var/lib/lab/microk8s.err";
        client.run(11_001, &["/bin/bash", "-c", before]).await.unwrap();
        let member = founder();
        let mut op = Op { inputs: Some(member.clone()), ..operation() };
        loop {
            match member.apply(client, &op).await.unwrap() {
                Step::Next { why, .. } if why.contains("ended with") || why.contains("in the place of") => return why,
                Step::Next { cursor, .. } => op.cursor = Some(cursor),
                Step::Done(_) => op.cursor = None,
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    });
    assert_eq!(why, "`forget dev-1` ended with 3: dev-1 is a member");
    assert_eq!(members(&lab), ["dev-1", "dev-2", "dev-3"]);
}

#[test]
fn a_node_joins_and_another_leaves_and_the_rest_is_left_alone() {
    let lab = Lab::new();
    lab.whole(three, Verb::Up);
    assert_eq!(members(&lab), ["dev-1", "dev-2", "dev-3"]);
    let since = lab.running.calls().len();
    lab.whole(four, Verb::Up);
    lab.settled(four);
    assert_eq!(members(&lab), ["dev-1", "dev-2", "dev-3", "dev-4"]);
    let touched = changes(&lab, since);
    // The others get a medium that names the new one, for the day they are made anew; nothing happens in them.
    let others = |call: &&String| machine(call).is_some_and(|id| id != 11_004) && !call.ends_with("/config");
    assert_eq!(touched.iter().filter(others).count(), 0, "{touched:#?}");

    // The founder goes: drained and forgotten by another, before its machine is destroyed.
    let since = lab.running.calls().len();
    lab.whole(without_the_founder, Verb::Up);
    lab.settled(without_the_founder);
    assert_eq!(members(&lab), ["dev-2", "dev-3", "dev-4"]);
    assert_eq!(nodes(&lab).len(), 3);
    assert_eq!(lab.machine(11_001), Value::Null);
    let touched = changes(&lab, since);
    let at = |wanted: &str| touched.iter().position(|call| call.contains(wanted));
    let (told, destroyed) = (at("/agent/exec"), at("DELETE /api2/json/nodes/pve1/qemu/11001"));
    assert!(told.is_some() && told < destroyed, "{touched:#?}");
    // Whoever asks for the way in is shown to one that is there.
    let state = lab.state();
    let kubeconfig = state.records.iter().find(|(urn, _)| urn.kind() == "microk8s:kubeconfig").unwrap();
    assert_eq!(kubeconfig.1.spec.inputs.value()["nodes"][0][1], "192.168.10.22");
}

#[test]
fn an_add_on_that_is_added_later_is_turned_on_in_the_machines_that_are_there() {
    let mut lab = Lab::new();
    lab.whole(three, Verb::Up);
    let plan = text(&lab.planned(with_a_registry, Verb::Up, true));
    for said in ["turns on registry", "turns on rbac"] {
        assert!(plan.contains(said), "{said}: {plan}");
    }
    assert!(!plan.contains("turns on ingress") && !plan.contains("interrupts"), "{plan}");
    let since = lab.running.calls().len();
    // Killed half way, too: what is on is turned on once more, which does nothing.
    let faults = Arc::new(Faults::none());
    lab.run(with_a_registry, Verb::Up, &Arc::new(Faults::at(12, lab_core::execute::CallFault::StopAfter))).unwrap();
    lab.crash();
    assert!(lab.run(with_a_registry, Verb::Up, &faults).unwrap().complete());
    lab.settled(with_a_registry);
    assert_eq!(lab.world()["clusters"][0]["addons"], serde_json::json!(["dns", "ingress", "rbac", "registry"]));
    let touched = changes(&lab, since);
    let mut told: Vec<u32> =
        touched.iter().filter(|call| call.ends_with("/agent/exec")).filter_map(|call| machine(call)).collect();
    told.dedup();
    assert_eq!(told, [11_001], "{touched:#?}");
    assert!(
        !touched.iter().any(|call| call.contains("/status/") || call.starts_with("DELETE") && call.contains("/qemu/"))
    );
    // What is taken out stays on, and is no step of a plan.
    let plan = lab.planned(three, Verb::Up, true);
    assert!(!plan.steps.iter().any(|step| step.urn.kind() == "microk8s:member"), "{}", text(&plan));
}

#[test]
fn another_version_comes_node_by_node_behind_a_snapshot_of_all_and_goes_again() {
    let lab = Lab::new();
    lab.whole(three, Verb::Up);
    assert_eq!(nodes(&lab), all_at("v1.34.5"));

    let plan = text(&lab.planned(newer, Verb::Up, false));
    for said in ["MicroK8s goes from 1.34/stable to 1.35/stable", "ingress: its controller becomes Traefik"] {
        assert!(plan.contains(said), "{said}: {plan}");
    }
    let since = lab.running.calls().len();
    lab.whole(newer, Verb::Up);
    lab.settled(newer);
    assert_eq!(nodes(&lab), all_at("v1.35.5"));
    let touched = changes(&lab, since);
    let about = |what: &str| -> Vec<u32> {
        touched.iter().filter(|call| call.ends_with(what)).filter_map(|call| machine(call)).collect()
    };
    let mut snapshots = about("/snapshot");
    snapshots.sort();
    assert_eq!(snapshots, [11_001, 11_002, 11_003], "{touched:#?}");
    // Drained, refreshed, waited for, let in again: one after the other.
    let mut order = about("/agent/exec");
    order.dedup();
    assert_eq!(order, [11_001, 11_002, 11_003], "{touched:#?}");
    let first = touched.iter().position(|call| call.ends_with("/agent/exec") && machine(call) == Some(11_002));
    assert!(touched.iter().rposition(|call| call.ends_with("/snapshot")) < first, "{touched:#?}");

    // Without a word, nobody goes back; with it, everybody does, and the plan says what is lost.
    let refused = lab.run(three, Verb::Up, &Arc::default()).unwrap_err();
    assert!(refused.contains("going back loses what the datastore has learned since"), "{refused}");
    let plan = lab.planned(back, Verb::Up, false);
    let destroys: Vec<&str> = plan.destroys().map(|(_, what)| what).collect();
    assert_eq!(destroys, ["everything the cluster has stored since its snapshots before-1-35"]);
    let since = lab.running.calls().len();
    lab.whole(back, Verb::Up);
    lab.settled(back);
    assert_eq!(nodes(&lab), all_at("v1.34.5"));
    let touched = changes(&lab, since);
    let at = |what: &str| -> Vec<usize> { (0..touched.len()).filter(|n| touched[*n].ends_with(what)).collect() };
    let (stopped, set_back, started) = (at("/status/stop"), at("/rollback"), at("/status/start"));
    assert_eq!([stopped.len(), set_back.len(), started.len()], [3, 3, 3], "{touched:#?}");
    assert!(stopped.last() < set_back.first() && set_back.last() < started.first(), "{touched:#?}");
    // The word may be taken out again.
    lab.whole(three, Verb::Up);
    lab.settled(three);
}

#[test]
fn nothing_is_stopped_when_a_node_has_nothing_to_go_back_to() {
    let lab = Lab::new();
    lab.whole(three, Verb::Up);
    lab.whole(newer_without_snapshots, Verb::Up);
    let since = lab.running.calls().len();
    let said = lab.failures(back, Verb::Up);
    assert!(said.contains("VM 11001 has no snapshot before-1-35: nothing was set back"), "{said}");
    assert!(!changes(&lab, since).iter().any(|call| call.ends_with("/status/stop")));
    assert_eq!(nodes(&lab), all_at("v1.35.5"));
}

#[test]
fn a_rollback_whose_replies_are_lost_and_that_is_killed_half_way_ends_where_it_should() {
    let lost = ["/status/stop", "/rollback", "/status/start"];
    let faults = lost.iter().fold(lab_sim::Faults::none(), |faults, name| faults.on(*name, 2, Fault::ReplyLost));
    let mut lab = Lab::of(hosts(), faults);
    let programs: [Program; 2] = [three, newer];
    for program in programs {
        lab.whole(program, Verb::Up);
    }
    // Killed over and over, a few calls further each time.
    for calls in [4, 9, 14, 19, 24, 29] {
        let faults = Arc::new(Faults::at(calls, lab_core::execute::CallFault::StopAfter));
        lab.run(back, Verb::Up, &faults).unwrap();
        lab.crash();
    }
    lab.whole(back, Verb::Up);
    lab.settled(back);
    assert_eq!(nodes(&lab), all_at("v1.34.5"));
    let struck = lab.running.calls().iter().filter(|call| call.fault == Some(Fault::ReplyLost)).count();
    assert_eq!(struck, lost.len());
}

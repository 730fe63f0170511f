//! The life of every resource: made, changed, left alone, changed by hand and found, deleted; and what somebody else
//! made under the same name is not touched.

mod simulated;

use lab_core::plan::{Action, Verb};
use lab_core::{Input, ProgramError, Scope, Secret, Stack};
use lab_proxmox::request::{Request, pool, vm};
use lab_proxmox::{
    Affinity, BackupJob, BackupServer, Disk, Gib, Group, HighAvailability, Keep, Mib, Pool, Proxmox, Rule, Slot, Vm,
};
use lab_sim::proxmox::Cluster;
use serde_json::{Value, json};
use simulated::{Lab, Program, cluster, proxmox};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

type Outcome = Result<(), ProgramError>;

/// The life of one resource.
struct Life {
    cluster: fn() -> Cluster,
    /// Its type.
    kind: &'static str,
    /// What is declared beside it.
    rest: Program,
    /// That and the resource, as it is first declared.
    first: Program,
    /// That and the resource, changed.
    second: Program,
    /// Whether that is another one in its place.
    replaces: bool,
    /// Where it is in the world.
    seen: fn(&Value) -> Value,
    /// Changes it by hand, given what its comment says.
    by_hand: fn(&str) -> Request,
    /// Makes one of the same name by hand.
    foreign: fn() -> Request,
    /// Deletes it by hand.
    remove: fn() -> Request,
}

impl Life {
    /// Lives it; `first` and `second` are what has to be seen then.
    #[track_caller]
    fn is(&self, first: Value, second: Value) {
        let lab = Lab::of((self.cluster)(), lab_sim::Faults::none());
        lab.whole(self.rest, Verb::Up);
        let before = lab.world();
        assert_eq!((self.seen)(&before), Value::Null, "it is there before it is declared");
        lab.whole(self.first, Verb::Up);
        assert_eq!((self.seen)(&lab.world()), first, "as it is made");
        lab.settled(self.first);

        let plan = lab.planned(self.second, Verb::Up, false);
        let steps: Vec<_> = plan.steps.iter().map(|step| step.urn.kind()).collect();
        let expected = if self.replaces { vec![self.kind; 2] } else { vec![self.kind] };
        assert_eq!(steps, expected, "{}", lab_core::plan::text(&plan));
        lab.whole(self.second, Verb::Up);
        assert_eq!((self.seen)(&lab.world()), second, "as it is changed");
        lab.settled(self.second);

        self.found(&lab, &second, |comment| (self.by_hand)(comment));
        self.found(&lab, &second, |_| (self.remove)());

        lab.whole(self.rest, Verb::Up);
        assert_eq!(lab.world(), before, "it is gone and the rest stands");
        lab.settled(self.rest);
        self.somebody_elses_stays();
    }

    /// Something is done to it by hand: a look finds that, and the next run brings it back.
    #[track_caller]
    fn found(&self, lab: &Lab, wanted: &Value, by_hand: impl Fn(&str) -> Request) {
        let comment = comment_of(&(self.seen)(&lab.whole_world()));
        send(lab, &by_hand(&comment));
        assert_ne!((self.seen)(&lab.world()), *wanted, "nothing was changed by hand");
        let plan = lab.planned(self.second, Verb::Up, true);
        let steps: BTreeSet<_> = plan.steps.iter().map(|step| step.urn.kind()).collect();
        assert_eq!(steps, BTreeSet::from([self.kind]), "{}", lab_core::plan::text(&plan));
        lab.looking(self.second, Verb::Up);
        assert_eq!((self.seen)(&lab.world()), *wanted, "it is brought back");
        lab.settled(self.second);
    }

    #[track_caller]
    fn somebody_elses_stays(&self) {
        let lab = Lab::of((self.cluster)(), lab_sim::Faults::none());
        lab.whole(self.rest, Verb::Up);
        send(&lab, &(self.foreign)());
        let theirs = (self.seen)(&lab.world());
        assert_ne!(theirs, Value::Null, "nothing was made by hand");
        let said = lab.failures(self.first, Verb::Up);
        assert!(said.contains("exists already and is not ours"), "{said}");
        assert_eq!((self.seen)(&lab.world()), theirs);
        lab.whole(self.rest, Verb::Up);
        assert_eq!((self.seen)(&lab.world()), theirs, "what is no longer declared was theirs");
    }
}

fn send(lab: &Lab, request: &Request) {
    lab.by_hand(async |client| client.send(request).await.unwrap_or_else(|error| panic!("{error}")));
}

/// Returns the comment of an entry, with its mark.
fn comment_of(seen: &Value) -> String {
    let comment = seen.get("comment").or_else(|| seen.get(1).and_then(|pool| pool.get("comment")));
    comment.or_else(|| seen.as_str().map(|_| seen)).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Returns the second half of the pair whose first half is `name`.
fn paired(list: &Value, name: &Value) -> Value {
    let pair = list.as_array().into_iter().flatten().find(|pair| pair[0] == *name);
    pair.map_or(Value::Null, |pair| pair[1].clone())
}

fn pve(stack: &Stack) -> Scope<'_, Proxmox> {
    stack.provider("pve", proxmox())
}

/// A machine with a disk that all hosts share.
fn machine(vmid: u32, node: &str) -> Vm {
    Vm {
        disks: BTreeMap::from([(Slot::scsi(0), Disk::new("nas", Gib(4)))]),
        ..Vm::new(vmid, format!("shop-{vmid}"), node, 1, Mib(1024))
    }
}

/// Two machines; returns their numbers.
fn machines(pve: &Scope<'_, Proxmox>) -> [Input<u32>; 2] {
    let first = pve.resource("first").add(machine(1201, "pve1"));
    let second = pve.resource("second").add(machine(1202, "pve2"));
    [first.output(|vm| vm.vmid).into(), second.output(|vm| vm.vmid).into()]
}

fn nothing(stack: &Stack) -> Outcome {
    pve(stack);
    Ok(())
}

fn only_machines(stack: &Stack) -> Outcome {
    machines(&pve(stack));
    Ok(())
}

#[test]
fn a_pool() {
    fn of(stack: &Stack, comment: &str) -> Outcome {
        pve(stack).resource("pool").add(Pool { comment: comment.into(), ..Pool::new("shop") });
        Ok(())
    }
    let life = Life {
        cluster,
        kind: "proxmox:pool",
        rest: nothing,
        first: |stack| of(stack, ""),
        second: |stack| of(stack, "what the shop needs"),
        replaces: false,
        seen: |world| paired(&world["pools"], &json!("shop")),
        by_hand: |comment| pool::describe("shop", &comment.replace("what", "all that")),
        foreign: || pool::create("shop", "of somebody else"),
        remove: || pool::delete("shop"),
    };
    life.is(json!("managed by lab: MARK"), json!("what the shop needs (managed by lab: MARK)"));
}

#[test]
fn a_backup_server() {
    fn of(stack: &Stack, edit: impl FnOnce(BackupServer) -> BackupServer) -> Outcome {
        let password = Secret::new("first-password".to_owned());
        let server = BackupServer::new("vault", "10.0.0.9", "homelab", "backup@pbs", password);
        pve(stack).resource("vault").add(edit(server));
        Ok(())
    }
    fn changed(server: BackupServer) -> BackupServer {
        BackupServer { namespace: Some("shop".into()), nodes: BTreeSet::from(["pve1".to_owned()]), ..server }
    }
    let life = Life {
        cluster,
        kind: "proxmox:backup-server",
        rest: nothing,
        first: |stack| of(stack, |server| server),
        second: |stack| of(stack, changed),
        replaces: false,
        seen: |world| {
            let all = world["storages"].as_array().into_iter().flatten();
            let vault = all.map(|storage| &storage["definition"]).find(|storage| storage["storage"] == "vault");
            vault.cloned().unwrap_or_default()
        },
        by_hand: |_| Request::put("/storage/vault").with("nodes", "pve2"),
        foreign: || {
            let request = Request::post("/storage").with("storage", "vault").with("type", "pbs");
            request.with("server", "10.0.0.8").with("datastore", "theirs").with("username", "root@pam")
        },
        remove: || Request::delete("/storage/vault"),
    };
    let mut made = json!({
        "storage": "vault", "type": "pbs", "content": "backup", "server": "10.0.0.9", "datastore": "homelab",
        "username": "backup@pbs", "shared": 1,
    });
    let mut then = made.clone();
    then["namespace"] = json!("shop");
    then["nodes"] = json!("pve1");
    life.is(made.clone(), then);
    made["datastore"] = json!("other");
    let replaced = Life {
        second: |stack| of(stack, |server| BackupServer { datastore: "other".into(), ..server }),
        replaces: true,
        ..life
    };
    let first = json!({
        "storage": "vault", "type": "pbs", "content": "backup", "server": "10.0.0.9", "datastore": "homelab",
        "username": "backup@pbs", "shared": 1,
    });
    replaced.is(first, made);
}

#[test]
fn a_backup_server_that_somebody_replaced_by_another_of_its_name_is_replaced() {
    fn vault(stack: &Stack) -> Outcome {
        let password = Secret::new("password".to_owned());
        pve(stack).resource("vault").add(BackupServer::new("vault", "10.0.0.9", "homelab", "backup@pbs", password));
        Ok(())
    }
    let lab = Lab::new();
    lab.whole(vault, Verb::Up);
    let wanted = lab.world();
    send(&lab, &Request::delete("/storage/vault"));
    let other = Request::post("/storage").with("storage", "vault").with("type", "pbs").with("server", "10.0.0.9");
    send(&lab, &other.with("datastore", "other").with("username", "backup@pbs").with("content", "backup"));
    lab.looking(vault, Verb::Up);
    assert_eq!(lab.world(), wanted);
    lab.settled(vault);
}

#[test]
fn another_password_is_sent_though_nobody_can_read_the_one_that_is_there() {
    fn of(stack: &Stack, password: &str) -> Outcome {
        let password = Secret::new(password.to_owned());
        let server = BackupServer::new("vault", "10.0.0.9", "homelab", "backup@pbs", password);
        pve(stack).resource("vault").add(server);
        Ok(())
    }
    let lab = Lab::new();
    let password = || {
        let world = lab.world();
        let mut all = world["storages"].as_array().into_iter().flatten();
        let vault = all.find(|storage| storage["definition"]["storage"] == "vault");
        vault.map(|vault| vault["password"].clone()).expect("a storage")
    };
    lab.whole(|stack| of(stack, "one"), Verb::Up);
    let one = password();
    assert_ne!(one, Value::Null);
    lab.whole(|stack| of(stack, "two"), Verb::Up);
    assert_ne!(password(), one);
    lab.settled(|stack| of(stack, "two"));
}

#[test]
fn a_backup_job() {
    fn job(pve: &Scope<'_, Proxmox>) -> (BackupJob, [Input<u32>; 2]) {
        let [first, second] = machines(pve);
        (BackupJob::new("nightly", "nas".to_owned(), "02:30", vec![first.clone()]), [first, second])
    }
    fn first(stack: &Stack) -> Outcome {
        let pve = pve(stack);
        let (job, _) = job(&pve);
        pve.resource("nightly").add(job);
        Ok(())
    }
    fn second(stack: &Stack) -> Outcome {
        let pve = pve(stack);
        let (job, vms) = job(&pve);
        let keep = Keep { daily: 7, weekly: 4, monthly: 0 };
        let job = BackupJob { vms: vms.to_vec(), keep, enabled: false, comment: "of the shop".into(), ..job };
        pve.resource("nightly").add(job);
        Ok(())
    }
    let life = Life {
        cluster,
        kind: "proxmox:backup-job",
        rest: only_machines,
        first,
        second,
        replaces: false,
        seen: |world| world["backups"]["nightly"].clone(),
        by_hand: |_| Request::put("/cluster/backup/nightly").with("schedule", "04:00").with("enabled", 1),
        foreign: || {
            let request = Request::post("/cluster/backup").with("id", "nightly").with("all", 1);
            request.with("storage", "nas").with("schedule", "sun 01:00")
        },
        remove: || Request::delete("/cluster/backup/nightly"),
    };
    life.is(
        json!({
            "vmid": "1201", "storage": "nas", "schedule": "02:30", "prune-backups": "keep-all=1", "enabled": "1",
            "mode": "snapshot", "comment": "managed by lab: MARK",
        }),
        json!({
            "vmid": "1201,1202", "storage": "nas", "schedule": "02:30", "prune-backups": "keep-daily=7,keep-weekly=4",
            "enabled": "0", "mode": "snapshot", "comment": "of the shop (managed by lab: MARK)",
        }),
    );
}

#[test]
fn the_high_availability_of_a_machine() {
    fn of(stack: &Stack, edit: impl FnOnce(HighAvailability) -> HighAvailability) -> Outcome {
        let pve = pve(stack);
        let [first, _] = machines(&pve);
        pve.resource("kept").add(edit(HighAvailability::new(first)));
        Ok(())
    }
    let life = Life {
        cluster,
        kind: "proxmox:ha",
        rest: only_machines,
        first: |stack| of(stack, |ha| ha),
        second: |stack| of(stack, |ha| HighAvailability { max_restart: 3, comment: "the shop".into(), ..ha }),
        replaces: false,
        seen: |world| paired(&world["ha"], &json!(1201)),
        by_hand: |_| Request::put("/cluster/ha/resources/vm%3A1201").with("max_relocate", 5),
        foreign: || Request::post("/cluster/ha/resources").with("sid", "vm:1201").with("comment", "theirs"),
        remove: || Request::delete("/cluster/ha/resources/vm%3A1201"),
    };
    life.is(
        json!({"state": "started", "max_restart": "1", "max_relocate": "1", "comment": "managed by lab: MARK"}),
        json!({
            "state": "started", "max_restart": "3", "max_relocate": "1",
            "comment": "the shop (managed by lab: MARK)",
        }),
    );
}

/// Two machines that are kept running.
fn kept(pve: &Scope<'_, Proxmox>) -> [Input<u32>; 2] {
    let mut n = 0;
    machines(pve).map(|vmid| {
        n += 1;
        pve.resource(&format!("kept-{n}")).add(HighAvailability::new(vmid)).output(|ha| ha.vmid).into()
    })
}

fn rule(stack: &Stack, affinity: Affinity) -> Outcome {
    let pve = pve(stack);
    let vms = kept(&pve).to_vec();
    pve.resource("spread").add(Rule::new("spread", affinity, vms));
    Ok(())
}

/// The life of a rule, which is changed as this says.
fn life_of_a_rule(second: Program, replaces: bool, by_hand: fn(&str) -> Request) -> Life {
    Life {
        cluster,
        kind: "proxmox:ha-rule",
        rest: |stack| {
            kept(&pve(stack));
            Ok(())
        },
        first: |stack| rule(stack, Affinity::Apart),
        second,
        replaces,
        seen: |world| world["rules"]["spread"].clone(),
        by_hand,
        foreign: || {
            let request = Request::post("/cluster/ha/rules").with("rule", "spread").with("type", "node-affinity");
            request.with("resources", "vm:1202").with("nodes", "pve2")
        },
        remove: || Request::delete("/cluster/ha/rules/spread"),
    }
}

fn apart() -> Value {
    json!({
        "type": "resource-affinity", "affinity": "negative", "resources": "vm:1201,vm:1202",
        "comment": "managed by lab: MARK",
    })
}

#[test]
fn a_rule_that_keeps_machines_apart() {
    let put = |_: &str| {
        let request = Request::put("/cluster/ha/rules/spread").with("type", "resource-affinity");
        request.with("affinity", "negative")
    };
    let mut together = apart();
    together["affinity"] = json!("positive");
    life_of_a_rule(|stack| rule(stack, Affinity::Together), false, put).is(apart(), together);
}

#[test]
fn a_rule_that_becomes_one_about_nodes_is_another_rule() {
    fn nodes(stack: &Stack) -> Outcome {
        let nodes = BTreeMap::from([("pve1".to_owned(), 2), ("pve2".to_owned(), 0)]);
        rule(stack, Affinity::Nodes { nodes, strict: true })
    }
    let put = |_: &str| {
        let request = Request::put("/cluster/ha/rules/spread").with("type", "node-affinity");
        request.with("nodes", "pve3")
    };
    let on_nodes = json!({
        "type": "node-affinity", "nodes": "pve1:2,pve2", "strict": "1", "resources": "vm:1201,vm:1202",
        "comment": "managed by lab: MARK",
    });
    life_of_a_rule(nodes, true, put).is(apart(), on_nodes);
}

/// The same cluster before version 9.
fn before_rules() -> Cluster {
    Cluster { version: "8.4.2".into(), ..cluster() }
}

#[test]
fn a_group_of_version_8() {
    fn of(stack: &Stack, edit: impl FnOnce(Group) -> Group) -> Outcome {
        let pve = pve(stack);
        let group = pve.resource("shop").add(edit(Group::new("shop", ["pve1", "pve2"])));
        let [first, _] = machines(&pve);
        let group = Some(group.output(|group| group.name).into());
        pve.resource("kept").add(HighAvailability { group, ..HighAvailability::new(first) });
        Ok(())
    }
    fn changed(group: Group) -> Group {
        let nodes = BTreeMap::from([("pve1".to_owned(), 2), ("pve3".to_owned(), 0)]);
        Group { nodes, restricted: true, fail_back: false, ..group }
    }
    let life = Life {
        cluster: before_rules,
        kind: "proxmox:ha-group",
        rest: |stack| {
            let pve = pve(stack);
            let [first, _] = machines(&pve);
            pve.resource("kept").add(HighAvailability::new(first));
            Ok(())
        },
        first: |stack| of(stack, |group| group),
        second: |stack| of(stack, changed),
        replaces: false,
        seen: |world| world["groups"]["shop"].clone(),
        by_hand: |_| Request::put("/cluster/ha/groups/shop").with("nodes", "pve1:2,pve2,pve3"),
        foreign: || Request::post("/cluster/ha/groups").with("group", "shop").with("nodes", "pve3"),
        remove: || Request::put("/cluster/ha/groups/shop").with("nofailback", 0),
    };
    life.is(
        json!({"nodes": "pve1,pve2", "restricted": "0", "nofailback": "0", "comment": "managed by lab: MARK"}),
        json!({"nodes": "pve1:2,pve3", "restricted": "1", "nofailback": "1", "comment": "managed by lab: MARK"}),
    );
    let lab = Lab::of(before_rules(), lab_sim::Faults::none());
    lab.whole(life.first, Verb::Up);
    assert_eq!(paired(&lab.world()["ha"], &json!(1201))["group"], "shop");
}

#[test]
fn what_another_version_has_is_named_where_this_one_lacks_it() {
    let lab = Lab::of(before_rules(), lab_sim::Faults::none());
    let said = lab.failures(|stack| rule(stack, Affinity::Apart), Verb::Up);
    assert!(said.contains("rules need Proxmox VE 9; version 8 has groups instead"), "{said}");
    let lab = Lab::new();
    let group = |stack: &Stack| -> Outcome {
        pve(stack).resource("shop").add(Group::new("shop", ["pve1"]));
        Ok(())
    };
    let said = lab.failures(group, Verb::Up);
    assert!(said.contains("groups are of Proxmox VE 8; version 9 has rules instead"), "{said}");
}

#[test]
fn an_entry_whose_mark_somebody_took_away_is_not_changed() {
    fn shop(stack: &Stack) -> Outcome {
        pve(stack).resource("pool").add(Pool { comment: "the shop".into(), ..Pool::new("shop") });
        Ok(())
    }
    let lab = Lab::new();
    lab.whole(shop, Verb::Up);
    send(&lab, &pool::describe("shop", "mine now"));
    lab.refresh(shop);
    let before = lab.world();
    lab.whole(nothing, Verb::Up);
    assert_eq!(lab.world(), before, "what no longer says that it is ours was deleted");
}

fn pooled(stack: &Stack, pools: usize) -> Outcome {
    let pve = pve(stack);
    let [shop, mail] =
        ["shop", "mail"].map(|name| pve.resource(name).add(Pool::new(name)).output(|pool| pool.name).into());
    let pool: Option<Input<String>> = [None, Some(shop), Some(mail)].into_iter().nth(pools).flatten();
    pve.resource("first").add(Vm { pool, ..machine(1201, "pve1") });
    Ok(())
}

#[test]
fn a_machine_joins_a_pool_moves_to_another_and_leaves_it() {
    let lab = Lab::new();
    let pool = || lab.machine(1201)["pool"].clone();
    let (none, shop, mail): (Program, Program, Program) =
        (|stack| pooled(stack, 0), |stack| pooled(stack, 1), |stack| pooled(stack, 2));
    for (program, expected) in
        [(none, Value::Null), (shop, json!("shop")), (mail, json!("mail")), (none, Value::Null), (mail, json!("mail"))]
    {
        lab.whole(program, Verb::Up);
        assert_eq!(pool(), expected);
        lab.settled(program);
    }
    send(&lab, &pool::join("shop", 1201));
    let plan = lab.planned(mail, Verb::Up, true);
    assert_eq!(plan.steps.iter().map(|step| step.urn.name()).collect::<Vec<_>>(), ["first"]);
    assert_eq!(plan.steps[0].interrupts, None);
    lab.looking(mail, Verb::Up);
    assert_eq!(pool(), "mail");
    // Where it was put by hand is nobody's business when nothing is declared of it.
    lab.whole(none, Verb::Up);
    send(&lab, &pool::join("shop", 1201));
    lab.settled(none);
    assert_eq!(pool(), "shop");
    // And so the pool is not empty when it is to go.
    lab.whole(nothing, Verb::Up);
    assert_eq!(lab.world()["pools"], json!([]));
}

#[test]
fn a_pool_that_holds_somebody_elses_machine_stays() {
    let lab = Lab::new();
    fn shop(stack: &Stack) -> Outcome {
        pve(stack).resource("pool").timeout(Duration::from_secs(60)).add(Pool::new("shop"));
        Ok(())
    }
    lab.whole(shop, Verb::Up);
    let theirs = vm::create("pve3", 300, Some("shop"), &[("name".to_owned(), "photos".to_owned())]);
    lab.task(&theirs);
    let said = lab.failures(shop, Verb::Destroy);
    assert!(said.contains("pool 'shop' is not empty (contains VM 300)"), "{said}");
    assert_eq!(lab.machine(300)["pool"], "shop");
}

#[test]
fn entries_that_were_made_by_hand_are_imported_and_left_as_they_are() {
    fn program(stack: &Stack) -> Outcome {
        let pve = pve(stack);
        pve.resource("pool").import("shop").add(Pool { comment: "of ours".into(), ..Pool::new("shop") });
        let password = Secret::new("password".to_owned());
        let server = BackupServer::new("vault", "10.0.0.9", "homelab", "backup@pbs", password);
        pve.resource("vault").import("vault").add(server);
        let [first, _] = machines(&pve);
        pve.resource("kept").import("vm:1201").add(HighAvailability::new(first.clone()));
        let job = BackupJob::new("nightly", "nas".to_owned(), "02:30", vec![first]);
        pve.resource("nightly").import("nightly").add(job);
        Ok(())
    }
    let lab = Lab::new();
    lab.whole(only_machines, Verb::Up);
    send(&lab, &pool::create("shop", "of ours"));
    let vault = Request::post("/storage").with("storage", "vault").with("type", "pbs").with("server", "10.0.0.9");
    let vault = vault.with("datastore", "homelab").with("username", "backup@pbs").with("content", "backup");
    send(&lab, &vault.with("password", "password"));
    send(&lab, &Request::post("/cluster/ha/resources").with("sid", "vm:1201"));
    let job = Request::post("/cluster/backup").with("id", "nightly").with("vmid", 1201).with("storage", "nas");
    send(&lab, &job.with("schedule", "02:30").with("mode", "snapshot").with("prune-backups", "keep-all=1"));
    let before = lab.world();
    let plan = lab.planned(program, Verb::Up, false);
    assert!(plan.steps.iter().all(|step| matches!(step.action, Action::Import { .. })), "{}", plan_text(&plan));
    assert_eq!(plan.steps.len(), 4);
    lab.whole(program, Verb::Up);
    assert_eq!(lab.world(), before);
    lab.settled(program);
    lab.whole(nothing, Verb::Up);
    let after = lab.world();
    assert_eq!((&after["pools"], &after["ha"], &after["backups"]), (&json!([]), &json!([]), &json!({})));
}

fn plan_text(plan: &lab_core::plan::Plan) -> String {
    lab_core::plan::text(plan)
}

//! The provider contract, tried on something like Kubernetes: objects that are there long before they are ready and
//! long after they were deleted, names that anybody may take, and a cluster that is replaced under all of them.

mod contract;

use contract::{
    Lab, Log, Scenario, Server, World, leaves_nothing_behind_when_destroyed_half_made, survives_everything,
};
use lab_core::execute::CallFault;
use lab_core::plan::Verb;
use lab_core::{
    Change, Class, Error, Found, Handle, Id, Impact, Input, Link, Made, Op, Order, Owner, ProgramError, Provider,
    Realm, Resource, Result, Stack, Step, Types, Urn,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

// --- The clusters, and the NAS beside them.

#[derive(Clone, Default)]
struct Site {
    clusters: BTreeMap<String, Cluster>,
    /// Volumes that objects asked for. They survive the cluster, not their object.
    nas: BTreeSet<String>,
    serial: u32,
}

#[derive(Clone, Default)]
struct Cluster {
    mark: String,
    image: String,
    objects: BTreeMap<String, Object>,
    cut_off: bool,
}

#[derive(Clone, Default)]
struct Object {
    uid: u32,
    mark: Option<String>,
    text: String,
    volume: Option<String>,
    /// Ticks until it is ready.
    unready: u32,
    /// Ticks that its finalizer takes, once it is to be deleted; forever, when there is nobody to do it.
    finalizer: Option<u32>,
    deleting: bool,
}

impl Site {
    fn cluster(&mut self, name: &str) -> Result<&mut Cluster> {
        match self.clusters.get_mut(name) {
            Some(cluster) if !cluster.cut_off => Ok(cluster),
            Some(_) | None => Err(Error::unreachable(format!("cluster {name} does not answer"))),
        }
    }

    fn drop_object(&mut self, cluster: &str, name: &str) {
        let dropped = self.clusters.get_mut(cluster).and_then(|cluster| cluster.objects.remove(name));
        if let Some(volume) = dropped.and_then(|object| object.volume) {
            self.nas.remove(&volume);
        }
    }
}

/// What a person sees of an object: what it says, whether it is ready, whether it is on its way out.
type Shown = (String, bool, bool);

impl Server for Site {
    type Sight = (BTreeMap<String, BTreeMap<String, Shown>>, BTreeSet<String>);

    fn tick(&mut self, log: &mut Log) {
        let mut gone = Vec::new();
        for (place, cluster) in &mut self.clusters {
            for (name, object) in &mut cluster.objects {
                if object.unready > 0 {
                    object.unready -= 1;
                    if object.unready == 0 {
                        log.push(format!("ready {}/{name}", cluster.image));
                    }
                }
                if object.deleting {
                    match object.finalizer {
                        Some(0) | None => gone.push((place.clone(), name.clone())),
                        Some(u32::MAX) => {}
                        Some(left) => object.finalizer = Some(left - 1),
                    }
                }
            }
        }
        gone.iter().for_each(|(place, name)| self.drop_object(place, name));
    }

    fn sight(&self) -> Self::Sight {
        let shown = |object: &Object| (object.text.clone(), object.unready == 0, object.deleting);
        let objects =
            |cluster: &Cluster| cluster.objects.iter().map(|(name, object)| (name.clone(), shown(object))).collect();
        // By image: which number a cluster got is nobody's business.
        (self.clusters.values().map(|cluster| (cluster.image.clone(), objects(cluster))).collect(), self.nas.clone())
    }
}

// --- The provider of clusters.

/// Where clusters are made.
#[derive(Clone, Serialize, Deserialize)]
struct Hosting {
    site: String,
}

impl Provider for Hosting {
    const NAME: &'static str = "hosting";
    type Client = Arc<World<Site>>;

    fn realm(&self) -> Realm {
        Realm::Stated(format!("hosting {}", self.site))
    }

    async fn connect(self, link: Link) -> Result<Self::Client> {
        link.world().ok_or_else(|| Error::invalid("the link does not lead to a site in memory"))
    }

    fn types(types: &mut Types<Hosting>) {
        types.add::<Hosted>();
    }
}

/// A cluster. It is called what its maker likes, so it is found by its mark.
#[derive(Clone, Serialize, Deserialize)]
struct Hosted {
    /// Another image is another cluster.
    image: String,
}

impl Resource<Hosting> for Hosted {
    const TYPE: &'static str = "hosting:cluster";
    type Outputs = String;

    fn change(&self, _: &Hosted, _: Option<&Value>) -> Change {
        Change::Replace(Impact::default(), Order::DeleteFirst)
    }

    async fn find(site: &Arc<World<Site>>, op: &Op<Hosted>) -> Result<Found<String>> {
        site.ask(|site| {
            let ours = site.clusters.iter().find(|(_, cluster)| cluster.mark == op.mark);
            Ok(ours.map_or(Found::Absent, |(name, cluster)| {
                let step = Step::Done(Made::new(name.as_str(), name.clone()));
                Found::Present(Owner::Marked(cluster.mark.clone()), step)
            }))
        })
    }

    async fn apply(&self, site: &Arc<World<Site>>, op: &Op<Hosted>) -> Result<Step<String>> {
        site.call(|site, log| {
            site.serial += 1;
            let name = format!("c{}", site.serial);
            log.push(format!("create cluster {}", self.image));
            let cluster = Cluster { mark: op.mark.clone(), image: self.image.clone(), ..Cluster::default() };
            site.clusters.insert(name.clone(), cluster);
            Ok(Step::Done(Made::new(name.as_str(), name.clone())))
        })
    }

    async fn delete(site: &Arc<World<Site>>, op: &Op<Hosted>) -> Result<Step<()>> {
        site.call(|site, log| {
            let ours = site.clusters.iter().find(|(_, cluster)| cluster.mark == op.mark).map(|(name, _)| name.clone());
            if let Some(cluster) = ours.and_then(|name| site.clusters.remove(&name)) {
                log.push(format!("delete cluster {}", cluster.image));
            }
            Ok(Step::gone())
        })
    }
}

// --- The provider of what is inside a cluster.

/// The inside of a cluster.
#[derive(Clone, Serialize, Deserialize)]
struct Kubernetes {
    cluster: Input<String>,
    inside: Urn,
}

impl Kubernetes {
    fn inside(cluster: &Handle<String>) -> Kubernetes {
        Kubernetes { cluster: cluster.output(|name| name).into(), inside: cluster.urn().clone() }
    }
}

impl Provider for Kubernetes {
    const NAME: &'static str = "kubernetes";
    type Client = Api;

    fn realm(&self) -> Realm {
        Realm::Inside(self.inside.clone())
    }

    async fn connect(self, link: Link) -> Result<Api> {
        let site = link.world().ok_or_else(|| Error::invalid("the link does not lead to a site in memory"))?;
        Ok(Api { site, cluster: self.cluster.get().clone() })
    }

    fn types(types: &mut Types<Kubernetes>) {
        types.add::<Thing>();
    }
}

/// A connection to a cluster: its API, call by call.
struct Api {
    site: Arc<World<Site>>,
    cluster: String,
}

impl Api {
    fn get(&self, name: &str) -> Result<Option<Object>> {
        self.site.call(|site, _| Ok(site.cluster(&self.cluster)?.objects.get(name).cloned()))
    }

    /// Makes an object that does not exist.
    fn create(&self, thing: &Thing, mark: &str) -> Result<()> {
        self.site.call(|site, log| {
            site.serial += 1;
            let uid = site.serial;
            let cluster = site.cluster(&self.cluster)?;
            if cluster.objects.contains_key(&thing.name) {
                return Err(Error::conflict(format!("{} already exists", thing.name)));
            }
            log.push(format!("create {}/{}", cluster.image, thing.name));
            let object = Object {
                uid,
                mark: Some(mark.to_owned()),
                text: thing.text.clone(),
                volume: thing.volume.clone(),
                unready: thing.unready,
                finalizer: thing.finalizer,
                deleting: false,
            };
            cluster.objects.insert(thing.name.clone(), object);
            site.nas.extend(thing.volume.clone());
            Ok(())
        })
    }

    /// Changes an object, if it still is the one that was seen.
    fn with<T>(&self, name: &str, uid: u32, change: impl FnOnce(&mut Object) -> T, said: &str) -> Result<T> {
        self.site.call(|site, log| {
            let cluster = site.cluster(&self.cluster)?;
            match cluster.objects.get_mut(name) {
                None => Err(Error::new(Class::Gone, format!("{name} not found"))),
                Some(object) if object.uid != uid => Err(Error::conflict(format!("{name} has another uid by now"))),
                Some(object) => {
                    log.push(format!("{said} {}/{name}", cluster.image));
                    Ok(change(object))
                }
            }
        })
    }
}

/// An object. Found by its name; ours by the mark in its annotations.
#[derive(Clone, Serialize, Deserialize)]
struct Thing {
    name: String,
    text: String,
    /// How long it is not ready after it was made.
    unready: u32,
    /// How long its finalizer takes.
    finalizer: Option<u32>,
    /// What it keeps on the NAS.
    volume: Option<String>,
}

impl Thing {
    fn new(name: &str, text: &str) -> Thing {
        Thing { name: name.into(), text: text.into(), unready: 0, finalizer: None, volume: None }
    }

    fn stand(&self, object: &Object) -> Step<String> {
        let live = Some(json!({ "text": object.text }));
        let made = Made { live, ..Made::new(self.name.as_str(), object.text.clone()) };
        if object.unready == 0 {
            return Step::Done(made);
        }
        let why = "0 of 1 pods are ready".into();
        Step::Next { cursor: Value::Null, made: Some(made), why, pause: Duration::from_secs(1) }
    }
}

fn owner(object: &Object) -> Owner {
    object.mark.clone().map_or(Owner::Unmarked, Owner::Marked)
}

impl Resource<Kubernetes> for Thing {
    const TYPE: &'static str = "kubernetes:thing";
    type Outputs = String;

    fn id(&self) -> Option<Id> {
        Some(self.name.as_str().into())
    }

    fn outside(&self) -> bool {
        self.volume.is_some()
    }

    fn change(&self, _: &Thing, _: Option<&Value>) -> Change {
        Change::Update(Impact { unknown: vec!["".into()], ..Impact::default() })
    }

    async fn find(api: &Api, op: &Op<Thing>) -> Result<Found<String>> {
        let Some(thing) = &op.inputs else { return Err(Error::invalid("its inputs can no longer be read")) };
        let Some(object) = api.get(&thing.name)? else { return Ok(Found::Absent) };
        // Once it is settled which object is to go, one of the same name is not it.
        if op.deleting && op.cursor.as_ref().is_some_and(|uid| *uid != json!(object.uid)) {
            return Ok(Found::Absent);
        }
        let owner = owner(&object);
        Ok(match object.deleting {
            true => Found::Leaving(owner, "its finalizer is not done".into()),
            false => Found::Present(owner, thing.stand(&object)),
        })
    }

    async fn apply(&self, api: &Api, op: &Op<Thing>) -> Result<Step<String>> {
        let object = match api.get(&self.name)? {
            None if op.exists => return Err(Error::new(Class::Gone, format!("{} is gone", self.name))),
            None => {
                api.create(self, &op.mark)?;
                return Ok(Step::next(Value::Null, "it is made", Duration::ZERO));
            }
            Some(object) => object,
        };
        if owner(&object) != Owner::Marked(op.mark.clone()) || object.deleting {
            return Err(Error::conflict(format!("{} was made or deleted by somebody else meanwhile", self.name)));
        }
        if object.text != self.text {
            let text = self.text.clone();
            api.with(&self.name, object.uid, |object| object.text = text, "change")?;
            return Ok(Step::next(Value::Null, "it is changed", Duration::ZERO));
        }
        Ok(self.stand(&object))
    }

    async fn delete(api: &Api, op: &Op<Thing>) -> Result<Step<()>> {
        let Some(thing) = &op.inputs else { return Err(Error::invalid("its inputs can no longer be read")) };
        let Some(object) = api.get(&thing.name)? else { return Ok(Step::gone()) };
        let uid = match &op.cursor {
            // The mark once more: what bore it when it was looked for may have been swapped since.
            None if owner(&object) != Owner::Marked(op.mark.clone()) => {
                return Err(Error::conflict(format!("{} was made by somebody else meanwhile", thing.name)));
            }
            None => return Ok(Step::next(json!(object.uid), "it is settled which one goes", Duration::ZERO)),
            Some(uid) => uid,
        };
        if *uid != json!(object.uid) {
            return Ok(Step::gone());
        }
        if !object.deleting {
            api.with(&thing.name, object.uid, |object| object.deleting = true, "delete")?;
        }
        Ok(Step::next(uid.clone(), "its finalizer is not done", Duration::from_secs(1)))
    }
}

// --- The programs.

fn site(stack: &Stack, image: &str, text: &str) -> Result<(), ProgramError> {
    let hosting = stack.provider("hosting", Hosting { site: "cellar".into() });
    let cluster = hosting.resource("cluster").add(Hosted { image: image.into() });
    let k8s = stack.provider("k8s", Kubernetes::inside(&cluster));
    let slow = k8s.resource("slow").add(Thing { unready: 8, ..Thing::new("slow", text) });
    k8s.resource("sidecar").after_created(&slow).add(Thing::new("sidecar", text));
    k8s.resource("user").depends_on(&slow).add(Thing { finalizer: Some(4), ..Thing::new("user", text) });
    k8s.resource("media").add(Thing { volume: Some("movies".into()), ..Thing::new("media", text) });
    Ok(())
}

fn first(stack: &Stack) -> Result<(), ProgramError> {
    site(stack, "v1", "hello")
}

fn changed(stack: &Stack) -> Result<(), ProgramError> {
    site(stack, "v1", "hello again")
}

fn replaced(stack: &Stack) -> Result<(), ProgramError> {
    site(stack, "v2", "hello")
}

fn one(stack: &Stack) -> Result<(), ProgramError> {
    let hosting = stack.provider("hosting", Hosting { site: "cellar".into() });
    let cluster = hosting.resource("cluster").add(Hosted { image: "v1".into() });
    let k8s = stack.provider("k8s", Kubernetes::inside(&cluster));
    k8s.resource("lingering").add(Thing { finalizer: Some(4), ..Thing::new("lingering", "hello") });
    Ok(())
}

fn none(stack: &Stack) -> Result<(), ProgramError> {
    let hosting = stack.provider("hosting", Hosting { site: "cellar".into() });
    let cluster = hosting.resource("cluster").add(Hosted { image: "v1".into() });
    stack.provider("k8s", Kubernetes::inside(&cluster));
    Ok(())
}

fn object<T>(lab: &Lab<Site>, name: &str, change: impl FnOnce(&mut Object) -> T) -> T {
    lab.world.change(|site| {
        let found = site.clusters.values_mut().find_map(|cluster| cluster.objects.get_mut(name));
        change(found.unwrap_or_else(|| panic!("there is no {name}")))
    })
}

fn theirs() -> Object {
    Object { uid: 77, text: "somebody else's".into(), ..Object::default() }
}

fn plant(lab: &Lab<Site>, name: &str, object: Object) {
    lab.world.change(|site| {
        site.clusters.values_mut().for_each(|cluster| {
            cluster.objects.insert(name.to_owned(), object.clone());
        })
    });
}

// --- What must hold.

#[test]
fn creating_survives_everything() {
    survives_everything::<Site>(&Scenario { before: None, program: first, verb: Verb::Up });
}

#[test]
fn changing_survives_everything() {
    survives_everything::<Site>(&Scenario { before: Some(first), program: changed, verb: Verb::Up });
}

#[test]
fn removing_a_line_survives_everything() {
    survives_everything::<Site>(&Scenario { before: Some(one), program: none, verb: Verb::Up });
}

#[test]
fn replacing_the_cluster_survives_everything() {
    survives_everything::<Site>(&Scenario { before: Some(first), program: replaced, verb: Verb::Up });
}

#[test]
fn destroying_survives_everything() {
    survives_everything::<Site>(&Scenario { before: Some(first), program: first, verb: Verb::Destroy });
}

#[test]
fn what_is_half_made_can_be_destroyed() {
    leaves_nothing_behind_when_destroyed_half_made::<Site>(first);
}

#[test]
fn what_needs_only_that_it_exists_does_not_wait_until_it_is_ready() {
    let lab = Lab::<Site>::after(Some(first));
    let log = lab.world.log();
    let at = |line: &str| log.iter().position(|other| other == line).unwrap_or_else(|| panic!("no {line} in {log:?}"));
    assert!(at("create v1/slow") < at("create v1/sidecar"));
    assert!(at("create v1/sidecar") < at("ready v1/slow"), "it waited for nothing: {log:?}");
    assert!(at("ready v1/slow") < at("create v1/user"), "it did not wait: {log:?}");
}

#[test]
fn a_deletion_goes_on_until_the_finalizer_is_done() {
    let lab = Lab::<Site>::after(Some(one));
    object(&lab, "lingering", |object| object.finalizer = Some(u32::MAX));
    insta::assert_snapshot!(lab.failures(none, Verb::Up), @"delete lab::k8s::::kubernetes:thing::lingering: it took longer than 600 s: its finalizer is not done [the next `up` goes on from here; `.timeout(…)` gives it longer]");
    // Its owner does its work at last; nothing is deleted a second time.
    object(&lab, "lingering", |object| object.finalizer = Some(0));
    lab.bench.up_whole(none);
    assert_eq!(lab.world.log(), ["create cluster v1", "create v1/lingering", "delete v1/lingering"]);
    assert!(lab.bench.preview(none).is_empty());
}

#[test]
fn an_object_of_somebody_elses_is_not_touched() {
    let lab = Lab::<Site>::after(Some(none));
    plant(&lab, "lingering", theirs());
    insta::assert_snapshot!(lab.failures(one, Verb::Up), @"create lab::k8s::::kubernetes:thing::lingering: kubernetes:thing lingering exists already and is not ours: it bears no mark of ours; it was not touched [take it over with `import lingering lingering`, give ours another name, or remove the other one by hand]");
    assert_eq!(object(&lab, "lingering", |object| (object.uid, object.text.clone())), (77, "somebody else's".into()));
    assert_eq!(lab.world.log(), ["create cluster v1"]);
}

#[test]
fn an_object_that_took_the_name_of_a_deleted_one_is_not_deleted() {
    // The process dies when it is settled which object goes, and before that one is deleted: by whatever came in its
    // place, with whatever mark.
    let lab = Lab::<Site>::after(Some(one));
    let mark = object(&lab, "lingering", |object| object.mark.clone());
    let lab = lab.killed(none, 2, CallFault::StopBefore);
    let uids: Vec<_> = lab.bench.state().open().filter_map(|(_, _, open)| open.cursor.clone()).collect();
    assert_eq!(uids, [json!(object(&lab, "lingering", |object| object.uid))], "which one goes was meant to be settled");
    plant(&lab, "lingering", Object { mark, ..theirs() });
    lab.bench.up_whole(none);
    assert_eq!(object(&lab, "lingering", |object| (object.uid, object.deleting)), (77, false));
    assert!(lab.bench.preview(none).is_empty());
}

#[test]
fn a_replaced_cluster_gets_everything_it_had() {
    let lab = Lab::<Site>::after(Some(first));
    let (before, nas) = lab.world.sight();
    lab.bench.up_whole(replaced);
    let (after, same) = lab.world.sight();
    assert_eq!(before.into_values().collect::<Vec<_>>(), after.into_values().collect::<Vec<_>>());
    assert_eq!(nas, same);
    let deleted: Vec<_> = lab.world.log().into_iter().filter(|line| line.starts_with("delete")).collect();
    assert_eq!(deleted, ["delete v1/media", "delete cluster v1"], "only what has effects outside is deleted by call");
}

#[test]
fn what_lies_outside_an_unreachable_cluster_is_left_behind_and_said_at_every_run() {
    let lab = Lab::<Site>::after(Some(first));
    lab.world.change(|site| site.clusters.values_mut().for_each(|cluster| cluster.cut_off = true));
    lab.bench.up_whole(replaced);
    let deleted: Vec<_> = lab.world.log().into_iter().filter(|line| line.starts_with("delete")).collect();
    assert_eq!(deleted, ["delete cluster v1"]);
    let plan = lab.bench.preview(replaced);
    assert!(plan.is_empty(), "{}", lab_core::plan::text(&plan));
    assert!(plan.warnings.iter().any(|warning| warning.contains("media was left behind")), "{:?}", plan.warnings);
}

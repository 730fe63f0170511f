//! How an object is found, applied and deleted.

use crate::adopt::takeover;
use crate::body::{self, INITIAL, apply_body, mark_of, put};
use crate::claims::{claims, may_claim};
use crate::client::{Client, Deleted};
use crate::immutable::{Reason, Verdict, verdict};
use crate::impact;
use crate::json::{group, list, text};
use crate::key::{Identity, Key};
use crate::kinds::Kind;
use crate::live::{TAKEN, holds_secrets, live, overlaid, same};
use crate::object::Object;
use crate::outputs::{ADDRESS, ObjectOutputs};
use crate::probe::probe;
use crate::provider::Kubernetes;
use crate::readiness::{GRACE_SECONDS, Readiness, Related, status, status_with};
use crate::request::{Apply, Propagation};
use lab_core::{
    Change, Claim, Class, Data, Error, Found, Id, Impact, Made, Op, Order, Owner, Path, Resource, Result, Step,
    Warnings, digest,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

/// How long to wait before looking again.
const PAUSE: Duration = Duration::from_secs(1);

/// For how many seconds what it takes to explain why an object is not ready is not asked for, where many are waited for.
const UNEXPLAINED: u64 = 3;

/// The name under which values are owned that are only given at first. The first apply makes the object with them, as
/// [`crate::request::MANAGER`]; a second one owns them under this name, and every later one leaves them out: without
/// another owner they would then be removed.
pub const FIRST: &str = "lab-initial";

/// Where an operation stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Cursor {
    /// The object that was made, found or is deleted.
    uid: String,
    /// The digest of the body that was applied, without its secrets. None: nothing was applied by this operation, as
    /// far as we know, and what is there may be the object before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    applied: Option<String>,
    /// Since when it is waited for, in seconds of Unix time.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<u64>,
    /// Since when it says that it failed, in seconds of Unix time.
    #[serde(skip_serializing_if = "Option::is_none")]
    failing: Option<u64>,
}

impl Cursor {
    /// A cursor of an older version is none: looking again does no harm.
    fn of<R>(op: &Op<R>) -> Option<Cursor> {
        op.cursor.clone().and_then(|cursor| serde_json::from_value(cursor).ok())
    }

    fn write(&self) -> Value {
        json!(self)
    }
}

impl<K: Data> Resource<Kubernetes> for Object<K> {
    const TYPE: &'static str = "kubernetes:object";
    const INITIAL: &'static [&'static str] = &["/initial"];
    const RIPENS: bool = true;
    const PROBES: bool = true;
    type Outputs = ObjectOutputs;

    fn id(&self) -> Option<Id> {
        Some(Id(self.key().ok()?.identity().to_string()))
    }

    fn claims(&self) -> Vec<Claim> {
        let Ok(body) = self.written() else { return Vec::new() };
        // Asking for an input that is not known defers the claims, so only those are asked that have any.
        if !may_claim(&body) {
            return Vec::new();
        }
        self.draft().map(|body| claims(&body)).unwrap_or_default()
    }

    fn change(&self, prior: &Object<K>, seen: Option<&Value>) -> Change {
        let before = prior.written().and_then(|written| {
            let body = seen.and_then(|seen| seen.get("body")).map_or(written.clone(), |seen| overlaid(&written, seen));
            let mut before = prior.over(body)?;
            for (pointer, value) in
                seen.and_then(|seen| seen.get("set")).and_then(Value::as_object).into_iter().flatten()
            {
                put(&mut before, pointer, value.clone());
            }
            Ok(before)
        });
        let (Ok(before), Ok(next)) = (before, self.draft()) else {
            return Change::Update(Impact { unknown: vec![Path::root()], ..Impact::default() });
        };
        if seen.is_none() && same(&before, &next) {
            return Change::None;
        }
        let verdict = verdict(&before, &next);
        let interrupts = impact::interrupts(&before, &next, &verdict);
        match verdict {
            Verdict::InPlace => {
                let moves = ADDRESS.iter().any(|path| before.pointer(path) != next.pointer(path));
                let unknown =
                    if text(&next, "/kind") == "Service" && moves { vec![Path::from("/address")] } else { vec![] };
                let destroys = impact::loses(&before, &next);
                Change::Update(Impact { reasons: others(seen), interrupts, destroys, unknown })
            }
            Verdict::Replace(reasons) => {
                let destroys = impact::destroys(&before, None);
                let impact = Impact { reasons: said(reasons), interrupts, destroys, unknown: Vec::new() };
                Change::Replace(impact, Order::DeleteFirst)
            }
            Verdict::Refused(reasons) => Change::Refuse(said(reasons)),
        }
    }

    fn removal(&self) -> Impact {
        let Ok(body) = self.draft() else { return Impact::default() };
        Impact { interrupts: impact::stops(&body), destroys: impact::destroys(&body, None), ..Impact::default() }
    }

    async fn find(client: &Client, op: &Op<Object<K>>) -> Result<Found<ObjectOutputs>> {
        let Some((kind, key)) = target(client, op).await? else { return Ok(Found::Absent) };
        let Some(there) = client.look(&kind, &key, !op.exists).await? else { return Ok(Found::Absent) };
        let cursor = Cursor::of(op).filter(|cursor| cursor.uid == text(&there, "/metadata/uid"));
        if op.deleting && op.cursor.is_some() && cursor.is_none() {
            // Ours is gone; what has its name now is another.
            return Ok(Found::Absent);
        }
        let owner = match mark_of(&there) {
            Some(mark) => Owner::Marked(mark.to_owned()),
            None => Owner::Unmarked,
        };
        // How long it had failed when it was last looked at says nothing about today.
        let applied = cursor.and_then(|cursor| cursor.applied).filter(|_| !op.deleting);
        let uid = text(&there, "/metadata/uid").to_owned();
        let cursor = Cursor { uid, applied, since: Some(seconds(op.now)), failing: None };
        let made = made(&key, op.inputs.as_ref(), &there)?;
        let waits = |why: String| Step::Next { cursor: cursor.write(), made: Some(made.clone()), why, pause: PAUSE };
        // Where many are looked at, nobody reads why this one is not ready.
        let alone = !client.mirror(&kind, &key).is_live();
        Ok(match readiness(client, &there, alone).await? {
            Readiness::Terminating { reason } => Found::Leaving(owner, reason),
            Readiness::Ready if first_is_pending(&there) => {
                Found::Present(owner, waits("its initial values are not owned yet".into()))
            }
            Readiness::Ready => Found::Present(owner, Step::Done(made)),
            Readiness::Waiting { reason } | Readiness::Failed { reason } => Found::Present(owner, waits(reason)),
        })
    }

    async fn probe(&self, client: &Client, op: &Op<Object<K>>) -> Result<Vec<String>> {
        probe(self, client, op).await
    }

    async fn apply(&self, client: &Client, op: &Op<Object<K>>) -> Result<Step<ObjectOutputs>> {
        let key = self.key().map_err(invalid)?;
        if let Some(id) = op.id.as_ref().filter(|id| id.0 != key.identity().to_string()) {
            return Err(Error::invalid(format!("apply {key}: the identity that is given is another object's, {id}")));
        }
        let kind = client.kind(&key).await?.ok_or_else(|| {
            let api = format!("{}/{}", key.api_version, key.kind);
            Error::again(format!("apply {key}: the cluster does not know the kind {api} yet"))
        })?;
        let cursor = Cursor::of(op);
        // What was just proven to be absent need not be asked for.
        let there = match (&cursor, op.exists) {
            (None, false) => None,
            (Some(_), _) | (None, true) => client.look(&kind, &key, false).await?,
        };
        let call = Call { client, kind: &kind, key: &key, mark: &op.mark, now: op.now, warnings: &op.warnings };
        let Some(there) = there else {
            if op.exists {
                return Err(
                    Error::new(Class::Gone, format!("apply {key}: the object does not exist any more")).perhaps()
                );
            }
            return self.create(call).await;
        };
        let uid = text(&there, "/metadata/uid");
        let cursor = match cursor {
            Some(cursor) if cursor.uid == uid => cursor,
            Some(_) if mark_of(&there) != Some(op.mark.as_str()) => {
                return Err(Error::conflict(format!("apply {key}: another object has got its name meanwhile")));
            }
            Some(_) | None => Cursor { uid: uid.to_owned(), ..Cursor::default() },
        };
        if let Readiness::Terminating { reason } = status(&there) {
            return Err(Error::again(format!("apply {key}: the object is being deleted: {reason}")));
        }
        if first_is_pending(&there) {
            return self.own_first(call, cursor, &there).await;
        }
        let sent = digest(&self.shown().map_err(invalid)?);
        if cursor.applied.as_ref() == Some(&sent) && holds_secrets(self, &there).map_err(invalid)? {
            return self.settle(call, cursor, &there).await;
        }
        self.update(call, cursor, &there, op.inputs.as_ref()).await
    }

    async fn delete(client: &Client, op: &Op<Object<K>>) -> Result<Step<()>> {
        let Some((kind, key)) = target(client, op).await? else { return Ok(Step::gone()) };
        let Some(there) = client.look(&kind, &key, false).await? else { return Ok(Step::gone()) };
        let uid = text(&there, "/metadata/uid").to_owned();
        let next = |why: String, pause| {
            let cursor = Cursor { uid: uid.clone(), ..Cursor::default() };
            Ok(Step::next(cursor.write(), why, pause))
        };
        let Some(cursor) = Cursor::of(op) else {
            // Whichever object is deleted is written down first: a lost reply must not lead to another one.
            return next(format!("about to delete {key}"), Duration::ZERO);
        };
        if cursor.uid != uid {
            return Ok(Step::gone());
        }
        if let Readiness::Terminating { reason } = status(&there) {
            return next(reason, PAUSE);
        }
        match client.delete(&kind, &key, &uid, propagation(&kind)).await {
            Ok(Deleted::Gone) => Ok(Step::gone()),
            Ok(Deleted::Leaving(going)) => {
                let why = match going.as_ref().map(status) {
                    Some(Readiness::Terminating { reason }) => reason,
                    _ => "it is being deleted".into(),
                };
                next(why, PAUSE)
            }
            Err(error) if error.problem == crate::Problem::Replaced => Ok(Step::gone()),
            Err(error) => Err(error.into()),
        }
    }
}

/// What every call about one object needs.
struct Call<'a> {
    client: &'a Client,
    kind: &'a Kind,
    key: &'a Key,
    mark: &'a str,
    now: SystemTime,
    warnings: &'a Warnings,
}

impl Call<'_> {
    async fn send(&self, body: &Value, how: &Apply) -> Result<Value> {
        match self.client.apply(self.kind, self.key, body, how).await {
            Ok(applied) => {
                applied.warnings.into_iter().for_each(|warning| self.warnings.add(warning));
                Ok(applied.object)
            }
            // Whoever declares the namespace as well may have it made at this moment.
            Err(error) if matches!(error.problem, crate::Problem::NamespaceMissing(_)) => {
                Err(Error { class: Class::Again, ..error.into() })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns for how many seconds the object is waited for.
    fn waited(&self, cursor: &Cursor) -> u64 {
        cursor.since.map_or(u64::MAX, |since| seconds(self.now).saturating_sub(since))
    }

    /// Returns how long to wait before looking again: less where a look costs no call.
    fn pause(&self, cursor: &Cursor) -> Duration {
        match self.waited(cursor) {
            _ if !self.is_one_of_many() => PAUSE,
            0..2 => PAUSE / 10,
            2..10 => PAUSE / 3,
            _ => PAUSE,
        }
    }

    fn is_one_of_many(&self) -> bool {
        self.client.mirror(self.kind, self.key).is_live()
    }
}

impl<K: Data> Object<K> {
    /// Makes the object, and fails when there is one of its name.
    async fn create(&self, call: Call<'_>) -> Result<Step<ObjectOutputs>> {
        let there = call.send(&self.whole(call.mark)?, &Apply::create()).await?;
        self.applied(call, &there)
    }

    /// Returns the body that the object is made with.
    pub(crate) fn whole(&self, mark: &str) -> Result<Value> {
        let mut body = apply_body(self.desired().map_err(invalid)?, mark);
        let first = self.first().map_err(invalid)?;
        if !first.is_empty() {
            let pointers: Vec<&String> = first.keys().collect();
            put(&mut body, &annotation(INITIAL), json!(json!(pointers).to_string()));
            body = body::merge(body, &first).map_err(invalid)?;
        }
        Ok(body)
    }

    /// Changes the object of this uid; what others have set in our fields is taken back.
    async fn update(
        &self,
        call: Call<'_>,
        cursor: Cursor,
        there: &Value,
        prior: Option<&Object<K>>,
    ) -> Result<Step<ObjectOutputs>> {
        let desired = self.desired().map_err(invalid)?;
        if let Verdict::Refused(reasons) = verdict(there, &desired) {
            let reasons: Vec<String> = reasons.into_iter().map(|reason| reason.text).collect();
            return Err(Error::invalid(format!("apply {}: {}", call.key, reasons.join("; "))));
        }
        // What was imported is not ours yet: an apply would leave what it does not mention.
        let declared = prior.unwrap_or(self).desired().map_err(invalid)?;
        if let Some(patch) = takeover(there, &declared) {
            let there = call.client.patch(call.kind, call.key, &patch).await?;
            let made = Some(made(call.key, Some(self), &there)?);
            let why = "its fields are taken over from those who had set them".into();
            return Ok(Step::Next { cursor: cursor.write(), made, why, pause: Duration::ZERO });
        }
        let body = apply_body(desired, call.mark);
        let there = call.send(&body, &Apply { force: true, ..Apply::update(cursor.uid) }).await?;
        self.applied(call, &there)
    }

    /// Takes the values that were only given at first into an ownership of their own, as they are there.
    async fn own_first(&self, call: Call<'_>, cursor: Cursor, there: &Value) -> Result<Step<ObjectOutputs>> {
        let text = text(there, &annotation(INITIAL));
        let mut body = json!({"apiVersion": there["apiVersion"], "kind": there["kind"],
            "metadata": {"name": there["metadata"]["name"], "annotations": {INITIAL: text}}});
        if let Some(namespace) = &call.key.namespace {
            body["metadata"]["namespace"] = json!(namespace);
        }
        for pointer in serde_json::from_str::<Vec<String>>(text).unwrap_or_default() {
            if let Some(value) = there.pointer(&pointer) {
                put(&mut body, &pointer, value.clone());
            }
        }
        let how = Apply { manager: FIRST.into(), force: true, ..Apply::update(cursor.uid.clone()) };
        let there = call.send(&body, &how).await?;
        let why = "its initial values are there".into();
        let made = Some(made(call.key, Some(self), &there)?);
        Ok(Step::Next { cursor: cursor.write(), made, why, pause: Duration::ZERO })
    }

    /// Says how far the object is right after an apply; who must wait looks again.
    fn applied(&self, call: Call<'_>, there: &Value) -> Result<Step<ObjectOutputs>> {
        let applied = Some(digest(&self.shown().map_err(invalid)?));
        let uid = text(there, "/metadata/uid").to_owned();
        let cursor = Cursor { uid, applied, since: Some(seconds(call.now)), failing: None };
        let made = made(call.key, Some(self), there)?;
        let pause = call.pause(&cursor);
        let next = |why: String, pause| Step::Next { cursor: cursor.write(), made: Some(made.clone()), why, pause };
        Ok(match status(there) {
            _ if first_is_pending(there) => next("its initial values are not owned yet".into(), Duration::ZERO),
            // That a definition is served is asked of the server, at the next look.
            Readiness::Ready if is_definition(there) => next("its kind is not served yet".into(), PAUSE),
            Readiness::Ready => Step::Done(made),
            Readiness::Waiting { reason } | Readiness::Failed { reason } | Readiness::Terminating { reason } => {
                next(reason, pause)
            }
        })
    }

    /// Says how far the object is since it was applied.
    async fn settle(&self, call: Call<'_>, cursor: Cursor, there: &Value) -> Result<Step<ObjectOutputs>> {
        let made = made(call.key, Some(self), there)?;
        let next = |failing, why| {
            let cursor = Cursor { failing, ..cursor.clone() };
            Ok(Step::Next { cursor: cursor.write(), made: Some(made.clone()), why, pause: call.pause(&cursor) })
        };
        let explained = !call.is_one_of_many() || call.waited(&cursor) >= UNEXPLAINED;
        match readiness(call.client, there, explained).await? {
            Readiness::Ready => Ok(Step::Done(made)),
            Readiness::Waiting { reason } | Readiness::Terminating { reason } => next(None, reason),
            Readiness::Failed { reason } => {
                let now = seconds(call.now);
                let since = cursor.failing.unwrap_or(now);
                if now.saturating_sub(since) < GRACE_SECONDS {
                    return next(Some(since), reason);
                }
                // The object stands, so the operation did have an effect and stays open.
                Err(Error::invalid(format!("wait for {}: {reason}", call.key)).perhaps())
            }
        }
    }
}

/// Returns who has set what is not as it was left, as far as the server says.
fn others(seen: Option<&Value>) -> Vec<(Path, String)> {
    let taken = seen.and_then(|seen| seen.get(TAKEN)).and_then(Value::as_object);
    let taken = taken.into_iter().flatten().filter_map(|(pointer, manager)| Some((pointer, manager.as_str()?)));
    taken
        .map(|(pointer, manager)| (Path::from(format!("/body{pointer}").as_str()), format!("set by {manager}")))
        .collect()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

pub(crate) fn invalid(error: impl std::fmt::Display) -> Error {
    Error::invalid(error.to_string())
}

fn said(reasons: Vec<Reason>) -> Vec<(Path, String)> {
    reasons.into_iter().map(|reason| (Path::from(format!("/body{}", reason.path)), reason.text)).collect()
}

fn annotation(name: &str) -> String {
    format!("/metadata/annotations/{}", name.replace('~', "~0").replace('/', "~1"))
}

fn is_definition(object: &Value) -> bool {
    (group(object), text(object, "/kind")) == ("apiextensions.k8s.io", "CustomResourceDefinition")
}

/// Whether an object was made with values that are only given at first, and they have no owner of their own yet.
fn first_is_pending(object: &Value) -> bool {
    let owned = || list(object, "/metadata/managedFields").iter().any(|entry| text(entry, "/manager") == FIRST);
    !text(object, &annotation(INITIAL)).is_empty() && !owned()
}

fn propagation(kind: &Kind) -> Propagation {
    match kind.group.as_str() {
        "apps" | "batch" => Propagation::Foreground,
        _ => Propagation::Background,
    }
}

/// Returns which object an operation is about, in a version that is served; nothing when its kind is not, and so there
/// is no object of it.
async fn target<K: Data>(client: &Client, op: &Op<Object<K>>) -> Result<Option<(Kind, Key)>> {
    let declared = op.inputs.as_ref().and_then(|inputs| inputs.key().ok());
    let identity = match (&op.id, &declared) {
        (Some(id), _) => id.0.parse::<Identity>().map_err(|error| Error::invalid(format!("find {id}: {error}")))?,
        (None, Some(key)) => key.identity(),
        (None, None) => return Err(Error::invalid("find an object: neither its identity nor its inputs are known")),
    };
    if let Some(key) = declared.filter(|key| key.identity() == identity)
        && let Some(kind) = client.kind(&key).await?
    {
        return Ok(Some((kind, key)));
    }
    let kind = client.kind_of(&identity).await?;
    Ok(kind.map(|kind| {
        let key = identity.at(&kind.version);
        (kind, key)
    }))
}

/// Returns how far an object is, where it is to be `explained` with the words of whatever says why.
pub(crate) async fn readiness(client: &Client, object: &Value, explained: bool) -> Result<Readiness> {
    // A claim whose class waits for its first pod is ready, and only the class says so.
    let explained = explained || text(object, "/kind") == "PersistentVolumeClaim";
    match status(object) {
        Readiness::Ready if is_definition(object) => match Kind::defined_by(object).first() {
            Some(kind) if !client.listable(kind).await? => {
                Ok(Readiness::Waiting { reason: "its kind is not served yet".into() })
            }
            Some(_) | None => Ok(Readiness::Ready),
        },
        Readiness::Waiting { .. } | Readiness::Failed { .. } if explained => {
            // An explanation that cannot be had is no reason to fail.
            let related = client.related(object).await.unwrap_or_else(|_| Related::default());
            Ok(status_with(object, &related))
        }
        decided @ (Readiness::Ready
        | Readiness::Terminating { .. }
        | Readiness::Waiting { .. }
        | Readiness::Failed { .. }) => Ok(decided),
    }
}

fn made<K: Data>(key: &Key, inputs: Option<&Object<K>>, there: &Value) -> Result<Made<ObjectOutputs>> {
    let live = inputs.map(|inputs| live(inputs, there)).transpose().map_err(invalid)?;
    Ok(Made { live, ..Made::new(key.identity().to_string(), ObjectOutputs::of(there)) })
}

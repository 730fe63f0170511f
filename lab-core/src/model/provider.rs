//! The contract between the engine and a provider.
//!
//! A provider is a connection to one outside system, a resource is the desired state of one thing in it. The pure
//! half of [`Resource`] is called by the plan, the async half by the execution. The engine owns pauses, backoff,
//! deadlines and the journal: a provider never sleeps, polls or retries, and makes at most one mutating call per
//! returned [`Step`].

use super::{Claim, Link, Lock, Path, Types, Urn};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// What can be declared, stored and handed to a provider: plain data.
pub trait Data: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {}
impl<T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static> Data for T {}

/// What every effect of a provider returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One outside system and how to get into it.
///
/// The implementing type is the configuration: data that may hold outputs and secrets of other resources. It is
/// resolved anew at every run and is never part of a diff; what it points at is stated by [`Provider::realm`].
pub trait Provider: Data + Sized {
    /// What this kind of provider is called in messages: `"talos"`.
    const NAME: &'static str;
    /// The connection that the resources of this provider are given.
    type Client: Send + Sync + 'static;

    /// Returns what this provider points at, by its own identity. Pure: unresolved inputs must not be read.
    fn realm(&self) -> Realm;

    /// Connects. Called at most once per run, and not at all when nothing on this provider has to be done.
    fn connect(self, link: Link) -> impl Future<Output = Result<Self::Client>> + Send;

    /// Lists every type that this provider manages, so that a thing whose line is gone from the program can still be
    /// found and deleted.
    fn types(types: &mut Types<Self>);
}

/// What a provider points at. Part of every comparison: another realm is another world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Realm {
    /// A name computed without network: `"directory:/srv/www"`.
    Stated(String),
    /// The inside of a resource, such as a cluster: known by the operation that created or imported it.
    Inside(Urn),
}

/// One managed thing, as desired: data with the verbs that find, apply and delete it.
///
/// The documentation of an implementation says how the thing is found again, and how ours is told from somebody
/// else's.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be declared on a `{P}` provider",
    label = "this resource belongs to another kind of provider",
    note = "declare it on a scope of the provider that manages it: `scope.on(&other)` keeps the component path"
)]
pub trait Resource<P: Provider>: Data + Sized {
    /// The type: `"proxmox:vm"`.
    const TYPE: &'static str;
    /// The version of the inputs' shape; raised with an [`Resource::upgrade`] from the one before.
    const VERSION: u32 = 1;
    /// Paths of inputs that are sent when it is created and never compared or stored, such as a claim token.
    const INITIAL: &'static [&'static str] = &[];
    /// True for what happens once and cannot be undone: it never changes, and is forgotten instead of deleted.
    const ONCE: bool = false;
    /// True for what exists nowhere but in the state: a value that was generated, or handed out anew for whoever asks.
    /// It is never looked for, and making it has no effect outside.
    const GENERATED: bool = false;
    /// True for what becomes ready by itself once it is made, such as a workload that others run. Whoever waits for it is
    /// not counted among the steps that are at work: what it waits for may be one of those that have not begun.
    const RIPENS: bool = false;
    /// True where [`Resource::probe`] has somebody to ask.
    const PROBES: bool = false;
    /// What it yields.
    type Outputs: Data;

    /// Returns the natural identity in the outside world; `None` when it is found by its mark.
    fn id(&self) -> Option<Id> {
        None
    }
    /// Returns what it occupies exclusively.
    fn claims(&self) -> Vec<Claim> {
        Vec::new()
    }
    /// Returns what its operations take turns at.
    fn locks(&self) -> Vec<Lock> {
        Vec::new()
    }
    /// Returns true when it has effects that survive its container: a volume on the NAS, a DNS record.
    fn outside(&self) -> bool {
        false
    }
    /// Returns what becoming this from `prior` takes. Called only when the inputs differ, or drifted: `live` is then
    /// the thing as it is, in the shape of the inputs.
    fn change(&self, prior: &Self, live: Option<&Value>) -> Change {
        let _ = (prior, live);
        Change::Update(Impact::default())
    }
    /// Returns what creating it means for others: a disk that is wiped.
    fn creation(&self) -> Impact {
        Impact::default()
    }
    /// Returns what deleting it means: the data that goes with it.
    fn removal(&self) -> Impact {
        Impact::default()
    }
    /// Returns `inputs` of an older `version` in today's shape; `None` when that is not possible any more.
    fn upgrade(version: u32, inputs: Value) -> Option<Value> {
        let _ = (version, inputs);
        None
    }

    /// Looks for the thing without changing anything. An error means *not known*; only a proof is [`Found::Absent`].
    fn find(client: &P::Client, op: &Op<Self>) -> impl Future<Output = Result<Found<Self::Outputs>>> + Send;
    /// Asks the outside what it would make of the thing as desired, and changes nothing. Returns what a person should know
    /// before it is done: what would be written differently, what else would change. An error says that it would be
    /// refused. What cannot be told yet, since other steps come first, is nothing to say.
    fn probe(&self, client: &P::Client, op: &Op<Self>) -> impl Future<Output = Result<Vec<String>>> + Send {
        let _ = (client, op);
        std::future::ready(Ok(Vec::new()))
    }
    /// Takes one step towards the thing as desired.
    fn apply(&self, client: &P::Client, op: &Op<Self>) -> impl Future<Output = Result<Step<Self::Outputs>>> + Send;
    /// Takes one step towards its absence.
    fn delete(client: &P::Client, op: &Op<Self>) -> impl Future<Output = Result<Step<()>>> + Send;
}

/// A question about something that exists already. A gate answers [`Step::Next`] until it holds.
#[diagnostic::on_unimplemented(message = "`{Self}` cannot be asked of a `{P}` provider")]
pub trait Query<P: Provider>: Data + Sized {
    /// What the question is called: `"proxmox:template"`.
    const TYPE: &'static str;
    /// What is learned.
    type Answer: Data;
    /// Asks. Changes nothing.
    fn read(&self, client: &P::Client) -> impl Future<Output = Result<Step<Self::Answer>>> + Send;
}

/// Identity in the outside world: `"pve1/101"`, `"apps/v1/Deployment media/plex"`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Id(pub String);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<T: Into<String>> From<T> for Id {
    fn from(text: T) -> Id {
        Id(text.into())
    }
}

/// Where a long operation stands: whatever the next call needs (a task id, a uid, a pinned node).
///
/// It holds only what cannot be read off the thing itself. What an update still has to do is decided by the facts: a
/// cursor that says "configured" was written for the inputs of its time, not for today's.
pub type Cursor = Value;

/// One operation, as a provider sees it.
#[derive(Clone, Debug)]
pub struct Op<R> {
    /// The operation that makes or made the thing: written onto the thing where it can bear a mark.
    pub mark: String,
    /// The natural or recorded identity.
    pub id: Option<Id>,
    /// The inputs begun or last applied; `None` when they can no longer be decoded.
    pub inputs: Option<R>,
    /// For [`Resource::apply`]: true when the thing exists (update), false when it does not (create). For
    /// [`Resource::find`]: false when it was never begun to be made, true when it may be there by our own doing.
    pub exists: bool,
    /// True when the thing is to be deleted: a cursor is then one of [`Resource::delete`].
    pub deleting: bool,
    /// Where the operation stands, as found or else as last journalled. Must not hold a secret.
    pub cursor: Option<Cursor>,
    /// Why this is done.
    pub why: Why,
    /// The time.
    pub now: SystemTime,
    /// Randomness of this operation: the same in every attempt. It is recorded in clear: no secret may come from it.
    pub seed: u64,
    /// Where warnings go: see [`Op::warn`].
    pub warnings: Warnings,
}

impl<R> Op<R> {
    /// Tells a person what they should know of this operation though it did not fail: a task that ended in warnings, a
    /// deprecated interface.
    ///
    /// It is told before the answer of this call is recorded, so a run that is killed in between tells it again and none
    /// keeps it to itself; and once more when the run is over. The same words are told once in a run. Secrets that the run
    /// knows are struck out.
    pub fn warn(&self, message: impl Into<String>) {
        self.warnings.add(message);
    }
}

/// What a provider wants to be told beside its answers. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// Adds something to tell.
    pub fn add(&self, message: impl Into<String>) {
        self.lock().push(message.into());
    }

    /// Takes out what there is to tell, in order.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why an operation is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The program declares it.
    Declared,
    /// The program no longer declares it.
    Removed,
    /// It makes room for, or has been replaced by, another of the same name.
    Replaced,
    /// What contains it is about to go.
    ContainerGoing,
}

/// How far one call came.
#[derive(Clone, Debug)]
pub enum Step<O> {
    /// It is ready; for a delete: it is gone.
    Done(Made<O>),
    /// More calls are needed: the cursor is journalled, the pause kept, then the same verb is called again.
    Next {
        /// What the next call needs.
        cursor: Cursor,
        /// The thing, when it exists already but is not ready.
        made: Option<Made<O>>,
        /// What is waited for, for the person who watches: "waiting for 2 of 3 pods".
        why: String,
        /// How long to wait before the next call.
        pause: Duration,
    },
}

/// A thing that exists.
#[derive(Clone, Debug)]
pub struct Made<O> {
    /// Its identity.
    pub id: Id,
    /// What it yields.
    pub outputs: O,
    /// The thing as it is, in the shape of the inputs; a path that is missing was not read.
    pub live: Option<Value>,
    /// When it should be renewed, such as a certificate.
    pub due: Option<SystemTime>,
}

impl<O> Made<O> {
    /// Returns a thing with an identity and outputs.
    pub fn new(id: impl Into<Id>, outputs: O) -> Made<O> {
        Made { id: id.into(), outputs, live: None, due: None }
    }
}

impl Step<()> {
    /// Returns the answer of a delete that is complete.
    pub fn gone() -> Step<()> {
        Step::Done(Made::new("", ()))
    }
}

impl<O> Step<O> {
    /// Returns a step that waits: nothing is made yet.
    pub fn next(cursor: Cursor, why: impl Into<String>, pause: Duration) -> Step<O> {
        Step::Next { cursor, made: None, why: why.into(), pause }
    }
}

/// What a look at the outside found.
#[derive(Clone, Debug)]
pub enum Found<O> {
    /// Proven not to exist.
    Absent,
    /// It exists: whose it says it is, and how far it is.
    Present(Owner, Step<O>),
    /// It is on its way out, for the reason given.
    Leaving(Owner, String),
}

/// What a thing says about whose it is. The engine judges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// It bears the mark of this operation.
    Marked(String),
    /// It could bear a mark and bears none.
    Unmarked,
    /// It cannot bear a mark.
    Unmarkable,
    /// It is somebody else's for certain, in words: "it belongs to another Talos cluster".
    Other(String),
}

/// What becoming the desired takes.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Nothing: the difference does not matter outside.
    None,
    /// A change in place.
    Update(Impact),
    /// Another thing in its place.
    Replace(Impact, Order),
    /// It cannot become that, for these reasons: a volume cannot shrink. A problem of the plan.
    Refuse(Vec<(Path, String)>),
}

/// Which half of a replacement comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The old one goes before the new one comes.
    DeleteFirst,
    /// The new one stands before the old one goes.
    CreateFirst,
}

/// What a step means beyond its diff.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Impact {
    /// Which path makes it so, and why, in words.
    pub reasons: Vec<(Path, String)>,
    /// What is interrupted: "reboots worker-1".
    pub interrupts: Option<String>,
    /// What data is destroyed: "everything on /dev/nvme0n1". Needs consent.
    pub destroys: Option<String>,
    /// Which outputs will only be known afterwards; the others keep their recorded value.
    pub unknown: Vec<Path>,
}

/// Why a call failed, and whether it may have had an effect all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What kind of failure it is: decides whether the engine tries again.
    pub class: Class,
    /// Whether the call may have had an effect.
    pub effect: Effect,
    /// What was attempted and what came back, without secrets; a lower-case fragment.
    pub message: String,
}

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Busy, locked, not yet: the same call may succeed later.
    Again,
    /// No answer: nothing is known. Not the same as gone.
    Unreachable,
    /// The credentials were refused.
    Unauthorised,
    /// Somebody else's, or changed meanwhile.
    Conflict,
    /// The request can never succeed as it is.
    Invalid,
    /// What it was about is proven to be gone.
    Gone,
}

/// Whether a failed call may have had an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It had none, for certain.
    None,
    /// It may have had one: find before anything else.
    Perhaps,
}

impl Error {
    /// Returns a failure of class `class` that had no effect.
    pub fn new(class: Class, message: impl Into<String>) -> Error {
        Error { class, effect: Effect::None, message: message.into() }
    }
    /// Returns the failure "not yet".
    pub fn again(message: impl Into<String>) -> Error {
        Error::new(Class::Again, message)
    }
    /// Returns the failure "no answer".
    pub fn unreachable(message: impl Into<String>) -> Error {
        Error::new(Class::Unreachable, message)
    }
    /// Returns the failure "this can never succeed".
    pub fn invalid(message: impl Into<String>) -> Error {
        Error::new(Class::Invalid, message)
    }
    /// Returns the failure "somebody else's, or changed meanwhile".
    pub fn conflict(message: impl Into<String>) -> Error {
        Error::new(Class::Conflict, message)
    }
    /// Returns the failure "credentials refused".
    pub fn unauthorised(message: impl Into<String>) -> Error {
        Error::new(Class::Unauthorised, message)
    }
    /// Returns the same failure of a call that may have had an effect.
    pub fn perhaps(mut self) -> Error {
        self.effect = Effect::Perhaps;
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

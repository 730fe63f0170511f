//! The typed contract behind one erased trait, so that the engine can hold every type of every provider in one map.

use super::value::{self, Session, Vault};
use super::{
    Change, Claim, Error, Found, Id, Impact, Link, Lock, Made, Op, Provider, Query, Realm, Resource, Result, Step,
    Tree, Warnings, Why,
};
use async_trait::async_trait;
use serde::Serialize;
use serde_json::Value;
use std::any::Any;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::SystemTime;

/// A provider's connection, of whatever type.
pub type AnyClient = Arc<dyn Any + Send + Sync>;

/// What a pure function of a type could not do: its inputs do not decode, or it panicked.
type Pure<T> = std::result::Result<T, String>;

/// [`Op`] with its inputs as JSON.
#[derive(Clone, Debug)]
pub struct ErasedOp {
    /// See [`Op::mark`].
    pub mark: String,
    /// See [`Op::id`].
    pub id: Option<Id>,
    /// See [`Op::inputs`].
    pub inputs: Option<Tree>,
    /// See [`Op::exists`].
    pub exists: bool,
    /// See [`Op::deleting`].
    pub deleting: bool,
    /// See [`Op::cursor`].
    pub cursor: Option<Value>,
    /// See [`Op::why`].
    pub why: Why,
    /// See [`Op::now`].
    pub now: SystemTime,
    /// See [`Op::seed`].
    pub seed: u64,
    /// See [`Op::warn`].
    pub warnings: Warnings,
}

/// What a declaration is by itself. Each answer can fail on its own.
pub struct Nature {
    /// See [`Resource::id`].
    pub id: Pure<Option<Id>>,
    /// See [`Resource::claims`]; and whether an unknown input stood in the way of one.
    pub claims: Pure<(Vec<Claim>, bool)>,
    /// See [`Resource::outside`].
    pub outside: Pure<bool>,
}

/// A [`Resource`] type, erased. Inputs and outputs are trees with secrets as markers.
#[async_trait]
pub trait ErasedType: Send + Sync {
    /// See [`Resource::TYPE`].
    fn name(&self) -> &'static str;
    /// See [`Resource::VERSION`].
    fn version(&self) -> u32;
    /// See [`Resource::INITIAL`].
    fn initial(&self) -> &'static [&'static str];
    /// See [`Resource::ONCE`].
    fn once(&self) -> bool;
    /// See [`Resource::RIPENS`].
    fn ripens(&self) -> bool;
    /// See [`Resource::PROBES`].
    fn probes(&self) -> bool;
    /// See [`Resource::GENERATED`].
    fn generated(&self) -> bool;
    /// Returns what a declaration is by itself: everything that planning asks of every one of them.
    fn nature(&self, inputs: &Tree, vault: &Vault) -> Nature;
    /// The kind of provider that manages it.
    fn provider(&self) -> &'static str;
    /// Says whether `inputs` decode.
    fn check(&self, inputs: &Tree, vault: &Vault) -> Pure<()>;
    /// See [`Resource::id`].
    fn id(&self, inputs: &Tree, vault: &Vault) -> Pure<Option<Id>>;
    /// See [`Resource::claims`]; and whether an unknown input stood in the way of one.
    fn claims(&self, inputs: &Tree, vault: &Vault) -> Pure<(Vec<Claim>, bool)>;
    /// See [`Resource::locks`].
    fn locks(&self, inputs: &Tree, vault: &Vault) -> Pure<Vec<Lock>>;
    /// See [`Resource::change`].
    fn change(&self, next: &Tree, prior: &Tree, live: Option<&Value>, vault: &Vault) -> Pure<Change>;
    /// See [`Resource::creation`].
    fn creation(&self, inputs: &Tree, vault: &Vault) -> Pure<Impact>;
    /// See [`Resource::removal`].
    fn removal(&self, inputs: &Tree, vault: &Vault) -> Pure<Impact>;
    /// See [`Resource::upgrade`].
    fn upgrade(&self, version: u32, inputs: Value) -> Option<Value>;
    /// See [`Resource::find`].
    async fn find(&self, client: &AnyClient, op: ErasedOp, vault: &Vault) -> Result<Found<Tree>>;
    /// See [`Resource::probe`].
    async fn probe(&self, client: &AnyClient, inputs: &Tree, op: ErasedOp, vault: &Vault) -> Result<Vec<String>>;
    /// See [`Resource::apply`].
    async fn apply(&self, client: &AnyClient, inputs: &Tree, op: ErasedOp, vault: &Vault) -> Result<Step<Tree>>;
    /// See [`Resource::delete`].
    async fn delete(&self, client: &AnyClient, op: ErasedOp, vault: &Vault) -> Result<Step<()>>;
}

/// A [`Query`] type, erased.
#[async_trait]
pub trait ErasedQuery: Send + Sync {
    /// See [`Query::TYPE`].
    fn name(&self) -> &'static str;
    /// See [`Query::read`].
    async fn read(&self, client: &AnyClient, inputs: &Value, vault: &Vault) -> Result<Step<Value>>;
}

/// A [`Provider`] type, erased.
#[async_trait]
pub trait ErasedProvider: Send + Sync {
    /// See [`Provider::NAME`].
    fn name(&self) -> &'static str;
    /// See [`Provider::realm`].
    fn realm(&self, config: &Value, vault: &Vault) -> Pure<Realm>;
    /// See [`Provider::connect`].
    async fn connect(&self, config: &Value, vault: &Vault, link: Link) -> Result<AnyClient>;
}

/// The types of one provider, as it lists them.
pub struct Types<P> {
    types: Vec<Arc<dyn ErasedType>>,
    provider: PhantomData<fn() -> P>,
}

impl<P: Provider> Types<P> {
    /// Adds a type.
    pub fn add<R: Resource<P>>(&mut self) -> &mut Types<P> {
        self.types.push(Arc::new(Typed::<P, R>(PhantomData)));
        self
    }
}

/// Every provider and type that this program knows.
#[derive(Clone, Default)]
pub struct Vocabulary {
    providers: BTreeMap<&'static str, Arc<dyn ErasedProvider>>,
    types: BTreeMap<&'static str, Arc<dyn ErasedType>>,
}

impl Vocabulary {
    /// Learns a provider with all its types.
    pub fn learn<P: Provider>(&mut self) {
        if self.providers.insert(P::NAME, Arc::new(TypedProvider::<P>(PhantomData))).is_some() {
            return;
        }
        let mut types = Types::<P> { types: Vec::new(), provider: PhantomData };
        P::types(&mut types);
        for kind in types.types {
            self.types.entry(kind.name()).or_insert(kind);
        }
    }

    /// Learns one type, where the provider does not list it.
    pub(crate) fn learn_type(&mut self, kind: Arc<dyn ErasedType>) {
        self.types.entry(kind.name()).or_insert(kind);
    }

    /// Returns the type called `name`.
    pub fn kind(&self, name: &str) -> Option<&Arc<dyn ErasedType>> {
        self.types.get(name)
    }

    /// Returns the kind of provider called `name`.
    pub fn provider(&self, name: &str) -> Option<&Arc<dyn ErasedProvider>> {
        self.providers.get(name)
    }

    /// Takes in what `other` knows.
    pub fn merge(&mut self, other: &Vocabulary) {
        for (name, provider) in &other.providers {
            self.providers.entry(name).or_insert_with(|| provider.clone());
        }
        for (name, kind) in &other.types {
            self.types.entry(name).or_insert_with(|| kind.clone());
        }
    }
}

pub(crate) fn erase<P: Provider, R: Resource<P>>() -> Arc<dyn ErasedType> {
    Arc::new(Typed::<P, R>(PhantomData))
}

pub(crate) fn erase_query<P: Provider, Q: Query<P>>() -> Arc<dyn ErasedQuery> {
    Arc::new(TypedQuery::<P, Q>(PhantomData))
}

struct Typed<P, R>(PhantomData<fn() -> (P, R)>);
struct TypedQuery<P, Q>(PhantomData<fn() -> (P, Q)>);
struct TypedProvider<P>(PhantomData<fn() -> P>);

/// Runs a pure function of somebody else's, panics included.
pub(super) fn guarded<T>(whose: &str, what: &str, f: impl FnOnce() -> Pure<T>) -> Pure<T> {
    catch_unwind(AssertUnwindSafe(f))
        .unwrap_or_else(|panic| Err(format!("{whose}'s `{what}` panicked: {}", panic_text(&*panic))))
}

/// Returns what a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".into())
}

impl<P: Provider, R: Resource<P>> Typed<P, R> {
    fn ask<T>(&self, what: &str, inputs: &Tree, vault: &Vault, f: impl FnOnce(R) -> T) -> Pure<T> {
        guarded(R::TYPE, what, || {
            let resource = value::decode::<R>(inputs, vault)?;
            let _session = Session::open(vault, None);
            Ok(f(resource))
        })
    }

    fn op(&self, op: ErasedOp, vault: &Vault) -> Op<R> {
        Op {
            mark: op.mark,
            id: op.id,
            inputs: op.inputs.and_then(|inputs| value::decode::<R>(&inputs, vault).ok()),
            exists: op.exists,
            deleting: op.deleting,
            cursor: op.cursor,
            why: op.why,
            now: op.now,
            seed: op.seed,
            warnings: op.warnings,
        }
    }

    fn decoded(&self, inputs: &Tree, vault: &Vault) -> Result<R> {
        value::decode::<R>(inputs, vault)
            .map_err(|error| Error::invalid(format!("its inputs are not what {} takes: {error}", R::TYPE)))
    }

    fn client<'a>(&self, client: &'a AnyClient) -> Result<&'a P::Client> {
        client.downcast_ref::<P::Client>().ok_or_else(|| {
            Error::invalid(format!("{} was given the connection of another kind of provider than {}", R::TYPE, P::NAME))
        })
    }
}

fn seal<O: Serialize>(outputs: &O, vault: &Vault) -> Result<Tree> {
    value::encode(outputs, vault)
        .map_err(|error| Error::invalid(format!("its outputs cannot be stored: {error}")).perhaps())
}

fn seal_made<O: Serialize>(made: Made<O>, vault: &Vault) -> Result<Made<Tree>> {
    Ok(Made { id: made.id, outputs: seal(&made.outputs, vault)?, live: made.live, due: made.due })
}

fn opened(made: Made<Tree>) -> Made<Value> {
    Made { id: made.id, outputs: made.outputs.value(), live: made.live, due: made.due }
}

fn seal_step<O: Serialize>(step: Step<O>, vault: &Vault) -> Result<Step<Tree>> {
    Ok(match step {
        Step::Done(made) => Step::Done(seal_made(made, vault)?),
        Step::Next { cursor, made, why, pause } => {
            let made = made.map(|made| seal_made(made, vault)).transpose()?;
            Step::Next { cursor, made, why, pause }
        }
    })
}

#[async_trait]
impl<P: Provider, R: Resource<P>> ErasedType for Typed<P, R> {
    fn name(&self) -> &'static str {
        R::TYPE
    }
    fn version(&self) -> u32 {
        R::VERSION
    }
    fn initial(&self) -> &'static [&'static str] {
        R::INITIAL
    }
    fn once(&self) -> bool {
        R::ONCE
    }
    fn ripens(&self) -> bool {
        R::RIPENS
    }
    fn probes(&self) -> bool {
        R::PROBES
    }
    fn generated(&self) -> bool {
        R::GENERATED
    }
    fn nature(&self, inputs: &Tree, vault: &Vault) -> Nature {
        // Decoded once: of a hundred thousand declarations this is a good part of the plan.
        let resource = match guarded(R::TYPE, "deserialize", || value::decode::<R>(inputs, vault)) {
            Ok(resource) => resource,
            Err(why) => return Nature { id: Err(why.clone()), claims: Err(why.clone()), outside: Err(why) },
        };
        let session = Session::open(vault, None);
        let claims = guarded(R::TYPE, "claims", || Ok((resource.claims(), session.missed())));
        Nature {
            claims,
            id: guarded(R::TYPE, "id", || Ok(resource.id())),
            outside: guarded(R::TYPE, "outside", || Ok(resource.outside())),
        }
    }
    fn provider(&self) -> &'static str {
        P::NAME
    }
    fn check(&self, inputs: &Tree, vault: &Vault) -> Pure<()> {
        value::decode::<R>(inputs, vault).map(|_| ())
    }
    fn id(&self, inputs: &Tree, vault: &Vault) -> Pure<Option<Id>> {
        self.ask("id", inputs, vault, |resource| resource.id())
    }
    fn claims(&self, inputs: &Tree, vault: &Vault) -> Pure<(Vec<Claim>, bool)> {
        guarded(R::TYPE, "claims", || {
            let resource = value::decode::<R>(inputs, vault)?;
            let session = Session::open(vault, None);
            let claims = resource.claims();
            Ok((claims, session.missed()))
        })
    }
    fn locks(&self, inputs: &Tree, vault: &Vault) -> Pure<Vec<Lock>> {
        self.ask("locks", inputs, vault, |resource| resource.locks())
    }
    fn change(&self, next: &Tree, prior: &Tree, live: Option<&Value>, vault: &Vault) -> Pure<Change> {
        let prior = value::decode::<R>(prior, vault)?;
        self.ask("change", next, vault, |next| next.change(&prior, live))
    }
    fn creation(&self, inputs: &Tree, vault: &Vault) -> Pure<Impact> {
        self.ask("creation", inputs, vault, |resource| resource.creation())
    }
    fn removal(&self, inputs: &Tree, vault: &Vault) -> Pure<Impact> {
        self.ask("removal", inputs, vault, |resource| resource.removal())
    }
    fn upgrade(&self, version: u32, inputs: Value) -> Option<Value> {
        guarded(R::TYPE, "upgrade", || Ok(R::upgrade(version, inputs))).ok().flatten()
    }
    async fn find(&self, client: &AnyClient, op: ErasedOp, vault: &Vault) -> Result<Found<Tree>> {
        let op = self.op(op, vault);
        Ok(match R::find(self.client(client)?, &op).await? {
            Found::Absent => Found::Absent,
            Found::Present(owner, step) => Found::Present(owner, seal_step(step, vault)?),
            Found::Leaving(owner, why) => Found::Leaving(owner, why),
        })
    }
    async fn probe(&self, client: &AnyClient, inputs: &Tree, op: ErasedOp, vault: &Vault) -> Result<Vec<String>> {
        let resource = self.decoded(inputs, vault)?;
        let op = self.op(op, vault);
        resource.probe(self.client(client)?, &op).await
    }
    async fn apply(&self, client: &AnyClient, inputs: &Tree, op: ErasedOp, vault: &Vault) -> Result<Step<Tree>> {
        let resource = self.decoded(inputs, vault)?;
        let op = self.op(op, vault);
        let step = resource.apply(self.client(client)?, &op).await?;
        seal_step(step, vault)
    }
    async fn delete(&self, client: &AnyClient, op: ErasedOp, vault: &Vault) -> Result<Step<()>> {
        let op = self.op(op, vault);
        R::delete(self.client(client)?, &op).await
    }
}

#[async_trait]
impl<P: Provider, Q: Query<P>> ErasedQuery for TypedQuery<P, Q> {
    fn name(&self) -> &'static str {
        Q::TYPE
    }
    async fn read(&self, client: &AnyClient, inputs: &Value, vault: &Vault) -> Result<Step<Value>> {
        let query = value::decode::<Q>(&inputs.into(), vault).map_err(Error::invalid)?;
        let client = client
            .downcast_ref::<P::Client>()
            .ok_or_else(|| Error::invalid(format!("{} was given the connection of another provider", Q::TYPE)))?;
        Ok(match seal_step(query.read(client).await?, vault)? {
            Step::Done(made) => Step::Done(opened(made)),
            Step::Next { cursor, made, why, pause } => Step::Next { cursor, made: made.map(opened), why, pause },
        })
    }
}

#[async_trait]
impl<P: Provider> ErasedProvider for TypedProvider<P> {
    fn name(&self) -> &'static str {
        P::NAME
    }
    fn realm(&self, config: &Value, vault: &Vault) -> Pure<Realm> {
        guarded(P::NAME, "realm", || Ok(value::decode::<P>(&config.into(), vault)?.realm()))
    }
    async fn connect(&self, config: &Value, vault: &Vault, link: Link) -> Result<AnyClient> {
        let config = value::decode::<P>(&config.into(), vault).map_err(Error::invalid)?;
        Ok(Arc::new(config.connect(link).await?))
    }
}

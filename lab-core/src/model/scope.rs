//! How a program declares: a stack, scopes on it, resources and components in a scope.

use super::asset::{NoSupply, Supply};
use super::declare::{Declared, Index, Node, NodeKind, Place, ProviderNode};
use super::erased::{self, ErasedQuery, Vocabulary};
use super::output::Output;
use super::rolling::{Act, Gate, Group, Rolling};
use super::value::{self, Expressions, Session, Unresolved, Vault};
use super::{Data, EdgeKind, Id, Options, Path, Provider, Query, Resource, Urn, Windows, Word};
use foldhash::HashMap;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One instance of a program: what is being declared.
///
/// A program is plain synchronous Rust. It declares; it never waits. Whatever is wrong with a declaration is kept and
/// reported with everything else by the plan.
pub struct Stack {
    name: String,
    env: Option<String>,
    neighbours: Neighbours,
    expressions: Expressions,
    vault: Vault,
    supply: Arc<dyn Supply>,
    // Not a `RefCell`: a closure that declares is then refused for what it borrows, which is the truth, and not for
    // what threads may not share.
    draft: Mutex<Draft>,
}

#[derive(Default)]
struct Draft {
    nodes: Vec<Node>,
    providers: BTreeMap<String, ProviderNode>,
    groups: BTreeMap<String, Rolling>,
    windows: Windows,
    problems: Vec<(Place, String)>,
    lacking: bool,
    reads: BTreeMap<String, String>,
    vocabulary: Vocabulary,
    /// What was said about the last declaration.
    said: Arc<Options>,
    taken: HashMap<Urn, Place>,
}

impl Draft {
    /// Returns `options` for a node. Most declarations say what the one before said, and share it.
    fn said(&mut self, options: Options) -> Arc<Options> {
        if *self.said != options {
            self.said = Arc::new(options);
        }
        self.said.clone()
    }
}

/// The other stacks of a lab directory, by name.
pub type Neighbours = BTreeMap<String, Neighbour>;

/// What another stack of the lab directory shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Neighbour {
    /// What its program returned when it was last applied as a whole; null when it never was.
    pub outputs: Value,
    /// What of it is not as it was applied: begun, not ready or gone.
    pub unwell: Vec<String>,
}

/// What a program failed with, before anything was planned.
pub struct ProgramError {
    message: String,
    needs: Option<String>,
}

impl ProgramError {
    /// Returns an error that says `message`.
    pub fn new(message: impl Into<String>) -> ProgramError {
        ProgramError { message: message.into(), needs: None }
    }

    /// Returns the stack of this lab directory that has to be applied first, where that is what is wrong.
    pub fn needs(&self) -> Option<&str> {
        self.needs.as_deref()
    }
}

impl fmt::Display for ProgramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for ProgramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl<E: std::error::Error> From<E> for ProgramError {
    fn from(error: E) -> ProgramError {
        ProgramError::new(error.to_string())
    }
}

impl Stack {
    /// Runs `program` on an empty stack and returns what it declared. `neighbours` are the other stacks of the lab
    /// directory. Nothing from outside is within its reach.
    pub fn load<T: Serialize>(
        name: &str,
        env: Option<&str>,
        vault: Vault,
        neighbours: Neighbours,
        program: impl FnOnce(&Stack) -> Result<T, ProgramError>,
    ) -> Result<Declared, ProgramError> {
        Stack::load_with(name, env, vault, neighbours, Arc::new(NoSupply), program)
    }

    /// Runs `program` as [`Stack::load`] does, with what it may ask of its outside.
    pub fn load_with<T: Serialize>(
        name: &str,
        env: Option<&str>,
        vault: Vault,
        neighbours: Neighbours,
        supply: Arc<dyn Supply>,
        program: impl FnOnce(&Stack) -> Result<T, ProgramError>,
    ) -> Result<Declared, ProgramError> {
        Urn::valid_part(name).map_err(ProgramError::new)?;
        let stack = Stack {
            name: name.to_owned(),
            env: env.map(str::to_owned),
            neighbours,
            expressions: Arc::new(Mutex::new(Vec::new())),
            vault,
            supply,
            draft: Mutex::default(),
        };
        let returned = program(&stack).map_err(|error| stack.explained(error))?;
        let outputs = {
            let _session = value::Session::open(&stack.vault, Some(stack.expressions.clone()));
            serde_json::to_value(&returned)
                .map_err(|error| ProgramError::new(format!("what the program returns cannot be stored: {error}")))?
        };
        let draft = stack.draft.into_inner().unwrap_or_else(PoisonError::into_inner);
        let expressions = std::mem::take(&mut *stack.expressions.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Declared {
            stack: stack.name,
            nodes: draft.nodes,
            providers: draft.providers,
            groups: draft.groups,
            windows: draft.windows,
            expressions,
            outputs,
            problems: draft.problems,
            lacking: draft.lacking,
            reads: draft.reads,
            vocabulary: draft.vocabulary,
            vault: stack.vault,
            index: Index::default(),
        })
    }

    fn draft(&self) -> MutexGuard<'_, Draft> {
        self.draft.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the name of the stack: the lab's, and the environment's where there is one.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the environment, when one was chosen.
    pub fn env(&self) -> Option<&str> {
        self.env.as_deref()
    }

    /// Declares a provider and returns the scope of what is declared on it.
    #[track_caller]
    pub fn provider<P: Provider>(&self, name: &str, config: P) -> Scope<'_, P> {
        let place = Place::here();
        if let Err(problem) = Urn::valid_part(name) {
            self.report(place.clone(), problem);
        }
        let config = value::encode_declared(&config, &self.vault, &self.expressions);
        let config = config.map(|(config, _)| config.value()).unwrap_or_else(|problem| {
            self.report(place.clone(), format!("the configuration of provider {name} cannot be stored: {problem}"));
            Value::Null
        });
        let mut draft = self.draft();
        draft.vocabulary.learn::<P>();
        let kind = draft.vocabulary.provider(P::NAME).expect("it was learned one line above").clone();
        let node = ProviderNode { kind, config, place: place.clone() };
        if let Some(before) = draft.providers.insert(name.to_owned(), node) {
            let problem = format!("a provider named {name} is declared already, at {}", before.place);
            draft.problems.push((place, problem));
        }
        drop(draft);
        Scope {
            stack: self,
            provider: name.into(),
            path: Vec::new(),
            outer: Options::default(),
            place: None,
            kind: PhantomData,
        }
    }

    /// Declares a group whose members are interrupted at most `at_most` at a time.
    #[track_caller]
    pub fn rolling(&self, name: &str, at_most: usize) -> Group<'_> {
        let place = Place::here();
        let mut draft = self.draft();
        if at_most == 0 {
            draft.problems.push((place.clone(), format!("rolling group {name} would let no member be changed")));
        }
        let group = Rolling { name: name.to_owned(), at_most: at_most.max(1), gates: Vec::new(), windows: None };
        if draft.groups.insert(name.to_owned(), group).is_some() {
            draft.problems.push((place, format!("a rolling group named {name} is declared already")));
        }
        Group { stack: self, name: name.to_owned() }
    }

    /// Says when what this stack manages may be interrupted. Outside of it, a step that interrupts something, destroys
    /// data or replaces what exists is planned as held until the next window, with everything that waits for it; the
    /// rest is done. What is made for the first time is never held, nor is what was begun, and neither is `destroy`.
    pub fn maintenance(&self, windows: Windows) {
        self.draft().windows = windows;
    }

    pub(super) fn set_windows(&self, group: &str, windows: Windows) {
        if let Some(group) = self.draft().groups.get_mut(group) {
            group.windows = Some(windows);
        }
    }

    pub(super) fn add_gate<Q: Serialize + DeserializeOwned>(
        &self,
        group: &str,
        provider: &str,
        query: Arc<dyn ErasedQuery>,
        asked: &Q,
        place: Place,
    ) {
        match value::encode_declared(asked, &self.vault, &self.expressions) {
            Ok((inputs, _)) => {
                let gate = Gate { provider: provider.to_owned(), query, inputs: inputs.value(), place };
                if let Some(group) = self.draft().groups.get_mut(group) {
                    group.gates.push(gate);
                }
            }
            Err(problem) => self.report(place, format!("a gate cannot be stored: {problem}")),
        }
    }

    /// Returns the outputs of another stack of this lab directory, as it was last applied.
    pub fn outputs_of<T: DeserializeOwned>(&self, stack: &str) -> Result<T, ProgramError> {
        let applied = self.neighbours.get(stack).map(|neighbour| &neighbour.outputs).filter(|it| !it.is_null());
        let outputs = applied.ok_or_else(|| ProgramError {
            message: format!("stack {stack} was never applied in this lab directory: run its `up` first"),
            needs: Some(stack.to_owned()),
        })?;
        self.draft().reads.insert(stack.to_owned(), value::digest(outputs));
        value::decode(&outputs.into(), &self.vault).map_err(|error| {
            ProgramError::new(format!("the outputs of stack {stack} are not of the type that is asked for: {error}"))
        })
    }

    /// Returns what the environment `env` of this lab returned when it was last applied as a whole, for what is tried
    /// there before it is used here.
    ///
    /// A roll-out that failed, was interrupted or is held by a maintenance window returns nothing, so what is read was
    /// applied and was ready. It is an error when it never was, and when anything of it is no longer as it was applied:
    /// begun, not ready, or gone when it was last looked at.
    pub fn promoted_from<T: DeserializeOwned>(&self, env: &str) -> Result<T, ProgramError> {
        let suffix = self.env.as_deref().map(|own| format!("-{own}"));
        let Some(lab) = suffix.and_then(|suffix| self.name.strip_suffix(&suffix)) else {
            return Err(ProgramError::new(format!("nothing is promoted from {env} to no environment: say `--env`")));
        };
        let from = format!("{lab}-{env}");
        if from == self.name {
            return Err(ProgramError::new(format!("{env} cannot be promoted from itself")));
        }
        let unwell = self.neighbours.get(&from).map(|neighbour| neighbour.unwell.as_slice()).unwrap_or_default();
        if let Some(first) = unwell.first() {
            let more = match unwell.len() {
                1 => String::new(),
                n => format!(", and {} more", n - 1),
            };
            return Err(ProgramError::new(format!(
                "nothing is promoted from {env}, which is not well: {first}{more}; run its `up` first"
            )));
        }
        self.outputs_of(&from)
    }

    /// Reports a problem of the program; the plan shows it with all others.
    #[track_caller]
    pub fn problem(&self, message: impl Into<String>) {
        self.report(Place::here(), message.into());
    }

    fn report(&self, place: Place, message: String) {
        self.draft().problems.push((place, message));
    }

    /// Reports that something could not be had which the program is made with.
    pub(super) fn lack(&self, place: Place, message: String) {
        let mut draft = self.draft();
        draft.problems.push((place, message));
        draft.lacking = true;
    }

    /// A program that fails because it was given less than it is made with fails for that reason.
    fn explained(&self, error: ProgramError) -> ProgramError {
        let draft = self.draft();
        if !draft.lacking {
            return error;
        }
        let problems = draft.problems.iter().map(|(place, problem)| format!("{problem} ({place})\n"));
        ProgramError { message: format!("{}{}", problems.collect::<String>(), error.message), ..error }
    }

    pub(super) fn supply(&self) -> &dyn Supply {
        &*self.supply
    }

    /// Keeps the URN for this declaration; a second one of the same name is a problem.
    fn take(&self, urn: &Urn, place: &Place) {
        let mut draft = self.draft();
        for part in [urn.name()] {
            if let Err(problem) = Urn::valid_part(part) {
                draft.problems.push((place.clone(), problem));
            }
        }
        if let Some(before) = draft.taken.insert(urn.clone(), place.clone()) {
            let problem = format!(
                "{} {} is declared twice: here and at {before}; give one of them another name",
                urn.kind(),
                urn.short()
            );
            draft.problems.push((place.clone(), problem));
        }
    }
}

/// Where declarations go: a component path on a provider.
pub struct Scope<'a, P> {
    stack: &'a Stack,
    provider: Word,
    path: Vec<String>,
    outer: Options,
    place: Option<Place>,
    kind: PhantomData<fn() -> P>,
}

impl<P> Clone for Scope<'_, P> {
    fn clone(&self) -> Self {
        Scope {
            stack: self.stack,
            provider: self.provider.clone(),
            path: self.path.clone(),
            outer: self.outer.clone(),
            place: self.place.clone(),
            kind: PhantomData,
        }
    }
}

impl<'a, P: Provider> Scope<'a, P> {
    /// Begins the declaration of a resource; `.add` completes it.
    #[track_caller]
    pub fn resource(&self, name: &str) -> Declare<'a, P> {
        let here = Place::here();
        let place = self.place.clone().unwrap_or(here);
        Declare { scope: self.clone(), name: name.to_owned(), options: Options::default(), place }
    }

    /// Begins the declaration of a component; `.add` completes it.
    #[track_caller]
    pub fn component(&self, name: &str) -> DeclareComponent<'a, P> {
        let here = Place::here();
        let place = self.place.clone().unwrap_or(here);
        DeclareComponent { scope: self.clone(), name: name.to_owned(), options: Options::default(), place }
    }

    /// Declares a question about something that exists already.
    #[track_caller]
    pub fn read<Q: Query<P>>(&self, name: &str, query: Q) -> Handle<Q::Answer> {
        let here = Place::here();
        let place = self.place.clone().unwrap_or(here);
        let urn = Urn::new(&self.stack.name, &self.provider, &self.path, Q::TYPE, name);
        self.stack.take(&urn, &place);
        match value::encode_declared(&query, &self.stack.vault, &self.stack.expressions) {
            Ok((inputs, _)) => {
                let mut draft = self.stack.draft();
                let options = draft.said(Options::default().within(&self.outer));
                draft.nodes.push(Node {
                    urn: urn.clone(),
                    provider: self.provider.clone(),
                    kind: NodeKind::Read(erased::erase_query::<P, Q>()),
                    inputs,
                    id: None,
                    options,
                    place,
                });
            }
            Err(problem) => self.stack.report(place, format!("{} {name} cannot be stored: {problem}", Q::TYPE)),
        }
        Handle::new(urn)
    }

    /// Returns a scope with this component path on the provider of `other`.
    pub fn on<Q: Provider>(&self, other: &Scope<'a, Q>) -> Scope<'a, Q> {
        Scope {
            stack: self.stack,
            provider: other.provider.clone(),
            path: self.path.clone(),
            outer: self.outer.clone(),
            place: self.place.clone(),
            kind: PhantomData,
        }
    }

    /// Returns the stack this scope is of.
    pub fn stack(&self) -> &'a Stack {
        self.stack
    }

    /// Returns the name of the provider.
    pub fn provider_name(&self) -> &str {
        &self.provider
    }

    /// Reports a problem, at the line of the program that added the outermost component.
    #[track_caller]
    pub fn problem(&self, message: impl Into<String>) {
        let here = Place::here();
        let place = self.place.clone().unwrap_or(here);
        self.stack.report(place, message.into());
    }
}

/// A named group of resources without a life cycle of its own: a struct with one `declare`.
///
/// It holds no state and does no I/O.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a component of a `{P}` provider",
    note = "a resource is declared with `scope.resource(name).add(...)`, a component with `scope.component(name).add(...)`"
)]
pub trait Component<P: Provider> {
    /// What the program gets to wire others with.
    type Handle;
    /// Declares what it is made of.
    fn declare(self, scope: &Scope<'_, P>) -> Self::Handle;
}

/// A resource being declared.
#[must_use = "nothing is declared until `.add` is called"]
pub struct Declare<'a, P> {
    scope: Scope<'a, P>,
    name: String,
    options: Options,
    place: Place,
}

impl<P: Provider> Declare<'_, P> {
    /// Refuses to delete or replace it, until a program with `.protect(false)` was applied.
    pub fn protect(mut self, protect: bool) -> Self {
        self.options.protect = Some(protect);
        self
    }

    /// Comes after another resource is ready, or all that a component has declared, though no input says so.
    pub fn depends_on(mut self, other: &(impl Prerequisite + ?Sized)) -> Self {
        self.options.after.extend(other.urns().into_iter().map(|urn| (urn, EdgeKind::After)));
        self
    }

    /// Comes after another resource exists, ready or not.
    pub fn after_created(mut self, other: &(impl Prerequisite + ?Sized)) -> Self {
        self.options.after.extend(other.urns().into_iter().map(|urn| (urn, EdgeKind::Created)));
        self
    }

    /// Leaves an input to others: it is neither compared nor sent again. A JSON pointer: `/spec/replicas`.
    pub fn ignore(mut self, path: &str) -> Self {
        self.options.ignore.push(Path::from(path));
        self
    }

    /// Leaves the thing standing when its line goes. When what it lies in goes, it goes with that, and the plan says so.
    pub fn retain(mut self) -> Self {
        self.options.retain = true;
        self
    }

    /// Says what it was called before, so that it is moved instead of made anew.
    pub fn was(mut self, old: &str) -> Self {
        self.options.was.push(old.to_owned());
        self
    }

    /// Takes over a thing that exists already, by its identity.
    pub fn import(mut self, id: impl Into<Id>) -> Self {
        self.options.import = Some(id.into());
        self
    }

    /// Replaces it whenever `value` differs from the last time.
    pub fn replace_when(mut self, value: impl fmt::Display) -> Self {
        self.options.trigger = Some(value.to_string());
        self
    }

    /// Says how long an operation on it may take; ten minutes when not said.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// Makes it a member of a rolling group.
    pub fn rolling(mut self, group: &Group<'_>) -> Self {
        self.options.rolling = Some(group.name().to_owned());
        self
    }

    /// Says where it is declared, when that is another line than this one: a component that was given a list.
    pub fn declared_at(mut self, place: Place) -> Self {
        self.place = place;
        self
    }

    pub(super) fn act(mut self, act: Act) -> Self {
        self.options.act = Some(act);
        self
    }

    /// Declares the resource.
    #[expect(clippy::should_implement_trait, reason = "nobody adds a resource to a declaration with `+`")]
    pub fn add<R: Resource<P>>(self, resource: R) -> Handle<R::Outputs> {
        let Declare { scope, name, options, place } = self;
        let stack = scope.stack;
        let kind = erased::erase::<P, R>();
        let urn = Urn::new(&stack.name, &scope.provider, &scope.path, R::TYPE, &name);
        stack.take(&urn, &place);
        match value::encode_declared(&resource, &stack.vault, &stack.expressions) {
            Ok((inputs, back)) => {
                let id = {
                    let _session = Session::open(&stack.vault, None);
                    // What it cannot say is said by the plan, which asks again.
                    erased::guarded(R::TYPE, "id", || Ok(back.id())).ok().flatten()
                };
                let mut checked = Ok(());
                if !R::INITIAL.is_empty() {
                    let mut without = inputs.value();
                    R::INITIAL.iter().for_each(|path| {
                        value::remove(&mut without, &Path::from(*path));
                    });
                    checked = value::decode::<R>(&without.into(), &stack.vault).map(|_| ());
                }
                let mut draft = stack.draft();
                if let Err(error) = checked {
                    let problem = format!("{} cannot be read without its initial inputs: {error}", R::TYPE);
                    draft.problems.push((place.clone(), problem));
                }
                draft.vocabulary.learn_type(kind.clone());
                let options = draft.said(options.within(&scope.outer));
                draft.nodes.push(Node {
                    urn: urn.clone(),
                    provider: scope.provider.clone(),
                    kind: NodeKind::Resource(kind),
                    inputs,
                    id,
                    options,
                    place,
                });
            }
            Err(problem) => stack.report(place, format!("{} {name} cannot be stored: {problem}", R::TYPE)),
        }
        Handle::new(urn)
    }
}

/// A component being declared.
#[must_use = "nothing is declared until `.add` is called"]
pub struct DeclareComponent<'a, P> {
    scope: Scope<'a, P>,
    name: String,
    options: Options,
    place: Place,
}

impl<P: Provider> DeclareComponent<'_, P> {
    /// Protects everything in it.
    pub fn protect(mut self, protect: bool) -> Self {
        self.options.protect = Some(protect);
        self
    }

    /// Makes everything in it come after another resource is ready, or all that a component has declared.
    pub fn depends_on(mut self, other: &(impl Prerequisite + ?Sized)) -> Self {
        self.options.after.extend(other.urns().into_iter().map(|urn| (urn, EdgeKind::After)));
        self
    }

    /// Leaves everything in it standing when its line goes.
    pub fn retain(mut self) -> Self {
        self.options.retain = true;
        self
    }

    /// Says how long an operation on anything in it may take.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// Declares the component.
    #[expect(clippy::should_implement_trait, reason = "nobody adds a component to a declaration with `+`")]
    pub fn add<C: Component<P>>(self, component: C) -> C::Handle {
        let DeclareComponent { scope, name, options, place } = self;
        if let Err(problem) = Urn::valid_part(&name) {
            scope.stack.report(place.clone(), problem);
        }
        let mut path = scope.path.clone();
        path.push(name);
        let inner = Scope {
            stack: scope.stack,
            provider: scope.provider.clone(),
            path,
            outer: options.within(&scope.outer),
            place: Some(place),
            kind: PhantomData,
        };
        component.declare(&inner)
    }
}

/// What others can come after: a resource, or all that a component has declared.
#[diagnostic::on_unimplemented(
    message = "nothing can be declared to come after `{Self}`",
    note = "it comes after the handle of a resource or of a component: `.depends_on(&handle)`"
)]
pub trait Prerequisite {
    /// Returns the URNs of the resources.
    fn urns(&self) -> Vec<Urn>;
}

impl<O> Prerequisite for Handle<O> {
    fn urns(&self) -> Vec<Urn> {
        vec![self.urn().clone()]
    }
}

/// A declared resource: what others are wired to.
pub struct Handle<O> {
    /// Its URN alone, as the outputs of everybody who reads it share it.
    sources: Arc<[Urn]>,
    outputs: PhantomData<fn() -> O>,
}

impl<O> Handle<O> {
    fn new(urn: Urn) -> Handle<O> {
        Handle { sources: [urn].into(), outputs: PhantomData }
    }

    /// Returns the URN.
    pub fn urn(&self) -> &Urn {
        &self.sources[0]
    }
}

impl<O: Data> Handle<O> {
    /// Returns a value computed from the outputs: `vm.output(|vm| vm.address)`.
    pub fn output<T>(&self, project: impl Fn(O) -> T + Send + Sync + 'static) -> Output<T> {
        let urn = self.urn().clone();
        Output::computed(self.sources.clone(), move |lookup| {
            let outputs = lookup.outputs(&urn)?;
            let outputs = value::read::<O>(&outputs)
                .map_err(|error| Unresolved::Failed(format!("the outputs of {urn} do not decode: {error}")))?;
            Ok(Session::aside(|| project(outputs)))
        })
    }
}

impl<O> Clone for Handle<O> {
    fn clone(&self) -> Handle<O> {
        Handle { sources: self.sources.clone(), outputs: PhantomData }
    }
}

impl<O> fmt::Debug for Handle<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({})", self.urn())
    }
}

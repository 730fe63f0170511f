//! A provider in memory: things of every temper that the engine has to cope with.

use super::world::{Item, World};
use crate::model::{
    Change, Claim, Class, Error, Found, Id, Impact, Input, Link, Lock, Made, Op, Order, Output, Owner, Path, Provider,
    Query, Realm, Resource, Result, Secret, Step, Types, Urn,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// A provider of things in memory. The link must lead to a [`World`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Memory {
    place: Input<String>,
    inside: Option<Urn>,
    key: Option<Input<Secret<String>>>,
}

impl Memory {
    /// Returns a provider of things at a place that exists.
    pub fn at(place: &str) -> Memory {
        Memory { place: place.into(), inside: None, key: None }
    }

    /// Returns a provider of things inside another thing.
    pub fn inside(container: &crate::model::Handle<ThingOutputs>) -> Memory {
        let inside = Some(container.urn().clone());
        Memory { place: container.output(|container| container.room).into(), inside, key: None }
    }

    /// Adds a credential, which may come from elsewhere.
    pub fn key(mut self, key: Output<Secret<String>>) -> Memory {
        self.key = Some(key.into());
        self
    }
}

/// A connection to a place in a [`World`].
pub struct Place {
    world: Arc<World>,
    name: String,
}

impl Provider for Memory {
    const NAME: &'static str = "memory";
    type Client = Place;

    fn realm(&self) -> Realm {
        match &self.inside {
            Some(urn) => Realm::Inside(urn.clone()),
            None => Realm::Stated(format!("memory {}", self.place.known().map_or("", String::as_str))),
        }
    }

    async fn connect(self, link: Link) -> Result<Place> {
        let world = link.world().ok_or_else(|| Error::invalid("the link does not lead to a world in memory"))?;
        Ok(Place { world, name: self.place.get().clone() })
    }

    fn types(types: &mut Types<Memory>) {
        types.add::<Thing>();
    }
}

/// A thing in memory, with every temper a real one may have. Found by its name; ours by the mark it bears.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Thing {
    /// Its name, which is its identity.
    pub name: String,
    /// What it says. Changed in place.
    pub text: Input<String>,
    /// Where it stands. Another place means another thing.
    #[serde(default)]
    pub stand: Input<String>,
    /// A secret that it keeps.
    #[serde(default)]
    pub secret: Option<Input<Secret<String>>>,
    /// A token that is sent once.
    #[serde(default)]
    pub token: Option<Secret<String>>,
    /// Numbers that it occupies.
    #[serde(default)]
    pub claims: Vec<u64>,
    /// A lock that it takes.
    #[serde(default)]
    pub lock: Option<String>,
    /// How many more calls its making takes after the first.
    #[serde(default)]
    pub calls: u32,
    /// How many more calls its deletion takes after the first.
    #[serde(default)]
    pub lingers: u32,
    /// Replaced by making the new one first. Such a thing has no natural identity.
    #[serde(default)]
    pub create_first: bool,
    /// What data goes when it goes.
    #[serde(default)]
    pub data: Option<String>,
    /// Interrupted by every change.
    #[serde(default)]
    pub fragile: bool,
    /// Survives its container.
    #[serde(default)]
    pub outside: bool,
    /// Bears no mark.
    #[serde(default)]
    pub unmarkable: bool,
    /// What it warns of, with its secret, whenever something is done to it, and what it says when it is asked before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complaint: Option<String>,
}

/// What a [`Thing`] yields.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ThingOutputs {
    /// Its name.
    pub name: String,
    /// What it says.
    pub text: String,
    /// The room inside it.
    pub room: String,
    /// A secret of its own.
    pub key: Secret<String>,
}

impl Thing {
    /// Returns a plain thing.
    pub fn new(name: &str, text: impl Into<Input<String>>) -> Thing {
        Thing {
            name: name.into(),
            text: text.into(),
            stand: "here".into(),
            secret: None,
            token: None,
            claims: Vec::new(),
            lock: None,
            calls: 0,
            lingers: 0,
            create_first: false,
            data: None,
            fragile: false,
            outside: false,
            unmarkable: false,
            complaint: None,
        }
    }

    fn value(&self) -> Value {
        json!({
            "text": self.text.get(),
            "stand": self.stand.get(),
            "secret": self.secret.as_ref().map(|secret| secret.get().expose().len()),
        })
    }

    /// The name it has in the world: two that are made one before the other goes need two names.
    fn known_as(&self, mark: &str) -> String {
        if self.create_first { format!("{}-{mark}", self.name) } else { self.name.clone() }
    }

    fn made(&self, place: &Place, id: String, item: &Item) -> Made<ThingOutputs> {
        let said = item.value.get("text").cloned().unwrap_or_default();
        Made {
            outputs: ThingOutputs {
                name: self.name.clone(),
                text: said.as_str().unwrap_or_default().to_owned(),
                room: format!("{}/{}#{}", place.name, self.name, item.serial),
                key: Secret::new(format!("key-of-{}-{}", self.name, item.serial)),
            },
            live: Some(json!({ "text": said, "stand": item.value.get("stand") })),
            id: Id(id),
            due: None,
        }
    }

    fn step(&self, place: &Place, id: String, item: &Item) -> Step<ThingOutputs> {
        let made = self.made(place, id, item);
        if item.unfinished == 0 {
            return Step::Done(made);
        }
        Step::Next {
            cursor: json!({ "left": item.unfinished }),
            made: Some(made),
            why: format!("{} more calls to make", item.unfinished),
            pause: Duration::from_secs(1),
        }
    }
}

impl Place {
    fn reach(&self) -> Result<()> {
        if self.world.is_cut_off(&self.name) {
            return Err(Error::unreachable(format!("{} does not answer", self.name)));
        }
        Ok(())
    }
}

impl Thing {
    fn complains(&self) -> Option<String> {
        let secret = self.secret.as_ref().map(|secret| secret.get().expose().as_str());
        self.complaint.as_ref().map(|said| format!("{said} {}", secret.unwrap_or_default()).trim_end().to_owned())
    }
}

impl Resource<Memory> for Thing {
    const TYPE: &'static str = "memory:thing";
    const INITIAL: &'static [&'static str] = &["/token"];
    const PROBES: bool = true;
    type Outputs = ThingOutputs;

    fn id(&self) -> Option<Id> {
        (!self.create_first).then(|| Id(self.name.clone()))
    }

    fn claims(&self) -> Vec<Claim> {
        self.claims.iter().map(|n| Claim::number("number", u128::from(*n))).collect()
    }

    fn locks(&self) -> Vec<Lock> {
        self.lock.iter().map(Lock::exclusive).collect()
    }

    fn outside(&self) -> bool {
        self.outside
    }

    fn removal(&self) -> Impact {
        Impact { destroys: self.data.clone(), ..Impact::default() }
    }

    fn change(&self, prior: &Thing, live: Option<&Value>) -> Change {
        let said = |input: &Input<String>| input.known().cloned();
        let stood = live.and_then(|live| live.get("stand")).and_then(Value::as_str).map(str::to_owned);
        let moved =
            said(&self.stand) != said(&prior.stand) || stood.is_some_and(|stood| Some(stood) != said(&self.stand));
        let path = |text: &str| Path::from(text);
        if moved {
            let order = if self.create_first { Order::CreateFirst } else { Order::DeleteFirst };
            let reasons = vec![(path("/stand"), "a thing cannot be moved".to_owned())];
            return Change::Replace(Impact { reasons, destroys: self.data.clone(), ..Impact::default() }, order);
        }
        let interrupts = self.fragile.then(|| format!("{} is away for a while", self.name));
        Change::Update(Impact { interrupts, unknown: vec![path("/text")], ..Impact::default() })
    }

    async fn find(place: &Place, op: &Op<Thing>) -> Result<Found<ThingOutputs>> {
        place.reach()?;
        let Some(thing) = &op.inputs else { return Err(Error::invalid("what was recorded can no longer be read")) };
        let name = op.id.as_ref().map_or_else(|| thing.known_as(&op.mark), |id| id.0.clone());
        let Some(item) = place.world.look(&place.name, &name) else { return Ok(Found::Absent) };
        let owner = match &item.mark {
            _ if thing.unmarkable => Owner::Unmarkable,
            Some(mark) => Owner::Marked(mark.clone()),
            None => Owner::Unmarked,
        };
        Ok(match item.leaving {
            Some(left) => Found::Leaving(owner, format!("{left} more calls to go")),
            None => Found::Present(owner, thing.step(place, name, &item)),
        })
    }

    async fn probe(&self, place: &Place, op: &Op<Thing>) -> Result<Vec<String>> {
        place.reach()?;
        let name = op.id.as_ref().map_or_else(|| self.known_as(&op.mark), |id| id.0.clone());
        if !op.exists && place.world.get(&place.name, &name).is_some() {
            return Err(Error::conflict(format!("something is called {name} already")));
        }
        Ok(self.complains().into_iter().collect())
    }

    async fn apply(&self, place: &Place, op: &Op<Thing>) -> Result<Step<ThingOutputs>> {
        place.reach()?;
        if let Some(complaint) = self.complains() {
            op.warn(complaint);
        }
        let name = op.id.as_ref().map_or_else(|| self.known_as(&op.mark), |id| id.0.clone());
        let mark = if self.unmarkable { "" } else { op.mark.as_str() };
        let item = if op.cursor.is_some() && place.world.get(&place.name, &name).is_some_and(|item| item.unfinished > 0)
        {
            place.world.progress(&place.name, &name)
        } else if op.exists {
            place.world.update(&place.name, &name, mark, self.value())
        } else {
            let made = place.world.create(&place.name, &name, mark, self.value(), self.calls);
            Some(made.map_err(Error::conflict)?)
        };
        let item = item.ok_or_else(|| Error::new(Class::Gone, format!("{}/{name} is gone", place.name)))?;
        Ok(self.step(place, name, &item))
    }

    async fn delete(place: &Place, op: &Op<Thing>) -> Result<Step<()>> {
        place.reach()?;
        let lingers = op.inputs.as_ref().map_or(0, |thing| thing.lingers);
        let name = match (&op.id, &op.inputs) {
            (Some(id), _) => id.0.clone(),
            (None, Some(thing)) => thing.known_as(&op.mark),
            (None, None) => return Err(Error::invalid("nothing says what is to be deleted")),
        };
        Ok(match place.world.delete(&place.name, &name, lingers) {
            None | Some(0) => Step::gone(),
            Some(left) => {
                Step::next(json!({ "left": left }), format!("{left} more calls to go"), Duration::from_secs(1))
            }
        })
    }
}

/// A question: what does the thing called `name` say?
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ping {
    /// The name of the thing.
    pub name: String,
    /// Only answered when it says this.
    #[serde(default)]
    pub expect: Option<String>,
}

impl Query<Memory> for Ping {
    const TYPE: &'static str = "memory:ping";
    type Answer = String;

    async fn read(&self, place: &Place) -> Result<Step<String>> {
        place.reach()?;
        let item = place.world.get(&place.name, &self.name);
        let said = item.as_ref().and_then(|item| item.value.get("text")).and_then(Value::as_str);
        match said {
            Some(said) if self.expect.as_deref().is_none_or(|expected| expected == said) => {
                Ok(Step::Done(Made::new(self.name.as_str(), said.to_owned())))
            }
            Some(said) => Ok(Step::next(Value::Null, format!("{} says {said:?}", self.name), Duration::from_secs(1))),
            None => Err(Error::again(format!("there is no {}", self.name))),
        }
    }
}

//! The provider of the simulation: things of every temper, in the [`World`].

use crate::program::HUSH;
use crate::world::{Flight, Item, Mishap, World, second};
use lab_core::{
    Change, Claim, Clock, Error, Found, Handle, Id, Impact, Input, Link, Lock, Made, Op, Order, Owner, Path, Provider,
    Query, Realm, Resource, Result, Secret, Step, Types, Urn,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A place in the world and how to get into it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sim {
    pub(crate) place: Input<String>,
    pub(crate) inside: Option<Urn>,
    pub(crate) password: Option<Input<Secret<String>>>,
}

impl Sim {
    pub(crate) fn at(place: &str) -> Sim {
        Sim { place: place.into(), inside: None, password: None }
    }

    pub(crate) fn inside(container: &Handle<ThingOutputs>) -> Sim {
        Sim {
            place: container.output(|thing| thing.room).into(),
            inside: Some(container.urn().clone()),
            password: Some(container.output(|thing| thing.key).into()),
        }
    }
}

/// A way into a place.
pub(crate) struct Door {
    world: Arc<World>,
    clock: Clock,
    place: String,
}

impl Provider for Sim {
    const NAME: &'static str = "sim";
    type Client = Door;

    fn realm(&self) -> Realm {
        match &self.inside {
            Some(urn) => Realm::Inside(urn.clone()),
            None => Realm::Stated(self.place.known().cloned().unwrap_or_default()),
        }
    }

    async fn connect(self, link: Link) -> Result<Door> {
        let world = link.world::<World>().ok_or_else(|| Error::invalid("there is no world"))?;
        let place = self.place.get().clone();
        if let Some(password) = &self.password {
            world.contents().entered.insert(place.clone(), password.get().expose().clone());
        }
        Ok(Door { world, clock: link.clock.clone(), place })
    }

    fn types(types: &mut Types<Sim>) {
        types.add::<Thing>();
        types.add::<Bundle>();
        types.add::<Act>();
    }
}

impl Door {
    async fn enter(&self, holds: Vec<String>) -> Result<Flight> {
        self.world.enter(&self.clock, &self.place, holds).await
    }
}

/// A thing. Found by its tag, or by its mark; ours by the mark that it bears.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Thing {
    pub(crate) tag: String,
    pub(crate) text: Input<String>,
    pub(crate) stand: Input<String>,
    pub(crate) secret: Option<Input<Secret<String>>>,
    #[serde(default)]
    pub(crate) token: Option<Secret<String>>,
    pub(crate) number: Option<u64>,
    pub(crate) lock: Option<String>,
    pub(crate) steps: u32,
    pub(crate) lingers: u32,
    pub(crate) marked: bool,
    pub(crate) unmarkable: bool,
    pub(crate) outside: bool,
    pub(crate) early: bool,
    pub(crate) expires: Option<u64>,
    pub(crate) fleet: Option<String>,
}

/// What a thing yields.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ThingOutputs {
    pub(crate) tag: String,
    pub(crate) text: String,
    pub(crate) room: String,
    pub(crate) key: Secret<String>,
}

impl Thing {
    fn known_as(&self, mark: &str) -> String {
        if self.marked { format!("{}-{mark}", self.tag) } else { self.tag.clone() }
    }

    fn key(&self, op: &Op<Thing>) -> String {
        op.id.as_ref().map_or_else(|| self.known_as(&op.mark), |id| id.0.clone())
    }

    fn holds(&self, door: &Door, key: &str) -> Vec<String> {
        let lock = self.lock.iter().map(|lock| format!("lock {lock}"));
        lock.chain([format!("{}/{key}", door.place)]).collect()
    }

    fn wanted(&self, mark: &str, now: SystemTime) -> Item {
        Item {
            tag: self.tag.clone(),
            mark: (!self.unmarkable).then(|| mark.to_owned()),
            by: Some(mark.to_owned()),
            serial: 0,
            text: self.text.get().clone(),
            stand: self.stand.get().clone(),
            secret: self.secret.as_ref().map(|secret| secret.get().expose().clone()),
            left: self.steps,
            opened: false,
            leaving: None,
            outside: self.outside,
            number: self.number,
            fleet: self.fleet.clone(),
            away: false,
            expires: self.expires.map(|expires| second(now) + expires),
        }
    }

    fn step(&self, door: &Door, key: &str, item: &Item) -> Step<ThingOutputs> {
        let made = Made {
            id: Id(key.to_owned()),
            outputs: ThingOutputs {
                tag: item.tag.clone(),
                text: item.text.clone(),
                room: format!("{}/{}#{}", door.place, item.tag, item.serial),
                key: Secret::new(format!("{HUSH}key-{}-{}", item.tag, item.serial)),
            },
            live: Some(json!({ "text": item.text, "stand": item.stand })),
            due: item.expires.map(|expires| SystemTime::UNIX_EPOCH + Duration::from_secs(expires)),
        };
        if item.left == 0 {
            return Step::Done(made);
        }
        Step::Next {
            cursor: json!({ "left": item.left }),
            made: self.early.then_some(made),
            why: format!("{} more calls", item.left),
            pause: Duration::from_secs(1),
        }
    }
}

impl Resource<Sim> for Thing {
    const TYPE: &'static str = "sim:thing";
    const INITIAL: &'static [&'static str] = &["/token"];
    type Outputs = ThingOutputs;

    fn id(&self) -> Option<Id> {
        (!self.marked).then(|| Id(self.tag.clone()))
    }

    fn claims(&self) -> Vec<Claim> {
        self.number.iter().map(|n| Claim::number("number", u128::from(*n))).collect()
    }

    fn locks(&self) -> Vec<Lock> {
        self.lock.iter().map(Lock::exclusive).collect()
    }

    fn outside(&self) -> bool {
        self.outside
    }

    fn change(&self, prior: &Thing, live: Option<&Value>) -> Change {
        let stood = live.and_then(|live| live.get("stand")).and_then(Value::as_str).map(str::to_owned);
        let moved =
            self.stand.known() != prior.stand.known() || stood.is_some_and(|stood| Some(&stood) != self.stand.known());
        if moved {
            let order = if self.marked { Order::CreateFirst } else { Order::DeleteFirst };
            return Change::Replace(Impact::default(), order);
        }
        let interrupts = self.fleet.as_ref().map(|_| format!("{} is away for a while", self.tag));
        Change::Update(Impact { interrupts, unknown: vec![Path::from("/text")], ..Impact::default() })
    }

    async fn find(door: &Door, op: &Op<Thing>) -> Result<Found<ThingOutputs>> {
        let thing = op.inputs.as_ref().ok_or_else(|| Error::invalid("what was recorded can no longer be read"))?;
        let flight = door.enter(Vec::new()).await?;
        let key = thing.key(op);
        let item = door.world.contents().look(&door.place, &key);
        let found = match item {
            None => Found::Absent,
            Some(item) => {
                let owner = match &item.mark {
                    _ if thing.unmarkable => Owner::Unmarkable,
                    Some(mark) => Owner::Marked(mark.clone()),
                    None => Owner::Unmarked,
                };
                match item.leaving {
                    Some(left) => Found::Leaving(owner, format!("{left} more calls to go")),
                    None => Found::Present(owner, thing.step(door, &key, &item)),
                }
            }
        };
        flight.leave(&door.clock, Ok(found)).await
    }

    async fn apply(&self, door: &Door, op: &Op<Thing>) -> Result<Step<ThingOutputs>> {
        let key = self.key(op);
        let flight = door.enter(self.holds(door, &key)).await?;
        let (mark, wanted) = (op.mark.as_str(), self.wanted(&op.mark, door.clock.now()));
        let item = {
            let mut contents = door.world.contents();
            let under_way = contents.get(&door.place, &key).is_some_and(|item| item.left > 0);
            if op.cursor.is_some() && under_way {
                Ok(contents.progress(&door.place, &key, mark))
            } else if op.exists {
                Ok(contents.update(&door.place, &key, mark, wanted))
            } else {
                contents.create(&door.place, &key, mark, wanted).map(Some)
            }
        };
        let gone = || Error::new(lab_core::Class::Gone, format!("{}/{key} is gone", door.place));
        let answer = item.and_then(|item| item.ok_or_else(gone)).map(|item| self.step(door, &key, &item));
        flight.leave(&door.clock, answer).await
    }

    async fn delete(door: &Door, op: &Op<Thing>) -> Result<Step<()>> {
        let thing = op.inputs.as_ref().ok_or_else(|| Error::invalid("nothing says what is to be deleted"))?;
        let key = thing.key(op);
        let flight = door.enter(thing.holds(door, &key)).await?;
        let left = door.world.contents().delete(&door.place, &key, &op.mark, thing.lingers);
        let step = match left {
            None | Some(0) => Step::gone(),
            Some(left) => {
                Step::next(json!({ "left": left }), format!("{left} more calls to go"), Duration::from_secs(1))
            }
        };
        flight.leave(&door.clock, Ok(step)).await
    }
}

/// A secret that was drawn once and exists nowhere but in the state. Never looked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Bundle {
    pub(crate) tag: String,
}

impl Resource<Sim> for Bundle {
    const TYPE: &'static str = "sim:bundle";
    const GENERATED: bool = true;
    type Outputs = ThingOutputs;

    async fn find(_: &Door, _: &Op<Bundle>) -> Result<Found<ThingOutputs>> {
        panic!("what is generated is never looked for");
    }

    async fn apply(&self, _: &Door, op: &Op<Bundle>) -> Result<Step<ThingOutputs>> {
        // Real ones draw it from the operating system; here it has to be the same for the same seed.
        let outputs = ThingOutputs {
            tag: self.tag.clone(),
            text: self.tag.clone(),
            room: String::new(),
            key: Secret::new(format!("{HUSH}bundle-{}", op.mark)),
        };
        Ok(Step::Done(Made::new(self.tag.as_str(), outputs)))
    }

    async fn delete(_: &Door, _: &Op<Bundle>) -> Result<Step<()>> {
        Ok(Step::gone())
    }
}

/// What is done around an interruption.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Act {
    pub(crate) what: String,
    pub(crate) member: String,
}

impl Resource<Sim> for Act {
    const TYPE: &'static str = "sim:act";
    const ONCE: bool = true;
    type Outputs = String;

    async fn find(door: &Door, _: &Op<Act>) -> Result<Found<String>> {
        let flight = door.enter(Vec::new()).await?;
        // A drained member can be drained again: there is nothing to be found.
        flight.leave(&door.clock, Ok(Found::Absent)).await
    }

    async fn apply(&self, door: &Door, _: &Op<Act>) -> Result<Step<String>> {
        let flight = door.enter(vec![format!("{} {}", self.what, self.member)]).await?;
        door.world.contents().act(&self.what, &self.member);
        let made = Made::new(format!("{} {}", self.what, self.member), self.member.clone());
        flight.leave(&door.clock, Ok(Step::Done(made))).await
    }

    async fn delete(_: &Door, _: &Op<Act>) -> Result<Step<()>> {
        panic!("what happened once is never deleted");
    }
}

/// What does somebody else's thing say?
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Look {
    pub(crate) key: String,
}

impl Query<Sim> for Look {
    const TYPE: &'static str = "sim:look";
    type Answer = String;

    async fn read(&self, door: &Door) -> Result<Step<String>> {
        let flight = door.enter(Vec::new()).await?;
        let said = door.world.contents().get(&door.place, &self.key).map(|item| item.text.clone());
        let answer = match said {
            Some(said) => Ok(Step::Done(Made::new(self.key.as_str(), said))),
            None => Err(Error::again(format!("there is no {}", self.key))),
        };
        flight.leave(&door.clock, answer).await
    }
}

/// Are few enough members of a rolling group away?
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Gate {
    pub(crate) fleet: String,
    pub(crate) tolerates: usize,
}

impl Query<Sim> for Gate {
    const TYPE: &'static str = "sim:gate";
    type Answer = usize;

    async fn read(&self, door: &Door) -> Result<Step<usize>> {
        let flight = door.enter(Vec::new()).await?;
        let away = {
            let contents = door.world.contents();
            let members = contents.items.values().filter(|item| item.fleet.as_deref() == Some(&self.fleet));
            members.filter(|item| item.away).count()
        };
        let step = if away <= self.tolerates {
            Step::Done(Made::new(self.fleet.as_str(), away))
        } else {
            Step::next(Value::Null, format!("{away} members are away"), Duration::from_secs(1))
        };
        flight.leave(&door.clock, Ok(step)).await
    }
}

impl Mishap {
    /// Every mishap that leaves the process alive.
    pub(crate) const ALIVE: [Mishap; 10] = [
        Mishap::Again,
        Mishap::Refuse,
        Mishap::Conflict,
        Mishap::Fail,
        Mishap::Lose,
        Mishap::FailAfter,
        Mishap::Late,
        Mishap::Hang,
        Mishap::Panic,
        Mishap::PanicAfter,
    ];
}

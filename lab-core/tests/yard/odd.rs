//! Things that do what a test tells them to.

use lab_core::{
    Change, Claim, Class, Error, Found, Handle, Id, Impact, Input, Link, Lock, Made, Op, Order, Owner, Path, Provider,
    Query, Realm, Resource, Result, Step, Types, Urn,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

/// Everything that exists, and what was done to it.
#[derive(Default)]
pub struct Yard(Mutex<Contents>);

#[derive(Default)]
pub struct Contents {
    /// Things by place and key.
    pub items: BTreeMap<(String, String), Item>,
    /// What changed something, in order: `create shop/a`, `ready shop/a`, `delete shop/a`.
    pub log: Vec<String>,
    /// Where connections were made to.
    pub connects: Vec<String>,
    /// What was looked for.
    pub finds: Vec<String>,
    /// What goes wrong next, by the verb and the name.
    pub upsets: BTreeMap<String, VecDeque<Upset>>,
    /// How many are away at the moment, and how many were at most.
    away: usize,
    pub most_away: usize,
    /// How many are being worked on, and how many were at most.
    busy: usize,
    pub most_busy: usize,
    /// How often something was to be made where there was something.
    pub clashes: usize,
    serial: u64,
    /// What was asked for, was given up on, and will happen all the same.
    late: Vec<Late>,
    /// Called when something begins to hang.
    when_hanging: Option<Box<dyn Fn() + Send>>,
}

type Late = Box<dyn FnOnce(&Yard) + Send>;

/// One thing.
#[derive(Clone, Debug)]
pub struct Item {
    pub mark: Option<String>,
    pub value: Value,
    pub serial: u64,
    pub left: u32,
    pub away: bool,
}

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upset {
    /// It fails and had no effect.
    Fail(Class),
    /// It fails, and perhaps had an effect. It had none.
    Perhaps(Class),
    /// It has its effect and fails.
    After(Class),
    /// It has its effect, fails, and says that it had none.
    Deny(Class),
    /// The provider panics before it does anything.
    Panic,
    /// The provider panics when it has done it.
    PanicAfter,
    /// It has its effect and never comes back.
    Hang,
    /// Somebody else makes one of its name a moment before.
    Sooner,
    /// It never comes back, and has its effect only when the test says so: [`Yard::happen`].
    Late,
    /// It has its effect just before it is made: a call of another life of this program arrives first.
    Overtaken,
    /// It says that it did it, and did not.
    Lie,
    /// It does it, and says so in a way that no file can hold: nested too deep.
    Deep,
    /// It does it, and wants to be asked again when the universe has ended.
    Never,
}

impl Yard {
    pub fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().expect("a test does not poison its world")
    }

    /// Lets the next call of `verb` on `name` go wrong.
    pub fn upset(&self, verb: &str, name: &str, upset: Upset) {
        self.contents().upsets.entry(format!("{verb} {name}")).or_default().push_back(upset);
    }

    /// Lets everything happen that was given up on.
    pub fn happen(&self) {
        let late = std::mem::take(&mut self.contents().late);
        late.into_iter().for_each(|late| late(self));
    }

    /// Calls `then` whenever something begins to hang.
    pub fn when_hanging(&self, then: impl Fn() + Send + 'static) {
        self.contents().when_hanging = Some(Box::new(then));
    }

    fn hang(&self) {
        if let Some(then) = &self.contents().when_hanging {
            then();
        }
    }

    /// Returns what was done since the last time.
    pub fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.contents().log)
    }

    /// Returns what exists: `shop/a=text`.
    pub fn things(&self) -> Vec<String> {
        let contents = self.contents();
        contents
            .items
            .iter()
            .map(|((place, key), item)| format!("{place}/{key}={}", item.value["say"].as_str().unwrap_or_default()))
            .collect()
    }

    /// Puts a thing there, as somebody else would.
    pub fn plant(&self, place: &str, key: &str, value: Value) {
        let mut contents = self.contents();
        contents.serial += 1;
        let item = Item { mark: None, value, serial: contents.serial, left: 0, away: false };
        contents.items.insert((place.to_owned(), key.to_owned()), item);
    }

    /// Takes a thing away, as somebody else would.
    pub fn steal(&self, place: &str, key: &str) {
        self.contents().items.remove(&(place.to_owned(), key.to_owned()));
    }
}

/// A provider of odd things.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shop {
    pub place: Input<String>,
    pub inside: Option<Urn>,
}

impl Shop {
    pub fn at(place: &str) -> Shop {
        Shop { place: place.into(), inside: None }
    }

    pub fn inside(container: &Handle<OddOutputs>) -> Shop {
        Shop { place: container.output(|odd| odd.room).into(), inside: Some(container.urn().clone()) }
    }
}

pub struct Counter {
    yard: Arc<Yard>,
    place: String,
}

impl Provider for Shop {
    const NAME: &'static str = "odd";
    type Client = Counter;

    fn realm(&self) -> Realm {
        match &self.inside {
            Some(urn) => Realm::Inside(urn.clone()),
            None => Realm::Stated(self.place.known().cloned().unwrap_or_default()),
        }
    }

    async fn connect(self, link: Link) -> Result<Counter> {
        let yard = link.world::<Yard>().ok_or_else(|| Error::invalid("there is no yard"))?;
        yard.contents().connects.push(self.place.get().clone());
        let counter = Counter { yard, place: self.place.get().clone() };
        let upset = counter.upset("connect", &counter.place);
        Counter::before(upset).await?;
        if upset == Some(Upset::Hang) {
            counter.yard.hang();
        }
        Counter::after(upset, counter).await
    }

    fn types(types: &mut Types<Shop>) {
        types.add::<Odd>();
        types.add::<Chore>();
    }
}

/// How a thing says that it changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Turn {
    /// It matters to nobody.
    Nothing,
    /// In place.
    #[default]
    Update,
    /// In place, and it is away for a while.
    Interrupt,
    /// In place, and what it held is lost.
    Wipe,
    /// Another one, made after it went.
    DeleteFirst,
    /// Another one, made before it goes.
    CreateFirst,
    /// In place; what else it means stands in the value: `away` interrupts, `never` is refused.
    ByValue,
    /// In place, and it is away for a while unless it was seen to be off.
    UnlessOff,
}

/// A thing that does what a test tells it to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Odd {
    pub name: String,
    /// Found by its name instead of its mark.
    pub natural: bool,
    pub say: Input<String>,
    /// What a change of `say` means.
    pub turn: Turn,
    pub claims: Vec<Input<u64>>,
    pub pool: bool,
    /// How far beyond its number each claim goes.
    pub reach: u64,
    /// Name, capacity and weight.
    pub lock: Option<(String, u32, u32)>,
    /// How many more calls its making and its changes take.
    pub calls: u32,
    /// Due at this second.
    pub due: Option<u64>,
    /// Outputs that it says will change.
    pub announces: Vec<String>,
    /// Gives itself another number at each change.
    pub renumbers: bool,
    /// What is interrupted while it is made, replaced or taken away.
    pub missed: Option<String>,
    /// What its making destroys.
    pub wipes: Option<Input<String>>,
    pub outside: bool,
    pub unmarkable: bool,
    /// The function that panics when it is asked: `locks`.
    pub breaks: Option<String>,
    /// Said to be lost when it goes.
    pub holds: Option<String>,
    /// What it warns of in every call.
    pub warns: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OddOutputs {
    pub name: String,
    pub say: String,
    pub room: String,
    pub number: u64,
}

impl Odd {
    pub fn new(name: &str, say: impl Into<Input<String>>) -> Odd {
        Odd { name: name.into(), natural: true, say: say.into(), announces: vec!["/say".into()], ..Odd::default() }
    }

    fn breaks(&self, function: &str) {
        assert!(self.breaks.as_deref() != Some(function), "upset");
    }

    fn warn(&self, op: &Op<Odd>, call: &str) {
        if let Some(warns) = &self.warns {
            op.warn(format!("{call}: {warns}"));
        }
    }

    fn key(&self, mark: &str) -> String {
        if self.natural { self.name.clone() } else { format!("{}-{mark}", self.name) }
    }

    fn made(&self, counter: &Counter, key: &str, item: &Item) -> Made<OddOutputs> {
        let say = item.value["say"].as_str().unwrap_or_default().to_owned();
        Made {
            id: Id(key.to_owned()),
            outputs: OddOutputs {
                name: self.name.clone(),
                say,
                room: format!("{}/{}#{}", counter.place, self.name, item.serial),
                number: item.serial,
            },
            live: Some(item.value.clone()),
            due: self.due.map(|due| SystemTime::UNIX_EPOCH + Duration::from_secs(due)),
        }
    }

    /// Makes it, changes it or takes it one call further, as an outside system does: whoever asks, and whether or not
    /// anybody still listens.
    fn perform(&self, yard: &Yard, place: &str, op: &Op<Odd>) -> Result<(String, Item)> {
        let key = op.id.as_ref().map_or_else(|| self.key(&op.mark), |id| id.0.clone());
        let at = (place.to_owned(), key.clone());
        let label = format!("{}/{}", place, self.name);
        let item = {
            let mut contents = yard.contents();
            let contents = &mut *contents;
            let value = json!({ "say": self.say.get() });
            let known = contents.items.get(&at).map(|item| item.left);
            match (known, op.exists) {
                (Some(left), _) if left > 0 && op.cursor.is_some() => {
                    let item = contents.items.get_mut(&at).expect("it was there one line above");
                    item.left = left - 1;
                    if item.left == 0 {
                        contents.busy -= 1;
                        if std::mem::take(&mut item.away) {
                            contents.away -= 1;
                        }
                        contents.log.push(format!("ready {label}"));
                    }
                }
                // What is as it should be is left alone, as any decent system does.
                (Some(_), true) if contents.items[&at].value == value && !self.renumbers => {
                    let item = contents.items.get_mut(&at).expect("it was there one line above");
                    item.mark = (!self.unmarkable).then(|| op.mark.clone());
                }
                (Some(_), true) => {
                    contents.log.push(format!("update {label}"));
                    contents.serial += 1;
                    let item = contents.items.get_mut(&at).expect("it was there one line above");
                    item.value = value;
                    item.mark = (!self.unmarkable).then(|| op.mark.clone());
                    if self.renumbers {
                        item.serial = contents.serial;
                    }
                    item.left = self.calls;
                    if self.calls > 0 {
                        contents.busy += 1;
                        if self.turn == Turn::Interrupt {
                            item.away = true;
                            contents.away += 1;
                        }
                    }
                }
                (Some(_), false) => {
                    contents.clashes += 1;
                    return Err(Error::conflict(format!("{label} exists already")));
                }
                (None, true) => return Err(Error::new(Class::Gone, format!("{label} is gone"))),
                (None, false) => {
                    contents.log.push(format!("create {label}"));
                    contents.serial += 1;
                    let mark = (!self.unmarkable).then(|| op.mark.clone());
                    let item = Item { mark, value, serial: contents.serial, left: self.calls, away: false };
                    contents.items.insert(at.clone(), item);
                    contents.busy += usize::from(self.calls > 0);
                }
            }
            contents.most_away = contents.most_away.max(contents.away);
            contents.most_busy = contents.most_busy.max(contents.busy);
            contents.items[&at].clone()
        };
        Ok((key, item))
    }

    fn step(&self, counter: &Counter, key: &str, item: &Item) -> Step<OddOutputs> {
        let made = self.made(counter, key, item);
        match item.left {
            0 => Step::Done(made),
            left => Step::Next {
                cursor: json!({ "left": left }),
                made: Some(made),
                why: format!("{left} more calls"),
                pause: Duration::from_secs(1),
            },
        }
    }
}

impl Counter {
    fn upset(&self, verb: &str, name: &str) -> Option<Upset> {
        self.yard.contents().upsets.get_mut(&format!("{verb} {name}")).and_then(VecDeque::pop_front)
    }

    async fn before(upset: Option<Upset>) -> Result<()> {
        match upset {
            Some(Upset::Fail(class)) => Err(Error::new(class, "it was upset")),
            Some(Upset::Perhaps(class)) => Err(Error::new(class, "it was upset").perhaps()),
            Some(Upset::Panic) => panic!("upset"),
            Some(
                Upset::After(_)
                | Upset::Deny(_)
                | Upset::PanicAfter
                | Upset::Hang
                | Upset::Late
                | Upset::Sooner
                | Upset::Overtaken
                | Upset::Lie
                | Upset::Deep
                | Upset::Never,
            )
            | None => Ok(()),
        }
    }

    async fn after<T>(upset: Option<Upset>, answer: T) -> Result<T> {
        match upset {
            Some(Upset::After(class)) => Err(Error::new(class, "it was upset").perhaps()),
            Some(Upset::Deny(class)) => Err(Error::new(class, "it was upset")),
            Some(Upset::PanicAfter) => panic!("upset"),
            Some(Upset::Hang) => std::future::pending().await,
            Some(
                Upset::Fail(_)
                | Upset::Perhaps(_)
                | Upset::Panic
                | Upset::Late
                | Upset::Sooner
                | Upset::Overtaken
                | Upset::Lie
                | Upset::Deep
                | Upset::Never,
            )
            | None => Ok(answer),
        }
    }
}

impl Resource<Shop> for Odd {
    const TYPE: &'static str = "odd:thing";
    type Outputs = OddOutputs;

    fn id(&self) -> Option<Id> {
        self.breaks("id");
        self.natural.then(|| Id(self.name.clone()))
    }

    fn claims(&self) -> Vec<Claim> {
        self.breaks("claims");
        let claim = |n: &u64| {
            let claim = Claim::number("number", u128::from(*n));
            Claim { to: claim.to + u128::from(self.reach), ..claim }
        };
        let pool = |claim: Claim| if self.pool { claim.pool() } else { claim };
        self.claims.iter().filter_map(|n| n.known()).map(claim).map(pool).collect()
    }

    fn locks(&self) -> Vec<Lock> {
        self.breaks("locks");
        self.lock
            .iter()
            .map(|(name, capacity, weight)| Lock { name: name.clone(), capacity: *capacity, weight: *weight })
            .collect()
    }

    fn outside(&self) -> bool {
        self.breaks("outside");
        self.outside
    }

    fn removal(&self) -> Impact {
        self.breaks("removal");
        Impact { destroys: self.holds.clone(), interrupts: self.missed.clone(), ..Impact::default() }
    }

    fn creation(&self) -> Impact {
        self.breaks("creation");
        let destroys = self.wipes.as_ref().and_then(|wipes| wipes.known().cloned());
        Impact { destroys, interrupts: self.missed.clone(), ..Impact::default() }
    }

    fn change(&self, prior: &Odd, live: Option<&Value>) -> Change {
        self.breaks("change");
        let unknown = self.announces.iter().map(|path| Path::from(path.as_str())).collect();
        let impact = Impact { unknown, ..Impact::default() };
        let missed = Impact { interrupts: self.missed.clone(), ..Impact::default() };
        let drifted = live
            .and_then(|live| live.get("say"))
            .is_some_and(|say| Some(say.as_str().unwrap_or_default()) != self.say.known().map(String::as_str));
        if self.say.known() == prior.say.known() && self.say.known().is_some() && !drifted {
            return Change::Update(impact);
        }
        match self.turn {
            Turn::Nothing => Change::None,
            Turn::Update => Change::Update(impact),
            Turn::Interrupt => Change::Update(Impact { interrupts: Some(format!("{} is away", self.name)), ..impact }),
            Turn::Wipe => Change::Update(Impact { destroys: Some(format!("what {} holds", self.name)), ..impact }),
            Turn::DeleteFirst => Change::Replace(missed, Order::DeleteFirst),
            Turn::CreateFirst => Change::Replace(missed, Order::CreateFirst),
            Turn::ByValue => match self.say.known().map(String::as_str) {
                Some("away") => Change::Update(Impact { interrupts: Some(format!("{} is away", self.name)), ..impact }),
                Some("never") => Change::Refuse(vec![(Path::from("/say"), "it never says that".to_owned())]),
                Some(_) | None => Change::Update(impact),
            },
            Turn::UnlessOff => {
                let off = live.and_then(|live| live.get("off")).and_then(Value::as_bool) == Some(true);
                let interrupts = (!off).then(|| format!("{} is away", self.name));
                Change::Update(Impact { interrupts, ..impact })
            }
        }
    }

    async fn find(counter: &Counter, op: &Op<Odd>) -> Result<Found<OddOutputs>> {
        let Some(odd) = &op.inputs else { return Err(Error::invalid("nothing says what it is")) };
        odd.warn(op, "find");
        counter.yard.contents().finds.push(odd.name.clone());
        let upset = counter.upset("find", &odd.name);
        Counter::before(upset).await?;
        if upset == Some(Upset::Hang) {
            return std::future::pending().await;
        }
        let key = op.id.as_ref().map_or_else(|| odd.key(&op.mark), |id| id.0.clone());
        let item = counter.yard.contents().items.get(&(counter.place.clone(), key.clone())).cloned();
        let Some(item) = item else { return Ok(Found::Absent) };
        let owner = match &item.mark {
            _ if odd.unmarkable => Owner::Unmarkable,
            Some(mark) => Owner::Marked(mark.clone()),
            None => Owner::Unmarked,
        };
        Counter::after(upset, Found::Present(owner, odd.step(counter, &key, &item))).await
    }

    async fn apply(&self, counter: &Counter, op: &Op<Odd>) -> Result<Step<OddOutputs>> {
        self.warn(op, "apply");
        let upset = counter.upset("apply", &self.name);
        Counter::before(upset).await?;
        match upset {
            Some(Upset::Late) => {
                let (odd, place, op) = (self.clone(), counter.place.clone(), op.clone());
                let late = move |yard: &Yard| drop(odd.perform(yard, &place, &op));
                counter.yard.contents().late.push(Box::new(late));
                counter.yard.hang();
                return std::future::pending().await;
            }
            Some(Upset::Sooner) => counter.yard.plant(&counter.place, &self.key(&op.mark), json!({ "say": "theirs" })),
            Some(Upset::Overtaken) => drop(self.perform(&counter.yard, &counter.place, op)?),
            Some(Upset::Lie) => {
                let item =
                    Item { mark: None, value: json!({ "say": self.say.get() }), serial: 0, left: 0, away: false };
                return Ok(self.step(counter, &self.key(&op.mark), &item));
            }
            _ => {}
        }
        let (key, item) = self.perform(&counter.yard, &counter.place, op)?;
        let step = self.step(counter, &key, &item);
        match upset {
            Some(Upset::Deep) => {
                let mut made = self.made(counter, &key, &item);
                made.live = Some((0..200).fold(json!(0), |inner, _| json!([inner])));
                Ok(Step::Done(made))
            }
            Some(Upset::Never) => Ok(Step::next(json!("never"), "it takes for ever", Duration::MAX)),
            _ => Counter::after(upset, step).await,
        }
    }

    async fn delete(counter: &Counter, op: &Op<Odd>) -> Result<Step<()>> {
        let key = match (&op.id, &op.inputs) {
            (Some(id), _) => id.0.clone(),
            (None, Some(odd)) => odd.key(&op.mark),
            (None, None) => return Err(Error::invalid("nothing says what is to be deleted")),
        };
        let name = op.inputs.as_ref().map_or(key.as_str(), |odd| odd.name.as_str()).to_owned();
        op.inputs.iter().for_each(|odd| odd.warn(op, "delete"));
        let upset = counter.upset("delete", &name);
        Counter::before(upset).await?;
        let place = counter.place.clone();
        let delete = move |yard: &Yard| {
            let gone = yard.contents().items.remove(&(place.clone(), key.clone()));
            if let Some(item) = gone {
                let inside = format!("#{}", item.serial);
                let mut contents = yard.contents();
                contents.log.push(format!("delete {place}/{name}"));
                contents.items.retain(|(place, _), _| !place.ends_with(&inside));
            }
        };
        match upset {
            Some(Upset::Late) => {
                counter.yard.contents().late.push(Box::new(delete));
                counter.yard.hang();
                std::future::pending().await
            }
            Some(Upset::Lie) => Ok(Step::gone()),
            Some(Upset::Never) => Ok(Step::next(json!("never"), "it takes for ever", Duration::MAX)),
            _ => {
                delete(&counter.yard);
                Counter::after(upset, Step::gone()).await
            }
        }
    }
}

/// Something that is done once around a member of a rolling group: a drain, an uncordon.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Chore {
    pub what: String,
}

impl Resource<Shop> for Chore {
    const TYPE: &'static str = "odd:chore";
    const ONCE: bool = true;
    type Outputs = ();

    async fn find(counter: &Counter, op: &Op<Chore>) -> Result<Found<()>> {
        let done = counter.yard.contents().items.contains_key(&("chores".into(), op.mark.clone()));
        Ok(if done {
            Found::Present(Owner::Marked(op.mark.clone()), Step::Done(Made::new(op.mark.as_str(), ())))
        } else {
            Found::Absent
        })
    }

    async fn apply(&self, counter: &Counter, op: &Op<Chore>) -> Result<Step<()>> {
        let upset = counter.upset("apply", &self.what);
        Counter::before(upset).await?;
        {
            let mut contents = counter.yard.contents();
            contents.log.push(self.what.clone());
            contents.serial += 1;
            let item = Item { mark: None, value: Value::Null, serial: contents.serial, left: 0, away: false };
            contents.items.insert(("chores".into(), op.mark.clone()), item);
        }
        Counter::after(upset, Step::Done(Made::new(op.mark.as_str(), ()))).await
    }

    async fn delete(_: &Counter, _: &Op<Chore>) -> Result<Step<()>> {
        Err(Error::invalid("what was done cannot be undone"))
    }
}

/// A question that holds once the thing called `name` says something.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ask {
    pub name: String,
    /// Logged when it is asked.
    pub log: Option<String>,
    pub expect: Option<Input<String>>,
}

impl Ask {
    pub fn of(name: &str) -> Ask {
        Ask { name: name.into(), log: None, expect: None }
    }
}

impl Query<Shop> for Ask {
    const TYPE: &'static str = "odd:ask";
    type Answer = String;

    async fn read(&self, counter: &Counter) -> Result<Step<String>> {
        let upset = counter.upset("ask", &self.name);
        Counter::before(upset).await?;
        if upset == Some(Upset::Hang) {
            return std::future::pending().await;
        }
        let mut contents = counter.yard.contents();
        let at = (counter.place.clone(), self.name.clone());
        let said = contents.items.get(&at).and_then(|item| item.value["say"].as_str().map(str::to_owned));
        let Some(said) = said else { return Err(Error::again(format!("there is no {}", self.name))) };
        if self.expect.as_ref().is_some_and(|expect| *expect.get() != said) {
            return Ok(Step::next(Value::Null, format!("{} says {said}", self.name), Duration::from_secs(1)));
        }
        contents.log.extend(self.log.clone());
        Ok(Step::Done(Made::new(self.name.as_str(), said)))
    }
}

/// A gate that holds while nothing is away.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Look {
    pub tolerates: usize,
}

impl Query<Shop> for Look {
    const TYPE: &'static str = "odd:look";
    type Answer = usize;

    async fn read(&self, counter: &Counter) -> Result<Step<usize>> {
        let upset = counter.upset("ask", "gate");
        Counter::before(upset).await?;
        let mut contents = counter.yard.contents();
        contents.log.push("gate".into());
        let away = contents.away;
        Ok(if away <= self.tolerates {
            Step::Done(Made::new("gate", away))
        } else {
            Step::next(Value::Null, format!("{away} are away"), Duration::from_secs(1))
        })
    }
}

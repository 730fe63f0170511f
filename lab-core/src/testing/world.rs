//! A world in memory: what exists outside, as far as a test is concerned.

use super::distant::{Call, Distant};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A world in memory. Things lie in places, under a name; everything done to it is logged.
#[derive(Debug, Default)]
pub struct World {
    contents: Mutex<Contents>,
    /// Where it really is, when that is another process.
    distant: Option<Distant>,
}

#[derive(Debug, Default)]
struct Contents {
    items: BTreeMap<(String, String), Item>,
    log: Vec<String>,
    serial: u64,
    cut_off: Vec<String>,
}

/// One thing in the world.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// The mark that it bears.
    pub mark: Option<String>,
    /// A number that no other thing ever had.
    pub serial: u64,
    /// What it is.
    pub value: Value,
    /// How many calls its making still takes.
    pub unfinished: u32,
    /// How many calls its deletion still takes, once that has begun.
    pub leaving: Option<u32>,
}

impl World {
    /// Returns the world that another process serves at `address`: what providers do happens there. Only they reach
    /// it; what a test does to a world, it does where that is.
    pub fn at(address: SocketAddr) -> World {
        World { contents: Mutex::default(), distant: Some(Distant::at(address)) }
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the thing called `name` in `place`.
    pub fn get(&self, place: &str, name: &str) -> Option<Item> {
        if let Some(distant) = &self.distant {
            return distant.ask(&Call::Get { place: place.to_owned(), name: name.to_owned() });
        }
        self.contents().items.get(&(place.to_owned(), name.to_owned())).cloned()
    }

    /// Changes a thing, as somebody else would.
    pub fn change(&self, place: &str, name: &str, change: impl FnOnce(&mut Item)) {
        if let Some(item) = self.contents().items.get_mut(&(place.to_owned(), name.to_owned())) {
            change(item);
        }
    }

    /// Puts a thing there, as somebody else would.
    pub fn plant(&self, place: &str, name: &str, value: Value) {
        let mut contents = self.contents();
        contents.serial += 1;
        let item = Item { mark: None, serial: contents.serial, value, unfinished: 0, leaving: None };
        contents.items.insert((place.to_owned(), name.to_owned()), item);
    }

    /// Takes a thing away, as somebody else would.
    pub fn take_away(&self, place: &str, name: &str) {
        self.contents().items.remove(&(place.to_owned(), name.to_owned()));
    }

    /// Makes a place answer to nobody, or answer again.
    pub fn cut_off(&self, place: &str, cut_off: bool) {
        let mut contents = self.contents();
        contents.cut_off.retain(|other| other != place);
        if cut_off {
            contents.cut_off.push(place.to_owned());
        }
    }

    /// Returns true while a place answers to nobody.
    pub fn is_cut_off(&self, place: &str) -> bool {
        if let Some(distant) = &self.distant {
            return distant.ask(&Call::IsCutOff { place: place.to_owned() });
        }
        self.contents().cut_off.iter().any(|other| other == place)
    }

    /// Returns every call that changed something, in order: `create rack/a`.
    pub fn log(&self) -> Vec<String> {
        self.contents().log.clone()
    }

    /// Forgets the log.
    pub fn clear_log(&self) {
        self.contents().log.clear();
    }

    /// Returns everything that exists: place, name and value, without marks and numbers, so that two worlds that came
    /// about in different ways compare equal.
    pub fn dump(&self) -> Value {
        let contents = self.contents();
        let mut places: BTreeMap<String, BTreeMap<String, Value>> = BTreeMap::new();
        for ((place, name), item) in &contents.items {
            let entry = json!({ "value": item.value, "ready": item.unfinished == 0 && item.leaving.is_none() });
            places.entry(unnumbered(place)).or_default().insert(name.clone(), entry);
        }
        json!(places)
    }

    /// Returns everything that exists: place, name and thing.
    pub fn items(&self) -> Vec<(String, String, Item)> {
        let contents = self.contents();
        contents.items.iter().map(|((place, name), item)| (place.clone(), name.clone(), item.clone())).collect()
    }

    /// Returns a copy that goes its own way from here.
    pub fn fork(&self) -> World {
        let contents = self.contents();
        let contents = Contents {
            items: contents.items.clone(),
            log: contents.log.clone(),
            serial: contents.serial,
            cut_off: contents.cut_off.clone(),
        };
        World { contents: Mutex::new(contents), distant: None }
    }

    /// Returns how many things exist.
    pub fn count(&self) -> usize {
        self.contents().items.len()
    }

    pub(super) fn create(&self, place: &str, name: &str, mark: &str, value: Value, calls: u32) -> Result<Item, String> {
        if let Some(distant) = &self.distant {
            let (place, name, mark) = (place.to_owned(), name.to_owned(), mark.to_owned());
            return distant.ask(&Call::Create { place, name, mark, value, calls });
        }
        let mut contents = self.contents();
        let key = (place.to_owned(), name.to_owned());
        if contents.items.contains_key(&key) {
            return Err(format!("{place}/{name} exists already"));
        }
        contents.serial += 1;
        let item = Item {
            mark: (!mark.is_empty()).then(|| mark.to_owned()),
            serial: contents.serial,
            value,
            unfinished: calls,
            leaving: None,
        };
        contents.log.push(format!("create {place}/{name}"));
        contents.items.insert(key, item.clone());
        Ok(item)
    }

    pub(super) fn update(&self, place: &str, name: &str, mark: &str, value: Value) -> Option<Item> {
        if let Some(distant) = &self.distant {
            let (place, name, mark) = (place.to_owned(), name.to_owned(), mark.to_owned());
            return distant.ask(&Call::Update { place, name, mark, value });
        }
        let mut contents = self.contents();
        contents.log.push(format!("update {place}/{name}"));
        let item = contents.items.get_mut(&(place.to_owned(), name.to_owned()))?;
        item.value = value;
        if !mark.is_empty() {
            item.mark = Some(mark.to_owned());
        }
        Some(item.clone())
    }

    pub(super) fn progress(&self, place: &str, name: &str) -> Option<Item> {
        if let Some(distant) = &self.distant {
            return distant.ask(&Call::Progress { place: place.to_owned(), name: name.to_owned() });
        }
        let mut contents = self.contents();
        let item = contents.items.get_mut(&(place.to_owned(), name.to_owned()))?;
        item.unfinished = item.unfinished.saturating_sub(1);
        Some(item.clone())
    }

    /// Looks at a thing. One that is on its way out goes on by itself, a little further with every look.
    pub(super) fn look(&self, place: &str, name: &str) -> Option<Item> {
        if let Some(distant) = &self.distant {
            return distant.ask(&Call::Look { place: place.to_owned(), name: name.to_owned() });
        }
        let leaving = self.get(place, name)?.leaving.is_some();
        if leaving {
            self.delete(place, name, 0);
        }
        self.get(place, name)
    }

    /// Begins or goes on with a deletion; returns how many calls it still takes.
    pub(super) fn delete(&self, place: &str, name: &str, calls: u32) -> Option<u32> {
        if let Some(distant) = &self.distant {
            return distant.ask(&Call::Delete { place: place.to_owned(), name: name.to_owned(), calls });
        }
        let mut contents = self.contents();
        let key = (place.to_owned(), name.to_owned());
        let item = contents.items.get_mut(&key)?;
        let left = match item.leaving {
            None => calls,
            Some(left) => left.saturating_sub(1),
        };
        let first = item.leaving.is_none();
        item.leaving = Some(left);
        let serial = item.serial;
        if first {
            contents.log.push(format!("delete {place}/{name}"));
        }
        if left == 0 {
            contents.items.remove(&key);
            // What lay inside goes with it, at any depth.
            let inside = format!("#{serial}");
            contents.items.retain(|(place, _), _| !place.split('/').any(|part| part.ends_with(&inside)));
        }
        Some(left)
    }
}

/// Returns the name of a place without the numbers of the containers on the way, which differ from run to run.
fn unnumbered(place: &str) -> String {
    let plain = |part: &str| part.split('#').next().unwrap_or(part).to_owned();
    place.split('/').map(plain).collect::<Vec<_>>().join("/")
}

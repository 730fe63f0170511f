//! Sets of fields: what a manager owns, and what a write touches. Encoded as `fieldsV1`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::schema::{Field, Schema, Shape};

/// One step from a value to a value inside it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Element {
    /// The field of a map.
    Field(String),
    /// The item of a list that has these key fields, as canonical JSON.
    Key(String),
    /// The item of a set with this value, as JSON.
    Value(String),
    /// The item at a position.
    Index(usize),
}

/// A set of paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    member: bool,
    children: BTreeMap<Element, Fields>,
}

/// What differs between two objects, as sets of paths.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    pub(crate) removed: Fields,
    pub(crate) modified: Fields,
    pub(crate) added: Fields,
}

impl Fields {
    pub(crate) fn is_empty(&self) -> bool {
        !self.member && self.children.values().all(Fields::is_empty)
    }

    pub(crate) fn insert(&mut self, path: &[Element]) {
        match path {
            [] => self.member = true,
            [first, rest @ ..] => self.children.entry(first.clone()).or_default().insert(rest),
        }
    }

    /// Removes exactly these paths, not what lies below them.
    pub(crate) fn remove(&mut self, path: &[&str]) {
        match path {
            [] => self.member = false,
            [first, rest @ ..] => {
                let element = Element::Field((*first).into());
                if let Some(child) = self.children.get_mut(&element) {
                    child.remove(rest);
                    if child.is_empty() {
                        self.children.remove(&element);
                    }
                }
            }
        }
    }

    /// Removes a path and all below it.
    pub(crate) fn remove_below(&mut self, path: &[String]) {
        match path {
            [] => *self = Fields::default(),
            [first, rest @ ..] => {
                let element = Element::Field(first.clone());
                if let Some(child) = self.children.get_mut(&element) {
                    child.remove_below(rest);
                    if child.is_empty() {
                        self.children.remove(&element);
                    }
                }
            }
        }
    }

    /// Keeps of the top level only this field.
    pub(crate) fn keep_only(&mut self, names: &[&str]) {
        self.children.retain(|element, _| matches!(element, Element::Field(name) if names.contains(&name.as_str())));
    }

    pub(crate) fn union(&self, other: &Fields) -> Fields {
        let mut result = self.clone();
        result.member |= other.member;
        for (element, child) in &other.children {
            let entry = result.children.entry(element.clone()).or_default();
            *entry = entry.union(child);
        }
        result
    }

    pub(crate) fn intersection(&self, other: &Fields) -> Fields {
        self.zip(other, |mine, theirs| mine && theirs)
    }

    pub(crate) fn difference(&self, other: &Fields) -> Fields {
        self.zip(other, |mine, theirs| mine && !theirs)
    }

    fn zip(&self, other: &Fields, keep: fn(bool, bool) -> bool) -> Fields {
        let none = Fields::default();
        let children = self.children.iter().filter_map(|(element, child)| {
            let kept = child.zip(other.children.get(element).unwrap_or(&none), keep);
            (!kept.is_empty()).then(|| (element.clone(), kept))
        });
        Fields { member: keep(self.member, other.member), children: children.collect() }
    }

    /// Returns the set in which each named field on the way to a member is a member too.
    pub(crate) fn with_named_members(&self) -> Fields {
        let children = self.children.iter().map(|(element, child)| {
            let mut child = child.with_named_members();
            child.member |= matches!(element, Element::Field(_));
            (element.clone(), child)
        });
        Fields { member: self.member, children: children.collect() }
    }

    /// Returns the members as text, `.spec.ports[port=80,protocol="TCP"].name`, in order.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.collect(String::new(), &mut found);
        found
    }

    fn collect(&self, path: String, found: &mut Vec<String>) {
        if self.member {
            found.push(path.clone());
        }
        for (element, child) in &self.children {
            child.collect(format!("{path}{}", element.shown()), found);
        }
    }

    /// Returns the `fieldsV1` document.
    pub(crate) fn encoded(&self) -> Value {
        let mut map = Map::new();
        if self.member && !self.children.is_empty() {
            map.insert(".".into(), Value::Object(Map::new()));
        }
        for (element, child) in &self.children {
            map.insert(element.encoded(), child.encoded());
        }
        Value::Object(map)
    }

    /// Reads a `fieldsV1` document.
    pub(crate) fn decoded(document: &Value) -> Fields {
        let mut result = Fields::decoded_below(document);
        result.member = false;
        result
    }

    fn decoded_below(document: &Value) -> Fields {
        let empty = Map::new();
        let map = document.as_object().unwrap_or(&empty);
        let mut result = Fields { member: map.is_empty() || map.contains_key("."), children: BTreeMap::new() };
        for (key, child) in map {
            if let Some(element) = Element::decoded(key) {
                result.children.insert(element, Fields::decoded_below(child));
            }
        }
        result
    }

    /// Returns the fields that `value` has.
    pub(crate) fn of(schema: Schema<'_>, value: &Value) -> Fields {
        let mut result = Fields::default();
        result.add(schema, value);
        result
    }

    fn add(&mut self, schema: Schema<'_>, value: &Value) {
        match (schema.shape(value), value) {
            (Shape::Map, Value::Object(map)) => {
                for (name, value) in map {
                    let (below, declared) = match schema.field(name) {
                        Field::Declared(below) => (below, true),
                        Field::Entry(below) => (below, false),
                        Field::Unknown => (Schema::anything(), true),
                    };
                    let child = self.children.entry(Element::Field(name.clone())).or_default();
                    child.add(below, value);
                    let empty = value.as_object().is_some_and(Map::is_empty);
                    child.member |= empty || !declared;
                }
                self.children.retain(|_, child| !child.is_empty());
            }
            (Shape::Keyed(_) | Shape::Set, Value::Array(items)) => {
                for item in items {
                    let child = self.children.entry(Element::item(schema, item)).or_default();
                    child.add(schema.items(), item);
                    child.member = true;
                }
            }
            _ => self.member = true,
        }
    }
}

impl Element {
    /// Returns what tells `item` apart in a list with this schema.
    pub(crate) fn item(schema: Schema<'_>, item: &Value) -> Element {
        match schema.shape(&Value::Array(Vec::new())) {
            Shape::Keyed(keys) => {
                let mut found: BTreeMap<&str, &Value> = BTreeMap::new();
                for key in keys {
                    if let Some(value) = item.get(key).or_else(|| schema.items().key_default(key)) {
                        found.insert(key, value);
                    }
                }
                let parts: Vec<String> =
                    found.iter().map(|(key, value)| format!("{}:{value}", Value::from(*key))).collect();
                Element::Key(format!("{{{}}}", parts.join(",")))
            }
            _ => Element::Value(item.to_string()),
        }
    }

    fn shown(&self) -> String {
        match self {
            Element::Field(name) => format!(".{name}"),
            Element::Key(json) => {
                let keys: BTreeMap<String, Value> = serde_json::from_str(json).unwrap_or_default();
                let parts: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                format!("[{}]", parts.join(","))
            }
            Element::Value(json) => format!("[={json}]"),
            Element::Index(index) => format!("[{index}]"),
        }
    }

    /// Returns the element as messages write it.
    pub(crate) fn label(&self) -> String {
        self.shown()
    }

    fn encoded(&self) -> String {
        match self {
            Element::Field(name) => format!("f:{name}"),
            Element::Key(json) => format!("k:{json}"),
            Element::Value(json) => format!("v:{json}"),
            Element::Index(index) => format!("i:{index}"),
        }
    }

    fn decoded(text: &str) -> Option<Element> {
        let (tag, rest) = text.split_once(':')?;
        Some(match tag {
            "f" => Element::Field(rest.into()),
            "k" => {
                let keys: BTreeMap<String, Value> = serde_json::from_str(rest).ok()?;
                let parts: Vec<String> =
                    keys.iter().map(|(key, value)| format!("{}:{value}", Value::from(key.as_str()))).collect();
                Element::Key(format!("{{{}}}", parts.join(",")))
            }
            "v" => Element::Value(rest.into()),
            "i" => Element::Index(rest.parse().ok()?),
            _ => return None,
        })
    }
}

/// Compares two objects of one schema.
pub(crate) fn compare(schema: Schema<'_>, old: &Value, new: &Value) -> Comparison {
    let mut result = Comparison::default();
    walk(schema, Some(old), Some(new), &mut Vec::new(), &mut result);
    result
}

fn walk(
    schema: Schema<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    path: &mut Vec<Element>,
    result: &mut Comparison,
) {
    if !descend(schema, old, new, path, result) {
        match (old, new) {
            (None, _) => result.added.insert(path),
            (_, None) => result.removed.insert(path),
            (Some(old), Some(new)) if old != new => result.modified.insert(path),
            _ => {}
        }
        return;
    }
    match (old, new) {
        (None, _) => result.added.insert(path),
        (_, None) => result.removed.insert(path),
        _ => {}
    }
}

// Returns false where the value is one leaf.
fn descend(
    schema: Schema<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    path: &mut Vec<Element>,
    result: &mut Comparison,
) -> bool {
    let Some(sample) = new.or(old) else { return false };
    match schema.shape(sample) {
        Shape::Leaf => false,
        Shape::Map => {
            let none = Map::new();
            let old = old.and_then(Value::as_object).unwrap_or(&none);
            let new = new.and_then(Value::as_object).unwrap_or(&none);
            if old.is_empty() && new.is_empty() {
                return false;
            }
            let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for name in names {
                let below = match schema.field(name) {
                    Field::Declared(below) | Field::Entry(below) => below,
                    Field::Unknown => Schema::anything(),
                };
                path.push(Element::Field(name.clone()));
                walk(below, old.get(name), new.get(name), path, result);
                path.pop();
            }
            true
        }
        Shape::Keyed(_) | Shape::Set => {
            let index = |list: Option<&Value>| -> BTreeMap<Element, Value> {
                let items = list.and_then(Value::as_array).into_iter().flatten();
                items.map(|item| (Element::item(schema, item), item.clone())).collect()
            };
            let (old, new) = (index(old), index(new));
            if old.is_empty() && new.is_empty() {
                return false;
            }
            let elements: BTreeSet<&Element> = old.keys().chain(new.keys()).collect();
            for element in elements {
                path.push(element.clone());
                walk(schema.items(), old.get(element), new.get(element), path, result);
                path.pop();
            }
            true
        }
    }
}

/// Merges an applied configuration into the live object.
pub(crate) fn merge(schema: Schema<'_>, live: &Value, applied: &Value) -> Value {
    match (schema.shape(applied), live, applied) {
        (Shape::Map, Value::Object(live), Value::Object(applied)) => {
            let mut result = live.clone();
            for (name, value) in applied {
                let below = match schema.field(name) {
                    Field::Declared(below) | Field::Entry(below) => below,
                    Field::Unknown => Schema::anything(),
                };
                let merged = live.get(name).map_or_else(|| value.clone(), |live| merge(below, live, value));
                result.insert(name.clone(), merged);
            }
            Value::Object(result)
        }
        (Shape::Keyed(_) | Shape::Set, Value::Array(live), Value::Array(applied)) => {
            let key = |item: &Value| Element::item(schema, item);
            let live_keys: Vec<Element> = live.iter().map(key).collect();
            let applied_keys: Vec<Element> = applied.iter().map(key).collect();
            let mut result = Vec::new();
            let (mut l, mut a) = (0, 0);
            while l < live.len() || a < applied.len() {
                if l < live.len() && !applied_keys.contains(&live_keys[l]) {
                    result.push(live[l].clone());
                    l += 1;
                } else if a < applied.len() {
                    match live_keys.iter().position(|key| *key == applied_keys[a]) {
                        Some(at) => result.push(merge(schema.items(), &live[at], &applied[a])),
                        None => result.push(applied[a].clone()),
                    }
                    // The shared item at the live side's turn is passed over; it stands where the applied list has it.
                    if l < live.len() && live_keys[l] == applied_keys[a] {
                        l += 1;
                    }
                    a += 1;
                } else {
                    l += 1;
                }
            }
            Value::Array(result)
        }
        _ => applied.clone(),
    }
}

/// Removes from `value` the members of `fields`, each with everything below it.
pub(crate) fn removed(schema: Schema<'_>, value: &Value, fields: &Fields) -> Value {
    match (schema.shape(value), value) {
        (Shape::Map, Value::Object(map)) => {
            let mut result = Map::new();
            for (name, value) in map {
                let below = match schema.field(name) {
                    Field::Declared(below) | Field::Entry(below) => below,
                    Field::Unknown => Schema::anything(),
                };
                match fields.children.get(&Element::Field(name.clone())) {
                    Some(child) if child.member => {}
                    Some(child) => {
                        let kept = removed(below, value, child);
                        let emptied = matches!(&kept, Value::Object(map) if map.is_empty())
                            || matches!(&kept, Value::Array(list) if list.is_empty());
                        if !emptied || kept == *value {
                            result.insert(name.clone(), kept);
                        }
                    }
                    None => drop(result.insert(name.clone(), value.clone())),
                }
            }
            Value::Object(result)
        }
        (Shape::Keyed(_) | Shape::Set, Value::Array(items)) => {
            let kept = items.iter().filter_map(|item| match fields.children.get(&Element::item(schema, item)) {
                Some(child) if child.member => None,
                Some(child) => Some(removed(schema.items(), item, child)),
                None => Some(item.clone()),
            });
            Value::Array(kept.collect())
        }
        _ => value.clone(),
    }
}

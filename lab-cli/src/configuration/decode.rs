//! From a document to a typed value: a deserializer that knows where each value stands and what is wrong already.

use super::Problem;
use super::document::{Content, Key, Node};
use lab_core::PLACED;
use lab_core::plan::distance;
use serde::de::value::{StrDeserializer, U32Deserializer};
use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde::forward_to_deserialize_any;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Texts that stand in for one that is missing, so that what is missing after it is found as well: one of the usual
/// kinds nearly always passes.
const MADE_UP: [&str; 12] = [
    "",
    "x",
    "10.0.0.1",
    "10.0.0.0/24",
    "10.0.0.1-10.0.0.2",
    "10.0.0.1:1",
    "02:00:00:00:00:01",
    "https://x.invalid",
    "1",
    "1.0.0",
    "1.32/stable",
    "1970-01-01",
];

/// What is known of a document while its problems are searched.
pub(super) struct Sheet<'a> {
    file: &'a str,
    problems: Vec<Problem>,
    /// Values of keys that are not known: passed over.
    dropped: BTreeSet<usize>,
    /// Values that are wrong, and which of the made-up values stands in.
    wrong: BTreeMap<usize, usize>,
    /// Those that are wrong and that nothing stands in for: asked for last.
    hopeless: BTreeSet<usize>,
    /// Keys that are missing in a table, and which of the made-up values stands in.
    made: BTreeMap<usize, Vec<(&'static str, usize)>>,
    /// The value that is wrong and is asked for first among those, in this attempt.
    focus: Option<usize>,
    /// Lists that were not shown whole in this attempt.
    shortened: RefCell<BTreeSet<usize>>,
}

/// Something that could not be decoded.
#[derive(Debug)]
pub(super) struct Wrong {
    what: What,
    site: Option<Site>,
}

#[derive(Debug)]
enum What {
    UnknownKey(String),
    MissingKey(&'static str),
    Other(String),
}

#[derive(Clone, Debug)]
enum Site {
    /// A value.
    Node(usize),
    /// The key of a value.
    Key(usize),
    /// A made-up value of a table.
    Made(usize, &'static str),
    /// A made-up value that stands in for one that is wrong.
    StandIn(usize),
}

impl<'a> Sheet<'a> {
    pub(super) fn new(file: &'a str) -> Sheet<'a> {
        Sheet {
            file,
            problems: Vec::new(),
            dropped: BTreeSet::new(),
            wrong: BTreeMap::new(),
            hopeless: BTreeSet::new(),
            made: BTreeMap::new(),
            focus: None,
            shortened: RefCell::default(),
        }
    }

    /// Returns what to look at first, in turn: what is wrong in one place hides what comes after it elsewhere.
    pub(super) fn focuses(&self) -> Vec<Option<usize>> {
        std::iter::once(None).chain(self.hopeless.iter().copied().map(Some)).collect()
    }

    /// Returns what stands in for a value that is wrong.
    fn stand_in(&self, node: &Node) -> Option<MadeUp> {
        self.wrong.get(&node.id).map(|candidate| MadeUp { candidate: *candidate })
    }

    pub(super) fn begin(&mut self, focus: Option<usize>) {
        self.focus = focus;
        self.shortened.borrow_mut().clear();
    }

    pub(super) fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Returns what is wrong; of a file in which more may be wrong when it was not `searched` to the end.
    pub(super) fn into_problems(mut self, searched: bool) -> Vec<Problem> {
        self.problems.sort();
        self.problems.dedup();
        if let (false, Some(last)) = (searched, self.problems.last()) {
            let more = "there may be more that is wrong; it is told once these are mended";
            self.problems.push(Problem { message: more.into(), ..last.clone() });
        }
        self.problems
    }

    /// Takes note of what was wrong. Returns false when that was known.
    pub(super) fn learn(&mut self, root: &Node, wrong: Wrong) -> bool {
        let site = wrong.site.unwrap_or(Site::Node(root.id));
        match (wrong.what, site) {
            (_, Site::Made(table, name)) => {
                let Some(made) = self.made.get_mut(&table) else { return false };
                let Some(candidate) = made.iter_mut().find(|(made, _)| *made == name) else { return false };
                candidate.1 += 1;
                if candidate.1 >= MADE_UP.len() {
                    // Nothing passes: what is missing after it stays unknown, what is wrong elsewhere does not.
                    made.retain(|(made, _)| *made != name);
                    self.wrong.remove(&table);
                    self.hopeless.insert(table);
                }
                true
            }
            (_, Site::StandIn(id)) => match self.wrong.get_mut(&id) {
                Some(candidate) => {
                    *candidate += 1;
                    if *candidate >= MADE_UP.len() {
                        self.wrong.remove(&id);
                        self.hopeless.insert(id);
                    }
                    true
                }
                None => false,
            },
            (What::UnknownKey(message), Site::Key(id)) => {
                let Some((key, node)) = entry(root, id) else { return false };
                self.problems.push(Problem::new(self.file, key.at, &node.path, &message));
                self.dropped.insert(id)
            }
            (What::MissingKey(name), Site::Node(id) | Site::Key(id)) => {
                let Some(node) = find(root, id) else { return false };
                let path = if node.path.is_empty() { name.to_owned() } else { format!("{}.{name}", node.path) };
                let problem = Problem::new(self.file, node.at, &path, "is missing");
                if self.problems.contains(&problem) {
                    return false;
                }
                self.problems.push(problem);
                self.made.entry(id).or_default().push((name, 0));
                true
            }
            (What::UnknownKey(message) | What::Other(message), Site::Node(id) | Site::Key(id)) => {
                let Some(node) = find(root, id) else { return false };
                // A rule over several values says nothing about those that are made up or left out.
                let whole = self.is_whole(node);
                if self.wrong.contains_key(&id) || self.hopeless.contains(&id) {
                    return false;
                }
                self.wrong.insert(id, 0);
                if whole {
                    self.problems.push(Problem::new(self.file, node.at, &node.path, &message));
                }
                true
            }
        }
    }

    /// Returns true when everything of `node` was shown as it is written.
    fn is_whole(&self, node: &Node) -> bool {
        let within = node.ids();
        !(self.made.range(within.clone()).any(|(_, made)| !made.is_empty())
            || self.wrong.range(within.clone()).next().is_some()
            || [&self.dropped, &self.hopeless, &self.shortened.borrow()].iter().any(|ids| holds(ids, node)))
    }

    /// Returns true when an element of a list is shown: one that is wrong would hide those after it.
    fn shows(&self, item: &Node) -> bool {
        !self.hopeless.contains(&item.id) && self.rank(item) < 2
    }

    /// Returns how late a value is asked for: what is in order first, then what this attempt is about.
    fn rank(&self, node: &Node) -> u8 {
        if !holds(&self.hopeless, node) {
            0
        } else if self.focus.is_some_and(|id| node.ids().contains(&id)) {
            1
        } else {
            2
        }
    }
}

/// Returns true when one of `ids` is this node or within it.
fn holds(ids: &BTreeSet<usize>, node: &Node) -> bool {
    ids.range(node.ids()).next().is_some()
}

fn find(node: &Node, id: usize) -> Option<&Node> {
    if node.id == id {
        return Some(node);
    }
    match &node.content {
        Content::Text(_) | Content::Whole(_) | Content::Fraction(_) | Content::Truth(_) => None,
        Content::List(items) => items.iter().find_map(|item| find(item, id)),
        Content::Table(entries) => entries.iter().find_map(|(_, node)| find(node, id)),
    }
}

fn entry(node: &Node, id: usize) -> Option<(&Key, &Node)> {
    match &node.content {
        Content::Text(_) | Content::Whole(_) | Content::Fraction(_) | Content::Truth(_) => None,
        Content::List(items) => items.iter().find_map(|item| entry(item, id)),
        Content::Table(entries) => {
            entries.iter().find_map(|(key, node)| if node.id == id { Some((key, node)) } else { entry(node, id) })
        }
    }
}

impl Wrong {
    fn new(what: What) -> Wrong {
        Wrong { what, site: None }
    }

    /// Says where it is wrong, unless somebody further inside has said so.
    fn at(mut self, site: Site) -> Wrong {
        self.site.get_or_insert(site);
        self
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::UnknownKey(message) | What::Other(message) => f.write_str(message),
            What::MissingKey(name) => write!(f, "{name} is missing"),
        }
    }
}

impl std::error::Error for Wrong {}

impl de::Error for Wrong {
    fn custom<T: fmt::Display>(message: T) -> Wrong {
        Wrong::new(What::Other(message.to_string()))
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Wrong {
        Wrong::new(What::Other(format!("{expected} is needed, and this is {found}")))
    }

    fn invalid_value(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Wrong {
        Wrong::new(What::Other(format!("{expected} is needed, and this is {found}")))
    }

    fn unknown_variant(found: &str, known: &'static [&'static str]) -> Wrong {
        Wrong::new(What::Other(format!("{found:?} is none of {}", known.join(", "))))
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Wrong {
        Wrong::new(What::UnknownKey(unknown(name, known)))
    }

    fn missing_field(name: &'static str) -> Wrong {
        Wrong::new(What::MissingKey(name))
    }
}

fn unknown(name: &str, known: &[&str]) -> String {
    let near = known.iter().map(|known| (distance(name, known), known)).min();
    match near {
        Some((distance, near)) if distance <= 1 + near.len() / 3 => {
            format!("there is no such key; did you mean {near:?}?")
        }
        Some(_) => format!("there is no such key; there are {}", known.join(", ")),
        None => "there is no such key".into(),
    }
}

/// A value to decode.
pub(super) struct Decoder<'a> {
    node: &'a Node,
    sheet: &'a Sheet<'a>,
    /// The keys of the struct that it stands in.
    known: &'static [&'static str],
}

impl<'a> Decoder<'a> {
    pub(super) fn new(node: &'a Node, sheet: &'a Sheet<'a>) -> Decoder<'a> {
        Decoder { node, sheet, known: &[] }
    }

    fn table<'de, V: Visitor<'de>>(
        self,
        visitor: V,
        fields: Option<&'static [&'static str]>,
    ) -> Result<V::Value, Wrong> {
        let Content::Table(entries) = &self.node.content else { return self.any(visitor) };
        let mut entries: Vec<&(Key, Node)> =
            entries.iter().filter(|(_, node)| !self.sheet.dropped.contains(&node.id)).collect();
        entries.sort_by_key(|(_, node)| self.sheet.rank(node));
        let made = self.sheet.made.get(&self.node.id).cloned().unwrap_or_default();
        let table =
            Table { sheet: self.sheet, id: self.node.id, fields, entries: entries.into_iter(), value: None, made };
        visitor.visit_map(table).map_err(|wrong| wrong.at(Site::Node(self.node.id)))
    }

    fn any<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let site = Site::Node(self.node.id);
        let value = match &self.node.content {
            Content::Text(text) => visitor.visit_str(text),
            Content::Whole(number) => match u64::try_from(*number) {
                Ok(number) => visitor.visit_u64(number),
                Err(_) => visitor.visit_i64(*number),
            },
            Content::Fraction(number) => visitor.visit_f64(*number),
            Content::Truth(truth) => visitor.visit_bool(*truth),
            Content::List(items) => {
                let shown: Vec<&Node> = items.iter().filter(|item| self.sheet.shows(item)).collect();
                if shown.len() < items.len() {
                    self.sheet.shortened.borrow_mut().insert(self.node.id);
                }
                visitor.visit_seq(List { sheet: self.sheet, items: shown.into_iter() })
            }
            Content::Table(_) => return self.table(visitor, None),
        };
        value.map_err(|wrong| wrong.at(site))
    }
}

impl<'de> Deserializer<'de> for Decoder<'_> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let site = Site::Node(self.node.id);
        visitor.visit_some(self).map_err(|wrong| wrong.at(site))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Wrong> {
        let site = Site::Node(self.node.id);
        let value = if name == PLACED {
            visitor.visit_seq(Placing { sheet: self.sheet, node: self.node, part: 0 })
        } else {
            visitor.visit_newtype_struct(self)
        };
        value.map_err(|wrong| wrong.at(site))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        self.table(visitor, Some(fields))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        let site = Site::Node(self.node.id);
        let value = match &self.node.content {
            Content::Text(text) => visitor.visit_enum(StrDeserializer::<Wrong>::new(text)),
            Content::Table(entries) => match entries.as_slice() {
                [(key, node)] => visitor.visit_enum(Variant { sheet: self.sheet, key, node }),
                _ => Err(Wrong::new(What::Other("a table with exactly one key is needed".into()))),
            },
            Content::Whole(_) | Content::Fraction(_) | Content::Truth(_) | Content::List(_) => {
                Err(Wrong::new(What::Other("a text, or a table with exactly one key, is needed".into())))
            }
        };
        value.map_err(|wrong| wrong.at(site))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier
    }

    /// What a type ignores is what it does not know.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Wrong> {
        let name = self.node.path.rsplit('.').next().unwrap_or_default();
        Err(Wrong::new(What::UnknownKey(unknown(name, self.known))).at(Site::Key(self.node.id)))
    }
}

struct List<'a> {
    sheet: &'a Sheet<'a>,
    items: std::vec::IntoIter<&'a Node>,
}

impl<'de> SeqAccess<'de> for List<'_> {
    type Error = Wrong;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Wrong> {
        let Some(node) = self.items.next() else { return Ok(None) };
        let value = match self.sheet.stand_in(node) {
            Some(made) => seed.deserialize(made).map_err(|wrong| wrong.at(Site::StandIn(node.id))),
            None => seed.deserialize(Decoder::new(node, self.sheet)).map_err(|wrong| wrong.at(Site::Node(node.id))),
        };
        value.map(Some)
    }
}

struct Table<'a> {
    sheet: &'a Sheet<'a>,
    id: usize,
    /// The keys of the struct that is asked for.
    fields: Option<&'static [&'static str]>,
    entries: std::vec::IntoIter<&'a (Key, Node)>,
    value: Option<Entry<'a>>,
    made: Vec<(&'static str, usize)>,
}

enum Entry<'a> {
    Written(&'a Node),
    Made(&'static str, usize),
}

impl<'de> MapAccess<'de> for Table<'_> {
    type Error = Wrong;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Wrong> {
        if let Some((key, node)) = self.entries.next() {
            self.value = Some(Entry::Written(node));
            let name = seed.deserialize(StrDeserializer::<Wrong>::new(&key.name));
            return name.map(Some).map_err(|wrong| wrong.at(Site::Key(node.id)));
        }
        let Some((name, candidate)) = self.made.pop() else { return Ok(None) };
        self.value = Some(Entry::Made(name, candidate));
        let key = seed.deserialize(StrDeserializer::<Wrong>::new(name));
        key.map(Some).map_err(|wrong| wrong.at(Site::Made(self.id, name)))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Wrong> {
        match self.value.take() {
            Some(Entry::Written(node)) => {
                if let Some(made) = self.sheet.stand_in(node) {
                    return seed.deserialize(made).map_err(|wrong| wrong.at(Site::StandIn(node.id)));
                }
                let decoder = Decoder { node, sheet: self.sheet, known: self.fields.unwrap_or_default() };
                seed.deserialize(decoder).map_err(|wrong| wrong.at(Site::Node(node.id)))
            }
            Some(Entry::Made(name, candidate)) => {
                seed.deserialize(MadeUp { candidate }).map_err(|wrong| wrong.at(Site::Made(self.id, name)))
            }
            None => Err(Wrong::new(What::Other("a value was asked for before its key".into()))),
        }
    }
}

/// The one key of a table, as a variant with what it holds.
struct Variant<'a> {
    sheet: &'a Sheet<'a>,
    key: &'a Key,
    node: &'a Node,
}

impl<'de, 'a> EnumAccess<'de> for Variant<'a> {
    type Error = Wrong;
    type Variant = Decoder<'a>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Decoder<'a>), Wrong> {
        let name = seed.deserialize(StrDeserializer::<Wrong>::new(&self.key.name));
        let name = name.map_err(|wrong| wrong.at(Site::Node(self.node.id)))?;
        Ok((name, Decoder::new(self.node, self.sheet)))
    }
}

impl<'de> VariantAccess<'de> for Decoder<'_> {
    type Error = Wrong;

    fn unit_variant(self) -> Result<(), Wrong> {
        Err(Wrong::new(What::Other("nothing is expected here".into())).at(Site::Node(self.node.id)))
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Wrong> {
        let site = Site::Node(self.node.id);
        seed.deserialize(self).map_err(|wrong| wrong.at(site))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Wrong> {
        self.any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Wrong> {
        self.table(visitor, Some(fields))
    }
}

/// File, line and value: what [`lab_core::Placed`] asks for.
struct Placing<'a> {
    sheet: &'a Sheet<'a>,
    node: &'a Node,
    part: u8,
}

impl<'de> SeqAccess<'de> for Placing<'_> {
    type Error = Wrong;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Wrong> {
        self.part += 1;
        match self.part {
            1 => seed.deserialize(StrDeserializer::new(self.sheet.file)).map(Some),
            2 => seed.deserialize(U32Deserializer::new(self.node.at.line)).map(Some),
            3 => seed.deserialize(Decoder::new(self.node, self.sheet)).map(Some),
            _ => Ok(None),
        }
    }
}

/// A value for a key that is missing, as the type would have it.
#[derive(Clone, Copy)]
struct MadeUp {
    candidate: usize,
}

impl MadeUp {
    fn number(self) -> u64 {
        [1, 0, 2, 10, 100, 1000, 4096, 8080, 65535, 3, 5, 20][self.candidate % MADE_UP.len()]
    }
}

macro_rules! made_up {
    ($($method:ident => $visit:ident($value:expr);)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
            let value: fn(MadeUp) -> _ = $value;
            visitor.$visit(value(self))
        })*
    };
}

impl<'de> Deserializer<'de> for MadeUp {
    type Error = Wrong;

    made_up! {
        deserialize_any => visit_str(|made| MADE_UP[made.candidate % MADE_UP.len()]);
        deserialize_str => visit_str(|made| MADE_UP[made.candidate % MADE_UP.len()]);
        deserialize_string => visit_str(|made| MADE_UP[made.candidate % MADE_UP.len()]);
        deserialize_identifier => visit_str(|made| MADE_UP[made.candidate % MADE_UP.len()]);
        deserialize_char => visit_char(|_| 'x');
        deserialize_bool => visit_bool(|_| false);
        deserialize_i8 => visit_u64(|made| made.number());
        deserialize_i16 => visit_u64(|made| made.number());
        deserialize_i32 => visit_u64(|made| made.number());
        deserialize_i64 => visit_u64(|made| made.number());
        deserialize_i128 => visit_u64(|made| made.number());
        deserialize_u8 => visit_u64(|made| made.number());
        deserialize_u16 => visit_u64(|made| made.number());
        deserialize_u32 => visit_u64(|made| made.number());
        deserialize_u64 => visit_u64(|made| made.number());
        deserialize_u128 => visit_u64(|made| made.number());
        deserialize_f32 => visit_u64(|made| made.number());
        deserialize_f64 => visit_u64(|made| made.number());
        deserialize_bytes => visit_bytes(|_| &[]);
        deserialize_byte_buf => visit_bytes(|_| &[]);
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_none()
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_unit()
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_seq(MadeUpMany { made: self, left: self.candidate % 4, fields: &[] })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_seq(MadeUpMany { made: self, left: len, fields: &[] })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_map(MadeUpMany { made: self, left: 0, fields: &[] })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_map(MadeUpMany { made: self, left: 0, fields })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        let variant = variants.get(self.candidate % variants.len().max(1)).copied().unwrap_or_default();
        visitor.visit_enum(StrDeserializer::<Wrong>::new(variant))
    }
}

/// Several made-up values: elements, or the fields of a struct.
struct MadeUpMany {
    made: MadeUp,
    left: usize,
    fields: &'static [&'static str],
}

impl<'de> SeqAccess<'de> for MadeUpMany {
    type Error = Wrong;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Wrong> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(self.made).map(Some)
    }
}

impl<'de> MapAccess<'de> for MadeUpMany {
    type Error = Wrong;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Wrong> {
        let Some((name, rest)) = self.fields.split_first() else { return Ok(None) };
        self.fields = rest;
        seed.deserialize(StrDeserializer::<Wrong>::new(name)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Wrong> {
        seed.deserialize(self.made)
    }
}

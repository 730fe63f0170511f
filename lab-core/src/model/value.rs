//! How unknowns and secrets stand in a tree of values. Nothing else knows the encoding.
//!
//! Inputs and outputs travel as JSON. Two things in them are not JSON: a value that is not known yet, and a value that
//! must never be seen. Both are markers, maps of one reserved key:
//!
//! - `{"$lab.unknown": 3}`: what the third [`Expression`] of the program yields,
//! - `{"$lab.secret": "9f…"}`: the secret with this keyed fingerprint; its value lies in the [`Vault`].
//!
//! So a tree can be compared, hashed, stored and shown as it is: a secret that changed has another fingerprint, and
//! one that did not has the same, however often its sealing was renewed.
//!
//! While the engine serialises or deserialises on a program's behalf it holds a [`Session`] open on the thread.
//! Outside of one, outputs and secrets refuse to be serialised, so a marker never leaks into a user's own text.

use super::tree::Tree;
use super::{Path, Urn};
use hmac::{Hmac, Mac};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

const RESERVED: &str = "$lab.";
const UNKNOWN: &str = "$lab.unknown";
const SECRET: &str = "$lab.secret";

/// Returns canonical JSON: keys sorted by their bytes, no white space. What is hashed, and what is written to files.
///
/// Not `serde_json::to_vec`: another crate of the user's program may switch on `preserve_order`, and then the order of
/// keys is that of insertion.
pub fn canonical(value: &Value) -> Vec<u8> {
    fn write(value: &Value, out: &mut Vec<u8>) {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                serde_json::to_writer(out, value).expect("a scalar can be written into memory");
            }
            Value::Array(list) => {
                out.push(b'[');
                for (n, value) in list.iter().enumerate() {
                    if n > 0 {
                        out.push(b',');
                    }
                    write(value, out);
                }
                out.push(b']');
            }
            Value::Object(map) => {
                let mut entries = |entries: &mut dyn Iterator<Item = (&String, &Value)>| {
                    out.push(b'{');
                    for (n, (key, value)) in entries.enumerate() {
                        if n > 0 {
                            out.push(b',');
                        }
                        serde_json::to_writer(&mut *out, key).expect("a string can be written into memory");
                        out.push(b':');
                        write(value, out);
                    }
                    out.push(b'}');
                };
                if map.keys().is_sorted() {
                    entries(&mut map.iter());
                } else {
                    let mut sorted: Vec<_> = map.iter().collect();
                    sorted.sort_by_key(|(key, _)| *key);
                    entries(&mut sorted.into_iter());
                }
            }
        }
    }
    let mut out = Vec::new();
    write(value, &mut out);
    out
}

/// Returns the SHA-256 of the canonical JSON of `value`, in hexadecimal.
pub fn digest(value: &Value) -> String {
    digest_of_bytes(&canonical(value))
}

/// Returns the SHA-256 of `bytes`, in hexadecimal.
pub(crate) fn digest_of_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    let mut text = String::with_capacity(bytes.len() * 2);
    bytes.iter().for_each(|byte| text.extend([digit(byte >> 4), digit(byte & 15)]));
    text
}

/// The secrets of a stack, by keyed fingerprint. Shared by everything that works on one stack in one run.
///
/// Has no way to print what it holds.
#[derive(Clone)]
pub struct Vault(Arc<Mutex<VaultContents>>);

struct VaultContents {
    key: [u8; 32],
    plain: BTreeMap<String, Value>,
    sealed: BTreeMap<String, String>,
    open: Option<Arc<Opener>>,
    /// The texts that [`Vault::scrub`] looks for, the longest first.
    needles: Vec<String>,
    /// Values whose texts are not among them yet: each is taken apart once, however often something is scrubbed.
    fresh: Vec<Value>,
}

/// A secret text of fewer bytes is not looked for in messages: it would be found in every other word.
const SHORTEST: usize = 6;

type Opener = dyn Fn(&str) -> std::result::Result<Value, String> + Send + Sync;

impl Vault {
    /// Returns an empty vault whose fingerprints are keyed with `key`.
    pub fn new(key: [u8; 32]) -> Vault {
        Vault(Arc::new(Mutex::new(VaultContents {
            key,
            plain: BTreeMap::new(),
            sealed: BTreeMap::new(),
            open: None,
            needles: Vec::new(),
            fresh: Vec::new(),
        })))
    }

    fn contents(&self) -> std::sync::MutexGuard<'_, VaultContents> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Returns the key of the fingerprints. It is a secret itself.
    pub fn key(&self) -> [u8; 32] {
        self.contents().key
    }

    /// Takes in secrets as they lie in a file, and how to open them: done only for those that are asked for.
    pub fn unseal_with(
        &self,
        sealed: BTreeMap<String, String>,
        open: impl Fn(&str) -> std::result::Result<Value, String> + Send + Sync + 'static,
    ) {
        let mut contents = self.contents();
        contents.sealed.extend(sealed);
        contents.open = Some(Arc::new(open));
    }

    /// Puts a value in and returns its fingerprint.
    pub fn put(&self, value: &Value) -> String {
        let mut contents = self.contents();
        let mut mac = Hmac::<Sha256>::new_from_slice(&contents.key).expect("HMAC takes keys of any length");
        mac.update(&canonical(value));
        let fingerprint = hex(&mac.finalize().into_bytes()[..16]);
        if contents.plain.insert(fingerprint.clone(), value.clone()).is_none() {
            contents.fresh.push(value.clone());
        }
        fingerprint
    }

    /// Returns the value with a fingerprint.
    pub fn get(&self, fingerprint: &str) -> std::result::Result<Value, String> {
        let (sealed, open) = {
            let contents = self.contents();
            if let Some(value) = contents.plain.get(fingerprint) {
                return Ok(value.clone());
            }
            (contents.sealed.get(fingerprint).cloned(), contents.open.clone())
        };
        let (Some(sealed), Some(open)) = (sealed, open) else {
            return Err(format!("the secret {fingerprint} is not in this state"));
        };
        let value = open(&sealed)?;
        let mut contents = self.contents();
        if contents.plain.insert(fingerprint.to_owned(), value.clone()).is_none() {
            contents.fresh.push(value.clone());
        }
        Ok(value)
    }

    /// Returns `text` with every secret text of this vault that occurs in it replaced: the last line of defence for
    /// messages that come from outside.
    pub fn scrub(&self, text: &str) -> String {
        fn leaves(value: &Value, out: &mut Vec<String>) {
            match value {
                Value::String(text) if text.len() >= SHORTEST => out.extend(disguises(text)),
                Value::Array(list) => list.iter().for_each(|value| leaves(value, out)),
                Value::Object(map) => map.values().for_each(|value| leaves(value, out)),
                Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
            }
        }
        if text.len() < SHORTEST {
            return text.to_owned();
        }
        let mut contents = self.contents();
        if !contents.fresh.is_empty() {
            let mut needles = std::mem::take(&mut contents.needles);
            std::mem::take(&mut contents.fresh).iter().for_each(|value| leaves(value, &mut needles));
            // The longest first, so that a secret within a secret does not leave the rest of the longer one behind.
            needles.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
            needles.dedup();
            contents.needles = needles;
        }
        let mut clean = text.to_owned();
        for needle in contents.needles.iter().filter(|needle| needle.len() <= text.len()) {
            if clean.contains(needle.as_str()) {
                clean = clean.replace(needle.as_str(), "[secret]");
            }
        }
        clean
    }
}

/// Returns a secret text in every form in which an outside system is likely to echo it: plain, quoted, in a header, in a
/// URL.
fn disguises(secret: &str) -> Vec<String> {
    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE, Engine};
    let quoted = Value::from(secret).to_string();
    let mut forms = vec![
        secret.to_owned(),
        quoted[1..quoted.len() - 1].to_owned(),
        hex(secret.as_bytes()),
        hex(secret.as_bytes()).to_uppercase(),
        secret.bytes().map(|byte| format!("%{byte:02X}")).collect(),
    ];
    for plain in ["-._~", ""] {
        let part = |byte: u8| match byte {
            byte if byte.is_ascii_alphanumeric() || plain.as_bytes().contains(&byte) => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        };
        forms.push(secret.bytes().map(part).collect());
    }
    // Behind a user name and a colon a password begins at any of three places of a group.
    for before in 0..3 {
        let bytes = [&[0; 3][..before], secret.as_bytes()].concat();
        let certain = (before * 8).div_ceil(6)..bytes.len() * 8 / 6;
        for engine in [BASE64_STANDARD, BASE64_URL_SAFE] {
            forms.extend(
                engine.encode(&bytes).get(certain.clone()).filter(|form| form.len() >= SHORTEST).map(str::to_owned),
            );
        }
    }
    forms
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault([secret])")
    }
}

/// Where the outputs of other resources are looked up.
pub trait Lookup {
    /// Returns the outputs of `urn`, or what stands in the way.
    fn outputs(&self, urn: &Urn) -> std::result::Result<Tree, Unresolved>;
}

/// Why an expression has no value now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// The outputs of this resource are not known yet.
    Unknown(Urn),
    /// The closure or the decoding failed.
    Failed(String),
}

/// A computation over the outputs of other resources.
pub type Compute = dyn Fn(&dyn Lookup) -> std::result::Result<Value, Unresolved> + Send + Sync;

/// What an unknown stands for: a computation over the outputs of other resources.
#[derive(Clone)]
pub struct Expression {
    /// The resources it reads.
    pub sources: Arc<[Urn]>,
    /// The computation; runs within a session.
    pub eval: Arc<Compute>,
}

impl Expression {
    /// Computes the value, within a session of its own.
    pub fn evaluate(&self, vault: &Vault, lookup: &dyn Lookup) -> std::result::Result<Value, Unresolved> {
        let _session = Session::open(vault, None);
        (self.eval)(lookup)
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expression").field("sources", &self.sources).finish_non_exhaustive()
    }
}

/// The expressions of a program, in the order in which they were met.
pub(crate) type Expressions = Arc<Mutex<Vec<Expression>>>;

/// The engine's hold on the thread while it serialises or deserialises.
pub(crate) struct Session {
    before: Option<Open>,
}

#[derive(Clone)]
struct Open {
    vault: Vault,
    expressions: Option<Expressions>,
    /// Markers written in this session, to tell them from a user's map that looks like one.
    written: usize,
    /// Whether an unknown was asked for its value.
    missed: bool,
}

thread_local! {
    static OPEN: RefCell<Option<Open>> = const { RefCell::new(None) };
    static ASIDE: Cell<bool> = const { Cell::new(false) };
}

impl Session {
    /// Opens a session: secrets go to and come from `vault`; outputs become `expressions`, where there are any.
    pub(crate) fn open(vault: &Vault, expressions: Option<Expressions>) -> Session {
        let open = Open { vault: vault.clone(), expressions, written: 0, missed: false };
        Session { before: OPEN.with(|cell| cell.replace(Some(open))) }
    }

    /// Runs a closure of the program's with the session put aside: what it serialises of its own accord holds no
    /// markers of ours, and a secret cannot be exposed in it.
    pub(crate) fn aside<T>(f: impl FnOnce() -> T) -> T {
        struct Back(Option<Open>, bool);
        impl Drop for Back {
            fn drop(&mut self) {
                OPEN.with(|cell| *cell.borrow_mut() = self.0.take());
                ASIDE.with(|cell| cell.set(self.1));
            }
        }
        let _back = Back(OPEN.with(|cell| cell.take()), ASIDE.with(|cell| cell.replace(true)));
        f()
    }

    /// Returns true within [`Session::aside`].
    pub(crate) fn is_aside() -> bool {
        ASIDE.with(Cell::get)
    }

    /// Returns how many markers were written since the session was opened.
    pub(crate) fn written(&self) -> usize {
        OPEN.with(|cell| cell.borrow().as_ref().map_or(0, |open| open.written))
    }

    /// Returns whether an unknown was asked for its value since the session was opened.
    pub(crate) fn missed(&self) -> bool {
        OPEN.with(|cell| cell.borrow().as_ref().is_some_and(|open| open.missed))
    }

    /// Notes that an unknown was asked for its value.
    pub(crate) fn miss() {
        OPEN.with(|cell| {
            if let Some(open) = cell.borrow_mut().as_mut() {
                open.missed = true;
            }
        });
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let before = self.before.take();
        OPEN.with(|cell| *cell.borrow_mut() = before);
    }
}

/// The marker of the expression with a number. Written often, so not as a tree.
pub(crate) struct Unknown(usize);

impl Serialize for Unknown {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map([(UNKNOWN, self.0)])
    }
}

/// Returns the marker of an expression, or why it can have none here.
pub(crate) fn write_unknown(expression: Expression) -> std::result::Result<Unknown, String> {
    OPEN.with(|cell| {
        let mut cell = cell.borrow_mut();
        let open = cell.as_mut().ok_or("an output cannot be serialised outside the engine: it is not known yet")?;
        let expressions =
            open.expressions.as_ref().ok_or("an output cannot stand here: only resources may hold one")?;
        let mut expressions = expressions.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        expressions.push(expression);
        open.written += 1;
        Ok(Unknown(expressions.len() - 1))
    })
}

/// Returns the marker with a number again, as it was read.
pub(crate) fn rewrite_unknown(n: usize) -> std::result::Result<Unknown, String> {
    OPEN.with(|cell| {
        let mut cell = cell.borrow_mut();
        let open = cell.as_mut().ok_or("an output cannot be serialised outside the engine: it is not known yet")?;
        open.written += 1;
        Ok(Unknown(n))
    })
}

/// Puts a secret into the session's vault and returns its marker.
pub(crate) fn write_secret<T: Serialize>(secret: &T) -> std::result::Result<Value, String> {
    let vault = OPEN
        .with(|cell| cell.borrow().as_ref().map(|open| open.vault.clone()))
        .ok_or("a secret cannot be serialised outside the engine")?;
    let written = || OPEN.with(|cell| cell.borrow().as_ref().map_or(0, |open| open.written));
    let before = written();
    // A secret within a secret is stored with it, so that one sealed value needs no other.
    let value = reveal(&serde_json::to_value(secret).map_err(|error| error.to_string())?, &vault)?;
    if !markers(&value).is_empty() {
        return Err("a secret cannot hold an output; make the output a secret instead".into());
    }
    OPEN.with(|cell| {
        if let Some(open) = cell.borrow_mut().as_mut() {
            open.written = before + 1;
        }
    });
    Ok(json!({ SECRET: vault.put(&value) }))
}

/// Returns the value behind a secret's marker, from the session's vault.
pub(crate) fn read_secret(fingerprint: &str) -> std::result::Result<Value, String> {
    let vault = OPEN
        .with(|cell| cell.borrow().as_ref().map(|open| open.vault.clone()))
        .ok_or("a secret cannot be read outside the engine")?;
    vault.get(fingerprint)
}

/// What a marker in a tree stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Marker {
    /// The expression with this number.
    Unknown(usize),
    /// The secret with this fingerprint.
    Secret(String),
}

/// Returns the marker that `value` is, if it is one.
pub(crate) fn marker(value: &Value) -> Option<Marker> {
    let map = value.as_object()?;
    if map.len() != 1 {
        return None;
    }
    if let Some(n) = map.get(UNKNOWN) {
        return n.as_u64().map(|n| Marker::Unknown(n as usize));
    }
    map.get(SECRET).and_then(Value::as_str).map(|fingerprint| Marker::Secret(fingerprint.to_owned()))
}

/// Returns the value in clear when `value` is a secret's marker.
pub(crate) fn secret_value(value: &Value, vault: &Vault) -> Option<Value> {
    match marker(value) {
        Some(Marker::Secret(fingerprint)) => vault.get(&fingerprint).ok(),
        Some(Marker::Unknown(_)) | None => None,
    }
}

/// Returns the marker of a secret with this value.
pub(crate) fn secret_marker(value: &Value, vault: &Vault) -> Value {
    json!({ SECRET: vault.put(value) })
}

/// Returns true when one is a secret's marker and the other is that secret's value in clear, as a provider reads it back.
pub(crate) fn same_secret(marked: &Value, live: &Value, vault: &Vault) -> bool {
    match marker(marked) {
        Some(Marker::Secret(fingerprint)) => vault.put(live) == fingerprint,
        Some(Marker::Unknown(_)) | None => false,
    }
}

/// Returns `live`, as a provider read it, fit to be stored: what is a secret in `inputs` becomes its marker, and any
/// other text that holds a known secret is masked.
pub(crate) fn seal_live(inputs: &Value, live: &Value, vault: &Vault) -> Value {
    match (marker(inputs), inputs, live) {
        (Some(Marker::Secret(_)), _, live) => json!({ SECRET: vault.put(live) }),
        // Somebody's map that looks like one of ours is shown as the text it is.
        (_, _, Value::Object(map)) if map.keys().any(|key| key.starts_with(RESERVED)) => {
            Value::String(vault.scrub(&live.to_string()))
        }
        (_, Value::Object(inputs), Value::Object(live)) => {
            let sealed = live
                .iter()
                .map(|(key, live)| (key.clone(), seal_live(inputs.get(key).unwrap_or(&Value::Null), live, vault)));
            Value::Object(sealed.collect())
        }
        (_, inputs, Value::Array(live)) => {
            let sealed =
                live.iter().enumerate().map(|(n, live)| seal_live(inputs.get(n).unwrap_or(&Value::Null), live, vault));
            Value::Array(sealed.collect())
        }
        (_, _, Value::Object(live)) => {
            Value::Object(live.iter().map(|(key, live)| (key.clone(), seal_live(&Value::Null, live, vault))).collect())
        }
        (_, _, Value::String(text)) => Value::String(vault.scrub(text)),
        (_, _, leaf) => leaf.clone(),
    }
}

/// A secret, by its fingerprint.
pub(crate) struct Marked(pub(crate) String);

/// Returns `value` with each secret's marker replaced by the one that `with` answers.
pub(crate) fn map_secrets(value: &Value, with: &mut dyn FnMut(Marked) -> Option<Marked>) -> Value {
    if let Some(Marker::Secret(fingerprint)) = marker(value) {
        return with(Marked(fingerprint)).map_or(Value::Null, |marked| json!({ SECRET: marked.0 }));
    }
    match value {
        Value::Object(map) => {
            Value::Object(map.iter().map(|(key, value)| (key.clone(), map_secrets(value, with))).collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(|value| map_secrets(value, with)).collect()),
        leaf => leaf.clone(),
    }
}

/// Returns `declared` with what is there in its place, where that was read.
pub(crate) fn overlay(declared: &Value, live: &Value, vault: &Vault) -> Value {
    if same_secret(declared, live, vault) {
        return declared.clone();
    }
    match (declared, live) {
        (Value::Object(d), Value::Object(l)) if marker(declared).is_none() && marker(live).is_none() => {
            let merged = d.iter().map(|(key, declared)| {
                (key.clone(), l.get(key).map_or_else(|| declared.clone(), |live| overlay(declared, live, vault)))
            });
            Value::Object(merged.collect())
        }
        (_, live) => live.clone(),
    }
}

/// Returns every marker of unknowns in `value`, with its place.
pub fn markers(value: &Value) -> Vec<(Path, usize)> {
    let mut found = Vec::new();
    walk(value, &Trail::Root, &mut |trail, value| {
        if let Some(Marker::Unknown(n)) = marker(value) {
            found.push((trail.path(), n));
        }
    });
    found
}

/// Returns the fingerprint of every secret in `value`.
pub(crate) fn secrets(value: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    walk(value, &Trail::Root, &mut |_, value| {
        if let Some(Marker::Secret(fingerprint)) = marker(value) {
            found.insert(fingerprint);
        }
    });
    found
}

/// Returns every marker in a tree, in the order of its text, with where in the text it stands.
///
/// In canonical JSON a quote behind a brace begins a key, wherever that is found: within a text it would be escaped.
pub(crate) fn marked(tree: &Tree) -> impl Iterator<Item = (Range<usize>, Marker)> {
    const UNKNOWN: &str = "unknown\":";
    const SECRET: &str = "secret\":\"";
    let text = tree.text();
    text.match_indices("{\"$lab.").filter_map(move |(start, opening)| {
        let rest = &text[start + opening.len()..];
        let (content, marker) = if let Some(rest) = rest.strip_prefix(UNKNOWN) {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            (&rest[digits..], Marker::Unknown(rest[..digits].parse().ok()?))
        } else {
            let rest = rest.strip_prefix(SECRET)?;
            let length = rest.find(['"', '\\'])?;
            (rest[length..].strip_prefix('"')?, Marker::Secret(rest[..length].to_owned()))
        };
        let end = text.len() - content.strip_prefix('}')?.len();
        Some((start..end, marker))
    })
}

/// Returns the number of every unknown in `tree`.
pub(crate) fn unknowns(tree: &Tree) -> impl Iterator<Item = usize> {
    marked(tree).filter_map(|(_, marker)| match marker {
        Marker::Unknown(n) => Some(n),
        Marker::Secret(_) => None,
    })
}

/// Returns the fingerprint of every secret in `tree`.
pub(crate) fn secrets_in(tree: &Tree) -> impl Iterator<Item = String> {
    marked(tree).filter_map(|(_, marker)| match marker {
        Marker::Secret(fingerprint) => Some(fingerprint),
        Marker::Unknown(_) => None,
    })
}

/// Returns how many keys in `tree` are reserved ones.
fn reserved(tree: &Tree) -> usize {
    let text = tree.text();
    let keys = text.match_indices("\"$lab.").filter(|(start, _)| {
        // A quote within a text is escaped, and a key ends before a colon.
        let opens = start.checked_sub(1).is_none_or(|before| text.as_bytes()[before] != b'\\');
        let mut rest = text[start + 1..].bytes();
        let mut escaped = false;
        let closed = rest.by_ref().find(|byte| {
            let closes = *byte == b'"' && !escaped;
            escaped = *byte == b'\\' && !escaped;
            closes
        });
        opens && closed.is_some() && rest.next() == Some(b':')
    });
    keys.count()
}

/// Returns how many markers `tree` holds; an error when a reserved key stands anywhere but in a marker.
fn count_markers(tree: &Tree) -> std::result::Result<usize, String> {
    let count = marked(tree).count();
    if count == reserved(tree) {
        return Ok(count);
    }
    let mut stray = Path::root();
    walk(&tree.value(), &Trail::Root, &mut |trail, value| match (marker(value), value) {
        (None, Value::Object(map)) if map.keys().any(|key| key.starts_with(RESERVED)) => stray = trail.path(),
        (Some(_) | None, _) => {}
    });
    Err(format!(
        "at {stray} stands a key that begins with {RESERVED:?}, which is reserved (or an output under `flatten`)"
    ))
}

/// The way from the root to a place. It becomes a [`Path`] only where somebody wants one: most places are passed by.
enum Trail<'a> {
    Root,
    Key(&'a Trail<'a>, &'a str),
    Position(&'a Trail<'a>, usize),
}

impl Trail<'_> {
    fn path(&self) -> Path {
        match self {
            Trail::Root => Path::root(),
            Trail::Key(up, key) => up.path().at(key),
            Trail::Position(up, n) => up.path().at(n),
        }
    }
}

fn walk(value: &Value, trail: &Trail<'_>, visit: &mut dyn FnMut(&Trail<'_>, &Value)) {
    visit(trail, value);
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| walk(value, &Trail::Key(trail, key), visit)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(n, value)| walk(value, &Trail::Position(trail, n), visit));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Returns `tree` with each marker of an unknown replaced by what `with` answers for it; `None` leaves it.
pub(crate) fn fill(tree: &Tree, with: &mut dyn FnMut(usize) -> Option<Value>) -> Tree {
    let text = tree.text();
    let mut filled = String::new();
    let mut from = 0;
    for (place, marker) in marked(tree) {
        let Marker::Unknown(n) = marker else { continue };
        let Some(value) = with(n) else { continue };
        filled.push_str(&text[from..place.start]);
        filled.push_str(Tree::from(value).text());
        from = place.end;
    }
    if from == 0 {
        return tree.clone();
    }
    filled.push_str(&text[from..]);
    Tree::of_canonical(filled)
}

/// Returns `value` as a person may see it: secrets as `[secret]`, unknowns as `[unknown]`.
pub fn redact(value: &Value) -> Value {
    match marker(value) {
        Some(Marker::Unknown(_)) => return "[unknown]".into(),
        Some(Marker::Secret(_)) => return "[secret]".into(),
        None => {}
    }
    match value {
        Value::Object(map) => Value::Object(map.iter().map(|(key, value)| (key.clone(), redact(value))).collect()),
        Value::Array(list) => Value::Array(list.iter().map(redact).collect()),
        leaf => leaf.clone(),
    }
}

/// Returns `value` with every secret in clear: for a person who asks for it in so many words.
pub fn reveal(value: &Value, vault: &Vault) -> std::result::Result<Value, String> {
    if let Some(Marker::Secret(fingerprint)) = marker(value) {
        return reveal(&vault.get(&fingerprint)?, vault);
    }
    Ok(match value {
        Value::Object(map) => {
            let entries = map.iter().map(|(key, value)| Ok((key.clone(), reveal(value, vault)?)));
            Value::Object(entries.collect::<std::result::Result<Map<_, _>, String>>()?)
        }
        Value::Array(list) => {
            Value::Array(list.iter().map(|value| reveal(value, vault)).collect::<std::result::Result<_, String>>()?)
        }
        leaf => leaf.clone(),
    })
}

/// Serialises a declaration: outputs become expressions, secrets go to the vault. Refuses what does not come back the
/// same, and maps that use our reserved keys. Returns what came back, too.
pub(crate) fn encode_declared<T: Serialize + DeserializeOwned>(
    declared: &T,
    vault: &Vault,
    expressions: &Expressions,
) -> std::result::Result<(Tree, T), String> {
    let (text, tree) = written(declared, vault, Some(expressions.clone()))?;
    let back = decode::<T>(&tree, vault).map_err(|error| format!("it does not come back from JSON: {error}"))?;
    let again = {
        let _session = Session::open(vault, None);
        write(&back)?
    };
    // The same fields in the same order are the same text, and then there is nothing to look into.
    if text == again {
        return Ok((tree, back));
    }
    let again = encode(&back, vault)?;
    if tree == again {
        return Ok((tree, back));
    }
    let path = first_difference(&tree.value(), &again.value(), &Path::root()).unwrap_or_default();
    Err(format!("it comes back from JSON with a different value at {path}"))
}

/// Serialises what holds no new outputs.
pub(crate) fn encode<T: Serialize>(data: &T, vault: &Vault) -> std::result::Result<Tree, String> {
    written(data, vault, None).map(|(_, tree)| tree)
}

/// Returns `data` as it writes itself, and as a tree.
fn written<T: Serialize>(
    data: &T,
    vault: &Vault,
    expressions: Option<Expressions>,
) -> std::result::Result<(String, Tree), String> {
    let session = Session::open(vault, expressions);
    let text = write(data)?;
    let tree = Tree::read(&text).map_err(|error| error.to_string())?;
    if count_markers(&tree)? != session.written() {
        return Err(format!("keys that begin with {RESERVED:?} are reserved"));
    }
    Ok((text, tree))
}

/// Writes `data` as JSON, its fields in its own order.
fn write<T: Serialize>(data: &T) -> std::result::Result<String, String> {
    struct Wide;
    impl serde_json::ser::Formatter for Wide {
        /// As a tree would hold it, so that a number is written alike wherever it comes from.
        fn write_f32<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, value: f32) -> std::io::Result<()> {
            self.write_f64(writer, f64::from(value))
        }
    }
    let mut text = Vec::with_capacity(256);
    data.serialize(&mut serde_json::Serializer::with_formatter(&mut text, Wide)).map_err(|error| error.to_string())?;
    String::from_utf8(text).map_err(|error| error.to_string())
}

/// Deserialises, with secrets from the vault.
pub(crate) fn decode<T: DeserializeOwned>(tree: &Tree, vault: &Vault) -> std::result::Result<T, String> {
    let _session = Session::open(vault, None);
    read(tree)
}

/// Deserialises, within a session of the caller's or none.
pub(crate) fn read<T: DeserializeOwned>(tree: &Tree) -> std::result::Result<T, String> {
    // How deep it may be is for the journal to say.
    let read = if tree.is_deep() { None } else { serde_json::from_str(tree.text()).ok() };
    // Where that fails the tree says why: a line and a column of our own text would help nobody.
    read.map_or_else(|| T::deserialize(tree.value()).map_err(|error| error.to_string()), Ok)
}

fn first_difference(a: &Value, b: &Value, path: &Path) -> Option<Path> {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            keys.into_iter().find_map(|key| match (a.get(key), b.get(key)) {
                (Some(a), Some(b)) => first_difference(a, b, &path.at(key)),
                _ => Some(path.at(key)),
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().find_map(|(n, (a, b))| first_difference(a, b, &path.at(n)))
        }
        (a, b) => (a != b).then(|| path.clone()),
    }
}

/// Returns the value at `path`.
pub(crate) fn at<'a>(value: &'a Value, path: &Path) -> Option<&'a Value> {
    value.pointer(path.as_str())
}

/// Removes what is at `path`; true when there was something.
pub(crate) fn remove(value: &mut Value, path: &Path) -> bool {
    let text = path.as_str();
    let Some((parent, _)) = text.rsplit_once('/') else { return false };
    let Some(key) = path.keys().last() else { return false };
    match value.pointer_mut(parent) {
        Some(Value::Object(map)) => map.remove(&key).is_some(),
        Some(_) | None => false,
    }
}

/// Puts `new` at `path` where the parent exists as a map or the place is in a list; true when it was put.
pub(crate) fn put(value: &mut Value, path: &Path, new: Value) -> bool {
    let text = path.as_str();
    let Some((parent, _)) = text.rsplit_once('/') else { return false };
    let Some(key) = path.keys().last() else { return false };
    match value.pointer_mut(parent) {
        Some(Value::Object(map)) => {
            map.insert(key, new);
            true
        }
        Some(Value::Array(list)) => match key.parse::<usize>().ok().and_then(|n| list.get_mut(n)) {
            Some(place) => {
                *place = new;
                true
            }
            None => false,
        },
        Some(_) | None => false,
    }
}

/// The reading side of a marker, for types that accept one.
pub(crate) fn deserialize_marker<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<(Value, Option<Marker>), D::Error> {
    let value = Value::deserialize(deserializer)?;
    let marker = marker(&value);
    Ok((value, marker))
}

//! What a collection of a cluster holds, kept in step by one list and one watch.
//!
//! Whoever asks for a few objects gets each by a call of its own. Whoever asks for many of one collection (a kind in a
//! namespace) has it listed once and watched from there. What is answered from that is as true as a call: it was read
//! after the connection was made, our own writes are laid over it at once, and it is believed for [`TRUST`] after the
//! last thing that the server said. A mirror never decides what it cannot prove: then it says so, and the object is
//! asked for.
//!
//! Versions of objects are compared as numbers. Kubernetes documents that since 1.35 and has done so ever since; where
//! one is not a number, there is no mirror.

use crate::json::text;
use crate::key::Key;
use crate::kinds::Kind;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// From how many objects of one collection on it is listed, instead of asking for each.
const MANY: usize = 10;
/// How long a mirror is believed after the last sign of life: a connection may die without a word.
const TRUST: Duration = Duration::from_secs(15);
/// How long objects are asked for one by one after a list or a watch that failed.
const REST: Duration = Duration::from_secs(5);
/// How many others may be listed for each object that was asked for.
const OTHERS: usize = 50;
/// After how many watches in a row that ended without an event it is not tried again.
const FUTILE: u32 = 3;

/// The mirrors of one connection.
#[derive(Default)]
pub(crate) struct Mirrors(Mutex<BTreeMap<Place, Arc<Mirror>>>);

/// A kind, and the namespace of those that live in one.
type Place = (Kind, Option<String>);

impl Mirrors {
    /// Returns the mirror of the collection that an object is in.
    pub(crate) fn of(&self, kind: &Kind, key: &Key) -> Arc<Mirror> {
        let place = (kind.clone(), key.namespace.clone().filter(|_| kind.namespaced));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(place).or_default().clone()
    }
}

/// The mirror of one collection.
#[derive(Default)]
pub(crate) struct Mirror {
    /// Held by whoever lists.
    pub(crate) listing: tokio::sync::Mutex<()>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// The names that were asked for so far.
    asked: BTreeSet<String>,
    /// From how many of them on it is worth a list; [`MANY`], or more where there are many others.
    worth: usize,
    /// Not used any more, or not before this moment.
    off: bool,
    rests: Option<Instant>,
    /// Objects by name, and what is known to be gone, each with its version.
    objects: BTreeMap<String, (u64, Option<Value>)>,
    /// The version of the last list: what is not among the objects was not there then.
    floor: u64,
    /// When the server last said something of the collection. None: nothing is known.
    proven: Option<Instant>,
    /// Names of which the server may know more than it said, since that moment: a reply was lost.
    doubted: BTreeMap<String, Instant>,
    /// Which list this is the mirror of: an earlier watch is not heard any more.
    list: u64,
    watch: Option<Watching>,
    futile: u32,
}

/// A watch that ends with its mirror.
struct Watching(AbortHandle);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a mirror says of an object.
#[derive(Debug, PartialEq)]
pub(crate) enum Reflection {
    /// It is there.
    There(Value),
    /// It was there, and the server said that it was deleted.
    Deleted,
    /// It is not in the list.
    Missing,
    /// Ask for it.
    Unknown,
    /// List the collection and ask again.
    Stale,
}

/// What an event of a watch came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It is taken in.
    Yes,
    /// The watch is of no use any more.
    Lost,
}

impl Mirror {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what is known of an object.
    pub(crate) fn reflect(&self, name: &str) -> Reflection {
        let mut held = self.held();
        if !held.asked.contains(name) {
            held.asked.insert(name.to_owned());
        }
        if held.off || held.rests.is_some_and(|until| Instant::now() < until) || held.doubted.contains_key(name) {
            return Reflection::Unknown;
        }
        if held.proven.is_none_or(|proven| proven.elapsed() > TRUST) {
            let many = held.asked.len() >= held.worth.max(MANY);
            return if many { Reflection::Stale } else { Reflection::Unknown };
        }
        match held.objects.get(name) {
            Some((_, Some(object))) => Reflection::There(object.clone()),
            Some((_, None)) => Reflection::Deleted,
            None => Reflection::Missing,
        }
    }

    /// Returns whether it is in use: looking again costs nothing.
    pub(crate) fn is_live(&self) -> bool {
        let held = self.held();
        !held.off && held.watch.is_some() && held.proven.is_some_and(|proven| proven.elapsed() <= TRUST)
    }

    /// Decides on the first page of a list whether the others are worth it: `remaining` objects are left.
    pub(crate) fn is_worth(&self, remaining: usize) -> bool {
        let mut held = self.held();
        held.worth = remaining / OTHERS;
        held.asked.len() >= held.worth
    }

    /// Takes in a whole list that was asked for at `asked` and shows the collection at `version`. Returns which list it
    /// is, or nothing when there can be no mirror of it.
    pub(crate) fn listed(&self, kind: &Kind, items: Vec<Value>, version: &str, asked: Instant) -> Option<u64> {
        let mut held = self.held();
        held.watch = None;
        held.list += 1;
        let (Ok(floor), api_version) = (version.parse::<u64>(), kind.api_version()) else {
            held.off = true;
            return None;
        };
        // What was written by us after the list was made is newer than it.
        held.objects.retain(|_, (version, _)| *version > floor);
        for mut item in items {
            let (Some(version), name) = (numbered(&item), text(&item, "/metadata/name").to_owned()) else {
                held.off = true;
                return None;
            };
            // In a list of a built-in kind the items do not repeat what the list is of.
            item["apiVersion"] = json!(api_version);
            item["kind"] = json!(kind.kind);
            held.objects.entry(name).or_insert((version, Some(item)));
        }
        held.floor = floor;
        held.proven = Some(asked);
        held.doubted.retain(|_, since| *since > asked);
        Some(held.list)
    }

    /// Remembers the watch that keeps a list in step.
    pub(crate) fn watched_by(&self, watch: AbortHandle) {
        self.held().watch = Some(Watching(watch));
    }

    /// Takes in a line of the watch of a list. Returns also the version from which to go on.
    pub(crate) fn hear(&self, list: u64, event: &Value) -> (Heard, Option<String>) {
        let mut held = self.held();
        let object = &event["object"];
        let (Some(version), true) = (numbered(object), held.list == list) else { return (Heard::Lost, None) };
        let change = match text(event, "/type") {
            "ADDED" | "MODIFIED" => Some(Some(object.clone())),
            "DELETED" => Some(None),
            "BOOKMARK" => None,
            _ => return (Heard::Lost, None),
        };
        held.proven = Some(Instant::now());
        held.futile = 0;
        if let Some(change) = change {
            held.take(text(object, "/metadata/name"), version, change);
        }
        (Heard::Yes, Some(version.to_string()))
    }

    /// Takes in an object that a call returned: what we write is there at once.
    pub(crate) fn returned(&self, object: &Value) {
        let mut held = self.held();
        let name = text(object, "/metadata/name");
        held.doubted.remove(name);
        // Before the first list there is nothing to lay it over, and what comes with that is not older.
        match numbered(object) {
            Some(version) if version > held.floor => held.take(name, version, Some(object.clone())),
            Some(_) | None => {}
        }
    }

    /// Forgets what is known of an object: a call about it may have had an effect that was not said, or was refused
    /// because of what we do not know.
    pub(crate) fn doubt(&self, name: &str) {
        self.held().doubted.insert(name.to_owned(), Instant::now());
    }

    /// The watch of a list is gone and could not be taken up again: the next who asks lists anew.
    pub(crate) fn lost(&self, list: u64) {
        let mut held = self.held();
        if held.list == list {
            held.watch = None;
            held.proven = None;
            held.futile += 1;
            held.off |= held.futile >= FUTILE;
        }
    }

    /// It cannot be listed now: objects are asked for one by one for a while.
    pub(crate) fn rest(&self) {
        self.held().rests = Some(Instant::now() + REST);
    }

    /// It may not be listed or watched: objects are asked for one by one from now on.
    pub(crate) fn give_up(&self) {
        self.held().off = true;
    }
}

impl Held {
    /// What is older than what is known was known already, and has changed since.
    fn take(&mut self, name: &str, version: u64, object: Option<Value>) {
        if self.objects.get(name).is_none_or(|(known, _)| *known < version) {
            self.objects.insert(name.to_owned(), (version, object));
        }
    }
}

fn numbered(object: &Value) -> Option<u64> {
    text(object, "/metadata/resourceVersion").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::known;

    fn map(name: &str, version: u64) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": "media", "resourceVersion": version.to_string()}})
    }

    fn event(kind: &str, object: Value) -> Value {
        json!({"type": kind, "object": object})
    }

    /// A mirror of `a` and `b` at version 20.
    fn mirror() -> (Mirror, u64) {
        let mirror = Mirror::default();
        assert!((0..MANY - 1).all(|n| mirror.reflect(&n.to_string()) == Reflection::Unknown), "few are asked for");
        assert_eq!(mirror.reflect("a"), Reflection::Stale, "many are listed");
        let list = relisted(&mirror);
        (mirror, list)
    }

    fn relisted(mirror: &Mirror) -> u64 {
        let kind = known("v1", "ConfigMap").unwrap();
        mirror.listed(&kind, vec![map("a", 10), map("b", 20)], "20", Instant::now()).unwrap()
    }

    #[test]
    fn what_is_listed_and_watched_is_known() {
        let (mirror, list) = mirror();
        assert_eq!(mirror.reflect("a"), Reflection::There(map("a", 10)));
        assert_eq!(mirror.reflect("c"), Reflection::Missing);
        assert_eq!(mirror.hear(list, &event("MODIFIED", map("a", 21))), (Heard::Yes, Some("21".into())));
        assert_eq!(mirror.hear(list, &event("DELETED", map("b", 22))), (Heard::Yes, Some("22".into())));
        assert_eq!(mirror.reflect("a"), Reflection::There(map("a", 21)));
        assert_eq!(mirror.reflect("b"), Reflection::Deleted);
        let bookmark = event("BOOKMARK", json!({"metadata": {"resourceVersion": "90"}}));
        assert_eq!(mirror.hear(list, &bookmark), (Heard::Yes, Some("90".into())));
    }

    #[test]
    fn what_we_wrote_is_there_before_the_watch_says_so_and_not_taken_back_by_it() {
        let (mirror, list) = mirror();
        mirror.returned(&map("a", 30));
        mirror.returned(&map("c", 31));
        mirror.hear(list, &event("MODIFIED", map("a", 25)));
        assert_eq!(mirror.reflect("a"), Reflection::There(map("a", 30)));
        // A list that was under way when it was written does not have it yet.
        let list = relisted(&mirror);
        assert_eq!(mirror.reflect("a"), Reflection::There(map("a", 30)));
        assert_eq!(mirror.reflect("c"), Reflection::There(map("c", 31)));
        // It was deleted by somebody else, and the reply to our writing it came late.
        mirror.hear(list, &event("DELETED", map("c", 33)));
        mirror.returned(&map("c", 32));
        assert_eq!(mirror.reflect("c"), Reflection::Deleted);
        mirror.returned(&map("d", 15));
        assert_eq!(mirror.reflect("d"), Reflection::Missing, "it was gone again when the list was made");
    }

    #[test]
    fn what_a_lost_reply_may_have_done_is_asked_for() {
        let (mirror, _) = mirror();
        mirror.doubt("a");
        assert_eq!(mirror.reflect("a"), Reflection::Unknown);
        assert_eq!(mirror.reflect("b"), Reflection::There(map("b", 20)));
        mirror.returned(&map("a", 30));
        assert_eq!(mirror.reflect("a"), Reflection::There(map("a", 30)));
        mirror.doubt("b");
        relisted(&mirror);
        assert_eq!(mirror.reflect("b"), Reflection::There(map("b", 20)));
    }

    #[test]
    fn a_watch_that_is_lost_says_nothing_of_what_is_there() {
        let (mirror, list) = mirror();
        let expired = event("ERROR", json!({"kind": "Status", "code": 410}));
        assert_eq!(mirror.hear(list, &expired), (Heard::Lost, None));
        mirror.lost(list);
        assert_eq!(mirror.reflect("a"), Reflection::Stale);
        assert_eq!(mirror.reflect("c"), Reflection::Stale, "what is not known to be there is not absent");
        let next = relisted(&mirror);
        assert_eq!(mirror.hear(list, &event("MODIFIED", map("a", 40))), (Heard::Lost, None), "it is of an older list");
        // Where no watch lasts, there is no mirror.
        for list in next..next + 2 {
            mirror.lost(list);
            relisted(&mirror);
        }
        assert_eq!(mirror.reflect("a"), Reflection::Unknown);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_is_not_believed_for_long() {
        let (mirror, list) = mirror();
        tokio::time::advance(TRUST - Duration::from_secs(1)).await;
        mirror.hear(list, &event("MODIFIED", map("a", 21)));
        tokio::time::advance(TRUST - Duration::from_secs(1)).await;
        assert_eq!(mirror.reflect("b"), Reflection::There(map("b", 20)));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(mirror.reflect("b"), Reflection::Stale);
        mirror.rest();
        assert_eq!(mirror.reflect("b"), Reflection::Unknown);
        tokio::time::advance(REST).await;
        assert_eq!(mirror.reflect("b"), Reflection::Stale);
    }

    #[test]
    fn a_large_collection_is_not_listed_for_a_few_of_its_objects() {
        let (mirror, list) = mirror();
        assert!(mirror.is_worth(MANY * OTHERS));
        assert!(!mirror.is_worth(20 * OTHERS));
        mirror.lost(list);
        assert_eq!(mirror.reflect("a"), Reflection::Unknown);
        for n in 0..20 {
            mirror.reflect(&format!("more-{n}"));
        }
        assert_eq!(mirror.reflect("a"), Reflection::Stale);
    }
}

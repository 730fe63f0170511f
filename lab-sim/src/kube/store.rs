//! The objects of one cluster, their versions, and what happened to them lately.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::time::SystemTime;

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use serde_json::{Value, json};

use super::kinds::{self, Kind};
use super::quantity::timestamp;
use super::refusal::Refusal;

/// A namespace (empty for cluster-wide kinds) and a name.
pub(crate) type Key = (String, String);

/// What a watch is told.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) revision: u64,
    pub(crate) resource: String,
    /// The object before, for watches whose selector it leaves or enters.
    pub(crate) before: Option<Value>,
    /// The object after; a deleted one bears the revision of its deletion.
    pub(crate) after: Value,
    pub(crate) deleted: bool,
}

/// How many events are kept for watches that start in the past.
const HISTORY: usize = 4096;

/// Everything the API knows.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) kinds: Vec<Kind>,
    objects: BTreeMap<String, BTreeMap<Key, Value>>,
    pub(crate) revision: u64,
    /// The revision of the last change to each resource.
    latest: BTreeMap<String, u64>,
    history: VecDeque<Event>,
    /// Events up to and including this revision are forgotten.
    pub(crate) forgotten: u64,
    random: StdRng,
    pub(crate) now: SystemTime,
    /// Whether something is left for [`Store::tick`](super::lifecycle) to do.
    pub(crate) unsettled: bool,
    /// How many definitions there were when they were last looked at, and their latest revision.
    pub(crate) definitions: (usize, u64),
}

impl Store {
    pub(crate) fn new(seed: u64, now: SystemTime) -> Store {
        let mut store = Store {
            kinds: kinds::builtin(),
            objects: BTreeMap::new(),
            revision: 1,
            latest: BTreeMap::new(),
            history: VecDeque::new(),
            forgotten: 1,
            random: StdRng::seed_from_u64(seed),
            now,
            unsettled: false,
            definitions: (0, 0),
        };
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            let kind = store.kind("", "Namespace").expect("a built-in kind").clone();
            let mut namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            super::prepare::for_create(&mut store, &kind, &mut namespace).expect("a namespace needs nothing");
            store.put(&kind, namespace);
        }
        store
    }

    /// Returns the first served version of a kind.
    pub(crate) fn kind(&self, group: &str, kind: &str) -> Option<&Kind> {
        self.kinds.iter().find(|known| known.is(group, kind))
    }

    pub(crate) fn served(&self, group: &str, version: &str, plural: &str) -> Option<&Kind> {
        self.kinds.iter().find(|kind| kind.group == group && kind.version == version && kind.plural == plural)
    }

    /// Returns the kinds, one version of each.
    pub(crate) fn distinct(&self) -> Vec<Kind> {
        let mut seen = std::collections::BTreeSet::new();
        self.kinds.iter().filter(|kind| seen.insert(kind.resource())).cloned().collect()
    }

    pub(crate) fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<&Value> {
        self.objects.get(resource)?.get(&(namespace.to_string(), name.to_string()))
    }

    pub(crate) fn all<'a>(&'a self, resource: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
        self.objects.get(resource).into_iter().flat_map(BTreeMap::values)
    }

    /// Returns every object, by resource.
    pub(crate) fn everything(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.objects.iter().flat_map(|(resource, objects)| objects.values().map(move |object| (resource, object)))
    }

    /// Stores an object under the next revision, and tells the watches.
    pub(crate) fn put(&mut self, kind: &Kind, mut object: Value) -> Value {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let resource = kind.resource();
        let before = self.objects.entry(resource.clone()).or_default().insert(key(&object), object.clone());
        self.tell(Event { revision: self.revision, resource, before, after: object.clone(), deleted: false });
        self.unsettled = true;
        object
    }

    /// Removes an object, under the next revision.
    pub(crate) fn take(&mut self, kind: &Kind, object: &Value) -> Value {
        self.revision += 1;
        let resource = kind.resource();
        if let Some(objects) = self.objects.get_mut(&resource) {
            objects.remove(&key(object));
        }
        let mut after = object.clone();
        after["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let before = Some(object.clone());
        self.tell(Event { revision: self.revision, resource, before, after: after.clone(), deleted: true });
        self.unsettled = true;
        after
    }

    /// Returns the revision of the last change to the collection at `path`, such as `/api/v1/pods`; `None` when nothing
    /// is served there.
    pub(crate) fn version_of(&self, path: &str) -> Option<u64> {
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let kind = match segments[..] {
            ["api", version, plural] => self.served("", version, plural),
            ["apis", group, version, plural] => self.served(group, version, plural),
            _ => None,
        };
        Some(self.latest.get(&kind?.resource()).copied().unwrap_or(0))
    }

    fn tell(&mut self, event: Event) {
        self.latest.insert(event.resource.clone(), event.revision);
        self.history.push_back(event);
        while self.history.len() > HISTORY {
            self.forgotten = self.history.pop_front().map_or(self.forgotten, |event| event.revision);
        }
    }

    /// Forgets the past, so that a watch from there is refused as too old.
    pub(crate) fn compact(&mut self) {
        self.history.clear();
        self.forgotten = self.revision;
    }

    /// Returns what happened after `revision`.
    pub(crate) fn since(&self, revision: u64) -> Result<impl Iterator<Item = &Event>, Refusal> {
        if revision < self.forgotten {
            return Err(Refusal::too_old(revision, self.forgotten));
        }
        let from = self.history.partition_point(|event| event.revision <= revision);
        Ok(self.history.range(from..))
    }

    pub(crate) fn timestamp(&self) -> String {
        timestamp(self.now)
    }

    pub(crate) fn uid(&mut self) -> String {
        let mut bytes = [0_u8; 16];
        self.random.fill_bytes(&mut bytes);
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    /// Returns the five characters that end a generated name.
    pub(crate) fn suffix(&mut self) -> String {
        const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        (0..5).map(|_| char::from(LETTERS[self.random.gen_range(0..LETTERS.len())])).collect()
    }

    /// Returns a free cluster address of 10.96.0.0/12.
    pub(crate) fn cluster_ip(&mut self) -> String {
        loop {
            let offset = self.random.gen_range(256..1 << 20);
            let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 0)) + offset).to_string();
            if !self.all("services").any(|service| service["spec"]["clusterIP"] == address) {
                return address;
            }
        }
    }

    /// Returns a free node port.
    pub(crate) fn node_port(&mut self) -> u16 {
        loop {
            let port = self.random.gen_range(30_000..32_768_u16);
            let taken = |service: &Value| {
                service["spec"]["ports"].as_array().into_iter().flatten().any(|taken| taken["nodePort"] == port)
            };
            if !self.all("services").any(taken) {
                return port;
            }
        }
    }
}

/// Returns where an object is filed.
pub(crate) fn key(object: &Value) -> Key {
    let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_string();
    (text("namespace"), text("name"))
}

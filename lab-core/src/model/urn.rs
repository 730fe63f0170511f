//! Names that last: a resource's URN, and a path into its inputs or outputs.

use super::word::{Lately, read_text, shared};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cell::RefCell;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// How many names are remembered while a file is read: what needs something is most often not far from it.
const LATELY: usize = 1024;

thread_local! {
    static READ: Lately<LATELY> = const { RefCell::new([const { None }; LATELY]) };
}

/// The name of a resource over its whole life: stack, provider, component path, type and name.
///
/// Written `homelab::k8s::plex::kubernetes:object::service`. Two clusters may each have a `metallb`: they differ in
/// the provider. Clones share the text: a name stands in the plan, in the state and at everything that needs it.
#[derive(Clone, Debug)]
pub struct Urn(Arc<str>);

// Most that are compared are clones of each other, and to read two names to their end takes longer: they begin alike.
impl PartialEq for Urn {
    fn eq(&self, other: &Urn) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Eq for Urn {}

impl PartialOrd for Urn {
    fn partial_cmp(&self, other: &Urn) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Urn {
    fn cmp(&self, other: &Urn) -> Ordering {
        if Arc::ptr_eq(&self.0, &other.0) { Ordering::Equal } else { self.0.cmp(&other.0) }
    }
}

impl Hash for Urn {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.hash(hasher);
    }
}

impl Serialize for Urn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Urn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Urn, D::Error> {
        /// A name out of a file.
        struct Read(Urn);
        impl From<&str> for Read {
            fn from(text: &str) -> Read {
                Read(Urn(shared(&READ, text)))
            }
        }
        let Read(urn) = read_text(deserializer, "a URN")?;
        Ok(urn)
    }
}

impl Urn {
    /// Returns the URN of a resource. The parts must have passed [`Urn::valid_part`].
    pub fn new(stack: &str, provider: &str, path: &[String], kind: &str, name: &str) -> Urn {
        Urn(format!("{stack}::{provider}::{}::{kind}::{name}", path.join("/")).into())
    }

    /// Returns why `part` cannot be a name in a URN, if it cannot.
    pub fn valid_part(part: &str) -> std::result::Result<(), String> {
        if part.is_empty() {
            return Err("a name cannot be empty".into());
        }
        if part.contains("::") || part.contains('/') || part.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(format!("the name {part:?} holds `::`, `/`, white space or control characters"));
        }
        Ok(())
    }

    /// Returns the URN as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn part(&self, n: usize) -> &str {
        self.0.splitn(5, "::").nth(n).unwrap_or_default()
    }

    /// Returns the stack.
    pub fn stack(&self) -> &str {
        self.part(0)
    }

    /// Returns the name of the provider it is declared on.
    pub fn provider(&self) -> &str {
        self.part(1)
    }

    /// Returns the component path, outermost first, joined by `/`; empty at the top.
    pub fn path(&self) -> &str {
        self.part(2)
    }

    /// Returns the type.
    pub fn kind(&self) -> &str {
        self.part(3)
    }

    /// Returns what the user called it.
    pub fn name(&self) -> &str {
        self.part(4)
    }

    /// Returns the URN of the same resource under another name.
    pub fn renamed(&self, name: &str) -> Urn {
        let keep = self.0.len() - self.name().len();
        Urn(format!("{}{name}", &self.0[..keep]).into())
    }

    /// Returns what a person would say: the component path and the name.
    pub fn short(&self) -> String {
        if self.path().is_empty() { self.name().to_owned() } else { format!("{}/{}", self.path(), self.name()) }
    }
}

impl fmt::Display for Urn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for Urn {
    fn from(text: String) -> Urn {
        Urn(text.into())
    }
}

impl From<&str> for Urn {
    fn from(text: &str) -> Urn {
        Urn(text.into())
    }
}

/// A place in a tree of inputs or outputs, as a JSON pointer (RFC 6901): `/spec/replicas`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Path(String);

impl Path {
    /// Returns the path of the whole tree.
    pub fn root() -> Path {
        Path::default()
    }

    /// Returns the path one level below, at `key`.
    pub fn at(&self, key: impl fmt::Display) -> Path {
        let key = key.to_string().replace('~', "~0").replace('/', "~1");
        Path(format!("{}/{key}", self.0))
    }

    /// Returns the pointer as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns true when `other` is this place or lies within it.
    pub fn covers(&self, other: &Path) -> bool {
        other.0.strip_prefix(&self.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Returns the keys from the root to here, unescaped.
    pub fn keys(&self) -> impl Iterator<Item = String> + '_ {
        self.0.split('/').skip(1).map(|key| key.replace("~1", "/").replace("~0", "~"))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "/" } else { &self.0 })
    }
}

impl From<&str> for Path {
    fn from(text: &str) -> Path {
        Path(if text.is_empty() || text.starts_with('/') { text.to_owned() } else { format!("/{text}") })
    }
}

impl From<String> for Path {
    fn from(text: String) -> Path {
        Path::from(text.as_str())
    }
}

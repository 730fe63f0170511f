//! What a program declares: the value that loading yields and planning takes.

use super::erased::{ErasedProvider, ErasedQuery, ErasedType};
use super::{Expression, Id, Options, Rolling, Tree, Urn, Vault, Vocabulary, Windows, Word};
use foldhash::HashMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::Location;
use std::sync::{Arc, OnceLock};

/// A place in a program's source: `examples/homelab.rs:42`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The file, as the compiler knew it.
    pub file: Word,
    /// The line.
    pub line: u32,
}

impl Place {
    /// Returns the place of the caller.
    #[track_caller]
    pub fn here() -> Place {
        let location = Location::caller();
        Place { file: location.file().into(), line: location.line() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Everything a program declared.
#[derive(Clone)]
pub struct Declared {
    /// The stack.
    pub stack: String,
    /// Resources and reads, in the order of their declaration.
    pub nodes: Vec<Node>,
    /// Providers by name.
    pub providers: BTreeMap<String, ProviderNode>,
    /// Rolling groups by name.
    pub groups: BTreeMap<String, Rolling>,
    /// When what it declares may be interrupted, where no group says otherwise.
    pub windows: Windows,
    /// What the unknowns stand for.
    pub expressions: Vec<Expression>,
    /// What the program returned, unknowns included.
    pub outputs: Value,
    /// What is wrong with it, all of it.
    pub problems: Vec<(Place, String)>,
    /// True when something could not be had that the program is made with. Then it declares less than it says, and what
    /// it does not declare is not known to go.
    pub lacking: bool,
    /// Outputs of other stacks that it read: the stack and the digest of what was read.
    pub reads: BTreeMap<String, String>,
    /// Every type it knows.
    pub vocabulary: Vocabulary,
    /// Its secrets.
    pub vault: Vault,
    pub(crate) index: Index,
}

/// Positions in [`Declared::nodes`] by name, made when something is first looked up. A map without an order: nobody
/// goes through it, and among names that begin alike an ordered one takes many times as long.
#[derive(Clone, Default)]
pub(crate) struct Index(OnceLock<HashMap<Urn, usize>>);

impl Declared {
    /// Returns the resource or read called `urn`.
    pub fn node(&self, urn: &Urn) -> Option<&Node> {
        self.position(urn).map(|n| &self.nodes[n])
    }

    fn index(&self) -> &HashMap<Urn, usize> {
        self.index.0.get_or_init(|| self.nodes.iter().enumerate().map(|(n, node)| (node.urn.clone(), n)).collect())
    }

    /// Returns true when a name is declared more than once.
    pub(crate) fn repeats(&self) -> bool {
        self.index().len() < self.nodes.len()
    }

    /// Returns where in the list of nodes the resource or read called `urn` stands.
    pub(crate) fn position(&self, urn: &Urn) -> Option<usize> {
        let index = self.index();
        let named = |n: &usize| self.nodes.get(*n).is_some_and(|node| node.urn == *urn);
        let found = index.get(urn).copied().filter(named);
        // Whoever holds a declaration may still change its list; then the positions are those of another one.
        if found.is_some() || index.len() == self.nodes.len() {
            return found;
        }
        self.nodes.iter().position(|node| node.urn == *urn)
    }
}

/// A declared resource or read.
#[derive(Clone)]
pub struct Node {
    /// Its name for life.
    pub urn: Urn,
    /// The provider it is declared on, by name.
    pub provider: Word,
    /// What it is.
    pub kind: NodeKind,
    /// What it needs, unknowns and secrets as markers.
    pub inputs: Tree,
    /// Its natural identity, where what is declared says one. Of inputs that came to be known since, the type is asked.
    pub(crate) id: Option<Id>,
    /// What is said about it: of most, nothing.
    pub options: Arc<Options>,
    /// The line of the program that declared it, or that added its outermost component.
    pub place: Place,
}

/// What a node is.
#[derive(Clone)]
pub enum NodeKind {
    /// A managed thing.
    Resource(Arc<dyn ErasedType>),
    /// A question about something that exists already.
    Read(Arc<dyn ErasedQuery>),
}

/// A declared provider.
#[derive(Clone)]
pub struct ProviderNode {
    /// Its kind.
    pub kind: Arc<dyn ErasedProvider>,
    /// Its configuration, unknowns and secrets as markers.
    pub config: Value,
    /// Where it was declared.
    pub place: Place,
}

/// A dependency.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Edge {
    /// What is needed.
    pub to: Urn,
    /// In which way.
    pub kind: EdgeKind,
}

/// How a dependency is written: what is needed alone where a value of it is. Most are of that kind, and the words around them
/// would be a tenth of a state.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "a dependency says what is needed, and in which way")]
enum Written {
    Value(Urn),
    Else { kind: EdgeKind, to: Urn },
}

impl From<Edge> for Written {
    fn from(edge: Edge) -> Written {
        match edge {
            Edge { to, kind: EdgeKind::Value } => Written::Value(to),
            Edge { to, kind } => Written::Else { kind, to },
        }
    }
}

impl From<Written> for Edge {
    fn from(written: Written) -> Edge {
        match written {
            Written::Value(to) => Edge { to, kind: EdgeKind::Value },
            Written::Else { kind, to } => Edge { to, kind },
        }
    }
}

/// In which way something is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EdgeKind {
    /// An input is computed from its outputs.
    Value,
    /// It must be ready first.
    After,
    /// It must exist first, ready or not.
    Created,
    /// It is what this lives inside.
    Container,
}

impl Node {
    /// Returns the type.
    pub fn type_name(&self) -> &'static str {
        match &self.kind {
            NodeKind::Resource(kind) => kind.name(),
            NodeKind::Read(query) => query.name(),
        }
    }

    /// Returns the resource type; `None` for a read.
    pub fn resource(&self) -> Option<&Arc<dyn ErasedType>> {
        match &self.kind {
            NodeKind::Resource(kind) => Some(kind),
            NodeKind::Read(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_needed_is_read_as_it_was_written_and_as_it_was_written_before() {
        let to = Urn::new("lab", "rack", &[], "memory:thing", "a");
        for (kind, written) in [
            (EdgeKind::Value, json!(to)),
            (EdgeKind::After, json!({"kind": "after", "to": to})),
            (EdgeKind::Created, json!({"kind": "created", "to": to})),
            (EdgeKind::Container, json!({"kind": "container", "to": to})),
        ] {
            let edge = Edge { to: to.clone(), kind };
            assert_eq!(serde_json::to_value(&edge).expect("it can be written"), written);
            assert_eq!(serde_json::from_value::<Edge>(written).expect("it was written"), edge);
        }
        let before = json!({"kind": "value", "to": to});
        let edge = serde_json::from_value::<Edge>(before).expect("it was written before");
        assert_eq!(edge, Edge { to, kind: EdgeKind::Value });
    }
}

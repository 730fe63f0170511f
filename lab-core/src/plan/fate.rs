//! What will have become of each resource: what others may read of it while planning.

use crate::model::{
    Declared, Lookup, Mark, Path, Tree, Unresolved, Urn, Vault, fill, markers, panic_text, put_value, unknowns,
    value_at,
};
use serde_json::{Value, json};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What will have become of a resource when the plan is done, as far as it can be known now.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate<'a> {
    /// Its outputs, when they are recorded and hold.
    pub(super) outputs: Option<Tree>,
    /// Which of them are only known afterwards.
    pub(super) fresh: Vec<Path>,
    /// The operation that made it, when that is known already. None while it is created or replaced.
    pub(super) mark: Option<&'a Mark>,
}

/// The fates of all resources planned so far, by their position in what is declared.
pub(super) struct Fates<'a> {
    declared: &'a Declared,
    fates: Vec<Option<Fate<'a>>>,
}

/// A tree with everything filled in that is known.
pub(super) struct Filled {
    pub(super) value: Tree,
    /// What is not known, and from where.
    pub(super) unknown: Vec<super::plan::Unknown>,
    /// What failed: a closure that panicked.
    pub(super) failed: Vec<String>,
}

/// What an expression looks at.
struct Recorded<'a> {
    fates: &'a Fates<'a>,
    twist: Option<Twist<'a>>,
    /// Whether it looked at something of which a part is only known afterwards.
    moving: Cell<bool>,
}

/// A look at outputs in which what is not certain was twisted.
struct Twist<'a> {
    vault: &'a Vault,
    round: u8,
}

impl Lookup for Recorded<'_> {
    fn outputs(&self, urn: &Urn) -> Result<Tree, Unresolved> {
        let unknown = || Unresolved::Unknown(urn.clone());
        let fate = self.fates.get(urn).ok_or_else(unknown)?;
        let outputs = fate.outputs.clone().ok_or_else(unknown)?;
        if fate.fresh.is_empty() {
            return Ok(outputs);
        }
        self.moving.set(true);
        if let Some(twist) = &self.twist {
            let mut outputs = outputs.value();
            for path in &fate.fresh {
                if let Some(value) = value_at(&outputs, path) {
                    let twisted = twist.value(value);
                    if path.as_str().is_empty() {
                        outputs = twisted;
                    } else {
                        put_value(&mut outputs, path, twisted);
                    }
                }
            }
            return Ok(outputs.into());
        }
        Ok(outputs)
    }
}

impl Twist<'_> {
    /// Returns another value of the same shape, so that a closure which depends on it gives another result.
    fn value(&self, value: &Value) -> Value {
        if let Some(plain) = crate::model::secret_value(value, self.vault) {
            return crate::model::secret_marker(&self.value(&plain), self.vault);
        }
        match value {
            Value::Null => Value::Null,
            Value::Bool(bit) => json!(!bit),
            Value::Number(n) => {
                n.as_u64().map_or_else(|| n.clone().into(), |n| json!(n.wrapping_add(1 + u64::from(self.round))))
            }
            Value::String(text) => self.text(text).into(),
            Value::Array(list) => list.iter().map(|value| self.value(value)).collect(),
            Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), self.value(value))).collect(),
        }
    }

    fn text(&self, text: &str) -> String {
        match text.parse::<std::net::IpAddr>() {
            Ok(std::net::IpAddr::V4(v4)) => {
                std::net::Ipv4Addr::from_bits(v4.to_bits() ^ (1 + u32::from(self.round))).to_string()
            }
            Ok(std::net::IpAddr::V6(v6)) => {
                std::net::Ipv6Addr::from_bits(v6.to_bits() ^ (1 + u128::from(self.round))).to_string()
            }
            Err(_) => format!("{text}~{}", self.round),
        }
    }
}

impl<'a> Fates<'a> {
    pub(super) fn new(declared: &'a Declared) -> Fates<'a> {
        Fates { declared, fates: vec![None; declared.nodes.len()] }
    }

    pub(super) fn get(&self, urn: &Urn) -> Option<&Fate<'a>> {
        self.fates[self.declared.position(urn)?].as_ref()
    }

    /// Says what will have become of the node at a position.
    pub(super) fn insert(&mut self, n: usize, fate: Fate<'a>) {
        self.fates[n] = Some(fate);
    }

    /// Returns `tree` with every expression computed that can be.
    ///
    /// A closure cannot be seen into, so whether it depends on an output that will change is found by trying: it is
    /// computed again with those outputs twisted. When the result differs, or fails, the value is unknown.
    pub(super) fn fill(&self, tree: &Tree) -> Filled {
        let declared = self.declared;
        let mut known: Vec<(usize, Value)> = Vec::new();
        let mut unknown = Vec::new();
        let mut failed = Vec::new();
        let mut nowhere = Vec::new();
        for n in unknowns(tree) {
            let Some(expression) = declared.expressions.get(n) else { continue };
            let compute = |twist: Option<Twist<'_>>| {
                let lookup = Recorded { fates: self, twist, moving: Cell::new(false) };
                let computed = catch_unwind(AssertUnwindSafe(|| expression.evaluate(&declared.vault, &lookup)))
                    .unwrap_or_else(|panic| Err(Unresolved::Failed(format!("it panicked: {}", panic_text(&*panic)))));
                (computed, lookup.moving.get())
            };
            let (computed, moving) = compute(None);
            let computed = computed.and_then(|value| {
                let vault = &declared.vault;
                let again = |round| compute(Some(Twist { vault, round })).0;
                let holds = !moving || (0..2).all(|round| again(round).as_ref() == Ok(&value));
                if holds { Ok(value) } else { Err(Unresolved::Unknown(Urn::from(""))) }
            });
            match computed {
                Ok(value) => known.push((n, value)),
                Err(Unresolved::Unknown(_)) => nowhere.push((n, None)),
                // What it looked at changes in this plan, and it with that.
                Err(Unresolved::Failed(_)) if moving => nowhere.push((n, None)),
                Err(Unresolved::Failed(why)) => nowhere.push((n, Some(why))),
            }
        }
        // Where it stands is of interest only where it is not known.
        let places = if nowhere.is_empty() { Vec::new() } else { markers(&tree.value()) };
        for (path, n) in places {
            let Some((_, why)) = nowhere.iter().find(|(unknown, _)| *unknown == n) else { continue };
            if let Some(why) = why {
                failed.push(format!("the value of {path} cannot be computed: {}", declared.vault.scrub(why)));
            }
            let from = declared.expressions.get(n).map(|expression| expression.sources.to_vec()).unwrap_or_default();
            unknown.push(super::plan::Unknown { path, from });
        }
        unknown.shrink_to_fit();
        let value = |n| known.iter().find(|(known, _)| *known == n).map(|(_, value)| value.clone());
        Filled { value: fill(tree, &mut |n| value(n)), unknown, failed }
    }
}

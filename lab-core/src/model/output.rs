//! A value that another resource yields.

use super::value::{self, Expression, Lookup, Marker, Session, Unresolved};
use super::{Data, Urn};
use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// A value that another resource yields, known once that resource is there.
///
/// Nothing can be declared inside its closures: they must be `'static`, and scopes borrow the stack.
pub struct Output<T>(Kind<T>);

enum Kind<T> {
    Known(T),
    /// Read back from a marker: only good for being written again.
    Marker(usize),
    Computed {
        sources: Arc<[Urn]>,
        eval: Arc<Eval<T>>,
    },
}

type Eval<T> = dyn Fn(&dyn Lookup) -> Result<T, Unresolved> + Send + Sync;

impl<T> Output<T> {
    /// Returns an output that is known already, such as one of another stack.
    pub fn known(value: T) -> Output<T> {
        Output(Kind::Known(value))
    }

    pub(crate) fn computed(
        sources: impl Into<Arc<[Urn]>>,
        eval: impl Fn(&dyn Lookup) -> Result<T, Unresolved> + Send + Sync + 'static,
    ) -> Output<T> {
        Output(Kind::Computed { sources: sources.into(), eval: Arc::new(eval) })
    }

    pub(crate) fn into_known(self) -> Result<T, Output<T>> {
        match self.0 {
            Kind::Known(value) => Ok(value),
            kind @ (Kind::Marker(_) | Kind::Computed { .. }) => Err(Output(kind)),
        }
    }

    /// Returns the resources that this output is computed from, each once.
    pub fn sources(&self) -> Arc<[Urn]> {
        match &self.0 {
            Kind::Known(_) | Kind::Marker(_) => Arc::default(),
            Kind::Computed { sources, .. } => sources.clone(),
        }
    }
}

impl<T: Clone + Send + Sync + 'static> Output<T> {
    /// Computes another output from this one.
    pub fn map<U>(&self, f: impl Fn(T) -> U + Send + Sync + 'static) -> Output<U> {
        let this = self.clone();
        Output::computed(self.sources(), move |lookup| {
            let value = this.evaluate(lookup)?;
            Ok(Session::aside(|| f(value)))
        })
    }

    pub(crate) fn evaluate(&self, lookup: &dyn Lookup) -> Result<T, Unresolved> {
        match &self.0 {
            Kind::Known(value) => Ok(value.clone()),
            Kind::Marker(_) => Err(Unresolved::Failed("an output was carried out of its program".into())),
            Kind::Computed { eval, .. } => eval(lookup),
        }
    }
}

impl<T: Data> Output<T> {
    /// Returns the value as JSON text.
    ///
    /// A value that holds a secret has none: the plan says so.
    pub fn json(&self) -> Output<String> {
        let this = self.clone();
        Output::computed(self.sources(), move |lookup| {
            let value = this.evaluate(lookup)?;
            Session::aside(|| serde_json::to_string(&value)).map_err(|error| Unresolved::Failed(error.to_string()))
        })
    }
}

/// Returns one output of two.
pub fn join<A, B>(a: &Output<A>, b: &Output<B>) -> Output<(A, B)>
where
    A: Clone + Send + Sync + 'static,
    B: Clone + Send + Sync + 'static,
{
    let (left, right) = (a.clone(), b.clone());
    let sources: BTreeSet<Urn> = a.sources().iter().chain(b.sources().iter()).cloned().collect();
    let sources: Vec<Urn> = sources.into_iter().collect();
    Output::computed(sources, move |lookup| Ok((left.evaluate(lookup)?, right.evaluate(lookup)?)))
}

impl<T: Clone> Clone for Output<T> {
    fn clone(&self) -> Output<T> {
        Output(match &self.0 {
            Kind::Known(value) => Kind::Known(value.clone()),
            Kind::Marker(n) => Kind::Marker(*n),
            Kind::Computed { sources, eval } => Kind::Computed { sources: sources.clone(), eval: eval.clone() },
        })
    }
}

impl<T> fmt::Debug for Output<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Known(_) => f.write_str("Output(known)"),
            Kind::Marker(n) => write!(f, "Output(#{n})"),
            Kind::Computed { sources, .. } => write!(f, "Output(of {sources:?})"),
        }
    }
}

impl<T: Serialize + Clone + Send + Sync + 'static> Serialize for Output<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Kind::Known(value) => value.serialize(serializer),
            Kind::Marker(n) => value::rewrite_unknown(*n).map_err(S::Error::custom)?.serialize(serializer),
            Kind::Computed { sources, .. } => {
                let this = self.clone();
                let expression = Expression {
                    sources: sources.clone(),
                    eval: Arc::new(move |lookup| {
                        let value = this.evaluate(lookup)?;
                        serde_json::to_value(value).map_err(|error| Unresolved::Failed(error.to_string()))
                    }),
                };
                value::write_unknown(expression).map_err(S::Error::custom)?.serialize(serializer)
            }
        }
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Output<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Output<T>, D::Error> {
        match value::deserialize_marker(deserializer)? {
            (_, Some(Marker::Unknown(n))) => Ok(Output(Kind::Marker(n))),
            (value, Some(Marker::Secret(_)) | None) => {
                T::deserialize(value).map(Output::known).map_err(D::Error::custom)
            }
        }
    }
}

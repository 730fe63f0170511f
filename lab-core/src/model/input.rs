//! A value that a resource needs: given, or yielded by another.

use super::Output;
use super::value::Session;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A value that a resource needs: a `T`, or an [`Output<T>`] of another resource.
#[derive(Clone, Debug)]
pub enum Input<T> {
    /// Given.
    Value(T),
    /// Yielded by another resource.
    Output(Output<T>),
}

impl<T> Input<T> {
    /// Returns the value when it is known. What the pure half of a resource asks; what it cannot know is noted, and
    /// shown as deferred in the plan.
    pub fn known(&self) -> Option<&T> {
        match self {
            Input::Value(value) => Some(value),
            Input::Output(_) => {
                Session::miss();
                None
            }
        }
    }

    /// Returns the value.
    ///
    /// # Panics
    ///
    /// When it is not resolved. The engine never hands an unresolved input to `find`, `apply` or `delete`.
    pub fn get(&self) -> &T {
        match self {
            Input::Value(value) => value,
            Input::Output(_) => panic!("an input was read before it was resolved; the pure half asks `known`"),
        }
    }
}

impl<T: Default> Default for Input<T> {
    fn default() -> Input<T> {
        Input::Value(T::default())
    }
}

impl<T> From<T> for Input<T> {
    fn from(value: T) -> Input<T> {
        Input::Value(value)
    }
}

impl<T> From<Output<T>> for Input<T> {
    fn from(output: Output<T>) -> Input<T> {
        Input::Output(output)
    }
}

impl From<&str> for Input<String> {
    fn from(value: &str) -> Input<String> {
        Input::Value(value.to_owned())
    }
}

impl<T: Serialize + Clone + Send + Sync + 'static> Serialize for Input<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Input::Value(value) => value.serialize(serializer),
            Input::Output(output) => output.serialize(serializer),
        }
    }
}

impl<'de, T: DeserializeOwned + Clone> Deserialize<'de> for Input<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Input<T>, D::Error> {
        let output = Output::deserialize(deserializer)?;
        Ok(match output.into_known() {
            Ok(value) => Input::Value(value),
            Err(output) => Input::Output(output),
        })
    }
}

//! A word that is said at thousands of resources: a type, a provider, a realm, a source file.

use foldhash::fast::FixedState;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Borrow;
use std::cell::RefCell;
use std::fmt;
use std::hash::BuildHasher;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;
use std::thread::LocalKey;

/// A short text that many others say as well.
///
/// Whoever makes one of a text that this thread said lately gets that one again, so that a hundred thousand records share the
/// few words that they have in common. To share is all it is for: two are equal when their texts are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Word(Arc<str>);

/// How many words are remembered at once.
const LATELY: usize = 64;

thread_local! {
    static SAID: Lately<LATELY> = const { RefCell::new([const { None }; LATELY]) };
}

/// Texts that a thread met lately. Each has one place, and the next that needs that place takes it.
pub(super) type Lately<const N: usize> = RefCell<[Option<Arc<str>>; N]>;

/// Returns `text`, the same memory as the last time where this thread met it lately.
pub(super) fn shared<const N: usize>(met: &'static LocalKey<Lately<N>>, text: &str) -> Arc<str> {
    let place = FixedState::default().hash_one(text) as usize % N;
    let shared = met.try_with(|met| {
        let met = &mut met.borrow_mut()[place];
        match met {
            Some(known) if **known == *text => known.clone(),
            Some(_) | None => met.insert(text.into()).clone(),
        }
    });
    // Where a thread ends nothing is remembered any more.
    shared.unwrap_or_else(|_| text.into())
}

impl Word {
    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Word {
    fn from(text: &str) -> Word {
        Word(shared(&SAID, text))
    }
}

impl From<String> for Word {
    fn from(text: String) -> Word {
        Word::from(text.as_str())
    }
}

impl Default for Word {
    fn default() -> Word {
        Word::from("")
    }
}

impl Deref for Word {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Word {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Word {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other
    }
}

impl PartialEq<&str> for Word {
    fn eq(&self, other: &&str) -> bool {
        *self.0 == **other
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for Word {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Word, D::Error> {
        read_text(deserializer, "a string")
    }
}

/// Reads a text without a copy of it in between: from a file it is lent.
pub(super) fn read_text<'de, D, T>(deserializer: D, expected: &'static str) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: for<'t> From<&'t str>,
{
    struct Text<T>(&'static str, PhantomData<T>);

    impl<T: for<'t> From<&'t str>> Visitor<'_> for Text<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
            Ok(text.into())
        }
    }
    deserializer.deserialize_str(Text(expected, PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_said_again_takes_no_more_memory() {
        let (first, again) = (Word::from("rack"), serde_json::from_str::<Word>("\"rack\"").expect("it is a string"));
        assert!(Arc::ptr_eq(&first.0, &again.0));
    }

    #[test]
    fn words_that_take_each_others_place_stay_what_they_are() {
        let words: Vec<Word> = (0..10 * LATELY).map(|n| Word::from(format!("word {n}"))).collect();
        for (n, word) in words.iter().enumerate() {
            assert_eq!(*word, format!("word {n}").as_str());
            assert_eq!(*word, Word::from(word.as_str()));
        }
    }
}

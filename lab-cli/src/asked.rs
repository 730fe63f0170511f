//! What a person means by a name.

use crate::trouble::Trouble;
use lab_core::Urn;
use lab_core::plan::{names, nearest};

/// Returns the one among `known` that a person who says `target` means. `place` is what messages call them all.
pub(crate) fn one<'a>(
    target: &str,
    known: impl Iterator<Item = &'a Urn> + Clone,
    place: &str,
) -> Result<&'a Urn, Trouble> {
    let mut meant: Vec<&Urn> = known.clone().filter(|urn| names(urn, target)).collect();
    if meant.is_empty() {
        meant = known.clone().filter(|urn| urn.name() == target).collect();
    }
    match meant.as_slice() {
        [urn] => Ok(urn),
        [] => {
            let trouble = Trouble::new(format!("there is no {target:?} in {place}"));
            Err(match nearest(known, target) {
                Some(near) => trouble.hint(format!("did you mean {near:?}?")),
                None => trouble.because("nothing is in it"),
            })
        }
        several => {
            let urns: Vec<String> = several.iter().map(ToString::to_string).collect();
            Err(Trouble::new(format!("{target:?} may be any of {} resources", several.len()))
                .hint(format!("say which:\n{}", urns.join("\n"))))
        }
    }
}

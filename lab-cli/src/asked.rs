//! What a person means by a name.

use crate::trouble::Trouble;
use lab_core::Urn;

/// Returns the one that a person who says `target` means.
pub(crate) fn one<'a>(
    target: &str,
    known: impl Iterator<Item = &'a Urn> + Clone,
    where_: &str,
) -> Result<&'a Urn, Trouble> {
    let meant: Vec<&Urn> = known.clone().filter(|urn| names(urn, target)).collect();
    match meant.as_slice() {
        [urn] => Ok(urn),
        [] => {
            let trouble = Trouble::new(format!("there is no {target:?} in {where_}"));
            Err(match near(target, known.map(Urn::short)) {
                Some(near) => trouble.hint(format!("did you mean {near}?")),
                None => trouble.hint(format!("{where_} is empty")),
            })
        }
        several => {
            let urns: Vec<String> = several.iter().map(ToString::to_string).collect();
            Err(Trouble::new(format!("{target:?} may be {} resources", several.len()))
                .hint(format!("say which: {}", urns.join(", "))))
        }
    }
}

/// Returns true when a person who says `target` means `urn`: the URN, the name with its path, or its last part.
fn names(urn: &Urn, target: &str) -> bool {
    urn.as_str() == target || urn.short() == target || format!("{} {}", urn.kind(), urn.short()) == target
}

/// Returns the names that are nearest to `target`, quoted; at most three.
pub(crate) fn near(target: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let mut names: Vec<(usize, String)> = known.map(|name| (distance(&name, target), name)).collect();
    names.sort();
    names.dedup();
    let best = names.first()?.0;
    let near: Vec<String> = names
        .into_iter()
        .take_while(|(distance, _)| *distance <= best + 1)
        .take(3)
        .map(|(_, name)| format!("{name:?}"))
        .collect();
    Some(near.join(" or "))
}

/// Returns how many letters have to be put in, taken out or changed to come from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let cost = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

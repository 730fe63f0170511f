//! What is occupied twice.

use super::plan::Problem;
use crate::model::{Claim, Place, Urn};
use serde::{Deserialize, Serialize};

/// A claim and who holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// Who.
    pub urn: Urn,
    /// Where that was declared.
    pub place: Place,
    /// What.
    pub claim: Claim,
}

/// A claim of another stack of the same lab directory.
pub type ForeignClaim = Held;

/// Returns a problem for every two claims that clash, naming both sides and both lines.
///
/// Claims are sorted by where they begin, so each is compared only with those that begin before it ends.
pub(super) fn clashes(held: &[Held], foreign: &[ForeignClaim]) -> Vec<Problem> {
    let mut all: Vec<(&Held, bool)> = held.iter().map(|held| (held, false)).collect();
    all.extend(foreign.iter().map(|held| (held, true)));
    all.sort_by(|(a, _), (b, _)| {
        (&a.claim.space, a.claim.from, &a.urn, a.claim.to).cmp(&(&b.claim.space, b.claim.from, &b.urn, b.claim.to))
    });
    let mut problems = Vec::new();
    for (n, (a, a_foreign)) in all.iter().enumerate() {
        for (b, b_foreign) in &all[n + 1..] {
            if b.claim.space != a.claim.space || b.claim.from > a.claim.to {
                break;
            }
            if (*a_foreign && *b_foreign) || a.urn == b.urn || !a.claim.clashes(&b.claim) {
                continue;
            }
            problems.push(Problem {
                urn: Some(if *b_foreign { a.urn.clone() } else { b.urn.clone() }),
                places: vec![a.place.clone(), b.place.clone()],
                message: format!(
                    "{} of {} overlaps {} of {}",
                    a.claim,
                    who(a, *a_foreign),
                    b.claim,
                    who(b, *b_foreign)
                ),
                hint: Some("give one of them another place".into()),
            });
        }
    }
    problems
}

fn who(held: &Held, foreign: bool) -> String {
    let name = held.urn.short();
    if foreign { format!("{name} in stack {}", held.urn.stack()) } else { name }
}

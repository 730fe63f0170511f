//! What is occupied twice.

use super::plan::Problem;
use crate::model::{Claim, Declared, Hold, Place, Record, State, Urn};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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

/// Why something stays that no line declares.
#[derive(Clone, Copy)]
pub(super) enum Kept {
    LeftBehind,
    /// By this plan.
    LeavesBehind,
    Retained,
}

/// Returns a problem for every claim that something has which stays though no line says so: what was left behind where nobody
/// could reach it, and what is retained.
pub(super) fn kept<'s>(
    held: &[Held],
    kept: impl Iterator<Item = (&'s Urn, &'s Record, Kept)>,
    declared: &Declared,
    state: &State,
) -> Vec<Problem> {
    let mut kept = kept.peekable();
    if kept.peek().is_none() {
        return Vec::new();
    }
    let claims = Claims::new(held.iter().map(|held| (held, &held.claim)));
    let mut problems = Vec::new();
    for (urn, record, why) in kept {
        // The next one of the same line may find it, and says so where it is in the way; another line may take it over.
        let it = |held: &Held| {
            let import = declared.node(&held.urn).and_then(|node| node.options.import.as_ref());
            held.urn == *urn || import.is_some() && import == record.id.as_ref()
        };
        for (held, _) in record.occupies().flat_map(|taken| claims.of(taken)).filter(|(held, _)| !it(held)) {
            let (what, hint) = match why {
                Kept::LeftBehind => ("was left behind when what contained it went", None),
                Kept::LeavesBehind => ("is left behind, as what contained it is gone", None),
                Kept::Retained => {
                    ("is retained", Some("give one of them another place, or delete that one".to_owned()))
                }
            };
            let by_mark = || state.condemned.contains_key(&record.mark);
            let forget = || if by_mark() { record.mark.to_string() } else { urn.short() };
            problems.push(Problem {
                urn: Some(held.urn.clone()),
                places: vec![held.place.clone(), record.spec.place.clone()],
                message: format!(
                    "{} of {} is still taken by {}, which {what}",
                    held.claim,
                    held.urn.short(),
                    urn.short()
                ),
                hint: hint.or_else(|| Some(format!("delete that by hand, then `state forget {}`", forget()))),
            });
        }
    }
    problems
}

/// Returns a problem for every space in which more is taken than there is room for, naming every share and every line.
pub(super) fn shortages(held: &[Held], foreign: &[ForeignClaim]) -> Vec<Problem> {
    type Space<'a> = (&'a str, Option<&'a str>);
    let mut spaces: BTreeMap<Space<'_>, Vec<(&Held, bool)>> = BTreeMap::new();
    let all = held.iter().map(|held| (held, false)).chain(foreign.iter().map(|held| (held, true)));
    for (held, is_foreign) in all.filter(|(held, _)| matches!(held.claim.hold, Hold::Room | Hold::Share)) {
        spaces.entry((&held.claim.space, held.claim.realm.as_deref())).or_default().push((held, is_foreign));
    }
    let mut problems = Vec::new();
    for ((space, _), claims) in spaces {
        let of = |hold: Hold| claims.iter().filter(move |(held, _)| held.claim.hold == hold);
        let Some((room, _)) = of(Hold::Room).min_by_key(|(held, _)| held.claim.to) else { continue };
        let taken = of(Hold::Share).fold(0u128, |sum, (held, _)| sum.saturating_add(held.claim.to));
        // What is short among others is for them to see.
        let Some((ours, _)) =
            of(Hold::Share).find(|(_, foreign)| !foreign).or(of(Hold::Room).find(|(_, foreign)| !foreign))
        else {
            continue;
        };
        if taken <= room.claim.to {
            continue;
        }
        let shares: Vec<String> =
            of(Hold::Share).map(|(held, foreign)| format!("{} by {}", held.claim.text, who(held, *foreign))).collect();
        problems.push(Problem {
            urn: Some(ours.urn.clone()),
            places: of(Hold::Share).map(|(held, _)| held.place.clone()).chain([room.place.clone()]).collect(),
            message: format!("{taken} {space} are taken, of {}: {}", room.claim.text, shares.join(", ")),
            hint: Some("make some of them smaller, or put them elsewhere".into()),
        });
    }
    problems
}

/// Who occupies something, as recorded.
#[derive(Clone, Copy)]
pub(super) struct Holder<'a> {
    pub(super) urn: &'a Urn,
    pub(super) record: &'a Record,
}

/// Returns who occupies what, as recorded.
pub(super) fn holders(state: &State) -> Claims<'_, Holder<'_>> {
    Claims::new(state.occupied().map(|(urn, record, claim)| (Holder { urn, record }, claim)))
}

/// Claims by what they occupy, so that whoever clashes with one is found without looking at all others.
pub(super) struct Claims<'a, T> {
    /// In each space by where they begin, with the farthest end of any up to there.
    spaces: BTreeMap<&'a str, Vec<(T, &'a Claim, u128)>>,
}

impl<'a, T: Copy> Claims<'a, T> {
    pub(super) fn new(all: impl Iterator<Item = (T, &'a Claim)>) -> Claims<'a, T> {
        let mut spaces: BTreeMap<&str, Vec<(T, &Claim, u128)>> = BTreeMap::new();
        for (holder, claim) in all {
            spaces.entry(claim.space.as_str()).or_default().push((holder, claim, claim.to));
        }
        for holders in spaces.values_mut() {
            holders.sort_by_key(|(_, claim, _)| claim.from);
            let mut farthest = 0;
            for (.., to) in holders {
                farthest = farthest.max(*to);
                *to = farthest;
            }
        }
        Claims { spaces }
    }

    /// Returns every claim that clashes with `claim`, with its holder.
    pub(super) fn of(&self, claim: &Claim) -> impl Iterator<Item = (T, &'a Claim)> {
        let holders = self.spaces.get(claim.space.as_str()).map(Vec::as_slice).unwrap_or_default();
        let begun = holders.partition_point(|(_, other, _)| other.from <= claim.to);
        let near = holders[..begun].iter().rev().take_while(|(.., farthest)| *farthest >= claim.from);
        near.map(|(holder, other, _)| (*holder, *other)).filter(|(_, other)| other.clashes(claim))
    }
}

fn who(held: &Held, foreign: bool) -> String {
    let name = held.urn.short();
    if foreign { format!("{name} in stack {}", held.urn.stack()) } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(stack: &str, name: &str, line: u32, claim: Claim) -> Held {
        let place = Place { file: "lab.rs".into(), line };
        Held { urn: Urn::new(stack, "pve", &[], "vm", name), place, claim }
    }

    const SPACE: &str = "MiB of memory on pve1";

    #[test]
    fn shares_may_fill_the_room_and_not_one_more() {
        let room = held("lab", "pve1", 1, Claim::room(SPACE, 3000));
        let shares = [("a", 2), ("b", 3)].map(|(name, line)| held("lab", name, line, Claim::share(SPACE, 1500)));
        let mut all = vec![room];
        all.extend(shares);
        assert!(shortages(&all, &[]).is_empty() && clashes(&all, &[]).is_empty());
        all.push(held("lab", "c", 4, Claim::share(SPACE, 1)));
        let problems = shortages(&all, &[]);
        assert_eq!(problems.len(), 1);
        let lines: Vec<u32> = problems[0].places.iter().map(|place| place.line).collect();
        assert_eq!(lines, [2, 3, 4, 1], "every line that takes some, and the one that offers it");
        insta::assert_snapshot!(problems[0].message, @"3001 MiB of memory on pve1 are taken, of 3000: 1500 by a, 1500 by b, 1 by c");
    }

    #[test]
    fn other_stacks_take_of_the_same_room_and_the_least_that_is_offered_counts() {
        let ours = [held("dev", "pve1", 1, Claim::room(SPACE, 4000)), held("dev", "a", 2, Claim::share(SPACE, 2000))];
        let theirs =
            [held("prod", "pve1", 1, Claim::room(SPACE, 3000)), held("prod", "b", 2, Claim::share(SPACE, 1500))];
        let problems = shortages(&ours, &theirs);
        insta::assert_snapshot!(problems[0].message, @"3500 MiB of memory on pve1 are taken, of 3000: 2000 by a, 1500 by b in stack prod");
        assert!(shortages(&[], &theirs).is_empty());
    }

    #[test]
    fn what_is_numbered_within_a_realm_clashes_within_it_only() {
        let of = |realm: &str, claim: Claim| {
            let mut claim = claim.of_realm();
            claim.put_in(realm);
            claim
        };
        let machine = |realm: &str| of(realm, Claim::number("VM id", 100));
        let ours = [held("dev", "a", 1, machine("proxmox:attic"))];
        assert!(clashes(&ours, &[held("prod", "b", 2, machine("proxmox:cellar"))]).is_empty());
        let problems = clashes(&ours, &[held("prod", "b", 2, machine("proxmox:attic"))]);
        assert_eq!(problems[0].message, "VM id 100 of a overlaps VM id 100 of b in stack prod");
        // Of one that was recorded before realms were, nobody knows.
        assert_eq!(clashes(&ours, &[held("prod", "b", 2, Claim::number("VM id", 100))]).len(), 1);
        let room = |realm: &str, name: &str| held("dev", name, 1, of(realm, Claim::room(SPACE, 1000)));
        let share = |realm: &str, name: &str| held("dev", name, 2, of(realm, Claim::share(SPACE, 800)));
        let all = [room("attic", "pve1"), share("attic", "a"), room("cellar", "other"), share("cellar", "b")];
        assert!(shortages(&all, &[]).is_empty());
        assert_eq!(shortages(&all, &[share("attic", "c")]).len(), 1);
    }

    #[test]
    fn where_no_room_is_offered_nothing_is_short() {
        let shares = [held("lab", "a", 1, Claim::share(SPACE, u128::MAX)), held("lab", "b", 2, Claim::share(SPACE, 9))];
        assert!(shortages(&shares, &[]).is_empty());
    }
}

//! A rolling group of odd things.

use super::{Chore, Look, Odd, Shop, Turn, Yard, settled, yard};
use lab_core::testing::Bench;
use lab_core::{ProgramError, Stack};
use std::sync::Arc;

/// What the members are called.
pub const NAMES: [&str; 4] = ["m1", "m2", "m3", "m4"];

/// A group of members that are away while they change, with a gate and acts around each.
#[derive(Clone, Copy)]
pub struct Fleet {
    pub members: usize,
    pub at_most: usize,
    pub say: [&'static str; 4],
    pub turn: Turn,
    pub gate: bool,
    pub acts: bool,
}

impl Default for Fleet {
    fn default() -> Fleet {
        Fleet { members: 3, at_most: 1, say: ["old"; 4], turn: Turn::Interrupt, gate: true, acts: false }
    }
}

impl Fleet {
    pub fn saying(self, say: &'static str) -> Fleet {
        Fleet { say: [say; 4], ..self }
    }

    pub fn declare(&self, stack: &Stack) -> Result<(), ProgramError> {
        let shop = stack.provider("shop", Shop::at("shop"));
        let group = stack.rolling("fleet", self.at_most);
        if self.gate {
            group.gate(&shop, Look { tolerates: self.at_most - 1 });
        }
        for (name, say) in NAMES.iter().zip(self.say).take(self.members) {
            let missed = Some(format!("{name} takes its place"));
            let natural = self.turn != Turn::CreateFirst;
            let member = Odd { natural, turn: self.turn, calls: 2, missed, ..Odd::new(name, say) };
            let member = shop.resource(name).rolling(&group).add(member);
            if self.acts {
                let drain = Chore { what: format!("drain {name}") };
                group.before(&shop, member.urn(), &format!("drain-{name}"), drain);
                let uncordon = Chore { what: format!("uncordon {name}") };
                group.after(&shop, member.urn(), &format!("uncordon-{name}"), uncordon);
            }
        }
        Ok(())
    }

    pub fn program(self) -> impl Fn(&Stack) -> Result<(), ProgramError> + Copy {
        move |stack: &Stack| self.declare(stack)
    }
}

/// Returns a group that was applied, and a yard that knows of nothing that was done.
pub fn applied(fleet: Fleet) -> (Bench, Arc<Yard>) {
    let (bench, yard) = yard();
    bench.up_whole(fleet.program());
    settled(&bench, fleet.program());
    forget(&yard);
    (bench, yard)
}

/// Forgets what was done.
pub fn forget(yard: &Yard) {
    yard.log();
    yard.contents().most_away = 0;
}

/// Returns how many were away at most.
pub fn most_away(yard: &Yard) -> usize {
    yard.contents().most_away
}

/// Returns when something was done.
pub fn position(log: &[String], what: &str) -> usize {
    log.iter().position(|call| call == what).unwrap_or_else(|| panic!("{what} is not in {log:?}"))
}

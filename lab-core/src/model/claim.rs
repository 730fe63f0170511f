//! What a resource occupies exclusively, and what its operations take turns at.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::net::IpAddr;

/// Something occupied exclusively within a space: an address or a range of them, a VM id, a MAC, a host name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The space: `"address"`, `"vm:pve"`, `"host name"`.
    pub space: String,
    /// The first that is occupied.
    #[serde(with = "hex128")]
    pub from: u128,
    /// The last that is occupied.
    #[serde(with = "hex128")]
    pub to: u128,
    /// How it is held.
    pub hold: Hold,
    /// What a person would call it: `10.69.1.150-10.69.1.160`.
    pub text: String,
    /// The realm within which it is compared: another one has the same numbers. None: the whole lab. A type says that
    /// there is one with [`Claim::of_realm`]; the engine fills in which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realm: Option<String>,
}

/// How a claim is held, which says what it tolerates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// Alone: nothing may overlap it. A machine's address.
    Alone,
    /// As a pool: only what is drawn from it may lie within. MetalLB's range.
    Pool,
    /// Drawn from a pool: may lie within one, but is otherwise alone. The address of a load balancer.
    Drawn,
    /// Offered as room for shares, which may not add up to more: the memory of a host.
    Room,
    /// A share of the room in the same space: the memory of a machine on that host.
    Share,
}

impl Claim {
    /// Returns the claim of one IP address. IPv4 addresses are claimed as their IPv4-mapped IPv6 ones.
    pub fn address(address: IpAddr) -> Claim {
        let n = number(address);
        Claim { space: "address".into(), from: n, to: n, hold: Hold::Alone, text: address.to_string(), realm: None }
    }

    /// Returns the claim of the addresses `from` to `to`, both included.
    pub fn addresses(from: IpAddr, to: IpAddr) -> Claim {
        let text = format!("{from}-{to}");
        Claim { space: "address".into(), from: number(from), to: number(to), hold: Hold::Alone, text, realm: None }
    }

    /// Returns the claim of one number in `space`, such as a VM id or a port.
    pub fn number(space: impl Into<String>, n: u128) -> Claim {
        Claim { space: space.into(), from: n, to: n, hold: Hold::Alone, text: n.to_string(), realm: None }
    }

    /// Returns the claim of one name in `space`, such as a host name; names are compared as given.
    pub fn name(space: impl Into<String>, name: &str) -> Claim {
        let hash = Sha256::digest(name.as_bytes());
        let n = u128::from_be_bytes(hash[..16].try_into().expect("SHA-256 has 32 bytes"));
        Claim { space: space.into(), from: n, to: n, hold: Hold::Alone, text: name.to_owned(), realm: None }
    }

    /// Returns room for `amount` in `space`, which names the unit: `"MiB of memory on pve1"`. When it is offered more
    /// than once, the least counts.
    pub fn room(space: impl Into<String>, amount: u128) -> Claim {
        Claim { space: space.into(), from: 0, to: amount, hold: Hold::Room, text: amount.to_string(), realm: None }
    }

    /// Returns a share of `amount` of the room in `space`. Where no room is offered, nothing limits it. Shares are added
    /// up when the plan is made, so an amount should not depend on what is known only later.
    pub fn share(space: impl Into<String>, amount: u128) -> Claim {
        Claim { hold: Hold::Share, ..Claim::room(space, amount) }
    }

    /// Returns the same claim as a pool that others may be drawn from.
    pub fn pool(self) -> Claim {
        Claim { hold: Hold::Pool, ..self }
    }

    /// Returns the same claim as one drawn from a pool.
    pub fn drawn(self) -> Claim {
        Claim { hold: Hold::Drawn, ..self }
    }

    /// Returns the same claim as one within the realm of whatever has it: a VM id is one of a cluster, and another
    /// cluster has the same.
    pub fn of_realm(self) -> Claim {
        Claim { realm: Some(String::new()), ..self }
    }

    /// Says in which realm it is, if it is in one.
    pub(crate) fn put_in(&mut self, realm: &str) {
        if let Some(own) = &mut self.realm {
            realm.clone_into(own);
        }
    }

    /// Returns true when both cannot be held at the same time.
    pub fn clashes(&self, other: &Claim) -> bool {
        if self.realm.is_some() && other.realm.is_some() && self.realm != other.realm {
            return false;
        }
        let adds = |claim: &Claim| matches!(claim.hold, Hold::Room | Hold::Share);
        if adds(self) || adds(other) {
            return false;
        }
        let overlap = self.space == other.space && self.from <= other.to && other.from <= self.to;
        let within = |pool: &Claim, drawn: &Claim| {
            pool.hold == Hold::Pool && drawn.hold == Hold::Drawn && pool.from <= drawn.from && drawn.to <= pool.to
        };
        overlap && !within(self, other) && !within(other, self)
    }
}

/// JSON has no integers of 128 bits: they are written as 32 hexadecimal digits.
mod hex128 {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(n: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{n:032x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.space, self.text)
    }
}

/// Something that operations take turns at: a template that is cloned, a node that is busy, an API that is slow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// What it is.
    pub name: String,
    /// How much of it there is.
    pub capacity: u32,
    /// How much of it this takes.
    pub weight: u32,
}

impl Lock {
    /// Returns a lock that one operation holds at a time.
    pub fn exclusive(name: impl Into<String>) -> Lock {
        Lock { name: name.into(), capacity: 1, weight: 1 }
    }
}

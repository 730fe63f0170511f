//! Addresses of a lab: a subnet, hosts in it, ranges of it.

use super::declare::Place;
use super::scope::ProgramError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 network with a prefix length: `10.69.1.0/24`; in a file also with its gateway, `10.69.1.0/24 via 10.69.1.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Subnet {
    network: Ipv4Addr,
    prefix: u8,
    gateway: Option<Ipv4Addr>,
}

/// A machine's place in a subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The host name.
    pub name: String,
    /// The address.
    pub address: Ipv4Addr,
    /// The subnet it lies in.
    pub subnet: Subnet,
    /// The line that gave the address.
    pub place: Place,
}

/// A range of addresses, both ends included: `10.69.1.200-10.69.1.210`, in a file also `10.69.1.200-210`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Range {
    /// The first.
    pub from: Ipv4Addr,
    /// The last.
    pub to: Ipv4Addr,
}

impl Subnet {
    /// Reads a network in CIDR notation.
    pub fn new(cidr: &str) -> Result<Subnet, ProgramError> {
        let wrong = |why: &str| ProgramError::new(format!("{cidr:?} is not a subnet such as 10.0.0.0/24: {why}"));
        let (network, prefix) = cidr.split_once('/').ok_or_else(|| wrong("there is no `/`"))?;
        let network: Ipv4Addr = network.parse().map_err(|_| wrong("the address does not parse"))?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong("the prefix length does not parse"))?;
        if prefix > 30 {
            return Err(wrong("a prefix of more than 30 bits has no room for hosts"));
        }
        let subnet = Subnet { network, prefix, gateway: None };
        if network.to_bits() & !subnet.mask() != 0 {
            return Err(wrong("the address has bits beyond the prefix"));
        }
        Ok(subnet)
    }

    fn mask(&self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0)
    }

    /// Sets the gateway; it must lie in the subnet.
    pub fn gateway(mut self, gateway: &str) -> Result<Subnet, ProgramError> {
        let address: Ipv4Addr =
            gateway.parse().map_err(|_| ProgramError::new(format!("the gateway {gateway:?} is not an address")))?;
        if !self.holds(address) {
            return Err(ProgramError::new(format!("the gateway {address} does not lie in {self}")));
        }
        self.gateway = Some(address);
        Ok(self)
    }

    /// Returns the gateway, when one was set.
    pub fn router(&self) -> Option<Ipv4Addr> {
        self.gateway
    }

    /// Returns the prefix length in bits.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Returns true when `address` lies in the subnet.
    pub fn holds(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask() == self.network.to_bits()
    }

    /// Returns the `n`-th address; neither the network's own nor the broadcast address.
    pub fn address(&self, n: u32) -> Result<Ipv4Addr, ProgramError> {
        let last = !self.mask();
        if n == 0 || n >= last {
            return Err(ProgramError::new(format!("{self} has no host number {n}: they go from 1 to {}", last - 1)));
        }
        Ok(Ipv4Addr::from_bits(self.network.to_bits() + n))
    }

    /// Returns a named host at the `n`-th address.
    #[track_caller]
    pub fn host(&self, name: &str, n: u32) -> Result<Host, ProgramError> {
        Ok(Host { name: name.to_owned(), address: self.address(n)?, subnet: *self, place: Place::here() })
    }

    /// Returns the addresses from the `from`-th to the `to`-th.
    pub fn range(&self, from: u32, to: u32) -> Result<Range, ProgramError> {
        if from > to {
            return Err(ProgramError::new(format!("the range from {from} to {to} of {self} ends before it begins")));
        }
        Ok(Range { from: self.address(from)?, to: self.address(to)? })
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.from, self.to)
    }
}

impl FromStr for Subnet {
    type Err = ProgramError;

    fn from_str(text: &str) -> Result<Subnet, ProgramError> {
        match text.split_once(" via ") {
            Some((network, gateway)) => Subnet::new(network.trim())?.gateway(gateway.trim()),
            None => Subnet::new(text),
        }
    }
}

impl TryFrom<String> for Subnet {
    type Error = ProgramError;

    fn try_from(text: String) -> Result<Subnet, ProgramError> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> String {
        match subnet.gateway {
            Some(gateway) => format!("{subnet} via {gateway}"),
            None => subnet.to_string(),
        }
    }
}

impl FromStr for Range {
    type Err = ProgramError;

    fn from_str(text: &str) -> Result<Range, ProgramError> {
        let wrong =
            || ProgramError::new(format!("{text:?} is not a range such as 10.0.0.50-10.0.0.69 or 10.0.0.50-69"));
        let (from, to) = text.split_once('-').ok_or_else(wrong)?;
        let from: Ipv4Addr = from.trim().parse().map_err(|_| wrong())?;
        let to = match to.trim().parse::<u8>() {
            Ok(last) => {
                let [a, b, c, _] = from.octets();
                Ipv4Addr::new(a, b, c, last)
            }
            Err(_) => to.trim().parse().map_err(|_| wrong())?,
        };
        if from > to {
            return Err(ProgramError::new(format!("the range {text:?} ends before it begins")));
        }
        Ok(Range { from, to })
    }
}

impl TryFrom<String> for Range {
    type Error = ProgramError;

    fn try_from(text: String) -> Result<Range, ProgramError> {
        text.parse()
    }
}

impl From<Range> for String {
    fn from(range: Range) -> String {
        range.to_string()
    }
}

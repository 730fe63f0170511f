//! A network segment, so that no two environments use the same one.

use crate::client::Client;
use crate::provider::Proxmox;
use lab_core::{Claim, Error, Found, Made, Op, Resource, Result, Step, Subnet};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// A VLAN on a bridge with its subnet, which belongs to one environment alone.
///
/// It exists only in the state: bridges and switches are set up elsewhere. Another segment with the same VLAN on the
/// same bridge, or with addresses in common, in any stack of the lab directory, is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The bridge: `vmbr0`.
    pub bridge: String,
    /// The VLAN, 1 to 4094; none: untagged.
    pub vlan: Option<u16>,
    /// The addresses.
    pub subnet: Subnet,
}

impl Segment {
    /// Returns a segment.
    pub fn new(bridge: impl Into<String>, vlan: Option<u16>, subnet: Subnet) -> Segment {
        Segment { bridge: bridge.into(), vlan, subnet }
    }
}

impl Resource<Proxmox> for Segment {
    const TYPE: &'static str = "proxmox:segment";
    const GENERATED: bool = true;
    type Outputs = ();

    fn claims(&self) -> Vec<Claim> {
        let vlan = self.vlan.unwrap_or_default();
        let mut claims = vec![Claim::number(format!("VLAN of {}:", self.bridge), u128::from(vlan)).of_realm()];
        // The first host follows the network's own address.
        if let Ok(first) = self.subnet.address(1) {
            let from = first.to_bits() - 1;
            let to = from | u32::MAX.checked_shr(u32::from(self.subnet.prefix())).unwrap_or(0);
            let range = Claim::addresses(Ipv4Addr::from_bits(from).into(), Ipv4Addr::from_bits(to).into());
            claims.push(Claim { space: "subnet".into(), text: self.subnet.to_string(), ..range });
        }
        claims
    }

    async fn find(_: &Client, _: &Op<Segment>) -> Result<Found<()>> {
        Err(Error::invalid("a segment is only in the state"))
    }

    async fn apply(&self, _: &Client, _: &Op<Segment>) -> Result<Step<()>> {
        Ok(Step::Done(Made::new(format!("{} {}", self.bridge, self.vlan.unwrap_or_default()), ())))
    }

    async fn delete(_: &Client, _: &Op<Segment>) -> Result<Step<()>> {
        Ok(Step::gone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vlan_and_every_address_of_its_subnet_belong_to_one_segment() {
        let segment = |vlan, subnet| Segment::new("vmbr0", Some(vlan), Subnet::new(subnet).unwrap()).claims();
        let clash = |a: Vec<Claim>, b: Vec<Claim>| a.iter().any(|a| b.iter().any(|b| a.clashes(b)));
        let dev = || segment(110, "192.168.10.0/24");
        assert!(!clash(dev(), segment(120, "192.168.20.0/24")));
        assert!(clash(dev(), segment(110, "192.168.20.0/24")));
        assert!(clash(dev(), segment(120, "192.168.10.128/25")));
        assert!(!clash(dev(), segment(120, "192.168.11.0/24")));
    }
}

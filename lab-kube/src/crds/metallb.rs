//! MetalLB 0.14.9: which addresses there are and who answers for them.

use super::{LabelSelector, kind};
use serde::{Deserialize, Serialize};

kind!(
    /// Addresses that LoadBalancer Services get. Without an advertisement nobody answers for them.
    IPAddressPool,
    IPAddressPoolSpec,
    "metallb.io/v1beta1"
);

/// What a pool holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IPAddressPoolSpec {
    /// Ranges (`10.0.0.1-10.0.0.9`) or blocks (`10.0.0.0/28`).
    pub addresses: Vec<String>,
    /// Whether Services that ask for no address get one from here; yes by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_assign: Option<bool>,
    /// Whether addresses that end in .0 or .255 are left out; no by default.
    #[serde(rename = "avoidBuggyIPs", default, skip_serializing_if = "Option::is_none")]
    pub avoid_buggy_ips: Option<bool>,
    /// Which Services may use the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_allocation: Option<ServiceAllocation>,
}

impl IPAddressPoolSpec {
    /// Returns the pool of these ranges or blocks.
    pub fn new(addresses: Vec<String>) -> IPAddressPoolSpec {
        IPAddressPoolSpec { addresses, ..IPAddressPoolSpec::default() }
    }
}

/// Which Services may use a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAllocation {
    /// Which pool comes first: the lowest number above zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// Namespaces of the Services.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Namespaces of the Services, by label.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespace_selectors: Vec<LabelSelector>,
    /// The Services, by label.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_selectors: Vec<LabelSelector>,
}

kind!(
    /// Answers ARP and NDP for the addresses of pools.
    L2Advertisement,
    L2AdvertisementSpec,
    "metallb.io/v1beta1"
);

/// For what and from where it answers. Empty: for all pools, from all nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct L2AdvertisementSpec {
    /// The pools, by name.
    #[serde(rename = "ipAddressPools", default, skip_serializing_if = "Vec::is_empty")]
    pub ip_address_pools: Vec<String>,
    /// The pools, by label.
    #[serde(rename = "ipAddressPoolSelectors", default, skip_serializing_if = "Vec::is_empty")]
    pub ip_address_pool_selectors: Vec<LabelSelector>,
    /// The nodes that may answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_selectors: Vec<LabelSelector>,
    /// The network interfaces they answer on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<String>,
}

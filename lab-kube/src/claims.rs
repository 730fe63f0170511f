//! Which addresses an object occupies.
//!
//! Node ports and host names of ingresses are not claimed: both are occupied within one cluster only, which an object
//! does not know, and several ingresses may well share a host name.

use crate::json::{group, list, text};
use lab_core::Claim;
use serde_json::Value;
use std::net::IpAddr;

/// The annotation by which a Service asks MetalLB for addresses, separated by commas.
const ADDRESSES: &str = "/metadata/annotations/metallb.io~1loadBalancerIPs";
/// The annotation by which Services share an address, told apart by their ports.
const SHARED: &str = "/metadata/annotations/metallb.io~1allow-shared-ip";

/// Returns whether a kind occupies anything.
pub(crate) fn may_claim(body: &Value) -> bool {
    matches!((group(body), text(body, "/kind")), ("", "Service") | ("metallb.io", "IPAddressPool"))
}

/// Returns what an object occupies. What is not an address is left to the cluster to refuse.
pub(crate) fn claims(body: &Value) -> Vec<Claim> {
    match (group(body), text(body, "/kind")) {
        ("metallb.io", "IPAddressPool") => {
            list(body, "/spec/addresses").iter().filter_map(Value::as_str).filter_map(pool).map(Claim::pool).collect()
        }
        // Of those that share an address none has it alone.
        ("", "Service") if text(body, "/spec/type") == "LoadBalancer" && text(body, SHARED).is_empty() => {
            let annotated = text(body, ADDRESSES).split(',');
            let mut addresses: Vec<IpAddr> = annotated
                .chain(std::iter::once(text(body, "/spec/loadBalancerIP")))
                .filter_map(|address| address.trim().parse().ok())
                .collect();
            addresses.sort();
            addresses.dedup();
            addresses.into_iter().map(|address| Claim::address(address).drawn()).collect()
        }
        _ => Vec::new(),
    }
}

/// Reads `10.0.0.1-10.0.0.9` or `10.0.0.0/28`.
fn pool(text: &str) -> Option<Claim> {
    if let Some((from, to)) = text.split_once('-') {
        return Some(Claim::addresses(from.trim().parse().ok()?, to.trim().parse().ok()?));
    }
    let (address, prefix) = text.split_once('/')?;
    let (address, prefix): (IpAddr, u32) = (address.trim().parse().ok()?, prefix.trim().parse().ok()?);
    let (from, to) = match address {
        IpAddr::V4(v4) => {
            let hosts = u32::MAX.checked_shr(prefix).unwrap_or(0);
            (prefix <= 32).then_some(())?;
            (IpAddr::V4((v4.to_bits() & !hosts).into()), IpAddr::V4((v4.to_bits() | hosts).into()))
        }
        IpAddr::V6(v6) => {
            let hosts = u128::MAX.checked_shr(prefix).unwrap_or(0);
            (prefix <= 128).then_some(())?;
            (IpAddr::V6((v6.to_bits() & !hosts).into()), IpAddr::V6((v6.to_bits() | hosts).into()))
        }
    };
    Some(Claim { text: text.to_owned(), ..Claim::addresses(from, to) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(body: Value, expected: &[&str]) {
        let claims = claims(&body);
        assert_eq!(claims.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{body}");
    }

    fn one(from: &str, to: &str) -> Claim {
        Claim::addresses(from.parse().unwrap(), to.parse().unwrap())
    }

    #[test]
    fn a_pool_occupies_its_ranges_and_blocks() {
        let addresses = json!(["10.69.1.150-10.69.1.160", "10.69.2.16/28", "fd00::/126", "nonsense"]);
        let body =
            json!({"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "spec": {"addresses": addresses}});
        check(body.clone(), &["address 10.69.1.150-10.69.1.160", "address 10.69.2.16/28", "address fd00::/126"]);
        let held = claims(&body);
        assert_eq!(
            (held[1].from, held[1].to),
            (one("10.69.2.16", "10.69.2.31").from, one("10.69.2.16", "10.69.2.31").to)
        );
        assert_eq!((held[2].from, held[2].to), (one("fd00::", "fd00::3").from, one("fd00::", "fd00::3").to));
        // The story: a worker with an address out of the pool.
        assert!(held[0].clashes(&Claim::address("10.69.1.151".parse().unwrap())));
    }

    #[test]
    fn a_service_draws_its_address_from_the_pool() {
        let service = |annotations: Value, spec: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"annotations": annotations}, "spec": spec});
        let asked = json!({"metallb.io/loadBalancerIPs": "10.69.1.155, fd00::1"});
        let body = service(asked.clone(), json!({"type": "LoadBalancer"}));
        check(body.clone(), &["address 10.69.1.155", "address fd00::1"]);
        let pool = one("10.69.1.150", "10.69.1.160").pool();
        assert!(!claims(&body)[0].clashes(&pool));
        check(service(json!({}), json!({"type": "LoadBalancer", "loadBalancerIP": "10.0.0.9"})), &["address 10.0.0.9"]);
        check(service(asked, json!({"type": "ClusterIP"})), &[]);
        let shared = json!({"metallb.io/loadBalancerIPs": "10.69.1.155", "metallb.io/allow-shared-ip": "plex"});
        check(service(shared, json!({"type": "LoadBalancer"})), &[]);
    }
}

//! What an object yields to the rest of the program.

use crate::json::{list, text};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What an object yields: little, and nothing that changes by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectOutputs {
    /// The name.
    pub name: String,
    /// The namespace; none for what belongs to the whole cluster.
    pub namespace: Option<String>,
    /// The uid, which only a replacement changes.
    pub uid: String,
    /// Where a Service answers: the address or host name of its load balancer, else its address within the cluster.
    /// None for a headless Service and for every other kind.
    pub address: Option<String>,
}

impl ObjectOutputs {
    pub(crate) fn of(object: &Value) -> ObjectOutputs {
        let field = |path: &str| Some(text(object, path).to_owned()).filter(|field| !field.is_empty());
        ObjectOutputs {
            name: text(object, "/metadata/name").to_owned(),
            namespace: field("/metadata/namespace"),
            uid: text(object, "/metadata/uid").to_owned(),
            address: address(object),
        }
    }
}

/// What of a Service decides about its address.
pub(crate) const ADDRESS: [&str; 6] = [
    "/spec/type",
    "/spec/clusterIP",
    "/spec/loadBalancerIP",
    "/spec/loadBalancerClass",
    "/metadata/annotations/metallb.io~1loadBalancerIPs",
    "/metadata/annotations/metallb.io~1address-pool",
];

fn address(object: &Value) -> Option<String> {
    if (text(object, "/apiVersion"), text(object, "/kind")) != ("v1", "Service") {
        return None;
    }
    let given = |address: &str| Some(address.to_owned()).filter(|address| !address.is_empty() && address != "None");
    if text(object, "/spec/type") == "LoadBalancer" {
        let first = list(object, "/status/loadBalancer/ingress").first()?;
        return given(text(first, "/ip")).or_else(|| given(text(first, "/hostname")));
    }
    given(text(object, "/spec/clusterIP"))
}

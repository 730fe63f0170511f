//! Addresses: of LoadBalancer services from MetalLB's pools, of ingresses from their controller's service, and the
//! endpoints behind services.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::addon::Process;
use super::workload::is_ready;
use super::{AGENT, Cluster, Round, hash, leaving, owned_by, text};
use crate::kube::select::Selector;

const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const METALLB: &str = "metallb-controller";

/// An address pool: its name, its ranges, and who may have of it.
struct Pool {
    name: String,
    ranges: Vec<(u32, u32)>,
    automatic: bool,
    namespaces: Vec<Value>,
}

impl Pool {
    fn read(pool: &Value) -> Pool {
        let ranges = pool["spec"]["addresses"].as_array().into_iter().flatten();
        Pool {
            name: text(pool, "name").into(),
            ranges: ranges.filter_map(Value::as_str).filter_map(range).collect(),
            automatic: pool["spec"]["autoAssign"] != false,
            namespaces: pool["spec"]["serviceAllocation"]["namespaces"].as_array().cloned().unwrap_or_default(),
        }
    }

    fn holds(&self, address: u32) -> bool {
        self.ranges.iter().any(|(from, to)| (*from..=*to).contains(&address))
    }

    fn serves(&self, service: &Value) -> bool {
        self.namespaces.is_empty() || self.namespaces.contains(&service["metadata"]["namespace"])
    }
}

fn range(text: &str) -> Option<(u32, u32)> {
    let address = |text: &str| text.trim().parse::<Ipv4Addr>().ok().map(u32::from);
    if let Some((from, to)) = text.split_once('-') {
        return Some((address(from)?, address(to)?));
    }
    let (base, bits) = text.split_once('/')?;
    let bits: u32 = bits.trim().parse().ok().filter(|bits| *bits <= 32)?;
    let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
    let from = address(base)? & mask;
    Some((from, from | !mask))
}

fn given(object: &Value) -> Option<&str> {
    object["status"]["loadBalancer"]["ingress"][0]["ip"].as_str()
}

impl<C: Cluster> Round<'_, C> {
    pub(super) async fn addresses(&mut self) {
        if !self.settings.beside_real {
            for service in self.all(SERVICES).iter().filter(|service| !leaving(service)) {
                self.endpoints(service).await;
            }
        }
        if self.process(Process::MetalLbController).is_some() {
            self.load_balancers().await;
        }
        self.ingresses().await;
    }

    async fn load_balancers(&mut self) {
        let pools: Vec<Pool> = self.all("/apis/metallb.io/v1beta1/ipaddresspools").iter().map(Pool::read).collect();
        if pools.is_empty() {
            return;
        }
        let services = self.all(SERVICES);
        let mut taken: BTreeSet<u32> =
            services.iter().filter_map(given).filter_map(|ip| ip.parse::<Ipv4Addr>().ok()).map(u32::from).collect();
        for service in services.iter().filter(|one| !leaving(one) && one["spec"]["type"] == "LoadBalancer") {
            if !service["spec"]["loadBalancerClass"].is_null() {
                continue;
            }
            let annotations = &service["metadata"]["annotations"];
            let asked = annotations["metallb.io/loadBalancerIPs"]
                .as_str()
                .or(annotations["metallb.universe.tf/loadBalancerIPs"].as_str())
                .or(service["spec"]["loadBalancerIP"].as_str());
            let current = given(service).and_then(|ip| ip.parse::<Ipv4Addr>().ok()).map(u32::from);
            // An address that is still right stays.
            if let Some(current) = current
                && pools.iter().any(|pool| pool.holds(current) && pool.serves(service))
                && asked.is_none_or(|asked| asked.parse::<Ipv4Addr>().is_ok_and(|asked| u32::from(asked) == current))
            {
                continue;
            }
            let chosen = choose(&pools, service, asked, annotations["metallb.io/address-pool"].as_str(), &taken);
            match chosen {
                Err(problem) => {
                    let key = format!("{}/{}", text(service, "namespace"), text(service, "name"));
                    let message = format!("Failed to allocate IP for \"{key}\": {problem}");
                    self.event(service, "Service", "Warning", "AllocationFailed", &message, METALLB).await;
                }
                Ok((address, pool)) => {
                    // Without an advertisement nobody would answer: MetalLB hands the address out all the same, but a
                    // lab in which it is of no use should not look ready.
                    if !self.advertised(&pool) {
                        let message = format!("no L2Advertisement announces the pool \"{pool}\"");
                        self.event(service, "Service", "Warning", "NotAdvertised", &message, METALLB).await;
                        continue;
                    }
                    taken.insert(address);
                    let ip = Ipv4Addr::from(address).to_string();
                    let allocated = json!({"metadata": {"annotations": {"metallb.io/ip-allocated-from-pool": pool}}});
                    self.merge(SERVICES, service, &allocated, METALLB).await;
                    let status = json!({"loadBalancer": {"ingress": [{"ip": ip, "ipMode": "VIP"}]}});
                    self.status(SERVICES, service, &status, METALLB).await;
                    let message = format!("Assigned IP [\"{ip}\"]");
                    self.event(service, "Service", "Normal", "IPAllocated", &message, METALLB).await;
                }
            }
        }
    }

    fn advertised(&self, pool: &str) -> bool {
        let pools = self.all("/apis/metallb.io/v1beta1/ipaddresspools");
        let labels = pools.iter().find(|one| text(one, "name") == pool).cloned().unwrap_or_default();
        self.all("/apis/metallb.io/v1beta1/l2advertisements").iter().any(|advertisement| {
            let named = advertisement["spec"]["ipAddressPools"].as_array().map(Vec::as_slice).unwrap_or_default();
            let selected =
                advertisement["spec"]["ipAddressPoolSelectors"].as_array().map(Vec::as_slice).unwrap_or_default();
            (named.is_empty() && selected.is_empty())
                || named.iter().any(|name| name == pool)
                || selected.iter().any(|selector| Selector::document(selector).matches(&labels))
        })
    }

    async fn endpoints(&mut self, service: &Value) {
        if service["spec"]["selector"].as_object().is_none_or(serde_json::Map::is_empty) {
            return;
        }
        let selector = Selector::document(&json!({"matchLabels": service["spec"]["selector"]}));
        let namespace = text(service, "namespace").to_string();
        let pods = self.all("/api/v1/pods");
        let behind =
            pods.iter().filter(|pod| text(pod, "namespace") == namespace && !leaving(pod) && selector.matches(pod));
        let endpoints: Vec<Value> = behind
            .filter(|pod| pod["status"]["podIP"].is_string())
            .map(|pod| {
                let ready = is_ready(pod);
                json!({
                    "addresses": [pod["status"]["podIP"]], "nodeName": pod["spec"]["nodeName"],
                    "conditions": {"ready": ready, "serving": ready, "terminating": false},
                    "targetRef": {
                        "kind": "Pod", "namespace": namespace, "name": text(pod, "name"), "uid": text(pod, "uid"),
                    },
                })
            })
            .collect();
        let ports: Vec<Value> = service["spec"]["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|port| {
                let number = if port["targetPort"].is_number() { &port["targetPort"] } else { &port["port"] };
                json!({"name": port["name"].as_str().unwrap_or_default(), "port": number, "protocol": port["protocol"]})
            })
            .collect();
        let name = format!("{}-{}", text(service, "name"), &hash(text(service, "name"))[..5]);
        match self.find(SLICES, &namespace, &name) {
            Some(slice) => self.merge(SLICES, &slice, &json!({"endpoints": endpoints, "ports": ports}), AGENT).await,
            None => {
                let slice = json!({
                    "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                    "metadata": {
                        "name": name, "namespace": namespace,
                        "labels": {"kubernetes.io/service-name": text(service, "name")},
                        "ownerReferences": owned_by(service, "v1", "Service"),
                    },
                    "endpoints": endpoints, "ports": ports,
                });
                self.create(SLICES, &slice, AGENT).await;
            }
        }
    }

    // A controller writes the address of its own service, once a pod of it is ready.
    async fn ingresses(&mut self) {
        let classes = self.all("/apis/networking.k8s.io/v1/ingressclasses");
        let services = self.all(SERVICES);
        for ingress in self.all("/apis/networking.k8s.io/v1/ingresses").iter().filter(|one| !leaving(one)) {
            let is_default = |class: &&Value| {
                class["metadata"]["annotations"]["ingressclass.kubernetes.io/is-default-class"] == "true"
            };
            let class = match ingress["spec"]["ingressClassName"].as_str() {
                Some(name) => classes.iter().find(|class| text(class, "name") == name),
                None => classes.iter().find(is_default),
            };
            let Some(class) = class else { continue };
            let controller = class["spec"]["controller"].as_str().unwrap_or_default();
            let front = services.iter().filter(|service| given(service).is_some() && self.answers(service));
            let front = front.filter(|service| belongs(service, controller)).find_map(given);
            if let Some(address) = front {
                let status = json!({"loadBalancer": {"ingress": [{"ip": address}]}});
                self.status("/apis/networking.k8s.io/v1/ingresses", ingress, &status, controller).await;
            }
        }
    }

    fn answers(&self, service: &Value) -> bool {
        let selector = Selector::document(&json!({"matchLabels": service["spec"]["selector"]}));
        let same = |pod: &&Value| text(pod, "namespace") == text(service, "namespace");
        self.all("/api/v1/pods").iter().filter(same).any(|pod| is_ready(pod) && selector.matches(pod))
    }
}

// `traefik.io/ingress-controller` is served by what is called traefik, `k8s.io/ingress-nginx` by what is called
// ingress-nginx.
fn belongs(service: &Value, controller: &str) -> bool {
    let (domain, name) = controller.split_once('/').unwrap_or(("", controller));
    let word = if name == "ingress-controller" { domain.split('.').next().unwrap_or_default() } else { name };
    let labels = service["metadata"]["labels"].as_object().into_iter().flatten();
    let mut names = labels.filter_map(|(_, value)| value.as_str()).chain([text(service, "name")]);
    !word.is_empty() && names.any(|name| name.contains(word))
}

fn choose(
    pools: &[Pool],
    service: &Value,
    asked: Option<&str>,
    from: Option<&str>,
    taken: &BTreeSet<u32>,
) -> Result<(u32, String), String> {
    if let Some(asked) = asked {
        let address =
            asked.trim().parse::<Ipv4Addr>().map_err(|_| format!("invalid spec.loadBalancerIP \"{asked}\""))?;
        let pool = pools.iter().find(|pool| pool.holds(address.into()) && pool.serves(service));
        let pool = pool.ok_or_else(|| format!("[\"{asked}\"] is not allowed in config"))?;
        if taken.contains(&address.into()) {
            return Err(format!("can't change sharing key for \"{asked}\", address also in use by another service"));
        }
        return Ok((address.into(), pool.name.clone()));
    }
    let fitting = pools.iter().filter(|pool| pool.serves(service));
    let fitting = fitting.filter(|pool| from.map_or(pool.automatic, |name| pool.name == name));
    for pool in fitting {
        let free = pool.ranges.iter().flat_map(|(first, last)| *first..=*last).find(|address| !taken.contains(address));
        if let Some(address) = free {
            return Ok((address, pool.name.clone()));
        }
    }
    Err(match from {
        Some(name) if !pools.iter().any(|pool| pool.name == name) => format!("unknown pool \"{name}\""),
        Some(name) => format!("no available IPs in pool \"{name}\""),
        None => "no available IPs".into(),
    })
}

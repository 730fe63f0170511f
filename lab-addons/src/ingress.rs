//! Traefik: one address for all web pages of the cluster, told apart by host name.
//!
//! Ingress objects only, no custom kinds. Plain HTTP is sent on to HTTPS; a page whose Ingress names no certificate
//! gets [`Traefik::certificate`], or else one that Traefik signs itself.

use crate::Account;
use crate::parts::*;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapProjection, Container, PodSpec, Probe, ProjectedVolumeSource, SecretProjection, Service,
    ServiceSpec, Volume, VolumeProjection,
};
use k8s_openapi::api::networking::v1::{IngressClass, IngressClassSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use lab_core::model::{Component, Handle, Scope};
use lab_kube::{Kubernetes, Object};
use std::net::Ipv4Addr;

/// The namespace; a Secret with the default certificate must lie in it.
pub const NAMESPACE: &str = "traefik";

/// The image.
pub const IMAGE: &str = "docker.io/library/traefik:v3.7.11";

const NAME_OF_ALL: &str = "traefik";

/// The ingress controller of the cluster.
#[derive(Clone, Debug)]
pub struct Traefik {
    /// The address it is reached at, out of MetalLB's pool; any free one if none is given.
    pub address: Option<Ipv4Addr>,
    /// The name of its ingress class.
    pub class: String,
    /// Whether Ingress objects without a class are its own.
    pub default: bool,
    /// How many pods there are.
    pub replicas: u16,
    /// Whether plain HTTP is sent on to HTTPS.
    pub redirect: bool,
    /// The Secret in [`NAMESPACE`] with the certificate of all pages that name none, such as a wildcard's. It may
    /// appear later: Traefik takes it over as soon as it does.
    pub certificate: Option<String>,
}

impl Traefik {
    /// Returns one pod at any free address, the default of the cluster.
    pub fn new() -> Traefik {
        Traefik {
            address: None,
            class: "traefik".into(),
            default: true,
            replicas: 1,
            redirect: true,
            certificate: None,
        }
    }
}

impl Default for Traefik {
    fn default() -> Traefik {
        Traefik::new()
    }
}

/// What others are wired to.
#[derive(Clone, Debug)]
pub struct TraefikHandle {
    /// The namespace: what a certificate for it comes after.
    pub namespace: Handle<lab_kube::ObjectOutputs>,
    /// The Service with the address.
    pub service: Handle<lab_kube::ObjectOutputs>,
    /// The class: what an Ingress comes after.
    pub class: Handle<lab_kube::ObjectOutputs>,
}

impl Component<Kubernetes> for Traefik {
    type Handle = TraefikHandle;

    fn declare(self, scope: &Scope<'_, Kubernetes>) -> TraefikHandle {
        let namespace = scope.resource("namespace").add(Object::new(namespace(NAMESPACE)));
        let account = scope.component("traefik").depends_on(&namespace).add(account());
        let dynamic = scope.resource("dynamic").depends_on(&namespace).add(Object::new(self.dynamic()));
        let controller =
            scope.resource("controller").depends_on(&account).depends_on(&dynamic).add(Object::new(self.controller()));
        let service = scope.resource("service").depends_on(&namespace).add(Object::new(self.service()));
        // After the controller, so that whoever waits for the class waits for who serves it.
        let class = scope.resource("class").depends_on(&controller).add(Object::new(self.class()));
        TraefikHandle { namespace, service, class }
    }
}

impl Traefik {
    fn controller(&self) -> Deployment {
        let mut args = list([
            "--entrypoints.web.address=:8000",
            "--entrypoints.websecure.address=:8443",
            "--entrypoints.websecure.http.tls=true",
            "--entrypoints.traefik.address=:8080",
            "--entrypoints.metrics.address=:9100",
            "--ping=true",
            "--metrics.prometheus=true",
            "--metrics.prometheus.entrypoint=metrics",
            "--providers.kubernetesingress=true",
            "--providers.file.directory=/etc/traefik/dynamic",
            "--providers.file.watch=true",
            "--global.checknewversion=false",
            "--global.sendanonymoususage=false",
        ]);
        // The address of this Service becomes the address in every Ingress' status.
        args.push(format!("--providers.kubernetesingress.ingressendpoint.publishedservice={NAMESPACE}/{NAME_OF_ALL}"));
        args.push(format!("--providers.kubernetesingress.ingressclass={}", self.class));
        if self.redirect {
            // To the port outside: the entry point's own is 8443.
            args.push("--entrypoints.web.http.redirections.entrypoint.to=:443".into());
            args.push("--entrypoints.web.http.redirections.entrypoint.scheme=https".into());
        }

        let traefik = Container {
            args: Some(args),
            ports: Some(vec![port("web", 8000), port("websecure", 8443), port("ping", 8080), port("metrics", 9100)]),
            readiness_probe: Some(Probe { period_seconds: Some(5), ..http_probe("/ping", "ping") }),
            liveness_probe: Some(Probe { initial_delay_seconds: Some(10), ..http_probe("/ping", "ping") }),
            resources: Some(resources("100m", "80Mi", "320Mi")),
            security_context: Some(confined()),
            volume_mounts: Some(vec![read_only("dynamic", "/etc/traefik/dynamic"), mount("tmp", "/tmp")]),
            ..container("traefik", IMAGE)
        };
        let pod = PodSpec {
            service_account_name: Some(NAME_OF_ALL.into()),
            containers: vec![traefik],
            node_selector: on_linux(),
            security_context: Some(run_as(65532)),
            volumes: Some(vec![self.dynamic_volume(), empty_dir("tmp")]),
            ..PodSpec::default()
        };
        let one = deployment(NAMESPACE, NAME_OF_ALL, pod);
        let spec = one.spec.map(|spec| DeploymentSpec { replicas: Some(self.replicas.into()), ..spec });
        Deployment { spec, ..one }
    }

    /// The part of the configuration that is read again whenever it changes.
    fn dynamic(&self) -> ConfigMap {
        let file = match self.certificate {
            Some(_) => {
                "tls:\n  stores:\n    default:\n      defaultCertificate:\n        \
                 certFile: /etc/traefik/dynamic/tls.crt\n        keyFile: /etc/traefik/dynamic/tls.key\n"
            }
            None => "tls: {}\n",
        };
        config_map(NAMESPACE, "traefik-dynamic", texts([("dynamic.yaml", file)]))
    }

    /// The certificate lies beside the file that names it: only changes in that directory make Traefik read again.
    fn dynamic_volume(&self) -> Volume {
        let mut sources = vec![VolumeProjection {
            config_map: Some(ConfigMapProjection { name: "traefik-dynamic".into(), ..ConfigMapProjection::default() }),
            ..VolumeProjection::default()
        }];
        if let Some(certificate) = &self.certificate {
            sources.push(VolumeProjection {
                secret: Some(SecretProjection { name: certificate.clone(), optional: Some(true), items: None }),
                ..VolumeProjection::default()
            });
        }
        Volume {
            name: "dynamic".into(),
            projected: Some(ProjectedVolumeSource { sources: Some(sources), ..ProjectedVolumeSource::default() }),
            ..Volume::default()
        }
    }

    fn service(&self) -> Service {
        let plain = service(NAMESPACE, NAME_OF_ALL, vec![service_port("web", 80), service_port("websecure", 443)]);
        let spec = plain.spec.map(|spec| ServiceSpec {
            type_: Some("LoadBalancer".into()),
            load_balancer_ip: self.address.map(|address| address.to_string()),
            // Keeps the address of who asks; only a node with a pod then answers for ours.
            external_traffic_policy: Some("Local".into()),
            ..spec
        });
        Service { spec, ..plain }
    }

    fn class(&self) -> IngressClass {
        let default = texts([("ingressclass.kubernetes.io/is-default-class", &self.default.to_string())]);
        IngressClass {
            metadata: ObjectMeta { annotations: Some(default), ..cluster_meta(&self.class) },
            spec: Some(IngressClassSpec {
                controller: Some("traefik.io/ingress-controller".into()),
                ..IngressClassSpec::default()
            }),
        }
    }
}

fn account() -> Account {
    let cluster_rules = vec![
        rule("", ["services", "secrets", "nodes", "configmaps"], ["get", "list", "watch"]),
        rule("discovery.k8s.io", ["endpointslices"], ["list", "watch"]),
        rule("networking.k8s.io", ["ingresses", "ingressclasses"], ["get", "list", "watch"]),
        rule("networking.k8s.io", ["ingresses/status"], ["update"]),
    ];
    Account { cluster_rules, ..Account::new(NAMESPACE, NAME_OF_ALL) }
}

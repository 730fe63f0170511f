//! Plex Media Server: one pod, its database on a disk, its media on the NAS.
//!
//! There is never a second pod: two servers on one database destroy it, and two with one identity confuse plex.tv.
//! When its node dies, the pod comes up elsewhere after a minute if its volume can; one on a node's own disk cannot.
//!
//! The database is SQLite, whose locks do not hold on NFS. A volume for it that lies there is refused, unless
//! [`Plex::config_on_nfs`] says that the owner knows.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    Container, EnvVar, EnvVarSource, ExecAction, Lifecycle, LifecycleHandler, PersistentVolumeClaim, PodSpec, Probe,
    Secret as SecretObject, SecretKeySelector, Service, ServiceSpec, Toleration,
};
use lab_addons::parts::*;
use lab_core::model::{Component, Handle, Input, Scope, Secret};
use lab_kube::{Kubernetes, Object};
use std::net::Ipv4Addr;

/// The namespace.
pub const NAMESPACE: &str = "media";

/// The image. The tags `public` and `beta` would download another server at every start.
pub const IMAGE: &str = "docker.io/plexinc/pms-docker:1.43.0.10492-121068a07";

const PLEX: &str = "plex";
const CONFIG: &str = "plex-config";
const LIBRARY: &str = "plex-library";
const CLAIM: &str = "plex-claim";

/// The port of Plex, for everything.
const PORT: u16 = 32400;

/// Plex Media Server.
///
/// ```no_run
/// # use lab_core::model::{ProgramError, Scope, Secret, Subnet};
/// # fn program(k8s: &Scope<'_, lab_kube::Kubernetes>) -> Result<(), ProgramError> {
/// use lab_addons::{LocalPath, nfs};
/// use lab_plex::Plex;
///
/// let disks = k8s.component("disks").add(LocalPath::new());
/// let media = k8s.resource("media").add(nfs::storage_class("10.69.1.163", "/mnt/media"));
/// let plex = k8s.component("plex").add(Plex {
///     config_class: disks.output(|class| class.name).into(),
///     address: Some(Subnet::new("10.69.1.0/24")?.address(201)?),
///     host: Some("plex.k8s.local".into()),
///     ..Plex::new(media.output(|class| class.name))
/// });
/// let url = plex.url();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Plex {
    /// The class of the volume with the media: shared, such as NFS. Plex only reads it.
    pub library_class: Input<String>,
    /// The size that is asked of it. NFS does not enforce it.
    pub library_size: String,
    /// Where the media are in the pod. For a library that moves here from another server, give the path it had there.
    pub library_path: String,
    /// The class of the volume with the database: a disk, such as `local-path`.
    pub config_class: Input<String>,
    /// The size of that volume. Artwork alone is many gigabytes.
    pub config_size: String,
    /// Accepts a database on NFS, which sooner or later corrupts it.
    pub config_on_nfs: bool,
    /// The token of <https://plex.tv/claim>, which is valid for four minutes. It is sent when its Secret is made, then
    /// forgotten; Plex looks at it only while nobody owns the server. Leave it out afterwards.
    pub claim: Option<Secret<String>>,
    /// The address, out of MetalLB's pool; any free one if none is given.
    pub address: Option<Ipv4Addr>,
    /// The host name of its page through the ingress; none if not given.
    pub host: Option<String>,
    /// The Secret in [`NAMESPACE`] with the certificate of that page; the ingress controller's own if none is given.
    pub certificate: Option<String>,
    /// More URLs by which players find the server, such as the one that remote users come in by.
    pub advertise: Vec<String>,
    /// Networks whose players need no account: `10.69.1.0/24`.
    pub open_to: Vec<String>,
    /// The time zone: `Europe/Berlin`.
    pub time_zone: String,
    /// The user and group that own the database and may read the media.
    pub user: u32,
    /// What it is promised: processor (`2`) and memory (`2Gi`).
    pub requests: (String, String),
    /// What memory it is held to. Conversions happen on disk, so this is the database, its caches and analyses.
    pub memory_limit: String,
}

impl Plex {
    /// Returns Plex for media in volumes of this class, with its database in one of the class `local-path`.
    pub fn new(library_class: impl Into<Input<String>>) -> Plex {
        Plex {
            library_class: library_class.into(),
            library_size: "1Ti".into(),
            library_path: "/data".into(),
            config_class: "local-path".into(),
            config_size: "20Gi".into(),
            config_on_nfs: false,
            claim: None,
            address: None,
            host: None,
            certificate: None,
            advertise: Vec::new(),
            open_to: Vec::new(),
            time_zone: "Etc/UTC".into(),
            user: 1000,
            requests: ("1".into(), "1Gi".into()),
            memory_limit: "8Gi".into(),
        }
    }
}

/// What others are wired to.
#[derive(Clone, Debug)]
pub struct PlexHandle {
    /// The Service with the address.
    pub service: Handle<lab_kube::ObjectOutputs>,
    /// Plex, ready.
    pub server: Handle<lab_kube::ObjectOutputs>,
    url: Input<String>,
}

impl PlexHandle {
    /// Returns the URL of the web page: by its host name if it has one, else by its address.
    pub fn url(&self) -> Input<String> {
        self.url.clone()
    }
}

impl Component<Kubernetes> for Plex {
    type Handle = PlexHandle;

    fn declare(self, scope: &Scope<'_, Kubernetes>) -> PlexHandle {
        self.check(scope);

        let namespace = scope.resource("namespace").add(Object::new(namespace(NAMESPACE)));
        let service = scope.resource("service").depends_on(&namespace).add(Object::new(self.service()));
        let library = Object::new(claim(NAMESPACE, LIBRARY, &self.library_size, "ReadWriteMany"))
            .set("/spec/storageClassName", self.library_class.clone());
        let library = scope.resource("library").depends_on(&namespace).add(library);
        let config = Object::new(self.config()).set("/spec/storageClassName", self.config_class.clone());
        let config = scope.resource("config").depends_on(&namespace).add(config);

        // The first of its variables holds its URLs, one of which is only known when the Service has its address.
        let mut server = Object::new(self.server());
        if self.address.is_none() {
            let known = self.urls();
            let urls = service.output(move |service| {
                let local = service.address.map(|address| format!("http://{address}:{PORT}/"));
                known.iter().cloned().chain(local).collect::<Vec<_>>().join(",")
            });
            server = server.set("/spec/template/spec/containers/0/env/0/value", urls);
        }
        let mut declared = scope.resource("server").depends_on(&service).depends_on(&library).depends_on(&config);
        if let Some(token) = &self.claim {
            let empty = SecretObject { metadata: meta(NAMESPACE, CLAIM), ..SecretObject::default() };
            let once = Object::new(empty).initial("/stringData/token", token.clone());
            declared = declared.depends_on(&scope.resource("claim").depends_on(&namespace).add(once));
        }
        let server = declared.add(server);

        if let Some(host) = &self.host {
            let page = ingress(NAMESPACE, PLEX, host, "plex", self.certificate.as_deref());
            scope.resource("ingress").depends_on(&service).add(Object::new(page));
        }
        let url = match (&self.host, self.address) {
            (Some(host), _) => format!("https://{host}").into(),
            (None, Some(address)) => format!("http://{address}:{PORT}/web").into(),
            (None, None) => {
                service.output(|service| format!("http://{}:{PORT}/web", service.address.unwrap_or_default())).into()
            }
        };
        PlexHandle { service, server, url }
    }
}

impl Plex {
    fn check(&self, scope: &Scope<'_, Kubernetes>) {
        if let Input::Value(class) = &self.config_class
            && class.contains("nfs")
            && !self.config_on_nfs
        {
            scope.problem(format!(
                "the database of Plex would lie on NFS (class {class}), where SQLite's locks do not hold: give \
                 `config_class` a disk, such as local-path, or accept the loss with `config_on_nfs: true`"
            ));
        }
        if let Some(token) = &self.claim
            && !token.expose().starts_with("claim-")
        {
            scope.problem("the claim token of Plex does not begin with claim-: take it from https://plex.tv/claim");
        }
    }

    /// The URLs that are known before anything runs.
    fn urls(&self) -> Vec<String> {
        let page = self.host.iter().map(|host| format!("https://{host}:443"));
        let local = self.address.iter().map(|address| format!("http://{address}:{PORT}/"));
        self.advertise.iter().cloned().chain(page).chain(local).collect()
    }

    fn config(&self) -> PersistentVolumeClaim {
        claim(NAMESPACE, CONFIG, &self.config_size, "ReadWriteOnce")
    }

    fn service(&self) -> Service {
        let plain = service(NAMESPACE, PLEX, vec![service_port("plex", PORT)]);
        let spec = plain.spec.map(|spec| ServiceSpec {
            type_: Some("LoadBalancer".into()),
            load_balancer_ip: self.address.map(|address| address.to_string()),
            // Plex must see who asks: whether a player is at home decides about its quality and its rights.
            external_traffic_policy: Some("Local".into()),
            ..spec
        });
        Service { spec, ..plain }
    }

    fn server(&self) -> StatefulSet {
        let (cpu, memory) = &self.requests;
        let token = SecretKeySelector { name: CLAIM.into(), key: "token".into(), optional: Some(true) };
        let mut variables = vec![
            // Must stay first: it is set by its place in this list when the address is only known later.
            env("ADVERTISE_IP", &self.urls().join(",")),
            EnvVar {
                name: "PLEX_CLAIM".into(),
                value_from: Some(EnvVarSource { secret_key_ref: Some(token), ..EnvVarSource::default() }),
                ..EnvVar::default()
            },
            env("PLEX_UID", &self.user.to_string()),
            env("PLEX_GID", &self.user.to_string()),
            env("TZ", &self.time_zone),
        ];
        if !self.open_to.is_empty() {
            variables.push(env("ALLOWED_NETWORKS", &self.open_to.join(",")));
        }
        let plex = Container {
            env: Some(variables),
            ports: Some(vec![port("plex", PORT)]),
            // Half an hour: after an upgrade the database is migrated, and a restart in the middle would begin again.
            startup_probe: Some(Probe {
                period_seconds: Some(10),
                failure_threshold: Some(180),
                timeout_seconds: Some(5),
                ..http_probe("/identity", "plex")
            }),
            readiness_probe: Some(Probe {
                period_seconds: Some(10),
                timeout_seconds: Some(5),
                ..http_probe("/identity", "plex")
            }),
            liveness_probe: Some(Probe {
                period_seconds: Some(60),
                failure_threshold: Some(5),
                timeout_seconds: Some(20),
                ..http_probe("/identity", "plex")
            }),
            lifecycle: Some(Lifecycle {
                pre_stop: Some(LifecycleHandler {
                    exec: Some(ExecAction { command: Some(list(["/bin/sh", "-c", STOP])) }),
                    ..LifecycleHandler::default()
                }),
                ..Lifecycle::default()
            }),
            resources: Some(resources(cpu, memory, &self.memory_limit)),
            volume_mounts: Some(vec![
                mount("config", "/config"),
                mount("transcode", "/transcode"),
                read_only("library", &self.library_path),
            ]),
            ..container(PLEX, IMAGE)
        };
        let pod = PodSpec {
            containers: vec![plex],
            automount_service_account_token: Some(false),
            // Variables about every Service would be hundreds, and one of them is called PLEX_PORT.
            enable_service_links: Some(false),
            node_selector: on_linux(),
            termination_grace_period_seconds: Some(120),
            tolerations: Some(vec![gone("not-ready"), gone("unreachable")]),
            volumes: Some(vec![
                claim_volume("config", CONFIG),
                claim_volume("library", LIBRARY),
                empty_dir("transcode"),
            ]),
            ..PodSpec::default()
        };
        StatefulSet {
            metadata: meta(NAMESPACE, PLEX),
            spec: Some(StatefulSetSpec {
                replicas: Some(1),
                service_name: Some(PLEX.into()),
                selector: named(PLEX),
                template: template(PLEX, pod),
                ..StatefulSetSpec::default()
            }),
            ..StatefulSet::default()
        }
    }
}

/// Asks Plex to stop and waits until it has: the image itself gives it five seconds, too few for a large database.
/// First its supervisor is told not to start it again.
const STOP: &str = r#"s6-svc -O /var/run/s6/services/plex
pid=$(cat "/config/Library/Application Support/Plex Media Server/plexmediaserver.pid") && kill -TERM "$pid"
while [ -n "$pid" ] && [ -d "/proc/$pid" ]; do sleep 1; done"#;

/// Leaves a node a minute after it is lost, instead of five.
fn gone(how: &str) -> Toleration {
    Toleration {
        key: Some(format!("node.kubernetes.io/{how}")),
        operator: Some("Exists".into()),
        effect: Some("NoExecute".into()),
        toleration_seconds: Some(60),
        ..Toleration::default()
    }
}

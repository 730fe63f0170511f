//! cert-manager: certificates that are issued, kept in Secrets and renewed in time.
//!
//! [`CertManager`] installs it, [`ClusterIssuer`] says who issues, [`certificate`] asks for one:
//!
//! ```no_run
//! # use lab_core::model::{Scope, Secret};
//! # use lab_addons::certificates::{CertManager, ClusterIssuer, certificate};
//! # fn program(k8s: &Scope<'_, lab_kube::Kubernetes>, token: Secret<String>) {
//! let manager = k8s.component("cert-manager").add(CertManager::new());
//! let issuer = k8s
//!     .component("issuer")
//!     .depends_on(&manager.ready)
//!     .add(ClusterIssuer::lets_encrypt_staging("me@example.org", token));
//! k8s.resource("wildcard")
//!     .depends_on(&issuer)
//!     .add(certificate("traefik", "wildcard", "letsencrypt-staging", &["*.home.example.org"]));
//! # }
//! ```
//!
//! Deleting the component deletes the definitions, and with them every Certificate of the cluster. The Secrets stay.

use crate::definitions::{self, Definitions};
use crate::parts::*;
use crate::{Account, Install};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations, ServiceReference, ValidatingWebhook,
    ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, PodSpec, Probe, Secret as SecretObject};
use k8s_openapi::api::rbac::v1::PolicyRule;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use lab_core::model::{Component, Handle, Input, Scope, Secret};
use lab_kube::crds::{
    Acme, Certificate, CertificateSpec, Cloudflare, Dns01, IssuerRef, IssuerSpec, Metadata, SecretKey, Solver,
};
use lab_kube::{Existing, Kubernetes, Object, crds};

/// The namespace of cert-manager, and of the Secrets that cluster issuers use.
pub const NAMESPACE: &str = "cert-manager";

/// The images, all of one release.
pub const IMAGES: Images = Images {
    controller: "quay.io/jetstack/cert-manager-controller:v1.21.1",
    cainjector: "quay.io/jetstack/cert-manager-cainjector:v1.21.1",
    webhook: "quay.io/jetstack/cert-manager-webhook:v1.21.1",
    solver: "quay.io/jetstack/cert-manager-acmesolver:v1.21.1",
};

/// The images of a release of cert-manager.
#[derive(Clone, Copy, Debug)]
pub struct Images {
    /// Issues and renews.
    pub controller: &'static str,
    /// Writes certificate authorities into webhook configurations.
    pub cainjector: &'static str,
    /// Checks what is declared.
    pub webhook: &'static str,
    /// Answers an ACME server for a moment, when names are proven by HTTP.
    pub solver: &'static str,
}

const CONTROLLER: &str = "cert-manager";
const CAINJECTOR: &str = "cert-manager-cainjector";
const WEBHOOK: &str = "cert-manager-webhook";
const WEBHOOK_CA: &str = "cert-manager-webhook-ca";

/// Certificates that are issued and renewed.
#[derive(Clone, Debug)]
pub struct CertManager {
    /// Whether cert-manager is installed here or is there already.
    pub install: Install,
    /// Whether its webhook is installed, with the injector that the webhook needs, as the project does it.
    ///
    /// It refuses what no schema can: a certificate without a name, an issuer of two kinds. It also notes who asked
    /// for a certificate, which approvers other than cert-manager's own look at. In return it is one more pod that the
    /// API server must reach, and while it does not answer, nothing of cert-manager's can be changed. Certificates are
    /// issued and renewed without it.
    pub webhook: bool,
    /// Name servers that are asked whether a DNS-01 proof can be seen, such as `1.1.1.1:53`; the cluster's own if
    /// empty. Needed where the local DNS answers for the same zone.
    pub nameservers: Vec<String>,
}

impl CertManager {
    /// Returns cert-manager without its webhook, asking the cluster's own name servers.
    pub fn new() -> CertManager {
        CertManager { install: Install::Native, webhook: false, nameservers: Vec::new() }
    }

    /// Returns a cert-manager that something else has installed, with its webhook: nothing of it is declared, and what
    /// needs it waits until it is ready.
    pub fn existing() -> CertManager {
        CertManager { install: Install::Existing, webhook: true, nameservers: Vec::new() }
    }
}

impl Default for CertManager {
    fn default() -> CertManager {
        CertManager::new()
    }
}

/// What others are wired to.
#[derive(Clone, Debug)]
pub struct CertManagerHandle {
    /// Ready when issuers and certificates can be declared.
    pub ready: Handle<lab_kube::ObjectOutputs>,
}

impl Component<Kubernetes> for CertManager {
    type Handle = CertManagerHandle;

    fn declare(self, scope: &Scope<'_, Kubernetes>) -> CertManagerHandle {
        if self.install == Install::Existing {
            // What answers last: nothing of cert-manager's can be declared before its webhook lets it in.
            let last = if self.webhook { WEBHOOK } else { CONTROLLER };
            let ready = scope.read("ready", Existing::new("apps/v1", "Deployment", NAMESPACE, last));
            return CertManagerHandle { ready };
        }
        let namespace = scope.resource("namespace").add(Object::new(namespace(NAMESPACE)));
        let kinds = scope.component("kinds").add(Definitions(&definitions::CERT_MANAGER));
        let account = scope.component("controller").depends_on(&namespace).add(controller_account());
        let controller =
            scope.resource("controller").depends_on(&kinds).depends_on(&account).add(Object::new(self.controller()));
        if !self.webhook {
            return CertManagerHandle { ready: controller };
        }

        let account = scope.component("cainjector").depends_on(&namespace).add(cainjector_account());
        let cainjector =
            scope.resource("cainjector").depends_on(&kinds).depends_on(&account).add(Object::new(cainjector()));
        let account = scope.component("webhook").depends_on(&namespace).add(webhook_account());
        let webhook = scope.resource("webhook").depends_on(&account).add(Object::new(webhook()));
        let service = scope.resource("webhook-service").depends_on(&namespace).add(Object::new(service(
            NAMESPACE,
            WEBHOOK,
            vec![service_port("https", 443)],
        )));
        // Last: from here on nothing of cert-manager's is accepted without an answer from the webhook.
        let mutating = scope
            .resource("mutating")
            .depends_on(&webhook)
            .depends_on(&service)
            .depends_on(&cainjector)
            .add(Object::new(mutating()));
        let validating =
            scope.resource("validating").depends_on(&mutating).depends_on(&controller).add(Object::new(validating()));
        CertManagerHandle { ready: validating }
    }
}

impl CertManager {
    fn controller(&self) -> Deployment {
        let mut args = list([
            "--v=2",
            "--cluster-resource-namespace=$(POD_NAMESPACE)",
            "--leader-election-namespace=$(POD_NAMESPACE)",
            "--max-concurrent-challenges=60",
        ]);
        args.push(format!("--acme-http01-solver-image={}", IMAGES.solver));
        if !self.nameservers.is_empty() {
            args.push(format!("--dns01-recursive-nameservers={}", self.nameservers.join(",")));
            args.push("--dns01-recursive-nameservers-only=true".into());
        }
        workload(
            CONTROLLER,
            Container {
                args: Some(args),
                ports: Some(vec![port("metrics", 9402), port("health", 9403)]),
                liveness_probe: Some(Probe {
                    initial_delay_seconds: Some(10),
                    timeout_seconds: Some(15),
                    failure_threshold: Some(8),
                    ..http_probe("/livez", "health")
                }),
                ..container("controller", IMAGES.controller)
            },
        )
    }
}

fn cainjector() -> Deployment {
    workload(
        CAINJECTOR,
        Container {
            args: Some(list(["--v=2", "--leader-election-namespace=$(POD_NAMESPACE)"])),
            ports: Some(vec![port("metrics", 9402)]),
            ..container("cainjector", IMAGES.cainjector)
        },
    )
}

/// Serves with a certificate that it makes itself, by an authority that it keeps in a Secret.
fn webhook() -> Deployment {
    let ca = format!("--dynamic-serving-ca-secret-name={WEBHOOK_CA}");
    let names = [WEBHOOK.to_owned(), format!("{WEBHOOK}.{NAMESPACE}"), format!("{WEBHOOK}.{NAMESPACE}.svc")];
    let mut args = list(["--v=2", "--secure-port=10250", "--dynamic-serving-ca-secret-namespace=$(POD_NAMESPACE)"]);
    args.push(ca);
    args.extend(names.map(|name| format!("--dynamic-serving-dns-names={name}")));
    workload(
        WEBHOOK,
        Container {
            args: Some(args),
            ports: Some(vec![port("https", 10250), port("health", 6080), port("metrics", 9402)]),
            liveness_probe: Some(Probe { initial_delay_seconds: Some(60), ..http_probe("/livez", "health") }),
            readiness_probe: Some(Probe {
                initial_delay_seconds: Some(5),
                period_seconds: Some(5),
                ..http_probe("/healthz", "health")
            }),
            ..container("webhook", IMAGES.webhook)
        },
    )
}

fn workload(name: &str, part: Container) -> Deployment {
    let part = Container {
        env: Some(vec![env_field("POD_NAMESPACE", "metadata.namespace")]),
        resources: Some(resources("10m", "48Mi", "256Mi")),
        security_context: Some(confined()),
        ..part
    };
    deployment(
        NAMESPACE,
        name,
        PodSpec {
            service_account_name: Some(name.into()),
            containers: vec![part],
            node_selector: on_linux(),
            enable_service_links: Some(false),
            security_context: Some(run_as(1000)),
            ..PodSpec::default()
        },
    )
}

/// Fills in who asked for a certificate. The authority of the webhook is written into it by the injector.
fn mutating() -> MutatingWebhookConfiguration {
    MutatingWebhookConfiguration {
        metadata: injected(),
        webhooks: Some(vec![MutatingWebhook {
            name: "webhook.cert-manager.io".into(),
            admission_review_versions: list(["v1"]),
            client_config: webhook_at("/mutate"),
            failure_policy: Some("Fail".into()),
            match_policy: Some("Equivalent".into()),
            rules: Some(vec![webhook_rule(&["cert-manager.io"], "certificaterequests", &["CREATE"])]),
            side_effects: "None".into(),
            timeout_seconds: Some(30),
            ..MutatingWebhook::default()
        }]),
    }
}

fn validating() -> ValidatingWebhookConfiguration {
    ValidatingWebhookConfiguration {
        metadata: injected(),
        webhooks: Some(vec![ValidatingWebhook {
            name: "webhook.cert-manager.io".into(),
            admission_review_versions: list(["v1"]),
            client_config: webhook_at("/validate"),
            failure_policy: Some("Fail".into()),
            match_policy: Some("Equivalent".into()),
            rules: Some(vec![webhook_rule(&["cert-manager.io", "acme.cert-manager.io"], "*/*", &["CREATE", "UPDATE"])]),
            side_effects: "None".into(),
            timeout_seconds: Some(30),
            ..ValidatingWebhook::default()
        }]),
    }
}

fn injected() -> ObjectMeta {
    let from = format!("{NAMESPACE}/{WEBHOOK_CA}");
    ObjectMeta { annotations: Some(texts([("cert-manager.io/inject-ca-from-secret", &from)])), ..cluster_meta(WEBHOOK) }
}

fn webhook_at(path: &str) -> WebhookClientConfig {
    let service = ServiceReference {
        name: WEBHOOK.into(),
        namespace: NAMESPACE.into(),
        path: Some(path.into()),
        ..ServiceReference::default()
    };
    WebhookClientConfig { service: Some(service), ..WebhookClientConfig::default() }
}

fn webhook_rule(groups: &[&str], resource: &str, operations: &[&str]) -> RuleWithOperations {
    let texts = |items: &[&str]| Some(items.iter().map(|item| (*item).to_owned()).collect());
    RuleWithOperations {
        api_groups: texts(groups),
        api_versions: texts(&["v1"]),
        operations: texts(operations),
        resources: texts(&[resource]),
        ..RuleWithOperations::default()
    }
}

fn leases(names: &[&str]) -> Vec<PolicyRule> {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    let held = rule("coordination.k8s.io", ["leases"], ["get", "update", "patch"]);
    vec![rule("coordination.k8s.io", ["leases"], ["create"]), PolicyRule { resource_names: Some(names), ..held }]
}

fn controller_account() -> Account {
    const OURS: &str = "cert-manager.io";
    const ACME: &str = "acme.cert-manager.io";
    const GATEWAY: &str = "gateway.networking.k8s.io";
    let cluster_rules = vec![
        rule(
            OURS,
            ["certificates", "certificaterequests"],
            ["get", "list", "watch", "create", "update", "patch", "delete"],
        ),
        rule(OURS, ["issuers", "clusterissuers"], ["get", "list", "watch", "update", "patch"]),
        rule(
            OURS,
            ["certificates/status", "certificaterequests/status", "issuers/status", "clusterissuers/status"],
            ["update", "patch"],
        ),
        rule(
            OURS,
            [
                "certificates/finalizers",
                "certificaterequests/finalizers",
                "issuers/finalizers",
                "clusterissuers/finalizers",
            ],
            ["update"],
        ),
        // Approves the requests that it makes itself.
        rule(OURS, ["signers"], ["approve"]),
        rule(ACME, ["orders", "challenges"], ["get", "list", "watch", "create", "update", "patch", "delete"]),
        rule(ACME, ["orders/status", "challenges/status"], ["update", "patch"]),
        rule(ACME, ["orders/finalizers", "challenges/finalizers"], ["update"]),
        rule("", ["secrets"], ["get", "list", "watch", "create", "update", "patch", "delete"]),
        rule("", ["events"], ["create", "patch"]),
        // What answers for a moment when names are proven by HTTP.
        rule("", ["pods", "services"], ["get", "list", "watch", "create", "delete"]),
        rule("networking.k8s.io", ["ingresses"], ["get", "list", "watch", "create", "update", "delete"]),
        rule("networking.k8s.io", ["ingresses/finalizers"], ["update"]),
        rule(GATEWAY, ["httproutes"], ["get", "list", "watch", "create", "update", "delete"]),
        rule(GATEWAY, ["gateways", "listenersets"], ["get", "list", "watch"]),
        rule(GATEWAY, ["gateways/finalizers", "httproutes/finalizers", "listenersets/finalizers"], ["update"]),
        // Certificates for the cluster's own kind of request.
        rule("certificates.k8s.io", ["certificatesigningrequests"], ["get", "list", "watch", "update"]),
        rule("certificates.k8s.io", ["certificatesigningrequests/status"], ["update", "patch"]),
        PolicyRule {
            resource_names: Some(list(["issuers.cert-manager.io/*", "clusterissuers.cert-manager.io/*"])),
            ..rule("certificates.k8s.io", ["signers"], ["sign"])
        },
        rule("authorization.k8s.io", ["subjectaccessreviews"], ["create"]),
    ];
    Account { rules: leases(&["cert-manager-controller"]), cluster_rules, ..Account::new(NAMESPACE, CONTROLLER) }
}

fn cainjector_account() -> Account {
    const INJECTED: [&str; 5] = ["get", "list", "watch", "update", "patch"];
    let cluster_rules = vec![
        rule("cert-manager.io", ["certificates"], ["get", "list", "watch"]),
        rule("", ["secrets"], ["get", "list", "watch"]),
        rule("", ["events"], ["get", "create", "update", "patch"]),
        rule(
            "admissionregistration.k8s.io",
            ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"],
            INJECTED,
        ),
        rule("apiregistration.k8s.io", ["apiservices"], INJECTED),
        rule("apiextensions.k8s.io", ["customresourcedefinitions"], INJECTED),
    ];
    let rules = leases(&["cert-manager-cainjector-leader-election", "cert-manager-cainjector-leader-election-core"]);
    Account { rules, cluster_rules, ..Account::new(NAMESPACE, CAINJECTOR) }
}

fn webhook_account() -> Account {
    let own = rule("", ["secrets"], ["get", "list", "watch", "update"]);
    let rules = vec![
        PolicyRule { resource_names: Some(list([WEBHOOK_CA])), ..own },
        // A name cannot be stated for what does not exist yet.
        rule("", ["secrets"], ["create"]),
    ];
    let cluster_rules = vec![rule("authorization.k8s.io", ["subjectaccessreviews"], ["create"])];
    Account { rules, cluster_rules, ..Account::new(NAMESPACE, WEBHOOK) }
}

/// Who issues certificates, for every namespace. Declare it after [`CertManagerHandle::ready`].
#[derive(Clone, Debug)]
pub struct ClusterIssuer {
    /// The name that certificates and the annotation `cert-manager.io/cluster-issuer` of an Ingress ask for.
    pub name: String,
    /// How certificates come about.
    pub by: By,
}

/// How certificates come about.
#[derive(Clone, Debug)]
pub enum By {
    /// Each certificate signs itself: every browser warns of every page.
    SelfSigned,
    /// An authority of one's own, made at first use: browsers that were given its certificate, `tls.crt` in the Secret
    /// of the issuer's name, warn of nothing.
    Authority {
        /// What the authority calls itself.
        common_name: String,
    },
    /// Let's Encrypt, names proven by records that are written at Cloudflare. Works for wildcards, and for pages that
    /// cannot be reached from outside.
    LetsEncrypt {
        /// Where Let's Encrypt writes to.
        email: String,
        /// A token that may read zones and edit their DNS.
        token: Input<Secret<String>>,
        /// The zones the issuer is for; all that the token opens if empty.
        zones: Vec<String>,
        /// Whether the server for trials is asked: no browser trusts it, and its limits are generous.
        staging: bool,
    },
}

impl ClusterIssuer {
    /// Returns the issuer `self-signed`.
    pub fn self_signed() -> ClusterIssuer {
        ClusterIssuer { name: "self-signed".into(), by: By::SelfSigned }
    }

    /// Returns the issuer `authority`, with an authority of one's own of this name.
    pub fn authority(common_name: impl Into<String>) -> ClusterIssuer {
        ClusterIssuer { name: "authority".into(), by: By::Authority { common_name: common_name.into() } }
    }

    /// Returns the issuer `letsencrypt-staging`: try with it first, Let's Encrypt counts failures.
    pub fn lets_encrypt_staging(
        email: impl Into<String>,
        cloudflare_token: impl Into<Input<Secret<String>>>,
    ) -> ClusterIssuer {
        ClusterIssuer {
            name: "letsencrypt-staging".into(),
            by: By::LetsEncrypt {
                email: email.into(),
                token: cloudflare_token.into(),
                zones: Vec::new(),
                staging: true,
            },
        }
    }

    /// Returns the issuer `letsencrypt`, which browsers trust.
    pub fn lets_encrypt(email: impl Into<String>, cloudflare_token: impl Into<Input<Secret<String>>>) -> ClusterIssuer {
        ClusterIssuer {
            name: "letsencrypt".into(),
            by: By::LetsEncrypt {
                email: email.into(),
                token: cloudflare_token.into(),
                zones: Vec::new(),
                staging: false,
            },
        }
    }
}

impl Component<Kubernetes> for ClusterIssuer {
    /// The issuer; its output `name` is what certificates ask for.
    type Handle = Handle<lab_kube::ObjectOutputs>;

    fn declare(self, scope: &Scope<'_, Kubernetes>) -> Self::Handle {
        let ClusterIssuer { name, by } = self;
        let issuer = |name: &str, spec| Object::new(crds::ClusterIssuer::new(Metadata::cluster(name), spec));
        match by {
            By::SelfSigned => scope.resource("issuer").add(issuer(&name, IssuerSpec::self_signed())),
            By::Authority { common_name } => {
                let root = format!("{name}-root");
                let signer = scope.resource("root").add(issuer(&root, IssuerSpec::self_signed()));
                let spec = CertificateSpec {
                    common_name: Some(common_name),
                    is_ca: Some(true),
                    // Ten years: whoever trusts it had to be told so by hand.
                    duration: Some("87600h0m0s".into()),
                    ..CertificateSpec::new(&name, IssuerRef::cluster(&root))
                };
                let authority = scope
                    .resource("authority")
                    .depends_on(&signer)
                    .add(Object::new(Certificate::new(Metadata::new(NAMESPACE, &name), spec)));
                scope.resource("issuer").depends_on(&authority).add(issuer(&name, IssuerSpec::ca(&name)))
            }
            By::LetsEncrypt { email, token, zones, staging } => {
                const KEY: &str = "api-token";
                let secret_name = format!("{name}-cloudflare");
                let empty = SecretObject { metadata: meta(NAMESPACE, &secret_name), ..SecretObject::default() };
                let secret =
                    scope.resource("token").add(Object::new(empty).secret(format!("/stringData/{KEY}"), token));
                let cloudflare = Cloudflare {
                    api_token_secret_ref: Some(SecretKey { key: Some(KEY.into()), ..SecretKey::new(&secret_name) }),
                    ..Cloudflare::default()
                };
                let selector = (!zones.is_empty())
                    .then(|| crds::SolverSelector { dns_zones: zones, ..crds::SolverSelector::default() });
                let solver = Solver {
                    selector,
                    dns01: Some(Dns01 { cloudflare: Some(cloudflare), ..Dns01::default() }),
                    ..Solver::default()
                };
                let server = if staging {
                    "https://acme-staging-v02.api.letsencrypt.org/directory"
                } else {
                    "https://acme-v02.api.letsencrypt.org/directory"
                };
                // The account's key is made by cert-manager. It outlives the issuer: another one is another account.
                let acme = Acme {
                    email: Some(email),
                    solvers: vec![solver],
                    ..Acme::new(server, SecretKey::new(format!("{name}-account")))
                };
                scope.resource("issuer").depends_on(&secret).add(issuer(&name, IssuerSpec::acme(acme)))
            }
        }
    }
}

/// Returns a certificate for these names in the Secret `name`, by a cluster issuer; renewed when a third of its time
/// is left.
pub fn certificate(namespace: &str, name: &str, issuer: &str, names: &[&str]) -> Object<Certificate> {
    let spec = CertificateSpec {
        dns_names: names.iter().map(|name| (*name).to_owned()).collect(),
        renew_before_percentage: Some(33),
        ..CertificateSpec::new(name, IssuerRef::cluster(issuer))
    };
    Object::new(Certificate::new(Metadata::new(namespace, name), spec))
}

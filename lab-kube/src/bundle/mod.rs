//! Manifests that somebody else wrote, as one resource for each object.

mod edit;
mod helm;
mod manifest;
mod order;

pub use helm::{Chart, HelmChart};

use crate::body::tokens;
use crate::key::{Identity, Key};
use crate::object::{Object, Settable};
use crate::outputs::ObjectOutputs;
use crate::provider::Kubernetes;
use edit::{Edit, Overlays, means};
use lab_core::{Asset, Component, Handle, Input, Prerequisite, ProgramError, Scope, Secret, Urn};
use manifest::Part;
use order::{Rank, Wait, wait};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Manifests that somebody else wrote, as one resource for each object: planned, diffed, found, waited for and taken away
/// like any other.
///
/// They come from a URL that is pinned by its SHA-256, from a file, or from the executable itself ([`Asset`]). What is to
/// be different from how they are written is said in terms of objects; a change that finds nothing to change is a problem
/// of the plan, for it was written for another version.
///
/// ```
/// use lab_core::{Asset, Stack};
/// use lab_kube::{Kubernetes, ManifestBundle};
///
/// # const MANIFEST: &str = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: controller, namespace: metallb-system}, spec: {template: {spec: {containers: [{image: 'quay.io/metallb/controller:v0.16.1'}]}}}}";
/// fn declare(stack: &Stack, k8s: &lab_core::Scope<'_, Kubernetes>) {
///     // Or `stack.asset("https://...", "sha256:...")`, or `stack.file("manifests/metallb.yaml")`.
///     let manifest = Asset::given("metallb.yaml", MANIFEST);
///     let metallb = k8s.component("metallb").add(
///         ManifestBundle::new(manifest)
///             .image("quay.io/metallb", "registry.home.arpa/metallb")
///             .set("Deployment metallb-system/controller", "/spec/replicas", 2),
///     );
///     k8s.resource("media").depends_on(&metallb).add(lab_kube::namespace("media"));
/// }
/// # let declared = lab_core::Stack::load("lab", None, lab_core::Vault::new([0; 32]), Default::default(), |stack| {
/// #     let k8s = stack.provider("k8s", Kubernetes::stated("k8s", lab_core::Secret::new(String::new())));
/// #     declare(stack, &k8s);
/// #     Ok(())
/// # }).unwrap();
/// # assert_eq!((declared.nodes.len(), declared.problems.len()), (2, 0));
/// ```
///
/// Each resource is called after its object, `Deployment.metallb-system.controller`; two of one kind in different groups
/// have the group with it. A namespace comes before what lives in it, a definition before the objects of its kind, what
/// pods are made with before the pods, webhook configurations after everything that they could get in the way of, and
/// the objects of kinds that the bundle itself defines last: those the webhooks are there to judge.
///
/// What a Secret holds is sealed like any other secret, though it stands in the manifest for everybody to read. An empty
/// one remains empty: somebody in the cluster fills it. Kinds that are neither known here nor defined in the bundle are
/// taken as they are written, with a namespace or without one.
pub struct ManifestBundle {
    manifest: Asset,
    edits: Vec<Edit>,
}

impl ManifestBundle {
    /// Returns the bundle as it is written.
    pub fn new(manifest: Asset) -> ManifestBundle {
        ManifestBundle { manifest, edits: Vec::new() }
    }

    fn edit(mut self, edit: Edit) -> ManifestBundle {
        self.edits.push(edit);
        self
    }

    /// Changes every object by a function: for whatever the others cannot say.
    pub fn each(self, change: impl Fn(&mut Value) + 'static) -> ManifestBundle {
        self.edit(Edit::Each(Box::new(change)))
    }

    /// Moves everything that lives in a namespace into this one, with what refers to it: the subjects of bindings, the
    /// services behind webhooks, conversions and aggregated APIs, and the namespaces of the bundle, which become this one.
    ///
    /// Names within arguments and configurations are left as they are written.
    pub fn namespace(self, name: impl Into<String>) -> ManifestBundle {
        self.edit(Edit::Namespace(name.into()))
    }

    /// Takes images from somewhere else: what is `from` in any field `image`, or begins with it up to a `/`, a tag or a
    /// digest, becomes `to`. A `to` with a tag or a digest replaces those, too.
    pub fn image(self, from: impl Into<String>, to: impl Into<String>) -> ManifestBundle {
        self.edit(Edit::Image { from: from.into(), to: to.into() })
    }

    /// Leaves objects out.
    pub fn without(self, out: impl Fn(&Key) -> bool + 'static) -> ManifestBundle {
        self.edit(Edit::Without(Box::new(out)))
    }

    /// Sets a value of one object, by JSON pointer, to a value or to what another resource yields. The object is named as
    /// in `Deployment metallb-system/controller`, `ClusterRole metallb-system:speaker`; with its group before the kind
    /// where there are two.
    pub fn set(self, object: &str, pointer: &str, value: impl Settable) -> ManifestBundle {
        self.edit(Edit::Set { object: object.into(), pointer: pointer.into(), value: value.settable() })
    }

    /// Sets a secret of one object, as [`Object::secret`] does: `/stringData/password` of a Secret.
    pub fn secret(self, object: &str, pointer: &str, value: impl Into<Input<Secret<String>>>) -> ManifestBundle {
        self.edit(Edit::Secret { object: object.into(), pointer: pointer.into(), value: value.into() })
    }
}

impl Component<Kubernetes> for ManifestBundle {
    type Handle = Bundle;

    fn declare(self, scope: &Scope<'_, Kubernetes>) -> Bundle {
        let name = self.manifest.name().to_owned();
        // Why it is not there has been said.
        let Some(bytes) = self.manifest.bytes() else { return Bundle::missing(name) };
        let Ok(manifest) = std::str::from_utf8(bytes) else {
            scope.problem(format!("{name} is no manifest: it is not text"));
            return Bundle::missing(name);
        };
        let (parts, problems) = manifest::read(manifest);
        if parts.is_empty() && problems.is_empty() {
            scope.problem(format!("{name} holds no objects"));
        }
        expand(name, parts, problems, self.edits, scope)
    }
}

/// What a bundle was expanded into. What [comes after it](lab_core::Declare::depends_on) comes after every object is ready.
#[derive(Clone, Debug)]
pub struct Bundle {
    name: String,
    objects: BTreeMap<Identity, Handle<ObjectOutputs>>,
}

impl Bundle {
    fn missing(name: String) -> Bundle {
        Bundle { name, objects: BTreeMap::new() }
    }

    /// Returns one of its objects, named as in [`ManifestBundle::set`]: for its address, or to come after it alone.
    ///
    /// # Errors
    ///
    /// There is none of that name, or several.
    pub fn object(&self, name: &str) -> Result<Handle<ObjectOutputs>, ProgramError> {
        let found: Vec<_> = self.objects.iter().filter(|(identity, _)| means(identity, name)).collect();
        match found.as_slice() {
            [(_, handle)] => Ok((*handle).clone()),
            [] => {
                let why = edit::missing(self.objects.keys(), name);
                Err(ProgramError::new(format!("`.object({name:?})` of {} {why}", self.name)))
            }
            _ => Err(ProgramError::new(format!("`.object({name:?})` of {} means several objects", self.name))),
        }
    }

    /// Returns its objects by what they are called.
    pub fn objects(&self) -> impl Iterator<Item = (&Identity, &Handle<ObjectOutputs>)> {
        self.objects.iter()
    }
}

impl Prerequisite for Bundle {
    fn urns(&self) -> Vec<Urn> {
        self.objects.values().map(|handle| handle.urn().clone()).collect()
    }
}

/// Declares what was read, edited, in its order.
fn expand(
    name: String,
    mut parts: Vec<Part>,
    mut problems: Vec<String>,
    edits: Vec<Edit>,
    scope: &Scope<'_, Kubernetes>,
) -> Bundle {
    let mut overlays = edit::make(edits, &mut parts, &mut problems);
    distinct(&mut parts, &mut problems);
    for problem in problems {
        scope.problem(format!("{name}: {problem}"));
    }
    let defined = edit::defined(&parts);
    let mut ranked: Vec<(Rank, Part)> = parts.into_iter().map(|part| (Rank::of(&part, &defined), part)).collect();
    // Within a rank they stay as they are written.
    ranked.sort_by_key(|(rank, _)| *rank);
    let names = names(ranked.iter().filter_map(|(_, part)| part.identity()));
    let mut bundle = Bundle::missing(name);
    let mut before: Vec<(Rank, Part, Handle<ObjectOutputs>)> = Vec::new();
    for (rank, part) in ranked {
        let Some(identity) = part.identity() else { continue };
        let mut declare = scope.resource(&names[&identity]);
        for (other, earlier, handle) in &before {
            match wait((&part, rank), (earlier, *other)) {
                Some(Wait::Ready) => declare = declare.depends_on(handle),
                Some(Wait::Created) => declare = declare.after_created(handle),
                None => {}
            }
        }
        if crate::json::text(&part.body, KEEP) == "keep" {
            declare = declare.retain();
        }
        let handle = declare.add(object(part.body.clone(), &identity, &mut overlays));
        bundle.objects.insert(identity, handle.clone());
        before.push((rank, part, handle));
    }
    bundle
}

/// Where an object of a chart says that it outlives it.
const KEEP: &str = "/metadata/annotations/helm.sh~1resource-policy";

/// Takes out what is there twice: which of the two is meant, nobody can say.
fn distinct(parts: &mut Vec<Part>, problems: &mut Vec<String>) {
    let mut seen = BTreeMap::new();
    parts.retain(|part| {
        let Some(identity) = part.identity() else { return false };
        match seen.get(&identity) {
            None => {
                seen.insert(identity, part.at.clone());
                true
            }
            Some(first) => {
                problems.push(format!("{identity} is there twice: in {first} and in {}", part.at));
                false
            }
        }
    });
}

/// Returns what the resources are called.
fn names(identities: impl Iterator<Item = Identity>) -> BTreeMap<Identity, String> {
    let short = |identity: &Identity, kind: &str| {
        let place = identity.namespace.as_deref().map(|namespace| format!("{namespace}.")).unwrap_or_default();
        // The names of rights may hold what the name of a resource may not.
        format!("{kind}.{place}{}", identity.name).replace(char::is_whitespace, "_").replace("::", ":_")
    };
    let identities: Vec<Identity> = identities.collect();
    let (mut once, mut twice) = (BTreeSet::new(), BTreeSet::new());
    for identity in &identities {
        let name = short(identity, &identity.kind);
        if !once.insert(name.clone()) {
            twice.insert(name);
        }
    }
    let name = |identity: Identity| {
        let name = short(&identity, &identity.kind);
        let name = match twice.contains(&name) && !identity.group.is_empty() {
            true => short(&identity, &format!("{}.{}", identity.kind, identity.group)),
            false => name,
        };
        (identity, name)
    };
    identities.into_iter().map(name).collect()
}

/// Returns the object as it is declared: what a Secret holds apart, and what was set laid over it.
fn object(mut body: Value, identity: &Identity, overlays: &mut Overlays) -> Object<Value> {
    let mut secret = BTreeMap::new();
    if identity.group.is_empty() && identity.kind == "Secret" {
        for field in ["data", "stringData"] {
            let held = body.get_mut(field).map(Value::take);
            for (key, value) in held.iter().filter_map(Value::as_object).flatten() {
                // What is no text is none of a Secret's, and is left for the server to refuse.
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                secret.insert(format!("/{field}/{}", token(key)), Secret::new(value).into());
            }
            if let Some(fields) = body.as_object_mut() {
                fields.remove(field);
            }
        }
    }
    for (pointer, value) in overlays.secret.remove(identity).unwrap_or_default() {
        secret.retain(|held, _| !same_entry(held, &pointer));
        secret.insert(pointer, value);
    }
    let set = overlays.set.remove(identity).unwrap_or_default();
    Object { set, secret, ..Object::new(body) }
}

/// Whether two pointers are the same entry of a Secret, which may be written as text or in base64.
fn same_entry(one: &str, other: &str) -> bool {
    let key = |pointer: &str| match tokens(pointer)?.as_slice() {
        [field, key] if field == "data" || field == "stringData" => Some(key.clone()),
        _ => None,
    };
    key(one).is_some_and(|one| key(other) == Some(one))
}

fn token(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

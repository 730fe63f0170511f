//! What a program changes about a bundle before it is declared.

use super::manifest::Part;
use crate::json::text;
use crate::key::{Identity, Key};
use crate::kinds::{self, Kind};
use lab_core::{Input, Secret};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// One change of a bundle.
pub(super) enum Edit {
    Each(Box<dyn Fn(&mut Value)>),
    Namespace(String),
    Image { from: String, to: String },
    Without(Box<dyn Fn(&Key) -> bool>),
    Set { object: String, pointer: String, value: Input<Value> },
    Secret { object: String, pointer: String, value: Input<Secret<String>> },
}

/// What is set into objects when they are declared, by the objects' identities.
#[derive(Default)]
pub(super) struct Overlays {
    pub(super) set: BTreeMap<Identity, BTreeMap<String, Input<Value>>>,
    pub(super) secret: BTreeMap<Identity, BTreeMap<String, Input<Secret<String>>>>,
}

/// Makes the changes in order, and returns what remains to be set. One that finds nothing to change is a problem: it was
/// written for another version of the bundle.
pub(super) fn make(edits: Vec<Edit>, parts: &mut Vec<Part>, problems: &mut Vec<String>) -> Overlays {
    let mut overlays = Overlays::default();
    for edit in edits {
        match edit {
            Edit::Each(change) => {
                parts.iter_mut().for_each(|part| change(&mut part.body));
                parts.retain(|part| match Key::of(&part.body) {
                    Ok(_) => true,
                    Err(error) => {
                        problems.push(format!("{} after `.each`: {error}", part.at));
                        false
                    }
                });
            }
            Edit::Namespace(to) => {
                if !rename(parts, &to) {
                    problems.push(format!("`.namespace({to:?})` finds nothing that lives in a namespace"));
                }
            }
            Edit::Image { from, to } => {
                let changed: usize = parts.iter_mut().map(|part| image(&mut part.body, &from, &to)).sum();
                if changed == 0 {
                    problems.push(format!("`.image({from:?}, ..)` finds no image of that name"));
                }
            }
            Edit::Without(out) => {
                let before = parts.len();
                parts.retain(|part| !part.key().is_some_and(|key| out(&key)));
                if parts.len() == before {
                    problems.push("`.without(..)` finds nothing to leave out".into());
                }
            }
            Edit::Set { object, pointer, value } => match only(parts, &object) {
                Ok(identity) => drop(overlays.set.entry(identity).or_default().insert(pointer, value)),
                Err(why) => problems.push(format!("`.set({object:?}, {pointer:?}, ..)` {why}")),
            },
            Edit::Secret { object, pointer, value } => match only(parts, &object) {
                Ok(identity) => drop(overlays.secret.entry(identity).or_default().insert(pointer, value)),
                Err(why) => problems.push(format!("`.secret({object:?}, {pointer:?}, ..)` {why}")),
            },
        }
    }
    overlays
}

/// Returns whether an object is meant by `apps/Deployment media/plex`, or without its group.
pub(super) fn means(identity: &Identity, wanted: &str) -> bool {
    let text = identity.to_string();
    text == wanted || text.strip_prefix(&format!("{}/", identity.group)).is_some_and(|short| short == wanted)
}

fn only(parts: &[Part], wanted: &str) -> Result<Identity, String> {
    let all: Vec<Identity> = parts.iter().filter_map(Part::identity).collect();
    let found: Vec<&Identity> = all.iter().filter(|identity| means(identity, wanted)).collect();
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(missing(&all, wanted)),
        several => {
            let several: Vec<String> = several.iter().map(ToString::to_string).collect();
            Err(format!("means several objects: {}", several.join(", ")))
        }
    }
}

/// Says that an object is not there, and which of its kind are.
pub(super) fn missing<'a>(all: impl IntoIterator<Item = &'a Identity>, wanted: &str) -> String {
    let kind = wanted.split(' ').next().unwrap_or_default();
    let kind = kind.rsplit('/').next().unwrap_or_default();
    let (mut alike, mut kinds) = (Vec::new(), BTreeSet::new());
    for identity in all {
        kinds.insert(identity.kind.as_str());
        if identity.kind == kind {
            alike.push(identity.to_string());
        }
    }
    match alike.is_empty() {
        true if kinds.is_empty() => "finds nothing: there are no objects".into(),
        true => format!("finds no {kind}: there are {}", Vec::from_iter(kinds).join(", ")),
        false => format!("finds no object of that name: there are {}", alike.join(", ")),
    }
}

/// Returns whether objects of a key live in namespaces, as far as anybody knows.
pub(super) fn namespaced(key: &Key, defined: &[Kind]) -> Option<bool> {
    let table = kinds::known(&key.api_version, &key.kind).or_else(|| kinds::of_group(key.group(), &key.kind));
    let known =
        table.or_else(|| defined.iter().find(|kind| kind.group == key.group() && kind.kind == key.kind).cloned());
    known.map(|kind| kind.namespaced)
}

/// Returns the kinds that the definitions among the objects define.
pub(super) fn defined(parts: &[Part]) -> Vec<Kind> {
    let definitions = parts.iter().filter(|part| text(&part.body, "/kind") == "CustomResourceDefinition");
    definitions.flat_map(|part| Kind::defined_by(&part.body)).collect()
}

/// Puts what lives in a namespace and names none into this one, as a cluster's own tools do.
pub(super) fn fill_namespace(parts: &mut [Part], namespace: &str) {
    let defined = defined(parts);
    for part in parts {
        let Some(key) = part.key() else { continue };
        if key.namespace.is_none() && namespaced(&key, &defined) == Some(true) {
            part.body["metadata"]["namespace"] = namespace.into();
        }
    }
}

/// Moves everything that lives in a namespace to another one, with what refers to it there: the subjects of bindings, the
/// services behind webhooks, conversions and aggregated APIs, and the namespaces themselves, which become one. Words in
/// arguments and configurations are left as they are.
fn rename(parts: &mut Vec<Part>, to: &str) -> bool {
    let defined = defined(parts);
    let mut old = BTreeSet::new();
    let mut moved = false;
    for part in parts.iter_mut() {
        let Some(key) = part.key() else { continue };
        if key.namespace.is_some() || namespaced(&key, &defined) == Some(true) {
            moved = true;
            old.extend(key.namespace);
            part.body["metadata"]["namespace"] = to.into();
        }
    }
    let mut there = false;
    parts.retain_mut(|part| {
        let Some(key) = part.key().filter(|key| key.api_version == "v1" && key.kind == "Namespace") else {
            return true;
        };
        if key.name != to && !old.contains(&key.name) {
            return true;
        }
        part.body["metadata"]["name"] = to.into();
        // The first one stands for all.
        !std::mem::replace(&mut there, true)
    });
    for part in parts.iter_mut() {
        let kind = text(&part.body, "/kind").to_owned();
        let lists: &[(&str, &str)] = match kind.as_str() {
            "RoleBinding" | "ClusterRoleBinding" => &[("/subjects", "/namespace")],
            "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration" => {
                &[("/webhooks", "/clientConfig/service/namespace")]
            }
            _ => &[],
        };
        let single: &[&str] = match kind.as_str() {
            "CustomResourceDefinition" => &["/spec/conversion/webhook/clientConfig/service/namespace"],
            "APIService" => &["/spec/service/namespace"],
            _ => &[],
        };
        let follow = |value: Option<&mut Value>| {
            if let Some(value) = value.filter(|value| value.as_str().is_some_and(|name| old.contains(name))) {
                *value = to.into();
            }
        };
        single.iter().for_each(|pointer| follow(part.body.pointer_mut(pointer)));
        for (list, pointer) in lists {
            let elements = part.body.pointer_mut(list).and_then(Value::as_array_mut);
            elements.into_iter().flatten().for_each(|element| follow(element.pointer_mut(pointer)));
        }
    }
    moved
}

/// Changes every field `image` that is `from`, or begins with it up to a `/`, a tag or a digest; returns how many.
fn image(value: &mut Value, from: &str, to: &str) -> usize {
    match value {
        Value::Object(fields) => {
            let change = |(field, value): (&String, &mut Value)| {
                let named = value.as_str().filter(|_| field == "image");
                match named.and_then(|image| renamed(image, from, to)) {
                    Some(new) => {
                        *value = new.into();
                        1
                    }
                    None => image(value, from, to),
                }
            };
            fields.iter_mut().map(change).sum()
        }
        Value::Array(elements) => elements.iter_mut().map(|element| image(element, from, to)).sum(),
        _ => 0,
    }
}

fn renamed(image: &str, from: &str, to: &str) -> Option<String> {
    let rest = image.strip_prefix(from)?;
    match rest.chars().next() {
        None => Some(to.to_owned()),
        Some('/') => Some(format!("{to}{rest}")),
        Some(':' | '@') => {
            // One that is given with its own tag or digest replaces that, too.
            let named = to.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
            Some(if named { to.to_owned() } else { format!("{to}{rest}") })
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::manifest::read;

    /// Makes changes to a manifest; returns its objects by what they are called, and the problems.
    fn check(manifest: &str, edits: Vec<Edit>) -> (BTreeMap<String, Value>, Vec<String>) {
        let (mut parts, mut problems) = read(manifest);
        make(edits, &mut parts, &mut problems);
        let named = |part: Part| (part.identity().unwrap().to_string(), part.body);
        (parts.into_iter().map(named).collect(), problems)
    }

    const WEB: &str = "
kind: Namespace
apiVersion: v1
metadata: {name: web}
---
kind: Deployment
apiVersion: apps/v1
metadata: {name: web, namespace: web}
spec: {template: {spec: {initContainers: [{image: quay.io/web/init@sha256:1}], containers: [
  {image: 'quay.io/web/server:1.2'}, {image: 'quay.io/website:1'}]}}}
---
kind: ClusterRoleBinding
apiVersion: rbac.authorization.k8s.io/v1
metadata: {name: web}
subjects: [{kind: ServiceAccount, name: web, namespace: web}, {kind: ServiceAccount, name: other, namespace: kube-system}]
---
kind: ValidatingWebhookConfiguration
apiVersion: admissionregistration.k8s.io/v1
metadata: {name: web}
webhooks: [{clientConfig: {service: {name: web, namespace: web}}}]
---
kind: CustomResourceDefinition
apiVersion: apiextensions.k8s.io/v1
metadata: {name: sites.example.org}
spec:
  group: example.org
  names: {kind: Site, plural: sites}
  scope: Namespaced
  conversion: {webhook: {clientConfig: {service: {namespace: web}}}}
  versions: [{name: v1, served: true, storage: true}]
---
kind: Site
apiVersion: example.org/v1
metadata: {name: home}
";

    fn edited(edit: Edit) -> (BTreeMap<String, Value>, Vec<String>) {
        check(WEB, vec![edit])
    }

    #[test]
    fn a_namespace_is_changed_with_everything_that_refers_to_it() {
        let (objects, problems) = edited(Edit::Namespace("shop".into()));
        assert_eq!(problems, [""; 0]);
        assert_eq!(
            Vec::from_iter(objects.keys()),
            [
                "Namespace shop",
                "admissionregistration.k8s.io/ValidatingWebhookConfiguration web",
                "apiextensions.k8s.io/CustomResourceDefinition sites.example.org",
                "apps/Deployment shop/web",
                "example.org/Site shop/home",
                "rbac.authorization.k8s.io/ClusterRoleBinding web",
            ]
        );
        let subjects = &objects["rbac.authorization.k8s.io/ClusterRoleBinding web"]["subjects"];
        assert_eq!((text(subjects, "/0/namespace"), text(subjects, "/1/namespace")), ("shop", "kube-system"));
        let webhook = &objects["admissionregistration.k8s.io/ValidatingWebhookConfiguration web"];
        assert_eq!(text(webhook, "/webhooks/0/clientConfig/service/namespace"), "shop");
        let definition = &objects["apiextensions.k8s.io/CustomResourceDefinition sites.example.org"];
        assert_eq!(text(definition, "/spec/conversion/webhook/clientConfig/service/namespace"), "shop");
    }

    #[test]
    fn an_image_is_changed_by_its_repository_its_registry_or_as_a_whole() {
        let images = |from: &str, to: &str| {
            let (objects, problems) = edited(Edit::Image { from: from.into(), to: to.into() });
            assert_eq!(problems, [""; 0]);
            let pod = objects["apps/Deployment web/web"]["spec"]["template"]["spec"].clone();
            let image = |pointer| text(&pod, pointer).to_owned();
            [image("/initContainers/0/image"), image("/containers/0/image"), image("/containers/1/image")]
        };
        let website = "quay.io/website:1";
        assert_eq!(
            images("quay.io/web", "registry.lan/web"),
            ["registry.lan/web/init@sha256:1", "registry.lan/web/server:1.2", website]
        );
        assert_eq!(
            images("quay.io/web/server", "lan/server"),
            ["quay.io/web/init@sha256:1", "lan/server:1.2", website]
        );
        let fixed = ["quay.io/web/init@sha256:1", "quay.io/web/server:1.3", website];
        assert_eq!(images("quay.io/web/server", "quay.io/web/server:1.3"), fixed);
        assert_eq!(images("quay.io/web/server:1.2", "quay.io/web/server:1.3"), fixed);
    }

    #[test]
    fn what_is_left_out_is_not_there() {
        let (objects, problems) = edited(Edit::Without(Box::new(|key| key.kind.ends_with("WebhookConfiguration"))));
        assert_eq!((objects.len(), problems.len()), (5, 0));
    }

    #[test]
    fn a_change_that_finds_nothing_to_change_is_a_problem() {
        let said = |edit| edited(edit).1;
        assert_eq!(
            said(Edit::Image { from: "quay.io/we".into(), to: "x".into() }),
            ["`.image(\"quay.io/we\", ..)` finds no image of that name"]
        );
        assert_eq!(said(Edit::Without(Box::new(|_| false))), ["`.without(..)` finds nothing to leave out"]);
        let set = |object: &str| {
            said(Edit::Set { object: object.into(), pointer: "/spec/replicas".into(), value: Value::from(3).into() })
        };
        assert_eq!(set("Deployment web/web"), [""; 0]);
        assert_eq!(set("apps/Deployment web/web"), [""; 0]);
        assert_eq!(
            set("Deployment web/api"),
            ["`.set(\"Deployment web/api\", \"/spec/replicas\", ..)` finds no object of that name: there are \
              apps/Deployment web/web"]
        );
        assert_eq!(
            set("StatefulSet web/web"),
            ["`.set(\"StatefulSet web/web\", \"/spec/replicas\", ..)` finds no StatefulSet: there are \
              ClusterRoleBinding, CustomResourceDefinition, Deployment, Namespace, Site, \
              ValidatingWebhookConfiguration"]
        );
        let (_, problems) = check("", vec![Edit::Namespace("shop".into())]);
        assert_eq!(problems, ["`.namespace(\"shop\")` finds nothing that lives in a namespace"]);
    }

    #[test]
    fn an_object_must_still_be_one_after_it_was_changed() {
        let (objects, problems) = edited(Edit::Each(Box::new(|object| {
            if text(object, "/kind") == "Site" {
                object["metadata"]["name"] = "Upper".into();
            }
        })));
        assert_eq!(objects.len(), 5);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("document 6 (line 31) after `.each`: the name \"Upper\""), "{problems:?}");
    }
}

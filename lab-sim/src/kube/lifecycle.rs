//! What happens by itself, some time after a write: owners' dependents go, namespaces empty, definitions are served.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::kinds::Kind;
use super::store::Store;
use super::write::{Delete, Place};

const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

impl Store {
    /// Does what is due; returns whether something is left that needs more time.
    pub(crate) fn tick(&mut self) -> bool {
        if !self.unsettled {
            return false;
        }
        let before = self.revision;
        let waiting = self.definitions();
        self.namespaces();
        self.owners();
        // What this round changed may make more due; the next round looks.
        self.unsettled = waiting || self.revision != before;
        self.unsettled
    }

    // Names are accepted at once and served a moment later; a definition that goes takes its objects along.
    fn definitions(&mut self) -> bool {
        let kind = self.kind("apiextensions.k8s.io", "CustomResourceDefinition").expect("a built-in kind").clone();
        // Definitions are large and rarely change: what was served stays so while they are the same.
        let version = |definition: &Value| text(definition, "resourceVersion").parse().unwrap_or(0);
        let state: (usize, u64) =
            (self.all(&kind.resource()).count(), self.all(&kind.resource()).map(version).max().unwrap_or(0));
        let any_leaving = self.all(&kind.resource()).any(|one| one["metadata"]["deletionTimestamp"].is_string());
        if state == self.definitions && !any_leaving {
            return false;
        }
        self.definitions = state;
        let definitions: Vec<Value> = self.all(&kind.resource()).cloned().collect();
        let mut waiting = false;
        let mut served = Vec::new();
        for mut definition in definitions {
            let (before, now) = (definition.clone(), self.timestamp());
            let is = |definition: &Value, name: &str| {
                let conditions = definition["status"]["conditions"].as_array();
                conditions.into_iter().flatten().any(|one| one["type"] == name && one["status"] == "True")
            };
            if definition["metadata"]["deletionTimestamp"].is_string() {
                served.extend(self.remove_definition(&kind, &definition));
                continue;
            }
            if !is(&definition, "NamesAccepted") {
                let condition = |name: &str, status: &str, reason: &str, message: &str| json!({"type": name, "status": status, "reason": reason, "message": message, "lastTransitionTime": now});
                let message = "the initial names have been accepted";
                definition["status"]["acceptedNames"] = definition["spec"]["names"].clone();
                definition["status"]["conditions"] = json!([
                    condition("NamesAccepted", "True", "NoConflicts", "no conflicts found"),
                    condition("Established", "False", "Installing", message),
                ]);
                waiting = true;
            } else if !is(&definition, "Established") {
                let conditions = definition["status"]["conditions"].as_array_mut().into_iter().flatten();
                for condition in conditions.filter(|condition| condition["type"] == "Established") {
                    condition["status"] = "True".into();
                    condition["reason"] = "InitialNamesAccepted".into();
                }
                waiting = true;
            }
            if definition != before {
                definition = self.put(&kind, definition);
            }
            if is(&definition, "Established") {
                served.extend(Kind::defined_by(&definition));
            }
        }
        self.kinds.retain(|kind| kind.custom.is_none());
        self.kinds.extend(served);
        waiting
    }

    // Returns the kinds that are served still, so that the finalizers of their objects can be lifted.
    fn remove_definition(&mut self, kind: &Kind, definition: &Value) -> Vec<Kind> {
        let instances = Kind::defined_by(definition);
        let Some(instance) = instances.first() else { return Vec::new() };
        let objects: Vec<Value> = self.all(&instance.resource()).cloned().collect();
        for object in &objects {
            self.begin_delete(instance, object);
        }
        if objects.is_empty() {
            let mut definition = definition.clone();
            if let Some(list) = definition["metadata"]["finalizers"].as_array_mut() {
                list.retain(|finalizer| finalizer != CLEANUP);
                if list.is_empty() {
                    self.take(kind, &definition);
                } else if self.get(&kind.resource(), "", &text(&definition, "name")) != Some(&definition) {
                    self.put(kind, definition);
                }
            }
            return Vec::new();
        }
        instances
    }

    fn begin_delete(&mut self, kind: &Kind, object: &Value) {
        if object["metadata"]["deletionTimestamp"].is_string() {
            return;
        }
        let (namespace, name) = (text(object, "namespace"), text(object, "name"));
        let place = Place { kind, namespace: &namespace, name: &name };
        // Gone meanwhile is as good as deleted.
        let _ = self.delete(&place, &Delete::default());
    }

    fn namespaces(&mut self) {
        let kind = self.kind("", "Namespace").expect("a built-in kind").clone();
        let leaving = |namespace: &&Value| namespace["metadata"]["deletionTimestamp"].is_string();
        let namespaces: Vec<Value> = self.all("namespaces").filter(leaving).cloned().collect();
        for namespace in namespaces {
            let name = text(&namespace, "name");
            let kinds: Vec<Kind> = self.distinct().into_iter().filter(|kind| kind.namespaced).collect();
            for kind in &kinds {
                let objects: Vec<Value> =
                    self.all(&kind.resource()).filter(|o| text(o, "namespace") == name).cloned().collect();
                objects.iter().for_each(|object| self.begin_delete(kind, object));
            }
            let mut remaining = Vec::new();
            let mut finalizers: std::collections::BTreeMap<String, usize> = Default::default();
            for kind in &kinds {
                let objects = self.all(&kind.resource()).filter(|object| text(object, "namespace") == name);
                let mut count = 0;
                for object in objects {
                    count += 1;
                    for finalizer in object["metadata"]["finalizers"].as_array().into_iter().flatten() {
                        *finalizers.entry(finalizer.as_str().unwrap_or_default().into()).or_default() += 1;
                    }
                }
                if count > 0 {
                    remaining.push(format!("{}.{} has {count} resource instances", kind.plural, kind.group));
                }
            }
            if remaining.is_empty() {
                if namespace["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty) {
                    self.take(&kind, &namespace);
                }
                continue;
            }
            let held: Vec<String> =
                finalizers.iter().map(|(name, count)| format!("{name} in {count} resource instances")).collect();
            let mut after = namespace.clone();
            after["status"]["conditions"] = self.namespace_conditions(&namespace, &remaining, &held);
            if after != namespace {
                self.put(&kind, after);
            }
        }
    }

    fn namespace_conditions(&self, namespace: &Value, remaining: &[String], held: &[String]) -> Value {
        let row = |name: &str, holds: bool, reason: &str, message: String| {
            let status = if holds { "True" } else { "False" };
            let old = namespace["status"]["conditions"].as_array().into_iter().flatten();
            let since = old
                .filter(|condition| condition["type"] == name && condition["status"] == status)
                .map(|condition| condition["lastTransitionTime"].clone())
                .next()
                .unwrap_or_else(|| self.timestamp().into());
            json!({"type": name, "status": status, "reason": reason, "message": message, "lastTransitionTime": since})
        };
        let finalizers = if held.is_empty() {
            row(
                "NamespaceFinalizersRemaining",
                false,
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished".into(),
            )
        } else {
            let message = format!("Some content in the namespace has finalizers remaining: {}", held.join(", "));
            row("NamespaceFinalizersRemaining", true, "SomeFinalizersRemain", message)
        };
        json!([
            row(
                "NamespaceDeletionDiscoveryFailure",
                false,
                "ResourcesDiscovered",
                "All resources successfully discovered".into()
            ),
            row(
                "NamespaceDeletionGroupVersionParsingFailure",
                false,
                "ParsedGroupVersions",
                "All legacy kube types successfully parsed".into()
            ),
            row(
                "NamespaceDeletionContentFailure",
                false,
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization".into()
            ),
            row(
                "NamespaceContentRemaining",
                true,
                "SomeResourcesRemain",
                format!("Some resources are remaining: {}", remaining.join(", "))
            ),
            finalizers,
        ])
    }

    // The garbage collector: dependents without a living owner go; owners that wait for them are let go.
    fn owners(&mut self) {
        let uid = |object: &Value| text(object, "uid");
        let living: BTreeSet<String> = self.everything().map(|(_, object)| uid(object)).collect();
        let holds = |object: &Value, name: &str| {
            object["metadata"]["finalizers"].as_array().is_some_and(|list| list.iter().any(|one| one == name))
        };
        let in_foreground: BTreeSet<String> = self
            .everything()
            .filter(|(_, object)| {
                holds(object, "foregroundDeletion") && !object["metadata"]["deletionTimestamp"].is_null()
            })
            .map(|(_, object)| uid(object))
            .collect();
        let orphaning: BTreeSet<String> = self
            .everything()
            .filter(|(_, object)| holds(object, "orphan") && !object["metadata"]["deletionTimestamp"].is_null())
            .map(|(_, object)| uid(object))
            .collect();
        let owners = |object: &Value| -> Vec<Value> {
            object["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default()
        };
        for kind in self.distinct() {
            let owned: Vec<Value> =
                self.all(&kind.resource()).filter(|object| !owners(object).is_empty()).cloned().collect();
            for mut object in owned {
                let list = owners(&object);
                let named = |owner: &Value| owner["uid"].as_str().unwrap_or_default().to_string();
                let kept: Vec<Value> =
                    list.iter().filter(|owner| !orphaning.contains(&named(owner))).cloned().collect();
                if kept.len() != list.len() {
                    let metadata = object["metadata"].as_object_mut().expect("an object has metadata");
                    if kept.is_empty() {
                        metadata.remove("ownerReferences");
                    } else {
                        metadata.insert("ownerReferences".into(), kept.into());
                    }
                    self.put(&kind, object);
                    continue;
                }
                let stays = |owner: &Value| {
                    let uid = named(owner);
                    living.contains(&uid) && !in_foreground.contains(&uid)
                };
                if !list.iter().any(stays) {
                    self.begin_delete(&kind, &object);
                }
            }
        }
        for (waiting, finalizer) in [(in_foreground, "foregroundDeletion"), (orphaning, "orphan")] {
            for owner in waiting {
                let blocks = |object: &Value| {
                    owners(object).iter().any(|one| one["uid"] == owner.as_str() && one["blockOwnerDeletion"] == true)
                };
                if finalizer == "foregroundDeletion" && self.everything().any(|(_, object)| blocks(object)) {
                    continue;
                }
                self.lift(&owner, finalizer);
            }
        }
    }

    fn lift(&mut self, uid: &str, finalizer: &str) {
        for kind in self.distinct() {
            let Some(mut object) = self.all(&kind.resource()).find(|object| text(object, "uid") == uid).cloned() else {
                continue;
            };
            let metadata = object["metadata"].as_object_mut().expect("an object has metadata");
            let mut list = metadata["finalizers"].as_array().cloned().unwrap_or_default();
            list.retain(|one| one != finalizer);
            let grace = metadata.get("deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
            if list.is_empty() {
                metadata.remove("finalizers");
                if grace == 0 && kind.kind != "Namespace" {
                    self.take(&kind, &object);
                    return;
                }
            } else {
                metadata.insert("finalizers".into(), list.into());
            }
            self.put(&kind, object);
            return;
        }
    }
}

fn text(object: &Value, field: &str) -> String {
    object["metadata"][field].as_str().unwrap_or_default().to_string()
}

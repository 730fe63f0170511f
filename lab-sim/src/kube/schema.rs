//! The shape of an object: what fields it may have, which lists are merged by key, what is required.
//!
//! One view serves the built-in kinds (the official OpenAPI document, reduced; see `data/README.md`) and custom
//! resources (the schema of their definition).

use std::sync::LazyLock;

use serde_json::{Value, json};

static BUILTIN: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("data/builtin.json")).expect("the embedded schema document is JSON")
});
static NOTHING: LazyLock<Value> = LazyLock::new(|| json!({}));

/// A node of a schema.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schema<'a> {
    node: &'a Value,
}

/// How a value at a node is merged and owned.
pub(crate) enum Shape<'a> {
    /// One leaf: a scalar, or a list or map that is replaced as a whole.
    Leaf,
    /// A map or struct whose fields are owned one by one.
    Map,
    /// A list whose items are told apart by these fields.
    Keyed(Vec<&'a str>),
    /// A list of distinct scalars.
    Set,
}

/// What a schema says about one field of a map.
pub(crate) enum Field<'a> {
    /// Declared by name.
    Declared(Schema<'a>),
    /// An entry of a map, or a field of something whose fields are not declared.
    Entry(Schema<'a>),
    /// Not declared, and nothing undeclared is kept.
    Unknown,
}

impl<'a> Schema<'a> {
    /// Returns the schema of a built-in kind, keyed as `apps/v1/Deployment` or `v1/Pod`.
    pub(crate) fn builtin(api_version: &str, kind: &str) -> Option<Schema<'static>> {
        let name = BUILTIN["kinds"].get(format!("{api_version}/{kind}"))?.as_str()?;
        Some(Schema::definition(name))
    }

    fn definition(name: &str) -> Schema<'static> {
        Schema { node: BUILTIN["definitions"].get(name).unwrap_or(&NOTHING) }
    }

    /// Views the schema of a custom resource, as [`custom`] prepared it.
    pub(crate) fn of(node: &'a Value) -> Schema<'a> {
        Schema { node }.resolved()
    }

    /// Returns the schema of things about which nothing is said.
    pub(crate) fn anything() -> Schema<'static> {
        Schema { node: &NOTHING }
    }

    fn resolved(self) -> Schema<'a> {
        match self.node.get("$ref").and_then(Value::as_str) {
            Some(name) => Schema::definition(name),
            None => self,
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.node.get(key)
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        self.node.get(key).and_then(Value::as_str)
    }

    fn flag(&self, key: &str) -> bool {
        self.node.get(key) == Some(&Value::Bool(true))
    }

    pub(crate) fn kind(&self) -> Option<&'a str> {
        self.text("type")
    }

    pub(crate) fn preserves(&self) -> bool {
        self.flag("x-kubernetes-preserve-unknown-fields")
    }

    pub(crate) fn int_or_string(&self) -> bool {
        self.flag("x-kubernetes-int-or-string") || self.text("format") == Some("int-or-string")
    }

    /// Returns whether the node is a resource quantity.
    pub(crate) fn is_quantity(&self) -> bool {
        std::ptr::eq(self.node, &raw const BUILTIN["definitions"]["api.Quantity"])
    }

    pub(crate) fn nullable(&self) -> bool {
        self.flag("nullable")
    }

    /// Returns whether nothing is known of this node's fields, because none are declared.
    pub(crate) fn open(&self) -> bool {
        self.node.get("properties").is_none() && self.node.get("additionalProperties").is_none()
    }

    pub(crate) fn properties(&self) -> impl Iterator<Item = (&'a str, Schema<'a>)> + use<'a> {
        let fields = self.node.get("properties").and_then(Value::as_object);
        fields.into_iter().flatten().map(|(name, node)| (name.as_str(), Schema { node }))
    }

    pub(crate) fn required(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.node.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    }

    pub(crate) fn items(&self) -> Schema<'a> {
        self.node.get("items").map_or(Schema::anything(), |node| Schema { node }.resolved())
    }

    /// Returns what is known of the field `name`; what a reference adds of its own (a default) stands beside it in
    /// [`Schema::properties`].
    pub(crate) fn field(&self, name: &str) -> Field<'a> {
        if let Some(node) = self.node.get("properties").and_then(|fields| fields.get(name)) {
            return Field::Declared(Schema { node }.resolved());
        }
        match self.node.get("additionalProperties") {
            Some(Value::Bool(false)) => Field::Unknown,
            Some(Value::Bool(true)) => Field::Entry(Schema::anything()),
            Some(node) => Field::Entry(Schema { node }.resolved()),
            None if self.preserves() => Field::Entry(Schema::anything()),
            None if self.open() && !self.closed() => Field::Entry(Schema::anything()),
            None => Field::Unknown,
        }
    }

    // A custom resource's `type: object` without fields keeps nothing; a built-in node without fields is free JSON.
    fn closed(&self) -> bool {
        self.flag("x-lab-closed")
    }

    /// Returns how `value` is merged at this node.
    pub(crate) fn shape(&self, value: &Value) -> Shape<'a> {
        match value {
            Value::Object(_) => {
                let atomic = self.text("x-kubernetes-map-type") == Some("atomic");
                // Free JSON in a built-in kind is one leaf; where a custom resource keeps unknown fields, maps merge.
                let free = self.open() && !self.preserves() && !self.closed() && self.kind() != Some("object");
                if atomic || (free && !std::ptr::eq(self.node, &*NOTHING)) { Shape::Leaf } else { Shape::Map }
            }
            Value::Array(_) => match self.text("x-kubernetes-list-type") {
                Some("map") => {
                    let keys = self.node.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
                    Shape::Keyed(keys.into_iter().flatten().filter_map(Value::as_str).collect())
                }
                Some("set") => Shape::Set,
                _ => Shape::Leaf,
            },
            _ => Shape::Leaf,
        }
    }

    /// Returns the default of a list item's key field, which tells items apart even when it was left out.
    pub(crate) fn key_default(&self, key: &str) -> Option<&'a Value> {
        self.node.get("properties")?.get(key)?.get("default")
    }
}

/// Returns a definition's schema as the stand-in uses it: the fields every object has are added, and objects without
/// declared fields are marked as keeping nothing.
pub(crate) fn custom(schema: &Value) -> Value {
    let mut schema = schema.clone();
    close(&mut schema);
    envelope(&mut schema);
    schema
}

fn envelope(schema: &mut Value) {
    if !schema.is_object() {
        *schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    }
    schema["properties"]["apiVersion"] = json!({"type": "string"});
    schema["properties"]["kind"] = json!({"type": "string"});
    schema["properties"]["metadata"] = json!({"$ref": "meta.ObjectMeta"});
}

fn close(node: &mut Value) {
    let Some(map) = node.as_object_mut() else { return };
    let object = map.get("type").and_then(Value::as_str) == Some("object");
    let embedded = map.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true));
    let open = !map.contains_key("properties") && !map.contains_key("additionalProperties");
    let preserves = map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    if object && open && !preserves {
        map.insert("x-lab-closed".into(), true.into());
    }
    if let Some(fields) = map.get_mut("properties").and_then(Value::as_object_mut) {
        fields.values_mut().for_each(close);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(child) = map.get_mut(key) {
            close(child);
        }
    }
    if embedded {
        envelope(node);
    }
}

//! The custom kinds against their own definitions: what we can write is what those clusters accept.

use lab_kube::crds::*;
use serde::Serialize;
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// Deserialises any type with every field given: whoever adds a field to a struct has it checked without asking.
struct Full;

type Error = serde_json::Error;

macro_rules! one {
    ($($method:ident => $visit:ident($($value:expr)?)),* $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> { visitor.$visit($($value)?) })*
    };
}

impl<'de> de::Deserializer<'de> for Full {
    type Error = Error;

    // What asks for anything is a port, which takes numbers.
    one! {
        deserialize_any => visit_u64(1), deserialize_bool => visit_bool(true),
        deserialize_i8 => visit_i64(1), deserialize_i16 => visit_i64(1), deserialize_i32 => visit_i64(1),
        deserialize_i64 => visit_i64(1), deserialize_u8 => visit_u64(1), deserialize_u16 => visit_u64(1),
        deserialize_u32 => visit_u64(1), deserialize_u64 => visit_u64(1), deserialize_f32 => visit_f64(1.0),
        deserialize_f64 => visit_f64(1.0), deserialize_char => visit_char('x'), deserialize_str => visit_str("x"),
        deserialize_string => visit_str("x"), deserialize_bytes => visit_bytes(b"x"),
        deserialize_byte_buf => visit_bytes(b"x"), deserialize_option => visit_some(Full),
        deserialize_unit => visit_unit(), deserialize_seq => visit_seq(Once(false)),
        deserialize_map => visit_map(Fields(["x"].iter())), deserialize_identifier => visit_str("x"),
        deserialize_ignored_any => visit_unit(),
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_map(Fields(fields.iter()))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(Full)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, _: V) -> Result<V::Value, Error> {
        Err(de::Error::custom(format!("{name}: no rule for unit structs yet")))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Error> {
        Err(de::Error::custom("no rule for tuples yet"))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(self, name: &'static str, _: usize, _: V) -> Result<V::Value, Error> {
        Err(de::Error::custom(format!("{name}: no rule for tuples yet")))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        Err(de::Error::custom(format!("{name}: no rule for enums yet")))
    }
}

struct Once(bool);

impl<'de> SeqAccess<'de> for Once {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        if std::mem::replace(&mut self.0, true) { Ok(None) } else { seed.deserialize(Full).map(Some) }
    }
}

struct Fields<'a>(std::slice::Iter<'a, &'a str>);

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.0.next().map(|field| seed.deserialize((*field).into_deserializer())).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(Full)
    }
}

/// Returns the schema of a kind's stored version from its definition, its metadata opened up.
fn schema(object: &Value) -> Value {
    let kind =
        lab_kube::kinds::known(object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap()).unwrap();
    let file = format!("{}/tests/crds/{}_{}.yaml", env!("CARGO_MANIFEST_DIR"), kind.group, kind.plural);
    let definition: Value = serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let version =
        definition["spec"]["versions"].as_array().unwrap().iter().find(|version| version["name"] == kind.version);
    let mut schema = version.unwrap()["schema"]["openAPIV3Schema"].clone();
    // The definition leaves metadata to Kubernetes.
    schema["properties"]["metadata"]["x-kubernetes-preserve-unknown-fields"] = true.into();
    schema
}

/// Checks a value against a schema: names, types, required fields, and enums where the values are meant.
fn judge(value: &Value, schema: &Value, path: &str, enums: bool, wrong: &mut Vec<String>) {
    let either = schema["x-kubernetes-int-or-string"] == true;
    let fits = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("boolean") => value.is_boolean(),
        _ if either => value.is_string() || value.is_i64() || value.is_u64(),
        other => panic!("{path}: no rule for the type {other:?}"),
    };
    if !fits {
        wrong.push(format!("{path}: {value} is no {}", schema["type"]));
    }
    if enums && schema["enum"].as_array().is_some_and(|values| !values.contains(value)) {
        wrong.push(format!("{path}: {value} is none of {}", schema["enum"]));
    }
    for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(required).is_none() {
            wrong.push(format!("{path}: lacks {required}"));
        }
    }
    for (field, value) in value.as_object().into_iter().flatten() {
        let path = format!("{path}.{field}");
        match (&schema["properties"][field], &schema["additionalProperties"]) {
            (Value::Null, Value::Null) if schema["x-kubernetes-preserve-unknown-fields"] == true => {}
            (Value::Null, Value::Null) => wrong.push(format!("{path}: is no field")),
            (Value::Null, rest) => judge(value, rest, &path, enums, wrong),
            (schema, _) => judge(value, schema, &path, enums, wrong),
        }
    }
    for value in value.as_array().into_iter().flatten() {
        judge(value, &schema["items"], &format!("{path}[]"), enums, wrong);
    }
}

/// Checks a kind by its smallest and its fullest object, and that both come back as they were.
fn check<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(smallest: T) {
    let mut full = serde_json::to_value(T::deserialize(Full).unwrap()).unwrap();
    let small = serde_json::to_value(&smallest).unwrap();
    for field in ["apiVersion", "kind"] {
        full[field] = small[field].clone();
    }
    let schema = schema(&small);
    let mut wrong = Vec::new();
    judge(&small, &schema, "", true, &mut wrong);
    judge(&full, &schema, "", false, &mut wrong);
    assert!(wrong.is_empty(), "{}: {wrong:#?}", small["kind"]);
    assert_eq!(serde_json::from_value::<T>(small).unwrap(), smallest);
    let back = serde_json::to_value(serde_json::from_value::<T>(full.clone()).unwrap()).unwrap();
    assert_eq!(back, full);
}

fn meta() -> Metadata {
    Metadata::new("media", "plex")
}

#[test]
fn every_kind_writes_what_its_definition_accepts() {
    check(IPAddressPool::new(meta(), IPAddressPoolSpec::new(vec!["10.0.0.1-10.0.0.9".into()])));
    check(L2Advertisement::new(meta(), L2AdvertisementSpec::default()));
    let account = Acme::new("https://acme.example.org/directory", SecretKey::new("account"));
    check(ClusterIssuer::new(Metadata::cluster("acme"), IssuerSpec::acme(account)));
    check(ClusterIssuer::new(Metadata::cluster("ca"), IssuerSpec::ca("root")));
    check(ClusterIssuer::new(Metadata::cluster("self"), IssuerSpec::self_signed()));
    check(Certificate::new(meta(), CertificateSpec::new("tls", IssuerRef::cluster("acme"))));
    let route = Route::new("Host(`plex.example.org`)", RouteService::new("plex", 32400));
    check(IngressRoute::new(meta(), IngressRouteSpec::new(vec![route])));
    let redirect = RedirectScheme { scheme: Some("https".into()), ..RedirectScheme::default() };
    check(Middleware::new(meta(), MiddlewareSpec { redirect_scheme: Some(redirect), ..MiddlewareSpec::default() }));
    let all = LabelSelector::label("app", "plex");
    check(ServiceMonitor::new(meta(), ServiceMonitorSpec::new(all, vec![Endpoint::port("metrics")])));
    let group = RuleGroup::new("plex", vec![Rule::alert("PlexDown", "up == 0"), Rule::record("a:b", "up")]);
    check(PrometheusRule::new(meta(), PrometheusRuleSpec { groups: vec![group] }));
}

#[test]
fn the_check_finds_what_a_definition_refuses() {
    let spec = serde_json::json!({"routes": [{"kind": "Regel", "middlewares": "x"}], "color": 1});
    let object =
        serde_json::json!({"apiVersion": "traefik.io/v1alpha1", "kind": "IngressRoute", "metadata": {}, "spec": spec});
    let mut wrong = Vec::new();
    judge(&object, &schema(&object), "", true, &mut wrong);
    wrong.sort();
    let expected = [
        ".spec.color: is no field",
        ".spec.routes[].kind: \"Regel\" is none of [\"Rule\"]",
        ".spec.routes[].middlewares: \"x\" is no \"array\"",
        ".spec.routes[]: lacks match",
    ];
    assert_eq!(wrong, expected);
}

#[test]
fn a_custom_object_is_an_object_like_any_other() {
    let pool = IPAddressPool::new(meta(), IPAddressPoolSpec::new(vec!["10.0.0.0/28".into()]));
    let object = lab_kube::Object::new(pool).set("/spec/autoAssign", false);
    assert_eq!(object.key().unwrap().to_string(), "metallb.io/v1beta1/IPAddressPool media/plex");
    let body = serde_json::json!({"addresses": ["10.0.0.0/28"], "autoAssign": false});
    assert_eq!(object.draft().unwrap()["spec"], body);
}

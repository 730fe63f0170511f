//! Secrets bundles: the same bytes as Talos' own tools, and the same bundle from the same seed.

use lab_talos::authority::{AUTHORITY_LIFETIME, Authority, CLIENT_LIFETIME};
use lab_talos::secrets::Secrets;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};
use x509_parser::prelude::*;

const BUNDLE: &str = include_str!("vectors/secrets.yaml");

/// A bundle of ours; made once, because it is not free.
static FRESH: LazyLock<Secrets> = LazyLock::new(|| Secrets::generate([1; 32], at(1_759_320_000)));

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn der(pem: &str) -> Vec<u8> {
    parse_x509_pem(pem.as_bytes()).unwrap().1.contents
}

/// What distinguishes one authority's certificate from another's, apart from random bytes.
fn describe(pem: &str) -> String {
    let der = der(pem);
    let (_, crt) = parse_x509_certificate(&der).unwrap();
    let extensions: Vec<String> = crt
        .extensions()
        .iter()
        .map(|extension| {
            let value = match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => format!("{} bytes", id.0.len()),
                ParsedExtension::AuthorityKeyIdentifier(id) => format!("{}", id.key_identifier.is_some()),
                parsed => format!("{parsed:?}"),
            };
            format!("{} critical={} {value}", extension.oid, extension.critical)
        })
        .collect();
    let mut extensions = extensions;
    extensions.sort();
    let validity = crt.validity();
    format!(
        "{:?} subject={} issuer={} alg={} signature={} for {}s raw subject {:02x?}\n{}",
        crt.version(),
        crt.subject(),
        crt.issuer(),
        crt.public_key().algorithm.algorithm,
        crt.signature_algorithm.algorithm,
        validity.not_after.timestamp() - validity.not_before.timestamp(),
        crt.subject().as_raw(),
        extensions.join("\n")
    )
}

#[test]
fn a_bundle_is_written_as_it_was_read() {
    assert_eq!(Secrets::from_yaml(BUNDLE).unwrap().to_yaml(), BUNDLE);
}

#[test]
fn a_bundle_is_rebuilt_from_a_control_plane_but_not_from_a_worker() {
    let parse = |text| lab_talos::config::parse(text).unwrap();
    for config in [include_str!("vectors/controlplane.yaml"), include_str!("vectors/controlplane-v1.12.yaml")] {
        assert_eq!(Secrets::from_control_plane(&parse(config)).unwrap().to_yaml(), BUNDLE);
    }
    let error = Secrets::from_control_plane(&parse(include_str!("vectors/worker.yaml"))).unwrap_err();
    for missing in ["certs.etcd is required", "certs.k8sserviceaccount is required"] {
        assert!(error.0.contains(&missing.to_owned()), "{error}");
    }
    assert!(error.0.iter().any(|problem| problem.starts_with("certs.os is invalid: ")), "{error}");
}

#[test]
fn the_same_seed_makes_the_same_bundle() {
    let one = &*FRESH;
    assert_eq!(one.to_yaml(), Secrets::generate([1; 32], at(1_759_320_000)).to_yaml());
    let other = Secrets::generate([2; 32], at(1_759_320_000));
    for (a, b) in
        [(&one.os.key, &other.os.key), (&one.trustd_token, &other.trustd_token), (&one.etcd.crt, &other.etcd.crt)]
    {
        assert_ne!(a, b);
    }
    assert_ne!(one.trustd_token, one.bootstrap_token);
    assert_eq!(Secrets::from_yaml(&one.to_yaml()).unwrap(), *one);
}

#[test]
fn authorities_look_like_those_talos_makes() {
    let ours = &*FRESH;
    let theirs = Secrets::from_yaml(BUNDLE).unwrap();
    for (ours, theirs) in [
        (&ours.os, &theirs.os),
        (&ours.etcd, &theirs.etcd),
        (&ours.kubernetes, &theirs.kubernetes),
        (&ours.aggregator, &theirs.aggregator),
    ] {
        assert_eq!(describe(&ours.crt), describe(&theirs.crt));
        let label = |pem: &str| pem.lines().next().unwrap().to_owned();
        assert_eq!(label(&ours.key), label(&theirs.key));
        let der = der(&ours.crt);
        let (_, crt) = parse_x509_certificate(&der).unwrap();
        assert_eq!(crt.validity().not_after.timestamp() as u64, 1_759_320_000 + AUTHORITY_LIFETIME.as_secs());
    }
    assert_eq!(ours.service_account.lines().next(), theirs.service_account.lines().next());
    assert_eq!(ours.cluster_id.len(), theirs.cluster_id.len());
    assert_eq!(ours.trustd_token.len(), theirs.trustd_token.len());
}

#[test]
fn an_administrators_certificate_looks_like_the_one_talos_makes() {
    let theirs = lab_talos::talosconfig::Talosconfig::from_yaml(include_str!("vectors/talosconfig.yaml")).unwrap();
    let theirs = &theirs.contexts["vec"].credentials;
    let admin = Secrets::from_yaml(BUNDLE).unwrap().admin(at(1_759_320_000), CLIENT_LIFETIME, [9; 32]).unwrap();
    assert_eq!(describe(&admin.crt), describe(&theirs.crt));
    assert_eq!(admin.ca, theirs.ca);
    assert_eq!(admin.expiry().unwrap(), at(1_759_320_000) + CLIENT_LIFETIME);
    assert!(admin.key.starts_with("-----BEGIN ED25519 PRIVATE KEY-----"));
}

#[test]
fn everything_missing_is_named_at_once() {
    let error = Secrets::from_yaml("cluster: {id: x}\nsecrets: {}\n").unwrap_err();
    assert_eq!(
        error.0,
        [
            "cluster.secret is required",
            "secrets.bootstraptoken is required",
            "trustdinfo is required",
            "certs.etcd is required",
            "certs.k8s is required",
            "certs.k8saggregator is required",
            "certs.k8sserviceaccount is required",
            "certs.os is required",
            "one of [secrets.secretboxencryptionsecret, secrets.aescbcencryptionsecret] is required",
        ]
    );
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let mut bundle = Secrets::from_yaml(BUNDLE).unwrap();
    bundle.etcd.key = bundle.kubernetes.key.clone();
    let error = Secrets::from_yaml(&bundle.to_yaml()).unwrap_err();
    assert_eq!(error.0, ["certs.etcd is invalid: the certificate and the key do not belong together"]);
}

#[test]
fn a_bundle_does_not_print_its_secrets() {
    let bundle = Secrets::from_yaml(BUNDLE).unwrap();
    let printed = format!("{bundle:?} {:?} {:?}", bundle.os, bundle.admin(at(0), CLIENT_LIFETIME, [0; 32]).unwrap());
    assert!(!printed.contains("PRIVATE KEY") && !printed.contains(&bundle.trustd_token));
}

#[test]
fn an_authority_issues_what_verifies_against_it() {
    let bundle = Secrets::from_yaml(BUNDLE).unwrap();
    for pair in [&bundle.os, &bundle.kubernetes, &bundle.etcd] {
        let authority = Authority::parse(pair).unwrap();
        let server = authority.issue_server(
            Some("x"),
            &["10.69.1.101".into(), "cp-1".into()],
            at(1_760_000_000),
            CLIENT_LIFETIME,
            [4; 32],
        );
        let (issuer, leaf) = (der(&pair.crt), der(&server.crt));
        let (_, issuer) = parse_x509_certificate(&issuer).unwrap();
        let (_, leaf) = parse_x509_certificate(&leaf).unwrap();
        assert_eq!(leaf.issuer().as_raw(), issuer.subject().as_raw());
        // x509-parser checks signatures only with a feature; the mutual TLS tests show that these verify.
        let names = leaf.subject_alternative_name().unwrap().unwrap();
        assert_eq!(format!("{:?}", names.value.general_names), "[IPAddress([10, 69, 1, 101]), DNSName(\"cp-1\")]");
    }
}

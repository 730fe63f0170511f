//! Configuration files: a typed value, or everything that is wrong with the file, each with its place.

use insta::assert_snapshot;
use lab_cli::configuration;
use lab_core::{Placed, Range, Secret, Subnet};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "what matters is whether it is read")]
struct Site {
    network: Subnet,
    pool: Placed<Range>,
    domain: String,
    nodes: Vec<Node>,
    #[serde(default)]
    issuer: Option<Issuer>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    rate: Option<Rate>,
    #[serde(default)]
    token: Option<Secret<u32>>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "what matters is whether it is read")]
struct Node {
    name: String,
    address: Ipv4Addr,
    #[serde(default)]
    memory: u32,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(dead_code, reason = "what matters is whether it is read")]
enum Issuer {
    SelfSigned,
    Acme(Acme),
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "what matters is whether it is read")]
struct Acme {
    email: String,
    server: String,
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "Limits")]
#[expect(dead_code, reason = "what matters is whether it is read")]
struct Rate(u32, u32);

#[derive(Deserialize)]
struct Limits {
    per_second: u32,
    burst: u32,
}

impl TryFrom<Limits> for Rate {
    type Error = String;

    fn try_from(limits: Limits) -> Result<Rate, String> {
        if limits.burst < limits.per_second {
            return Err(format!("a burst of {} is less than {} a second", limits.burst, limits.per_second));
        }
        Ok(Rate(limits.per_second, limits.burst))
    }
}

const SOUND: &str = r#"
network = "192.168.10.0/24 via 192.168.10.1"
pool = "192.168.10.50-69"
domain = "dev.example.com"
issuer = "self-signed"

[[nodes]]
name = "a"
address = "192.168.10.21"
"#;

/// Returns the problems of a file, a line each.
fn problems<T: DeserializeOwned>(text: &str) -> String {
    match configuration::read::<T>("dev.toml", text) {
        Ok(_) => "none".into(),
        Err(problems) => problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    }
}

#[test]
fn a_sound_file_is_a_typed_value_that_knows_its_lines() {
    let site: Site = configuration::read("dev.toml", SOUND).unwrap();
    assert_eq!(site.network.router(), Some(Ipv4Addr::new(192, 168, 10, 1)));
    assert_eq!(site.pool.to, Ipv4Addr::new(192, 168, 10, 69));
    assert_eq!(site.pool.place.clone().unwrap().to_string(), "dev.toml:3");
    assert!(matches!(site.issuer, Some(Issuer::SelfSigned)));
    let acme =
        format!("{}\n[issuer.acme]\nemail = \"me\"\nserver = \"x\"", SOUND.replace("issuer = \"self-signed\"", ""));
    let site: Site = configuration::read("dev.toml", &acme).unwrap();
    assert!(matches!(site.issuer, Some(Issuer::Acme(_))));
}

/// Thousands of problems are a file of another kind: what was found until then is told, and that there is more.
#[test]
fn a_file_in_which_everything_is_wrong_is_not_searched_to_its_end() {
    let text: String = (0..5000).map(|n| format!("node{n} = {n}\n")).collect();
    let problems = configuration::read::<BTreeMap<String, Node>>("dev.toml", &text).unwrap_err();
    let (last, found) = problems.split_last().unwrap();
    assert!(found.len() > 50, "{} were found", found.len());
    assert!(last.to_string().contains("there may be more that is wrong"), "{last}");
    let few: String = (0..20).map(|n| format!("node{n} = {n}\n")).collect();
    assert_eq!(configuration::read::<BTreeMap<String, Node>>("dev.toml", &few).unwrap_err().len(), 20);
}

#[test]
fn every_problem_is_listed_with_its_place() {
    let text = r#"
netwrok = "192.168.10.0/24"
pool = "192.168.10.69-50"
domain = 7
issuer = "letsencrypt"
labels = { tier = "one", rank = 2 }

[[nodes]]
name = "a"
adress = "192.168.10.21"
address = "192.168.10.256"

[[nodes]]
memory = "16 GB"

[rate]
per_second = 50
burst = 10
extra = true
"#;
    assert_snapshot!(problems::<Site>(text), @r#"
    dev.toml:1:1: network: is missing
    dev.toml:2:1: netwrok: there is no such key; did you mean "network"?
    dev.toml:3:8: pool: the range "192.168.10.69-50" ends before it begins
    dev.toml:4:10: domain: a string is needed, and this is integer `7`
    dev.toml:5:10: issuer: "letsencrypt" is none of self-signed, acme
    dev.toml:6:33: labels.rank: a string is needed, and this is integer `2`
    dev.toml:10:1: nodes[0].adress: there is no such key; did you mean "address"?
    dev.toml:11:11: nodes[0].address: invalid IPv4 address syntax
    dev.toml:13:1: nodes[1].address: is missing
    dev.toml:13:1: nodes[1].name: is missing
    dev.toml:14:10: nodes[1].memory: u32 is needed, and this is string "16 GB"
    dev.toml:19:1: rate.extra: there is no such key; there are per_second, burst
    "#);
}

#[test]
fn a_rule_over_several_values_is_told_once_they_are_all_there() {
    let with = |rate: &str| format!("{SOUND}\n[rate]\n{rate}\n");
    assert_snapshot!(problems::<Site>(&with("per_second = 50\nburst = 10")), @"dev.toml:11:2: rate: a burst of 10 is less than 50 a second");
    // A burst that is made up would be too small, too: that is no problem of the file.
    assert_snapshot!(problems::<Site>(&with("per_second = 50000000")), @"dev.toml:11:2: rate.burst: is missing");
    assert_snapshot!(problems::<Site>(&with("per_second = 50\nburst = 100")), @"none");
}

#[test]
fn a_file_that_is_no_toml_is_told_by_all_its_mistakes() {
    assert_snapshot!(problems::<Site>("network = \n[nodes\npool = 1\n"), @"
    dev.toml:1:11: string values must be quoted, expected literal string
    dev.toml:2:7: unclosed table, expected `]`
    ");
}

#[test]
fn an_empty_file_lacks_everything_it_needs() {
    assert_snapshot!(problems::<Site>(""), @"
    dev.toml:1:1: domain: is missing
    dev.toml:1:1: network: is missing
    dev.toml:1:1: nodes: is missing
    dev.toml:1:1: pool: is missing
    ");
}

#[test]
fn a_secret_of_the_wrong_type_is_not_quoted() {
    let told = problems::<Site>(&SOUND.replace("issuer", "token = \"hunter2\"\nissuer"));
    assert_snapshot!(told, @"dev.toml:5:9: token: a secret is not of the expected type");
}

/// A list in which several elements are wrong, and a tuple, whose length is no problem only because one is wrong.
#[test]
fn what_is_wrong_in_a_list_hides_nothing_after_it() {
    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "what matters is whether it is read")]
    struct Lists {
        ports: Vec<u16>,
        pair: (u16, u16),
        names: [String; 2],
    }
    let told = problems::<Lists>("ports = [1, 70000, 2, -1]\npair = [1, 70000]\nnames = [\"a\"]\n");
    assert_snapshot!(told, @r"
    dev.toml:1:13: ports[1]: u16 is needed, and this is integer `70000`
    dev.toml:1:23: ports[3]: u16 is needed, and this is integer `-1`
    dev.toml:2:12: pair[1]: u16 is needed, and this is integer `70000`
    dev.toml:3:9: names: invalid length 1, expected an array of length 2
    ");
}

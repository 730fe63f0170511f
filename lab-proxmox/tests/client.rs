//! The client against a simulated cluster: whom it trusts, which way it goes, what it makes of refusals.

mod simulated;

use lab_core::{Class, Effect, Link, Secret};
use lab_proxmox::client::{Client, Problem};
use lab_proxmox::request::{self, Request};
use lab_proxmox::{Fingerprint, Proxmox, Trust};
use simulated::{Lab, TOKEN, cluster, proxmox};

fn pinned(hosts: &[&str]) -> Trust {
    let fingerprints = hosts.iter().map(|host| cluster().fingerprint(host).parse::<Fingerprint>().unwrap());
    Trust::Fingerprints(fingerprints.collect())
}

fn another() -> lab_sim::proxmox::Cluster {
    lab_sim::proxmox::Cluster { name: "another".into(), ..cluster() }
}

/// Asks for the version and returns the answer's release, or the problem.
fn version(lab: &Lab, config: &Proxmox) -> Result<String, Problem> {
    let link = lab.running.link();
    lab.block_on(async {
        let client = Client::new(config, link).expect("a client");
        let answer = client.send(&request::version()).await.map_err(|error| error.problem)?;
        Ok(answer["release"].as_str().unwrap_or_default().to_owned())
    })
}

#[test]
fn only_a_pinned_certificate_or_one_of_the_authority_is_accepted() {
    let lab = Lab::new();
    let one = |trust: Trust| Proxmox { endpoints: vec!["10.0.0.11".into()], trust, ..proxmox() };
    assert!(version(&lab, &one(pinned(&["pve1"]))).is_ok());
    assert_eq!(version(&lab, &one(pinned(&["pve2"]))), Err(Problem::Untrusted));
    assert!(version(&lab, &proxmox()).is_ok());
    assert_eq!(version(&lab, &one(Trust::Authority(another().authority()))), Err(Problem::Untrusted));
}

/// Whoever has put the fingerprints of their own hosts into the program can rehearse it all the same.
#[test]
fn in_a_rehearsal_the_simulated_host_is_accepted_for_the_pinned_one_and_nobody_else_is() {
    let runtime = tokio_runtime();
    let rack = lab_sim::Rack::new().proxmox(cluster());
    let rehearsal = runtime.block_on(lab_core::execute::Simulator::start(&rack, 1)).unwrap();
    let pins = [Trust::Fingerprints(vec![Fingerprint::of(b"my own host")]), Trust::Authority(another().authority())];
    let asked = |trust: Trust, link: Link| {
        let config = Proxmox { endpoints: vec!["10.0.0.11".into()], trust, ..proxmox() };
        runtime.block_on(async {
            let client = Client::new(&config, link).expect("a client");
            client.send(&request::version()).await.map_err(|error| (error.problem, error.text))
        })
    };
    for trust in pins {
        assert!(asked(trust.clone(), rehearsal.link.clone()).is_ok());
        // Somebody else in the host's place is refused there, too.
        let others = [("10.0.0.11".to_owned(), [7; 32])].into();
        let (problem, said) = asked(trust.clone(), rehearsal.link.clone().standing_in(others)).unwrap_err();
        assert_eq!(problem, Problem::Untrusted);
        assert!(said.contains("not that of the simulated host"), "{said}");
        // The same way without a rehearsal: what is pinned is what counts.
        let nobody = rehearsal.link.clone().standing_in(Default::default());
        assert_eq!(asked(trust, nobody).unwrap_err().0, Problem::Untrusted);
    }
    // No other route has anybody stand in for anything.
    let told = || [("10.0.0.11".to_owned(), [7; 32])].into();
    for link in [Link::direct(), Link::through("192.0.2.1:8080".parse().unwrap())] {
        assert_eq!(link.standing_in(told()).stand_in("10.0.0.11"), None);
    }
}

#[test]
fn a_configuration_that_could_accept_anything_cannot_be_used() {
    let refused = |config: &Proxmox| Client::new(config, Link::direct()).err().expect("it is refused");
    for (config, said) in [
        (Proxmox { trust: Trust::Fingerprints(vec![]), ..proxmox() }, "no fingerprint is given"),
        (Proxmox { trust: Trust::Authority(String::new()), ..proxmox() }, "the authority holds no certificate"),
        (Proxmox { endpoints: vec![], ..proxmox() }, "no endpoint is given"),
        (Proxmox { token: Secret::new("lab@pve".to_owned()).into(), ..proxmox() }, "the token is not of the form"),
    ] {
        let _runtime = tokio_runtime();
        let _within = _runtime.enter();
        assert!(refused(&config).contains(said), "{said}");
    }
}

fn tokio_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

#[test]
fn an_endpoint_that_does_not_answer_is_passed_over() {
    let mut there = cluster();
    there.hosts[0].on = false;
    let lab = Lab::of(there, lab_sim::Faults::none());
    assert!(version(&lab, &proxmox()).is_ok());
}

#[test]
fn a_run_without_network_sends_nothing() {
    let runtime = tokio_runtime();
    runtime.block_on(async {
        let link = Link::memory(std::sync::Arc::new(()));
        let client = Client::new(&proxmox(), link).unwrap();
        let error = client.send(&Request::post("/pools").with("poolid", "a")).await.unwrap_err();
        assert_eq!((error.problem, error.effect), (Problem::Unreachable, Effect::None));
        assert!(error.text.contains("this run has no network"), "{}", error.text);
    });
}

#[test]
fn a_wrong_token_is_refused_and_never_shown() {
    let lab = Lab::new();
    let token = format!("{TOKEN}=99999999-2222-3333-4444-555555555555");
    let config = Proxmox { token: Secret::new(token).into(), ..proxmox() };
    let link = lab.running.link();
    let error = lab.block_on(async {
        let client = Client::new(&config, link).expect("a client");
        client.send(&request::version()).await.unwrap_err()
    });
    assert_eq!(error.problem, Problem::Unauthenticated);
    assert!(!format!("{error:?}").contains("99999999"));
    assert_eq!(lab_core::Error::from(error).class, Class::Unauthorised);
}

#[test]
fn a_machine_that_is_not_there_is_proven_to_be_absent() {
    let lab = Lab::new();
    assert_eq!(lab.by_hand(async |client| client.locate(4711).await), Ok(None));
}

#[test]
fn a_machine_that_may_not_be_seen_is_not_absent() {
    let mut there = cluster();
    let config = [("name".to_owned(), "hidden".to_owned())].into();
    let system = lab_sim::proxmox::System::Nothing;
    there.guests.push(lab_sim::proxmox::Guest { id: 200, node: "pve1".into(), config, system, on: false });
    there.tokens = vec![lab_sim::proxmox::Token::new(TOKEN, simulated::SECRET).allow("/vms/100", &["VM.Audit"])];
    let lab = Lab::of(there, lab_sim::Faults::none());
    let error = lab.by_hand(async |client| client.locate(200).await).unwrap_err();
    assert_eq!(error.problem, Problem::Forbidden);
    insta::assert_snapshot!(error, @"there is a machine with the number 200 that the token may not see; it needs VM.Audit on /vms/200, or the machine needs another number");
}

#[test]
fn what_is_refused_says_why_in_the_servers_words() {
    let lab = Lab::new();
    let (taken, wrong) = lab.by_hand(async |client| {
        let pool = Request::post("/pools").with("poolid", "shop");
        client.send(&pool).await.expect("it is made");
        let taken = client.send(&pool).await.unwrap_err();
        let wrong = client.send(&Request::post("/pools").with("poolid", "a b")).await.unwrap_err();
        (taken, wrong)
    });
    assert_eq!((taken.problem, taken.effect), (Problem::Exists, Effect::None));
    assert!(taken.text.contains("pool 'shop' already exists"), "{}", taken.text);
    assert_eq!((wrong.problem, wrong.effect), (Problem::Refused, Effect::None));
    assert!(wrong.text.contains("poolid: invalid format"), "{}", wrong.text);
}

//! The MicroK8s environments side by side: their configurations are sound, nothing of them clashes, and what would is
//! refused with the lines of both files.

#[path = "../examples/microk8s.rs"]
#[expect(dead_code, reason = "its `main` is for people")]
mod example;

use example::{Environment, microk8s};
use lab::plan::{ForeignClaim, HeldStep, Observations, Plan, Request, Verb, plan};
use lab::{Declared, Neighbour, Neighbours, ProgramError, Stack, State, Vault, configuration};
use std::time::SystemTime;

/// Returns the configuration of an environment, a little changed.
fn read(env: &str, edit: impl Fn(&str) -> String) -> Environment {
    let file = format!("examples/microk8s/{env}.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    configuration::read(&file, &edit(&text)).unwrap_or_else(|problems| {
        panic!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })
}

/// What an environment leaves to the others: what it returned, and what it occupies.
#[derive(Default)]
struct Directory {
    neighbours: Neighbours,
    claims: Vec<ForeignClaim>,
}

impl Directory {
    fn load(&self, env: &str, here: Environment) -> Result<Declared, ProgramError> {
        let stack = format!("microk8s-{env}");
        Stack::load(&stack, Some(env), Vault::new([7; 32]), self.neighbours.clone(), |stack| microk8s(stack, here))
    }

    fn plan(&self, env: &str, edit: impl Fn(&str) -> String) -> Plan {
        let declared = self.load(env, read(env, edit)).unwrap();
        let foreign = self.claims.clone();
        let request = Request { foreign, ..Request::new(Verb::Up, SystemTime::UNIX_EPOCH) };
        plan(&declared, &State::default(), &Observations::default(), &request)
    }

    /// Takes note of an environment as if it were applied as planned.
    fn applied(&mut self, env: &str, plan: &Plan) {
        for step in &plan.steps {
            let Some(spec) = &step.spec else { continue };
            self.claims.extend(spec.claims.iter().map(|claim| ForeignClaim {
                urn: step.urn.clone(),
                place: spec.place.clone(),
                claim: claim.clone(),
            }));
        }
        let mut outputs = plan.outputs.clone();
        outputs["kubeconfig"] = "apiVersion: v1".into();
        let neighbour = Neighbour { outputs, unwell: Vec::new() };
        self.neighbours.insert(format!("microk8s-{env}"), neighbour);
    }
}

fn unchanged(text: &str) -> String {
    text.to_owned()
}

fn problems(plan: &Plan) -> Vec<String> {
    plan.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn the_three_environments_stand_side_by_side_without_a_clash() {
    let mut directory = Directory::default();
    for env in ["dev", "staging", "production"] {
        let plan = directory.plan(env, unchanged);
        assert_eq!(problems(&plan), [""; 0], "{env}");
        assert_eq!(plan.steps.iter().filter(|step| step.urn.kind() == "proxmox:vm").count(), 3, "{env}");
        assert_eq!(plan.held, Vec::<HeldStep>::new(), "what is made for the first time is not held");
        directory.applied(env, &plan);
    }
}

#[test]
fn a_clash_is_refused_with_the_lines_of_both_files() {
    let mut directory = Directory::default();
    let dev = directory.plan("dev", unchanged);
    directory.applied("dev", &dev);
    let line = |env: &str, wanted: &str| {
        let text = std::fs::read_to_string(format!("examples/microk8s/{env}.toml")).unwrap();
        1 + text.lines().position(|line| line == wanted).unwrap()
    };
    // The number of a machine.
    let clashing = directory.plan("staging", |text| text.replace("vmid = 12002", "vmid = 11002"));
    let told = problems(&clashing).join("\n");
    let places = [
        format!("examples/microk8s/dev.toml:{}", line("dev", "host = 22")),
        format!("examples/microk8s/staging.toml:{}", line("staging", "host = 22")),
    ];
    assert!(told.contains("11002"), "{told}");
    assert!(places.iter().all(|place| told.contains(place)), "{places:?}: {told}");
    // The network of another environment.
    let clashing = directory.plan("staging", |text| text.replace("192.168.20.", "192.168.10."));
    let told = problems(&clashing).join("\n");
    for address in ["192.168.10.21", "192.168.10.22", "192.168.10.23"] {
        assert!(told.contains(address), "{address}: {told}");
    }
}

#[test]
fn a_name_and_what_follows_from_it_is_nobody_elses_and_a_number_is_one_of_its_cluster() {
    let mut directory = Directory::default();
    let dev = directory.plan("dev", unchanged);
    directory.applied("dev", &dev);
    let number = |text: &str| text.replace("vmid = 12002", "vmid = 11002");
    let told =
        problems(&directory.plan("staging", |text| number(text).replace("\"staging-2\"", "\"dev-2\""))).join("\n");
    for claim in ["VM id 11002", "host name dev-2", "MAC "] {
        assert!(told.contains(claim), "{claim}: {told}");
    }
    // Another cluster has machines of the same numbers.
    for held in &mut directory.claims {
        if let Some(realm) = &mut held.claim.realm {
            assert_eq!(realm, "proxmox:pve");
            "proxmox:cellar".clone_into(realm);
        }
    }
    assert_eq!(problems(&directory.plan("staging", number)), [""; 0]);
}

#[test]
fn more_than_the_hosts_have_to_give_to_all_environments_is_refused() {
    let mut directory = Directory::default();
    let dev = directory.plan("dev", unchanged);
    directory.applied("dev", &dev);
    let told = problems(&directory.plan("staging", |text| text.replace("memory = 32", "memory = 96")));
    assert_eq!(told.len(), 3, "{told:#?}");
    assert!(told[0].contains("MiB of memory on pve1 are taken"), "{}", told[0]);
    assert!(told[0].contains("microk8s/dev-1 in stack microk8s-dev"), "{}", told[0]);
}

#[test]
fn an_environment_is_not_planned_before_the_one_it_takes_its_versions_from() {
    let directory = Directory::default();
    let error = directory.load("staging", read("staging", unchanged)).err().unwrap().to_string();
    assert_eq!(error, "stack microk8s-dev was never applied in this lab directory: run its `up` first");
}

#[test]
fn what_is_wrong_with_a_configuration_is_told_with_its_place() {
    let text = std::fs::read_to_string("examples/microk8s/dev.toml").unwrap();
    let wrong = text
        .replace("channel = \"1.34/stable\"", "channel = \"latest/stable\"")
        .replace("192.168.10.50-69", "192.168.10.69-50")
        .replace("vlan = 110", "vlan = \"110\"")
        .replace("\"dashboard\"", "\"dashbord\"");
    let problems = configuration::read::<Environment>("dev.toml", &wrong).unwrap_err();
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 4, "{told:#?}");
    for part in ["vlan: u16 is needed", "ends before it begins", "\"dashbord\" is none of", "name a track"] {
        assert!(told.iter().any(|problem| problem.contains(part)), "{part}: {told:#?}");
    }
}

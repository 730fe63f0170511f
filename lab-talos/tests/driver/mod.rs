//! A stand-in for the engine: finds, applies and deletes one thing at a time, as the contract says.
// Every test file uses its own part of this.
#![allow(dead_code, unreachable_pub)]

use lab_core::{
    Class, Cursor, Effect, Error, Found, Id, Input, Made, Op, Owner, Provider, Query, Resource, Secret, Step, Warnings,
    Why,
};
use lab_sim::{Contents, Disk, Machine as Hardware, Options, Rack, Running, gigabytes};
use lab_talos::config::Role;
use lab_talos::{Bootstrap, Client, KubernetesVersion, Machine, Talos, TalosVersion};
use serde_json::Value;
use std::net::IpAddr;
use std::time::Duration;

pub const CONTROL_PLANES: [&str; 3] = ["10.69.1.101", "10.69.1.140", "10.69.1.147"];
pub const WORKER: &str = "10.69.1.151";
pub const FOREIGN: &str = "10.69.1.190";
pub const ABSENT: &str = "10.69.1.250";
pub const ENDPOINT: &str = "https://10.69.1.101:6443";

/// The throw-away bundle of the golden vectors: making an RSA key takes longer than a whole test.
pub const SECRETS: &str = include_str!("../vectors/secrets.yaml");

pub fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn secrets() -> Input<Secret<String>> {
    Input::Value(Secret::new(SECRETS.to_owned()))
}

pub fn machine(at: &str) -> Machine {
    let role = if CONTROL_PLANES.contains(&at) { Role::ControlPlane } else { Role::Worker };
    let name = format!("node-{}", at.rsplit('.').next().unwrap());
    let versions = (TalosVersion::V1_11.patch(2), KubernetesVersion::V1_34);
    Machine::new(address(at), name, role, ENDPOINT, "/dev/nvme0n1", versions, secrets())
}

pub fn bootstrap(nodes: &[&str]) -> Bootstrap {
    Bootstrap {
        nodes: nodes.iter().map(|node| address(node).into()).collect(),
        secrets: secrets(),
        cluster: "a cluster".into(),
        endpoint: ENDPOINT.into(),
        vip: None,
    }
}

/// What the engine would have in its state.
pub struct Operation {
    pub mark: String,
    pub id: Option<Id>,
    pub exists: bool,
    pub cursor: Option<Cursor>,
    pub why: Why,
    /// Stops, as a crash would, after so many steps.
    pub steps: usize,
}

impl Operation {
    pub fn create(mark: &str) -> Operation {
        let (mark, why) = (mark.to_owned(), Why::Declared);
        Operation { mark, id: None, exists: false, cursor: None, why, steps: usize::MAX }
    }

    pub fn update(mark: &str) -> Operation {
        Operation { exists: true, ..Operation::create(mark) }
    }
}

pub struct Lab {
    pub running: Running,
    pub client: Client,
}

impl Lab {
    pub async fn start(options: Options) -> Lab {
        let mut rack = Rack::new();
        for machine in CONTROL_PLANES.iter().chain([&WORKER]) {
            rack = rack.machine(Hardware {
                disks: vec![Disk::nvme("/dev/nvme0n1", gigabytes(500))],
                holds: Contents::Windows,
                media: "v1.11.2".to_owned(),
                ..Hardware::new(address(machine))
            });
        }
        let rack = rack.machine(Hardware { holds: Contents::Foreign, ..Hardware::new(address(FOREIGN)) });
        let running = rack.start(options).await.unwrap();
        let client = Talos::default().connect(running.link()).await.unwrap();
        Lab { running, client }
    }

    fn op<R: Resource<Talos>>(&self, resource: &R, operation: &Operation) -> Op<R> {
        Op {
            mark: operation.mark.clone(),
            id: operation.id.clone().or_else(|| resource.id()),
            inputs: Some(resource.clone()),
            exists: operation.exists,
            deleting: false,
            cursor: operation.cursor.clone(),
            why: operation.why,
            now: self.running.link().clock.now(),
            seed: 1,
            warnings: Warnings::default(),
        }
    }

    pub async fn find<R: Resource<Talos>>(
        &self,
        resource: &R,
        operation: &Operation,
    ) -> Result<Found<R::Outputs>, Error> {
        R::find(&self.client, &self.op(resource, operation)).await
    }

    /// Says whose the thing is, or that it is not there.
    pub async fn owner<R: Resource<Talos>>(&self, resource: &R) -> Result<Option<Owner>, Error> {
        Ok(match self.find(resource, &Operation::create("looks")).await? {
            Found::Absent => None,
            Found::Present(owner, _) | Found::Leaving(owner, _) => Some(owner),
        })
    }

    /// Applies until it is done, fails for good, or was to stop. `None` when it was to stop.
    pub async fn apply<R: Resource<Talos>>(
        &self,
        resource: &R,
        operation: &mut Operation,
    ) -> Result<Option<Made<R::Outputs>>, Error> {
        let clock = self.running.link().clock;
        let start = clock.now();
        let mut look = false;
        loop {
            // A slow computer has less simulated time per second of its own.
            let late = clock.now().duration_since(start).unwrap() > Duration::from_secs(8 * 3600);
            let next = if look {
                look = false;
                match self.find(resource, operation).await {
                    Ok(Found::Absent | Found::Leaving(..)) => continue,
                    Ok(Found::Present(_, step)) => Ok(step),
                    Err(error) => {
                        look = true;
                        Err(error)
                    }
                }
            } else {
                if operation.steps == 0 {
                    return Ok(None);
                }
                operation.steps -= 1;
                resource.apply(&self.client, &self.op(resource, operation)).await
            };
            let pause = match next {
                Ok(Step::Done(made)) => return Ok(Some(made)),
                Ok(Step::Next { cursor, pause, why, .. }) => {
                    assert!(!late, "it never ended: {why}; the world: {:#}", self.running.world());
                    operation.cursor = (!cursor.is_null()).then_some(cursor);
                    pause
                }
                Err(error) if !late && matches!(error.class, Class::Again | Class::Unreachable) => {
                    look |= error.effect == Effect::Perhaps;
                    Duration::from_secs(5)
                }
                Err(error) => return Err(error),
            };
            clock.sleep(pause).await;
        }
    }

    pub async fn create<R: Resource<Talos>>(&self, resource: &R, mark: &str) -> Result<Made<R::Outputs>, Error> {
        Ok(self.apply(resource, &mut Operation::create(mark)).await?.expect("nothing stopped it"))
    }

    pub async fn update<R: Resource<Talos>>(&self, resource: &R, mark: &str) -> Result<Made<R::Outputs>, Error> {
        Ok(self.apply(resource, &mut Operation::update(mark)).await?.expect("nothing stopped it"))
    }

    pub async fn delete<R: Resource<Talos>>(&self, resource: &R, why: Why) -> Result<(), Error> {
        let clock = self.running.link().clock;
        let start = clock.now();
        let mut operation = Operation { why, ..Operation::update("deletes") };
        loop {
            let late = clock.now().duration_since(start).unwrap() > Duration::from_secs(8 * 3600);
            let op = Op { deleting: true, ..self.op(resource, &operation) };
            let pause = match R::delete(&self.client, &op).await {
                Ok(Step::Done(_)) => return Ok(()),
                Ok(Step::Next { cursor, pause, .. }) => {
                    operation.cursor = Some(cursor);
                    pause
                }
                Err(error) if !late && matches!(error.class, Class::Again | Class::Unreachable) => {
                    Duration::from_secs(5)
                }
                Err(error) => return Err(error),
            };
            assert!(!late, "it never ended; the world: {:#}", self.running.world());
            clock.sleep(pause).await;
        }
    }

    pub async fn ask<Q: Query<Talos>>(&self, query: &Q) -> Q::Answer {
        let clock = self.running.link().clock;
        for _ in 0..2000 {
            if let Ok(Step::Done(made)) = query.read(&self.client).await {
                return made.outputs;
            }
            clock.sleep(Duration::from_secs(5)).await;
        }
        panic!("it never held; the world: {:#}", self.running.world());
    }

    pub fn world(&self, machine: &str) -> Value {
        self.running.world()["machines"][machine].clone()
    }

    /// How often a call reached the lab.
    pub fn called(&self, name: &str) -> usize {
        self.running.calls().iter().filter(|call| call.name.contains(name)).count()
    }

    /// The etcd clusters with our name, each as the sorted addresses of its members.
    pub fn clusters(&self) -> Vec<Vec<String>> {
        let world = self.running.world();
        let ours = world["clusters"].as_array().unwrap().iter().filter(|cluster| cluster["name"] == "talos");
        ours.map(|cluster| {
            let members = cluster["members"].as_array().unwrap().iter();
            members.map(|member| member["address"].as_str().unwrap().to_owned()).collect()
        })
        .collect()
    }
}

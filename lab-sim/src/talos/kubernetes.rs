//! The Kubernetes of a cluster: the embedded stand-in, or a real control plane of this machine.

use super::config::Config;
use crate::control_plane::{Assets, ControlPlane, Membership};
use crate::kube::controllers::{self, Settings};
use crate::kube::front::Front;
use crate::kube::{self, Api, Faults};
use crate::tls;
use crate::world::World;
use lab_core::Clock;
use rustls::ServerConfig;
use serde_json::Value;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the control planes of a cluster serve.
pub(crate) enum Kubernetes {
    StandIn(Api),
    Real(Real),
}

/// A real control plane, from the moment it is being started.
pub(crate) struct Real {
    stage: watch::Receiver<Stage>,
    _tasks: JoinSet<()>,
}

#[derive(Clone)]
enum Stage {
    Starting,
    Up(Arc<Front>),
    Failed(String),
}

impl Kubernetes {
    /// Starts a real control plane for the cluster of this configuration.
    pub(crate) fn real(
        config: &Config,
        address: IpAddr,
        assets: Assets,
        faults: Arc<Faults>,
        clock: Clock,
    ) -> Kubernetes {
        let membership = membership(config, address);
        let (sender, stage) = watch::channel(Stage::Starting);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let started = async {
                let membership = membership?;
                let plane = ControlPlane::start_of(&assets, &membership).await.map_err(|error| error.to_string())?;
                let front = Front::new(Arc::new(plane), faults, clock.clone()).map_err(|error| error.to_string())?;
                Ok::<_, String>((membership, Arc::new(front)))
            };
            match started.await {
                Err(problem) => drop(sender.send(Stage::Failed(problem))),
                Ok((membership, front)) => {
                    let cluster = controllers::Outside::new(&front);
                    let settings =
                        Settings { authority: membership.authority.0, beside_real: true, ..Settings::default() };
                    let _ = sender.send(Stage::Up(front));
                    controllers::run(cluster, clock, settings).await;
                }
            }
        });
        Kubernetes::Real(Real { stage, _tasks: tasks })
    }

    /// Whether requests are answered.
    pub(crate) fn is_up(&self) -> bool {
        match self {
            Kubernetes::StandIn(_) => true,
            Kubernetes::Real(real) => real.front().is_some(),
        }
    }

    /// Returns why requests will never be answered, if so.
    pub(crate) fn problem(&self) -> Option<String> {
        match self {
            Kubernetes::StandIn(_) => None,
            Kubernetes::Real(real) => match &*real.stage.borrow() {
                Stage::Failed(problem) => Some(problem.clone()),
                Stage::Starting | Stage::Up(_) => None,
            },
        }
    }

    /// Waits until requests are answered.
    pub(crate) async fn up(&self) {
        if let Kubernetes::Real(real) = self {
            let mut stage = real.stage.clone();
            if stage.wait_for(|stage| matches!(stage, Stage::Up(_))).await.is_err() {
                std::future::pending().await
            }
        }
    }

    /// Makes a request as the administrator, without faults; returns the status code and the body. `None`: there was no
    /// answer.
    pub(crate) async fn request(&self, method: &str, target: &str, agent: &str, body: &Value) -> Option<(u16, Value)> {
        let content_type = if method == "PATCH" { "application/apply-patch+yaml" } else { "application/json" };
        match self {
            Kubernetes::StandIn(api) => Some(api.call_as(method, target, content_type, agent, body)),
            Kubernetes::Real(real) => real.front()?.request(method, target, content_type, agent, body).await,
        }
    }

    /// Serves one connection of a client.
    pub(crate) async fn serve_stream(&self, stream: TcpStream, tls: Arc<ServerConfig>) {
        // How a connection ended is of interest to its client.
        let _ = match self {
            Kubernetes::StandIn(api) => api.serve_stream(stream, tls).await,
            Kubernetes::Real(real) => match real.front() {
                Some(front) => front.serve_stream(stream, tls).await,
                None => Ok(()),
            },
        };
    }

    /// Returns every object as far as two worlds are compared by it.
    pub(crate) fn snapshot(&self) -> Value {
        match self {
            Kubernetes::StandIn(api) => api.snapshot(),
            Kubernetes::Real(real) => real.front().map_or(Value::Null, |front| objects(&front.plane)),
        }
    }
}

impl Real {
    fn front(&self) -> Option<Arc<Front>> {
        match &*self.stage.borrow() {
            Stage::Up(front) => Some(front.clone()),
            Stage::Starting | Stage::Failed(_) => None,
        }
    }
}

/// Asks the server from a thread of its own: who wants to compare worlds may be in the middle of anything.
fn objects(plane: &ControlPlane) -> Value {
    let asked = std::thread::scope(|scope| {
        let ask = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(plane.objects())
        };
        scope.spawn(ask).join()
    });
    match asked {
        Ok(Ok(mut objects)) => {
            let own = |object: &&mut Value| object["kind"] == "Service" && object["metadata"]["name"] == "kubernetes";
            for port in objects.iter_mut().filter(own).filter_map(|service| service.pointer_mut("/spec/ports/0")) {
                // Where the machines serve it.
                port["targetPort"] = 6443.into();
            }
            kube::comparable(&objects)
        }
        Ok(Err(_)) | Err(_) => Value::Null,
    }
}

fn membership(config: &Config, address: IpAddr) -> Result<Membership, String> {
    let (certificate, key) = config.kubernetes_authority().ok_or("the configuration has no Kubernetes authority")?;
    let key = key.ok_or("the Kubernetes authority has no key")?;
    let accounts =
        config.text("cluster.serviceAccount.key").ok_or("the configuration has no key of service accounts")?;
    Ok(Membership {
        authority: (tls::decode_pem(certificate)?, tls::decode_pem(key)?),
        service_accounts: tls::decode_pem(accounts)?,
        issuer: config.endpoint().to_owned(),
        services: config.texts("cluster.network.serviceSubnets").into_iter().next().unwrap_or("10.96.0.0/12".into()),
        address,
    })
}

impl Kubernetes {
    /// Whether this is a real control plane.
    pub(crate) fn is_real(&self) -> bool {
        matches!(self, Kubernetes::Real(_))
    }
}

/// What is asked before every request of a client; see [`World::injector`].
pub(crate) fn faults(world: &Arc<World>, address: IpAddr) -> Arc<Faults> {
    use crate::faults::Fault;
    let world = Arc::downgrade(world);
    Arc::new(move |method: &str, path: &str| {
        let Some(world) = world.upgrade() else { return kube::Fault::DropBefore };
        let fault = world.injector.consult(address, &format!("{method} {path}"));
        let power_loss = |again| {
            if let Some(node) = world.at(address) {
                node.power_loss(&world, again);
            }
        };
        match fault {
            None | Some(Fault::TaskFails | Fault::TaskDies | Fault::TaskWarns | Fault::GivenUp) => kube::Fault::None,
            Some(Fault::Latency(delay)) => kube::Fault::Delay(delay),
            Some(Fault::Refused) => kube::Fault::Status(503),
            Some(Fault::Dropped) => kube::Fault::DropBefore,
            Some(Fault::ReplyLost) => kube::Fault::DropAfter,
            Some(Fault::Reboot) => {
                power_loss(true);
                kube::Fault::DropAfter
            }
            Some(Fault::Dead) => {
                power_loss(false);
                kube::Fault::DropBefore
            }
        }
    })
}

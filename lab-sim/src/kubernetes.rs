//! The Kubernetes of a cluster: the embedded stand-in, or a real control plane of this machine.

use crate::control_plane::{Assets, ControlPlane, Membership};
use crate::faults;
use crate::kube::controllers::{self, Settings};
use crate::kube::front::Front;
use crate::kube::{self, Api, Fault, Faults};
use crate::world::{Slow, World};
use rustls::ServerConfig;
use serde_json::{Value, json};
use std::io;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the machines of a cluster serve.
pub(crate) enum Kubernetes {
    StandIn(Api),
    Real(Real),
}

/// A real control plane, from the moment it is being started.
pub(crate) struct Real {
    stage: watch::Receiver<Stage>,
    _tasks: JoinSet<()>,
    _slow: Slow,
}

#[derive(Clone)]
enum Stage {
    Starting,
    Up(Arc<Front>),
    Failed(String),
}

impl Kubernetes {
    /// Starts a real control plane for the cluster of these authorities.
    pub(crate) fn real(
        world: &Arc<World>,
        membership: Result<Membership, String>,
        assets: Assets,
        faults: Arc<Faults>,
        settings: Settings,
    ) -> Kubernetes {
        let clock = world.clock.clone();
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
                    let settings = Settings { authority: membership.authority.0, beside_real: true, ..settings };
                    let _ = sender.send(Stage::Up(front));
                    controllers::run(cluster, clock, settings).await;
                }
            }
        });
        Kubernetes::Real(Real { stage, _tasks: tasks, _slow: world.slow_down() })
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

    /// Waits until requests are answered; the error is why they never will be.
    pub(crate) async fn up(&self) -> Result<(), String> {
        let Kubernetes::Real(real) = self else { return Ok(()) };
        let mut stage = real.stage.clone();
        let settled = stage.wait_for(|stage| !matches!(stage, Stage::Starting)).await;
        match settled.as_deref() {
            Ok(Stage::Failed(problem)) => Err(problem.clone()),
            Ok(Stage::Up(_) | Stage::Starting) => Ok(()),
            Err(_) => Err("it was stopped while it started".to_owned()),
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

    /// Says that a node is alive, as its kubelet does. The stand-in does not miss it; a real controller manager calls a
    /// node unknown when it heard nothing for forty seconds of the wall's clock.
    pub(crate) async fn beat(&self, node: &str) {
        if let Kubernetes::StandIn(_) = self {
            return;
        }
        let path =
            format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{node}?fieldManager=kubelet");
        let now = time(SystemTime::now()).replace('Z', ".000000Z");
        let spec = json!({"holderIdentity": node, "leaseDurationSeconds": 40, "renewTime": now});
        let metadata = json!({"name": node, "namespace": "kube-node-lease"});
        let lease =
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec});
        self.request("PATCH", &path, "kubelet", &lease).await;
    }

    /// Serves one connection of a client.
    ///
    /// # Errors
    /// Those of the handshake and of the connection.
    pub(crate) async fn serve_stream(&self, stream: TcpStream, tls: Arc<ServerConfig>) -> io::Result<()> {
        match self {
            Kubernetes::StandIn(api) => api.serve_stream(stream, tls).await,
            Kubernetes::Real(real) => match real.front() {
                Some(front) => front.serve_stream(stream, tls).await,
                None => Err(io::ErrorKind::ConnectionRefused.into()),
            },
        }
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
                // Where it listens on loopback differs from run to run; the machines serve it at one port.
                port["targetPort"] = 6443.into();
            }
            kube::comparable(&objects)
        }
        Ok(Err(_)) | Err(_) => Value::Null,
    }
}

impl Kubernetes {
    /// Whether this is a real control plane.
    pub(crate) fn is_real(&self) -> bool {
        matches!(self, Kubernetes::Real(_))
    }

    /// Ends what is open. The objects of the stand-in stay readable.
    pub(crate) fn stop(&self) {
        if let Kubernetes::StandIn(api) = self {
            api.stop();
        }
    }
}

/// Returns what a request suffers when this goes wrong in the lab. `power_loss` takes away the machine that it is counted
/// at, and is told whether that comes back.
pub(crate) fn suffered(fault: Option<faults::Fault>, power_loss: impl FnOnce(bool)) -> Fault {
    use faults::Fault as Lab;
    match fault {
        None | Some(Lab::TaskFails | Lab::TaskDies | Lab::TaskWarns | Lab::GivenUp) => Fault::None,
        Some(Lab::Latency(delay)) => Fault::Delay(delay),
        Some(Lab::Refused) => Fault::Status(503),
        Some(Lab::Dropped) => Fault::DropBefore,
        Some(Lab::ReplyLost) => Fault::DropAfter,
        Some(Lab::Reboot) => {
            power_loss(true);
            Fault::DropAfter
        }
        Some(Lab::Dead) => {
            power_loss(false);
            Fault::DropBefore
        }
    }
}

/// Writes a time as Kubernetes does, to the second.
pub(crate) fn time(time: SystemTime) -> String {
    prost_types::Timestamp { nanos: 0, ..prost_types::Timestamp::from(time) }.to_string()
}

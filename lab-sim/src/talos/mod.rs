//! Talos machines: from maintenance mode to a running cluster and back.

pub(crate) mod apid;
mod apply;
pub(crate) mod config;
pub(crate) mod etcd;
mod foreign;
mod grpc;
mod kubeconfig;
pub(crate) mod kubelet;
pub(crate) mod life;
pub(crate) mod node;
mod resources;
mod schema;
mod validate;
mod verbs;

pub(crate) use foreign::foreign;

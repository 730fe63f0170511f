//! Talos Linux for `lab`.

pub mod authority;
pub mod client;
pub mod config;
pub mod kubeconfig;
mod pem;
pub mod proto;
mod rsa_key;
pub mod secrets;
pub mod talosconfig;
pub mod yaml;

//! Talos Linux for `lab`.

pub mod proto;

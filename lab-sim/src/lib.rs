//! The simulated lab.

pub mod kube;

//! The etcd clusters of the simulated lab, and what lives in them.
//!
//! A cluster exists once some machine was bootstrapped, and is lost when no machine holds its data any more. Nothing
//! here prevents two of them for one set of machines: a second bootstrap makes a second cluster, as in life.

use super::config::Config;
use crate::kubernetes::Kubernetes;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Which machines belong together: the identity in the configuration that etcd and discovery go by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    cluster: String,
    authority: String,
}

impl Identity {
    /// Returns the identity that a control plane's configuration states.
    pub(crate) fn of(config: &Config) -> Identity {
        Identity {
            cluster: config.text("cluster.id").unwrap_or_default().to_owned(),
            authority: config.text("cluster.etcd.ca.crt").unwrap_or_default().to_owned(),
        }
    }
}

/// One etcd cluster with the Kubernetes objects in it.
pub(crate) struct Etcd {
    /// Counted from 1 in the order of their birth.
    pub(crate) number: u64,
    pub(crate) identity: Identity,
    /// The cluster's name and its Kubernetes authority, for workers to find it by.
    pub(crate) name: String,
    pub(crate) kubernetes_authority: String,
    /// What the control planes serve.
    pub(crate) kubernetes: Kubernetes,
    members: Mutex<Members>,
}

#[derive(Default)]
struct Members {
    members: BTreeMap<u64, Member>,
    leader: Option<u64>,
}

/// One member of an etcd cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) id: u64,
    pub(crate) address: IpAddr,
    pub(crate) hostname: String,
    pub(crate) learner: bool,
    pub(crate) running: bool,
}

/// Why a member could not leave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stays {
    /// It is the last one.
    Last,
    /// The rest would have no majority.
    Quorum,
}

impl Etcd {
    /// Returns the cluster that a bootstrap on its first member makes.
    pub(crate) fn bootstrapped(number: u64, config: &Config, kubernetes: Kubernetes, first: Member) -> Etcd {
        let members = Members { leader: Some(first.id), members: BTreeMap::from([(first.id, first)]) };
        Etcd {
            number,
            identity: Identity::of(config),
            name: config.cluster_name().to_owned(),
            kubernetes_authority: config.text("cluster.ca.crt").unwrap_or_default().to_owned(),
            kubernetes,
            members: Mutex::new(members),
        }
    }

    pub(crate) fn members(&self) -> Vec<Member> {
        self.lock().members.values().cloned().collect()
    }

    pub(crate) fn member(&self, id: u64) -> Option<Member> {
        self.lock().members.get(&id).cloned()
    }

    /// Whether a majority of the voters runs.
    pub(crate) fn has_quorum(&self) -> bool {
        self.lock().has_quorum()
    }

    /// Adds a learner, unless there is one already or nobody can agree to it.
    pub(crate) fn join(&self, member: Member) -> bool {
        let mut members = self.lock();
        let learning = members.members.values().any(|member| member.learner);
        if learning || !members.has_quorum() {
            return false;
        }
        members.members.insert(member.id, Member { learner: true, running: false, ..member });
        true
    }

    pub(crate) fn set_running(&self, id: u64, running: bool) {
        let mut members = self.lock();
        if let Some(member) = members.members.get_mut(&id) {
            member.running = running;
        }
        members.elect();
    }

    /// Makes a learner a voter; false while it does not run or nobody can agree.
    pub(crate) fn promote(&self, id: u64) -> bool {
        let mut members = self.lock();
        let agreed = members.has_quorum();
        match members.members.get_mut(&id) {
            Some(member) if agreed && member.running => {
                member.learner = false;
                true
            }
            _ => false,
        }
    }

    /// Takes a living member out of the cluster.
    pub(crate) fn leave(&self, id: u64) -> Result<(), Stays> {
        let mut members = self.lock();
        if members.members.len() == 1 {
            return Err(Stays::Last);
        }
        if !members.has_quorum() {
            return Err(Stays::Quorum);
        }
        members.members.remove(&id);
        members.elect();
        Ok(())
    }

    /// Takes any member out of the cluster; false when there is none of this id.
    pub(crate) fn remove(&self, id: u64) -> bool {
        let mut members = self.lock();
        let found = members.members.remove(&id).is_some();
        members.elect();
        found
    }

    pub(crate) fn leader(&self) -> Option<Member> {
        let members = self.lock();
        members.leader.and_then(|id| members.members.get(&id).cloned())
    }

    /// Gives the leadership to another running voter and returns who leads now.
    pub(crate) fn forfeit(&self, id: u64) -> Option<Member> {
        let mut members = self.lock();
        if members.leader == Some(id) {
            let next = members.voters().find(|member| member.running && member.id != id).map(|member| member.id);
            members.leader = next.or(members.leader);
        }
        members.leader.and_then(|id| members.members.get(&id).cloned())
    }

    fn lock(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Members {
    fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| !member.learner)
    }

    fn has_quorum(&self) -> bool {
        let voters = self.voters().count();
        self.voters().filter(|member| member.running).count() * 2 > voters
    }

    fn elect(&mut self) {
        let still = self.leader.is_some_and(|id| self.voters().any(|member| member.id == id && member.running));
        if !still {
            let next = self.voters().find(|member| member.running).map(|member| member.id);
            self.leader = next;
        }
    }
}

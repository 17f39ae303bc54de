//! What may be taken away when a volume is given back, or when connecting one has failed.
//!
//! A namespace that was given back is shown until the storage unmaps it, and keeps nobody from dropping its controllers.

use super::subsystem::{Controller, Namespace};
use super::target::{Nqn, Target};
use super::{HostIdentity, NvmeOverFabrics};
use crate::call::Call;
use crate::error::{Kind, Result};
use crate::node::connector::kernel::unreadable;
use crate::node::connector::lock::Held;
use crate::node::connector::release::refuse_if_used;
use std::collections::BTreeMap;
use std::sync::PoisonError;

impl NvmeOverFabrics {
    pub(super) fn note_released(&self, subsystem: &Nqn, wwid: Option<&String>) {
        if let Some(wwid) = wwid {
            let mut released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
            released.entry(subsystem.clone()).or_default().insert(wwid.clone());
        }
    }

    pub(super) fn note_used(&self, subsystem: &Nqn, wwid: Option<&String>) {
        let mut released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(of), Some(wwid)) = (released.get_mut(subsystem), wwid) {
            of.remove(wwid);
        }
    }

    fn is_released(&self, subsystem: &Nqn, namespace: &Namespace) -> bool {
        let released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
        released.get(subsystem).zip(namespace.wwid.as_ref()).is_some_and(|(of, wwid)| of.contains(wwid))
    }

    /// Which of these controllers carry nothing but the namespace that is given back (on the disk of that name) and
    /// others that were given back before and that nobody uses.
    pub(super) async fn droppable(
        &self,
        call: &Call,
        held: &Held,
        subsystem: &Nqn,
        all: Vec<Controller>,
        given_back: Option<&str>,
    ) -> Result<Vec<Controller>> {
        let mut idle = BTreeMap::new();
        let mut droppable = Vec::new();
        for controller in all {
            let mut carries = false;
            for namespace in controller.namespaces.iter().filter(|n| Some(n.disk.as_str()) != given_back) {
                if !idle.contains_key(&namespace.disk) {
                    let is_idle =
                        self.is_released(subsystem, namespace) && self.is_idle(call, held, &namespace.disk).await?;
                    idle.insert(namespace.disk.clone(), is_idle);
                }
                carries |= !idle.get(&namespace.disk).copied().unwrap_or(false);
            }
            if !carries {
                droppable.push(controller);
            }
        }
        Ok(droppable)
    }

    /// Of the controllers that a failed call made: those without which everything that is in use has a path still.
    pub(super) async fn undoable(
        &self,
        call: &Call,
        held: &Held,
        target: &Target,
        identity: &HostIdentity,
        made: &[String],
    ) -> Result<Vec<Controller>> {
        let all = self.controllers(call, &target.subsystem, identity).await?;
        let (ours, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|controller| made.contains(&controller.name));
        for namespace in ours.iter().flat_map(|controller| &controller.namespaces) {
            let has_another_path = others.iter().any(|other| other.namespaces.iter().any(|n| n.disk == namespace.disk));
            if !has_another_path && !self.is_idle(call, held, &namespace.disk).await? {
                return Ok(Vec::new());
            }
        }
        Ok(ours)
    }

    async fn is_idle(&self, call: &Call, held: &Held, disk: &str) -> Result<bool> {
        match self.host.device(disk).map_err(unreadable)? {
            None => Ok(true),
            Some(device) => match refuse_if_used(call, held, &device).await {
                Ok(_) => Ok(true),
                Err(error) if error.is(Kind::Busy) || error.is(Kind::Unavailable) => Ok(false),
                Err(error) => Err(error),
            },
        }
    }
}

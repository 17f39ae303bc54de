//! What this process has seen: of volumes, so that most attachments need no question; of hosts, so that clones of a
//! machine are found out before they write to one another's volumes. Only a memory: nothing is wrong without it.

use crate::error::{Error, Result};
use crate::initiator::Initiator;
use crate::model::Bytes;
use crate::openstack::cinder::Volume;
use crate::provider::size::gib;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::OwnedMutexGuard;

/// The most volumes and hosts that are remembered.
const MOST: usize = 200_000;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What does not change about a volume, or only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::provider::cinder) struct Shape {
    /// The size that it has at least.
    pub(in crate::provider::cinder) size: Bytes,
    /// Whether several hosts may have it.
    pub(in crate::provider::cinder) multiattach: bool,
}

impl Shape {
    /// Of this volume.
    pub(in crate::provider::cinder) fn of(volume: &Volume) -> Result<Self> {
        Ok(Self { size: gib(volume.size)?, multiattach: volume.multiattach })
    }
}

/// The volumes that were seen.
#[derive(Debug, Default)]
pub(in crate::provider::cinder) struct Shapes {
    by_id: Mutex<HashMap<String, Shape>>,
}

impl Shapes {
    /// Remembers a volume.
    pub(in crate::provider::cinder) fn note(&self, volume: &Volume) {
        let Ok(shape) = Shape::of(volume) else { return };
        let mut by_id = lock(&self.by_id);
        if by_id.len() < MOST || by_id.contains_key(&volume.id) {
            by_id.insert(volume.id.clone(), shape);
        }
    }

    /// Forgets a volume that is gone.
    pub(in crate::provider::cinder) fn forget(&self, id: &str) {
        lock(&self.by_id).remove(id);
    }

    /// What is known of a volume.
    pub(in crate::provider::cinder) fn get(&self, id: &str) -> Option<Shape> {
        lock(&self.by_id).get(id).copied()
    }
}

/// One at a time, by volume: Cinder refuses a second attachment while the first is being made.
#[derive(Debug, Default)]
pub(in crate::provider::cinder) struct Turns {
    by_id: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl Turns {
    /// Waits for one's turn, which lasts as long as the guard.
    pub(in crate::provider::cinder) async fn wait(&self, id: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut by_id = lock(&self.by_id);
            match by_id.get(id).and_then(Weak::upgrade) {
                Some(turn) => turn,
                None => {
                    by_id.retain(|_, turn| turn.strong_count() > 0);
                    let turn = Arc::new(tokio::sync::Mutex::new(()));
                    by_id.insert(id.to_owned(), Arc::downgrade(&turn));
                    turn
                }
            }
        };
        turn.lock_owned().await
    }
}

/// The hosts that were seen, by the names under which storage knows them.
#[derive(Debug, Default)]
pub(in crate::provider::cinder) struct Hosts {
    by_initiator: Mutex<HashMap<String, String>>,
}

impl Hosts {
    /// Lets a host in, unless another one has its initiator name, host NQN or a port: storage would take the two for one
    /// and let both write to what belongs to either.
    ///
    /// # Errors
    /// `WrongState`, naming the other host.
    pub(in crate::provider::cinder) fn admit(&self, host: &Initiator) -> Result<()> {
        let names: Vec<Name> = names(host).collect();
        let mut by_initiator = lock(&self.by_initiator);
        for Name { name, remedy } in &names {
            if let Some(other) = by_initiator.get(name).filter(|other| **other != host.host) {
                return Err(Error::wrong_state(format!(
                    "the hosts {other} and {} have the same {name}, so storage takes the two for one: one is a copy of \
                     the other. {remedy}, restart the driver on it, and then the controller",
                    host.host
                )));
            }
        }
        if by_initiator.len() < MOST {
            by_initiator.extend(names.into_iter().map(|Name { name, .. }| (name, host.host.clone())));
        }
        Ok(())
    }
}

/// A name under which storage knows a host, and how to give the host another one.
struct Name {
    name: String,
    remedy: &'static str,
}

fn names(host: &Initiator) -> impl Iterator<Item = Name> {
    let iqn = host.iqn.iter().map(|iqn| Name {
        name: format!("initiator name {iqn}"),
        remedy: "Give one of them another in /etc/iscsi/initiatorname.iscsi (`iscsi-iname` makes one), restart iscsid",
    });
    let nqn = host.nqn.iter().map(|nqn| Name {
        name: format!("host NQN {nqn}"),
        remedy: "Remove /etc/nvme/hostnqn and /etc/nvme/hostid on one of them, or write others into them",
    });
    let ports = host.wwpns.iter().map(|port| Name {
        name: format!("Fibre Channel port {port}"),
        remedy: "Give one of them another WWPN in the settings of its adapter or hypervisor",
    });
    iqn.chain(nqn).chain(ports)
}

#[cfg(test)]
mod tests {
    use super::{Hosts, Shapes, Turns};
    use crate::error::Kind;
    use crate::initiator::Initiator;
    use crate::seal::PublicKey;
    use std::time::Duration;

    fn host(name: &str, iqn: &str, nqn: Option<&str>) -> Initiator {
        Initiator {
            public_key: PublicKey::new([1; 32]),
            host: name.to_owned(),
            ip: None,
            iqn: Some(iqn.to_owned()),
            nqn: nqn.map(str::to_owned),
            nvme_host_id: None,
            wwpns: Vec::new(),
            wwnns: Vec::new(),
            multipath: false,
            system_uuid: None,
        }
    }

    #[test]
    fn two_hosts_with_one_name_for_the_storage_are_refused() {
        let hosts = Hosts::default();
        hosts.admit(&host("a", "iqn.1", Some("nqn.1"))).unwrap();
        hosts.admit(&host("a", "iqn.1", Some("nqn.1"))).unwrap();
        hosts.admit(&host("b", "iqn.2", None)).unwrap();
        for clone in [host("c", "iqn.1", None), host("c", "iqn.3", Some("nqn.1"))] {
            let error = hosts.admit(&clone).unwrap_err();
            assert_eq!(error.kind(), Kind::WrongState);
            assert!(error.to_string().contains("hosts a and c"), "{error}");
        }
        hosts.admit(&host("c", "iqn.3", None)).unwrap();
    }

    #[test]
    fn what_was_seen_of_a_volume_is_kept_until_it_is_gone() {
        let shapes = Shapes::default();
        let volume = serde_json::from_value(serde_json::json!({"id": "v", "status": "available", "size": 3})).unwrap();
        assert_eq!(shapes.get("v"), None);
        shapes.note(&volume);
        assert_eq!(shapes.get("v").unwrap().size.gib_ceil(), 3);
        shapes.forget("v");
        assert_eq!(shapes.get("v"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn turns_are_by_volume() {
        let turns = Turns::default();
        let first = turns.wait("v").await;
        let _other = turns.wait("w").await;
        assert!(tokio::time::timeout(Duration::from_secs(1), turns.wait("v")).await.is_err());
        drop(first);
        drop(turns.wait("v").await);
        assert!(turns.by_id.lock().unwrap().len() <= 2);
    }
}

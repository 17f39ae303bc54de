//! What can be tried with this driver: derived from the capabilities that it advertises, never from its name.

use super::proto;
use proto::controller_service_capability::rpc::Type as ControllerRpc;
use proto::node_service_capability::rpc::Type as NodeRpc;
use proto::plugin_capability::service::Type as PluginService;
use proto::plugin_capability::volume_expansion::Type as Expansion;

/// What the driver says about itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Advertised {
    /// `GetPluginCapabilities`: services.
    pub(super) plugin: Vec<PluginService>,
    /// `GetPluginCapabilities`: how volumes grow.
    pub(super) expansion: Vec<Expansion>,
    /// `ControllerGetCapabilities`.
    pub(super) controller: Vec<ControllerRpc>,
    /// `NodeGetCapabilities`: what all nodes have.
    pub(super) node: Vec<NodeRpc>,
}

/// What the user wants, as far as it decides what is tried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wishes {
    /// Whether there should be a backup; none for "if the driver makes such".
    pub(super) backup: Option<bool>,
    /// How many nodes there are.
    pub(super) nodes: usize,
}

/// Whether a backup is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BackupPlan {
    /// No.
    No,
    /// Yes, unless the driver says that it cannot.
    IfThere,
    /// Yes.
    Must,
}

/// When the volume grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Growth {
    /// Never.
    No,
    /// While it is mounted.
    Online,
    /// While it is on no node.
    Offline,
}

/// A part of the life that is left out, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Omission {
    /// What is not tried.
    pub(super) what: &'static str,
    /// Why not.
    pub(super) why: String,
}

/// Which parts a life has.
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "each is a part of its own")]
pub(super) struct Plan {
    /// Controller publish and unpublish.
    pub(super) publish: bool,
    /// Stage and unstage.
    pub(super) stage: bool,
    /// Statistics of the mounted volume.
    pub(super) stats: bool,
    /// Snapshot, restore, compare.
    pub(super) snapshot: bool,
    /// Backup, restore, compare.
    pub(super) backup: BackupPlan,
    /// Clone, compare.
    pub(super) clone: bool,
    /// Growing.
    pub(super) growth: Growth,
    /// Whether nodes can grow what is on the volume.
    pub(super) node_growth: bool,
    /// Whether volumes are made for a place.
    pub(super) topology: bool,
    /// What is left out.
    pub(super) omissions: Vec<Omission>,
}

impl Plan {
    /// The largest life that this driver can have.
    ///
    /// # Errors
    /// A sentence, where the driver lacks what every life needs, or what the user insists on.
    pub(super) fn new(driver: &Advertised, wishes: Wishes) -> Result<Self, String> {
        let controller = |rpc| driver.controller.contains(&rpc);
        if !driver.plugin.contains(&PluginService::ControllerService) || !controller(ControllerRpc::CreateDeleteVolume)
        {
            return Err("the driver at --endpoint does not advertise CREATE_DELETE_VOLUME: it is not the controller \
                        service; give the controller's socket as --endpoint and the nodes' as --node-endpoint"
                .to_owned());
        }
        let mut omissions = Vec::new();
        let mut offered = |has: bool, what: &'static str, capability: &str| {
            if !has {
                omissions.push(Omission { what, why: format!("the driver does not advertise {capability}") });
            }
            has
        };
        let publish = offered(
            controller(ControllerRpc::PublishUnpublishVolume),
            "controller publish",
            "PUBLISH_UNPUBLISH_VOLUME",
        );
        let stage = offered(driver.node.contains(&NodeRpc::StageUnstageVolume), "stage", "STAGE_UNSTAGE_VOLUME");
        let stats = offered(driver.node.contains(&NodeRpc::GetVolumeStats), "stats", "GET_VOLUME_STATS");
        let snapshot = offered(controller(ControllerRpc::CreateDeleteSnapshot), "snapshot", "CREATE_DELETE_SNAPSHOT");
        let clone = offered(controller(ControllerRpc::CloneVolume), "clone", "CLONE_VOLUME");
        let node_growth = driver.node.contains(&NodeRpc::ExpandVolume);
        let growth = if !offered(controller(ControllerRpc::ExpandVolume) || node_growth, "expand", "EXPAND_VOLUME") {
            Growth::No
        } else if driver.expansion.contains(&Expansion::Offline) && !driver.expansion.contains(&Expansion::Online) {
            Growth::Offline
        } else {
            Growth::Online
        };
        if growth == Growth::Offline {
            omissions.push(Omission {
                what: "expand while mounted",
                why: "the driver advertises OFFLINE expansion only: the volume grows while it is on no node".to_owned(),
            });
        }
        let backup = match (wishes.backup, snapshot) {
            (Some(true), true) => BackupPlan::Must,
            (Some(true), false) => {
                return Err(
                    "--backup: the driver makes no snapshots, and backups are asked for as snapshots with the \
                            parameter type=backup; leave --backup out"
                        .to_owned(),
                );
            }
            (None, true) => BackupPlan::IfThere,
            (Some(false), _) => {
                omissions.push(Omission { what: "backup", why: "--no-backup".to_owned() });
                BackupPlan::No
            }
            (None, false) => {
                omissions.push(Omission { what: "backup", why: "the driver makes no snapshots".to_owned() });
                BackupPlan::No
            }
        };
        if wishes.nodes < 2 {
            omissions.push(Omission {
                what: "move to another node",
                why: "there is one node: the volume comes back to it; give --node-endpoint twice or more".to_owned(),
            });
        }
        let topology = driver.plugin.contains(&PluginService::VolumeAccessibilityConstraints);
        Ok(Self { publish, stage, stats, snapshot, backup, clone, growth, node_growth, topology, omissions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything() -> Advertised {
        Advertised {
            plugin: vec![PluginService::ControllerService, PluginService::VolumeAccessibilityConstraints],
            expansion: vec![Expansion::Online],
            controller: vec![
                ControllerRpc::CreateDeleteVolume,
                ControllerRpc::PublishUnpublishVolume,
                ControllerRpc::CreateDeleteSnapshot,
                ControllerRpc::CloneVolume,
                ControllerRpc::ExpandVolume,
            ],
            node: vec![NodeRpc::StageUnstageVolume, NodeRpc::GetVolumeStats, NodeRpc::ExpandVolume],
        }
    }

    const TWO_NODES: Wishes = Wishes { backup: None, nodes: 2 };

    #[test]
    fn a_driver_with_everything_lives_a_whole_life() {
        let plan = Plan::new(&everything(), TWO_NODES).unwrap();
        assert!(plan.publish && plan.stage && plan.stats && plan.snapshot && plan.clone && plan.topology);
        assert_eq!((plan.backup, plan.growth), (BackupPlan::IfThere, Growth::Online));
        assert_eq!(plan.omissions, []);
    }

    #[test]
    fn what_is_not_advertised_is_left_out_and_named() {
        let bare = Advertised {
            plugin: vec![PluginService::ControllerService],
            controller: vec![ControllerRpc::CreateDeleteVolume],
            ..Advertised::default()
        };
        let plan = Plan::new(&bare, TWO_NODES).unwrap();
        assert!(!plan.publish && !plan.stage && !plan.stats && !plan.snapshot && !plan.clone && !plan.topology);
        assert_eq!((plan.backup, plan.growth), (BackupPlan::No, Growth::No));
        let left_out: Vec<_> = plan.omissions.iter().map(|omission| omission.what).collect();
        assert_eq!(left_out, ["controller publish", "stage", "stats", "snapshot", "clone", "expand", "backup"]);
    }

    #[test]
    fn each_missing_capability_leaves_out_its_own_part_only() {
        for gone in [ControllerRpc::CloneVolume, ControllerRpc::PublishUnpublishVolume] {
            let mut driver = everything();
            driver.controller.retain(|rpc| *rpc != gone);
            assert_eq!(Plan::new(&driver, TWO_NODES).unwrap().omissions.len(), 1, "{gone:?}");
        }
        for gone in [NodeRpc::StageUnstageVolume, NodeRpc::GetVolumeStats] {
            let mut driver = everything();
            driver.node.retain(|rpc| *rpc != gone);
            assert_eq!(Plan::new(&driver, TWO_NODES).unwrap().omissions.len(), 1, "{gone:?}");
        }
    }

    #[test]
    fn a_volume_that_cannot_grow_online_grows_on_no_node() {
        let driver = Advertised { expansion: vec![Expansion::Offline], ..everything() };
        let plan = Plan::new(&driver, TWO_NODES).unwrap();
        assert_eq!(plan.growth, Growth::Offline);
        assert_eq!(plan.omissions.len(), 1);
    }

    #[test]
    fn the_users_word_on_backups_decides() {
        let backup = |wish| Plan::new(&everything(), Wishes { backup: wish, nodes: 2 }).unwrap().backup;
        assert_eq!(backup(Some(true)), BackupPlan::Must);
        assert_eq!(backup(Some(false)), BackupPlan::No);
        let mut driver = everything();
        driver.controller.retain(|rpc| *rpc != ControllerRpc::CreateDeleteSnapshot);
        assert!(Plan::new(&driver, Wishes { backup: Some(true), nodes: 2 }).unwrap_err().contains("--backup"));
    }

    #[test]
    fn a_socket_without_a_controller_is_refused() {
        let node_only = Advertised { controller: Vec::new(), ..everything() };
        assert!(Plan::new(&node_only, TWO_NODES).unwrap_err().contains("--node-endpoint"));
    }
}

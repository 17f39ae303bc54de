//! What the driver can do, as CSI capabilities. They derive from what the provider offers, so they cannot lie.

use crate::csi::proto;
use crate::error::{Error, Result};
use crate::model::{AccessKind, AccessMode, Capability};
use crate::provider::{Provider, Snapshots};
use proto::controller_service_capability::rpc::Type as ControllerRpc;
use proto::node_service_capability::rpc::Type as NodeRpc;
use proto::plugin_capability::service::Type as PluginService;
use proto::plugin_capability::volume_expansion::Type as Expansion;

/// What a provider can do beyond the basics.
///
/// A node has no provider (it has no credential), yet the specification wants every instance of a plug-in to name the
/// same plug-in capabilities: there the abilities come from the registry of [`crate::app`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is an ability of its own")]
pub struct Abilities {
    /// Volumes grow.
    pub expand: bool,
    /// Snapshots are taken.
    pub snapshots: bool,
    /// Volumes are in zones.
    pub zones: bool,
    /// Snapshots say where they can be used.
    pub snapshot_topology: bool,
    /// The room that is left is known.
    pub capacity: bool,
    /// Volumes are made of volumes.
    pub clone: bool,
    /// Volumes are block devices, and file systems on them are local ones; otherwise they are shared file systems.
    pub block: bool,
    /// Publishing read-only is enforced by the service.
    pub read_only_publish: bool,
    /// Whether the list of volumes says where each is published.
    pub published_nodes: bool,
}

impl Abilities {
    /// Those of a provider that implements what [`Provider`] asks for and nothing else.
    pub const BASIC: Self = Self {
        expand: false,
        snapshots: false,
        zones: false,
        snapshot_topology: false,
        capacity: false,
        clone: false,
        block: true,
        read_only_publish: false,
        published_nodes: true,
    };

    /// Those of this provider.
    #[must_use]
    pub fn of(provider: &dyn Provider) -> Self {
        Self {
            expand: provider.expand().is_some(),
            snapshots: provider.snapshots().is_some(),
            zones: provider.has_zones(),
            snapshot_topology: provider.snapshots().is_some_and(Snapshots::have_topology),
            capacity: provider.capacity().is_some(),
            clone: provider.can_clone(),
            block: provider.has_block_volumes(),
            read_only_publish: provider.publishes_read_only(),
            published_nodes: provider.lists_published_nodes(),
        }
    }

    /// Refuses a use of a volume that can never be right here, whatever the volume.
    ///
    /// # Errors
    /// `InvalidArgument`, with the reason.
    pub fn check(&self, field: &str, capability: &Capability) -> Result<()> {
        match self.objection(capability) {
            Some(objection) => Err(Error::invalid(format!("{field}: {objection}"))),
            None => Ok(()),
        }
    }

    /// Why a volume cannot be used like this here; none when it can.
    #[must_use]
    pub fn objection(&self, capability: &Capability) -> Option<&'static str> {
        let many_with_a_writer =
            matches!(capability.mode, AccessMode::MultiNodeSingleWriter | AccessMode::MultiNodeMultiWriter);
        match capability.kind {
            AccessKind::Mount { .. } if self.block && many_with_a_writer => Some(
                "a file system on a block volume cannot be mounted on several nodes while one of them writes: it would be \
                 destroyed; use a raw block volume (volumeMode: Block) on a multiattach type, or a shared file system",
            ),
            AccessKind::Block if !self.block => {
                Some("shared file systems have no raw block volumes; use a mounted volume (volumeMode: Filesystem)")
            }
            AccessKind::Mount { .. } | AccessKind::Block => None,
        }
    }

    /// The capabilities of the plug-in as a whole.
    #[must_use]
    pub fn of_plugin(&self) -> Vec<proto::PluginCapability> {
        let service = |service: PluginService| proto::PluginCapability {
            r#type: Some(proto::plugin_capability::Type::Service(proto::plugin_capability::Service {
                r#type: service.into(),
            })),
        };
        let mut all = vec![service(PluginService::ControllerService)];
        if self.zones {
            all.push(service(PluginService::VolumeAccessibilityConstraints));
        }
        if self.snapshot_topology {
            all.push(service(PluginService::SnapshotAccessibilityConstraints));
        }
        if self.expand {
            all.push(proto::PluginCapability {
                r#type: Some(proto::plugin_capability::Type::VolumeExpansion(
                    proto::plugin_capability::VolumeExpansion { r#type: Expansion::Online.into() },
                )),
            });
        }
        all
    }

    /// The capabilities of the controller service.
    #[must_use]
    pub fn of_controller(&self) -> Vec<proto::ControllerServiceCapability> {
        let mut all = vec![
            ControllerRpc::CreateDeleteVolume,
            ControllerRpc::PublishUnpublishVolume,
            ControllerRpc::ListVolumes,
            ControllerRpc::GetVolume,
            ControllerRpc::GetVolumeHealth,
            ControllerRpc::ListVolumeHealth,
            ControllerRpc::SingleNodeMultiWriter,
        ];
        let optional = [
            (self.capacity, ControllerRpc::GetCapacity),
            (self.snapshots, ControllerRpc::CreateDeleteSnapshot),
            (self.snapshots, ControllerRpc::ListSnapshots),
            (self.snapshots, ControllerRpc::GetSnapshot),
            (self.clone, ControllerRpc::CloneVolume),
            (self.expand, ControllerRpc::ExpandVolume),
            (self.read_only_publish, ControllerRpc::PublishReadonly),
            (self.published_nodes, ControllerRpc::ListVolumesPublishedNodes),
        ];
        all.extend(optional.into_iter().filter(|(able, _)| *able).map(|(_, rpc)| rpc));
        all.into_iter()
            .map(|rpc| proto::ControllerServiceCapability {
                r#type: Some(proto::controller_service_capability::Type::Rpc(
                    proto::controller_service_capability::Rpc { r#type: rpc.into() },
                )),
            })
            .collect()
    }

    /// The capabilities of the node service.
    #[must_use]
    pub fn of_node(&self) -> Vec<proto::NodeServiceCapability> {
        let mut all = vec![
            NodeRpc::StageUnstageVolume,
            NodeRpc::GetVolumeStats,
            NodeRpc::GetVolumeHealth,
            NodeRpc::SingleNodeMultiWriter,
        ];
        // A share grows at its server; nodes have nothing to do.
        if self.expand && self.block {
            all.push(NodeRpc::ExpandVolume);
        }
        all.into_iter()
            .map(|rpc| proto::NodeServiceCapability {
                r#type: Some(proto::node_service_capability::Type::Rpc(proto::node_service_capability::Rpc {
                    r#type: rpc.into(),
                })),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Abilities;
    use crate::model::{AccessKind, AccessMode, Capability};

    #[test]
    fn a_file_system_on_a_block_volume_has_one_writer_or_only_readers() {
        let shares = Abilities { block: false, ..Abilities::BASIC };
        let mount = AccessKind::Mount { fstype: None, options: Vec::new(), group: None };
        let table = [
            (AccessMode::SingleNodeWriter, true),
            (AccessMode::SingleNodeSingleWriter, true),
            (AccessMode::SingleNodeMultiWriter, true),
            (AccessMode::SingleNodeReaderOnly, true),
            (AccessMode::MultiNodeReaderOnly, true),
            (AccessMode::MultiNodeSingleWriter, false),
            (AccessMode::MultiNodeMultiWriter, false),
        ];
        for (mode, fine) in table {
            let mounted = Capability { mode, kind: mount.clone() };
            let raw = Capability { mode, kind: AccessKind::Block };
            assert_eq!(Abilities::BASIC.objection(&mounted).is_none(), fine, "{mode:?} mounted");
            assert!(Abilities::BASIC.objection(&raw).is_none(), "{mode:?} raw");
            assert!(shares.objection(&mounted).is_none(), "{mode:?} on a share");
            assert!(shares.objection(&raw).is_some(), "{mode:?} raw on a share");
        }
    }

    #[test]
    fn an_ability_that_is_missing_is_not_advertised() {
        let all = Abilities {
            expand: true,
            snapshots: true,
            zones: true,
            snapshot_topology: true,
            capacity: true,
            clone: true,
            block: true,
            read_only_publish: true,
            published_nodes: true,
        };
        assert_eq!((Abilities::BASIC.of_plugin().len(), all.of_plugin().len()), (1, 4));
        assert_eq!((Abilities::BASIC.of_controller().len(), all.of_controller().len()), (8, 15));
        assert_eq!((Abilities::BASIC.of_node().len(), all.of_node().len()), (4, 5));
    }
}

//! What an RPC is about: the ids and names in its request, for its log line.

use crate::csi::proto;

/// The longest id or name that is kept, in bytes.
const LONGEST: usize = 256;

/// The ids and names of one request, as they were sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// The volume.
    pub volume: Option<String>,
    /// The node.
    pub node: Option<String>,
    /// The snapshot.
    pub snapshot: Option<String>,
    /// The name of what is to be made.
    pub name: Option<String>,
}

/// A request that says what it is about.
pub trait Concerns {
    /// Its ids and names.
    fn subject(&self) -> Subject;
}

/// Keeps what was sent, within bounds.
fn keep(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.get(..text.floor_char_boundary(LONGEST)).unwrap_or_default().to_owned())
}

macro_rules! concerns {
    ($($message:ident { $($what:ident: $field:ident),* })*) => {
        $(impl Concerns for proto::$message {
            fn subject(&self) -> Subject {
                #[allow(clippy::needless_update, reason = "some requests name everything")]
                Subject { $($what: keep(&self.$field),)* ..Subject::default() }
            }
        })*
    };
}

concerns! {
    GetPluginInfoRequest {}
    GetPluginCapabilitiesRequest {}
    ProbeRequest {}
    CreateVolumeRequest { name: name }
    DeleteVolumeRequest { volume: volume_id }
    ControllerPublishVolumeRequest { volume: volume_id, node: node_id }
    ControllerUnpublishVolumeRequest { volume: volume_id, node: node_id }
    ValidateVolumeCapabilitiesRequest { volume: volume_id }
    ListVolumesRequest {}
    ControllerListVolumeHealthRequest {}
    ControllerGetVolumeHealthRequest { volume: volume_id }
    GetCapacityRequest {}
    ControllerGetCapabilitiesRequest {}
    CreateSnapshotRequest { name: name, volume: source_volume_id }
    DeleteSnapshotRequest { snapshot: snapshot_id }
    ListSnapshotsRequest { volume: source_volume_id, snapshot: snapshot_id }
    GetSnapshotRequest { snapshot: snapshot_id }
    ControllerExpandVolumeRequest { volume: volume_id }
    ControllerGetVolumeRequest { volume: volume_id }
    NodeStageVolumeRequest { volume: volume_id }
    NodeUnstageVolumeRequest { volume: volume_id }
    NodePublishVolumeRequest { volume: volume_id }
    NodeUnpublishVolumeRequest { volume: volume_id }
    NodeGetVolumeStatsRequest { volume: volume_id }
    NodeGetVolumeHealthRequest { volume: volume_id }
    NodeExpandVolumeRequest { volume: volume_id }
    NodeGetCapabilitiesRequest {}
    NodeGetInfoRequest {}
}

#[cfg(test)]
mod tests {
    use super::{Concerns, LONGEST};
    use crate::csi::proto;

    #[test]
    fn ids_are_kept_within_bounds_and_empty_ones_are_not() {
        let request = proto::ControllerPublishVolumeRequest { volume_id: "ä".repeat(LONGEST), ..Default::default() };
        let subject = request.subject();
        assert_eq!(subject.volume.map(|id| id.len()), Some(LONGEST));
        assert_eq!(subject.node, None);
    }
}

//! The steps of a life, as they are named in lines and in the summary.

/// One step. The order is that of a life and of the summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Step {
    CreateVolume,
    CreateFromSnapshot,
    CreateFromBackup,
    CreateFromVolume,
    ControllerPublish,
    NodeStage,
    NodePublish,
    Write,
    Compare,
    Stats,
    CreateSnapshot,
    CreateBackup,
    ControllerExpand,
    NodeExpand,
    CheckSize,
    NodeUnpublish,
    NodeUnstage,
    ControllerUnpublish,
    DeleteSnapshot,
    DeleteBackup,
    DeleteVolume,
    RemoveDirectory,
    Usable,
    WholeLife,
}

impl Step {
    /// For people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::CreateVolume => "create volume",
            Self::CreateFromSnapshot => "create from snapshot",
            Self::CreateFromBackup => "create from backup",
            Self::CreateFromVolume => "create from volume",
            Self::ControllerPublish => "controller publish",
            Self::NodeStage => "node stage",
            Self::NodePublish => "node publish",
            Self::Write => "write data",
            Self::Compare => "read and compare",
            Self::Stats => "node stats",
            Self::CreateSnapshot => "create snapshot",
            Self::CreateBackup => "create backup",
            Self::ControllerExpand => "controller expand",
            Self::NodeExpand => "node expand",
            Self::CheckSize => "check size",
            Self::NodeUnpublish => "node unpublish",
            Self::NodeUnstage => "node unstage",
            Self::ControllerUnpublish => "controller unpublish",
            Self::DeleteSnapshot => "delete snapshot",
            Self::DeleteBackup => "delete backup",
            Self::DeleteVolume => "delete volume",
            Self::RemoveDirectory => "remove directory",
            Self::Usable => "(create to published)",
            Self::WholeLife => "(whole life)",
        }
    }
}

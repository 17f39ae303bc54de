//! Answers: domain types put back into messages.

use crate::csi::proto;
use crate::model::{Bytes, ContentSource, Health, Severity, Snapshot, Topology, Volume, VolumeId};
use proto::volume_content_source::{SnapshotSource, Type as SourceType, VolumeSource};
use proto::volume_health::VolumeHealthEntry;

/// A volume.
#[must_use]
pub fn volume(volume: Volume) -> proto::Volume {
    proto::Volume {
        capacity_bytes: volume.size.to_wire(),
        volume_id: volume.id.into(),
        volume_context: volume.context,
        content_source: volume.source.map(source),
        accessible_topology: volume.topology.into_iter().map(topology).collect(),
    }
}

fn source(source: ContentSource) -> proto::VolumeContentSource {
    proto::VolumeContentSource {
        r#type: Some(match source {
            ContentSource::Snapshot(id) => SourceType::Snapshot(SnapshotSource { snapshot_id: id.into() }),
            ContentSource::Volume(id) => SourceType::Volume(VolumeSource { volume_id: id.into() }),
        }),
    }
}

/// A snapshot; `with_topology` as the driver advertises it.
#[must_use]
pub fn snapshot(snapshot: Snapshot, with_topology: bool) -> proto::Snapshot {
    let places = if with_topology { snapshot.topology } else { Vec::new() };
    proto::Snapshot {
        size_bytes: snapshot.size.to_wire(),
        snapshot_id: snapshot.id.into(),
        source_volume_id: snapshot.source.into(),
        creation_time: Some(timestamp(snapshot.created)),
        ready_to_use: snapshot.ready,
        group_snapshot_id: String::new(),
        accessible_topology: places.into_iter().map(topology).collect(),
    }
}

/// A time; its nanoseconds count forward, also before 1970.
fn timestamp(time: jiff::Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = (time.as_second(), time.subsec_nanosecond());
    if nanos < 0 {
        prost_types::Timestamp { seconds: seconds - 1, nanos: nanos + 1_000_000_000 }
    } else {
        prost_types::Timestamp { seconds, nanos }
    }
}

/// A place.
#[must_use]
pub fn topology(segments: Topology) -> proto::Topology {
    proto::Topology { segments }
}

/// What is wrong with a volume. The specification wants each (status, reason) once.
#[must_use]
pub fn health(id: VolumeId, problems: Vec<Health>) -> proto::VolumeHealth {
    let mut entries: Vec<VolumeHealthEntry> = Vec::with_capacity(problems.len());
    for problem in problems {
        let status: i32 = severity(problem.severity).into();
        if !entries.iter().any(|entry| entry.status == status && entry.reason == problem.reason) {
            entries.push(VolumeHealthEntry { status, reason: problem.reason.to_owned(), message: problem.message });
        }
    }
    proto::VolumeHealth { volume_id: id.into(), health_statuses: entries }
}

fn severity(severity: Severity) -> proto::VolumeHealthErrorType {
    match severity {
        Severity::Degraded => proto::VolumeHealthErrorType::Degraded,
        Severity::Inaccessible => proto::VolumeHealthErrorType::Inaccessible,
        Severity::DataLoss => proto::VolumeHealthErrorType::DataLoss,
    }
}

/// A count that the wire holds as `int64`.
#[must_use]
pub fn count(number: u64) -> i64 {
    Bytes::new(number).to_wire()
}

#[cfg(test)]
mod tests {
    use super::{health, snapshot};
    use crate::model::{Bytes, Health, Severity, Snapshot, Topology};

    #[test]
    fn a_health_problem_is_told_once() {
        let problem = |severity, message: &str| Health { severity, reason: "DeviceGone", message: message.to_owned() };
        let told = health(
            "v".parse().unwrap(),
            vec![
                problem(Severity::Degraded, "first"),
                problem(Severity::Degraded, "second"),
                problem(Severity::DataLoss, "third"),
            ],
        );
        let messages: Vec<_> = told.health_statuses.iter().map(|entry| entry.message.as_str()).collect();
        assert_eq!(messages, ["first", "third"]);
    }

    #[test]
    fn a_time_before_1970_has_proto_nanos_that_are_never_negative() {
        let taken = |created: &str| {
            snapshot(
                Snapshot {
                    id: "s".parse().unwrap(),
                    source: "v".parse().unwrap(),
                    size: Bytes::new(1),
                    created: created.parse().unwrap(),
                    ready: true,
                    topology: vec![Topology::new()],
                },
                false,
            )
        };
        let time = taken("2026-11-21T11:00:00.25Z").creation_time.unwrap();
        assert_eq!((time.seconds, time.nanos), (1_795_258_800, 250_000_000));
        let time = taken("1969-12-31T23:59:58.75Z").creation_time.unwrap();
        assert_eq!((time.seconds, time.nanos), (-2, 750_000_000));
        assert!(taken("2026-11-21T11:00:00Z").accessible_topology.is_empty());
    }
}

//! Quotas, and what Cinder says when one is used up.

use super::answer::Answer;
use super::cloud::{Cloud, Kind, VolumeType};
use serde_json::{Value, json};

/// What is used.
struct Used {
    volumes: u64,
    snapshots: u64,
    backups: u64,
    /// Volumes and snapshots together, as Cinder counts.
    gigabytes: u64,
    backup_gigabytes: u64,
}

fn used(cloud: &Cloud) -> Used {
    let of = |kind: Kind| cloud.items.iter().filter(move |item| item.kind == kind);
    let count = |kind: Kind| of(kind).count() as u64;
    let size = |kind: Kind| of(kind).map(|item| item.size).sum::<u64>();
    Used {
        volumes: count(Kind::Volume),
        snapshots: count(Kind::Snapshot),
        backups: count(Kind::Backup),
        gigabytes: size(Kind::Volume) + size(Kind::Snapshot),
        backup_gigabytes: size(Kind::Backup),
    }
}

fn exceeds(limit: i64, wanted: u64) -> bool {
    u64::try_from(limit).is_ok_and(|limit| wanted > limit)
}

fn gigabytes(cloud: &Cloud, wanted: u64) -> Result<(), Answer> {
    let (quota, consumed) = (cloud.quotas.gigabytes, used(cloud).gigabytes);
    if exceeds(quota, consumed + wanted) {
        return Err(Answer::over_quota(format!(
            "VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed gigabytes quota. Requested {wanted}G, quota is {quota}G and {consumed}G has been consumed."
        )));
    }
    Ok(())
}

fn per_volume(cloud: &Cloud, size: u64) -> Result<(), Answer> {
    let limit = cloud.quotas.per_volume_gigabytes;
    if exceeds(limit, size) {
        return Err(Answer::over_quota(format!(
            "VolumeSizeExceedsLimit: Requested volume size {size}G is larger than maximum allowed limit {limit}G."
        )));
    }
    Ok(())
}

/// Room for one more volume of this size?
pub(super) fn for_volume(cloud: &Cloud, size: u64) -> Result<(), Answer> {
    per_volume(cloud, size)?;
    let allowed = cloud.quotas.volumes;
    if exceeds(allowed, used(cloud).volumes + 1) {
        return Err(Answer::over_quota(format!(
            "VolumeLimitExceeded: Maximum number of volumes allowed ({allowed}) exceeded for quota 'volumes'."
        )));
    }
    gigabytes(cloud, size)
}

/// Room to grow from one size to another?
pub(super) fn for_growth(cloud: &Cloud, from: u64, to: u64) -> Result<(), Answer> {
    per_volume(cloud, to)?;
    gigabytes(cloud, to - from)
}

/// Room for one more snapshot of this size?
pub(super) fn for_snapshot(cloud: &Cloud, size: u64) -> Result<(), Answer> {
    let allowed = cloud.quotas.snapshots;
    if exceeds(allowed, used(cloud).snapshots + 1) {
        return Err(Answer::over_quota(format!(
            "SnapshotLimitExceeded: Maximum number of snapshots allowed ({allowed}) exceeded"
        )));
    }
    gigabytes(cloud, size)
}

/// Room for one more backup of this size?
pub(super) fn for_backup(cloud: &Cloud, size: u64) -> Result<(), Answer> {
    let (allowed, used) = (cloud.quotas.backups, used(cloud));
    if exceeds(allowed, used.backups + 1) {
        return Err(Answer::over_quota(format!(
            "BackupLimitExceeded: Maximum number of backups allowed ({allowed}) exceeded"
        )));
    }
    let (quota, consumed) = (cloud.quotas.backup_gigabytes, used.backup_gigabytes);
    if exceeds(quota, consumed + size) {
        return Err(Answer::over_quota(format!(
            "VolumeBackupSizeExceedsAvailableQuota: Requested backup exceeds allowed Backup gigabytes quota. Requested {size}G, quota is {quota}G and {consumed}G has been consumed."
        )));
    }
    Ok(())
}

/// `GET /limits`.
pub(super) fn limits(cloud: &Cloud) -> Answer {
    let (quotas, used) = (&cloud.quotas, used(cloud));
    Answer::json(
        200,
        json!({ "limits": { "rate": [], "absolute": {
            "maxTotalVolumes": quotas.volumes, "maxTotalSnapshots": quotas.snapshots,
            "maxTotalVolumeGigabytes": quotas.gigabytes, "maxTotalBackups": quotas.backups,
            "maxTotalBackupGigabytes": quotas.backup_gigabytes,
            "totalVolumesUsed": used.volumes, "totalGigabytesUsed": used.gigabytes,
            "totalSnapshotsUsed": used.snapshots, "totalBackupsUsed": used.backups,
            "totalBackupGigabytesUsed": used.backup_gigabytes,
        } } }),
    )
}

/// `GET /os-quota-sets/{project}`; with `usage=True` each value is an object.
pub(super) fn quota_set(cloud: &Cloud, usage: bool) -> Answer {
    let (quotas, used) = (&cloud.quotas, used(cloud));
    let entry = |limit: i64, in_use: u64| -> Value {
        if usage { json!({ "limit": limit, "in_use": in_use, "reserved": 0 }) } else { json!(limit) }
    };
    let mut set = json!({
        "volumes": entry(quotas.volumes, used.volumes),
        "per_volume_gigabytes": entry(quotas.per_volume_gigabytes, 0),
        "snapshots": entry(quotas.snapshots, used.snapshots),
        "gigabytes": entry(quotas.gigabytes, used.gigabytes),
        "backups": entry(quotas.backups, used.backups),
        "backup_gigabytes": entry(quotas.backup_gigabytes, used.backup_gigabytes),
    });
    set["groups"] = entry(10, 0);
    set["id"] = json!(cloud.project);
    for VolumeType { name, .. } in &cloud.types {
        for what in ["volumes", "gigabytes", "snapshots"] {
            set[format!("{what}_{name}")] = entry(-1, 0);
        }
    }
    Answer::json(200, json!({ "quota_set": set }))
}

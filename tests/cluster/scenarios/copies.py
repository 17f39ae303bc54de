"""Snapshots, backups and clones."""

from harness.cluster import until
from harness.scenario import scenario

FILL = "dd if=/dev/urandom of=/v/file bs=64k count=160 2>/dev/null; sync; md5sum </v/file"


@scenario("a snapshot of a volume in use, restored and compared")
def snapshot_and_restore(case):
    case.claim("data")
    case.pod("writer", "data")
    sum_then = case.sh("writer", FILL)
    case.snapshot("then", of="data")
    case.sh("writer", FILL)
    case.claim("again", source=("VolumeSnapshot", "then"), size="2Gi")
    case.pod("reader", "again")
    assert case.sh("reader", "md5sum </v/file") == sum_then
    # larger than its source: so is its file system
    assert int(case.sh("reader", "df -m /v | tail -1 | awk '{print $2}'")) > 1800
    # the snapshot's volume may go before it, in Kubernetes
    case.delete("VolumeSnapshot", "then")
    until("the snapshot is gone", lambda: not case.cloud.list("snapshots"))


@scenario("a backup, restored and compared after its volume is gone")
def backup_and_restore(case):
    case.claim("data")
    case.pod("writer", "data")
    sum_then = case.sh("writer", FILL)
    case.snapshot("safe", of="data", snapshot_class="fuxi-cinder-backup")
    assert len(case.cloud.list("backups")) == 1
    assert not case.cloud.list("snapshots"), "the temporary snapshot of a backup stays"
    case.delete("Pod", "writer")
    case.delete("PersistentVolumeClaim", "data")
    until("the volume is gone", lambda: not case.cloud.list("volumes"))
    case.claim("again", source=("VolumeSnapshot", "safe"))
    case.pod("reader", "again")
    assert case.sh("reader", "md5sum </v/file") == sum_then


@scenario("a clone, its data compared")
def clone(case):
    case.claim("data")
    case.pod("writer", "data")
    sum_then = case.sh("writer", FILL)
    case.claim("twin", source=("PersistentVolumeClaim", "data"))
    # ext4 of a mounted source: its journal is played when the clone is mounted
    case.pod("reader", "twin")
    assert case.sh("reader", "md5sum </v/file") == sum_then
    case.sh("reader", "echo other >/v/file; sync")
    assert case.sh("writer", "md5sum </v/file") == sum_then

//! What a node needs: to know which server it is, programs, and a view of the host.

use super::machine;
use super::report::{Cause, Finding, Report};
use crate::call::Call;
use crate::cli::{Check, NodeOptions};
use crate::config::{BlockStorageOptions, MetadataOptions, MetadataSource};
use crate::error::{Error, Result};
use crate::exec::SystemExec;
use crate::node::device::Host;
use crate::node::identity::config_drive::ConfigDrive;
use crate::node::identity::instance::{CloudInit, Dmi};
use crate::node::identity::metadata_service::{DEFAULT_LIMIT, MetadataService};
use crate::node::identity::{Server, Source};
use crate::node::mount::system::SystemMounter;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long one source of the node's identity may take.
const ANSWER_TIME: Duration = Duration::from_secs(20);

/// What a file system needs: its name, its programs, the Debian package that has them.
const FILESYSTEMS: [(&str, &[&str], &str); 4] = [
    ("ext3", &["mkfs.ext3", "e2fsck", "resize2fs"], "e2fsprogs"),
    ("ext4", &["mkfs.ext4", "e2fsck", "resize2fs"], "e2fsprogs"),
    ("xfs", &["mkfs.xfs", "xfs_growfs"], "xfsprogs"),
    ("btrfs", &["mkfs.btrfs", "btrfs", "btrfstune"], "btrfs-progs"),
];

/// What every volume needs.
const ALWAYS: [&str; 2] = ["blkid", "blockdev"];

/// Looks at this machine.
pub(super) async fn look(
    options: &Check,
    block_storage: &BlockStorageOptions,
    metadata: &MetadataOptions,
    report: &mut Report,
) {
    let node = &options.node;
    let plugin_dir = node.plugin_dir(&options.driver.name());
    identity(node, metadata, &plugin_dir, report).await;
    if let Some(limit) = node.attach_limit.or(block_storage.node_volume_attach_limit) {
        report.add(&Finding::ok("attach limit", format!("{limit} volumes, as set")));
    }
    let default_fstype = node.default_fstype.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let mut findings = programs(&SystemExec::default(), &default_fstype);
        findings.extend(machine::look(&Host::default(), &plugin_dir, &default_fstype));
        findings
    });
    match looked.await {
        Ok(findings) => findings.iter().for_each(|finding| report.add(finding)),
        Err(error) => report.add(&Finding::failed("machine", &Error::internal("look at it").because(error))),
    }
}

/// Asks every source which server this is, so that one sees what each of them says.
async fn identity(node: &NodeOptions, metadata: &MetadataOptions, plugin_dir: &Path, report: &mut Report) {
    let mut known = Server {
        id: node.node_id.as_ref().map(|id| id.as_str().to_owned()),
        zone: node.zone.as_ref().map(|zone| zone.as_str().to_owned()),
    };
    if known.id.is_some() || known.zone.is_some() {
        report.add(&Finding::ok("identity by option", known.to_string()));
    }
    for source in search_order(node, metadata) {
        let what = format!("identity by {source}");
        let answer = match make(source, node, metadata, plugin_dir) {
            Ok(source) => source.ask(&Call::lasting(ANSWER_TIME)).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(server) => {
                report.add(&Finding::ok(what, server.to_string()));
                let is_same = known.id.is_none() || server.id.is_none() || known.id == server.id;
                if is_same {
                    known.zone = known.zone.or(server.zone);
                } else {
                    let detail = "this source speaks of another server than the one before it".to_owned();
                    report
                        .add(&Finding::warning("identity", detail).remedy("set --node-id, or --metadata-search-order"));
                }
                known.id = known.id.or(server.id);
            }
            // One source that knows is enough: what the others say is told, and judged below.
            Err(error) => report.add(&Finding::ok(what, format!("knows nothing: {error}"))),
        }
    }
    report.add(&conclusion(&known));
}

fn conclusion(known: &Server) -> Finding {
    match (&known.id, &known.zone) {
        (None, _) => Finding::error(Cause::Configuration, "identity", "no source knows which server this is")
            .remedy("set --node-id and --zone, or see why the metadata is missing"),
        (Some(id), None) => Finding::warning("identity", format!("server {id}, in no known zone"))
            .remedy("set --zone if the cloud has more than one"),
        (Some(id), Some(zone)) => Finding::ok("identity", format!("server {id} in zone {zone}")),
    }
}

fn search_order(node: &NodeOptions, metadata: &MetadataOptions) -> Vec<MetadataSource> {
    let orders = [&node.metadata_search_order, &metadata.search_order];
    orders.into_iter().find(|order| !order.is_empty()).cloned().unwrap_or_else(|| MetadataSource::ALL.to_vec())
}

fn make(
    source: MetadataSource,
    node: &NodeOptions,
    metadata: &MetadataOptions,
    plugin_dir: &Path,
) -> Result<Box<dyn Source>> {
    let host = Host::default();
    // Nothing is to stay that was not there; the drive is mounted for the time of a look.
    let place = if plugin_dir.is_dir() { plugin_dir } else { Path::new("/run") };
    Ok(match source {
        MetadataSource::ConfigDrive => {
            Box::new(ConfigDrive::new(Arc::new(SystemExec::default()), Arc::new(SystemMounter::default()), place))
        }
        MetadataSource::MetadataService => {
            let base = node.metadata_url.as_str().trim_end_matches('/');
            let limit = metadata.request_timeout.unwrap_or(DEFAULT_LIMIT);
            Box::new(MetadataService::new(format!("{base}/openstack/latest/meta_data.json"), limit)?)
        }
        MetadataSource::CloudInit => Box::new(CloudInit::new(&host)),
        MetadataSource::Dmi => Box::new(Dmi::new(&host)),
    })
}

/// Whether the programs are there. Those of the default file system must be, the others should.
fn programs(exec: &SystemExec, default_fstype: &str) -> Vec<Finding> {
    let missing = |programs: &[&'static str]| -> Vec<&'static str> {
        programs.iter().copied().filter(|program| exec.find(program).is_err()).collect()
    };
    let mut findings = Vec::new();
    let mut add = |what: String, programs: &[&'static str], package: &str, needed: bool| {
        let absent = missing(programs);
        findings.push(if absent.is_empty() {
            Finding::ok(what, programs.join(", "))
        } else {
            let detail = format!("not found: {}", absent.join(", "));
            let finding =
                if needed { Finding::error(Cause::Other, what, detail) } else { Finding::warning(what, detail) };
            finding.remedy(format!("install {package} here, or in the driver's image"))
        });
    };
    add("programs".to_owned(), &ALWAYS, "util-linux", true);
    for (name, programs, package) in FILESYSTEMS {
        add(format!("programs for {name}"), programs, package, name == default_fstype);
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::{FILESYSTEMS, conclusion, programs};
    use crate::exec::SystemExec;
    use crate::node::filesystem::Filesystems;
    use crate::node::identity::Server;
    use std::os::unix::fs::PermissionsExt;

    fn with(names: &[&str]) -> (tempfile::TempDir, SystemExec) {
        let directory = tempfile::tempdir().unwrap();
        for name in names {
            let path = directory.path().join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let exec = SystemExec::new([directory.path()]);
        (directory, exec)
    }

    #[test]
    fn missing_programs_are_errors_for_the_default_file_system_only() {
        let (_directory, exec) = with(&["blkid", "blockdev", "mkfs.ext4", "e2fsck", "resize2fs", "mkfs.xfs"]);
        let lines: Vec<_> = programs(&exec, "ext4").iter().map(ToString::to_string).collect();
        assert_eq!(lines.iter().filter(|line| line.starts_with("error")).count(), 0, "{lines:?}");
        let xfs = lines.iter().find(|line| line.contains("for xfs")).unwrap();
        assert!(xfs.starts_with("warning") && xfs.contains("not found: xfs_growfs;") && xfs.contains("xfsprogs"));
        let lines: Vec<_> = programs(&exec, "xfs").iter().map(ToString::to_string).collect();
        assert_eq!(lines.iter().filter(|line| line.starts_with("error")).count(), 1, "{lines:?}");
    }

    #[test]
    fn every_file_system_of_the_node_is_looked_at() {
        let mut known: Vec<_> = FILESYSTEMS.iter().map(|(name, _, _)| *name).collect();
        let mut served: Vec<_> = Filesystems::default().names().collect();
        known.sort_unstable();
        served.sort_unstable();
        assert_eq!(known, served);
    }

    #[test]
    fn a_node_that_knows_nothing_of_itself_cannot_serve() {
        let server =
            |id: Option<&str>, zone: Option<&str>| Server { id: id.map(str::to_owned), zone: zone.map(str::to_owned) };
        assert!(conclusion(&server(None, None)).to_string().starts_with("error"));
        assert!(conclusion(&server(Some("a"), None)).to_string().starts_with("warning"));
        assert!(conclusion(&server(Some("a"), Some("b"))).to_string().starts_with("ok"));
    }
}

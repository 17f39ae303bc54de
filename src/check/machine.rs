//! What the node service must be able to see and touch of the host, from inside its container.

use super::report::{Cause, Finding};
use crate::node::device::Host;
use nix::sys::statvfs::{FsFlags, statvfs};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Looks at this machine. Blocks.
pub(super) fn look(host: &Host, plugin_dir: &Path, default_fstype: &str) -> Vec<Finding> {
    vec![
        privileges(),
        devices(host),
        sysfs(host),
        filesystem(default_fstype),
        records(plugin_dir),
        propagation(plugin_dir),
    ]
}

fn privileges() -> Finding {
    if nix::unistd::geteuid().is_root() {
        Finding::ok("privileges", "root")
    } else {
        Finding::error(Cause::Other, "privileges", "not root, so nothing can be mounted")
            .remedy("run it as root; in Kubernetes with securityContext.privileged: true")
    }
}

fn devices(host: &Host) -> Finding {
    let what = "devices";
    let disks = match host.disks(|_| true) {
        Ok(disks) => disks,
        Err(error) => {
            return Finding::error(Cause::Other, what, format!("/sys/class/block cannot be read: {error}"))
                .remedy("mount the host's /sys");
        }
    };
    let hidden: Vec<_> = disks.iter().filter(|name| !host.path("/dev").join(name).exists()).cloned().collect();
    if disks.is_empty() {
        Finding::warning(what, "the kernel shows no disk at all")
            .remedy("on a Nova instance there should be at least its own: is the host's /sys mounted?")
    } else if hidden.is_empty() {
        Finding::ok(what, format!("{} disks in /sys, all of them in /dev", disks.len()))
    } else {
        Finding::error(Cause::Other, what, format!("in /sys but not in /dev: {}", hidden.join(", ")))
            .remedy("mount the host's /dev (a hostPath volume), so that disks which are attached later appear")
    }
}

/// A disk that has grown is looked at again by writing into sysfs.
fn sysfs(host: &Host) -> Finding {
    let what = "/sys";
    match statvfs(&host.path("/sys")) {
        Ok(found) if found.flags().contains(FsFlags::ST_RDONLY) => {
            Finding::warning(what, "mounted read-only: a SCSI disk that has grown cannot be looked at again")
                .remedy("run privileged, or mount the host's /sys writable")
        }
        Ok(_) => Finding::ok(what, "writable"),
        Err(error) => Finding::error(Cause::Other, what, error.to_string()).remedy("mount the host's /sys"),
    }
}

fn filesystem(default_fstype: &str) -> Finding {
    let what = "kernel";
    match fs::read_to_string("/proc/filesystems") {
        Ok(text) if knows(&text, default_fstype) => Finding::ok(what, format!("knows {default_fstype}")),
        Ok(_) => Finding::warning(what, format!("has not loaded {default_fstype} (yet)"))
            .remedy(format!("make sure that `modprobe {default_fstype}` works on the host")),
        Err(error) => Finding::warning(what, format!("/proc/filesystems: {error}")),
    }
}

/// `nodev\tproc` and `\text4`.
fn knows(filesystems: &str, name: &str) -> bool {
    filesystems.lines().any(|line| line.split_whitespace().last() == Some(name))
}

/// The directory of the node's records: it must be writable, and outlive the pod.
fn records(plugin_dir: &Path) -> Finding {
    let what = "plugin directory";
    let shown = plugin_dir.display();
    match fs::metadata(plugin_dir) {
        Ok(metadata) if !metadata.is_dir() => {
            Finding::error(Cause::Configuration, what, format!("{shown} is not a directory"))
                .remedy("set --plugin-dir, or remove it")
        }
        Ok(_) => match try_to_write(plugin_dir) {
            Ok(()) => Finding::ok(what, format!("{shown} is writable")),
            Err(error) => Finding::error(Cause::Other, what, format!("{shown}: {error}"))
                .remedy("make it writable: the node's records are kept there"),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let above = plugin_dir.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
            match nix::unistd::access(above, nix::unistd::AccessFlags::W_OK) {
                Ok(()) => Finding::ok(what, format!("{shown} will be made")),
                Err(error) => Finding::error(
                    Cause::Other,
                    what,
                    format!("{shown} cannot be made in {}: {error}", above.display()),
                )
                .remedy("make it, or name another with --plugin-dir"),
            }
        }
        Err(error) => Finding::error(Cause::Other, what, format!("{shown}: {error}")),
    }
}

/// Modes do not tell: a file system may be full or read-only.
fn try_to_write(directory: &Path) -> io::Result<()> {
    let path = directory.join(format!(".check-{}", std::process::id()));
    let written = fs::OpenOptions::new().write(true).create_new(true).open(&path).and_then(|file| file.sync_all());
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => written.and(Err(error)),
        _ => written,
    }
}

/// What is mounted for a pod must reach the host, and through it the pod.
fn propagation(plugin_dir: &Path) -> Finding {
    let what = "mount propagation";
    // …/kubelet/plugins/NAME
    let kubelet = match plugin_dir.parent() {
        Some(plugins) if plugins.ends_with("plugins") => plugins.parent().map(Path::to_owned),
        _ => None,
    };
    let Some(kubelet) = kubelet else {
        return Finding::ok(what, "not looked at: --plugin-dir is not below a kubelet's directory");
    };
    if !kubelet.is_dir() {
        return Finding::warning(what, format!("there is no {}", kubelet.display()))
            .remedy("fine without Kubernetes; with it, mount the kubelet's directory into the container");
    }
    let mountinfo = match fs::read_to_string("/proc/self/mountinfo") {
        Ok(text) => text,
        Err(error) => return Finding::warning(what, format!("/proc/self/mountinfo: {error}")),
    };
    match is_shared(&mountinfo, &kubelet) {
        Some((_, true)) => Finding::ok(what, format!("{} is shared", kubelet.display())),
        Some((mount, false)) => Finding::error(
            Cause::Other,
            what,
            format!(
                "{} lies on the mount {}, which is not shared: pods would see empty volumes",
                kubelet.display(),
                mount.display()
            ),
        )
        .remedy(
            "mount the kubelet's directory with mountPropagation: Bidirectional (on a host: mount --make-rshared /)",
        ),
        None => Finding::warning(what, format!("no mount holds {}", kubelet.display())),
    }
}

/// The mount on which a path lies, and whether mounts made there are seen elsewhere (`shared:N` among the optional
/// fields of mountinfo).
fn is_shared(mountinfo: &str, path: &Path) -> Option<(PathBuf, bool)> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let mount_point = PathBuf::from(fields.nth(4)?.replace("\\040", " "));
        let shared = fields.skip(1).take_while(|field| *field != "-").any(|field| field.starts_with("shared:"));
        Some((mount_point, shared))
    });
    // Of mounts on the same path, the last is the visible one.
    mounts
        .filter(|(mount_point, _)| path.starts_with(mount_point))
        .max_by_key(|(mount_point, _)| mount_point.components().count())
}

#[cfg(test)]
mod tests {
    use super::{is_shared, knows, propagation, records};
    use proptest::prelude::{any, proptest};
    use std::path::{Path, PathBuf};

    const MOUNTINFO: &str = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                             30 22 0:5 / /var/lib/kubelet rw - tmpfs tmpfs rw\n\
                             31 30 0:6 / /var/lib/kubelet/pods rw,nosuid master:3 shared:9 - tmpfs tmpfs rw\n\
                             32 22 0:7 / /mnt/a\\040b rw shared:5 - tmpfs tmpfs rw\n";

    #[test]
    fn the_nearest_mount_decides_whether_a_path_is_shared() {
        let shared = |path: &str| is_shared(MOUNTINFO, Path::new(path));
        assert_eq!(shared("/var/lib"), Some((PathBuf::from("/"), true)));
        assert_eq!(shared("/var/lib/kubelet/plugins"), Some((PathBuf::from("/var/lib/kubelet"), false)));
        assert_eq!(shared("/var/lib/kubelet/pods/x"), Some((PathBuf::from("/var/lib/kubelet/pods"), true)));
        assert_eq!(shared("/mnt/a b/c"), Some((PathBuf::from("/mnt/a b"), true)));
        let covered = format!("{MOUNTINFO}33 30 0:8 / /var/lib/kubelet rw shared:7 - tmpfs tmpfs rw\n");
        assert!(is_shared(&covered, Path::new("/var/lib/kubelet")).unwrap().1);
    }

    #[test]
    fn a_file_system_is_known_by_its_whole_name() {
        let text = "nodev\tproc\n\text3\n\text4\n";
        assert!(knows(text, "ext4") && knows(text, "proc"));
        assert!(!knows(text, "ext") && !knows(text, "nodev"));
    }

    #[test]
    fn a_plugin_directory_is_tried_and_left_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        assert!(records(directory.path()).to_string().starts_with("ok"));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(records(&file).to_string().starts_with("error"));
        let missing = directory.path().join("a/b");
        assert!(records(&missing).to_string().contains("will be made") && !missing.exists());
    }

    #[test]
    fn propagation_matters_below_a_kubelet_only() {
        assert!(propagation(Path::new("/srv/records")).to_string().starts_with("ok"));
        assert!(
            propagation(Path::new("/nowhere/kubelet/plugins/x")).to_string().contains("there is no /nowhere/kubelet")
        );
    }

    proptest! {
        #[test]
        fn no_mountinfo_panics(text in any::<String>(), path in any::<String>()) {
            let _ = is_shared(&text, Path::new(&path));
        }
    }
}

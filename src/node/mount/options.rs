//! Mount options in words, as mount(8) takes them, turned into what mount(2) takes.

use crate::error::{Error, Result};
use sys_mount::MountFlags;

/// The kernel's `MS_LAZYTIME`, which `sys_mount` does not name.
const LAZYTIME: MountFlags = MountFlags::from_bits_retain(1 << 25);

/// Options split into flags of the mount and data for the file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    /// Flags of mount(2).
    pub flags: MountFlags,
    /// What the file system reads, joined by commas.
    pub data: String,
}

impl MountOptions {
    /// Splits options. Those that only mount(8) and systemd know are left out.
    ///
    /// # Errors
    /// `InvalidArgument`: an option that would make it another operation than a mount, or that cannot be passed on.
    pub fn parse<'a>(options: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut flags = MountFlags::empty();
        let mut data: Vec<&str> = Vec::new();
        for option in options.into_iter().flat_map(split) {
            match option {
                "" | "defaults" | "rw" | "suid" | "dev" | "exec" | "async" | "atime" | "diratime" | "norelatime"
                | "nostrictatime" | "nolazytime" | "loud" | "auto" | "noauto" | "nofail" | "_netdev" | "user"
                | "nouser" | "users" | "owner" | "group" => flags.remove(opposite(option)),
                "bind" | "rbind" | "move" | "remount" | "private" | "rprivate" | "shared" | "rshared" | "slave"
                | "rslave" | "unbindable" | "runbindable" | "loop" => {
                    return Err(Error::invalid(format!(
                        "mount_flags: {option:?} is not an option of a file system: remove it from the class or volume"
                    )));
                }
                other if other.starts_with("x-") || other.starts_with("X-") || other.starts_with("comment=") => {}
                other if other.contains(|c: char| c.is_control()) => {
                    return Err(Error::invalid(format!("mount_flags: {other:?} has control characters")));
                }
                other => match flag(other) {
                    Some(flag) => flags.insert(flag),
                    None => data.push(other),
                },
            }
        }
        Ok(Self { flags, data: data.join(",") })
    }

    /// Whether the mount is to be read-only.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.flags.contains(MountFlags::RDONLY)
    }

    /// The flags that belong to one mount rather than to the file system: what a bind mount can have of its own.
    #[must_use]
    pub fn mount_flags(&self) -> MountFlags {
        self.flags
            & (MountFlags::RDONLY
                | MountFlags::NOSUID
                | MountFlags::NODEV
                | MountFlags::NOEXEC
                | MountFlags::NOATIME
                | MountFlags::NODIRATIME
                | MountFlags::RELATIME)
    }
}

/// The options of one string: commas separate them, but not within quotes (SELinux contexts have commas).
fn split(options: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    options.split(move |c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    })
}

fn flag(option: &str) -> Option<MountFlags> {
    Some(match option {
        "ro" => MountFlags::RDONLY,
        "nosuid" => MountFlags::NOSUID,
        "nodev" => MountFlags::NODEV,
        "noexec" => MountFlags::NOEXEC,
        "noatime" => MountFlags::NOATIME,
        "nodiratime" => MountFlags::NODIRATIME,
        "relatime" => MountFlags::RELATIME,
        "strictatime" => MountFlags::STRICTATIME,
        "sync" => MountFlags::SYNCHRONOUS,
        "dirsync" => MountFlags::DIRSYNC,
        "mand" => MountFlags::MANDLOCK,
        "silent" => MountFlags::SILENT,
        "lazytime" => LAZYTIME,
        _ => return None,
    })
}

/// The flag that an option takes back: the last of two contradicting options wins.
fn opposite(option: &str) -> MountFlags {
    match option {
        "rw" => MountFlags::RDONLY,
        "suid" => MountFlags::NOSUID,
        "dev" => MountFlags::NODEV,
        "exec" => MountFlags::NOEXEC,
        "async" => MountFlags::SYNCHRONOUS,
        "atime" => MountFlags::NOATIME,
        "diratime" => MountFlags::NODIRATIME,
        "norelatime" => MountFlags::RELATIME,
        "nostrictatime" => MountFlags::STRICTATIME,
        "nolazytime" => LAZYTIME,
        "loud" => MountFlags::SILENT,
        _ => MountFlags::empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::MountOptions;
    use crate::error::Kind;
    use proptest::prelude::{any, prop, proptest};
    use sys_mount::MountFlags;

    #[test]
    fn flags_and_data_are_told_apart_and_the_last_word_counts() {
        let options = MountOptions::parse(["noatime,ro", "discard", "x-systemd.automount", "rw", "nouuid"]).unwrap();
        assert_eq!(options.flags, MountFlags::NOATIME);
        assert_eq!(options.data, "discard,nouuid");
        assert!(MountOptions::parse(["ro"]).unwrap().is_read_only());
        assert_eq!(MountOptions::parse(["defaults", "lazytime"]).unwrap().flags.bits(), 1 << 25);
    }

    #[test]
    fn a_quoted_context_keeps_its_commas() {
        let options = MountOptions::parse([r#"context="system_u:object_r:t:s0:c1,c2",nosuid"#]).unwrap();
        assert_eq!(options.data, r#"context="system_u:object_r:t:s0:c1,c2""#);
        assert_eq!(options.flags, MountFlags::NOSUID);
    }

    #[test]
    fn options_that_are_other_operations_are_refused_by_name() {
        for option in ["bind", "remount", "move", "rshared", "loop"] {
            let error = MountOptions::parse([option]).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidArgument);
            assert!(error.to_string().contains(option), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_options_panic(options in prop::collection::vec(any::<String>(), 0..4)) {
            let _ = MountOptions::parse(options.iter().map(String::as_str));
        }
    }
}

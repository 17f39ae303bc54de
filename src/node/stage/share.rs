//! An export of a file server: mounted as it is, by the kernel or by the program that its file system has for it.

use super::{Mounting, Staging};
use crate::error::{Error, Kind, Result};
use crate::exec::Command;
use crate::model::KIND_CEPHFS;
use crate::node::connector::Share;
use crate::node::fuse::{self, KeyFile};
use crate::node::mount::options::MountOptions;
use crate::node::mount::system::errno;
use crate::node::mount::{Mount, place};
use crate::node::{StageRequest, blocking};
use nix::errno::Errno;
use std::path::PathBuf;
use std::time::Duration;

/// How long a program that mounts a share may take.
const HELPER_LIMIT: Duration = Duration::from_secs(100);

/// The key of the `volume_context` that has mount options for CephFS.
const CEPHFS_OPTIONS_CONTEXT: &str = "cephfs-kernelMountOptions";

impl Staging<'_> {
    pub(super) async fn mount_share(&mut self, mounting: &Mounting, share: &Share) -> Result<()> {
        place::make(self.call, &self.path, place::Shape::Directory).await?;
        let own = self.read_only.then_some("ro");
        let wanted: Vec<&str> = share.options.iter().chain(&mounting.options).map(String::as_str).chain(own).collect();
        let mount = Mount {
            source: PathBuf::from(&share.source),
            target: self.path.clone(),
            fstype: share.fstype.clone(),
            options: MountOptions::parse(wanted.iter().copied())?,
            secret: share.secret.clone(),
        };
        let fuse = mounting.fuse.as_ref().filter(|_| share.fstype == "ceph");
        let is_there = |program: &str| self.node.parts.exec.finds(program);
        match (fuse, share.helper.filter(|helper| is_there(helper))) {
            (Some(options), _) if is_there(fuse::PROGRAM) => {
                self.mount_by_fuse(share, options, mount.options.is_read_only()).await?;
            }
            (_, Some(helper)) => self.mount_by(helper, share, &wanted).await?,
            (fuse, None) => {
                if fuse.is_some() {
                    tracing::warn!(volume = %self.link.volume, "ceph-fuse is not installed here: the kernel mounts");
                }
                self.mount(&mount).await.map_err(|error| share_refused(error, share))?;
            }
        }
        let table = self.node.parts.mounter.table(self.call).await?;
        self.record.mounted = table.top(&self.path).map(|entry| entry.device);
        if self.record.mounted.is_none() {
            return Err(Error::internal(format!("{} is not mounted after it was", self.path.display())));
        }
        Ok(())
    }

    /// Mounts a share by its file system's own program.
    async fn mount_by(&mut self, helper: &str, share: &Share, options: &[&str]) -> Result<()> {
        self.call.check("mount a share")?;
        // Programs resolve names by themselves.
        let options: Vec<&str> =
            options.iter().copied().filter(|option| !option.is_empty() && !option.starts_with("addr=")).collect();
        let mut command = Command::new(helper).arg(&share.source).arg(&self.path);
        if !options.is_empty() {
            command = command.arg("-o").arg(options.join(","));
        }
        self.run_mount(command, share).await
    }

    async fn mount_by_fuse(&mut self, share: &Share, options: &str, read_only: bool) -> Result<()> {
        self.call.check("mount a share")?;
        let path = fuse::key_path(&self.node.parts.plugin_dir, &self.link.volume);
        let copy = share.clone();
        let key = blocking::run(self.call, "write a key for ceph-fuse", move || {
            KeyFile::write(path, &copy).map_err(|error| Error::internal("write a key for ceph-fuse").because(error))
        })
        .await?;
        let command = fuse::command(share, &self.path, key.path(), options, read_only)?;
        let mounted = self.run_mount(command, share).await;
        drop(key);
        mounted
    }

    async fn run_mount(&mut self, command: Command, share: &Share) -> Result<()> {
        self.mount_pending = true;
        let ended = self.node.parts.exec.run(self.call, command.limit(HELPER_LIMIT).to_the_end()).await;
        self.mount_pending =
            ended.as_ref().is_err_and(|error| matches!(error.kind(), Kind::Unavailable | Kind::Deadline));
        ended?.success().map(drop).map_err(|error| {
            error
                .as_kind(Kind::Unavailable)
                .during(format!("mount {}: see whether the server can be reached and lets this node in", share.source))
        })
    }
}

/// Mount options that the class had for this kind of share.
pub(super) fn options_of_class(request: &StageRequest) -> impl Iterator<Item = String> {
    let is_cephfs = request.connection.kind.eq_ignore_ascii_case(KIND_CEPHFS);
    let options = request.volume_context.get(CEPHFS_OPTIONS_CONTEXT).filter(|_| is_cephfs);
    options.into_iter().filter(|options| !options.is_empty()).cloned()
}

/// Says what a refused mount of a share means.
fn share_refused(error: Error, share: &Share) -> Error {
    let source = &share.source;
    let (kind, words) = match errno(&error) {
        // The kernel's CephFS says this of a wrong key, a key that was revoked and a file system that is not there.
        Some(Errno::EHOSTUNREACH) if share.fstype == "ceph" => (
            Kind::Unavailable,
            format!(
                "{source}: no monitor can be reached, or Ceph does not know the key; the node's kernel log says which"
            ),
        ),
        Some(Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::ECONNREFUSED | Errno::ETIMEDOUT | Errno::EHOSTDOWN) => {
            (Kind::Unavailable, format!("{source}: the server cannot be reached from this node"))
        }
        Some(Errno::EACCES | Errno::EPERM) => {
            (Kind::Unavailable, format!("{source}: the server does not let this node in (any more, or not yet)"))
        }
        Some(Errno::ENOENT | Errno::ESTALE) => {
            (Kind::Unavailable, format!("{source}: the server does not show this path to this node"))
        }
        _ => return error,
    };
    error.as_kind(kind).during(words)
}

//! iSCSI: iscsid keeps the sessions, asked through iscsiadm; everything else is sysfs.
//!
//! - **A session serves all LUNs of its target.** One that is there is used, whoever made it; it is ended when no disk is
//!   left on it.
//! - **No automatic scan.** Only our LUN is scanned, at its exact address: a target-wide scan would bring back LUNs that
//!   are just being unmapped.
//! - **Nothing starts by itself.** A node that was restarted must not log in to targets that it may no longer own.

mod records;
mod session;
mod target;
#[cfg(test)]
mod tests;

use super::kernel::{SystemKernel, unreadable};
use super::lock::{Held, Locks};
use super::multipath::Multipath;
use super::scsi::address::{Address, disks_of_target};
use super::scsi::{Scsi, TIMES};
use super::{Connector, Link, Source, watch};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::exec::{Command, Exec, Output};
use crate::model::Bytes;
use crate::node::blocking;
use crate::node::device::Host;
use async_trait::async_trait;
use session::{Session, session};
use std::sync::Arc;
use std::time::Duration;
use target::{Chap, Target};
use tokio::net::TcpStream;

/// The kind of connection that Cinder's drivers name.
pub const KIND: &str = "iscsi";

/// How long a portal may take to answer at all.
const PORTAL: Duration = Duration::from_secs(5);

/// How long iscsiadm gets for one thing.
const LIMIT: Duration = Duration::from_secs(90);

/// Exit codes of iscsiadm.
mod code {
    pub(super) const OK: i32 = 0;
    pub(super) const DATABASE: i32 = 6;
    pub(super) const SESSION_EXISTS: i32 = 15;
    pub(super) const NO_DAEMON: i32 = 20;
    pub(super) const NO_OBJECTS: i32 = 21;
    pub(super) const REFUSED: i32 = 24;
}

/// Connects LUNs of iSCSI targets.
#[derive(Debug, Clone)]
pub struct Iscsi {
    host: Host,
    exec: Arc<dyn Exec>,
    scsi: Scsi,
    locks: Locks,
}

impl Iscsi {
    /// On this machine. `exec` is for iscsiadm, multipath and multipathd.
    #[must_use]
    pub fn new(host: Host, exec: Arc<dyn Exec>) -> Self {
        let multipath = Multipath::new(host.clone(), Arc::clone(&exec));
        let scsi = Scsi { host: host.clone(), kernel: Arc::new(SystemKernel), multipath, times: TIMES };
        Self { host, exec, scsi, locks: Locks::default() }
    }

    async fn hold(&self, call: &Call, targets: &[Target]) -> Result<Held> {
        self.locks.hold(call, targets.iter().map(|target| target.iqn.to_string())).await
    }

    async fn session(&self, call: &Call, target: &Target) -> Result<Option<Session>> {
        let (host, target) = (self.host.clone(), target.clone());
        blocking::run(call, "look at the iSCSI sessions", move || session(&host, &target).map_err(unreadable)).await
    }

    /// The addresses of the volume on the sessions that are there.
    async fn addresses(&self, call: &Call, targets: &[Target]) -> Result<Vec<Address>> {
        let mut addresses = Vec::new();
        for target in targets {
            addresses.extend(self.session(call, target).await?.map(|session| session.address(target)));
        }
        Ok(addresses)
    }

    /// Runs iscsiadm for a target; it ends what it began.
    async fn iscsiadm(&self, call: &Call, target: &Target, arguments: &[&str]) -> Result<Output> {
        let portal = target.portal.to_string();
        let command = Command::new("iscsiadm")
            .args(["-m", "node", "-T", target.iqn.as_str(), "-p", &portal])
            .args(arguments)
            .limit(LIMIT)
            .to_the_end();
        self.exec.run(call, command).await
    }

    /// Sees to it that there is a record that says how to log in.
    async fn prepare_record(&self, call: &Call, target: &Target, chap: Option<&Chap>) -> Result<()> {
        let mut output = self.iscsiadm(call, target, &["-o", "new"]).await?;
        for pause in [1, 2, 4].map(|tenths| Duration::from_millis(tenths * 100)) {
            // Somebody else has the database open.
            if output.code != code::DATABASE {
                break;
            }
            call.sleep("wait for iscsiadm's database", pause).await?;
            output = self.iscsiadm(call, target, &["-o", "new"]).await?;
        }
        let said = output.success().map(|_| ());
        let (host, target, chap) = (self.host.clone(), target.clone(), chap.cloned());
        call.step(&format!("write how to log in to {target}"));
        blocking::run(call, "write the record of the target", move || {
            let unwritable = |error| {
                Error::internal(format!("write the record of {target} for iscsid: is /etc/iscsi (or /var/lib/iscsi) of the \
                     host mounted into the driver's container, writable?"))
                .because(error)
            };
            let files = records::files(&host, &target).map_err(unwritable)?;
            if files.is_empty() {
                said?;
                return Err(Error::wrong_state(format!(
                    "iscsiadm made a record of {target}, but it is neither below /etc/iscsi/nodes nor /var/lib/iscsi/nodes"
                )));
            }
            // A record that was there already will do, even if iscsiadm did not like to make it again.
            files.iter().try_for_each(|file| records::prepare(file, chap.as_ref())).map_err(unwritable)
        })
        .await
    }

    /// Logs in to all targets that have no session; the errors are of those where that failed. A login that was begun goes
    /// on when nobody waits for it any more, since iscsid would go on by itself: with its lock, so that whoever undoes this
    /// waits for it and finds the session.
    async fn log_in(
        &self,
        call: &Call,
        held: &Held,
        targets: &[Target],
        chap: Option<&Chap>,
    ) -> Result<(Vec<Target>, Vec<(Target, Error)>)> {
        let (mut made, mut failed, mut logins) = (Vec::new(), Vec::new(), Vec::new());
        for target in targets {
            if self.session(call, target).await?.is_some_and(|session| session.is_up()) {
                continue;
            }
            if let Err(error) = reach(call, target).await? {
                failed.push((target.clone(), error));
                continue;
            }
            self.prepare_record(call, target, chap).await?;
            let (this, call, held, target) = (self.clone(), call.clone(), held.clone(), target.clone());
            // Dropping its handle does not end it.
            logins.push(tokio::spawn(async move {
                let _held = held;
                let done = this.iscsiadm(&call, &target, &["--login"]).await.and_then(|output| judge(&target, &output));
                (target, done)
            }));
        }
        for login in logins {
            match call
                .bound("log in to the iSCSI targets", login)
                .await?
                .map_err(|error| Error::internal("log in to an iSCSI target").because(error))?
            {
                (target, Ok(())) => made.push(target),
                (target, Err(error)) => failed.push((target, error)),
            }
        }
        Ok((made, failed))
    }

    /// The sessions that serve, at least one.
    async fn sessions_up(&self, call: &Call, targets: &[Target]) -> Result<Vec<(Target, Session)>> {
        let (host, wanted) = (self.host.clone(), targets.to_vec());
        let look = move || {
            let mut up = Vec::new();
            for target in &wanted {
                if let Some(session) = session(&host, target).map_err(unreadable)?.filter(Session::is_up) {
                    up.push((target.clone(), session));
                }
            }
            Ok((!up.is_empty()).then_some(up))
        };
        Ok(watch::until(call, "wait for the iSCSI sessions", Duration::from_secs(5), look).await?.unwrap_or_default())
    }

    /// Ends a session on which no disk is left, and forgets its target.
    async fn log_out_if_idle(&self, call: &Call, target: &Target) -> Result<()> {
        if let Some(session) = self.session(call, target).await? {
            let (host, address) = (self.host.clone(), session.address(target));
            let look = move || disks_of_target(&host, address).map_err(unreadable);
            if blocking::run(call, "look at the LUNs of the session", look).await? > 0 {
                return Ok(());
            }
            let output = self.iscsiadm(call, target, &["--logout"]).await?;
            if !matches!(output.code, code::OK | code::NO_OBJECTS) {
                return Err(output.failure(Kind::Unavailable).during(format!("log out of {target}")));
            }
            let (host, of) = (self.host.clone(), target.clone());
            let gone = move || Ok(session_is_gone(&host, &of)?.then_some(()));
            if watch::until(call, "wait until the iSCSI session is gone", Duration::from_secs(15), gone)
                .await?
                .is_none()
            {
                return Err(Error::new(Kind::Unavailable, format!("the session with {target} is still being ended")));
            }
        }
        self.forget(call, target).await
    }

    /// Takes the record of a target away.
    async fn forget(&self, call: &Call, target: &Target) -> Result<()> {
        let (host, of) = (self.host.clone(), target.clone());
        let look = move || {
            let files = records::files(&host, &of).map_err(unreadable)?;
            for file in &files {
                records::clear_unfinished(file)
                    .map_err(|error| Error::internal(format!("remove half a record of {of}")).because(error))?;
            }
            Ok(files)
        };
        if blocking::run(call, "look at the records of iscsid", look).await?.is_empty() {
            return Ok(());
        }
        let output = self.iscsiadm(call, target, &["-o", "delete"]).await?;
        match output.code {
            code::OK | code::NO_OBJECTS => Ok(()),
            _ => Err(output.failure(Kind::Unavailable).during(format!("forget {target}"))),
        }
    }

    /// Undoes the sessions of a call that failed, and the records of those that it could not make.
    async fn undo(&self, call: &Call, targets: &[Target]) {
        for target in targets {
            if let Err(error) = self.log_out_if_idle(call, target).await {
                tracing::warn!(%target, %error, "a session is left behind");
            }
        }
    }
}

#[async_trait]
impl Connector for Iscsi {
    fn kinds(&self) -> &[&str] {
        &[KIND]
    }

    async fn connect(&self, call: &Call, link: &Link) -> Result<Source> {
        let (targets, chap) = (Target::all(link)?, Chap::of(link)?);
        let held = self.hold(call, &targets).await?;
        let (made, failed) = self.log_in(call, &held, &targets, chap.as_ref()).await?;
        let up = self.sessions_up(call, &targets).await?;
        let touched: Vec<_> = made.into_iter().chain(failed.iter().map(|(target, _)| target.clone())).collect();
        if up.is_empty() {
            self.undo(call, &touched).await;
            return Err(none_up(link, failed));
        }
        for (target, error) in &failed {
            tracing::warn!(volume = %link.volume, %target, %error, "a path to the volume is missing");
        }
        let addresses: Vec<_> = up.iter().map(|(target, session)| session.address(target)).collect();
        let mut scanned = Vec::new();
        match self.scsi.bring(call, &held, link, &addresses, targets.len() > 1, &mut scanned).await {
            Ok(device) => Ok(Source::Block(device)),
            Err(error) => {
                if let Err(left) = self.scsi.discard(call, &held, &scanned).await {
                    tracing::warn!(volume = %link.volume, error = %left, "a disk is left behind");
                }
                self.undo(call, &touched).await;
                Err(error)
            }
        }
    }

    async fn locate(&self, call: &Call, link: &Link) -> Result<Option<Source>> {
        let addresses = self.addresses(call, &Target::all(link)?).await?;
        Ok(self.scsi.locate(call, link, &addresses).await?.map(Source::Block))
    }

    async fn rescan(&self, call: &Call, link: &Link, size: Bytes) -> Result<Source> {
        let targets = Target::all(link)?;
        let held = self.hold(call, &targets).await?;
        let addresses = self.addresses(call, &targets).await?;
        let device = self.scsi.rescan(call, &held, link, &addresses, size).await?;
        device
            .map(Source::Block)
            .ok_or_else(|| Error::not_found(format!("the iSCSI disk of volume {} is not on this node", link.volume)))
    }

    async fn disconnect(&self, call: &Call, link: &Link) -> Result<()> {
        let targets = Target::all(link)?;
        let held = self.hold(call, &targets).await?;
        let addresses = self.addresses(call, &targets).await?;
        self.scsi.take_away(call, &held, link, &addresses).await?;
        for target in &targets {
            self.log_out_if_idle(call, target).await?;
        }
        Ok(())
    }
}

fn session_is_gone(host: &Host, target: &Target) -> Result<bool> {
    Ok(session(host, target).map_err(unreadable)?.is_none())
}

/// Whether a portal answers at all: iscsid would try for minutes.
async fn reach(call: &Call, target: &Target) -> Result<Result<()>> {
    let connecting = TcpStream::connect((target.portal.address, target.portal.port));
    let answer = call.bound("reach the iSCSI portals", tokio::time::timeout(PORTAL, connecting)).await?;
    let unreachable = |why: String| Err(Error::new(Kind::Unavailable, format!("{target}: {why}")));
    Ok(match answer {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => unreachable(error.to_string()),
        Err(_) => unreachable(format!("no answer within {PORTAL:?}")),
    })
}

/// What iscsiadm's exit code means after a login.
fn judge(target: &Target, output: &Output) -> Result<()> {
    match output.code {
        code::OK | code::SESSION_EXISTS => Ok(()),
        code::REFUSED => Err(output.failure(Kind::Denied).during(format!(
            "{target} refuses this node: is the CHAP password right, and does the target let its initiator in?"
        ))),
        code::NO_DAEMON => Err(output.failure(Kind::WrongState).during(
            "iscsid does not answer: it has to run on the host, and the driver has to share the host's network",
        )),
        _ => Err(output.failure(Kind::Unavailable).during(format!("log in to {target}"))),
    }
}

/// The error when there is no session: the one reason, or all of them.
fn none_up(link: &Link, mut failed: Vec<(Target, Error)>) -> Error {
    if failed.len() == 1
        && let Some((_, error)) = failed.pop()
    {
        return error.during(format!("volume {}", link.volume));
    }
    let kind = failed.first().map_or(Kind::Unavailable, |(_, error)| error.kind());
    let reasons: Vec<_> = failed.iter().map(|(_, error)| error.to_string()).collect();
    Error::new(kind, format!("volume {}: no iSCSI session: {}", link.volume, reasons.join("; ")))
}

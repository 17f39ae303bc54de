//! The gRPC server on its Unix socket: who may connect, and how it ends.

use crate::csi::controller::ControllerService;
use crate::csi::identity::IdentityService;
use crate::csi::node::NodeService;
use crate::csi::operation::Operations;
use crate::csi::proto::controller_server::ControllerServer;
use crate::csi::proto::identity_server::IdentityServer;
use crate::csi::proto::node_server::NodeServer;
use crate::error::{Error, Kind, Result};
use crate::observe::metrics::Metrics;
use crate::observe::rpc::RpcLayer;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;

/// Who may connect: the owner and the group (sidecars of a pod may run as other users of its group), nobody else.
const SOCKET_MODE: u32 = 0o660;

/// So many RPCs may be in flight on one connection. The default of 200 would make the sidecars wait in line: one of
/// them may have a worker for each of thousands of volumes.
const MOST_STREAMS: u32 = 20_000;

/// What a connection may send before it is read. The protections of the h2 crate against hostile clients scale with this:
/// with less, a burst of some thousand small requests is taken for an attack and the connection is closed. Our clients
/// are local, and let in by the mode of the socket.
const CONNECTION_WINDOW: u32 = 32 << 20;

/// So many RPCs may be cancelled before they were looked at: as many as there may be.
const MOST_PENDING_RESETS: usize = 20_000;

/// What cancelled operations get to end at their next wait, after the grace is over.
const AFTER_CANCEL: Duration = Duration::from_secs(5);

/// The services that a process offers.
#[derive(Debug)]
pub struct Services {
    /// Who we are.
    pub identity: IdentityService,
    /// The controller's side.
    pub controller: Option<ControllerService>,
    /// The node's side.
    pub node: Option<NodeService>,
}

impl Services {
    fn into_routes(self) -> Routes {
        let mut routes = Routes::builder();
        routes.add_service(IdentityServer::new(self.identity));
        if let Some(controller) = self.controller {
            routes.add_service(ControllerServer::new(controller));
        }
        if let Some(node) = self.node {
            routes.add_service(NodeServer::new(node));
        }
        routes.routes()
    }
}

/// A Unix socket that this process serves. It is removed when this is dropped, if it is still ours.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    /// Device and inode: what makes it ours.
    identity: (u64, u64),
    listener: Option<UnixListener>,
}

impl Socket {
    /// Takes the socket at this path. One that a dead process left behind is replaced; one that is served is refused.
    /// Its directory is made if it is not there. Blocks for as long as the file system does; called once, at start.
    ///
    /// # Errors
    /// `InvalidArgument`: something else is there, or it cannot be made. `WrongState`: another process serves it.
    pub fn take(path: &Path) -> Result<Self> {
        let cannot = |error: io::Error| Error::invalid(format!("listen on {}", path.display())).because(error);
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            fs::create_dir_all(directory).map_err(cannot)?;
        }
        remove_stale(path)?;
        let listener = UnixListener::bind(path).map_err(cannot)?;
        fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE)).map_err(cannot)?;
        let metadata = fs::symlink_metadata(path).map_err(cannot)?;
        Ok(Self { path: path.to_owned(), identity: (metadata.dev(), metadata.ino()), listener: Some(listener) })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let is_ours =
            fs::symlink_metadata(&self.path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(socket = %self.path.display(), %error, "the socket could not be removed");
        }
    }
}

/// Removes a socket that nobody serves.
fn remove_stale(path: &Path) -> Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::invalid(format!("look at {}", path.display())).because(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(Error::invalid(format!(
            "{} exists and is not a socket: it is left alone; choose another --endpoint",
            path.display()
        )));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(Error::wrong_state(format!(
            "{} is served by another process: stop it, or choose another --endpoint",
            path.display()
        ))),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(socket = %path.display(), "replacing the socket that a dead process left behind");
            fs::remove_file(path)
                .map_err(|error| Error::invalid(format!("remove the old socket {}", path.display())).because(error))
        }
        Err(error) => Err(Error::invalid(format!("see whether {} is served", path.display())).because(error)),
    }
}

/// When and how the server ends.
#[derive(Debug, Clone)]
pub struct Shutdown {
    /// Begins the end: no new connection, no new RPC.
    pub begin: CancellationToken,
    /// What RPCs in flight get to finish.
    pub grace: Duration,
}

/// Serves until the shutdown begins and what is in flight has ended: within the grace by itself, after that cancelled.
/// Work that changes something in OpenStack is seen through even then.
///
/// # Errors
/// `Internal`: the server broke down.
pub async fn serve(
    mut socket: Socket,
    services: Services,
    operations: &Operations,
    metrics: Metrics,
    shutdown: Shutdown,
) -> Result<()> {
    let Some(listener) = socket.listener.take() else {
        return Err(Error::internal("the socket is served already"));
    };
    let server = Server::builder()
        .max_concurrent_streams(MOST_STREAMS)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_pending_accept_reset_streams(Some(MOST_PENDING_RESETS))
        .http2_max_local_error_reset_streams(None)
        .layer(RpcLayer::new(metrics))
        .add_routes(services.into_routes())
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), shutdown.begin.clone().cancelled_owned());
    let served = async {
        server.await.map_err(|error| Error::internal("serve CSI").because(error))?;
        // Operations whose callers are gone.
        operations.ended(shutdown.grace).await;
        Ok(())
    };
    tokio::pin!(served);
    let grace_is_over = async {
        shutdown.begin.cancelled().await;
        tokio::time::sleep(shutdown.grace).await;
    };
    tokio::select! {
        result = &mut served => result,
        () = grace_is_over => {
            tracing::warn!(operations = operations.count(), "the grace is over: what is still running is cancelled");
            operations.stop();
            let ended = operations.ended(AFTER_CANCEL).await;
            // The answers still have to reach their callers; connections that stay open do not keep us.
            let _ = tokio::time::timeout(Duration::from_millis(200), &mut served).await;
            if ended { Ok(()) } else {
                Err(Error::new(Kind::Deadline, format!("{} operations did not end", operations.count())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Socket;
    use crate::error::Kind;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn a_socket_left_behind_is_replaced_and_a_live_one_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made/on/the/way/csi.sock");
        let first = Socket::take(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let error = Socket::take(&path).unwrap_err();
        assert!(error.is(Kind::WrongState) && error.to_string().contains("another process"), "{error}");
        drop(first);
        assert!(!path.exists(), "our own socket is removed");

        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "the standard library leaves a stale socket");
        drop(Socket::take(&path).unwrap());
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("precious");
        fs::write(&path, "data").unwrap();
        assert!(Socket::take(&path).unwrap_err().to_string().contains("not a socket"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "data");
    }

    #[tokio::test]
    async fn a_socket_that_another_took_over_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("csi.sock");
        let first = Socket::take(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let second = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
    }
}

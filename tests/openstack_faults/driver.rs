//! The driver as a process: started, killed, started again, its log kept.

use crate::proto::controller_client::ControllerClient;
use crate::proto::identity_client::IdentityClient;
use crate::standin::Standin;
use hyper_util::rt::TokioIo;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint, Uri};

/// The longest that a start may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// How the driver is started.
#[derive(Debug, Clone, Default)]
pub(crate) struct Setup {
    /// Cinder's if none is given.
    pub(crate) provider: Option<&'static str>,
    /// cloud.conf; the stand-in's own if none is given.
    pub(crate) cloud_conf: Option<String>,
    /// More arguments.
    pub(crate) arguments: Vec<String>,
    /// More environment.
    pub(crate) environment: Vec<(String, String)>,
}

type Process = Arc<Mutex<Option<Child>>>;

/// A driver process and the directory it lives in. Killed and removed when dropped.
pub(crate) struct Driver {
    directory: TempDir,
    setup: Setup,
    process: Process,
    own_endpoint: bool,
    pub(crate) generation: u32,
}

/// cloud.conf for the stand-in, with a password.
pub(crate) fn cloud_conf(standin: &Standin) -> String {
    let (user, password, region) =
        standin.cloud(|cloud| (cloud.account.user.clone(), cloud.account.password.clone(), cloud.region.clone()));
    format!(
        "[Global]\nauth-url = {}\nusername = {user}\npassword = \"{password}\"\ntenant-name = demo\ndomain-name = Default\nregion = {region}\n",
        standin.auth_url()
    )
}

impl Driver {
    /// Starts the controller and waits until it answers.
    pub(crate) async fn start(standin: &Standin) -> Self {
        Self::start_with(standin, Setup::default()).await
    }

    /// The same, with other settings.
    pub(crate) async fn start_with(standin: &Standin, setup: Setup) -> Self {
        let mut driver = Self::new(standin, setup);
        driver.spawn(standin);
        driver.until_ready().await;
        driver
    }

    /// Prepares everything and starts nothing.
    pub(crate) fn new(standin: &Standin, setup: Setup) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let driver = Self { directory, setup, process: Arc::default(), own_endpoint: true, generation: 0 };
        driver.write_cloud_conf(driver.setup.cloud_conf.as_deref().unwrap_or(&cloud_conf(standin)));
        driver
    }

    /// Replaces cloud.conf as an editor or the kubelet does: a new file in the old one's place.
    pub(crate) fn write_cloud_conf(&self, text: &str) {
        let (path, new) = (self.path("cloud.conf"), self.path("cloud.conf.new"));
        std::fs::write(&new, text).expect("write cloud.conf");
        std::fs::rename(&new, &path).expect("put cloud.conf in its place");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Prepares a process that is given its endpoint by the test.
    pub(crate) fn new_at(standin: &Standin, setup: Setup) -> Self {
        let mut driver = Self::new(standin, setup);
        driver.own_endpoint = false;
        driver
    }

    fn socket(&self) -> PathBuf {
        self.path("csi.sock")
    }

    /// Starts a process and does not wait.
    pub(crate) fn spawn(&mut self, standin: &Standin) {
        self.generation = standin.new_generation(Box::new({
            let process = self.process.clone();
            move || kill(&process)
        }));
        let path = self.log_of(self.generation);
        let log = || File::options().create(true).append(true).open(&path).expect("open the log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_fuxi-csi"));
        command.args(["controller", "--provider", self.setup.provider.unwrap_or("cinder"), "--cluster", "test"]);
        if self.own_endpoint {
            command.arg("--endpoint").arg(format!("unix://{}", self.socket().display()));
        }
        let child = command
            .arg("--cloud-config")
            .arg(self.path("cloud.conf"))
            .args(&self.setup.arguments)
            // Nothing of the developer's own cloud may leak in.
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.directory.path())
            .envs(self.setup.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log())
            .stderr(log())
            .spawn()
            .expect("start the driver");
        *lock(&self.process) = Some(child);
    }

    /// Starts a process in the place of the one that is gone, and waits until it answers; RPCs come while it is still
    /// on its way to the cloud, as they do when the kubelet restarts it.
    pub(crate) async fn restart(&mut self, standin: &Standin) {
        self.kill();
        self.spawn(standin);
        self.until("serve its socket", async |driver| {
            driver.identity().probe(crate::proto::ProbeRequest {}).await.is_ok()
        })
        .await;
    }

    /// Waits until the driver has found its way to the cloud.
    pub(crate) async fn until_ready(&self) {
        self.until("get ready", async |driver| {
            let log = std::fs::read_to_string(driver.log_of(driver.generation)).unwrap_or_default();
            log.lines().any(|line| line.ends_with(": ready") || line.contains("\"message\":\"ready\""))
        })
        .await;
    }

    async fn until(&self, what: &str, holds: impl AsyncFn(&Self) -> bool) {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.exited() {
                panic!("the driver ended with {status} at its start; its log:\n{}", self.log());
            }
            if holds(self).await {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "the driver does not {what}; its log:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// kill -9, and the end of the process waited for.
    pub(crate) fn kill(&self) {
        kill(&self.process);
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        lock(&self.process).as_ref().expect("the driver runs").id()
    }

    /// How it ended, if it did by itself.
    pub(crate) fn exited(&self) -> Option<ExitStatus> {
        lock(&self.process).as_mut().and_then(|child| child.try_wait().ok().flatten())
    }

    /// Whether no process runs: killed or ended.
    pub(crate) fn is_gone(&self) -> bool {
        lock(&self.process).is_none() || self.exited().is_some()
    }

    /// How it ended, waited for.
    pub(crate) async fn ends_within(&self, time: Duration) -> Option<ExitStatus> {
        let begun = Instant::now();
        while begun.elapsed() < time {
            if let Some(status) = self.exited() {
                return Some(status);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        None
    }

    /// Everything that it logged, all processes together.
    pub(crate) fn log(&self) -> String {
        let of = |generation| std::fs::read_to_string(self.log_of(generation)).unwrap_or_default();
        (1..=self.generation).map(of).collect()
    }

    fn log_of(&self, generation: u32) -> PathBuf {
        self.path(&format!("driver-{generation}.log"))
    }

    /// A connection of its own to the driver, made when first used, and made again when lost.
    pub(crate) fn channel(&self) -> Channel {
        let socket = self.socket();
        Endpoint::from_static("http://csi").connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { connect(&socket).await }
        }))
    }

    pub(crate) fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.channel())
    }

    pub(crate) fn identity(&self) -> IdentityClient<Channel> {
        IdentityClient::new(self.channel())
    }
}

async fn connect(socket: &Path) -> std::io::Result<TokioIo<tokio::net::UnixStream>> {
    Ok(TokioIo::new(tokio::net::UnixStream::connect(socket).await?))
}

fn lock(process: &Process) -> std::sync::MutexGuard<'_, Option<Child>> {
    process.lock().unwrap_or_else(PoisonError::into_inner)
}

fn kill(process: &Process) {
    if let Some(mut child) = lock(process).take() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the last lines of the driver's log:\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
}

//! A programmable, stateful stand-in for Keystone, Cinder, Nova and Manila.
//!
//! It answers over real HTTP on loopback in the shapes, codes and words of the real services (2026.2; `fidelity.rs`
//! compares the two). It takes no time unless told to ([`cloud::Pace`]), and it has faults on demand: of requests
//! ([`fault::Rule`]) and of objects ([`cloud::Outcome`]). Every request is logged.

pub(crate) mod answer;
mod attachments;
mod cinder;
pub(crate) mod cloud;
pub(crate) mod fault;
mod http;
mod keystone;
pub(crate) mod manila;
mod nova;
mod quota;
pub(crate) mod request;
mod snapshots;
mod volumes;

use cloud::Cloud;
use fault::{Faults, Rule, Strikes};
use request::Logged;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// What a fault calls to kill the driver.
type Killer = Box<dyn Fn() + Send + Sync>;

/// What the server and its owner share.
pub(crate) struct Shared {
    cloud: Mutex<Cloud>,
    faults: Mutex<Faults>,
    log: Mutex<Vec<Logged>>,
    generation: AtomicU32,
    killer: Mutex<Option<Killer>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running cloud. Stops when dropped.
pub(crate) struct Standin {
    shared: Arc<Shared>,
    address: SocketAddr,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Standin {
    /// Starts an empty cloud with one server, on a port that the kernel chooses.
    pub(crate) fn start() -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("bind to loopback");
        listener.set_nonblocking(true).expect("make the listener non-blocking");
        let address = listener.local_addr().expect("the listener's address");
        let shared = Arc::new(Shared {
            cloud: Mutex::new(Cloud::new(format!("http://{address}"))),
            faults: Mutex::default(),
            log: Mutex::default(),
            generation: AtomicU32::new(0),
            killer: Mutex::default(),
        });
        let stop = CancellationToken::new();
        let (in_thread, stopped) = (shared.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a tokio listener");
                stopped.run_until_cancelled(http::serve(in_thread, listener)).await;
            });
        });
        Self { shared, address, stop, thread: Some(thread) }
    }

    /// Keystone's URL, for `auth-url`.
    pub(crate) fn auth_url(&self) -> String {
        format!("{}/identity/v3", self.url())
    }

    /// The root of all services.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Looks at the cloud, or changes it behind the driver's back.
    pub(crate) fn cloud<T>(&self, with: impl FnOnce(&mut Cloud) -> T) -> T {
        let mut cloud = lock(&self.shared.cloud);
        cloud.tick();
        with(&mut cloud)
    }

    /// Puts a fault in force.
    pub(crate) fn inject(&self, rule: Rule) -> Strikes {
        lock(&self.shared.faults).add(rule)
    }

    /// Ends all request faults.
    pub(crate) fn clear_faults(&self) {
        lock(&self.shared.faults).clear();
    }

    /// All requests since the log was cleared.
    pub(crate) fn log(&self) -> Vec<Logged> {
        lock(&self.shared.log).clone()
    }

    /// The lines of the log, such as `POST cinder /volumes`.
    pub(crate) fn calls(&self) -> Vec<String> {
        lock(&self.shared.log).iter().map(|logged| logged.line.clone()).collect()
    }

    /// How many requests match the pattern.
    pub(crate) fn count(&self, pattern: &str) -> usize {
        lock(&self.shared.log).iter().filter(|logged| fault::matches(pattern, &logged.line)).count()
    }

    /// Forgets all requests so far.
    pub(crate) fn clear_log(&self) {
        lock(&self.shared.log).clear();
    }

    /// Says that a new driver process comes, and how it can be killed.
    pub(crate) fn new_generation(&self, killer: Killer) -> u32 {
        *lock(&self.shared.killer) = Some(killer);
        self.shared.generation.fetch_add(1, Ordering::SeqCst) + 1
    }
}

impl Drop for Standin {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

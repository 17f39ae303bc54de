//! The first way to the cloud, in the background: the driver serves meanwhile.
//!
//! A wrong configuration ends the process with its reason; a cloud that is merely away is asked again and again.

use super::is_configuration;
use crate::call::Call;
use crate::error::{Error, Result};
use crate::node::Node;
use crate::observe::http::Readiness;
use crate::openstack::client::ServiceKind;
use crate::openstack::session::Session;
use crate::provider::Provider;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(30);

/// The first pause between attempts, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What has to be there before the driver is ready.
pub(super) struct Needs {
    pub(super) clouds: Vec<(String, Session)>,
    pub(super) services: &'static [ServiceKind],
    pub(super) provider: Option<Arc<dyn Provider>>,
    pub(super) node: Option<Arc<Node>>,
}

impl Needs {
    /// Returns when everything is there.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub(super) async fn met(self, readiness: &watch::Sender<Readiness>) -> Result<()> {
        let mut pause = PAUSES.0;
        loop {
            let call = Call::lasting(ATTEMPT);
            let Err(error) = self.attempt(&call).await else {
                tracing::info!("ready");
                readiness.send_replace(Readiness::Ready);
                return Ok(());
            };
            if error.is_fatal {
                return Err(error.error);
            }
            let error = error.error;
            readiness.send_replace(Readiness::Waiting(error.to_string()));
            tracing::warn!(%error, seconds = pause.as_secs(), "not ready yet: trying again after a pause");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    async fn attempt(&self, call: &Call) -> Result<(), Failure> {
        for (_, session) in &self.clouds {
            session.log_in(call).await?;
            for service in self.services {
                session.endpoint(call, *service).await?;
            }
        }
        if let Some(provider) = &self.provider {
            provider.ready(call).await?;
        }
        if let Some(node) = &self.node {
            // Where the node's sources of its id are concerned, nothing is final: one of them may come up yet.
            node.info(call).await.map_err(|error| Failure { error, is_fatal: false })?;
        }
        Ok(())
    }
}

struct Failure {
    error: Error,
    is_fatal: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { is_fatal: is_configuration(error.kind()), error }
    }
}

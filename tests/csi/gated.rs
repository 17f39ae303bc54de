//! A provider whose operations wait until they are let through: to look at the driver while one is in progress.

use async_trait::async_trait;
use fuxi_csi::call::Call;
use fuxi_csi::error::Result;
use fuxi_csi::model::{
    Capability, Connection, NodeId, Page, PageRequest, StringMap, Volume, VolumeId, VolumeSpec, VolumeStatus,
};
use fuxi_csi::provider::Provider;
use fuxi_csi::provider::memory::MemoryProvider;
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};

/// How an operation waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// As for a volume to become available: it ends when the call does.
    UntilTheCallEnds,
    /// As for the answer to a POST: it is seen through.
    ToTheEnd,
}

/// Volumes in memory that are made and removed only when the gate is open.
pub(crate) struct Gated {
    inner: MemoryProvider,
    wait: Wait,
    gate: Semaphore,
    /// How many operations began, and how many ended.
    begun: watch::Sender<usize>,
    ended: watch::Sender<usize>,
}

impl Gated {
    pub(crate) fn new(wait: Wait) -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryProvider::default(),
            wait,
            gate: Semaphore::new(0),
            begun: watch::Sender::new(0),
            ended: watch::Sender::new(0),
        })
    }

    /// Lets this many operations through.
    pub(crate) fn open_for(&self, operations: usize) {
        self.gate.add_permits(operations);
    }

    /// Waits until so many operations have begun.
    pub(crate) async fn has_begun(&self, count: usize) {
        self.begun.subscribe().wait_for(|begun| *begun >= count).await.unwrap();
    }

    /// Waits until so many operations have ended.
    pub(crate) async fn has_ended(&self, count: usize) {
        self.ended.subscribe().wait_for(|ended| *ended >= count).await.unwrap();
    }

    /// How many volumes there are.
    pub(crate) async fn count(&self) -> usize {
        let call = Call::lasting(std::time::Duration::from_secs(1));
        self.inner.volumes(&call, &PageRequest::default()).await.unwrap().items.len()
    }

    async fn pass(&self, call: &Call) -> Result<()> {
        struct Ended<'a>(&'a watch::Sender<usize>);
        impl Drop for Ended<'_> {
            fn drop(&mut self) {
                self.0.send_modify(|ended| *ended += 1);
            }
        }
        let _ended = Ended(&self.ended);
        self.begun.send_modify(|begun| *begun += 1);
        match self.wait {
            Wait::UntilTheCallEnds => call.bound("wait at the gate", self.gate.acquire()).await?.unwrap().forget(),
            Wait::ToTheEnd => self.gate.acquire().await.unwrap().forget(),
        }
        Ok(())
    }
}

#[async_trait]
impl Provider for Gated {
    async fn create_volume(&self, call: &Call, spec: &VolumeSpec) -> Result<Volume> {
        self.pass(call).await?;
        // As a POST that was sent: it has its effect whether or not anybody waits.
        self.inner.create_volume(&Call::lasting(std::time::Duration::from_secs(1)), spec).await
    }

    async fn delete_volume(&self, call: &Call, id: &VolumeId) -> Result<()> {
        self.pass(call).await?;
        self.inner.delete_volume(call, id).await
    }

    async fn volume(&self, call: &Call, id: &VolumeId) -> Result<VolumeStatus> {
        self.inner.volume(call, id).await
    }

    async fn volumes(&self, call: &Call, page: &PageRequest) -> Result<Page<VolumeStatus>> {
        self.inner.volumes(call, page).await
    }

    async fn validate(
        &self,
        call: &Call,
        id: &VolumeId,
        capabilities: &[Capability],
        parameters: &StringMap,
    ) -> Result<Result<(), String>> {
        self.inner.validate(call, id, capabilities, parameters).await
    }

    async fn publish(
        &self,
        call: &Call,
        id: &VolumeId,
        node: &NodeId,
        capability: &Capability,
        read_only: bool,
    ) -> Result<Connection> {
        self.inner.publish(call, id, node, capability, read_only).await
    }

    async fn unpublish(&self, call: &Call, id: &VolumeId, node: Option<&NodeId>) -> Result<()> {
        self.inner.unpublish(call, id, node).await
    }

    fn has_zones(&self) -> bool {
        self.inner.has_zones()
    }
}

//! A CSI driver in memory. It notes what no orchestrator may do: taking away what something else stands on.

use crate::csi::proto;
use crate::error::{Error, Result};
use crate::trial::pattern::Pattern;
use crate::trial::workload::{View, Workload};
use async_trait::async_trait;
use proto::controller_server::{Controller, ControllerServer};
use proto::identity_server::{Identity, IdentityServer};
use proto::node_server::{Node, NodeServer};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};

type Answer<T> = std::result::Result<Response<T>, Status>;

/// Whether a fault comes before an RPC has done its work, or after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Before,
    After,
}

/// From RPC number `at` on (probes and questions are not counted), `times` answers are lost to `code`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    pub(super) at: u32,
    pub(super) when: When,
    pub(super) code: Code,
    pub(super) times: u32,
}

#[derive(Debug, Clone)]
pub(super) struct FakeDriver {
    state: Arc<Mutex<State>>,
    nodes: usize,
    node: usize,
}

#[derive(Debug, Default)]
struct State {
    bare: bool,
    offline: bool,
    no_backups: bool,
    restores_the_present: bool,
    hanging: BTreeSet<&'static str>,
    faults: Vec<Fault>,
    broken_from: Option<u32>,
    signal: Option<(u32, CancellationToken)>,
    rpcs: u32,
    made: u32,
    volumes: BTreeMap<String, Volume>,
    snapshots: BTreeMap<String, Snapshot>,
    attachments: BTreeSet<(String, String)>,
    stagings: BTreeSet<(String, String)>,
    publications: BTreeMap<String, String>,
    nodes_seen: BTreeSet<String>,
    violations: Vec<String>,
}

#[derive(Debug, Clone)]
struct Volume {
    name: String,
    size: u64,
    usable: u64,
    data: Option<(u64, u64)>,
}

#[derive(Debug, Clone)]
struct Snapshot {
    name: String,
    source: String,
    size: u64,
    data: Option<(u64, u64)>,
    asked: u32,
}

pub(super) struct Sockets {
    pub(super) controller: PathBuf,
    pub(super) nodes: Vec<PathBuf>,
}

impl FakeDriver {
    pub(super) fn new(nodes: usize) -> Self {
        Self { state: Arc::default(), nodes, node: 0 }
    }

    fn having(self, change: impl FnOnce(&mut State)) -> Self {
        change(&mut self.state.lock().unwrap());
        self
    }

    pub(super) fn with_fault(self, fault: Fault) -> Self {
        self.having(|state| state.faults.push(fault))
    }

    pub(super) fn with_signal(self, at: u32, token: CancellationToken) -> Self {
        self.having(|state| state.signal = Some((at, token)))
    }

    /// From this RPC on nothing works any more.
    pub(super) fn broken_from(self, at: u32) -> Self {
        self.having(|state| state.broken_from = Some(at))
    }

    pub(super) fn is_broken(&self) -> bool {
        self.state.lock().unwrap().broken_from.is_some()
    }

    pub(super) fn hanging(self, rpc: &'static str) -> Self {
        self.having(|state| {
            state.hanging.insert(rpc);
        })
    }

    pub(super) fn that_restores_the_present(self) -> Self {
        self.having(|state| state.restores_the_present = true)
    }

    pub(super) fn without_backups(self) -> Self {
        self.having(|state| state.no_backups = true)
    }

    pub(super) fn bare(self) -> Self {
        self.having(|state| state.bare = true)
    }

    pub(super) fn offline(self) -> Self {
        self.having(|state| state.offline = true)
    }

    pub(super) fn rpcs(&self) -> u32 {
        self.state.lock().unwrap().rpcs
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.state.lock().unwrap().violations.clone()
    }

    pub(super) fn nodes_seen(&self) -> Vec<String> {
        self.state.lock().unwrap().nodes_seen.iter().cloned().collect()
    }

    /// Everything that exists, in the words in which the user is told.
    pub(super) fn left(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let volumes = state.volumes.keys().chain(state.snapshots.keys()).cloned();
        let place = |node: &str| node.trim_start_matches("node-").parse::<usize>().unwrap() + 1;
        let attachment = |(volume, node): &(_, String)| format!("volume {volume} published to node {}", place(node));
        let attachments = state.attachments.iter().map(attachment);
        let stagings = state.stagings.iter().map(|(volume, path)| format!("volume {volume} staged at {path}"));
        let publications =
            state.publications.iter().map(|(path, volume)| format!("volume {volume} published at {path}"));
        volumes.chain(attachments).chain(stagings).chain(publications).collect()
    }

    pub(super) fn workload(&self) -> FakeWorkload {
        FakeWorkload(Arc::clone(&self.state))
    }

    /// Serves on sockets in this directory until the runtime ends.
    pub(super) fn serve(&self, directory: &Path) -> Sockets {
        let serve = |name: String, driver: Self| {
            let path = directory.join(name);
            let incoming = UnixListenerStream::new(tokio::net::UnixListener::bind(&path).unwrap());
            let server = tonic::transport::Server::builder()
                .add_service(IdentityServer::new(driver.clone()))
                .add_service(ControllerServer::new(driver.clone()))
                .add_service(NodeServer::new(driver));
            tokio::spawn(server.serve_with_incoming(incoming));
            path
        };
        Sockets {
            controller: serve("controller.sock".to_owned(), self.clone()),
            nodes: (0..self.nodes).map(|node| serve(format!("{node}.sock"), Self { node, ..self.clone() })).collect(),
        }
    }

    fn name_of_node(&self) -> String {
        format!("node-{}", self.node)
    }

    /// Does the work of an RPC, or suffers a fault.
    async fn rpc<T>(
        &self,
        name: &'static str,
        work: impl FnOnce(&mut State) -> std::result::Result<T, Status>,
    ) -> Answer<T> {
        let hangs = self.state.lock().unwrap().hanging.contains(name);
        if hangs {
            std::future::pending::<()>().await;
        }
        let mut state = self.state.lock().unwrap();
        let number = state.rpcs;
        state.rpcs += 1;
        if let Some((at, token)) = &state.signal
            && *at == number
        {
            token.cancel();
        }
        if state.broken_from.is_some_and(|at| at <= number) {
            return Err(Status::internal(format!("{name} is broken")));
        }
        let fault = state.faults.iter_mut().find(|fault| fault.at <= number && fault.times > 0);
        let fault = fault.map(|fault| {
            fault.times -= 1;
            (fault.when, Status::new(fault.code, format!("a fault in {name}")))
        });
        match fault {
            Some((When::Before, status)) => Err(status),
            Some((When::After, status)) => {
                work(&mut state)?;
                Err(status)
            }
            None => work(&mut state).map(Response::new),
        }
    }
}

impl State {
    fn violate(&mut self, what: String) -> Status {
        self.violations.push(what.clone());
        Status::failed_precondition(what)
    }

    fn create_volume(&mut self, request: &proto::CreateVolumeRequest) -> std::result::Result<proto::Volume, Status> {
        use proto::volume_content_source::Type;
        let size = u64::try_from(request.capacity_range.as_ref().unwrap().required_bytes).unwrap();
        let id = match self.volumes.iter().find(|(_, volume)| volume.name == request.name) {
            Some((id, _)) => id.clone(),
            None => {
                let data = match request.volume_content_source.as_ref().and_then(|source| source.r#type.as_ref()) {
                    None => None,
                    Some(Type::Snapshot(source)) => {
                        let gone = || Status::not_found("snapshot");
                        let snapshot = self.snapshots.get(&source.snapshot_id).ok_or_else(gone)?;
                        if self.restores_the_present { self.volumes[&snapshot.source].data } else { snapshot.data }
                    }
                    Some(Type::Volume(source)) => {
                        self.volumes.get(&source.volume_id).ok_or_else(|| Status::not_found("volume"))?.data
                    }
                };
                self.made += 1;
                let id = format!("vol-{}", self.made);
                self.volumes.insert(id.clone(), Volume { name: request.name.clone(), size, usable: size, data });
                id
            }
        };
        Ok(proto::Volume { volume_id: id, capacity_bytes: i64::try_from(size).unwrap(), ..Default::default() })
    }

    fn delete_volume(&mut self, id: &str) -> std::result::Result<(), Status> {
        if self.attachments.iter().any(|(volume, _)| volume == id)
            || self.stagings.iter().any(|(volume, _)| volume == id)
            || self.publications.values().any(|volume| volume == id)
        {
            return Err(self.violate(format!("DeleteVolume of {id}, which is in use")));
        }
        if self.snapshots.values().any(|snapshot| snapshot.source == id) {
            return Err(self.violate(format!("DeleteVolume of {id}, which has snapshots")));
        }
        self.volumes.remove(id);
        Ok(())
    }
}

#[tonic::async_trait]
impl Identity for FakeDriver {
    async fn get_plugin_info(&self, _: Request<proto::GetPluginInfoRequest>) -> Answer<proto::GetPluginInfoResponse> {
        Ok(Response::new(proto::GetPluginInfoResponse {
            name: "fake.example.org".to_owned(),
            vendor_version: "1".to_owned(),
            ..Default::default()
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<proto::GetPluginCapabilitiesRequest>,
    ) -> Answer<proto::GetPluginCapabilitiesResponse> {
        use proto::plugin_capability::service::Type as Service;
        use proto::plugin_capability::volume_expansion::Type as Expansion;
        let service = |service: Service| {
            proto::plugin_capability::Type::Service(proto::plugin_capability::Service { r#type: service.into() })
        };
        let offline = self.state.lock().unwrap().offline;
        let expansion = if offline { Expansion::Offline } else { Expansion::Online };
        let expansion = proto::plugin_capability::VolumeExpansion { r#type: expansion.into() };
        let all = [service(Service::ControllerService), proto::plugin_capability::Type::VolumeExpansion(expansion)];
        let capabilities = all.map(|one| proto::PluginCapability { r#type: Some(one) }).to_vec();
        Ok(Response::new(proto::GetPluginCapabilitiesResponse { capabilities }))
    }

    async fn probe(&self, _: Request<proto::ProbeRequest>) -> Answer<proto::ProbeResponse> {
        Ok(Response::new(proto::ProbeResponse { ready: None }))
    }
}

#[tonic::async_trait]
impl Controller for FakeDriver {
    async fn controller_get_capabilities(
        &self,
        _: Request<proto::ControllerGetCapabilitiesRequest>,
    ) -> Answer<proto::ControllerGetCapabilitiesResponse> {
        use proto::controller_service_capability::rpc::Type;
        let mut all = vec![Type::CreateDeleteVolume];
        if !self.state.lock().unwrap().bare {
            let more =
                [Type::PublishUnpublishVolume, Type::CreateDeleteSnapshot, Type::CloneVolume, Type::ExpandVolume];
            all.extend(more);
        }
        let rpc = |rpc: Type| proto::controller_service_capability::Rpc { r#type: rpc.into() };
        let capability = |one| proto::ControllerServiceCapability {
            r#type: Some(proto::controller_service_capability::Type::Rpc(rpc(one))),
        };
        Ok(Response::new(proto::ControllerGetCapabilitiesResponse {
            capabilities: all.into_iter().map(capability).collect(),
        }))
    }

    async fn create_volume(&self, request: Request<proto::CreateVolumeRequest>) -> Answer<proto::CreateVolumeResponse> {
        let work = |state: &mut State| {
            Ok(proto::CreateVolumeResponse { volume: Some(state.create_volume(request.get_ref())?) })
        };
        self.rpc("CreateVolume", work).await
    }

    async fn delete_volume(&self, request: Request<proto::DeleteVolumeRequest>) -> Answer<proto::DeleteVolumeResponse> {
        let work = |state: &mut State| {
            state.delete_volume(&request.get_ref().volume_id).map(|()| proto::DeleteVolumeResponse {})
        };
        self.rpc("DeleteVolume", work).await
    }

    async fn controller_publish_volume(
        &self,
        request: Request<proto::ControllerPublishVolumeRequest>,
    ) -> Answer<proto::ControllerPublishVolumeResponse> {
        let request = request.into_inner();
        let work = |state: &mut State| {
            let elsewhere = state.attachments.iter().any(|(v, n)| *v == request.volume_id && *n != request.node_id);
            if elsewhere || !state.volumes.contains_key(&request.volume_id) {
                return Err(state.violate(format!("ControllerPublishVolume of {}", request.volume_id)));
            }
            state.nodes_seen.insert(request.node_id.clone());
            state.attachments.insert((request.volume_id, request.node_id));
            Ok(proto::ControllerPublishVolumeResponse::default())
        };
        self.rpc("ControllerPublishVolume", work).await
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<proto::ControllerUnpublishVolumeRequest>,
    ) -> Answer<proto::ControllerUnpublishVolumeResponse> {
        let request = request.into_inner();
        let work = |state: &mut State| {
            if state.stagings.iter().any(|(volume, _)| *volume == request.volume_id) {
                return Err(state.violate(format!("ControllerUnpublishVolume of {}, staged", request.volume_id)));
            }
            state.attachments.remove(&(request.volume_id, request.node_id));
            Ok(proto::ControllerUnpublishVolumeResponse {})
        };
        self.rpc("ControllerUnpublishVolume", work).await
    }

    async fn create_snapshot(
        &self,
        request: Request<proto::CreateSnapshotRequest>,
    ) -> Answer<proto::CreateSnapshotResponse> {
        let request = request.into_inner();
        let work = |state: &mut State| {
            if state.no_backups && request.parameters.get("type").is_some_and(|kind| kind == "backup") {
                return Err(Status::unimplemented("there is no backup service"));
            }
            if !state.snapshots.values().any(|snapshot| snapshot.name == request.name) {
                let source = state.volumes.get(&request.source_volume_id);
                let source = source.ok_or_else(|| Status::not_found("volume"))?.clone();
                state.made += 1;
                let snapshot = Snapshot {
                    name: request.name.clone(),
                    source: request.source_volume_id.clone(),
                    size: source.size,
                    data: source.data,
                    asked: 0,
                };
                let id = format!("snap-{}", state.made);
                state.snapshots.insert(id, snapshot);
            }
            let (id, snapshot) = state.snapshots.iter_mut().find(|(_, s)| s.name == request.name).unwrap();
            snapshot.asked += 1;
            Ok(proto::CreateSnapshotResponse {
                snapshot: Some(proto::Snapshot {
                    snapshot_id: id.clone(),
                    source_volume_id: snapshot.source.clone(),
                    size_bytes: i64::try_from(snapshot.size).unwrap(),
                    ready_to_use: snapshot.asked > 1,
                    ..Default::default()
                }),
            })
        };
        self.rpc("CreateSnapshot", work).await
    }

    async fn delete_snapshot(
        &self,
        request: Request<proto::DeleteSnapshotRequest>,
    ) -> Answer<proto::DeleteSnapshotResponse> {
        let work = |state: &mut State| {
            state.snapshots.remove(&request.get_ref().snapshot_id);
            Ok(proto::DeleteSnapshotResponse {})
        };
        self.rpc("DeleteSnapshot", work).await
    }

    async fn controller_expand_volume(
        &self,
        request: Request<proto::ControllerExpandVolumeRequest>,
    ) -> Answer<proto::ControllerExpandVolumeResponse> {
        let request = request.into_inner();
        let work = |state: &mut State| {
            let size = request.capacity_range.as_ref().unwrap().required_bytes;
            state.volumes.get_mut(&request.volume_id).unwrap().size = u64::try_from(size).unwrap();
            Ok(proto::ControllerExpandVolumeResponse { capacity_bytes: size, node_expansion_required: true })
        };
        self.rpc("ControllerExpandVolume", work).await
    }
}

#[tonic::async_trait]
impl Node for FakeDriver {
    async fn node_get_capabilities(
        &self,
        _: Request<proto::NodeGetCapabilitiesRequest>,
    ) -> Answer<proto::NodeGetCapabilitiesResponse> {
        use proto::node_service_capability::rpc::Type;
        let all = if self.state.lock().unwrap().bare {
            vec![]
        } else {
            vec![Type::StageUnstageVolume, Type::GetVolumeStats, Type::ExpandVolume]
        };
        let rpc = |rpc: Type| proto::node_service_capability::Rpc { r#type: rpc.into() };
        let capability =
            |one| proto::NodeServiceCapability { r#type: Some(proto::node_service_capability::Type::Rpc(rpc(one))) };
        Ok(Response::new(proto::NodeGetCapabilitiesResponse {
            capabilities: all.into_iter().map(capability).collect(),
        }))
    }

    async fn node_get_info(&self, _: Request<proto::NodeGetInfoRequest>) -> Answer<proto::NodeGetInfoResponse> {
        Ok(Response::new(proto::NodeGetInfoResponse { node_id: self.name_of_node(), ..Default::default() }))
    }

    async fn node_stage_volume(
        &self,
        request: Request<proto::NodeStageVolumeRequest>,
    ) -> Answer<proto::NodeStageVolumeResponse> {
        let request = request.into_inner();
        let node = self.name_of_node();
        let work = |state: &mut State| {
            if !state.attachments.contains(&(request.volume_id.clone(), node)) {
                return Err(state.violate(format!("NodeStageVolume of {}, not attached", request.volume_id)));
            }
            if !Path::new(&request.staging_target_path).is_dir() {
                return Err(state.violate(format!("no staging directory {}", request.staging_target_path)));
            }
            state.stagings.insert((request.volume_id, request.staging_target_path));
            Ok(proto::NodeStageVolumeResponse {})
        };
        self.rpc("NodeStageVolume", work).await
    }

    async fn node_unstage_volume(
        &self,
        request: Request<proto::NodeUnstageVolumeRequest>,
    ) -> Answer<proto::NodeUnstageVolumeResponse> {
        let request = request.into_inner();
        let work = |state: &mut State| {
            if state.publications.values().any(|volume| *volume == request.volume_id) {
                return Err(state.violate(format!("NodeUnstageVolume of {}, published", request.volume_id)));
            }
            state.stagings.remove(&(request.volume_id, request.staging_target_path));
            Ok(proto::NodeUnstageVolumeResponse {})
        };
        self.rpc("NodeUnstageVolume", work).await
    }

    async fn node_publish_volume(
        &self,
        request: Request<proto::NodePublishVolumeRequest>,
    ) -> Answer<proto::NodePublishVolumeResponse> {
        let request = request.into_inner();
        let work = |state: &mut State| {
            let staged = state.stagings.contains(&(request.volume_id.clone(), request.staging_target_path.clone()));
            if !state.bare && !staged {
                return Err(state.violate(format!("NodePublishVolume of {}, not staged", request.volume_id)));
            }
            if state.publications.insert(request.target_path.clone(), request.volume_id).is_none() {
                std::fs::create_dir(&request.target_path).unwrap();
            }
            Ok(proto::NodePublishVolumeResponse {})
        };
        self.rpc("NodePublishVolume", work).await
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<proto::NodeUnpublishVolumeRequest>,
    ) -> Answer<proto::NodeUnpublishVolumeResponse> {
        let work = |state: &mut State| {
            if state.publications.remove(&request.get_ref().target_path).is_some() {
                std::fs::remove_dir(&request.get_ref().target_path).unwrap();
            }
            Ok(proto::NodeUnpublishVolumeResponse {})
        };
        self.rpc("NodeUnpublishVolume", work).await
    }

    async fn node_expand_volume(
        &self,
        request: Request<proto::NodeExpandVolumeRequest>,
    ) -> Answer<proto::NodeExpandVolumeResponse> {
        let work = |state: &mut State| {
            let volume = state.volumes.get_mut(&request.get_ref().volume_id).unwrap();
            volume.usable = volume.size;
            Ok(proto::NodeExpandVolumeResponse { capacity_bytes: i64::try_from(volume.size).unwrap() })
        };
        self.rpc("NodeExpandVolume", work).await
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<proto::NodeGetVolumeStatsRequest>,
    ) -> Answer<proto::NodeGetVolumeStatsResponse> {
        let work = |state: &mut State| {
            let total = i64::try_from(state.volumes[&request.get_ref().volume_id].usable).unwrap();
            let unit = proto::volume_usage::Unit::Bytes.into();
            let usage = vec![proto::VolumeUsage { total, unit, ..Default::default() }];
            Ok(proto::NodeGetVolumeStatsResponse { usage })
        };
        self.rpc("NodeGetVolumeStats", work).await
    }
}

/// Reads and writes the data of the fake volumes.
#[derive(Debug)]
pub(super) struct FakeWorkload(Arc<Mutex<State>>);

impl FakeWorkload {
    fn with<T>(&self, view: &View, work: impl FnOnce(&mut Volume) -> Result<T>) -> Result<T> {
        let mut state = self.0.lock().unwrap();
        let path = view.path.to_str().unwrap();
        let id = state.publications.get(path).cloned().ok_or_else(|| Error::wrong_state("nothing is published"))?;
        work(state.volumes.get_mut(&id).unwrap())
    }
}

#[async_trait]
impl Workload for FakeWorkload {
    async fn write(&self, view: &View, pattern: Pattern) -> Result<()> {
        self.with(view, |volume| {
            volume.data = Some((pattern.seed, pattern.generation));
            Ok(())
        })
    }

    async fn verify(&self, view: &View, pattern: Pattern) -> Result<()> {
        self.with(view, |volume| match volume.data {
            Some(data) if data == (pattern.seed, pattern.generation) => Ok(()),
            other => Err(Error::internal(format!("{other:?} instead of {pattern:?}"))),
        })
    }

    async fn size(&self, view: &View) -> Result<u64> {
        self.with(view, |volume| Ok(volume.usable))
    }
}

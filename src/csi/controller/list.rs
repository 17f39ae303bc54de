//! All volumes, page by page.

use super::ControllerService;
use crate::csi::operation::Claim;
use crate::csi::rpc::Rpc;
use crate::csi::{proto, request, response};
use crate::error::Result;
use crate::model::VolumeStatus;
use proto::list_volumes_response::{Entry, VolumeStatus as EntryStatus};

/// ListVolumes.
pub(super) async fn volumes(
    service: &ControllerService,
    rpc: &Rpc,
    message: proto::ListVolumesRequest,
) -> Result<proto::ListVolumesResponse> {
    let page = request::page(message.max_entries, message.starting_token)?;
    let page = service
        .run(rpc, Claim::none(), "list volumes", |provider, call| async move { provider.volumes(&call, &page).await })
        .await?;
    Ok(proto::ListVolumesResponse {
        entries: page.items.into_iter().map(entry).collect(),
        next_token: page.next.unwrap_or_default(),
    })
}

fn entry(status: VolumeStatus) -> Entry {
    Entry {
        volume: Some(response::volume(status.volume)),
        status: Some(EntryStatus { published_node_ids: status.published.into_iter().map(String::from).collect() }),
    }
}

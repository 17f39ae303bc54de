//! The Compute API (Nova), as far as attaching volumes needs it.

use crate::call::Call;
use crate::error::{Kind, Result};
use crate::openstack::client::{Client, Microversion, Route};
use crate::openstack::watch::Source;
use async_trait::async_trait;
use serde::Deserialize;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;
use tokio::task::JoinSet;

/// Volumes of multi-attach types can be attached (and since 2.20, volumes to shelved servers).
pub const MULTIATTACH: Microversion = Microversion(2, 60);

/// From how many servers on one list of all servers is cheaper than asking about each.
const WORTH_A_LIST: usize = 8;

/// The most servers that Nova gives in one answer, unless the operator chose another number.
const LARGEST_PAGE: u32 = 1000;

/// The calls. Cheap to clone.
///
/// Errors of every method: see [`Client`].
#[derive(Debug, Clone)]
pub struct Nova {
    client: Client,
}

/// The volumes that Nova has a record of for one server.
pub type AttachedVolumes = BTreeSet<String>;

#[derive(Deserialize)]
struct AttachmentsBody {
    #[serde(rename = "volumeAttachments")]
    attachments: Vec<AttachmentRecord>,
}

#[derive(Deserialize)]
struct AttachmentRecord {
    #[serde(rename = "volumeId")]
    volume_id: String,
}

#[derive(Deserialize)]
struct ServersBody {
    servers: Vec<ServerWithVolumes>,
    #[serde(default)]
    servers_links: Vec<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct ServerWithVolumes {
    id: String,
    #[serde(rename = "os-extended-volumes:volumes_attached")]
    volumes: Option<Vec<VolumeReference>>,
}

#[derive(Deserialize)]
struct VolumeReference {
    id: String,
}

#[allow(missing_docs, reason = "the names of the methods say what the calls do")]
#[allow(clippy::missing_errors_doc, reason = "see the type")]
impl Nova {
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// The highest microversion that the service has.
    pub async fn highest(&self, call: &Call) -> Result<Microversion> {
        self.client.highest(call).await
    }

    /// Attaches a volume. The answer comes when the volume is reserved; the attaching goes on.
    pub async fn attach(&self, call: &Call, server: &str, volume: &str) -> Result<()> {
        let version = self.client.highest(call).await?.min(MULTIATTACH);
        let route = Route::new("/servers/{}/os-volume_attachments").id(server).microversion(version);
        self.client.act(call, route, &serde_json::json!({"volumeAttachment": {"volumeId": volume}})).await
    }

    /// Detaches a volume. The answer comes when the volume is `detaching`; the detaching goes on.
    pub async fn detach(&self, call: &Call, server: &str, volume: &str) -> Result<()> {
        let version = self.client.highest(call).await?.min(MULTIATTACH);
        let route = Route::new("/servers/{}/os-volume_attachments/{}").id(server).id(volume).microversion(version);
        self.client.delete(call, route).await
    }

    /// Whether Nova has a record of the volume at the server; a server that is gone has none.
    pub async fn has_record(&self, call: &Call, server: &str, volume: &str) -> Result<bool> {
        let route = Route::new("/servers/{}/os-volume_attachments/{}").id(server).id(volume);
        match self.client.get::<serde::de::IgnoredAny>(call, route).await {
            Ok(_) => Ok(true),
            Err(error) if error.is(Kind::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The volumes of a server; none when there is no such server.
    pub async fn attached_volumes(&self, call: &Call, server: &str) -> Result<Option<AttachedVolumes>> {
        let route = Route::new("/servers/{}/os-volume_attachments").id(server);
        match self.client.get::<AttachmentsBody>(call, route).await {
            Ok(body) => Ok(Some(body.attachments.into_iter().map(|record| record.volume_id).collect())),
            Err(error) if error.is(Kind::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The volumes of every server of the project, as far as the list shows them.
    async fn all_attached_volumes(&self, call: &Call) -> Result<HashMap<String, AttachedVolumes>> {
        let mut all = HashMap::new();
        let mut marker: Option<String> = None;
        loop {
            let mut route = Route::new("/servers/detail").query("limit", LARGEST_PAGE);
            if let Some(marker) = &marker {
                route = route.query("marker", marker);
            }
            let body: ServersBody = self.client.get(call, route).await?;
            marker = body.servers.last().map(|server| server.id.clone());
            for server in body.servers {
                if let Some(volumes) = server.volumes {
                    all.insert(server.id, volumes.into_iter().map(|volume| volume.id).collect());
                }
            }
            if body.servers_links.is_empty() || marker.is_none() {
                return Ok(all);
            }
        }
    }
}

/// The servers' volumes as something to wait for; the key is the server's id.
#[derive(Debug, Clone)]
pub struct ServerSource {
    nova: Nova,
}

impl ServerSource {
    /// Over this service.
    #[must_use]
    pub fn new(nova: Nova) -> Self {
        Self { nova }
    }
}

#[async_trait]
impl Source for ServerSource {
    type Object = AttachedVolumes;

    async fn one(&self, call: &Call, id: &str) -> Result<Option<AttachedVolumes>> {
        self.nova.attached_volumes(call, id).await
    }

    async fn many(
        &self,
        call: &Call,
        ids: &[String],
        _since: Duration,
    ) -> Result<Vec<(String, Option<AttachedVolumes>)>> {
        let mut seen = Vec::with_capacity(ids.len());
        let mut listed =
            if ids.len() < WORTH_A_LIST { HashMap::new() } else { self.nova.all_attached_volumes(call).await? };
        let mut asking = JoinSet::new();
        for id in ids {
            if let Some(volumes) = listed.remove(id) {
                seen.push((id.clone(), Some(volumes)));
                continue;
            }
            // Not in the list: deleted, in another project, or shown without its volumes.
            let (nova, call, id) = (self.nova.clone(), call.clone(), id.clone());
            asking.spawn(async move {
                let volumes = nova.attached_volumes(&call, &id).await;
                (id, volumes)
            });
        }
        while let Some(answer) = asking.join_next().await {
            let (id, volumes) = answer.map_err(|error| crate::error::Error::internal("ask Nova").because(error))?;
            seen.push((id, volumes?));
        }
        Ok(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::{AttachmentsBody, ServersBody};
    use serde_json::json;

    #[test]
    fn answers_of_the_real_service_are_read() {
        let body: AttachmentsBody = serde_json::from_value(json!({"volumeAttachments": [
            {"id": "v1", "volumeId": "v1", "serverId": "s1", "device": "/dev/vdb"}]}))
        .unwrap();
        assert_eq!(body.attachments[0].volume_id, "v1");
        let body: ServersBody = serde_json::from_value(json!({"servers": [
            {"id": "s1", "os-extended-volumes:volumes_attached": [{"id": "v1"}]}, {"id": "s2"}],
            "servers_links": [{"rel": "next", "href": "…"}]}))
        .unwrap();
        assert_eq!(body.servers[0].volumes.as_ref().unwrap()[0].id, "v1");
        assert!(body.servers[1].volumes.is_none());
        assert_eq!(body.servers_links.len(), 1);
    }
}

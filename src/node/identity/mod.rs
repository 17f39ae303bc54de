//! Which machine this is: its id, its zone, and how many volumes it takes.
//!
//! Several [`Source`]s know parts of it. They are asked in a settable order until id and zone are known; a source that
//! fails is no failure as long as another one answers, and if none does, the error says what each of them said.

pub mod config_drive;
pub mod host;
pub mod instance;
pub mod limit;
pub mod metadata_service;

use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::model::{NodeId, Topology};
use crate::node::NodeInfo;
use crate::node::device::Host;
use crate::node::record::Record;
use async_trait::async_trait;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// What a source knows about this server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Server {
    /// Its UUID.
    pub id: Option<String>,
    /// Its availability zone.
    pub zone: Option<String>,
}

/// Something that knows which server this is.
#[async_trait]
pub trait Source: fmt::Debug + Send + Sync {
    /// Its name in options and messages.
    fn name(&self) -> &'static str;

    /// What it knows.
    ///
    /// # Errors
    /// Any: the next source is asked.
    async fn ask(&self, call: &Call) -> Result<Server>;
}

/// What the operator set, where it is more than the sources can know.
#[derive(Debug, Clone, Default)]
pub struct IdentityOptions {
    /// The node's id, instead of what the sources say.
    pub id: Option<NodeId>,
    /// The facts about this host as its id, where volumes do not come as disks of a server.
    pub host: Option<NodeId>,
    /// Its zone, instead of what the sources say.
    pub zone: Option<String>,
    /// How many volumes it takes, instead of what its disks suggest.
    pub limit: Option<NonZeroU32>,
    /// How many places of the disk bus are kept for other disks, instead of as many as there are now.
    pub reserved: Option<u32>,
    /// Whether volumes are disks of a hypervisor, so that the machine's disk bus limits their number.
    pub has_disk_bus: bool,
    /// The key of the zone's segment; none for no zone at all.
    pub topology_key: Option<String>,
    /// More segments.
    pub topology: Topology,
}

/// Knows which machine this is.
#[derive(Debug)]
pub struct Identity {
    options: IdentityOptions,
    sources: Vec<Arc<dyn Source>>,
    server: OnceCell<Server>,
}

impl Identity {
    /// Asks these sources, in this order.
    #[must_use]
    pub fn new(options: IdentityOptions, sources: Vec<Arc<dyn Source>>) -> Self {
        Self { options, sources, server: OnceCell::new() }
    }

    /// What this node is.
    ///
    /// # Errors
    /// `Unavailable`: no source knows the server's id.
    pub async fn info(&self, call: &Call, host: &Host, records: &[Record]) -> Result<NodeInfo> {
        let server = self.server.get_or_try_init(|| self.ask(call)).await?;
        let id = server.id.as_deref().ok_or_else(|| Error::internal("a server without an id"))?.parse()?;
        let mut topology = self.options.topology.clone();
        if let (Some(key), Some(zone)) = (&self.options.topology_key, &server.zone) {
            topology.insert(key.clone(), zone.clone());
        }
        let limit = match self.options.limit {
            Some(limit) => Some(limit),
            None if self.options.has_disk_bus => limit::of_disks(call, host, records, self.options.reserved).await?,
            None => None,
        };
        Ok(NodeInfo { id, limit, topology })
    }

    async fn ask(&self, call: &Call) -> Result<Server> {
        let given = self.options.host.as_ref().or(self.options.id.as_ref());
        let mut server = Server { id: given.map(|id| id.as_str().to_owned()), zone: self.options.zone.clone() };
        let wants_zone = self.options.topology_key.is_some();
        let mut said = Vec::new();
        for source in &self.sources {
            if server.id.is_some() && (server.zone.is_some() || !wants_zone) {
                break;
            }
            match source.ask(call).await {
                Ok(found) => {
                    // A zone counts only if it is this server's.
                    let is_same = self.options.host.is_some()
                        || server.id.is_none()
                        || found.id.is_none()
                        || found.id == server.id;
                    said.push(format!("{}: {found}", source.name()));
                    server.id = server.id.or(found.id);
                    if is_same {
                        server.zone = server.zone.or(found.zone);
                    }
                }
                Err(error) => said.push(format!("{}: {error}", source.name())),
            }
        }
        let said = said.join("; ");
        if server.id.is_none() {
            return Err(Error::new(
                Kind::Unavailable,
                format!(
                    "no source knows which server this is ({said}); set --node-id, or see why the metadata is missing"
                ),
            ));
        }
        if server.zone.is_none() && wants_zone {
            tracing::warn!(said, "no source knows this server's availability zone");
        }
        Ok(server)
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, zone) = (self.id.as_deref().unwrap_or("none"), self.zone.as_deref().unwrap_or("none"));
        write!(f, "id {id}, zone {zone}")
    }
}

/// The `meta_data.json` that Nova gives, on a config drive or by its metadata service.
fn read_meta_data(text: &[u8]) -> Result<Server> {
    #[derive(serde::Deserialize)]
    struct MetaData {
        uuid: String,
        availability_zone: Option<String>,
    }
    let read: MetaData = serde_json::from_slice(text)
        .map_err(|error| Error::internal("meta_data.json is not what Nova writes").because(error))?;
    server(Some(&read.uuid), read.availability_zone.as_deref())
}

/// A server, if its id is a UUID.
fn server(id: Option<&str>, zone: Option<&str>) -> Result<Server> {
    let id = id.map(|id| id.trim().to_ascii_lowercase());
    if let Some(wrong) = id.as_deref().filter(|id| !is_uuid(id)) {
        return Err(Error::internal(format!("{wrong:?} is not the UUID of a server")));
    }
    Ok(Server { id, zone: zone.map(str::trim).filter(|zone| !zone.is_empty()).map(str::to_owned) })
}

fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups.iter().all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::{Identity, IdentityOptions, Server, Source, read_meta_data};
    use crate::call::Call;
    use crate::error::{Error, Kind, Result};
    use crate::model::Topology;
    use crate::node::device::Host;
    use async_trait::async_trait;
    use proptest::prelude::{any, prop, proptest};
    use std::sync::Arc;
    use std::time::Duration;

    const ID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";
    const OTHER: &str = "7c9e6679-7425-40de-944b-e07fc1f90ae7";

    #[derive(Debug)]
    struct Says(&'static str, Option<&'static str>, Option<&'static str>);

    #[async_trait]
    impl Source for Says {
        fn name(&self) -> &'static str {
            self.0
        }
        async fn ask(&self, _call: &Call) -> Result<Server> {
            match (self.1, self.2) {
                (None, None) => Err(Error::internal("I know nothing")),
                (id, zone) => Ok(Server { id: id.map(str::to_owned), zone: zone.map(str::to_owned) }),
            }
        }
    }

    async fn ask(options: IdentityOptions, sources: Vec<Says>) -> Result<(String, Topology)> {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("sys/class/block")).unwrap();
        let sources = sources.into_iter().map(|source| Arc::new(source) as Arc<dyn Source>).collect();
        let options = IdentityOptions { topology_key: Some("zone".to_owned()), ..options };
        let info = Identity::new(options, sources)
            .info(&Call::lasting(Duration::from_secs(9)), &Host::below(root.path()), &[])
            .await?;
        Ok((info.id.to_string(), info.topology))
    }

    fn zone(zone: &str) -> Topology {
        Topology::from([("zone".to_owned(), zone.to_owned())])
    }

    #[tokio::test]
    async fn the_first_source_that_knows_wins_and_a_later_one_completes_it() {
        let sources = vec![Says("a", None, None), Says("b", Some(ID), None), Says("c", Some(ID), Some("z1"))];
        assert_eq!(ask(IdentityOptions::default(), sources).await.unwrap(), (ID.to_owned(), zone("z1")));
    }

    #[tokio::test]
    async fn the_zone_of_another_server_is_not_taken() {
        let sources = vec![Says("b", Some(ID), None), Says("c", Some(OTHER), Some("z1"))];
        assert_eq!(ask(IdentityOptions::default(), sources).await.unwrap(), (ID.to_owned(), Topology::new()));
    }

    #[tokio::test]
    async fn what_is_set_comes_first_and_asks_nobody() {
        let options = IdentityOptions {
            id: Some("me".parse().unwrap()),
            zone: Some("here".to_owned()),
            ..IdentityOptions::default()
        };
        assert_eq!(ask(options, vec![]).await.unwrap(), ("me".to_owned(), zone("here")));
    }

    #[tokio::test]
    async fn a_host_that_goes_by_its_facts_is_still_in_its_servers_zone() {
        let options = IdentityOptions { host: Some("facts".parse().unwrap()), ..IdentityOptions::default() };
        let sources = vec![Says("b", Some(ID), Some("z1"))];
        assert_eq!(ask(options, sources).await.unwrap(), ("facts".to_owned(), zone("z1")));
    }

    #[tokio::test]
    async fn if_nobody_knows_the_error_says_what_each_said() {
        let sources = vec![Says("config-drive", None, None), Says("dmi", None, None)];
        let error = ask(IdentityOptions::default(), sources).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        let words = error.to_string();
        assert!(words.contains("config-drive: I know nothing; dmi: I know nothing"), "{words}");
        assert!(words.contains("--node-id"), "{words}");
    }

    #[test]
    fn meta_data_without_a_uuid_is_refused() {
        let text = format!(r#"{{"uuid": "{}", "availability_zone": "nova", "name": "x"}}"#, ID.to_uppercase());
        let server = Server { id: Some(ID.to_owned()), zone: Some("nova".to_owned()) };
        assert_eq!(read_meta_data(text.as_bytes()).unwrap(), server);
        for text in ["", "{}", "[]", r#"{"uuid": "x"}"#, r#"{"uuid": 7}"#, "<html>"] {
            assert!(read_meta_data(text.as_bytes()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_meta_data_panics(text in prop::collection::vec(any::<u8>(), 0..200)) {
            assert!(read_meta_data(&text).is_err());
        }
    }
}

//! What an attachment says about whose it is.
//!
//! Cinder shows nobody but administrators which host an attachment is for. But the connector's `mountpoint` is shown as the
//! attachment's `device`, to everybody who sees the volume: so `csi:<cluster>:<node id>` goes there, and is the way from a
//! volume and a node to the attachment, and from a volume to its nodes, without a store.

use crate::initiator::Initiator;
use crate::model::NodeId;
use crate::openstack::cinder::{AttachedTo, Volume};

/// What every tag begins with.
const START: &str = "csi:";

/// Cinder's column for the mount point, in characters.
const LONGEST: usize = 255;

/// Whose an attachment is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::provider::cinder) struct Tag {
    cluster: String,
    node: NodeId,
}

impl Tag {
    /// Of a node of this cluster.
    pub(in crate::provider::cinder) fn new(cluster: &str, node: &NodeId) -> Self {
        Self { cluster: short(cluster, node), node: node.clone() }
    }

    /// What an attachment's `device` says; none if that is not a tag.
    fn parse(device: &str) -> Option<Self> {
        let (cluster, node) = device.strip_prefix(START)?.rsplit_once(':')?;
        Some(Self { cluster: cluster.to_owned(), node: node.parse().ok()? })
    }

    /// As a connector's `mountpoint`.
    pub(in crate::provider::cinder) fn mountpoint(&self) -> String {
        format!("{START}{}:{}", self.cluster, self.node)
    }

    fn is_of_cluster(&self, cluster: &str) -> bool {
        self.cluster == short(cluster, &self.node)
    }

    /// The node in words: its host name where its id can be read.
    pub(in crate::provider::cinder) fn node_name(&self) -> String {
        Initiator::unpack(&self.node).map_or_else(|_| self.node.to_string(), |host| host.host)
    }

    /// The cluster in words.
    pub(in crate::provider::cinder) fn cluster_in_words(&self) -> String {
        format!("of cluster {:?}", self.cluster)
    }

    /// The node.
    pub(in crate::provider::cinder) fn node(&self) -> &NodeId {
        &self.node
    }
}

/// The name of the cluster, or where that does not fit, its beginning and a digest of the whole.
fn short(cluster: &str, node: &NodeId) -> String {
    let room = LONGEST.saturating_sub(START.len() + 1 + node.as_str().len());
    if cluster.chars().count() <= room {
        return cluster.to_owned();
    }
    let digest = format!("~{:08x}", crc32fast::hash(cluster.as_bytes()));
    let kept: String = cluster.chars().take(room.saturating_sub(digest.len())).collect();
    format!("{kept}{digest}")
}

/// The attachments of a volume that this driver made for hosts of this cluster.
pub(in crate::provider::cinder) fn of_cluster<'a>(
    volume: &'a Volume,
    cluster: &'a str,
) -> impl Iterator<Item = (&'a AttachedTo, Tag)> {
    volume.attachments.iter().filter_map(move |attachment| {
        let tag = tag_of(attachment)?;
        tag.is_of_cluster(cluster).then_some((attachment, tag))
    })
}

/// What an attachment says about whose it is. One of a server is never ours, whatever its device is called.
pub(in crate::provider::cinder) fn tag_of(attachment: &AttachedTo) -> Option<Tag> {
    if attachment.server_id.is_some() {
        return None;
    }
    Tag::parse(attachment.device.as_deref()?)
}

#[cfg(test)]
mod tests {
    use super::{LONGEST, Tag, of_cluster};
    use crate::model::NodeId;
    use crate::openstack::cinder::Volume;
    use proptest::prelude::proptest;
    use serde_json::json;

    fn node(id: &str) -> NodeId {
        id.parse().unwrap()
    }

    #[test]
    fn a_tag_is_read_back_and_clusters_are_told_apart() {
        let tag = Tag::new("blue", &node("AQID"));
        assert_eq!(tag.mountpoint(), "csi:blue:AQID");
        assert_eq!(Tag::parse("csi:blue:AQID"), Some(tag.clone()));
        assert!(tag.is_of_cluster("blue") && !tag.is_of_cluster("green"));
        for other in ["", "/dev/vdb", "csi:", "csi:blue", "csi:blue:", "CSI:blue:x"] {
            assert_eq!(Tag::parse(other), None, "{other}");
        }
    }

    #[test]
    fn only_attachments_without_a_server_and_of_the_cluster_count() {
        let volume: Volume = serde_json::from_value(json!({"id": "v", "status": "in-use", "attachments": [
            {"attachment_id": "a1", "server_id": null, "device": "csi:blue:n1"},
            {"attachment_id": "a2", "server_id": null, "device": "csi:green:n2"},
            {"attachment_id": "a3", "server_id": "s", "device": "csi:blue:n3"},
            {"attachment_id": "a4", "server_id": null, "device": "/dev/sdb"},
            {"attachment_id": "a5", "server_id": null, "device": null},
        ]}))
        .unwrap();
        let found: Vec<_> = of_cluster(&volume, "blue").map(|(at, tag)| (at.attachment_id.clone(), tag.node)).collect();
        assert_eq!(found, [("a1".to_owned(), node("n1"))]);
    }

    proptest! {
        #[test]
        fn every_tag_fits_and_is_its_clusters(cluster in "[ -~]{1,255}", other in "[ -~]{1,255}", id in "[A-Za-z0-9_-]{1,192}") {
            let tag = Tag::new(&cluster, &node(&id));
            let mountpoint = tag.mountpoint();
            assert!(mountpoint.len() <= LONGEST, "{mountpoint}");
            let read = Tag::parse(&mountpoint).unwrap();
            assert_eq!(read, tag);
            assert!(read.is_of_cluster(&cluster));
            assert!(cluster == other || !read.is_of_cluster(&other));
        }

        #[test]
        fn any_device_is_a_tag_or_not(device in "\\PC{0,300}") {
            let _ = Tag::parse(&device);
        }
    }
}

//! The way from a node to a volume, as it travels in a `publish_context`.

use super::{Bytes, StringMap};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Connections of this kind are disks that a hypervisor attaches to the node's own virtual machine.
pub const KIND_NOVA: &str = "nova";

/// Connections of this kind are shares that are mounted by NFS.
pub const KIND_NFS: &str = "nfs";

/// Connections of this kind are shares that are mounted by CephFS.
pub const KIND_CEPHFS: &str = "cephfs";

/// How a node gets at a published volume: what the controller puts into the `publish_context`.
///
/// Unsealed data may be read by many, so it holds no secret. Secrets travel in `sealed`, encrypted to the node's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Which connector serves it: [`KIND_NOVA`], or Cinder's `driver_volume_type`, or a share protocol.
    pub kind: String,
    /// What that connector needs; an object.
    pub data: serde_json::Value,
    /// How large the volume is, where the controller knows it: the node proves it before use.
    pub size: Option<Bytes>,
    /// Whether it was published for reading only.
    #[serde(default, skip_serializing_if = "is_false")]
    pub read_only: bool,
    /// Secrets for the connector, encrypted to the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde wants it")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// The keys of a `publish_context`.
mod context_key {
    pub(super) const KIND: &str = "kind";
    pub(super) const DATA: &str = "data";
    pub(super) const SIZE: &str = "size";
    pub(super) const READ_ONLY: &str = "readOnly";
    pub(super) const SEALED: &str = "sealed";
}

/// The largest map of a CSI message, in bytes of keys and values.
const LARGEST_CONTEXT: usize = 4096;

impl Connection {
    /// As a `publish_context`.
    ///
    /// # Errors
    /// `Internal` when it does not fit into the 4 KiB of a CSI map: it is never cut.
    pub fn to_context(&self) -> Result<StringMap> {
        let mut context = StringMap::from([
            (context_key::KIND.to_owned(), self.kind.clone()),
            (context_key::DATA.to_owned(), self.data.to_string()),
        ]);
        if let Some(size) = self.size {
            context.insert(context_key::SIZE.to_owned(), size.get().to_string());
        }
        if self.read_only {
            context.insert(context_key::READ_ONLY.to_owned(), self.read_only.to_string());
        }
        if let Some(sealed) = &self.sealed {
            context.insert(context_key::SEALED.to_owned(), sealed.clone());
        }
        let bytes: usize = context.iter().map(|(key, value)| key.len() + value.len()).sum();
        if bytes > LARGEST_CONTEXT {
            return Err(Error::internal(format!(
                "the {} connection needs {bytes} bytes of publish_context, and CSI allows {LARGEST_CONTEXT}",
                self.kind
            )));
        }
        Ok(context)
    }

    /// From a `publish_context`. One without a kind is what cinder-csi left behind (`DevicePath` only): a disk of the
    /// node's own virtual machine, its serial number being the volume's id.
    ///
    /// # Errors
    /// `InvalidArgument` for anything that [`Connection::to_context`] would not write.
    pub fn from_context(context: &StringMap) -> Result<Self> {
        let data = match context.get(context_key::DATA) {
            Some(text) => serde_json::from_str(text)
                .map_err(|error| Error::invalid("publish_context: data is not JSON").because(error))?,
            None => serde_json::Value::Object(serde_json::Map::new()),
        };
        let size = context
            .get(context_key::SIZE)
            .map(|text| text.parse().map(Bytes::new))
            .transpose()
            .map_err(|error| Error::invalid("publish_context: size is not a number of bytes").because(error))?;
        let read_only = match context.get(context_key::READ_ONLY).map(String::as_str) {
            None => false,
            Some("true") => true,
            Some(other) => return Err(Error::invalid(format!("publish_context: readOnly is {other:?}"))),
        };
        Ok(Self {
            kind: context.get(context_key::KIND).cloned().unwrap_or_else(|| KIND_NOVA.to_owned()),
            data,
            size,
            read_only,
            sealed: context.get(context_key::SEALED).cloned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Connection, KIND_NOVA};
    use crate::model::{Bytes, StringMap};

    #[test]
    fn a_connection_survives_the_publish_context() {
        let connection = Connection {
            kind: "iscsi".to_owned(),
            data: serde_json::json!({"target_lun": 1}),
            size: Some(Bytes::new(5)),
            read_only: true,
            sealed: None,
        };
        let context = connection.to_context().unwrap();
        assert_eq!(Connection::from_context(&context).unwrap(), connection);
    }

    #[test]
    fn a_context_of_cinder_csi_is_a_nova_disk() {
        let context = StringMap::from([("DevicePath".to_owned(), "/dev/vdb".to_owned())]);
        assert_eq!(Connection::from_context(&context).unwrap().kind, KIND_NOVA);
    }

    #[test]
    fn a_context_too_large_is_refused_not_cut() {
        let data = serde_json::json!("y".repeat(5000));
        let connection = Connection { kind: "x".to_owned(), data, size: None, read_only: false, sealed: None };
        assert!(connection.to_context().is_err());
    }
}

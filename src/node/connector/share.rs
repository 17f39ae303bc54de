//! Shares of NFS and CephFS: nothing is connected, the mount itself is the way in.
//!
//! What the controller says is turned into what mount(2) takes, and looked at as any stranger's word would be: a server or
//! path that could carry options of its own is refused. A Ceph key never stands in a list of processes or in a record:
//! it comes sealed, and goes into the mount call alone.

use super::{Connector, Link, Share, Source};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::model::{Bytes, KIND_CEPHFS, KIND_NFS};
use crate::node::mount::SecretOption;
use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::net::IpAddr;

/// The program that mounts NFS where it is installed: it knows versions, locks and Kerberos better than mount(2) does.
pub const NFS_HELPER: &str = "mount.nfs";

/// Under which name the controller seals the key of a Ceph user.
const CEPH_KEY: &str = "key";

/// NFS and CephFS.
#[derive(Debug, Default)]
pub struct FileServer {}

impl FileServer {
    /// Over this machine.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

#[derive(Debug, Deserialize)]
struct Nfs {
    server: String,
    path: String,
}

#[derive(Debug, Deserialize)]
struct Cephfs {
    monitors: String,
    path: String,
    user: String,
    #[serde(default)]
    filesystem: Option<String>,
}

#[async_trait]
impl Connector for FileServer {
    fn kinds(&self) -> &[&str] {
        &[KIND_NFS, KIND_CEPHFS]
    }

    fn has_shares(&self) -> bool {
        true
    }

    async fn connect(&self, call: &Call, link: &Link) -> Result<Source> {
        let share = if is_cephfs(link) {
            let key = link.secrets.get(CEPH_KEY).ok_or_else(|| {
                Error::new(
                    Kind::Denied,
                    "no key of a Ceph user came with the share: see whether its access rule has one, and publish it again",
                )
            })?;
            cephfs(link, Some(key))?
        } else {
            let mut share = nfs(link)?;
            let address = address_of(call, &parsed::<Nfs>(link)?.server).await?;
            share.options.push(format!("addr={address}"));
            share
        };
        Ok(Source::Share(share))
    }

    async fn locate(&self, _call: &Call, link: &Link) -> Result<Option<Source>> {
        let share = if is_cephfs(link) { cephfs(link, None)? } else { nfs(link)? };
        Ok(Some(Source::Share(share)))
    }

    async fn rescan(&self, call: &Call, link: &Link, _size: Bytes) -> Result<Source> {
        // A share's size is the server's business.
        self.locate(call, link).await?.ok_or_else(|| Error::internal("a share is always somewhere"))
    }

    async fn disconnect(&self, _call: &Call, _link: &Link) -> Result<()> {
        Ok(())
    }
}

fn is_cephfs(link: &Link) -> bool {
    link.connection.kind.eq_ignore_ascii_case(KIND_CEPHFS)
}

fn parsed<T: DeserializeOwned>(link: &Link) -> Result<T> {
    serde_json::from_value(link.connection.data.clone()).map_err(|error| {
        Error::invalid(format!("the {} connection makes no sense", link.connection.kind)).because(error)
    })
}

fn nfs(link: &Link) -> Result<Share> {
    let Nfs { server, path } = parsed(link)?;
    check("server", &server, |c| c.is_ascii_alphanumeric() || ".-_:[]%".contains(c))?;
    check_path(&path)?;
    Ok(Share {
        source: format!("{server}:{path}"),
        fstype: "nfs".to_owned(),
        options: Vec::new(),
        secret: None,
        helper: Some(NFS_HELPER),
    })
}

fn cephfs(link: &Link, key: Option<&SecretString>) -> Result<Share> {
    let Cephfs { monitors, path, user, filesystem } = parsed(link)?;
    check("monitors", &monitors, |c| c.is_ascii_alphanumeric() || ".-_:,[]".contains(c))?;
    check_path(&path)?;
    let is_word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    check("user", &user, is_word)?;
    // A client of its own for each mount: Ceph shuts a client out as a whole when one of its shares is closed to it.
    let mut options = vec![format!("name={user}"), "noshare".to_owned()];
    if let Some(filesystem) = filesystem {
        check("filesystem", &filesystem, is_word)?;
        options.push(format!("mds_namespace={filesystem}"));
    }
    let secret = match key {
        None => None,
        Some(key) => {
            let text = key.expose_secret();
            if text.is_empty() || !text.chars().all(|c| c.is_ascii_alphanumeric() || "+/=".contains(c)) {
                return Err(Error::invalid("the key of the Ceph user is not base64"));
            }
            Some(SecretOption::new("secret", key.clone()))
        }
    };
    Ok(Share { source: format!("{monitors}:{path}"), fstype: "ceph".to_owned(), options, secret, helper: None })
}

/// Nothing that a mount could take for something else.
fn check(what: &str, text: &str, allowed: impl Fn(char) -> bool) -> Result<()> {
    if text.is_empty() || text.starts_with('-') || !text.chars().all(allowed) {
        return Err(Error::invalid(format!("the connection's {what} {text:?} is not one")));
    }
    Ok(())
}

fn check_path(path: &str) -> Result<()> {
    let is_plain = path.starts_with('/') && !path.split('/').any(|part| part == "..");
    if !is_plain || path.chars().any(char::is_control) {
        return Err(Error::invalid(format!("the connection's path {path:?} is not an absolute path without \"..\"")));
    }
    Ok(())
}

/// The server's address: mount(2) resolves no names.
async fn address_of(call: &Call, server: &str) -> Result<IpAddr> {
    let bare = server.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse() {
        return Ok(address);
    }
    let doing = format!("resolve {server}");
    let failed = |error| {
        Error::new(Kind::Unavailable, format!("{doing}: this node cannot resolve the file server's name"))
            .because(error)
    };
    let mut found = call.bound(&doing, tokio::net::lookup_host((server, 2049))).await?.map_err(failed)?;
    found
        .next()
        .map(|address| address.ip())
        .ok_or_else(|| Error::new(Kind::Unavailable, format!("the file server's name {server} has no address")))
}

#[cfg(test)]
mod tests {
    use super::{FileServer, NFS_HELPER};
    use crate::call::Call;
    use crate::error::{Kind, Result};
    use crate::model::{AccessMode, Connection, Secrets};
    use crate::node::connector::{Connector, Link, Share, Source};
    use serde_json::{Value, json};
    use std::time::Duration;

    async fn connect(kind: &str, data: Value, key: Option<&str>) -> Result<Share> {
        let secrets = key.map(|key| ("key".to_owned(), key.to_owned().into())).into_iter().collect::<Secrets>();
        let link = Link {
            volume: "v".parse().unwrap(),
            connection: Connection { kind: kind.to_owned(), data, size: None, read_only: false, sealed: None },
            secrets,
            mode: AccessMode::MultiNodeMultiWriter,
            device: None,
        };
        match FileServer::new().connect(&Call::lasting(Duration::from_secs(5)), &link).await? {
            Source::Share(share) => Ok(share),
            Source::Block(device) => panic!("{device:?}"),
        }
    }

    #[tokio::test]
    async fn an_nfs_export_is_mounted_by_address() {
        let share = connect("nfs", json!({"server": "[::1]", "path": "/shares/a"}), None).await.unwrap();
        assert_eq!((share.source.as_str(), share.fstype.as_str()), ("[::1]:/shares/a", "nfs"));
        assert_eq!(share.options, ["addr=::1"]);
        assert_eq!(share.helper, Some(NFS_HELPER));
    }

    #[tokio::test]
    async fn a_ceph_key_goes_into_the_mount_and_shows_nowhere() {
        let data = json!({"monitors": "10.0.0.1:6789,[fd00::2]:6789", "path": "/volumes/_nogroup/a", "user": "csi-n",
            "filesystem": "cephfs"});
        let share = connect("CephFS", data.clone(), Some("QUJDgeheim==")).await.unwrap();
        assert_eq!(share.source, "10.0.0.1:6789,[fd00::2]:6789:/volumes/_nogroup/a");
        assert_eq!(share.options, ["name=csi-n", "noshare", "mds_namespace=cephfs"]);
        assert!(share.secret.is_some() && !format!("{share:?}").contains("geheim"), "{share:?}");
        let error = connect("cephfs", data.clone(), None).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Denied);
        let error = connect("cephfs", data, Some("x,geheim")).await.unwrap_err();
        assert!(error.is(Kind::InvalidArgument) && !error.to_string().contains("geheim"), "{error}");
    }

    #[tokio::test]
    async fn what_could_carry_options_is_refused() {
        for (kind, data) in [
            ("nfs", json!({})),
            ("nfs", json!({"server": "", "path": "/a"})),
            ("nfs", json!({"server": "-o", "path": "/a"})),
            ("nfs", json!({"server": "10.0.0.1,sec=none", "path": "/a"})),
            ("nfs", json!({"server": "10.0.0.1", "path": "a"})),
            ("nfs", json!({"server": "10.0.0.1", "path": "/a/../b"})),
            ("nfs", json!({"server": "10.0.0.1", "path": "/a\nb"})),
            ("cephfs", json!({"monitors": "m", "path": "/a", "user": "u,secret=x"})),
            ("cephfs", json!({"monitors": "m", "path": "/a", "user": "u", "filesystem": "f,x"})),
        ] {
            let error = connect(kind, data.clone(), Some("QUJD")).await.unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidArgument, "{data}");
        }
    }
}

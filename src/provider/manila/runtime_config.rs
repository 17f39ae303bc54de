//! What manila-csi reads from a file while it runs: which export locations of NFS shares may be used.
//!
//! The file is read for every publication, as manila-csi does, so that it can change; one that is not there says nothing.

use super::client::Network;
use crate::call::Call;
use crate::error::{Error, Result};
use serde::Deserialize;
use std::io;
use std::path::Path;

#[derive(Debug, Default, Deserialize)]
struct RuntimeConfig {
    #[serde(default)]
    nfs: Option<Nfs>,
}

#[derive(Debug, Default, Deserialize)]
struct Nfs {
    #[serde(default, rename = "matchExportLocationAddress")]
    match_export_location_address: Option<String>,
}

/// The network in which the server of an NFS export must be; none for any.
pub(super) async fn export_network(call: &Call, path: &Path) -> Result<Option<Network>> {
    let file = path.to_owned();
    let reading = tokio::task::spawn_blocking(move || std::fs::read(file));
    let doing = format!("read {}", path.display());
    let text = match call.bound(&doing, reading).await?.map_err(|error| Error::internal(&*doing).because(error))? {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::wrong_state(format!("{doing}: --runtime-config-file")).because(error)),
    };
    parse(&text).map_err(|error| error.during(doing))
}

fn parse(text: &[u8]) -> Result<Option<Network>> {
    let read: Option<RuntimeConfig> = serde_json::from_slice(text)
        .map_err(|error| Error::wrong_state("the runtime config is not the JSON that is expected").because(error))?;
    let said = read.and_then(|config| config.nfs).and_then(|nfs| nfs.match_export_location_address);
    match said.as_deref().map(str::trim).filter(|said| !said.is_empty()) {
        None => Ok(None),
        Some(said) => Network::parse(said).map(Some).ok_or_else(|| {
            Error::wrong_state(format!(
                "nfs.matchExportLocationAddress is {said:?}, and must be an address or network such as `10.0.0.0/24`"
            ))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::{export_network, parse};
    use crate::call::Call;
    use crate::error::Kind;
    use std::time::Duration;

    #[test]
    fn what_manila_csi_understands_is_understood() {
        for text in [
            "{}",
            "null",
            r#"{"nfs": {}}"#,
            r#"{"nfs": null, "other": 1}"#,
            r#"{"nfs": {"matchExportLocationAddress": ""}}"#,
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap(), None, "{text}");
        }
        for (address, inside, outside) in [
            ("10.0.0.0/24", "10.0.0.9", "10.0.1.9"),
            ("10.0.0.9", "10.0.0.9", "10.0.0.8"),
            ("fd00::/64", "fd00::9", "fd01::9"),
        ] {
            let text = format!(r#"{{"nfs": {{"matchExportLocationAddress": "{address}"}}}}"#);
            let network = parse(text.as_bytes()).unwrap().unwrap();
            assert!(network.holds(inside.parse().unwrap()) && !network.holds(outside.parse().unwrap()), "{address}");
        }
        for text in ["", "{", r#"{"nfs": {"matchExportLocationAddress": "everywhere"}}"#] {
            assert_eq!(parse(text.as_bytes()).unwrap_err().kind(), Kind::WrongState, "{text}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_not_there_says_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let call = Call::lasting(Duration::from_secs(5));
        assert_eq!(export_network(&call, &directory.path().join("none.json")).await.unwrap(), None);
        let error = export_network(&call, directory.path()).await.unwrap_err();
        assert!(error.is(Kind::WrongState) && error.to_string().contains("--runtime-config-file"), "{error}");
    }
}

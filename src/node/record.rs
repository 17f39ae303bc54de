//! What this node knows about a staged volume: one JSON file per volume.
//!
//! NodeUnstage and NodeExpand are told nothing but the volume's id, and after a crash nobody else remembers a connection
//! that was half made. So the record is written *before* the first side effect and removed after the last one is undone.
//! It holds no secret: what is sealed stays sealed.

use crate::call::Call;
use crate::error::{Error, Result};
use crate::model::{AccessKind, AccessMode, Connection, VolumeId};
use crate::node::blocking;
use crate::node::device::{Device, DeviceNumber};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The version that this driver writes. A reader knows all that are not above its own.
const VERSION: u32 = 1;

/// The longest file name made of an id, in bytes; the system allows 255.
const LONGEST_NAME: usize = 200;

/// A staged volume, or one that is being staged or unstaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// The volume.
    pub volume: VolumeId,
    /// How to get at it.
    pub connection: Connection,
    /// Where it is staged.
    pub staging_path: PathBuf,
    /// Who uses it.
    pub mode: AccessMode,
    /// As what.
    pub kind: AccessKind,
    /// The device it was proven to be, last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    /// The number of the file system that was mounted, of a share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mounted: Option<DeviceNumber>,
    /// Whether it was staged to the end, and so may be in use.
    #[serde(default)]
    pub staged: bool,
    /// A file system that is being made: the device was proven blank, and what is on it now may be half of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub formatting: Option<String>,
    /// During which boot of the machine that was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub formatting_boot: Option<String>,
}

impl Record {
    /// A record of what is about to be staged.
    #[must_use]
    pub fn new(
        volume: VolumeId,
        connection: Connection,
        staging_path: PathBuf,
        mode: AccessMode,
        kind: AccessKind,
    ) -> Self {
        Self {
            version: VERSION,
            volume,
            connection,
            staging_path,
            mode,
            kind,
            device: None,
            mounted: None,
            staged: false,
            formatting: None,
            formatting_boot: None,
        }
    }
}

/// The records of this node.
#[derive(Debug, Clone)]
pub struct Records {
    directory: PathBuf,
}

impl Records {
    /// Records in this directory, which is made when the first one is written.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Writes a record so that it survives a crash the moment this returns.
    ///
    /// # Errors
    /// `Internal`: it cannot be written.
    pub async fn save(&self, call: &Call, record: &Record) -> Result<()> {
        let path = self.path(&record.volume);
        let text = serde_json::to_vec_pretty(record)
            .map_err(|error| Error::internal(format!("record of volume {}", record.volume)).because(error))?;
        let directory = self.directory.clone();
        call.step(&format!("write record {}", path.display()));
        blocking::run(call, "write the volume's record", move || {
            write_durably(&directory, &path, &text)
                .map_err(|error| Error::internal(format!("write record {}", path.display())).because(error))
        })
        .await
    }

    /// The record of a volume, if there is one.
    ///
    /// # Errors
    /// `WrongState`: there is one that cannot be understood; nothing is guessed about a volume that may be in use.
    pub async fn load(&self, call: &Call, volume: &VolumeId) -> Result<Option<Record>> {
        let (path, volume) = (self.path(volume), volume.clone());
        blocking::run(call, "read the volume's record", move || match fs::read(&path) {
            Ok(text) => parse(&path, &text, Some(&volume)).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::internal(format!("read record {}", path.display())).because(error)),
        })
        .await
    }

    /// Removes a record; one that is not there is success.
    ///
    /// # Errors
    /// `Internal`: it cannot be removed.
    pub async fn remove(&self, call: &Call, volume: &VolumeId) -> Result<()> {
        let (path, directory) = (self.path(volume), self.directory.clone());
        call.step(&format!("remove record {}", path.display()));
        blocking::run(call, "remove the volume's record", move || {
            let removed = match fs::remove_file(&path) {
                Ok(()) => File::open(&directory).and_then(|directory| directory.sync_all()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            };
            removed.map_err(|error| Error::internal(format!("remove record {}", path.display())).because(error))
        })
        .await
    }

    /// All records that can be read; broken ones are left to the calls for their volumes.
    ///
    /// # Errors
    /// `Internal`: the directory cannot be read.
    pub async fn all(&self, call: &Call) -> Result<Vec<Record>> {
        let directory = self.directory.clone();
        blocking::run(call, "read the records", move || {
            let failed = |error| Error::internal(format!("read the records in {}", directory.display())).because(error);
            let entries = match fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(failed(error)),
            };
            let mut records = Vec::new();
            for entry in entries {
                let path = entry.map_err(failed)?.path();
                if path.extension().is_some_and(|extension| extension == "json") {
                    let parsed = fs::read(&path).map_err(failed).and_then(|text| parse(&path, &text, None));
                    match parsed {
                        Ok(record) => records.push(record),
                        Err(error) => tracing::warn!(%error, "a record is left out"),
                    }
                }
            }
            Ok(records)
        })
        .await
    }

    /// The file of a volume's record.
    #[must_use]
    pub fn path(&self, volume: &VolumeId) -> PathBuf {
        self.directory.join(format!("{}.json", file_name(volume.as_str())))
    }
}

/// An id as a file name: the same for the same id, different for different ones, and never a path.
#[must_use]
pub fn file_name(id: &str) -> String {
    let mut name = String::with_capacity(id.len());
    for byte in id.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            other => name.push_str(&format!("%{other:02X}")),
        }
    }
    if name.len() > LONGEST_NAME {
        // Ids this long are nobody's; should two of them ever meet in one name, the record's own id tells them apart.
        let digest = digest(id.as_bytes());
        name.truncate(LONGEST_NAME);
        name.push_str(&format!("~{digest:016x}"));
    }
    name
}

/// The FNV-1a hash: the same in every version of the driver, unlike the standard library's.
#[must_use]
pub fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn parse(path: &Path, text: &[u8], volume: Option<&VolumeId>) -> Result<Record> {
    let remedy = |what: String| {
        Error::wrong_state(format!(
            "record {} {what}: unmount and disconnect the volume by hand if it is still there, then remove the file",
            path.display()
        ))
    };
    let record: Record =
        serde_json::from_slice(text).map_err(|error| remedy("cannot be read".to_owned()).because(error))?;
    if record.version > VERSION {
        return Err(remedy(format!("is of version {}, and this driver knows up to {VERSION}", record.version)));
    }
    match volume {
        Some(volume) if *volume != record.volume => Err(remedy(format!("is that of volume {}", record.volume))),
        _ => Ok(record),
    }
}

fn write_durably(directory: &Path, path: &Path, text: &[u8]) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    // Not `.json`: what a crash leaves half written is no record. One name per volume: the next write replaces it.
    let unfinished = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::{Record, Records, file_name};
    use crate::call::Call;
    use crate::error::Kind;
    use crate::model::{AccessKind, AccessMode, Bytes, Connection, VolumeId};
    use proptest::prelude::{any, proptest};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::time::Duration;

    fn record(volume: &str) -> Record {
        let connection = Connection {
            kind: "nova".to_owned(),
            data: serde_json::json!({"serial": volume}),
            size: Some(Bytes::new(Bytes::GIB)),
            read_only: false,
            sealed: None,
        };
        let kind = AccessKind::Mount { fstype: Some("xfs".to_owned()), options: vec![], group: None };
        Record::new(volume.parse().unwrap(), connection, PathBuf::from("/stage"), AccessMode::SingleNodeWriter, kind)
    }

    fn call() -> Call {
        Call::lasting(Duration::from_secs(10))
    }

    #[tokio::test]
    async fn a_record_survives_and_is_for_root_only() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::new(directory.path().join("volumes"));
        let record = record("cloud/1f2e");
        assert_eq!(records.load(&call(), &record.volume).await.unwrap(), None);
        assert_eq!(records.all(&call()).await.unwrap(), []);
        records.save(&call(), &record).await.unwrap();
        assert_eq!(records.load(&call(), &record.volume).await.unwrap(), Some(record.clone()));
        assert_eq!(records.all(&call()).await.unwrap(), vec![record.clone()]);
        let mode = fs::metadata(records.path(&record.volume)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        records.remove(&call(), &record.volume).await.unwrap();
        records.remove(&call(), &record.volume).await.unwrap();
        assert_eq!(records.load(&call(), &record.volume).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_broken_record_is_an_error_that_names_file_and_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::new(directory.path().to_owned());
        let volume: VolumeId = "1f2e".parse().unwrap();
        let path = records.path(&volume);
        let mut newer = serde_json::to_value(record("1f2e")).unwrap();
        newer["version"] = 99.into();
        let other = serde_json::to_string(&record("other")).unwrap();
        for text in ["", "{", "{}", "null", &newer.to_string(), &other] {
            fs::write(&path, text).unwrap();
            let error = records.load(&call(), &volume).await.unwrap_err();
            assert_eq!(error.kind(), Kind::WrongState);
            let words = error.to_string();
            assert!(words.contains(path.to_str().unwrap()) && words.contains("remove the file"), "{words}");
        }
    }

    #[tokio::test]
    async fn unknown_fields_of_a_later_driver_do_no_harm() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::new(directory.path().to_owned());
        let record = record("1f2e");
        let mut text = serde_json::to_value(&record).unwrap();
        text["luks"] = serde_json::json!({"cipher": "x"});
        fs::write(records.path(&record.volume), text.to_string()).unwrap();
        assert_eq!(records.load(&call(), &record.volume).await.unwrap(), Some(record));
    }

    #[tokio::test]
    async fn what_a_crash_left_half_written_is_no_record() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::new(directory.path().to_owned());
        let record = record("1f2e");
        fs::write(records.path(&record.volume).with_extension("new"), "{\"vers").unwrap();
        assert_eq!(records.load(&call(), &record.volume).await.unwrap(), None);
        assert_eq!(records.all(&call()).await.unwrap(), []);
        records.save(&call(), &record).await.unwrap();
        assert_eq!(records.load(&call(), &record.volume).await.unwrap(), Some(record));
    }

    proptest! {
        #[test]
        fn any_id_is_a_safe_file_name(id in any::<String>(), other in any::<String>()) {
            let name = file_name(&id);
            assert!(name.len() <= 230 && !name.contains(['/', '.', '\0']), "{name}");
            assert_eq!(file_name(&id) == file_name(&other), id == other);
        }
    }

    #[test]
    fn the_longest_ids_have_names_of_their_own() {
        let (one, two) = ("ä".repeat(128), format!("{}ö", "ä".repeat(127)));
        assert_ne!(file_name(&one), file_name(&two));
        assert!(file_name(&one).len() <= 230);
        assert_eq!(file_name("../../etc/passwd"), "%2E%2E%2F%2E%2E%2Fetc%2Fpasswd");
    }
}

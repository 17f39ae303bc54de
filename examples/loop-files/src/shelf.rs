//! One kind of things in the store: an image and a description each, by id.
//!
//! The description is what makes a thing exist. It is written last and removed last, so a crash leaves either a whole thing, or
//! an image that the next attempt under the same id replaces.

use fuxi_csi::error::{Error, Kind, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// How many characters an id has.
const ID_LENGTH: usize = 32;

/// A directory of images and descriptions.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    directory: PathBuf,
    /// What lies here, for messages.
    noun: &'static str,
}

/// The id of what has this name. Equal names are equal ids, so what is made twice is made once.
pub(crate) fn id_of(name: &str) -> String {
    let digest = Sha256::digest(name.as_bytes());
    digest.iter().take(ID_LENGTH / 2).map(|byte| format!("{byte:02x}")).collect()
}

/// Whether it can be one of our ids. Anything else must not become part of a path.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == ID_LENGTH && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl Shelf {
    pub(crate) fn new(directory: PathBuf, noun: &'static str) -> Self {
        Self { directory, noun }
    }

    pub(crate) fn image(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.img"))
    }

    fn description(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }

    /// What is known of a thing, if there is one.
    pub(crate) fn find<T: DeserializeOwned>(&self, id: &str) -> Result<Option<T>> {
        if !is_id(id) {
            return Ok(None);
        }
        let path = self.description(id);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|error| Error::wrong_state(format!("{} cannot be understood", path.display())).because(error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path, error)),
        }
    }

    /// What is known of a thing.
    pub(crate) fn get<T: DeserializeOwned>(&self, id: &str) -> Result<T> {
        self.find(id)?.ok_or_else(|| Error::not_found(format!("{} {id} does not exist", self.noun)))
    }

    /// Writes what is known of a thing: from then on it exists.
    pub(crate) fn put<T: Serialize>(&self, id: &str, thing: &T) -> Result<()> {
        let path = self.description(id);
        let text = serde_json::to_vec_pretty(thing)
            .map_err(|error| Error::internal(format!("describe {} {id}", self.noun)).because(error))?;
        self.replace(&path, &text).map_err(|error| failed("write", &path, error))
    }

    fn replace(&self, path: &Path, text: &[u8]) -> io::Result<()> {
        let unfinished = path.with_extension("new");
        let mut file = File::create(&unfinished)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        File::open(&self.directory)?.sync_all()
    }

    /// Removes a thing; one that is not there is success.
    pub(crate) fn remove(&self, id: &str) -> Result<()> {
        for path in [self.image(id), self.description(id)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &path, error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// The ids of all things, in order.
    pub(crate) fn ids(&self) -> Result<Vec<String>> {
        let unreadable = |error| failed("read", &self.directory, error);
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(unreadable)?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry.map_err(unreadable)?.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(".json")).filter(|id| is_id(id));
            ids.extend(id.map(str::to_owned));
        }
        ids.sort();
        Ok(ids)
    }

    /// Makes the directory.
    pub(crate) fn prepare(&self) -> Result<()> {
        fs::create_dir_all(&self.directory).map_err(|error| failed("make", &self.directory, error))
    }
}

/// What went wrong with a file, as the orchestrator should see it.
pub(crate) fn failed(doing: &str, path: &Path, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::Exhausted,
        _ => Kind::Internal,
    };
    Error::new(kind, format!("{doing} {}", path.display())).because(error)
}

#[cfg(test)]
mod tests {
    use super::{Shelf, id_of, is_id};
    use fuxi_csi::error::Kind;

    #[test]
    fn an_id_from_outside_is_never_a_path() {
        assert!(is_id(&id_of("pvc-1")));
        assert_ne!(id_of("pvc-1"), id_of("pvc-2"));
        let directory = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(directory.path().join("shelf"), "volume");
        std::fs::write(directory.path().join("secret.json"), "{}").unwrap();
        for id in ["../secret", "", "pvc-1", &"A".repeat(32), &"a".repeat(33)] {
            assert_eq!(shelf.get::<serde_json::Value>(id).unwrap_err().kind(), Kind::NotFound, "{id}");
        }
    }

    #[test]
    fn what_is_half_written_does_not_exist_and_what_is_broken_is_not_guessed_at() {
        let directory = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(directory.path().to_owned(), "volume");
        let id = id_of("pvc-1");
        std::fs::write(shelf.image(&id), "").unwrap();
        std::fs::write(directory.path().join(format!("{id}.new")), "{").unwrap();
        assert_eq!(shelf.find::<u32>(&id).unwrap(), None);
        assert!(shelf.ids().unwrap().is_empty());
        shelf.put(&id, &7).unwrap();
        assert_eq!((shelf.get::<u32>(&id).unwrap(), shelf.ids().unwrap()), (7, vec![id.clone()]));
        std::fs::write(directory.path().join(format!("{id}.json")), "{").unwrap();
        assert_eq!(shelf.find::<u32>(&id).unwrap_err().kind(), Kind::WrongState);
        shelf.remove(&id).unwrap();
        shelf.remove(&id).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}

//! clouds.yaml of openstacksdk, with secure.yaml laid over it and profiles of clouds-public.yaml under it.
//!
//! Scalars are taken as they are written, so a password of digits needs no quotes. Keys of `auth` may also stand beside
//! it, and hyphens are as good as underscores, as with openstacksdk.

use super::environment::Environment;
use super::files::Reader;
use super::settings::{Dialect, Key, NAMES, Setting, Settings};
use super::spelling;
use crate::error::{Error, Result};
use secrecy::{ExposeSecret, SecretString};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// The clouds of one clouds.yaml and of the files beside it.
#[derive(Debug)]
pub(super) struct CloudsYaml {
    clouds: File,
    secure: Option<File>,
    public: Option<File>,
    home: Option<PathBuf>,
}

/// One parsed file.
#[derive(Debug)]
struct File {
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
}

impl CloudsYaml {
    /// Reads the given file, the one that `OS_CLIENT_CONFIG_FILE` names, or the first of the search path; none where
    /// none of them is there.
    pub(super) fn find(given: Option<&Path>, environment: &Environment, reader: &mut Reader) -> Result<Option<Self>> {
        let named = match given {
            Some(path) => Some(path.to_owned()),
            None => environment.path("OS_CLIENT_CONFIG_FILE")?,
        };
        let directories = search_path(environment)?;
        let clouds = match named {
            Some(path) => {
                let text = reader.read(&path).map_err(|error| match given {
                    Some(_) => error,
                    None => error.during("OS_CLIENT_CONFIG_FILE"),
                })?;
                File::parse(path, &text, Section::Clouds)?
            }
            None => match File::find("clouds", &directories, Section::Clouds, reader)? {
                Some(file) => file,
                None => return Ok(None),
            },
        };
        let secure = match environment.path("OS_CLIENT_SECURE_FILE")? {
            Some(path) => {
                let text = reader.read(&path).map_err(|error| error.during("OS_CLIENT_SECURE_FILE"))?;
                Some(File::parse(path, &text, Section::Clouds)?)
            }
            None => File::find("secure", &beside(&clouds.path, &directories), Section::Clouds, reader)?,
        };
        let public = match clouds.entries.values().any(|entry| entry.profile.is_some()) {
            true => File::find("clouds-public", &beside(&clouds.path, &directories), Section::Public, reader)?,
            false => None,
        };
        Ok(Some(Self { clouds, secure, public, home: environment.path("HOME")? }))
    }

    /// As [`CloudsYaml::find`], where there has to be one.
    pub(super) fn load(given: Option<&Path>, environment: &Environment, reader: &mut Reader) -> Result<Self> {
        Self::find(given, environment, reader)?.ok_or_else(|| {
            let looked = search_path(environment).unwrap_or_default();
            let looked: Vec<String> =
                looked.iter().map(|directory| directory.join("clouds.yaml").display().to_string()).collect();
            Error::invalid(format!(
                "clouds.yaml: there is none (looked for {}): make one, or name it with OS_CLIENT_CONFIG_FILE",
                looked.join(", ")
            ))
        })
    }

    /// The name of the cloud that is meant: the wanted one, or the only one.
    pub(super) fn name<'a>(&'a self, wanted: Option<&'a str>) -> Result<&'a str> {
        let path = self.clouds.path.display();
        let names: Vec<&str> =
            self.secure.iter().chain([&self.clouds]).flat_map(|file| file.entries.keys()).map(String::as_str).collect();
        match (wanted, names.as_slice()) {
            (Some(wanted), names) => names.iter().find(|name| **name == wanted).copied().ok_or_else(|| {
                let suggestion = spelling::suggestion(wanted, names.iter().copied());
                Error::invalid(format!("{path}: there is no cloud {wanted:?}{suggestion} There are: {}", list(names)))
            }),
            (None, []) => Err(Error::invalid(format!("{path}: there is no cloud in it: add one below `clouds:`"))),
            (None, [only, rest @ ..]) if rest.iter().all(|name| name == only) => Ok(only),
            (None, names) => Err(Error::invalid(format!(
                "{path}: there are several clouds: say which with --cloud-name, OS_CLOUD or (in cloud.conf) cloud; there \
                 are: {}",
                list(names)
            ))),
        }
    }

    /// Everything that is said about a cloud. `region` chooses among its regions.
    pub(super) fn settings(&self, name: &str, region: Option<&str>, warnings: &mut Vec<String>) -> Result<Settings> {
        let place = |file: &File| format!("{}: clouds.{name}", file.path.display());
        let mut settings = Settings::new(place(&self.clouds), Dialect::CloudsYaml);
        for file in self.secure.iter().chain([&self.clouds]) {
            let Some(entry) = file.entries.get(name) else { continue };
            let place = place(file);
            entry.warn(&place, warnings);
            let wanted = region.or_else(|| entry.top.get("region_name").map(ExposeSecret::expose_secret));
            if let Some(region) = entry.region(wanted) {
                region.values.fill(
                    &mut settings,
                    &format!("{place}.regions.{}.values", region.name),
                    self.home.as_deref(),
                );
                let chosen =
                    Setting { value: SecretString::from(region.name.clone()), place: format!("{place}.regions") };
                settings.fill(Key::Region, chosen);
            }
            entry.fill(&mut settings, &place, self.home.as_deref());
            if let Some(profile) = &entry.profile {
                self.fill_from_profile(profile, &place, &mut settings, warnings);
            }
        }
        Ok(settings)
    }

    fn fill_from_profile(&self, profile: &str, place: &str, settings: &mut Settings, warnings: &mut Vec<String>) {
        let found = self.public.as_ref().and_then(|file| Some((file, file.entries.get(profile)?)));
        match found {
            Some((file, entry)) => {
                let place = format!("{}: public-clouds.{profile}", file.path.display());
                entry.fill(settings, &place, self.home.as_deref());
            }
            None => warnings.push(format!(
                "{place}: there is no profile {profile:?} in a clouds-public.yaml; the profiles that come with \
                 openstacksdk are not known here, so write what it says into {}",
                self.clouds.path.display()
            )),
        }
    }
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Where clouds.yaml is looked for: here, for this user, for this machine.
fn search_path(environment: &Environment) -> Result<Vec<PathBuf>> {
    let user = match environment.path("XDG_CONFIG_HOME")? {
        Some(directory) => Some(directory.join("openstack")),
        None => environment.path("HOME")?.map(|home| home.join(".config/openstack")),
    };
    Ok([Some(PathBuf::from(".")), user, Some(PathBuf::from("/etc/openstack"))].into_iter().flatten().collect())
}

/// The directory of this file, and then the others.
fn beside(path: &Path, directories: &[PathBuf]) -> Vec<PathBuf> {
    path.parent().map(Path::to_owned).into_iter().chain(directories.iter().cloned()).collect()
}

/// Which part of a file is read.
#[derive(Debug, Clone, Copy)]
enum Section {
    Clouds,
    Public,
}

impl File {
    fn find(stem: &str, directories: &[PathBuf], section: Section, reader: &mut Reader) -> Result<Option<Self>> {
        for directory in directories {
            for extension in ["yaml", "yml"] {
                let path = directory.join(stem).with_extension(extension);
                if let Some(text) = reader.look_for(&path)? {
                    return Self::parse(path, &text, section).map(Some);
                }
            }
        }
        Ok(None)
    }

    fn parse(path: PathBuf, text: &SecretString, section: Section) -> Result<Self> {
        #[derive(serde::Deserialize)]
        struct Content {
            clouds: Option<BTreeMap<String, Option<Entry>>>,
            #[serde(rename = "public-clouds")]
            public_clouds: Option<BTreeMap<String, Option<Entry>>>,
        }
        // Without its snippet: that would show the lines around, which hold passwords.
        let content: Content = serde_saphyr::from_str(text.expose_secret())
            .map_err(|error| Error::invalid(format!("{}: {}", path.display(), error.without_snippet())))?;
        let entries = match section {
            Section::Clouds => content.clouds,
            Section::Public => content.public_clouds,
        };
        let entries = entries.unwrap_or_default().into_iter().map(|(name, entry)| (name, entry.unwrap_or_default()));
        Ok(Self { path, entries: entries.collect() })
    }
}

/// What one file says about one cloud.
#[derive(Debug, Default)]
struct Entry {
    auth: BTreeMap<String, SecretString>,
    top: BTreeMap<String, SecretString>,
    profile: Option<String>,
    regions: Vec<Region>,
    unknown: Vec<String>,
}

/// One of a cloud's regions.
#[derive(Debug)]
struct Region {
    name: String,
    values: Entry,
}

impl Entry {
    /// The region that is meant: the wanted one, or the first.
    fn region(&self, wanted: Option<&str>) -> Option<&Region> {
        match wanted {
            Some(wanted) => self.regions.iter().find(|region| region.name == wanted),
            None => self.regions.first(),
        }
    }

    /// Says everything that is not said already.
    fn fill(&self, settings: &mut Settings, place: &str, home: Option<&Path>) {
        for names in &NAMES {
            for name in names.clouds_yaml {
                let within = self.auth.get(*name).map(|value| (value, format!("{place}.auth.{name}")));
                let beside = self.top.get(*name).map(|value| (value, format!("{place}.{name}")));
                for (value, place) in within.into_iter().chain(beside) {
                    let value = match names.key {
                        Key::CaFile | Key::ClientCertFile | Key::ClientKeyFile => expand(value, home),
                        _ => value.clone(),
                    };
                    settings.fill(names.key, Setting { value, place });
                }
            }
        }
    }

    /// Of `auth` all keys are known. Beside it are many that are not for us, so only slips of the pen are worth a word.
    fn warn(&self, place: &str, warnings: &mut Vec<String>) {
        for name in self.auth.keys().filter(|name| !is_known(name)) {
            let suggestion = spelling::suggestion(name, known_names());
            warnings.push(format!("{place}.auth.{name}: this key is not known and ignored{suggestion}"));
        }
        for name in &self.unknown {
            let foreign = name.ends_with("_endpoint_override") || name.ends_with("_api_version");
            if let Some(meant) = spelling::nearest(name, known_names()).filter(|_| !foreign) {
                warnings.push(format!("{place}.{name}: this key is not known and ignored; did you mean {meant:?}?"));
            }
        }
    }
}

fn known_names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().flat_map(|names| names.clouds_yaml).copied()
}

fn is_known(name: &str) -> bool {
    known_names().any(|known| known == name)
}

/// A path whose `~/` is the home directory.
fn expand(value: &SecretString, home: Option<&Path>) -> SecretString {
    match (value.expose_secret().strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => SecretString::from(home.join(rest).to_string_lossy().into_owned()),
        _ => value.clone(),
    }
}

/// A scalar as it is written; none for null.
struct Scalar(Option<SecretString>);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Option::<String>::deserialize(deserializer)?.map(SecretString::from)))
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntryVisitor;
        impl<'de> Visitor<'de> for EntryVisitor {
            type Value = Entry;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the keys of a cloud")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
                let mut entry = Entry::default();
                while let Some(name) = map.next_key::<String>()? {
                    let name = name.replace('-', "_");
                    match name.as_str() {
                        "auth" => {
                            let auth: Option<BTreeMap<String, Scalar>> = map.next_value()?;
                            let auth = auth.into_iter().flatten();
                            entry
                                .auth
                                .extend(auth.filter_map(|(name, value)| Some((name.replace('-', "_"), value.0?))));
                        }
                        "regions" => entry.regions = map.next_value::<Option<Vec<Region>>>()?.unwrap_or_default(),
                        "profile" | "cloud" => entry.profile = map.next_value()?,
                        known if is_known(known) => {
                            if let Scalar(Some(value)) = map.next_value()? {
                                entry.top.insert(name, value);
                            }
                        }
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            entry.unknown.push(name);
                        }
                    }
                }
                Ok(entry)
            }
        }
        deserializer.deserialize_map(EntryVisitor)
    }
}

/// A name, or a map of `name` and `values`.
impl<'de> Deserialize<'de> for Region {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RegionVisitor;
        impl<'de> Visitor<'de> for RegionVisitor {
            type Value = Region;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a region, or a map of its name and values")
            }
            fn visit_str<E>(self, name: &str) -> Result<Region, E> {
                Ok(Region { name: name.to_owned(), values: Entry::default() })
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Region, A::Error> {
                let mut region = Region { name: String::new(), values: Entry::default() };
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "name" => region.name = map.next_value()?,
                        "values" => region.values = map.next_value::<Option<Entry>>()?.unwrap_or_default(),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(region)
            }
        }
        deserializer.deserialize_any(RegionVisitor)
    }
}

#[cfg(test)]
mod tests;

//! Where the configuration is read from: which files, names and variables were asked for.

use super::cloud_conf::{CloudConf, CloudsYamlWish};
use super::clouds_yaml::CloudsYaml;
use super::environment::Environment;
use super::files::Reader;
use super::settings::{Key, Settings};
use super::{BlockStorageOptions, Clouds, Config, MetadataOptions, NodeConfig, login, spelling};
use crate::error::{Error, Result};
use crate::openstack::cloud::Cloud;
use secrecy::ExposeSecret;
use std::path::{Path, PathBuf};

/// Where the configuration is read from. It can be read again and again: for the reload, and for `check`.
///
/// The first of these that is there is used; they are not mixed, except that a cloud.conf may lead to a clouds.yaml:
///
/// 1. the cloud.conf files that were asked for;
/// 2. clouds.yaml, where names of clouds, `OS_CLOUD` or `OS_CLIENT_CONFIG_FILE` ask for it;
/// 3. the variables `OS_*`, where `OS_AUTH_URL` is set;
/// 4. clouds.yaml, where one is found.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// Files in the form of cloud.conf, the later ones counting more.
    pub cloud_config: Vec<PathBuf>,
    /// The clouds to serve, the default one first. An empty name is the `[Global]` without one, or what `OS_CLOUD`
    /// names; none at all is the one that the source itself takes for the default.
    pub cloud_names: Vec<String>,
    /// The environment.
    pub environment: Environment,
}

impl Source {
    /// The files and names of the command line, and the environment of this process.
    #[must_use]
    pub fn new(cloud_config: Vec<PathBuf>, cloud_names: Vec<String>) -> Self {
        Self { cloud_config, cloud_names, environment: Environment::of_process() }
    }

    /// Reads and validates everything. This blocks: call it in `spawn_blocking`.
    ///
    /// # Errors
    /// [`Kind::InvalidArgument`](crate::error::Kind::InvalidArgument), whose message begins with the file, line and key
    /// (or the variable) that is wrong or in which something is missing, and says what to do.
    pub fn load(&self) -> Result<Config> {
        let mut loading = Loading { source: self, reader: Reader::default(), warnings: Vec::new() };
        match loading.parts() {
            Ok((clouds, block_storage, metadata)) => Ok(Config {
                clouds,
                block_storage,
                metadata,
                fingerprint: loading.reader.into_fingerprint(),
                warnings: loading.warnings,
            }),
            Err(error) => Err(with_warnings(&error, &loading.warnings)),
        }
    }

    /// Reads what a node needs: `[BlockStorage]` and `[Metadata]`. Credentials are neither needed nor kept, and a file
    /// that is not there is only warned about. This blocks.
    ///
    /// # Errors
    /// As [`Source::load`].
    pub fn load_for_node(&self) -> Result<NodeConfig> {
        let mut reader = Reader::default();
        let mut cloud_conf = CloudConf::default();
        for path in &self.cloud_config {
            match reader.look_for(path)? {
                Some(text) => cloud_conf.add(&path.display().to_string(), text.expose_secret())?,
                None => {
                    let warning = format!("{}: there is no such file; a node can do without it", path.display());
                    cloud_conf.warnings.push(warning);
                }
            }
        }
        Ok(NodeConfig {
            block_storage: cloud_conf.block_storage()?,
            metadata: cloud_conf.metadata()?,
            fingerprint: reader.into_fingerprint(),
            warnings: cloud_conf.warnings,
        })
    }
}

/// One run of [`Source::load`].
struct Loading<'a> {
    source: &'a Source,
    reader: Reader,
    warnings: Vec<String>,
}

impl Loading<'_> {
    fn parts(&mut self) -> Result<(Clouds, BlockStorageOptions, MetadataOptions)> {
        let (clouds, mut cloud_conf) = self.clouds()?;
        let block_storage = cloud_conf.block_storage()?;
        self.warnings.append(&mut cloud_conf.warnings);
        Ok((clouds, block_storage, cloud_conf.metadata()?))
    }

    fn clouds(&mut self) -> Result<(Clouds, CloudConf)> {
        let environment = &self.source.environment;
        if !self.source.cloud_config.is_empty() {
            return self.clouds_of_cloud_conf();
        }
        let asked = !self.source.cloud_names.is_empty()
            || environment.text("OS_CLOUD")?.is_some()
            || environment.text("OS_CLIENT_CONFIG_FILE")?.is_some();
        let clouds = if asked {
            let file = CloudsYaml::load(None, environment, &mut self.reader)?;
            self.clouds_of_clouds_yaml(&file)?
        } else if environment.text("OS_AUTH_URL")?.is_some() {
            self.clouds_of_environment()?
        } else if let Some(file) = CloudsYaml::find(None, environment, &mut self.reader)? {
            self.clouds_of_clouds_yaml(&file)?
        } else {
            return Err(Error::invalid(
                "it is not said which cloud to use: give --cloud-config FILE (a cloud.conf), or set OS_CLOUD (a cloud of \
                 clouds.yaml), or set OS_AUTH_URL and the other variables of an openrc file",
            ));
        };
        Ok((clouds, CloudConf::default()))
    }

    fn clouds_of_cloud_conf(&mut self) -> Result<(Clouds, CloudConf)> {
        let mut cloud_conf = CloudConf::default();
        for path in &self.source.cloud_config {
            let text = self.reader.read(path)?;
            cloud_conf.add(&path.display().to_string(), text.expose_secret())?;
            self.warnings.append(&mut cloud_conf.warnings);
        }
        let mut clouds = Vec::new();
        for name in self.names_in(&cloud_conf)? {
            let settings = cloud_conf.clouds.iter().find(|(known, _)| *known == name);
            if let Some((_, settings)) = settings {
                let settings = self.completed(settings.clone())?;
                clouds.push(login::cloud(&name, &settings, &mut self.reader, &mut self.warnings)?);
            }
        }
        Ok((Clouds::of(clouds)?, cloud_conf))
    }

    /// The clouds to serve: each that was asked for, or the unnamed one, or the only one.
    fn names_in(&self, cloud_conf: &CloudConf) -> Result<Vec<String>> {
        let files: Vec<String> = self.source.cloud_config.iter().map(|path| path.display().to_string()).collect();
        let files = files.join(", ");
        let known: Vec<&str> = cloud_conf.clouds.iter().map(|(name, _)| name.as_str()).collect();
        if let Some(unknown) = self.source.cloud_names.iter().find(|name| !known.contains(&name.as_str())) {
            let suggestion = spelling::suggestion(unknown, known.iter().copied().filter(|name| !name.is_empty()));
            return Err(Error::invalid(format!(
                "{files}: there is no {}, which --cloud-name asks for{suggestion} There are: {}",
                section(unknown),
                sections(&known)
            )));
        }
        match (self.source.cloud_names.as_slice(), known.as_slice()) {
            ([], []) => Err(Error::invalid(format!(
                "{files}: there is no section [Global]: add one with auth-url and a credential"
            ))),
            ([], [only]) => Ok(vec![(*only).to_owned()]),
            ([], known) if known.contains(&"") => Ok(vec![String::new()]),
            ([], known) => Err(Error::invalid(format!(
                "{files}: there is no [Global] without a name: say with --cloud-name which to use, the default first. \
                 There are: {}",
                sections(known)
            ))),
            (asked, _) => Ok(unnamed_first(without_repetition(asked))),
        }
    }

    /// With what a clouds.yaml says, where the section leads to one; what the section says counts more.
    fn completed(&mut self, mut settings: Settings) -> Result<Settings> {
        let environment = &self.source.environment;
        let Some(wish) = CloudsYamlWish::of(&settings, &mut self.warnings)? else { return Ok(settings) };
        let during = |error: Error| error.during(format!("{} use-clouds", settings.origin));
        let file = CloudsYaml::load(wish.file.map(Path::new), environment, &mut self.reader).map_err(during)?;
        let wanted = match wish.cloud {
            Some(cloud) => Some(cloud),
            None => environment.text("OS_CLOUD")?,
        };
        let name = file.name(wanted).map_err(during)?;
        let more = file.settings(name, settings.text(Key::Region), &mut self.warnings)?;
        settings.origin = format!("{} and {}", settings.origin, more.origin);
        settings.fill_from(more);
        Ok(settings)
    }

    fn clouds_of_clouds_yaml(&mut self, file: &CloudsYaml) -> Result<Clouds> {
        let by_environment = self.source.environment.text("OS_CLOUD")?;
        let region = self.source.environment.text("OS_REGION_NAME")?;
        let wanted: Vec<Option<&str>> = match self.source.cloud_names.as_slice() {
            [] => vec![by_environment],
            // The unnamed cloud is the one that everybody else would take here.
            names => names
                .iter()
                .map(|name| Some(name.as_str()).filter(|name| !name.is_empty()).or(by_environment))
                .collect(),
        };
        let names = wanted.into_iter().map(|name| file.name(name).map(str::to_owned)).collect::<Result<Vec<_>>>()?;
        let mut clouds = Vec::new();
        for name in without_repetition(&names) {
            let settings = file.settings(&name, region, &mut self.warnings)?;
            clouds.push(login::cloud(&name, &settings, &mut self.reader, &mut self.warnings)?);
        }
        Clouds::of(clouds)
    }

    fn clouds_of_environment(&mut self) -> Result<Clouds> {
        let settings = self.source.environment.settings()?;
        self.warnings.extend(self.source.environment.warnings());
        Clouds::of(vec![login::cloud("", &settings, &mut self.reader, &mut self.warnings)?])
    }
}

/// What was not understood is often the reason for what is missing.
fn with_warnings(error: &Error, warnings: &[String]) -> Error {
    let notes: Vec<String> = warnings.iter().map(|warning| format!(" [note: {warning}]")).collect();
    Error::new(error.kind(), format!("{error}{}", notes.concat()))
}

fn section(name: &str) -> String {
    if name.is_empty() { "[Global] without a name".to_owned() } else { format!("[Global {name:?}]") }
}

fn sections(names: &[&str]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.iter().map(|name| section(name)).collect::<Vec<_>>().join(", ")
    }
}

fn without_repetition(names: &[String]) -> Vec<String> {
    let mut distinct: Vec<String> = Vec::new();
    for name in names {
        if !distinct.contains(name) {
            distinct.push(name.clone());
        }
    }
    distinct
}

/// The cloud without a name is the default wherever it is listed, as with cinder-csi.
fn unnamed_first(mut names: Vec<String>) -> Vec<String> {
    names.sort_by_key(|name| !name.is_empty());
    names
}

/// The longest name of a cloud: a handle of 128 bytes has room for it, a UUID and a word.
const LONGEST_NAME: usize = 64;

/// What stands before the UUID in the handle of a backup.
const WORD_OF_HANDLES: &str = "backup";

impl Clouds {
    fn of(clouds: Vec<Cloud>) -> Result<Self> {
        let mut clouds = clouds.into_iter();
        let Some(default) = clouds.next() else {
            return Err(Error::internal("a configuration without a cloud was let through"));
        };
        let others: Vec<Cloud> = clouds.collect();
        match others.iter().find(|cloud| !can_be_in_handles(&cloud.name)) {
            Some(cloud) => Err(Error::invalid(format!(
                "{}: volume handles have the cloud's name in front of a slash, and {:?} cannot be there: take another \
                 name, without slash or blank, of at most {LONGEST_NAME} bytes, and not {WORD_OF_HANDLES:?}",
                cloud.origin, cloud.name
            ))),
            None => Ok(Self { default, others }),
        }
    }
}

fn can_be_in_handles(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= LONGEST_NAME
        && name != WORD_OF_HANDLES
        && !name.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests;

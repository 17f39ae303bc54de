//! cloud.conf, as cinder-csi reads it: `[Global "name"]`, `[BlockStorage]` and `[Metadata]`.
//!
//! Several files are one: of a key that is said again, the later counts. What is not known is warned about by name and
//! ignored, since the same file often serves the other drivers of cloud-provider-openstack.

use super::gcfg::{self, Entry, Section};
use super::metadata::{MetadataOptions, MetadataSource};
use super::settings::{Dialect, Key, NAMES, Setting, Settings};
use super::{duration, spelling};
use crate::error::Result;
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::num::NonZeroU32;

/// Sections of the same file that are for other programs.
const FOREIGN_SECTIONS: [&str; 6] =
    ["LoadBalancer", "LoadBalancerClass", "Networking", "Route", "KeyManager", "OpenStack"];

/// The sections that are read here.
pub const SECTIONS: [&str; 3] = ["Global", "BlockStorage", "Metadata"];

const NODE_VOLUME_ATTACH_LIMIT: &str = "node-volume-attach-limit";
const RESCAN_ON_RESIZE: &str = "rescan-on-resize";
const IGNORE_VOLUME_AZ: &str = "ignore-volume-az";
const IGNORE_VOLUME_MICROVERSION: &str = "ignore-volume-microversion";
const SEARCH_ORDER: &str = "search-order";
const REQUEST_TIMEOUT: &str = "request-timeout";

const BLOCK_STORAGE_KEYS: [&str; 4] =
    [NODE_VOLUME_ATTACH_LIMIT, RESCAN_ON_RESIZE, IGNORE_VOLUME_AZ, IGNORE_VOLUME_MICROVERSION];
const METADATA_KEYS: [&str; 2] = [SEARCH_ORDER, REQUEST_TIMEOUT];

/// The largest limit that cinder-csi takes.
const LARGEST_ATTACH_LIMIT: u32 = 256;

/// Keys whose absence of a value means true.
const BOOLEANS: [&str; 4] = ["use-clouds", RESCAN_ON_RESIZE, IGNORE_VOLUME_AZ, IGNORE_VOLUME_MICROVERSION];

/// Every key of a section, as it is documented.
#[must_use]
pub fn keys_of(section: &str) -> Vec<&'static str> {
    match section {
        "Global" => NAMES.iter().flat_map(|names| names.cloud_conf).copied().collect(),
        "BlockStorage" => BLOCK_STORAGE_KEYS.to_vec(),
        "Metadata" => METADATA_KEYS.to_vec(),
        _ => Vec::new(),
    }
}

/// Options of the section `[BlockStorage]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlockStorageOptions {
    /// At most so many volumes on a node; none where the node finds it out.
    pub node_volume_attach_limit: Option<NonZeroU32>,
    /// Whether a device is rescanned and its size verified before its file system is grown.
    pub rescan_on_resize: bool,
    /// Whether the zones of Cinder have nothing to do with those of Nova.
    pub ignore_volume_az: bool,
    /// Whether Cinder may be older than microversion 3.34.
    pub ignore_volume_microversion: bool,
}

/// The files, read and merged.
#[derive(Debug, Default)]
pub(super) struct CloudConf {
    /// What is said about each cloud, in the order of their first appearance.
    pub(super) clouds: Vec<(String, Settings)>,
    pub(super) warnings: Vec<String>,
    options: BTreeMap<&'static str, Setting>,
}

impl CloudConf {
    /// Adds a file; what it says counts more than what was said before.
    pub(super) fn add(&mut self, file: &str, text: &str) -> Result<()> {
        let document = gcfg::parse(file, text)?;
        for (position, sentence) in document.warnings {
            self.warnings.push(format!("{file}:{position}: {sentence}"));
        }
        for section in document.sections {
            let known = SECTIONS.into_iter().find(|known| known.eq_ignore_ascii_case(&section.name));
            match (known, section.subsection.is_empty()) {
                (Some("Global"), _) => self.add_cloud(file, section)?,
                (Some(name), true) => self.add_options(file, name, section)?,
                _ => self.warn_about_section(file, &section),
            }
        }
        Ok(())
    }

    /// The options of `[BlockStorage]`.
    pub(super) fn block_storage(&mut self) -> Result<BlockStorageOptions> {
        Ok(BlockStorageOptions {
            node_volume_attach_limit: self.attach_limit()?,
            rescan_on_resize: self.boolean(RESCAN_ON_RESIZE)?,
            ignore_volume_az: self.boolean(IGNORE_VOLUME_AZ)?,
            ignore_volume_microversion: self.boolean(IGNORE_VOLUME_MICROVERSION)?,
        })
    }

    /// The options of `[Metadata]`.
    pub(super) fn metadata(&self) -> Result<MetadataOptions> {
        let search_order = match self.options.get(SEARCH_ORDER) {
            Some(setting) => MetadataSource::list(setting.text()).map_err(|error| setting.wrong(error))?,
            None => Vec::new(),
        };
        let request_timeout = match self.options.get(REQUEST_TIMEOUT) {
            Some(setting) => {
                let timeout = duration::parse(setting.text()).map_err(|error| setting.wrong(error))?;
                Some(timeout).filter(|timeout| !timeout.is_zero())
            }
            None => None,
        };
        Ok(MetadataOptions { search_order, request_timeout })
    }

    fn add_cloud(&mut self, file: &str, section: Section) -> Result<()> {
        let title = title(&section);
        let index = match self.clouds.iter().position(|(name, _)| *name == section.subsection) {
            Some(index) => index,
            None => {
                let settings = Settings::new(format!("{file} {title}"), Dialect::CloudConf);
                self.clouds.push((section.subsection.clone(), settings));
                self.clouds.len() - 1
            }
        };
        for entry in section.entries {
            let key = NAMES.iter().find(|names| names.cloud_conf.iter().any(|name| same_key(name, &entry.key)));
            match key {
                Some(names) => {
                    let setting = setting(file, &title, entry)?;
                    if let Some((_, settings)) = self.clouds.get_mut(index) {
                        settings.set(names.key, setting);
                    }
                }
                None => self.warn_about_key(file, &title, "Global", &entry),
            }
        }
        Ok(())
    }

    fn add_options(&mut self, file: &str, name: &'static str, section: Section) -> Result<()> {
        let title = title(&section);
        let known = keys_of(name);
        for entry in section.entries {
            match known.iter().find(|key| same_key(key, &entry.key)) {
                Some(key) => {
                    self.options.insert(key, setting(file, &title, entry)?);
                }
                None => self.warn_about_key(file, &title, name, &entry),
            }
        }
        Ok(())
    }

    fn warn_about_section(&mut self, file: &str, section: &Section) {
        if FOREIGN_SECTIONS.iter().any(|foreign| foreign.eq_ignore_ascii_case(&section.name)) {
            return;
        }
        let known = SECTIONS.into_iter().find(|known| known.eq_ignore_ascii_case(&section.name));
        let meant = match known {
            Some(known) => format!("; [{known}] has no subsections"),
            None => spelling::suggestion(&section.name, SECTIONS),
        };
        let title = title(section);
        self.warnings
            .push(format!("{file}:{}: {title}: this section is not known and ignored{meant}", section.position.line));
    }

    fn warn_about_key(&mut self, file: &str, title: &str, section: &str, entry: &Entry) {
        let meant = spelling::suggestion(&entry.key, keys_of(section));
        let (line, key) = (entry.position.line, &entry.key);
        self.warnings.push(format!("{file}:{line}: {title} {key}: this key is not known and ignored{meant}"));
    }

    fn boolean(&self, key: &str) -> Result<bool> {
        self.options.get(key).map_or(Ok(false), Setting::boolean)
    }

    /// A limit of zero never gets to an orchestrator, where it would mean "no limit".
    fn attach_limit(&mut self) -> Result<Option<NonZeroU32>> {
        let Some(setting) = self.options.get(NODE_VOLUME_ATTACH_LIMIT) else { return Ok(None) };
        let limit = integer(setting.text()).ok_or_else(|| setting.wrong("this is not a whole number"))?;
        match u32::try_from(limit.min(LARGEST_ATTACH_LIMIT.into())).ok().and_then(NonZeroU32::new) {
            Some(most) if limit > most.get().into() => {
                self.warnings
                    .push(format!("{} = {limit}: {most} is the most that there can be; that is used", setting.place));
                Ok(Some(most))
            }
            Some(limit) => Ok(Some(limit)),
            None => {
                self.warnings.push(format!("{} = {limit}: this is no limit; the node finds its own", setting.place));
                Ok(None)
            }
        }
    }
}

/// The header as it is written.
fn title(section: &Section) -> String {
    match section.subsection.as_str() {
        "" => format!("[{}]", section.name),
        subsection => format!("[{} {subsection:?}]", section.name),
    }
}

fn setting(file: &str, title: &str, entry: Entry) -> Result<Setting> {
    let place = format!("{file}:{}: {title} {}", entry.position.line, entry.key);
    let is_boolean = BOOLEANS.iter().any(|key| same_key(key, &entry.key));
    match entry.value {
        Some(value) => Ok(Setting { value, place }),
        None if is_boolean => Ok(Setting { value: SecretString::from("true"), place }),
        None => {
            let empty = Setting { value: SecretString::from(""), place };
            Err(empty.wrong_secret("this key needs = and a value"))
        }
    }
}

fn same_key(known: &str, written: &str) -> bool {
    known.eq_ignore_ascii_case(written)
}

/// Decimal, or hexadecimal after `0x`, as gcfg reads integers.
fn integer(text: &str) -> Option<i64> {
    let text = text.trim();
    match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with(['+', '-'])),
        None => text.parse().ok(),
    }
}

/// What a section says about a cloud besides what is in clouds.yaml.
pub(super) struct CloudsYamlWish<'a> {
    pub(super) file: Option<&'a str>,
    pub(super) cloud: Option<&'a str>,
}

impl<'a> CloudsYamlWish<'a> {
    /// Whether the section leads to a clouds.yaml. As with cinder-csi, `cloud` alone does so.
    pub(super) fn of(settings: &'a Settings, warnings: &mut Vec<String>) -> Result<Option<Self>> {
        let wish = Self { file: settings.text(Key::CloudsFile), cloud: settings.text(Key::Cloud) };
        if settings.boolean(Key::UseClouds)? || wish.cloud.is_some() {
            return Ok(Some(wish));
        }
        if let Some(setting) = settings.get(Key::CloudsFile) {
            warnings.push(format!("{}: this is ignored; say use-clouds = true, or which cloud", setting.place));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;

//! Requests, parsed once, at the edge, into types that cannot hold nonsense. What is missing or malformed is
//! `INVALID_ARGUMENT`, naming the field and what it held.
//!
//! What the specification calls a limit on the orchestrator's side (128 bytes for a string, 4 KiB for a map) is not
//! enforced, since nothing is gained; what would lose its meaning is refused.

use crate::csi::proto;
use crate::error::{Error, Kind, Result};
use crate::model::{
    AccessKind, AccessMode, Bytes, Capability, ContentSource, PageRequest, Secrets, SizeRange, StringMap, Topology,
    TopologyRequirement,
};
use proto::volume_capability::AccessType;
use proto::volume_capability::access_mode::Mode;
use proto::volume_content_source::Type as SourceType;
use secrecy::SecretString;
use std::num::NonZeroU32;
use std::path::{Component, Path, PathBuf};

/// The longest name, in bytes: what OpenStack's databases hold.
const LONGEST_NAME: usize = 255;

/// The longest path of the operating system, in bytes.
const LONGEST_PATH: usize = 4095;

/// The largest page of a list. An orchestrator that names no size gets pages of this size and asks on: the answer has to
/// fit the 4 MiB of a gRPC message, and our memory.
const LARGEST_PAGE: NonZeroU32 = NonZeroU32::new(1000).unwrap();

/// Reads a required identifier.
///
/// # Errors
/// `InvalidArgument` when it is missing or malformed.
pub fn id<T: std::str::FromStr<Err = Error>>(field: &str, text: &str) -> Result<T> {
    if text.is_empty() {
        return Err(missing(field));
    }
    text.parse().map_err(|error: Error| error.during(field))
}

/// Reads an optional identifier.
///
/// # Errors
/// `InvalidArgument` when it is malformed.
pub fn optional_id<T: std::str::FromStr<Err = Error>>(field: &str, text: &str) -> Result<Option<T>> {
    if text.is_empty() { Ok(None) } else { id(field, text).map(Some) }
}

/// Checks the name of what is to be made. The specification bans control characters other than whitespace.
///
/// # Errors
/// `InvalidArgument` when it is missing or malformed.
pub fn name(field: &str, text: String) -> Result<String> {
    let is_banned = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r');
    if text.is_empty() {
        Err(missing(field))
    } else if text.len() > LONGEST_NAME {
        Err(Error::invalid(format!("{field} has {} bytes, more than {LONGEST_NAME}", text.len())))
    } else if text.chars().any(is_banned) {
        Err(Error::invalid(format!("{field} {text:?} has control characters")))
    } else {
        Ok(text)
    }
}

/// Reads a required absolute path.
///
/// # Errors
/// `InvalidArgument` when it is missing or malformed.
pub fn path(field: &str, text: String) -> Result<PathBuf> {
    optional_path(field, text)?.ok_or_else(|| missing(field))
}

/// Reads the required path of something that should be there already.
///
/// # Errors
/// `NotFound` when it is relative: no orchestrator has published anything there. `InvalidArgument` when it is missing or
/// otherwise malformed.
pub fn existing_path(field: &str, text: String) -> Result<PathBuf> {
    if !text.is_empty() && !text.contains('\0') && Path::new(&text).is_relative() {
        return Err(Error::not_found(format!("{field} {text:?} is not an absolute path, so no volume is there")));
    }
    path(field, text)
}

/// Reads an optional absolute path.
///
/// # Errors
/// `InvalidArgument` when it is malformed.
pub fn optional_path(field: &str, text: String) -> Result<Option<PathBuf>> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() > LONGEST_PATH {
        return Err(Error::invalid(format!("{field} has {} bytes, more than a path can have", text.len())));
    }
    let objection = if text.contains('\0') {
        Some("has a NUL byte")
    } else if !Path::new(&text).is_absolute() {
        Some("is not an absolute path")
    } else if Path::new(&text).components().any(|component| component == Component::ParentDir) {
        Some("has a \"..\" in it")
    } else if Path::new(&text).parent().is_none() {
        Some("is the root of the file system")
    } else {
        None
    };
    match objection {
        Some(objection) => Err(Error::invalid(format!("{field} {text:?} {objection}"))),
        None => Ok(Some(PathBuf::from(text))),
    }
}

/// Reads a required capability.
///
/// # Errors
/// `InvalidArgument` when it is missing or malformed.
pub fn capability(field: &str, message: Option<proto::VolumeCapability>) -> Result<Capability> {
    optional_capability(field, message)?.ok_or_else(|| missing(field))
}

/// Reads an optional capability.
///
/// # Errors
/// `InvalidArgument` when it is malformed.
pub fn optional_capability(field: &str, message: Option<proto::VolumeCapability>) -> Result<Option<Capability>> {
    let Some(message) = message else { return Ok(None) };
    let mode = access_mode(field, message.access_mode)?;
    let kind = match message.access_type {
        Some(AccessType::Block(_)) => AccessKind::Block,
        Some(AccessType::Mount(mount)) => mount_kind(field, mount)?,
        None => return Err(Error::invalid(format!("{field}.access_type is missing: it is either block or mount"))),
    };
    Ok(Some(Capability { mode, kind }))
}

fn access_mode(field: &str, message: Option<proto::volume_capability::AccessMode>) -> Result<AccessMode> {
    let Some(message) = message else { return Err(missing(&format!("{field}.access_mode"))) };
    Ok(match Mode::try_from(message.mode) {
        Ok(Mode::SingleNodeWriter) => AccessMode::SingleNodeWriter,
        Ok(Mode::SingleNodeReaderOnly) => AccessMode::SingleNodeReaderOnly,
        Ok(Mode::MultiNodeReaderOnly) => AccessMode::MultiNodeReaderOnly,
        Ok(Mode::MultiNodeSingleWriter) => AccessMode::MultiNodeSingleWriter,
        Ok(Mode::MultiNodeMultiWriter) => AccessMode::MultiNodeMultiWriter,
        Ok(Mode::SingleNodeSingleWriter) => AccessMode::SingleNodeSingleWriter,
        Ok(Mode::SingleNodeMultiWriter) => AccessMode::SingleNodeMultiWriter,
        Ok(Mode::Unknown) => return Err(Error::invalid(format!("{field}.access_mode.mode is UNKNOWN"))),
        Err(_) => {
            return Err(Error::invalid(format!(
                "{field}.access_mode.mode is {}, which CSI 1.13 does not define",
                message.mode
            )));
        }
    })
}

fn mount_kind(field: &str, mount: proto::volume_capability::MountVolume) -> Result<AccessKind> {
    let proto::volume_capability::MountVolume { fs_type, mount_flags, volume_mount_group } = mount;
    // A file system's name becomes part of a program's name (mkfs.…).
    if !fs_type.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')) {
        return Err(Error::invalid(format!("{field}.mount.fs_type {fs_type:?} is not the name of a file system")));
    }
    // The flags themselves may be sensitive: they are not shown.
    if let Some(index) = mount_flags.iter().position(|flag| flag.is_empty() || flag.contains(char::is_control)) {
        return Err(Error::invalid(format!("{field}.mount.mount_flags[{index}] is empty or has control characters")));
    }
    Ok(AccessKind::Mount {
        fstype: Some(fs_type).filter(|name| !name.is_empty()),
        options: mount_flags,
        group: Some(volume_mount_group).filter(|group| !group.is_empty()),
    })
}

/// Reads a required list of capabilities.
///
/// # Errors
/// `InvalidArgument` when it is empty or one is malformed.
pub fn capabilities(field: &str, messages: Vec<proto::VolumeCapability>) -> Result<Vec<Capability>> {
    if messages.is_empty() {
        return Err(missing(field));
    }
    optional_capabilities(field, messages)
}

/// Reads a list of capabilities that may be empty.
///
/// # Errors
/// `InvalidArgument` when one is malformed.
pub fn optional_capabilities(field: &str, messages: Vec<proto::VolumeCapability>) -> Result<Vec<Capability>> {
    messages
        .into_iter()
        .enumerate()
        .map(|(index, message)| capability(&format!("{field}[{index}]"), Some(message)))
        .collect()
}

/// Reads a size; without bounds it is no wish.
///
/// # Errors
/// `InvalidArgument` for negative or contradicting bounds.
pub fn size(message: Option<proto::CapacityRange>) -> Result<SizeRange> {
    let Some(message) = message else { return Ok(SizeRange::default()) };
    let required = Bytes::from_wire("capacity_range.required_bytes", message.required_bytes)?;
    let limit = Bytes::from_wire("capacity_range.limit_bytes", message.limit_bytes)?;
    SizeRange::new(required, Some(limit).filter(|limit| *limit != Bytes::ZERO))
}

/// Reads a size that has to have a bound.
///
/// # Errors
/// `InvalidArgument` when it is missing, or for negative or contradicting bounds.
pub fn required_size(message: Option<proto::CapacityRange>) -> Result<SizeRange> {
    match size(message)? {
        SizeRange { required: Bytes::ZERO, limit: None } => {
            Err(Error::invalid("capacity_range is missing: required_bytes or limit_bytes has to be given"))
        }
        size => Ok(size),
    }
}

/// Reads what a volume is to be filled with.
///
/// # Errors
/// `InvalidArgument` when it is malformed.
pub fn source(message: Option<proto::VolumeContentSource>) -> Result<Option<ContentSource>> {
    let Some(message) = message else { return Ok(None) };
    match message.r#type {
        Some(SourceType::Snapshot(snapshot)) => id("volume_content_source.snapshot.snapshot_id", &snapshot.snapshot_id)
            .map(|id| Some(ContentSource::Snapshot(id))),
        Some(SourceType::Volume(volume)) => {
            id("volume_content_source.volume.volume_id", &volume.volume_id).map(|id| Some(ContentSource::Volume(id)))
        }
        None => Err(Error::invalid("volume_content_source.type is missing: it is either snapshot or volume")),
    }
}

/// Reads from where something has to be reachable. An empty message is what Docker Swarm sends for no requirement.
///
/// # Errors
/// `InvalidArgument` when it is malformed.
pub fn topology_requirement(message: Option<proto::TopologyRequirement>) -> Result<Option<TopologyRequirement>> {
    const FIELD: &str = "accessibility_requirements";
    let Some(message) = message else { return Ok(None) };
    let requisite = topologies(&format!("{FIELD}.requisite"), message.requisite)?;
    let preferred = topologies(&format!("{FIELD}.preferred"), message.preferred)?;
    if requisite.is_empty() && preferred.is_empty() {
        return Ok(None);
    }
    if !requisite.is_empty()
        && let Some((index, stray)) = preferred.iter().enumerate().find(|(_, place)| !requisite.contains(place))
    {
        return Err(Error::invalid(format!("{FIELD}.preferred[{index}] {stray:?} is not among the requisite ones")));
    }
    Ok(Some(TopologyRequirement { requisite, preferred }))
}

fn topologies(field: &str, messages: Vec<proto::Topology>) -> Result<Vec<Topology>> {
    messages.into_iter().enumerate().map(|(index, message)| segments(&format!("{field}[{index}]"), message)).collect()
}

fn segments(field: &str, message: proto::Topology) -> Result<Topology> {
    if message.segments.is_empty() {
        return Err(missing(&format!("{field}.segments")));
    }
    match message.segments.iter().find(|(key, value)| key.is_empty() || value.is_empty()) {
        Some((key, value)) => Err(Error::invalid(format!("{field}.segments: {key:?} = {value:?} names no place"))),
        None => Ok(message.segments),
    }
}

/// Reads one optional place.
///
/// # Errors
/// `InvalidArgument` when it is malformed.
pub fn topology(field: &str, message: Option<proto::Topology>) -> Result<Option<Topology>> {
    match message {
        Some(message) if !message.segments.is_empty() => segments(field, message).map(Some),
        _ => Ok(None),
    }
}

/// Reads which part of a list is wanted.
///
/// # Errors
/// `InvalidArgument` for a negative number of entries.
pub fn page(max_entries: i32, starting_token: String) -> Result<PageRequest> {
    let most = u32::try_from(max_entries)
        .map_err(|_| Error::invalid(format!("max_entries is {max_entries}: it cannot be negative")))?;
    Ok(PageRequest {
        most: Some(NonZeroU32::new(most).map_or(LARGEST_PAGE, |most| most.min(LARGEST_PAGE))),
        token: Some(starting_token).filter(|token| !token.is_empty()),
    })
}

/// Takes the secrets out of reach of logs.
#[must_use]
pub fn secrets(map: StringMap) -> Secrets {
    map.into_iter().map(|(key, value)| (key, SecretString::from(value))).collect()
}

/// Refuses what the driver does not offer, instead of ignoring it.
///
/// # Errors
/// `InvalidArgument` unless it is empty.
pub fn no_mutable_parameters(map: &StringMap) -> Result<()> {
    match map.keys().next() {
        Some(key) => Err(Error::invalid(format!(
            "mutable_parameters: {key:?}: this driver cannot modify volumes (it has no MODIFY_VOLUME capability); \
             remove the VolumeAttributesClass"
        ))),
        None => Ok(()),
    }
}

/// The error for a required field that is not there.
pub(crate) fn missing(field: &str) -> Error {
    Error::new(Kind::InvalidArgument, format!("{field} is missing"))
}

#[cfg(test)]
mod tests {
    use super::{capability, name, optional_path, page, size, topology_requirement};
    use crate::csi::proto;
    use crate::error::Kind;
    use crate::model::{Bytes, StringMap};
    use proptest::prelude::{any, proptest};

    #[test]
    fn names_may_hold_anything_but_control_characters() {
        for good in ["pvc-1", "ein Name", "名前", "tab\tand\nline", &"x".repeat(128)] {
            assert_eq!(name("name", good.to_owned()).unwrap(), good);
        }
        for bad in ["", "\0", "a\u{7}", "a\u{9f}", &"x".repeat(256)] {
            let error = name("name", bad.to_owned()).unwrap_err();
            assert!(error.is(Kind::InvalidArgument) && error.to_string().starts_with("name"), "{error}");
        }
    }

    #[test]
    fn paths_are_absolute_and_stay_where_they_are() {
        assert_eq!(optional_path("p", String::new()).unwrap(), None);
        assert!(optional_path("p", "/var/lib/kubelet/x".to_owned()).unwrap().is_some());
        for bad in ["relative", "/a/../b", "/a\0b", "/", &format!("/{}", "x".repeat(5000))] {
            assert!(optional_path("p", bad.to_owned()).unwrap_err().is(Kind::InvalidArgument), "{bad:?}");
        }
    }

    #[test]
    fn an_empty_topology_requirement_is_none() {
        assert_eq!(topology_requirement(Some(proto::TopologyRequirement::default())).unwrap(), None);
    }

    #[test]
    fn a_preference_outside_of_the_requirement_is_refused() {
        let place = |zone: &str| proto::Topology { segments: StringMap::from([("zone".to_owned(), zone.to_owned())]) };
        let message = |requisite: &[&str], preferred: &[&str]| proto::TopologyRequirement {
            requisite: requisite.iter().map(|zone| place(zone)).collect(),
            preferred: preferred.iter().map(|zone| place(zone)).collect(),
        };
        assert!(topology_requirement(Some(message(&["a", "b"], &["b"]))).unwrap().is_some());
        assert!(topology_requirement(Some(message(&[], &["b"]))).unwrap().is_some());
        assert!(topology_requirement(Some(message(&["a"], &["b"]))).unwrap_err().to_string().contains("preferred[0]"));
        assert!(topology_requirement(Some(message(&[""], &[]))).is_err());
    }

    #[test]
    fn a_limit_of_zero_is_no_limit() {
        let range = |required_bytes, limit_bytes| size(Some(proto::CapacityRange { required_bytes, limit_bytes }));
        assert_eq!(range(5, 0).unwrap().limit, None);
        assert_eq!(range(0, 5).unwrap().limit, Some(Bytes::new(5)));
        for (required, limit) in [(-1, 0), (0, -1), (6, 5)] {
            assert!(range(required, limit).unwrap_err().is(Kind::InvalidArgument));
        }
    }

    #[test]
    fn pages_are_bounded() {
        assert_eq!(page(0, String::new()).unwrap().most.map(std::num::NonZeroU32::get), Some(1000));
        assert_eq!(page(7, String::new()).unwrap().most.map(std::num::NonZeroU32::get), Some(7));
        assert!(page(-1, String::new()).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>(), mode in any::<i32>()) {
            let _ = name("name", text.clone());
            let _ = optional_path("path", text.clone());
            let _ = capability("capability", Some(proto::VolumeCapability {
                access_mode: Some(proto::volume_capability::AccessMode { mode }),
                access_type: Some(proto::volume_capability::AccessType::Mount(proto::volume_capability::MountVolume {
                    fs_type: text.clone(),
                    mount_flags: vec![text],
                    ..Default::default()
                })),
            }));
        }
    }
}

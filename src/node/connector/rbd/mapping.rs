//! The images that the kernel has mapped, as sysfs shows them.

use super::image::Image;
use crate::node::connector::kernel::names_in;
use crate::node::connector::portal::Portal;
use crate::node::device::{Host, attribute};
use std::io;
use std::path::PathBuf;

/// Where all mappings are.
const MAPPINGS: &str = "/sys/bus/rbd/devices";

/// One mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mapping {
    /// Its number; the device is `/dev/rbd<number>`.
    pub(super) number: String,
    pub(super) directory: PathBuf,
    /// The image's identity: cluster, pool and image by the ids that never come again.
    pub(super) wwid: Option<String>,
    /// Whether the kernel lets nobody write.
    pub(super) is_read_only: bool,
    monitors: Vec<Portal>,
}

impl Mapping {
    /// The name of its device.
    pub(super) fn device(&self) -> String {
        format!("rbd{}", self.number)
    }

    /// Whether it is of the image's cluster: by a monitor, or because it is known to be the image.
    fn is_of_cluster(&self, image: &Image, known: Option<&str>) -> bool {
        self.monitors.iter().any(|monitor| image.monitors.contains(monitor))
            || (known.is_some() && self.wwid.as_deref() == known)
    }
}

/// The mappings of an image (not of its snapshots), in the order of their numbers.
pub(super) fn mappings(host: &Host, image: &Image, known: Option<&str>) -> io::Result<Vec<Mapping>> {
    let location = &image.location;
    let mut found = Vec::new();
    for number in names_in(&host.path(MAPPINGS))? {
        let directory = host.path(MAPPINGS).join(&number);
        let is =
            |file: &str, wanted: &str| Ok::<_, io::Error>(attribute(&directory.join(file))?.as_deref() == Some(wanted));
        let namespace = attribute(&directory.join("pool_ns"))?.unwrap_or_default();
        if !is("pool", location.pool.as_str())?
            || !is("name", location.image.as_str())?
            || !is("current_snap", "-")?
            || namespace != location.namespace.as_ref().map(|name| name.as_str()).unwrap_or_default()
        {
            continue;
        }
        // The kernel keeps the secret in there too: only what is needed is taken out.
        let told = attribute(&directory.join("config_info"))?.unwrap_or_default();
        let mut words = told.split(' ');
        let monitors = words.next().unwrap_or_default().split(',').filter_map(|text| text.parse().ok()).collect();
        let is_read_only =
            words.next().unwrap_or_default().split(',').any(|option| option == "ro" || option == "read_only");
        let mapping = Mapping { wwid: wwid(&directory)?, number, directory, is_read_only, monitors };
        if mapping.is_of_cluster(image, known) {
            found.push(mapping);
        }
    }
    found.sort_by_key(|mapping| mapping.number.parse::<u64>().unwrap_or(u64::MAX));
    Ok(found)
}

/// `rbd:<cluster>/<pool id>/<image id>`. A pool or image that is deleted and made again under its name has other ids.
fn wwid(directory: &std::path::Path) -> io::Result<Option<String>> {
    let text = |file: &str| Ok::<_, io::Error>(attribute(&directory.join(file))?.filter(|text| !text.is_empty()));
    let (Some(cluster), Some(pool), Some(image)) = (text("cluster_fsid")?, text("pool_id")?, text("image_id")?) else {
        return Ok(None);
    };
    Ok(Some(format!("rbd:{cluster}/{pool}/{image}")))
}

/// How an image is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// For reading.
    Reading,
    /// For writing, by whoever else writes too.
    Writing,
    /// For writing by nobody else: Ceph keeps others off.
    WritingAlone,
}

/// The options of a mapping, without those that are secret.
pub(super) fn options(image: &Image, usage: Use) -> String {
    let mut options = vec![match usage {
        Use::Reading => "ro".to_owned(),
        Use::Writing => "rw".to_owned(),
        Use::WritingAlone => "rw,exclusive".to_owned(),
    }];
    options.extend(image.location.namespace.as_ref().map(|namespace| format!("_pool_ns={namespace}")));
    options.extend(image.messenger.map(|messenger| format!("ms_mode={}", messenger.word())));
    options.extend(image.user.as_ref().map(|user| format!("name={user}")));
    options.join(",")
}

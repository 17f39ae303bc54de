//! What is on the machine itself about the server that it is: cloud-init's file and the firmware's tables.

use super::{Server, Source, server};
use crate::call::Call;
use crate::error::{Error, Result};
use crate::node::blocking;
use crate::node::device::{Host, attribute};
use async_trait::async_trait;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// What cloud-init found when the machine was started.
#[derive(Debug)]
pub struct CloudInit {
    file: PathBuf,
}

impl CloudInit {
    /// In its usual place.
    #[must_use]
    pub fn new(host: &Host) -> Self {
        Self { file: host.path("/run/cloud-init/instance-data.json") }
    }
}

#[async_trait]
impl Source for CloudInit {
    fn name(&self) -> &'static str {
        "cloud-init"
    }

    async fn ask(&self, call: &Call) -> Result<Server> {
        let file = self.file.clone();
        blocking::run(call, "read cloud-init's file", move || {
            let text =
                fs::read(&file).map_err(|error| Error::not_found(format!("read {}", file.display())).because(error))?;
            read_instance_data(&file, &text)
        })
        .await
    }
}

fn read_instance_data(file: &Path, text: &[u8]) -> Result<Server> {
    let data: Value = serde_json::from_slice(text)
        .map_err(|error| Error::internal(format!("{} is not JSON", file.display())).because(error))?;
    let value = |path: &str| data.pointer(path).and_then(Value::as_str);
    let cloud = value("/v1/cloud_name").or_else(|| value("/v1/cloud-name"));
    if !cloud.is_some_and(|cloud| cloud.eq_ignore_ascii_case("openstack")) {
        return Err(Error::not_found(format!("{} is about cloud {cloud:?}, not openstack", file.display())));
    }
    // The EC2 style of instance ids (i-…) is not what Nova's API takes.
    let ids = ["/ds/meta_data/uuid", "/ds/meta_data/instance-id", "/ds/meta_data/instance_id", "/v1/instance_id"];
    let id = ids.into_iter().filter_map(value).find(|id| super::is_uuid(&id.to_ascii_lowercase()));
    let zone = value("/v1/availability_zone").or_else(|| value("/ds/meta_data/availability_zone"));
    match id {
        Some(id) => server(Some(id), zone),
        None => Err(Error::not_found(format!("{} has no UUID of the server", file.display()))),
    }
}

/// The tables of the firmware, which the hypervisor fills.
#[derive(Debug)]
pub struct Dmi {
    directory: PathBuf,
}

impl Dmi {
    /// Of this machine.
    #[must_use]
    pub fn new(host: &Host) -> Self {
        Self { directory: host.path("/sys/class/dmi/id") }
    }
}

#[async_trait]
impl Source for Dmi {
    fn name(&self) -> &'static str {
        "dmi"
    }

    async fn ask(&self, call: &Call) -> Result<Server> {
        let directory = self.directory.clone();
        blocking::run(call, "read the firmware's tables", move || {
            let read = |name: &str| {
                let file = directory.join(name);
                attribute(&file).map_err(|error| Error::internal(format!("read {}", file.display())).because(error))
            };
            // On a machine that is no server of Nova's the UUID is somebody else's.
            let mut words = Vec::new();
            for name in ["sys_vendor", "product_name", "chassis_asset_tag"] {
                words.extend(read(name)?);
            }
            if !words.iter().any(|word| word.to_ascii_lowercase().contains("openstack")) {
                return Err(Error::not_found(format!("the firmware does not say OpenStack: {}", words.join(", "))));
            }
            server(Some(&read("product_uuid")?.ok_or_else(|| Error::not_found("no product_uuid"))?), None)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::{CloudInit, Dmi};
    use crate::call::Call;
    use crate::node::device::Host;
    use crate::node::identity::Source;
    use std::fs;
    use std::time::Duration;

    const ID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

    fn call() -> Call {
        Call::lasting(Duration::from_secs(20))
    }

    #[tokio::test]
    async fn cloud_init_tells_id_and_zone_of_an_openstack_server_only() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::below(root.path());
        let source = CloudInit::new(&host);
        assert!(source.ask(&call()).await.is_err());
        fs::create_dir_all(root.path().join("run/cloud-init")).unwrap();
        let write = |cloud: &str, id: &str| {
            let text = serde_json::json!({
                "v1": {"cloud_name": cloud, "availability_zone": "az2", "instance_id": id},
                "ds": {"meta_data": {"instance_id": "i-0001"}},
            });
            fs::write(host.path("/run/cloud-init/instance-data.json"), text.to_string()).unwrap();
        };
        write("openstack", ID);
        let server = source.ask(&call()).await.unwrap();
        assert_eq!((server.id.as_deref(), server.zone.as_deref()), (Some(ID), Some("az2")));
        write("aws", ID);
        assert!(source.ask(&call()).await.is_err());
        write("openstack", "i-0002");
        assert!(source.ask(&call()).await.is_err());
    }

    #[tokio::test]
    async fn the_firmware_is_believed_only_if_it_says_openstack() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("sys/class/dmi/id");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("product_uuid"), format!("{}\n", ID.to_uppercase())).unwrap();
        fs::write(directory.join("sys_vendor"), "Dull Inc.\n").unwrap();
        let source = Dmi::new(&Host::below(root.path()));
        assert!(source.ask(&call()).await.unwrap_err().to_string().contains("Dull Inc."));
        fs::write(directory.join("sys_vendor"), "OpenStack Foundation\n").unwrap();
        assert_eq!(source.ask(&call()).await.unwrap().id.as_deref(), Some(ID));
        fs::write(directory.join("product_uuid"), "Not Settable\n").unwrap();
        assert!(source.ask(&call()).await.is_err());
    }
}

//! Whatever arrives gets an answer, and the driver goes on.

use crate::driver::{Driver, create};
use fuxi_csi::csi::proto;
use proptest::collection::vec;
use proptest::prelude::{Strategy, any};
use proptest::test_runner::{Config, TestRunner};
use prost::Message;
use prost::bytes::{Buf, BufMut};
use std::time::Duration;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Messages as bytes.
#[derive(Debug, Default, Clone)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let rest = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(rest).to_vec()))
    }
}

const METHODS: &[&str] = &[
    "/csi.v1.Identity/Probe",
    "/csi.v1.Controller/CreateVolume",
    "/csi.v1.Controller/DeleteVolume",
    "/csi.v1.Controller/ControllerPublishVolume",
    "/csi.v1.Controller/ControllerUnpublishVolume",
    "/csi.v1.Controller/ValidateVolumeCapabilities",
    "/csi.v1.Controller/ListVolumes",
    "/csi.v1.Controller/ControllerListVolumeHealth",
    "/csi.v1.Controller/ControllerGetVolumeHealth",
    "/csi.v1.Controller/GetCapacity",
    "/csi.v1.Controller/CreateSnapshot",
    "/csi.v1.Controller/DeleteSnapshot",
    "/csi.v1.Controller/ListSnapshots",
    "/csi.v1.Controller/GetSnapshot",
    "/csi.v1.Controller/ControllerExpandVolume",
    "/csi.v1.Controller/ControllerGetVolume",
    "/csi.v1.Controller/ControllerModifyVolume",
    "/csi.v1.Controller/NoSuchMethod",
    "/csi.v1.Nothing/Nothing",
];

/// Bytes: wholly random, or a good message with some of its bytes changed.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let good = proto::CreateVolumeRequest {
        parameters: [("type".to_owned(), "ssd".to_owned())].into(),
        accessibility_requirements: Some(proto::TopologyRequirement::default()),
        ..create("name")
    }
    .encode_to_vec();
    let changed = vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6).prop_map(move |changes| {
        let mut bytes = good.clone();
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    });
    proptest::prop_oneof![vec(any::<u8>(), 0..200), changed]
}

#[test]
fn any_bytes_to_any_method_get_an_answer() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let driver = runtime.block_on(Driver::in_memory());
    let mut runner = TestRunner::new(Config { cases: 2000, failure_persistence: None, ..Config::default() });
    let inputs = (proptest::sample::select(METHODS), bytes());
    runner
        .run(&inputs, |(method, bytes)| {
            runtime.block_on(async {
                let mut client = tonic::client::Grpc::new(driver.channel());
                client.ready().await.unwrap();
                let request = tonic::Request::new(bytes);
                let call = client.unary(request, method.parse().unwrap(), Raw);
                let answer = tokio::time::timeout(Duration::from_secs(5), call).await.expect("an answer");
                if let Err(status) = answer {
                    let text = status.to_string();
                    assert!(!text.contains("this is a bug"), "{method}: {text}");
                    assert!(!text.contains("transport"), "{method}: the connection broke: {text}");
                }
            });
            Ok(())
        })
        .unwrap();
    runtime.block_on(async {
        driver.identity().probe(proto::ProbeRequest {}).await.unwrap();
        driver.controller().create_volume(create("after the storm")).await.unwrap();
    });
}

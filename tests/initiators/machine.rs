//! The machine that the tests run on: the guest, with targets made by `inside/targets`.

use fuxi_csi::call::Call;
use fuxi_csi::error::Result;
use fuxi_csi::model::{AccessMode, Bytes, Connection, Secrets};
use fuxi_csi::node::connector::{Connector, Link, Source};
use fuxi_csi::node::device::Device;
use fuxi_csi::observe::logs::{Format, start};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) const MIB: u64 = 1 << 20;

/// Refuses to go on anywhere but in the guest: the tests drop sessions and devices. Shows what the connectors log if
/// `FUXI_LOG` has a filter for that.
pub(crate) fn only_in_the_guest() {
    assert!(std::env::var_os("FUXI_GUEST").is_some(), "run by tests/guest/initiators, in the guest only");
    if let Ok(filter) = std::env::var("FUXI_LOG") {
        // A second connector of one test finds it started.
        drop(start(Format::Text, &filter));
    }
}

/// Runs a bash script with the functions of `inside/initiators`; returns what it wrote.
pub(crate) fn sh(script: &str) -> String {
    let (code, said) = try_sh(script);
    assert_eq!(code, Some(0), "{script}\nended with {code:?}: {said}");
    said
}

/// The same for a script that may fail.
pub(crate) fn try_sh(script: &str) -> (Option<i32>, String) {
    let script = format!("set -e -o pipefail; . /share/inside/initiators; {script}");
    let output = Command::new("bash").arg("-c").arg(&script).stdin(Stdio::null()).output().unwrap();
    let said = [&output.stdout[..], if output.status.success() { &[] } else { &output.stderr }].concat();
    (output.status.code(), String::from_utf8_lossy(&said).trim().to_owned())
}

/// How many times a volume is attached and detached in a row: `FUXI_CYCLES`, or this many.
pub(crate) fn cycles() -> u32 {
    std::env::var("FUXI_CYCLES").map_or(100, |text| text.parse().unwrap())
}

/// A call as an orchestrator makes it; longer than one, since the guest is slow.
pub(crate) fn call() -> Call {
    Call::lasting(Duration::from_secs(120))
}

/// A link as the controller and the record give it.
pub(crate) fn link(kind: &str, data: serde_json::Value, size: u64) -> Link {
    Link {
        volume: "5a1c7b52-0d0f-4a57-9f34-3c1f1b4ad0aa".parse().unwrap(),
        connection: Connection {
            kind: kind.to_owned(),
            data,
            size: Some(Bytes::new(size)),
            read_only: false,
            sealed: None,
        },
        secrets: Secrets::new(),
        mode: AccessMode::SingleNodeWriter,
        device: None,
    }
}

/// The block device of a source.
pub(crate) fn device(source: Source) -> Device {
    match source {
        Source::Block(device) => device,
        Source::Share(share) => panic!("{share:?} is no block device"),
    }
}

/// Connects.
pub(crate) async fn attach(connector: &dyn Connector, link: &Link) -> Result<Device> {
    connector.connect(&call(), link).await.map(device)
}

/// Where it is.
pub(crate) async fn located(connector: &dyn Connector, link: &Link) -> Option<Device> {
    connector.locate(&call(), link).await.unwrap().map(device)
}

/// How much is written and read at once.
const BLOCK: usize = 4096;

/// A block in memory as the kernel wants it for a disk without its cache: at an address that is a multiple of its size.
fn with_block<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut memory = vec![b' '; 2 * BLOCK];
    let start = memory.as_ptr().align_offset(BLOCK);
    work(&mut memory[start..start + BLOCK])
}

/// Opens a device past the cache of the machine. The kernel shows a new one a moment before it can be opened, which
/// staging waits for.
fn open(device: &Device, options: &mut OpenOptions) -> File {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        match options.custom_flags(OFlag::O_DIRECT.bits()).open(&device.path) {
            Err(error) if error.raw_os_error() == Some(Errno::ENXIO as i32) && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => return opened.unwrap(),
        }
    }
}

/// Writes this text onto a device and reads it back past the cache of the machine.
pub(crate) fn write_and_verify(device: &Device, text: &str) {
    with_block(|block| {
        block[..text.len()].copy_from_slice(text.as_bytes());
        open(device, OpenOptions::new().write(true)).write_all(block).unwrap();
    });
    assert_eq!(read(device), text);
}

/// What [`write_and_verify`] wrote.
pub(crate) fn read(device: &Device) -> String {
    with_block(|block| {
        open(device, OpenOptions::new().read(true)).read_exact(block).unwrap();
        String::from_utf8_lossy(block).trim().to_owned()
    })
}

/// Waits until something is so.
pub(crate) fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The names in a directory that begin so.
pub(crate) fn names(directory: &str, start: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.filter(|name| name.starts_with(start)).collect();
    names.sort();
    names
}

//! The example of docs/plugins.md, taken out of the document and run: by the contract, and by the driver.

use crate::machine::{Kernel, Machine, PATIENCE, said};
use crate::plugin::{MIB, Plugin, TARGET, Volume};
use fuxi_csi::exec::SystemExec;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::Instant;

const FILE: &str = "/srv/example/volume-1";

/// A machine with the example's program and one volume; none where it cannot run.
fn machine() -> Option<Machine> {
    if let Err(error) = SystemExec::default().find("python3") {
        println!("skipped: {error}");
        return None;
    }
    let document = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/plugins.md")).unwrap();
    let mut programs = document.split("```python\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let program = programs.next().unwrap();
    assert!(program.starts_with("#!") && programs.next().is_none(), "which of them is the example?");
    let machine = Machine::new(Kernel::Host)?;
    machine.write("/connectors/example", program, 0o755);
    machine.image(FILE, 64 * MIB);
    Some(machine)
}

/// One step of the contract, as the document has it.
fn ask(machine: &Machine, step: &str, file: &str, device: &Value) -> Value {
    let question = json!({
        "protocol": 1, "step": step, "volume": "v", "driver_volume_type": "example", "data": {"file": file}, "secrets": {},
        "size": 64 * MIB, "read_only": false, "shared": false, "device": device,
    });
    let (code, answer, words) = said(&machine.run("/connectors/example", &[step], &question.to_string()));
    assert_eq!(code, Some(0), "{step}: {words}");
    serde_json::from_str(&answer).unwrap()
}

#[test]
fn the_example_keeps_the_contract() {
    let Some(machine) = machine() else { return };
    let absent = Value::Null;
    let sectors = |device: &Path| -> u64 {
        let name = device.file_name().unwrap();
        fs::read_to_string(Path::new("/sys/block").join(name).join("size")).unwrap().trim().parse().unwrap()
    };
    assert_eq!(ask(&machine, "locate", FILE, &absent), json!({}));
    assert_eq!(ask(&machine, "disconnect", FILE, &absent), json!({}), "what is not here is gone");
    let connected = ask(&machine, "connect", FILE, &absent);
    let (device, file) = machine.loop_devices().remove(0);
    assert_eq!((connected["device"].as_str(), file.as_str()), (device.to_str(), FILE));
    for step in ["connect", "locate", "connect"] {
        assert_eq!(ask(&machine, step, FILE, &connected), connected, "{step}");
    }
    assert_eq!((machine.loop_devices().len(), sectors(&device) * 512), (1, 64 * MIB));
    machine.image(FILE, 80 * MIB);
    assert_eq!(ask(&machine, "rescan", FILE, &connected), connected);
    assert_eq!(sectors(&device) * 512, 80 * MIB);
    // Somebody has it open still: it says so, and is gone when that one is.
    let user = fs::File::open(&device).unwrap();
    assert_eq!(ask(&machine, "disconnect", FILE, &connected)["error"]["kind"], "busy");
    drop(user);
    let begun = Instant::now();
    // udev may have it open as well, for a moment.
    while ask(&machine, "disconnect", FILE, &connected) != json!({}) {
        assert!(begun.elapsed() < PATIENCE, "it stays busy");
    }
    assert_eq!(ask(&machine, "disconnect", FILE, &connected), json!({}));
    assert_eq!(machine.loop_devices(), []);
    for file in ["/etc/passwd", "", "/srv/example/../../etc/passwd", "srv/example/volume-1"] {
        for step in ["connect", "locate", "rescan", "disconnect"] {
            assert_eq!(ask(&machine, step, file, &absent)["error"]["kind"], "invalid", "{step} {file}");
        }
    }
    assert_eq!(machine.loop_devices(), []);
}

#[tokio::test]
async fn the_example_serves_a_volume_of_the_driver() {
    let Some(machine) = machine() else { return };
    let mut plugin = Plugin::start(machine, &[]).await;
    let volume = Volume { size: Some(64 * MIB), ..Volume::of("example", json!({"file": FILE})) };
    for _ in 0..2 {
        plugin.stage(&volume).await.unwrap();
        plugin.publish(&volume).await.unwrap();
    }
    fs::write(plugin.view(TARGET).join("precious"), "data").unwrap();
    plugin.machine.image(FILE, 96 * MIB);
    plugin.grow(&volume, 96 * MIB).await;
    plugin.restart().await;
    plugin.stage(&volume).await.unwrap();
    plugin.publish(&volume).await.unwrap();
    assert_eq!(fs::read_to_string(plugin.view(TARGET).join("precious")).unwrap(), "data");
    plugin.unpublish(&volume).await.unwrap();
    for _ in 0..2 {
        plugin.unstage(&volume).await.unwrap();
    }
    plugin.assert_nothing_left("after a whole life");
    let wrong = Volume::of("example", json!({"file": "/etc/passwd"}));
    let words = ["/connectors/example connect: '/etc/passwd' is no file of ours"];
    plugin.assert_refused("another's file", plugin.stage(&wrong).await, tonic::Code::InvalidArgument, &words);
}

//! A connection that the driver does not know, handed to a program in the connector directory: a volume's whole life.

use crate::machine::{Kernel, Machine};
use crate::plugin::{MIB, Plugin, STAGING, TARGET, Volume};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;

/// A secret of the class, and one that is in none of the driver's own words.
const SECRET: &str = "correct horse battery staple";

/// Volumes are images in /srv; keeps what it was asked, by step.
const PROGRAM: &str = r#"#!/bin/sh
set -eu
cat > "/srv/asked-$1"
echo "$1" >> /srv/steps
image=/srv/image
device=$(losetup --noheadings --output NAME --associated $image | head -n 1)
case $1 in
connect) test -n "$device" || device=$(losetup --find --show $image) ;;
rescan) losetup --set-capacity "$device" ;;
disconnect)
    test -z "$device" || { blockdev --flushbufs "$device"; losetup --detach "$device"; }
    device= ;;
esac
if test -n "$device"; then echo "{\"device\": \"$device\", \"wwid\": \"image-1\"}"; else echo '{}'; fi
"#;

fn steps(machine: &Machine) -> Vec<String> {
    let steps = machine.read("/srv/steps").lines().map(str::to_owned).collect();
    machine.write("/srv/steps", "", 0o644);
    steps
}

fn asked(machine: &Machine, step: &str) -> Value {
    serde_json::from_str(&machine.read(&format!("/srv/asked-{step}"))).unwrap()
}

#[tokio::test]
async fn a_volume_of_an_unknown_kind_lives_its_whole_life_through_a_program() {
    let Some(machine) = Machine::new(Kernel::Host) else { return };
    machine.write("/connectors/scaleio", PROGRAM, 0o755);
    machine.image("/srv/image", 64 * MIB);
    let mut plugin = Plugin::start(machine, &[]).await;
    let volume = Volume {
        size: Some(64 * MIB),
        secrets: HashMap::from([("token".to_owned(), SECRET.to_owned())]),
        // Some back ends write it so.
        ..Volume::of("ScaleIO", json!({"scaleIO_volname": "v1", "nodes": [{"ip": "10.0.0.1"}]}))
    };

    plugin.stage(&volume).await.unwrap();
    plugin.publish(&volume).await.unwrap();
    assert_eq!(steps(&plugin.machine)[0], "connect");
    assert_eq!(
        asked(&plugin.machine, "connect"),
        json!({
            "protocol": 1, "step": "connect", "volume": volume.id, "driver_volume_type": "scaleio",
            "data": {"scaleIO_volname": "v1", "nodes": [{"ip": "10.0.0.1"}], "token": SECRET}, "secrets": {},
            "size": 64 * MIB, "read_only": false, "shared": false, "device": null,
        })
    );
    let mounts = plugin.mounts();
    assert_eq!(mounts.len(), 2, "{mounts:?}");
    assert!(mounts.iter().all(|(_, fstype)| fstype == "ext4"), "{mounts:?}");
    fs::write(plugin.view(TARGET).join("precious"), "data").unwrap();

    // Once more is the same: it is looked for, and nothing is connected, formatted or mounted again.
    plugin.stage(&volume).await.unwrap();
    plugin.publish(&volume).await.unwrap();
    assert!(!steps(&plugin.machine).contains(&"connect".to_owned()));
    assert_eq!(plugin.mounts(), mounts);
    assert_eq!(plugin.machine.loop_devices().len(), 1);

    // The plugin dies with its mounts, as at a reboot; what it proved the last time is told to the program.
    plugin.restart().await;
    assert_eq!(plugin.mounts(), []);
    plugin.stage(&volume).await.unwrap();
    plugin.publish(&volume).await.unwrap();
    assert_eq!(asked(&plugin.machine, "connect")["device"]["wwid"], "image-1");
    assert_eq!(fs::read_to_string(plugin.view(TARGET).join("precious")).unwrap(), "data");

    plugin.machine.image("/srv/image", 96 * MIB);
    plugin.grow(&volume, 96 * MIB).await;
    assert_eq!(asked(&plugin.machine, "rescan")["size"], 96 * MIB);

    plugin.unpublish(&volume).await.unwrap();
    steps(&plugin.machine);
    for _ in 0..2 {
        plugin.unstage(&volume).await.unwrap();
    }
    assert_eq!(steps(&plugin.machine).iter().filter(|step| *step == "disconnect").count(), 1);
    plugin.assert_nothing_left("after a whole life");

    // The secret was in the program's input alone.
    for (place, text) in [("log", plugin.log()), ("process", plugin.shown()), ("record", left_by(&plugin))] {
        assert!(!text.contains(SECRET), "a secret is in the {place}");
    }
    plugin.stage(&volume).await.unwrap();
    assert!(plugin.machine.names("/plugin/volumes").len() == 1 && !left_by(&plugin).contains(SECRET));
    assert_eq!(fs::read_to_string(plugin.view(STAGING).join("precious")).unwrap(), "data");
    plugin.unstage(&volume).await.unwrap();
    plugin.assert_nothing_left("at last");
}

/// All records of volumes.
fn left_by(plugin: &Plugin) -> String {
    let names = plugin.machine.names("/plugin/volumes");
    names.iter().map(|name| plugin.machine.read(&format!("/plugin/volumes/{name}"))).collect()
}

#[tokio::test]
async fn what_is_on_a_device_already_is_neither_overwritten_nor_left_connected() {
    let Some(machine) = Machine::new(Kernel::Host) else { return };
    machine.write("/connectors/scaleio", PROGRAM, 0o755);
    machine.image("/srv/image", 64 * MIB);
    let plugin = Plugin::start(machine, &[]).await;
    let volume = Volume { size: Some(64 * MIB), ..Volume::of("scaleio", json!({})) };
    let image = plugin.machine.path("/srv/image");
    // Where it begins, and what is found there.
    for (about, at, signature, words) in [
        ("LUKS", 0, &b"LUKS\xba\xbe\x00\x01"[..], "holds crypto_LUKS"),
        ("no signature", MIB, &b"somebody's data"[..], "is not formatted"),
    ] {
        let mut content = vec![0; 8 << 20];
        let at = usize::try_from(at).unwrap();
        content[at..at + signature.len()].copy_from_slice(signature);
        fs::write(&image, &content).unwrap();
        plugin.machine.image("/srv/image", 64 * MIB);
        let answer = plugin.stage(&volume).await;
        plugin.assert_refused(about, answer, tonic::Code::FailedPrecondition, &[words]);
        assert_eq!(fs::read(&image).unwrap()[..8 << 20], content, "{about}: it was written to");
    }
}

#[tokio::test]
async fn a_program_that_goes_away_while_its_volume_is_staged_is_missed_and_nothing_is_forgotten() {
    let Some(machine) = Machine::new(Kernel::Host) else { return };
    machine.write("/connectors/scaleio", PROGRAM, 0o755);
    machine.image("/srv/image", 64 * MIB);
    let plugin = Plugin::start(machine, &[]).await;
    let volume = Volume::of("scaleio", json!({}));
    plugin.stage(&volume).await.unwrap();
    fs::remove_file(plugin.machine.path("/connectors/scaleio")).unwrap();
    let refused = plugin.unstage(&volume).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unimplemented, "{refused}");
    assert!(refused.message().contains("nor a program in /connectors"), "{refused}");
    assert_eq!((plugin.machine.names("/plugin/volumes").len(), plugin.machine.loop_devices().len()), (1, 1));
    plugin.machine.write("/connectors/scaleio", PROGRAM, 0o755);
    plugin.unstage(&volume).await.unwrap();
    plugin.assert_nothing_left("the program is back");
}

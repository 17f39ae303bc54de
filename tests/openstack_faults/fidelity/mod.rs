//! The stand-in is held to the real services' answers.
//!
//! `real_answers.json` holds what Keystone, Cinder and Nova of 2026.2 answered to the requests of [`scenario`]: status,
//! headers and bodies, with ids, times and hosts blanked out. The stand-in has to answer the same. To record them again:
//!
//! ```sh
//! export CLOUD_HOME=/var/tmp/fuxi-fidelity
//! CLOUD_PORT_OFFSET=auto tests/openstack/cloud start keystone cinder nova
//! FUXI_REAL_CLOUD=$CLOUD_HOME/state/info.json cargo test --test openstack_faults record -- --ignored
//! tests/openstack/cloud stop
//! ```
//!
//! A cloud of its own, because the recording makes it slow: some steps ask for what is not finished yet.

mod blank;
mod scenario;
mod target;

use crate::standin::Standin;
use crate::standin::cloud::Pace;
use scenario::{NOVA, step};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::time::Duration;
use target::Target;

/// Between two looks at what is not finished yet.
const WAITING: Duration = Duration::from_millis(100);

fn recorded() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/openstack_faults/fidelity/real_answers.json")
}

#[tokio::test]
#[ignore = "records the answers of a real cloud: needs FUXI_REAL_CLOUD"]
async fn record_the_answers_of_a_real_cloud() {
    let info = PathBuf::from(std::env::var("FUXI_REAL_CLOUD").expect("FUXI_REAL_CLOUD is the path of info.json"));
    let known: Value = serde_json::from_str(&std::fs::read_to_string(&info).expect("info.json")).expect("JSON");
    let slowly = |operations: &[&str]| {
        operations.iter().map(|name| ((*name).to_owned(), json!({ "delay": 1.5 }))).collect::<Map<_, _>>()
    };
    let faults = info.with_file_name("faults");
    let cinder = ["create_volume", "create_snapshot", "delete_volume", "delete_snapshot", "extend_volume", "backup"];
    for (service, operations) in
        [("cinder", cinder.as_slice()), ("nova", ["attach_volume", "detach_volume"].as_slice())]
    {
        let text = Value::Object(slowly(operations)).to_string();
        std::fs::write(faults.join(service).with_extension("json"), text).expect("make the cloud slow");
    }
    let keystone = known["auth_url"].as_str().expect("Keystone's URL");
    let mut target = Target::new(keystone, "other", "other", "other").await;
    for name in ["server", "server2"] {
        let body = json!({ "server": { "name": name, "flavorRef": "1", "networks": "none",
            "imageRef": "00000000-0000-0000-0000-000000000001" } });
        let made = step("a server", "POST", "N/servers", NOVA).body(body);
        let (_, _, body) = target.send(&made).await;
        let id = body["server"]["id"].as_str().expect("a server").to_owned();
        target.words.insert(name.to_owned(), id);
    }
    for name in ["{server}", "{server2}"] {
        let look = step("a server", "GET", &format!("N/servers/{name}"), NOVA);
        while target.send(&look).await.2["server"]["status"] != "ACTIVE" {
            tokio::time::sleep(WAITING).await;
        }
    }
    let answers: Vec<Value> = target.answers().await.into_iter().map(|(_, answer)| answer).collect();
    for name in ["{server}", "{server2}"] {
        target.send(&step("remove a server", "DELETE", &format!("N/servers/{name}"), NOVA)).await;
    }
    let lines: Vec<String> = answers.iter().map(Value::to_string).collect();
    for service in ["cinder.json", "nova.json"] {
        std::fs::remove_file(faults.join(service)).expect("make the cloud fast again");
    }
    std::fs::write(recorded(), format!("[\n{}\n]\n", lines.join(",\n"))).expect("write the answers");
}

#[tokio::test]
async fn the_stand_in_answers_as_the_real_services_do() {
    let standin = Standin::start();
    let slow = Pace::millis(300);
    standin.cloud(|cloud| {
        for pace in [
            &mut cloud.paces.create,
            &mut cloud.paces.delete,
            &mut cloud.paces.snapshot,
            &mut cloud.paces.backup,
            &mut cloud.paces.extend,
            &mut cloud.paces.attach,
            &mut cloud.paces.detach,
        ] {
            *pace = slow;
        }
        cloud.nova_highest = (2, 104);
    });
    let mut target = Target::new(&standin.auth_url(), "csi", "correct horse", "demo").await;
    let servers = standin.cloud(|cloud| [cloud.first_server(), cloud.add_server("node-2")]);
    target.words.extend(["server", "server2"].map(str::to_owned).into_iter().zip(servers));
    let real: Vec<Value> =
        serde_json::from_str(&std::fs::read_to_string(recorded()).expect("the recorded answers")).expect("JSON");
    let answers = target.answers().await;
    assert_eq!(answers.len(), real.len(), "record the real answers again: the scenario has changed");
    let mut differences = Vec::new();
    for ((_, ours), real) in answers.iter().zip(&real) {
        let step = real["step"].as_str().unwrap_or_default();
        compare(ours, real, step, &mut differences);
    }
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}

/// Notes each part that differs, by its path.
fn compare(ours: &Value, real: &Value, path: &str, differences: &mut Vec<String>) {
    match (ours, real) {
        (Value::Object(ours), Value::Object(real)) => {
            for key in ours.keys().chain(real.keys().filter(|key| !ours.contains_key(*key))) {
                let absent = json!("<absent>");
                let [ours, real] = [ours, real].map(|fields| fields.get(key).unwrap_or(&absent));
                compare(ours, real, &format!("{path}/{key}"), differences);
            }
        }
        (Value::Array(ours), Value::Array(real)) if ours.len() == real.len() => {
            for (index, (ours, real)) in ours.iter().zip(real).enumerate() {
                compare(ours, real, &format!("{path}/{index}"), differences);
            }
        }
        _ if ours != real => differences.push(format!("{path}: real {real}, ours {ours}")),
        _ => {}
    }
}

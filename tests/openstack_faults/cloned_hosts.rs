//! Machines that were copied with their disks have one initiator name, NQN or port: storage takes them for one and would let
//! both write to what belongs to either. The controller refuses the second one that it meets.

use crate::driver::{Driver, Setup};
use crate::hosts::{attachments, host, ready_with, shareable, shared, status};
use crate::sidecar::Sidecar;
use crate::standin::Standin;
use fuxi_csi::initiator::{Initiator, Wwn};
use tonic::Code;

const UUID: &str = "b47a6a65-63cd-4e9e-a2b8-75267063df60";

/// The real controller, for hosts only.
async fn ready() -> (Standin, Driver, Sidecar) {
    let arguments = ["--attach", "host"].map(str::to_owned).to_vec();
    ready_with(Setup { arguments, ..Setup::default() }).await
}

/// A host with a name of its own for everything.
fn distinct(name: &str, number: u8) -> Initiator {
    Initiator {
        iqn: Some(format!("iqn.1993-08.org.debian:01:{number:012x}")),
        nqn: Some(format!("nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-{number:012}")),
        wwpns: vec![port(number)],
        ..host(name).facts
    }
}

fn port(number: u8) -> Wwn {
    Wwn::parse(&format!("10000000c9a1b2{number:02x}")).unwrap()
}

fn id(facts: &Initiator) -> String {
    facts.pack().unwrap().into()
}

/// One thing that two hosts have in common.
struct Clone {
    what: &'static str,
    make: fn(&mut Initiator),
    shown: String,
    remedy: &'static str,
}

fn clones() -> [Clone; 4] {
    [
        Clone {
            what: "iqn",
            make: |facts| facts.iqn = Some("iqn.1993-08.org.debian:01:copied".to_owned()),
            shown: "initiator name iqn.1993-08.org.debian:01:copied".to_owned(),
            remedy: "/etc/iscsi/initiatorname.iscsi",
        },
        Clone {
            what: "uuid",
            make: |facts| facts.nqn = Some(format!("nqn.2014-08.org.nvmexpress:uuid:{UUID}")),
            shown: format!("host NQN nqn.2014-08.org.nvmexpress:uuid:{UUID}"),
            remedy: "/etc/nvme/hostnqn",
        },
        Clone {
            what: "nqn",
            make: |facts| facts.nqn = Some("nqn.2020-01.org.example:copied".to_owned()),
            shown: "host NQN nqn.2020-01.org.example:copied".to_owned(),
            remedy: "/etc/nvme/hostnqn",
        },
        Clone {
            what: "port",
            // Its own first port, and one that the other one has as well.
            make: |facts| facts.wwpns.push(port(0xee)),
            shown: "Fibre Channel port 10000000c9a1b2ee".to_owned(),
            remedy: "WWPN",
        },
    ]
}

#[tokio::test]
async fn the_second_of_two_hosts_that_storage_takes_for_one_is_refused_and_nothing_is_attached_to_it() {
    let (standin, _driver, sidecar) = ready().await;
    for (at, Clone { what, make, shown, remedy }) in (0_u8..).zip(clones()) {
        let (first, second) = (format!("{what}-1"), format!("{what}-2"));
        let (mut original, healed) = (distinct(&first, 2 * at), distinct(&second, 2 * at + 1));
        let mut copy = healed.clone();
        make(&mut original);
        make(&mut copy);
        let one = sidecar.create(&first, 1).await.unwrap().volume_id;
        let two = sidecar.create(&second, 1).await.unwrap().volume_id;
        sidecar.publish(&one, &id(&original)).await.unwrap();
        let before = attachments(&standin).len();

        standin.clear_log();
        for _ in 0..2 {
            let refused = sidecar.publish(&two, &id(&copy)).await.unwrap_err();
            assert_eq!(refused.code(), Code::FailedPrecondition, "{what}: {refused}");
            for words in [&first, &second, &shown, remedy, "restart the driver on it, and then the controller"] {
                assert!(refused.message().contains(words), "{what}: {words:?} is not in {:?}", refused.message());
            }
        }
        assert_eq!(standin.calls(), Vec::<String>::new(), "{what}: found out without asking the cloud");
        assert_eq!((attachments(&standin).len(), status(&standin, &two).as_str()), (before, "available"), "{what}");

        // What was refused can be given up; who was there first goes on; with a name of its own the second one may.
        sidecar.unpublish(&two, &id(&copy)).await.unwrap();
        sidecar.publish(&one, &id(&original)).await.unwrap();
        sidecar.publish(&two, &id(&healed)).await.unwrap();
        assert_eq!(attachments(&standin).len(), before + 1, "{what}");
    }
}

#[tokio::test]
async fn what_the_refusal_says_is_what_helps() {
    let (standin, mut driver, sidecar) = ready().await;
    let original = distinct("rack-1", 1);
    let copy = Initiator { iqn: original.iqn.clone(), ..distinct("rack-2", 2) };
    let one = sidecar.create("one", 1).await.unwrap().volume_id;
    let two = sidecar.create("two", 1).await.unwrap().volume_id;
    sidecar.publish(&one, &id(&original)).await.unwrap();
    assert_eq!(sidecar.publish(&two, &id(&copy)).await.unwrap_err().code(), Code::FailedPrecondition);
    // The first one gets another name; the controller does not know that the old one is free before it is started anew.
    let renamed = Initiator { iqn: Some("iqn.1993-08.org.debian:01:fresh".to_owned()), ..original.clone() };
    sidecar.unpublish(&one, &id(&original)).await.unwrap();
    sidecar.publish(&one, &id(&renamed)).await.unwrap();
    assert_eq!(sidecar.publish(&two, &id(&copy)).await.unwrap_err().code(), Code::FailedPrecondition);
    driver.restart(&standin).await;
    driver.until_ready().await;
    let sidecar = Sidecar::new(&driver);
    sidecar.publish(&two, &id(&copy)).await.unwrap();
    sidecar.publish(&one, &id(&renamed)).await.unwrap();
    assert_eq!(attachments(&standin).len(), 2);
}

#[tokio::test]
async fn a_controller_that_was_started_anew_finds_the_other_host_in_the_attachments_of_a_shared_volume() {
    let (standin, mut driver, sidecar) = ready().await;
    let original = distinct("rack-1", 1);
    let copy = Initiator { nqn: original.nqn.clone(), ..distinct("rack-2", 2) };
    let volume = shareable(&sidecar, "pvc").await;
    sidecar.publish_as(&volume, &id(&original), shared()).await.unwrap();
    driver.restart(&standin).await;
    driver.until_ready().await;
    let sidecar = Sidecar::new(&driver);
    let refused = sidecar.publish_as(&volume, &id(&copy), shared()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    for name in ["rack-1", "rack-2"] {
        assert!(refused.message().contains(name), "{refused}");
    }
    let left = attachments(&standin);
    assert_eq!((left.len(), left[0].device.as_str()), (1, format!("csi:test:{}", id(&original)).as_str()));
}

#[tokio::test]
async fn hosts_without_names_and_one_host_with_changed_facts_are_no_clones() {
    let (standin, _driver, sidecar) = ready().await;
    let bare = |name: &str| Initiator { iqn: None, nqn: None, ..host(name).facts };
    let changed = Initiator { ip: Some("10.0.0.99".parse().unwrap()), ..distinct("rack-1", 1) };
    for (number, facts) in
        [bare("bare-1"), bare("bare-2"), distinct("rack-1", 1), changed, distinct("rack-2", 2)].iter().enumerate()
    {
        let volume = sidecar.create(&format!("pvc-{number}"), 1).await.unwrap().volume_id;
        sidecar.publish(&volume, &id(facts)).await.unwrap();
    }
    assert_eq!(attachments(&standin).len(), 5);
}

//! Shares and nodes that change: a node is set up anew, gets another address, or that of a node that has gone.

use crate::driver::Driver;
use crate::manila::{node_of as node, setup};
use crate::proto;
use crate::sidecar::{Sidecar, mounted, until_done};
use crate::standin::Standin;
use crate::standin::fault::{Action, Gate, Rule};
use std::collections::BTreeMap;
use std::time::Duration;
use tonic::{Code, Status};

const DENY: &str = "POST manila /shares/{}/action deny_access";

async fn ready() -> (Standin, Driver, Sidecar, String) {
    let standin = Standin::start();
    let driver = Driver::start_with(&standin, setup()).await;
    let sidecar = Sidecar::new(&driver);
    let share = sidecar.create("pvc-1", 1).await.unwrap().volume_id;
    (standin, driver, sidecar, share)
}

/// Who is let in, and what they may do.
fn let_in(standin: &Standin) -> Vec<String> {
    standin.cloud(|cloud| cloud.manila.rules.iter().map(|rule| format!("{} {}", rule.to, rule.level)).collect())
}

/// The nodes that hold the rules.
async fn holders(sidecar: &Sidecar, share: &str) -> Vec<String> {
    sidecar.get(share).await.unwrap().status.unwrap().published_node_ids
}

/// Publishes a volume that is this share, perhaps under a handle of its own.
async fn publish(driver: &Driver, handle: &str, share: &str, node: &str, readonly: bool) -> Result<(), Status> {
    let request = proto::ControllerPublishVolumeRequest {
        volume_id: handle.to_owned(),
        node_id: node.to_owned(),
        volume_capability: Some(mounted()),
        volume_context: BTreeMap::from([("shareID".to_owned(), share.to_owned())]),
        readonly,
        ..Default::default()
    };
    driver.controller().controller_publish_volume(request).await.map(drop)
}

#[tokio::test]
async fn a_node_whose_id_has_changed_is_shut_out_by_its_old_id_and_its_new_one() {
    let (standin, _driver, sidecar, share) = ready().await;
    let bystander = node("bystander", 9);
    sidecar.publish(&share, &bystander).await.unwrap();
    let (old, with_new_key, at_new_address) = (node("rack", 1), node("rack", 1), node("rack", 2));
    for new in [&with_new_key, &at_new_address] {
        for (published, unpublished) in [(&old, new), (new, &old)] {
            sidecar.publish(&share, published).await.unwrap();
            assert_eq!(let_in(&standin).len(), 2);
            sidecar.unpublish(&share, unpublished).await.unwrap();
            assert_eq!(let_in(&standin), ["10.0.0.9 rw"], "the node is let in still, or others no more");
        }
    }
    // The rule of the old id is the new one's from then on.
    sidecar.publish(&share, &old).await.unwrap();
    sidecar.publish(&share, &with_new_key).await.unwrap();
    assert_eq!(holders(&sidecar, &share).await, [bystander.clone(), with_new_key.clone()]);
    sidecar.unpublish(&share, &with_new_key).await.unwrap();
    assert_eq!(let_in(&standin), ["10.0.0.9 rw"]);
    // With another address it needs another rule; both go.
    sidecar.publish(&share, &old).await.unwrap();
    sidecar.publish(&share, &at_new_address).await.unwrap();
    assert_eq!(let_in(&standin), ["10.0.0.9 rw", "10.0.0.1 rw", "10.0.0.2 rw"]);
    sidecar.unpublish(&share, &at_new_address).await.unwrap();
    assert_eq!(let_in(&standin), ["10.0.0.9 rw"]);
}

#[tokio::test]
async fn a_node_that_has_the_address_of_another_is_not_shut_out_with_that_one() {
    let (standin, _driver, sidecar, share) = ready().await;
    let (gone, new) = (node("gone", 1), node("new", 1));
    sidecar.publish(&share, &gone).await.unwrap();
    sidecar.publish(&share, &new).await.unwrap();
    sidecar.unpublish(&share, &gone).await.unwrap();
    assert_eq!(let_in(&standin), ["10.0.0.1 rw"]);
    assert_eq!(holders(&sidecar, &share).await, std::slice::from_ref(&new));
    sidecar.unpublish(&share, &new).await.unwrap();
    assert!(let_in(&standin).is_empty());
}

#[tokio::test]
async fn the_former_holder_of_an_address_does_not_decide_what_the_next_one_may_do() {
    let (standin, driver, sidecar, share) = ready().await;
    let (gone, new) = (node("gone", 1), node("new", 1));
    publish(&driver, &share, &share, &gone, false).await.unwrap();
    publish(&driver, &share, &share, &new, true).await.unwrap();
    assert_eq!(let_in(&standin), ["10.0.0.1 ro"]);
    assert_eq!(holders(&sidecar, &share).await, std::slice::from_ref(&new));
    // The node itself does: it has to be unpublished first, under whichever id.
    for id in [new, node("new", 1)] {
        let error = publish(&driver, &share, &share, &id, false).await.unwrap_err();
        assert_eq!(error.code(), Code::AlreadyExists, "{error}");
    }
    sidecar.unpublish(&share, &gone).await.unwrap();
    let again = node("new", 1);
    sidecar.unpublish(&share, &again).await.unwrap();
    publish(&driver, &share, &share, &again, false).await.unwrap();
    assert_eq!(let_in(&standin), ["10.0.0.1 rw"]);
}

#[tokio::test]
async fn the_volumes_of_the_former_holder_of_an_address_do_not_keep_the_rule() {
    let (standin, driver, sidecar, share) = ready().await;
    let (gone, new) = (node("gone", 1), node("new", 1));
    publish(&driver, &share, &share, &gone, false).await.unwrap();
    publish(&driver, "alias", &share, &gone, false).await.unwrap();
    publish(&driver, &share, &share, &new, false).await.unwrap();
    sidecar.unpublish(&share, &new).await.unwrap();
    assert!(let_in(&standin).is_empty());
    // Those of the same node do.
    publish(&driver, "alias", &share, &gone, false).await.unwrap();
    let again = node("gone", 1);
    publish(&driver, &share, &share, &again, false).await.unwrap();
    sidecar.unpublish(&share, &again).await.unwrap();
    assert_eq!(let_in(&standin), ["10.0.0.1 rw"], "the alias is published there still");
    sidecar.unpublish("alias", &again).await.unwrap();
    assert!(let_in(&standin).is_empty());
}

#[tokio::test]
async fn a_rule_that_is_being_revoked_is_not_taken_over() {
    let (standin, _driver, sidecar, share) = ready().await;
    // Once the one that goes has the address still, once it has got another meanwhile.
    for (gone, going) in [(node("gone", 1), None), (node("gone", 1), Some(node("gone", 2)))] {
        let new = node("new", 1);
        sidecar.publish(&share, &gone).await.unwrap();
        standin.clear_log();
        let gate = Gate::default();
        standin.inject(Rule::on(DENY, Action::Hold(gate.clone())));
        let unpublishing = tokio::spawn({
            let (sidecar, share) = (sidecar.clone(), share.clone());
            async move { sidecar.unpublish(&share, &going.unwrap_or(gone)).await }
        });
        while standin.count(DENY) == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let publishing = tokio::spawn({
            let (sidecar, share, new) = (sidecar.clone(), share.clone(), new.clone());
            async move { sidecar.publish(&share, &new).await }
        });
        // Time enough to be wrong; who is right needs the gate.
        tokio::time::sleep(Duration::from_millis(500)).await;
        gate.open();
        unpublishing.await.unwrap().unwrap();
        publishing.await.unwrap().unwrap();
        assert_eq!(holders(&sidecar, &share).await, std::slice::from_ref(&new));
        sidecar.unpublish(&share, &new).await.unwrap();
        assert!(let_in(&standin).is_empty());
    }
}

/// A rule changes hands while something happens to one of the calls that it takes, each in turn.
async fn change_hands(action: Action, was_read_only: bool) {
    let standin = Standin::start();
    let mut driver = Driver::start_with(&standin, setup()).await;
    let share = Sidecar::new(&driver).create("pvc-1", 1).await.unwrap().volume_id;
    let (gone, new) = (node("gone", 1), node("new", 1));
    for nth in 1.. {
        let case = format!("{action:?} at call {nth}, read-only before: {was_read_only}");
        for handle in [share.as_str(), "alias"] {
            publish(&driver, handle, &share, &gone, was_read_only).await.expect(&case);
        }
        let strikes = standin.inject(Rule::on("*manila*", action.clone()).nth(nth));
        let publish = async |sidecar: &Sidecar| sidecar.publish(&share, &new).await;
        let published = until_done(&standin, &mut driver, Duration::from_secs(30), publish).await;
        published.unwrap_or_else(|error| panic!("{case}: {error}"));
        standin.clear_faults();
        let sidecar = Sidecar::new(&driver);
        sidecar.unpublish(&share, &gone).await.expect(&case);
        assert_eq!(holders(&sidecar, &share).await, std::slice::from_ref(&new), "{case}");
        assert_eq!(let_in(&standin), ["10.0.0.1 rw"], "{case}");
        sidecar.unpublish(&share, &new).await.expect(&case);
        assert!(let_in(&standin).is_empty(), "{case}");
        if strikes.count() == 0 {
            assert!(nth > 5, "{case}: it takes more than that to change hands");
            return;
        }
    }
}

#[tokio::test]
async fn whatever_happens_while_a_rule_changes_hands_it_ends_in_those_of_the_new_node() {
    // With what the former holder may do the rule is taken over, with less it is made anew.
    tokio::join!(
        change_hands(Action::KillAfter, false),
        change_hands(Action::KillAfter, true),
        change_hands(Action::LoseAnswer, false),
        change_hands(Action::LoseAnswer, true),
    );
}

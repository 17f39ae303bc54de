//! Opening shares to nodes and closing them again: one access rule per node and share.
//!
//! A rule of ours says so in its metadata, with the node that it is for; rules that others made are used where they let
//! the node in already, and never touched. A class may ask for one rule for all nodes: it lives as long as the share.
//!
//! The id of a node changes with its key or address, so its rules are also known by its name. An address may go from one
//! node to another: whoever is let in last holds the rule, and no late word about the former holder revokes it.

use super::client::{Client, Entrant, address_of, is_same_node};
use super::export;
use super::failure::{ended_in_error, wrong_state};
use super::runtime_config::export_network;
use super::share::{SHARED_CLIENT, await_settled};
use super::{Cloud, FIRST_LOOK, ManilaProvider};
use crate::call::Call;
use crate::error::{Error, Kind, Result};
use crate::initiator::Initiator;
use crate::model::{Connection, KIND_CEPHFS, KIND_NFS, NodeId, Secrets, StringMap, VolumeId};
use crate::openstack::client::found;
use crate::openstack::manila::{AccessLevel, AccessRule, AccessType, NewRule, Protocol, RuleState, Share, ShareStatus};
use crate::openstack::objects::Metadata;
use crate::provider::failure::{is_refused_with, is_unclear, says};
use crate::provider::size::gib;
use crate::seal::{Binding, seal};
use secrecy::ExposeSecret;
use std::collections::BTreeSet;
use tokio::sync::OwnedMutexGuard;

/// The word of the metadata key that says for which node a rule is.
const NODE: &str = "node";

/// The name under which the key of a Ceph user travels to the node.
const CEPH_KEY: &str = "key";

/// A rule as it is wanted.
struct Wanted {
    entrant: Entrant,
    level: AccessLevel,
    /// The node and the volume that it is for; none for all.
    only_for: Option<(NodeId, VolumeId)>,
}

/// How the wait for a rule ended.
enum Applied {
    InForce(AccessRule),
    Failed(AccessRule),
    Gone,
}

impl ManilaProvider {
    /// The story of ControllerPublishVolume.
    pub(super) async fn open_to(
        &self,
        call: &Call,
        id: &VolumeId,
        context: &StringMap,
        node: &NodeId,
        read_only: bool,
    ) -> Result<Connection> {
        let client = Client::of(self.names.cluster(), self.names.driver(), node)?;
        let (cloud, share) = self.meant(call, id, context).await?;
        let (share, exports) =
            tokio::join!(mountable(call, cloud, &share), cloud.manila.export_locations(call, &share));
        let (share, exports) = (share?, exports?);
        let wanted = self.wanted(&share, &client, id, node, read_only)?;
        let within = match (&self.runtime_config, &share.share_proto) {
            (Some(path), Protocol::Nfs) => export_network(call, path).await?,
            _ => None,
        };
        let export = export::choose(&exports, client.initiator.ip, within)?;
        let turn = cloud.turns.take(call, &share.id, &address_of(node.as_str())).await?;
        self.note_alias(call, cloud, &share, id).await?;
        let rule = self.rule(call, cloud, &share, &wanted).await?;
        drop(turn);
        Ok(Connection {
            kind: kind_of(&share.share_proto).to_owned(),
            data: export::data(&share, export, &rule.access_to)?,
            size: Some(gib(share.size)?),
            read_only,
            sealed: seal_key(id, &client.initiator, &rule)?,
        })
    }

    /// What rule the node needs.
    fn wanted(
        &self,
        share: &Share,
        client: &Client,
        volume: &VolumeId,
        node: &NodeId,
        read_only: bool,
    ) -> Result<Wanted> {
        match share.metadata.get(&self.names.key(SHARED_CLIENT)) {
            // What may be written is then the node's to see to: the rule is for those who write as well.
            Some(everybody) if self.names.is_ours(&share.metadata) => {
                Ok(Wanted { entrant: client.entrant_among(everybody)?, level: AccessLevel::ReadWrite, only_for: None })
            }
            _ => Ok(Wanted {
                entrant: client.entrant(&share.share_proto)?,
                level: if read_only { AccessLevel::ReadOnly } else { AccessLevel::ReadWrite },
                only_for: Some((node.clone(), volume.clone())),
            }),
        }
    }

    /// The wanted rule, in force; made now if need be.
    async fn rule(&self, call: &Call, cloud: &Cloud, share: &Share, wanted: &Wanted) -> Result<AccessRule> {
        let mut metadata = self.names.metadata(&std::collections::BTreeMap::new());
        if let Some((node, volume)) = &wanted.only_for {
            metadata.insert(self.names.key(NODE), node.to_string());
            metadata.extend([self.mark(volume)]);
        }
        let new = NewRule {
            access_type: match wanted.entrant.access_type {
                AccessType::Cephx => "cephx",
                _ => "ip",
            },
            access_to: wanted.entrant.access_to.clone(),
            access_level: match wanted.level {
                AccessLevel::ReadOnly => "ro",
                _ => "rw",
            },
            metadata,
        };
        loop {
            call.check("make an access rule")?;
            let rule = match cloud.manila.allow(call, &share.id, &new).await {
                Ok(rule) => rule,
                Err(error) => match self.rule_in_spite(call, cloud, share, wanted, error).await? {
                    Some(rule) => rule,
                    None => continue,
                },
            };
            let ended = match applied(&rule) {
                Some(ended) => ended,
                None => await_applied(call, cloud, &share.id, &rule.id).await?,
            };
            match ended {
                Applied::InForce(rule) => {
                    self.note_use(call, cloud, &rule, wanted).await?;
                    return Ok(rule);
                }
                Applied::Gone => {}
                Applied::Failed(rule) => {
                    let error = ended_in_error(call, cloud, "an access rule of share", &share.id, "error").await;
                    if self.names.is_ours(&rule.metadata) {
                        revoke(call, cloud, &share.id, &rule.id).await?;
                    }
                    return Err(error.during(format!("let {} in", wanted.entrant.access_to)));
                }
            }
        }
    }

    /// Notes in a rule of ours whose it is now, and that it is for this volume too.
    async fn note_use(&self, call: &Call, cloud: &Cloud, rule: &AccessRule, wanted: &Wanted) -> Result<()> {
        let (Some((node, volume)), Some(holder)) = (&wanted.only_for, self.holder(rule)) else { return Ok(()) };
        if !is_same_node(holder, node.as_str()) {
            // Those volumes are published to a node that has lost the address, and nobody will take them off this rule.
            for mark in self.marks_of_others(rule, volume) {
                found(cloud.manila.untag_rule(call, &rule.id, mark).await)?;
            }
        }
        let mut news = Metadata::new();
        if holder != node.as_str() {
            news.insert(self.names.key(NODE), node.to_string());
        }
        if !self.is_for(rule, volume) {
            news.extend([self.mark(volume)]);
        }
        if news.is_empty() { Ok(()) } else { cloud.manila.tag_rule(call, &rule.id, &news).await }
    }

    /// Whether a rule of ours is of a node that has lost its address to the one that is to be let in.
    fn is_left_behind(&self, rule: &AccessRule, wanted: &Wanted) -> bool {
        let holder_and_heir = self.holder(rule).zip(wanted.only_for.as_ref());
        holder_and_heir.is_some_and(|(holder, (node, _))| !is_same_node(holder, node.as_str()))
    }

    /// After a refused request for a rule: the one that is there already. None: ask again.
    async fn rule_in_spite(
        &self,
        call: &Call,
        cloud: &Cloud,
        share: &Share,
        wanted: &Wanted,
        error: Error,
    ) -> Result<Option<AccessRule>> {
        if is_unclear(&error) {
            cloud.doubts.note(&doubt(&share.id, &wanted.entrant));
        }
        if ![400, 403, 409].iter().any(|status| is_refused_with(&error, *status)) {
            return Err(error);
        }
        let rules = cloud.manila.rules(call, &share.id).await?;
        let Some(rule) = rules.into_iter().find(|rule| wanted.entrant.is_of(rule)) else {
            return self.why_refused(call, cloud, share, error).await.map(|()| None);
        };
        let is_ours = self.names.is_ours(&rule.metadata);
        if rule.is_leaving() {
            await_revoked(call, cloud, &share.id, &rule.id).await?;
            return Ok(None);
        }
        if rule.state == RuleState::Error && is_ours {
            revoke(call, cloud, &share.id, &rule.id).await?;
            return Ok(None);
        }
        if rule.access_level == wanted.level || (!is_ours && rule.access_level == AccessLevel::ReadWrite) {
            return Ok(Some(rule));
        }
        if self.is_left_behind(&rule, wanted) {
            revoke(call, cloud, &share.id, &rule.id).await?;
            return Ok(None);
        }
        if is_ours {
            return Err(Error::new(
                Kind::Conflict,
                format!(
                    "the share is open to that node already ({}), and {} was asked for: unpublish it there first",
                    rule.access_level, wanted.level
                ),
            ));
        }
        Err(Error::wrong_state(format!(
            "access rule {} for {}, which this driver did not make, allows {} only: remove it (`openstack share access \
             delete {} {}`), or use the volume read-only",
            rule.id, rule.access_to, rule.access_level, share.id, rule.id
        )))
    }

    /// A request for a rule was refused and there is no such rule: waits for what will pass.
    async fn why_refused(&self, call: &Call, cloud: &Cloud, share: &Share, error: Error) -> Result<()> {
        if says(&error, &["exist"]) {
            // It was there when it was asked for, and has gone meanwhile.
            return Ok(());
        }
        let now: Share = cloud.manila.one(call, &share.id).await?;
        match &now.status {
            ShareStatus::Available => {
                Err(if is_refused_with(&error, 400) { error } else { error.as_kind(Kind::WrongState) })
            }
            status if status.is_passing() && !status.is_leaving() => await_settled(call, cloud, &now).await,
            _ => Err(wrong_state(&now).because(error)),
        }
    }

    /// The story of ControllerUnpublishVolume: for one node, or for all.
    pub(super) async fn close_to(&self, call: &Call, id: &VolumeId, node: Option<&NodeId>) -> Result<()> {
        // What is not known is open to nobody.
        let Some((mut cloud, mut share)) = self.find(call, id).await? else { return Ok(()) };
        if !self.revoke_rules_of(call, cloud, &share, id, node).await? {
            // There is no share of that id, but there may be one that is called so.
            match self.of_alias(call, id).await? {
                Some(found) if found.1 != share => (cloud, share) = found,
                _ => return Ok(()),
            }
            self.revoke_rules_of(call, cloud, &share, id, node).await?;
        }
        let share = share.as_str();
        let Some(node) = node else { return Ok(()) };
        let Ok(client) = Client::of(self.names.cluster(), self.names.driver(), node) else { return Ok(()) };
        for protocol in [Protocol::Nfs, Protocol::Cephfs] {
            // A rule whose answer was lost may still be made.
            if let Ok(entrant) = client.entrant(&protocol)
                && self.wait_for_lost(call, cloud, &doubt(share, &entrant)).await?
            {
                self.revoke_rules_of(call, cloud, share, id, Some(node)).await?;
            }
        }
        Ok(())
    }

    /// Revokes what only this volume needs on the node, or on all nodes. False: there is no such share.
    async fn revoke_rules_of(
        &self,
        call: &Call,
        cloud: &Cloud,
        share: &str,
        volume: &VolumeId,
        node: Option<&NodeId>,
    ) -> Result<bool> {
        let Some((turns, rules)) = self.rules_in_turn(call, cloud, share, node).await? else { return Ok(false) };
        let (mut is_used_elsewhere, mut revoked) = (false, Vec::new());
        for rule in rules {
            let Some(holder) = self.holder(&rule) else { continue };
            let is_for_others = self.is_for_others(&rule, volume);
            if node.is_some_and(|node| !is_same_node(node.as_str(), holder)) {
                is_used_elsewhere |= self.is_for(&rule, volume);
            } else if rule.is_leaving() {
                revoked.push(rule);
            } else if !is_for_others {
                deny(call, cloud, share, &rule.id).await?;
                revoked.push(rule);
            } else if self.is_for(&rule, volume) {
                found(cloud.manila.untag_rule(call, &rule.id, &self.mark(volume).0).await)?;
            }
        }
        for rule in revoked {
            await_revoked(call, cloud, share, &rule.id).await?;
        }
        if !is_used_elsewhere {
            self.forget_alias(call, cloud, share, volume).await?;
        }
        drop(turns);
        Ok(true)
    }

    /// The rules of a share, and the turns with those of a node; none: there is no such share. A rule that it got under
    /// another address may be about to become another node's, so that address has its turn as well.
    async fn rules_in_turn(
        &self,
        call: &Call,
        cloud: &Cloud,
        share: &str,
        node: Option<&NodeId>,
    ) -> Result<Option<(Vec<OwnedMutexGuard<()>>, Vec<AccessRule>)>> {
        let mut addresses: BTreeSet<String> = node.iter().map(|node| address_of(node.as_str())).collect();
        loop {
            let turns = cloud.turns.take_all(call, share, &addresses).await?;
            let Some(rules) = found(cloud.manila.rules(call, share).await)? else { return Ok(None) };
            let held = rules.iter().filter_map(|rule| self.holder(rule));
            let of_node = held.filter(|holder| node.is_some_and(|node| is_same_node(node.as_str(), holder)));
            let known = addresses.len();
            addresses.extend(of_node.map(address_of));
            if addresses.len() == known {
                return Ok(Some((turns, rules)));
            }
        }
    }

    /// The node that a rule of ours is for.
    pub(super) fn holder<'a>(&self, rule: &'a AccessRule) -> Option<&'a str> {
        let node = rule.metadata.get(&self.names.key(NODE))?;
        self.names.is_ours(&rule.metadata).then_some(node.as_str())
    }
}

/// The share, once it can be mounted.
async fn mountable(call: &Call, cloud: &Cloud, id: &str) -> Result<Share> {
    let seen = cloud.shares_now.now(call, "look at the share", id).await?;
    let share = seen.ok_or_else(|| Error::not_found(format!("there is no share {id}")))?.object;
    match &share.status {
        // In all of these its exports stay where they are.
        ShareStatus::Available
        | ShareStatus::Extending
        | ShareStatus::Shrinking
        | ShareStatus::BackupCreating
        | ShareStatus::ExtendingError
        | ShareStatus::ShrinkingError => Ok(share),
        _ => Err(wrong_state(&share)),
    }
}

fn kind_of(protocol: &Protocol) -> &'static str {
    match protocol {
        Protocol::Cephfs => KIND_CEPHFS,
        _ => KIND_NFS,
    }
}

/// The key of a Ceph user, for the node's eyes only.
fn seal_key(volume: &VolumeId, node: &Initiator, rule: &AccessRule) -> Result<Option<String>> {
    let Some(key) = &rule.access_key else { return Ok(None) };
    let secrets = Secrets::from([(CEPH_KEY.to_owned(), key.expose_secret().into())]);
    seal(&node.public_key, Binding { volume, host: &node.host }, &secrets).map(Some)
}

/// Under what a rule whose answer was lost is noted.
fn doubt(share: &str, entrant: &Entrant) -> String {
    format!("rule of {share} for {}", entrant.access_to)
}

/// Waits until a rule is in force, or is not going to be.
async fn await_applied(call: &Call, cloud: &Cloud, share: &str, id: &str) -> Result<Applied> {
    let (share_id, id) = (share.to_owned(), id.to_owned());
    cloud
        .rules
        .until_from(call, "allow access", FIRST_LOOK, share, move |rules| {
            let Some(rules) = rules else { return Err(Error::not_found(format!("share {share_id} is gone"))) };
            let Some(rule) = rules.iter().find(|rule| rule.id == id) else { return Ok(Some(Applied::Gone)) };
            Ok(applied(rule))
        })
        .await
}

fn applied(rule: &AccessRule) -> Option<Applied> {
    match rule.state {
        RuleState::Active if rule.access_type == AccessType::Cephx && rule.access_key.is_none() => None,
        RuleState::Active => Some(Applied::InForce(rule.clone())),
        RuleState::Error => Some(Applied::Failed(rule.clone())),
        _ => None,
    }
}

/// Revokes a rule and waits until it is not in force any more.
async fn revoke(call: &Call, cloud: &Cloud, share: &str, id: &str) -> Result<()> {
    deny(call, cloud, share, id).await?;
    await_revoked(call, cloud, share, id).await
}

/// Asks for a rule to be revoked; success if it is not there.
async fn deny(call: &Call, cloud: &Cloud, share: &str, id: &str) -> Result<()> {
    call.check("revoke an access rule")?;
    found(cloud.manila.deny(call, share, id).await).map(drop)
}

async fn await_revoked(call: &Call, cloud: &Cloud, share: &str, id: &str) -> Result<()> {
    let wanted = id.to_owned();
    let failed = cloud
        .rules
        .until_from(call, "deny access", FIRST_LOOK, share, move |rules| {
            let rule = rules.into_iter().flatten().find(|rule| rule.id == wanted);
            Ok(match rule {
                None => Some(false),
                Some(rule) if rule.state == RuleState::Error => Some(true),
                Some(_) => None,
            })
        })
        .await?;
    if failed {
        return Err(ended_in_error(call, cloud, "the revocation of an access rule of share", share, "error").await);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Applied, applied, seal_key};
    use crate::initiator::Initiator;
    use crate::openstack::manila::AccessRule;
    use crate::provider::manila::client::node;
    use serde_json::json;

    fn rule(access_type: &str, state: &str, key: Option<&str>) -> AccessRule {
        serde_json::from_value(json!({"id": "r", "access_type": access_type, "access_to": "x", "access_level": "rw",
            "state": state, "access_key": key}))
        .unwrap()
    }

    #[test]
    fn a_rule_is_in_force_when_it_is_active_and_has_its_key() {
        for (access_type, state, key, expected) in [
            ("ip", "active", None, "in force"),
            ("ip", "queued_to_apply", None, "wait"),
            ("ip", "applying", None, "wait"),
            ("ip", "error", None, "failed"),
            ("cephx", "active", None, "wait"),
            ("cephx", "active", Some("k"), "in force"),
        ] {
            let meaning = match applied(&rule(access_type, state, key)) {
                None => "wait",
                Some(Applied::InForce(_)) => "in force",
                Some(Applied::Failed(_)) => "failed",
                Some(Applied::Gone) => "gone",
            };
            assert_eq!(meaning, expected, "{access_type} {state} {key:?}");
        }
    }

    #[test]
    fn only_a_key_is_sealed() {
        let volume = "6c1b7a0e-0f5b-4b07-9f3a-5f6a0a3f9a11".parse().unwrap();
        let node = Initiator::unpack(&node("n", None)).unwrap();
        assert_eq!(seal_key(&volume, &node, &rule("ip", "active", None)).unwrap(), None);
        let sealed = seal_key(&volume, &node, &rule("cephx", "active", Some("geheim"))).unwrap().unwrap();
        assert!(!sealed.contains("geheim"));
    }
}

//! Aliases: volume handles that are not the ids of their shares.
//!
//! Whoever writes a PersistentVolume by hand may give it any handle and name the share in its context, by `shareID` or
//! `shareName`, as manila-csi has it. Of all RPCs only ControllerPublishVolume is told the context, so the alias is noted
//! in the share's metadata then, and found there by all others, until the volume is published nowhere.
//!
//! Several volumes may be the same share, also on one node. They share its access rule, which says in its metadata for
//! which of them it is; it is revoked when the last of them leaves.

use super::{Cloud, ManilaProvider};
use crate::call::Call;
use crate::error::{Error, Result};
use crate::model::{StringMap, VolumeId};
use crate::openstack::client::found;
use crate::openstack::manila::{AccessRule, Listing, Share};
use crate::openstack::objects::Metadata;
use crate::provider::handle::{Uuid, VolumeHandle};
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OwnedMutexGuard;

/// The keys of a `volume_context` that name the share.
const SHARE_ID: &str = "shareID";
const SHARE_NAME: &str = "shareName";

/// The first letters of the metadata key that says which volume a share is, or an access rule is for. To be removed it has
/// to stand in a URL, where Manila takes no slash for a part of it.
const VOLUME: &str = "csi-volume-";

/// How much of a handle's digest stands in a key.
const DIGEST_BYTES: usize = 10;

/// Lets one call at a time work on the rule of one share for one address.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits for its turn, which lasts as long as what is returned.
    pub(super) async fn take(&self, call: &Call, share: &str, address: &str) -> Result<OwnedMutexGuard<()>> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(format!("{share} {address}")).or_default())
        };
        call.bound("wait for another volume of the same share", turn.lock_owned()).await
    }

    /// Waits for its turn with several addresses. All take them in the same order, so none waits for another in a ring.
    pub(super) async fn take_all(
        &self,
        call: &Call,
        share: &str,
        addresses: &BTreeSet<String>,
    ) -> Result<Vec<OwnedMutexGuard<()>>> {
        let mut taken = Vec::with_capacity(addresses.len());
        for address in addresses {
            taken.push(self.take(call, share, address).await?);
        }
        Ok(taken)
    }
}

impl ManilaProvider {
    /// The share that a volume is, by its handle and what else is known of it.
    pub(super) async fn meant(&self, call: &Call, id: &VolumeId, context: &StringMap) -> Result<(&Cloud, String)> {
        let said = |key| context.get(key).map(String::as_str).filter(|value| !value.is_empty());
        let handle = VolumeHandle::parse(id);
        match (said(SHARE_ID), said(SHARE_NAME)) {
            (Some(_), Some(_)) => {
                Err(Error::invalid(format!("volume_context: {SHARE_ID} and {SHARE_NAME} exclude each other")))
            }
            (Some(share), None) => {
                let share = Uuid::parse(share).ok_or_else(|| {
                    Error::invalid(format!("volume_context: {SHARE_ID} is {share:?}, which is no id of a share"))
                })?;
                match handle.filter(|handle| handle.id == share) {
                    Some(handle) => Ok((self.clouds.of_handle(&handle.cloud)?, share.to_string())),
                    None => Ok((self.clouds.of_handle("")?, share.to_string())),
                }
            }
            (None, Some(name)) => self.of_name(call, name).await,
            (None, None) => self.existing(call, id).await,
        }
    }

    async fn of_name(&self, call: &Call, name: &str) -> Result<(&Cloud, String)> {
        let cloud = self.clouds.of_handle("")?;
        let named = cloud.manila.all::<Share>(call, Listing::all().named(name)).await?;
        let mut named = named.into_iter().filter(|share| share.name == name);
        match (named.next(), named.next()) {
            (Some(share), None) => Ok((cloud, share.id)),
            (None, _) => Err(Error::not_found(format!("there is no share of the name {name}"))),
            (Some(one), Some(other)) => Err(Error::wrong_state(format!(
                "shares {} and {} are both called {name}: say {SHARE_ID} instead of {SHARE_NAME}",
                one.id, other.id
            ))),
        }
    }

    /// The share of a handle; none if nothing can be known of it.
    pub(super) async fn find(&self, call: &Call, id: &VolumeId) -> Result<Option<(&Cloud, String)>> {
        match VolumeHandle::parse(id) {
            Some(handle) => Ok(Some((self.clouds.of_handle(&handle.cloud)?, handle.id.to_string()))),
            None => self.of_alias(call, id).await,
        }
    }

    /// The share of a handle, which must be one that can exist.
    pub(super) async fn existing(&self, call: &Call, id: &VolumeId) -> Result<(&Cloud, String)> {
        self.find(call, id).await?.ok_or_else(|| Error::not_found(format!("there is no share {id}")))
    }

    /// The share that has this handle noted.
    pub(super) async fn of_alias(&self, call: &Call, id: &VolumeId) -> Result<Option<(&Cloud, String)>> {
        let cloud = self.clouds.of_handle("")?;
        let (key, value) = self.mark(id);
        let marked = cloud.manila.all::<Share>(call, Listing::all().with_metadata(&key, &value)).await?;
        let share = marked.into_iter().find(|share| share.metadata.get(&key) == Some(&value));
        Ok(share.map(|share| (cloud, share.id)))
    }

    /// Notes in the share's metadata that this handle means it, unless the handle says so itself.
    pub(super) async fn note_alias(&self, call: &Call, cloud: &Cloud, share: &Share, id: &VolumeId) -> Result<()> {
        let (key, value) = self.mark(id);
        if !is_alias(id, &share.id) || share.metadata.get(&key) == Some(&value) {
            return Ok(());
        }
        cloud.manila.tag_share(call, &share.id, &Metadata::from([(key, value)])).await
    }

    /// Forgets it again. Success where it is not noted.
    pub(super) async fn forget_alias(&self, call: &Call, cloud: &Cloud, share: &str, id: &VolumeId) -> Result<()> {
        if !is_alias(id, share) {
            return Ok(());
        }
        found(cloud.manila.untag_share(call, share, &self.mark(id).0).await).map(drop)
    }

    /// The entry of metadata that stands for a volume.
    pub(super) fn mark(&self, id: &VolumeId) -> (String, String) {
        // Other clusters may have a volume of that name.
        let whole = [self.names.driver(), self.names.cluster(), id.as_str()].join("\0");
        let digest: String =
            Sha256::digest(whole).iter().take(DIGEST_BYTES).map(|byte| format!("{byte:02x}")).collect();
        // The value is for people; a handle is never longer than what Manila takes.
        (format!("{VOLUME}{digest}"), id.to_string())
    }

    /// Whether an access rule says that it is for this volume.
    pub(super) fn is_for(&self, rule: &AccessRule, id: &VolumeId) -> bool {
        rule.metadata.contains_key(&self.mark(id).0)
    }

    /// Whether an access rule says that it is for other volumes as well.
    pub(super) fn is_for_others(&self, rule: &AccessRule, id: &VolumeId) -> bool {
        !self.marks_of_others(rule, id).is_empty()
    }

    /// By which keys an access rule says that it is for other volumes as well.
    pub(super) fn marks_of_others<'a>(&self, rule: &'a AccessRule, id: &VolumeId) -> Vec<&'a str> {
        let own = self.mark(id).0;
        rule.metadata.keys().map(String::as_str).filter(|key| key.starts_with(VOLUME) && *key != own).collect()
    }
}

/// Whether a handle is not itself the id of the share.
pub(super) fn is_alias(id: &VolumeId, share: &str) -> bool {
    VolumeHandle::parse(id).is_none_or(|handle| handle.id.as_str() != share)
}

#[cfg(test)]
mod tests {
    use super::{Turns, is_alias};
    use crate::call::Call;
    use crate::error::Kind;
    use std::time::Duration;

    const ID: &str = "6c1b7a0e-0f5b-4b07-9f3a-5f6a0a3f9a11";

    #[test]
    fn a_handle_that_holds_the_shares_id_is_no_alias() {
        for (handle, expected) in [
            (ID, false),
            (&format!("east/{ID}"), false),
            ("my-data", true),
            ("6c1b7a0e-0f5b-4b07-9f3a-5f6a0a3f9a12", true),
        ] {
            assert_eq!(is_alias(&handle.parse().unwrap(), ID), expected, "{handle}");
        }
    }

    #[tokio::test]
    async fn turns_are_taken_one_after_the_other_for_one_share_and_address_only() {
        let turns = Turns::default();
        let short = || Call::lasting(Duration::from_millis(50));
        let first = turns.take(&short(), "s", "n").await.unwrap();
        turns.take(&short(), "s", "m").await.unwrap();
        assert_eq!(turns.take(&short(), "s", "n").await.unwrap_err().kind(), Kind::Deadline);
        drop(first);
        turns.take(&short(), "s", "n").await.unwrap();
    }
}

//! What a `connection_info` says about a LUN: one target, or parallel lists of them.
//!
//! All of it ends up as arguments of iscsiadm, in its records and in paths of sysfs, so nothing passes that could be
//! anything else there.

use crate::error::{Error, Result};
use crate::node::connector::Link;
use crate::node::connector::field::Fields;
use crate::node::connector::portal::Portal;
use crate::node::connector::scsi::address::{AddressingMode, Lun};
use secrecy::{ExposeSecret, SecretString};
use std::fmt;
use std::str::FromStr;

/// The longest iSCSI name, in bytes.
const LONGEST_NAME: usize = 223;

/// The longest user name or password that is written into a record.
const LONGEST_WORD: usize = 255;

/// The name of a target: `iqn.…`, `eui.…` or `naa.…`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Iqn(String);

impl Iqn {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Iqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Iqn {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".:-_+".contains(&byte);
        let has_kind = ["iqn.", "eui.", "naa."].iter().any(|kind| text.starts_with(kind));
        if has_kind && text.len() <= LONGEST_NAME && text.bytes().all(is_plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("is {text:?}, which is no iSCSI name (iqn.…, eui.…, naa.…)"))
        }
    }
}

/// One way to the volume: a target at a portal, and the LUN there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) iqn: Iqn,
    pub(super) portal: Portal,
    pub(super) lun: Lun,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.iqn, self.portal)
    }
}

impl Target {
    /// All ways that a connection names.
    ///
    /// # Errors
    /// `InvalidArgument`: it makes no sense.
    pub(super) fn all(link: &Link) -> Result<Vec<Self>> {
        let fields = Fields::of(link);
        let mode = fields.optional("addressing_mode")?.unwrap_or(AddressingMode::Sam);
        let mut portals: Vec<Portal> = fields.list("target_portals")?;
        let mut iqns: Vec<Iqn> = fields.list("target_iqns")?;
        let mut luns: Vec<Lun> = fields.list("target_luns")?;
        if portals.is_empty() {
            portals = vec![fields.required("target_portal")?];
        }
        if iqns.is_empty() {
            iqns = vec![fields.required("target_iqn")?; portals.len()];
        }
        if luns.is_empty() {
            luns = vec![fields.required("target_lun")?; portals.len()];
        }
        if portals.len() != iqns.len() || portals.len() != luns.len() {
            return Err(fields.wrong("target_portals", "has not as many entries as target_iqns and target_luns"));
        }
        let ways = portals.into_iter().zip(iqns).zip(luns);
        let mut all: Vec<_> = ways.map(|((portal, iqn), lun)| Self { iqn, portal, lun: lun.encoded(mode) }).collect();
        all.sort();
        all.dedup();
        Ok(all)
    }
}

/// As whom to log in.
#[derive(Debug, Clone)]
pub(super) struct Chap {
    pub(super) user: String,
    pub(super) password: SecretString,
}

impl Chap {
    /// What a connection and its secrets say; none if the target lets everybody in.
    ///
    /// # Errors
    /// `InvalidArgument`: a method that is not CHAP, or words that fit into no record. `WrongState`: the password is
    /// missing.
    pub(super) fn of(link: &Link) -> Result<Option<Self>> {
        let fields = Fields::of(link);
        let Some(method) = fields.optional::<String>("auth_method")? else { return Ok(None) };
        if method.eq_ignore_ascii_case("none") {
            return Ok(None);
        }
        if !method.eq_ignore_ascii_case("chap") {
            return Err(fields.wrong("auth_method", &format!("is {method:?}; only CHAP is known")));
        }
        let user: String = fields.required("auth_username")?;
        if !is_word(&user) {
            return Err(fields.wrong("auth_username", "has characters that fit into no record of iscsiadm"));
        }
        let password = link.secrets.get("auth_password").ok_or_else(|| {
            Error::wrong_state(format!(
                "volume {} needs a CHAP password, and none came with it: the controller seals it to this node's key; \
                 detach and attach the volume if that key is a new one",
                link.volume
            ))
        })?;
        if !is_word(password.expose_secret()) {
            return Err(fields.wrong("auth_password", "has characters that fit into no record of iscsiadm"));
        }
        Ok(Some(Self { user, password: password.clone() }))
    }
}

/// What can stand behind `=` in a record: one word, without what begins a comment.
fn is_word(text: &str) -> bool {
    (1..=LONGEST_WORD).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

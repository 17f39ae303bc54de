//! Secrets on their way from the controller to one node.
//!
//! A `publish_context` lands in a Kubernetes object that many may read, and CSI offers no other way from the controller
//! to a node. So what a connector must keep to itself (CHAP passwords, LUKS passphrases, Ceph keys) travels sealed to
//! the node's public key, which is part of its node id: HPKE (RFC 9180) in base mode with X25519, HKDF-SHA256 and
//! ChaCha20-Poly1305. Volume and host are bound in as associated data, so a sealed text cannot be moved to another
//! volume, nor can a node be made to take one that was meant for its neighbour.

use crate::error::{Error, Kind, Result};
use crate::model::{Secrets, VolumeId};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable, single_shot_open, single_shot_seal};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeMap;
use std::fmt;

/// What a sealed text is for; texts sealed for another purpose do not open.
const PURPOSE: &[u8] = b"fuxi-csi connection secrets 1";

/// The length of a key, and of the encapsulated key in front of a sealed text.
const KEY_BYTES: usize = 32;

type Curve = X25519HkdfSha256;

/// A node's public key: part of its node id.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; KEY_BYTES]);

impl PublicKey {
    /// From its bytes.
    #[must_use]
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", URL_SAFE_NO_PAD.encode(self.0))
    }
}

/// A node's private key. It never leaves the node's disk and memory, and never shows in `Debug`.
pub struct PrivateKey {
    secret: <Curve as Kem>::PrivateKey,
    public: PublicKey,
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").field("public", &self.public).finish_non_exhaustive()
    }
}

impl PrivateKey {
    /// A new one.
    #[must_use]
    pub fn generate() -> Self {
        Self::with(Curve::gen_keypair().0)
    }

    /// From the text that [`PrivateKey::to_text`] makes.
    ///
    /// # Errors
    /// `InvalidArgument`: it is not a key.
    pub fn from_text(text: &str) -> Result<Self> {
        let bytes = Zeroizing::new(
            URL_SAFE_NO_PAD.decode(text.trim()).map_err(|_| Error::invalid("a node key is not base64url"))?,
        );
        <Curve as Kem>::PrivateKey::from_bytes(&bytes)
            .map(Self::with)
            .map_err(|_| Error::invalid("a node key does not have 32 bytes"))
    }

    /// As text, for a file that only root can read.
    #[must_use]
    pub fn to_text(&self) -> SecretString {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        self.secret.write_exact(bytes.as_mut_slice());
        URL_SAFE_NO_PAD.encode(bytes.as_slice()).into()
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    fn with(secret: <Curve as Kem>::PrivateKey) -> Self {
        let mut bytes = [0; KEY_BYTES];
        Curve::sk_to_pk(&secret).write_exact(&mut bytes);
        Self { secret, public: PublicKey(bytes) }
    }
}

/// What a sealed text is bound to.
#[derive(Debug, Clone, Copy)]
pub struct Binding<'a> {
    /// The volume whose connection needs the secrets.
    pub volume: &'a VolumeId,
    /// The host name of the node.
    pub host: &'a str,
}

impl Binding<'_> {
    /// Volume ids have no control characters, so no two bindings look alike.
    fn bytes(&self) -> Vec<u8> {
        [self.volume.as_str().as_bytes(), b"\0", self.host.as_bytes()].concat()
    }
}

/// Seals secrets to a node.
///
/// # Errors
/// `InvalidArgument`: the key is not a point on the curve.
pub fn seal(to: &PublicKey, binding: Binding<'_>, secrets: &Secrets) -> Result<String> {
    let plain: BTreeMap<&str, &str> =
        secrets.iter().map(|(name, value)| (name.as_str(), value.expose_secret())).collect();
    let plain = Zeroizing::new(
        serde_json::to_vec(&plain).map_err(|error| Error::internal("encode secrets for a node").because(error))?,
    );
    let refused = |_| Error::invalid(format!("the public key of node {} is not usable", binding.host));
    let key = <Curve as Kem>::PublicKey::from_bytes(&to.0).map_err(refused)?;
    let (encapsulated, sealed) = single_shot_seal::<ChaCha20Poly1305, HkdfSha256, Curve>(
        &OpModeS::Base,
        &key,
        PURPOSE,
        &plain,
        &binding.bytes(),
    )
    .map_err(refused)?;
    Ok(URL_SAFE_NO_PAD.encode([encapsulated.to_bytes().as_slice(), &sealed].concat()))
}

/// Opens what was sealed to any of these keys: the present one and its predecessors.
///
/// # Errors
/// `Denied`: sealed to another node or key, for another volume, or changed on the way.
pub fn open(keys: &[PrivateKey], binding: Binding<'_>, sealed: &str) -> Result<Secrets> {
    let bytes = URL_SAFE_NO_PAD
        .decode(sealed)
        .map_err(|error| Error::invalid("the sealed secrets are not base64url").because(error))?;
    let (encapsulated, sealed) =
        bytes.split_at_checked(KEY_BYTES).ok_or_else(|| Error::invalid("the sealed secrets are too short"))?;
    let encapsulated = <Curve as Kem>::EncappedKey::from_bytes(encapsulated)
        .map_err(|_| Error::invalid("the sealed secrets do not begin with a key"))?;
    let opened = keys.iter().find_map(|key| {
        single_shot_open::<ChaCha20Poly1305, HkdfSha256, Curve>(
            &OpModeR::Base,
            &key.secret,
            &encapsulated,
            PURPOSE,
            sealed,
            &binding.bytes(),
        )
        .ok()
    });
    let plain = Zeroizing::new(opened.ok_or_else(|| {
        Error::new(
            Kind::Denied,
            format!(
                "the secrets for volume {} were not sealed to this node ({}) and its present keys: \
                 was the node's key file lost? Detach the volume and attach it again",
                binding.volume, binding.host
            ),
        )
    })?);
    let secrets: BTreeMap<String, String> = serde_json::from_slice(&plain)
        .map_err(|_| Error::internal("the opened secrets are not what a controller seals"))?;
    Ok(secrets.into_iter().map(|(name, value)| (name, value.into())).collect())
}

#[cfg(test)]
mod tests {
    use super::{Binding, PrivateKey, open, seal};
    use crate::error::Kind;
    use crate::model::{Secrets, VolumeId};
    use proptest::prelude::{any, proptest};
    use secrecy::ExposeSecret;

    fn secrets() -> Secrets {
        Secrets::from([("auth_password".to_owned(), "geheim".into())])
    }

    fn volume(id: &str) -> VolumeId {
        id.parse().unwrap()
    }

    #[test]
    fn only_the_node_opens_what_was_sealed_to_it() {
        let (node, neighbour) = (PrivateKey::generate(), PrivateKey::generate());
        let id = volume("v1");
        let binding = Binding { volume: &id, host: "n1" };
        let sealed = seal(&node.public(), binding, &secrets()).unwrap();
        assert!(!sealed.contains("geheim"));
        let error = open(&[neighbour], binding, &sealed).unwrap_err();
        assert_eq!(error.kind(), Kind::Denied);
        let opened = open(&[node], binding, &sealed).unwrap();
        assert_eq!(opened["auth_password"].expose_secret(), "geheim");
    }

    #[test]
    fn a_sealed_text_cannot_be_moved_to_another_volume_or_host() {
        let node = [PrivateKey::generate()];
        let (one, two) = (volume("v1"), volume("v2"));
        let sealed = seal(&node[0].public(), Binding { volume: &one, host: "n1" }, &secrets()).unwrap();
        assert!(open(&node, Binding { volume: &two, host: "n1" }, &sealed).is_err());
        assert!(open(&node, Binding { volume: &one, host: "n2" }, &sealed).is_err());
        assert!(open(&node, Binding { volume: &one, host: "n1" }, &sealed).is_ok());
    }

    #[test]
    fn a_key_survives_its_file_and_a_predecessor_still_opens() {
        let old = PrivateKey::generate();
        let text = old.to_text();
        let id = volume("v");
        let binding = Binding { volume: &id, host: "n" };
        let sealed = seal(&old.public(), binding, &secrets()).unwrap();
        let keys = [PrivateKey::generate(), PrivateKey::from_text(text.expose_secret()).unwrap()];
        assert!(open(&keys, binding, &sealed).is_ok());
        assert!(!format!("{:?}", keys[1]).contains(text.expose_secret()));
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in any::<String>()) {
            let id = volume("v");
            assert!(open(&[PrivateKey::generate()], Binding { volume: &id, host: "n" }, &text).is_err());
        }
    }
}

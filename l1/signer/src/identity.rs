//! Who a party is: a BIP340 key that signs its messages, for as long as it takes part.

use std::fmt;

use assay_l1::StoreError;
use bitcoin::key::Keypair;
use bitcoin::secp256k1::schnorr::Signature;
use bitcoin::secp256k1::{All, Message, Secp256k1, SecretKey, XOnlyPublicKey};
use rand::rngs::OsRng;
use rand::RngCore;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::path::Path;
use std::sync::OnceLock;
use zeroize::Zeroizing;

use crate::store::secret;

/// The context of all operations of this process.
pub(crate) fn secp() -> &'static Secp256k1<All> {
    static CONTEXT: OnceLock<Secp256k1<All>> = OnceLock::new();
    CONTEXT.get_or_init(|| {
        let mut context = Secp256k1::new();
        context.randomize(&mut OsRng);
        context
    })
}

/// A party's public key, x only; in files as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartyId(pub [u8; 32]);

impl fmt::Debug for PartyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for PartyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl Serialize for PartyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PartyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        hex32::deserialize(deserializer).map(Self)
    }
}

/// 32 bytes as 64 hexadecimal digits, for `serde(with)`.
pub(crate) mod hex32 {
    use serde::{de::Error, Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(&text, &mut bytes)
            .map_err(|_| Error::custom("expected 64 hexadecimal digits"))?;
        Ok(bytes)
    }
}

/// Bytes as hexadecimal digits, for `serde(with)`.
pub(crate) mod hexed {
    use serde::{de::Error, Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        hex::decode(String::deserialize(deserializer)?)
            .map_err(|_| Error::custom("expected hexadecimal digits"))
    }
}

impl PartyId {
    /// True if `signature` is this party's over `digest`.
    #[must_use]
    pub fn verifies(&self, digest: &[u8; 32], signature: &[u8; 64]) -> bool {
        let Ok(key) = XOnlyPublicKey::from_slice(&self.0) else { return false };
        let Ok(signature) = Signature::from_slice(signature) else { return false };
        secp().verify_schnorr(&signature, &Message::from_digest(*digest), &key).is_ok()
    }
}

/// A party's secret side.
#[derive(Clone)]
pub struct Identity {
    pair: Keypair,
    id: PartyId,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.id)
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        self.pair.non_secure_erase();
    }
}

impl Identity {
    /// From 32 secret bytes; `None` for the few that are no key.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        let pair = Keypair::from_secret_key(secp(), &SecretKey::from_slice(bytes).ok()?);
        Some(Self { pair, id: PartyId(pair.x_only_public_key().0.serialize()) })
    }

    /// Reads the key file, or makes one where there is none.
    ///
    /// # Errors
    /// If others may read the file, if it holds no key, or if the system refuses.
    pub fn load_or_create(path: &Path) -> Result<Self, StoreError> {
        if let Some(bytes) = secret::read(path)? {
            return Self::from_bytes(&bytes).ok_or_else(|| StoreError::Format {
                path: path.to_owned(),
                detail: "the number is no secp256k1 key".to_owned(),
            });
        }
        loop {
            let mut bytes = Zeroizing::new([0; 32]);
            OsRng.fill_bytes(bytes.as_mut_slice());
            if let Some(identity) = Self::from_bytes(&bytes) {
                secret::write(path, &bytes)?;
                return Ok(identity);
            }
        }
    }

    /// The public side.
    #[must_use]
    pub fn id(&self) -> PartyId {
        self.id
    }

    /// Signs 32 bytes (BIP340, no auxiliary randomness: the same bytes each time).
    #[must_use]
    pub fn sign(&self, digest: &[u8; 32]) -> [u8; 64] {
        *secp().sign_schnorr_no_aux_rand(&Message::from_digest(*digest), &self.pair).as_ref()
    }
}

//! Who takes part: the peers file.

use std::collections::BTreeSet;
use std::path::Path;

use assay_l1::StoreError;
use bitcoin::secp256k1::XOnlyPublicKey;
use serde::{Deserialize, Serialize};

use crate::identity::PartyId;
use crate::limits::PARTIES_MAX;
use crate::policy::read_text;

/// One signer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Name, for people.
    pub name: String,
    /// Identity key.
    pub key: PartyId,
    /// Host and port where it listens.
    pub address: String,
}

/// The operator and all signers, as in the peers file (TOML). Everyone's file has the same keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peers {
    /// Identity key of the operator's collector: the only one that signers answer.
    pub operator: PartyId,
    /// The signers.
    #[serde(rename = "signer")]
    pub signers: Vec<Peer>,
}

impl Peers {
    /// Reads and checks a peers file.
    ///
    /// # Errors
    /// `Storage`, `Format`.
    pub fn load(path: &Path) -> Result<Self, StoreError> {
        let format = |detail: String| StoreError::Format { path: path.to_owned(), detail };
        let peers: Self =
            toml::from_str(&read_text(path)?).map_err(|error| format(error.message().to_owned()))?;
        peers.validate().map_err(|detail| format(detail.to_owned()))?;
        Ok(peers)
    }

    fn validate(&self) -> Result<(), &'static str> {
        let keys: BTreeSet<_> = self.ids().chain([self.operator]).collect();
        let names: BTreeSet<_> = self.signers.iter().map(|peer| &peer.name).collect();
        let checks = [
            ("there must be 1 to 32 signers", (1..=PARTIES_MAX).contains(&self.signers.len())),
            ("all keys must differ", keys.len() == self.signers.len() + 1),
            ("all names must differ", names.len() == self.signers.len()),
            (
                "every key must be a point's x",
                keys.iter().all(|id| XOnlyPublicKey::from_slice(&id.0).is_ok()),
            ),
        ];
        checks.iter().find(|(_, holds)| !holds).map_or(Ok(()), |(detail, _)| Err(*detail))
    }

    /// The signers' identities.
    pub fn ids(&self) -> impl Iterator<Item = PartyId> + '_ {
        self.signers.iter().map(|peer| peer.key)
    }

    /// A party's name, or its key if it has none here.
    #[must_use]
    pub fn name(&self, id: PartyId) -> String {
        let peer = self.signers.iter().find(|peer| peer.key == id);
        peer.map_or_else(|| id.to_string(), |peer| peer.name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    fn text(keys: &[u8]) -> String {
        let id = |byte: u8| Identity::from_bytes(&[byte; 32]).unwrap().id();
        let mut text = format!("operator = \"{}\"\n", id(1));
        for key in keys {
            text += &format!(
                "[[signer]]\nname = \"s{key}\"\nkey = \"{}\"\naddress = \"127.0.0.1:1\"\n",
                id(*key)
            );
        }
        text
    }

    #[test]
    fn a_peers_file_names_everyone_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peers.toml");
        let load = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Peers::load(&path)
        };
        let peers = load(&text(&[2, 3])).unwrap();
        assert_eq!(peers.signers.len(), 2);
        assert_eq!(peers.name(peers.signers[1].key), "s3");
        assert_eq!(toml::from_str::<Peers>(&toml::to_string(&peers).unwrap()).unwrap(), peers);
        for bad in [text(&[2, 2]), text(&[1]), text(&[2]) + "more = 1\n", text(&[2]).replace('"', "")] {
            assert!(matches!(load(&bad), Err(StoreError::Format { .. })), "{bad}");
        }
        assert!(matches!(load(&"#".repeat(2 << 20)), Err(StoreError::Format { .. })));
    }
}

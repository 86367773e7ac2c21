//! The signatures file: all signatures of a graph, in the order of its requests.
//!
//! Mark `ASSG`, version 1; graph (32); count (u32 LE); signatures (64 each); BLAKE3 of everything before (32).

use std::path::Path;

use assay_l1::graph::contract::build::{Graph, TxRole};
use assay_l1::StoreError;

use crate::limits::REQUESTS_MAX;
use crate::store::file;
use crate::wire::{put_count, Reader, WireError};

const MARK: [u8; 5] = *b"ASSG\x01";
const BYTES_MAX: u64 = (5 + 32 + 4 + 64 * REQUESTS_MAX + 32) as u64;

/// All signatures of a graph, or those of one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureSet {
    /// Id of the proposal.
    pub graph: [u8; 32],
    /// In the order of the graph's requests.
    pub signatures: Vec<[u8; 64]>,
}

impl SignatureSet {
    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MARK.to_vec();
        out.extend(self.graph);
        put_count(&mut out, self.signatures.len());
        out.extend(self.signatures.as_flattened());
        let sum = blake3::hash(&out);
        out.extend(sum.as_bytes());
        out
    }

    /// Reads [`encode`](Self::encode)'s bytes.
    ///
    /// # Errors
    /// Where they are not those of a whole file.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        if reader.array("mark")? != MARK {
            return Err(WireError::Field { field: "mark or version" });
        }
        let graph = reader.array("graph")?;
        let count = reader.count("signatures", REQUESTS_MAX, 64)?;
        let signatures = (0..count).map(|_| reader.array("signature")).collect::<Result<_, _>>()?;
        let sum: [u8; 32] = reader.array("checksum")?;
        reader.finish()?;
        if blake3::hash(&bytes[..bytes.len() - 32]) != sum {
            return Err(WireError::Field { field: "checksum" });
        }
        Ok(Self { graph, signatures })
    }

    /// Writes the file.
    ///
    /// # Errors
    /// `Storage`; the old file, if any, is then still there.
    pub fn save(&self, path: &Path) -> Result<(), StoreError> {
        file::write(path, &self.encode())
    }

    /// Reads the file, `None` if there is none.
    ///
    /// # Errors
    /// `Format` if it is damaged; `Storage`.
    pub fn load(path: &Path) -> Result<Option<Self>, StoreError> {
        let Some(bytes) = file::read(path, BYTES_MAX)? else { return Ok(None) };
        let format =
            |error: WireError| StoreError::Format { path: path.to_owned(), detail: error.to_string() };
        Self::decode(&bytes).map(Some).map_err(format)
    }

    /// The witness item for a leaf of an input, from the graph that was signed; `None` if it has no such request.
    #[must_use]
    pub fn item(&self, graph: &Graph, role: TxRole, input: usize, leaf: usize) -> Option<Vec<u8>> {
        let mut requests = graph.requests().zip(&self.signatures);
        let (request, signature) = requests
            .find(|(request, _)| request.role == role && request.input == input && request.leaf == leaf)?;
        Some(request.item(signature))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_any_bit_changed_is_refused() {
        let set = SignatureSet { graph: [3; 32], signatures: vec![[1; 64], [2; 64]] };
        let bytes = set.encode();
        assert_eq!(SignatureSet::decode(&bytes).unwrap(), set);
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 4;
            assert!(SignatureSet::decode(&other).is_err(), "byte {at}");
            assert!(SignatureSet::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }
}

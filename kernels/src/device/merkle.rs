//! Merkle trees on a device: `cuda/poseidon2.cu`.

use ark_bn254::Fr;

use super::{decode, narrow, per_thread, Argument, Device, DeviceError, Launch};

/// Digests that the last launch starts from at most.
const TOP: usize = 256;

/// The digests of a tree, on the device: all levels one after another, leaves first, the root last.
#[derive(Debug)]
pub struct DeviceTree<B> {
    nodes: B,
    padded: usize,
}

impl<B> DeviceTree<B> {
    /// Hashes `height` rows of `width` 31-bit values, which lie one after another in `rows`, four little-endian bytes each.
    ///
    /// Memory: 64 bytes a padded row. Cost: as [`crate::merkle::MerkleTree::build`], which gives the same digests.
    ///
    /// # Errors
    /// Those of the device; [`DeviceError::TooLarge`] from 2^31 rows on.
    ///
    /// # Panics
    /// If there are no rows.
    pub fn build<D: Device<Buffer = B>>(
        device: &D,
        rows: &B,
        height: usize,
        width: usize,
    ) -> Result<Self, DeviceError> {
        assert!(height > 0, "a tree needs a row");
        let padded = height.next_power_of_two();
        narrow("nodes of a tree", 2 * padded)?;
        let nodes = device.alloc(32 * (2 * padded - 1))?;
        let number = |value: usize| Argument::Number(value as u32);
        device.launch(
            per_thread("poseidon2_rows_kernel", padded, 128)?,
            &[
                Argument::Buffer(rows),
                Argument::Buffer(&nodes),
                number(height),
                Argument::Number(narrow("width", width)?),
                number(padded),
            ],
        )?;
        let (mut from, mut count) = (0, padded);
        while count > TOP {
            let arguments = [Argument::Buffer(&nodes), number(from), number(from + count), number(count / 2)];
            device.launch(per_thread("poseidon2_level_kernel", count / 2, 128)?, &arguments)?;
            (from, count) = (from + count, count / 2);
        }
        if count > 1 {
            let block = (count as u32 / 2).clamp(32, 128);
            let launch = Launch { kernel: "poseidon2_top_kernel", grid: 1, block, shared: 32 * count as u32 };
            device.launch(launch, &[Argument::Buffer(&nodes), number(from), number(count)])?;
        }
        Ok(Self { nodes, padded })
    }

    /// The digests of level `level`, leaves being level 0; the root is the last level's only one.
    ///
    /// # Errors
    /// [`DeviceError::Lost`].
    ///
    /// # Panics
    /// If the tree has no such level.
    pub fn level<D: Device<Buffer = B>>(&self, device: &D, level: u32) -> Result<Vec<Fr>, DeviceError> {
        assert!(level <= self.padded.trailing_zeros(), "a level of the tree");
        let count = self.padded >> level;
        let from = 2 * (self.padded - count);
        Ok(decode(&device.download(&self.nodes, 32 * from..32 * (from + count))?))
    }
}

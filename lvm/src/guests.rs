//! The guest programs as committed in `guest/elf`; `guest/build.sh` makes them again, byte for byte.

use assay_lvm_core::{BlockProgram, CodeControlGroup, VkHash};

/// Program `block`: executes a run of blocks. Input: one item, an encoded [`RunInput`](assay_lvm_core::RunInput).
pub const BLOCK_ELF: &[u8] = include_bytes!("../guest/elf/block.elf");

/// Program `fold`: joins the block proofs of a batch and the history before it. First input item: an encoded
/// [`FoldInput`](assay_lvm_core::FoldInput).
pub const FOLD_ELF: &[u8] = include_bytes!("../guest/elf/fold.elf");

/// The code control group of a history under one epoch's programs: one block program, allowed for every block.
pub fn code_control_group(
    genesis_commitment: [u8; 32],
    block_program: VkHash,
    fold_program: VkHash,
) -> CodeControlGroup {
    let everywhere = BlockProgram { first_block: 0, last_block: u64::MAX, vk: block_program };
    CodeControlGroup { genesis_commitment, fold_program, block_programs: vec![everywhere] }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn programs_have_the_committed_sha256() {
        let programs = [
            (BLOCK_ELF, include_str!("../guest/elf/block.elf.sha256"), "block.elf"),
            (FOLD_ELF, include_str!("../guest/elf/fold.elf.sha256"), "fold.elf"),
        ];
        for (elf, line, name) in programs {
            assert_eq!(&elf[..4], b"\x7fELF", "{name}");
            assert_eq!(line.trim_end(), format!("{}  {name}", hex::encode(Sha256::digest(elf))));
        }
    }
}

//! The guest programs, as committed in `lvm/guest/elf`; `lvm/guest/README.md` says how they are rebuilt.
//!
//! A change of a program changes its key, and with the key the code control group's root: programs are replaced on
//! purpose, never by the way.

/// Program `block`: executes a run of blocks ([`assay_lvm_core::execute_run`]).
pub const BLOCK_ELF: &[u8] = include_bytes!("../guest/elf/block.elf");

/// Program `fold`: joins a batch's block proofs and the history before it ([`assay_lvm_core::fold::check`]).
pub const FOLD_ELF: &[u8] = include_bytes!("../guest/elf/fold.elf");

/// Program `vectors`: runs cryptographic test vectors through the same system calls; for tests only.
pub const VECTORS_ELF: &[u8] = include_bytes!("../guest/elf/vectors.elf");

/// SHA-256 of [`BLOCK_ELF`] in hexadecimal, then two spaces and the file's name, as `sha256sum` writes it.
pub const BLOCK_ELF_SHA256: &str = include_str!("../guest/elf/block.elf.sha256");

/// The same for [`FOLD_ELF`].
pub const FOLD_ELF_SHA256: &str = include_str!("../guest/elf/fold.elf.sha256");

/// The same for [`VECTORS_ELF`].
pub const VECTORS_ELF_SHA256: &str = include_str!("../guest/elf/vectors.elf.sha256");

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn every_program_is_the_one_whose_hash_is_committed() {
        let programs = [
            ("block.elf", BLOCK_ELF, BLOCK_ELF_SHA256),
            ("fold.elf", FOLD_ELF, FOLD_ELF_SHA256),
            ("vectors.elf", VECTORS_ELF, VECTORS_ELF_SHA256),
        ];
        for (name, elf, committed) in programs {
            assert_eq!(committed, format!("{}  {name}\n", hex::encode(Sha256::digest(elf))));
        }
    }
}

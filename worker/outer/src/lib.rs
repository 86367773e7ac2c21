//! The wrap prover's outer hash: BN254 Poseidon2 and Merkle trees on our own field code.

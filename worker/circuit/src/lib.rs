//! The wrap circuit: an R1CS that verifies the zkVM's outer proof.

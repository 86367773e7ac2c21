//! Owns batches: pipeline, resume, verification, settlement, and the command line assay.

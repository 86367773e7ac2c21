//! Writing that cannot fail: our own types have string keys in JSON, and nothing that bincode cannot write.

use serde::Serialize;

pub(crate) fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("the crate's own types have only string keys")
}

pub(crate) fn binary<T: Serialize>(value: &T) -> Vec<u8> {
    bincode::serialize(value).expect("the crate's own types have a known size")
}

//! Byte strings of fixed length as hex in JSON. (The `hex` crate can do this by a feature, which would rebuild the zkVM.)

use serde::{Deserialize, Deserializer, Serializer};

pub(crate) fn serialize<S: Serializer, T: Bytes>(bytes: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex::encode(bytes.bytes()))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>, T: Bytes>(deserializer: D) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    let bytes = hex::decode(&text).map_err(serde::de::Error::custom)?;
    T::of(&bytes)
        .ok_or_else(|| serde::de::Error::custom(format!("{} bytes are too many or too few", bytes.len())))
}

/// What is written as hex.
pub(crate) trait Bytes: Sized {
    fn bytes(&self) -> &[u8];
    fn of(bytes: &[u8]) -> Option<Self>;
}

impl<const N: usize> Bytes for [u8; N] {
    fn bytes(&self) -> &[u8] {
        self
    }

    fn of(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok()
    }
}

//! Byte strings of fixed length as hex in JSON. (The `hex` crate can do this by a feature, which would rebuild the zkVM.)

use serde::{Deserialize, Deserializer, Serializer};

/// Writes bytes as hex digits.
///
/// # Errors
/// The serializer's.
pub fn serialize<S: Serializer, T: Bytes>(bytes: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex::encode(bytes.bytes()))
}

/// Reads hex digits.
///
/// # Errors
/// For other text, and for too many or too few digits.
pub fn deserialize<'de, D: Deserializer<'de>, T: Bytes>(deserializer: D) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    let bytes = hex::decode(&text).map_err(serde::de::Error::custom)?;
    T::of(&bytes)
        .ok_or_else(|| serde::de::Error::custom(format!("{} bytes are too many or too few", bytes.len())))
}

/// What is written as hex.
pub trait Bytes: Sized {
    /// The bytes.
    fn bytes(&self) -> &[u8];

    /// The value of these bytes, if they are as many as it takes.
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

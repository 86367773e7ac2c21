//! Reading JSON of others: typed values by key, with the path to the culprit in every error.

use alloy_primitives::{Address, Bytes, B256, U256};
use serde_json::Value;

use crate::error::BatchError;

/// A JSON value and where it was found.
#[derive(Debug, Clone)]
pub(crate) struct Json<'a> {
    value: &'a Value,
    path: String,
}

impl<'a> Json<'a> {
    pub(crate) fn new(value: &'a Value, name: &str) -> Self {
        Self { value, path: name.to_owned() }
    }

    pub(crate) fn fail(&self, reason: impl Into<String>) -> BatchError {
        BatchError::Json { item: self.path.clone(), reason: reason.into() }
    }

    /// The value at the first of `keys` that is there and not null.
    pub(crate) fn maybe(&self, keys: &[&str]) -> Option<Json<'a>> {
        let object = self.value.as_object()?;
        keys.iter().find_map(|key| {
            let value = object.get(*key).filter(|value| !value.is_null())?;
            Some(Json { value, path: format!("{}.{key}", self.path) })
        })
    }

    /// Like [`Self::maybe`], but it has to be there.
    pub(crate) fn get(&self, keys: &[&str]) -> Result<Json<'a>, BatchError> {
        self.maybe(keys).ok_or_else(|| self.fail(format!("no field {}", keys.join(" or "))))
    }

    pub(crate) fn items(&self) -> Result<Vec<Json<'a>>, BatchError> {
        let items = self.value.as_array().ok_or_else(|| self.fail("expected an array"))?;
        let item = |(index, value)| Json { value, path: format!("{}[{index}]", self.path) };
        Ok(items.iter().enumerate().map(item).collect())
    }

    pub(crate) fn fields(&self) -> Result<Vec<(&'a str, Json<'a>)>, BatchError> {
        let object = self.value.as_object().ok_or_else(|| self.fail("expected an object"))?;
        let field = |(key, value): (&'a String, _)| {
            (key.as_str(), Json { value, path: format!("{}.{key}", self.path) })
        };
        Ok(object.iter().map(field).collect())
    }

    pub(crate) fn text(&self) -> Result<&'a str, BatchError> {
        self.value.as_str().ok_or_else(|| self.fail("expected a string"))
    }

    pub(crate) fn bool(&self) -> Result<bool, BatchError> {
        self.value.as_bool().ok_or_else(|| self.fail("expected a boolean"))
    }

    /// Hex with or without `0x`.
    pub(crate) fn bytes(&self) -> Result<Bytes, BatchError> {
        let text = self.text()?;
        let digits = text.strip_prefix("0x").unwrap_or(text);
        hex::decode(digits).map(Bytes::from).map_err(|error| self.fail(error.to_string()))
    }

    /// A number, or a string of hex with `0x` or of decimal digits.
    pub(crate) fn u256(&self) -> Result<U256, BatchError> {
        if let Some(number) = self.value.as_u64() {
            return Ok(U256::from(number));
        }
        // Numbers beyond 64 bits arrive as text; `0x` alone stands for zero in some test files.
        let text = self.text()?;
        let parsed = match text.strip_prefix("0x") {
            Some("") => return Ok(U256::ZERO),
            Some(digits) => U256::from_str_radix(digits, 16),
            None => U256::from_str_radix(text, 10),
        };
        parsed.map_err(|error| self.fail(error.to_string()))
    }

    pub(crate) fn u64(&self) -> Result<u64, BatchError> {
        u64::try_from(self.u256()?).map_err(|_| self.fail("exceeds 64 bits"))
    }

    pub(crate) fn u128(&self) -> Result<u128, BatchError> {
        u128::try_from(self.u256()?).map_err(|_| self.fail("exceeds 128 bits"))
    }

    pub(crate) fn b256(&self) -> Result<B256, BatchError> {
        B256::try_from(self.bytes()?.as_ref()).map_err(|_| self.fail("expected 32 bytes"))
    }

    pub(crate) fn address(&self) -> Result<Address, BatchError> {
        Address::try_from(self.bytes()?.as_ref()).map_err(|_| self.fail("expected 20 bytes"))
    }
}

/// Parses a whole JSON file.
pub(crate) fn read(path: &std::path::Path) -> Result<Value, BatchError> {
    let text = crate::batch::read_file(path, "JSON file")?;
    serde_json::from_slice(&text)
        .map_err(|error| BatchError::Json { item: path.display().to_string(), reason: error.to_string() })
}

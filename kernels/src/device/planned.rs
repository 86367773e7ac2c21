//! What memory is planned for, in words.

use std::fmt::{Display, Formatter, Result};

/// What memory is planned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Planned {
    /// A Groth16 proof over a domain of so many points.
    Proof(u64),
    /// A sum over so many points.
    Sum(u64),
    /// A transform of so many values.
    Transform(u64),
}

impl Display for Planned {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match *self {
            Self::Proof(points) => write!(f, "a Groth16 proof over {} points", Count(points)),
            Self::Sum(points) => write!(f, "a sum over {} points", Count(points)),
            Self::Transform(values) => write!(f, "a transform of {} values", Count(values)),
        }
    }
}

/// A number, with its power of two where little else is in it.
struct Count(u64);

impl Display for Count {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let power = self.0.trailing_zeros();
        match self.0.checked_shr(power) {
            Some(1) if power >= 10 => write!(f, "2^{power}"),
            Some(odd @ (3 | 9)) if power >= 10 => write!(f, "{odd} * 2^{power}"),
            _ => write!(f, "{}", self.0),
        }
    }
}

/// A number of bytes in the largest unit that it fills: `5.2 GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let units = [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units.into_iter().find(|(unit, _)| self.0 >= *unit) {
            Some((unit, name)) => write!(f, "{:.1} {name}", self.0 as f64 / unit as f64),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::DeviceError;
    use super::*;

    #[test]
    fn too_little_memory_is_told_with_what_is_missing_and_what_for() {
        let error = |what, needed, free| DeviceError::TooLittleMemory { what, needed, free }.to_string();
        assert_eq!(
            error(Planned::Proof(1 << 23), 5_583_457_485, 3_328_599_655),
            "out of device memory: a Groth16 proof over 2^23 points needs at least 5.2 GiB, 3.1 GiB are free: \
             2.1 GiB are missing"
        );
        assert_eq!(
            error(Planned::Transform(3 << 22), 1 << 20, 1 << 10),
            "out of device memory: a transform of 3 * 2^22 values needs at least 1.0 MiB, 1.0 KiB are free: \
             1023.0 KiB are missing"
        );
        assert_eq!(
            error(Planned::Sum(1100), 2000, 1000),
            "out of device memory: a sum over 1100 points needs at least 2.0 KiB, 1000 bytes are free: \
             1000 bytes are missing"
        );
        for (count, text) in
            [(0, "0"), (512, "512"), (1024, "2^10"), (9 << 12, "9 * 2^12"), (5 << 12, "20480")]
        {
            assert_eq!(Count(count).to_string(), text);
        }
    }
}

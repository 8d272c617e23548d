//! Amounts of memory: read from the command line, and printed.

use std::{fmt, str::FromStr};

/// An amount of memory on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    /// Decimal units, as the sizes of devices are given.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = *self;
        let text = match bytes {
            0..10_000_000 => format!("{:.2} MB", bytes as f64 / 1e6),
            10_000_000..1_000_000_000 => format!("{:.0} MB", bytes as f64 / 1e6),
            _ => format!("{:.2} GB", bytes as f64 / 1e9),
        };
        f.pad(&text)
    }
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let scale = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1.0,
            "mb" => 1e6,
            "gb" => 1e9,
            "mib" => f64::from(1 << 20),
            "gib" => f64::from(1 << 30),
            _ => return Err(format!("`{unit}` is not a unit; write it as 80GB, 79GiB or 512MB")),
        };
        match number.trim().parse::<f64>() {
            Ok(number) if number.is_finite() && number > 0.0 => Ok(Self((number * scale) as u64)),
            _ => Err("write it as 80GB, 79GiB or 512MB".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_units() {
        for (text, bytes) in [("80GB", 80_000_000_000), ("1.5 gib", 1_610_612_736), ("512MB", 512_000_000), ("7", 7)] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
        for wrong in ["", "GB", "-1GB", "80TB", "infGB", "nan"] {
            assert!(wrong.parse::<Bytes>().is_err(), "{wrong}");
        }
        let printed = [1_500_000, 15_400_000, 80_000_000_000].map(|bytes| Bytes(bytes).to_string());
        assert_eq!(printed, ["1.50 MB", "15 MB", "80.00 GB"]);
    }
}

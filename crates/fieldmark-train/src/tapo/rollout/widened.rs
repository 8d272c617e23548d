//! f32 stored as the f64 of the same value. The shortest decimal of an f32, read as an f64 and rounded, may be the f32 next to it.

use serde::{Deserialize, Deserializer, Serializer};

pub(crate) fn serialize<S: Serializer>(values: &[f32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().map(|&value| f64::from(value)))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f32>, D::Error> {
    Ok(Vec::<f64>::deserialize(deserializer)?.into_iter().map(|value| value as f32).collect())
}

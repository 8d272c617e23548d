//! Values of one of three floating point types, read and written as f32.

use half::{bf16, f16, slice::HalfFloatSliceExt};

/// Values of a tensor in one piece.
pub enum Floats<'a> {
    /// 32 bits.
    F32(&'a mut [f32]),
    /// 16 bits, 11 of them for the digits.
    F16(&'a mut [f16]),
    /// 16 bits, 8 of them for the digits.
    Bf16(&'a mut [bf16]),
}

impl Floats<'_> {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }

    /// Returns true if there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the first `count` values and the others.
    pub fn split_at(self, count: usize) -> (Self, Self) {
        match self {
            Self::F32(values) => {
                let (first, rest) = values.split_at_mut(count);
                (Self::F32(first), Self::F32(rest))
            }
            Self::F16(values) => {
                let (first, rest) = values.split_at_mut(count);
                (Self::F16(first), Self::F16(rest))
            }
            Self::Bf16(values) => {
                let (first, rest) = values.split_at_mut(count);
                (Self::Bf16(first), Self::Bf16(rest))
            }
        }
    }

    /// Writes the values to `to`, of the same length.
    pub fn load(&self, to: &mut [f32]) {
        match self {
            Self::F32(values) => to.copy_from_slice(values),
            Self::F16(values) => values.convert_to_f32_slice(to),
            Self::Bf16(values) => values.convert_to_f32_slice(to),
        }
    }

    /// Replaces the values by those of `from`, of the same length, rounded to the nearest.
    pub fn store(&mut self, from: &[f32]) {
        match self {
            Self::F32(values) => values.copy_from_slice(from),
            Self::F16(values) => values.convert_from_f32_slice(from),
            Self::Bf16(values) => values.convert_from_f32_slice(from),
        }
    }
}

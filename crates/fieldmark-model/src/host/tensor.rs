//! An f32 tensor of Flex and its values.

use std::ops::Range;

use burn::{
    backend::{Flex, flex::FlexTensor},
    tensor::{DType, Tensor},
};

use super::{Floats, is_host};

/// A tensor of the CPU backend without a tape, its values in one piece.
pub struct HostTensor(FlexTensor);

impl HostTensor {
    /// Takes an f32 tensor. A view whose values are not in one piece is copied.
    ///
    /// # Errors
    /// Returns `x` if it is on another device, of another type, or has autodiff.
    pub fn of<const D: usize>(x: Tensor<D>) -> Result<Self, Tensor<D>> {
        if x.dtype() == DType::F32 { Self::floating(x) } else { Err(x) }
    }

    /// Like [`Self::of`], for a tensor of f32, f16 or bf16.
    ///
    /// # Errors
    /// Returns the errors of [`Self::of`].
    pub fn floating<const D: usize>(x: Tensor<D>) -> Result<Self, Tensor<D>> {
        let floats = matches!(x.dtype(), DType::F32 | DType::F16 | DType::BF16);
        if !floats || x.is_autodiff() || !is_host(&x.device()) {
            return Err(x);
        }
        let tensor = x.try_into_primitive::<Flex>().expect("the tensor is one of Flex without autodiff");
        Ok(Self::in_one_piece(tensor))
    }

    /// Takes a tensor of Flex of f32, f16 or bf16. A view whose values are not in one piece is copied.
    pub(super) fn in_one_piece(tensor: FlexTensor) -> Self {
        Self(if tensor.is_contiguous() { tensor } else { tensor.to_contiguous() })
    }

    /// Returns zeros of this shape and type.
    pub(super) fn zeros_like(&self) -> Self {
        Self(FlexTensor::zeros(self.0.layout().shape().clone(), self.0.dtype()))
    }

    /// Returns the tensor of Flex.
    pub(super) fn into_flex(self) -> FlexTensor {
        self.0
    }

    /// The values of an f32 tensor, row by row.
    pub fn values(&self) -> &[f32] {
        self.0.as_slice().expect("the values are f32 and in one piece")
    }

    /// The values of an f32 tensor, row by row. They are copied first if another tensor shares them.
    pub fn values_mut(&mut self) -> &mut [f32] {
        let range = self.own();
        &mut self.0.storage_mut()[range]
    }

    /// The values, row by row. They are copied first if another tensor shares them.
    pub fn floats_mut(&mut self) -> Floats<'_> {
        let range = self.own();
        match self.0.dtype() {
            DType::F16 => Floats::F16(&mut self.0.storage_mut()[range]),
            DType::BF16 => Floats::Bf16(&mut self.0.storage_mut()[range]),
            _ => Floats::F32(&mut self.0.storage_mut()[range]),
        }
    }

    /// Makes the values this tensor's own and returns their place in its memory.
    fn own(&mut self) -> Range<usize> {
        if !self.0.is_unique() {
            // Data of a shared tensor is a copy of the part in use.
            self.0 = FlexTensor::from_data(self.0.clone().into_data());
        }
        let (start, end) = self.0.layout().contiguous_offsets().expect("the values are in one piece");
        start..end
    }

    /// Returns the tensor.
    pub fn into_tensor<const D: usize>(self) -> Tensor<D> {
        Tensor::from_primitive::<Flex>(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn numbers() -> Tensor<2> {
        Tensor::from_floats([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], &Device::flex())
    }

    fn doubled(x: Tensor<2>) -> (Vec<f32>, *const f32) {
        let mut host = HostTensor::of(x).ok().unwrap();
        host.values_mut().iter_mut().for_each(|x| *x *= 2.0);
        let place = host.values().as_ptr();
        (host.into_tensor::<2>().into_data().iter().collect(), place)
    }

    #[test]
    fn a_tensor_with_one_owner_is_changed_in_place_and_a_shared_one_copied() {
        let x = HostTensor::of(numbers()).ok().unwrap();
        let place = x.values().as_ptr();
        let x = x.into_tensor::<2>();
        assert_ne!(doubled(x.clone()).1, place);
        let (values, found) = doubled(x.clone().narrow(0, 1, 1));
        assert_eq!((values, found == place), (vec![8.0, 10.0, 12.0], false));
        assert_eq!(x.to_data().iter::<f32>().collect::<Vec<_>>(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(doubled(x), (vec![2.0, 4.0, 6.0, 8.0, 10.0, 12.0], place));
    }

    #[test]
    fn views_keep_the_order_of_their_values() {
        assert_eq!(doubled(numbers().transpose()).0, [2.0, 8.0, 4.0, 10.0, 6.0, 12.0]);
        assert_eq!(doubled(numbers().slice([0..2, 1..2])).0, [4.0, 10.0]);
    }

    #[test]
    fn other_types_and_tapes_are_given_back() {
        assert!(HostTensor::of(numbers().cast(DType::F64)).is_err());
        assert!(HostTensor::of(numbers().autodiff()).is_err());
    }
}

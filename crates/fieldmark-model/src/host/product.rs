//! x · wᵀ with a gradient for w in w's own order.
//!
//! Burn's product takes wᵀ as a view, and its backward pass leaves the gradient of w as a transposed view of `xᵀ · g`.
//! Every later sum, norm and step then walks it against its order in memory. Here it is `gᵀ · x`.

use burn::{
    backend::{Flex, flex::FlexTensor, ops::FloatTensorOps},
    tensor::Tensor,
};

use super::tape::{Kept, put_on_tape, taken_from_tape};

/// Returns `x · wᵀ` for x `[rows, in]` and w `[out, in]`.
///
/// # Errors
/// Returns both if one of them is not on a tape of the CPU backend, or their types differ.
pub fn times_transposed(x: Tensor<2>, w: Tensor<2>) -> Result<Tensor<2>, [Tensor<2>; 2]> {
    if !w.is_autodiff() || w.dtype() != x.dtype() {
        return Err([x, w]);
    }
    let (x, x_node) = match taken_from_tape(x) {
        Ok(taken) => taken,
        Err(x) => return Err([x, w]),
    };
    let (w, w_node) = taken_from_tape(w).expect("both factors are on one tape");
    let y = Flex::float_matmul(x.clone(), Flex::float_transpose(w.clone()));
    Ok(put_on_tape([x_node, w_node], Factors { x, w }, y))
}

#[derive(Debug, Clone)]
struct Factors {
    x: FlexTensor,
    w: FlexTensor,
}

impl Kept<2> for Factors {
    fn gradients(self, grad: FlexTensor, [x, w]: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let x_grad = x.then(|| Flex::float_matmul(grad.clone(), self.w));
        [x_grad, w.then(|| Flex::float_matmul(Flex::float_transpose(grad), self.x))]
    }
}

//! Operations of our own on Burn's tape, for tensors of the CPU backend.

use std::{fmt::Debug, marker::PhantomData};

use burn::{
    backend::{
        Autodiff, Flex,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::NoCheckpointing},
            grads::Gradients,
            ops::{Backward, NodeGuard, Ops, OpsKind},
        },
        flex::FlexTensor,
    },
    tensor::{GradientCheckpointingStrategy, Tensor},
};

use super::is_host;

/// What an operation on N tensors keeps for its backward pass.
pub trait Kept<const N: usize>: Clone + Debug + Send + 'static {
    /// Returns the gradients of the inputs, given that of the result. Those of inputs that are not `needed` are ignored.
    fn gradients(self, grad: FlexTensor, needed: [bool; N]) -> [Option<FlexTensor>; N];
}

#[derive(Debug)]
struct Operation<K>(PhantomData<K>);

impl<K: Kept<N>, const N: usize> Backward<Flex, N> for Operation<K> {
    type State = K;

    fn backward(self, ops: Ops<K, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node);
        let needed = ops.parents.each_ref().map(Option::is_some);
        for (node, grad) in ops.parents.into_iter().zip(ops.state.gradients(grad, needed)) {
            if let Some((node, grad)) = node.zip(grad) {
                grads.register::<Flex>(node.id, grad);
            }
        }
    }
}

/// Takes a float tensor with autodiff apart, into its value and its place on the tape.
///
/// # Errors
/// Returns `x` if it is on another device, or its tape is none or one that computes values again.
pub fn taken_from_tape<const D: usize>(x: Tensor<D>) -> Result<(FlexTensor, NodeGuard), Tensor<D>> {
    let device = x.device();
    let plain_tape = device.gradient_checkpointing_strategy() == Some(GradientCheckpointingStrategy::Disabled);
    if !x.is_autodiff() || !plain_tape || !is_host(&device) || !x.dtype().is_float() {
        return Err(x);
    }
    let x = x.try_into_primitive::<Autodiff<Flex>>().expect("the tensor is a float tensor of Flex with autodiff");
    Ok(x.into_parts())
}

/// Puts `output`, the result of an operation on `inputs`, on their tape, with what its backward pass needs.
pub fn put_on_tape<const D: usize, const N: usize>(
    inputs: [NodeGuard; N],
    kept: impl Kept<N>,
    output: FlexTensor,
) -> Tensor<D> {
    let operation = Operation(PhantomData).prepare::<NoCheckpointing>(inputs);
    let output = match operation.compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(kept, output),
        OpsKind::UnTracked(prep) => prep.finish(output),
    };
    Tensor::from_primitive::<Autodiff<Flex>>(output)
}

//! Operations of our own on Burn's tape, for tensors of the CPU backend.

use burn::{
    backend::{
        Autodiff, Flex,
        autodiff::{
            checkpoint::strategy::NoCheckpointing,
            ops::{Backward, NodeGuard, OpsKind},
        },
        flex::FlexTensor,
    },
    tensor::{GradientCheckpointingStrategy, Tensor},
};

use super::is_host;

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

/// Puts `output`, the result of an operation on `inputs`, on their tape. `state` is for the operation's backward pass.
pub fn put_on_tape<const D: usize, const N: usize, O>(
    operation: O,
    inputs: [NodeGuard; N],
    state: O::State,
    output: FlexTensor,
) -> Tensor<D>
where
    O: Backward<Flex, N>,
{
    let output = match operation.prepare::<NoCheckpointing>(inputs).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(state, output),
        OpsKind::UnTracked(prep) => prep.finish(output),
    };
    Tensor::from_primitive::<Autodiff<Flex>>(output)
}

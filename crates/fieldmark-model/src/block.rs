//! The interface shared by the blocks of encoder and decoder: a pre-norm block split before and after attention.
//!
//! `project` and `finish` hold all weights; attention between them has none. A trainer that recomputes blocks, or
//! computes attention in chunks, calls the three steps itself.

use burn::{module::Module, tensor::Tensor};

use crate::attention::{AttentionLayout, rotary::Rotary};

/// A pre-norm transformer block.
pub trait AttentionBlock: Module {
    /// Applies norm, projections and rotary embedding to `[batch, seq, width]`. Returns queries, keys and values,
    /// `[batch, seq, heads, head_dim]` each; keys and values may have fewer heads.
    fn project(&self, x_btd: Tensor<3>, rotary: &Rotary) -> [Tensor<4>; 3];

    /// Applies output projection, MLP and both residual sums. `x_btd` is the block's input; `attended` is the result of
    /// attention, `[batch, seq, heads, head_dim]`. Returns the block's output, `[batch, seq, width]`.
    fn finish(&self, x_btd: Tensor<3>, attended: Tensor<4>) -> Tensor<3>;

    /// Runs the whole block.
    fn run(&self, x_btd: Tensor<3>, rotary: &Rotary, layout: &AttentionLayout) -> Tensor<3> {
        let attended = layout.attend(self.project(x_btd.clone(), rotary));
        self.finish(x_btd, attended)
    }
}

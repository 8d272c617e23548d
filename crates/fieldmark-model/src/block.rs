//! What the blocks of both networks have in common: a pre-norm block cut at its attention.
//!
//! `project` and `finish` are everything with weights; attention between them has none. A trainer that recomputes blocks
//! or scores queries in chunks runs the three pieces itself.

use burn::{module::Module, tensor::Tensor};

use crate::attention::{AttentionLayout, rotary::Rotary};

/// A pre-norm transformer block.
pub trait AttentionBlock: Module {
    /// Norm, projections and rotary embedding: `[batch, seq, width]` to queries, keys and values,
    /// `[batch, seq, heads, head_dim]` each; keys and values may have fewer heads.
    fn project(&self, x_btd: Tensor<3>, rotary: &Rotary) -> [Tensor<4>; 3];

    /// Output projection, MLP and both residual sums. `x_btd` is the block's input, `attended` the result of attention,
    /// `[batch, seq, heads, head_dim]`. Returns the block's output, `[batch, seq, width]`.
    fn finish(&self, x_btd: Tensor<3>, attended: Tensor<4>) -> Tensor<3>;

    /// The whole block.
    fn run(&self, x_btd: Tensor<3>, rotary: &Rotary, layout: &AttentionLayout) -> Tensor<3> {
        let attended = layout.attend(self.project(x_btd.clone(), rotary));
        self.finish(x_btd, attended)
    }
}

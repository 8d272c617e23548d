//! One block of the decoder: grouped-query attention with rotary embedding and KV cache, then a gated MLP.
//!
//! Reference: `Qwen2_5_VLDecoderLayer`. Query, key and value have biases; the output projection has none.

use burn::{
    module::Module,
    nn::{RmsNorm, RmsNormConfig},
    tensor::{Device, Tensor},
};

use crate::{
    attention::{AttentionLayout, LayerCache, rotary::Rotary},
    block::AttentionBlock,
    config::TextConfig,
    mlp::GatedMlp,
    norm::rms_norm,
    projection::Projection,
};

/// The four projections of grouped-query attention.
#[derive(Module, Debug)]
pub struct TextAttention {
    pub(crate) q_proj: Projection,
    pub(crate) k_proj: Projection,
    pub(crate) v_proj: Projection,
    pub(crate) o_proj: Projection,
    head_dim: usize,
}

impl TextAttention {
    fn new(config: &TextConfig, device: &Device) -> Self {
        let (width, dim) = (config.hidden_size, config.head_dim());
        let linear = |heads| Projection::new(width, heads * dim, true, device);
        Self {
            q_proj: linear(config.num_attention_heads),
            k_proj: linear(config.num_key_value_heads),
            v_proj: linear(config.num_key_value_heads),
            o_proj: Projection::new(width, width, false, device),
            head_dim: dim,
        }
    }

    /// Projects `x_btd` to queries, keys and values, `[batch, seq, heads, head_dim]` each.
    fn project(&self, x_btd: Tensor<3>, rotary: &Rotary) -> [Tensor<4>; 3] {
        let [batch, seq, _] = x_btd.dims();
        // [batch, seq, heads · dim] -> [batch, heads, seq, dim]
        let heads = |x: Tensor<3>| {
            let count = x.dims()[2] / self.head_dim;
            x.reshape([batch, seq, count, self.head_dim]).swap_dims(1, 2)
        };
        let q = rotary.apply(heads(self.q_proj.forward(x_btd.clone())));
        let k = rotary.apply(heads(self.k_proj.forward(x_btd.clone())));
        let v = heads(self.v_proj.forward(x_btd));
        [q, k, v].map(|x| x.swap_dims(1, 2))
    }
}

/// Attention and MLP, each with a norm before it and added to the residual stream.
#[derive(Module, Debug)]
pub struct TextBlock {
    pub(crate) input_layernorm: RmsNorm,
    pub(crate) self_attn: TextAttention,
    pub(crate) post_attention_layernorm: RmsNorm,
    pub(crate) mlp: GatedMlp,
}

impl TextBlock {
    pub(crate) fn new(config: &TextConfig, device: &Device) -> Self {
        let norm = || RmsNormConfig::new(config.hidden_size).with_epsilon(config.rms_norm_eps).init(device);
        Self {
            input_layernorm: norm(),
            self_attn: TextAttention::new(config, device),
            post_attention_layernorm: norm(),
            mlp: GatedMlp::new(config.hidden_size, config.intermediate_size, false, device),
        }
    }

    /// Returns the linear layers with their names within the block.
    pub(crate) fn projections_mut(&mut self) -> Vec<(String, &mut Projection)> {
        let TextAttention { q_proj, k_proj, v_proj, o_proj, .. } = &mut self.self_attn;
        let attention = [("q_proj", q_proj), ("k_proj", k_proj), ("v_proj", v_proj), ("o_proj", o_proj)];
        let attention = attention.map(|(name, layer)| (format!("self_attn.{name}"), layer));
        let mlp = self.mlp.projections_mut().map(|(name, layer)| (format!("mlp.{name}"), layer));
        attention.into_iter().chain(mlp).collect()
    }

    /// Runs the block on `[batch, seq, width]` and appends keys and values of the new tokens to `cache`.
    pub(crate) fn run_cached(
        &self,
        x_btd: Tensor<3>,
        rotary: &Rotary,
        layout: &AttentionLayout,
        cache: &mut LayerCache,
    ) -> Tensor<3> {
        let [q, k, v] = self.project(x_btd.clone(), rotary);
        let (k, v) = cache.append(k.swap_dims(1, 2), v.swap_dims(1, 2));
        let attended = layout.attend([q, k.swap_dims(1, 2), v.swap_dims(1, 2)]);
        self.finish(x_btd, attended)
    }
}

impl AttentionBlock for TextBlock {
    fn project(&self, x_btd: Tensor<3>, rotary: &Rotary) -> [Tensor<4>; 3] {
        self.self_attn.project(rms_norm(&self.input_layernorm, x_btd), rotary)
    }

    fn finish(&self, x_btd: Tensor<3>, attended: Tensor<4>) -> Tensor<3> {
        let attended_btd = attended.reshape(x_btd.dims());
        let x_btd = x_btd + self.self_attn.o_proj.forward(attended_btd);
        x_btd.clone() + self.mlp.forward(rms_norm(&self.post_attention_layernorm, x_btd))
    }
}

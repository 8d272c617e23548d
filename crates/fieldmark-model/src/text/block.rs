//! One block of the decoder: grouped-query attention with rotary embedding and cache, then a gated MLP.
//!
//! Reference: `Qwen2_5_VLDecoderLayer`: biases on query, key and value, none on the output projection.

use burn::{
    module::Module,
    nn::{Linear, LinearConfig, RmsNorm, RmsNormConfig},
    tensor::{Device, Tensor},
};

use crate::{
    attention::{AttentionMask, attend},
    cache::LayerCache,
    config::TextConfig,
    mlp::GatedMlp,
    rotary::Rotary,
};

/// The four projections of grouped-query attention.
#[derive(Module, Debug)]
pub struct TextAttention {
    pub(crate) q_proj: Linear,
    pub(crate) k_proj: Linear,
    pub(crate) v_proj: Linear,
    pub(crate) o_proj: Linear,
    head_dim: usize,
}

impl TextAttention {
    fn new(config: &TextConfig, device: &Device) -> Self {
        let (width, dim) = (config.hidden_size, config.head_dim());
        let linear = |heads| LinearConfig::new(width, heads * dim).init(device);
        Self {
            q_proj: linear(config.num_attention_heads),
            k_proj: linear(config.num_key_value_heads),
            v_proj: linear(config.num_key_value_heads),
            o_proj: LinearConfig::new(width, width).with_bias(false).init(device),
            head_dim: dim,
        }
    }

    /// `x_BTD`: the new tokens, `[batch, seq, width]`; their keys and values go to the end of `cache` if there is one.
    fn forward(
        &self,
        x_BTD: Tensor<3>,
        rotary: &Rotary,
        mask: &AttentionMask,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        let [batch, seq, width] = x_BTD.dims();
        // [batch, seq, heads · dim] -> [batch, heads, seq, dim]
        let heads = |x: Tensor<3>| {
            let count = x.dims()[2] / self.head_dim;
            x.reshape([batch, seq, count, self.head_dim]).swap_dims(1, 2)
        };
        let q = rotary.apply(heads(self.q_proj.forward(x_BTD.clone())));
        let k = rotary.apply(heads(self.k_proj.forward(x_BTD.clone())));
        let v = heads(self.v_proj.forward(x_BTD));
        let (k, v) = match cache {
            Some(cache) => cache.append(k, v),
            None => (k, v),
        };
        let out_BTD = attend(q, k, v, mask).swap_dims(1, 2).reshape([batch, seq, width]);
        self.o_proj.forward(out_BTD)
    }
}

/// Pre-norm attention and MLP, each added to the residual stream.
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

    /// `[batch, seq, width]` to `[batch, seq, width]`.
    pub(crate) fn forward(
        &self,
        x_BTD: Tensor<3>,
        rotary: &Rotary,
        mask: &AttentionMask,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        let attended = self.self_attn.forward(self.input_layernorm.forward(x_BTD.clone()), rotary, mask, cache);
        let x_BTD = x_BTD + attended;
        x_BTD.clone() + self.mlp.forward(self.post_attention_layernorm.forward(x_BTD))
    }
}

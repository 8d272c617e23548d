//! One layer of SigLIP's encoder: attention in which every token sees every other, then a plain MLP.
//!
//! Reference: `SiglipEncoderLayer`, `SiglipAttention` and `SiglipMLP` of transformers.

use burn::{
    module::Module,
    nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig},
    tensor::{
        Device, Tensor,
        activation::{gelu, gelu_approximate},
    },
};

use super::config::{HiddenAct, SiglipTextConfig};
use crate::attention::{AttentionMask, attend};

/// Attention in which every projection has a bias. Reference: `SiglipAttention`.
#[derive(Module, Debug)]
pub struct SiglipAttention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    heads: usize,
}

impl SiglipAttention {
    fn new(config: &SiglipTextConfig, device: &Device) -> Self {
        let linear = || LinearConfig::new(config.hidden_size, config.hidden_size).init(device);
        Self {
            q_proj: linear(),
            k_proj: linear(),
            v_proj: linear(),
            out_proj: linear(),
            heads: config.num_attention_heads,
        }
    }

    fn forward(&self, x_btd: Tensor<3>) -> Tensor<3> {
        let [batch, seq, width] = x_btd.dims();
        let heads = |projection: &Linear| {
            let x = projection.forward(x_btd.clone());
            x.reshape([batch, seq, self.heads, width / self.heads]).swap_dims(1, 2)
        };
        let out = attend(heads(&self.q_proj), heads(&self.k_proj), heads(&self.v_proj), &AttentionMask::none());
        self.out_proj.forward(out.swap_dims(1, 2).reshape([batch, seq, width]))
    }
}

/// Two linear layers with an activation between them. Reference: `SiglipMLP`.
#[derive(Module, Debug)]
pub struct SiglipMlp {
    fc1: Linear,
    fc2: Linear,
    #[module(skip)]
    act: HiddenAct,
}

impl SiglipMlp {
    fn forward(&self, x_btd: Tensor<3>) -> Tensor<3> {
        let x = self.fc1.forward(x_btd);
        self.fc2.forward(match self.act {
            HiddenAct::GeluTanh => gelu_approximate(x),
            HiddenAct::Gelu => gelu(x),
        })
    }
}

/// Attention and MLP, each with a norm before it and added to the residual stream. Reference: `SiglipEncoderLayer`.
#[derive(Module, Debug)]
pub struct SiglipEncoderLayer {
    layer_norm1: LayerNorm,
    self_attn: SiglipAttention,
    layer_norm2: LayerNorm,
    mlp: SiglipMlp,
}

impl SiglipEncoderLayer {
    pub(super) fn new(config: &SiglipTextConfig, device: &Device) -> Self {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let linear = |from, to| LinearConfig::new(from, to).init(device);
        Self {
            layer_norm1: norm(config, device),
            self_attn: SiglipAttention::new(config, device),
            layer_norm2: norm(config, device),
            mlp: SiglipMlp { fc1: linear(width, inner), fc2: linear(inner, width), act: config.hidden_act },
        }
    }

    /// Maps `[batch, tokens, width]` to `[batch, tokens, width]`.
    pub(super) fn forward(&self, x_btd: Tensor<3>) -> Tensor<3> {
        let x_btd = x_btd.clone() + self.self_attn.forward(self.layer_norm1.forward(x_btd));
        x_btd.clone() + self.mlp.forward(self.layer_norm2.forward(x_btd))
    }
}

pub(super) fn norm(config: &SiglipTextConfig, device: &Device) -> LayerNorm {
    LayerNormConfig::new(config.hidden_size).with_epsilon(config.layer_norm_eps).init(device)
}

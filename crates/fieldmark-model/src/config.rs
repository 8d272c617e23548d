//! Sizes of a Qwen2.5-VL network, as Burn configurations.
//!
//! Reference: `Qwen2_5_VLConfig` of transformers. Reading and writing `config.json`, flat and nested, is in
//! `config_json.rs`.

use burn::config::Config;

use crate::error::ModelError;

/// What the reference class takes where a checkpoint names no longest sequence.
pub(crate) const MAX_POSITION_EMBEDDINGS: usize = 32_768;

/// The decoder (reference: `Qwen2_5_VLTextConfig`).
#[derive(Config, Debug, PartialEq)]
pub struct TextConfig {
    /// Rows of the embedding. At least the tokenizer's size.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Inner width of the gated MLP.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; divides the query heads.
    pub num_key_value_heads: usize,
    /// Frequencies for time, height and width; they sum to half the head dimension.
    pub mrope_section: [usize; 3],
    /// Base of the rotary frequencies.
    #[config(default = 1e6)]
    pub rope_theta: f64,
    /// Added to the mean square in every norm.
    #[config(default = 1e-6)]
    pub rms_norm_eps: f64,
    /// Longest sequence the model is meant for, in tokens.
    #[config(default = "MAX_POSITION_EMBEDDINGS")]
    pub max_position_embeddings: usize,
}

impl TextConfig {
    /// Width of one head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }
}

/// The vision encoder and the projector (reference: `Qwen2_5_VLVisionConfig`).
#[derive(Config, Debug, PartialEq)]
pub struct VisionConfig {
    /// Number of blocks.
    pub depth: usize,
    /// Width of the encoder.
    pub hidden_size: usize,
    /// Inner width of the gated MLP.
    pub intermediate_size: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Width after the projector: the decoder's.
    pub out_hidden_size: usize,
    /// Side of an attention window in pixels.
    pub window_size: usize,
    /// Blocks that attend over the whole image instead of a window.
    pub fullatt_block_indexes: Vec<usize>,
    /// Colour channels.
    #[config(default = 3)]
    pub in_channels: usize,
    /// Side of a patch in pixels.
    #[config(default = 14)]
    pub patch_size: usize,
    /// Side, in patches, of the square that the projector joins into one token.
    #[config(default = 2)]
    pub spatial_merge_size: usize,
    /// Frames in one patch; a still image is repeated.
    #[config(default = 2)]
    pub temporal_patch_size: usize,
}

impl VisionConfig {
    /// Numbers in one patch: channels × frames × height × width.
    pub fn patch_len(&self) -> usize {
        self.in_channels * self.temporal_patch_size * self.patch_size * self.patch_size
    }

    /// Patches that become one token.
    pub fn merge_unit(&self) -> usize {
        self.spatial_merge_size * self.spatial_merge_size
    }

    /// Width of one head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_heads
    }

    /// Side of a window in tokens (groups of merged patches).
    pub fn window_tokens(&self) -> usize {
        self.window_size / self.spatial_merge_size / self.patch_size
    }
}

/// Ids of the tokens that stand for vision in the text.
#[derive(Config, Debug, PartialEq, Eq, Copy)]
pub struct VisionTokens {
    /// `<|image_pad|>`: one for each merged patch group.
    pub image: u32,
    /// `<|video_pad|>`.
    pub video: u32,
    /// `<|vision_start|>`.
    pub start: u32,
    /// `<|vision_end|>`.
    pub end: u32,
}

impl VisionTokens {
    /// All four, which a sampler must never produce.
    pub fn all(&self) -> [u32; 4] {
        [self.image, self.video, self.start, self.end]
    }
}

/// A whole Qwen2.5-VL model (reference: `Qwen2_5_VLConfig`).
#[derive(Config, Debug, PartialEq)]
pub struct Qwen25VlConfig {
    /// The decoder.
    pub text: TextConfig,
    /// The vision encoder and projector.
    pub vision: VisionConfig,
    /// Ids of the vision tokens.
    pub vision_tokens: VisionTokens,
    /// The head is the embedding, transposed.
    pub tie_word_embeddings: bool,
    /// Id that starts a text, where the checkpoint names one.
    pub bos_token_id: Option<u32>,
    /// Id that ends a text, where the checkpoint names one.
    pub eos_token_id: Option<u32>,
}

impl Qwen25VlConfig {
    /// Checks that the sizes fit together.
    ///
    /// # Errors
    /// [`ModelError::Config`] names the first key that does not.
    pub fn validate(&self) -> Result<(), ModelError> {
        let (t, v) = (&self.text, &self.vision);
        let positive = [
            ("vocab_size", t.vocab_size),
            ("hidden_size", t.hidden_size),
            ("intermediate_size", t.intermediate_size),
            ("num_hidden_layers", t.num_hidden_layers),
            ("num_attention_heads", t.num_attention_heads),
            ("num_key_value_heads", t.num_key_value_heads),
            ("max_position_embeddings", t.max_position_embeddings),
            ("vision_config.depth", v.depth),
            ("vision_config.hidden_size", v.hidden_size),
            ("vision_config.intermediate_size", v.intermediate_size),
            ("vision_config.num_heads", v.num_heads),
            ("vision_config.in_channels", v.in_channels),
            ("vision_config.patch_size", v.patch_size),
            ("vision_config.spatial_merge_size", v.spatial_merge_size),
            ("vision_config.temporal_patch_size", v.temporal_patch_size),
        ];
        for (key, value) in positive {
            check(value > 0, key, || "must be positive".into())?;
        }
        divides("num_attention_heads", t.num_attention_heads, "hidden_size", t.hidden_size)?;
        divides("num_key_value_heads", t.num_key_value_heads, "num_attention_heads", t.num_attention_heads)?;
        let sections: usize = t.mrope_section.iter().sum();
        check(2 * sections == t.head_dim(), "rope_scaling.mrope_section", || {
            format!("sums to {sections}, but half the head dimension is {}", t.head_dim() as f64 / 2.0)
        })?;
        for (key, value) in [("rope_theta", t.rope_theta), ("rms_norm_eps", t.rms_norm_eps)] {
            check(value.is_finite() && value > 0.0, key, || "must be a positive number".into())?;
        }
        divides("vision_config.num_heads", v.num_heads, "vision_config.hidden_size", v.hidden_size)?;
        check(v.head_dim() % 4 == 0, "vision_config.num_heads", || {
            format!("gives a head dimension of {}, which must be a multiple of 4", v.head_dim())
        })?;
        check(v.out_hidden_size == t.hidden_size, "vision_config.out_hidden_size", || {
            format!("is {}, but the decoder's hidden_size is {}", v.out_hidden_size, t.hidden_size)
        })?;
        check(v.window_tokens() > 0, "vision_config.window_size", || {
            format!("is {} pixels, less than one group of merged patches", v.window_size)
        })?;
        if let Some(&block) = v.fullatt_block_indexes.iter().find(|&&block| block >= v.depth) {
            return Err(ModelError::config(
                "vision_config.fullatt_block_indexes",
                format!("names block {block}, but there are {}", v.depth),
            ));
        }
        let keys = ["image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"];
        for (key, id) in keys.into_iter().zip(self.vision_tokens.all()) {
            check((id as usize) < t.vocab_size, key, || format!("is {id}, outside a vocabulary of {}", t.vocab_size))?;
        }
        Ok(())
    }
}

fn check(ok: bool, key: &str, reason: impl FnOnce() -> String) -> Result<(), ModelError> {
    if ok { Ok(()) } else { Err(ModelError::config(key, reason())) }
}

fn divides(key: &str, part: usize, whole_key: &str, whole: usize) -> Result<(), ModelError> {
    check(whole.is_multiple_of(part), key, || format!("is {part}, which does not divide {whole_key} {whole}"))
}

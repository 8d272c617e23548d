//! Sizes of a Qwen2.5-VL network, as Burn configurations.
//!
//! Reference: `Qwen2_5_VLConfig` of transformers. `json.rs` reads and writes `config.json`, flat and nested.

use burn::config::Config;

use crate::error::ModelError;

/// The reference's default for `max_position_embeddings`.
pub(crate) const MAX_POSITION_EMBEDDINGS: usize = 32_768;

/// The sizes of the decoder (reference: `Qwen2_5_VLTextConfig`).
#[derive(Config, Debug, PartialEq)]
pub struct TextConfig {
    /// Number of rows of the embedding: at least the size of the tokenizer.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Inner width of the gated MLP.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads. It must divide the number of query heads.
    pub num_key_value_heads: usize,
    /// Number of rotary frequencies for time, height and width. They must sum to half the head dimension.
    pub mrope_section: [usize; 3],
    /// Base of the rotary frequencies.
    #[config(default = 1e6)]
    pub rope_theta: f64,
    /// Added to the mean square in every norm.
    #[config(default = 1e-6)]
    pub rms_norm_eps: f64,
    /// Length of the longest sequence that the model supports, in tokens.
    #[config(default = "MAX_POSITION_EMBEDDINGS")]
    pub max_position_embeddings: usize,
}

impl TextConfig {
    /// Returns the width of one head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }
}

/// The sizes of the vision encoder and the projector (reference: `Qwen2_5_VLVisionConfig`).
#[derive(Config, Debug, PartialEq)]
pub struct VisionConfig {
    /// Number of blocks.
    pub depth: usize,
    /// Width of the encoder.
    pub hidden_size: usize,
    /// Inner width of the gated MLP.
    pub intermediate_size: usize,
    /// Number of attention heads.
    pub num_heads: usize,
    /// Width after the projector, equal to the decoder's width.
    pub out_hidden_size: usize,
    /// Side of an attention window in pixels.
    pub window_size: usize,
    /// Indices of the blocks that attend to the whole image instead of a window.
    pub fullatt_block_indexes: Vec<usize>,
    /// Number of colour channels.
    #[config(default = 3)]
    pub in_channels: usize,
    /// Side of a patch in pixels.
    #[config(default = 14)]
    pub patch_size: usize,
    /// Side of the square that the projector joins into one token, in patches.
    #[config(default = 2)]
    pub spatial_merge_size: usize,
    /// Number of frames in one patch. A still image is repeated.
    #[config(default = 2)]
    pub temporal_patch_size: usize,
}

impl VisionConfig {
    /// Returns the number of values in one patch: channels × frames × height × width.
    pub fn patch_len(&self) -> usize {
        self.in_channels * self.temporal_patch_size * self.patch_size * self.patch_size
    }

    /// Returns the number of patches that become one token.
    pub fn merge_unit(&self) -> usize {
        self.spatial_merge_size * self.spatial_merge_size
    }

    /// Returns the width of one head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_heads
    }

    /// Returns the side of a window in tokens (groups of merged patches).
    pub fn window_tokens(&self) -> usize {
        self.window_size / self.spatial_merge_size / self.patch_size
    }
}

/// Ids of the tokens that mark images and videos in the text.
#[derive(Config, Debug, PartialEq, Eq, Copy)]
pub struct VisionTokens {
    /// `<|image_pad|>`: one for each group of merged patches.
    pub image: u32,
    /// `<|video_pad|>`.
    pub video: u32,
    /// `<|vision_start|>`.
    pub start: u32,
    /// `<|vision_end|>`.
    pub end: u32,
}

impl VisionTokens {
    /// Returns all four ids. A sampler must never produce them.
    pub fn all(&self) -> [u32; 4] {
        [self.image, self.video, self.start, self.end]
    }
}

/// The largest number of blocks. The published checkpoints have up to 80.
const MAX_BLOCKS: usize = 1 << 12;
/// The largest of the other sizes, which keeps products of two in range. The largest published one is a vocabulary of 152,064.
const MAX_SIZE: usize = 1 << 24;

/// The configuration of a Qwen2.5-VL model (reference: `Qwen2_5_VLConfig`).
#[derive(Config, Debug, PartialEq)]
pub struct Qwen25VlConfig {
    /// The decoder.
    pub text: TextConfig,
    /// The vision encoder and projector.
    pub vision: VisionConfig,
    /// Ids of the vision tokens.
    pub vision_tokens: VisionTokens,
    /// If true, the head is the transposed embedding.
    pub tie_word_embeddings: bool,
    /// Id of the token that starts a text, if the checkpoint has one.
    pub bos_token_id: Option<u32>,
    /// Ids of the tokens that end a text; none if the checkpoint names none.
    #[config(default = "Vec::new()")]
    pub eos_token_ids: Vec<u32>,
}

impl Qwen25VlConfig {
    /// Checks that the sizes fit together.
    ///
    /// # Errors
    /// Returns [`ModelError::Config`] with the first key that does not fit.
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
            let blocks = matches!(key, "num_hidden_layers" | "vision_config.depth");
            let most = if blocks { MAX_BLOCKS } else { MAX_SIZE };
            check(value <= most, key, || format!("is {value}, but at most {most} is supported"))?;
        }
        divides("num_attention_heads", t.num_attention_heads, "hidden_size", t.hidden_size)?;
        divides("num_key_value_heads", t.num_key_value_heads, "num_attention_heads", t.num_attention_heads)?;
        let sections: usize = t.mrope_section.iter().sum();
        check(2 * sections == t.head_dim(), "rope_scaling.mrope_section", || {
            format!("sums to {sections}, but must sum to half the head dimension, {}", t.head_dim() as f64 / 2.0)
        })?;
        for (key, value) in [("rope_theta", t.rope_theta), ("rms_norm_eps", t.rms_norm_eps)] {
            check(value.is_finite() && value > 0.0, key, || "must be a positive number".into())?;
        }
        divides("vision_config.num_heads", v.num_heads, "vision_config.hidden_size", v.hidden_size)?;
        check(v.head_dim() % 4 == 0, "vision_config.num_heads", || {
            format!("gives a head dimension of {}, but it must be a multiple of 4", v.head_dim())
        })?;
        check(v.out_hidden_size == t.hidden_size, "vision_config.out_hidden_size", || {
            format!("is {}, but must equal the decoder's hidden_size, {}", v.out_hidden_size, t.hidden_size)
        })?;
        check(v.window_tokens() > 0, "vision_config.window_size", || {
            format!("is {} pixels, less than one group of merged patches", v.window_size)
        })?;
        if let Some(&block) = v.fullatt_block_indexes.iter().find(|&&block| block >= v.depth) {
            return Err(ModelError::config(
                "vision_config.fullatt_block_indexes",
                format!("lists block {block}, but there are only {} blocks", v.depth),
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

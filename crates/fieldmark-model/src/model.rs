//! Vision encoder, decoder and head together.
//!
//! Reference: `Qwen2_5_VLForConditionalGeneration`. Image embeddings take the places of the image tokens.

use std::ops::Range;

use burn::{
    module::Module,
    nn::{Linear, LinearConfig},
    tensor::{Device, Int, Tensor, TensorData},
};

use crate::{
    attention::KvCache,
    config::Qwen25VlConfig,
    inputs::{ImageInputs, ModelInputs},
    positions::RopePosition,
    text::TextDecoder,
    vision::{VisionEncoder, VisionTrace},
};

/// A Qwen2.5-VL model.
#[derive(Module, Debug)]
pub struct Qwen25Vl {
    pub(crate) visual: VisionEncoder,
    pub(crate) model: TextDecoder,
    /// `None` where the head is the embedding.
    pub(crate) lm_head: Option<Linear>,
    #[module(skip)]
    config: Qwen25VlConfig,
}

/// What a forward pass goes through, for comparison with the reference.
#[derive(Debug, Clone)]
pub struct Trace {
    /// The encoder's stages; `None` for text alone.
    pub vision: Option<VisionTrace>,
    /// Embeddings with images in place, `[batch, seq, width]`.
    pub inputs_embeds: Tensor<3>,
    /// After each block, `[batch, seq, width]`.
    pub layers: Vec<Tensor<3>>,
    /// After the final norm, `[batch, seq, width]`.
    pub norm: Tensor<3>,
    /// `[batch, seq, vocab]`.
    pub logits: Tensor<3>,
}

impl Qwen25VlConfig {
    /// A new model with Burn's default initialisation, parameter by parameter at first use.
    pub fn init(&self, device: &Device) -> Qwen25Vl {
        let head = || LinearConfig::new(self.text.hidden_size, self.text.vocab_size).with_bias(false).init(device);
        Qwen25Vl {
            visual: self.vision.init(device),
            model: self.text.init(device),
            lm_head: (!self.tie_word_embeddings).then(head),
            config: self.clone(),
        }
    }
}

impl Qwen25Vl {
    /// The configuration the model was built from.
    pub fn config(&self) -> &Qwen25VlConfig {
        &self.config
    }

    /// The vision encoder and projector.
    pub fn visual(&self) -> &VisionEncoder {
        &self.visual
    }

    /// The decoder.
    pub fn decoder(&self) -> &TextDecoder {
        &self.model
    }

    /// Embeddings of images, `[tokens, width]`, image after image.
    pub fn encode_images(&self, images: &ImageInputs) -> Tensor<2> {
        self.visual.forward(images)
    }

    /// Embeddings of a batch with its images in place, `[batch, seq, width]`.
    pub fn embed(&self, inputs: &ModelInputs) -> Tensor<3> {
        let features = inputs.images.as_ref().map(|images| self.visual.forward(images));
        self.embed_with(inputs, features)
    }

    /// The same with the embeddings of the images at hand, `[tokens, width]` (see [`Self::encode_images`]).
    pub fn embed_with(&self, inputs: &ModelInputs, features: Option<Tensor<2>>) -> Tensor<3> {
        let text_btd = self.model.embed_tokens.forward(inputs.input_ids.clone());
        let Some(features) = features else { return text_btd };
        let [batch, seq, width] = text_btd.dims();
        let device = text_btd.device();
        // Gather instead of scatter: row i of the result is a text row or an image row of [text; image].
        let mut source: Vec<i64> = (0..(batch * seq) as i64).collect();
        for (&place, &feature) in inputs.image_index.iter().zip(&inputs.image_features) {
            source[place] = (batch * seq + feature) as i64;
        }
        let source = Tensor::<1, Int>::from_data(TensorData::new(source, [batch * seq]), &device);
        let text = text_btd.reshape([batch * seq, width]);
        let features = features.cast(text.dtype());
        Tensor::cat(vec![text, features], 0).select(0, source).reshape([batch, seq, width])
    }

    /// Hidden states of a batch after the final norm, `[batch, seq, width]`. Use [`Self::logits`] on the rows needed: the
    /// whole batch's logits are the largest tensor there is.
    pub fn forward(&self, inputs: &ModelInputs) -> Tensor<3> {
        self.model.forward(self.embed(inputs), inputs.position_ids.clone(), &inputs.rows, None)
    }

    /// The same, leaving keys and values in `cache` for [`Self::decode`].
    pub fn prefill(&self, inputs: &ModelInputs, cache: &mut KvCache) -> Tensor<3> {
        self.model.forward(self.embed(inputs), inputs.position_ids.clone(), &inputs.rows, Some(cache))
    }

    /// Hidden states of one new token a sequence, `[batch, 1, width]`. `positions[b]` is the token's rope position, and
    /// `rows[b]` where row b's real tokens lie, the new one included.
    pub fn decode(
        &self,
        tokens: &[u32],
        positions: &[RopePosition],
        rows: &[Range<usize>],
        cache: &mut KvCache,
        device: &Device,
    ) -> Tensor<3> {
        let batch = tokens.len();
        let ids: Vec<i64> = tokens.iter().map(|&id| i64::from(id)).collect();
        let line = positions.iter().map(|position| position.0 as i64);
        let positions: Vec<i64> = std::iter::repeat_n(line, 3).flatten().collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [batch, 1]), device);
        let positions = Tensor::<3, Int>::from_data(TensorData::new(positions, [3, batch, 1]), device);
        self.model.forward(self.model.embed_tokens.forward(ids), positions, rows, Some(cache))
    }

    /// Logits of hidden states, `[rows, width]` to `[rows, vocab]`.
    pub fn logits(&self, hidden_nd: Tensor<2>) -> Tensor<2> {
        match &self.lm_head {
            Some(head) => head.forward(hidden_nd),
            None => hidden_nd.matmul(self.model.embed_tokens.weight.val().transpose()),
        }
    }

    /// The matrix of the head, `[width, vocab]`: the transposed embedding where it is tied.
    pub fn head_weight(&self) -> Tensor<2> {
        match &self.lm_head {
            Some(head) => head.weight.val(),
            None => self.model.embed_tokens.weight.val().transpose(),
        }
    }

    /// Every intermediate result that the reference fixtures record.
    pub fn trace(&self, inputs: &ModelInputs) -> Trace {
        let vision = inputs.images.as_ref().map(|images| self.visual.trace(images));
        let inputs_embeds = self.embed_with(inputs, vision.as_ref().map(|trace| trace.merged.clone()));
        let mut layers = Vec::new();
        let norm = self.model.run(inputs_embeds.clone(), inputs.position_ids.clone(), &inputs.rows, None, |x| {
            layers.push(x);
        });
        let [batch, seq, width] = norm.dims();
        let logits = self.logits(norm.clone().reshape([batch * seq, width])).reshape([batch as i32, seq as i32, -1]);
        Trace { vision, inputs_embeds, layers, norm, logits }
    }
}

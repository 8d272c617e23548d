//! The whole model: vision encoder, decoder and head.
//!
//! Reference: `Qwen2_5_VLForConditionalGeneration`. Image embeddings replace the embeddings of the image tokens.

use std::ops::Range;

use burn::{
    module::{Module, Param},
    nn::{Linear, LinearConfig},
    tensor::{Device, Int, Tensor, TensorData},
};

use crate::{
    attention::{AttentionLayout, AttentionMask, KvCache},
    config::Qwen25VlConfig,
    host,
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
    /// `None` if the head is the embedding.
    pub(crate) lm_head: Option<Linear>,
    #[module(skip)]
    config: Qwen25VlConfig,
}

/// The intermediate results of a forward pass, for comparison with the reference.
#[derive(Debug, Clone)]
pub struct Trace {
    /// Intermediate results of the encoder; `None` for a batch without images.
    pub vision: Option<VisionTrace>,
    /// Embeddings of tokens and images, `[batch, seq, width]`.
    pub inputs_embeds: Tensor<3>,
    /// After each block, `[batch, seq, width]`.
    pub layers: Vec<Tensor<3>>,
    /// After the final norm, `[batch, seq, width]`.
    pub norm: Tensor<3>,
    /// `[batch, seq, vocab]`.
    pub logits: Tensor<3>,
}

impl Qwen25VlConfig {
    /// Returns a new model. Burn initialises each parameter with its default at first use.
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
    /// Returns the configuration that the model was built from.
    pub fn config(&self) -> &Qwen25VlConfig {
        &self.config
    }

    /// Gives a tied head a matrix of its own, which equals the embedding at first.
    pub(crate) fn with_own_head(mut self) -> Self {
        if self.lm_head.is_none() {
            let embedding = &self.model.embed_tokens.weight;
            let weight = embedding.val().detach().set_require_grad(false).transpose().detach();
            let weight = Param::from_tensor(weight).set_require_grad(embedding.is_require_grad());
            self.lm_head = Some(Linear { weight, bias: None });
            self.config.tie_word_embeddings = false;
        }
        self
    }

    /// Returns the vision encoder with the projector.
    pub fn visual(&self) -> &VisionEncoder {
        &self.visual
    }

    /// Returns the decoder.
    pub fn decoder(&self) -> &TextDecoder {
        &self.model
    }

    /// Returns the embeddings of images, `[tokens, width]`, image by image.
    pub fn encode_images(&self, images: &ImageInputs) -> Tensor<2> {
        self.visual.forward(images)
    }

    /// Returns the embeddings of a batch, tokens and images, `[batch, seq, width]`.
    pub fn embed(&self, inputs: &ModelInputs) -> Tensor<3> {
        let features = inputs.images.as_ref().map(|images| self.visual.forward(images));
        self.embed_with(inputs, features)
    }

    /// Like [`Self::embed`], with image embeddings that [`Self::encode_images`] already computed, `[tokens, width]`.
    pub fn embed_with(&self, inputs: &ModelInputs, features: Option<Tensor<2>>) -> Tensor<3> {
        let text_btd = self.model.embed_tokens.forward(inputs.input_ids.clone());
        let Some(features) = features else { return text_btd };
        let [batch, seq, width] = text_btd.dims();
        let device = text_btd.device();
        // Gather instead of scatter: each row of the result is a row of [text; images].
        let mut source: Vec<i64> = (0..(batch * seq) as i64).collect();
        for (&place, &feature) in inputs.image_index.iter().zip(&inputs.image_features) {
            source[place] = (batch * seq + feature) as i64;
        }
        let source = Tensor::<1, Int>::from_data(TensorData::new(source, [batch * seq]), &device);
        let text = text_btd.reshape([batch * seq, width]);
        let features = features.cast(text.dtype());
        Tensor::cat(vec![text, features], 0).select(0, source).reshape([batch, seq, width])
    }

    /// Returns the hidden states of a batch after the final norm, `[batch, seq, width]`. Apply [`Self::logits`] only to
    /// the rows you need: the logits of a whole batch would be the largest tensor of all.
    pub fn forward(&self, inputs: &ModelInputs) -> Tensor<3> {
        self.model.forward(self.embed(inputs), inputs.position_ids.clone(), inputs.layout(0), None)
    }

    /// Like [`Self::forward`], and stores keys and values in `cache` for [`Self::decode`].
    pub fn prefill(&self, inputs: &ModelInputs, cache: &mut KvCache) -> Tensor<3> {
        let layout = inputs.layout(cache.len());
        self.model.forward(self.embed(inputs), inputs.position_ids.clone(), layout, Some(cache))
    }

    /// Returns the hidden states of one new token per sequence, `[batch, 1, width]`. `positions[b]` is the token's rope
    /// position. `rows[b]` is the range of the real tokens in row b, including the new token.
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
        let layout = AttentionLayout::batch(AttentionMask::causal(1, cache.len(), rows, device));
        self.model.forward(self.model.embed_tokens.forward(ids), positions, layout, Some(cache))
    }

    /// Maps hidden states, `[rows, width]`, to logits, `[rows, vocab]`.
    pub fn logits(&self, hidden_nd: Tensor<2>) -> Tensor<2> {
        match &self.lm_head {
            Some(head) => head.forward(hidden_nd),
            None => host::times_transposed(hidden_nd, self.model.embed_tokens.weight.val())
                .unwrap_or_else(|[hidden_nd, embedding]| hidden_nd.matmul(embedding.transpose())),
        }
    }

    /// Returns the matrix of the head, `[width, vocab]`. A tied head is the transposed embedding.
    pub fn head_weight(&self) -> Tensor<2> {
        match &self.lm_head {
            Some(head) => head.weight.val(),
            None => self.model.embed_tokens.weight.val().transpose(),
        }
    }

    /// Runs a forward pass and returns every intermediate result that the reference fixtures record.
    pub fn trace(&self, inputs: &ModelInputs) -> Trace {
        let vision = inputs.images.as_ref().map(|images| self.visual.trace(images));
        let inputs_embeds = self.embed_with(inputs, vision.as_ref().map(|trace| trace.merged.clone()));
        let mut layers = Vec::new();
        let norm = self.model.run(inputs_embeds.clone(), inputs.position_ids.clone(), inputs.layout(0), None, |x| {
            layers.push(x);
        });
        let [batch, seq, width] = norm.dims();
        let logits = self.logits(norm.clone().reshape([batch * seq, width])).reshape([batch as i32, seq as i32, -1]);
        Trace { vision, inputs_embeds, layers, norm, logits }
    }
}

//! The text tower of SigLIP: maps token ids to one vector per text. The cosine of two vectors says how similar the
//! texts are.
//!
//! Reference: `SiglipTextModel` of transformers. Nothing is masked, not even padding, and the last position represents
//! the text. So pad every text to `max_position_embeddings` tokens, as the tower was trained.

use burn::{
    module::Module,
    nn::{Embedding, EmbeddingConfig, LayerNorm, Linear, LinearConfig},
    tensor::{Device, Int, Tensor},
};

use super::{
    config::SiglipTextConfig,
    layer::{SiglipEncoderLayer, norm},
};

/// The sum of token and position embeddings. Reference: `SiglipTextEmbeddings`.
#[derive(Module, Debug)]
pub struct SiglipTextEmbeddings {
    token_embedding: Embedding,
    position_embedding: Embedding,
}

impl SiglipTextEmbeddings {
    fn forward(&self, ids_bt: Tensor<2, Int>) -> Tensor<3> {
        let seq = ids_bt.dims()[1];
        let position_td = self.position_embedding.weight.val().narrow(0, 0, seq);
        self.token_embedding.forward(ids_bt) + position_td.unsqueeze()
    }
}

/// The layers of the tower. Reference: `SiglipEncoder`.
#[derive(Module, Debug)]
pub struct SiglipEncoder {
    layers: Vec<SiglipEncoderLayer>,
}

/// The result of a tower for a batch of texts.
#[derive(Debug, Clone)]
pub struct SiglipTextOutput {
    /// Hidden states of all tokens after the last norm, `[batch, tokens, hidden_size]`.
    pub last_hidden_state: Tensor<3>,
    /// One vector per text, `[batch, projection_size]`, not normalised. Reference: `pooler_output`.
    pub pooled: Tensor<2>,
}

/// The text tower. Reference: `SiglipTextModel`.
#[derive(Module, Debug)]
pub struct SiglipTextModel {
    embeddings: SiglipTextEmbeddings,
    encoder: SiglipEncoder,
    final_layer_norm: LayerNorm,
    head: Linear,
    #[module(skip)]
    config: SiglipTextConfig,
}

impl SiglipTextConfig {
    /// Returns a tower with random weights. [`SiglipTextModel::from_pretrained`] reads trained weights.
    pub fn init(&self, device: &Device) -> SiglipTextModel {
        let embedding = |rows| EmbeddingConfig::new(rows, self.hidden_size).init(device);
        let layers = (0..self.num_hidden_layers).map(|_| SiglipEncoderLayer::new(self, device)).collect();
        SiglipTextModel {
            embeddings: SiglipTextEmbeddings {
                token_embedding: embedding(self.vocab_size),
                position_embedding: embedding(self.max_position_embeddings),
            },
            encoder: SiglipEncoder { layers },
            final_layer_norm: norm(self, device),
            head: LinearConfig::new(self.hidden_size, self.projection_size).init(device),
            config: self.clone(),
        }
    }
}

impl SiglipTextModel {
    /// Returns the configuration that the tower was built from.
    pub fn config(&self) -> &SiglipTextConfig {
        &self.config
    }

    /// Returns hidden states and vectors of token ids, `[batch, tokens]`. Ids must be below `vocab_size`, and a row may
    /// have at most `max_position_embeddings`.
    pub fn forward(&self, ids_bt: Tensor<2, Int>) -> SiglipTextOutput {
        let x_btd = self.embeddings.forward(ids_bt);
        let x_btd = self.encoder.layers.iter().fold(x_btd, |x_btd, layer| layer.forward(x_btd));
        let last_hidden_state = self.final_layer_norm.forward(x_btd);
        let [_, seq, _] = last_hidden_state.dims();
        let last_bd = last_hidden_state.clone().narrow(1, seq - 1, 1).squeeze_dim::<2>(1);
        SiglipTextOutput { last_hidden_state, pooled: self.head.forward(last_bd) }
    }
}

//! The tensors of a Qwen2.5-VL checkpoint under their published names, without what is not part of the model.

use super::{
    checkpoint::{CheckpointMap, Tensors},
    quantised::refuse_quantised,
    stored::same_values,
};
use crate::{error::ModelError, parameters::published_layout};

const HEAD: &str = "lm_head.weight";
const EMBEDDING: &str = "model.embed_tokens.weight";

/// The tensors of a checkpoint under their published names.
pub(crate) struct PublishedTensors<'a>(pub(super) Tensors<'a>);

impl<'a> PublishedTensors<'a> {
    /// Lists the tensors of a checkpoint.
    ///
    /// # Errors
    /// Returns an error if a file is damaged, a tensor is there twice, or the weights are quantised.
    pub(crate) fn of(files: &'a CheckpointMap) -> Result<Self, ModelError> {
        let mut tensors = files.tensors(published_layout)?;
        // Older tools stored the frequencies of the rotations, which are computed here.
        tensors.retain(|name, _| !name.ends_with(".inv_freq"));
        refuse_quantised(&tensors)?;
        Ok(Self(tensors))
    }

    /// Returns true if a head is stored that is not a copy of the embedding.
    pub(crate) fn has_other_head(&self) -> bool {
        let (head, embedding) = (self.0.get(HEAD), self.0.get(EMBEDDING));
        head.zip(embedding).is_some_and(|((_, _, head), (_, _, embedding))| !same_values(head, embedding))
    }

    /// Returns the tensors for a model whose head is its embedding: one of the two, under the embedding's name.
    pub(super) fn tied(mut self) -> Tensors<'a> {
        if let Some(head) = self.0.remove(HEAD) {
            self.0.entry(EMBEDDING.into()).or_insert(head);
        }
        self.0
    }
}

#[cfg(test)]
mod tests {
    use safetensors::{Dtype, tensor::TensorView};

    use super::*;

    #[test]
    fn frequencies_that_older_tools_stored_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let view = TensorView::new(Dtype::F32, vec![1], &[0; 4]).unwrap();
        let names = [
            "model.layers.0.self_attn.rotary_emb.inv_freq",
            "model.rotary_emb.inv_freq",
            "model.visual.rotary_pos_emb.inv_freq",
            "visual.merger.ln_q.weight",
        ];
        let bytes = safetensors::serialize(names.map(|name| (name, view.clone())), None).unwrap();
        std::fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
        let files = CheckpointMap::open(folder.path()).unwrap();
        let left: Vec<String> = PublishedTensors::of(&files).unwrap().0.into_keys().collect();
        assert_eq!(left, ["visual.merger.ln_q.weight"]);
    }
}

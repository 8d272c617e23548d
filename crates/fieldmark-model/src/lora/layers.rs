//! The linear layers that may carry an adapter.

use crate::{model::Qwen25Vl, parts::ModelPart, projection::Projection};

impl Qwen25Vl {
    /// Returns every linear layer that may have an adapter.
    pub(crate) fn projections_mut(&mut self) -> Vec<Layer<'_>> {
        let mut layers = Vec::new();
        let mut add = |part, name: String, projection| layers.push(Layer { part, name, projection });
        for (i, block) in self.visual.blocks.iter_mut().enumerate() {
            for (name, projection) in block.projections_mut() {
                add(ModelPart::Vision, format!("visual.blocks.{i}.{name}"), projection);
            }
        }
        let merger = &mut self.visual.merger;
        for (name, projection) in [("mlp.0", &mut merger.fc1), ("mlp.2", &mut merger.fc2)] {
            add(ModelPart::Projector, format!("visual.merger.{name}"), projection);
        }
        for (i, block) in self.model.layers.iter_mut().enumerate() {
            for (name, projection) in block.projections_mut() {
                add(ModelPart::Decoder, format!("model.layers.{i}.{name}"), projection);
            }
        }
        layers
    }
}

/// A linear layer and its place in the model.
pub(crate) struct Layer<'a> {
    pub(crate) part: ModelPart,
    /// Published name, such as `model.layers.0.self_attn.q_proj`.
    pub(crate) name: String,
    pub(crate) projection: &'a mut Projection,
}

impl Layer<'_> {
    /// Returns the name to use in `targets`, such as `q_proj` or `mlp.0`.
    pub(crate) fn short_name(&self) -> &str {
        match self.part {
            ModelPart::Projector => self.name.trim_start_matches("visual.merger."),
            _ => self.name.rsplit('.').next().unwrap_or(&self.name),
        }
    }
}

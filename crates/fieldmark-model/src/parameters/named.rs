//! All parameters of a model under their published names, to compare, count or convert them.

use burn::{
    module::{Module, ModuleVisitor, Param, ParamId},
    tensor::Tensor,
};

use super::{
    layout::{stored_shape, transpose},
    path::ParamPath,
};
use crate::model::Qwen25Vl;

/// One parameter of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedParameter {
    /// Name in published checkpoints.
    pub name: String,
    /// Burn's id of the parameter, the key of its gradient and optimiser state.
    pub id: ParamId,
    /// Shape in the model.
    pub shape: Vec<usize>,
    /// Shape in checkpoints.
    pub stored_shape: Vec<usize>,
    /// True if the parameter is trained.
    pub trainable: bool,
    /// True if the parameter is a factor of an adapter.
    pub adapter: bool,
    transposed: bool,
}

impl NamedParameter {
    /// Converts values from the layout of the model to the layout of checkpoints.
    pub fn to_stored(&self, values: &[f32]) -> Vec<f32> {
        if self.transposed { transpose(values, self.shape[0], self.shape[1]) } else { values.to_vec() }
    }
}

impl Qwen25Vl {
    /// Returns all parameters, in the order of the modules. A tied head is the embedding, so it has no entry.
    pub fn named_parameters(&self) -> Vec<NamedParameter> {
        let vision = &self.config().vision;
        let patch = [vision.in_channels, vision.temporal_patch_size, vision.patch_size, vision.patch_size];
        let mut collector = Collector { patch, path: ParamPath::default(), found: Vec::new() };
        self.visit(&mut collector);
        collector.found
    }
}

struct Collector {
    patch: [usize; 4],
    path: ParamPath,
    found: Vec<NamedParameter>,
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let shape: [usize; D] = param.lazy_shape().dims();
        let (name, transposed) = (self.path.published(), self.path.is_linear());
        self.found.push(NamedParameter {
            stored_shape: stored_shape(&name, transposed, &shape, self.patch),
            name,
            id: param.id,
            shape: shape.to_vec(),
            trainable: param.is_require_grad(),
            adapter: self.path.is_lora(),
            transposed,
        });
    }
}

//! Which parameters are trained: whole parts, or only the adapters in them.

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::Tensor,
};

use crate::{
    model::Qwen25Vl,
    parameters::ParamPath,
    parts::{ModelPart, TrainableParts},
};

impl Qwen25Vl {
    /// Makes `parts` trainable and freezes the others. If the model has adapters, only the adapters in `parts` are
    /// trained.
    pub fn with_trainable(self, parts: TrainableParts) -> Self {
        let lora = self.has_lora();
        self.map(&mut Freezer { parts, lora, path: ParamPath::default() })
    }
}

struct Freezer {
    parts: TrainableParts,
    lora: bool,
    path: ParamPath,
}

impl ModuleMapper for Freezer {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let learns = self.parts.has(ModelPart::of(&self.path.published())) && self.lora == self.path.is_lora();
        param.set_require_grad(learns)
    }
}

//! Initial values of LoRA adapters, and counts of trainable parameters.
//!
//! Reference: PEFT's `init_lora_weights = True`. A comes from `kaiming_uniform_(a=sqrt(5))`, which is uniform within
//! ±1/sqrt(in); B is zero, so the adapted model starts equal to the base model.

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Tensor, TensorData},
};
use fieldmark_model::{ModelPart, Qwen25Vl};
use fieldmark_stream::StreamKey;

/// Draws the A factor of every adapter from a random stream named by its path. The B factors stay unchanged.
pub fn initialise_adapters(model: Qwen25Vl, key: &StreamKey) -> Qwen25Vl {
    model.map(&mut Drawer { key: key.word("lora"), path: Vec::new(), containers: Vec::new() })
}

struct Drawer {
    key: StreamKey,
    path: Vec<String>,
    containers: Vec<String>,
}

impl ModuleMapper for Drawer {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.push(name.into());
        self.containers.push(container_type.into());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
        self.containers.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let is_pair = self.containers.last().is_some_and(|container| container == "Struct:LoraPair");
        if !is_pair || self.path.last().is_none_or(|name| name != "a") {
            return param;
        }
        let shape: [usize; D] = param.lazy_shape().dims();
        let bound = (shape[0] as f64).powf(-0.5);
        let mut stream = self.path.iter().fold(self.key.clone(), |key, name| key.word(name)).stream();
        let values = (0..shape.iter().product()).map(|_| stream.uniform_in(-bound, bound) as f32).collect();
        let tensor = Tensor::from_data(TensorData::new::<f32, _>(values, shape), (&param.device(), param.dtype()));
        let id = param.id;
        param.transform_for_load(tensor, id)
    }
}

/// Counts of one kind of parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trainable {
    /// ModelPart of the model.
    pub part: ModelPart,
    /// Whether this kind is adapter factors, not base weights.
    pub adapters: bool,
    /// Number of parameters.
    pub parameters: usize,
    /// Number of trainable parameters.
    pub learning: usize,
}

/// Counts the parameters of each part of a model, with adapters counted separately. Kinds without parameters are left
/// out.
pub fn trainable(model: &Qwen25Vl) -> Vec<Trainable> {
    let named = model.named_parameters();
    let kinds = ModelPart::ALL.into_iter().flat_map(|part| [false, true].map(|adapters| (part, adapters)));
    let counted = kinds.map(|(part, adapters)| {
        let mut kind = Trainable { part, adapters, parameters: 0, learning: 0 };
        for parameter in named.iter().filter(|one| ModelPart::of(&one.name) == part && one.adapter == adapters) {
            let count: usize = parameter.shape.iter().product();
            kind.parameters += count;
            kind.learning += if parameter.trainable { count } else { 0 };
        }
        kind
    });
    counted.filter(|kind| kind.parameters > 0).collect()
}

//! The start of adapters, and what of a model learns. Reference: PEFT's `init_lora_weights = True`, A from
//! `kaiming_uniform_(a=sqrt(5))`, that is uniform within 1/sqrt(in), and B zero: the adapted model begins as the model.

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Tensor, TensorData},
};
use fieldmark_model::{Part, Qwen25Vl};
use fieldmark_stream::StreamKey;

/// The model with every adapter's A drawn anew, each from a stream named by its path, and B as it is.
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

/// Parameters of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trainable {
    /// The part they belong to.
    pub part: Part,
    /// Whether they are factors of adapters.
    pub adapters: bool,
    /// How many there are.
    pub parameters: usize,
    /// How many of them learn.
    pub learning: usize,
}

/// Parameters of each part of a model, those of adapters apart; kinds that the model lacks are left out.
pub fn trainable(model: &Qwen25Vl) -> Vec<Trainable> {
    let named = model.named_parameters();
    let kinds = Part::ALL.into_iter().flat_map(|part| [false, true].map(|adapters| (part, adapters)));
    let counted = kinds.map(|(part, adapters)| {
        let mut kind = Trainable { part, adapters, parameters: 0, learning: 0 };
        for parameter in named.iter().filter(|one| Part::of(&one.name) == part && one.adapter == adapters) {
            let count: usize = parameter.shape.iter().product();
            kind.parameters += count;
            kind.learning += if parameter.trainable { count } else { 0 };
        }
        kind
    });
    counted.filter(|kind| kind.parameters > 0).collect()
}

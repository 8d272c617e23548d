//! Initial weights for training from scratch: matrices and embeddings from a normal distribution, biases 0, norms 1.
//!
//! Reference: `PreTrainedModel._init_weights` with `initializer_range` (0.02 by default). Every parameter has a random
//! stream named by its path, so a deeper model starts with the same first layers.

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Tensor, TensorData},
};
use fieldmark_stream::StreamKey;
use rand_distr::{Distribution, StandardNormal};

/// Draws every parameter of `module` anew; `deviation` is the standard deviation of matrices and embeddings.
pub fn initialise<M: Module>(module: M, deviation: f64, key: &StreamKey) -> M {
    module.map(&mut Initialiser { deviation, key: key.clone(), path: Vec::new() })
}

struct Initialiser {
    deviation: f64,
    key: StreamKey,
    path: Vec<String>,
}

impl ModuleMapper for Initialiser {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shape: [usize; D] = param.lazy_shape().dims();
        let count = shape.iter().product();
        let values: Vec<f32> = match (D, self.path.last().map(String::as_str)) {
            (1, Some("gamma")) => vec![1.0; count],
            (1, _) => vec![0.0; count],
            _ => {
                let mut stream =
                    self.path.iter().fold(self.key.word("initialise"), |key, name| key.word(name)).stream();
                let mut draw = || {
                    let value: f64 = StandardNormal.sample(&mut stream);
                    (value * self.deviation) as f32
                };
                (0..count).map(|_| draw()).collect()
            }
        };
        let tensor = Tensor::from_data(TensorData::new(values, shape), &param.lazy_device());
        let id = param.id;
        param.transform_for_load(tensor, id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::{nn::LinearConfig, tensor::Device};

    #[test]
    fn a_seed_gives_one_start_with_the_deviation_asked_for() {
        let device = Device::default();
        let make = |seed| initialise(LinearConfig::new(100, 50).init(&device), 0.02, &StreamKey::new(seed));
        let values = |seed| make(seed).weight.val().into_data().iter::<f64>().collect::<Vec<_>>();
        let (first, again, other) = (values(1), values(1), values(2));
        assert_eq!(first, again);
        assert_ne!(first, other);
        let mean = first.iter().sum::<f64>() / first.len() as f64;
        let deviation = (first.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / first.len() as f64).sqrt();
        assert!(mean.abs() < 1.5e-3 && (deviation - 0.02).abs() < 1e-3, "{mean} {deviation}");
        let bias = make(1).bias.unwrap().val().into_data().iter::<f64>().sum::<f64>();
        assert_eq!(bias, 0.0);
    }
}

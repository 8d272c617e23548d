//! Parameter ids that stay the same in every process. Burn gives each new parameter a random id and files the optimiser
//! state under it, so a saved state would match no parameter in the next process. Here the id is the 64-bit FNV-1a hash
//! of the parameter's path in its module.

use burn::{
    module::{Module, ModuleMapper, Param, ParamId},
    tensor::{Bool, Int, Tensor},
};

/// Replaces the parameter ids of `module` by ids made from their paths. Call this after loading weights and before
/// creating an optimiser.
pub fn stable_param_ids<M: Module>(module: M) -> M {
    module.map(&mut Renamer::default())
}

#[derive(Default)]
struct Renamer {
    path: Vec<String>,
}

impl Renamer {
    fn id(&self) -> ParamId {
        let bytes = self.path.iter().flat_map(|name| name.bytes().chain([b'.']));
        let hash = bytes
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        ParamId::from(hash)
    }
}

impl ModuleMapper for Renamer {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (_, tensor, mapper) = param.consume();
        Param::from_mapped_value(self.id(), tensor, mapper)
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        let (_, tensor, mapper) = param.consume();
        Param::from_mapped_value(self.id(), tensor, mapper)
    }

    fn map_bool<const D: usize>(&mut self, param: Param<Tensor<D, Bool>>) -> Param<Tensor<D, Bool>> {
        let (_, tensor, mapper) = param.consume();
        Param::from_mapped_value(self.id(), tensor, mapper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::AdamWSettings;
    use burn::{
        nn::{Linear, LinearConfig},
        optim::GradientsParams,
        tensor::Device,
    };

    fn two_layers(device: &Device) -> (Linear, Linear) {
        let layer = || {
            let layer = LinearConfig::new(2, 2).init(device);
            Linear {
                weight: layer.weight.map(|w| (w.detach() * 0.0 + 0.5).detach().require_grad()),
                bias: layer.bias.map(|b| b.map(|b| (b.detach() * 0.0).detach().require_grad())),
            }
        };
        stable_param_ids((layer(), layer()))
    }

    fn grads(module: &(Linear, Linear), device: &Device) -> GradientsParams {
        let x = Tensor::<2>::from_floats([[1.0, -2.0]], device);
        let loss = module.1.forward(module.0.forward(x)).square().sum();
        GradientsParams::from_grads(loss.backward(), module)
    }

    #[test]
    fn optimiser_state_finds_its_parameters_in_a_new_module() {
        let device = Device::default().autodiff();
        let settings = AdamWSettings { weight_decay: 0.5, ..Default::default() };
        let mut first = two_layers(&device);
        let mut optimizer = settings.init(&first).unwrap();
        for _ in 0..3 {
            let g = grads(&first, &device);
            first = optimizer.step(0.1, first, g);
        }
        let saved = optimizer.into_bytes().unwrap();

        let fresh = two_layers(&device);
        assert_ne!(fresh.0.weight.id, fresh.1.weight.id);
        let mut restored = settings.init(&fresh).unwrap().from_bytes(saved).unwrap();
        let g = |m| grads(m, &device);
        let expected = optimizer.step(0.1, fresh.clone(), g(&fresh));
        let found = restored.step(0.1, fresh.clone(), g(&fresh));
        let new = settings.init(&fresh).unwrap().step(0.1, fresh.clone(), g(&fresh));
        let weight = |m: (Linear, Linear)| m.1.weight.val().into_data().iter::<f32>().collect::<Vec<_>>();
        let (expected, found, new) = (weight(expected), weight(found), weight(new));
        assert_eq!(found, expected);
        assert_ne!(new, expected);
    }
}

//! Finds parts of a model that are trained but get no gradient, such as an encoder behind a projector whose weights are
//! all 0. An exact 0 beside gradients of other parts is never chance.

use std::collections::HashMap;

use burn::{
    module::{Module, ModuleVisitor, Param, ParamId},
    optim::GradientsParams,
    tensor::{FloatDType, Tensor},
};
use fieldmark_model::{ModelPart, Qwen25Vl, TrainableParts};

/// Returns the parts of `model` that have a trained parameter.
pub(crate) fn learning_parts(model: &Qwen25Vl) -> TrainableParts {
    let named = model.named_parameters();
    of(|part| named.iter().any(|one| one.trainable && ModelPart::of(&one.name) == part))
}

/// Returns those of `parts` that have a gradient that is not 0.
pub(crate) fn moved_parts(model: &Qwen25Vl, grads: &GradientsParams, parts: TrainableParts) -> TrainableParts {
    let named = model.named_parameters().into_iter();
    let parts = named.map(|one| (one.id, ModelPart::of(&one.name))).filter(|(_, part)| parts.has(*part)).collect();
    let mut largest = Largest { grads, parts, found: Vec::new() };
    model.visit(&mut largest);
    let found = largest.found;
    of(|part| {
        let own: Vec<_> = found.iter().filter(|(of, _)| *of == part).map(|(_, largest)| largest.clone()).collect();
        // NaN is a gradient too: the update is skipped, and says so itself.
        !own.is_empty() && Tensor::cat(own, 0).into_data().iter::<f64>().any(|value| value != 0.0)
    })
}

/// Returns the parts that are in `all` and not in `some`.
pub(crate) fn without(all: TrainableParts, some: TrainableParts) -> Vec<ModelPart> {
    ModelPart::ALL.into_iter().filter(|&part| all.has(part) && !some.has(part)).collect()
}

fn of(has: impl Fn(ModelPart) -> bool) -> TrainableParts {
    TrainableParts {
        vision: has(ModelPart::Vision),
        projector: has(ModelPart::Projector),
        decoder: has(ModelPart::Decoder),
    }
}

/// Collects the largest absolute entry of each gradient, `[1]`.
struct Largest<'a> {
    grads: &'a GradientsParams,
    parts: HashMap<ParamId, ModelPart>,
    found: Vec<(ModelPart, Tensor<1>)>,
}

impl ModuleVisitor for Largest<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(&part) = self.parts.get(&param.id) else { return };
        if let Some(grad) = self.grads.get::<D>(param.id) {
            self.found.push((part, grad.cast(FloatDType::F32).abs().max()));
        }
    }
}

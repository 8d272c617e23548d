//! Finds parts of a model that are trained but get no gradient, such as an encoder behind a projector whose weights are
//! all 0. An exact 0 beside gradients of other parts is never chance.

use std::collections::HashMap;

use burn::{
    module::{Module, ModuleVisitor, Param, ParamId},
    optim::GradientsParams,
    tensor::{FloatDType, Tensor},
};
use fieldmark_model::{ModelPart, Qwen25Vl, TrainableParts};

/// No part.
pub(crate) const NOTHING: TrainableParts = TrainableParts { vision: false, projector: false, decoder: false };

/// Returns the parts of `model` that are trained and have had no gradient so far, `grads` included, although others
/// have. `moved` are the parts that had one in earlier updates; those of `grads` are added. It costs nothing once every
/// part has moved.
pub(crate) fn idle_parts(model: &Qwen25Vl, grads: &GradientsParams, moved: &mut TrainableParts) -> Vec<ModelPart> {
    let before = *moved;
    if ModelPart::ALL.into_iter().all(|part| before.has(part)) {
        return Vec::new();
    }
    let named: Vec<(ParamId, ModelPart)> = model
        .named_parameters()
        .into_iter()
        .filter(|one| one.trainable)
        .map(|one| (one.id, ModelPart::of(&one.name)))
        .filter(|(_, part)| !before.has(*part))
        .collect();
    let waiting = of(|part| named.iter().any(|(_, other)| *other == part));
    if waiting != NOTHING {
        let mut largest = Largest { grads, parts: named.into_iter().collect(), found: Vec::new() };
        model.visit(&mut largest);
        *moved = of(|part| before.has(part) || has_gradient(&largest.found, part));
    }
    let idle = |part: &ModelPart| waiting.has(*part) && !moved.has(*part);
    if *moved == NOTHING { Vec::new() } else { ModelPart::ALL.into_iter().filter(idle).collect() }
}

/// Whether one of the part's gradients is not 0. NaN is not 0 either: its update is skipped, and says so itself.
fn has_gradient(largest: &[(ModelPart, Tensor<1>)], part: ModelPart) -> bool {
    let own: Vec<_> = largest.iter().filter(|(of, _)| *of == part).map(|(_, largest)| largest.clone()).collect();
    !own.is_empty() && Tensor::cat(own, 0).into_data().iter::<f64>().any(|value| value != 0.0)
}

fn of(has: impl Fn(ModelPart) -> bool) -> TrainableParts {
    let [vision, projector, decoder] = ModelPart::ALL.map(has);
    TrainableParts { vision, projector, decoder }
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

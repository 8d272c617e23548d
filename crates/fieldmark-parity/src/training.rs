//! Compares loss, gradients and AdamW steps of a labelled batch, computed by the training code itself.

use std::collections::BTreeMap;

use burn::{
    optim::GradientsParams,
    tensor::{Device, Tensor},
};
use fieldmark_model::{NamedParameter, Qwen25Vl, TrainableParts};
use fieldmark_processor::SupervisedSequence;
use fieldmark_train::{
    gradient::{LossNorm, MicroBatch, Scorer},
    optim::{AdamWSettings, LrSchedule, LrShape, grad_norm},
    parallel::Replicas,
    sft::{SftGradients, sft_gradients},
    trainer::Updater,
};

use super::{
    compare::{Report, Tolerance},
    error::ParityError,
    fixture::Fixture,
    rows::Rows,
};

/// What 16 bits may change in a gradient, as a part of its largest value. The reference itself, in bf16, is up to 0.091 away
/// from its gradients in f32.
const HALF_GRADIENT: f64 = 0.2;
/// What 16 bits may change in losses and gradient norms, as a part of the largest. The reference: up to 0.003.
const HALF_LOSS: f64 = 0.02;

pub(super) fn compare(
    fixture: &mut Fixture,
    report: &mut Report,
    model: Qwen25Vl,
    device: &Device,
) -> Result<(), ParityError> {
    let device = device.clone().autodiff();
    let rows = Rows::read(fixture, "sft", model.config())?;
    let inputs = rows.inputs(model.config(), &device)?;
    let positions: Vec<f64> = inputs.position_ids.into_data().iter::<f64>().collect();
    fixture.check_values(report, "sft.position_ids", &positions, Tolerance::Exact);
    let micros = [micro_batch(fixture, &rows, &model)?];

    // One loss before the first step and one after each.
    let [losses] = fixture.dims("sft.losses")?;
    let steps = losses - 1;
    let mut model = burn::module::Module::train(model).with_trainable(TrainableParts::default());
    let scorer = Scorer::new(1024, 1.0, 0)?;
    let adamw = AdamWSettings { weight_decay: 0.1, decay_all: true, ..AdamWSettings::default() };
    let schedule = LrSchedule { lr: 1e-3, shape: LrShape::Constant, warmup: 0, released: false };
    let mut updater = Updater::new(&model, adamw, schedule, 1.0, steps)?;
    let (mut found, mut norms) = (Vec::new(), Vec::new());
    for step in 0..=steps {
        let SftGradients { loss, grads, .. } =
            sft_gradients(&model, &scorer, &micros, LossNorm::Batch, &Replicas::new(1, &device))?;
        found.push(loss);
        if step == steps {
            break;
        }
        if step == 0 {
            let parameters = gradients(&model, &grads);
            let tolerance = fixture.tolerance(Tolerance::RelativeToMax(1e-4), HALF_GRADIENT);
            recorded(fixture, report, "sft.grad.", &parameters, |_| tolerance)?;
        }
        norms.push(grad_norm(&grads, &model));
        model = updater.step(model, loss, grads).0;
        let after = format!("sft.after{}.", step + 1);
        if fixture.is_half() {
            fixture.only_in_f32(report, &after);
            continue;
        }
        recorded(fixture, report, &after, &weights(&model), |name| {
            // A key bias hardly changes the loss: its gradient is tiny, and rounding decides the direction of Adam's
            // step.
            Tolerance::Absolute(if name.contains("k_proj.bias") || name.contains("qkv.bias") { 5e-4 } else { 3e-4 })
        })?;
    }
    fixture.check_values(report, "sft.losses", &found, fixture.tolerance(Tolerance::Absolute(2e-4), HALF_LOSS));
    fixture.check_values(
        report,
        "sft.grad_norms",
        &norms,
        fixture.tolerance(Tolerance::RelativeToMax(1e-4), HALF_LOSS),
    );
    Ok(())
}

/// Makes the micro-batch of the labelled rows. A label of −100 marks a token outside the loss.
fn micro_batch(fixture: &mut Fixture, rows: &Rows, model: &Qwen25Vl) -> Result<MicroBatch, ParityError> {
    let labels = fixture.integers("sft.labels")?;
    let shape: [usize; 2] = fixture.dims("sft.input_ids")?;
    fixture.expect("sft.labels", shape)?;
    let sequences = rows.sequences(model.config().vision.patch_len());
    let samples = sequences
        .into_iter()
        .zip(labels.chunks(shape[1]))
        .map(|(sequence, labels)| {
            let target_mask = labels[..sequence.ids.len()].iter().map(|&label| label != -100).collect();
            SupervisedSequence { sequence, target_mask }
        })
        .collect();
    MicroBatch::new(samples, 0).map_err(|error| fixture.malformed("sft.labels", error))
}

pub(super) type Named = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn gradients(model: &Qwen25Vl, grads: &GradientsParams) -> Named {
    let values = |parameter: &NamedParameter| -> Option<Vec<f32>> {
        let data = match parameter.shape.len() {
            1 => grads.get::<1>(parameter.id)?.into_data(),
            _ => grads.get::<2>(parameter.id)?.into_data(),
        };
        Some(parameter.to_stored(&data.iter::<f32>().collect::<Vec<_>>()))
    };
    model
        .named_parameters()
        .into_iter()
        .filter_map(|parameter| Some((parameter.name.clone(), (parameter.stored_shape.clone(), values(&parameter)?))))
        .collect()
}

/// Returns every parameter in its stored form, under its published name.
pub(super) fn weights(model: &Qwen25Vl) -> Named {
    struct Values(Vec<Vec<f32>>);
    impl burn::module::ModuleVisitor for Values {
        fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
            self.0.push(param.val().into_data().iter::<f32>().collect());
        }
    }
    let mut values = Values(Vec::new());
    burn::module::Module::visit(model, &mut values);
    model
        .named_parameters()
        .into_iter()
        .zip(values.0)
        .map(|(parameter, values)| {
            (parameter.name.clone(), (parameter.stored_shape.clone(), parameter.to_stored(&values)))
        })
        .collect()
}

/// Compares every tensor whose name starts with `prefix`. A name that ends in `[:n]` means the first n rows.
fn recorded(
    fixture: &mut Fixture,
    report: &mut Report,
    prefix: &str,
    ours: &Named,
    tolerance: impl Fn(&str) -> Tolerance,
) -> Result<(), ParityError> {
    for full in fixture.names() {
        let Some(name) = full.strip_prefix(prefix) else { continue };
        let (name, kept) = match name.strip_suffix(']').and_then(|name| name.split_once("[:")) {
            Some((name, rows)) => (name, rows.parse::<usize>().ok()),
            None => (name, None),
        };
        let Some((shape, values)) = ours.get(name) else { continue };
        let row: usize = shape[1..].iter().product();
        let kept = kept.map_or(values.len(), |rows| rows.saturating_mul(row));
        let Some(values) = values.get(..kept) else {
            return Err(fixture.malformed(&full, format!("has more rows than the parameter, whose shape is {shape:?}")));
        };
        let values: Vec<f64> = values.iter().map(|&x| f64::from(x)).collect();
        fixture.check_values(report, &full, &values, tolerance(name));
    }
    Ok(())
}

//! Compares Qwen2.5-VL: rope positions, every stage of the forward pass, log-probabilities, decoding and training
//! steps.

use std::{collections::BTreeMap, path::Path};

use burn::tensor::{Device, FloatDType, Tensor, activation::log_softmax};
use fieldmark_model::{
    LoadOptions, ModelInputs, Qwen25Vl, Qwen25VlConfig, Trace, WeightType, new_layout,
    vision::{WindowPlan, patch_positions},
};

use fieldmark_train::gradient::ChunkedLogProbs;

use super::{
    compare::{Report, Status, Tolerance},
    error::ParityError,
    fixture::Fixture,
    generation,
    json::json,
    rows::{Rows, images},
    training,
};

/// The batches that a folder may hold.
const BATCHES: [&str; 4] = ["batch", "one", "multi", "text"];

pub(super) fn compare(folder: &Path, dtype: WeightType, device: &Device) -> Result<Report, ParityError> {
    let config = Qwen25VlConfig::from_json_file(&folder.join("config.json"))?;
    let options = LoadOptions { dtype: Some(dtype), ..LoadOptions::default() };
    let model = config.init(device).load_weights(&folder.join("model.safetensors"), options)?;
    let mut fixture = Fixture::open(folder)?.in_half(dtype != WeightType::F32);
    let mut report = Report::default();

    files(folder, &config, &model, options, &mut report)?;
    for prefix in BATCHES {
        if fixture.has(&format!("{prefix}.input_ids")) {
            batch(&mut fixture, &mut report, &model, prefix, device)?;
        }
    }
    vision_structure(&mut fixture, &mut report, &config)?;
    if fixture.is_half() {
        // Rounding to 16 bits decides between tokens that are nearly as likely as each other.
        fixture.only_in_f32(&mut report, "gen");
    } else if fixture.has("gen.input_ids") {
        generation::compare(&mut fixture, &mut report, &model, device)?;
    }
    if fixture.has("sft.input_ids") {
        training::compare(&mut fixture, &mut report, model, device)?;
    }
    fixture.finish(&mut report);
    Ok(report)
}

/// Compares the nested configuration, the new key layout, and the mapping between the layouts.
fn files(
    folder: &Path,
    config: &Qwen25VlConfig,
    model: &Qwen25Vl,
    options: LoadOptions,
    report: &mut Report,
) -> Result<(), ParityError> {
    let nested = folder.join("config.nested.json");
    if nested.is_file() {
        report.equal("config.nested.json", &Qwen25VlConfig::from_json_file(&nested)?, config);
    }
    let layouts = folder.join("key_layouts.json");
    if layouts.is_file() {
        let names: BTreeMap<String, String> = json(folder, "key_layouts.json")?;
        let ours: BTreeMap<String, String> = names.keys().map(|name| (name.clone(), new_layout(name))).collect();
        report.equal("key_layouts.json", &ours, &names);
    }
    let newer = folder.join("model.new_layout.safetensors");
    if newer.is_file() {
        let device = model.head_weight().device();
        let other = config.init(&device).load_weights(&newer, options)?;
        let (found, expected) = (training::weights(&other), training::weights(model));
        let differs = expected.iter().find(|(name, values)| found.get(*name) != Some(*values));
        let (status, note) = match differs {
            None if found.len() == expected.len() => (Status::Pass, String::new()),
            None => (Status::Fail, format!("{} parameters instead of {}", found.len(), expected.len())),
            Some((name, _)) => (Status::Fail, format!("`{name}` differs from model.safetensors")),
        };
        report.push("model.new_layout.safetensors", status, note);
    }
    Ok(())
}

fn batch(
    fixture: &mut Fixture,
    report: &mut Report,
    model: &Qwen25Vl,
    prefix: &str,
    device: &Device,
) -> Result<(), ParityError> {
    let rows = Rows::read(fixture, prefix, model.config())?;
    let inputs = rows.inputs(model.config(), device)?;
    for about in ["one.batch_row", "gen.min_top2_gap"] {
        if fixture.has(about) {
            // These describe the test case. Fieldmark computes neither of them.
            fixture.get(about)?;
        }
    }
    let name = |rest: &str| format!("{prefix}.{rest}");

    let ids: Vec<f64> = inputs.input_ids.clone().into_data().iter::<f64>().collect();
    fixture.check_values(report, &name("input_ids"), &ids, Tolerance::Exact);
    let positions: Vec<f64> = inputs.position_ids.clone().into_data().iter::<f64>().collect();
    fixture.check_values(report, &name("position_ids"), &positions, Tolerance::Exact);
    let next: Vec<f64> = inputs.next_position.iter().map(|p| p.0 as f64).collect();
    fixture.check_values(report, &name("next_position"), &next, Tolerance::Exact);
    // The published convention counts real tokens. Conventions differ for padded rows, so our sequences store the next
    // position itself.
    let deltas: Vec<f64> =
        inputs.next_position.iter().zip(&rows.ids).map(|(p, ids)| p.0 as f64 - ids.len() as f64).collect();
    fixture.check_values(report, &name("rope_deltas"), &deltas, Tolerance::Exact);

    let trace = model.trace(&inputs);
    forward(fixture, report, prefix, &inputs, &trace);
    log_probs(fixture, report, prefix, &inputs, &trace, model.config())
}

/// Compares every recorded stage. On the text side, only real tokens count, not padding.
fn forward(fixture: &mut Fixture, report: &mut Report, prefix: &str, inputs: &ModelInputs, trace: &Trace) {
    let stage = Tolerance::Absolute(5e-5);
    let layer = Tolerance::Absolute(1e-4);
    let end = Tolerance::Absolute(2e-4);
    if let Some(vision) = &trace.vision {
        fixture.check(report, &format!("{prefix}.vision.patch_embed"), vision.patch_embed.clone(), stage);
        for (i, block) in vision.blocks.iter().enumerate() {
            fixture.check(report, &format!("{prefix}.vision.block.{i}"), block.clone(), stage);
        }
        fixture.check(report, &format!("{prefix}.vision.merger_raw"), vision.merger_raw.clone(), stage);
        fixture.check(report, &format!("{prefix}.vision.merged"), vision.merged.clone(), stage);
    }
    let seq = inputs.dims()[1];
    let mut text = |name: String, tensor: &Tensor<3>, tolerance| {
        let width = tensor.dims()[2];
        let real = |i: usize| inputs.rows[i / (seq * width)].contains(&(i / width % seq));
        fixture.check_where(report, &name, tensor.clone(), tolerance, real);
    };
    text(format!("{prefix}.inputs_embeds"), &trace.inputs_embeds, stage);
    for (i, x) in trace.layers.iter().enumerate() {
        text(format!("{prefix}.layer.{i}"), x, layer);
    }
    text(format!("{prefix}.norm"), &trace.norm, end);
    text(format!("{prefix}.logits"), &trace.logits, end);
}

/// Compares log-probabilities and entropies of the last tokens of each row.
fn log_probs(
    fixture: &mut Fixture,
    report: &mut Report,
    prefix: &str,
    inputs: &ModelInputs,
    trace: &Trace,
    config: &Qwen25VlConfig,
) -> Result<(), ParityError> {
    let plain = format!("{prefix}.response_logp");
    if !fixture.has(&plain) {
        return Ok(());
    }
    let [batch, seq] = inputs.dims();
    let vocab = config.text.vocab_size;
    let [_, response] = fixture.dims(&plain)?;
    fixture.expect(&plain, [batch, response])?;
    if response >= seq {
        return Err(fixture.malformed(
            &plain,
            format!("has {response} tokens per row; it must have fewer than the {seq} of the input"),
        ));
    }
    let logits = trace.logits.clone().cast(FloatDType::F32).narrow(1, seq - response - 1, response);
    let targets = inputs.input_ids.clone().narrow(1, seq - response, response).unsqueeze_dim::<3>(2);
    let end = Tolerance::Absolute(2e-4);
    for (name, temperature) in [("", 1.0), ("_t0.7", 0.7)] {
        let logp = log_softmax(logits.clone() / temperature, 2).gather(2, targets.clone());
        fixture.check(report, &format!("{plain}{name}"), logp, end);
    }
    // The logits are computed already, so the head is the identity.
    let scores = ChunkedLogProbs::new(batch * response, 1.0)?.forward_with_entropy(
        &logits.reshape([batch * response, vocab]),
        &targets.reshape([batch * response]),
        |logits| logits,
    );
    let entropy = scores.entropy_n.reshape([batch, response]);
    fixture.check(report, &format!("{prefix}.token_entropy"), entropy.clone(), end);
    fixture.check(report, &format!("{prefix}.mean_token_entropy"), entropy.mean(), end);
    Ok(())
}

/// Compares patch positions and window boundaries of `batch`, in the order of the reference.
fn vision_structure(fixture: &mut Fixture, report: &mut Report, config: &Qwen25VlConfig) -> Result<(), ParityError> {
    if !fixture.has("images.grid_thw") {
        return Ok(());
    }
    let (grids, _) = images(fixture, "batch", config)?;
    let merge = config.vision.spatial_merge_size;
    let positions: Vec<f64> =
        patch_positions(&grids, merge).into_iter().flatten().map(|position| position as f64).collect();
    fixture.check_values(report, "batch.vision.position_ids", &positions, Tolerance::Exact);

    let plan = WindowPlan::new(&grids, &config.vision);
    let mut index = vec![0.0; plan.order.len()];
    for (place, &reference) in plan.reference_place.iter().enumerate() {
        index[reference] = plan.order[place] as f64;
    }
    fixture.check_values(report, "batch.vision.window_index", &index, Tolerance::Exact);

    let mut frames = vec![0.0];
    for grid in &grids {
        (0..grid.t).for_each(|_| frames.push(frames[frames.len() - 1] + (grid.h * grid.w) as f64));
    }
    fixture.check_values(report, "batch.vision.cu_seqlens", &frames, Tolerance::Exact);

    if fixture.has("batch.vision.cu_window_seqlens") {
        // The reference repeats a boundary for each empty padding window. Only real windows are compared.
        let mut expected = fixture.get("batch.vision.cu_window_seqlens")?.values.clone();
        expected.dedup();
        report.compare(
            "batch.vision.cu_window_seqlens",
            &window_boundaries(&plan, config.vision.merge_unit()),
            &expected,
            Tolerance::Exact,
        );
    }
    Ok(())
}

/// Returns the boundaries of the windows in patches, in the order of the reference.
fn window_boundaries(plan: &WindowPlan, unit: usize) -> Vec<f64> {
    let mut lengths: Vec<(usize, usize)> = Vec::new();
    let mut first = 0;
    for run in &plan.runs {
        let total: usize = run.windows.iter().map(|group| group.count * group.len).sum();
        for _ in 0..run.images {
            for group in &run.windows {
                for i in 0..group.count {
                    let place = first + (group.start + i * group.len) / unit;
                    lengths.push((plan.reference_place[place], group.len));
                }
            }
            first += total / unit;
        }
    }
    lengths.sort_unstable();
    let mut boundaries = vec![0.0];
    for (_, len) in lengths {
        boundaries.push(boundaries[boundaries.len() - 1] + len as f64);
    }
    boundaries
}

//! Supervised fine-tuning: an update is the same however it is computed, and is the gradient of the loss written down
//! plainly; frozen parts stay, seeds decide, and what is not a number is left out.

use std::{collections::BTreeSet, sync::Mutex};

use burn::{
    module::Module,
    optim::GradientsParams,
    tensor::{DType, Device, FloatDType, Tensor},
};
use fieldmark::{
    generate::StreamKey,
    model::{LoadOptions, PartTypes, Qwen25Vl, Qwen25VlConfig, TrainableParts},
    processor::SupervisedSequence,
    train::{
        AdamWSettings, HalfWeights, LossNorm, LrSchedule, LrShape, MicroBatch, Replicas, Scorer, SftConfig, SftMetrics,
        SftSource, SftTrainer, TrainError, TrunkSettings, initialise, sft_gradients, train_sft, validate_sft,
    },
};
use fieldmark_tests::{
    prompts::{MODELS, Part, fixture, load, sequence, values},
    training::{Named, formats, gradients, parameters, plain_logps, relative},
};

const PAD: u32 = 0;

/// Sizes of the images in patches, and tokens in the loss after them.
const SHAPES: [(usize, usize, usize); 5] = [(4, 4, 3), (4, 6, 9), (2, 2, 1), (6, 4, 6), (4, 8, 4)];

fn device() -> Device {
    Device::flex().autodiff()
}

/// A question with an image and an answer of `answer` tokens, all in the loss.
fn sample(config: &Qwen25VlConfig, seed: u64, (h, w, answer): (usize, usize, usize)) -> SupervisedSequence {
    let mut stream = StreamKey::new(seed).word("text").stream();
    let mut text = |count: usize| Part::Text((0..count).map(|_| 8 + stream.below(312) as u32).collect());
    let parts = [text(3), Part::Image { h, w, seed }, text(2), text(answer)];
    let sequence = sequence(&parts, config);
    let mut target_mask = vec![false; sequence.ids.len() - answer];
    target_mask.resize(sequence.ids.len(), true);
    SupervisedSequence { sequence, target_mask }
}

fn samples(config: &Qwen25VlConfig) -> Vec<SupervisedSequence> {
    (0..).zip(SHAPES).map(|(seed, shape)| sample(config, seed, shape)).collect()
}

fn micros(samples: &[SupervisedSequence], split: &[usize]) -> Vec<MicroBatch> {
    let mut rest = samples;
    let cut = |&count: &usize| {
        let (first, later) = rest.split_at(count);
        rest = later;
        MicroBatch::new(first.to_vec(), PAD).unwrap()
    };
    split.iter().map(cut).collect()
}

fn update(model: &Qwen25Vl, micros: &[MicroBatch], norm: LossNorm, workers: usize, chunk: usize) -> (f64, Named) {
    let scorer = Scorer::new(chunk, 1.0, PAD).unwrap();
    let found = sft_gradients(model, &scorer, micros, norm, &Replicas::new(workers, &device())).unwrap();
    (found.loss, gradients(model, &found.grads))
}

/// Mean over `split`'s parts of the mean of −log π over the part's tokens, every sample alone, in one graph.
fn plainly(model: &Qwen25Vl, samples: &[SupervisedSequence], split: &[usize]) -> (f64, Named) {
    let mut samples = samples.iter();
    let part = |&count: &usize| {
        let logps = samples.by_ref().take(count).map(|sample| {
            let mut prompt = sample.sequence.clone();
            let answer = prompt.ids.split_off(sample.target_mask.iter().position(|&target| target).unwrap());
            plain_logps(model, &prompt, &answer, 1.0, &device())
        });
        Tensor::cat(logps.collect(), 0).mean().neg()
    };
    let loss = Tensor::cat(split.iter().map(part).collect::<Vec<Tensor<1>>>(), 0).mean();
    let value = f64::from(values(loss.clone())[0]);
    (value, gradients(model, &GradientsParams::from_grads(loss.backward(), model)))
}

fn same(found: &(f64, Named), expected: &(f64, Named), what: &str) {
    assert!((found.0 - expected.0).abs() < 1e-5 * expected.0, "{what}: loss {} for {}", found.0, expected.0);
    let error = relative(&found.1, &expected.1);
    assert!(error < 1e-5, "{what}: gradients differ by {error}");
}

#[test]
fn an_update_is_one_token_mean_however_the_batch_is_cut() {
    for name in MODELS {
        let model = load(name, &device());
        let samples = samples(model.config());
        let expected = plainly(&model, &samples, &[5]);
        for split in [&[5][..], &[1, 4], &[3, 2], &[1, 1, 1, 1, 1]] {
            let found = update(&model, &micros(&samples, split), LossNorm::Batch, 1, 1024);
            same(&found, &expected, &format!("{name} {split:?}"));
        }
    }
}

#[test]
fn the_released_norm_is_the_mean_of_the_micro_batches_means() {
    let model = load(MODELS[0], &device());
    let samples = samples(model.config());
    let batch = plainly(&model, &samples, &[5]);
    for split in [&[1, 4][..], &[2, 1, 2]] {
        let found = update(&model, &micros(&samples, split), LossNorm::Micro, 1, 1024);
        same(&found, &plainly(&model, &samples, split), &format!("{split:?}"));
        assert!(relative(&found.1, &batch.1) > 1e-2);
    }
}

#[test]
fn workers_and_chunks_change_nothing() {
    for name in MODELS {
        let model = load(name, &device());
        let micros = micros(&samples(model.config()), &[2, 1, 2]);
        let one = update(&model, &micros, LossNorm::Batch, 1, 4096);
        for workers in [2, 3, 9] {
            assert!(update(&model, &micros, LossNorm::Batch, workers, 4096) == one, "{name}, {workers} workers");
        }
        // A device beside the first, here the same one again: what moves between them is all there.
        let scorer = Scorer::new(4096, 1.0, PAD).unwrap();
        for (workers, others) in [(1, vec![device()]), (1, vec![device(), device()]), (2, vec![device()])] {
            let replicas = Replicas::new(workers, &device()).with_devices(&others);
            assert_eq!(replicas.len(), workers * (1 + others.len()));
            let found = sft_gradients(&model, &scorer, &micros, LossNorm::Batch, &replicas).unwrap();
            assert!((found.loss, gradients(&model, &found.grads)) == one, "{name}, {others:?}");
        }
        for chunk in [1, 7] {
            same(&update(&model, &micros, LossNorm::Batch, 1, chunk), &one, &format!("{name}, chunks of {chunk}"));
        }
    }
}

/// Every way to trade memory for time, by name.
fn scorers() -> Vec<(String, Scorer)> {
    let mut found = Vec::new();
    for packing in [false, true] {
        for recompute in [false, true] {
            for query_chunk in [0, 3] {
                let trunk = TrunkSettings { recompute, query_chunk };
                let scorer = Scorer::new(1024, 1.0, PAD).unwrap().with_trunk(trunk).with_packing(packing);
                found.push((format!("packing {packing}, {trunk:?}"), scorer));
            }
        }
    }
    found
}

#[test]
fn packed_recomputed_and_chunked_are_the_gradient_of_single_sequences_on_one_tape() {
    for name in MODELS {
        let model = load(name, &device());
        let samples = samples(model.config());
        let expected = plainly(&model, &samples, &[5]);
        for (what, scorer) in scorers() {
            let micros = [&samples[..2], &samples[2..]].map(|samples| scorer.micro_batch(samples.to_vec()).unwrap());
            let found = sft_gradients(&model, &scorer, &micros, LossNorm::Batch, &Replicas::new(1, &device())).unwrap();
            same(&(found.loss, gradients(&model, &found.grads)), &expected, &format!("{name}, {what}"));
        }
    }
}

#[test]
fn any_parts_may_be_frozen_under_every_setting() {
    let samples = samples(load(MODELS[0], &device()).config());
    for parts in 1..8 {
        let parts = TrainableParts { vision: parts & 1 > 0, projector: parts & 2 > 0, decoder: parts & 4 > 0 };
        let model = load(MODELS[0], &device()).with_trainable(parts);
        let expected = plainly(&model, &samples, &[5]);
        for (what, scorer) in scorers() {
            let micro = [scorer.micro_batch(samples.clone()).unwrap()];
            let found = sft_gradients(&model, &scorer, &micro, LossNorm::Batch, &Replicas::new(1, &device())).unwrap();
            same(&(found.loss, gradients(&model, &found.grads)), &expected, &format!("{parts:?}, {what}"));
        }
    }
}

/// Samples of the fixture models, and which were asked for.
struct Source {
    samples: Vec<SupervisedSequence>,
    /// An epoch in which sample 0 is made of NaN.
    poisoned: Option<usize>,
    asked: Mutex<Vec<(usize, usize)>>,
}

impl Source {
    fn new(samples: Vec<SupervisedSequence>) -> Self {
        Self { samples, poisoned: None, asked: Mutex::default() }
    }

    /// Rows in the order in which `epoch` asked for them.
    fn order(&self, epoch: usize) -> Vec<usize> {
        self.asked.lock().unwrap().iter().filter(|asked| asked.1 == epoch).map(|asked| asked.0).collect()
    }
}

impl SftSource for Source {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn sample(&self, row: usize, epoch: usize) -> Result<SupervisedSequence, TrainError> {
        self.asked.lock().unwrap().push((row, epoch));
        let mut sample = self.samples[row].clone();
        if row == 0 && self.poisoned == Some(epoch) {
            let image = &mut sample.sequence.images[0];
            image.pixel_values = image.pixel_values.iter().map(|_| f32::NAN).collect();
        }
        Ok(sample)
    }
}

fn settings() -> SftConfig {
    SftConfig {
        epochs: 2,
        batch: 2,
        micro_batch: 1,
        schedule: LrSchedule { lr: 1e-3, shape: LrShape::Constant, warmup: 0, released: false },
        ..SftConfig::default()
    }
}

fn train(model: &Qwen25Vl, source: &Source, config: &SftConfig, seed: u64) -> (Qwen25Vl, Vec<SftMetrics>) {
    let mut metrics = Vec::new();
    let trained = train_sft(model.clone(), source, config, PAD, &StreamKey::new(seed), &device(), |row, _| {
        metrics.push(row.clone());
        Ok(())
    });
    (trained.unwrap(), metrics)
}

/// A question with two images, `between` tokens apart, and an answer.
fn two_images(config: &Qwen25VlConfig, seed: u64, between: usize) -> SupervisedSequence {
    let mut stream = StreamKey::new(seed).word("text").stream();
    let mut text = |count: usize| Part::Text((0..count).map(|_| 8 + stream.below(312) as u32).collect());
    let (first, second) = (Part::Image { h: 4, w: 6, seed }, Part::Image { h: 6, w: 2, seed: seed + 1 });
    let sequence = sequence(&[text(2), first, text(between), second, text(3), text(5)], config);
    let mut target_mask = vec![false; sequence.ids.len() - 5];
    target_mask.resize(sequence.ids.len(), true);
    SupervisedSequence { sequence, target_mask }
}

#[test]
fn samples_of_several_images_train_beside_others() {
    for name in MODELS {
        let model = load(name, &device());
        let config = model.config();
        let samples = vec![two_images(config, 5, 4), two_images(config, 9, 1), sample(config, 1, SHAPES[0])];
        let expected = plainly(&model, &samples, &[3]);
        for (what, scorer) in scorers() {
            let micros = [&samples[..2], &samples[2..]].map(|samples| scorer.micro_batch(samples.to_vec()).unwrap());
            let found = sft_gradients(&model, &scorer, &micros, LossNorm::Batch, &Replicas::new(1, &device())).unwrap();
            same(&(found.loss, gradients(&model, &found.grads)), &expected, &format!("{name}, {what}"));
        }
    }
}

#[test]
fn the_validation_loss_is_that_of_single_sequences_and_changes_nothing() {
    let model = load(MODELS[0], &device());
    let (source, held) = {
        let samples = samples(model.config());
        (Source::new(samples[..3].to_vec()), Source::new(samples[3..].to_vec()))
    };
    let tokens = SHAPES[3].2 + SHAPES[4].2;
    let near = |found: f64, expected: f64, what: &str| {
        assert!((found - expected).abs() < 1e-5 * expected, "{what}: {found} for {expected}");
    };
    let expected = plainly(&model, &held.samples, &[2]).0;
    for (batch, micro_batch, micro_tokens, workers, packing) in
        [(8, 2, 0, 1, true), (1, 2, 0, 1, false), (2, 1, 0, 2, true), (8, 2, 1, 1, true), (8, 2, 0, 1, false)]
    {
        let config = SftConfig { batch, micro_batch, micro_tokens, workers, packing, ..settings() };
        let (scorer, replicas) = (config.scorer(PAD).unwrap(), Replicas::new(workers, &Device::flex()));
        let found = validate_sft(&model.valid(), &scorer, &held, &config, &replicas).unwrap();
        near(found.loss, expected, &format!("{config:?}"));
        assert_eq!(found.tokens, tokens);
    }

    // Batches of 2 and 1 rows in each of two epochs: after updates 3 and 4, of the model as it is then.
    let config = SftConfig { eval_every: Some(3), ..settings() };
    let mut trainer = SftTrainer::new(&model, &source, config.clone(), PAD, StreamKey::new(0), &device())
        .unwrap()
        .with_validation(&held);
    let (mut trained, mut rows) = (model.clone(), Vec::new());
    while !trainer.is_finished() {
        let mut row = None;
        trained = trainer
            .step(trained, |metrics, _| {
                row = Some(metrics.clone());
                Ok(())
            })
            .unwrap();
        let row = row.unwrap();
        assert_eq!(row.validation.is_some(), row.step >= 3);
        if let Some(found) = row.validation {
            near(found.loss, plainly(&trained, &held.samples, &[2]).0, &format!("after {}", row.step));
            assert!(found.loss != expected && found.tokens == tokens);
        }
        rows.push(SftMetrics { validation: None, ..row });
    }
    let (alone, alone_rows) = train(&model, &source, &config, 0);
    assert!(parameters(&alone) == parameters(&trained) && alone_rows == rows);
    assert_eq!(held.order(0).len(), held.asked.lock().unwrap().len());
}

#[test]
fn frozen_parts_stay_bit_for_bit_and_the_others_move() {
    let part = |path: &str, parts: TrainableParts| match path {
        path if path.starts_with("visual.merger") => parts.projector,
        path if path.starts_with("visual.") => parts.vision,
        _ => parts.decoder,
    };
    for (name, workers) in [(MODELS[0], 1), (MODELS[1], 2)] {
        let model = load(name, &device());
        let source = Source::new(samples(model.config()));
        let before = parameters(&model);
        for [vision, projector, decoder] in
            [[false, false, true], [false, true, false], [true, false, false], [true, false, true], [true, true, true]]
        {
            let parts = TrainableParts { vision, projector, decoder };
            let config = SftConfig { epochs: 1, workers, train: parts, ..settings() };
            let after = parameters(&train(&model, &source, &config, 0).0);
            for ((path, before), (_, after)) in before.iter().zip(&after) {
                assert_eq!(before != after, part(path, parts), "{name} {path} {parts:?}");
            }
        }
    }
}

#[test]
fn the_loss_of_four_samples_goes_down() {
    let model = load(MODELS[0], &device());
    let source = Source::new(samples(model.config())[..4].to_vec());
    let config = SftConfig { epochs: 20, batch: 4, micro_batch: 3, ..settings() };
    let losses: Vec<f64> = train(&model, &source, &config, 0).1.iter().map(|row| row.loss).collect();
    assert_eq!(losses.len(), 20);
    assert!(losses.windows(4).all(|losses| losses[3] < losses[0]), "{losses:?}");
    assert!(losses[19] < 0.5 * losses[0], "{losses:?}");
}

#[test]
fn gradients_in_bf16_point_where_those_in_f32_do() {
    let run = |dtype| {
        let options = LoadOptions { dtype: Some(dtype), ..LoadOptions::default() };
        let model = Qwen25Vl::from_pretrained(&fixture(MODELS[1]), options, &device()).unwrap();
        update(&model, &micros(&samples(model.config()), &[2, 3]), LossNorm::Batch, 1, 7)
    };
    let (exact, rounded) = (run(FloatDType::F32), run(FloatDType::BF16));
    assert!((rounded.0 / exact.0 - 1.0).abs() < 5e-3, "{} {}", rounded.0, exact.0);
    for ((path, x), (_, y)) in exact.1.iter().zip(&rounded.1) {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let cosine = dot(x, y) / (dot(x, x) * dot(y, y)).sqrt();
        assert!(cosine > 0.99, "{path}: {cosine}");
    }
}

#[test]
fn bf16_learns_as_f32_does_and_parts_keep_their_formats() {
    let (f32, bf16) = (Some(FloatDType::F32), Some(FloatDType::BF16));
    let run = |dtype, parts, half| {
        let options = LoadOptions { dtype, parts };
        let model = Qwen25Vl::from_pretrained(&fixture(MODELS[0]), options, &device()).unwrap();
        let source = Source::new(samples(model.config())[..4].to_vec());
        let adamw = AdamWSettings { half, ..AdamWSettings::default() };
        let config =
            SftConfig { epochs: 20, batch: 4, micro_batch: 3, train: TrainableParts::default(), adamw, ..settings() };
        let (model, metrics) = train(&model, &source, &config, 0);
        (formats(&model), metrics.into_iter().map(|row| row.loss).collect::<Vec<_>>())
    };
    let (_, expected) = run(f32, PartTypes::default(), HalfWeights::None);
    // In nats, from 9.9 at first to 0.0003 at last.
    let near = |losses: &[f64]| losses.iter().zip(&expected).all(|(loss, expected)| (loss - expected).abs() < 0.15);
    let mixed = PartTypes { vision: f32, projector: bf16, decoder: None };
    let other = PartTypes { vision: bf16, projector: None, decoder: f32 };
    for (dtype, parts, wanted) in [
        (bf16, PartTypes::default(), [DType::BF16; 3]),
        (bf16, mixed, [DType::F32, DType::BF16, DType::BF16]),
        (f32, other, [DType::BF16, DType::F32, DType::F32]),
    ] {
        for half in [HalfWeights::Master, HalfWeights::Kahan] {
            let (formats, losses) = run(dtype, parts, half);
            for (name, format) in formats {
                let part = match name.as_str() {
                    name if name.starts_with("visual.merger") => 1,
                    name if name.starts_with("visual.") => 0,
                    _ => 2,
                };
                assert_eq!(format, wanted[part], "{name}");
            }
            assert!(near(&losses), "{parts:?} {half:?}: {losses:?} {expected:?}");
            assert_ne!(losses, expected);
        }
    }
}

#[test]
fn a_seed_decides_the_order_and_the_weights() {
    let model = load(MODELS[0], &device());
    let run = |seed| {
        let source = Source::new(samples(model.config()));
        let (trained, metrics) = train(&model, &source, &settings(), seed);
        (parameters(&trained), source, metrics)
    };
    let (first, source, metrics) = run(1);
    let (again, ..) = run(1);
    let (other, other_source, _) = run(2);
    assert!(first == again && first != other);
    assert_ne!(source.order(0), other_source.order(0));
    assert_ne!(source.order(0), source.order(1));

    // Batches of 2, 2 and 1 rows in each epoch, every row once.
    let mut steps = metrics.iter();
    for epoch in 0..2 {
        let order = source.order(epoch);
        let mut rows = order.clone();
        rows.sort_unstable();
        assert_eq!(rows, [0, 1, 2, 3, 4]);
        for (i, rows) in order.chunks(2).enumerate() {
            let row = steps.next().unwrap();
            assert_eq!(row.tokens, rows.iter().map(|&row| SHAPES[row].2).sum::<usize>());
            let seen = epoch as f64 + (2.0 * (i + 1) as f64).min(5.0) / 5.0;
            assert!((row.epoch - seen).abs() < 1e-9);
        }
    }
    assert!(steps.next().is_none());
}

#[test]
fn an_update_that_is_not_finite_is_skipped_and_counted() {
    let model = load(MODELS[0], &device());
    let before = parameters(&model);
    let mut source = Source::new(samples(model.config())[..2].to_vec());
    source.poisoned = Some(0);
    let config = SftConfig { epochs: 1, workers: 2, ..settings() };
    let (after, metrics) = train(&model, &source, &config, 0);
    assert!(parameters(&after) == before);
    assert!(metrics.len() == 1 && metrics[0].skipped == 1 && !metrics[0].grad_norm.is_finite());
    assert_eq!(metrics[0].non_finite, [source.samples[0].sequence.name.clone()]);

    // Neither the moments nor the order remember it: only the count does.
    let config = SftConfig { epochs: 3, ..config };
    let (after, metrics) = train(&model, &source, &config, 0);
    assert_eq!(metrics.iter().map(|row| row.skipped).collect::<Vec<_>>(), [1, 1, 1]);
    assert_eq!(metrics.iter().map(|row| row.step).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(metrics[1..].iter().all(|row| row.loss.is_finite() && row.grad_norm.is_finite()));
    let after = parameters(&after);
    assert!(after != before && after.iter().flat_map(|(_, values)| values).all(|x| x.is_finite()));
}

#[test]
fn a_new_model_knows_nothing_and_a_deeper_one_starts_the_same() {
    let config = load(MODELS[1], &Device::flex()).config().clone();
    let make = |config: &Qwen25VlConfig| initialise(config.init(&device()), 0.02, &StreamKey::new(3));
    let model = make(&config);
    let found = parameters(&model);
    for (path, values) in &found {
        match path.rsplit('.').next().unwrap() {
            "gamma" => assert!(values.iter().all(|&x| x == 1.0), "{path}"),
            "bias" => assert!(values.iter().all(|&x| x == 0.0), "{path}"),
            _ => {
                let mean = values.iter().sum::<f32>() / values.len() as f32;
                let spread = (values.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / values.len() as f32).sqrt();
                assert!(mean.abs() < 2e-3 && (spread - 0.02).abs() < 2e-3, "{path} {mean} {spread}");
            }
        }
    }
    // Every matrix has a stream of its own.
    let drawn = || found.iter().filter(|(_, values)| values[0] != 0.0 && values[0] != 1.0);
    let starts: BTreeSet<u32> = drawn().map(|(_, values)| values[0].to_bits()).collect();
    assert!(starts.len() > 10 && starts.len() == drawn().count());
    let micros = micros(&samples(&config), &[5]);
    let (loss, grads) = update(&model, &micros, LossNorm::Batch, 1, 64);
    assert!((loss - f64::from(config.text.vocab_size as u32).ln()).abs() < 0.1, "{loss}");
    for (path, grad) in grads {
        assert!(grad.iter().any(|&x| x != 0.0), "{path} has no gradient");
    }

    let mut deeper = config.clone();
    deeper.text.num_hidden_layers += 2;
    let deeper = parameters(&make(&deeper));
    assert!(deeper.len() > found.len());
    for one in &found {
        assert!(deeper.contains(one), "{}", one.0);
    }
}

#[test]
fn settings_without_meaning_are_refused_before_any_sample_is_read() {
    let model = load(MODELS[0], &device());
    let source = Source::new(samples(model.config()));
    let refused = |config: SftConfig, source: &Source| {
        let streams = StreamKey::new(0);
        train_sft(model.clone(), source, &config, PAD, &streams, &device(), |_, _| Ok(())).map(|_| ()).unwrap_err()
    };
    let adamw = AdamWSettings { beta1: 1.0, ..AdamWSettings::default() };
    for (config, wanted) in [
        (SftConfig { batch: 0, ..settings() }, "batch"),
        (SftConfig { micro_batch: 0, ..settings() }, "micro_batch"),
        (SftConfig { logit_chunk: 0, ..settings() }, "logit_chunk"),
        (SftConfig { max_grad_norm: 0.0, ..settings() }, "max_grad_norm"),
        (SftConfig { adamw, ..settings() }, "beta1"),
    ] {
        let error = refused(config, &source).to_string();
        assert!(error.contains(&format!("`{wanted}`")) || error.contains(wanted), "{error}");
    }
    refused(settings(), &Source::new(Vec::new()));
    assert!(source.asked.lock().unwrap().is_empty());
}

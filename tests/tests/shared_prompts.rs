//! Responses that share their prompt in a packed row: values and gradients are those of sequences that run alone.

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Device, FloatDType, Tensor, TensorData},
};
use fieldmark::{
    model::{LoraSettings, Qwen25Vl, Qwen25VlConfig, TrainableParts},
    processor::{ProcessorError, Sequence, SupervisedSequence},
    stream::StreamKey,
    train::{
        TrainError,
        gradient::{GradientSum, MicroBatch, Scorer, TrunkSettings},
        params::initialise_adapters,
    },
};
use fieldmark_tests::{
    prompts::{MODELS, Part, load, sequence, values},
    supervised::{PAD, device},
    training::{Named, gradients, relative},
};

/// A fixture model whose numbers are f64, so that the order of a sum does not show.
fn exact(name: &str, device: &Device) -> Qwen25Vl {
    load(name, device).map(&mut Moved(0.0))
}

/// Adds a number to every parameter, in f64.
struct Moved(f64);

impl ModuleMapper for Moved {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let learns = param.is_require_grad();
        param.map(|tensor| (tensor.cast(FloatDType::F64) + self.0).detach()).set_require_grad(learns)
    }
}

fn words(seed: u64, count: usize) -> Vec<u32> {
    let mut stream = StreamKey::new(seed).word("text").stream();
    (0..count).map(|_| 8 + stream.below(312) as u32).collect()
}

/// Prompts with one image, with two of different sizes, and with none; the last differs from the first in its image alone.
fn prompts(config: &Qwen25VlConfig) -> [Sequence; 4] {
    let image = |h, w, seed| Part::Image { h, w, seed };
    let text = |seed, count| Part::Text(words(seed, count));
    [
        vec![text(1, 3), image(4, 6, 1), text(2, 4)],
        vec![text(3, 2), image(2, 4, 2), text(4, 3), image(4, 4, 3), text(5, 2)],
        vec![text(6, 7)],
        vec![text(1, 3), image(4, 6, 4), text(2, 4)],
    ]
    .map(|parts| sequence(&parts, config))
}

fn answered(prompt: &Sequence, seed: u64, tokens: usize) -> SupervisedSequence {
    let sequence = prompt.with_response(&words(seed, tokens));
    let target_mask = (0..sequence.ids.len()).map(|token| token >= prompt.ids.len()).collect();
    SupervisedSequence { sequence, target_mask }
}

/// Responses of several lengths, with one as short as can be; the groups are mixed, and one prompt has a single response.
fn mixed(config: &Qwen25VlConfig) -> Vec<SupervisedSequence> {
    let prompts = prompts(config);
    let order = [(0, 5), (3, 2), (0, 5), (1, 4), (0, 1), (2, 6), (3, 7), (1, 9), (3, 2)];
    (10..).zip(order).map(|(seed, (prompt, tokens))| answered(&prompts[prompt], seed, tokens)).collect()
}

/// Log-probabilities in the order of the samples, and the gradients of a loss in which each token has a weight of its own.
fn pass(model: &Qwen25Vl, scorer: &Scorer, micros: &[MicroBatch]) -> (Vec<f32>, Named) {
    let (mut logps, mut sum) = (Vec::new(), GradientSum::new());
    for micro in micros {
        let scored = scorer.forward(model, micro, &device()).unwrap();
        let found = values(scored.logp_n.clone());
        let weights = (logps.len()..logps.len() + found.len()).map(|i| (i as f32 * 1.3).sin()).collect();
        let weights = Tensor::from_data(TensorData::new::<f32, _>(weights, [found.len()]), &device().inner());
        scorer.backward(model, scored, weights, &mut sum);
        logps.extend(found);
    }
    (logps, gradients(model, &sum.into_grads()))
}

fn scorers() -> impl Iterator<Item = (TrunkSettings, Scorer)> {
    [(false, 0), (true, 0), (false, 3), (true, 3)].into_iter().map(|(recompute, query_chunk)| {
        let trunk = TrunkSettings { recompute, query_chunk };
        (trunk, Scorer::new(7, 0.8, PAD).unwrap().with_trunk(trunk))
    })
}

/// Equal as f32 numbers.
fn close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 2e-7 * expected.abs().max(1.0), "{found} for {expected}");
    }
}

fn compare(model: &Qwen25Vl, samples: &[SupervisedSequence], what: &str) {
    for (trunk, scorer) in scorers() {
        let micro = |samples: &[SupervisedSequence]| MicroBatch::packed(samples.to_vec()).unwrap();
        let alone: Vec<MicroBatch> = samples.chunks(1).map(micro).collect();
        let (found, expected) = (pass(model, &scorer, &[micro(samples)]), pass(model, &scorer, &alone));
        close(&found.0, &expected.0);
        let apart = relative(&found.1, &expected.1);
        assert!(apart < 2e-7, "{what}, {trunk:?}: {apart}");
    }
}

#[test]
fn gradients_are_those_of_separate_sequences() {
    for name in MODELS {
        let model = exact(name, &device());
        compare(&model, &mixed(model.config()), name);
    }
}

/// In f32 they differ by rounding, less than the gradients of a padded batch do from those of its rows.
#[test]
fn in_f32_they_differ_in_the_last_digits() {
    let model = load(MODELS[0], &device());
    let samples = mixed(model.config());
    let scorer = Scorer::new(7, 0.8, PAD).unwrap();
    let padded = pass(&model, &scorer, &[MicroBatch::new(samples.clone(), PAD).unwrap()]);
    let shared = pass(&model, &scorer, &[MicroBatch::packed(samples).unwrap()]);
    let apart = relative(&shared.1, &padded.1);
    assert!(apart < 1e-6, "{apart}");
}

#[test]
fn adapters_and_frozen_parts_learn_the_same_from_them() {
    let base = exact(MODELS[0], &device());
    let samples = mixed(base.config());
    let lora = LoraSettings { rank: 3, ..LoraSettings::default() };
    let adapted = load(MODELS[0], &device()).with_lora(&lora, TrainableParts::default()).unwrap();
    // Moved, so that the second factors are not 0 and the first have a gradient.
    let adapted = initialise_adapters(adapted, &StreamKey::new(5)).map(&mut Moved(0.01));
    compare(&adapted, &samples, "adapters");
    for parts in [
        TrainableParts { vision: false, projector: false, decoder: true },
        TrainableParts { vision: true, projector: false, decoder: false },
    ] {
        compare(&base.clone().with_trainable(parts), &samples, &format!("{parts:?}"));
    }
}

#[test]
fn without_a_tape_they_score_the_same() {
    let model = exact(MODELS[0], &device().inner());
    let samples = mixed(model.config());
    let scorer = Scorer::new(7, 0.8, PAD).unwrap();
    let score = |samples: &[SupervisedSequence]| {
        let micro = MicroBatch::packed(samples.to_vec()).unwrap();
        let scored = scorer.evaluate(&model, &micro, &device().inner()).unwrap();
        [values(scored.logp_n), values(scored.entropy_n)]
    };
    let alone: Vec<_> = samples.chunks(1).map(score).collect();
    let together = score(&samples);
    for (place, found) in together.iter().enumerate() {
        close(found, &alone.iter().flat_map(|values| &values[place]).copied().collect::<Vec<_>>());
    }
}

/// A prompt of 30 tokens with ten responses costs the operations of 30 + 10 × 4 tokens, each of which sees what it saw.
#[test]
fn the_prompts_operations_count_once() {
    let model = load(MODELS[0], &device());
    let config = model.config();
    let prompt = sequence(&[Part::Text(words(1, 30))], config);
    let samples: Vec<SupervisedSequence> = (0..10).map(|i| answered(&prompt, 40 + i, 4)).collect();
    let micro = MicroBatch::packed(samples).unwrap();
    let mut expected = config.head_flops(40) + config.decoder_flops(0, 30);
    (0..10).for_each(|_| expected += config.decoder_flops(30, 4));
    assert_eq!(micro.flops(config, Default::default()), expected);
    assert_eq!(micro.names().count(), 10);
}

/// Prompt and response are each within the context; together they are not.
#[test]
fn a_response_that_leaves_the_context_is_named() {
    let model = load(MODELS[0], &device());
    let context = model.config().text.max_position_embeddings;
    let prompt = Sequence { name: "long".into(), ..sequence(&[Part::Text(words(1, context - 3))], model.config()) };
    let samples = [3, 4].map(|tokens| answered(&prompt, 9, tokens));
    let micro = MicroBatch::packed(samples.to_vec()).unwrap();
    let refused = Scorer::new(7, 0.8, PAD).unwrap().forward(&model, &micro, &device());
    match refused.err() {
        Some(TrainError::Processor(ProcessorError::TooLong { sample, tokens, limit, .. })) => {
            assert_eq!((sample.as_str(), tokens, limit), ("long", context + 1, context));
        }
        other => panic!("{other:?}"),
    }
}

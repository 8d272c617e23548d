//! Loss and gradients of one SFT update are those of the loss written down plainly, however they are computed.

use fieldmark::{
    model::{LoadOptions, Qwen25Vl, Qwen25VlConfig, TrainableParts, WeightType},
    processor::SupervisedSequence,
    stream::StreamKey,
    train::{
        gradient::{LossNorm, MicroBatch, Scorer, TrunkSettings},
        parallel::Replicas,
        sft::sft_gradients,
    },
};
use fieldmark_tests::{
    prompts::{MODELS, Part, fixture, load, sequence},
    supervised::{PAD, SHAPES, device, micros, plainly, same, sample, samples},
    training::{Named, gradients, relative},
};

fn update(model: &Qwen25Vl, micros: &[MicroBatch], norm: LossNorm, workers: usize, chunk: usize) -> (f64, Named) {
    let scorer = Scorer::new(chunk, 1.0, PAD).unwrap();
    let found = sft_gradients(model, &scorer, micros, norm, &Replicas::new(workers, &device())).unwrap();
    (found.loss, gradients(model, &found.grads))
}

/// The same by `scorer`, of the `first` samples and then the others, if there are any.
fn update_by(scorer: &Scorer, model: &Qwen25Vl, samples: &[SupervisedSequence], first: usize) -> (f64, Named) {
    let parts = [&samples[..first], &samples[first..]].into_iter().filter(|part| !part.is_empty());
    let micros: Vec<MicroBatch> = parts.map(|samples| scorer.micro_batch(samples.to_vec()).unwrap()).collect();
    let found = sft_gradients(model, scorer, &micros, LossNorm::Batch, &Replicas::new(1, &device())).unwrap();
    (found.loss, gradients(model, &found.grads))
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

/// A question without an image and an answer of `answer` tokens.
fn text_alone(config: &Qwen25VlConfig, seed: u64, answer: usize) -> SupervisedSequence {
    let mut stream = StreamKey::new(seed).word("text").stream();
    let ids = (0..5 + answer).map(|_| 8 + stream.below(312) as u32).collect();
    let sequence = sequence(&[Part::Text(ids)], config);
    let target_mask = (0..5 + answer).map(|place| place >= 5).collect();
    SupervisedSequence { sequence, target_mask }
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
        for chunk in [1, 7] {
            same(&update(&model, &micros, LossNorm::Batch, 1, chunk), &one, &format!("{name}, chunks of {chunk}"));
        }
    }
}

#[test]
fn packed_recomputed_and_chunked_are_the_gradient_of_single_sequences_on_one_tape() {
    for name in MODELS {
        let model = load(name, &device());
        let samples = samples(model.config());
        let expected = plainly(&model, &samples, &[5]);
        for (what, scorer) in scorers() {
            same(&update_by(&scorer, &model, &samples, 2), &expected, &format!("{name}, {what}"));
        }
    }
}

#[test]
fn running_blocks_again_and_chunks_of_queries_or_logits_change_nothing_but_the_last_digits() {
    for name in MODELS {
        let model = load(name, &device());
        let samples = samples(model.config());
        let update = |trunk: TrunkSettings, logit_chunk: usize| {
            let scorer = Scorer::new(logit_chunk, 1.0, PAD).unwrap().with_trunk(trunk).with_packing(true);
            update_by(&scorer, &model, &samples, 2)
        };
        let kept = TrunkSettings { recompute: false, query_chunk: 0 };
        let expected = update(kept, 1024);
        for (trunk, logit_chunk) in [
            (TrunkSettings { recompute: true, ..kept }, 1024),
            (TrunkSettings { query_chunk: 3, ..kept }, 1024),
            (kept, 5),
            (TrunkSettings { recompute: true, query_chunk: 3 }, 5),
        ] {
            let found = update(trunk, logit_chunk);
            let apart = relative(&found.1, &expected.1);
            assert!(
                (found.0 / expected.0 - 1.0).abs() < 1e-6 && apart < 1e-6,
                "{name} {trunk:?} {logit_chunk}: {apart}"
            );
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
            same(&update_by(&scorer, &model, &samples, samples.len()), &expected, &format!("{parts:?}, {what}"));
        }
    }
}

#[test]
fn samples_of_several_images_train_beside_others() {
    for name in MODELS {
        let model = load(name, &device());
        let config = model.config();
        let samples = vec![two_images(config, 5, 4), two_images(config, 9, 1), sample(config, 1, SHAPES[0])];
        let expected = plainly(&model, &samples, &[3]);
        for (what, scorer) in scorers() {
            same(&update_by(&scorer, &model, &samples, 2), &expected, &format!("{name}, {what}"));
        }
    }
}

#[test]
fn rows_of_text_train_alone_and_beside_images() {
    for name in MODELS {
        let model = load(name, &device());
        let config = model.config();
        let (text, images) = ([text_alone(config, 21, 6), text_alone(config, 22, 3)], samples(config));
        let mixed = [&text[0], &images[1], &text[1], &images[3]].map(Clone::clone);
        for rows in [&text[..], &mixed] {
            let expected = plainly(&model, rows, &[rows.len()]);
            let vision = expected.1.iter().filter(|(path, _)| path.starts_with("visual."));
            let learns = vision.clone().any(|(_, grad)| grad.iter().any(|number| *number != 0.0));
            assert_eq!(learns, rows.len() == mixed.len());
            for (what, scorer) in scorers() {
                // With the first alone, a micro-batch has no image beside one that has.
                for first in [1, rows.len()] {
                    same(&update_by(&scorer, &model, rows, first), &expected, &format!("{name}, {what}, {first}"));
                }
            }
        }
    }
}

#[test]
fn gradients_in_bf16_point_where_those_in_f32_do() {
    let run = |dtype| {
        let options = LoadOptions { dtype: Some(dtype), ..LoadOptions::default() };
        let model = Qwen25Vl::from_pretrained(&fixture(MODELS[1]), options, &device()).unwrap();
        update(&model, &micros(&samples(model.config()), &[2, 3]), LossNorm::Batch, 1, 7)
    };
    let (exact, rounded) = (run(WeightType::F32), run(WeightType::Bf16));
    assert!((rounded.0 / exact.0 - 1.0).abs() < 5e-3, "{} {}", rounded.0, exact.0);
    for ((path, x), (_, y)) in exact.1.iter().zip(&rounded.1) {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let cosine = dot(x, y) / (dot(x, x) * dot(y, y)).sqrt();
        assert!(cosine > 0.99, "{path}: {cosine}");
    }
}

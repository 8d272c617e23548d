//! Supervised samples for the fixture models, and the gradient of their loss computed in the plainest way.

use burn::{
    optim::GradientsParams,
    tensor::{Device, Tensor},
};
use fieldmark::{
    model::{Qwen25Vl, Qwen25VlConfig},
    processor::SupervisedSequence,
    stream::StreamKey,
    train::gradient::MicroBatch,
};

use crate::{
    prompts::{Part, sequence, values},
    training::{Named, gradients, plain_logps, relative},
};

/// The padding token.
pub const PAD: u32 = 0;

/// Height and width of an image in patches, and the number of answer tokens in the loss.
pub const SHAPES: [(usize, usize, usize); 5] = [(4, 4, 3), (4, 6, 9), (2, 2, 1), (6, 4, 6), (4, 8, 4)];

/// The device of these updates.
pub fn device() -> Device {
    Device::flex().autodiff()
}

/// Makes a question with an image and an answer of `answer` tokens, all in the loss.
pub fn sample(config: &Qwen25VlConfig, seed: u64, (h, w, answer): (usize, usize, usize)) -> SupervisedSequence {
    let mut stream = StreamKey::new(seed).word("text").stream();
    let mut text = |count: usize| Part::Text((0..count).map(|_| 8 + stream.below(312) as u32).collect());
    let parts = [text(3), Part::Image { h, w, seed }, text(2), text(answer)];
    let sequence = sequence(&parts, config);
    let mut target_mask = vec![false; sequence.ids.len() - answer];
    target_mask.resize(sequence.ids.len(), true);
    SupervisedSequence { sequence, target_mask }
}

/// Makes one sample for each of [`SHAPES`].
pub fn samples(config: &Qwen25VlConfig) -> Vec<SupervisedSequence> {
    (0..).zip(SHAPES).map(|(seed, shape)| sample(config, seed, shape)).collect()
}

/// Splits samples into micro-batches; `split` has the number of samples in each.
pub fn micros(samples: &[SupervisedSequence], split: &[usize]) -> Vec<MicroBatch> {
    let mut rest = samples;
    let cut = |&count: &usize| {
        let (first, later) = rest.split_at(count);
        rest = later;
        MicroBatch::new(first.to_vec(), PAD).unwrap()
    };
    split.iter().map(cut).collect()
}

/// Computes the mean over the parts of `split` of the mean of −log π over each part's tokens, and its gradients. Every
/// sample is computed alone, all in one graph.
pub fn plainly(model: &Qwen25Vl, samples: &[SupervisedSequence], split: &[usize]) -> (f64, Named) {
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

/// Asserts that losses and gradients are equal up to rounding.
pub fn same(found: &(f64, Named), expected: &(f64, Named), what: &str) {
    assert!((found.0 - expected.0).abs() < 1e-5 * expected.0, "{what}: loss {} for {}", found.0, expected.0);
    let error = relative(&found.1, &expected.1);
    assert!(error < 1e-5, "{what}: gradients differ by {error}");
}

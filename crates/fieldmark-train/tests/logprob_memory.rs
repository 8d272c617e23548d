//! Two-phase log-probabilities must not hold the logits of all tokens at once. Alone in its process, since it reads
//! the process's peak memory.
#![cfg(target_os = "linux")]
#![allow(missing_docs)]

use burn::{
    nn::LinearConfig,
    optim::GradientsParams,
    tensor::{Device, Int, Tensor},
};
use fieldmark_train::gradient::{ChunkedLogProbs, token_logprobs};

const STATES: usize = 2048;
const WIDTH: usize = 16;
const VOCABULARY: usize = 16_384;
const CHUNK: usize = 64;

fn peak_mib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
}

#[test]
fn peak_memory_is_that_of_a_chunk() {
    let device = Device::default().autodiff();
    let head = LinearConfig::new(WIDTH, VOCABULARY).with_bias(false).init(&device);
    let hidden = Tensor::<2>::ones([STATES, WIDTH], &device) * 0.1;
    let targets = Tensor::<1, Int>::zeros([STATES], &device);
    let logits_mib = STATES * VOCABULARY * 4 / (1 << 20);

    let start = peak_mib();
    let logprobs = ChunkedLogProbs::new(CHUNK, 1.0).unwrap();
    let logp = logprobs.forward(&hidden, &targets, |h| head.forward(h));
    let grad = logp.ones_like();
    let grads = logprobs.backward(&hidden, &targets, grad, &head, |h| head.forward(h)).params;
    let chunked: f32 = grads.get::<2>(head.weight.id).unwrap().abs().sum().into_scalar();
    let with_chunks = peak_mib() - start;

    let logp = token_logprobs(head.forward(hidden), targets, 1.0);
    let grads = GradientsParams::from_grads(logp.sum().backward(), &head);
    let naive: f32 = grads.get::<2>(head.weight.id).unwrap().abs().sum().into_scalar();
    let on_one_tape = peak_mib() - start;

    println!("logits {logits_mib} MiB; peak with chunks {with_chunks} MiB, on one tape {on_one_tape} MiB");
    assert!((chunked - naive).abs() < 1e-3 * naive.abs(), "{chunked} {naive}");
    assert!(on_one_tape > logits_mib);
    assert!(with_chunks < logits_mib / 2, "{with_chunks} MiB for logits of {logits_mib} MiB");
}

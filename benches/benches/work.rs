//! `cargo bench -p fieldmark-benches`: times all work, with divan's statistics.

use burn::tensor::Device;
use divan::Bencher;
use fieldmark_allocator::{Allocator, keep_freed_pages};
use fieldmark_benches::{Trainer, decoder, model, prompts, rollouts, vision_input};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() {
    keep_freed_pages();
    divan::main();
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn vision_encode_448(bencher: Bencher<'_, '_>) {
    let device = Device::flex();
    let (network, images) = (model(&device), vision_input(&device));
    bencher.bench_local(|| network.encode_images(&images).into_data());
}

#[divan::bench(sample_count = 3, sample_size = 1, args = [1])]
fn prefill_512(bencher: Bencher<'_, '_>, batch: usize) {
    let device = Device::flex();
    let (network, inputs) = (model(&device), prompts(batch, &device));
    bencher.bench_local(|| network.forward(&inputs).into_data());
}

#[divan::bench(sample_count = 40, sample_size = 1, args = [1, 10])]
fn decode_step(bencher: Bencher<'_, '_>, batch: usize) {
    let device = Device::flex();
    let (network, inputs) = (model(&device), prompts(batch, &device));
    let mut step = decoder(&network, &inputs, &device);
    bencher.bench_local(&mut step);
}

#[divan::bench(sample_count = 2, sample_size = 1)]
fn ten_rollouts_of_65_tokens(bencher: Bencher<'_, '_>) {
    let device = Device::flex();
    let network = model(&device);
    bencher.bench_local(|| rollouts::group(&network, &device));
}

#[divan::bench(sample_count = 2, sample_size = 1)]
fn eighty_rollouts_of_64_tokens_with_vocabulary_151936(bencher: Bencher<'_, '_>) {
    let device = Device::flex();
    let network = rollouts::vocabulary_model(256, &device);
    bencher.bench_local(|| rollouts::vocabulary(&network, &device));
}

#[divan::bench(sample_count = 1, sample_size = 1)]
fn eighty_rollouts_of_geometric_lengths(bencher: Bencher<'_, '_>) {
    let device = Device::flex();
    let network = model(&device);
    bencher.bench_local(|| rollouts::geometric(&network, &device));
}

#[divan::bench(sample_count = 2, sample_size = 1, args = [1, 4])]
fn sft_step_512(bencher: Bencher<'_, '_>, batch: usize) {
    let mut trainer = Trainer::new(&Device::flex());
    bencher.bench_local(|| trainer.sft(batch));
}

#[divan::bench(sample_count = 2, sample_size = 1, args = [2])]
fn tapo_update_512(bencher: Bencher<'_, '_>, batch: usize) {
    let mut trainer = Trainer::new(&Device::flex());
    bencher.bench_local(|| trainer.tapo(batch));
}

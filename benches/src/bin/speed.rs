//! The best time of each piece of work, one `name<TAB>milliseconds` per line; `peers/reference.py` prints the reference's.
//!
//! `cargo run --release -p fieldmark-benches --bin speed [NAME...]` runs the work whose name contains one of the arguments.
//! With `--device`, `--size`, `--dtype` or `--layers` it times the work of `sized` instead, on any device of the build.

use std::{process::ExitCode, time::Instant};

use burn::tensor::Device;
use fieldmark_allocator::{Allocator, keep_freed_pages};
use fieldmark_benches::{
    Trainer, decoder, log_probabilities::LogProbabilities, model, prompts, rollouts, sized, vision_input,
};

/// Runs `work` once to warm up, then `times` times, and prints the best time.
fn best(name: &str, times: usize, mut work: impl FnMut()) {
    work();
    let fastest = (0..times)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min);
    println!("{name}\t{:.2}", 1e3 * fastest);
}

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    keep_freed_pages();
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if let Some(done) = sized::run(&wanted) {
        return done;
    }
    let chosen = |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str()));
    let device = Device::flex();
    let network = model(&device);
    if chosen("vision encode 448x448") {
        let images = vision_input(&device);
        best("vision encode 448x448", 5, || drop(network.encode_images(&images).into_data()));
    }
    if chosen("prefill 512") {
        let inputs = prompts(1, &device);
        best("prefill 512", 3, || {
            let hidden = network.forward(&inputs).narrow(1, 511, 1).reshape([1, 768]);
            drop(network.logits(hidden).into_data());
        });
    }
    for batch in [1, 10] {
        let name = format!("decode step, batch {batch}");
        if chosen(&name) {
            let inputs = prompts(batch, &device);
            let mut step = decoder(&network, &inputs, &device);
            best(&name, 40, &mut step);
        }
    }
    if chosen("10 rollouts of 65 tokens") {
        best("10 rollouts of 65 tokens", 2, || rollouts::group(&network, &device));
    }
    let name = "80 rollouts on 8 prompts, geometric lengths";
    if chosen(name) {
        let start = Instant::now();
        let tokens = rollouts::geometric(&network, &device);
        let seconds = start.elapsed().as_secs_f64();
        // A token's time, because each side draws its own lengths.
        println!("{name}, a token\t{:.3}", 1e3 * seconds / tokens as f64);
    }
    drop(network);
    let name = "80 rollouts of 64 tokens, vocabulary 151936";
    if chosen(name) {
        let network = rollouts::vocabulary_model(256, &device);
        best(name, 2, || rollouts::vocabulary(&network, &device));
    }
    for (count, width) in [(1000, 256), (4000, 256), (1000, 2048), (4000, 2048)] {
        let name = format!("log-probabilities, vocabulary 151936, {count} x {width}");
        let parts = [format!("{name}, forward"), format!("{name}, backward")];
        if parts.iter().any(|name| chosen(name)) {
            let work = LogProbabilities::new(count, width, &device);
            if chosen(&parts[0]) {
                best(&parts[0], 2, || drop(work.forward()));
            }
            if chosen(&parts[1]) {
                best(&parts[1], 2, || drop(work.backward()));
            }
        }
    }
    for batch in [1, 4] {
        let name = format!("SFT step, {batch} x 512");
        if chosen(&name) {
            let mut trainer = Trainer::new(&device);
            best(&name, 2, || {
                std::hint::black_box(trainer.sft(batch));
            });
        }
    }
    let name = "TAPO update, 2 x 512";
    if chosen(name) {
        let mut trainer = Trainer::new(&device);
        best(name, 2, || {
            std::hint::black_box(trainer.tapo(2));
        });
    }
    let name = "TAPO update, group of 10, prompt 512, responses 64";
    if chosen(name) {
        let mut trainer = Trainer::new(&device);
        best(name, 2, || {
            std::hint::black_box(trainer.tapo_group(10));
        });
    }
    ExitCode::SUCCESS
}

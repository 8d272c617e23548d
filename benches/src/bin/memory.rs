//! Time and peak memory of an SFT step, with and without each of the settings that trade one for the other.
//!
//! `cargo run --release -p fieldmark-benches --bin memory [30M|173M] [512 1024 2048]` prints a row per setting and length.
//! Memory is the peak of a step beyond model and optimiser state, to the byte.

use std::time::Instant;

use burn::tensor::Device;
use fieldmark::train::gradient::TrunkSettings;
use fieldmark_allocator::keep_freed_pages;
use fieldmark_benches::{
    Trainer, config,
    counting::{Counting, live, peak, reset_peak},
    small_config,
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MIB: f64 = (1 << 20) as f64;

fn main() {
    keep_freed_pages();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let lengths: Vec<usize> = args.iter().filter_map(|arg| arg.parse().ok()).collect();
    let lengths = if lengths.is_empty() { vec![512, 1024, 2048] } else { lengths };
    let models = [("30M", small_config()), ("173M", config())];
    let named = models.iter().any(|(name, _)| args.iter().any(|arg| arg == name));
    println!("| model | tokens | setting | step, ms | held before, MiB | added at the peak, MiB |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for (name, config) in models {
        if named && !args.iter().any(|arg| arg == name) {
            continue;
        }
        for &length in &lengths {
            let row = |setting: &str, step: &mut dyn FnMut() -> f64| {
                step();
                let mut fastest = f64::INFINITY;
                let before = live();
                reset_peak();
                for _ in 0..2 {
                    let start = Instant::now();
                    step();
                    fastest = fastest.min(start.elapsed().as_secs_f64());
                }
                let added = (peak() - before) as f64 / MIB;
                println!(
                    "| {name} | {length} | {setting} | {:.0} | {:.0} | {added:.0} |",
                    1e3 * fastest,
                    before as f64 / MIB
                );
            };
            let new = || Trainer::of(config.clone(), &Device::flex());
            {
                let mut trainer = new();
                row("one tape", &mut || trainer.sft_on_one_tape(1, length));
            }
            for (setting, recompute, query_chunk) in
                [("a tape a block", false, 0), ("recompute", true, 0), ("recompute, 256 queries", true, 256)]
            {
                let mut trainer = new().with_trunk(TrunkSettings { recompute, query_chunk });
                row(setting, &mut || trainer.sft_of(1, length));
            }
        }
    }
}

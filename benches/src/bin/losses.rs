//! Losses of 20 SFT updates from random weights, one `step<TAB>loss` per line, for comparison with the reference.
//!
//! `cargo run --release -p fieldmark-benches --bin losses DIR` writes the initial checkpoint and the batch (`ids.txt`,
//! `pixels.f32`) to DIR; `peers/losses.py DIR` makes the same updates with transformers and torch.

use std::{io::Write, path::PathBuf};

use burn::tensor::Device;
use fieldmark_allocator::{Allocator, keep_freed_pages};
use fieldmark_benches::{TOKENS, Trainer, samples, small_config};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// Number of updates.
const STEPS: usize = 20;
/// Tokens in the loss; the reference script assumes the same number.
const _: () = assert!(fieldmark_benches::RESPONSE == 212);
/// Sequences per update.
const BATCH: usize = 2;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    keep_freed_pages();
    let folder: PathBuf = std::env::args_os().nth(1).ok_or("give a folder to write to")?.into();
    let mut trainer = Trainer::of(small_config(), &Device::flex()).with_rate(1e-4);
    trainer.valid().save_pretrained(&folder, Default::default())?;
    let mut ids = std::fs::File::create(folder.join("ids.txt"))?;
    let mut pixels = std::fs::File::create(folder.join("pixels.f32"))?;
    for sample in samples(BATCH, TOKENS, "image") {
        let words: Vec<String> = sample.sequence.ids.iter().map(u32::to_string).collect();
        writeln!(ids, "{}", words.join(" "))?;
        let bytes: Vec<u8> = sample.sequence.images[0].pixel_values.iter().flat_map(|x| x.to_le_bytes()).collect();
        pixels.write_all(&bytes)?;
    }
    for step in 1..=STEPS {
        println!("{step}\t{:.7}", trainer.sft(BATCH));
    }
    Ok(())
}

//! Loss curves of the same fine-tuning in f32, and in bf16 with each way of keeping the bits that bf16 drops.
//!
//! `cargo run --release -p fieldmark-benches --bin precision > benches/results/precision.md`. A small model learns the answers
//! to eight pictures in f32 at a large learning rate; every variant then learns other answers at a small one.

use std::time::Instant;

use burn::tensor::Device;
use fieldmark::{
    model::{
        GridThw, LoadOptions, Qwen25Vl, Qwen25VlConfig, SaveOptions, TextConfig, TrainableParts, VisionConfig,
        VisionTokens, WeightType,
    },
    processor::{PatchedImage, Sequence, SupervisedSequence},
    stream::StreamKey,
    train::{
        TrainError,
        optim::{AdamWSettings, HalfWeights, LrSchedule, LrShape, Moments},
        params::{initialise, stable_param_ids},
        sft::{SftConfig, SftSource, train_sft},
    },
};
use fieldmark_allocator::{Allocator, keep_freed_pages};

const CLASSES: usize = 8;
const ROWS: usize = 64;
const ANSWER: usize = 6;
const IMAGE: u32 = 1;
const VIDEO: u32 = 2;
const START: u32 = 3;
const END: u32 = 4;
/// Updates between two lines of the table.
const LINE: usize = 25;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// Pictures of each class with different noise, and the answer of the class in one of two codes.
struct Pictures {
    code: &'static str,
}

impl SftSource for Pictures {
    fn len(&self) -> usize {
        ROWS
    }

    fn sample(&self, row: usize, epoch: usize) -> Result<SupervisedSequence, TrainError> {
        let class = (row % CLASSES) as u64;
        let key = StreamKey::new(1);
        let mut picture = key.word("picture").number(class).stream();
        let mut noise = key.word("noise").number(row as u64).number(epoch as u64).stream();
        let mut answer = key.word("answer").word(self.code).number(class).stream();
        let grid = GridThw::image(4, 4);
        let pixels = (0..grid.patches() * 1176).map(|_| {
            let pixel = picture.uniform_in(-1.5, 1.5) + noise.uniform_in(-1.0, 1.0);
            pixel as f32
        });
        let pixel_values: Vec<f32> = pixels.collect();
        let mut ids = vec![START];
        ids.extend([IMAGE; 4]);
        ids.extend([END, 10, 11, 12]);
        let prompt = ids.len();
        ids.extend((0..ANSWER).map(|_| 16 + answer.below(240) as u32));
        let target_mask = (0..ids.len()).map(|place| place >= prompt).collect();
        let images = vec![PatchedImage { pixel_values: pixel_values.into(), grid }];
        Ok(SupervisedSequence { sequence: Sequence { name: format!("row {row}"), ids, images }, target_mask })
    }
}

fn config() -> Qwen25VlConfig {
    let text = TextConfig::new(256, 128, 256, 4, 4, 2, [4, 6, 6]).with_max_position_embeddings(128);
    let vision = VisionConfig::new(4, 96, 256, 4, 128, 56, vec![1, 3]);
    Qwen25VlConfig::new(text, vision, VisionTokens::new(IMAGE, VIDEO, START, END), true)
}

/// The loss of every update, and the model after the last.
fn train(model: Qwen25Vl, code: &'static str, epochs: usize, lr: f64, adamw: AdamWSettings) -> (Qwen25Vl, Vec<f64>) {
    let config = SftConfig {
        epochs,
        batch: 8,
        micro_batch: 4,
        schedule: LrSchedule { lr, shape: LrShape::Constant, warmup: 0, released: false },
        adamw,
        train: TrainableParts::default(),
        ..SftConfig::default()
    };
    let mut losses = Vec::new();
    let device = Device::flex().autodiff();
    let model =
        train_sft(stable_param_ids(model), &Pictures { code }, &config, 0, &StreamKey::new(2), &device, |row, _| {
            losses.push(row.loss);
            Ok(())
        });
    (model.expect("the pictures fit the model"), losses)
}

fn main() {
    keep_freed_pages();
    let device = Device::flex().autodiff();
    let adamw = AdamWSettings { weight_decay: 0.01, ..AdamWSettings::default() };
    let start = initialise(config().init(&device), 0.02, &StreamKey::new(0));
    let (start, first) = train(start, "first", 20, 1e-3, adamw);
    let folder = tempfile::tempdir().expect("a folder for the common start");
    start.save_pretrained(folder.path(), SaveOptions::default()).expect("the start can be saved");

    let (f32, bf16) = (WeightType::F32, WeightType::Bf16);
    let variants = [
        ("f32", f32, HalfWeights::None, Moments::F32),
        ("bf16, master", bf16, HalfWeights::Master, Moments::F32),
        ("bf16, kahan", bf16, HalfWeights::Kahan, Moments::F32),
        ("bf16, kahan, bf16 moments", bf16, HalfWeights::Kahan, Moments::Bf16),
        ("bf16, none", bf16, HalfWeights::None, Moments::F32),
    ];
    for lr in [1e-4, 1e-5] {
        let mut columns = Vec::new();
        for (_, dtype, half, moments) in variants {
            let options = LoadOptions { dtype: Some(dtype), ..LoadOptions::default() };
            let model = Qwen25Vl::from_pretrained(folder.path(), options, &device).expect("the start can be read");
            let begin = Instant::now();
            let (_, losses) = train(model, "second", 50, lr, AdamWSettings { half, moments, ..adamw });
            columns.push((losses, begin.elapsed().as_secs_f64()));
        }
        print(lr, &first, &variants.map(|variant| variant.0), &columns);
    }
}

fn print(lr: f64, first: &[f64], names: &[&str], columns: &[(Vec<f64>, f64)]) {
    println!("\nRate {lr:e}, from a model with loss {:.3} on its own answers:\n", first[first.len() - 1]);
    println!("| updates | {} |\n|{}", names.join(" | "), " --- |".repeat(names.len() + 1));
    let updates = columns[0].0.len();
    for line in (0..updates).step_by(LINE) {
        let lines = line..(line + LINE).min(updates);
        let means = columns.iter().map(|(losses, _)| {
            let losses = &losses[lines.clone()];
            format!("{:.4}", losses.iter().sum::<f64>() / losses.len() as f64)
        });
        println!("| {}-{} | {} |", lines.start + 1, lines.end, means.collect::<Vec<_>>().join(" | "));
    }
    let times = columns.iter().map(|(losses, seconds)| format!("{:.1}", 1e3 * seconds / losses.len() as f64));
    println!("| ms an update | {} |", times.collect::<Vec<_>>().join(" | "));
}

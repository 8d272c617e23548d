//! Uses only the model crate, as another Burn project would: `cargo run -p embed`.
//!
//! It builds a tiny Qwen2.5-VL with random weights, runs it on an image and a few token ids, saves it as a checkpoint
//! that transformers can load, and reloads it. For a real checkpoint, call [`Qwen25Vl::from_pretrained`]. This
//! package's Cargo.toml chooses the backend; `Device::flex()` may be any device that Burn was compiled with.

use burn::{
    module::Module,
    tensor::{Device, TensorData},
};
use fieldmark_model::{
    GridThw, LoadOptions, ModelError, ModelInputs, Padding, Qwen25Vl, Qwen25VlConfig, Row, SaveOptions, TextConfig,
    VisionConfig, VisionTokens,
};

/// Returns sizes of a model with 3 decoder layers of width 64 and 2 encoder layers of width 32. The second encoder
/// layer attends to the whole image.
fn tiny() -> Qwen25VlConfig {
    // Vocabulary, width, MLP width, layers, heads, key heads, and rotary frequencies for time, height and width.
    let text = TextConfig::new(100, 64, 128, 3, 4, 2, [2, 3, 3]);
    // Layers, width, MLP width, heads, width of the decoder, window in pixels, and layers without windows.
    let vision = VisionConfig::new(2, 32, 64, 2, 64, 56, vec![1]);
    let vision_tokens = VisionTokens { image: 6, video: 7, start: 3, end: 4 };
    Qwen25VlConfig::new(text, vision, vision_tokens, true)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::flex();
    let config = tiny();
    config.validate()?;
    let model = config.init(&device);
    println!("{} parameters", model.num_params());

    // An image of 84×56 pixels has 6×4 patches. Each 2×2 patches become one token: 3·2 image tokens in the text.
    let grid = GridThw::image(6, 4);
    let patches: Vec<f32> = (0..grid.patches() * config.vision.patch_len()).map(|i| (i as f32 * 0.37).sin()).collect();
    let image = vec![config.vision_tokens.image; grid.tokens(config.vision.spatial_merge_size)];
    let with_image =
        [&[50, config.vision_tokens.start], image.as_slice(), &[config.vision_tokens.end, 51, 52]].concat();
    let text_only = [50, 60, 61];

    let rows = [Row::new(&with_image, &[0]), Row::new(&text_only, &[])];
    let inputs = ModelInputs::new(&rows, &[grid], patches, Padding::Right, 0, &config, &device)?;
    let before = logits(&model, &inputs);

    let folder = tempfile::tempdir()?;
    model.save_pretrained(folder.path(), SaveOptions::default())?;
    let reloaded = Qwen25Vl::from_pretrained(folder.path(), LoadOptions::default(), &device)?;
    let after = logits(&reloaded, &inputs);
    println!("saved, reloaded: {}", if after == before { "the same logits" } else { "different logits" });

    // If image tokens and images do not match, the error names the sample.
    let no_image = [Row::new(&with_image, &[])];
    match ModelInputs::new(&no_image, &[], Vec::new(), Padding::Right, 0, &config, &device) {
        Err(error @ ModelError::Placeholders { .. }) => println!("without the image: {error}"),
        other => println!("without the image: {other:?}"),
    }
    Ok(())
}

/// Returns the logits of every token of the batch, `[batch · seq, vocab]`.
fn logits(model: &Qwen25Vl, inputs: &ModelInputs) -> TensorData {
    let hidden = model.forward(inputs);
    let [batch, seq, width] = hidden.dims();
    let logits = model.logits(hidden.reshape([batch * seq, width]));
    println!("hidden states {:?}, logits {:?}", [batch, seq, width], logits.dims());
    logits.into_data()
}

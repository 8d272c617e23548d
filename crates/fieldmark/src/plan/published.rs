//! Sizes of the published Qwen2.5-VL and SigLIP checkpoints, from their `config.json`: a plan needs no download.

use std::path::Path;

use fieldmark_model::{Qwen25VlConfig, SiglipTextConfig, TextConfig, VisionConfig, VisionTokens};

/// The configuration of a published checkpoint, recognised by the folder's name, such as `Qwen2.5-VL-3B-Instruct`.
pub fn published(folder: &Path) -> Option<Qwen25VlConfig> {
    let name = folder.file_name()?.to_str()?.to_ascii_lowercase();
    // Vocabulary, hidden size, intermediate size, layers, heads, key/value heads.
    let (text, tied) = if name.starts_with("qwen2.5-vl-3b") {
        (TextConfig::new(151_936, 2048, 11_008, 36, 16, 2, [16, 24, 24]), true)
    } else if name.starts_with("qwen2.5-vl-7b") {
        (TextConfig::new(152_064, 3584, 18_944, 28, 28, 4, [16, 24, 24]), false)
    } else {
        return None;
    };
    let text = text.with_max_position_embeddings(128_000);
    // Layers, hidden size, intermediate size, heads; all but four layers attend in windows of 112 pixels.
    let vision = VisionConfig::new(32, 1280, 3420, 16, text.hidden_size, 112, vec![7, 15, 23, 31]);
    Some(Qwen25VlConfig::new(text, vision, VisionTokens::new(151_655, 151_656, 151_652, 151_653), tied))
}

/// The text tower of a published SigLIP checkpoint, recognised by the folder's name, such as `siglip-base-patch16-256`.
pub fn published_text_encoder(folder: &Path) -> Option<SiglipTextConfig> {
    let name = folder.file_name()?.to_str()?.to_ascii_lowercase();
    // Other widths and the multilingual model have other vocabularies.
    (name.starts_with("siglip-base-patch16-") && !name.contains("multilingual")).then(SiglipTextConfig::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_checkpoints_have_the_bytes_of_their_weight_files() {
        for (name, bytes) in
            [("models/Qwen2.5-VL-3B-Instruct", 7_509_245_952), ("Qwen2.5-VL-7B-Instruct", 16_584_333_312_u64)]
        {
            let config = published(Path::new(name)).unwrap();
            config.validate().unwrap();
            // bf16; `total_size` of model.safetensors.index.json.
            assert_eq!(2 * config.parameter_counts().total(), bytes);
        }
        assert_eq!(published(Path::new("runs/sft/checkpoint")), None);
    }
}

//! Names what a folder holds where `model.safetensors` is expected, and what to do with it.

use std::path::Path;

/// Returns what is wrong with a folder that has neither `model.safetensors` nor its shard index.
pub(super) fn instead_of_weights(folder: &Path) -> String {
    let names = file_names(folder);
    let first = |test: &dyn Fn(&str) -> bool| names.iter().find(|name| test(name)).cloned();
    let ends =
        |suffixes: &'static [&str]| first(&|name| suffixes.iter().any(|suffix| name.to_lowercase().ends_with(suffix)));
    let convert = "in Python: `Qwen2_5_VLForConditionalGeneration.from_pretrained(DIR).save_pretrained(DIR)`";
    if let Some(part) = ends(&[".incomplete", ".part", ".crdownload", ".aria2"]) {
        return format!("has no model.safetensors; {part} is a download that has not ended: download it again");
    }
    if let Some(shard) = first(&|name| name.starts_with("model-") && name.ends_with(".safetensors")) {
        return format!(
            "has {shard} but no model.safetensors.index.json, which says where each tensor is; download that file too"
        );
    }
    if names.iter().any(|name| name == "adapter_config.json") {
        return "holds only a PEFT adapter and no weights; give the folder of its base model as the model, and this \
                folder as the adapter"
            .into();
    }
    if let Some(gguf) = ends(&[".gguf"]) {
        return format!(
            "has no model.safetensors; {gguf} is in the format of llama.cpp (GGUF), which is not read: use the \
             checkpoint that it was made from"
        );
    }
    if let Some(sharded) = first(&|name| name.starts_with("global_step") || name == "zero_to_fp32.py") {
        return format!(
            "has no model.safetensors; {sharded} belongs to a DeepSpeed checkpoint: join its shards with `python \
             zero_to_fp32.py . out --safe_serialization`"
        );
    }
    if let Some(sharded) = first(&|name| {
        name.ends_with(".distcp") || name.starts_with("pytorch_model_fsdp") || name.starts_with("model_world_size_")
    }) {
        return format!(
            "has no model.safetensors; {sharded} is a shard of an FSDP checkpoint: join the shards with the tool that \
             wrote them (`accelerate merge-weights`, or `python -m verl.model_merger merge`)"
        );
    }
    if let Some(pickle) = first(&|name| name.starts_with("pytorch_model") && name.contains(".bin")) {
        return format!(
            "has no model.safetensors; {pickle} holds PyTorch weights, which are not read: convert them {convert}"
        );
    }
    if let Some(other) = ends(&[".safetensors"]) {
        return format!("has no model.safetensors; if {other} holds the whole model, rename it to model.safetensors");
    }
    if let Some(other) = ends(&[".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".npz"]) {
        return format!("has no model.safetensors; {other} is in a format that is not read: convert it {convert}");
    }
    "has no weights: neither model.safetensors nor model.safetensors.index.json with its shards; download them into it"
        .into()
}

/// Returns the names of the files and folders in `folder`, sorted; none if it cannot be read.
pub(crate) fn file_names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_folder_is_named_with_what_to_do() {
        for (files, named) in [
            (&["pytorch_model.bin"][..], ["pytorch_model.bin", "save_pretrained"]),
            (
                &["pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"],
                ["pytorch_model-00001-of-00002.bin", "save_pretrained"],
            ),
            (&["Qwen2.5-VL-3B-Q4_K_M.gguf"], ["Qwen2.5-VL-3B-Q4_K_M.gguf", "GGUF"]),
            (&["adapter_config.json", "adapter_model.safetensors"], ["adapter", "base model"]),
            (
                &["model-00001-of-00002.safetensors"],
                ["model-00001-of-00002.safetensors", "model.safetensors.index.json"],
            ),
            (&["global_step100", "latest", "zero_to_fp32.py"], ["DeepSpeed", "zero_to_fp32.py"]),
            (&["__0_0.distcp"], ["__0_0.distcp", "FSDP"]),
            (&["model_world_size_4_rank_0.pt"], ["model_world_size_4_rank_0.pt", "FSDP"]),
            (&["model.safetensors.incomplete"], ["model.safetensors.incomplete", "download"]),
            (&["consolidated.safetensors"], ["consolidated.safetensors", "rename"]),
            (&["last.ckpt"], ["last.ckpt", "convert"]),
            (&["tokenizer.json"], ["no weights", "download"]),
        ] {
            let folder = tempfile::tempdir().unwrap();
            for file in files {
                std::fs::write(folder.path().join(file), "").unwrap();
            }
            let said = instead_of_weights(folder.path());
            assert!(named.iter().all(|name| said.contains(name)), "{files:?}: {said}");
        }
    }
}

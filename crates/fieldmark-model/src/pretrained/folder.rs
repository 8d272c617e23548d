//! Finds the checkpoint folder that a path means, and says what another kind of path is.
//!
//! `runs/sft`, the folder of a finished run, means `runs/sft/checkpoint`. A name on the Hugging Face hub, a file, an
//! adapter and the folder of a run that is not finished are refused with what to do.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{
    error::ModelError,
    reading,
    weights::{download_hint, file_names, newest_inside},
};

/// The file that makes a folder a checkpoint.
const CONFIG: &str = "config.json";
/// The folder in a run's folder that holds the trained model.
const FINISHED: &str = "checkpoint";

/// Returns the checkpoint folder that `path` means, and a note if it is another than `path`.
///
/// # Errors
/// Returns [`ModelError::Refused`], which says what `path` is and what to give instead.
pub fn checkpoint_folder(path: &Path) -> Result<(PathBuf, Option<String>), ModelError> {
    if !path.is_dir() {
        return Err(ModelError::refused(path, not_a_folder(path)));
    }
    reading::refuse_dangling(path)?;
    if path.join(CONFIG).is_file() {
        return Ok((path.into(), None));
    }
    let finished = path.join(FINISHED);
    reading::refuse_dangling(&finished)?;
    if finished.join(CONFIG).is_file() {
        let note = format!("{} is the folder of a run; its checkpoint {} is used", path.display(), finished.display());
        return Ok((finished, Some(note)));
    }
    Err(ModelError::refused(path, no_config(path)))
}

fn not_a_folder(path: &Path) -> String {
    if !path.exists() {
        let missing = "there is no such folder; name a checkpoint folder (config.json, weights, tokenizer)";
        return download_hint(path).unwrap_or(missing.into());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    if extension == "gguf" {
        return "is a file in the format of llama.cpp (GGUF), which is not read; give the folder of the checkpoint that it \
                was made from"
            .into();
    }
    if parent.join(CONFIG).is_file() {
        return format!("is a file; give the checkpoint folder that it lies in: {}", parent.display());
    }
    "is a file; name a checkpoint folder (config.json, weights, tokenizer)".into()
}

/// What a folder without `config.json` is.
fn no_config(path: &Path) -> String {
    if path.join("adapter_config.json").is_file() {
        return only_an_adapter(path);
    }
    let names = file_names(path);
    let has = |name: &str| names.iter().any(|found| found == name);
    if let Some(inner) = newest_inside(path, CONFIG) {
        let what = if has("checkpoints") && has("recipe.toml") {
            "is the folder of a run that is not finished"
        } else {
            "has no config.json"
        };
        return format!("{what}; the newest checkpoint in it is {}: give that folder", inner.display());
    }
    if has("recipe.toml") {
        return "is the folder of a run without a checkpoint: it has not saved one, or is an evaluation; name a checkpoint \
                folder (config.json, weights, tokenizer)"
            .into();
    }
    if let Some(gguf) = names.iter().find(|name| name.to_lowercase().ends_with(".gguf")) {
        return format!(
            "has no config.json; {gguf} is in the format of llama.cpp (GGUF), which is not read: use the checkpoint that \
             it was made from"
        );
    }
    if names.is_empty() {
        return "is empty; name a checkpoint folder (config.json, weights, tokenizer)".into();
    }
    "has no config.json; name a checkpoint folder (config.json, weights, tokenizer), or copy that file of the model into it"
        .into()
}

fn only_an_adapter(path: &Path) -> String {
    let config = std::fs::read(path.join("adapter_config.json")).ok();
    let config: Option<Value> = config.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let base = config.as_ref().and_then(|config| config.get("base_model_name_or_path")).and_then(Value::as_str);
    let base = base.filter(|base| !base.is_empty()).map_or(String::new(), |base| format!(", {base},"));
    let merged = path.canonicalize().ok().and_then(|path| path.parent().map(Path::to_path_buf));
    let merged = merged.filter(|parent| parent.join(CONFIG).is_file());
    let merged = merged.map_or(String::new(), |parent| format!("; the merged model is in {}", parent.display()));
    format!(
        "holds only a PEFT adapter; give the folder of its base model{base} as the model, and this folder as the \
         adapter{merged}"
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn place(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, r#"{"base_model_name_or_path": "Qwen/Qwen2.5-VL-3B-Instruct"}"#).unwrap();
        }
        folder
    }

    fn refusal(path: &Path) -> String {
        let error = checkpoint_folder(path).unwrap_err();
        assert!(matches!(&error, ModelError::Refused { path: at, .. } if at == path), "{error}");
        error.to_string()
    }

    #[test]
    fn a_run_means_its_finished_checkpoint_and_says_so() {
        let run = place(&["recipe.toml", "checkpoint/config.json", "checkpoints/step-000002/config.json"]);
        let (folder, note) = checkpoint_folder(run.path()).unwrap();
        assert_eq!(folder, run.path().join("checkpoint"));
        assert!(note.unwrap().contains(&folder.display().to_string()));
        assert_eq!(checkpoint_folder(&folder).unwrap(), (folder, None));
    }

    #[test]
    fn what_holds_checkpoints_is_refused_with_the_newest() {
        for (files, newest) in [
            (
                &["recipe.toml", "checkpoints/step-000002/config.json", "checkpoints/step-000010/config.json"][..],
                "checkpoints/step-000010",
            ),
            (&["step-000002/config.json", "step-000010/config.json", ".step-000011-x/config.json"], "step-000010"),
            (&["checkpoint-500/config.json", "checkpoint-1000/config.json", "trainer_state.json"], "checkpoint-1000"),
            (&["refs/main", "snapshots/66285546/config.json"], "snapshots/66285546"),
            (&["global_step_5/actor/huggingface/config.json"], "global_step_5/actor/huggingface"),
        ] {
            let folder = place(files);
            let said = refusal(folder.path());
            assert!(said.contains(&format!("{}:", folder.path().join(newest).display())), "{said}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_cache_without_its_files_leads_to_the_link_that_is_named() {
        let folder = place(&["refs/main", "snapshots/66285546/README.md"]);
        let snapshot = folder.path().join("snapshots/66285546");
        std::os::unix::fs::symlink("../../blobs/1f2e", snapshot.join(CONFIG)).unwrap();
        assert!(refusal(folder.path()).contains(&format!("{}:", snapshot.display())));
        let error = checkpoint_folder(&snapshot).unwrap_err();
        let at = snapshot.join(CONFIG);
        assert!(
            matches!(&error, ModelError::Refused { path, problem } if *path == at && problem.contains("blobs/1f2e"))
        );
    }

    #[test]
    fn adapters_files_and_names_on_the_hub_are_refused_with_what_to_do() {
        let folder =
            place(&["adapter/adapter_config.json", "config.json", "model.safetensors", "q4.gguf", "text/notes"]);
        let said = refusal(&folder.path().join("adapter"));
        assert!(said.contains("Qwen/Qwen2.5-VL-3B-Instruct") && said.contains("adapter"), "{said}");
        assert!(refusal(&folder.path().join("model.safetensors")).ends_with(&folder.path().display().to_string()));
        assert!(refusal(&folder.path().join("q4.gguf")).contains("GGUF"));
        assert!(refusal(&folder.path().join("text")).contains("config.json"));
        for name in ["Qwen/Qwen2.5-VL-3B-Instruct", "https://huggingface.co/Qwen/Qwen2.5-VL-3B-Instruct/tree/main"] {
            let said = refusal(Path::new(name));
            assert!(said.contains("hf download Qwen/Qwen2.5-VL-3B-Instruct "), "{said}");
        }
        for path in [folder.path().join("a/b"), "src/misspelt".into(), "../a/b".into(), "nowhere".into()] {
            assert!(!refusal(&path).contains("hf download"), "{path:?}");
        }
    }
}

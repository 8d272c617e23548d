//! The folder of an adapter, and the folders in which one is found.

use std::path::{Path, PathBuf};

use super::config::PeftConfig;
use crate::{
    error::ModelError,
    reading,
    weights::{download_hint, newest_inside},
};

pub(super) const CONFIG: &str = "adapter_config.json";
pub(super) const WEIGHTS: &str = "adapter_model.safetensors";

/// An adapter in PEFT's format, of which the configuration was read and checked.
///
/// [`Qwen25Vl::with_merged_adapter`](crate::Qwen25Vl::with_merged_adapter) adds it to the weights of its base, and
/// [`Qwen25Vl::with_adapter`](crate::Qwen25Vl::with_adapter) lays it beside them, to train it.
#[derive(Debug, Clone)]
pub struct Adapter {
    folder: PathBuf,
    pub(super) config: PeftConfig,
}

impl Adapter {
    /// Finds the adapter in `folder`: in itself, in `adapter` of a checkpoint of Fieldmark, or in `checkpoint/adapter` of
    /// a finished run. Reads its configuration, but not its tensors.
    ///
    /// # Errors
    /// Returns an error that names the file or the key if there is no adapter, or if it cannot be read exactly.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        reading::refuse_dangling(folder)?;
        let places = [folder.to_owned(), folder.join("adapter"), folder.join("checkpoint/adapter")];
        let Some(found) = places.iter().find(|place| place.join(CONFIG).is_file()) else {
            return Err(ModelError::AdapterFolder { path: folder.into(), reason: what_is(folder) });
        };
        reading::refuse_dangling(found)?;
        let weights = found.join(WEIGHTS);
        if !weights.is_file() {
            return Err(ModelError::AdapterFolder { path: found.clone(), reason: without_weights(found) });
        }
        reading::check(&weights)?;
        Ok(Self { folder: found.clone(), config: PeftConfig::read(&found.join(CONFIG))? })
    }

    /// Returns the folder with the two files of the adapter.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the files of the adapter: its configuration and its tensors.
    pub fn files(&self) -> [PathBuf; 2] {
        [CONFIG, WEIGHTS].map(|name| self.folder.join(name))
    }

    /// Returns the name of the base model that the adapter was trained on, as its configuration has it.
    pub fn base(&self) -> Option<&str> {
        self.config.base.as_deref()
    }

    pub(super) fn config_path(&self) -> PathBuf {
        self.folder.join(CONFIG)
    }

    pub(super) fn weights_path(&self) -> PathBuf {
        self.folder.join(WEIGHTS)
    }
}

/// Says what a folder with the configuration of an adapter has instead of its tensors.
fn without_weights(folder: &Path) -> String {
    if folder.join("adapter_model.bin").is_file() {
        return format!(
            "has only adapter_model.bin, which is not read; load it with PEFT and save it again with save_pretrained, \
             which writes {WEIGHTS}"
        );
    }
    match newest_inside(folder, WEIGHTS) {
        Some(inner) => {
            format!("has {CONFIG} but no {WEIGHTS}; the newest adapter in it is {}: give that folder", inner.display())
        }
        None => format!("has {CONFIG} but no {WEIGHTS}; copy both files of the adapter"),
    }
}

/// Says what a folder without an adapter is.
fn what_is(folder: &Path) -> String {
    if folder.is_file() {
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        return format!("is a file; give the folder that it lies in: {}", parent.display());
    }
    if !folder.is_dir() {
        let missing = || format!("there is no such folder; name a folder with {CONFIG} and {WEIGHTS}");
        return download_hint(folder).unwrap_or_else(missing);
    }
    if let Some(inner) = newest_inside(folder, WEIGHTS) {
        return format!("has no adapter itself; the newest adapter in it is {}: give that folder", inner.display());
    }
    let found = if ["config.json", "checkpoint/config.json"].iter().any(|name| folder.join(name).is_file()) {
        "has a whole model and no adapter: give it as the model itself"
    } else {
        "has no adapter"
    };
    format!("{found}; an adapter is a folder with {CONFIG} and {WEIGHTS}")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const PLAIN: &str = r#"{"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"]}"#;

    fn write(folder: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(folder).unwrap();
        files.iter().for_each(|(name, text)| fs::write(folder.join(name), text).unwrap());
    }

    #[test]
    fn an_adapter_is_found_in_its_folder_its_checkpoint_and_its_run() {
        let folder = tempfile::tempdir().unwrap();
        let adapter = folder.path().join("run/checkpoint/adapter");
        write(&adapter, &[(CONFIG, PLAIN), (WEIGHTS, "")]);
        for place in ["run", "run/checkpoint", "run/checkpoint/adapter"] {
            assert_eq!(Adapter::open(&folder.path().join(place)).unwrap().folder(), adapter, "{place}");
        }
    }

    #[test]
    fn a_folder_that_is_no_adapter_is_named_for_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n";
        write(&path.join("empty"), &[]);
        write(&path.join("model"), &[("config.json", "{}")]);
        write(&path.join("run/checkpoint"), &[("config.json", "{}")]);
        write(&path.join("trl/checkpoint-500"), &[(CONFIG, PLAIN), (WEIGHTS, "")]);
        write(&path.join("trl/checkpoint-1000"), &[(CONFIG, PLAIN), (WEIGHTS, "")]);
        write(&path.join("cut"), &[(CONFIG, PLAIN)]);
        write(&path.join("cut/checkpoint-7"), &[(CONFIG, PLAIN), (WEIGHTS, "")]);
        write(&path.join("bin"), &[(CONFIG, PLAIN), ("adapter_model.bin", "x")]);
        write(&path.join("half"), &[(CONFIG, PLAIN)]);
        write(&path.join("lfs"), &[(CONFIG, PLAIN), (WEIGHTS, pointer)]);
        for (name, at, says) in [
            ("absent", "absent", "no such folder"),
            ("empty", "empty", CONFIG),
            ("model", "model", "whole model"),
            ("run", "run", "whole model"),
            ("trl", "trl", "trl/checkpoint-1000:"),
            ("cut", "cut", "cut/checkpoint-7:"),
            ("lfs/adapter_model.safetensors", "lfs/adapter_model.safetensors", "lfs"),
            ("bin", "bin", "adapter_model.bin"),
            ("half", "half", WEIGHTS),
            ("lfs", "lfs/adapter_model.safetensors", "git lfs pull"),
        ] {
            match Adapter::open(&path.join(name)).unwrap_err() {
                ModelError::AdapterFolder { path: found, reason }
                | ModelError::Refused { path: found, problem: reason } => {
                    assert!(found == path.join(at) && reason.contains(says), "{name}: {} {reason}", found.display());
                }
                other => panic!("{name}: {other}"),
            }
        }
    }

    /// The key that a configuration is refused for.
    fn refused(change: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let mut config: serde_json::Value = serde_json::from_str(PLAIN).unwrap();
        let change: serde_json::Map<String, serde_json::Value> = serde_json::from_str(change).unwrap();
        config.as_object_mut().unwrap().extend(change);
        write(folder.path(), &[(CONFIG, &config.to_string()), (WEIGHTS, "")]);
        match Adapter::open(folder.path()) {
            Ok(_) => String::new(),
            Err(ModelError::AdapterSetting { path, key, .. }) => {
                assert_eq!(path, folder.path().join(CONFIG));
                key
            }
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn what_changes_the_base_or_is_not_known_is_refused_by_name() {
        for init in ["pissa", "pissa_niter_16", "PiSSA", "olora", "corda", "loftq", "lora_ga", "of_tomorrow"] {
            assert_eq!(refused(&format!(r#"{{"init_lora_weights": "{init}"}}"#)), "init_lora_weights", "{init}");
        }
        for init in ["true", "false", "null", "\"gaussian\"", "\"eva\"", "\"orthogonal\"", "\"mica\""] {
            assert_eq!(refused(&format!(r#"{{"init_lora_weights": {init}}}"#)), "", "{init}");
        }
        for (key, value) in [
            ("peft_type", r#""LOHA""#),
            ("peft_type", "null"),
            ("use_qalora", "true"),
            ("kasa_config", r#"{"beta": 0.1}"#),
            ("alora_invocation_tokens", "[1, 2]"),
            ("layer_replication", "[[0, 2]]"),
            ("target_parameters", r#"["q_proj.weight"]"#),
            ("key_of_tomorrow", "3"),
            ("r", "0"),
            ("r", "2.5"),
            ("lora_alpha", r#""16""#),
            ("rank_pattern", r#"{"q_proj": 0}"#),
            ("alpha_pattern", r#"{"(": 2}"#),
            ("target_modules", r#""(""#),
            ("use_dora", r#""yes""#),
            ("bias", r#""some""#),
            ("trainable_token_indices", "[-1]"),
        ] {
            assert_eq!(refused(&format!(r#"{{"{key}": {value}}}"#)), key, "{value}");
        }
        // As PEFT 0.21 writes a plain adapter.
        let plain = r#"{"alora_invocation_tokens": null, "alpha_pattern": {}, "arrow_config": null, "auto_mapping": null,
            "bias": "none", "corda_config": null, "ensure_weight_tying": false, "eva_config": null,
            "exclude_modules": null, "fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": true,
            "layer_replication": null, "layers_pattern": null, "layers_to_transform": null, "loftq_config": {},
            "lora_bias": false, "lora_dropout": 0.05, "megatron_config": null, "megatron_core": "megatron.core",
            "modules_to_save": null, "peft_version": "0.21.2", "qalora_group_size": 16, "rank_pattern": {},
            "revision": null, "target_parameters": null, "task_type": "CAUSAL_LM", "trainable_token_indices": null,
            "use_bdlora": null, "use_dora": false, "use_qalora": false, "use_rslora": false}"#;
        assert_eq!(refused(plain), "");
    }

    #[test]
    fn left_out_keys_have_the_defaults_of_peft() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &[(CONFIG, r#"{"peft_type": "LORA"}"#), (WEIGHTS, "")]);
        let adapter = Adapter::open(folder.path()).unwrap();
        assert_eq!((adapter.config.rank, adapter.config.alpha, adapter.config.rslora), (8, 8.0, false));
        assert_eq!(adapter.base(), None);
    }
}

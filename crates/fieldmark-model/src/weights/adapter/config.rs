//! `adapter_config.json` of PEFT, read by name: a key that changes what the adapter computes is used or refused.
//!
//! Reference: `LoraConfig` of PEFT 0.21, with its defaults.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::targets::{Names, Pattern, Patterns, Targets};
use crate::{error::ModelError, reading};

/// Keys that are used.
const USED: [&str; 18] = [
    "alpha_pattern",
    "base_model_name_or_path",
    "bias",
    "ensure_weight_tying",
    "exclude_modules",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_bias",
    "modules_to_save",
    "peft_type",
    "r",
    "rank_pattern",
    "target_modules",
    "trainable_token_indices",
    "use_dora",
    "use_rslora",
];

/// Keys that do not change what a trained adapter computes. PEFT ignores `fan_in_fan_out` for linear layers, and the
/// settings of an initialisation unless `init_lora_weights` names it; VeLoRA changes only the gradient.
const WITHOUT_EFFECT: [&str; 16] = [
    "auto_mapping",
    "corda_config",
    "eva_config",
    "fan_in_fan_out",
    "inference_mode",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
    "transformers_version",
    "velora_config",
];

/// The tokens whose rows an adapter replaces, with the end of the embedding's name; `None` is the input embedding.
pub(super) type TokenIndices = Vec<(Option<String>, Vec<usize>)>;

/// The configuration of an adapter.
#[derive(Debug, Clone)]
pub(super) struct PeftConfig {
    /// `r`, where `ranks` has no other.
    pub(super) rank: usize,
    /// `lora_alpha`, where `alphas` has no other.
    pub(super) alpha: f64,
    pub(super) rslora: bool,
    pub(super) ranks: Patterns<usize>,
    pub(super) alphas: Patterns<f64>,
    pub(super) targets: Targets,
    /// `bias`: which biases of the base were trained too.
    pub(super) bias: String,
    pub(super) dora: bool,
    pub(super) lora_bias: bool,
    pub(super) tokens: TokenIndices,
    /// `ensure_weight_tying`: a tied head has the embedding's adapter too.
    pub(super) keeps_tie: bool,
    /// `base_model_name_or_path`.
    pub(super) base: Option<String>,
}

impl PeftConfig {
    /// Reads and checks the configuration at `path`.
    ///
    /// # Errors
    /// Returns an error that names the key if the adapter cannot be read exactly.
    pub(super) fn read(path: &Path) -> Result<Self, ModelError> {
        let Value::Object(map) = reading::json(path, "PEFT configuration")? else {
            let reason = "is not a JSON object".into();
            return Err(ModelError::Json { path: path.into(), what: "PEFT configuration", reason });
        };
        Self::from_map(&Keys { path: path.into(), map })
    }

    fn from_map(keys: &Keys) -> Result<Self, ModelError> {
        match keys.get("peft_type") {
            Some(Value::String(kind)) if kind == "LORA" => {}
            Some(_) => {
                return Err(keys.refuse(
                    "peft_type",
                    "is not LORA; merge the adapter with PEFT (merge_and_unload, save_pretrained) and give the merged \
                     folder as the model",
                ));
            }
            None => return Err(keys.refuse("peft_type", "is missing; this is not the configuration of an adapter")),
        }
        check_init(keys)?;
        for (key, value) in &keys.map {
            let known = USED.contains(&key.as_str()) || WITHOUT_EFFECT.contains(&key.as_str());
            if !known && !is_off(value) {
                return Err(keys.refuse(
                    key,
                    "is a setting that is not read, and it may change what the adapter computes; merge the adapter \
                     with PEFT (merge_and_unload, save_pretrained) and give the merged folder as the model",
                ));
            }
        }
        let rank = keys.number("r")?.unwrap_or(8.0);
        let (rank, alpha) = (keys.rank("r", rank)?, keys.number("lora_alpha")?.unwrap_or(8.0));
        let mut ranks = Patterns::default();
        for (text, value) in keys.pattern("rank_pattern")? {
            let rank = keys.rank("rank_pattern", value)?;
            ranks.push(&text, rank).map_err(|error| keys.refuse("rank_pattern", &error))?;
        }
        let mut alphas = Patterns::default();
        for (text, value) in keys.pattern("alpha_pattern")? {
            alphas.push(&text, value).map_err(|error| keys.refuse("alpha_pattern", &error))?;
        }
        let targets = Targets {
            names: keys.names("target_modules")?,
            excluded: keys.names("exclude_modules")?,
            saved: keys.texts("modules_to_save")?,
            blocks: keys.indexes("layers_to_transform")?,
            lists: keys.texts("layers_pattern")?,
        };
        Ok(Self {
            rank,
            alpha,
            rslora: keys.flag("use_rslora")?,
            ranks,
            alphas,
            targets,
            bias: keys.bias()?,
            dora: keys.flag("use_dora")?,
            lora_bias: keys.flag("lora_bias")?,
            tokens: keys.tokens("trainable_token_indices")?,
            keeps_tie: keys.flag("ensure_weight_tying")?,
            base: keys.get("base_model_name_or_path").and_then(Value::as_str).map(str::to_owned),
        })
    }

    /// Returns the factor of the product of an adapter's two matrices.
    pub(super) fn scale(&self, rank: usize, alpha: f64) -> f64 {
        let rank = rank as f64;
        alpha / if self.rslora { rank.sqrt() } else { rank }
    }
}

/// Refuses adapters that were trained on a changed base: PEFT subtracts their start from the base's weights, so on the
/// base itself they compute something else.
fn check_init(keys: &Keys) -> Result<(), ModelError> {
    const KEY: &str = "init_lora_weights";
    let Some(Value::String(text)) = keys.get(KEY) else {
        return match keys.get(KEY) {
            None | Some(Value::Bool(_)) => Ok(()),
            Some(_) => Err(keys.refuse(KEY, "must be true, false or the name of an initialisation")),
        };
    };
    let merge = "merge it with `merge_and_unload()` and give the merged folder as the model";
    match text.to_lowercase().as_str() {
        "gaussian" | "eva" | "orthogonal" | "mica" | "true" | "false" => Ok(()),
        name if name.starts_with("pissa") || name.starts_with("corda") || name == "olora" || name == "lora_ga" => {
            let reason = format!(
                "changes the base model before training, so this adapter does not fit the base itself; in PEFT save it \
                 with `save_pretrained(DIR, path_initial_model_for_weight_conversion=INITIAL)`, or {merge}"
            );
            Err(keys.refuse(KEY, &reason))
        }
        "loftq" => {
            let reason = format!(
                "quantises the base model before training, so this adapter does not fit the base itself; in PEFT {merge}"
            );
            Err(keys.refuse(KEY, &reason))
        }
        _ => {
            let reason = format!(
                "is not known, and an initialisation may change the base model before training; in PEFT {merge}"
            );
            Err(keys.refuse(KEY, &reason))
        }
    }
}

/// Returns true for the value of a setting that is off.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty() || text == "none",
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Bool(true) => false,
    }
}

/// The keys of the file.
struct Keys {
    path: PathBuf,
    map: Map<String, Value>,
}

impl Keys {
    /// Returns a value; `null` is none.
    fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn refuse(&self, key: &str, reason: &str) -> ModelError {
        let value = self.map.get(key).map_or("nothing".into(), Value::to_string);
        ModelError::adapter_setting(self.path.clone(), key, value, reason)
    }

    fn flag(&self, key: &str) -> Result<bool, ModelError> {
        match self.get(key) {
            None => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| self.refuse(key, "must be true or false")),
        }
    }

    fn number(&self, key: &str) -> Result<Option<f64>, ModelError> {
        self.get(key).map(|value| self.finite(key, value)).transpose()
    }

    fn finite(&self, key: &str, value: &Value) -> Result<f64, ModelError> {
        value.as_f64().filter(|number| number.is_finite()).ok_or_else(|| self.refuse(key, "must be a number"))
    }

    fn rank(&self, key: &str, value: f64) -> Result<usize, ModelError> {
        let whole = value.fract() == 0.0 && (1.0..=1e6).contains(&value);
        whole.then_some(value as usize).ok_or_else(|| self.refuse(key, "must be a whole number of at least 1"))
    }

    fn pattern(&self, key: &str) -> Result<Vec<(String, f64)>, ModelError> {
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(Value::Object(map)) => {
                map.iter().map(|(text, value)| Ok((text.clone(), self.finite(key, value)?))).collect()
            }
            Some(_) => Err(self.refuse(key, "must map names of layers to numbers")),
        }
    }

    fn names(&self, key: &str) -> Result<Option<Names>, ModelError> {
        match self.get(key) {
            Some(Value::String(text)) if text.to_lowercase() == "all-linear" && key == "target_modules" => {
                Ok(Some(Names::AllLinear))
            }
            Some(Value::String(text)) => {
                let pattern = Pattern::whole(text).map_err(|error| {
                    self.refuse(key, &format!("is not a regular expression that can be read: {error}"))
                })?;
                Ok(Some(Names::Pattern(pattern)))
            }
            None => Ok(None),
            Some(_) => Ok(Some(Names::List(self.texts(key)?))),
        }
    }

    fn texts(&self, key: &str) -> Result<Vec<String>, ModelError> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let list = match self.get(key) {
            None => Some(Vec::new()),
            Some(Value::Array(list)) => list.iter().map(text).collect(),
            Some(one) => text(one).map(|one| vec![one]),
        };
        list.ok_or_else(|| self.refuse(key, "must be a list of names"))
    }

    fn indexes(&self, key: &str) -> Result<Vec<usize>, ModelError> {
        self.get(key).map_or(Ok(Vec::new()), |value| self.index_list(key, value))
    }

    fn index_list(&self, key: &str, value: &Value) -> Result<Vec<usize>, ModelError> {
        let index = |value: &Value| value.as_u64().and_then(|index| usize::try_from(index).ok());
        let list = match value {
            Value::Array(list) => list.iter().map(index).collect(),
            one => index(one).map(|one| vec![one]),
        };
        list.ok_or_else(|| self.refuse(key, "must be a list of whole numbers"))
    }

    fn tokens(&self, key: &str) -> Result<TokenIndices, ModelError> {
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(Value::Object(map)) => {
                map.iter().map(|(name, list)| Ok((Some(name.clone()), self.index_list(key, list)?))).collect()
            }
            Some(list) => Ok(vec![(None, self.index_list(key, list)?)]),
        }
    }

    fn bias(&self) -> Result<String, ModelError> {
        match self.get("bias") {
            None => Ok("none".into()),
            Some(Value::String(kind)) if ["none", "all", "lora_only"].contains(&kind.as_str()) => Ok(kind.clone()),
            Some(_) => Err(self.refuse("bias", "must be \"none\", \"all\" or \"lora_only\"")),
        }
    }
}

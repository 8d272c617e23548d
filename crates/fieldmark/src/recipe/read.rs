//! Reading a recipe and its `--set key=value` overrides; a key that is unknown or ill-typed is named, with the nearest known.
//!
//! Keys are laid over the defaults one by one, so that a section given in part keeps the stage's other defaults, and so
//! that the key at fault is known whatever the deserialiser says.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::{DataSection, EvalSection, ModelSection, Recipe, SftData, TapoData};
use crate::device::nearest;

/// Tables whose keys are the user's own.
const FREE: [&str; 1] = ["data.prefixes"];

/// What is wrong with a recipe or an override.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file cannot be read.
    #[error("{}: {source}; give a recipe, such as recipes/fine-r1-3b.toml", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{}:{line}: not TOML: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser met.
        reason: String,
    },
    /// A key that no recipe has.
    #[error("{origin}: unknown key `{key}`{suggestion}")]
    UnknownKey {
        /// The file, or the override.
        origin: String,
        /// The key.
        key: String,
        /// "; did you mean ...?", or what the section has.
        suggestion: String,
    },
    /// A value that its key does not take.
    #[error("{origin}: `{key}`: {reason}")]
    Value {
        /// The file, or the override.
        origin: String,
        /// The key.
        key: String,
        /// What was found and expected.
        reason: String,
    },
    /// An override that is no `key=value`.
    #[error("--set {text}: write it as key=value, such as --set sft.epochs=3")]
    Override {
        /// What was given.
        text: String,
    },
}

impl Recipe {
    /// Reads a recipe and lays `overrides` (`key=value`, the value as TOML or else a string) over it.
    ///
    /// # Errors
    /// The first key or value at fault, under the name of its file or override.
    ///
    /// ```
    /// use fieldmark::recipe::Recipe;
    /// let recipe = Recipe::default().with_override("sft.epochs=3")?;
    /// assert_eq!(recipe.sft.epochs, 3);
    /// let error = recipe.with_override("sft.epoch=3").unwrap_err().to_string();
    /// assert_eq!(error, "--set sft.epoch=3: unknown key `sft.epoch`; did you mean `sft.epochs`?");
    /// # Ok::<(), fieldmark::recipe::RecipeError>(())
    /// ```
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self, RecipeError> {
        let text = std::fs::read_to_string(path).map_err(|source| RecipeError::Read { path: path.into(), source })?;
        let table: Table = text.parse().map_err(|error: toml::de::Error| RecipeError::Syntax {
            path: path.into(),
            line: error.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count()),
            reason: one_line(error.message()),
        })?;
        let recipe = Self::default().overlaid(&table, &path.display().to_string())?;
        overrides.iter().try_fold(recipe, |recipe, text| recipe.with_override(text))
    }

    /// The recipe with one `key=value` changed.
    ///
    /// # Errors
    /// If there is no such key, or the value is not of its type.
    pub fn with_override(self, text: &str) -> Result<Self, RecipeError> {
        let wrong = || RecipeError::Override { text: text.into() };
        let (key, value) = text.split_once('=').ok_or_else(wrong)?;
        let quoted = Value::String(value.trim().into());
        let parsed = format!("{key} = {value}").parse::<Table>().or_else(|_| format!("{key} = {quoted}").parse());
        self.overlaid(&parsed.map_err(|_| wrong())?, &format!("--set {text}"))
    }

    /// The recipe as TOML with every value written out, defaults included.
    ///
    /// # Errors
    /// None in practice: a number outside TOML's range.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    /// The whole key of a setting that a stage names by its end, such as `sft.schedule.lr` for `lr` in `sft`.
    pub fn key_of(section: &str, end: &str) -> String {
        let (start, end) = (format!("{section}."), format!(".{end}"));
        let found = keys(&table_of(&every_key()), "").into_iter();
        let mut found = found.filter(|key| key.starts_with(&start) && key.ends_with(&end));
        found.next().unwrap_or_else(|| format!("{section}{end}"))
    }

    fn overlaid(self, given: &Table, origin: &str) -> Result<Self, RecipeError> {
        let known = table_of(&every_key());
        let mut base = table_of(&self);
        lay_over(&mut base, given, &known, origin, &mut Vec::new())?;
        // Every value was tried alone; only two that contradict each other could still fail.
        let whole = Value::Table(base).try_into::<Self>();
        whole.map_err(|error| RecipeError::Value {
            origin: origin.into(),
            key: "recipe".into(),
            reason: one_line(error.message()),
        })
    }
}

fn lay_over(
    base: &mut Table,
    given: &Table,
    known: &Table,
    origin: &str,
    path: &mut Vec<String>,
) -> Result<(), RecipeError> {
    let free = FREE.contains(&path.join(".").as_str());
    for (name, value) in given {
        path.push(name.clone());
        let key = path.join(".");
        let meant = lookup(known, path);
        if meant.is_none() && !free {
            let suggestion = suggestion(known, path);
            return Err(RecipeError::UnknownKey { origin: origin.into(), key, suggestion });
        }
        match (meant, value) {
            (Some(Value::Table(_)), Value::Table(inner)) => lay_over(base, inner, known, origin, path)?,
            (meant, value) => {
                let refuse = |reason: String| RecipeError::Value { origin: origin.into(), key: key.clone(), reason };
                if meant.is_some_and(Value::is_table) {
                    return Err(refuse(format!("is a section, but {} was given", value.type_str())));
                }
                set(base, path, value.clone());
                let mut alone = table_of(&Recipe::default());
                set(&mut alone, path, value.clone());
                let tried = Value::Table(alone).try_into::<Recipe>();
                tried.map_err(|error| refuse(one_line(error.message())))?;
            }
        }
        path.pop();
    }
    Ok(())
}

fn table_of(recipe: &Recipe) -> Table {
    // A recipe has string keys and numbers that TOML holds, except a seed above 2^63, which no TOML file can name either.
    Table::try_from(recipe).unwrap_or_default()
}

fn lookup<'a>(known: &'a Table, path: &[String]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    let value = known.get(first)?;
    if rest.is_empty() { Some(value) } else { lookup(value.as_table()?, rest) }
}

fn set(table: &mut Table, path: &[String], value: Value) {
    match path {
        [] => {}
        [name] => {
            table.insert(name.clone(), value);
        }
        [name, rest @ ..] => {
            let inner = table.entry(name.clone()).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                set(inner, rest, value);
            }
        }
    }
}

/// The nearest key of the same section, the same name in another section, the nearest of all; else what there is.
fn suggestion(known: &Table, path: &[String]) -> String {
    let (name, section) = path.split_last().map_or(("", &[][..]), |(name, section)| (name.as_str(), section));
    let siblings: Vec<&str> = match section {
        [] => known.keys().map(String::as_str).collect(),
        _ => lookup(known, section)
            .and_then(Value::as_table)
            .into_iter()
            .flat_map(Table::keys)
            .map(String::as_str)
            .collect(),
    };
    let prefix = if section.is_empty() { String::new() } else { format!("{}.", section.join(".")) };
    let all = keys(known, "");
    let full = path.join(".");
    let elsewhere = |wanted: &str| {
        let same = all.iter().filter(|key| key.rsplit('.').next() == Some(wanted));
        same.max_by_key(|key| common_prefix(key, &full)).cloned()
    };
    let found = nearest(name, siblings.iter().copied())
        .map(|near| format!("{prefix}{near}"))
        .or_else(|| elsewhere(name))
        .or_else(|| nearest(&full, all.iter().map(String::as_str)).map(str::to_owned));
    match found {
        Some(key) => format!("; did you mean `{key}`?"),
        None => format!("; there are {}", siblings.join(", ")),
    }
}

fn common_prefix(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count()
}

/// All keys in dotted form, sections included.
fn keys(table: &Table, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (name, value) in table {
        let key = format!("{prefix}{name}");
        if let Value::Table(inner) = value
            && !FREE.contains(&key.as_str())
        {
            found.extend(keys(inner, &format!("{key}.")));
        }
        found.push(key);
    }
    found
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A recipe in which every optional key is there, so that it names all keys. Written without `..`, so that a new field
/// cannot be forgotten.
fn every_key() -> Recipe {
    let Recipe { seed, output: _, device: _, model, data, sft, tapo, eval } = Recipe::default();
    let ModelSection { path: _, dtype, stored } = model;
    let DataSection {
        images: _,
        prefixes,
        exif,
        alpha,
        check,
        labels: _,
        unseen,
        question,
        sft: sft_data,
        tapo: tapo_data,
    } = data;
    let SftData { file: _, max_tokens, newline_in_loss, sizes } = sft_data;
    let sft_data = SftData { file: some(), max_tokens, newline_in_loss, sizes };
    let TapoData { file: _, prompt, max_tokens, reuse_anchor, sizes } = tapo_data;
    let tapo_data = TapoData { file: some(), prompt, max_tokens, reuse_anchor, sizes };
    Recipe {
        seed,
        output: some(),
        device: some(),
        model: ModelSection { path: some(), dtype, stored },
        data: DataSection {
            images: some(),
            prefixes,
            exif,
            alpha,
            check,
            labels: some(),
            unseen,
            question,
            sft: sft_data,
            tapo: tapo_data,
        },
        sft,
        tapo,
        eval: EvalSection { min_pixels: some(), max_pixels: some(), limit: some(), ..eval },
    }
}

fn some<T: Default>() -> Option<T> {
    Some(T::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Order, WeightType};

    fn read(text: &str, overrides: &[&str]) -> Result<Recipe, RecipeError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recipe.toml");
        std::fs::write(&path, text).unwrap();
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).into()).collect();
        Recipe::read(&path, &overrides)
    }

    #[test]
    fn a_section_given_in_part_keeps_the_stages_defaults() {
        let recipe =
            read("[sft.adamw]\neps = 1e-6\n[tapo.schedule]\nlr = 2e-6\n[sft.train]\nprojector = true", &[]).unwrap();
        let (ours, default) = (&recipe, Recipe::default());
        assert_eq!((ours.sft.adamw.eps, ours.sft.adamw.weight_decay), (1e-6, 0.1));
        assert_eq!((ours.tapo.schedule.lr, ours.tapo.schedule.warmup), (2e-6, 0));
        assert_eq!(ours.tapo.schedule.shape, default.tapo.schedule.shape);
        assert_eq!((ours.sft.train.vision, ours.sft.train.projector), (false, true));
        assert_eq!(read("", &[]).unwrap(), default);
    }

    #[test]
    fn overrides_are_toml_and_else_strings() {
        let overrides = [
            "sft.epochs=3",
            "sft.schedule.lr=1e-4",
            "tapo.schedule.lr=1",
            "model.path=runs/sft/checkpoint",
            "model.dtype=bf16",
            "eval.files=[\"a.jsonl\", 'b.jsonl']",
            "eval.order = released",
            "data.prefixes.\"birds/x.y\"=elsewhere",
            "output=\"quoted\"",
            "eval.limit=5",
            "data.check=false",
        ];
        let recipe = read("[sft]\nepochs = 1\n[data.prefixes]\n\"a b\" = \"c\"", &overrides).unwrap();
        assert_eq!((recipe.sft.epochs, recipe.sft.schedule.lr, recipe.tapo.schedule.lr), (3, 1e-4, 1.0));
        assert_eq!(recipe.model.path.unwrap(), Path::new("runs/sft/checkpoint"));
        assert_eq!((recipe.model.dtype, recipe.eval.order), (WeightType::Bf16, Order::Released));
        assert_eq!(recipe.eval.files, [Path::new("a.jsonl"), Path::new("b.jsonl")]);
        assert_eq!((recipe.output.unwrap(), recipe.eval.limit), (PathBuf::from("quoted"), Some(5)));
        assert!(!recipe.data.check);
        let prefixes: Vec<&str> = recipe.data.prefixes.keys().map(String::as_str).collect();
        assert_eq!(prefixes, ["a b", "birds/x.y"]);
    }

    #[test]
    fn wrong_keys_and_values_are_named_with_the_nearest() {
        for (text, overrides, says) in [
            ("[sft]\nepoch = 3", &[][..], "recipe.toml: unknown key `sft.epoch`; did you mean `sft.epochs`?"),
            ("[sft]\nlr = 3", &[], "unknown key `sft.lr`; did you mean `sft.schedule.lr`?"),
            ("[tapo]\nlr = 3", &[], "unknown key `tapo.lr`; did you mean `tapo.schedule.lr`?"),
            ("[stf]\nepochs = 3", &[], "unknown key `stf`; did you mean `sft`?"),
            ("[data]\nmax_pixels = 9", &[], "`data.tapo.sizes.max_pixels`?"),
            ("[model]\nqqqqqq = 1", &[], "unknown key `model.qqqqqq`; there are dtype, path, stored"),
            ("[sft]\nepochs = \"many\"", &[], "recipe.toml: `sft.epochs`: invalid type: string \"many\""),
            ("[sft]\nepochs = -1", &[], "recipe.toml: `sft.epochs`: invalid value: integer `-1`"),
            ("[model]\ndtype = \"f8\"", &[], "`model.dtype`: unknown variant `f8`"),
            ("sft = 3", &[], "`sft`: is a section, but integer was given"),
            ("[seed]\nx = 1", &[], "`seed`: invalid type: map"),
            ("a = = b", &[], "recipe.toml:1: not TOML: "),
            ("seed = 1\n\n[sft\n", &[], "recipe.toml:3: not TOML: "),
            ("", &["sft.epochs=3x"], "--set sft.epochs=3x: `sft.epochs`: invalid type: string \"3x\""),
            ("", &["sft.epochs"], "--set sft.epochs: write it as key=value"),
            ("", &["=3"], "--set =3: write it as key=value"),
            ("", &["evl.batch=3"], "unknown key `evl`; did you mean `eval`?"),
        ] {
            let error = read(text, overrides).unwrap_err().to_string();
            assert!(error.contains(says), "{text:?} {overrides:?}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn settings_have_whole_keys() {
        for (section, end, whole) in [
            ("sft", "epochs", "sft.epochs"),
            ("tapo", "lr", "tapo.schedule.lr"),
            ("tapo", "filter.low", "tapo.filter.low"),
            ("sft", "beta1", "sft.adamw.beta1"),
            ("tapo", "other", "tapo.other"),
        ] {
            assert_eq!(Recipe::key_of(section, end), whole);
        }
    }

    #[test]
    fn the_recipe_as_written_out_reads_back() {
        let mut recipe = every_key();
        recipe.data.prefixes.insert("a.b".into(), "c".into());
        assert_eq!(read(&recipe.to_toml().unwrap(), &[]).unwrap(), recipe);
        assert_eq!(read(&Recipe::default().to_toml().unwrap(), &[]).unwrap(), Recipe::default());
    }
}

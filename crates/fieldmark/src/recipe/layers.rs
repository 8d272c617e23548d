//! Reading recipes and `--set key=value` overrides; a key that is unknown or ill-typed is named, with the nearest known.
//!
//! Keys are laid over the defaults one by one, so that a section given in part keeps the stage's other defaults, so that
//! the key at fault is known whatever the deserialiser says, and so that every value has an origin.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use super::{
    Recipe,
    schema::{Place, suggestion},
};

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

/// Where a value of a recipe was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere.
    Default,
    /// In this file.
    File(PathBuf),
    /// On the command line: `key=value`.
    Set(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => path.display().fmt(f),
            Self::Set(text) => write!(f, "--set {text}"),
        }
    }
}

/// A recipe with the origin of each of its values.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LayeredRecipe {
    /// The recipe.
    pub recipe: Recipe,
    /// By the names that lead to the value.
    origins: BTreeMap<Vec<String>, Origin>,
}

impl LayeredRecipe {
    /// Lays the files over the defaults, later ones over earlier ones, and `overrides` over all.
    ///
    /// # Errors
    /// The first key or value at fault, under the name of its file or override.
    pub fn read(files: &[PathBuf], overrides: &[String]) -> Result<Self, RecipeError> {
        let mut layered = Self::default();
        for file in files {
            layered.lay(&read_table(file)?, &Origin::File(file.clone()))?;
        }
        for text in overrides {
            layered.lay(&parse_override(text)?, &Origin::Set(text.clone()))?;
        }
        Ok(layered)
    }

    /// Where the value at `path` was given.
    pub fn origin(&self, path: &[String]) -> &Origin {
        self.origins.get(path).unwrap_or(&Origin::Default)
    }

    fn lay(&mut self, given: &Table, origin: &Origin) -> Result<(), RecipeError> {
        let mut base = table_of(&self.recipe);
        self.lay_over(&mut base, given, origin, &mut Vec::new())?;
        // Every value was tried alone; only two that contradict each other could still fail.
        let whole = Value::Table(base).try_into();
        self.recipe = whole.map_err(|error: toml::de::Error| RecipeError::Value {
            origin: origin.to_string(),
            key: "recipe".into(),
            reason: one_line(error.message()),
        })?;
        Ok(())
    }

    fn lay_over(
        &mut self,
        base: &mut Table,
        given: &Table,
        origin: &Origin,
        path: &mut Vec<String>,
    ) -> Result<(), RecipeError> {
        let free = matches!(Place::of(path), Some(Place::Map));
        for (name, value) in given {
            path.push(name.clone());
            let key = path.join(".");
            let refuse = |reason| RecipeError::Value { origin: origin.to_string(), key: key.clone(), reason };
            match (Place::of(path), value) {
                (None, _) if !free => {
                    return Err(RecipeError::UnknownKey {
                        origin: origin.to_string(),
                        key,
                        suggestion: suggestion(path),
                    });
                }
                (Some(Place::Section(_) | Place::Map), Value::Table(inner)) => {
                    self.lay_over(base, inner, origin, path)?
                }
                (Some(Place::Section(_) | Place::Map), _) => {
                    return Err(refuse(format!("is a section, but {} was given", value.type_str())));
                }
                _ => {
                    set(base, path, value.clone());
                    let mut alone = table_of(&Recipe::default());
                    set(&mut alone, path, value.clone());
                    let tried = Value::Table(alone).try_into::<Recipe>();
                    tried.map_err(|error| refuse(one_line(error.message())))?;
                    self.origins.insert(path.clone(), origin.clone());
                }
            }
            path.pop();
        }
        Ok(())
    }
}

impl Recipe {
    /// Reads recipes, later ones over earlier ones, and lays `overrides` (`key=value`, the value as TOML or else a string)
    /// over them.
    ///
    /// # Errors
    /// The first key or value at fault, under the name of its file or override.
    pub fn read(files: &[PathBuf], overrides: &[String]) -> Result<Self, RecipeError> {
        Ok(LayeredRecipe::read(files, overrides)?.recipe)
    }

    /// The recipe with one `key=value` changed.
    ///
    /// # Errors
    /// If there is no such key, or the value is not of its type.
    ///
    /// ```
    /// use fieldmark::recipe::Recipe;
    /// let recipe = Recipe::default().with_override("sft.epochs=3")?;
    /// assert_eq!(recipe.sft.epochs, 3);
    /// let error = recipe.with_override("sft.epoch=3").unwrap_err().to_string();
    /// assert_eq!(error, "--set sft.epoch=3: unknown key `sft.epoch`; did you mean `sft.epochs`?");
    /// # Ok::<(), fieldmark::recipe::RecipeError>(())
    /// ```
    pub fn with_override(self, text: &str) -> Result<Self, RecipeError> {
        let mut layered = LayeredRecipe { recipe: self, ..LayeredRecipe::default() };
        layered.lay(&parse_override(text)?, &Origin::Set(text.into()))?;
        Ok(layered.recipe)
    }

    /// The recipe as TOML with every value written out, defaults included.
    ///
    /// # Errors
    /// None in practice: a number outside TOML's range.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }
}

fn read_table(path: &Path) -> Result<Table, RecipeError> {
    let text = std::fs::read_to_string(path).map_err(|source| RecipeError::Read { path: path.into(), source })?;
    text.parse().map_err(|error: toml::de::Error| RecipeError::Syntax {
        path: path.into(),
        line: error.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count()),
        reason: one_line(error.message()),
    })
}

fn parse_override(text: &str) -> Result<Table, RecipeError> {
    let wrong = || RecipeError::Override { text: text.into() };
    let (key, value) = text.split_once('=').ok_or_else(wrong)?;
    let quoted = Value::String(value.trim().into());
    let parsed = format!("{key} = {value}").parse().or_else(|_| format!("{key} = {quoted}").parse());
    parsed.map_err(|_| wrong())
}

/// The recipe as a table. By way of its text, in which an f32 of 0.9 is 0.9 and not the f64 nearest to it.
pub(super) fn table_of(recipe: &Recipe) -> Table {
    // A recipe has string keys and numbers that TOML holds, except a seed above 2^63, which no TOML file can name either.
    recipe.to_toml().ok().and_then(|text| text.parse().ok()).unwrap_or_default()
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

pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
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
        Recipe::read(&[path], &overrides)
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
            (
                "[model]\nqqqqqq = 1",
                &[],
                "unknown key `model.qqqqqq`; there are path, text_encoder, dtype, parts, stored",
            ),
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
    fn later_files_lie_over_earlier_ones_and_overrides_over_all() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = [
            ("first.toml", "seed = 1\n[sft]\nepochs = 1\nbatch = 1\n[data.prefixes]\na = \"x\"\n"),
            ("second.toml", "[sft]\nepochs = 2\nmicro_batch = 2\n[data.prefixes]\nb = \"y\"\n"),
        ]
        .map(|(name, text)| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        });
        let files = [first.clone(), second.clone()];
        let layered = LayeredRecipe::read(&files, &["sft.micro_batch=3".into()]).unwrap();
        let recipe = &layered.recipe;
        assert_eq!((recipe.seed, recipe.sft.epochs, recipe.sft.batch, recipe.sft.micro_batch), (1, 2, 1, 3));
        let origin = |key: &str| layered.origin(&key.split('.').map(str::to_owned).collect::<Vec<_>>()).clone();
        for (key, expected) in [
            ("seed", Origin::File(first.clone())),
            ("sft.epochs", Origin::File(second.clone())),
            ("sft.batch", Origin::File(first)),
            ("sft.micro_batch", Origin::Set("sft.micro_batch=3".into())),
            ("sft.workers", Origin::Default),
            ("data.prefixes.b", Origin::File(second)),
        ] {
            assert_eq!(origin(key), expected, "{key}");
        }
        assert_eq!(recipe.data.prefixes.len(), 2);
    }

    #[test]
    fn the_recipe_as_written_out_reads_back() {
        let mut recipe = Recipe { output: Some("out".into()), ..Recipe::default() };
        recipe.data.prefixes.insert("a.b".into(), "c".into());
        assert_eq!(read(&recipe.to_toml().unwrap(), &[]).unwrap(), recipe);
        assert_eq!(read(&Recipe::default().to_toml().unwrap(), &[]).unwrap(), Recipe::default());
    }
}

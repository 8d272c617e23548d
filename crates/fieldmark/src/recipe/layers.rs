//! Reads recipes and `--set key=value` overrides, each laid over the one before.
//!
//! Keys are laid over the defaults one by one. So a section given in part keeps the stage's other defaults, every error
//! names its key, and every value has an origin.

use std::{collections::BTreeMap, path::PathBuf};

use toml::{Table, Value};

use super::{
    document::Recipe,
    error::RecipeError,
    forms::wrong_type,
    given::Given,
    keys::{Place, inside_of, suggestion},
    origin::Origin,
    table::{set, table_of},
    text::one_line,
};

/// A recipe with the origin of each of its values.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LayeredRecipe {
    /// The recipe.
    pub recipe: Recipe,
    /// Keyed by the names that lead to the value.
    origins: BTreeMap<Vec<String>, Origin>,
}

impl LayeredRecipe {
    /// Lays the files over the defaults in their order, then the overrides.
    ///
    /// # Errors
    /// Returns the first unknown key or invalid value, with the file or override that has it.
    pub fn read(files: &[PathBuf], overrides: &[String]) -> Result<Self, RecipeError> {
        let mut layered = Self::default();
        for file in files {
            layered.lay(&Given::file(file)?)?;
        }
        for text in overrides {
            layered.lay(&Given::set(text)?)?;
        }
        Ok(layered)
    }

    /// Where the value at `path` comes from.
    pub fn origin(&self, path: &[String]) -> &Origin {
        self.origins.get(path).unwrap_or(&Origin::Default)
    }

    fn lay(&mut self, given: &Given) -> Result<(), RecipeError> {
        let mut base = table_of(&self.recipe);
        self.lay_over(&mut base, &given.table, given, &mut Vec::new())?;
        // Every value was tried alone, so only two that contradict each other could still fail.
        let whole = Value::Table(base).try_into();
        self.recipe = whole.map_err(|error: toml::de::Error| RecipeError::Value {
            origin: given.origin.to_string(),
            key: "recipe".into(),
            reason: one_line(error.message()),
        })?;
        Ok(())
    }

    fn lay_over(
        &mut self,
        base: &mut Table,
        table: &Table,
        given: &Given,
        path: &mut Vec<String>,
    ) -> Result<(), RecipeError> {
        for (name, value) in table {
            path.push(name.clone());
            let (key, node) = (path.join("."), Place::node(path));
            let refuse = |reason| RecipeError::Value { origin: given.place(path), key: key.clone(), reason };
            match (node.map(Place::at), value) {
                (None, _) => {
                    let (origin, suggestion) = (given.place(path), suggestion(path));
                    return Err(RecipeError::UnknownKey { origin, key, suggestion });
                }
                (Some(Place::Section(_) | Place::Map), Value::Table(inner)) => {
                    self.lay_over(base, inner, given, path)?
                }
                (Some(place @ (Place::Section(_) | Place::Map)), _) => {
                    let (keys, kind) = (inside_of(place), value.type_str());
                    return Err(refuse(format!("is a section with keys of its own{keys}, not a value of type {kind}")));
                }
                (_, &Value::Integer(count)) if count > most(name) => {
                    return Err(refuse(format!("is {count}, but must be at most {}", most(name))));
                }
                _ => {
                    let wrong = node.and_then(|node| wrong_type(node, path, value, &given.origin));
                    wrong.map_or(Ok(()), |reason| Err(refuse(reason)))?;
                    set(base, path, value.clone());
                    let mut alone = table_of(&Recipe::default());
                    set(&mut alone, path, value.clone());
                    let tried = Value::Table(alone).try_into::<Recipe>();
                    tried.map_err(|error| refuse(one_line(error.message())))?;
                    self.origins.insert(path.clone(), given.origin.clone());
                }
            }
            path.pop();
        }
        Ok(())
    }
}

impl Recipe {
    /// Lays recipes over the defaults in their order, then the overrides. An override is `key=value`; a value that is not
    /// valid TOML is a string.
    ///
    /// # Errors
    /// Returns the first unknown key or invalid value, with the file or override that has it.
    pub fn read(files: &[PathBuf], overrides: &[String]) -> Result<Self, RecipeError> {
        Ok(LayeredRecipe::read(files, overrides)?.recipe)
    }

    /// Changes one `key=value`.
    ///
    /// # Errors
    /// Returns an error if no recipe has this key, or if the key does not accept the value.
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
        layered.lay(&Given::set(text)?)?;
        Ok(layered.recipe)
    }
}

/// The largest number that a key may have. Products of sizes and counts then stay in range; seeds are not multiplied.
fn most(name: &str) -> i64 {
    match name {
        _ if name.ends_with("seed") => i64::MAX,
        _ if name.ends_with("_bytes") || name.ends_with("_pixels") => 1_000_000_000_000,
        "rank" => 65_536,
        _ => 1_000_000_000,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::recipe::Order;
    use fieldmark_model::WeightType;

    fn read(text: &str, overrides: &[&str]) -> Result<Recipe, RecipeError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recipe.toml");
        std::fs::write(&path, text).unwrap();
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).into()).collect();
        Recipe::read(&[path], &overrides)
    }

    #[test]
    fn counts_that_would_run_over_are_refused_with_their_key() {
        for key in
            ["tapo.batch", "eval.batch", "sft.micro_batch", "tapo.chunk", "lora.rank", "data.sft.sizes.min_pixels"]
        {
            let error = read("", &[&format!("{key}=9223372036854775807")]).unwrap_err();
            assert!(matches!(&error, RecipeError::Value { key: named, .. } if named == key), "{error}");
        }
        let recipe = read("seed = 9223372036854775807\n[data]\nmax_file_bytes = 10000000000", &[]).unwrap();
        assert_eq!((recipe.seed, recipe.data.decode().max_file_bytes), (i64::MAX as u64, 10_000_000_000));
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
    fn wrong_keys_and_values_are_named_with_their_origin() {
        for (text, overrides, wrong) in [
            ("[sft]\nepoch = 3", &[][..], "unknown recipe.toml:2 sft.epoch"),
            ("[stf]\nepochs = 3", &[], "unknown recipe.toml:1 stf"),
            ("[sft]\nepochs = \"many\"", &[], "value recipe.toml:2 sft.epochs"),
            ("[sft]\nepochs = -1", &[], "value recipe.toml:2 sft.epochs"),
            ("[model]\ndtype = \"f8\"", &[], "value recipe.toml:2 model.dtype"),
            ("sft = 3", &[], "value recipe.toml:1 sft"),
            ("[seed]\nx = 1", &[], "value recipe.toml:1 seed"),
            ("a = = b", &[], "syntax recipe.toml:1"),
            ("seed = 1\n\n[sft\n", &[], "syntax recipe.toml:3"),
            ("output = 20261127", &[], "value recipe.toml:1 output"),
            ("", &["sft.epochs=3x"], "value --set sft.epochs=3x sft.epochs"),
            ("", &["sft.epochs"], "override sft.epochs"),
            ("", &["=3"], "override =3"),
            ("", &["evl.batch=3"], "unknown --set evl.batch=3 evl"),
        ] {
            let error = read(text, overrides).unwrap_err();
            let file = |path: &Path| path.file_name().unwrap().display().to_string();
            let found = match &error {
                RecipeError::UnknownKey { origin, key, .. } => format!("unknown {} {key}", file(origin.as_ref())),
                RecipeError::Value { origin, key, .. } => format!("value {} {key}", file(origin.as_ref())),
                RecipeError::Syntax { path, line, .. } => format!("syntax {}:{line}", file(path)),
                RecipeError::Override { text } => format!("override {text}"),
                RecipeError::Read { path, .. } => format!("read {}", file(path)),
            };
            assert_eq!(found, wrong, "{text:?} {overrides:?}: {error}");
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn a_number_for_a_text_is_taken_on_the_command_line_and_shown_in_quotes_in_a_file() {
        let recipe = read("", &["output=20261127", "data.question=42", "eval.files=[7]"]).unwrap();
        assert_eq!((recipe.output.unwrap(), recipe.data.question.as_str()), (PathBuf::from("20261127"), "42"));
        assert_eq!(recipe.eval.files, [Path::new("7")]);
        let error = read("output = 20261127", &[]).unwrap_err().to_string();
        assert!(error.contains("output = \"20261127\""), "{error}");
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

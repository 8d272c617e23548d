//! The recipes that come with the repository parse, and say what the paper says (arXiv 2602.07605, its training details).

use std::path::Path;

use fieldmark::recipe::{DataSection, EvalSection, ModelSection, Recipe, RunSection, SftData, TapoData};
use fieldmark::train::{
    gradient::LossNorm,
    optim::{AdamWSettings, HalfWeights, LrSchedule, LrShape, Moments},
    sft::SftConfig,
    tapo::{
        LossAverage, TapoConfig, TapoLossConfig, UpdateImage,
        advantage::Estimator,
        policy::{Importance, PolicyObjective},
        rollout::{GroupFilter, NegativeImage, Surplus},
    },
};
use fieldmark::{data::PromptTemplate, model::WeightType, processor::ExifOrientation};
use serde_json::Value;

fn recipe(name: &str) -> Recipe {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes").join(name);
    Recipe::read(&[path], &[]).unwrap_or_else(|error| panic!("{error}"))
}

/// The defaults, but for what keeps a bf16 weight's rest.
fn paper_tapo() -> TapoConfig {
    let default = TapoConfig::default();
    TapoConfig { adamw: AdamWSettings { half: HalfWeights::Kahan, ..default.adamw }, ..default }
}

#[test]
fn the_3b_recipe_is_the_paper() {
    let recipe = recipe("fine-r1-3b.toml");
    assert_eq!(recipe.sft, SftConfig::default());
    assert_eq!(recipe.tapo, paper_tapo());
    assert_eq!(recipe.eval, EvalSection { files: vec!["eval".into()], ..EvalSection::default() });
    let sft = recipe.sft;
    assert_eq!((sft.epochs, sft.batch, sft.updates(404)), (10, 64, 70));
    assert_eq!((sft.schedule.lr, sft.schedule.warmup, sft.schedule.shape), (5e-6, 6, LrShape::Cosine));
    let tapo = recipe.tapo;
    assert_eq!((tapo.prompts_per_step, tapo.chunk, tapo.batch, tapo.updates_per_step()), (384, 128, 1280, 3));
    assert_eq!((tapo.epochs, tapo.max_new_tokens, tapo.schedule.shape), (10, 2048, LrShape::Constant));
}

#[test]
fn what_is_not_the_default_is_what_the_recipes_say() {
    for (name, path) in [("fine-r1-3b.toml", "Qwen2.5-VL-3B-Instruct"), ("fine-r1-7b.toml", "Qwen2.5-VL-7B-Instruct")] {
        let recipe = recipe(name);
        let model = ModelSection {
            path: Some(path.into()),
            dtype: WeightType::Bf16,
            stored: WeightType::Bf16,
            ..ModelSection::default()
        };
        assert_eq!(recipe.model, model);
        let data = DataSection::default();
        let expected = DataSection {
            images: Some("photos".into()),
            exif: ExifOrientation::Ignore,
            sft: SftData { file: Some("stage1.json".into()), ..data.sft },
            tapo: TapoData { file: Some("stage2.jsonl".into()), ..data.tapo },
            ..data
        };
        assert_eq!(recipe.data, expected);
        assert_eq!(recipe.run, RunSection::default());
        assert_eq!((recipe.seed, recipe.output, recipe.device), (Recipe::default().seed, None, None));
    }
}

#[test]
fn the_7b_recipe_differs_in_the_sizes_of_a_step() {
    let (small, large) = (recipe("fine-r1-3b.toml"), recipe("fine-r1-7b.toml"));
    assert_eq!(large.sft, small.sft);
    assert_eq!(large.eval, small.eval);
    assert_eq!((large.tapo.epochs, large.tapo.prompts_per_step, large.tapo.chunk, large.tapo.batch), (5, 192, 64, 640));
    assert_eq!(large.tapo.updates_per_step(), 3);
    let sizes = TapoConfig { epochs: 10, prompts_per_step: 384, chunk: 128, batch: 1280, ..large.tapo };
    assert_eq!(sizes, small.tapo);
}

/// A second file over the 3B recipe changes what it says and nothing else.
#[test]
fn ablations_are_the_paper_but_for_what_they_name() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let paper = paper_tapo;
    let anchors = || TapoConfig { anchor_rollouts: 10, positive_rollouts: 0, ..paper() };
    let no_terms = TapoLossConfig { gamma: 0.0, eta1: 0.0, eta2: 0.0, ..paper().loss };
    let symmetric = TapoLossConfig { clip_high: 0.2, clip_dual: f64::INFINITY, ..no_terms };
    let filter = || GroupFilter { enabled: false, ..GroupFilter::default() };
    let grpo = TapoLossConfig { kl_ref: 0.01, loss_average: LossAverage::Sequence, ..symmetric };
    let dr_grpo = TapoLossConfig { loss_average: LossAverage::Constant, ..symmetric };
    let gspo = TapoLossConfig {
        clip_low: 3e-4,
        clip_high: 4e-4,
        importance: Importance::Sequence,
        loss_average: LossAverage::Sequence,
        ..symmetric
    };
    let sapo = TapoLossConfig { policy: PolicyObjective::Sapo, loss_average: LossAverage::Sequence, ..no_terms };
    let cispo = TapoLossConfig { policy: PolicyObjective::Cispo, ..no_terms };
    let vepo = TapoLossConfig { visual_tokens: Some(0.2), ..symmetric };
    let alike = |estimator| TapoConfig {
        estimator,
        rewards: [("accuracy".into(), 1.0), ("format".into(), 1.0)].into(),
        ..paper()
    };
    let released = TapoConfig {
        update_image: UpdateImage::Own,
        whole_chunks: true,
        surplus: Surplus::Drop,
        loss_norm: LossNorm::Micro,
        loss: TapoLossConfig { negative_grad: false, ..paper().loss },
        schedule: LrSchedule { released: true, ..paper().schedule },
        adamw: AdamWSettings { weight_decay: 0.0, moments: Moments::Bf16, ..paper().adamw },
        rewards: [("accuracy".into(), 0.0), ("format".into(), 0.1), ("inclusion".into(), 0.9)].into(),
        filter: GroupFilter { key: Some("inclusion".into()), ..GroupFilter::default() },
        ..paper()
    };
    let expected = [
        ("dapo", TapoConfig { loss: no_terms, ..anchors() }),
        ("grpo", TapoConfig { loss: grpo, filter: filter(), ..anchors() }),
        ("dr-grpo", TapoConfig { loss: dr_grpo, filter: filter(), estimator: Estimator::DrGrpo, ..anchors() }),
        ("gspo", TapoConfig { loss: gspo, filter: filter(), ..anchors() }),
        ("sapo", TapoConfig { loss: sapo, filter: filter(), ..anchors() }),
        ("cispo", TapoConfig { loss: cispo, ..anchors() }),
        ("vepo", TapoConfig { loss: vepo, filter: filter(), negative: NegativeImage::Patches, ..anchors() }),
        ("mrn", alike(Estimator::Mrn)),
        ("gdpo", alike(Estimator::Gdpo)),
        ("intra", TapoConfig { loss: no_terms, ..paper() }),
        ("inter", anchors()),
        ("patches", TapoConfig { negative: NegativeImage::Patches, ..paper() }),
        ("own-image", TapoConfig { update_image: UpdateImage::Own, ..paper() }),
        ("released", released),
    ];
    let table = std::fs::read_to_string(folder.join("ablations/README.md")).unwrap();
    let own = recipe("fine-r1-3b.toml");
    for (name, tapo) in expected {
        let overlay = folder.join(format!("ablations/{name}.toml"));
        let found = Recipe::read(&[folder.join("fine-r1-3b.toml"), overlay.clone()], &[]).unwrap();
        tapo.validate().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(found.tapo, tapo, "{name}");
        let mut sft = SftConfig::default();
        let mut data = own.data.clone();
        if name == "released" {
            sft.loss_norm = LossNorm::Micro;
            sft.schedule.released = true;
            data.sft.newline_in_loss = true;
        }
        assert_eq!(found, Recipe { sft, tapo, data, ..own.clone() }, "{name}");
        assert!(table.contains(&format!("| `{name}.toml` |")), "{name}");
    }
    let files = std::fs::read_dir(folder.join("ablations")).unwrap().count();
    assert_eq!(files, 15, "a new ablation needs a line in this test and in the table");
}

/// Laid over the 3B recipe, it changes prompts and what a well-formed response is, and nothing else.
#[test]
fn the_recipe_without_thinking_asks_and_pays_for_the_answer_alone() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let found = Recipe::read(&[folder.join("fine-r1-3b.toml"), folder.join("no-think.toml")], &[]).unwrap();
    let mut expected = recipe("fine-r1-3b.toml");
    expected.data.tapo.prompt = PromptTemplate::RlNoThink;
    expected.tapo.think = false;
    expected.tapo.rewards.extend([("format".into(), 0.0), ("answer_only".into(), 0.1)]);
    (expected.eval.closed_prompt, expected.eval.open_prompt) =
        (PromptTemplate::EvalClosedNoThink, PromptTemplate::EvalOpenNoThink);
    assert_eq!(found, expected);
    assert!(found.tapo.validate().is_ok() && found.tapo.check_form().is_ok());
    assert_eq!(found.tapo.filter.key(&found.tapo.rewards), "accuracy");
}

#[test]
fn the_schema_in_the_repository_is_that_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/schema.json");
    let stored: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(stored == *Recipe::schema(), "out of date; run: cargo run -- show --schema > recipes/schema.json");
}

#[test]
fn every_recipe_names_the_schema_and_reads() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes")];
    let mut read = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                // Shapes for `init` are not recipes.
                folders.extend((!path.ends_with("shapes")).then_some(path));
            } else if path.extension().is_some_and(|end| end == "toml") {
                let text = std::fs::read_to_string(&path).unwrap();
                let schema = text.lines().next().and_then(|line| line.strip_prefix("#:schema "));
                let schema = schema.unwrap_or_else(|| panic!("{}: no #:schema line", path.display()));
                assert!(path.with_file_name(schema).is_file(), "{}: no {schema}", path.display());
                Recipe::read(&[path], &[]).unwrap_or_else(|error| panic!("{error}"));
                read += 1;
            }
        }
    }
    assert!(read >= 2);
}

/// Sets every key of the schema, each to a value of the type that the schema gives it, and looks for the keys of a recipe in
/// the schema: neither has one that the other lacks.
#[test]
fn the_schema_has_the_keys_of_a_recipe_and_no_other() {
    fn walk(schema: &Value, table: &mut toml::Table, leaves: &mut usize) {
        for (name, node) in schema["properties"].as_object().unwrap() {
            if node.get("properties").is_some() {
                let inner = table.entry(name.clone()).or_insert_with(|| toml::Table::new().into());
                walk(node, inner.as_table_mut().unwrap(), leaves);
            } else {
                *leaves += 1;
                table.entry(name.clone()).or_insert_with(|| sample(node));
            }
        }
        let known = schema["properties"].as_object().unwrap();
        table.keys().for_each(|name| assert!(known.contains_key(name), "{name} is not in the schema"));
    }
    fn sample(node: &Value) -> toml::Value {
        match node["type"].as_str() {
            Some("string") => "x".into(),
            Some("integer") => 1.into(),
            Some("number") => 0.5.into(),
            Some("boolean") => true.into(),
            None if node["oneOf"][0]["const"].is_string() => node["oneOf"][0]["const"].as_str().unwrap_or("").into(),
            _ => panic!("a value without default of a type that this test does not know: {node}"),
        }
    }
    let mut table = toml::Table::try_from(Recipe::default()).unwrap();
    let mut leaves = 0;
    walk(Recipe::schema(), &mut table, &mut leaves);
    assert!(leaves > 80, "{leaves}");
    // Sections refuse what they do not know, so that this succeeds only if every key is one.
    let recipe: Recipe = toml::Value::Table(table).try_into().unwrap();
    assert_eq!(recipe.eval.limit, Some(1));
}

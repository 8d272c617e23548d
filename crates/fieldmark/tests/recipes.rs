//! The recipes that come with the repository parse, and say what the paper says (arXiv 2602.07605, its training details).

use std::path::Path;

use fieldmark::recipe::{DataSection, EvalSection, Exif, ModelSection, Recipe, SftData, TapoData, WeightType};
use fieldmark::train::{LrShape, SftConfig, TapoConfig};

fn recipe(name: &str) -> Recipe {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes").join(name);
    Recipe::read(&path, &[]).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_3b_recipe_is_the_paper() {
    let recipe = recipe("fine-r1-3b.toml");
    assert_eq!(recipe.sft, SftConfig::default());
    assert_eq!(recipe.tapo, TapoConfig::default());
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
        // Training refuses 16-bit weights.
        let stored = WeightType::Bf16;
        let model = ModelSection { path: Some(path.into()), dtype: WeightType::F32, stored };
        assert_eq!(recipe.model, model);
        let data = DataSection::default();
        let expected = DataSection {
            images: Some("photos".into()),
            exif: Exif::Ignore,
            sft: SftData { file: Some("stage1.json".into()), ..data.sft },
            tapo: TapoData { file: Some("stage2.jsonl".into()), ..data.tapo },
            ..data
        };
        assert_eq!(recipe.data, expected);
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

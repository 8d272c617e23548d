//! What may be given as the model: every form of a checkpoint that transformers writes answers alike, and any other folder is
//! refused in one line that names what it is and what to do.

mod support;

use std::{collections::BTreeMap, fs};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use support::{
    Place,
    refusal::{Refusal, mentions},
    runs,
};

fn ask(model: &str) -> [&str; 8] {
    ["ask", "--model", model, "--image", "a.png", "--max-new-tokens", "8", "Which fruit?"]
}

/// The answer, and the lines that begin with `note: `.
#[track_caller]
fn answer(place: &Place, model: &str) -> (String, Vec<String>) {
    let output = place.run(&ask(model));
    let said = runs::stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let notes = said.lines().filter(|line| line.starts_with("note: ")).map(str::to_owned).collect();
    (String::from_utf8(output.stdout).unwrap(), notes)
}

/// The notes of a run of SFT into `sft` that starts from `model`.
#[track_caller]
fn train(place: &Place, model: &str) -> Vec<String> {
    let start = format!("model.path={model}");
    let output =
        place.run(&["sft", "-c", "recipe.toml", "--set", "output=sft", "--set", "sft.epochs=1", "--set", &start]);
    let said = runs::stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    said.lines().filter(|line| line.starts_with("note: ")).map(str::to_owned).collect()
}

fn edit(place: &Place, file: &str, change: impl FnOnce(&mut Value)) {
    let mut json: Value = serde_json::from_slice(&fs::read(place.path(file)).unwrap()).unwrap();
    change(&mut json);
    place.write(file, json.to_string());
}

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn edit_weights(place: &Place, change: impl FnOnce(&mut Tensors)) {
    let path = place.path("model/model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let parsed = SafeTensors::deserialize(&bytes).unwrap();
    let all = parsed.tensors().into_iter();
    let mut tensors: Tensors =
        all.map(|(name, view)| (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()))).collect();
    change(&mut tensors);
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, data))| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn a_folder_of_transformers_5_answers_as_the_older_form_does() {
    let place = Place::new();
    let expected = answer(&place, "model");
    assert_eq!(expected.1, Vec::<String>::new());
    // The nested configuration, the nested image processor, and `dtype` in place of `torch_dtype`.
    edit(&place, "model/config.json", |config| {
        let map = config.as_object_mut().unwrap();
        let mut text = serde_json::Map::new();
        for key in [
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "rms_norm_eps",
            "rope_theta",
            "max_position_embeddings",
            "rope_scaling",
            "bos_token_id",
            "eos_token_id",
        ] {
            if let Some(value) = map.shift_remove(key) {
                text.insert(key.into(), value);
            }
        }
        let mut rope = text.shift_remove("rope_scaling").unwrap();
        rope["rope_type"] = json!("default");
        rope["rope_theta"] = text.shift_remove("rope_theta").unwrap();
        text.insert("rope_parameters".into(), rope);
        map.shift_remove("torch_dtype");
        map.insert("dtype".into(), json!("float32"));
        map.insert("text_config".into(), text.into());
        map.insert("quantization_config".into(), Value::Null);
    });
    edit(&place, "model/preprocessor_config.json", |older| {
        let [min, max] = ["min_pixels", "max_pixels"].map(|key| older[key].take());
        older["size"] = json!({ "shortest_edge": min, "longest_edge": max });
        *older = json!({ "image_processor": older, "processor_class": "Qwen2_5_VLProcessor" });
    });
    fs::rename(place.path("model/preprocessor_config.json"), place.path("model/processor_config.json")).unwrap();
    assert_eq!(answer(&place, "model"), expected);
    // Without generation settings the end token is the nested configuration's: here, the first token of the answer ends it.
    fs::remove_file(place.path("model/generation_config.json")).unwrap();
    assert_eq!(answer(&place, "model"), expected);
    let vocabulary: Vec<u32> = (0..320).collect();
    edit(&place, "model/config.json", |config| config["text_config"]["eos_token_id"] = json!(vocabulary));
    let all = answer(&place, "model").0;
    let mut one_token = ask("model");
    one_token[6] = "1";
    assert_eq!(all, place.succeed(&one_token));
    assert_ne!(all, expected.0);
}

#[test]
fn a_head_that_is_stored_is_used_and_said_whatever_the_flag() {
    let place = Place::new();
    let (tied, _) = answer(&place, "model");
    edit(&place, "model/config.json", |config| config["tie_word_embeddings"] = json!(true));
    edit_weights(&place, |tensors| {
        tensors.insert("lm_head.weight".into(), tensors["model.embed_tokens.weight"].clone());
    });
    assert_eq!(answer(&place, "model"), (tied.clone(), vec![]), "a copy is no other head");
    edit_weights(&place, |tensors| {
        let (_, shape, data) = tensors.get_mut("lm_head.weight").unwrap();
        // Row by row from the end: other tokens win.
        let width = shape[1] * 4;
        *data = data.chunks(width).rev().flatten().copied().collect();
    });
    let (stored, _) = answer(&place, "model");
    assert_ne!(stored, tied);
    // What is trained from it and saved says what it is.
    place.write("recipe.toml", place.recipe());
    place.conversations("sft.json", 2, |_, _| ());
    let notes = train(&place, "model");
    assert!(
        matches!(notes.as_slice(), [one] if mentions(one, "lm_head.weight") && mentions(one, "tie_word_embeddings")),
        "{notes:?}"
    );
    let saved: Value = serde_json::from_slice(&fs::read(place.path("sft/checkpoint/config.json")).unwrap()).unwrap();
    assert_eq!(saved["tie_word_embeddings"], false);
    edit(&place, "model/config.json", |config| config["tie_word_embeddings"] = json!(false));
    assert_eq!(answer(&place, "model"), (stored, vec![]));
}

#[test]
fn a_run_means_its_finished_checkpoint() {
    let place = Place::new();
    place.write("recipe.toml", place.recipe().replace("[model]\n", "[run]\nsave_every = 1\n[model]\n"));
    place.conversations("sft.json", 3, |_, _| ());
    place.succeed(&["sft", "-c", "recipe.toml", "--set", "output=sft", "--set", "sft.epochs=1"]);
    let (expected, none) = answer(&place, "sft/checkpoint");
    let (found, notes) = answer(&place, "sft");
    assert_eq!((found, none), (expected, vec![]));
    assert!(matches!(notes.as_slice(), [one] if mentions(one, "sft/checkpoint")), "{notes:?}");
    // A run starts from it too, and says so.
    fs::rename(place.path("sft"), place.path("first")).unwrap();
    let notes = train(&place, "first");
    assert!(matches!(notes.as_slice(), [one] if mentions(one, "first/checkpoint")), "{notes:?}");
    // Of a run that is not finished, the newest checkpoint is named.
    fs::remove_dir_all(place.path("sft/checkpoint")).unwrap();
    let mut saved: Vec<String> = support::names(&place, "sft/checkpoints").into_iter().collect();
    let newest = format!("sft/checkpoints/{}", saved.pop().unwrap());
    place.refuse(&ask("sft")).names("sft").suggests(&newest);
    place.refuse(&ask("sft/checkpoints")).suggests(&newest);
    answer(&place, &newest);
}

#[test]
fn other_folders_and_paths_are_refused_by_what_they_are() {
    type Change = Box<dyn Fn(&Place)>;
    let refuse = |change: Change| -> Refusal {
        let place = Place::new();
        change(&place);
        place.refuse(&ask("model"))
    };
    const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7520000000\n";
    for file in [
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "preprocessor_config.json",
        "generation_config.json",
        "chat_template.jinja",
    ] {
        let name = format!("model/{file}");
        refuse(Box::new({
            let name = name.clone();
            move |place| place.write(&name, POINTER)
        }))
        .names(&name)
        .suggests("git lfs pull");
    }
    refuse(Box::new(|place| place.write("model/model.safetensors", "<!DOCTYPE html>")))
        .names("model/model.safetensors")
        .names("web page");

    // Quantised, by the configuration or by the tensors.
    for (method, settings) in
        [("gptq", json!({ "quant_method": "gptq" })), ("bitsandbytes", json!({ "load_in_8bit": true }))]
    {
        refuse(Box::new(move |place| {
            edit(place, "model/config.json", |config| config["quantization_config"] = settings.clone());
        }))
        .names("model/config.json")
        .names_key("quantization_config")
        .names(method);
    }
    for (name, dtype, method) in [
        ("model.layers.0.mlp.up_proj.weight", Dtype::U8, "bitsandbytes"),
        ("model.layers.0.mlp.up_proj.qweight", Dtype::I32, "GPTQ"),
        ("model.layers.0.mlp.up_proj.weight", Dtype::F8_E4M3, "FP8"),
    ] {
        let bytes = if dtype == Dtype::I32 { 4 } else { 1 };
        refuse(Box::new(move |place| {
            edit_weights(place, |tensors| drop(tensors.insert(name.into(), (dtype, vec![1], vec![0; bytes]))));
        }))
        .names("model/model.safetensors")
        .names("quantised")
        .names(name)
        .names(method);
    }

    // Names that are not the model's: some of those left over, not only one that is missing.
    let prefixed = |prefix: &'static str| -> Change {
        Box::new(move |place| {
            edit_weights(place, |tensors| {
                *tensors = std::mem::take(tensors)
                    .into_iter()
                    .map(|(name, tensor)| (format!("{prefix}{name}"), tensor))
                    .collect();
            });
        })
    };
    refuse(prefixed("base_model.model."))
        .names("base_model.model.model.embed_tokens.weight")
        .suggests("merge_and_unload");
    refuse(prefixed("module.")).names("module.model.embed_tokens.weight").names("wrapper");

    // Weights that are not there, or in another form.
    let instead = |file: &'static str| -> Change {
        Box::new(move |place| {
            fs::remove_file(place.path("model/model.safetensors")).unwrap();
            place.write(&format!("model/{file}"), "");
        })
    };
    refuse(instead("pytorch_model.bin")).names("pytorch_model.bin").suggests("save_pretrained");
    refuse(instead("model-q4_k_m.gguf")).names("model-q4_k_m.gguf").names("GGUF");
    refuse(instead("model-00001-of-00002.safetensors")).names("model.safetensors.index.json");
    refuse(Box::new(|place| {
        let weights = place.path("model/model-00001-of-00002.safetensors");
        fs::rename(place.path("model/model.safetensors"), weights).unwrap();
        let map = json!({ "a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors" });
        place.write("model/model.safetensors.index.json", json!({ "weight_map": map }).to_string());
    }))
    .names("model/model-00002-of-00002.safetensors")
    .names("model.safetensors.index.json");

    // Another architecture, an adapter, a file, a name on the hub.
    refuse(Box::new(|place| edit(place, "model/config.json", |config| config["model_type"] = json!("qwen3_vl"))))
        .names("model/config.json")
        .names_key("model_type")
        .names("Qwen3-VL");
    refuse(Box::new(|place| {
        fs::remove_dir_all(place.path("model")).unwrap();
        fs::create_dir(place.path("model")).unwrap();
        place.write("model/adapter_config.json", r#"{"base_model_name_or_path": "Qwen/Qwen2.5-VL-3B-Instruct"}"#);
        place.write("model/adapter_model.safetensors", "");
    }))
    .names("adapter")
    .names("Qwen/Qwen2.5-VL-3B-Instruct");
    let place = Place::new();
    place.refuse(&ask("model/model.safetensors")).names("model/model.safetensors").suggests("model");
    place.refuse(&ask("Qwen/Qwen2.5-VL-3B-Instruct")).suggests("hf download Qwen/Qwen2.5-VL-3B-Instruct");
}

#[test]
fn of_two_forms_of_weights_the_single_file_is_read_and_said() {
    let place = Place::new();
    let (expected, _) = answer(&place, "model");
    let map = json!({ "a": "model-00001-of-00001.safetensors" });
    place.write("model/model.safetensors.index.json", json!({ "weight_map": map }).to_string());
    assert_eq!(answer(&place, "model").0, expected);
    place.write("recipe.toml", place.recipe());
    place.conversations("sft.json", 2, |_, _| ());
    let notes = train(&place, "model");
    assert!(matches!(notes.as_slice(), [one] if mentions(one, "model.safetensors.index.json")), "{notes:?}");
}

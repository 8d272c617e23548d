//! Adapters of PEFT beside their base: merged, they are W + s·B·A in plain loops; trained on, they come back as they
//! were; and what does not fit is refused by name.

use std::{collections::BTreeMap, path::Path};

use burn::tensor::Device;
use fieldmark::model::{
    Adapter, LoadOptions, LoraSettings, ModelError, Quantize, Qwen25Vl, SaveOptions, TrainableParts, WeightType,
};
use fieldmark_tests::{
    peft::{Entry, entry, layers, merged, write},
    prompts::{MODELS, fixture, load},
    training::{formats, parameters},
};
use safetensors::SafeTensors;
use serde_json::{Value, json};

/// The tensors of a model as a checkpoint has them.
type Stored = BTreeMap<String, Vec<f32>>;

fn stored(model: &Qwen25Vl) -> Stored {
    let folder = tempfile::tempdir().unwrap();
    model.save_pretrained(folder.path(), SaveOptions::default()).unwrap();
    let bytes = std::fs::read(folder.path().join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let floats = |bytes: &[u8]| bytes.as_chunks().0.iter().map(|&b: &[u8; 4]| f32::from_le_bytes(b)).collect();
    tensors.tensors().into_iter().map(|(name, view)| (name, floats(view.data()))).collect()
}

/// Opens an adapter that chooses exactly its own layers, unless its configuration says otherwise.
fn open(config: &Value, entries: &[Entry]) -> Result<(tempfile::TempDir, Adapter), ModelError> {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config.clone();
    config.as_object_mut().unwrap().entry("target_modules").or_insert_with(|| layers(entries).into());
    write(folder.path(), &config, entries);
    let adapter = Adapter::open(folder.path())?;
    Ok((folder, adapter))
}

fn merge(name: &str, config: &Value, entries: &[Entry]) -> Result<Qwen25Vl, ModelError> {
    let (_folder, adapter) = open(config, entries)?;
    // As a run loads it that trains the weights.
    load(name, &Device::flex().autodiff()).with_merged_adapter(&adapter)
}

fn config(change: Value) -> Value {
    let mut config = json!({ "peft_type": "LORA", "r": 2, "lora_alpha": 3 });
    config.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    config
}

/// The factors of a layer, `name.lora_A.weight` and `name.lora_B.weight`.
fn pair(name: &str, rank: usize, [to, from]: [usize; 2]) -> [Entry; 2] {
    [entry(&format!("{name}.lora_A.weight"), &[rank, from]), entry(&format!("{name}.lora_B.weight"), &[to, rank])]
}

/// The tensors of a model in which these differ from another's.
fn assert_changes(found: &Stored, base: &Stored, changes: &[(&str, Vec<f32>)]) {
    let changes: BTreeMap<&str, &Vec<f32>> = changes.iter().map(|(name, values)| (*name, values)).collect();
    assert!(changes.keys().all(|name| found.contains_key(*name)), "{:?}", changes.keys());
    for (name, values) in found {
        let Some(expected) = changes.get(name.as_str()) else {
            assert!(base[name] == *values, "{name} changed");
            continue;
        };
        assert_eq!(values.len(), expected.len(), "{name}");
        let error = values.iter().zip(*expected).fold(0f32, |most, (x, y)| most.max((x - y).abs()));
        assert!(error < 2e-6, "{name}: {error}");
        assert!(base.get(name).is_none_or(|before| before != values), "{name} did not change");
    }
}

const Q: &str = "model.layers.1.self_attn.q_proj";
const UP: &str = "model.layers.0.mlp.up_proj";
const QKV: &str = "visual.blocks.2.attn.qkv";
const LAST: &str = "visual.merger.mlp.2";

#[test]
fn a_merged_adapter_is_the_closed_form_under_every_layout_of_keys() {
    let base = stored(&load(MODELS[0], &Device::flex()));
    let layers = [(Q, [64, 64]), (UP, [96, 64]), (QKV, [192, 64]), (LAST, [64, 256])];
    let newer = |name: &str| match name.split_once('.') {
        Some(("model", rest)) => format!("model.language_model.{rest}"),
        _ => format!("model.{name}"),
    };
    for (rslora, scale) in [(false, 1.5), (true, 3.0 / 2f64.sqrt())] {
        for default in [false, true] {
            for new in [false, true] {
                let mut entries = Vec::new();
                let mut changes = Vec::new();
                for (name, size) in layers {
                    let own = if new { newer(name) } else { name.to_owned() };
                    let mut pair = pair(&own, 2, size);
                    let weight = format!("{name}.weight");
                    changes.push((weight.clone(), merged(&base[&weight], &pair[1].2, &pair[0].2, 2, scale)));
                    if default {
                        pair.iter_mut().for_each(|entry| entry.0 = entry.0.replace(".weight", ".default.weight"));
                    }
                    entries.extend(pair);
                }
                let changes: Vec<_> = changes.iter().map(|(name, values)| (name.as_str(), values.clone())).collect();
                let found = merge(MODELS[0], &config(json!({ "use_rslora": rslora })), &entries).unwrap();
                assert_changes(&stored(&found), &base, &changes);
            }
        }
    }
}

#[test]
fn ranks_and_alphas_of_single_layers_count() {
    let base = stored(&load(MODELS[0], &Device::flex()));
    let config = config(json!({
        // The first that matches counts.
        "rank_pattern": { "^model.layers.1.*q_proj": 3, "q_proj": 5, "qkv": 1 },
        "alpha_pattern": { "layers.0.mlp.up_proj": 8 },
    }));
    let entries = [pair(Q, 3, [64, 64]), pair(UP, 2, [96, 64]), pair(QKV, 1, [192, 64])];
    let sizes = [(Q, 3, 1.0), (UP, 2, 4.0), (QKV, 1, 3.0)];
    let names: Vec<String> = sizes.iter().map(|(name, ..)| format!("{name}.weight")).collect();
    let changes: Vec<_> = sizes
        .iter()
        .zip(&entries)
        .zip(&names)
        .map(|(((_, rank, scale), [a, b]), name)| (name.as_str(), merged(&base[name], &b.2, &a.2, *rank, *scale)))
        .collect();
    let found = merge(MODELS[0], &config, &entries.concat()).unwrap();
    assert_changes(&stored(&found), &base, &changes);
}

#[test]
fn a_16_bit_base_is_merged_in_f32_and_rounded_once() {
    let options = LoadOptions { dtype: Some(WeightType::Bf16), ..LoadOptions::default() };
    let device = Device::flex();
    let base = Qwen25Vl::from_pretrained(&fixture(MODELS[0]), options, &device).unwrap();
    let before = stored(&base);
    // Small: in bf16 much of it would be lost.
    let mut pair = pair(Q, 2, [64, 64]);
    pair[1].2.iter_mut().for_each(|x| *x *= 1e-3);
    let (_folder, adapter) = open(&config(json!({})), &pair).unwrap();
    let found = base.with_merged_adapter(&adapter).unwrap();
    assert!(formats(&found).iter().all(|(_, format)| *format == burn::tensor::DType::BF16));
    let name = format!("{Q}.weight");
    let exact = merged(&before[&name], &pair[1].2, &pair[0].2, 2, 1.5);
    let round = |x: &f32| half::bf16::from_f32(*x).to_f32();
    let found = &stored(&found)[&name];
    let other = found.iter().zip(exact.iter().map(round)).filter(|(x, y)| *x != y).count();
    assert!(other <= 2 && found != &before[&name], "{other} of {} are rounded otherwise", found.len());
}

#[test]
fn all_that_peft_can_store_beside_the_factors_is_read() {
    let base = stored(&load(MODELS[1], &Device::flex()));
    let (q, patch) = ("model.layers.1.self_attn.q_proj", "visual.patch_embed.proj");
    let name = |name: &str| format!("{name}.weight");
    // DoRA: each row of the sum gets the length that the magnitude says.
    let [a, b] = pair(q, 2, [64, 64]);
    let magnitude = entry(&format!("{q}.lora_magnitude_vector"), &[64]);
    let sum = merged(&base[&name(q)], &b.2, &a.2, 2, 1.5);
    let dora = sum.chunks(64).zip(&magnitude.2).flat_map(|(row, m)| {
        let length = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        row.iter().map(move |x| (f64::from(*x) * f64::from(*m) / length) as f32)
    });
    let dora: Vec<f32> = dora.collect();
    let entries = [a.clone(), b.clone(), magnitude];
    let found = merge(MODELS[1], &config(json!({ "use_dora": true })), &entries).unwrap();
    assert_changes(&stored(&found), &base, &[(&name(q), dora)]);

    // The bias of B, a trained bias, and whole modules.
    let bias = entry(&format!("{q}.lora_B.bias"), &[64]);
    let own = entry("model.layers.0.self_attn.k_proj.bias", &[16]);
    let norm = entry("model.norm.weight", &[64]);
    let head = entry("lm_head.modules_to_save.default.weight", &[320, 64]);
    let kept = json!({ "lora_bias": true, "bias": "all", "modules_to_save": ["model.norm", "lm_head"] });
    let sums: Vec<f32> = base[&format!("{q}.bias")].iter().zip(&bias.2).map(|(x, y)| x + 1.5 * y).collect();
    let entries = [a.clone(), b.clone(), bias, own.clone(), norm.clone(), head.clone()];
    let found = merge(MODELS[1], &config(kept), &entries).unwrap();
    let changes = [
        (name(q), sum.clone()),
        (format!("{q}.bias"), sums),
        ("model.layers.0.self_attn.k_proj.bias".into(), own.2),
        ("model.norm.weight".into(), norm.2),
        ("lm_head.weight".into(), head.2),
    ];
    let changes: Vec<_> = changes.iter().map(|(name, values)| (name.as_str(), values.clone())).collect();
    assert_changes(&stored(&found), &base, &changes);

    // A convolution, with its kernel in A.
    let a = entry(&format!("{patch}.lora_A.weight"), &[2, 3, 2, 14, 14]);
    let b = entry(&format!("{patch}.lora_B.weight"), &[32, 2, 1, 1, 1]);
    let expected = merged(&base[&name(patch)], &b.2, &a.2, 2, 1.5);
    let found = merge(MODELS[1], &config(json!({})), &[a, b]).unwrap();
    assert_changes(&stored(&found), &base, &[(&name(patch), expected)]);
}

#[test]
fn embeddings_have_adapters_and_rows_of_their_own() {
    let embed = "model.embed_tokens";
    let weight = "model.embed_tokens.weight";
    let a = entry(&format!("{embed}.lora_embedding_A"), &[2, 320]);
    let b = entry(&format!("{embed}.lora_embedding_B"), &[64, 2]);
    // (B·A)ᵀ is added.
    let turned = |x: &[f32], rows: usize| {
        let columns = x.len() / rows;
        (0..columns).flat_map(|c| (0..rows).map(move |r| (r, c))).map(|(r, c)| x[r * columns + c]).collect::<Vec<_>>()
    };
    for (name, tied) in [(MODELS[1], false), (MODELS[0], true)] {
        let base = stored(&load(name, &Device::flex()));
        assert_eq!(base.contains_key("lm_head.weight"), !tied);
        let sum = merged(&base[weight], &turned(&a.2, 2), &turned(&b.2, 64), 2, 1.5);
        let chosen = json!({ "target_modules": ["embed_tokens"] });
        let found = merge(name, &config(chosen.clone()), &[a.clone(), b.clone()]).unwrap();
        let mut changes = vec![(weight, sum.clone())];
        // The head of PEFT's model stays as it was: the two are no longer one.
        changes.extend(tied.then(|| ("lm_head.weight", base[weight].clone())));
        assert_changes(&stored(&found), &base, &changes);
        let reloaded = tempfile::tempdir().unwrap();
        found.save_pretrained(reloaded.path(), SaveOptions::default()).unwrap();
        let again = Qwen25Vl::from_pretrained(reloaded.path(), LoadOptions::default(), &Device::flex()).unwrap();
        assert!(stored(&again) == stored(&found));

        // Single tokens; a tied head follows.
        let rows = entry(&format!("{embed}.token_adapter.trainable_tokens_delta"), &[2, 64]);
        let mut replaced = base[weight].clone();
        replaced[7 * 64..8 * 64].copy_from_slice(&rows.2[64..]);
        replaced[319 * 64..].copy_from_slice(&rows.2[..64]);
        let chosen = json!({ "trainable_token_indices": [319, 7] });
        let found = merge(name, &config(chosen), &[rows]).unwrap();
        assert_changes(&stored(&found), &base, &[(weight, replaced)]);
    }
    // The head alone, and both with the same values.
    let base = stored(&load(MODELS[0], &Device::flex()));
    let [a, b] = pair("lm_head", 2, [320, 64]);
    let sum = merged(&base[weight], &b.2, &a.2, 2, 1.5);
    let found = merge(MODELS[0], &config(json!({ "target_modules": ["lm_head"] })), &[a, b]).unwrap();
    assert_changes(&stored(&found), &base, &[("lm_head.weight", sum)]);
    let whole = entry("model.embed_tokens.weight", &[320, 64]);
    let head = (whole.0.replace("model.embed_tokens.weight", "lm_head.weight"), whole.1.clone(), whole.2.clone());
    let saved = config(json!({ "modules_to_save": ["embed_tokens", "lm_head"] }));
    let found = merge(MODELS[0], &saved, &[whole.clone(), head]).unwrap();
    assert_changes(&stored(&found), &base, &[(weight, whole.2)]);
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let refused = |change: Value, entries: &[Entry]| match merge(MODELS[0], &config(change), entries) {
        Err(ModelError::AdapterTensor { path, name, reason }) => {
            assert!(path.ends_with("adapter_model.safetensors"));
            (name, reason)
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("accepted"),
    };
    let [a, b] = pair(Q, 2, [64, 64]);
    let both = [a.clone(), b.clone()];
    let with = |key: &str, shape: &[usize]| {
        let mut entries = both.to_vec();
        entries.push(entry(key, shape));
        entries
    };
    // Keys that are left over.
    for (key, shape) in [
        ("model.layers.1.self_attn.q_proj.lora_diag", &[2][..]),
        ("model.layers.1.self_attn.q_proj.lora_E.default", &[2]),
        ("model.layers.9.self_attn.q_proj.lora_A.weight", &[2, 64]),
        ("model.layers.0.mlp.experts.0.up_proj.lora_A.weight", &[2, 64]),
        ("model.norm.lora_A.weight", &[2, 64]),
        ("score.weight", &[2, 64]),
        ("model.layers.1.self_attn.q_proj.lora_magnitude_vector", &[64]),
        ("model.layers.1.self_attn.q_proj.lora_B.bias", &[64]),
        ("model.embed_tokens.token_adapter.trainable_tokens_delta", &[1, 64]),
        ("model.embed_tokens.lora_A.weight", &[2, 64]),
    ] {
        let (name, _) = refused(json!({}), &with(key, shape));
        assert_eq!(name, format!("base_model.model.{key}"));
    }
    // A factor without its partner.
    let (name, reason) = refused(json!({}), std::slice::from_ref(&a));
    assert!(name == a.0 && reason.contains(&b.0), "{reason}");
    let (name, reason) = refused(json!({}), std::slice::from_ref(&b));
    assert!(name == b.0 && reason.contains(&a.0), "{reason}");
    // Shapes: of the rank and of the base.
    for (entries, wrong, [found, expected]) in [
        (pair(Q, 3, [64, 64]), 0, ["[3, 64]", "[2, 64]"]),
        (pair(Q, 2, [64, 32]), 0, ["[2, 32]", "[2, 64]"]),
        (pair(Q, 2, [48, 64]), 1, ["[48, 2]", "[64, 2]"]),
    ] {
        let (name, reason) = refused(json!({}), &entries);
        assert!(name == entries[wrong].0 && reason.contains(found) && reason.contains(expected), "{name} {reason}");
    }
    let (name, reason) = refused(json!({}), &with("model.norm.weight", &[63]));
    assert!(name.ends_with("norm.weight") && reason.contains("[63]") && reason.contains("[64]"), "{reason}");
    // Layers that the configuration does not choose.
    for change in [
        json!({ "target_modules": ["v_proj"] }),
        json!({ "target_modules": "q_proj" }),
        json!({ "exclude_modules": ["q_proj"] }),
        json!({ "target_modules": ["q_proj"], "layers_to_transform": [0] }),
    ] {
        assert_eq!(refused(change, &both).0, a.0);
    }
    // Parts that the configuration needs.
    assert_eq!(refused(json!({ "use_dora": true }), &both).0, a.0);
    assert_eq!(refused(json!({ "lora_bias": true }), &both).0, b.0);
    // `o_proj` has no bias.
    let o = "model.layers.0.self_attn.o_proj";
    let bias = entry(&format!("{o}.lora_B.bias"), &[64]);
    let [oa, ob] = pair(o, 2, [64, 64]);
    assert_eq!(refused(json!({ "lora_bias": true }), &[oa, ob, bias.clone()]).0, bias.0);
    for (change, key) in [
        (json!({ "modules_to_save": ["embed_tokens"] }), "modules_to_save"),
        (json!({ "trainable_token_indices": [3] }), "trainable_token_indices"),
    ] {
        match merge(MODELS[0], &config(change), &both) {
            Err(ModelError::AdapterSetting { key: found, .. }) => assert_eq!(found, key),
            other => panic!("{:?}", other.map(drop)),
        }
    }
    // A value that is not finite, and the same tensor twice.
    let mut broken = both.clone();
    broken[0].2[5] = f32::NAN;
    let error = merge(MODELS[0], &config(json!({})), &broken).map(drop).unwrap_err();
    assert!(matches!(&error, ModelError::NotFinite { name, index: 5, .. } if *name == a.0), "{error}");
    let mut twice = both.to_vec();
    twice.push(entry("model.language_model.layers.1.self_attn.q_proj.lora_A.default.weight", &[2, 64]));
    let error = merge(MODELS[0], &config(json!({})), &twice).map(drop).unwrap_err();
    assert!(matches!(&error, ModelError::DuplicateTensor { .. }), "{error}");
}

#[test]
fn a_chosen_layer_without_factors_is_named_with_the_count() {
    let layers = load(MODELS[0], &Device::flex()).config().text.num_hidden_layers;
    let name = |layer: usize| format!("model.layers.{layer}.self_attn.q_proj");
    let all: Vec<Entry> = (0..layers).flat_map(|layer| pair(&name(layer), 2, [64, 64])).collect();
    let chosen = config(json!({ "target_modules": ["q_proj"] }));
    merge(MODELS[0], &chosen, &all).map(drop).unwrap();
    let cut = &all[2..all.len() - 2];
    let (folder, adapter) = open(&chosen, cut).unwrap();
    let merged = load(MODELS[0], &Device::flex()).with_merged_adapter(&adapter);
    let attached = load(MODELS[0], &Device::flex()).with_adapter(&adapter);
    for result in [merged, attached] {
        match result.map(drop) {
            Err(ModelError::Refused { path, problem }) => {
                assert_eq!(path, folder.path().join("adapter_model.safetensors"));
                assert!(problem.starts_with("4 ") && problem.contains("target_modules"), "{problem}");
                assert!(problem.contains(&format!("`base_model.model.{}.lora_A.weight`", name(0))), "{problem}");
            }
            other => panic!("{other:?}"),
        }
    }
    // Fewer blocks, fewer layers.
    let some = json!({ "target_modules": ["q_proj"], "layers_to_transform": (1..layers - 1).collect::<Vec<_>>() });
    merge(MODELS[0], &config(some), cut).map(drop).unwrap();
    assert!(merge(MODELS[0], &config(json!({ "target_modules": "all-linear" })), &all).is_err());
}

fn read(folder: &Path) -> Adapter {
    Adapter::open(folder).unwrap()
}

#[test]
fn training_goes_on_with_an_adapter_that_has_ranks_of_its_own() {
    let device = Device::flex();
    let change = json!({ "rank_pattern": { "qkv": 1, "up_proj": 4 }, "alpha_pattern": { "q_proj": 5, "qkv": 1 } });
    let entries = [pair(Q, 2, [64, 64]), pair(UP, 4, [96, 64]), pair(QKV, 1, [192, 64])].concat();
    let (folder, adapter) = open(&config(change), &entries).unwrap();
    let settings = LoraSettings { rank: 2, alpha: 3.0, ..LoraSettings::default() };
    let all = TrainableParts::default();
    let model = load(MODELS[0], &device).with_trained_adapter(&adapter, &settings, all).unwrap();
    let factors = |model: &Qwen25Vl| {
        parameters(model).into_iter().filter(|(path, _)| path.contains(".lora.")).collect::<Vec<_>>()
    };
    assert_eq!(factors(&model).len(), 6);
    // It computes what the merged one does.
    let merged = load(MODELS[0], &device).with_merged_adapter(&adapter).unwrap();
    assert_changes(&stored(&model.merged()), &stored(&merged), &[]);

    // What is saved is an adapter of the same base, and comes back exactly.
    let again = tempfile::tempdir().unwrap();
    model.save_adapter(again.path(), &settings, "base").unwrap();
    let saved = read(again.path());
    let reloaded = load(MODELS[0], &device).with_adapter(&saved).unwrap();
    assert!(factors(&reloaded) == factors(&model));
    assert!(stored(&reloaded.merged()) == stored(&model.merged()));
    let merged_again = load(MODELS[0], &device).with_merged_adapter(&saved).unwrap();
    assert!(stored(&merged_again) == stored(&merged));
    let written: Value =
        serde_json::from_slice(&std::fs::read(again.path().join("adapter_config.json")).unwrap()).unwrap();
    let patterns = |key: &str| written[key].as_object().unwrap().values().cloned().collect::<Vec<_>>();
    assert_eq!(patterns("rank_pattern"), [json!(1), json!(4)]);
    assert_eq!(patterns("alpha_pattern"), [json!(1), json!(5)]);

    // The weights under it are quantised, and no others.
    let quantised = LoraSettings { quantize: Quantize::Q8, ..settings.clone() };
    let quantised = load(MODELS[0], &device).with_trained_adapter(&adapter, &quantised, all).unwrap();
    let count =
        formats(&quantised).iter().filter(|(_, format)| matches!(format, burn::tensor::DType::QFloat(_))).count();
    assert_eq!(count, 3);
    assert!(factors(&quantised) == factors(&model));

    // Other settings, other targets and a part that does not learn are refused.
    let key = |settings: LoraSettings| match load(MODELS[0], &device).with_trained_adapter(&adapter, &settings, all) {
        Err(ModelError::AdapterSetting { key, path, .. }) => {
            assert_eq!(path, folder.path().join("adapter_config.json"));
            key
        }
        other => panic!("{:?}", other.map(drop)),
    };
    assert_eq!(key(LoraSettings { rank: 4, ..settings.clone() }), "r");
    assert_eq!(key(LoraSettings { alpha: 4.0, ..settings.clone() }), "lora_alpha");
    assert_eq!(key(LoraSettings { rslora: true, ..settings.clone() }), "use_rslora");
    let lora = |settings: LoraSettings, parts| match load(MODELS[0], &device)
        .with_trained_adapter(&adapter, &settings, parts)
    {
        Err(ModelError::Lora { reason }) => reason,
        other => panic!("{:?}", other.map(drop)),
    };
    let targets = |names: &[&str]| LoraSettings {
        targets: names.iter().map(|name| (*name).to_owned()).collect(),
        ..settings.clone()
    };
    assert!(lora(targets(&["q_proj", "up_proj", "qkv", "k_proj"]), all).contains("`k_proj`"));
    assert!(lora(targets(&["q_proj", "up_proj"]), all).contains(QKV));
    load(MODELS[0], &device).with_trained_adapter(&adapter, &targets(&["q_proj", "up_proj", "qkv"]), all).unwrap();
    let projector = TrainableParts { vision: false, projector: true, decoder: false };
    lora(settings.clone(), projector);
    // What is not a pair of factors is not trained.
    let extra = [entries, vec![entry("model.norm.weight", &[64])]].concat();
    let (_folder, adapter) = open(&config(json!({ "rank_pattern": { "qkv": 1, "up_proj": 4 } })), &extra).unwrap();
    match load(MODELS[0], &device).with_trained_adapter(&adapter, &settings, all) {
        Err(ModelError::AdapterTensor { name, .. }) => assert_eq!(name, "base_model.model.model.norm.weight"),
        other => panic!("{:?}", other.map(drop)),
    }
    for (name, value) in [
        ("use_dora", json!(true)),
        ("lora_bias", json!(true)),
        ("bias", json!("all")),
        ("modules_to_save", json!(["norm"])),
    ] {
        let (_folder, adapter) = open(&config(json!({ name: value })), &pair(Q, 2, [64, 64])).unwrap();
        match adapter.check_settings(&settings) {
            Err(ModelError::AdapterSetting { key, .. }) => assert_eq!(key, name),
            other => panic!("{other:?}"),
        }
    }
}

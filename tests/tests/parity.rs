//! Parity with the reference implementation: every tensor of every fixture folder, and folders that are damaged.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::Device;
use fieldmark::model::WeightType;
use fieldmark_parity::{Status, parity};
use safetensors::{Dtype, SafeTensors, serialize_to_file, tensor::TensorView};
use tempfile::TempDir;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// Everything in the folder is known and passes.
fn check(name: &str, tokenizer: Option<&Path>) {
    let report = parity(&folder(name), tokenizer, WeightType::F32, &Device::flex()).unwrap();
    assert!(report.passed() && report.count(Status::Unknown) == 0, "{report}");
    assert!(report.count(Status::Pass) > 0);
}

#[test]
fn qwen2_5_vl_with_a_tied_head() {
    check("qwen2_5_vl_tiny", None);
}

#[test]
fn qwen2_5_vl_with_its_own_head_and_both_key_layouts() {
    check("qwen2_5_vl_tiny_untied", None);
}

#[test]
fn weights_in_bf16_stay_near_the_reference_and_not_on_it() {
    for name in ["qwen2_5_vl_tiny", "qwen2_5_vl_tiny_untied"] {
        let report = parity(&folder(name), None, WeightType::Bf16, &Device::flex()).unwrap();
        assert!(report.passed() && report.count(Status::Unknown) == 0, "{report}");
        for tensor in ["batch.logits", "batch.vision.merged", "sft.grad.model.norm.weight", "sft.losses"] {
            let line = report.lines.iter().find(|line| line.name == tensor).unwrap();
            assert!(line.status == Status::Pass && line.max_abs > 1e-4, "{name}: {line:?}");
        }
        let tokens = report.lines.iter().find(|line| line.name == "gen.sequences").unwrap();
        assert_eq!(tokens.status, Status::Input, "{name}");
    }
}

#[test]
fn tapo_formulas() {
    check("tapo", None);
}

#[test]
fn image_processor() {
    check("image_processor", None);
}

#[test]
fn chat_template_with_a_gzipped_tokenizer() {
    check("chat_template", Some(&folder("tokenizer").join("tokenizer.json.gz")));
    let report = parity(&folder("chat_template"), None, WeightType::F32, &Device::flex()).unwrap();
    assert!(report.passed() && report.count(Status::Unknown) > 0, "{report}");
}

/// A tensor as stored: type, shape, little-endian bytes.
type Stored = (Dtype, Vec<usize>, Vec<u8>);
type Tensors = BTreeMap<String, Stored>;

/// A fixture folder, copied so that it can be damaged.
struct Copy(TempDir);

impl Copy {
    fn of(name: &str) -> Self {
        let copy = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(folder(name)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        Self(copy)
    }

    fn change(&self, file: &str, change: impl FnOnce(&mut Tensors)) {
        let path = self.0.path().join(file);
        let bytes = fs::read(&path).unwrap();
        let parsed = SafeTensors::deserialize(&bytes).unwrap();
        let stored = |(name, view): (&str, TensorView<'_>)| {
            (name.to_string(), (view.dtype(), view.shape().to_vec(), view.data().to_vec()))
        };
        let mut tensors: Tensors = parsed.iter().map(stored).collect();
        change(&mut tensors);
        let views = tensors
            .iter()
            .map(|(name, (dtype, shape, data))| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
        serialize_to_file(views, None, &path).unwrap();
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.0.path().join(file), text).unwrap();
    }

    fn refused(&self) -> String {
        parity(self.0.path(), None, WeightType::F32, &Device::flex()).unwrap_err().to_string()
    }
}

/// Keeps the first `len` numbers as one row.
fn short(stored: &mut Stored, len: usize) {
    let size = stored.2.len() / stored.1.iter().product::<usize>();
    stored.1 = vec![len];
    stored.2.truncate(len * size);
}

/// Sets an integer.
fn set(stored: &mut Stored, at: usize, value: i64) {
    assert_eq!(stored.0, Dtype::I64);
    stored.2[8 * at..8 * (at + 1)].copy_from_slice(&value.to_le_bytes());
}

#[test]
fn a_damaged_qwen_folder_is_refused_under_file_and_tensor() {
    type Damage = fn(&mut Stored);
    let cases: [(&str, Damage, &str); 17] = [
        ("batch.input_ids", |t| short(t, 5), "[5]"),
        ("batch.input_ids", |t| set(t, 3, 99_999), "99999"),
        ("batch.input_ids", |t| set(t, 3, -1), "-1"),
        ("batch.attention_mask", |t| short(t, 5), "[5]"),
        ("batch.attention_mask", |t| t.2.fill(0), "row 0"),
        ("images.grid_thw", |t| short(t, 2), "[2]"),
        ("images.grid_thw", |t| set(t, 1, -2), "-2"),
        ("images.grid_thw", |t| set(t, 1, 0), "1x0x"),
        ("images.grid_thw", |t| set(t, 0, 90), "100"),
        ("images.pixel_values", |t| t.1 = vec![200, 588], "[200, 588]"),
        ("one.pixel_rows", |t| short(t, 1), ""),
        ("batch.response_logp", |t| t.1 = vec![1, 14], "[1, 14]"),
        ("gen.step_logits", |t| t.1 = vec![2, 24 * 320], "[2, 7680]"),
        ("gen.sequences", |t| t.1 = vec![108], "[108]"),
        ("gen_penalty.value", |t| short(t, 0), "0"),
        ("sft.labels", |t| short(t, 37), "[37]"),
        ("sft.losses", |t| short(t, 0), "[0]"),
    ];
    for (name, damage, says) in cases {
        let copy = Copy::of("qwen2_5_vl_tiny");
        copy.change("expected.safetensors", |tensors| damage(tensors.get_mut(name).unwrap()));
        let error = copy.refused();
        assert!(error.contains("expected.safetensors: `") && error.contains(says), "{name}: {error}");
        assert!(error.contains(&format!("`{name}`")), "{name}: {error}");
    }
}

#[test]
fn missing_tensors_and_wrong_files_are_named() {
    for name in ["batch.attention_mask", "images.pixel_values", "gen.eos_token_ids", "gen_penalty.value", "sft.labels"]
    {
        let copy = Copy::of("qwen2_5_vl_tiny");
        copy.change("expected.safetensors", |tensors| drop(tensors.remove(name).unwrap()));
        let error = copy.refused();
        assert!(error.contains(&format!("expected.safetensors: `{name}`: ")), "{error}");
    }
    let copy = Copy::of("qwen2_5_vl_tiny");
    copy.write("key_layouts.json", "[");
    assert!(copy.refused().contains("key_layouts.json: "));
    copy.write("expected.safetensors", "cut off");
    assert!(copy.refused().contains("expected.safetensors"));
}

#[test]
fn damaged_formulas_images_and_chats_are_named() {
    type Damage = fn(&mut Stored);
    let cases: [(&str, Damage, &str); 7] = [
        ("logits", |t| t.1 = vec![24, 11], "[24, 11]"),
        ("neg_logits", |t| t.1 = vec![6, 4, 11], "[6, 4, 11]"),
        ("tokens", |t| set(t, 0, 11), "11"),
        ("mask", |t| t.2.fill(0), ""),
        ("k3.neg_logp", |t| short(t, 7), "[7]"),
        ("sampling.logits", |t| t.1 = vec![96], "[96]"),
        ("sampling.logits", |t| t.2.fill(0xff), "NaN"),
    ];
    for (name, damage, says) in cases {
        let copy = Copy::of("tapo");
        copy.change("expected.safetensors", |tensors| damage(tensors.get_mut(name).unwrap()));
        let error = copy.refused();
        let place = format!("expected.safetensors: `{name}`: ");
        assert!(error.contains(&place) && error.contains(says), "{name}: {error}");
    }
    let clips = "{\"temperature\": 1, \"clip_low\": 0.2, \"clip_high\": -3, \"clip_dual\": 3, \"gamma\": 0, \
                 \"eta1\": 0, \"eta2\": 0}";
    let nucleus = "[{\"temperature\": 1, \"top_k\": 0, \"top_p\": -1}]";
    let limits = "{\"pixel_values_setting\": [9, 1], \"images\": []}";
    let grid = "{\"image_grid_thw\": [1, 4000000000, 4000000000], \"cases\": []}";
    let placeholders = "{\"image_grid_thw\": [1, 4, 4], \"cases\": [{\"messages\": [{\"role\": \"user\", \"content\": \
                        \"<|image_pad|>\"}], \"add_generation_prompt\": true, \"rendered\": \"\", \"expanded\": \"\"}]}";
    for (name, file, text, says) in [
        ("tapo", "hyperparameters.json", clips, "clip_high"),
        ("tapo", "sampling.json", nucleus, "case 0: "),
        ("tapo", "advantages.json", "[{}]", "`rewards`"),
        ("image_processor", "sizes.json", limits, "pixel_values_setting: "),
        ("image_processor", "smart_resize.json", "[", "EOF"),
        ("chat_template", "cases.json", grid, "image_grid_thw: "),
        ("chat_template", "cases.json", placeholders, "case 0: "),
    ] {
        let copy = Copy::of(name);
        copy.write(file, text);
        let error = copy.refused();
        assert!(error.contains(&format!("{file}: ")) && error.contains(says), "{file}: {error}");
    }
}

#[test]
fn every_parameter_of_the_other_layout_is_compared() {
    let copy = Copy::of("qwen2_5_vl_tiny_untied");
    // The head stays as it is.
    copy.change("model.new_layout.safetensors", |tensors| {
        let (_, stored) = tensors.iter_mut().find(|(name, _)| name.ends_with("layers.0.mlp.up_proj.weight")).unwrap();
        assert_eq!(stored.0, Dtype::F32);
        stored.2[..4].copy_from_slice(&0.125f32.to_le_bytes());
    });
    let report = parity(copy.0.path(), None, WeightType::F32, &Device::flex()).unwrap();
    let line = report.lines.iter().find(|line| line.name == "model.new_layout.safetensors").unwrap();
    assert!(line.status == Status::Fail && line.note.contains("layers.0.mlp.up_proj.weight"), "{line:?}");
    assert_eq!(report.count(Status::Fail), 1, "{report}");
}

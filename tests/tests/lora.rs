//! Adapters: they begin as nothing, their gradients are those of the matrix they stand for, merged they compute the
//! same, they come back from PEFT's files, and nothing but them learns.

use burn::{
    module::Module,
    tensor::{DType, Device, Tensor, TensorData},
};
use fieldmark::{
    model::{
        Adapter, LoadOptions, LoraSettings, ModelError, ModelPart, Padding, Projection, Quantize, Qwen25Vl,
        SaveOptions, TrainableParts,
    },
    processor::{SupervisedSequence, collate},
    stream::StreamKey,
    train::{
        gradient::{LossNorm, MicroBatch, Scorer},
        optim::{LrSchedule, LrShape},
        parallel::Replicas,
        params::{initialise_adapters, trainable},
        sft::{SftConfig, sft_gradients, train_sft},
    },
};
use fieldmark_tests::{
    prompts::{MODELS, Part as Piece, distance, load, sequence, values},
    training::{Named, Rows, formats, gradients, parameters, relative},
};
use safetensors::SafeTensors;
use serde_json::Value;

const PAD: u32 = 0;

fn device() -> Device {
    Device::flex().autodiff()
}

fn settings() -> LoraSettings {
    LoraSettings { rank: 3, alpha: 6.0, ..LoraSettings::default() }
}

#[test]
fn a_rank_beyond_every_layer_is_refused_before_it_takes_memory() {
    for rank in [1 << 17, usize::MAX] {
        let settings = LoraSettings { rank, ..settings() };
        let refused = load(MODELS[0], &device()).with_lora(&settings, TrainableParts::default());
        let Err(ModelError::Lora { reason }) = refused else { panic!("rank {rank}") };
        assert!(reason.contains(&rank.to_string()), "{reason}");
    }
}

/// Adapters as training begins with them.
fn adapted(name: &str, settings: &LoraSettings) -> Qwen25Vl {
    let model = load(name, &device()).with_lora(settings, TrainableParts::default()).unwrap();
    initialise_adapters(model, &StreamKey::new(5))
}

fn samples(model: &Qwen25Vl) -> Vec<SupervisedSequence> {
    let make = |(seed, h, w)| {
        let pieces = [Piece::Text(vec![9, 10]), Piece::Image { h, w, seed }, Piece::Text((20..27).collect())];
        let sequence = sequence(&pieces, model.config());
        let target_mask = (0..sequence.ids.len()).map(|place| place + 5 >= sequence.ids.len()).collect();
        SupervisedSequence { sequence, target_mask }
    };
    [(1, 4, 4), (2, 4, 6)].map(make).to_vec()
}

/// Hidden states of the samples, without a tape.
fn hidden(model: &Qwen25Vl) -> Vec<f32> {
    let device = Device::flex();
    let sequences: Vec<_> = samples(model).into_iter().map(|sample| sample.sequence).collect();
    let inputs = collate(&sequences, Padding::Right, PAD, None, model.config(), &device).unwrap();
    values(model.valid().forward(&inputs))
}

fn grads(model: &Qwen25Vl) -> Named {
    let micro = [MicroBatch::new(samples(model), PAD).unwrap()];
    let found =
        sft_gradients(model, &Scorer::new(7, 1.0, PAD).unwrap(), &micro, LossNorm::Batch, &Replicas::new(1, &device()));
    gradients(model, &found.unwrap().grads)
}

/// A few updates with a rate that moves B well away from zero.
fn trained(model: Qwen25Vl, train: TrainableParts) -> Qwen25Vl {
    let schedule = LrSchedule { lr: 1e-2, shape: LrShape::Constant, warmup: 0, released: false };
    let config = SftConfig { epochs: 3, batch: 1, micro_batch: 1, schedule, train, ..SftConfig::default() };
    let rows = Rows(samples(&model));
    train_sft(model, &rows, &config, PAD, &StreamKey::new(1), &device(), |_, _| Ok(())).unwrap()
}

fn all() -> TrainableParts {
    TrainableParts::default()
}

#[test]
fn new_adapters_change_nothing() {
    for name in MODELS {
        let (base, model) = (load(name, &device()), adapted(name, &settings()));
        assert!(model.has_lora() && !base.has_lora());
        assert!(hidden(&model) == hidden(&base), "{name}");
        let a = parameters(&model).into_iter().filter(|(path, _)| path.ends_with("lora.a"));
        for (path, values) in a {
            // Uniform within 1/sqrt(in).
            let bound = (values.len() as f32 / 3.0).powf(-0.5);
            let most = values.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
            assert!(most <= bound && most > 0.9 * bound, "{path}: {most} of {bound}");
        }
    }
    let off = LoraSettings { rank: 0, ..settings() };
    assert!(!load(MODELS[0], &device()).with_lora(&off, all()).unwrap().has_lora());
}

/// dA = s·dW·Bᵀ and dB = s·Aᵀ·dW, where dW is the gradient of the merged matrix.
#[test]
fn gradients_are_those_of_the_matrix_that_an_adapter_stands_for() {
    for (name, rslora) in [(MODELS[0], false), (MODELS[1], true)] {
        let settings = LoraSettings { rslora, ..settings() };
        let scale = if rslora { 6.0 / 3f64.sqrt() } else { 2.0 };
        assert!((settings.scale() - scale).abs() < 1e-12);
        let model = trained(adapted(name, &settings), all());
        let folder = tempfile::tempdir().unwrap();
        model.save_pretrained(folder.path(), SaveOptions::default()).unwrap();
        let whole = Qwen25Vl::from_pretrained(folder.path(), LoadOptions::default(), &device()).unwrap();
        let (found, by_matrix) = (grads(&model.clone().with_trainable(all())), grads(&whole));
        let numbers = parameters(&model);
        let shapes = model.named_parameters();
        let tensor = |values: &[f32], shape: &[usize]| -> Tensor<2> {
            Tensor::from_data(TensorData::new(values.to_vec(), [shape[0], shape[1]]), &Device::flex())
        };
        let matrix = |list: &Named, i: usize| tensor(&list[i].1, &shapes[i].shape);
        let (mut found_pairs, mut expected_pairs) = (Named::new(), Named::new());
        for i in 0..found.len() {
            let Some(layer) = found[i].0.strip_suffix(".lora.a") else { continue };
            let weight = format!("{layer}.weight");
            let dw = by_matrix.iter().find(|(path, _)| *path == weight).unwrap();
            let (a, b) = (matrix(&numbers, i), matrix(&numbers, i + 1));
            assert!(values(b.clone()).iter().any(|x| x.abs() > 1e-3), "{layer}");
            let dw = tensor(&dw.1, &[a.dims()[0], b.dims()[1]]) * scale;
            expected_pairs.push((found[i].0.clone(), values(dw.clone().matmul(b.transpose()))));
            expected_pairs.push((found[i + 1].0.clone(), values(a.transpose().matmul(dw))));
            found_pairs.extend([found[i].clone(), found[i + 1].clone()]);
        }
        assert_eq!(found_pairs.len(), 2 * (4 * 5 + 2 + model.config().text.num_hidden_layers * 7));
        let error = relative(&found_pairs, &expected_pairs);
        assert!(error < 1e-4, "{name}: {error}");
        // The matrices themselves and everything else have none.
        for (path, grad) in found.iter().filter(|(path, _)| !path.contains(".lora.")) {
            assert!(grad.iter().all(|&x| x == 0.0), "{path}");
        }
    }
}

#[test]
fn only_adapters_of_the_parts_that_learn_move() {
    let base = load(MODELS[1], &device());
    let named = [
        (ModelPart::Vision, "visual.blocks"),
        (ModelPart::Projector, "visual.merger"),
        (ModelPart::Decoder, "model.layers"),
    ];
    for (part, place) in named {
        let train = TrainableParts {
            vision: part == ModelPart::Vision,
            projector: part == ModelPart::Projector,
            decoder: part == ModelPart::Decoder,
        };
        let model = initialise_adapters(base.clone().with_lora(&settings(), train).unwrap(), &StreamKey::new(5));
        let before = parameters(&model);
        let after = parameters(&trained(model.clone(), train));
        assert!(before.iter().any(|(path, _)| path.contains(".lora.")));
        for ((path, before), (_, after)) in before.iter().zip(&after) {
            let adapter = path.contains(".lora.");
            assert!(!adapter || path.starts_with(place), "{path}");
            assert_eq!(before != after, adapter, "{path}");
        }
        let table = trainable(&model.with_trainable(train));
        for kind in table {
            assert_eq!(kind.learning, if kind.adapters { kind.parameters } else { 0 }, "{kind:?}");
            assert!(!kind.adapters || kind.part == part);
        }
    }
}

#[test]
fn merged_adapters_compute_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for name in MODELS {
        let base = hidden(&load(name, &device()));
        let model = trained(adapted(name, &settings()), all());
        let expected = hidden(&model);
        assert!(distance(&expected, &base) > 0.1);
        let most = expected.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
        let merged = model.merged();
        assert!(!merged.has_lora());
        assert!(distance(&hidden(&merged), &expected) < 1e-5 * most, "{name}");
        model.save_pretrained(folder.path(), SaveOptions::default()).unwrap();
        let read = load_folder(folder.path());
        assert!(hidden(&read) == hidden(&merged), "{name}");
    }
}

fn load_folder(folder: &std::path::Path) -> Qwen25Vl {
    Qwen25Vl::from_pretrained(folder, LoadOptions::default(), &device()).unwrap()
}

#[test]
fn adapters_come_back_from_pefts_files() {
    let folder = tempfile::tempdir().unwrap();
    let targets = ["q_proj", "down_proj", "qkv", "mlp.2"].map(str::to_owned).to_vec();
    let settings = LoraSettings { targets, alpha: 4.5, rslora: true, ..settings() };
    let model = trained(adapted(MODELS[0], &settings), all());
    model.save_adapter(folder.path(), &settings, "base").unwrap();

    let bytes = std::fs::read(folder.path().join("adapter_model.safetensors")).unwrap();
    let stored = SafeTensors::deserialize(&bytes).unwrap();
    let shape = |name: &str| stored.tensor(&format!("base_model.model.{name}.weight")).unwrap().shape().to_vec();
    assert_eq!(shape("model.language_model.layers.2.self_attn.q_proj.lora_A"), [3, 64]);
    assert_eq!(shape("model.language_model.layers.0.mlp.down_proj.lora_A"), [3, 96]);
    assert_eq!(shape("model.language_model.layers.0.mlp.down_proj.lora_B"), [64, 3]);
    assert_eq!(shape("model.visual.blocks.3.attn.qkv.lora_B"), [192, 3]);
    assert_eq!(shape("model.visual.blocks.0.mlp.down_proj.lora_A"), [3, 84]);
    assert_eq!(shape("model.visual.merger.mlp.2.lora_A"), [3, 256]);
    assert_eq!(stored.len(), 2 * (3 * 2 + 4 * 2 + 1));
    let config: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!((&config["r"], &config["lora_alpha"], &config["use_rslora"]), (&3.into(), &4.5.into(), &true.into()));
    assert_eq!(
        config["target_modules"],
        r"model\.visual\.blocks\.\d+\.\w+\.(down_proj|qkv)|model\.visual\.merger\.(mlp\.2)|model\.language_model\.layers\.\d+\.\w+\.(down_proj|q_proj)"
    );

    let again = load(MODELS[0], &device()).with_adapter(&Adapter::open(folder.path()).unwrap()).unwrap();
    assert!(parameters(&again) == parameters(&model) && hidden(&again) == hidden(&model));
    // In place of other adapters too.
    let other = initialise_adapters(adapted(MODELS[0], &settings), &StreamKey::new(9));
    assert!(parameters(&other.with_adapter(&Adapter::open(folder.path()).unwrap()).unwrap()) == parameters(&model));
    // Layers with adapters that the folder does not have, another model, and a kind that is not read.
    let more = adapted(MODELS[0], &LoraSettings { targets: Vec::new(), ..settings.clone() });
    let error = more.with_adapter(&Adapter::open(folder.path()).unwrap()).unwrap_err().to_string();
    assert!(error.contains("attn.proj.lora_A.weight"), "{error}");
    let mut shorter = load(MODELS[0], &device()).config().clone();
    shorter.text.num_hidden_layers = 2;
    let error = shorter.init(&device()).with_adapter(&Adapter::open(folder.path()).unwrap()).unwrap_err().to_string();
    assert!(error.contains("layers.2"), "{error}");
    let path = folder.path().join("adapter_config.json");
    std::fs::write(&path, config.to_string().replace("\"bias\":\"none\"", "\"bias\":\"all\"")).unwrap();
    let error =
        load(MODELS[0], &device()).with_adapter(&Adapter::open(folder.path()).unwrap()).unwrap_err().to_string();
    assert!(error.contains("`bias` = \"all\""), "{error}");
}

#[test]
fn quantised_weights_compute_as_their_dense_form_and_only_adapters_learn() {
    let base = hidden(&load(MODELS[1], &device()));
    let mut errors = Vec::new();
    for quantize in [Quantize::Q8, Quantize::Q4] {
        let settings = LoraSettings { quantize, ..settings() };
        let model = adapted(MODELS[1], &settings);
        let quantised = formats(&model).into_iter().filter(|(_, format)| matches!(format, DType::QFloat(_))).count();
        assert_eq!(quantised, 4 * 5 + 2 + 7 * model.config().text.num_hidden_layers);
        let rounded = hidden(&model);
        let most = rounded.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
        errors.push(distance(&rounded, &base) / most);
        assert!(distance(&hidden(&model.merged()), &rounded) < 1e-5 * most);

        let after = trained(model.clone(), all());
        assert!(distance(&hidden(&after), &rounded) > 0.01);
        for ((path, before), (_, after)) in parameters(&model.merged()).iter().zip(&parameters(&after.merged())) {
            let adapts = path.ends_with("proj.weight") || path.contains("qkv.weight") || path.contains(".fc");
            assert!(before == after || adapts, "{path}");
        }
        let folder = tempfile::tempdir().unwrap();
        after.save_adapter(folder.path(), &settings, "base").unwrap();
        let again = adapted(MODELS[1], &settings).with_adapter(&Adapter::open(folder.path()).unwrap()).unwrap();
        assert!(hidden(&again) == hidden(&after));
    }
    assert!(errors[0] > 1e-5 && errors[0] < 0.05 && errors[1] > 3.0 * errors[0], "{errors:?}");
}

#[test]
fn quantised_weights_have_no_gradient() {
    let device = device();
    let layer = Projection::new(4, 2, true, &device).with_lora(1, 0.5);
    let layer = layer.quantized(&burn::tensor::quantization::QuantScheme::default());
    let x = Tensor::<2>::ones([3, 4], &device);
    let y = layer.forward(x.clone());
    assert_eq!((y.dims(), layer.widths(), layer.dtype()), ([3, 2], [4, 2], DType::F32));
    let grads = layer.forward(x.require_grad()).sum().backward();
    assert_eq!(burn::optim::GradientsParams::from_module(&mut { grads }, &layer).len(), 3);
}

#[test]
fn what_cannot_be_adapted_is_refused() {
    let refused = |settings: LoraSettings, train| match load(MODELS[0], &device())
        .with_lora(&settings, train)
        .map(|_| ())
        .unwrap_err()
    {
        ModelError::Lora { reason } => reason,
        other => panic!("{other}"),
    };
    let none = TrainableParts { vision: false, projector: false, decoder: false };
    let decoder = TrainableParts { decoder: true, ..none };
    let reason = refused(LoraSettings { alpha: 0.0, ..settings() }, all());
    assert!(reason.contains("alpha") && reason.contains('0'), "{reason}");
    refused(settings(), none);
    let reason = refused(LoraSettings { targets: vec!["qkv".into()], ..settings() }, decoder);
    for name in ["`qkv`", "down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"] {
        assert!(reason.contains(name), "{reason}");
    }
}

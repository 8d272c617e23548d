//! Chats answered by a [`ChatModel`] from a checkpoint folder are what a [`Generator`] called by hand answers.

use std::{fs, path::Path};

use burn::tensor::{Device, FloatDType};
use fieldmark_generate::{
    Chat, ChatModel, CheckpointGeneration, FinishReason, GenerateError, GenerationConfig, Generator, Reply, Request,
    Sampling,
};
use fieldmark_model::{LoadOptions, Qwen25Vl, WeightType};
use fieldmark_processor::{Message, Photo, ProcessOptions, Processor, SpecialTokens, train_tokenizer};
use fieldmark_stream::StreamKey;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The reference's tiny random model in a folder with a tokenizer, whose ids its configuration takes.
fn checkpoint() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/qwen2_5_vl_tiny");
    for file in ["model.safetensors", "preprocessor_config.json"] {
        fs::copy(fixture.join(file), folder.path().join(file)).unwrap();
    }
    let texts = ["<think>green</think> <answer>Lime</answer>", "Which fruit?", "You are a helpful assistant."];
    let tokenizer = train_tokenizer(texts, &[], 320).unwrap();
    fs::write(folder.path().join("tokenizer.json"), tokenizer.to_json().unwrap()).unwrap();
    let mut config: Value = serde_json::from_slice(&fs::read(fixture.join("config.json")).unwrap()).unwrap();
    let ids = tokenizer.vision_tokens();
    for (key, id) in [
        ("image_token_id", ids.image),
        ("video_token_id", ids.video),
        ("vision_start_token_id", ids.start),
        ("vision_end_token_id", ids.end),
    ] {
        config[key] = json!(id);
    }
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    folder
}

fn photo(name: &str, width: usize, shade: u8) -> Photo {
    let rgb = (0..70 * width).flat_map(|i| [(i % width * 2) as u8, (i / width * 3) as u8, shade]).collect();
    Photo::from_rgb(name, 70, width, rgb).unwrap()
}

/// Two chats: one with a system text and two photographs, one with a turn before and none.
fn chats() -> [Chat; 2] {
    let first = Chat::question("<image>Which fruit? Or <image>?", [photo("a", 60, 40), photo("b", 90, 200)]);
    let turns = [Message::user("Which fruit?"), Message::assistant("Lime"), Message::user("Which?")];
    [first.with_system("Answer."), Chat::new(turns, [])]
}

fn texts(replies: &[Reply]) -> Vec<&str> {
    replies.iter().map(|reply| reply.text.as_str()).collect()
}

#[test]
fn replies_are_those_of_a_generator_called_by_hand() {
    let (folder, device) = (checkpoint(), Device::flex());
    let mut chat_model = ChatModel::from_pretrained(&folder, &device).unwrap();
    chat_model.generation.max_new_tokens = 8;
    // One chat a batch, so that the index of a chat goes on from batch to batch.
    chat_model.generation.max_batch = 1;
    chat_model.generation.sampling = Sampling::nucleus(1.0, 0.99);
    chat_model.seed = 5;
    let mut pieces = [String::new(), String::new()];
    let replies = chat_model.generate_with(&chats(), |index, text| pieces[index].push_str(text)).unwrap();
    assert_eq!(pieces.each_ref(), texts(&replies)[..]);
    assert_eq!(chat_model.generate(&chats()).unwrap(), replies);

    let model = Qwen25Vl::from_pretrained(folder.path(), LoadOptions::default(), &device).unwrap();
    let processor = Processor::from_dir(&folder).unwrap();
    let eos = vec![processor.tokenizer.eos()];
    let sampling = Sampling::nucleus(1.0, 0.99);
    let config = GenerationConfig { sampling, ..GenerationConfig::greedy(8, eos) };
    let generator = Generator::new(&model, config, processor.tokenizer.pad(), &device).unwrap();
    let key = StreamKey::new(5).word("chat");
    let [first, second] = chats();
    let messages = [Message::system("Answer."), Message::user("<image>Which fruit? Or <image>?")];
    for (index, (messages, photos)) in [(&messages[..], first.photos), (&second.messages, vec![])].iter().enumerate() {
        let prompt = processor.process("by hand", messages, photos, ProcessOptions::prompt()).unwrap();
        let request = Request { prompt, streams: vec![key.number(index as u64).stream()] };
        let response = generator.generate(&[request]).unwrap().remove(0).remove(0);
        let text = processor.tokenizer.decode(response.text_ids(), SpecialTokens::Skip).unwrap();
        assert_eq!(replies[index], Reply { text, response });
    }
    assert_ne!(replies[0], replies[1]);
}

#[test]
fn a_chat_may_bring_its_own_stream() {
    let folder = checkpoint();
    let mut model = ChatModel::from_pretrained(&folder, &Device::flex()).unwrap();
    model.generation.max_new_tokens = 12;
    model.generation.sampling = Sampling::nucleus(1.0, 1.0);
    let chat = Chat::question("Which fruit?", [photo("a", 60, 40)]);
    let with_stream = |seed| chat.clone().with_stream(StreamKey::new(seed).word("ask").stream());
    let asked = [with_stream(3), chat.clone(), with_stream(3), with_stream(4)];
    let replies = model.generate(&asked).unwrap();
    assert_eq!(replies[0], replies[2]);
    assert!(replies[0] != replies[1] && replies[0] != replies[3]);
    model.seed = 9;
    let other = model.generate(&asked).unwrap();
    assert_eq!(other[0], replies[0]);
    assert_ne!(other[1], replies[1]);
}

#[test]
fn end_tokens_are_the_files_or_the_tokenizers() {
    let (folder, device) = (checkpoint(), Device::flex());
    let path = folder.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let named = config["eos_token_id"].take();
    let model = ChatModel::from_pretrained(&folder, &device).unwrap();
    assert_eq!(json!(model.generation.eos_token_ids), json!([named]));
    fs::write(&path, config.to_string()).unwrap();
    let mut model = ChatModel::from_pretrained(&folder, &device).unwrap();
    assert_eq!(model.generation.eos_token_ids, [model.processor.tokenizer.eos()]);
    model.generation.max_new_tokens = 3;
    let chat = [Chat::question("Which fruit?", [])];
    let reply = model.generate(&chat).unwrap().remove(0);
    let second = reply.response.ids[1];
    fs::write(folder.path().join("generation_config.json"), json!({ "eos_token_id": [second] }).to_string()).unwrap();
    let from_file = CheckpointGeneration::from_folder(folder.path()).unwrap();
    assert_eq!(from_file.end_tokens(&model.processor.tokenizer), [second]);
    let mut model = ChatModel::from_pretrained(&folder, &device).unwrap();
    model.generation.max_new_tokens = 3;
    let stopped = model.generate(&chat).unwrap().remove(0);
    let end = reply.response.ids.iter().position(|&id| id == second).unwrap();
    assert_eq!(stopped.response.ids, reply.response.ids[..=end]);
    assert_eq!(stopped.response.finish, FinishReason::Stop);
}

#[test]
fn photographs_stand_where_the_question_says_or_before_it() {
    let content = |question: &str| {
        let photos = [photo("a", 60, 40), photo("b", 90, 200)];
        let message = Chat::question(question, photos).messages.remove(0);
        serde_json::to_value(message.content).unwrap()
    };
    let (image, text) = (json!({ "type": "image" }), |text: &str| json!({ "type": "text", "text": text }));
    assert_eq!(content("Which?"), json!([image, image, text("Which?")]));
    assert_eq!(content("This <image> or <image>?"), json!([text("This "), image, text(" or "), image, text("?")]));
}

#[test]
fn pixel_limits_move_each_other_and_change_the_prompt() {
    let folder = checkpoint();
    let model = ChatModel::from_pretrained(&folder, &Device::flex()).unwrap();
    let own = model.processor.images.config().limits;
    let limits = |min, max| {
        let limits = model.clone().with_pixel_limits(min, max)?.processor.images.config().limits;
        Ok::<_, GenerateError>((limits.min_pixels, limits.max_pixels))
    };
    assert_eq!(limits(None, None).unwrap(), (own.min_pixels, own.max_pixels));
    assert_eq!(limits(None, Some(784)).unwrap(), (own.min_pixels.min(784), 784));
    assert_eq!(limits(Some(400_000), None).unwrap(), (400_000, own.max_pixels.max(400_000)));
    let beyond = (Some(usize::MAX), None, "min_pixels");
    for (min, max, wanted) in [(None, Some(0), "max_pixels"), (Some(9), Some(8), "min_pixels"), beyond] {
        assert!(matches!(limits(min, max), Err(GenerateError::Setting { key, .. }) if key == wanted));
    }
    let chat = Chat::question("Which fruit?", [photo("a", 280, 40)]);
    let small = model.clone().with_pixel_limits(None, Some(784)).unwrap();
    let tokens = |model: &ChatModel| chat.prompt("chat", &model.processor).unwrap().ids.len();
    assert!(tokens(&small) < tokens(&model));
}

#[test]
fn bad_folders_and_chats_are_named() {
    let (folder, device) = (checkpoint(), Device::flex());
    let missing = folder.path().join("nowhere");
    let error = ChatModel::from_pretrained(&missing, &device).unwrap_err();
    assert!(error.to_string().contains(&missing.display().to_string()), "{error}");
    let model = ChatModel::from_pretrained(&folder, &device).unwrap();
    let named = |chat: Chat| model.generate(&[chats()[1].clone(), chat]).unwrap_err().to_string();
    let mismatch = || Chat::question("<image> or <image>?", [photo("a", 60, 40)]);
    assert!(named(mismatch()).starts_with("chat 1: "));
    assert!(named(mismatch().with_name("the question")).starts_with("the question: "));
    let long = Chat::question(&"Which fruit? ".repeat(600), []);
    assert!(matches!(model.generate(&[long]), Err(GenerateError::Context { sample, .. }) if sample == "chat 0"));
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let error = ChatModel::from_pretrained(&folder, &device).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json"), "{error}");
}

#[test]
fn the_weights_take_the_type_that_is_asked_for() {
    let folder = checkpoint();
    let options = LoadOptions { dtype: Some(WeightType::F16), ..LoadOptions::default() };
    let device = Device::flex();
    match ChatModel::from_pretrained_with(&folder, options, &device) {
        Ok(model) => assert_eq!(model.model.head_weight().dtype(), FloatDType::F16.into()),
        Err(error) => {
            assert!(!device.supports_dtype(FloatDType::F16));
            assert!(matches!(error, GenerateError::Setting { key: "dtype", .. }));
        }
    }
}

//! Tokenizer, chat template and placeholders against the reference (fixtures `tokenizer` and `chat_template`).

use std::{io::Read, path::PathBuf, sync::LazyLock};

use fieldmark_model::GridThw;
use fieldmark_processor::{
    ChatOptions, ChatTemplate, Content, ContentPart, ImageProcessor, ImageProcessorConfig, Message, PatchedImage,
    Photo, ProcessOptions, Processor, ProcessorError, SpecialTokens, TargetEnd, TextStream, Tokenizer, expand_images,
    special, train_tokenizer,
};
use flate2::read::GzDecoder;
use proptest::prelude::*;
use serde_json::Value;

fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(path)
}

static QWEN: LazyLock<Tokenizer> = LazyLock::new(|| {
    let mut json = Vec::new();
    let file = std::fs::File::open(fixture("tokenizer/tokenizer.json.gz")).unwrap();
    GzDecoder::new(file).read_to_end(&mut json).unwrap();
    Tokenizer::from_bytes(&json, "tokenizer.json").unwrap()
});

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn chat_cases() -> Value {
    serde_json::from_slice(&std::fs::read(fixture("chat_template/cases.json")).unwrap()).unwrap()
}

fn processor(tokenizer: Tokenizer) -> Processor {
    let images = ImageProcessor::new(ImageProcessorConfig::default());
    Processor::new(tokenizer, images, ChatTemplate::qwen2_5_vl().unwrap())
}

fn blank(grid: GridThw) -> PatchedImage {
    PatchedImage { pixel_values: vec![0.0; grid.patches() * 1176].into(), grid }
}

#[test]
fn the_published_tokenizer_passes_all_forty_cases() {
    let cases = std::fs::read_to_string(fixture("tokenizer/cases.jsonl")).unwrap();
    for line in cases.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let text = case["text"].as_str().unwrap();
        let expected = ids(&case["ids"]);
        assert_eq!(QWEN.encode(text).unwrap(), expected, "case {}", case["id"]);
        let kept = QWEN.decode(&expected, SpecialTokens::Keep).unwrap();
        if !case["nfc_changes"].as_bool().unwrap() {
            assert_eq!(kept, text, "case {}", case["id"]);
        }
        let skipped = case["decoded_skip_special"].as_str().unwrap_or(&kept);
        assert_eq!(QWEN.decode(&expected, SpecialTokens::Skip).unwrap(), skipped, "case {}", case["id"]);
        assert_eq!(streamed(&QWEN, &expected, SpecialTokens::Skip), skipped, "case {}", case["id"]);
    }
    assert_eq!(cases.lines().count(), 40);
}

#[test]
fn special_tokens_have_their_published_ids() {
    assert_eq!(
        special::ALL.map(|token| QWEN.id(token).unwrap()),
        [151643, 151644, 151645, 151652, 151653, 151654, 151655, 151656]
    );
    let vision = QWEN.vision_tokens();
    assert_eq!([vision.image, vision.video, vision.start, vision.end], [151655, 151656, 151652, 151653]);
    assert_eq!((QWEN.eos(), QWEN.pad(), QWEN.vocab_size()), (151645, 151643, 151665));
}

#[test]
fn conversations_render_expand_and_encode_as_in_the_reference() {
    let cases = chat_cases();
    let grid: Vec<usize> =
        cases["image_grid_thw"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
    let grid = GridThw { t: grid[0], h: grid[1], w: grid[2] };
    let processor = processor(QWEN.clone());
    for case in cases["cases"].as_array().unwrap() {
        let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
        let chat = ChatOptions {
            add_generation_prompt: case["add_generation_prompt"].as_bool().unwrap(),
            add_vision_id: case.get("add_vision_id").is_some_and(|flag| flag.as_bool().unwrap()),
        };
        let rendered = processor.template.render(&messages, chat).unwrap();
        assert_eq!(rendered, case["rendered"].as_str().unwrap());
        let count = messages.iter().map(|message| message.content.images()).sum();
        let expanded = expand_images("case", &rendered, &vec![grid; count], 2).unwrap();
        assert_eq!(expanded, case["expanded"].as_str().unwrap());
        let images = vec![blank(grid); count];
        let sequence = processor.encode("case", &messages, images, ProcessOptions { chat, max_tokens: None }).unwrap();
        assert_eq!(sequence.ids, ids(&case["input_ids"]));
        assert_eq!(sequence.grids(), vec![grid; count]);
    }
}

#[test]
fn expansion_needs_one_placeholder_for_each_image() {
    let two = [GridThw::image(4, 4), GridThw::image(2, 6)];
    let text = expand_images("row 3", "a<|image_pad|>b<|image_pad|>", &two, 2).unwrap();
    assert_eq!(text, format!("a{}b{}", "<|image_pad|>".repeat(4), "<|image_pad|>".repeat(3)));
    let error = expand_images("row 3", "a<|image_pad|>b", &two, 2).unwrap_err();
    assert!(matches!(error, ProcessorError::Placeholders { placeholders: 1, images: 2, .. }), "{error}");
    assert!(error.to_string().starts_with("row 3: "), "{error}");
    assert!(expand_images("row 3", "no image", &[], 2).is_ok());
}

#[test]
fn two_photos_and_one_placeholder_or_a_long_prompt_are_refused_by_name() {
    let processor = processor(QWEN.clone());
    let photo = Photo::from_rgb("grey", 56, 84, vec![9; 56 * 84 * 3]).unwrap();
    let ask = [Message::user("<image>Which pepper?")];
    let error =
        processor.process("row 7", &ask, &[photo.clone(), photo.clone()], ProcessOptions::prompt()).unwrap_err();
    assert!(matches!(error, ProcessorError::Placeholders { placeholders: 1, images: 2, .. }), "{error}");
    assert!(error.to_string().starts_with("row 7: "));
    let whole = processor.process("row 7", &ask, std::slice::from_ref(&photo), ProcessOptions::prompt()).unwrap();
    let limit = whole.ids.len();
    let fits = ProcessOptions::prompt().with_max_tokens(limit);
    assert_eq!(processor.process("row 7", &ask, std::slice::from_ref(&photo), fits).unwrap(), whole);
    let tight = ProcessOptions::prompt().with_max_tokens(limit - 1);
    let error = processor.process("row 7", &ask, &[photo], tight).unwrap_err();
    let ProcessorError::TooLong { tokens, image_tokens: 6, limit: most, .. } = error else { panic!("{error}") };
    assert_eq!((tokens, most), (limit, limit - 1));
    assert!(error.to_string().starts_with("row 7: "), "{error}");
    assert!(processor.process("row 8", &[Message::user("Hello")], &[], ProcessOptions::prompt()).is_ok());
}

#[test]
fn tags_in_text_become_images_in_place() {
    let content = Content::from_tagged("<image>\nOne, <image>two.");
    let text = |text: &str| ContentPart::Text { text: text.into() };
    assert_eq!(content, Content::Parts(vec![ContentPart::Image, text("\nOne, "), ContentPart::Image, text("two.")]));
    assert_eq!(Content::from_tagged("no tag"), Content::Text("no tag".into()));
}

#[test]
fn other_templates_work_and_their_mistakes_are_told() {
    let template = ChatTemplate::new(
        "{%- for m in messages %}\n  {% if m.content.strip() %}\n[{{ m.role }}]\n  {% endif %}\n{% endfor %}",
    )
    .unwrap();
    let messages = [Message::user(" a "), Message::assistant("  ")];
    // As jinja2 3.1.6 renders it with trim_blocks and lstrip_blocks.
    assert_eq!(template.render(&messages, ChatOptions::default()).unwrap(), "[user]\n");
    assert!(ChatTemplate::new("{% for").unwrap_err().to_string().contains("chat template"));
    let refusing = ChatTemplate::new("{{ raise_exception('roles must alternate') }}").unwrap();
    let error = refusing.render(&messages, ChatOptions::default()).unwrap_err().to_string();
    assert!(error.contains("roles must alternate"), "{error}");
}

#[test]
fn only_answers_are_targets() {
    let processor = processor(QWEN.clone());
    let grid = GridThw::image(4, 6);
    let messages = [
        Message::system("You name birds."),
        Message::user("<image>Which?"),
        Message::assistant("\nBlue Jay"),
        Message::user("Sure?"),
        Message::assistant("Yes."),
    ];
    let encode = |end| processor.encode_supervised("row 0", &messages, vec![blank(grid)], end, None).unwrap();
    let targets = |end| {
        let row = encode(end);
        assert_eq!(row.target_mask.len(), row.sequence.ids.len());
        let of = |wanted: bool| {
            let pairs = row.sequence.ids.iter().zip(&row.target_mask);
            let ids: Vec<u32> = pairs.filter(|(_, mask)| **mask == wanted).map(|(id, _)| *id).collect();
            QWEN.decode(&ids, SpecialTokens::Keep).unwrap()
        };
        (of(true), of(false))
    };
    assert_eq!(targets(TargetEnd::ImEnd).0, "\nBlue Jay<|im_end|>Yes.<|im_end|>");
    let (released, prompt) = targets(TargetEnd::Newline);
    assert_eq!(released, "\nBlue Jay<|im_end|>\nYes.<|im_end|>\n");
    let pads = "<|image_pad|>".repeat(6);
    assert_eq!(
        prompt,
        format!(
            "<|im_start|>system\nYou name birds.<|im_end|>\n<|im_start|>user\n<|vision_start|>{pads}<|vision_end|>\
             Which?<|im_end|>\n<|im_start|>assistant\n<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n"
        )
    );
    // An answer has the ids that it would have after its prompt, also where its first newline could merge backwards.
    let prompt = processor.encode("row 0", &messages[..2], vec![blank(grid)], ProcessOptions::prompt()).unwrap();
    let row = encode(TargetEnd::ImEnd).sequence;
    assert_eq!(row.ids[..prompt.ids.len()], prompt.ids);
    assert_eq!(
        row.ids[prompt.ids.len()..][..5],
        [QWEN.encode("\nBlue Jay").unwrap(), vec![QWEN.eos(), 198]].concat()[..5]
    );
    // An answer that is not learned keeps its ids and leaves the loss.
    let last =
        processor.encode_learned("row 0", &messages, |turn| turn == 4, vec![blank(grid)], TargetEnd::ImEnd, None);
    let last = last.unwrap();
    assert_eq!(last.sequence, row);
    let learned = row.ids.iter().zip(&last.target_mask).filter(|(_, mask)| **mask).map(|(id, _)| *id);
    assert_eq!(QWEN.decode(&learned.collect::<Vec<_>>(), SpecialTokens::Keep).unwrap(), "Yes.<|im_end|>");
    let error = processor.encode_supervised("row 0", &messages, vec![], TargetEnd::ImEnd, None).unwrap_err();
    assert!(matches!(error, ProcessorError::Placeholders { placeholders: 1, images: 0, .. }));
    let error = processor.encode_supervised("row 0", &messages, vec![blank(grid)], TargetEnd::ImEnd, Some(20));
    assert!(matches!(error, Err(ProcessorError::TooLong { limit: 20, .. })));
}

#[test]
fn an_answer_ends_with_im_end_whatever_the_tokenizer_calls_its_end() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), QWEN.to_json().unwrap()).unwrap();
    std::fs::write(folder.path().join("tokenizer_config.json"), r#"{"eos_token": "<|endoftext|>"}"#).unwrap();
    let base = Tokenizer::from_file(folder.path().join("tokenizer.json")).unwrap();
    assert_eq!(base.eos(), base.id(special::END_OF_TEXT).unwrap());
    let messages = [Message::user("Which?"), Message::assistant("Blue Jay")];
    for end in [TargetEnd::ImEnd, TargetEnd::Newline] {
        let row = |tokenizer: &Tokenizer| {
            processor(tokenizer.clone()).encode_supervised("row 0", &messages, vec![], end, None).unwrap()
        };
        assert_eq!(row(&base), row(&QWEN));
    }
}

fn streamed(tokenizer: &Tokenizer, ids: &[u32], specials: SpecialTokens) -> String {
    let mut stream = TextStream::new(specials);
    let mut text = String::new();
    for &id in ids {
        let new = stream.push(tokenizer, id).unwrap();
        assert!(!new.ends_with('\u{FFFD}'));
        text += &new;
    }
    text + &stream.finish(tokenizer).unwrap()
}

static SMALL: LazyLock<Tokenizer> = LazyLock::new(|| train_tokenizer(corpus(), &[], 300).unwrap());

fn corpus() -> Vec<String> {
    (0..40)
        .map(|i| format!("<think>The pepper number {i} is red and glossy.</think>\n<answer>Red Pepper</answer>"))
        .collect()
}

#[test]
fn a_new_tokenizer_is_small_reversible_and_loads_back() {
    assert_eq!(SMALL.vocab_size(), 300);
    for (i, token) in special::ALL.into_iter().enumerate() {
        assert_eq!(SMALL.id(token), Some(292 + i as u32));
        assert_eq!(SMALL.encode(token).unwrap(), [292 + i as u32]);
    }
    let sentence = "<|im_start|>user\nThe pepper is red.<|im_end|>";
    let encoded = SMALL.encode(sentence).unwrap();
    assert!(encoded.len() < 16, "{encoded:?}");
    assert_eq!(SMALL.decode(&encoded, SpecialTokens::Keep).unwrap(), sentence);
    let again = Tokenizer::from_bytes(SMALL.to_json().unwrap().as_bytes(), "tokenizer.json").unwrap();
    assert_eq!(again.encode(sentence).unwrap(), encoded);
    assert_eq!(train_tokenizer(corpus(), &[], 300).unwrap().to_json().unwrap(), SMALL.to_json().unwrap());
    assert!(train_tokenizer(corpus(), &[], 263).unwrap_err().to_string().contains("at least 264"));
    // It splits words as the published one does: the same parts around another vocabulary.
    let parts = |tokenizer: &Tokenizer| {
        let json: Value = serde_json::from_str(&tokenizer.to_json().unwrap()).unwrap();
        ["normalizer", "pre_tokenizer", "post_processor", "decoder"].map(|part| json[part].clone())
    };
    assert_eq!(parts(&SMALL), parts(&QWEN));
}

#[test]
fn whole_texts_become_one_token_each() {
    let whole = ["Red Pepper".to_string(), "<answer>".to_string()];
    let tokenizer = train_tokenizer(corpus(), &whole, 300).unwrap();
    let text = "<answer>Red Pepper</answer>";
    let ids = tokenizer.encode(text).unwrap();
    assert_eq!(ids[..2], [tokenizer.id("<answer>").unwrap(), tokenizer.id("Red Pepper").unwrap()]);
    for specials in [SpecialTokens::Keep, SpecialTokens::Skip] {
        assert_eq!(tokenizer.decode(&ids, specials).unwrap(), text);
        assert_eq!(streamed(&tokenizer, &ids, specials), text);
    }
    let again = Tokenizer::from_bytes(tokenizer.to_json().unwrap().as_bytes(), "tokenizer.json").unwrap();
    assert_eq!(again.encode(text).unwrap(), ids);
    assert!(train_tokenizer(corpus(), &["Jalapeño".to_string()], 300).is_err());
    assert!(train_tokenizer(corpus(), &whole, 265).unwrap_err().to_string().contains("at least 266"));
}

#[test]
fn a_folder_written_is_read_back_and_contradictions_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let processor = processor(SMALL.clone());
    processor.save(folder.path()).unwrap();
    let again = Processor::from_dir(folder.path()).unwrap();
    assert_eq!(again.images, processor.images);
    assert_eq!(again.template.source(), processor.template.source());
    assert_eq!((again.tokenizer.eos(), again.tokenizer.pad()), (SMALL.eos(), SMALL.pad()));
    assert_eq!(again.tokenizer.encode("Red Pepper").unwrap(), SMALL.encode("Red Pepper").unwrap());

    let write = |file: &str, text: &str| std::fs::write(folder.path().join(file), text).unwrap();
    let error = || Processor::from_dir(folder.path()).unwrap_err().to_string();
    let tiny = std::fs::read_to_string(fixture("qwen2_5_vl_tiny/config.json")).unwrap();
    write("config.json", &tiny);
    assert!(error().contains("config.json: `"), "{}", error());
    std::fs::remove_file(folder.path().join("config.json")).unwrap();
    write("chat_template.jinja", "{{ messages[0].content }}!<|image_pad|>");
    let custom = Processor::from_dir(folder.path()).unwrap();
    assert_eq!(custom.template.render(&[Message::user("Hi")], ChatOptions::default()).unwrap(), "Hi!<|image_pad|>");
    write("tokenizer_config.json", r#"{"eos_token": {"content": "<|endoftext|>"}, "pad_token": null}"#);
    assert_eq!(Processor::from_dir(folder.path()).unwrap().tokenizer.eos(), SMALL.pad());
    write("tokenizer_config.json", r#"{"eos_token": "<|none|>"}"#);
    assert!(error().contains("tokenizer.json: ") && error().contains("`<|none|>`"), "{}", error());
    write("tokenizer.json", "{");
    assert!(error().contains("tokenizer.json: "), "{}", error());
    for file in ["preprocessor_config.json", "processor_config.json"] {
        std::fs::remove_file(folder.path().join(file)).unwrap();
    }
    assert!(error().contains("preprocessor_config.json") && error().contains("`image_processor`"), "{}", error());
}

#[test]
fn truncation_in_the_file_is_switched_off() {
    let mut json: Value = serde_json::from_str(&SMALL.to_json().unwrap()).unwrap();
    json["truncation"] =
        serde_json::json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    let cutting = Tokenizer::from_bytes(json.to_string().as_bytes(), "tokenizer.json").unwrap();
    let text = "a b c d e f";
    assert_eq!(cutting.encode(text).unwrap(), SMALL.encode(text).unwrap());
}

proptest! {
    #[test]
    fn any_text_comes_back(text in "\\PC{0,40}") {
        use SpecialTokens::Keep;
        let ids = SMALL.encode(&text).unwrap();
        let once = SMALL.decode(&ids, Keep).unwrap();
        // Normalised text is its own normal form, so the second time nothing changes.
        prop_assert_eq!(SMALL.decode(&SMALL.encode(&once).unwrap(), Keep).unwrap(), once.clone());
        prop_assert_eq!(streamed(&SMALL, &ids, Keep), once);
    }

    #[test]
    fn streaming_any_tokens_gives_what_decoding_them_at_once_gives(ids in prop::collection::vec(0u32..300, 0..40)) {
        for specials in [SpecialTokens::Keep, SpecialTokens::Skip] {
            prop_assert_eq!(streamed(&SMALL, &ids, specials), SMALL.decode(&ids, specials).unwrap());
        }
    }
}

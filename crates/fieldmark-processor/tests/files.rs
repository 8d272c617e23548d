//! The processor's files in a checkpoint folder: every form that transformers writes, and which of two counts.

use std::{fs, path::Path};

use fieldmark_processor::{
    ChatOptions, ChatTemplate, ImageProcessor, ImageProcessorConfig, Message, PixelLimits, Processor, ProcessorError,
    Remarks, train_tokenizer,
};
use serde_json::{Value, json};

/// A folder with a small tokenizer, as [`Processor::save`] writes it.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = train_tokenizer(["Which pepper is this?"], &[], 290).unwrap();
    let images = ImageProcessor::new(ImageProcessorConfig::default());
    Processor::new(tokenizer, images, ChatTemplate::qwen2_5_vl().unwrap()).save(folder.path()).unwrap();
    folder
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut json: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The prompt of "Hi" and the notes on the folder.
fn prompt(folder: &Path) -> (String, Vec<String>) {
    let (processor, Remarks { notes, contradictions }) = Processor::from_dir_with_remarks(folder).unwrap();
    let notes = [notes, contradictions].concat();
    (processor.template.render(&[Message::user("Hi")], ChatOptions::default()).unwrap(), notes)
}

#[test]
fn the_nested_image_processor_is_read_and_counts_before_the_older_file() {
    let folder = folder();
    let (nested, older) = (folder.path().join("processor_config.json"), folder.path().join("preprocessor_config.json"));
    edit(&nested, |json| json["image_processor"]["size"] = json!({ "shortest_edge": 784, "longest_edge": 7840 }));
    let read = || {
        let (processor, Remarks { notes, contradictions }) = Processor::from_dir_with_remarks(folder.path()).unwrap();
        assert_eq!(notes, Vec::<String>::new());
        (processor, contradictions)
    };
    let (processor, notes) = read();
    let nested_limits = PixelLimits { min_pixels: 784, max_pixels: 7840 };
    assert_eq!(processor.images.config().limits, nested_limits);
    assert!(matches!(notes.as_slice(), [one] if one.contains("preprocessor_config.json")), "{notes:?}");
    fs::remove_file(&older).unwrap();
    let (processor, notes) = read();
    assert_eq!((processor.images.config().limits, notes.len()), (nested_limits, 0));
    // A file without this part, as older tools wrote it, leaves the older file.
    fs::write(&nested, r#"{"processor_class": "Qwen2_5_VLProcessor"}"#).unwrap();
    let error = Processor::from_dir(folder.path()).unwrap_err().to_string();
    assert!(error.contains("preprocessor_config.json") && error.contains("`image_processor`"), "{error}");
    fs::write(&older, r#"{"min_pixels": 784, "max_pixels": 1568, "image_mean": 0.5, "image_std": null}"#).unwrap();
    let (processor, notes) = read();
    let found = processor.images.config();
    assert_eq!((found.limits.max_pixels, found.image_mean, notes.len()), (1568, [0.5; 3], 0));
    edit(&nested, |json| json["image_processor"] = json!({ "patch_size": "14" }));
    let error = Processor::from_dir(folder.path()).unwrap_err().to_string();
    assert!(error.contains("/processor_config.json") && error.contains("`patch_size`"), "{error}");
}

#[test]
fn what_is_written_are_the_files_of_transformers_5_and_one_of_transformers_4() {
    let folder = folder();
    assert_eq!(
        names(folder.path()),
        [
            "chat_template.jinja",
            "preprocessor_config.json",
            "processor_config.json",
            "tokenizer.json",
            "tokenizer_config.json"
        ]
    );
    // What is not used here stays: settings for videos, tokens, named templates.
    edit(&folder.path().join("processor_config.json"), |json| json["video_processor"]["fps"] = json!(4));
    edit(&folder.path().join("tokenizer_config.json"), |json| {
        json["model_max_length"] = json!(131_072);
        json["bos_token"] = json!({ "__type": "AddedToken", "content": "<|im_start|>", "lstrip": false });
        json["extra_special_tokens"] = json!(["<|vision_pad|>"]);
        json["chat_template"] = json!("not this one");
    });
    fs::create_dir(folder.path().join("additional_chat_templates")).unwrap();
    fs::write(folder.path().join("additional_chat_templates/tool_use.jinja"), "tools").unwrap();
    fs::write(folder.path().join("chat_template.jinja"), "{{ bos_token }}{{ messages[0].content }}<|image_pad|>")
        .unwrap();
    let again = tempfile::tempdir().unwrap();
    fs::write(again.path().join("chat_template.json"), r#"{"chat_template": "an earlier one"}"#).unwrap();
    Processor::from_dir(folder.path()).unwrap().save(again.path()).unwrap();
    assert_eq!(names(again.path()), names(folder.path()));
    let json = |name: &str| -> Value { serde_json::from_slice(&fs::read(again.path().join(name)).unwrap()).unwrap() };
    assert_eq!(json("processor_config.json")["video_processor"]["fps"], 4);
    let tokens = json("tokenizer_config.json");
    assert_eq!(tokens["bos_token"], "<|im_start|>");
    assert_eq!(
        (&tokens["model_max_length"], &tokens["additional_special_tokens"]),
        (&json!(131_072), &json!(["<|vision_pad|>"]))
    );
    assert_eq!((tokens.get("chat_template"), tokens.get("extra_special_tokens")), (None, None));
    assert_eq!(fs::read_to_string(again.path().join("additional_chat_templates/tool_use.jinja")).unwrap(), "tools");
    assert_eq!(prompt(again.path()), ("<|im_start|>Hi<|image_pad|>".into(), vec![]));
    let (first, second) = (Processor::from_dir(folder.path()).unwrap(), Processor::from_dir(again.path()).unwrap());
    assert_eq!(first.images, second.images);
}

#[test]
fn the_template_is_looked_for_in_one_order_and_a_folder_without_one_says_so() {
    let folder = folder();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let remove = |name: &str| fs::remove_file(folder.path().join(name)).unwrap();
    let template =
        |name: &str| format!("{name}:{{% for m in messages %}}{{{{ m.content }}}}<|image_pad|>{{% endfor %}}");
    let text = |name: &str| format!("{name}:Hi<|image_pad|>");
    let config =
        |value: Value| edit(&folder.path().join("tokenizer_config.json"), |json| json["chat_template"] = value);
    config(json!([{ "name": "tool_use", "template": "no" }, { "name": "default", "template": template("list") }]));
    fs::create_dir(folder.path().join("additional_chat_templates")).unwrap();
    write("additional_chat_templates/default.jinja", &template("additional"));
    write("chat_template.json", &json!({ "chat_template": template("json") }).to_string());
    write("chat_template.jinja", &template("jinja"));
    let (said, notes) = prompt(folder.path());
    assert_eq!(said, text("jinja"));
    assert!(matches!(notes.as_slice(), [one] if one.contains("chat_template.json")), "{notes:?}");
    write("chat_template.json", &json!({ "chat_template": template("jinja") }).to_string());
    assert_eq!(prompt(folder.path()), (text("jinja"), vec![]));
    edit(&folder.path().join("processor_config.json"), |json| json["chat_template"] = json!(template("processor")));
    assert_eq!(prompt(folder.path()).0, text("processor"));
    edit(&folder.path().join("processor_config.json"), |json| json["chat_template"] = Value::Null);
    remove("chat_template.jinja");
    assert_eq!(prompt(folder.path()), (text("jinja"), vec![]));
    remove("chat_template.json");
    assert_eq!(prompt(folder.path()), (text("additional"), vec![]));
    remove("additional_chat_templates/default.jinja");
    assert_eq!(prompt(folder.path()), (text("list"), vec![]));
    config(json!(template("alone")));
    assert_eq!(prompt(folder.path()), (text("alone"), vec![]));
    // What a folder has only for text would lose the images.
    for none in [json!("{{ messages[0].content }}"), Value::Null] {
        config(none);
        let (said, notes) = prompt(folder.path());
        assert!(said.contains("You are a helpful assistant."), "{said}");
        assert!(matches!(notes.as_slice(), [one] if one.contains("Qwen2.5-VL")), "{notes:?}");
    }
    config(json!("{% for"));
    assert!(matches!(Processor::from_dir(folder.path()), Err(ProcessorError::Template(_))));
}

/// The values are those that `processor.apply_chat_template` of transformers 5.24 renders from the same files.
#[test]
fn templates_see_the_special_tokens_of_the_tokenizer() {
    let folder = folder();
    let write = |name: &str, json: Value| fs::write(folder.path().join(name), json.to_string()).unwrap();
    let names = ["eos_token", "bos_token", "pad_token", "unk_token", "image_token"];
    let template: Vec<String> = names.iter().map(|name| format!("{{{{ {name} }}}}")).collect();
    fs::write(folder.path().join("chat_template.jinja"), template.join("|") + "<|image_pad|>").unwrap();
    let end = "<|endoftext|>";
    for (config, map, expected) in [
        (
            json!({ "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "pad_token": end }),
            None,
            "<|im_end|>||<|endoftext|>||",
        ),
        (json!({ "tokenizer_class": "Qwen2Tokenizer" }), None, "<|endoftext|>||<|endoftext|>|<|endoftext|>|"),
        (
            json!({ "tokenizer_class": "Qwen2TokenizerFast", "eos_token": { "content": "<|im_end|>" }, "bos_token": null }),
            None,
            "<|im_end|>||<|endoftext|>|<|endoftext|>|",
        ),
        (
            json!({ "tokenizer_class": "TokenizersBackend", "extra_special_tokens": { "image_token": "<|image_pad|>" } }),
            None,
            "||||<|image_pad|>",
        ),
        (
            json!({ "tokenizer_class": "TokenizersBackend" }),
            Some(json!({ "eos_token": { "content": "<|im_end|>", "lstrip": false } })),
            "<|im_end|>||||",
        ),
        (
            json!({ "tokenizer_class": "TokenizersBackend", "added_tokens_decoder": {} }),
            Some(json!({ "eos_token": "<|im_end|>" })),
            "||||",
        ),
    ] {
        write("tokenizer_config.json", config.clone());
        let path = folder.path().join("special_tokens_map.json");
        match &map {
            Some(map) => write("special_tokens_map.json", map.clone()),
            None => drop(fs::remove_file(path)),
        }
        let (said, notes) = prompt(folder.path());
        assert_eq!(said, format!("{expected}<|image_pad|>"), "{config} {map:?}");
        // A token that the template uses and no file names is said.
        assert!(matches!(notes.as_slice(), [one] if one.contains("_token`")), "{notes:?}");
    }
}

#[test]
fn of_named_templates_the_default_is_used_and_the_others_are_kept() {
    for file in ["processor_config.json", "chat_template.json", "tokenizer_config.json"] {
        for as_list in [false, true] {
            let folder = folder();
            let path = folder.path().join(file);
            fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
            if file == "chat_template.json" {
                fs::write(&path, "{}").unwrap();
            }
            let write = |templates: &[(&str, &str)]| {
                let value = match as_list {
                    true => templates.iter().map(|(name, text)| json!({ "name": name, "template": text })).collect(),
                    false => {
                        Value::Object(templates.iter().map(|(name, text)| ((*name).into(), json!(text))).collect())
                    }
                };
                edit(&path, |json| json["chat_template"] = value);
            };
            let default = "{{ messages[0].content }}<|image_pad|>";
            write(&[("tool_use", "tools"), ("default", default), ("../outside", "no")]);
            assert_eq!(prompt(folder.path()), ("Hi<|image_pad|>".into(), vec![]), "{file} {as_list}");
            let again = tempfile::tempdir().unwrap();
            Processor::from_dir(folder.path()).unwrap().save(again.path()).unwrap();
            assert_eq!(names(&again.path().join("additional_chat_templates")), ["tool_use.jinja"]);
            write(&[("tool_use", default)]);
            match Processor::from_dir(folder.path()).map(drop) {
                Err(ProcessorError::Config { path: found, key, reason }) => {
                    assert!(found == path && key == "chat_template" && reason.contains("tool_use"), "{reason}");
                }
                other => panic!("{other:?}"),
            }
            edit(&path, |json| json["chat_template"] = json!([{ "name": "default" }]));
            let error = Processor::from_dir(folder.path()).unwrap_err().to_string();
            assert!(error.contains(file) && error.contains("`chat_template`"), "{error}");
        }
    }
}

#[test]
fn a_template_that_is_empty_or_shows_no_image_is_passed_over_with_a_note() {
    let folder = folder();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let ours = ChatTemplate::qwen2_5_vl().unwrap().render(&[Message::user("Hi")], ChatOptions::default()).unwrap();
    for text in ["", "\n", "{{ messages[0].content }}", "{{ raise_exception('no images') }}"] {
        write("chat_template.jinja", text);
        let (said, notes) = prompt(folder.path());
        assert_eq!(said, ours);
        let names = |note: &String| note.contains("chat_template.jinja") && note.contains("Qwen2.5-VL");
        assert!(matches!(notes.as_slice(), [one] if names(one)), "{text:?}: {notes:?}");
    }
    // The next one that shows images is used, and one for which a system's text comes first does.
    let strict = "{% if messages[0].role != 'system' %}{{ raise_exception('no') }}{% endif %}<|image_pad|>";
    write("chat_template.json", &json!({ "chat_template": strict }).to_string());
    let (processor, remarks) = Processor::from_dir_with_remarks(folder.path()).unwrap();
    assert_eq!(processor.template.source(), strict);
    let names = |note: &String| note.contains("chat_template.jinja") && note.contains("chat_template.json");
    assert!(matches!(remarks.notes.as_slice(), [one] if names(one)), "{remarks:?}");
    // The file of a mistake is named.
    write("chat_template.jinja", "{% for");
    let error = Processor::from_dir(folder.path()).unwrap_err().to_string();
    assert!(error.contains("/chat_template.jinja: "), "{error}");
}

#[test]
#[cfg(unix)]
fn a_link_to_nothing_in_place_of_any_file_is_named() {
    for name in ["tokenizer.json", "tokenizer_config.json", "processor_config.json", "chat_template.jinja"] {
        let folder = folder();
        fs::remove_file(folder.path().join(name)).unwrap();
        std::os::unix::fs::symlink("../../blobs/1f2e", folder.path().join(name)).unwrap();
        let error = Processor::from_dir(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("/{name}:")) && error.contains("blobs/1f2e"), "{error}");
    }
}

#[test]
fn a_pointer_in_place_of_any_file_is_named() {
    for name in ["tokenizer.json", "tokenizer_config.json", "processor_config.json", "chat_template.jinja"] {
        let folder = folder();
        fs::write(folder.path().join(name), "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
            .unwrap();
        let error = Processor::from_dir(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("/{name}:")) && error.contains("git lfs pull"), "{error}");
    }
}

//! The prompt templates as `prompt` prints them.

mod support;

use support::{Place, refusal::mentions};

#[test]
fn every_template_is_printed_with_the_question() {
    let place = Place::new();
    let all = place.succeed(&["prompt"]);
    let no_think = ["rl_no_think", "eval_closed_no_think", "eval_open_no_think"];
    for name in ["sft", "rl", "eval_closed", "eval_open", "bare"].into_iter().chain(no_think) {
        assert!(all.lines().any(|line| line.starts_with(&format!("== {name}: "))), "{name}: {all}");
        let one = place.succeed(&["prompt", name]);
        assert!(all.contains(one.trim_end()) && one.contains("[user]\n<image>"), "{one}");
        assert!(one.contains("Which bird is this?") && one.contains("[system]") == (name == "sft"), "{one}");
    }
    let asked = place.succeed(&["prompt", "rl", "--question", "Which fruit?", "--options", "Lime, Red Plum"]);
    assert!(asked.starts_with("[user]\n<image>Which fruit? Choose one of ['Lime', 'Red Plum'].\n\n"), "{asked}");
}

#[test]
fn a_checkpoint_adds_its_chat_template() {
    let place = Place::new();
    let printed = place.succeed(&["prompt", "bare", "--question", "Which?", "--model", "model"]);
    let expected = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n\
                    <|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Which?<|im_end|>\n\
                    <|im_start|>assistant\n";
    assert_eq!(printed, expected);
    let all = place.succeed(&["prompt", "--model", "model"]);
    assert_eq!(all.matches("<|im_start|>assistant").count(), 8, "{all}");
}

#[test]
fn a_template_without_images_is_said_at_once_and_named_templates_have_a_default() {
    let place = Place::new();
    let question = ["prompt", "bare", "--question", "Which?", "--model", "model"];
    let expected = place.succeed(&question);
    let notes = |command: &[&str]| {
        let output = place.run(command);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        said.lines().filter(|line| line.starts_with("note: ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let ask = ["ask", "--model", "model", "--image", "a.png", "Which?", "--max-new-tokens", "2"];
    for text in ["", "{{ messages[0].content }}"] {
        place.write("model/chat_template.jinja", text);
        assert_eq!(place.succeed(&question), expected);
        for command in [&question[..], &ask] {
            let notes = notes(command);
            assert!(matches!(notes.as_slice(), [one] if mentions(one, "chat_template.jinja")), "{notes:?}");
        }
    }
    std::fs::remove_file(place.path("model/chat_template.jinja")).unwrap();
    let named = |name: &str| serde_json::json!({ "chat_template": { name: "{{ messages|length }}<|image_pad|>" } });
    place.write("model/chat_template.json", named("default").to_string());
    assert_eq!(place.succeed(&question).trim_end(), "1<|image_pad|>");
    place.write("model/chat_template.json", named("rag").to_string());
    for command in [&question[..], &ask] {
        place.refuse(command).names("model/chat_template.json").names_key("chat_template").names("rag");
    }
}

#[test]
fn wrong_questions_and_templates_are_refused() {
    let place = Place::new();
    place.refuse(&["prompt", "--question", " "]).names("--question");
    place.refuse(&["prompt", "--options", "Lime,,Plum"]).names("--options");
    place.refuse(&["prompt", "--model", "nowhere"]).names("nowhere");
    let unknown = place.run(&["prompt", "eval"]);
    let said = String::from_utf8(unknown.stderr).unwrap();
    assert!(unknown.status.code() == Some(2) && mentions(&said, "eval_closed"), "{said}");
}

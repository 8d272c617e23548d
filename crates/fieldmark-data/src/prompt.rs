//! The prompts of the method as named templates: SFT, RL, closed-world and open-world evaluation.
//! The structure is the released one (which role says what, where the image is, how options print); the words are ours.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Marks the place of an image in a text.
pub const IMAGE_PLACEHOLDER: &str = "<image>";

const SFT_SYSTEM: &str = "You answer questions about photographs. First reason about what the photograph shows, then \
give the answer. Write the reasoning between <think> and </think> and the answer between <answer> and </answer>, like \
this: <think> reasoning </think><answer> answer </answer>";

const RL_INSTRUCTION: &str = "First think the question through and write your reasoning between <think> and </think>. \
Then write only the name between <answer> and </answer>.";

const RL_NO_THINK_INSTRUCTION: &str = "Answer at once, without reasoning: write only the name between <answer> and \
</answer>.";

/// The wording of a prompt. A recipe chooses one for each stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PromptTemplate {
    /// Stage 1: a system text that asks for the tags; the user turn has only the question.
    Sft,
    /// Stage 2: no system text; the question, a blank line, the instruction.
    Rl,
    /// Evaluation with options: no system text; the question and the options in one sentence.
    EvalClosed,
    /// Evaluation without options: no system text; asks for a fine-grained name.
    EvalOpen,
    /// As `rl`, but it asks for the answer alone.
    RlNoThink,
    /// As `eval_closed`, but it asks for the answer alone.
    EvalClosedNoThink,
    /// As `eval_open`, but it asks for the answer alone.
    EvalOpenNoThink,
    /// Only the question, and the options if there are any: for small models that are trained from nothing on one task
    /// and need no instructions.
    Bare,
}

/// A rendered prompt, ready for the chat template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// The system text, or `None` for the chat template's ("You are a helpful assistant.").
    pub system: Option<String>,
    /// The user turn, with [`IMAGE_PLACEHOLDER`] at the place of the image.
    pub user: String,
}

impl PromptTemplate {
    /// All templates.
    pub const ALL: [Self; 8] = [
        Self::Sft,
        Self::Rl,
        Self::EvalClosed,
        Self::EvalOpen,
        Self::RlNoThink,
        Self::EvalClosedNoThink,
        Self::EvalOpenNoThink,
        Self::Bare,
    ];

    /// The name in recipes and predictions.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sft => "sft",
            Self::Rl => "rl",
            Self::EvalClosed => "eval_closed",
            Self::EvalOpen => "eval_open",
            Self::RlNoThink => "rl_no_think",
            Self::EvalClosedNoThink => "eval_closed_no_think",
            Self::EvalOpenNoThink => "eval_open_no_think",
            Self::Bare => "bare",
        }
    }

    /// The system text of this template, if it has one.
    pub fn system(self) -> Option<&'static str> {
        match self {
            Self::Sft => Some(SFT_SYSTEM),
            _ => None,
        }
    }

    /// Whether the prompt asks for a think block before the answer, or for the answer alone. `None`: it asks for neither.
    pub fn asks_to_think(self) -> Option<bool> {
        match self {
            Self::Sft | Self::Rl | Self::EvalClosed | Self::EvalOpen => Some(true),
            Self::RlNoThink | Self::EvalClosedNoThink | Self::EvalOpenNoThink => Some(false),
            Self::Bare => None,
        }
    }

    /// Renders the prompt for one image and a question. The image comes first unless `question` has a placeholder.
    /// Options are printed as a Python list in the order given: inside the sentence of the closed-world templates; not at
    /// all in the open-world ones; after the question of the others.
    pub fn render(self, question: &str, options: &[String]) -> Prompt {
        let list = python_list(options);
        let choice = choice(options);
        let trimmed = question.trim();
        let text = match self {
            Self::Sft | Self::Bare => format!("{question}{choice}"),
            Self::Rl => format!("{trimmed}{choice}\n\n{RL_INSTRUCTION}"),
            Self::RlNoThink => format!("{trimmed}{choice}\n\n{RL_NO_THINK_INSTRUCTION}"),
            Self::EvalClosed if options.is_empty() => Self::EvalOpen.render(question, options).user,
            Self::EvalClosedNoThink if options.is_empty() => Self::EvalOpenNoThink.render(question, options).user,
            Self::EvalClosed => format!(
                "Answer the question: {trimmed} The answer is one of the options {list}. Reason between <think> and \
                 </think>, then name the chosen option between <answer> and </answer>, in the form \
                 <think>...</think> <answer>option</answer>."
            ),
            Self::EvalOpen => format!(
                "Answer the question: {trimmed} It asks for a fine-grained name. Reason between <think> and </think>, \
                 then give the name between <answer> and </answer>."
            ),
            Self::EvalClosedNoThink => format!(
                "Answer the question: {trimmed} The answer is one of the options {list}. Do not reason: name only the \
                 chosen option between <answer> and </answer>, in the form <answer>option</answer>."
            ),
            Self::EvalOpenNoThink => format!(
                "Answer the question: {trimmed} It asks for a fine-grained name. Do not reason: give only the name \
                 between <answer> and </answer>."
            ),
        };
        let user = if text.contains(IMAGE_PLACEHOLDER) { text } else { format!("{IMAGE_PLACEHOLDER}{text}") };
        Prompt { system: self.system().map(str::to_owned), user }
    }
}

impl fmt::Display for PromptTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for PromptTemplate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|template| template.name() == text);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("{text:?} is not a prompt template; use one of {names}")
        })
    }
}

/// The sentence that offers options after a question; empty without options.
pub(crate) fn choice(options: &[String]) -> String {
    if options.is_empty() { String::new() } else { format!(" Choose one of {}.", python_list(options)) }
}

/// A list of strings as Python prints it: `['A', "B's"]`.
fn python_list(items: &[String]) -> String {
    let items: Vec<String> = items.iter().map(|item| python_string(item)).collect();
    format!("[{}]", items.join(", "))
}

/// A string as Python's `repr` prints it, for printable text and ASCII control characters.
fn python_string(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn lists_print_as_python_prints_them() {
        // Expected: what Python 3 prints for the same list.
        let list = names(&["A", "B's", "C\"d", "e'\"f", "g\\h\n\t\u{1}", "é"]);
        assert_eq!(python_list(&list), r#"['A', "B's", 'C"d', 'e\'"f', 'g\\h\n\t\x01', 'é']"#);
        assert_eq!(python_list(&[]), "[]");
    }

    #[test]
    fn each_wording_has_its_parts_in_place() {
        let options = names(&["Lime", "Lemon"]);
        for template in PromptTemplate::ALL {
            for options in [&options[..], &[]] {
                let prompt = template.render("Which fruit is this?", options);
                assert_eq!(prompt.user.matches(IMAGE_PLACEHOLDER).count(), 1);
                assert!(prompt.user.starts_with("<image>"));
                assert!(prompt.user.contains("Which fruit is this?"));
                let listed = prompt.user.contains("['Lime', 'Lemon']");
                let open = [PromptTemplate::EvalOpen, PromptTemplate::EvalOpenNoThink].contains(&template);
                assert_eq!(listed, !options.is_empty() && !open);
                let asking = prompt.system.unwrap_or(prompt.user);
                for tag in ["think>", "answer>"] {
                    let tags = [format!("<{tag}"), format!("</{tag}")];
                    let expected = if tag == "think>" {
                        template.asks_to_think() == Some(true)
                    } else {
                        template.asks_to_think().is_some()
                    };
                    assert!(tags.iter().all(|tag| asking.contains(tag) == expected), "{template}: {tag}");
                }
            }
        }
        let rl = PromptTemplate::Rl.render(" What is <image>?\n", &[]);
        assert_eq!(rl.user, format!("What is <image>?\n\n{RL_INSTRUCTION}"));
        assert_eq!(rl.system, None);
        let alone = PromptTemplate::RlNoThink.render(" What is <image>?\n", &[]);
        assert_eq!(alone.user, format!("What is <image>?\n\n{RL_NO_THINK_INSTRUCTION}"));
        let open = PromptTemplate::EvalOpenNoThink.render("What?", &[]);
        assert_eq!(PromptTemplate::EvalClosedNoThink.render("What?", &[]), open);
        let bare = PromptTemplate::Bare.render("What?", &options);
        assert_eq!((bare.user.as_str(), bare.system), ("<image>What? Choose one of ['Lime', 'Lemon'].", None));
        let sft = PromptTemplate::Sft.render("<image>What?", &[]);
        assert_eq!((sft.user.as_str(), sft.system.as_deref()), ("<image>What?", Some(SFT_SYSTEM)));
    }

    #[test]
    fn names_read_back() {
        for template in PromptTemplate::ALL {
            assert_eq!(template.name().parse(), Ok(template));
            let json = serde_json::to_string(&template).unwrap();
            assert_eq!(json, format!("\"{template}\""));
        }
        assert!("SFT".parse::<PromptTemplate>().unwrap_err().contains("eval_closed"));
    }
}

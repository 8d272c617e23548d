//! Truths as they are compared: without the tags and white space that exports leave around them, and the truths that no
//! answer can match.

use std::sync::LazyLock;

use regex::Regex;

use super::alike::{is_python_space, nfc, normal_form};

static BLOCK: LazyLock<Regex> = LazyLock::new(|| pattern(r"{open}(.*){close}\z"));
static START: LazyLock<Regex> = LazyLock::new(|| pattern(r"\A(?:{open}|{close})"));
static END: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?:{open}|{close})\z"));
static TAG: LazyLock<Regex> = LazyLock::new(|| pattern(r"<{s}/?{s}(?:think|answer){s}>"));

fn pattern(source: &str) -> Regex {
    let source = source.replace("{open}", "<{s}answer{s}>").replace("{close}", "<{s}/{s}answer{s}>");
    let source = format!("(?si){}", source.replace("{s}", r"[\s\x1c-\x1f]*"));
    Regex::new(&source).expect("a constant pattern, covered by tests")
}

/// The truth in a cell of a data file: in NFC, without white space at its ends, and without answer tags around it, as
/// the `solution` columns of R1-V and VLM-R1 have them. A think block before the answer block goes too.
///
/// ```
/// use fieldmark_data::truth_text;
/// assert_eq!(truth_text("Lime\n"), "Lime");
/// assert_eq!(truth_text("<answer> Key Lime </answer>"), "Key Lime");
/// ```
pub fn truth_text(cell: &str) -> String {
    let mut text = cell.trim_matches(is_python_space);
    loop {
        let rest = without_tags(text).trim_matches(is_python_space);
        if rest == text {
            return nfc(text);
        }
        text = rest;
    }
}

/// The inside of the only answer block that ends a text; otherwise the text without answer tags at its ends.
fn without_tags(text: &str) -> &str {
    let block = BLOCK.captures(text).and_then(|found| found.get(1)).map(|inside| inside.as_str());
    if let Some(inside) = block.filter(|inside| !TAG.is_match(inside)) {
        return inside;
    }
    let text = START.find(text).map_or(text, |tag| &text[tag.end()..]);
    END.find(text).map_or(text, |tag| &text[..tag.start()])
}

/// Why no answer can match a truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unmatchable {
    /// Nothing of it is left in the normal form.
    #[error("has no text")]
    Blank,
    /// It has no letter, digit or picture.
    #[error("is only punctuation")]
    Punctuation,
    /// It contains a tag, which would end the answer block that it stands in.
    #[error("contains a tag of the response")]
    Tag,
    /// It contains a token that steers the model and is no text.
    #[error("contains a control token of the model")]
    Token,
    /// It contains a character that nobody can type or see, such as a zero byte.
    #[error("contains a control character")]
    Control,
}

/// Returns why no answer can match a truth, or `None` if one can.
///
/// ```
/// use fieldmark_data::{Unmatchable, unmatchable};
/// assert_eq!(unmatchable("Lime"), None);
/// assert_eq!(unmatchable("<answer> </answer>"), Some(Unmatchable::Blank));
/// assert_eq!(unmatchable("?!"), Some(Unmatchable::Punctuation));
/// ```
pub fn unmatchable(truth: &str) -> Option<Unmatchable> {
    let form = normal_form(truth);
    if form.is_empty() {
        Some(Unmatchable::Blank)
    } else if TAG.is_match(&form) {
        Some(Unmatchable::Tag)
    } else if control_token(truth).is_some() {
        Some(Unmatchable::Token)
    } else if form.chars().any(char::is_control) {
        Some(Unmatchable::Control)
    } else if !form.chars().any(|c| c.is_alphanumeric() || is_picture(c)) {
        Some(Unmatchable::Punctuation)
    } else {
        None
    }
}

/// The first control token of Qwen2.5-VL in a text. The tokenizer takes its name for the token itself: in a prompt it
/// would end a turn or stand for an image, and in an answer it would be learned.
pub(crate) fn control_token(text: &str) -> Option<&'static str> {
    const TOKENS: [&str; 14] = [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|object_ref_start|>",
        "<|object_ref_end|>",
        "<|box_start|>",
        "<|box_end|>",
        "<|quad_start|>",
        "<|quad_end|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|vision_pad|>",
        "<|image_pad|>",
        "<|video_pad|>",
    ];
    TOKENS.into_iter().find(|token| text.contains(token))
}

/// Arrows, symbols and emoji.
fn is_picture(c: char) -> bool {
    ('\u{2190}'..='\u{2bff}').contains(&c) || ('\u{1f000}'..='\u{1faff}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_keeps_its_name_alone() {
        for (cell, truth) in [
            ("Lime", "Lime"),
            (" Key  Lime\r\n", "Key  Lime"),
            ("<answer>Lime</answer>", "Lime"),
            ("\n<answer>\nLime </answer> ", "Lime"),
            ("<Answer>Lime</ANSWER>", "Lime"),
            ("< answer >Lime< / answer >", "Lime"),
            ("<answer>Lime", "Lime"),
            ("Lime</answer>", "Lime"),
            ("<answer><answer>Lime</answer></answer>", "Lime"),
            ("<think>green</think> <answer>Lime</answer>", "Lime"),
            ("Jalapen\u{303}o", "Jalape\u{f1}o"),
            ("<answer></answer>", ""),
            ("<answer>a</answer> or <answer>b</answer>", "a</answer> or <answer>b"),
            ("F-16A / B", "F-16A / B"),
        ] {
            assert_eq!(truth_text(cell), truth, "{cell:?}");
            assert_eq!(normal_form(&truth_text(cell)), normal_form(cell), "{cell:?}");
        }
    }

    #[test]
    fn truths_without_an_answer_are_told() {
        use Unmatchable::{Blank, Control, Punctuation, Tag, Token};
        for (truth, expected) in [
            ("Lime", None),
            ("7", None),
            ("\u{9752}\u{67e0}", None),
            ("\u{1f34b}", None),
            ("C++", None),
            ("", Some(Blank)),
            (" _\n", Some(Blank)),
            ("\u{200b}\u{feff}", Some(Blank)),
            ("<answer></answer>", Some(Blank)),
            ("?", Some(Punctuation)),
            ("\u{2014} \u{2026}", Some(Punctuation)),
            ("a</answer> or <answer>b", Some(Tag)),
            ("the </think> tag", Some(Tag)),
            ("Lime<|im_end|>", Some(Token)),
            ("Li\0me", Some(Control)),
            ("Lime\u{7f}", Some(Control)),
            ("Key\tLime", None),
        ] {
            assert_eq!(unmatchable(truth), expected, "{truth:?}");
        }
    }
}

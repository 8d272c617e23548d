//! The rules of the released reward `r = 0.9 accuracy + 0.1 format`, `cls_thinking.py`. First, white space around `<`,
//! `>` and `/` is removed, from the response only. Its accuracy, here [`Inclusion`]: the first answer block contains the
//! lower-cased truth. Format: the whole response is one think block, then one answer block. White space means Python's
//! (`\s` and `str.strip`): Unicode's White_Space and the separators U+001C to U+001F.

use std::{borrow::Cow, sync::LazyLock};

use fieldmark_data::{is_python_space, nfc, plain_text};
use regex::Regex;

use super::input::{Reward, RewardInput};

fn pattern(source: &str) -> Regex {
    Regex::new(source).expect("a constant pattern, covered by tests")
}

static TIGHTEN: LazyLock<Regex> = LazyLock::new(|| pattern(r"[\s\x1c-\x1f]*([<>/])[\s\x1c-\x1f]*"));
static WELL_FORMED: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?s)\A<think>.*?</think>[\s\x1c-\x1f]*<answer>.*?</answer>\z"));
static ANSWER: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?s)<answer>(.*?)</answer>"));

fn tighten(response: &str) -> Cow<'_, str> {
    TIGHTEN.replace_all(response, "$1")
}

/// 1 if the first `<answer>` block (stripped, lower-cased) contains the lower-cased truth or an alias of it, else 0.
///
/// It pays for a list of names, and for further answer blocks: [`Accuracy`](super::Accuracy) does not. Every closed block
/// contains an empty truth. A truth with white space around `/` never matches, because that white space is removed from
/// the response only. Reference: `accuracy_reward` of the released reward. Deviation: each letter and mark has one form
/// ([`plain_text`]), such as Unicode's composed one, the only one that a model can write.
#[derive(Debug, Clone, Copy, Default)]
pub struct Inclusion;

impl Reward for Inclusion {
    fn score(&self, input: &RewardInput<'_>) -> f64 {
        let text = tighten(input.response);
        let Some(block) = ANSWER.captures(&text) else { return 0.0 };
        let plain = |text: &str| nfc(&plain_text(text).to_lowercase());
        let answer = plain(block[1].trim_matches(is_python_space));
        f64::from(input.names().any(|name| answer.contains(&plain(name))))
    }
}

/// 1 if the whole response is a think block, optional white space, and an answer block, else 0.
///
/// White space around the response is ignored. Tags are case-sensitive. Reference: `format_reward` of the released
/// reward.
#[derive(Debug, Clone, Copy, Default)]
pub struct Format;

impl Reward for Format {
    fn score(&self, input: &RewardInput<'_>) -> f64 {
        f64::from(WELL_FORMED.is_match(&tighten(input.response)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inclusion(response: &str, truth: &str) -> f64 {
        Inclusion.score(&RewardInput::new(response, truth))
    }

    // The expected values are those of the reference's Python expressions, run on these strings.
    #[test]
    fn white_space_and_case_are_pythons() {
        let format = |response: &str| Format.score(&RewardInput::new(response, "ash"));
        for space in ["\u{1c}", "\u{1f}", "\u{85}", "\u{a0}", "\u{2007}", "\u{3000}", "\x0b"] {
            let response = format!("{space}<think>a</think>{space}<answer>{space}Ash{space}</answer>");
            assert_eq!(format(&response), 1.0, "{space:?}");
            assert_eq!(inclusion(&response, "ash"), 1.0, "{space:?}");
        }
        for other in ["\u{200b}", "\u{180e}", "\u{feff}", "\u{1b}", "\u{2060}"] {
            let response = format!("<think>a</think>{other}<answer>Ash</answer>");
            assert_eq!(format(&response), 0.0, "{other:?}");
        }
        let answer = |text: &str| format!("<answer>{text}</answer>");
        assert_eq!(inclusion(&answer("ΟΔΟΣ"), "οδος"), 1.0);
        assert_eq!(inclusion(&answer("ΟΔΟΣ"), "οδοσ"), 0.0);
        assert_eq!(inclusion(&answer("STRASSE"), "straße"), 0.0);
        assert_eq!(inclusion(&answer("border collie"), "Collie"), 1.0);
        assert_eq!(inclusion(&answer("anything"), ""), 1.0);
    }

    #[test]
    fn either_form_of_unicode_and_every_alias_is_the_name() {
        let answer = |text: &str| format!("<answer>{text}</answer>");
        assert_eq!(inclusion(&answer("a Jalape\u{f1}o"), "Jalapen\u{303}o"), 1.0);
        assert_eq!(inclusion(&answer("a Jalapen\u{303}o"), "Jalape\u{f1}o"), 1.0);
        let aliases = ["Granny".to_owned()];
        let score = |text: &str| Inclusion.score(&RewardInput::new(text, "Granny Smith").with_aliases(&aliases));
        assert_eq!((score(&answer("a granny")), score(&answer("a gran"))), (1.0, 0.0));
    }
}

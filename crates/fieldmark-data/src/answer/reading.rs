//! Reads the answer in a response: `<think>…</think><answer>Lime</answer>`. Tags are case-sensitive, and white space in
//! and around them does not count, as in the released reward.

use std::sync::LazyLock;

use regex::Regex;

use super::alike::is_python_space;

static TAG: LazyLock<Regex> = LazyLock::new(|| {
    let space = r"[\s\x1c-\x1f]*";
    let source = format!("<{space}(/?){space}(think|answer){space}>");
    Regex::new(&source).expect("a constant pattern, covered by tests")
});

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    ThinkOpen,
    ThinkClose,
    AnswerOpen,
    AnswerClose,
}

struct Tag {
    kind: Kind,
    start: usize,
    end: usize,
}

/// What a response answers, and whether it has the form that it should have.
///
/// What is between `<think>` and the next `</think>` is thought, also if a prompt has opened it already, so that the response
/// begins inside. Outside of it, an answer block is an `<answer>` with the next `</answer>`.
///
/// ```
/// use fieldmark_data::AnswerReading;
/// let reading = AnswerReading::of("<think>green</think><answer> Lime </answer>");
/// assert!(reading.is_well_formed());
/// assert_eq!((reading.blocks(), reading.answer()), (&["Lime"][..], Some("Lime")));
///
/// let list = AnswerReading::of("<think>green</think><answer>Lime</answer><answer>Lemon</answer>");
/// assert!(!list.is_well_formed());
/// assert_eq!((list.blocks().len(), list.answer()), (2, None));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerReading<'a> {
    blocks: Vec<&'a str>,
    stray: bool,
    well_formed: bool,
    answer_only: bool,
}

impl<'a> AnswerReading<'a> {
    /// Reads a response.
    pub fn of(response: &'a str) -> Self {
        let tags: Vec<Tag> = TAG.captures_iter(response).filter_map(|found| tag(&found)).collect();
        let closes = |from: usize| tags[from..].iter().any(|tag| tag.kind == Kind::ThinkClose);
        let first = tags.iter().find(|tag| matches!(tag.kind, Kind::ThinkOpen | Kind::ThinkClose));
        let mut thinks = first.is_some_and(|tag| tag.kind == Kind::ThinkClose);
        let (mut blocks, mut stray, mut open) = (Vec::new(), false, None);
        for (place, tag) in tags.iter().enumerate() {
            match (tag.kind, open) {
                // A thought that is never closed ends nowhere, so that it holds nothing.
                (Kind::ThinkOpen, _) => thinks = closes(place),
                (Kind::ThinkClose, _) => thinks = false,
                _ if thinks => {}
                (Kind::AnswerOpen, before) => {
                    stray |= before.is_some();
                    open = Some(tag.end);
                }
                (Kind::AnswerClose, Some(start)) => {
                    blocks.push(response[start..tag.start].trim_matches(is_python_space));
                    open = None;
                }
                (Kind::AnswerClose, None) => stray = true,
            }
        }
        stray |= open.is_some();
        let [well_formed, answer_only] = [is_well_formed(response, &tags), is_answer_only(response, &tags)];
        Self { blocks, stray, well_formed, answer_only }
    }

    /// The texts of the answer blocks outside of the thought, without white space at their ends.
    pub fn blocks(&self) -> &[&'a str] {
        &self.blocks
    }

    /// The one answer: the text of the only answer block outside of the thought. `None` if there is no block or several, if
    /// the only one is blank, or if an answer tag is left over, as in `<answer><answer>Lime</answer>`.
    pub fn answer(&self) -> Option<&'a str> {
        match self.blocks[..] {
            [answer] if !answer.is_empty() && !self.stray => Some(answer),
            _ => None,
        }
    }

    /// Whether the whole response is one think block and one answer block, with no other tag of the two kinds, not even
    /// in the thought, and nothing but white space around them.
    pub fn is_well_formed(&self) -> bool {
        self.well_formed
    }

    /// Whether the whole response is one answer block, with no other tag of the two kinds and nothing but white space
    /// around it.
    pub fn is_answer_only(&self) -> bool {
        self.answer_only
    }
}

fn tag(found: &regex::Captures<'_>) -> Option<Tag> {
    let whole = found.get(0)?;
    let kind = match (&found[1], &found[2]) {
        ("", "think") => Kind::ThinkOpen,
        ("/", "think") => Kind::ThinkClose,
        ("", _) => Kind::AnswerOpen,
        _ => Kind::AnswerClose,
    };
    Some(Tag { kind, start: whole.start(), end: whole.end() })
}

fn blank(text: &str) -> bool {
    text.chars().all(is_python_space)
}

fn is_answer_only(response: &str, tags: &[Tag]) -> bool {
    let [answer, end] = tags else { return false };
    [answer.kind, end.kind] == [Kind::AnswerOpen, Kind::AnswerClose]
        && blank(&response[..answer.start])
        && blank(&response[end.end..])
}

fn is_well_formed(response: &str, tags: &[Tag]) -> bool {
    let [think, thought, answer, end] = tags else { return false };
    let kinds = [think.kind, thought.kind, answer.kind, end.kind];
    kinds == [Kind::ThinkOpen, Kind::ThinkClose, Kind::AnswerOpen, Kind::AnswerClose]
        && [&response[..think.start], &response[thought.end..answer.start], &response[end.end..]].into_iter().all(blank)
}

/// The one answer of a response; see [`AnswerReading::answer`].
///
/// ```
/// use fieldmark_data::strict_answer;
/// assert_eq!(strict_answer("<think>a or b</think><answer> b </answer>"), Some("b"));
/// assert_eq!(strict_answer("<think><answer>a</answer></think>"), None);
/// ```
pub fn strict_answer(response: &str) -> Option<&str> {
    AnswerReading::of(response).answer()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_of_response() {
        // response, number of blocks, the one answer, well-formed
        for (response, blocks, answer, well_formed) in [
            ("<think>x</think><answer>Lime</answer>", 1, Some("Lime"), true),
            (" <think>x</think>\n<answer> Lime\n</answer>\u{1c}\n", 1, Some("Lime"), true),
            ("< think >x</ think >< answer >Lime< / answer >", 1, Some("Lime"), true),
            ("<think></think><answer>Lime</answer>", 1, Some("Lime"), true),
            ("<think>x</think><answer> </answer>", 1, None, true),
            ("<answer> Lime\n</answer>", 1, Some("Lime"), false),
            ("Well: <answer>Lime</answer>", 1, Some("Lime"), false),
            ("<answer>Lime</answer>.", 1, Some("Lime"), false),
            ("Well: <think>x</think><answer>Lime</answer>", 1, Some("Lime"), false),
            ("<think>x</think>So: <answer>Lime</answer>", 1, Some("Lime"), false),
            ("<think>x</think><answer>Lime</answer>.", 1, Some("Lime"), false),
            ("<think>x<answer>Lime</answer>", 1, Some("Lime"), false),
            ("x</think><answer>Lime</answer>", 1, Some("Lime"), false),
            ("<think>x</think><think>y</think><answer>Lime</answer>", 1, Some("Lime"), false),
            ("<think>not <answer>a</answer></think><answer>b</answer>", 1, Some("b"), false),
            ("<think>x</think><answer>a</answer><answer>b</answer>", 2, None, false),
            ("<think>x</think><answer>a</answer><answer>a</answer>", 2, None, false),
            ("<think>x</think><answer>a</answer><think>y</think><answer>b</answer>", 2, None, false),
            ("<answer>a</answer><think>y</think><answer>b</answer>", 2, None, false),
            ("<answer>a</answer></think><answer>b</answer>", 1, Some("b"), false),
            ("<think>x</think><answer><answer>a</answer>", 1, None, false),
            ("<think>x</think><answer>a</answer><answer>b", 1, None, false),
            ("<think>x</think><answer>a</answer></answer>", 1, None, false),
            ("</answer><answer>a</answer>", 1, None, false),
            ("<think><answer>a</answer></think>", 0, None, false),
            ("<answer>a", 0, None, false),
            ("a</answer>", 0, None, false),
            ("</answer><answer>", 0, None, false),
            ("<Answer>a</Answer>", 0, None, false),
            ("Lime", 0, None, false),
            ("", 0, None, false),
        ] {
            let reading = AnswerReading::of(response);
            assert_eq!(reading.blocks().len(), blocks, "{response}");
            assert_eq!(reading.answer(), answer, "{response}");
            assert_eq!(reading.is_well_formed(), well_formed, "{response}");
            assert_eq!(strict_answer(response), answer, "{response}");
            assert_eq!(reading.is_answer_only(), response == "<answer> Lime\n</answer>", "{response}");
        }
    }
}

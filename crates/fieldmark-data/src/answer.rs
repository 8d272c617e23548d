//! Finds the answer in a response, and brings answers and truths into a normal form for comparison.
//!
//! Rewards and the strict matching of the evaluation use both; the released matching rules are elsewhere. White space
//! is Python's (`str.split`, `str.strip`).

/// Returns true for Python's white space (`str.isspace`): Unicode white space and the separators U+001C to U+001F.
pub fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// The normal form of a text: lower case; one blank for each `_` and each run of white space; no blanks around `<`, `>`
/// and `/` or at the ends.
///
/// ```
/// assert_eq!(fieldmark_data::normal_form(" Black_Footed  Albatross"), "black footed albatross");
/// assert_eq!(fieldmark_data::normal_form("F-16A / B"), "f-16a/b");
/// ```
pub fn normal_form(text: &str) -> String {
    let lower = text.to_lowercase().replace('_', " ");
    let words = lower.split(is_python_space).filter(|word| !word.is_empty());
    let mut out = words.collect::<Vec<_>>().join(" ");
    for mark in ["<", ">", "/"] {
        out = out.replace(&format!(" {mark}"), mark).replace(&format!("{mark} "), mark);
    }
    out
}

/// The text of the last complete `<answer>` block without white space at its ends, or `None` if there is no such block
/// or it is blank. A block inside a think block does not count.
///
/// ```
/// use fieldmark_data::strict_answer;
/// assert_eq!(strict_answer("<think>a or b</think><answer> b </answer>"), Some("b"));
/// assert_eq!(strict_answer("<think><answer>a</answer></think>"), None);
/// ```
pub fn strict_answer(response: &str) -> Option<&str> {
    const OPEN: &str = "<answer>";
    const CLOSE: &str = "</answer>";
    let end = response.rfind(CLOSE)?;
    let start = response[..end].rfind(OPEN)? + OPEN.len();
    let block = &response[start..end];
    let in_thought = response[end..].contains("</think>");
    Some(block.trim_matches(is_python_space))
        .filter(|answer| !answer.is_empty() && !block.contains(CLOSE) && !in_thought)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_meet_in_the_normal_form() {
        for (a, b) in [
            ("42 / 72", "42/72"),
            ("F-16A /B", "f-16a/b"),
            ("Black_Footed  Albatross\n", " black footed albatross"),
            ("a < b", "A<B"),
            ("a\u{1d}b", "a b"),
        ] {
            assert_eq!(normal_form(a), normal_form(b));
        }
        assert_eq!(normal_form("_"), "");
        assert_ne!(normal_form("ab"), normal_form("a b"));
    }

    #[test]
    fn the_last_whole_block_outside_the_thought() {
        for (response, expected) in [
            ("<answer> Lime\n</answer>", Some("Lime")),
            ("<answer>a</answer> or <answer>b</answer>", Some("b")),
            ("<think>not <answer>a</answer></think><answer>b</answer>", Some("b")),
            ("<think><answer>a</answer></think>", None),
            ("<answer>a", None),
            ("a</answer>", None),
            ("</answer><answer>", None),
            ("</answer><answer>a</answer>", Some("a")),
            ("<answer>a</answer></answer>", None),
            ("<answer><answer>a</answer>", Some("a")),
            ("<answer> </answer>", None),
            ("<Answer>a</Answer>", None),
            ("", None),
        ] {
            assert_eq!(strict_answer(response), expected, "{response}");
        }
    }
}

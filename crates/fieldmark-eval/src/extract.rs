//! Extracts the answer from a model's output, by the released rule and by the strict one.
//! Released rule: `re.search(r"<answer>(.*)</answer>", output, re.DOTALL)` of `eval/evaluation.py`, stripped.

use crate::text::strip;

const OPEN: &str = "<answer>";
const CLOSE: &str = "</answer>";

/// Returns the text from the first opening tag to the last closing tag, stripped; `None` without such a pair. As in the
/// released code, several answer blocks become one text with the tags between them.
pub fn official(output: &str) -> Option<&str> {
    let start = output.find(OPEN)? + OPEN.len();
    let length = output[start..].rfind(CLOSE)?;
    Some(strip(&output[start..start + length]))
}

/// Returns the one answer of an output, by the reader that the rewards use too.
pub use fieldmark_data::strict_answer as strict;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_of_output() {
        // output, official (what Python's re gives), strict
        for (output, expected_official, expected_strict) in [
            ("<answer> Lime\n</answer>", Some("Lime"), Some("Lime")),
            ("<answer>a</answer> or <answer>b</answer>", Some("a</answer> or <answer>b"), None),
            ("<think>not <answer>a</answer></think><answer>b</answer>", Some("a</answer></think><answer>b"), Some("b")),
            ("<think><answer>a</answer></think>", Some("a"), None),
            ("<answer>a", None, None),
            ("a</answer>", None, None),
            ("</answer><answer>", None, None),
            ("</answer><answer>a</answer>", Some("a"), None),
            ("<answer>a</answer></answer>", Some("a</answer>"), None),
            ("<answer><answer>a</answer>", Some("<answer>a"), None),
            ("<answer> </answer>", Some(""), None),
            ("<Answer>a</Answer>", None, None),
            ("", None, None),
        ] {
            assert_eq!(official(output), expected_official, "{output}");
            assert_eq!(strict(output), expected_strict, "{output}");
        }
    }
}

//! Open world: text inclusion, as in the released `eval/evaluation.py`. As in the released code, car names lose their
//! last two words, body type and year. Relative similarity (equation 5) needs a text encoder and is not computed here.

use crate::extract;
use crate::text::{normalise, occurrences, words};

const CAR: &str = "car";

/// The released rule: an output is right if its lower-cased answer contains the lower-cased truth. If the answer is
/// missing or empty, the whole output counts, including the thought. `_` in the truth is a blank, but not for cars and
/// not in the answer. A car name of at most two words is contained in everything.
pub fn official(output: &str, ground_truth: &str, super_category: &str) -> bool {
    let text = extract::official(output).filter(|answer| !answer.is_empty()).unwrap_or(output);
    let truth = ground_truth.to_lowercase();
    let wanted = if super_category == CAR {
        let name: Vec<&str> = words(&truth).collect();
        name[..name.len().saturating_sub(2)].join(" ")
    } else {
        truth.replace('_', " ")
    };
    text.to_lowercase().contains(&wanted)
}

/// The strict rule: an output is right if it has an answer that contains the truth as a whole phrase, both in normal
/// form. Car names of more than two words lose body type and year.
pub fn strict(output: &str, ground_truth: &str, super_category: &str) -> bool {
    let truth = normalise(ground_truth);
    let mut name: Vec<&str> = words(&truth).collect();
    if super_category == CAR && name.len() > 2 {
        name.truncate(name.len() - 2);
    }
    let wanted = name.join(" ");
    extract::strict(output).is_some_and(|answer| !occurrences(&normalise(answer), &wanted).is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_rules_case_by_case() {
        // output, truth, super-category, official, strict
        for (output, truth, category, by_official, by_strict) in [
            ("<answer>A royal gala apple.</answer>", "Royal Gala", "apple", true, true),
            ("<answer>gala</answer>", "Royal Gala", "apple", false, false),
            ("I think Royal Gala", "Royal Gala", "apple", true, false),
            ("<think>Royal Gala?</think><answer>Pink Lady</answer>", "Royal Gala", "apple", false, false),
            ("<think>Royal Gala?</think><answer> </answer>", "Royal Gala", "apple", true, false),
            ("<answer>royal_gala</answer>", "Royal_Gala", "apple", false, true),
            ("<answer>royal gala</answer>", "Royal_Gala", "apple", true, true),
            ("<answer>primrose</answer>", "rose", "flower", true, false),
            ("<answer>an Audi S4</answer>", "Audi S4 Sedan 2012", "car", true, true),
            ("<answer>an Audi S4</answer>", "Audi S4 Sedan 2012", "object", false, false),
            ("<answer>an Audi S4</answer>", "Audi S4", "car", true, true),
            ("<answer>a tractor</answer>", "Audi S4", "car", true, false),
            ("<answer>audi_s4</answer>", "Audi_S4 Sedan 2012", "car", true, true),
            ("<answer>42/72</answer>", "42 / 72", "aircraft", false, true),
            ("", "Royal Gala", "apple", false, false),
        ] {
            assert_eq!(official(output, truth, category), by_official, "{output} {truth}");
            assert_eq!(strict(output, truth, category), by_strict, "{output} {truth}");
        }
    }
}

//! Open world: text inclusion, as in the released `eval/evaluation.py`. As in the released code, car names lose their
//! last two words, body type and year. Relative similarity (equation 5) needs a text encoder and is not computed here.

use fieldmark_data::{Aliases, nfc, plain_text, truth_text};

use crate::extract;
use crate::text::{Answer, normalise, words};

const CAR: &str = "car";

/// The released rule: an output is right if its lower-cased answer contains the lower-cased truth or an alias of it. If
/// the answer is missing or empty, the whole output counts, including the thought. `_` in the truth is a blank, but not
/// for cars and not in the answer. A car name of at most two words is contained in everything.
///
/// Deviation from the released code: white space and answer tags around the truth do not count ([`truth_text`]), and
/// each letter and mark has one form ([`plain_text`]). That changes nothing for the released rows, which have no aliases
/// either.
pub fn official(output: &str, ground_truth: &str, super_category: &str, aliases: &Aliases) -> bool {
    let text = extract::official(output).filter(|answer| !answer.is_empty()).unwrap_or(output);
    let plain = |text: &str| nfc(&plain_text(text).to_lowercase());
    let truth = plain(&truth_text(ground_truth));
    let wanted = if super_category == CAR {
        let name: Vec<&str> = words(&truth).collect();
        name[..name.len().saturating_sub(2)].join(" ")
    } else {
        truth.replace('_', " ")
    };
    let others = aliases.of(ground_truth).iter().map(|alias| plain(alias).replace('_', " "));
    let text = plain(text);
    std::iter::once(wanted).chain(others).any(|wanted| text.contains(&wanted))
}

/// The strict rule: an output is right if it has an answer that contains the truth or an alias of it as a whole phrase,
/// all in normal form, in a sentence that does not deny it. Car names of more than two words lose body type and year.
pub fn strict(output: &str, ground_truth: &str, super_category: &str, aliases: &Aliases) -> bool {
    let truth = normalise(ground_truth);
    let mut name: Vec<&str> = words(&truth).collect();
    if super_category == CAR && name.len() > 2 {
        name.truncate(name.len() - 2);
    }
    let wanted = name.join(" ");
    let Some(answer) = extract::strict(output).map(Answer::new) else { return false };
    let names = std::iter::once(wanted).chain(aliases.of(ground_truth).iter().cloned());
    let places: Vec<_> = names.flat_map(|name| answer.places(&name)).collect();
    places.iter().any(|place| !answer.denies(place, &places))
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
            ("<answer>not a Royal Gala</answer>", "Royal Gala", "apple", true, false),
            ("<answer>a Pink Lady rather than a Royal Gala</answer>", "Royal Gala", "apple", true, false),
            ("<answer>a Pink Lady rather than a Royal Gala</answer>", "Pink Lady", "apple", true, true),
            ("<answer>Jalape\u{f1}o</answer>", "Jalapen\u{303}o", "pepper", true, true),
            ("<answer>Cook\u{2019}s Petrel</answer>", "Cook's Petrel\n", "bird", true, true),
            ("<answer>这是青柠。</answer>", "青柠", "fruit", true, true),
            ("<answer>这不是青柠。</answer>", "青柠", "fruit", true, false),
            ("<answer>an apfel, the Gala</answer>", "Royal Gala", "apple", false, false),
            ("<answer>Royal Gala</answer><answer>Pink Lady</answer>", "Royal Gala", "apple", true, false),
        ] {
            let none = Aliases::default();
            assert_eq!(official(output, truth, category, &none), by_official, "{output} {truth}");
            assert_eq!(strict(output, truth, category, &none), by_strict, "{output} {truth}");
        }
    }

    #[test]
    fn an_alias_is_as_right_as_the_name() {
        let mut aliases = Aliases::default();
        aliases.add("Royal Gala", ["Tenroy"]);
        aliases.add("Audi S4 Sedan 2012", ["Audi B8"]);
        for (answer, truth, category, expected) in [
            ("a tenroy apple", "royal_gala", "apple", true),
            ("not a Tenroy", "Royal Gala", "apple", false),
            ("an audi b8", "Audi S4 Sedan 2012", "car", true),
            ("an audi", "Audi S4 Sedan 2012", "car", false),
        ] {
            let output = format!("<answer>{answer}</answer>");
            assert_eq!(strict(&output, truth, category, &aliases), expected, "{answer}");
            assert!(!expected || official(&output, truth, category, &aliases), "{answer}");
        }
    }
}

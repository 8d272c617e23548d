//! Closed world: the order in which options are shown, and whether an output is right.
//! The released rows list the truth first and `eval/evaluation.py` scores by inclusion. Ours shuffles the options and
//! requires exactly one name.

use std::ops::Range;

use fieldmark_data::{Aliases, Split, nfc, plain_text, truth_text};
use fieldmark_stream::StreamKey;
use serde::{Deserialize, Serialize};

use crate::extract;
use crate::text::{Answer, normalise};

/// The order in which a row's options are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptionOrder {
    /// The order of the file; in the released files the truth is always first.
    Released,
    /// Shuffled separately for each row.
    Shuffled {
        /// The seed of the evaluation.
        seed: u64,
    },
    /// The shuffled order rotated to the left: over all rotations, each option is in each place once.
    Rotated {
        /// The seed of the evaluation.
        seed: u64,
        /// The number of places.
        by: usize,
    },
}

impl OptionOrder {
    /// Returns the options of a row in this order. Data set, split and row number select the random stream.
    pub fn arrange(self, options: &[String], dataset: &str, split: Split, row: usize) -> Vec<String> {
        let mut shown = options.to_vec();
        let (seed, by) = match self {
            Self::Released => return shown,
            Self::Shuffled { seed } => (seed, 0),
            Self::Rotated { seed, by } => (seed, by),
        };
        let key = StreamKey::new(seed).word("option order").word(dataset);
        let key = key.word(&split.to_string()).number(row as u64);
        key.stream().shuffle(&mut shown);
        if !shown.is_empty() {
            let turn = by % shown.len();
            shown.rotate_left(turn);
        }
        shown
    }
}

/// Returns all rotations of `count` options; their mean accuracy is the all-rotations accuracy.
pub fn rotations(seed: u64, count: usize) -> impl Iterator<Item = OptionOrder> {
    (0..count).map(move |by| OptionOrder::Rotated { seed, by })
}

/// The released rule: an output is right if its answer contains the truth or an alias of it, lower-cased with `_` as a
/// blank. A missing or empty answer block is wrong. An answer that lists all options is right.
///
/// Deviation from the released code: white space and answer tags around the truth do not count ([`truth_text`]), and
/// each letter and mark has one form ([`plain_text`]). That changes nothing for the released rows, which have no aliases
/// either.
pub fn official(output: &str, ground_truth: &str, aliases: &Aliases) -> bool {
    let plain = |text: &str| nfc(&plain_text(text).to_lowercase()).replace('_', " ");
    let mut names = std::iter::once(ground_truth).chain(aliases.of(ground_truth).iter().map(String::as_str));
    extract::official(output)
        .filter(|answer| !answer.is_empty())
        .map(plain)
        .is_some_and(|answer| names.any(|name| answer.contains(&plain(&truth_text(name)))))
}

/// The strict rule: the answer names exactly one option, and that option is the truth.
///
/// "Border Collie" does not name "Collie"; "Collie or Border Collie" names both; "a Komondor, not a Collie" names the
/// Komondor alone. An answer names an option if the option or an alias of it is a whole phrase of the normalised answer,
/// outside any longer name of an option, and the sentence does not deny it.
pub fn strict(output: &str, ground_truth: &str, options: &[String], aliases: &Aliases) -> bool {
    let truth = normalise(ground_truth);
    extract::strict(output).is_some_and(|answer| {
        let named = named(answer, options, aliases);
        !named.is_empty() && named.iter().all(|option| normalise(option) == truth)
    })
}

/// Returns the options that an answer names, in the order of `options`.
fn named<'a>(answer: &str, options: &'a [String], aliases: &Aliases) -> Vec<&'a String> {
    let answer = Answer::new(answer);
    let names = |option: &'a String| std::iter::once(option).chain(aliases.of(option));
    let mut found: Vec<Vec<Range<usize>>> =
        options.iter().map(|option| names(option).flat_map(|name| answer.places(name)).collect()).collect();
    let all = found.concat();
    let inside_longer = |range: &Range<usize>| {
        all.iter().any(|other| other.start <= range.start && range.end <= other.end && other.len() > range.len())
    };
    found.iter_mut().for_each(|places| places.retain(|place| !inside_longer(place)));
    let names: Vec<Range<usize>> = found.concat();
    let counts = |place: &Range<usize>| !answer.denies(place, &names);
    options.iter().zip(&found).filter(|(_, ranges)| ranges.iter().any(counts)).map(|(option, _)| option).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn options(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn arrange(order: OptionOrder, row: usize) -> Vec<String> {
        order.arrange(&options(&["A", "B", "C", "D"]), "bird", Split::Seen, row)
    }

    #[test]
    fn orders_are_even_and_the_seeds() {
        let shuffled = OptionOrder::Shuffled { seed: 42 };
        let mut places = [0usize; 4];
        for row in 0..8000 {
            let shown = arrange(shuffled, row);
            places[shown.iter().position(|name| name == "A").unwrap()] += 1;
        }
        assert!(places.iter().all(|&count| count.abs_diff(2000) < 150), "{places:?}");
        assert_eq!(arrange(shuffled, 5), arrange(shuffled, 5));
        let other = OptionOrder::Shuffled { seed: 43 };
        let moved = (0..100).filter(|&row| arrange(other, row) != arrange(shuffled, row)).count();
        assert!(moved > 80, "{moved}");
        assert_eq!(arrange(OptionOrder::Released, 5), ["A", "B", "C", "D"]);
    }

    #[test]
    fn rotations_put_each_option_in_each_place_once() {
        let shown: Vec<_> = rotations(42, 4).map(|order| arrange(order, 7)).collect();
        assert_eq!(shown[0], arrange(OptionOrder::Shuffled { seed: 42 }, 7));
        for place in 0..4 {
            let names: BTreeSet<_> = shown.iter().map(|order| &order[place]).collect();
            assert_eq!(names.len(), 4);
        }
        assert!(OptionOrder::Rotated { seed: 1, by: 3 }.arrange(&[], "x", Split::Seen, 1).is_empty());
    }

    #[test]
    fn the_two_rules_differ_where_they_should() {
        let none = Aliases::default();
        let dogs = options(&["Collie", "Border Collie", "Komondor", "F-16A/B"]);
        // answer, truth, official, strict
        for (answer, truth, by_official, by_strict) in [
            ("Collie", "Collie", true, true),
            ("Border Collie", "Collie", true, false),
            ("Border Collie", "Border Collie", true, true),
            ("border_collie.", "Border Collie", true, true),
            ("Collie or Border Collie", "Collie", true, false),
            ("Collie, Border Collie, Komondor", "Komondor", true, false),
            ("It is a Collie", "Collie", true, true),
            ("Collies", "Collie", true, false),
            ("F-16A / B", "F-16A/B", false, true),
            ("Komondor", "Collie", false, false),
            ("", "Collie", false, false),
            ("It is a Komondor, not a Collie", "Komondor", true, true),
            ("It is a Komondor, not a Collie", "Collie", true, false),
            ("It isn\u{2019}t a Collie", "Collie", true, false),
            ("F\u{2011}16A/B", "F-16A/B", true, true),
        ] {
            let output = format!("<think>Collie</think><answer>{answer}</answer>");
            assert_eq!(official(&output, truth, &none), by_official, "{answer}");
            assert_eq!(strict(&output, truth, &dogs, &none), by_strict, "{answer}");
        }
        assert!(!official("Collie", "Collie", &none) && !strict("Collie", "Collie", &dogs, &none));
        // Two answer blocks are no answer.
        let two = "<think>x</think><answer>Komondor</answer><answer>Collie</answer>";
        assert!(official(two, "Collie", &none) && !strict(two, "Collie", &dogs, &none));
    }

    #[test]
    fn either_form_of_unicode_is_the_name() {
        let none = Aliases::default();
        for truth in ["Lime\n", "<answer>Lime</answer>", " lime"] {
            let output = "<answer>a Lime</answer>";
            assert!(official(output, truth, &none) && strict(output, truth, &options(&["Lime", "Fig"]), &none));
        }
        let (composed, decomposed) = ("Jalape\u{f1}o", "Jalapen\u{303}o");
        for (truth, answer) in [(composed, decomposed), (decomposed, composed), (decomposed, decomposed)] {
            let output = format!("<answer>{answer}</answer>");
            assert!(official(&output, truth, &none) && strict(&output, truth, &options(&[truth, "Lime"]), &none));
        }
    }

    #[test]
    fn an_alias_names_its_option() {
        let (fruit, mut aliases) = (options(&["Granny Smith", "Lime", "Lemon"]), Aliases::default());
        aliases.add("Granny Smith", ["Granny"]);
        aliases.add("Lime", ["Limette"]);
        for (answer, truth, by_official, by_strict) in [
            ("a granny", "Granny Smith", true, true),
            ("a Granny Smith", "Granny Smith", true, true),
            ("Limette or Granny", "Granny Smith", true, false),
            ("Limette", "Granny Smith", false, false),
            ("Limette", "Lemon", false, false),
            ("Lemon, not a Limette", "Lemon", true, true),
        ] {
            let output = format!("<answer>{answer}</answer>");
            assert_eq!(official(&output, truth, &aliases), by_official, "{answer}");
            assert_eq!(strict(&output, truth, &fruit, &aliases), by_strict, "{answer}");
        }
    }
}

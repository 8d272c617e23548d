//! Scores of predictions: the accuracy of each world, split and data set, and the averages of the paper's tables
//! (the mean over data sets within seen and within unseen, then the mean of the two).

use std::collections::BTreeMap;

use fieldmark_data::{Split, normal_form};
use serde::{Deserialize, Serialize};

use crate::interval::Accuracy;
use crate::predictions::Prediction;
use crate::question::World;
use crate::{closed_world, open_world};

/// The rule that decides whether an output is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Matching {
    /// The rule of the released evaluation: the output contains the truth.
    Official,
    /// The answer names exactly one option (closed world), or contains the truth as a whole phrase that it does not deny
    /// (open world).
    Strict,
}

impl Matching {
    /// Returns whether a prediction is right. A question that could not be asked is not.
    pub fn is_right(self, prediction: &Prediction) -> bool {
        if prediction.error.is_some() {
            return false;
        }
        let (question, output) = (&prediction.question, prediction.output.as_str());
        let (truth, category, aliases) =
            (question.ground_truth.as_str(), question.super_category.as_str(), &question.aliases);
        match (self, question.world) {
            (Self::Official, World::Closed) => closed_world::official(output, truth, aliases),
            (Self::Strict, World::Closed) => closed_world::strict(output, truth, &question.options, aliases),
            (Self::Official, World::Open) => open_world::official(output, truth, category, aliases),
            (Self::Strict, World::Open) => open_world::strict(output, truth, category, aliases),
        }
    }
}

/// Accuracies by world, split and data set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    cells: BTreeMap<(World, Split, String), Accuracy>,
}

impl Scores {
    /// Scores predictions under a rule. A question asked in several option orders counts once, with its mean, so
    /// predictions in all rotations give the all-rotations accuracy.
    pub fn of(predictions: &[Prediction], matching: Matching) -> Self {
        Self::by(predictions, |prediction| matching.is_right(prediction))
    }

    /// Scores a baseline that always answers the first option; closed world only. A score well above chance (one in
    /// four) means that the options were not shuffled.
    pub fn first_option(predictions: &[Prediction]) -> Self {
        let closed = predictions.iter();
        let closed = closed.filter(|prediction| prediction.question.world == World::Closed);
        Self::by(closed, |prediction| {
            let truth = normal_form(&prediction.question.ground_truth);
            prediction.question.options.first().is_some_and(|first| normal_form(first) == truth)
        })
    }

    /// Scores predictions under any rule.
    pub fn by<'a>(
        predictions: impl IntoIterator<Item = &'a Prediction>,
        is_right: impl Fn(&Prediction) -> bool,
    ) -> Self {
        type Questions<'a> = BTreeMap<(Option<&'a str>, usize), (usize, usize)>;
        let mut groups: BTreeMap<(World, Split, String), Questions<'_>> = BTreeMap::new();
        for prediction in predictions {
            let question = &prediction.question;
            let key = (question.world, question.split, question.dataset.clone());
            let (right, asked) =
                groups.entry(key).or_default().entry((question.file.as_deref(), question.row)).or_default();
            *right += usize::from(is_right(prediction));
            *asked += 1;
        }
        let cells = groups.into_iter().filter_map(|(key, questions)| {
            let shares = questions.values();
            let right = shares.map(|&(right, asked)| right as f64 / asked as f64).sum();
            Some((key, Accuracy::wilson(right, questions.len())?))
        });
        Self { cells: cells.collect() }
    }

    /// Inserts the accuracy of a baseline or of another evaluation.
    pub fn insert(&mut self, world: World, split: Split, dataset: &str, accuracy: Accuracy) {
        self.cells.insert((world, split, dataset.to_owned()), accuracy);
    }

    /// Returns the accuracy of one data set in one world and split.
    pub fn dataset(&self, world: World, split: Split, dataset: &str) -> Option<Accuracy> {
        self.cells.get(&(world, split, dataset.to_owned())).copied()
    }

    /// Returns the names of the data sets in a world, sorted.
    pub fn datasets(&self, world: World) -> Vec<&str> {
        let keys = self.cells.keys().filter(|(of, _, _)| *of == world);
        let mut names: Vec<&str> = keys.map(|(_, _, dataset)| dataset.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Returns the mean over the data sets of a split.
    pub fn split(&self, world: World, split: Split) -> Option<Accuracy> {
        let cells = self.cells.iter();
        let parts: Vec<Accuracy> = cells
            .filter(|((of, in_split, _), _)| (*of, *in_split) == (world, split))
            .map(|(_, accuracy)| *accuracy)
            .collect();
        Accuracy::mean(&parts)
    }

    /// Returns the mean of seen and unseen; `None` unless both exist.
    pub fn overall(&self, world: World) -> Option<Accuracy> {
        let halves = Split::ALL.map(|split| self.split(world, split));
        match halves {
            [Some(seen), Some(unseen)] => Accuracy::mean(&[seen, unseen]),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::closed_world::rotations;
    use crate::predictions::tests::prediction;

    fn closed(dataset: &str, split: Split, right: usize, total: usize) -> Vec<Prediction> {
        (0..total)
            .map(|row| {
                let answer = if row < right { "B" } else { "C" };
                let output = format!("<answer>{answer}</answer>");
                prediction(dataset, split, World::Closed, row, "B", &output)
            })
            .collect()
    }

    #[test]
    fn averages_weigh_data_sets_and_not_rows() {
        let rows = [
            closed("bird", Split::Seen, 9, 10),
            closed("car", Split::Seen, 10, 100),
            closed("bird", Split::Unseen, 4, 8),
        ]
        .concat();
        let scores = Scores::of(&rows, Matching::Strict);
        let value = |accuracy: Option<Accuracy>| accuracy.unwrap().value;
        assert_eq!(value(scores.dataset(World::Closed, Split::Seen, "car")), 0.1);
        assert!((value(scores.split(World::Closed, Split::Seen)) - 0.5).abs() < 1e-12);
        assert!((value(scores.overall(World::Closed)) - 0.5).abs() < 1e-12);
        assert_eq!(scores.overall(World::Closed).unwrap().questions, 118);
        assert_eq!(scores.overall(World::Open), None);
        assert_eq!(scores.datasets(World::Closed), ["bird", "car"]);
        let only_seen = Scores::of(&rows[..110], Matching::Strict);
        assert_eq!(only_seen.overall(World::Closed), None);
        assert_eq!(Scores::of(&[], Matching::Strict), Scores::default());
    }

    #[test]
    fn rotations_count_once_with_their_mean() {
        let mut rows = Vec::new();
        for (by, order) in rotations(1, 4).enumerate() {
            for mut row in closed("bird", Split::Seen, 10 * usize::from(by == 0), 10) {
                row.question.option_order = Some(order);
                row.question.options.rotate_left(by);
                rows.push(row);
            }
        }
        let scores = Scores::of(&rows, Matching::Strict);
        let found = scores.split(World::Closed, Split::Seen);
        assert_eq!(found, Accuracy::wilson(2.5, 10));
        let first = Scores::first_option(&rows).split(World::Closed, Split::Seen);
        assert_eq!(first, Accuracy::wilson(2.5, 10));
    }

    #[test]
    fn rows_of_two_files_and_rows_that_could_not_be_asked_are_questions_of_their_own() {
        let mut rows = [closed("bird", Split::Seen, 2, 2), closed("bird", Split::Seen, 0, 2)].concat();
        rows[2..].iter_mut().for_each(|row| row.question.file = Some("b/bird_seen.jsonl".into()));
        rows[1].error = Some("the photograph is damaged".into());
        let found = Scores::of(&rows, Matching::Strict).split(World::Closed, Split::Seen);
        assert_eq!(found, Accuracy::wilson(1.0, 4));
    }

    #[test]
    fn each_world_has_its_rule() {
        let mut rows = vec![
            prediction("car", Split::Seen, World::Closed, 1, "A", "<answer>A and B</answer>"),
            prediction("car", Split::Seen, World::Open, 1, "Audi S4 Sedan 2012", "an audi s4"),
        ];
        let shares = |rows: &[Prediction], matching| {
            let scores = Scores::of(rows, matching);
            World::ALL.map(|world| scores.split(world, Split::Seen).unwrap().value)
        };
        assert_eq!(shares(&rows, Matching::Official), [1.0, 1.0]);
        assert_eq!(shares(&rows, Matching::Strict), [0.0, 0.0]);
        rows[1].question.super_category = "object".into();
        assert_eq!(shares(&rows, Matching::Official), [1.0, 0.0]);
        assert_eq!(Scores::first_option(&rows).datasets(World::Open).len(), 0);
    }
}

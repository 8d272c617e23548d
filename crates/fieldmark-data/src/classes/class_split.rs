//! Draws the seen classes, which a model trains on, and the unseen ones, which occur in evaluation only (paper 5.1).
//! Families keep seen members as long as possible, so that an unseen pepper has to be told from seen peppers.

use std::collections::{BTreeMap, BTreeSet};

use fieldmark_stream::RandomStream;

use crate::error::DataError;
use crate::format::split::Split;

/// Which classes of a data set training never sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unseen {
    /// A number of classes, drawn with the random stream ("class split") of a seed.
    Drawn {
        /// Number of classes.
        count: usize,
        /// The seed, which is not the seed of the run, so that runs with other seeds hold out the same classes.
        seed: u64,
    },
    /// These classes.
    Named(Vec<String>),
}

impl Default for Unseen {
    /// No class.
    fn default() -> Self {
        Self::Drawn { count: 0, seed: 42 }
    }
}

/// The split of each class of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassSplit {
    splits: BTreeMap<String, Split>,
}

impl ClassSplit {
    /// Draws `unseen` unseen classes with the random stream ("class split") of `seed`.
    ///
    /// `families` maps each class to its super-category. In each round, every family with two or more seen members
    /// gives up one, largest families first. Families lose their last seen member only when all are down to one.
    ///
    /// # Errors
    /// Returns [`DataError::Classes`] if no class would stay seen.
    pub fn draw(families: &BTreeMap<String, String>, unseen: usize, seed: u64) -> Result<Self, DataError> {
        if unseen >= families.len() {
            return Err(DataError::Classes(format!(
                "{unseen} unseen classes out of {} leave none to train on; ask for fewer unseen classes",
                families.len()
            )));
        }
        let mut stream = RandomStream::new(seed, &["class split"]);
        let mut members: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (class, family) in families {
            members.entry(family).or_default().push(class);
        }
        let mut families_seen: Vec<Vec<&str>> = members.into_values().collect();
        stream.shuffle(&mut families_seen);
        for classes in &mut families_seen {
            stream.shuffle(classes);
        }
        let mut chosen = BTreeSet::new();
        let mut kept_members = 1;
        while chosen.len() < unseen {
            families_seen.sort_by_key(|classes| std::cmp::Reverse(classes.len()));
            let before = chosen.len();
            for classes in &mut families_seen {
                if chosen.len() < unseen
                    && classes.len() > kept_members
                    && let Some(class) = classes.pop()
                {
                    chosen.insert(class);
                }
            }
            if chosen.len() == before {
                kept_members = 0;
            }
        }
        let splits = families.keys().map(|class| {
            let split = if chosen.contains(class.as_str()) { Split::Unseen } else { Split::Seen };
            (class.clone(), split)
        });
        Ok(Self { splits: splits.collect() })
    }

    /// Makes the split that `unseen` says. `families` maps each class to its super-category.
    ///
    /// # Errors
    /// Returns [`DataError::Classes`] if no class would stay seen, or a named class is not in the data set.
    pub fn choose(families: &BTreeMap<String, String>, unseen: &Unseen) -> Result<Self, DataError> {
        let names = match unseen {
            Unseen::Drawn { count, seed } => return Self::draw(families, *count, *seed),
            Unseen::Named(names) => names,
        };
        if let Some(unknown) = names.iter().find(|name| !families.contains_key(*name)) {
            let known: Vec<&str> = families.keys().map(String::as_str).collect();
            return Err(DataError::Classes(format!(
                "the unseen class {unknown:?} is not in the table of labels, which has {}",
                known.join(", ")
            )));
        }
        let split = |class: &String| if names.contains(class) { Split::Unseen } else { Split::Seen };
        let splits: BTreeMap<String, Split> = families.keys().map(|class| (class.clone(), split(class))).collect();
        if !splits.values().any(|split| *split == Split::Seen) {
            return Err(DataError::Classes(
                "every class is unseen, so that none is left to train on; name fewer".into(),
            ));
        }
        Ok(Self { splits })
    }

    /// The split of a class, or `None` if the data set does not have the class.
    pub fn of(&self, class: &str) -> Option<Split> {
        self.splits.get(class).copied()
    }

    /// The classes of a split in the order of their names.
    pub fn classes(&self, split: Split) -> impl Iterator<Item = &str> {
        self.splits.iter().filter(move |(_, of)| **of == split).map(|(class, _)| class.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn families() -> BTreeMap<String, String> {
        let sizes = [("Apple", 5), ("Melon", 4), ("Pear", 3), ("Lemon", 1)];
        let classes =
            sizes.iter().flat_map(|(family, size)| (0..*size).map(move |i| (format!("{family} {i}"), *family)));
        classes.map(|(class, family)| (class, family.into())).collect()
    }

    fn seen_members(split: &ClassSplit) -> BTreeMap<String, usize> {
        let families = families();
        let mut counts = BTreeMap::new();
        for class in split.classes(Split::Seen) {
            *counts.entry(families[class].clone()).or_insert(0) += 1;
        }
        counts
    }

    #[test]
    fn families_keep_seen_members_as_long_as_they_can() {
        for seed in 0..50 {
            for unseen in 0..=9 {
                let split = ClassSplit::draw(&families(), unseen, seed).unwrap();
                assert_eq!(split.classes(Split::Unseen).count(), unseen);
                assert_eq!(split.classes(Split::Seen).count(), 13 - unseen);
                assert_eq!(seen_members(&split).len(), 4, "{split:?}");
            }
            let three = seen_members(&ClassSplit::draw(&families(), 3, seed).unwrap());
            assert_eq!((three["Apple"], three["Melon"], three["Pear"]), (4, 3, 2));
            let one = seen_members(&ClassSplit::draw(&families(), 1, seed).unwrap());
            assert_eq!(one["Apple"], 4, "the largest family gives first");
            let most = ClassSplit::draw(&families(), 12, seed).unwrap();
            assert_eq!(most.classes(Split::Seen).count(), 1);
        }
        assert!(ClassSplit::draw(&families(), 13, 0).is_err());
    }

    #[test]
    fn named_classes_are_unseen_and_no_others() {
        let named = |names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            ClassSplit::choose(&families(), &Unseen::Named(names))
        };
        let split = named(&["Pear 1", "Lemon 0"]).unwrap();
        assert_eq!(split.classes(Split::Unseen).collect::<Vec<_>>(), ["Lemon 0", "Pear 1"]);
        assert_eq!(split.classes(Split::Seen).count(), 11);
        assert!(named(&["Pear 9"]).unwrap_err().to_string().contains("\"Pear 9\""));
        let all = families();
        assert!(named(&all.keys().map(String::as_str).collect::<Vec<_>>()).is_err());
        let drawn = ClassSplit::choose(&all, &Unseen::Drawn { count: 3, seed: 7 }).unwrap();
        assert_eq!(drawn, ClassSplit::draw(&all, 3, 7).unwrap());
    }

    #[test]
    fn the_seed_decides_and_every_family_member_can_be_unseen() {
        let draw = |seed| ClassSplit::draw(&families(), 3, seed).unwrap();
        assert_eq!(draw(1), draw(1));
        let mut ever = BTreeSet::new();
        for seed in 0..100 {
            ever.extend(draw(seed).classes(Split::Unseen).map(str::to_owned));
        }
        assert_eq!(ever.len(), 12, "all but the single Lemon: {ever:?}");
        assert_eq!(draw(1).of("Kiwi"), None);
    }
}

//! Species in pairs of look-alikes, and the groups that they are used in.

use std::collections::HashSet;

use fieldmark_stream::StreamKey;
use serde::{Deserialize, Serialize};

use crate::{
    category::{Category, PARTS},
    colour::Colour,
    error::WorldError,
    marks::Marks,
    names::Names,
};

/// What a species is used for. Look-alikes are always in the same group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// Fine-tuning and evaluation.
    Seen,
    /// Evaluation alone.
    Unseen,
    /// Choosing settings, and nothing else: neither fine-tuning nor the evaluation that is reported.
    Development,
}

impl Group {
    /// All groups.
    pub const ALL: [Self; 3] = [Self::Seen, Self::Unseen, Self::Development];

    /// The word in file names.
    pub fn word(self) -> &'static str {
        match self {
            Self::Seen => "seen",
            Self::Unseen => "unseen",
            Self::Development => "development",
        }
    }

    /// The groups of six pairs in a row: of the species that are reported, 60 % are seen and 40 % are not.
    const PATTERN: [Self; 6] = [Self::Seen, Self::Unseen, Self::Seen, Self::Development, Self::Unseen, Self::Seen];
}

/// One species.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Species {
    /// Its invented name.
    pub name: String,
    /// Its super-category.
    pub category: Category,
    /// Its field marks.
    pub marks: Marks,
    /// What it is used for.
    pub group: Group,
}

/// The settings that decide which species there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorldConfig {
    /// Decides names and marks.
    pub seed: u64,
    /// Number of species in all categories, an even number of at least 36.
    pub species: usize,
}

impl Default for WorldConfig {
    /// The world of the demo: 24 species in each category, of which 12 are seen, 8 unseen and 4 for development.
    fn default() -> Self {
        Self { seed: 1, species: 72 }
    }
}

/// A world: its species in pairs of look-alikes. Those with the indices 2i and 2i + 1 are a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World {
    config: WorldConfig,
    colours: usize,
    species: Vec<Species>,
}

/// The fewest species: six pairs in each category, so that each has all groups.
const FEWEST: usize = 2 * Group::PATTERN.len() * Category::ALL.len();
/// The fewest colours.
const PLAIN: usize = 6;
/// A world is at most this full: the share of its species among the sets of marks of which any two differ in two marks.
const FULL: f64 = 0.25;

impl World {
    /// Makes the species. Look-alikes differ in one mark; any other two of a category differ in at least two.
    ///
    /// # Errors
    /// Returns an error if the number of species is odd, or too small or too large.
    pub fn new(config: WorldConfig) -> Result<Self, WorldError> {
        let most = Category::ALL.len() * room(Colour::ALL.len()) / 2 * 2;
        if config.species % 2 == 1 || !(FEWEST..=most).contains(&config.species) {
            let expected = format!("an even number between {FEWEST} and {most}");
            return Err(WorldError::Setting { key: "species", value: config.species.to_string(), expected });
        }
        let each = config.species.div_ceil(Category::ALL.len());
        let colours = (PLAIN..=Colour::ALL.len()).find(|&colours| room(colours) >= each).unwrap_or(Colour::ALL.len());
        let key = StreamKey::new(config.seed).word("world");
        let mut names = Names::new(key.word("names").stream());
        let mut species = Vec::with_capacity(config.species);
        let mut near = Category::ALL.map(|_| HashSet::new());
        let mut marks = Category::ALL.map(|category| key.word("marks").word(category.word()).stream());
        for pair in 0..config.species / 2 {
            let place = pair % Category::ALL.len();
            let category = Category::ALL[place];
            let group = Group::PATTERN[pair / Category::ALL.len() % Group::PATTERN.len()];
            let (stream, near) = (&mut marks[place], &mut near[place]);
            let both = loop {
                let one = Marks::random(colours, stream);
                let part = stream.below(PARTS);
                let both = [one, one.with_other(part, colours, stream)];
                if both.iter().flat_map(neighbourhood).all(|key| !near.contains(&key)) {
                    break both;
                }
            };
            near.extend(both.iter().flat_map(neighbourhood));
            species.extend(both.map(|marks| Species { name: names.next(), category, marks, group }));
        }
        Ok(Self { config, colours, species })
    }

    /// The settings.
    pub fn config(&self) -> WorldConfig {
        self.config
    }

    /// Number of colours that marks have: the first ones of [`Colour::ALL`].
    pub fn colours(&self) -> usize {
        self.colours
    }

    /// All species.
    pub fn species(&self) -> &[Species] {
        &self.species
    }

    /// The look-alike of a species, by their indices.
    pub fn look_alike(&self, index: usize) -> usize {
        index ^ 1
    }

    /// The indices of the species of a group, in all categories or in one.
    pub fn of(&self, group: Group, category: Option<Category>) -> impl Iterator<Item = usize> + Clone + '_ {
        let wanted = move |species: &Species| {
            species.group == group && category.is_none_or(|category| species.category == category)
        };
        self.species.iter().enumerate().filter(move |(_, species)| wanted(species)).map(|(index, _)| index)
    }

    /// The `count` species of the same category and group that are most like a species, the look-alike first, and those
    /// that are equally like it in their order.
    pub fn most_alike(&self, index: usize, count: usize) -> Vec<usize> {
        let this = &self.species[index];
        let mut others: Vec<usize> = self.of(this.group, Some(this.category)).filter(|&other| other != index).collect();
        others.sort_by_key(|&other| this.marks.differences(&self.species[other].marks).len());
        others.truncate(count);
        others
    }
}

/// The number of species of one category that `colours` colours hold.
fn room(colours: usize) -> usize {
    (FULL * colours.pow(PARTS as u32 - 1) as f64) as usize
}

/// Keys of everything that differs from `marks` in at most one part: two sets of marks share one if and only if they differ
/// in at most one part.
fn neighbourhood(marks: &Marks) -> [[Option<Colour>; PARTS]; PARTS] {
    std::array::from_fn(|open| std::array::from_fn(|part| (part != open).then_some(marks.0[part])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn look_alikes_differ_in_one_mark_and_all_others_in_two() {
        for config in [WorldConfig::default(), WorldConfig { seed: 9, species: 300 }] {
            let world = World::new(config).unwrap();
            let all = world.species();
            assert_eq!(all.len(), config.species);
            for (i, one) in all.iter().enumerate() {
                for (j, other) in all.iter().enumerate().skip(i + 1) {
                    if one.category != other.category {
                        continue;
                    }
                    let apart = one.marks.differences(&other.marks).len();
                    if j == world.look_alike(i) {
                        assert_eq!((apart, one.group), (1, other.group));
                    } else {
                        assert!(apart >= 2, "{} and {}", one.name, other.name);
                    }
                }
            }
        }
    }

    #[test]
    fn three_in_five_reported_species_are_seen() {
        let world = World::new(WorldConfig::default()).unwrap();
        for category in Category::ALL {
            assert_eq!(Group::ALL.map(|group| world.of(group, Some(category)).count()), [12, 8, 4]);
        }
        assert_eq!(world.most_alike(5, 3)[0], 4);
        assert!(world.most_alike(5, 3).iter().all(|&other| world.species()[other].group == world.species()[5].group));
    }

    #[test]
    fn a_large_world_takes_more_colours_and_an_impossible_one_is_refused() {
        assert_eq!(World::new(WorldConfig::default()).unwrap().colours(), 6);
        let most = 15_552;
        let large = World::new(WorldConfig { seed: 1, species: most }).unwrap();
        assert_eq!((large.colours(), large.species().len()), (Colour::ALL.len(), most));
        for species in [0, 34, 37, most + 2] {
            let error = World::new(WorldConfig { seed: 1, species }).unwrap_err().to_string();
            assert!(error.contains("species") && error.contains(&species.to_string()), "{error}");
        }
    }

    #[test]
    fn a_seed_always_makes_the_same_world() {
        let world = |seed| World::new(WorldConfig { seed, species: 72 }).unwrap();
        assert_eq!(world(4), world(4));
        assert_ne!(world(4).species()[0], world(5).species()[0]);
    }
}

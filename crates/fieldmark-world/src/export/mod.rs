//! Writes a world as files that Fieldmark and other tools train on. Species are written one after another, so that a world
//! may be larger than the memory.

mod pictures;
mod rows;

use std::{collections::BTreeMap, ops::ControlFlow, path::Path};

use fieldmark_stream::StreamKey;
use rayon::prelude::*;
use serde_json::{Value, json};

use self::{
    pictures::{Picture, Use, level_folder},
    rows::Rows,
};
use crate::{
    category::Category,
    degrade::{Degradation, LEVELS},
    error::WorldError,
    marks::some_parts,
    reasoning::{Chain, answer},
    scene::{LARGEST_SIDE, SIDE},
    sheet::contact_sheet,
    species::{Group, Species, World},
};

/// Options of a question in the closed world, the truth among them.
const OPTIONS: usize = 4;
/// Marks that the analysis of a reasoned row mentions, as the rows of a teacher do not mention all.
const MENTIONED: usize = 2;
/// Pictures for choosing settings, of each seen species and of each species for development.
const DEVELOPMENT: [usize; 2] = [2, 8];
/// How many of them are in `validation.jsonl`, which is asked while TAPO trains.
const VALIDATION: [usize; 2] = [1, 2];
/// Species that are written at a time.
const AT_A_TIME: usize = 64;

/// How a world is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportConfig {
    /// Decides the pictures and which marks the reasoned rows mention.
    pub seed: u64,
    /// Training pictures of each seen species, at least 2.
    pub train: usize,
    /// Test pictures of each seen and unseen species, at least 1.
    pub test: usize,
    /// Side of a picture in pixels.
    pub side: u32,
    /// Whether to write the test pictures again with each kind and level of degradation, thirty times as many.
    pub robustness: bool,
}

impl Default for ExportConfig {
    fn default() -> Self {
        Self { seed: 0, train: 4, test: 8, side: SIDE, robustness: false }
    }
}

impl ExportConfig {
    fn check(&self) -> Result<(), WorldError> {
        let refuse = |key, value: usize, expected: &str| {
            Err(WorldError::Setting { key, value: value.to_string(), expected: expected.into() })
        };
        match *self {
            Self { train: value @ ..2, .. } => refuse("train", value, "at least 2: a triplet needs two pictures"),
            Self { test: 0, .. } => refuse("images", 0, "at least 1"),
            Self { side, .. } if !(28..=LARGEST_SIDE).contains(&side) => {
                refuse("side", side as usize, &format!("between 28 and {LARGEST_SIDE}"))
            }
            _ => Ok(()),
        }
    }

    /// The pictures of a species.
    fn pictures(&self, world: &World, species: usize) -> Vec<Picture> {
        let clear = |part, count| (0..count).map(move |number| Picture { species, part, number, degraded: None });
        let group = world.species()[species].group;
        let mut all: Vec<Picture> = match group {
            Group::Seen => clear(Use::Train, self.train).chain(clear(Use::Validation, DEVELOPMENT[0])).collect(),
            Group::Unseen => Vec::new(),
            Group::Development => clear(Use::Validation, DEVELOPMENT[1]).collect(),
        };
        if group != Group::Development {
            let tests: Vec<_> = clear(Use::Test, self.test).collect();
            for picture in tests {
                all.push(picture);
                let degraded = self.levels().map(|level| Picture { degraded: Some(level), ..picture });
                all.extend(degraded);
            }
        }
        all
    }

    fn levels(&self) -> impl Iterator<Item = (Degradation, u8)> {
        let kinds: &[Degradation] = if self.robustness { &Degradation::ALL } else { &[] };
        kinds.iter().flat_map(|&kind| (1..=LEVELS).map(move |level| (kind, level)))
    }
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exported {
    /// Number of pictures.
    pub pictures: usize,
    /// Whether it was stopped before the last one; the folder is then incomplete.
    pub stopped: bool,
}

/// The data files.
struct Files {
    species: Rows,
    cot: Rows,
    direct: Rows,
    tapo: Rows,
    validation: Rows,
    /// By the folder that they are in and their name.
    eval: BTreeMap<String, Rows>,
}

/// Writes a world to `folder`. `progress` is told the number of species written so far and in all, and may stop the writing.
///
/// # Errors
/// Returns an error if a setting is out of range or a file cannot be written.
pub fn export(
    world: &World,
    config: &ExportConfig,
    folder: &Path,
    mut progress: impl FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Exported, WorldError> {
    config.check()?;
    let key = StreamKey::new(config.seed).word("export");
    let mut files = Files::create(config, folder)?;
    let all: Vec<usize> = (0..world.species().len()).collect();
    let mut exported = Exported::default();
    for some in all.chunks(AT_A_TIME) {
        let pictures: Vec<Picture> = some.iter().flat_map(|&index| config.pictures(world, index)).collect();
        pictures.par_iter().try_for_each(|picture| picture.write(world, config.side, &key, folder))?;
        exported.pictures += pictures.len();
        some.iter().try_for_each(|&index| files.add(world, config, &key, index))?;
        if progress(some[some.len() - 1] + 1, all.len()).is_break() {
            exported.stopped = true;
            break;
        }
    }
    files.finish()?;
    let sheet = folder.join("sheet.png");
    let drawn = contact_sheet(world, config.side.min(SIDE), config.seed);
    drawn.save(&sheet).map_err(|source| WorldError::Image { path: sheet, source })?;
    Ok(exported)
}

impl Files {
    fn create(config: &ExportConfig, folder: &Path) -> Result<Self, WorldError> {
        let rows = |name: &str| Rows::create(folder.join(name));
        let mut eval = BTreeMap::new();
        let robust = config.levels().map(|(kind, level)| level_folder(kind, level));
        for place in ["eval".to_owned(), "development".to_owned()].into_iter().chain(robust) {
            for category in Category::ALL {
                for split in ["seen", "unseen"] {
                    let name = format!("{place}/{}_{split}.jsonl", category.word());
                    eval.insert(name.clone(), rows(&name)?);
                }
            }
        }
        Ok(Self {
            species: rows("species.jsonl")?,
            cot: rows("cot.jsonl")?,
            direct: rows("direct.jsonl")?,
            tapo: rows("tapo.jsonl")?,
            validation: rows("validation.jsonl")?,
            eval,
        })
    }

    fn add(&mut self, world: &World, config: &ExportConfig, key: &StreamKey, index: usize) -> Result<(), WorldError> {
        let species = &world.species()[index];
        let Species { name, category, marks, group } = species;
        let named: serde_json::Map<String, Value> = category
            .parts()
            .iter()
            .zip(marks.0)
            .map(|(part, colour)| ((*part).to_owned(), colour.word().into()))
            .collect();
        let look_alike = &world.species()[world.look_alike(index)].name;
        self.species.add(&json!({
            "name": name, "category": category, "group": group, "look_alike": look_alike, "marks": named,
        }))?;
        if *group == Group::Seen {
            self.add_training(world, config, key, index)?;
        }
        for picture in config.pictures(world, index) {
            let split = if *group == Group::Seen { "seen" } else { "unseen" };
            let place = match picture {
                Picture { part: Use::Train, .. } => continue,
                Picture { part: Use::Validation, .. } => "development".to_owned(),
                Picture { degraded: Some((kind, level)), .. } => level_folder(kind, level),
                Picture { part: Use::Test, .. } => "eval".to_owned(),
            };
            let asked = VALIDATION[usize::from(*group == Group::Development)];
            if picture.part == Use::Validation && picture.number < asked {
                self.validation.add(&anchor_row(world, species, &picture))?;
            }
            let options =
                options(world, index, &key.word("options").number(index as u64).number(picture.number as u64));
            let row = json!({
                "image_path": picture.path(world),
                "question": category.question(),
                "options": options,
                "ground_truth": name,
                "super_category": category.word(),
            });
            if let Some(rows) = self.eval.get_mut(&format!("{place}/{}_{split}.jsonl", category.word())) {
                rows.add(&row)?;
            }
        }
        Ok(())
    }

    fn add_training(
        &mut self,
        world: &World,
        config: &ExportConfig,
        key: &StreamKey,
        index: usize,
    ) -> Result<(), WorldError> {
        let species = &world.species()[index];
        let picture = |species, number| {
            Picture { species, part: Use::Train, number: number % config.train, degraded: None }.path(world)
        };
        let question = format!("<image>{}", species.category.question());
        let parts = some_parts(MENTIONED, &mut key.word("mentioned").number(index as u64).stream());
        let chain = Chain::new(world, index, species.marks.words(species.category, &parts));
        for (rows, response) in [(&mut self.cot, chain.response()), (&mut self.direct, answer(&species.name))] {
            rows.add(&json!({
                "messages": [
                    { "role": "user", "content": question },
                    { "role": "assistant", "content": response },
                ],
                "images": [picture(index, 0)],
            }))?;
        }
        for number in 0..config.train {
            self.tapo.add(&json!({
                "problem": question,
                "answer": species.name,
                "anchor": picture(index, number),
                "positive": picture(index, number + 1),
                "negative": picture(world.look_alike(index), number),
            }))?;
        }
        Ok(())
    }

    fn finish(self) -> Result<(), WorldError> {
        let Self { species, cot, direct, tapo, validation, eval } = self;
        [species, cot, direct, tapo, validation].into_iter().chain(eval.into_values()).try_for_each(Rows::finish)
    }
}

/// A row of validation: a question about one picture.
fn anchor_row(world: &World, species: &Species, picture: &Picture) -> Value {
    json!({
        "problem": format!("<image>{}", species.category.question()),
        "answer": species.name,
        "anchor": picture.path(world),
    })
}

/// The name of a species and those of the species most like it, in any order.
fn options(world: &World, index: usize, key: &StreamKey) -> Vec<String> {
    let others = world.most_alike(index, OPTIONS - 1);
    let name = |index: usize| world.species()[index].name.clone();
    let mut options: Vec<String> = std::iter::once(index).chain(others).map(name).collect();
    key.stream().shuffle(&mut options);
    options
}

#[cfg(test)]
mod tests;

#![doc = include_str!("../README.md")]

mod category;
mod colour;
mod degrade;
mod error;
mod export;
mod knowledge;
mod marks;
mod names;
mod reasoning;
mod scene;
mod sheet;
mod species;

pub use self::{
    category::{Category, PARTS},
    colour::Colour,
    degrade::{Degradation, LEVELS},
    error::WorldError,
    export::{ExportConfig, Exported, export},
    knowledge::{Knowledge, Lesson, Lessons, Subject},
    marks::{Marks, some_parts},
    reasoning::{Chain, analysis_alone, answer},
    scene::{LARGEST_SIDE, SIDE, draw},
    sheet::contact_sheet,
    species::{Group, Species, World, WorldConfig},
};

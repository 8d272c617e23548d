//! The pictures of a species: which there are, their streams, and their files.

use std::{fs::File, io::BufWriter, path::Path};

use fieldmark_stream::StreamKey;
use image::{
    ExtendedColorType, ImageEncoder, RgbImage,
    codecs::png::{CompressionType, FilterType, PngEncoder},
};

use super::rows::create_parent;
use crate::{
    degrade::Degradation,
    error::WorldError,
    scene,
    species::{Species, World},
};

/// What a picture is for. Pictures of different uses are never the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Train,
    Validation,
    Test,
}

impl Use {
    fn word(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

/// The folder of a kind and level of degradation, of its pictures and of its questions.
pub(super) fn level_folder(kind: Degradation, level: u8) -> String {
    format!("robustness/{}-{level}", kind.word())
}

/// One picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) species: usize,
    pub(super) part: Use,
    pub(super) number: usize,
    /// A test picture made harder to read.
    pub(super) degraded: Option<(Degradation, u8)>,
}

impl Picture {
    /// The path in the folder of the world, with `/` between its parts.
    pub(super) fn path(&self, world: &World) -> String {
        let Species { name, .. } = &world.species()[self.species];
        let place = match self.degraded {
            Some((kind, level)) => level_folder(kind, level),
            None => self.part.word().to_owned(),
        };
        format!("images/{place}/{name}/{name}_{}.png", self.number)
    }

    fn draw(&self, world: &World, side: u32, key: &StreamKey) -> RgbImage {
        let species = &world.species()[self.species];
        let key = key.word(self.part.word()).number(self.species as u64).number(self.number as u64);
        let picture = scene::draw(species.category, &species.marks, side, &mut key.stream());
        match self.degraded {
            None => picture,
            Some((kind, level)) => kind.apply(&picture, level, &mut key.word(kind.word()).stream()),
        }
    }

    /// Draws the picture and writes it as PNG.
    pub(super) fn write(&self, world: &World, side: u32, key: &StreamKey, folder: &Path) -> Result<(), WorldError> {
        let path = folder.join(self.path(world));
        create_parent(&path)?;
        let picture = self.draw(world, side, key);
        let file = BufWriter::new(File::create(&path).map_err(WorldError::io(&path))?);
        PngEncoder::new_with_quality(file, CompressionType::Fast, FilterType::Adaptive)
            .write_image(&picture, picture.width(), picture.height(), ExtendedColorType::Rgb8)
            .map_err(|source| WorldError::Image { path, source })
    }
}

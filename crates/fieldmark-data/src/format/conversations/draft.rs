//! From the texts of a row and its images to a checked conversation: each `<image>` gets its image.

use serde_json::{Map, Value};

use super::example::{SftExample, Turn, TurnRole};
use super::parts::Text;
use crate::error::RowProblem;
use crate::format::columns::{has_content, refuse_unread};
use crate::format::image_values::images;
use crate::prompt::IMAGE_PLACEHOLDER;
use crate::row_image::RowImage;

/// Columns that other programs take images from. In a row without an image they are not a detail beside it.
const OTHER_IMAGE_COLUMNS: [&str; 6] = ["image_path", "image_paths", "image_url", "image_file", "img", "pixel_values"];

/// A conversation whose images are not in place yet.
#[derive(Debug, Default)]
pub(super) struct Draft {
    system: Option<String>,
    turns: Vec<Turn>,
    marks: Vec<Option<RowImage>>,
}

impl Draft {
    /// Starts a conversation with a system text.
    pub(super) fn new(system: Option<String>) -> Self {
        Self { system, ..Self::default() }
    }

    /// Adds a turn; `number` counts the row's messages from 1.
    pub(super) fn turn(&mut self, role: TurnRole, text: Text, learned: bool, number: usize) -> Result<(), RowProblem> {
        if role.is_response() && !text.images.is_empty() {
            return Err(RowProblem::ImageInAnswer(number));
        }
        self.marks.extend(text.images);
        self.turns.push(Turn { role, content: text.text, learned: learned && role.is_response() });
        Ok(())
    }

    /// Puts the images in place. `column` is the column with the images of the row; a column of the other number
    /// (`image` for `images`) serves too.
    pub(super) fn finish(
        mut self,
        row: usize,
        columns: &Map<String, Value>,
        column: &str,
    ) -> Result<SftExample, RowProblem> {
        if !self.turns.len().is_multiple_of(2) {
            return Err(RowProblem::Unanswered(self.turns.len()));
        }
        if !self.turns.iter().any(|turn| turn.learned) {
            return Err(RowProblem::NothingLearned);
        }
        let column = image_column(columns, column)?;
        let given = images(columns, column)?;
        let image_put_first = self.marks.is_empty() && given.len() == 1;
        if image_put_first {
            self.marks.push(None);
            self.turns[0].content.insert_str(0, IMAGE_PLACEHOLDER);
        }
        if given.is_empty() && self.marks.is_empty() {
            refuse_unread(columns, &OTHER_IMAGE_COLUMNS)?;
        }
        let own = self.marks.iter().flatten().count();
        if self.marks.len() != given.len() + own {
            return Err(RowProblem::PlaceholderCount {
                placeholders: self.marks.len(),
                images: given.len() + own,
                column: column.into(),
            });
        }
        let mut given = given.into_iter();
        let images = self.marks.into_iter().filter_map(|own| own.or_else(|| given.next())).collect();
        Ok(SftExample { row, system: self.system, turns: self.turns, images, image_put_first })
    }
}

/// The column of `named` and its other number (`images` and `image`) that has content.
fn image_column<'a>(columns: &Map<String, Value>, named: &'a str) -> Result<&'a str, RowProblem> {
    let other = match named {
        "images" => "image",
        "image" => "images",
        _ => return Ok(named),
    };
    let filled = |name: &str| columns.get(name).is_some_and(has_content);
    match (filled(named), filled(other)) {
        (true, true) => Err(RowProblem::TwoImageColumns),
        (false, true) => Ok(other),
        _ => Ok(named),
    }
}

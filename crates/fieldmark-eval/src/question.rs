//! Questions: evaluation rows in one of the two worlds, with options arranged and prompt rendered.

use std::fmt;
use std::path::{Path, PathBuf};

use fieldmark_data::{Aliases, EvalRow, EvalSet, ImageRoots, Prompt, PromptTemplate, Split};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::closed_world::OptionOrder;
use crate::error::EvalError;

/// Whether the options are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum World {
    /// The model chooses among options.
    Closed,
    /// The model names the class without options.
    Open,
}

impl World {
    /// Both worlds, in the order of the paper's tables.
    pub const ALL: [Self; 2] = [Self::Closed, Self::Open];
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Closed => "closed",
            Self::Open => "open",
        })
    }
}

/// One question, with everything that asking and scoring it need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The data set.
    pub dataset: String,
    /// Whether the class was seen in training.
    pub split: Split,
    /// Whether options are shown.
    pub world: World,
    /// The file of the row, if several files have this data set and split. Rows are counted in each file, so the row
    /// alone is then not a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The row in the data set's file, from 1.
    pub row: usize,
    /// The image path as written in the row.
    pub image_path: String,
    /// The question alone.
    pub question: String,
    /// The options in the order in which they are shown; empty in the open world.
    pub options: Vec<String>,
    /// The rule that arranged the options; `None` in the open world.
    pub option_order: Option<OptionOrder>,
    /// The true class.
    pub ground_truth: String,
    /// The super-category of the true class.
    pub super_category: String,
    /// Other names of the true class and of the options, which are as right as those.
    #[serde(default, skip_serializing_if = "Aliases::is_empty")]
    pub aliases: Aliases,
    /// The prompt template.
    pub prompt_template: PromptTemplate,
    /// The rendered system text, if the template has one.
    pub system: Option<String>,
    /// The rendered user turn, with `<image>`.
    pub prompt: String,
}

impl Question {
    fn new(set: &EvalSet, row: &EvalRow, template: PromptTemplate, order: Option<OptionOrder>) -> Self {
        let (dataset, split) = (&set.name.dataset, set.name.split);
        let options = order.map_or(Vec::new(), |order| order.arrange(&row.options, dataset, split, row.row));
        let Prompt { system, user } = template.render(&row.question, &options);
        let names = options.iter().chain([&row.ground_truth]).map(String::as_str);
        Self {
            aliases: set.aliases.only(names),
            dataset: dataset.clone(),
            split,
            world: order.map_or(World::Open, |_| World::Closed),
            file: None,
            row: row.row,
            image_path: row.image_path.to_string_lossy().into_owned(),
            question: row.question.clone(),
            options,
            option_order: order,
            ground_truth: row.ground_truth.clone(),
            super_category: row.super_category.clone(),
            prompt_template: template,
            system,
            prompt: user,
        }
    }

    /// Returns the name of the question in errors: data set, split, row, and the file if it is needed.
    pub(crate) fn name(&self) -> String {
        match &self.file {
            Some(file) => format!("{} {}, {file}, row {}", self.dataset, self.split, self.row),
            None => format!("{} {}, row {}", self.dataset, self.split, self.row),
        }
    }

    /// Returns the file of the photograph.
    pub(crate) fn find_image(&self, images: &ImageRoots) -> Result<PathBuf, EvalError> {
        images.find(Path::new(&self.image_path)).ok_or_else(|| EvalError::ImageNotFound {
            question: self.name(),
            image: self.image_path.clone(),
            folder: images.folder().to_path_buf(),
        })
    }
}

/// Makes the closed-world questions of a data set, with the options of every row in `order`.
///
/// # Errors
/// Returns [`EvalError::NoOptions`] for the first row without options.
pub fn closed_questions(
    set: &EvalSet,
    order: OptionOrder,
    template: PromptTemplate,
) -> Result<Vec<Question>, EvalError> {
    let rows = set.rows.iter().map(|row| {
        if row.options.is_empty() {
            return Err(EvalError::NoOptions {
                dataset: set.name.dataset.clone(),
                split: set.name.split,
                row: row.row,
            });
        }
        Ok(Question::new(set, row, template, Some(order)))
    });
    rows.collect()
}

/// Makes the open-world questions of a data set.
pub fn open_questions(set: &EvalSet, template: PromptTemplate) -> Vec<Question> {
    let rows = set.rows.iter();
    rows.map(|row| Question::new(set, row, template, None)).collect()
}

#[cfg(test)]
mod tests {
    use fieldmark_data::EvalSetName;

    use super::*;

    #[test]
    fn rows_become_questions_of_either_world() {
        let mut set = EvalSet {
            name: EvalSetName { dataset: "fruit".into(), split: Split::Unseen, super_category: "fruit".into() },
            rows: vec![EvalRow {
                row: 3,
                image_path: "a/b.jpg".into(),
                question: "Which?".into(),
                options: ["Lime", "Lemon", "Plum"].map(str::to_owned).into(),
                ground_truth: "Lime".into(),
                super_category: "citrus".into(),
            }],
            aliases: Aliases::default(),
        };
        for (name, alias) in [("Lime", "Limette"), ("Lemon", "Citron"), ("Fig", "Feige")] {
            set.aliases.add(name, [alias]);
        }
        let order = OptionOrder::Shuffled { seed: 4 };
        let closed = closed_questions(&set, order, PromptTemplate::EvalClosed).unwrap();
        let shown = order.arrange(&set.rows[0].options, "fruit", Split::Unseen, 3);
        assert_eq!((closed[0].world, &closed[0].options), (World::Closed, &shown));
        let list = format!("['{}', '{}', '{}']", shown[0], shown[1], shown[2]);
        assert!(closed[0].prompt.contains(&list), "{}", closed[0].prompt);
        assert_eq!(closed[0].aliases, set.aliases.only(["Lime", "Lemon"]));
        let open = open_questions(&set, PromptTemplate::EvalOpen);
        assert_eq!(open[0].aliases, set.aliases.only(["Lime"]));
        assert_eq!((open[0].world, open[0].options.len(), open[0].option_order), (World::Open, 0, None));
        assert!(!open[0].prompt.contains("Lemon"));
        assert_eq!((open[0].row, open[0].image_path.as_str(), &*open[0].super_category), (3, "a/b.jpg", "citrus"));
        set.rows[0].options.clear();
        let error = closed_questions(&set, order, PromptTemplate::EvalClosed).unwrap_err();
        assert!(matches!(error, EvalError::NoOptions { row: 3, .. }), "{error}");
        assert!(error.to_string().starts_with("fruit unseen, row 3: "), "{error}");
    }
}

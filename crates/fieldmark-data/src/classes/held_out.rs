//! The classes that training never sees, and whether a row of training data shows or names one of them.

use std::collections::HashMap;
use std::path::PathBuf;

use super::class_split::ClassSplit;
use super::names::named;
use crate::answer::normal_form;
use crate::error::RowProblem;
use crate::format::conversations::SftExample;
use crate::format::labels::LabelledFolder;
use crate::format::split::Split;
use crate::format::tapo_rows::TapoRow;
use crate::row_image::RowImage;

/// Classes that are held out of training, with their photographs if a table of labels has them.
#[derive(Clone, Debug, Default)]
pub struct HeldOutClasses {
    names: Vec<String>,
    /// The form in which names are compared, of each name and of all classes.
    forms: Vec<String>,
    all: Vec<String>,
    /// Photographs by the size of their file: a row may show a copy elsewhere.
    photos: HashMap<u64, Vec<(PathBuf, usize)>>,
}

impl HeldOutClasses {
    /// Classes of which only the names are known.
    pub fn named(names: Vec<String>) -> Self {
        let forms: Vec<String> = names.iter().map(|name| normal_form(name)).collect();
        Self { all: forms.clone(), forms, names, photos: HashMap::new() }
    }

    /// The unseen classes of a folder.
    pub fn of(folder: &LabelledFolder, split: &ClassSplit) -> Self {
        let mut found = Self::named(split.classes(Split::Unseen).map(str::to_owned).collect());
        found.all.extend(split.classes(Split::Seen).map(normal_form));
        for photo in &folder.photos {
            if let Some(class) = found.names.iter().position(|name| *name == photo.class) {
                let file = folder.file(photo);
                // A photograph that is missing cannot be shown either.
                let size = std::fs::metadata(&file).map(|data| data.len());
                size.into_iter().for_each(|size| found.photos.entry(size).or_default().push((file.clone(), class)));
            }
        }
        found
    }

    /// The names of the classes.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns true if no class is held out.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Refuses a conversation that shows a held-out class, or names one in an answer that is learned. Its images must be
    /// [located](crate::ImageRoots::locate).
    ///
    /// # Errors
    /// Returns [`RowProblem::HeldOut`] with the class.
    pub fn check_conversation(&self, example: &SftExample) -> Result<(), RowProblem> {
        self.check_images(&example.images)?;
        match example.learned().find_map(|text| self.named_in(SftExample::answer_in(text))) {
            Some(class) => Err(Self::problem("names", class)),
            None => Ok(()),
        }
    }

    /// Refuses a triplet that shows a held-out class or whose truth is one. Its images must be
    /// [located](crate::ImageRoots::locate).
    ///
    /// # Errors
    /// Returns [`RowProblem::HeldOut`] with the class.
    pub fn check_triplet(&self, row: &TapoRow) -> Result<(), RowProblem> {
        self.check_images([Some(&row.anchor), row.positive.as_ref(), row.negative.as_ref()].into_iter().flatten())?;
        let truth = normal_form(&row.answer);
        match self.forms.iter().position(|form| *form == truth) {
            Some(class) => Err(Self::problem("names", &self.names[class])),
            None => Ok(()),
        }
    }

    /// A held-out class that a conversation mentions in a learned text, whether in its answer or before it.
    pub fn mentioned(&self, example: &SftExample) -> Option<&str> {
        example.learned().find_map(|text| self.named_in(text))
    }

    fn check_images<'a>(&self, images: impl IntoIterator<Item = &'a RowImage>) -> Result<(), RowProblem> {
        match images.into_iter().find_map(|image| self.shown(image)) {
            Some(class) => Err(Self::problem("shows", class)),
            None => Ok(()),
        }
    }

    /// The class whose photograph an image is, by content. A file that cannot be read is the decoder's to report.
    fn shown(&self, image: &RowImage) -> Option<&str> {
        let alike = self.photos.get(&image.size().ok()?)?;
        let same = |file: &PathBuf| image.same_content(&RowImage::Path(file.clone())).unwrap_or(false);
        alike.iter().find(|(file, _)| same(file)).map(|(_, class)| self.names[*class].as_str())
    }

    fn named_in(&self, text: &str) -> Option<&str> {
        if self.is_empty() {
            return None;
        }
        let found = named(text, self.forms.iter().map(String::as_str), &self.all);
        let class = self.forms.iter().position(|form| Some(&form.as_str()) == found.first())?;
        Some(&self.names[class])
    }

    fn problem(how: &'static str, class: &str) -> RowProblem {
        RowProblem::HeldOut { how, class: class.into() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::classes::class_split::Unseen;
    use crate::format::labels::read_labels;
    use crate::images::ImageRoots;

    struct Place {
        dir: tempfile::TempDir,
        held: HeldOutClasses,
    }

    /// Collie and Key Lime are held out of four classes.
    fn place() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let mut table = "path,class,super_category,split\n".to_owned();
        for (name, class) in [("c", "Collie"), ("b", "Border Collie"), ("k", "Key_Lime"), ("p", "Plum")] {
            table.push_str(&format!("{name}.jpg,{class},x,train\n"));
            std::fs::write(dir.path().join(format!("{name}.jpg")), format!("photo {name}")).unwrap();
        }
        std::fs::write(dir.path().join("labels.csv"), table).unwrap();
        std::fs::copy(dir.path().join("k.jpg"), dir.path().join("copy.jpg")).unwrap();
        let folder = read_labels(&dir.path().join("labels.csv")).unwrap();
        let unseen = Unseen::Named(vec!["Key_Lime".into(), "Collie".into()]);
        let split = ClassSplit::choose(&folder.families(), &unseen).unwrap();
        Place { held: HeldOutClasses::of(&folder, &split), dir }
    }

    fn held_out<T>(how: &'static str, class: &str) -> Result<T, RowProblem> {
        Err(RowProblem::HeldOut { how, class: class.into() })
    }

    #[test]
    fn conversations_that_show_or_name_a_class_are_refused() {
        let Place { dir, held } = place();
        assert_eq!(held.names(), ["Collie", "Key_Lime"]);
        let roots = ImageRoots::new(dir.path());
        let check = |answer: &str, image: Option<&str>| {
            let row = json!({"instruction": "Which?", "output": answer, "image": image});
            let mut example = SftExample::parse(1, &row).unwrap();
            example.images = example.images.iter().map(|image| roots.locate(image).unwrap()).collect();
            (held.check_conversation(&example), held.mentioned(&example).map(str::to_owned))
        };
        assert_eq!(check("<answer>Plum</answer>", Some("p.jpg")), (Ok(()), None));
        assert_eq!(check("<answer>A border collie.</answer>", Some("b.jpg")), (Ok(()), None));
        assert_eq!(check("Plum", Some("c.jpg")).0, held_out("shows", "Collie"));
        assert_eq!(check("Plum", Some("copy.jpg")).0, held_out("shows", "Key_Lime"));
        assert_eq!(check("It is a collie", None).0, held_out("names", "Collie"));
        assert_eq!(check("<think>x</think><answer>key lime</answer>", Some("p.jpg")).0, held_out("names", "Key_Lime"));
        // Reasoning may weigh a class; that is for a note.
        let weighed = check("<think>collie or plum</think><answer>Plum</answer>", Some("p.jpg"));
        assert_eq!(weighed, (Ok(()), Some("Collie".into())));
    }

    #[test]
    fn triplets_that_show_or_name_a_class_are_refused() {
        let Place { dir, held } = place();
        let roots = ImageRoots::new(dir.path());
        let check = |answer: &str, negative: &str| {
            let row = json!({"problem": "?", "answer": answer, "anchor": "p.jpg", "negative": negative});
            held.check_triplet(&TapoRow::parse(1, &row).unwrap().located(&roots, [true, true]).unwrap())
        };
        assert_eq!(check("Plum", "b.jpg"), Ok(()));
        assert_eq!(check("Border Collie", "b.jpg"), Ok(()));
        assert_eq!(check("collie", "b.jpg"), held_out("names", "Collie"));
        assert_eq!(check("Plum", "copy.jpg"), held_out("shows", "Key_Lime"));
    }

    #[test]
    fn names_alone_hold_out_too() {
        let held = HeldOutClasses::named(vec!["Lime".into()]);
        let example = |text: &str| SftExample::parse(1, &json!({"instruction": "?", "output": text})).unwrap();
        assert_eq!(held.check_conversation(&example("a lime")), held_out("names", "Lime"));
        assert_eq!(HeldOutClasses::default().check_conversation(&example("a lime")), Ok(()));
    }
}

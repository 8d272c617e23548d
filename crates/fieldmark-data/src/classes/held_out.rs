//! The classes that training never sees, and whether a row of training data shows or names one of them.

use std::collections::HashMap;
use std::path::PathBuf;

use super::class_split::ClassSplit;
use super::names::named;
use crate::answer::{aliases::Aliases, normal_form};
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
    /// The form in which names are compared, of each name and alias, with the class; and of all classes.
    forms: Vec<(String, usize)>,
    all: Vec<String>,
    /// Photographs by the size of their file: a row may show a copy elsewhere.
    photos: HashMap<u64, Vec<(PathBuf, usize)>>,
}

impl HeldOutClasses {
    /// Classes of which only the names are known.
    pub fn named(names: Vec<String>) -> Self {
        let all: Vec<String> = names.iter().map(|name| normal_form(name)).collect();
        Self { forms: all.iter().cloned().zip(0..).collect(), all, names, photos: HashMap::new() }
    }

    /// The unseen classes of a folder.
    pub fn of(folder: &LabelledFolder, split: &ClassSplit) -> Self {
        let mut found = Self::named(split.classes(Split::Unseen).map(str::to_owned).collect());
        found.all.extend(split.classes(Split::Seen).map(normal_form));
        for photo in &folder.photos {
            if let Some(class) = found.names.iter().position(|name| *name == photo.class) {
                photo.aliases.iter().for_each(|alias| found.add(alias, class));
                let file = folder.file(photo);
                // A photograph that is missing cannot be shown either.
                let size = std::fs::metadata(&file).map(|data| data.len());
                size.into_iter().for_each(|size| found.photos.entry(size).or_default().push((file.clone(), class)));
            }
        }
        found
    }

    /// Holds out the aliases of the classes too, besides those in the labels.
    pub fn with_aliases(mut self, aliases: &Aliases) -> Self {
        for class in 0..self.names.len() {
            aliases.of(&self.names[class]).iter().for_each(|alias| self.add(alias, class));
        }
        self
    }

    fn add(&mut self, alias: &str, class: usize) {
        let form = normal_form(alias);
        if !form.is_empty() && self.forms.iter().all(|(known, _)| *known != form) {
            self.all.push(form.clone());
            self.forms.push((form, class));
        }
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
        for truth in std::iter::once(&row.answer).chain(&row.aliases) {
            let truth = normal_form(truth);
            if let Some((_, class)) = self.forms.iter().find(|(form, _)| *form == truth) {
                return Err(Self::problem("names", &self.names[*class]));
            }
        }
        Ok(())
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
        let found = named(text, self.forms.iter().map(|(form, _)| form.as_str()), &self.all);
        let (_, class) = self.forms.iter().find(|(form, _)| Some(&form.as_str()) == found.first())?;
        Some(&self.names[*class])
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
        // Its other names are held out too, in rows as in answers.
        let mut aliases = Aliases::default();
        aliases.add("lime", ["Limette"]);
        let held = held.with_aliases(&aliases);
        assert_eq!(held.check_conversation(&example("eine Limette")), held_out("names", "Lime"));
        let triplet = |change: serde_json::Value| {
            let mut row = json!({"problem": "?", "answer": "Plum", "anchor": "p.jpg"});
            row.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            held.check_triplet(&TapoRow::parse(1, &row).unwrap())
        };
        assert_eq!(triplet(json!({})), Ok(()));
        assert_eq!(triplet(json!({"answer": "limette"})), held_out("names", "Lime"));
        assert_eq!(triplet(json!({"alias": ["lime"]})), held_out("names", "Lime"));
        // A script without blanks.
        let held = HeldOutClasses::named(vec!["\u{9752}\u{67e0}".into()]);
        assert_eq!(
            held.check_conversation(&example("\u{8fd9}\u{662f}\u{9752}\u{67e0}\u{3002}")),
            held_out("names", "\u{9752}\u{67e0}")
        );
    }
}

//! A folder of labelled photographs. Its `labels.csv` has a header line and one line for each photograph:
//!
//! ```csv
//! path,class,super_category,group,split
//! images/test/Anjou/Anjou_001.jpg,Anjou,Pear,Fruit,test
//! ```
//!
//! | Column | Needed? | Meaning |
//! | --- | --- | --- |
//! | `path` | yes | the photograph, relative to the folder of `labels.csv`; each photograph once |
//! | `class` | yes | the fine-grained class: the answer that the model should give |
//! | `super_category` | yes | the family of the class; wrong options and negatives come from the same family first |
//! | `split` | yes | `train` or `test`; test photographs are used in evaluation only |
//! | `group` | no | a coarser group than the family |
//! | `aliases`, or `alias` | no | other names of the class, separated by `;`, which are as right as `class` |
//!
//! Columns may be in any order, and other columns are ignored. The table may be as spreadsheets write it (`table.rs`). Which classes are seen and unseen is drawn by
//! [`ClassSplit`](crate::ClassSplit), not written in the table.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::columns::matchable;
use super::reader::{ReadLimits, read_text};
use super::table::Table;
use crate::answer::{aliases::Aliases, normal_form, truth::truth_text};
use crate::error::{DataError, RowProblem};
use crate::images::{ImageRoots, same_path};

/// Whether a photograph is for training or for testing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceSplit {
    /// For training.
    Train,
    /// For testing; never an anchor, positive or negative in training.
    Test,
}

/// One photograph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledPhoto {
    /// The line in the table; the header is line 1.
    pub row: usize,
    /// The path in the table, relative to the folder.
    pub path: PathBuf,
    /// The fine-grained class ("Granny Smith").
    pub class: String,
    /// Its family ("Apple").
    pub super_category: String,
    /// A coarser group ("Fruit"); empty if the table has no such column.
    pub group: String,
    /// For training or for testing.
    pub split: SourceSplit,
    /// Other names of the class in this row.
    pub aliases: Vec<String>,
}

/// A table of labels and its folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledFolder {
    /// The folder that paths are relative to.
    pub root: PathBuf,
    /// The photographs in the order of the table.
    pub photos: Vec<LabelledPhoto>,
}

impl LabelledFolder {
    /// Reads `labels.csv` of a folder.
    ///
    /// # Errors
    /// Returns the errors of [`read_labels`].
    pub fn open(folder: &Path) -> Result<Self, DataError> {
        read_labels(&folder.join("labels.csv"))
    }

    /// The file of a photograph. If it is missing, this is where it should be.
    pub fn file(&self, photo: &LabelledPhoto) -> PathBuf {
        let written = self.root.join(&photo.path);
        if written.is_file() { written } else { ImageRoots::new(&self.root).find(&photo.path).unwrap_or(written) }
    }

    /// The super-category of each class.
    pub fn families(&self) -> BTreeMap<String, String> {
        let pairs = self.photos.iter();
        pairs.map(|photo| (photo.class.clone(), photo.super_category.clone())).collect()
    }

    /// Other names of the classes, from all rows.
    ///
    /// # Errors
    /// Returns the errors of [`Aliases::check`].
    pub fn aliases(&self) -> Result<Aliases, DataError> {
        let mut aliases = Aliases::default();
        self.photos.iter().for_each(|photo| aliases.add(&photo.class, photo.aliases.iter().cloned()));
        aliases.check(self.photos.iter().map(|photo| photo.class.as_str()), &self.root.join("labels.csv"))?;
        Ok(aliases)
    }

    /// The photographs of `split` whose class `keep` accepts, in the order of the table.
    pub fn select<'a>(
        &'a self,
        split: SourceSplit,
        keep: impl Fn(&str) -> bool + 'a,
    ) -> impl Iterator<Item = &'a LabelledPhoto> {
        self.photos.iter().filter(move |photo| photo.split == split && keep(&photo.class))
    }
}

/// Reads a table of labels: UTF-8 or UTF-16, separated by commas, semicolons, tabs or bars, with a header line, plain or
/// gzipped. Other columns are ignored. Only [`crate::check_file`] checks that the photographs exist.
///
/// # Errors
/// Returns the first bad row, with file and line, or an error if a column is missing or the table has no rows.
pub fn read_labels(table: &Path) -> Result<LabelledFolder, DataError> {
    let (text, _) = read_text(table, ReadLimits::default())?;
    let (root, rows) = label_rows(table, &text)?;
    let photos = rows.into_iter().collect::<Result<Vec<_>, _>>()?;
    if photos.is_empty() {
        return Err(DataError::file(table, "no rows; add a line for each photograph"));
    }
    Ok(LabelledFolder { root, photos })
}

/// The columns that a table must have.
const REQUIRED: [&str; 4] = ["path", "class", "super_category", "split"];

/// Returns true if a text is a table of labels: its header has the columns `path` and `class`.
pub(crate) fn is_table(text: &str) -> bool {
    if text.trim_start_matches('\u{feff}').trim_start().starts_with(['[', '{']) {
        return false;
    }
    let table = Table::open(text, &REQUIRED);
    ["path", "class"].iter().all(|name| table.column(name).is_some())
}

/// Parses all rows. A bad row is an error in the list; a bad header is an error of the whole table.
pub(crate) fn label_rows(
    path: &Path,
    text: &str,
) -> Result<(PathBuf, Vec<Result<LabelledPhoto, DataError>>), DataError> {
    let table = Table::open(text, &REQUIRED);
    let required = |name: &str| {
        table.column(name).ok_or_else(|| {
            DataError::file(
                path,
                format!(
                    "column {name:?} is missing; the header needs path, class, super_category and split, and has {} \
                     (separated by {})",
                    table.header.join(", "),
                    table.separator()
                ),
            )
        })
    };
    let columns = Columns {
        path: required("path")?,
        class: required("class")?,
        super_category: required("super_category")?,
        split: required("split")?,
        group: table.column("group"),
        aliases: table.column("aliases").or_else(|| table.column("alias")),
    };
    let mut earlier = Earlier::default();
    let rows = table.rows().into_iter().map(|(row, fields)| {
        let photo = fields.and_then(|fields| columns.photo(&fields, row)).and_then(|photo| earlier.admit(photo));
        photo.map_err(|problem| DataError::row(path, row, problem))
    });
    let root = path.parent().unwrap_or(Path::new("")).to_path_buf();
    Ok((root, rows.collect()))
}

struct Columns {
    path: usize,
    class: usize,
    super_category: usize,
    split: usize,
    group: Option<usize>,
    aliases: Option<usize>,
}

impl Columns {
    fn photo(&self, fields: &[String], row: usize) -> Result<LabelledPhoto, RowProblem> {
        let field = |index: usize| fields.get(index).map_or("", String::as_str);
        let filled = |index: usize, name: &str| match field(index) {
            "" => Err(RowProblem::Empty(name.into())),
            // No name has one, but a quote that is not closed swallows the lines below it.
            text if text.contains(['\n', '\r']) => {
                Err(RowProblem::NotCsv(format!("{name} has a line break; is a quote not closed?")))
            }
            text => Ok(text.to_owned()),
        };
        let split = match field(self.split) {
            text if text.eq_ignore_ascii_case("train") => SourceSplit::Train,
            text if text.eq_ignore_ascii_case("test") => SourceSplit::Test,
            other => {
                return Err(RowProblem::UnknownValue {
                    field: "split".into(),
                    found: other.into(),
                    expected: "\"train\" or \"test\"",
                });
            }
        };
        Ok(LabelledPhoto {
            row,
            path: PathBuf::from(filled(self.path, "path")?),
            class: matchable(&truth_text(&filled(self.class, "class")?))?,
            super_category: filled(self.super_category, "super_category")?,
            group: self.group.map(field).unwrap_or("").to_owned(),
            split,
            aliases: self.aliases.map_or(Ok(Vec::new()), |index| aliases(field(index)))?,
        })
    }
}

/// The names in a cell, separated by `;`. A cell that is missing in R or pandas has none.
fn aliases(cell: &str) -> Result<Vec<String>, RowProblem> {
    let cell = cell.trim();
    if cell.starts_with('[') && cell.ends_with(']') {
        let expected = "names separated by \";\"";
        return Err(RowProblem::UnknownValue { field: "aliases".into(), found: cell.into(), expected });
    }
    let names = cell.split(';').map(str::trim).filter(|name| !["", "NA", "NaN", "nan", "None"].contains(name));
    Ok(names.map(str::to_owned).collect())
}

/// The photographs, classes and super-categories of earlier rows, to find rows that contradict them. Names that are the same
/// in the [`normal_form`] get the spelling of the first.
#[derive(Default)]
struct Earlier {
    paths: HashMap<PathBuf, usize>,
    spellings: HashMap<String, String>,
    families: HashMap<String, (String, usize)>,
}

impl Earlier {
    fn admit(&mut self, mut photo: LabelledPhoto) -> Result<LabelledPhoto, RowProblem> {
        photo.class = self.first_spelling("class", photo.class);
        photo.super_category = self.first_spelling("super_category", photo.super_category);
        if let Some(row) = self.paths.insert(same_path(&photo.path), photo.row) {
            return Err(RowProblem::Repeated(row));
        }
        let (earlier, row) =
            self.families.entry(photo.class.clone()).or_insert_with(|| (photo.super_category.clone(), photo.row));
        if *earlier != photo.super_category {
            return Err(RowProblem::TwoSuperCategories {
                class: photo.class,
                found: photo.super_category,
                earlier: earlier.clone(),
                row: *row,
            });
        }
        Ok(photo)
    }

    fn first_spelling(&mut self, column: &str, name: String) -> String {
        self.spellings.entry(format!("{column} {}", normal_form(&name))).or_insert(name).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::truth::Unmatchable;

    fn table(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("labels.csv");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn columns_are_found_by_name() {
        let (dir, path) = table(
            "split,width,class,path,super_category\ntest,3,\"Lime, key\",a/1.jpg,Citrus\ntrain,3,Lemon,2.jpg,Citrus\n",
        );
        let folder = read_labels(&path).unwrap();
        assert_eq!(folder, LabelledFolder::open(dir.path()).unwrap());
        let first = &folder.photos[0];
        assert_eq!((first.row, first.class.as_str(), first.split), (2, "Lime, key", SourceSplit::Test));
        assert_eq!(folder.file(first), dir.path().join("a/1.jpg"));
        assert_eq!(folder.families()["Lemon"], "Citrus");
        let train: Vec<_> = folder.select(SourceSplit::Train, |_| true).collect();
        assert_eq!(train, [&folder.photos[1]]);
        assert_eq!(folder.select(SourceSplit::Train, |class| class == "Lime").count(), 0);
    }

    #[test]
    fn classes_and_aliases_come_from_all_rows() {
        let read = |last: &str| {
            let rows = format!(
                "path,class,super_category,split,alias\na,Granny Smith,Apple,test,Granny; Grannysmith\n\
                 b,Granny Smith,Apple,train,granny;\nc,Gala,Apple,train,{last}\n"
            );
            let (dir, path) = table(&rows);
            let folder = read_labels(&path).unwrap();
            drop(dir);
            folder.aliases()
        };
        let aliases = read("").unwrap();
        assert_eq!((aliases.of("granny smith").len(), aliases.of("Gala").len()), (2, 0));
        let (_dir, path) = table("path,class,super_category,split\na,Jalapen\u{303}o,x,test\nb,Jalape\u{f1}o,x,test\n");
        assert_eq!(read_labels(&path).unwrap().families().len(), 1);
        assert_eq!(aliases.of("Granny Smith"), ["Granny", "Grannysmith"]);
        for bad in ["granny", "Granny_Smith"] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.contains("labels.csv") && error.contains("Gala") && error.contains("Granny"), "{error}");
        }
    }

    #[test]
    fn one_name_in_several_spellings_is_one_class() {
        let (_dir, path) = table(
            "path,class,super_category,split\na,Key Lime,Citrus,Train\nb,key_lime,citrus,TEST\nc,KEY LIME ,Citrus,test\n",
        );
        let folder = read_labels(&path).unwrap();
        assert!(
            folder
                .photos
                .iter()
                .all(|photo| (photo.class.as_str(), photo.super_category.as_str()) == ("Key Lime", "Citrus"))
        );
        assert_eq!(
            folder.photos.iter().map(|photo| photo.split).collect::<Vec<_>>(),
            [SourceSplit::Train, SourceSplit::Test, SourceSplit::Test]
        );
    }

    #[test]
    fn a_quote_that_is_not_closed_swallows_no_rows_and_a_list_is_no_name() {
        let read = |rows: &str| {
            let (_dir, path) = table(&format!("path,class,super_category,split,aliases\n{rows}"));
            read_labels(&path).map_err(|error| error.to_string())
        };
        let error = read("a,\"Lime,Citrus,train,\nb,Lemon\",Citrus,train,\n").unwrap_err();
        assert!(error.contains("class") && error.contains("line break"), "{error}");
        let error = read("a,Lime,Citrus,train,['Limette']\n").unwrap_err();
        assert!(error.contains("aliases") && error.contains("['Limette']"), "{error}");
        let folder = read("a,Lime,Citrus,train,NA\nb,Lemon,Citrus,train,Citron;Zitrone\n").unwrap();
        assert_eq!(folder.photos[0].aliases, [""; 0]);
        assert_eq!(folder.photos[1].aliases, ["Citron", "Zitrone"]);
    }

    #[test]
    fn every_bad_row_is_named() {
        let header = "path,class,super_category,split\n";
        let cases = [
            (
                "a,Lime,Citrus,dev\n",
                2,
                RowProblem::UnknownValue {
                    field: "split".into(),
                    found: "dev".into(),
                    expected: "\"train\" or \"test\"",
                },
            ),
            (",Lime,Citrus,test\n", 2, RowProblem::Empty("path".into())),
            ("a,?,Citrus,test\n", 2, RowProblem::Unmatchable { truth: "?".into(), reason: Unmatchable::Punctuation }),
            ("a,Lime,Citrus\n", 2, RowProblem::NotCsv("3 fields, but the header has 4".into())),
            ("a,Lime,Citrus,test\na,Lime,Citrus,test\n", 3, RowProblem::Repeated(2)),
            ("a/l,Lime,Citrus,test\n./a/l,Lime,Citrus,test\n", 3, RowProblem::Repeated(2)),
            ("a/l,Lime,Citrus,test\na\\.\\l,Lime,Citrus,test\n", 3, RowProblem::Repeated(2)),
            (
                "a,Lime,Citrus,test\nb,Lime,Fruit,test\n",
                3,
                RowProblem::TwoSuperCategories {
                    class: "Lime".into(),
                    found: "Fruit".into(),
                    earlier: "Citrus".into(),
                    row: 2,
                },
            ),
        ];
        for (rows, at, expected) in cases {
            let (_dir, path) = table(&format!("{header}{rows}"));
            let error = read_labels(&path).unwrap_err();
            assert!(error.to_string().starts_with(&format!("{}:{at}: ", path.display())), "{error}");
            assert!(
                matches!(&error, DataError::Row { row, problem, .. } if (*row, problem) == (at, &expected)),
                "{error}"
            );
        }
        let (_dir, path) = table(header);
        assert!(matches!(read_labels(&path), Err(DataError::File { file, .. }) if file == path));
        let (_dir, path) = table("path,class,split\na,b,test\n");
        assert!(read_labels(&path).unwrap_err().to_string().contains("\"super_category\""));
    }

    #[test]
    fn photographs_are_found_in_the_other_forms_of_their_paths() {
        let (dir, path) = table("path;class;super_category;split\na\\1.jpg;Lime;Citrus;test\n");
        std::fs::create_dir(dir.path().join("a")).unwrap();
        std::fs::write(dir.path().join("a/1.jpg"), "x").unwrap();
        let folder = read_labels(&path).unwrap();
        assert_eq!(folder.file(&folder.photos[0]), dir.path().join("a/1.jpg"));
    }
}

//! A table as spreadsheets and R write it: quoted or not, separated by commas, semicolons, tabs or bars, with a column of
//! row names that the header may leave out, with blank lines and empty cells at the end of rows.

use std::borrow::Cow;

use csv::{ReaderBuilder, StringRecord};

use crate::error::RowProblem;

/// The signs that may separate fields. Of equally good ones, the first is taken.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// A table with its header read.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    /// The lines from the header on, each ended by `\n` alone.
    text: Cow<'a, str>,
    delimiter: u8,
    /// Lines before the header.
    skipped: usize,
    pub(crate) header: Vec<String>,
}

impl<'a> Table<'a> {
    /// Finds the separator by which the header has most of the columns `names`. Excel's first line `sep=;` decides it.
    pub(crate) fn open(text: &'a str, names: &[&str]) -> Self {
        let text = text.trim_start_matches('\u{feff}');
        let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
        if let [b's', b'e', b'p', b'=', delimiter] = *first.trim_end_matches('\r').to_ascii_lowercase().as_bytes() {
            let text = with_plain_ends(rest);
            return Self { header: header(&text, delimiter), text, delimiter, skipped: 1 };
        }
        let text = with_plain_ends(text);
        let known = |header: &[String]| names.iter().filter(|name| place(header, name).is_some()).count();
        let found = DELIMITERS.map(|delimiter| (delimiter, header(&text, delimiter)));
        let best = found.into_iter().rev().max_by_key(|(_, header)| known(header));
        let (delimiter, header) = best.unwrap_or((b',', Vec::new()));
        Self { text, delimiter, skipped: 0, header }
    }

    /// The place of a column, by its name or else by its name in other case or with other marks between its words.
    pub(crate) fn column(&self, name: &str) -> Option<usize> {
        place(&self.header, name)
    }

    /// The rows that are not blank, each with its line in the file and as many fields as the header.
    pub(crate) fn rows(&self) -> Vec<(usize, Result<Vec<String>, RowProblem>)> {
        let mut reader = reader(&self.text, self.delimiter);
        let mut lines = Lines { text: self.text.as_bytes(), read: 0, line: 1 + self.skipped };
        let records = reader.records().map(|record| {
            let position = record.as_ref().map_or_else(csv::Error::position, StringRecord::position);
            let line = lines.at(position.map_or(0, |position| position.byte() as usize));
            (line, record.map_err(|error| RowProblem::NotCsv(error.to_string())))
        });
        let blank = |record: &StringRecord| record.iter().all(|field| field.trim().is_empty());
        let records: Vec<_> = records.filter(|(_, record)| !record.as_ref().is_ok_and(blank)).collect();
        // R's `write.table` gives row names a column and the header no name for it.
        let width = self.header.len();
        let is_named = |record: &StringRecord| record.len() == width + 1 && !last(record).is_empty();
        let named = !records.is_empty() && records.iter().all(|(_, record)| record.as_ref().is_ok_and(is_named));
        let row = |record: StringRecord| {
            let fields: Vec<String> =
                record.iter().skip(usize::from(named)).map(|field| field.trim().to_owned()).collect();
            match fields.get(..width) {
                Some(own) if fields[width..].iter().all(String::is_empty) => Ok(own.to_vec()),
                _ => Err(RowProblem::NotCsv(format!("{} fields, but the header has {width}", fields.len()))),
            }
        };
        records.into_iter().map(|(line, record)| (line, record.and_then(row))).collect()
    }

    /// What separates the fields, in words.
    pub(crate) fn separator(&self) -> &'static str {
        match self.delimiter {
            b',' => "commas",
            b';' => "semicolons",
            b'\t' => "tabs",
            b'|' => "bars",
            _ => "its own sign",
        }
    }
}

/// Counts lines. The reader of CSV counts a blank line before a record to the record.
struct Lines<'a> {
    text: &'a [u8],
    read: usize,
    line: usize,
}

impl Lines<'_> {
    /// The line of the first letter at or after a place; places must not go back.
    fn at(&mut self, place: usize) -> usize {
        while self.text.get(self.read).is_some_and(|byte| self.read < place || *byte == b'\n') {
            self.line += usize::from(self.text[self.read] == b'\n');
            self.read += 1;
        }
        self.line
    }
}

/// The text with `\n` for the ends of lines of Windows and of old Macs.
fn with_plain_ends(text: &str) -> Cow<'_, str> {
    if text.contains('\r') { Cow::Owned(text.replace("\r\n", "\n").replace('\r', "\n")) } else { Cow::Borrowed(text) }
}

fn place(header: &[String], name: &str) -> Option<usize> {
    let at = |same: &dyn Fn(&str) -> bool| header.iter().position(|field| same(field));
    at(&|field| field == name).or_else(|| at(&|field| field.to_ascii_lowercase().replace([' ', '-', '.'], "_") == name))
}

fn last(record: &StringRecord) -> &str {
    record.iter().next_back().unwrap_or("").trim()
}

fn reader(text: &str, delimiter: u8) -> csv::Reader<&[u8]> {
    ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(text.as_bytes())
}

fn header(text: &str, delimiter: u8) -> Vec<String> {
    let mut reader = reader(text, delimiter);
    let header = reader.headers().map(|header| header.iter().map(|name| name.trim().to_owned()).collect());
    header.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 2] = ["path", "class"];

    fn rows(text: &str) -> Vec<(usize, Vec<String>)> {
        let table = Table::open(text, &NAMES);
        let order = NAMES.map(|name| table.column(name).unwrap());
        let rows = table.rows().into_iter();
        rows.map(|(line, row)| (line, order.map(|at| row.as_ref().unwrap()[at].clone()).to_vec())).collect()
    }

    #[test]
    fn every_programs_table_has_the_same_rows() {
        let row = |line: usize, path: &str, class: &str| (line, vec![path.to_owned(), class.to_owned()]);
        let expected = [row(2, "a.jpg", "Lime"), row(3, "b.jpg", "Key, lime")];
        for text in [
            "path,class\na.jpg,Lime\nb.jpg,\"Key, lime\"\n",
            "\"path\",\"class\"\r\n\"a.jpg\",\"Lime\"\r\n\"b.jpg\",\"Key, lime\"\r\n",
            "\u{feff}path;class\na.jpg;Lime\nb.jpg;Key, lime\n",
            "path\tclass\na.jpg\tLime\nb.jpg\tKey, lime",
            "Class|Path\nLime|a.jpg\nKey, lime|b.jpg\n",
            // R: row names with and without a name of their own.
            "\"\",\"path\",\"class\"\n\"1\",\"a.jpg\",\"Lime\"\n\"2\",\"b.jpg\",\"Key, lime\"\n",
            "\"path\",\"class\"\n\"1\",\"a.jpg\",\"Lime\"\n\"2\",\"b.jpg\",\"Key, lime\"\n",
            // Spreadsheets: empty cells behind the last column, and blank rows.
            "path;class;;\na.jpg;Lime;;\nb.jpg;Key, lime;;\n;;;\n",
            "path;class\na.jpg;Lime;\nb.jpg;Key, lime;\n;\n",
        ] {
            assert_eq!(rows(text), expected, "{text}");
        }
        assert_eq!(rows("path,class\r\n\r\na.jpg,Lime\r\n\r\n"), [row(3, "a.jpg", "Lime")]);
        assert_eq!(rows("path,class\ra.jpg,\"Li\rme\"\rb.jpg,x"), [row(2, "a.jpg", "Li\nme"), row(4, "b.jpg", "x")]);
        assert_eq!(rows("sep=|\npath|class\na;1.jpg|Lime\n"), [row(3, "a;1.jpg", "Lime")]);
    }

    #[test]
    fn a_column_may_be_written_in_other_ways() {
        for header in ["super_category", "Super Category", "super-category", "SUPER.CATEGORY"] {
            let text = format!("path,{header}\na,b\n");
            assert_eq!(Table::open(&text, &["path", "super_category"]).column("super_category"), Some(1), "{header}");
        }
        assert_eq!(Table::open("a b,a_b\n", &[]).column("a_b"), Some(1));
        assert_eq!(Table::open("supercategory\n", &[]).column("super_category"), None);
    }

    #[test]
    fn a_row_of_another_width_is_named() {
        let table = Table::open("path,class\na,b\na\na,b,c\n", &NAMES);
        let problems: Vec<_> = table.rows().into_iter().filter_map(|(line, row)| Some((line, row.err()?))).collect();
        let wrong = |count| RowProblem::NotCsv(format!("{count} fields, but the header has 2"));
        assert_eq!(problems, [(3, wrong(1)), (4, wrong(3))]);
        assert_eq!(table.separator(), "commas");
    }
}

//! The table of results: models (base, SFT, TAPO, baselines) × seen and unseen × closed and open world, in percent with
//! 95 % confidence intervals, as text for a terminal and as Markdown.

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use fieldmark_data::Split;

use crate::interval::Accuracy;
use crate::question::World;
use crate::score::Scores;

/// A table of texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextTable {
    /// The column headings; the first column holds the row labels.
    pub header: Vec<String>,
    /// The rows, each with as many cells as the header.
    pub rows: Vec<Vec<String>>,
}

impl TextTable {
    /// Renders the table for a terminal: boxed, never wrapped.
    pub fn to_text(&self) -> String {
        self.rendered(presets::UTF8_FULL_CONDENSED)
    }

    /// Renders the table for a Markdown file.
    pub fn to_markdown(&self) -> String {
        let escape = |row: &Vec<String>| {
            let cells = row.iter();
            cells.map(|cell| cell.replace('|', "\\|")).collect()
        };
        let escaped = Self { header: escape(&self.header), rows: self.rows.iter().map(escape).collect() };
        escaped.rendered(presets::ASCII_MARKDOWN)
    }

    fn rendered(&self, style: comfy_table::TableStyle) -> String {
        let mut table = Table::new();
        table.load_style(style).set_content_arrangement(ContentArrangement::Disabled).set_header(&self.header);
        for row in &self.rows {
            table.add_row(row.iter().enumerate().map(|(column, text)| {
                let alignment = if column == 0 { CellAlignment::Left } else { CellAlignment::Right };
                Cell::new(text).set_alignment(alignment)
            }));
        }
        table.trim_fmt()
    }
}

/// The results of several models on the same data.
#[derive(Clone, Debug, Default)]
pub struct Report {
    rows: Vec<(String, Scores)>,
    notes: Vec<String>,
}

impl Report {
    /// Creates a report without rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a row for a model or baseline.
    pub fn add(&mut self, label: impl Into<String>, scores: Scores) -> &mut Self {
        self.rows.push((label.into(), scores));
        self
    }

    /// Adds a line below the table.
    pub fn note(&mut self, note: impl Into<String>) -> &mut Self {
        self.notes.push(note.into());
        self
    }

    /// Returns one row per model; the columns are closed and open world, each with seen and unseen classes.
    pub fn table(&self) -> TextTable {
        let columns = World::ALL.iter().flat_map(|world| Split::ALL.map(|split| (*world, split)));
        let columns: Vec<(World, Split)> = columns.collect();
        let heads = columns.iter().map(|(world, split)| {
            let questions = self.rows.iter().filter_map(|(_, scores)| scores.split(*world, *split));
            match questions.map(|accuracy| accuracy.questions).max() {
                Some(questions) => format!("{world}, {split} ({questions})"),
                None => format!("{world}, {split}"),
            }
        });
        TextTable {
            header: std::iter::once("%".to_owned()).chain(heads).collect(),
            rows: self
                .rows
                .iter()
                .map(|(label, scores)| {
                    let cells = columns.iter();
                    let cells = cells.map(|(world, split)| cell(scores.split(*world, *split)));
                    std::iter::once(label.clone()).chain(cells).collect()
                })
                .collect(),
        }
    }

    /// Returns one row per data set for one model: seen, unseen and their mean. The last row is the average.
    pub fn datasets_table(scores: &Scores, world: World) -> TextTable {
        let mut rows: Vec<Vec<String>> = scores
            .datasets(world)
            .into_iter()
            .map(|name| {
                let [seen, unseen] = Split::ALL.map(|split| scores.dataset(world, split, name));
                let both = seen.zip(unseen);
                let mean = both.and_then(|(seen, unseen)| Accuracy::mean(&[seen, unseen]));
                vec![name.to_owned(), cell(seen), cell(unseen), cell(mean)]
            })
            .collect();
        let [seen, unseen] = Split::ALL.map(|split| scores.split(world, split));
        let overall = cell(scores.overall(world));
        rows.push(vec!["average".into(), cell(seen), cell(unseen), overall]);
        TextTable { header: [&format!("{world} world, %"), "seen", "unseen", "mean"].map(str::to_owned).into(), rows }
    }

    /// Renders table and notes for a terminal.
    pub fn to_text(&self) -> String {
        self.with_notes(self.table().to_text(), "")
    }

    /// Renders table and notes for a Markdown file.
    pub fn to_markdown(&self) -> String {
        self.with_notes(self.table().to_markdown(), "\n")
    }

    fn with_notes(&self, mut text: String, gap: &str) -> String {
        for note in &self.notes {
            text.push('\n');
            text.push_str(gap);
            text.push_str(note);
        }
        text.push('\n');
        text
    }
}

/// Formats an accuracy as "76.7 (69.3–82.7)", or a dash if there is none.
fn cell(accuracy: Option<Accuracy>) -> String {
    accuracy.map_or("–".to_owned(), |Accuracy { value, low, high, .. }| {
        let [value, low, high] = [value, low, high].map(|share| 100.0 * share);
        format!("{value:.1} ({low:.1}–{high:.1})")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut scores = Scores::default();
        let accuracy = Accuracy::wilson(115.0, 150).unwrap();
        scores.insert(World::Closed, Split::Seen, "produce", accuracy);
        scores.insert(World::Open, Split::Unseen, "produce", Accuracy::wilson(0.0, 30).unwrap());
        let mut report = Report::new();
        report.add("base | x", Scores::default()).add("SFT", scores).note("In brackets: 95 % intervals.");
        report
    }

    #[test]
    fn markdown_has_a_cell_for_each_world_and_split() {
        let text = report().to_markdown();
        let plain = text.replace("\\|", "/");
        let rows = plain.lines().filter(|line| line.starts_with('|'));
        let cells: Vec<Vec<&str>> = rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect();
        assert_eq!(cells[0], ["%", "closed, seen (150)", "closed, unseen", "open, seen", "open, unseen (30)"]);
        assert!(cells[1].iter().all(|cell| cell.contains("---")));
        assert_eq!(cells[2], ["base / x", "–", "–", "–", "–"]);
        assert_eq!(cells[3], ["SFT", "76.7 (69.3–82.7)", "–", "–", "0.0 (0.0–11.4)"]);
        assert_eq!(cells.len(), 4);
        assert!(text.ends_with("|\n\nIn brackets: 95 % intervals.\n"), "{text}");
    }

    #[test]
    fn the_terminal_table_has_rows_of_equal_width() {
        let text = report().to_text();
        let table: Vec<&str> = text.lines().filter(|line| !line.starts_with("In")).collect();
        let width = table[0].chars().count();
        assert!(table.iter().all(|line| line.chars().count() == width), "{text}");
        assert!(text.contains("76.7 (69.3–82.7)") && text.ends_with("intervals.\n"));
    }

    #[test]
    fn data_sets_end_with_their_average() {
        let mut scores = Scores::default();
        for (split, name, right) in
            [(Split::Seen, "bird", 8.0), (Split::Unseen, "bird", 4.0), (Split::Seen, "car", 6.0)]
        {
            scores.insert(World::Closed, split, name, Accuracy::wilson(right, 10).unwrap());
        }
        let rows = Report::datasets_table(&scores, World::Closed).rows;
        let values: Vec<Vec<&str>> =
            rows.iter().map(|row| row.iter().map(|cell| cell.split(' ').next().unwrap()).collect()).collect();
        let expected =
            [["bird", "80.0", "40.0", "60.0"], ["car", "60.0", "–", "–"], ["average", "70.0", "40.0", "55.0"]];
        assert_eq!(values, expected);
    }
}

//! The curves of a run as an SVG picture, drawn from its `metrics.jsonl`.

use std::path::Path;

use fieldmark::RunError;
use plotters::prelude::*;
use serde_json::Value;

/// One line of the picture.
#[derive(Debug, Clone)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Its points (step, value). Values that are not finite are not drawn.
    pub points: Vec<(f64, f64)>,
}

impl Series {
    /// Creates a line without points.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), points: Vec::new() }
    }
}

/// Reads one line per (name, keys) from a metrics file: the number at the nested `keys` over the number at `x`, for every row
/// that has both.
///
/// # Errors
/// Returns an error if the file cannot be read or a row is not JSON.
pub fn series(path: &Path, x: &str, lines: &[(&str, &[&str])]) -> Result<Vec<Series>, RunError> {
    let text = std::fs::read_to_string(path).map_err(|source| RunError::Io { path: path.into(), source })?;
    let mut found: Vec<Series> = lines.iter().map(|(name, _)| Series::new(*name)).collect();
    for (number, row) in text.lines().enumerate() {
        let row: Value = serde_json::from_str(row).map_err(|source| RunError::LogLine {
            path: path.into(),
            line: number + 1,
            source,
        })?;
        for (series, (_, keys)) in found.iter_mut().zip(lines) {
            let value = keys.iter().fold(&row, |value, key| &value[*key]);
            // A mean over nothing and a loss that overflowed are stored as null.
            series.points.extend(row[x].as_f64().zip(value.as_f64()));
        }
    }
    Ok(found)
}

const COLOURS: [RGBColor; 4] =
    [RGBColor(31, 119, 180), RGBColor(214, 90, 20), RGBColor(44, 140, 60), RGBColor(120, 80, 170)];

/// Draws the lines over one axis of steps.
///
/// # Errors
/// Returns an error if the picture cannot be drawn.
pub fn svg(title: &str, x_label: &str, y_label: &str, series: &[Series]) -> Result<String, RunError> {
    let mut picture = String::new();
    draw(&mut picture, title, x_label, y_label, series)
        .map_err(|error| RunError::Observer(format!("the curve cannot be drawn: {error}").into()))?;
    Ok(picture)
}

fn draw(
    picture: &mut String,
    title: &str,
    x_label: &str,
    y_label: &str,
    series: &[Series],
) -> Result<(), Box<dyn std::error::Error>> {
    let finite = |series: &Series| {
        let points = series.points.iter().copied();
        points.filter(|(x, y)| x.is_finite() && y.is_finite()).collect::<Vec<_>>()
    };
    let lines: Vec<Vec<(f64, f64)>> = series.iter().map(finite).collect();
    let span = |values: &mut dyn Iterator<Item = f64>| {
        let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
        if low > high {
            0.0..1.0
        } else {
            let margin = if high > low { 0.05 * (high - low) } else { 0.5 };
            low - margin..high + margin
        }
    };
    let x = span(&mut lines.iter().flatten().map(|point| point.0));
    let y = span(&mut lines.iter().flatten().map(|point| point.1));
    let root = SVGBackend::with_string(picture, (800, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(x, y)?;
    chart.configure_mesh().x_desc(x_label).y_desc(y_label).light_line_style(RGBColor(235, 235, 235)).draw()?;
    for ((line, series), colour) in lines.into_iter().zip(series).zip(COLOURS.into_iter().cycle()) {
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(2)))?
            .label(series.name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3)).draw()?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_from_the_rows_that_have_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        std::fs::write(&path, "{\"x\":1,\"a\":2.5}\n{\"x\":2,\"a\":null,\"b\":{\"c\":3}}\n{\"a\":4}\n").unwrap();
        let found = series(&path, "x", &[("first", &["a"]), ("second", &["b", "c"])]).unwrap();
        assert_eq!((found[0].name.as_str(), &found[0].points[..]), ("first", &[(1.0, 2.5)][..]));
        assert_eq!(found[1].points, [(2.0, 3.0)]);
        std::fs::write(&path, "{}\nno\n").unwrap();
        assert!(series(&path, "x", &[]).unwrap_err().to_string().contains("metrics.jsonl, line 2"));
    }

    #[test]
    fn every_line_is_in_the_picture() {
        let mut loss = Series::new("loss");
        loss.points = vec![(1.0, 3.0), (2.0, f64::NAN), (3.0, 1.0)];
        let flat = Series { name: "reward".into(), points: vec![(1.0, 2.0)] };
        let picture = svg("SFT", "update", "loss", &[loss, flat, Series::new("empty")]).unwrap();
        for text in ["<svg", "SFT", "update", "loss", "reward", "polyline"] {
            assert!(picture.contains(text), "{text}");
        }
        assert!(!picture.contains("NaN") && picture.trim_end().ends_with("</svg>"));
        assert!(svg("nothing", "x", "y", &[]).unwrap().contains("</svg>"));
    }
}

//! Comparison of two tensors, and the report of all comparisons.
//!
//! Each tolerance is about ten times the largest difference between two versions, and between two attention
//! implementations, of the reference itself.

use std::fmt;

/// The largest difference allowed between two values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tolerance {
    /// No difference.
    Exact,
    /// At most this much.
    Absolute(f64),
    /// At most this much times the largest magnitude in the expected tensor.
    RelativeToMax(f64),
    /// At most the first number plus the second one times the magnitude of the expected value.
    Mixed(f64, f64),
}

/// The result for one tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Within the tolerance.
    Pass,
    /// Outside the tolerance.
    Fail,
    /// An input: it was read but not compared.
    Input,
    /// Unknown to this version, so it was not compared.
    Unknown,
}

/// One line of a report.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// Name of the tensor or file entry.
    pub name: String,
    /// Largest absolute difference; at least 0.
    pub max_abs: f64,
    /// Largest difference divided by the magnitude of the expected value; at least 0.
    pub max_rel: f64,
    /// Cosine of the angle between the two tensors, from -1 to 1.
    pub cosine: f64,
    /// The tolerance.
    pub tolerance: Tolerance,
    /// The result.
    pub status: Status,
    /// A note for the reader; may be empty.
    pub note: String,
}

/// The comparisons of a folder.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// One line per tensor or file entry, in the order of comparison.
    pub lines: Vec<Comparison>,
}

impl Report {
    /// Compares the values of `got` and `expected` whose index `keep` accepts.
    pub(crate) fn compare_where(
        &mut self,
        name: &str,
        got: &[f64],
        expected: &[f64],
        tolerance: Tolerance,
        keep: impl Fn(usize) -> bool,
    ) {
        let mut line = Comparison {
            name: name.into(),
            max_abs: 0.0,
            max_rel: 0.0,
            cosine: 1.0,
            tolerance,
            status: Status::Pass,
            note: String::new(),
        };
        if got.len() != expected.len() {
            line.status = Status::Fail;
            line.note = format!("{} values instead of {}", got.len(), expected.len());
            self.lines.push(line);
            return;
        }
        let largest = expected.iter().fold(0.0f64, |max, x| max.max(x.abs()));
        let (mut dot, mut left, mut right) = (0.0, 0.0, 0.0);
        let mut ok = true;
        for (i, (&a, &b)) in got.iter().zip(expected).enumerate() {
            if !keep(i) {
                continue;
            }
            let difference = if a == b { 0.0 } else { (a - b).abs() };
            let allowed = match tolerance {
                Tolerance::Exact => 0.0,
                Tolerance::Absolute(limit) => limit,
                Tolerance::RelativeToMax(limit) => limit * largest,
                Tolerance::Mixed(absolute, relative) => absolute + relative * b.abs(),
            };
            // This form makes NaN fail.
            ok &= difference <= allowed;
            line.max_abs = worst(line.max_abs, difference);
            if b != 0.0 {
                line.max_rel = worst(line.max_rel, difference / b.abs());
            }
            dot += a * b;
            left += a * a;
            right += b * b;
        }
        if left > 0.0 && right > 0.0 {
            line.cosine = dot / (left.sqrt() * right.sqrt());
        }
        line.status = if ok { Status::Pass } else { Status::Fail };
        self.lines.push(line);
    }

    pub(crate) fn compare(&mut self, name: &str, got: &[f64], expected: &[f64], tolerance: Tolerance) {
        self.compare_where(name, got, expected, tolerance, |_| true);
    }

    /// Compares two values that are not numbers.
    pub(crate) fn equal<T: PartialEq + fmt::Debug>(&mut self, name: &str, got: &T, expected: &T) {
        let same = got == expected;
        let note = if same { String::new() } else { format!("got {got:?}, expected {expected:?}") };
        self.push(name, if same { Status::Pass } else { Status::Fail }, note);
    }

    pub(crate) fn push(&mut self, name: &str, status: Status, note: impl Into<String>) {
        let max_abs = if status == Status::Fail { f64::NAN } else { 0.0 };
        self.lines.push(Comparison {
            name: name.into(),
            max_abs,
            max_rel: max_abs,
            cosine: 1.0,
            tolerance: Tolerance::Exact,
            status,
            note: note.into(),
        });
    }

    /// Returns the number of lines with this result.
    pub fn count(&self, status: Status) -> usize {
        self.lines.iter().filter(|line| line.status == status).count()
    }

    /// Returns true if nothing failed.
    pub fn passed(&self) -> bool {
        self.count(Status::Fail) == 0
    }
}

/// Returns the larger of two differences. NaN counts as the largest; `f64::max` would ignore it.
fn worst(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

impl fmt::Display for Tolerance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact => write!(f, "exact"),
            Self::Absolute(limit) => write!(f, "{limit:.0e}"),
            Self::RelativeToMax(limit) => write!(f, "{limit:.0e} of max"),
            Self::Mixed(absolute, relative) => write!(f, "{absolute:.0e} + {relative:.0e} rel"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.lines.iter().map(|line| line.name.len()).max().unwrap_or(0).max(6);
        writeln!(
            f,
            "{:<width$}  {:>9}  {:>9}  {:>11}  {:>15}  result",
            "tensor", "max abs", "max rel", "cosine", "allowed"
        )?;
        for line in &self.lines {
            let result = match line.status {
                Status::Pass => "pass",
                Status::Fail => "FAIL",
                Status::Input => "input",
                Status::Unknown => "unknown",
            };
            write!(f, "{:<width$}  ", line.name)?;
            match line.status {
                Status::Pass | Status::Fail => write!(
                    f,
                    "{:>9.1e}  {:>9.1e}  {:>11.8}  {:>15}",
                    line.max_abs,
                    line.max_rel,
                    line.cosine,
                    line.tolerance.to_string()
                )?,
                Status::Input | Status::Unknown => write!(f, "{:>9}  {:>9}  {:>11}  {:>15}", "", "", "", "")?,
            }
            let note = if line.note.is_empty() { String::new() } else { format!("  ({})", line.note) };
            writeln!(f, "  {result}{note}")?;
        }
        writeln!(
            f,
            "{} pass, {} fail, {} inputs, {} unknown",
            self.count(Status::Pass),
            self.count(Status::Fail),
            self.count(Status::Input),
            self.count(Status::Unknown)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nan_is_the_worst_difference_wherever_it_stands() {
        for got in [[f64::NAN, 1.0, 3.0], [1.0, f64::NAN, 3.0], [1.0, 2.0, f64::NAN]] {
            let mut report = Report::default();
            report.compare("x", &got, &[1.0, 2.0, 3.0], Tolerance::Absolute(9.0));
            let line = &report.lines[0];
            assert!(line.max_abs.is_nan() && line.max_rel.is_nan() && line.status == Status::Fail, "{got:?}: {line:?}");
        }
        let mut report = Report::default();
        report.compare("x", &[1.0, 2.5, 2.0], &[1.0, 2.0, 3.0], Tolerance::Absolute(1.0));
        let line = &report.lines[0];
        assert_eq!((line.max_abs, line.max_rel, line.status), (1.0, 1.0 / 3.0, Status::Pass));
    }
}

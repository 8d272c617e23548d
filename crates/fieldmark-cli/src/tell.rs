//! Lines on standard error. Unlike `eprintln!`, a line that nobody can read any more ends nothing: a run whose terminal is
//! closed still has to save.

use std::{
    fmt::Arguments,
    io::{Write, stderr},
};

/// Writes a line.
pub fn tell(line: Arguments<'_>) {
    let _ = writeln!(stderr().lock(), "{line}");
}

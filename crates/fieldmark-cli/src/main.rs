//! The `fieldmark` command. An error is one line on standard error. A panic is one line too, with a backtrace only if
//! RUST_BACKTRACE is set.

mod arguments;
mod bytes;
mod commands;
mod display;
mod help;
mod signals;
mod tell;

use std::{
    io,
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
};

use clap::Parser;
use fieldmark::device::panic_message;
use fieldmark_allocator::{Allocator, keep_freed_pages};

use arguments::Cli;
use commands::Outcome;
use tell::tell;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// The input is wrong.
const WRONG_INPUT: u8 = 2;
/// Stopped by Ctrl-C or SIGTERM after its work was saved (128 + SIGINT).
const INTERRUPTED: u8 = 130;
/// A fault inside Fieldmark or below it (`EX_SOFTWARE`).
const INTERNAL: u8 = 70;

fn main() -> ExitCode {
    keep_freed_pages();
    let cli = Cli::parse();
    if std::env::var_os("RUST_BACKTRACE").is_none() {
        panic::set_hook(Box::new(|_| ()));
    }
    match panic::catch_unwind(AssertUnwindSafe(|| commands::run(&cli))) {
        Ok(Ok(Outcome::Done)) => ExitCode::SUCCESS,
        Ok(Ok(Outcome::Failed)) => ExitCode::FAILURE,
        Ok(Ok(Outcome::Interrupted)) => ExitCode::from(INTERRUPTED),
        // The reader has closed the pipe, as in `fieldmark ... | head`.
        Ok(Err(error)) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            tell(format_args!("error: {}", one_line(&error.to_string())));
            ExitCode::from(WRONG_INPUT)
        }
        Err(cause) => {
            let message = one_line(&panic_message(cause.as_ref()));
            tell(format_args!(
                "error: a fault inside Fieldmark: {message}; please report it with the command and its input"
            ));
            ExitCode::from(INTERNAL)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

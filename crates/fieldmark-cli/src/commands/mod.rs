//! The commands, one file each, and how they end.

mod ask;
mod data;
mod demo;
mod devices;
mod eval;
mod parity;
mod plan;
mod sft;
mod show;
mod tapo;
mod training;

use std::io::Write;

use crate::arguments::{Cli, Command, DataCommand};

pub use plan::Bytes;

/// How a command that ran to its end came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be.
    Done,
    /// It ran, and what it checked does not hold.
    Failed,
    /// It was asked to stop, saved what it had, and can be continued.
    Interrupted,
}

/// Carries out what the command line asks for.
///
/// # Errors
/// Whatever is wrong with what was given.
pub fn run(cli: &Cli) -> anyhow::Result<Outcome> {
    match &cli.command {
        Command::Demo(args) => demo::run(args),
        Command::Sft(args) => sft::run(args),
        Command::Tapo(args) => tapo::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Ask(args) => ask::run(args),
        Command::Plan(args) => plan::run(args),
        Command::Show(args) => show::run(args),
        Command::Data(DataCommand::Check(args)) => data::check(args),
        Command::Devices => devices::run(),
        Command::Parity(args) => parity::run(args),
    }
}

/// Writes lines to standard output. Unlike `println!`, it does not panic if nobody reads them.
fn say(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

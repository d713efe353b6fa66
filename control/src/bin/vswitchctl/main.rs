//! `vswitchctl`: control a virtual switch from the command line.
//!
//! A client of the control socket and nothing else: whatever it can do, the API can. The grammar is in
//! `args` and `port_args`, what a command does in `run`, how results look in `show` and `table`.
#![forbid(unsafe_code)]

mod args;
mod capture;
mod overlay;
mod overlay_args;
mod port_args;
mod run;
mod show;
mod table;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Cli, join_watch};
use run::{Failure, Output};
use table::{Colour, Style};

/// The switch refused, or could not be asked.
const REFUSED: u8 = 1;
/// The command line is wrong.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse_from(join_watch(std::env::args_os()));
    if cli.watch.is_some() && !cli.command.reads_only() {
        let message = "--watch repeats commands that show something, and this one changes something";
        Cli::command().error(clap::error::ErrorKind::ArgumentConflict, message).exit();
    }
    match repeat(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has had enough: `vswitchctl fdb list | head`.
        Err(Failure::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => fail(&cli, &failure),
    }
}

/// Runs the command once, or again and again.
fn repeat(cli: &Cli) -> Result<(), Failure> {
    let stdout = io::stdout();
    let style = Style::of(&stdout);
    let Some(pause) = cli.watch else {
        return put(cli, &run::run(cli, style)?);
    };
    loop {
        let output = run::run(cli, style)?;
        if stdout.is_terminal() && !cli.json {
            // Home, and clear what is below.
            write!(&stdout, "\x1b[H\x1b[J")?;
        }
        put(cli, &output)?;
        std::thread::sleep(pause);
    }
}

/// Writes a result as it is wanted.
fn put(cli: &Cli, output: &Output) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    if cli.json {
        writeln!(stdout, "{}", output.json)?;
    } else {
        stdout.write_all(output.text.as_bytes())?;
    }
    stdout.flush()?;
    Ok(())
}

/// Writes what went wrong, and says by the exit code whose fault it is.
fn fail(cli: &Cli, failure: &Failure) -> ExitCode {
    let stderr = io::stderr();
    let style = Style::of(&stderr);
    let text = if cli.json {
        failure.json().to_string()
    } else {
        let shown: Vec<String> = failure.to_string().lines().map(table::printable).collect();
        format!("{} {}", style.paint(Colour::Bad, "error:"), shown.join("\n"))
    };
    // Nobody is left to be told if this fails as well.
    let _ = writeln!(stderr.lock(), "{text}");
    ExitCode::from(if matches!(failure, Failure::Usage(_)) { USAGE } else { REFUSED })
}

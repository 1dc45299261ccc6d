//! What commands print: tables for people, JSON for programs.

use std::io::{self, Write as _};

use comfy_table::Table;
use comfy_table::TableStyle;
use folkmoot::wire::Problem;
use serde::Serialize;

use super::failure::Failure;

/// For whom to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    People,
    Json,
}

pub(super) struct Output {
    format: Format,
}

impl Output {
    pub(super) fn new(format: Format) -> Self {
        Self { format }
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Prints a value as JSON for programs, else what `people` returns.
    pub(super) fn show<T: Serialize>(&self, value: &T, people: impl FnOnce() -> String) -> io::Result<()> {
        match self.format {
            Format::Json => self.line(&serde_json::to_string(value)?),
            Format::People => self.line(people().trim_end()),
        }
    }

    /// Prints a value as a line of JSON, for programs only.
    pub(super) fn show_if_json<T: Serialize>(&self, value: &T) -> io::Result<()> {
        match self.format {
            Format::Json => self.line(&serde_json::to_string(value)?),
            Format::People => Ok(()),
        }
    }

    /// Prints what `text` returns, for people only.
    pub(super) fn people(&self, text: impl FnOnce() -> String) -> io::Result<()> {
        match self.format {
            Format::Json => Ok(()),
            Format::People => self.line(text().trim_end()),
        }
    }

    /// Prints a line.
    pub(super) fn line(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.write_all(b"\n")?;
        out.flush()
    }

    /// Says something beside the output, to people only.
    pub(super) fn note(&self, text: &str) {
        match self.format {
            Format::People => eprintln!("{text}"),
            Format::Json => {}
        }
    }

    /// Tells why the command failed.
    pub(super) fn failure(&self, failure: &Failure) {
        let Some(error) = failure.error() else { return };
        match self.format {
            Format::Json => {
                if let Ok(text) = serde_json::to_string(&Problem::from(error)) {
                    eprintln!("{text}");
                }
            }
            Format::People => {
                // What was signed and waits is no error.
                let kind = if error.awaited().is_some() { "" } else { "error: " };
                eprintln!("{kind}{error}");
                if let Some(hint) = error.advice() {
                    eprintln!("  hint: {hint}");
                }
                // What the client did wrong is not logged.
                if let Some(id) = error.request().filter(|_| error.code().http_status() >= 500) {
                    eprintln!("  the node's log tells more under request {id}");
                }
            }
        }
    }
}

/// Returns a table.
pub(super) fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let upper = head.map(str::to_uppercase);
    table_of(upper, rows.into_iter().map(Vec::from))
}

/// Returns a table with as many columns as there are names. The names stand as they are: case may matter in them.
pub(super) fn table_of(head: impl IntoIterator<Item = String>, rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(TableStyle::new());
    table.set_header(head.into_iter().collect::<Vec<_>>());
    for row in rows {
        table.add_row(row);
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Returns names and values, one a line.
pub(super) fn facts(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    rows.iter().map(|(name, value)| format!("{name:width$}  {value}")).collect::<Vec<_>>().join("\n")
}

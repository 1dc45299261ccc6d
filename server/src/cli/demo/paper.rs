//! What a demo prints for people: steps with marks, small tables, a progress line while something takes long.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

use crate::cli::output::{Format, Output};

/// Columns that are used at most.
const WIDTH: usize = 98;
/// Where the figures of a step begin.
const FIGURES_AT: usize = 62;

/// How a text stands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ink {
    Plain,
    Strong,
    Faint,
    Good,
    Bad,
    Left,
    Right,
}

impl Ink {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Strong => "1",
            Self::Faint => "2",
            Self::Good => "32",
            Self::Bad => "1;31",
            Self::Left => "36",
            Self::Right => "35",
        }
    }
}

/// Whether inks show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Colours {
    On,
    Off,
}

/// Where a demo prints.
pub(super) struct Paper<'a> {
    output: &'a Output,
    colours: Colours,
}

impl<'a> Paper<'a> {
    pub(super) fn new(output: &'a Output) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let coloured = io::stdout().is_terminal() && !set("NO_COLOR") && !dumb;
        Self { output, colours: if coloured { Colours::On } else { Colours::Off } }
    }

    pub(super) fn ink(&self, ink: Ink, text: &str) -> String {
        match (self.colours, ink) {
            (Colours::Off, _) | (Colours::On, Ink::Plain) => text.to_owned(),
            (Colours::On, _) => format!("\x1b[{}m{text}\x1b[0m", ink.code()),
        }
    }

    pub(super) fn line(&self, text: &str) -> io::Result<()> {
        // Not by way of `people`, which leaves no line empty.
        match self.output.format() {
            Format::People => self.output.line(text),
            Format::Json => Ok(()),
        }
    }

    pub(super) fn heading(&self, text: &str) -> io::Result<()> {
        self.line("")?;
        self.line(&format!("  {}", self.ink(Ink::Strong, text)))
    }

    /// Prints a step that was done, with its figures at the right.
    pub(super) fn step(&self, text: &str, figures: &str) -> io::Result<()> {
        self.marked(true, text, figures)
    }

    /// Prints a step that holds or does not.
    pub(super) fn marked(&self, holds: bool, text: &str, figures: &str) -> io::Result<()> {
        let mark = if holds { self.ink(Ink::Good, "✓") } else { self.ink(Ink::Bad, "✗") };
        let gap = FIGURES_AT.saturating_sub(4 + width(text)).max(2);
        let figures =
            if figures.is_empty() { String::new() } else { format!("{:gap$}{}", "", self.ink(Ink::Faint, figures)) };
        self.line(&format!("  {mark} {text}{figures}"))
    }

    /// Prints rows under a head, cells wrapped by words; each column has a width and an ink.
    pub(super) fn table<const N: usize>(
        &self,
        columns: [(&str, usize, Ink); N],
        rows: impl IntoIterator<Item = [String; N]>,
    ) -> io::Result<()> {
        debug_assert!(columns.iter().map(|(_, width, _)| width + 2).sum::<usize>() + 2 <= WIDTH, "too wide");
        let head = columns.map(|(name, _, _)| name.to_uppercase());
        self.row(&columns.map(|(_, width, _)| (width, Ink::Faint)), &head)?;
        for row in rows {
            self.row(&columns.map(|(_, width, ink)| (width, ink)), &row)?;
        }
        Ok(())
    }

    fn row(&self, columns: &[(usize, Ink)], cells: &[String]) -> io::Result<()> {
        let cells: Vec<_> =
            columns.iter().zip(cells).map(|((width, ink), cell)| (*width, *ink, wrap(cell, *width))).collect();
        let height = cells.iter().map(|(_, _, lines)| lines.len()).max().unwrap_or_default();
        for index in 0..height {
            let mut line = String::from("    ");
            // Gaps are written before the next cell that holds something, so that no line ends in blanks.
            let mut gap = 0;
            for (space, ink, lines) in &cells {
                let text = lines.get(index).map(String::as_str).unwrap_or_default();
                if !text.is_empty() {
                    line.push_str(&format!("{:gap$}{}", "", self.ink(*ink, text)));
                    gap = 0;
                }
                gap += (space + 2).saturating_sub(width(text));
            }
            // A cell that holds a blank makes an empty line.
            self.line(line.trim_end())?;
        }
        Ok(())
    }

    /// Shows that something is going on; on a terminal only.
    pub(super) fn progress(&self, what: &str, length: Option<u64>) -> ProgressBar {
        // Cleared whatever happens, so that an error begins a line of its own.
        let bar = length.map_or_else(ProgressBar::new_spinner, ProgressBar::new).with_finish(ProgressFinish::AndClear);
        if self.output.format() == Format::Json {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let template = match length {
            Some(_) => "  {spinner} {msg} [{bar:30}] {pos}/{len}",
            None => "  {spinner} {msg} … {elapsed}",
        };
        // A template that is wrong shows the default bar, which is no reason to fail.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸ "));
        }
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    }
}

/// Returns how many columns a text takes: every character of what is printed here takes one.
fn width(text: &str) -> usize {
    text.chars().count()
}

/// Breaks a text into lines of at most `space` characters, between words where it can; `\n` breaks too.
fn wrap(text: &str, space: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for part in text.lines() {
        let mut line = String::new();
        for word in part.split(' ') {
            let mut word: Vec<char> = word.chars().collect();
            if !line.is_empty() && width(&line) + 1 + word.len() > space {
                lines.push(std::mem::take(&mut line));
            }
            while word.len() > space {
                let rest = word.split_off(space);
                lines.push(word.into_iter().collect());
                word = rest;
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.extend(word);
        }
        lines.push(line);
    }
    lines
}

/// Returns a number with commas between thousands.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a duration in the unit that people would choose.
pub(super) fn span(time: Duration) -> String {
    match time.as_millis() {
        0..1_000 => format!("{} ms", time.as_millis()),
        1_000..60_000 => format!("{:.2} s", time.as_secs_f64()),
        _ => format!("{} min {} s", time.as_secs() / 60, time.as_secs() % 60),
    }
}

/// Returns how many a second that is.
pub(super) fn rate(number: u64, time: Duration) -> u64 {
    let per_second = u128::from(number) * 1_000_000 / time.as_micros().max(1);
    u64::try_from(per_second).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_break_between_words_and_fit() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij k", 4), ["abcd", "efgh", "ij k"]);
        assert_eq!(wrap("a\nb c", 9), ["a", "b c"]);
        for space in 1..20 {
            let lines = wrap("Kyoto is a quiet city in Japan, once its capital.", space);
            assert!(lines.iter().all(|line| width(line) <= space), "{space}: {lines:?}");
        }
    }

    #[test]
    fn figures_read_well() {
        assert_eq!([0, 999, 1_000, 6_204, 1_234_567].map(count), ["0", "999", "1,000", "6,204", "1,234,567"]);
        assert_eq!(span(Duration::from_millis(412)), "412 ms");
        assert_eq!(span(Duration::from_millis(2_350)), "2.35 s");
        assert_eq!(span(Duration::from_secs(61)), "1 min 1 s");
        assert_eq!(rate(600, Duration::from_millis(500)), 1_200);
    }
}

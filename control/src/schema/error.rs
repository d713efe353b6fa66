//! What is wrong with a configuration: where, on which object, and what to write instead.
//!
//! Decoding and the cross checks push errors into an [`Errors`] list, which turns byte offsets of the
//! document into lines and columns, so that one run reports all of them, in the order of the text.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// So many errors are kept; the rest of a very wrong document says nothing new.
const KEPT: usize = 50;

/// One mistake in a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigError {
    /// The name of the document, as the caller gave it; empty for values that came from no file.
    pub file: String,
    /// The line, from 1; 0 if the value came from no document.
    pub line: u32,
    /// The column in characters, from 1; 0 if the value came from no document.
    pub column: u32,
    /// The object that the mistake is on: `port "web1"`, `[limits]`.
    pub object: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead: the nearest known name, the allowed values, a range.
    pub hint: Option<String>,
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line != 0 {
            write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        }
        if !self.object.is_empty() {
            write!(f, "{}: ", self.object)?;
        }
        write!(f, "{}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// The errors found so far, and the text that their offsets point into.
pub(super) struct Errors<'t> {
    file: &'t str,
    text: &'t str,
    list: Vec<ConfigError>,
    seen: usize,
}

impl<'t> Errors<'t> {
    /// An empty list over `text`; offsets of later errors are offsets of its bytes.
    pub(super) fn new(file: &'t str, text: &'t str) -> Self {
        Self { file, text, list: Vec::new(), seen: 0 }
    }

    /// Adds one error; `span` is `None` for values that came from no document.
    pub(super) fn push(
        &mut self,
        span: Option<&Range<usize>>,
        object: &str,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        self.seen += 1;
        if self.list.len() == KEPT {
            return;
        }
        let (line, column) = span.map_or((0, 0), |span| position(self.text, span.start));
        self.list.push(ConfigError {
            file: self.file.to_owned(),
            line,
            column,
            object: object.to_owned(),
            message: message.into(),
            hint,
        });
    }

    /// True while nothing is wrong.
    pub(super) fn is_empty(&self) -> bool {
        self.seen == 0
    }

    /// All errors in the order of the text.
    pub(super) fn finish(mut self) -> Vec<ConfigError> {
        self.list.sort_by_key(|error| (error.line, error.column));
        if self.seen > self.list.len() {
            let more = self.seen - self.list.len();
            self.list.push(ConfigError {
                file: self.file.to_owned(),
                line: 0,
                column: 0,
                object: String::new(),
                message: format!("{more} more errors are not shown"),
                hint: None,
            });
        }
        self.list
    }
}

/// Line and column (in characters), both from 1, of a byte offset; an offset inside a character or
/// past the end means the nearest place before it.
fn position(text: &str, offset: usize) -> (u32, u32) {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
    let column = before[line_start..].chars().count() + 1;
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters() {
        let text = "a\nüb = 1\n";
        assert_eq!(position(text, 0), (1, 1));
        assert_eq!(position(text, text.find('b').unwrap()), (2, 2));
        assert_eq!(position(text, 3), (2, 1), "inside the two bytes of ü");
        assert_eq!(position(text, 999), (3, 1));
    }

    #[test]
    fn a_flood_of_errors_is_cut() {
        let mut errors = Errors::new("f", "x");
        for _ in 0..KEPT + 7 {
            errors.push(Some(&(0..1)), "o", "m", None);
        }
        let list = errors.finish();
        assert_eq!(list.len(), KEPT + 1);
        assert_eq!(list[KEPT].to_string(), "7 more errors are not shown");
    }
}

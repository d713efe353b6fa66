//! Bytes written as hexadecimal digits.

use super::build::MAX_FRAME;
use super::error::NotationError;
use super::text::MAX_TEXT;

/// Reads a frame from hexadecimal digits as people paste them: with spaces, colons, line breaks, a leading `0x`, or
/// the offsets (`0x0010:`) that packet dumps put before each line.
///
/// # Errors
/// [`NotationError::Hex`] at the first thing that is not a pair of digits; a text or a frame that is too long.
pub fn from_hex(text: &str) -> Result<Vec<u8>, NotationError> {
    if text.len() > MAX_TEXT {
        return Err(NotationError::TextTooLong { length: text.len(), limit: MAX_TEXT });
    }
    let mut bytes = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let dump = offset_length(line);
        let mut half: Option<u8> = None;
        for (at, character) in line.char_indices().skip_while(|(at, _)| *at < dump) {
            if half.is_none() && (character.is_whitespace() || matches!(character, ':' | '-' | ',')) {
                continue;
            }
            let Some(digit) = character.to_digit(16) else {
                return Err(NotationError::Hex {
                    column: column(text, start + at),
                    found: character.to_string(),
                });
            };
            match half.take() {
                None => half = Some(digit as u8),
                Some(high) => bytes.push(high << 4 | digit as u8),
            }
        }
        start += line.len();
        if half.is_some() {
            return Err(NotationError::Hex { column: column(text, start), found: "half a byte".to_owned() });
        }
    }
    if bytes.len() > MAX_FRAME {
        return Err(NotationError::TooLong { length: bytes.len(), limit: MAX_FRAME });
    }
    Ok(bytes)
}

/// The length of what stands before the digits of a line: spaces, an offset with its colon, a `0x`.
fn offset_length(line: &str) -> usize {
    let body = line.trim_start();
    let indent = line.len() - body.len();
    let Some(digits) = body.strip_prefix("0x") else { return indent };
    match digits.find(|character: char| !character.is_ascii_hexdigit()) {
        Some(end) if digits[end..].starts_with(':') => indent + 2 + end + 1,
        _ => indent + 2,
    }
}

/// The column (from 1, in characters) of the byte at `at`.
pub(super) fn column(text: &str, at: usize) -> usize {
    text[..at].chars().count() + 1
}

/// The bytes of a `hex=` value.
pub(super) fn digits(text: &str) -> Option<Vec<u8>> {
    from_hex(text).ok()
}

//! Text to layers and back: only the grammar, no meaning.
//!
//! ```text
//! frame = layer { layer }                    spaces or "/" between layers
//! layer = name [ "(" [ field { "," field } ] ")" ]
//! field = name "=" value | name              a bare name is a flag set to 1
//! value = '"' characters '"' | anything up to the next "," or ")"
//! ```
//! In quotes `\"`, `\\` and `\n` stand for a quote, a backslash and a line break.

use super::error::{NotationError, hint};
use super::hex::column;
use super::layers::Kind;
use super::value::{Form, Value};

/// One layer as the text gave it: the fields that it sets, and where it starts.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) kind: Kind,
    pub(super) column: usize,
    /// One place for each of [`Kind::fields`].
    values: Vec<Option<Value>>,
}

impl Layer {
    pub(super) fn new(kind: Kind) -> Layer {
        Layer { kind, column: 1, values: vec![None; kind.fields().len()] }
    }

    pub(super) fn value(&self, position: usize) -> Option<&Value> {
        self.values[position].as_ref()
    }

    pub(super) fn set_value(&mut self, position: usize, value: Option<Value>) -> Option<Value> {
        std::mem::replace(&mut self.values[position], value)
    }

    /// The number in the field `name`, if it is set.
    pub(super) fn number(&self, name: &str) -> Option<u128> {
        match self.value(self.kind.position(name)?)? {
            Value::Number(number) => Some(*number),
            Value::Bytes(_) => None,
        }
    }

    /// The bytes in the field `name`, if it is set.
    pub(super) fn bytes(&self, name: &str) -> Option<&[u8]> {
        match self.value(self.kind.position(name)?)? {
            Value::Bytes(bytes) => Some(bytes),
            Value::Number(_) => None,
        }
    }

    /// Sets the field `name`; a name that the layer does not have is ignored.
    pub(super) fn set(&mut self, name: &str, value: Value) {
        if let Some(position) = self.kind.position(name) {
            self.values[position] = Some(value);
        }
    }

    /// Appends the layer as text.
    pub(super) fn write(&self, out: &mut String) {
        out.push_str(self.kind.name());
        let mut separator = '(';
        for (field, value) in self.kind.fields().iter().zip(&self.values) {
            let Some(value) = value else { continue };
            out.push(separator);
            out.push_str(field.name);
            out.push('=');
            field.form.write(value, out);
            separator = ',';
        }
        out.push_str(if separator == '(' { "()" } else { ")" });
    }
}

/// The longest text that is read: the longest frame as hexadecimal digits and separators, with room to spare.
pub(super) const MAX_TEXT: usize = 256 * 1024;

/// The most layers of a frame. Building takes time that grows with layers times bytes, and text comes from clients.
pub(super) const MAX_LAYERS: usize = 32;

/// Reads `text` into layers.
pub(super) fn read(text: &str) -> Result<Vec<Layer>, NotationError> {
    if text.len() > MAX_TEXT {
        return Err(NotationError::TextTooLong { length: text.len(), limit: MAX_TEXT });
    }
    let mut reader = Reader { text, at: 0 };
    let mut layers = Vec::new();
    loop {
        reader.skip(|character| character.is_whitespace() || character == '/');
        if reader.peek().is_none() {
            break;
        }
        let layer = reader.layer()?;
        if layers.len() == MAX_LAYERS {
            return Err(NotationError::TooManyLayers { column: layer.column, limit: MAX_LAYERS });
        }
        layers.push(layer);
    }
    if layers.is_empty() { Err(NotationError::Empty) } else { Ok(layers) }
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn skip(&mut self, wanted: impl Fn(char) -> bool) {
        let rest = &self.text[self.at..];
        self.at += rest.find(|character| !wanted(character)).unwrap_or(rest.len());
    }

    fn skip_spaces(&mut self) {
        self.skip(char::is_whitespace);
    }

    /// Takes `wanted` if it is next.
    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn column(&self, at: usize) -> usize {
        column(self.text, at)
    }

    fn unexpected(&self, expected: &'static str) -> NotationError {
        let found = self.peek().map_or_else(|| "the end".to_owned(), |character| format!("`{character}`"));
        NotationError::Syntax { column: self.column(self.at), expected, found }
    }

    fn name(&mut self, expected: &'static str) -> Result<(&'t str, usize), NotationError> {
        let start = self.at;
        self.skip(|character| character.is_ascii_alphanumeric() || matches!(character, '_' | '-'));
        if start == self.at {
            return Err(self.unexpected(expected));
        }
        Ok((&self.text[start..self.at], start))
    }

    fn layer(&mut self) -> Result<Layer, NotationError> {
        let (name, start) = self.name("a layer like eth(...)")?;
        let column = self.column(start);
        let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name)) else {
            let hint = hint(name, Kind::ALL.into_iter().map(Kind::name));
            return Err(NotationError::UnknownLayer { column, name: name.to_owned(), hint });
        };
        let mut layer = Layer { column, ..Layer::new(kind) };
        if !self.take('(') {
            return Ok(layer);
        }
        self.skip_spaces();
        while !self.take(')') {
            self.field(&mut layer)?;
            self.skip_spaces();
            if !self.take(',') && self.peek() != Some(')') {
                return Err(self.unexpected("`,` or `)`"));
            }
            self.skip_spaces();
        }
        Ok(layer)
    }

    fn field(&mut self, layer: &mut Layer) -> Result<(), NotationError> {
        let (name, start) = self.name("a field like dst=... or `)`")?;
        let (column, kind) = (self.column(start), layer.kind);
        let Some(position) = kind.position(name) else {
            let hint = hint(name, kind.fields().iter().map(|field| field.name));
            return Err(NotationError::UnknownField {
                column,
                layer: kind.name(),
                name: name.to_owned(),
                hint,
            });
        };
        let field = &kind.fields()[position];
        self.skip_spaces();
        let value = if self.take('=') {
            self.skip_spaces();
            let value_column = self.column(self.at);
            let raw = self.value()?;
            field.form.read(&raw, field.width()).map_err(|expected| NotationError::Value {
                column: value_column,
                layer: kind.name(),
                field: field.name,
                value: raw,
                expected,
            })?
        } else if field.width() == 1 {
            Value::Number(1)
        } else {
            return Err(self.unexpected("`=` and a value"));
        };
        match layer.set_value(position, Some(value)) {
            None => Ok(()),
            Some(_) => Err(NotationError::Twice { column, layer: kind.name(), field: field.name }),
        }
    }

    fn value(&mut self) -> Result<String, NotationError> {
        if self.take('"') {
            return self.quoted();
        }
        let start = self.at;
        self.skip(|character| character != ',' && character != ')');
        if self.peek().is_none() {
            return Err(self.unexpected("`)`"));
        }
        Ok(self.text[start..self.at].trim().to_owned())
    }

    fn quoted(&mut self) -> Result<String, NotationError> {
        let mut value = String::new();
        loop {
            let Some(character) = self.peek() else { return Err(self.unexpected("a closing quote")) };
            self.at += character.len_utf8();
            match character {
                '"' => return Ok(value),
                '\\' => {
                    let escaped = self.peek();
                    value.push(match escaped {
                        Some('n') => '\n',
                        Some('"' | '\\') => escaped.unwrap_or_default(),
                        _ => return Err(self.unexpected("`\\\"`, `\\\\` or `\\n`")),
                    });
                    self.at += 1;
                }
                _ => value.push(character),
            }
        }
    }
}

/// Whether `bytes` can be written as [`Form::Text`].
pub(super) fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\n'))
}

/// The form in which bytes are best written.
pub(super) fn form_of(bytes: &[u8]) -> Form {
    if is_text(bytes) { Form::Text } else { Form::Bytes }
}

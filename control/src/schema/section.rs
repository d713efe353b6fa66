//! One table of the document while its keys are taken out of it.
//!
//! A section hands out typed values by key, reports what is wrong with each, and at the end reports
//! every key that nobody knows. A getter returns `None` both for an absent key and for a bad value:
//! the decoder goes on to find further mistakes, and the list of errors decides in the end.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::document::{Field, Node, Span, Value};
use super::error::Errors;
use super::nearest::nearest;

/// Where an object and its values stand; the cross checks point with it.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// The object itself.
    pub(super) object: Span,
    /// The value of each key that was taken.
    values: BTreeMap<&'static str, Span>,
}

impl Marks {
    /// The place of a key's value, or of the object if the key is not there.
    pub(super) fn of(&self, key: &str) -> Span {
        self.values.get(key).unwrap_or(&self.object).clone()
    }
}

/// A table whose keys are being taken.
pub(super) struct Section<'e, 't> {
    errors: &'e mut Errors<'t>,
    object: String,
    fields: Vec<Field>,
    marks: Marks,
}

impl<'e, 't> Section<'e, 't> {
    /// Starts on a node that must be a table; `object` names it in errors.
    pub(super) fn open(errors: &'e mut Errors<'t>, object: String, node: Node) -> Option<Self> {
        let marks = Marks { object: node.span.clone(), values: BTreeMap::new() };
        match node.value {
            Value::Table(fields) => Some(Self { errors, object, fields, marks }),
            other => {
                let message = format!("must be a table of keys, but is {}", other.kind());
                errors.push(node.span.as_ref(), &object, message, None);
                None
            }
        }
    }

    /// A table inside this one, as a section of its own.
    pub(super) fn inner(&mut self, key: &str, node: Node) -> Option<Section<'_, 't>> {
        Section::open(self.errors, format!("{key} of {}", self.object), node)
    }

    /// Names the object in the errors that follow.
    pub(super) fn rename(&mut self, object: String) {
        self.object = object;
    }

    /// The text under a key without taking it: how an object is named before it is decoded.
    pub(super) fn peek_text(&self, key: &str) -> Option<&str> {
        self.fields.iter().find(|field| field.key == key).and_then(|field| match &field.node.value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// Takes the value of a key.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Node> {
        let index = self.fields.iter().position(|field| field.key == key)?;
        let node = self.fields.swap_remove(index).node;
        self.marks.values.insert(key, node.span.clone());
        Some(node)
    }

    /// True if the key was there and has been taken.
    pub(super) fn had(&self, key: &str) -> bool {
        self.marks.values.contains_key(key)
    }

    /// Reports a mistake at a place of this object.
    pub(super) fn error(&mut self, span: &Span, message: impl Into<String>, hint: Option<String>) {
        self.errors.push(span.as_ref(), &self.object, message, hint);
    }

    /// Reports a mistake at the value of a key that was taken, or at the object.
    pub(super) fn error_at(&mut self, key: &str, message: impl Into<String>, hint: Option<String>) {
        let span = self.marks.of(key);
        self.error(&span, message, hint);
    }

    /// Reports a value of the wrong kind.
    fn wrong_kind(&mut self, key: &str, node: &Node, wanted: &str) {
        let message = format!("`{key}` must be {wanted}, but is {}", node.value.kind());
        self.error(&node.span, message, None);
    }

    /// A value that is written as a string.
    pub(super) fn text<T>(&mut self, key: &'static str) -> Option<T>
    where
        T: FromStr<Err: Display>,
    {
        let node = self.take(key)?;
        self.text_of(key, &node)
    }

    /// As [`Section::text`], of a node already taken.
    pub(super) fn text_of<T>(&mut self, key: &str, node: &Node) -> Option<T>
    where
        T: FromStr<Err: Display>,
    {
        let Value::String(text) = &node.value else {
            self.wrong_kind(key, node, "a string");
            return None;
        };
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.error(&node.span, format!("`{key}`: {error}"), None);
                None
            }
        }
    }

    /// As [`Section::text`], and the key must be there.
    pub(super) fn required_text<T>(&mut self, key: &'static str, example: &str) -> Option<T>
    where
        T: FromStr<Err: Display>,
    {
        let value = self.text(key);
        self.require(key, example);
        value
    }

    /// Reports a key that must be there and was not.
    pub(super) fn require(&mut self, key: &str, example: &str) {
        if !self.had(key) {
            self.error_at(key, format!("`{key}` is missing"), Some(format!("write `{key} = {example}`")));
        }
    }

    /// A whole number within a range.
    pub(super) fn integer<T: TryFrom<i128>>(
        &mut self,
        key: &'static str,
        range: RangeInclusive<i128>,
        unit: &str,
    ) -> Option<T> {
        let node = self.take(key)?;
        self.integer_of(key, &node, range, unit)
    }

    /// As [`Section::integer`], of a node already taken.
    pub(super) fn integer_of<T: TryFrom<i128>>(
        &mut self,
        key: &str,
        node: &Node,
        range: RangeInclusive<i128>,
        unit: &str,
    ) -> Option<T> {
        let Value::Integer(integer) = node.value else {
            self.wrong_kind(key, node, "a whole number");
            return None;
        };
        match T::try_from(integer) {
            Ok(value) if range.contains(&integer) => Some(value),
            _ => {
                let hint = format!("the range is {} to {}{unit}", range.start(), range.end());
                self.error(&node.span, format!("`{key} = {integer}` is out of range"), Some(hint));
                None
            }
        }
    }

    /// A word that stands for an absent number, or a whole number within a range.
    pub(super) fn word_or_integer<T: TryFrom<i128>>(
        &mut self,
        key: &'static str,
        word: &str,
        range: RangeInclusive<i128>,
    ) -> Option<T> {
        let node = self.take(key)?;
        match &node.value {
            Value::String(text) if text == word => None,
            Value::Integer(_) => self.integer_of(key, &node, range, ""),
            other => {
                let (start, end) = (range.start(), range.end());
                let message = format!("`{key}` must be \"{word}\" or a number, but is {}", shown(other));
                self.error(&node.span, message, Some(format!("the range is {start} to {end}")));
                None
            }
        }
    }

    /// True or false.
    pub(super) fn boolean(&mut self, key: &'static str) -> Option<bool> {
        let node = self.take(key)?;
        match node.value {
            Value::Boolean(boolean) => Some(boolean),
            _ => {
                self.wrong_kind(key, &node, "true or false");
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let node = self.take(key)?;
        let names = || words.iter().map(|&(word, _)| word);
        let Value::String(text) = &node.value else {
            self.wrong_kind(key, &node, &format!("one of {}", quoted_list(names())));
            return None;
        };
        if let Some(&(_, value)) = words.iter().find(|&&(word, _)| word == text) {
            return Some(value);
        }
        let hint = match nearest(text, names()) {
            Some(near) => format!("nearest is {near:?}; allowed are {}", quoted_list(names())),
            None => format!("allowed are {}", quoted_list(names())),
        };
        self.error(&node.span, format!("`{key}` has the unknown value {:?}", short(text)), Some(hint));
        None
    }

    /// A list; a mistake if the value is none.
    pub(super) fn list(&mut self, key: &'static str) -> Option<Vec<Node>> {
        let node = self.take(key)?;
        match node.value {
            Value::Array(items) => Some(items),
            _ => {
                self.wrong_kind(key, &node, "a list in [brackets]");
                None
            }
        }
    }

    /// A list, or one value that stands for a list of one.
    pub(super) fn one_or_list(&mut self, key: &'static str) -> Vec<Node> {
        match self.take(key) {
            Some(Node { value: Value::Array(items), .. }) => items,
            Some(node) => vec![node],
            None => Vec::new(),
        }
    }

    /// Reports the keys that are left; `known` are those that would have been taken, and `explain`
    /// may say more about a key than that it is unknown.
    pub(super) fn finish_with(mut self, known: &[&str], explain: impl Fn(&str) -> Option<String>) -> Marks {
        for field in std::mem::take(&mut self.fields) {
            let key = &field.key;
            let (message, hint) = match explain(key) {
                Some(message) => (message, None),
                None => {
                    let hint = match nearest(key, known.iter().copied()) {
                        Some(near) => format!("nearest is `{near}`"),
                        None => format!("known are {}", code_list(known)),
                    };
                    (format!("unknown key `{}`", short(key)), Some(hint))
                }
            };
            self.error(&field.key_span, message, hint);
        }
        self.marks
    }

    /// Reports the keys that are left.
    pub(super) fn finish(self, known: &[&str]) -> Marks {
        self.finish_with(known, |_| None)
    }
}

/// A value that is none of those allowed: a string itself, else its kind.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("\"{}\"", short(text)),
        other => other.kind().to_owned(),
    }
}

/// Text of a document for a message: not longer than a line, without control characters.
pub(super) fn short(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut shown: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push_str("...");
    }
    shown
}

/// `"a", "b" and "c"`.
fn quoted_list<'w>(words: impl Iterator<Item = &'w str>) -> String {
    join(words.map(|word| format!("{word:?}")).collect())
}

/// `` `a`, `b` and `c` ``.
pub(super) fn code_list(words: &[&str]) -> String {
    join(words.iter().map(|word| format!("`{word}`")).collect())
}

fn join(mut words: Vec<String>) -> String {
    match words.pop() {
        Some(last) if words.is_empty() => last,
        Some(last) => format!("{} and {last}", words.join(", ")),
        None => String::new(),
    }
}

//! A document as a tree of values that know where they stand.
//!
//! TOML text and JSON values (of the API) become the same tree, so that one decoder serves both and
//! every error can point at its place. Nothing here knows what the keys mean.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::error::Errors;

/// Bytes of the text; None for values that came from no text.
pub(super) type Span = Option<Range<usize>>;

/// A value and its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) value: Value,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(super) enum Value {
    String(String),
    /// Wider than both formats allow, so that a number too large for its key is reported as out of range.
    Integer(i128),
    Boolean(bool),
    Array(Vec<Node>),
    Table(Vec<Field>),
    /// Values that no key takes: floats, dates, null. The text says which.
    Other(&'static str),
}

/// A key of a table with its value.
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) key: String,
    pub(super) key_span: Span,
    pub(super) node: Node,
}

impl Value {
    /// The kind of the value, for messages: "a string".
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::String(_) => "a string",
            Value::Integer(_) => "a number",
            Value::Boolean(_) => "a boolean",
            Value::Array(_) => "a list",
            Value::Table(_) => "a table",
            Value::Other(kind) => kind,
        }
    }
}

/// Reads TOML text; errors of syntax go to `errors`, and the tree is then of no use.
pub(super) fn from_toml(text: &str, errors: &mut Errors<'_>) -> Node {
    let (table, problems) = DeTable::parse_recoverable(text);
    for problem in problems {
        let span = problem.span();
        errors.push(span.as_ref(), "", problem.message().to_owned(), None);
    }
    let span = table.span();
    Node { span: Some(span), value: from_toml_table(table.into_inner()) }
}

fn from_toml_table(table: DeTable<'_>) -> Value {
    let field = |(key, value): (toml::Spanned<_>, toml::Spanned<DeValue<'_>>)| {
        let key_span = Some(key.span());
        let span = Some(value.span());
        let key: std::borrow::Cow<'_, str> = key.into_inner();
        Field {
            key: key.into_owned(),
            key_span,
            node: Node { span, value: from_toml_value(value.into_inner()) },
        }
    };
    Value::Table(table.into_iter().map(field).collect())
}

fn from_toml_value(value: DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.into_owned()),
        DeValue::Integer(integer) => {
            Value::Integer(i128::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i128::MAX))
        }
        DeValue::Boolean(boolean) => Value::Boolean(boolean),
        DeValue::Array(array) => {
            let node = |item: toml::Spanned<DeValue<'_>>| Node {
                span: Some(item.span()),
                value: from_toml_value(item.into_inner()),
            };
            Value::Array(array.into_iter().map(node).collect())
        }
        DeValue::Table(table) => from_toml_table(table),
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Datetime(_) => Value::Other("a date"),
    }
}

/// The tree of a JSON value.
pub(super) fn from_json(value: serde_json::Value) -> Node {
    use serde_json::Value as Json;
    let value = match value {
        Json::String(text) => Value::String(text),
        Json::Number(number) => match number.as_i128() {
            Some(integer) => Value::Integer(integer),
            None => Value::Other("a number with a fraction"),
        },
        Json::Bool(boolean) => Value::Boolean(boolean),
        Json::Array(items) => Value::Array(items.into_iter().map(from_json).collect()),
        Json::Object(map) => {
            let field = |(key, value)| Field { key, key_span: None, node: from_json(value) };
            Value::Table(map.into_iter().map(field).collect())
        }
        Json::Null => Value::Other("null"),
    };
    Node { span: None, value }
}

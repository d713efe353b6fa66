//! What can be wrong with a text in the notation.

use thiserror::Error;

use super::layers::Kind;

/// Why a text is not a frame. Columns count characters from 1.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotationError {
    /// No layer at all.
    #[error(
        "the text is empty: write layers like eth(dst=02:00:00:00:00:02) ipv4(dst=10.0.0.2) tcp(dport=80)"
    )]
    Empty,
    /// Something stands where something else should.
    #[error("column {column}: expected {expected}, found {found}")]
    Syntax {
        /// Where.
        column: usize,
        /// What could stand there.
        expected: &'static str,
        /// What does.
        found: String,
    },
    /// A layer that does not exist.
    #[error("column {column}: there is no layer `{name}`; {hint}")]
    UnknownLayer {
        /// Where.
        column: usize,
        /// What was written.
        name: String,
        /// The known name that is most like it, or all known names.
        hint: String,
    },
    /// A field that the layer does not have.
    #[error("column {column}: `{layer}` has no field `{name}`; {hint}")]
    UnknownField {
        /// Where.
        column: usize,
        /// The layer.
        layer: &'static str,
        /// What was written.
        name: String,
        /// The known name that is most like it, or all known names.
        hint: String,
    },
    /// A field that is set twice.
    #[error("column {column}: `{layer}.{field}` is set twice")]
    Twice {
        /// Where the second one is.
        column: usize,
        /// The layer.
        layer: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A value that the field cannot have.
    #[error("column {column}: `{layer}.{field}` cannot be `{value}`: expected {expected}")]
    Value {
        /// Where the value starts.
        column: usize,
        /// The layer.
        layer: &'static str,
        /// The field.
        field: &'static str,
        /// What was written.
        value: String,
        /// What it could be.
        expected: String,
    },
    /// Two fields that exclude each other.
    #[error("column {column}: `{layer}` takes one of {fields}")]
    Choice {
        /// Where the layer starts.
        column: usize,
        /// The layer.
        layer: &'static str,
        /// The fields.
        fields: &'static str,
    },
    /// A layer that cannot follow the one before it.
    #[error("column {column}: `{layer}` cannot follow `{before}`{fix}")]
    Order {
        /// Where the layer starts.
        column: usize,
        /// The layer.
        layer: &'static str,
        /// What stands before it.
        before: &'static str,
        /// How to have it nevertheless, or nothing.
        fix: &'static str,
    },
    /// A length that its field cannot say.
    #[error("column {column}: {length} does not fit in `{layer}.{field}`: make it shorter or set the field")]
    Length {
        /// Where the layer starts.
        column: usize,
        /// The layer.
        layer: &'static str,
        /// The field.
        field: &'static str,
        /// What was worked out.
        length: usize,
    },
    /// A frame longer than any frame.
    #[error("the frame would have {length} bytes, more than the {limit} that a frame can have")]
    TooLong {
        /// How long it would be.
        length: usize,
        /// How long it may be.
        limit: usize,
    },
    /// A text that is not worth reading.
    #[error("the text has {length} bytes, more than the {limit} that are read")]
    TextTooLong {
        /// How long it is.
        length: usize,
        /// How long it may be.
        limit: usize,
    },
    /// More headers than any frame has.
    #[error("column {column}: a frame has at most {limit} layers")]
    TooManyLayers {
        /// Where the first one too many starts.
        column: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Something among hexadecimal digits that is none.
    #[error("column {column}: expected a pair of hexadecimal digits, found `{found}`")]
    Hex {
        /// Where.
        column: usize,
        /// What was found.
        found: String,
    },
}

impl NotationError {
    /// What to do about it.
    pub fn fix(&self) -> String {
        match self {
            NotationError::Empty | NotationError::UnknownLayer { .. } => {
                format!("layers are {}", Kind::ALL.map(Kind::name).join(", "))
            }
            NotationError::Syntax { .. } => {
                "a layer is a name, with its fields in brackets: tcp(dport=80,syn)".to_owned()
            }
            NotationError::UnknownField { layer, .. } => {
                let kind = Kind::ALL.into_iter().find(|kind| kind.name() == *layer);
                let fields: Vec<_> =
                    kind.into_iter().flat_map(Kind::fields).map(|field| field.name).collect();
                format!("fields of `{layer}` are {}", fields.join(", "))
            }
            NotationError::Twice { field, .. } => format!("keep one `{field}`"),
            NotationError::Value { layer, field, expected, .. } => {
                format!("give `{layer}.{field}` {expected}; or leave it out")
            }
            NotationError::Choice { layer, fields, .. } => format!("keep one of {fields} in `{layer}`"),
            NotationError::Order { .. } => {
                "write layers in the order of the wire, like eth vlan ipv4 tcp payload".to_owned()
            }
            NotationError::Length { layer, field, .. } => {
                format!("make what `{layer}` holds shorter, or set `{field}`")
            }
            NotationError::TooLong { .. } => "make the payload shorter".to_owned(),
            NotationError::TextTooLong { .. } => "leave out what no frame has room for".to_owned(),
            NotationError::TooManyLayers { .. } => "write the innermost layers as payload(hex=…)".to_owned(),
            NotationError::Hex { .. } => "write the frame's bytes as pairs of hexadecimal digits".to_owned(),
        }
    }
}

/// How a message goes on after a name that nobody knows: with the nearest of `known`, or with all of them.
pub(super) fn hint(name: &str, known: impl Iterator<Item = &'static str> + Clone) -> String {
    match control::schema::nearest(name, known.clone()) {
        Some(near) => format!("nearest is `{near}`"),
        None => format!("known are {}", known.collect::<Vec<_>>().join(", ")),
    }
}

//! `trace`: what the switch would do with a frame, and why.

use serde::{Deserialize, Serialize};

use crate::schema::PortName;

/// `trace`: run one frame through the pipeline without sending it or changing state. Exactly one of
/// `notation` and `hex` describes the frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    /// The port that the frame comes from.
    pub port: PortName,
    /// Layers with their fields: `eth(src=..,dst=..) ipv4(dst=..) tcp(dport=80)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notation: Option<String>,
    /// The bytes from the Ethernet header on, without FCS; spaces and colons are ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hex: Option<String>,
}

/// The result of `trace`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traced {
    /// The stages that the frame passed, in their order.
    pub stages: Vec<TraceStage>,
    /// The frame's key after the mask, as the flow cache holds it.
    pub key: String,
    /// The fields that the key keeps: what any stage reachable from the port may read.
    pub mask: String,
    /// True if the flow cache has the answer already.
    pub cached: bool,
    /// What happens to the frame.
    pub verdict: Verdict,
    /// The name of the drop reason; null if it is not dropped.
    pub reason: Option<String>,
    /// What leaves the switch.
    pub outputs: Vec<TraceOutput>,
}

/// One stage of the pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceStage {
    /// Its name.
    pub name: String,
    /// What it read, with the values.
    pub read: String,
    /// What it decided.
    pub decided: String,
}

/// What happens to a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It leaves by one port or more.
    Forward,
    /// It is dropped.
    Drop,
    /// It ends in the switch.
    Consume,
}

impl Verdict {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Forward => "forward",
            Verdict::Drop => "drop",
            Verdict::Consume => "consume",
        }
    }
}

/// A frame that would leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceOutput {
    /// By this port.
    pub port: PortName,
    /// Its bytes as they would be handed to the port.
    pub frame_hex: String,
}

/// Text of hexadecimal digits that is no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HexError {
    /// A character that is no digit.
    #[error("character {0:?} is no hexadecimal digit")]
    Digit(char),
    /// Half a byte too much.
    #[error("the number of hexadecimal digits is odd")]
    Odd,
}

/// The bytes of hexadecimal text; white space and colons are skipped.
pub fn decode_hex(text: &str) -> Result<Vec<u8>, HexError> {
    let mut bytes = Vec::with_capacity(text.len() / 2);
    let mut high = None;
    for character in text.chars().filter(|c| !c.is_whitespace() && *c != ':') {
        let digit = character.to_digit(16).ok_or(HexError::Digit(character))? as u8;
        match high.take() {
            None => high = Some(digit),
            Some(high) => bytes.push(high << 4 | digit),
        }
    }
    if high.is_some() { Err(HexError::Odd) } else { Ok(bytes) }
}

/// Lower-case hexadecimal text without separators.
pub fn encode_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_there_and_back() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(decode_hex(&encode_hex(&bytes)), Ok(bytes));
        assert_eq!(decode_hex("02:00 0A\n"), Ok(vec![2, 0, 10]));
        assert_eq!(decode_hex("020"), Err(HexError::Odd));
        assert_eq!(decode_hex("0x00"), Err(HexError::Digit('x')));
    }
}

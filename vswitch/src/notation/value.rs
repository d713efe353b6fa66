//! A value of a field: how it is read from the text and how it is written there.

use control::api::encode_hex;
use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

/// How a field's value is written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// A number, best read in decimal.
    Decimal,
    /// A number, best read in hexadecimal.
    Hex,
    /// `02:00:00:00:00:01`.
    Mac,
    /// `10.0.0.1`.
    Ipv4,
    /// `fd00::1`.
    Ipv6,
    /// A number of which some values have names.
    Named(&'static [(&'static str, u128)]),
    /// A set of bits with names, joined by `+` or `|`.
    Flags(&'static [(&'static str, u128)]),
    /// Hexadecimal bytes.
    Bytes,
    /// Text in quotes, or bare.
    Text,
}

/// A value, free of its form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// Numbers and addresses.
    Number(u128),
    /// Bytes and text.
    Bytes(Vec<u8>),
}

impl Form {
    /// Reads `text`; the error says what was expected.
    pub(super) fn read(self, text: &str, width: u32) -> Result<Value, String> {
        let value = match self {
            Form::Decimal | Form::Hex => number(text),
            Form::Mac => mac(text),
            Form::Ipv4 => text.parse::<Ipv4Addr>().ok().map(|address| u32::from(address).into()),
            Form::Ipv6 => text.parse::<Ipv6Addr>().ok().map(u128::from),
            Form::Named(names) => named(names, text).or_else(|| number(text)),
            Form::Flags(names) => flags(names, text).or_else(|| number(text)),
            Form::Bytes => {
                return super::hex::digits(text)
                    .map(Value::Bytes)
                    .ok_or_else(|| "pairs of hex digits".to_owned());
            }
            Form::Text => return Ok(Value::Bytes(text.as_bytes().to_vec())),
        };
        match value {
            Some(value) if width >= 128 || value >> width == 0 => Ok(Value::Number(value)),
            Some(_) => Err(format!("a number that fits in {width} bits")),
            None => Err(self.expected()),
        }
    }

    fn expected(self) -> String {
        match self {
            Form::Decimal | Form::Hex => "a number, decimal or 0x…".to_owned(),
            Form::Mac => "a MAC address like 02:00:00:00:00:01".to_owned(),
            Form::Ipv4 => "an IPv4 address like 10.0.0.1".to_owned(),
            Form::Ipv6 => "an IPv6 address like fd00::1".to_owned(),
            Form::Named(names) => format!("a number or one of {}", list(names)),
            Form::Flags(names) => format!("a number or some of {}, joined by +", list(names)),
            Form::Bytes | Form::Text => "bytes".to_owned(),
        }
    }

    /// Writes `value` so that [`Form::read`] gives it back.
    pub(super) fn write(self, value: &Value, out: &mut String) {
        let number = match value {
            Value::Number(number) => *number,
            Value::Bytes(bytes) => return write_bytes(self, bytes, out),
        };
        // Writing to a String cannot fail.
        let _ = match self {
            Form::Hex => write!(out, "{number:#x}"),
            Form::Mac => {
                let [.., a, b, c, d, e, f] = number.to_be_bytes();
                write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
            }
            Form::Ipv4 => write!(out, "{}", Ipv4Addr::from(number as u32)),
            Form::Ipv6 => write!(out, "{}", Ipv6Addr::from(number)),
            Form::Named(names) => match names.iter().find(|(_, of)| *of == number) {
                Some((name, _)) => write!(out, "{name}"),
                None => write!(out, "{number:#x}"),
            },
            Form::Flags(names) if number != 0 && number < 1 << names.len() => {
                let set: Vec<&str> =
                    names.iter().filter(|(_, bit)| number & bit != 0).map(|(name, _)| *name).collect();
                write!(out, "{}", set.join("+"))
            }
            _ => write!(out, "{number}"),
        };
    }
}

fn write_bytes(form: Form, bytes: &[u8], out: &mut String) {
    if matches!(form, Form::Text) {
        out.push('"');
        for byte in bytes {
            match byte {
                b'"' | b'\\' => out.extend(['\\', char::from(*byte)]),
                b'\n' => out.push_str("\\n"),
                _ => out.push(char::from(*byte)),
            }
        }
        out.push('"');
    } else if bytes.is_empty() {
        out.push_str("\"\"");
    } else {
        out.push_str(&encode_hex(bytes));
    }
}

fn number(text: &str) -> Option<u128> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        // `from_str_radix` would take a sign.
        Some(digits) if digits.starts_with('+') => None,
        Some(digits) => u128::from_str_radix(digits, 16).ok(),
        None if text.starts_with('+') => None,
        None => text.parse().ok(),
    }
}

fn mac(text: &str) -> Option<u128> {
    let mut octets = text.split([':', '-']);
    let mut value = 0;
    for _ in 0..6 {
        let octet = octets.next()?;
        if octet.is_empty() || octet.len() > 2 || !octet.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        value = value << 8 | u128::from_str_radix(octet, 16).ok()?;
    }
    octets.next().is_none().then_some(value)
}

fn named(names: &[(&str, u128)], text: &str) -> Option<u128> {
    names.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, value)| *value)
}

fn flags(names: &[(&str, u128)], text: &str) -> Option<u128> {
    text.split(['+', '|']).try_fold(0, |set, name| Some(set | named(names, name.trim())?))
}

fn list(names: &[(&str, u128)]) -> String {
    names.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

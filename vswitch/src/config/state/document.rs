//! A state file: a configuration document whose first line, a comment to TOML, vouches for the rest.
//!
//! ```text
//! # vswitch state 1, file 3f..|none, applied 9a..|none, edited yes|no, bytes 812, sha256 5c..
//! ```
//! The checksum covers every byte of the file but itself: a file that was cut, or in which any bit changed,
//! does not decode.

use std::fmt;

use control::schema::Config;
use sha2::{Digest as _, Sha256};

/// What the first line begins with, before the version.
const MAGIC: &str = "# vswitch state ";

/// The version that is written, and the only one that is read.
const VERSION: &str = "1";

/// The SHA-256 of a document's bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    fn parse(text: &str) -> Option<Option<Digest>> {
        if text == "none" {
            return Some(None);
        }
        let bytes = control::api::decode_hex(text).ok()?;
        Some(Some(Digest(bytes.try_into().ok()?)))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&control::api::encode_hex(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which documents a state came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Origin {
    /// The file given by `--config` at the last start.
    pub file: Option<Digest>,
    /// The document of the last `apply` since the file was applied.
    pub applied: Option<Digest>,
    /// Whether the state was edited since the file was applied.
    pub edited: bool,
}

impl Origin {
    /// A state that is what the file given by `--config` says.
    pub fn file(digest: Digest) -> Origin {
        Origin { file: Some(digest), applied: None, edited: false }
    }

    /// After an `apply` of a document.
    pub fn after_apply(self, document: &[u8]) -> Origin {
        let digest = Digest::of(document);
        if self.file == Some(digest) {
            return Origin::file(digest);
        }
        Origin { applied: Some(digest), edited: true, ..self }
    }

    /// After any other change.
    pub fn after_edit(self) -> Origin {
        Origin { edited: true, ..self }
    }

    /// Whether a document is one of these, so that applying it again would undo later edits.
    pub(super) fn knows(&self, digest: &Digest) -> bool {
        self.file.as_ref() == Some(digest) || self.applied.as_ref() == Some(digest)
    }
}

/// What a state file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) config: Config,
    pub(super) origin: Origin,
}

/// Why a state file is not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Damage {
    /// Where it shows, from 1.
    pub(super) line: u32,
    pub(super) reason: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl Stored {
    /// The file's text.
    pub(super) fn encode(&self) -> String {
        let body = self.config.to_toml();
        let Origin { file, applied, edited } = &self.origin;
        let digest = |digest: &Option<Digest>| digest.map_or("none".to_owned(), |digest| digest.to_string());
        let edited = if *edited { "yes" } else { "no" };
        let head = format!(
            "{MAGIC}{VERSION}, file {}, applied {}, edited {edited}, bytes {}, sha256 ",
            digest(file),
            digest(applied),
            body.len()
        );
        format!("{head}{}\n{body}", checksum(&head, body.as_bytes()))
    }

    /// Reads a file's bytes; `name` is for messages about its contents.
    pub(super) fn decode(bytes: &[u8], name: &str) -> Result<Stored, Damage> {
        let head = Head::read(bytes)?;
        let body = &bytes[head.length + 1..];
        let lines = || bytes.split(|&byte| byte == b'\n').count() as u32;
        if body.len() < head.bytes {
            let reason = format!("the file ends after {} of {} bytes", body.len(), head.bytes);
            return Err(Damage { line: lines(), reason });
        }
        // The first line is a comment, so lines of the document are lines of the file.
        let config = Config::parse_bytes(bytes, name).map_err(|errors| {
            let (line, reason) = errors.first().map_or((1, String::new()), |error| {
                let object =
                    if error.object.is_empty() { String::new() } else { format!("{}: ", error.object) };
                (error.line.max(1), format!("{object}{}", error.message))
            });
            Damage { line, reason }
        });
        if checksum(head.text, body) != head.checksum || body.len() != head.bytes {
            let reason =
                "the checksum in line 1 does not match: the file was changed by other hands or damaged";
            let line = config.err().map_or(1, |damage| damage.line);
            return Err(Damage { line, reason: reason.to_owned() });
        }
        Ok(Stored { config: config?, origin: head.origin })
    }
}

fn checksum(head: &str, body: &[u8]) -> String {
    let mut sum = Sha256::new();
    sum.update(head.as_bytes());
    sum.update(body);
    control::api::encode_hex(&sum.finalize())
}

/// The first line.
struct Head<'f> {
    /// Up to the checksum.
    text: &'f str,
    checksum: &'f str,
    /// Bytes of the line, newline not counted.
    length: usize,
    origin: Origin,
    /// Bytes that follow it.
    bytes: usize,
}

impl<'f> Head<'f> {
    fn read(file: &'f [u8]) -> Result<Head<'f>, Damage> {
        let damage = |reason: &str| Damage { line: 1, reason: reason.to_owned() };
        let Some(length) = file.iter().position(|&byte| byte == b'\n') else {
            return Err(damage(if file.is_empty() {
                "the file is empty"
            } else {
                "the file ends in its first line"
            }));
        };
        let broken = || damage("this is not the first line of a state file");
        let line = std::str::from_utf8(&file[..length]).map_err(|_| broken())?;
        let (version, fields) =
            line.strip_prefix(MAGIC).ok_or_else(broken)?.split_once(", ").ok_or_else(broken)?;
        if version != VERSION {
            let reason =
                format!("the state has version {version}, and this vswitchd reads version {VERSION}");
            return Err(damage(&reason));
        }
        Head::fields(line, fields).ok_or_else(broken)
    }

    fn fields(line: &'f str, fields: &str) -> Option<Head<'f>> {
        let mut fields = fields.split(", ");
        let mut field = |name: &str| fields.next()?.strip_prefix(name)?.strip_prefix(' ');
        let file = Digest::parse(field("file")?)?;
        let applied = Digest::parse(field("applied")?)?;
        let edited = match field("edited")? {
            "yes" => true,
            "no" => false,
            _ => return None,
        };
        let bytes = field("bytes")?.parse().ok()?;
        let (text, checksum) = line.split_at(line.len().checked_sub(field("sha256")?.len())?);
        let origin = Origin { file, applied, edited };
        Some(Head { text, checksum, length: line.len(), origin, bytes })
    }
}

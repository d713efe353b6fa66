//! Why a request was refused: a code for programs, and for people what, on which object, why, and
//! what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::schema::ConfigError;

/// The kinds of refusal. The first five are JSON-RPC 2.0's own (section 5.1), the others ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "i64", from = "i64")]
pub enum ErrorCode {
    /// The line is no JSON.
    Parse,
    /// The JSON is no request.
    InvalidRequest,
    /// There is no such method.
    UnknownMethod,
    /// The parameters are wrong.
    InvalidParams,
    /// The switch failed in a way that it should not.
    Internal,
    /// The desired state is wrong; `data.errors` lists the mistakes.
    Configuration,
    /// No object of this name.
    NotFound,
    /// The system refused: a device, a namespace, memory, a privilege is missing.
    System,
    /// A limit is reached.
    Limit,
    /// The peer may not do this.
    Denied,
    /// Another change is under way, or too many clients are connected.
    Busy,
    /// A code that this version does not know.
    Other(i64),
}

impl From<ErrorCode> for i64 {
    fn from(code: ErrorCode) -> i64 {
        match code {
            ErrorCode::Parse => -32700,
            ErrorCode::InvalidRequest => -32600,
            ErrorCode::UnknownMethod => -32601,
            ErrorCode::InvalidParams => -32602,
            ErrorCode::Internal => -32603,
            ErrorCode::Configuration => 1,
            ErrorCode::NotFound => 2,
            ErrorCode::System => 3,
            ErrorCode::Limit => 4,
            ErrorCode::Denied => 5,
            ErrorCode::Busy => 6,
            ErrorCode::Other(code) => code,
        }
    }
}

impl From<i64> for ErrorCode {
    fn from(code: i64) -> ErrorCode {
        match code {
            -32700 => ErrorCode::Parse,
            -32600 => ErrorCode::InvalidRequest,
            -32601 => ErrorCode::UnknownMethod,
            -32602 => ErrorCode::InvalidParams,
            -32603 => ErrorCode::Internal,
            1 => ErrorCode::Configuration,
            2 => ErrorCode::NotFound,
            3 => ErrorCode::System,
            4 => ErrorCode::Limit,
            5 => ErrorCode::Denied,
            6 => ErrorCode::Busy,
            other => ErrorCode::Other(other),
        }
    }
}

/// The `error` member of a response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// The kind of refusal.
    pub code: ErrorCode,
    /// What failed, in one line.
    pub message: String,
    /// On which object, why, and what to do.
    #[serde(default)]
    pub data: Box<ErrorData>,
}

/// The details of an [`ApiError`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorData {
    /// The object that the failure is about, as people name it: `port "web1"`; empty if it is about none.
    pub object: String,
    /// Why: the system call with its error, the rule that was broken.
    pub cause: Option<String>,
    /// What to do about it.
    pub fix: Option<String>,
    /// Each mistake of a refused configuration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ConfigError>,
}

impl ApiError {
    /// An error with a message alone.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: Box::default() }
    }

    /// No object of this kind ("port") and name; `known` are the names there are.
    pub fn not_found<'n>(kind: &str, name: &str, known: impl IntoIterator<Item = &'n str>) -> Self {
        let error = Self::new(ErrorCode::NotFound, format!("{kind} \"{name}\" does not exist"))
            .object(format!("{kind} \"{name}\""));
        match crate::schema::nearest(name, known) {
            Some(near) => error.fix(format!("nearest is \"{near}\"")),
            None => error.fix(format!("`vswitchctl {kind} list` shows what there is")),
        }
    }

    /// Names the object.
    pub fn object(mut self, object: impl Into<String>) -> Self {
        self.data.object = object.into();
        self
    }

    /// Says why.
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.data.cause = Some(cause.into());
        self
    }

    /// Says what to do.
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.data.fix = Some(fix.into());
        self
    }
}

/// A refused configuration: the message is the first mistake, the data hold all.
impl From<Vec<ConfigError>> for ApiError {
    fn from(errors: Vec<ConfigError>) -> Self {
        let message = match errors.as_slice() {
            [] => "the configuration is refused".to_owned(),
            [error] => format!("the configuration is refused: {error}"),
            [error, more @ ..] => format!("the configuration is refused: {error} (and {} more)", more.len()),
        };
        let object = errors.first().map(|error| error.object.clone()).unwrap_or_default();
        let data = Box::new(ErrorData { object, cause: None, fix: None, errors });
        Self { code: ErrorCode::Configuration, message, data }
    }
}

impl std::error::Error for ApiError {}

/// The message, and a line each for the cause and the fix.
impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.data.object.is_empty() && !self.message.contains(&self.data.object) {
            write!(f, "{}: ", self.data.object)?;
        }
        f.write_str(&self.message)?;
        // A message that gives the cause already need not say it twice.
        if let Some(cause) = self.data.cause.as_ref().filter(|cause| !self.message.contains(*cause)) {
            write!(f, "\n  cause: {cause}")?;
        }
        if let Some(fix) = &self.data.fix {
            write!(f, "\n  fix: {fix}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_go_there_and_back() {
        for code in [-32700, -32603, -32602, -32601, -32600, 1, 2, 3, 4, 5, 6, 77, i64::MIN] {
            assert_eq!(i64::from(ErrorCode::from(code)), code);
        }
    }

    #[test]
    fn says_what_where_why_and_what_to_do() {
        let error = ApiError::new(ErrorCode::System, "cannot open the TAP device")
            .object("port \"web1\"")
            .cause("setns(/run/netns/web1): No such file or directory")
            .fix("create the namespace with `ip netns add web1`");
        assert_eq!(
            error.to_string(),
            "port \"web1\": cannot open the TAP device\n  \
             cause: setns(/run/netns/web1): No such file or directory\n  \
             fix: create the namespace with `ip netns add web1`"
        );
    }

    #[test]
    fn a_cause_that_the_message_gives_is_not_said_twice() {
        let error =
            ApiError::new(ErrorCode::System, "port \"web1\": open: no such file").cause("open: no such file");
        assert_eq!(error.to_string(), "port \"web1\": open: no such file");
    }

    #[test]
    fn not_found_names_the_nearest() {
        let error = ApiError::not_found("port", "wbe1", ["web1", "db"]);
        assert_eq!(error.to_string(), "port \"wbe1\" does not exist\n  fix: nearest is \"web1\"");
    }
}

//! Lines, requests and responses: the frame around every method.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::error::{ApiError, ErrorCode};
use super::{Call, METHODS, Method};
use crate::schema::nearest;

/// The longest request in bytes, its newline not counted: 100,000 addresses of `fdb.load` fit.
pub const MAX_REQUEST_BYTES: usize = 16 * 1024 * 1024;

/// The longest response that a client reads. Lists are longer than anything that is asked.
pub const MAX_RESPONSE_BYTES: usize = 64 * 1024 * 1024;

/// The deepest nesting of a message.
pub const MAX_DEPTH: usize = 32;

/// What a client calls its request; the response repeats it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Id {
    /// A number.
    Number(i64),
    /// Text.
    Text(String),
}

/// A request that makes sense.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// None: a notification, which is carried out and not answered.
    pub id: Option<Id>,
    /// What is asked.
    pub call: Call,
}

/// A line that is no request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct BadRequest {
    /// The request's id, where one could be read; the answer has `null` otherwise.
    pub id: Option<Id>,
    /// What is wrong.
    pub error: ApiError,
}

/// Reads one line, without its newline, as a request. Any bytes are allowed to come.
pub fn decode_request(line: &[u8]) -> Result<Request, BadRequest> {
    let refuse = |id, code, message: String| BadRequest { id, error: ApiError::new(code, message) };
    let value = parse(line, MAX_REQUEST_BYTES).map_err(|error| BadRequest { id: None, error })?;
    let Value::Object(mut object) = value else {
        let message = "a request is one JSON object (batches are not supported)".to_owned();
        return Err(refuse(None, ErrorCode::InvalidRequest, message));
    };
    let id = match object.remove("id") {
        None => None,
        Some(id) => match serde_json::from_value(id) {
            Ok(id) => Some(id),
            Err(_) => {
                let message = "`id` must be a whole number or a string".to_owned();
                return Err(refuse(None, ErrorCode::InvalidRequest, message));
            }
        },
    };
    decode_call(object).map(|call| Request { id: id.clone(), call }).map_err(|error| BadRequest { id, error })
}

fn decode_call(mut object: Map<String, Value>) -> Result<Call, ApiError> {
    let invalid = |message: &str| ApiError::new(ErrorCode::InvalidRequest, message);
    if object.remove("jsonrpc") != Some(json!("2.0")) {
        return Err(invalid("`jsonrpc` must be \"2.0\""));
    }
    let Some(Value::String(method)) = object.remove("method") else {
        return Err(invalid("`method` must be a string"));
    };
    let params = match object.remove("params") {
        None | Some(Value::Null) => Value::Object(Map::new()),
        Some(params @ Value::Object(_)) => params,
        Some(_) => {
            let message = "`params` must be an object: parameters go by name";
            return Err(ApiError::new(ErrorCode::InvalidParams, message).object(method));
        }
    };
    if let Some(key) = object.keys().next() {
        let message = format!("a request has no member `{key}`; known are jsonrpc, id, method and params");
        return Err(invalid(&message));
    }
    match Call::decode(&method, params) {
        Some(Ok(call)) => Ok(call),
        Some(Err(error)) => {
            let message = format!("the parameters of `{method}` are wrong: {error}");
            Err(ApiError::new(ErrorCode::InvalidParams, message).object(method))
        }
        None => {
            let shown: String = method.chars().take(80).collect();
            let error = ApiError::new(ErrorCode::UnknownMethod, format!("there is no method {shown:?}"));
            Err(match nearest(&method, METHODS.iter().copied()) {
                Some(near) => error.fix(format!("nearest is \"{near}\"")),
                None => error.fix(format!("methods are {}", METHODS.join(", "))),
            })
        }
    }
}

/// The line of a response, with its newline. The id is `null` where the request's could not be read.
pub fn encode_response<R: Serialize>(id: Option<&Id>, outcome: &Result<R, ApiError>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Line<'r, R> {
        jsonrpc: &'static str,
        id: Option<&'r Id>,
        #[serde(skip_serializing_if = "Option::is_none")]
        result: Option<&'r R>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'r ApiError>,
    }
    let (result, error) = match outcome {
        Ok(result) => (Some(result), None),
        Err(error) => (None, Some(error)),
    };
    let line = serde_json::to_vec(&Line { jsonrpc: "2.0", id, result, error });
    let mut line = line.unwrap_or_else(|error| {
        let text = format!("the response cannot be written: {error}");
        let error = ApiError::new(ErrorCode::Internal, text);
        json!({ "jsonrpc": "2.0", "id": id, "error": error }).to_string().into_bytes()
    });
    line.push(b'\n');
    line
}

/// The line of a request, with its newline.
pub fn encode_request<M: Method>(id: &Id, params: &M) -> Result<Vec<u8>, serde_json::Error> {
    let params = serde_json::to_value(params)?;
    let request = json!({ "jsonrpc": "2.0", "id": id, "method": M::NAME, "params": params });
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    Ok(line)
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Response<R> {
    /// The request's id; None if the switch could not read one, or turned the client away unasked.
    pub id: Option<Id>,
    /// The result, or why there is none.
    pub outcome: Result<R, ApiError>,
}

/// Reads the line of a response. The error is one of the protocol: the line is no response to a
/// request of this method.
pub fn decode_response<M: Method>(line: &[u8]) -> Result<Response<M::Response>, ApiError> {
    let strange = |what: &str| ApiError::new(ErrorCode::InvalidRequest, format!("the answer {what}"));
    let Value::Object(mut object) = parse(line, MAX_RESPONSE_BYTES)? else {
        return Err(strange("is no JSON object"));
    };
    let id = match object.remove("id") {
        None | Some(Value::Null) => None,
        Some(id) => Some(
            serde_json::from_value(id).map_err(|_| strange("has an id that is neither number nor text"))?,
        ),
    };
    if let Some(error) = object.remove("error") {
        let error = serde_json::from_value(error).map_err(|_| strange("has an error that cannot be read"))?;
        return Ok(Response { id, outcome: Err(error) });
    }
    let result = object.remove("result").ok_or_else(|| strange("has neither result nor error"))?;
    match serde_json::from_value(result) {
        Ok(result) => Ok(Response { id, outcome: Ok(result) }),
        Err(error) => Err(strange(&format!("to `{}` cannot be read: {error}", M::NAME))),
    }
}

/// JSON within the bounds of length and depth.
fn parse(line: &[u8], longest: usize) -> Result<Value, ApiError> {
    if line.len() > longest {
        return Err(ApiError::new(
            ErrorCode::InvalidRequest,
            format!("a message has at most {longest} bytes"),
        ));
    }
    if depth(line) > MAX_DEPTH {
        return Err(ApiError::new(
            ErrorCode::InvalidRequest,
            format!("a message is at most {MAX_DEPTH} levels deep"),
        ));
    }
    serde_json::from_slice(line)
        .map_err(|error| ApiError::new(ErrorCode::Parse, format!("the message is no JSON: {error}")))
}

/// The deepest nesting of brackets outside strings; of text that is no JSON it is some number.
fn depth(line: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in line {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'[' | b'{') => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Cuts a stream of bytes into lines of bounded length.
#[derive(Debug)]
pub struct MessageReader<R> {
    stream: R,
    longest: usize,
    buffer: Vec<u8>,
    /// How far the buffer has been searched for a newline.
    searched: usize,
}

impl<R: Read> MessageReader<R> {
    /// Reads lines of at most `longest` bytes ([`MAX_REQUEST_BYTES`] for a server) from a stream.
    pub fn new(stream: R, longest: usize) -> Self {
        Self { stream, longest, buffer: Vec::new(), searched: 0 }
    }

    /// The stream that is read from.
    pub fn stream(&self) -> &R {
        &self.stream
    }

    /// The next line without its newline; None at the end of the stream.
    ///
    /// Errors: `InvalidData` for a line that is too long, after which the stream is of no more use;
    /// `UnexpectedEof` for a stream that ends inside a line; whatever the stream returns. After
    /// `WouldBlock` or `TimedOut` the call can be repeated, nothing is lost.
    pub fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        const CHUNK: usize = 64 * 1024;
        loop {
            let end = self.buffer[self.searched..].iter().position(|&byte| byte == b'\n');
            if let Some(end) = end.map(|end| self.searched + end) {
                let rest = self.buffer.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                self.searched = 0;
                line.pop();
                return if line.len() > self.longest { Err(self.too_long()) } else { Ok(Some(line)) };
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > self.longest {
                return Err(self.too_long());
            }
            let filled = self.buffer.len();
            self.buffer.resize(filled + CHUNK, 0);
            let read = self.stream.read(&mut self.buffer[filled..]);
            self.buffer.truncate(filled + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) if self.buffer.is_empty() => return Ok(None),
                Ok(0) => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the stream ends inside a line",
                    ));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn too_long(&self) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, format!("a message has at most {} bytes", self.longest))
    }
}

//! A blocking client of the control socket.
//!
//! One request at a time; every wait is bounded. Its errors are written for the person at the
//! terminal: a socket that is not there, refuses or forbids has a different remedy each.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::api::{
    self, ApiError, FdbList, FdbRow, Id, MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, MessageReader, Method,
    NeighbourList, NeighbourRow,
};

/// Where the daemon listens unless it is told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/vswitch/control.sock";

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no socket.
    #[error(
        "no switch listens at {0}: there is no such socket\n  \
         fix: start it with `vswitchd --config FILE --socket {0}`, or name its socket with --socket"
    )]
    NoSocket(PathBuf),
    /// There is a socket that nobody listens at.
    #[error(
        "no switch listens at {0}: connection refused\n  \
         cause: the socket is there, but the daemon that made it has ended\n  \
         fix: start `vswitchd` again, or name another socket with --socket"
    )]
    Refused(PathBuf),
    /// The file system forbids it.
    #[error(
        "cannot connect to {0}: permission denied\n  \
         cause: the socket is open to root and the owner's group only\n  \
         fix: run this as root, or as a member of the group that owns the socket"
    )]
    Forbidden(PathBuf),
    /// No answer in time.
    #[error(
        "the switch at {path} did not answer within {timeout:?}\n  \
         fix: look at the daemon's log; a longer wait is set with --timeout"
    )]
    Timeout {
        /// The socket.
        path: PathBuf,
        /// How long the call waited.
        timeout: Duration,
    },
    /// The daemon went away.
    #[error("the switch at {0} closed the connection without an answer\n  fix: look at the daemon's log")]
    Closed(PathBuf),
    /// Any other failure of the socket.
    #[error("cannot talk to the switch at {path}: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// The request is too large to send.
    #[error("the request has {0} bytes, and {max} are allowed", max = MAX_REQUEST_BYTES)]
    TooLong(usize),
    /// The answer makes no sense.
    #[error(
        "the answer of {path} is not understood: {error}\n  \
         fix: use the vswitchctl of the daemon's version"
    )]
    Protocol {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        error: Box<ApiError>,
    },
    /// The switch refused.
    #[error("{0}")]
    Switch(Box<ApiError>),
}

/// A connection to a switch.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    timeout: Duration,
    reader: MessageReader<UnixStream>,
    calls: i64,
}

impl Client {
    /// How long a call waits unless told otherwise: an apply of thousands of ports takes a while.
    pub const TIMEOUT: Duration = Duration::from_secs(60);

    /// Connects to the socket at `path`; `timeout` bounds each send and the wait for each answer.
    pub fn connect(path: &Path, timeout: Duration) -> Result<Self, ClientError> {
        let path = path.to_owned();
        let fail = |source| connecting(&path, source);
        let stream = UnixStream::connect(&path).map_err(fail)?;
        // A timeout of zero means "none" to the socket, and is an error there.
        let timeout = timeout.max(Duration::from_millis(1));
        stream.set_read_timeout(Some(timeout)).map_err(fail)?;
        stream.set_write_timeout(Some(timeout)).map_err(fail)?;
        Ok(Self { path, timeout, reader: MessageReader::new(stream, MAX_RESPONSE_BYTES), calls: 0 })
    }

    /// Asks, and waits for the answer.
    pub fn call<M: Method>(&mut self, params: &M) -> Result<M::Response, ClientError> {
        self.calls += 1;
        let id = Id::Number(self.calls);
        let line = api::encode_request(&id, params)
            .map_err(|error| self.io(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        if line.len() > MAX_REQUEST_BYTES {
            return Err(ClientError::TooLong(line.len()));
        }
        // A daemon that turns us away answers first and closes then: the send fails, the answer is there.
        let sent = self.reader.stream().write_all(&line);
        let answer = match self.reader.next_line() {
            Ok(Some(answer)) => answer,
            Ok(None) => {
                return Err(sent.err().map_or(ClientError::Closed(self.path.clone()), |e| self.io(e)));
            }
            Err(error) => return Err(self.io(sent.err().unwrap_or(error))),
        };
        let protocol = |error| ClientError::Protocol { path: self.path.clone(), error: Box::new(error) };
        let response = api::decode_response::<M>(&answer).map_err(protocol)?;
        match response.outcome {
            Err(error) => Err(ClientError::Switch(Box::new(error))),
            Ok(result) if response.id.as_ref() == Some(&id) => Ok(result),
            Ok(_) => {
                let message = format!("it has the id {:?}, and {id:?} was asked", response.id);
                Err(protocol(ApiError::new(api::ErrorCode::InvalidRequest, message)))
            }
        }
    }

    /// All entries that `fdb.list` has for a request, over as many pages as there are.
    pub fn fdb(&mut self, request: &FdbList) -> Result<Vec<FdbRow>, ClientError> {
        self.pages(request.clone(), |request| &mut request.after, |page| (page.entries, page.next))
    }

    /// All entries that `neighbour.list` has for a request, over as many pages as there are.
    pub fn neighbours(&mut self, request: &NeighbourList) -> Result<Vec<NeighbourRow>, ClientError> {
        self.pages(request.clone(), |request| &mut request.after, |page| (page.entries, page.next))
    }

    fn pages<M: Method, R, K: PartialOrd>(
        &mut self,
        mut request: M,
        after: impl Fn(&mut M) -> &mut Option<K>,
        split: impl Fn(M::Response) -> (Vec<R>, Option<K>),
    ) -> Result<Vec<R>, ClientError> {
        let mut rows = Vec::new();
        loop {
            let (page, next) = split(self.call(&request)?);
            rows.extend(page);
            // The order only rises; a daemon that goes back would keep us here for ever.
            if next.is_none() || next <= *after(&mut request) {
                return Ok(rows);
            }
            *after(&mut request) = next;
        }
    }

    fn io(&self, source: io::Error) -> ClientError {
        let path = self.path.clone();
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                ClientError::Timeout { path, timeout: self.timeout }
            }
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
                ClientError::Closed(path)
            }
            _ => ClientError::Io { path, source },
        }
    }
}

/// Why there is no connection.
fn connecting(path: &Path, source: io::Error) -> ClientError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => ClientError::NoSocket(path),
        io::ErrorKind::ConnectionRefused => ClientError::Refused(path),
        io::ErrorKind::PermissionDenied => ClientError::Forbidden(path),
        _ => ClientError::Io { path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Root passes every file mode, so that a real socket cannot show this to all who run the tests.
    #[test]
    fn a_forbidden_socket_is_explained() {
        let error = connecting(Path::new("/s"), io::ErrorKind::PermissionDenied.into());
        assert!(matches!(error, ClientError::Forbidden(_)));
        assert!(
            error.to_string().starts_with("cannot connect to /s: permission denied\n  cause: "),
            "{error}"
        );
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_explained() {
        let path = Path::new("/").join("x".repeat(200));
        let error = Client::connect(&path, Client::TIMEOUT).unwrap_err();
        assert!(matches!(error, ClientError::Io { .. }), "{error}");
    }
}

//! One client: requests are read, carried out and answered one after the other.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use control::api::{
    ApiError, BadRequest, ErrorCode, MAX_REQUEST_BYTES, MessageReader, Nothing, Request, decode_request,
    encode_response,
};

use super::{Shared, backend};

/// For a client that is turned away to take the reason; the accepting thread waits no longer.
const FAREWELL: Duration = Duration::from_millis(100);

/// A stream that is read until a deadline, however few bytes come at a time.
struct Timed<'s> {
    stream: &'s UnixStream,
    deadline: Cell<Instant>,
}

impl Read for Timed<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(left(self.deadline.get())?))?;
        (&mut &*self.stream).read(bytes)
    }
}

/// Time until a deadline; `TimedOut` if there is none.
fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.checked_duration_since(Instant::now()) {
        // A socket takes a timeout of zero for none.
        Some(left) if left > Duration::ZERO => Ok(left),
        _ => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Serves a client until it goes, makes us wait for too long, or the server stops.
pub(super) fn run(shared: &Shared, stream: UnixStream) {
    let timed = Timed { stream: &stream, deadline: Cell::new(Instant::now()) };
    let mut reader = MessageReader::new(timed, MAX_REQUEST_BYTES);
    while !shared.stopping.load(Ordering::Acquire) {
        reader.stream().deadline.set(Instant::now() + shared.patience.request);
        let line = match reader.next_line() {
            Ok(Some(line)) => line,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let error = ApiError::new(ErrorCode::InvalidRequest, error.to_string());
                return turn_away(&stream, error);
            }
            _ => return,
        };
        let Some(answer) = answer(shared, &line) else { continue };
        if send(&stream, &answer, shared.patience.answer).is_err() {
            return;
        }
    }
}

/// The answer to a line, if it wants one.
fn answer(shared: &Shared, line: &[u8]) -> Option<Vec<u8>> {
    let Request { id, call } = match decode_request(line) {
        Ok(request) => request,
        Err(BadRequest { id, error }) => return Some(refusal(id.as_ref(), error)),
    };
    let name = call.name();
    let work = || backend::answer(&*shared.backend, id.as_ref(), call);
    let answer = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        (shared.log)(format_args!("the API request `{name}` panicked"));
        let error = ApiError::new(ErrorCode::Internal, format!("the request `{name}` failed in the switch"))
            .cause("a fault of the program, which is described in the daemon's log")
            .fix("report it with the log");
        refusal(id.as_ref(), error)
    });
    id.map(|_| answer)
}

fn refusal(id: Option<&control::api::Id>, error: ApiError) -> Vec<u8> {
    encode_response::<Nothing>(id, &Err(error))
}

/// Writes an answer until a deadline, however few bytes the client takes at a time.
fn send(mut stream: &UnixStream, mut answer: &[u8], patience: Duration) -> io::Result<()> {
    let deadline = Instant::now() + patience;
    while !answer.is_empty() {
        stream.set_write_timeout(Some(left(deadline)?))?;
        match stream.write(answer) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => answer = &answer[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Says why a client is not served.
pub(super) fn turn_away(stream: &UnixStream, error: ApiError) {
    // A client that does not take even this has its connection closed all the same.
    let _ = send(stream, &refusal(None, error), FAREWELL);
}

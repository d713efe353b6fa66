//! Sends frames out of a device as fast as one core can, for tests at 64 bytes.
//!
//! No socket sends as fast as a switch must forward. The kernel's own test runner does: it runs an XDP program over
//! "live" frames (`BPF_PROG_TEST_RUN` with `BPF_F_TEST_XDP_LIVE_FRAMES`), and ours redirects each one to the device.
//! Run it in the container's namespace on `eth0`: the frames arrive at the other end of the veth pair, where an XDP
//! program must be attached. One system call sends many frames and costs a few tens of milliseconds at its end, so
//! a call sends about a second's worth; the end may be late by as much.
//!
//! Prints one line of JSON.
#![allow(unsafe_code)]

use std::ffi::{CString, c_int};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use libxdp_sys as xdp;

/// Frames of one call at first, and the most of one call.
const FIRST: u32 = 1 << 18;
const MOST: u32 = 1 << 22;

#[derive(Parser)]
#[command(about = "Sends XDP frames out of a device, bounded in number and time")]
struct Arguments {
    /// The device, in the present network namespace.
    device: String,
    /// Frames to send; 0: until the time is over.
    #[arg(long, default_value_t = 0)]
    count: u64,
    /// Seconds to send for, at most.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Bytes of a frame, without its check sequence: 60 is a frame of 64 bytes.
    #[arg(long, default_value_t = 60)]
    size: usize,
    /// Destination address.
    #[arg(long, default_value = "02:00:00:00:00:02", value_parser = parse_mac)]
    destination: Mac,
    /// Source address.
    #[arg(long, default_value = "02:00:00:00:00:01", value_parser = parse_mac)]
    source: Mac,
    /// Draw the last four bytes of the destination at random from this many values; 0: as given.
    #[arg(long, default_value_t = 0)]
    destinations: u32,
    /// Frames of a batch, as a driver's interrupt would bring them.
    #[arg(long, default_value_t = 64)]
    batch: u32,
}

#[derive(Clone, Copy)]
struct Mac([u8; 6]);

fn parse_mac(text: &str) -> Result<Mac, String> {
    let bytes: Vec<u8> = text
        .split(':')
        .map(|part| u8::from_str_radix(part, 16).map_err(|error| format!("{part:?}: {error}")))
        .collect::<Result<_, _>>()?;
    bytes.try_into().map(Mac).map_err(|_| "six bytes in hexadecimal, with colons between".into())
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xdp_generator: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let name = CString::new(arguments.device.as_str()).map_err(|error| error.to_string())?;
    // SAFETY: the name lives through the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        return Err(format!("device {:?}: {}", arguments.device, io::Error::last_os_error()));
    }
    let program = load(&instructions(index, arguments.destinations))
        .map_err(|error| format!("bpf(PROG_LOAD): {error}"))?;
    let frame = frame(arguments);
    let wanted = if arguments.count == 0 { u64::MAX } else { arguments.count };
    let (start, limit) = (Instant::now(), Duration::from_secs_f64(arguments.seconds));
    let (mut sent, mut call) = (0, FIRST);
    while sent < wanted && start.elapsed() < limit {
        let now = u64::from(call).min(wanted - sent) as u32;
        send(&program, &frame, now, arguments.batch)
            .map_err(|error| format!("bpf(PROG_TEST_RUN) on {:?}: {error}", arguments.device))?;
        sent += u64::from(now);
        // About a second's worth, and not beyond the end.
        let rate = sent as f64 / start.elapsed().as_secs_f64();
        let left = limit.saturating_sub(start.elapsed()).as_secs_f64().min(1.0);
        call = ((rate * left) as u32).clamp(1 << 12, MOST);
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{{\"frames\":{sent},\"seconds\":{seconds:.3},\"rate\":{:.0}}}", sent as f64 / seconds);
    Ok(())
}

/// An IPv4 UDP datagram that fills the frame; its UDP checksum is 0, "none" (RFC 768).
fn frame(arguments: &Arguments) -> Vec<u8> {
    let size = arguments.size.clamp(60, 1514);
    let mut frame = Vec::with_capacity(size);
    frame.extend_from_slice(&arguments.destination.0);
    frame.extend_from_slice(&arguments.source.0);
    let total = (size - 14) as u16;
    frame.extend([0x08, 0x00, 0x45, 0]);
    frame.extend(total.to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2]);
    let checksum = pmd::checksum::of(&frame[14..34]);
    frame[24..26].copy_from_slice(&checksum);
    frame.extend([0x10, 0, 0, 9]);
    frame.extend((total - 20).to_be_bytes());
    frame.extend([0, 0]);
    frame.resize(size, 0);
    frame
}

/// One BPF instruction, as `struct bpf_insn` has it.
fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> u64 {
    u64::from(code)
        | u64::from(destination | source << 4) << 8
        | u64::from(offset as u16) << 16
        | u64::from(immediate as u32) << 32
}

/// Draws a destination, if there are several, and redirects the frame to the device.
fn instructions(device: u32, destinations: u32) -> Vec<u64> {
    const LOAD_WORD: u8 = 0x61;
    const STORE_WORD: u8 = 0x63;
    const MOVE: u8 = 0xbf;
    const MOVE_NUMBER: u8 = 0xb7;
    const ADD_NUMBER: u8 = 0x07;
    const REMAINDER_NUMBER: u8 = 0x94;
    const TO_BIG_ENDIAN: u8 = 0xdc;
    const JUMP_IF_GREATER: u8 = 0x2d;
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;
    const REDIRECT: i32 = 23;
    const RANDOM: i32 = 7;
    let mut program = Vec::new();
    if destinations > 0 {
        program.extend([
            instruction(LOAD_WORD, 6, 1, 0, 0), // r6 = data
            instruction(LOAD_WORD, 2, 1, 4, 0), // r2 = data_end
            instruction(MOVE, 3, 6, 0, 0),      // r3 = data + 14
            instruction(ADD_NUMBER, 3, 0, 0, 14),
            instruction(JUMP_IF_GREATER, 3, 2, 4, 0), // a frame too short goes as it is
            instruction(CALL, 0, 0, 0, RANDOM),
            instruction(REMAINDER_NUMBER, 0, 0, 0, destinations as i32),
            instruction(TO_BIG_ENDIAN, 0, 0, 0, 32),
            instruction(STORE_WORD, 6, 0, 2, 0), // destination[2..6]
        ]);
    }
    program.extend([
        instruction(MOVE_NUMBER, 1, 0, 0, device as i32),
        instruction(MOVE_NUMBER, 2, 0, 0, 0),
        instruction(CALL, 0, 0, 0, REDIRECT),
        instruction(EXIT, 0, 0, 0, 0),
    ]);
    program
}

fn load(instructions: &[u64]) -> io::Result<OwnedFd> {
    // SAFETY: strings and instructions live through the call; null options mean none.
    let fd = unsafe {
        xdp::bpf_prog_load(
            xdp::bpf_prog_type_BPF_PROG_TYPE_XDP,
            c"xdp_generator".as_ptr(),
            c"GPL".as_ptr(),
            instructions.as_ptr().cast(),
            instructions.len(),
            std::ptr::null_mut(),
        )
    };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: a descriptor that the kernel just made for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn send(program: &OwnedFd, frame: &[u8], count: u32, batch: u32) -> io::Result<()> {
    // SAFETY: a structure of integers and pointers, for which zero means "none".
    let mut options: xdp::bpf_test_run_opts = unsafe { std::mem::zeroed() };
    options.sz = size_of::<xdp::bpf_test_run_opts>();
    options.data_in = frame.as_ptr().cast();
    options.data_size_in = frame.len() as u32;
    options.repeat = count as c_int;
    options.flags = xdp::BPF_F_TEST_XDP_LIVE_FRAMES;
    options.batch_size = batch;
    // SAFETY: a loaded program; the frame and the options live through the call.
    let rc = unsafe { xdp::bpf_prog_test_run_opts(program.as_raw_fd(), &mut options) };
    if rc < 0 { Err(io::Error::from_raw_os_error(-rc)) } else { Ok(()) }
}

//! An independent AF_XDP application, to stand at the other end of a veth pair: it counts frames or sends them back.
//!
//! All of it is xsk-rs: its UMEM, its sockets, and the XDP program that libxdp brings. It shares no code with the
//! switch, so what passes between the two is AF_XDP as others speak it.
//!
//! It sleeps when nothing comes, ends after its time or its number of frames, and prints one line of JSON.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::num::NonZeroU32;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use xsk_rs::config::{BindFlags, Interface, QueueSize, SocketConfig, UmemConfig};
use xsk_rs::{FrameDesc, Socket, Umem};

const FRAMES: u32 = 4096;
const RING: u32 = 2048;

#[derive(Parser)]
#[command(about = "An AF_XDP application on one device: counts frames, or sends them back")]
struct Arguments {
    /// The device, in the present network namespace.
    device: String,
    /// What to do with a frame.
    mode: Mode,
    /// Seconds to run, at most.
    #[arg(long, default_value_t = 3600.0)]
    seconds: f64,
    /// Frames to receive, at most; 0: no limit.
    #[arg(long, default_value_t = 0)]
    count: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Count and drop.
    Count,
    /// Exchange the Ethernet addresses and send it back.
    Echo,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xdp_peer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let size = QueueSize::new(RING)?;
    let umem = UmemConfig::builder().fill_queue_size(size).comp_queue_size(size).build()?;
    let (umem, mut free) = Umem::new(umem, NonZeroU32::new(FRAMES).ok_or("no frames")?, false)?;
    let config = SocketConfig::builder()
        .rx_queue_size(size)
        .tx_queue_size(size)
        .bind_flags(BindFlags::XDP_USE_NEED_WAKEUP)
        .build();
    let device = Interface::new(CString::new(arguments.device.as_str())?);
    // SAFETY: the device's queue is bound once.
    let (mut tx, mut rx, rings) = unsafe { Socket::new(config, &umem, &device, 0)? };
    let (mut fill, mut completion) = rings.ok_or("no rings")?;
    // SAFETY: each frame is in one place: `free`, a ring, or `batch` between the two.
    let lent = unsafe { fill.produce(&free[..RING as usize]) };
    free.drain(..lent);
    fill.wakeup(rx.fd_mut(), 0)?;
    println!("ready");

    let (start, limit) = (Instant::now(), Duration::from_secs_f64(arguments.seconds));
    let mut batch: Vec<FrameDesc> = free[..64].to_vec();
    let (mut frames, mut bytes, mut outstanding) = (0u64, 0u64, 0usize);
    let (mut first, mut last) = (start, start);
    while start.elapsed() < limit && (arguments.count == 0 || frames < arguments.count) {
        let patience = if outstanding > 0 { 0 } else { 20 };
        // SAFETY: as above.
        let count = unsafe { rx.poll_and_consume(&mut batch, patience)? };
        if count > 0 {
            last = Instant::now();
            if frames == 0 {
                first = last;
            }
            frames += count as u64;
            bytes += batch[..count].iter().map(|frame| frame.lengths().data() as u64).sum::<u64>();
            if arguments.mode == Mode::Echo {
                batch[..count].iter_mut().for_each(|frame| turn_round(&umem, frame));
                // SAFETY: as above.
                let sent = unsafe { tx.produce(&batch[..count]) };
                outstanding += sent;
                free.extend_from_slice(&batch[sent..count]);
            } else {
                free.extend_from_slice(&batch[..count]);
            }
        }
        if outstanding > 0 {
            tx.wakeup()?;
            // SAFETY: as above.
            let done = unsafe { completion.consume(&mut batch) };
            outstanding -= done;
            free.extend_from_slice(&batch[..done]);
        }
        let back = free.len().min(64);
        // SAFETY: as above.
        if back > 0 && unsafe { fill.produce(&free[free.len() - back..]) } == back {
            free.truncate(free.len() - back);
        }
    }
    let seconds = last.duration_since(first).as_secs_f64();
    let missed = rx.fd().xdp_statistics()?.rx_ring_full();
    println!("{{\"frames\":{frames},\"bytes\":{bytes},\"seconds\":{seconds:.3},\"ring_full\":{missed}}}");
    Ok(())
}

/// Exchanges destination and source.
fn turn_round(umem: &Umem, frame: &mut FrameDesc) {
    // SAFETY: the frame is ours: consumed from the rx ring and in no other yet.
    let mut data = unsafe { umem.data_mut(frame) };
    if let Some(addresses) = data.contents_mut().get_mut(..12) {
        let (destination, source) = addresses.split_at_mut(6);
        destination.swap_with_slice(source);
    }
}

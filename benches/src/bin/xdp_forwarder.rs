//! The bare AF_XDP forwarder that the switch is measured against: everything from one device to the other.
//!
//! Built on the sockets of the crate xsk-rs, not on our rings, so that it is an independent yardstick; only the XDP
//! program is loaded and attached with our code, as xsk-rs's own refuses jumbo frames. One thread, one UMEM, copy
//! mode, need-wakeup, no lookup, no parsing beyond what a partial checksum asks for: frames of a container's kernel
//! come with their transport checksum unfinished, and it is completed here, else no TCP would pass.
//!
//! It polls without rest until its time is over, then prints one line of JSON.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use pmd::afxdp::program::{Attachment, Company, SocketMap, Unclaimed};
use pmd::checksum::{Sum, never_zero};
use xsk_rs::config::{BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue, Umem};

const FRAMES: u32 = 16384;
const RING: u32 = 2048;
const BATCH: usize = 64;

#[derive(Parser)]
#[command(about = "Forwards frames between two devices by AF_XDP, completing checksums")]
struct Arguments {
    /// One device, in the present network namespace.
    one: String,
    /// The other.
    two: String,
    /// Seconds to run.
    #[arg(long, default_value_t = 3600.0)]
    seconds: f64,
    /// Leave checksums alone (for frames that are complete).
    #[arg(long)]
    no_checksum: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xdp_forwarder: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One device.
struct Side {
    rx: RxQueue,
    tx: TxQueue,
    fill: FillQueue,
    completion: CompQueue,
    /// Sent and not completed.
    outstanding: usize,
    /// Descriptors of a frame whose end has not come yet.
    held: Vec<FrameDesc>,
    _attachment: Attachment,
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let config = UmemConfig::builder()
        .frame_size(FrameSize::new(4096)?)
        .fill_queue_size(QueueSize::new(RING)?)
        .comp_queue_size(QueueSize::new(RING)?)
        .build()?;
    let frames = NonZeroU32::new(FRAMES).ok_or("no frames")?;
    let (umem, mut free) = Umem::new(config, frames, false)?;
    let mut one = open(&umem, &arguments.one)?;
    let mut two = open(&umem, &arguments.two)?;
    for side in [&mut one, &mut two] {
        refill(side, &mut free);
        side.fill.wakeup(side.rx.fd_mut(), 0)?;
    }
    println!("ready");
    let end = Instant::now() + Duration::from_secs_f64(arguments.seconds);
    let (mut forwarded, mut dropped, mut turns) = (0u64, 0u64, 0u32);
    let mut batch = vec![free[0]; BATCH];
    loop {
        for flip in [false, true] {
            let (from, to) = if flip { (&mut two, &mut one) } else { (&mut one, &mut two) };
            let (sent, lost) = forward(&umem, from, to, &mut batch, &mut free, !arguments.no_checksum)?;
            forwarded += sent;
            dropped += lost;
        }
        turns = turns.wrapping_add(1);
        if turns.is_multiple_of(1024) && Instant::now() > end {
            break;
        }
    }
    println!("{{\"descriptors\":{forwarded},\"dropped\":{dropped}}}");
    Ok(())
}

fn open(umem: &Umem, device: &str) -> Result<Side, Box<dyn std::error::Error>> {
    let config = SocketConfig::builder()
        .rx_queue_size(QueueSize::new(RING)?)
        .tx_queue_size(QueueSize::new(RING)?)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(BindFlags::XDP_COPY | BindFlags::XDP_USE_NEED_WAKEUP | BindFlags::XDP_USE_SG)
        .build();
    let name = CString::new(device)?;
    // SAFETY: each device is bound once, and the program is not libxdp's.
    let (tx, rx, rings) = unsafe { Socket::new(config, umem, &Interface::new(name.clone()), 0)? };
    let (fill, completion) = rings.ok_or("no rings")?;
    let sockets = SocketMap::new(device, 1)?;
    // SAFETY: the socket is open for as long as `rx`, which outlives the borrow.
    sockets.insert(device, 0, unsafe { BorrowedFd::borrow_raw(rx.fd().as_raw_fd()) })?;
    // SAFETY: the name lives through the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    let attachment = Attachment::new(device, index, &sockets, Unclaimed::Drop, Company::Alone, true)?;
    Ok(Side { rx, tx, fill, completion, outstanding: 0, held: Vec::new(), _attachment: attachment })
}

/// One burst from one side to the other; gives descriptors sent and dropped.
fn forward(
    umem: &Umem,
    from: &mut Side,
    to: &mut Side,
    batch: &mut [FrameDesc],
    free: &mut Vec<FrameDesc>,
    checksum: bool,
) -> Result<(u64, u64), Box<dyn std::error::Error>> {
    let (mut sent, mut lost) = (0, 0);
    // SAFETY: a consumed descriptor is ours until it is produced to a ring again, which happens once below.
    let count = unsafe { from.rx.consume(batch) };
    if count > 0 {
        let whole;
        let burst = if from.held.is_empty() && !batch[count - 1].has_more_frames() {
            &mut batch[..count]
        } else {
            from.held.extend_from_slice(&batch[..count]);
            let end = from.held.iter().rposition(|part| !part.has_more_frames()).map_or(0, |last| last + 1);
            let rest = from.held.split_off(end);
            whole = std::mem::replace(&mut from.held, rest);
            &mut whole.clone()[..]
        };
        if checksum {
            burst.chunk_by_mut(|part, _| part.has_more_frames()).for_each(|frame| complete(umem, frame));
        }
        // SAFETY: as above.
        if unsafe { to.tx.produce(burst) } == burst.len() {
            to.outstanding += burst.len();
            sent = burst.len() as u64;
        } else {
            free.extend_from_slice(burst);
            lost = burst.len() as u64;
        }
    }
    if to.outstanding > 0 {
        if to.tx.needs_wakeup() {
            to.tx.wakeup()?;
        }
        // SAFETY: a completed descriptor is ours until it is produced to a fill ring again.
        let done = unsafe { to.completion.consume(batch) };
        to.outstanding -= done;
        free.extend_from_slice(&batch[..done]);
    }
    if count > 0 {
        refill(from, free);
    }
    Ok((sent, lost))
}

/// Gives the kernel chunks to receive into.
fn refill(side: &mut Side, free: &mut Vec<FrameDesc>) {
    let room = side.fill.nb_free(BATCH as u32) as usize;
    let count = room.min(free.len());
    let first = free.len() - count;
    // SAFETY: the frames are free: in no ring, and taken off the list if the ring takes them.
    if count > 0 && unsafe { side.fill.produce(&free[first..]) } == count {
        free.truncate(first);
    }
}

/// Completes the transport checksum of a frame, in one or several descriptors, if the sender left it partial: the
/// field then holds the pseudo-header's sum.
fn complete(umem: &Umem, frame: &mut [FrameDesc]) {
    // SAFETY: the descriptors are ours, see `forward`.
    let head = unsafe { umem.data(&frame[0]) };
    let Some((start, field)) = partial(head.contents()) else { return };
    let (mut sum, mut skip) = (Sum::default(), start);
    for part in frame.iter() {
        // SAFETY: as above.
        let data = unsafe { umem.data(part) };
        let bytes = data.contents();
        sum.add(&bytes[skip.min(bytes.len())..]);
        skip = skip.saturating_sub(bytes.len());
    }
    // SAFETY: as above.
    let mut head = unsafe { umem.data_mut(&mut frame[0]) };
    head.contents_mut()[field..field + 2].copy_from_slice(&never_zero(sum.finish()));
}

/// Where the sum begins and where it goes, if the checksum is partial.
fn partial(head: &[u8]) -> Option<(usize, usize)> {
    let mut pseudo = Sum::default();
    let (protocol, start) = match head.get(12..14)? {
        [0x08, 0x00] => {
            let header = head.get(14..34)?;
            let length = usize::from(header[0] & 15) * 4;
            let total = u16::from_be_bytes([header[2], header[3]]);
            pseudo.add(&header[12..20]);
            pseudo.add_word(total.checked_sub(length as u16)?);
            (header[9], 14 + length)
        }
        [0x86, 0xdd] => {
            let header = head.get(14..54)?;
            pseudo.add(&header[8..40]);
            pseudo.add(&header[4..6]);
            (header[6], 54)
        }
        _ => return None,
    };
    let field = match protocol {
        6 => start + 16,
        17 => start + 6,
        _ => return None,
    };
    pseudo.add_word(u16::from(protocol));
    (head.get(field..field + 2)? == pseudo.partial()).then_some((start, field))
}

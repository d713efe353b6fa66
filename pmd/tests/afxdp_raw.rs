//! The raw AF_XDP pieces on a real veth pair: socket, rings, UMEM, program.
//!
//! Needs root. The device under test is one end, a packet socket on the other end is the outside world.
#![allow(unsafe_code, clippy::unwrap_used)]

mod lab;

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

use lab::{FAR, NEAR, RawEnd, eventually, frame, ifindex, private_pair};
use memmap2::MmapMut;
use pmd::afxdp::program::{
    Attachment, Company, PROGRAM_NAME, ProgramError, SocketMap, Unclaimed, XdpMode, programs_on,
};
use pmd::afxdp::ring::Descriptor;
use pmd::afxdp::socket::{
    Bound, Mode, OpenSocket, Queue, RingSizes, Rings, SocketError, is_zero_copy, kick_tx, statistics,
};
use pmd::afxdp::umem::{CHUNK_SIZE, METADATA_LENGTH, TransmitMetadata, Umem};

const CHUNKS: u64 = 64;
const SIZES: RingSizes = RingSizes { rx: 64, tx: 64, fill: 64, completion: 64 };

/// One end of a pair, driven by hand.
struct Device {
    memory: MmapMut,
    memfd: OwnedFd,
    fd: OwnedFd,
    rings: Rings,
    bound: Bound,
    metadata: bool,
    attachment: Option<Attachment>,
}

fn queue(device: &str) -> Queue {
    Queue { device: device.into(), ifindex: ifindex(device), queue: 0 }
}

/// Frames on a memfd, as an arena's are, so that another process can map them.
fn memory() -> (MmapMut, OwnedFd) {
    // SAFETY: a static name; the descriptor is new and ours alone.
    let memfd = unsafe { File::from_raw_fd(libc::memfd_create(c"frames".as_ptr(), 0)) };
    memfd.set_len(CHUNKS * u64::from(CHUNK_SIZE)).unwrap();
    // SAFETY: a memfd that is not truncated while it is mapped.
    (unsafe { MmapMut::map_mut(&memfd) }.unwrap(), memfd.into())
}

fn umem(memory: &mut MmapMut) -> Umem {
    let address = NonNull::new(memory.as_mut_ptr()).unwrap();
    // SAFETY: `Device` keeps the mapping until its socket is closed.
    unsafe { Umem::new(address, memory.len(), 0) }
}

impl Device {
    /// Half of the chunks go into the fill ring, the other half are for sending.
    fn open(device: &str, mode: Mode, multi_buffer: bool, unclaimed: Unclaimed) -> Self {
        let (mut memory, memfd) = memory();
        let mut socket = OpenSocket::new(queue(device)).unwrap();
        socket.register(&umem(&mut memory)).unwrap();
        let mut rings = socket.make_rings(SIZES).unwrap();
        for chunk in 0..CHUNKS / 2 {
            assert!(rings.fill.push(chunk * u64::from(CHUNK_SIZE)));
        }
        rings.fill.submit();
        let bound = socket.bind(mode, multi_buffer).unwrap();
        let sockets = SocketMap::new(device, 1).unwrap();
        sockets.insert(device, 0, socket.fd()).unwrap();
        let attachment =
            Attachment::new(device, ifindex(device), &sockets, unclaimed, Company::Alone, true).unwrap();
        let metadata = socket.has_metadata();
        Device { memory, memfd, fd: socket.into_fd(), rings, bound, metadata, attachment: Some(attachment) }
    }

    fn bytes(&self, descriptor: &Descriptor) -> &[u8] {
        &self.memory[descriptor.addr as usize..][..descriptor.len as usize]
    }

    /// The next frame, its descriptors joined, and how many there were; the chunks go back to the kernel.
    fn receive(&mut self) -> Option<(Vec<u8>, usize)> {
        let mut whole = Vec::new();
        let mut parts = 0;
        loop {
            let descriptor = eventually(|| self.rings.rx.pop())?;
            whole.extend_from_slice(self.bytes(&descriptor));
            parts += 1;
            self.rings.fill.push(descriptor.addr & !u64::from(CHUNK_SIZE - 1));
            if descriptor.options & libc::XDP_PKT_CONTD == 0 {
                break;
            }
        }
        self.rings.fill.submit();
        self.rings.rx.release();
        Some((whole, parts))
    }

    /// Sends `frame` from as many chunks as it takes, and waits until they come back.
    fn send(&mut self, frame: &[u8], metadata: Option<TransmitMetadata>) {
        const ROOM: usize = 3072;
        let parts = frame.chunks(ROOM).count();
        for (index, part) in frame.chunks(ROOM).enumerate() {
            let addr = (CHUNKS / 2 + index as u64) * u64::from(CHUNK_SIZE) + 256;
            self.memory[addr as usize..][..part.len()].copy_from_slice(part);
            let mut options = if index + 1 < parts { libc::XDP_PKT_CONTD } else { 0 };
            if let (Some(metadata), 0) = (metadata, index) {
                options |= libc::XDP_TX_METADATA;
                let place = addr as usize - METADATA_LENGTH as usize;
                self.memory[place..][..METADATA_LENGTH as usize].copy_from_slice(&metadata.to_bytes());
            }
            assert!(self.rings.tx.push(Descriptor { addr, len: part.len() as u32, options }));
        }
        self.rings.tx.submit();
        for _ in 0..parts {
            let back = eventually(|| {
                kick_tx(self.fd.as_fd()).unwrap();
                self.rings.completion.pop()
            });
            assert!(back.is_some(), "no completion");
        }
        self.rings.completion.release();
    }
}

#[test]
fn frames_cross_both_ways_and_the_socket_says_copy() {
    private_pair(1500);
    let outside = RawEnd::new(FAR);
    let mut device = Device::open(NEAR, Mode::Auto, false, Unclaimed::Drop);
    assert_eq!(device.bound, Bound { zero_copy: false, multi_buffer: true }, "veth has no zero-copy");
    assert!(!is_zero_copy(device.fd.as_fd()).unwrap());
    assert_eq!(device.attachment.as_ref().unwrap().mode(), XdpMode::Native);
    for round in 0..200 {
        let sent = frame(round, 60 + usize::from(round));
        outside.send(&sent);
        assert_eq!(device.receive().unwrap(), (sent, 1));
        let back = frame(round.wrapping_add(100), 1514);
        device.send(&back, None);
        assert_eq!(outside.receive().unwrap(), back);
    }
    let statistics = statistics(device.fd.as_fd()).unwrap();
    assert_eq!(
        (statistics.rx_dropped, statistics.rx_ring_full, statistics.tx_invalid_descriptors),
        (0, 0, 0)
    );
}

#[test]
fn a_frame_of_9014_bytes_crosses_as_a_chain() {
    private_pair(9000);
    let outside = RawEnd::new(FAR);
    let mut device = Device::open(NEAR, Mode::Auto, true, Unclaimed::Drop);
    assert!(device.bound.multi_buffer);
    let sent = frame(7, 9014);
    outside.send(&sent);
    let (got, parts) = device.receive().unwrap();
    assert_eq!(got, sent);
    assert!(parts >= 3, "{parts} descriptors");
    let back = frame(8, 9014);
    device.send(&back, None);
    assert_eq!(outside.receive().unwrap(), back);
}

/// The rings of a socket, mapped again from the descriptor alone, go on where they stopped.
#[test]
fn rings_are_rebuilt_from_the_descriptor() {
    private_pair(1500);
    let outside = RawEnd::new(FAR);
    let mut device = Device::open(NEAR, Mode::Copy, false, Unclaimed::Drop);
    for seed in 0..5 {
        outside.send(&frame(seed, 60));
        device.receive().unwrap();
        device.send(&frame(seed, 60), None);
        outside.receive().unwrap();
    }
    // One frame waits in the ring while nobody has it mapped.
    outside.send(&frame(99, 80));
    let before = (device.rings.rx.position().consumer, device.rings.tx.position());
    device.rings = Rings::map(device.fd.as_fd(), SIZES).unwrap();
    assert_eq!((device.rings.rx.position().consumer, device.rings.tx.position()), before);
    assert_eq!(before.0, 5);
    assert_eq!(device.receive().unwrap().0, frame(99, 80));
    device.send(&frame(98, 90), None);
    assert_eq!(outside.receive().unwrap(), frame(98, 90));
}

/// Another process that is given the socket and the frames' memory drives them on: receives, gives chunks back, sends.
#[test]
fn a_socket_is_adopted_by_another_process() {
    const CHILD: &str = "VSWITCH_TEST_ADOPT";
    const ROUNDS: u8 = 100; // more than there are chunks in the rings
    if let Some(numbers) = std::env::var_os(CHILD) {
        let numbers = numbers.into_string().unwrap();
        let (fd, memfd) = numbers.split_once(' ').unwrap();
        // SAFETY: the parent left these two open for us, and for nobody else.
        let [fd, memfd] = [fd, memfd].map(|n| unsafe { OwnedFd::from_raw_fd(n.parse().unwrap()) });
        // SAFETY: as in `memory`.
        let memory = unsafe { MmapMut::map_mut(&File::from(memfd.try_clone().unwrap())) }.unwrap();
        let rings = Rings::map(fd.as_fd(), SIZES).unwrap();
        let bound = Bound { zero_copy: false, multi_buffer: true };
        let mut device = Device { memory, memfd, fd, rings, bound, metadata: false, attachment: None };
        for _ in 0..ROUNDS {
            let (frame, _) = device.receive().unwrap();
            device.send(&frame, None);
        }
        return;
    }
    private_pair(1500);
    let outside = RawEnd::new(FAR);
    let mut device = Device::open(NEAR, Mode::Auto, false, Unclaimed::Drop);
    for seed in 0..20 {
        outside.send(&frame(seed, 60));
        device.receive().unwrap();
    }
    for fd in [device.fd.as_raw_fd(), device.memfd.as_raw_fd()] {
        // SAFETY: an open descriptor and flags.
        assert_eq!(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }, 0);
    }
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_socket_is_adopted_by_another_process"])
        .env(CHILD, format!("{} {}", device.fd.as_raw_fd(), device.memfd.as_raw_fd()))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    for seed in 0..ROUNDS {
        outside.send(&frame(seed, 70));
        let back = outside.receive();
        if back.is_none() {
            let _ = child.kill();
        }
        assert_eq!(back.unwrap(), frame(seed, 70));
    }
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_ring_wraps_and_says_when_it_is_full() {
    private_pair(1500);
    let mut device = Device::open(NEAR, Mode::Copy, false, Unclaimed::Drop);
    for round in 0..3 {
        for slot in 0..SIZES.tx {
            let addr = u64::from(slot % 32) * u64::from(CHUNK_SIZE) + CHUNKS / 2 * u64::from(CHUNK_SIZE) + 64;
            assert!(
                device.rings.tx.push(Descriptor { addr, len: 60, options: 0 }),
                "round {round} slot {slot}"
            );
        }
        assert!(!device.rings.tx.push(Descriptor { addr: 64, len: 60, options: 0 }), "a full ring");
        device.rings.tx.cancel(1);
        assert_eq!(device.rings.tx.free(1), 1);
        assert!(device.rings.tx.push(Descriptor {
            addr: 64 + u64::from(CHUNK_SIZE) * 63,
            len: 60,
            options: 0
        }));
        device.rings.tx.submit();
        let mut back = 0;
        eventually(|| {
            kick_tx(device.fd.as_fd()).unwrap();
            while device.rings.completion.pop().is_some() {
                back += 1;
            }
            device.rings.completion.release();
            (back == SIZES.tx).then_some(())
        })
        .unwrap();
        assert_eq!(device.rings.tx.pending(), 0);
    }
}

/// With transmit metadata the kernel takes over the checksum, and hands a veth peer the frame as it does its own.
#[test]
fn the_kernel_finishes_a_checksum_on_request() {
    private_pair(1500);
    let outside = RawEnd::new(FAR);
    let mut device = Device::open(NEAR, Mode::Copy, false, Unclaimed::Drop);
    if !device.metadata {
        return;
    }
    let mut udp = frame(1, 42 + 18);
    udp[12..14].copy_from_slice(&[8, 0]);
    udp[14..34].copy_from_slice(&[0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    udp[34..42].copy_from_slice(&[0x10, 0, 0x20, 0, 0, 26, 0, 0]);
    device.send(&udp, Some(TransmitMetadata::checksum(34, 6)));
    // The packet socket reports the frame as it lies in the kernel: the checksum is the receiver's to believe.
    assert_eq!(outside.receive().unwrap(), udp);
    assert_eq!(statistics(device.fd.as_fd()).unwrap().tx_invalid_descriptors, 0);
}

#[test]
fn sockets_of_two_devices_share_one_umem() {
    private_pair(1500);
    let (mut memory, _memfd) = memory();
    let mut first = OpenSocket::new(queue(NEAR)).unwrap();
    first.register(&umem(&mut memory)).unwrap();
    let _first_rings = first.make_rings(SIZES).unwrap();
    first.bind(Mode::Auto, false).unwrap();
    let second = OpenSocket::new(queue(FAR)).unwrap();
    let mut rings = second.make_rings(SIZES).unwrap();
    assert!(rings.fill.push(0));
    rings.fill.submit();
    assert!(!second.bind_shared(first.fd(), true).unwrap().zero_copy);
    let sockets = SocketMap::new(FAR, 1).unwrap();
    sockets.insert(FAR, 0, second.fd()).unwrap();
    let _attachment =
        Attachment::new(FAR, ifindex(FAR), &sockets, Unclaimed::Pass, Company::Alone, true).unwrap();
    RawEnd::new(NEAR).send(&frame(3, 77));
    let got = eventually(|| rings.rx.pop()).unwrap();
    assert_eq!(&memory[got.addr as usize..][..got.len as usize], frame(3, 77));
}

/// What no socket takes goes where the loader said.
#[test]
fn unclaimed_frames_pass_or_are_dropped() {
    for (unclaimed, passes) in [(Unclaimed::Pass, true), (Unclaimed::Drop, false)] {
        private_pair(1500);
        let kernel = RawEnd::new(NEAR);
        let sockets = SocketMap::new(NEAR, 1).unwrap();
        let attachment =
            Attachment::new(NEAR, ifindex(NEAR), &sockets, unclaimed, Company::Alone, true).unwrap();
        let outside = RawEnd::new(FAR);
        outside.send(&frame(1, 60));
        if passes {
            assert_eq!(kernel.receive().unwrap(), frame(1, 60));
        }
        attachment.detach().unwrap();
        // The second frame is the first that the kernel sees where the first was dropped.
        outside.send(&frame(2, 60));
        assert_eq!(kernel.receive().unwrap(), frame(2, 60));
    }
}

#[test]
fn errors_name_the_device_the_cause_and_the_fix() {
    private_pair(1500);
    let device = Device::open(NEAR, Mode::Auto, false, Unclaimed::Pass);
    let (mut memory, _memfd) = memory();
    let open = |queue: Queue, memory: &mut MmapMut| {
        let mut socket = OpenSocket::new(queue).unwrap();
        socket.register(&umem(memory)).unwrap();
        (socket.make_rings(SIZES).unwrap(), socket)
    };
    let (_rings, busy) = open(queue(NEAR), &mut memory);
    let error = busy.bind(Mode::Auto, false).unwrap_err();
    assert!(matches!(error, SocketError::QueueBusy { .. }), "{error}");
    assert!(error.to_string().contains(NEAR) && error.to_string().contains("already has"), "{error}");

    let (_rings, no_zero_copy) = open(queue(FAR), &mut memory);
    let error = no_zero_copy.bind(Mode::ZeroCopy, false).unwrap_err();
    assert!(matches!(error, SocketError::NoZeroCopy { .. }), "{error}");

    let (_rings, no_device) = open(Queue { ifindex: 9999, ..queue(FAR) }, &mut memory);
    let error = no_device.bind(Mode::Auto, false).unwrap_err();
    assert!(matches!(error, SocketError::NoDevice { .. }), "{error}");

    let (_rings, no_queue) = open(Queue { queue: 77, ..queue(FAR) }, &mut memory);
    let error = no_queue.bind(Mode::Auto, false).unwrap_err();
    assert!(matches!(error, SocketError::NoQueue { .. }), "{error}");

    let sockets = SocketMap::new(NEAR, 1).unwrap();
    let error =
        Attachment::new(NEAR, ifindex(NEAR), &sockets, Unclaimed::Pass, Company::Beside, true).unwrap_err();
    assert!(
        matches!(&error, ProgramError::Occupied { name, id, .. }
        if name.as_bytes() == PROGRAM_NAME.to_bytes() && *id != 0),
        "{error}"
    );
    drop(device);
    assert_eq!(programs_on(ifindex(NEAR)).unwrap(), Vec::<String>::new());
    let error = Attachment::new("gone0", 9999, &sockets, Unclaimed::Pass, Company::Alone, true).unwrap_err();
    assert!(matches!(error, ProgramError::NoDevice { .. }), "{error}");
}

/// A device without native XDP is driven in the kernel's generic path.
#[test]
fn a_device_without_native_xdp_is_driven_generically() {
    private_pair(1500);
    let sockets = SocketMap::new("lo", 1).unwrap();
    let attach =
        |generic| Attachment::new("lo", ifindex("lo"), &sockets, Unclaimed::Pass, Company::Alone, generic);
    let error = attach(false).unwrap_err();
    assert!(matches!(error, ProgramError::System { .. }), "{error}");
    assert_eq!(attach(true).unwrap().mode(), XdpMode::Generic);
}

/// Without CAP_IPC_LOCK the memory-lock limit binds, and the error says what to do about it.
#[test]
fn the_memory_lock_limit_is_explained() {
    private_pair(1500);
    drop_ipc_lock();
    let mut memory = MmapMut::map_anon(64 << 20).unwrap();
    let mut socket = OpenSocket::new(queue(NEAR)).unwrap();
    let error = socket.register(&umem(&mut memory)).unwrap_err();
    assert!(matches!(error, SocketError::MemoryLock { mib: 64, .. }), "{error}");
    assert!(error.to_string().contains("LimitMEMLOCK"), "{error}");
}

/// `kill -9` leaves nothing on the device: the kernel closes the link with the process.
#[test]
fn a_killed_process_leaves_no_program() {
    const CHILD: &str = "VSWITCH_TEST_ATTACH_AND_WAIT";
    if std::env::var_os(CHILD).is_some() {
        let _device = Device::open(NEAR, Mode::Auto, false, Unclaimed::Pass);
        println!("attached");
        std::thread::sleep(std::time::Duration::from_secs(30));
        return;
    }
    private_pair(1500);
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "a_killed_process_leaves_no_program"])
        .env(CHILD, "1")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let attached = eventually(|| {
        (programs_on(ifindex(NEAR)).unwrap() == [PROGRAM_NAME.to_str().unwrap()]).then_some(())
    });
    child.kill().unwrap();
    child.wait().unwrap();
    attached.unwrap();
    eventually(|| programs_on(ifindex(NEAR)).unwrap().is_empty().then_some(())).unwrap();
    // And the queue is free again.
    Device::open(NEAR, Mode::Auto, false, Unclaimed::Pass);
}

/// Takes CAP_IPC_LOCK from this thread (capabilities belong to threads).
fn drop_ipc_lock() {
    const CAP_IPC_LOCK: u32 = 14;
    const VERSION_3: u32 = 0x2008_0522;
    let mut header = [VERSION_3, 0];
    let mut sets = [0u32; 6];
    // SAFETY: header and sets have the layout of version 3 of these calls.
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_capget, header.as_mut_ptr(), sets.as_mut_ptr()), 0);
        sets[0] &= !(1 << CAP_IPC_LOCK);
        assert_eq!(libc::syscall(libc::SYS_capset, header.as_mut_ptr(), sets.as_ptr()), 0);
        let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 8 << 20 };
        assert_eq!(libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit), 0);
    }
}

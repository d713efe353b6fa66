//! The port with front ends of our own: as server and as client, decent, gone and hostile.

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pmd::{
    Arena, Burst, Fate, Features, HugePages, Peer, Pool, Port, Prefixes, RxMemory, RxQueue, Source, TxItem,
    TxQueue,
};

use vmm_sys_util::eventfd::EventFd;

use super::{Mode, OpenError, Settings, VhostUserPort, open};
use crate::driver::frontend::{End, PACKED, PLAIN};
use crate::driver::memory::{GUEST, USER};
use crate::driver::ring::NEXT;
use crate::ring::Layout;
use vhost_protocol::VhostBackend;
use vhost_protocol::vhost_user::VhostUserFrontend;
use vhost_protocol::vhost_user::message::{VhostUserConfigFlags, VhostUserInflight};

/// All features that the front end can use: its rings are split ones.
const ALL: u64 = !(1 << 34);

/// Pages that are written are to be noted.
const LOG_ALL: u64 = 1 << 26;

/// A folder that is gone afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("vhost-user-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("port.sock")
    }

    fn settings(&self, mode: Mode) -> Settings {
        Settings::new(self.socket(), mode)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(10), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A port whose worker is the test.
struct Rig {
    port: Box<VhostUserPort>,
    rx: Box<dyn RxQueue>,
    tx: Box<dyn TxQueue>,
    /// Those of other workers.
    others: Vec<Box<dyn TxQueue>>,
    memory: RxMemory,
    pool: Pool,
}

impl Rig {
    fn new(settings: Settings) -> Rig {
        let mut port = VhostUserPort::new(open(settings).unwrap()).unwrap();
        let (rx, mut others) = (port.take_rx().remove(0), port.take_tx());
        let tx = others.remove(0);
        let pool = Arena::new(64, HugePages::Off).unwrap().pool();
        Rig { port: Box::new(port), rx, tx, others, memory: RxMemory::new(), pool }
    }

    /// Sends what is received back where it came from; how many frames.
    fn echo(&mut self) -> usize {
        let mut batch = self.rx.receive(&mut self.memory, &mut self.pool, 64).unwrap();
        let items: Vec<TxItem> = (0..batch.len() as u16).map(TxItem::exclusive).collect();
        let prefixes = Prefixes::default();
        let mut burst = Burst::new(&mut batch, &items, &prefixes, self.port.features());
        self.tx.transmit(&mut burst, &mut self.pool);
        batch.recycle(&mut self.pool);
        self.rx.release(&mut self.pool);
        self.tx.flush();
        items.len()
    }

    fn wait_up(&self) {
        wait_until("the link to be up", || self.port.link().up);
    }

    /// Sends numbered frames there and back, a few at a time; all arrive, in order and whole.
    fn traffic(&mut self, end: &mut End, frames: u32) {
        let (mut sent, mut got) = (0u32, 0u32);
        let begun = Instant::now();
        while got < frames {
            assert!(begun.elapsed() < Duration::from_secs(20), "{sent} sent, {got} received");
            let len = 60 + (sent as usize * 37) % 1400;
            if sent < frames
                && sent - got < 32
                && end.send([0; 12], &[&sent.to_le_bytes()[..], &vec![7; len]].concat())
            {
                sent += 1;
            }
            self.echo();
            while let Some((_, frame)) = end.receive() {
                let len = 60 + (got as usize * 37) % 1400;
                assert_eq!(frame, [&got.to_le_bytes()[..], &vec![7; len]].concat());
                got += 1;
            }
        }
    }
}

#[test]
fn frames_pass_in_both_modes_and_again_after_the_other_end_came_back() {
    for mode in [Mode::Server, Mode::Client] {
        let folder = Folder::new(&format!("{mode:?}"));
        let theirs = (mode == Mode::Client).then(|| UnixListener::bind(folder.socket()).unwrap());
        let mut rig = Rig::new(folder.settings(mode));
        assert!(!rig.port.link().up && rig.port.link().reason.starts_with("disconnected"));
        assert_eq!(rig.echo(), 0);
        for (session, features) in (0..).zip([PLAIN, ALL, 0]) {
            let stream = match &theirs {
                Some(listener) => listener.accept().unwrap().0,
                None => UnixStream::connect(folder.socket()).unwrap(),
            };
            let mut end = End::new(stream, 256, features | PLAIN).unwrap();
            rig.wait_up();
            let peer = rig.port.peer().unwrap();
            assert_eq!((peer.connected, peer.ring, peer.queues_enabled), (true, Some("split"), 1));
            assert!(peer.features.contains(&"version_1") && peer.resets == session);
            let all = Features::VIRTIO;
            assert_eq!(rig.port.features(), if features == ALL { all } else { Features::NONE });
            rig.traffic(&mut end, 2000);
            drop(end);
            wait_until("the link to be down", || !rig.port.link().up);
            // As a client it may have been connected to again.
            let gone =
                Peer { resets: session + 1, connected: rig.port.mode() == "client", ..Peer::default() };
            wait_until("the end to be counted", || rig.port.peer().unwrap() == gone);
            assert!(rig.port.link().reason.starts_with("disconnected"), "{}", rig.port.link().reason);
            assert_eq!(rig.echo(), 0);
        }
        let Rig { port, .. } = rig;
        port.close(Fate::Leave).unwrap();
        assert_eq!(folder.socket().exists(), mode == Mode::Client);
    }
}

#[test]
fn every_worker_reaches_the_pairs_that_the_guest_has_enabled() {
    let folder = Folder::new("pairs");
    let mut rig = Rig::new(Settings { queues: 8, workers: 8, ..folder.settings(Mode::Server) });
    let mut end = End::new(UnixStream::connect(folder.socket()).unwrap(), 64, ALL).unwrap();
    rig.wait_up();
    assert_eq!(rig.others.len(), 7);
    rig.traffic(&mut end, 100);
    while let Some(tx) = rig.others.pop() {
        rig.tx = tx;
        rig.traffic(&mut end, 100);
    }
    end.frontend().set_vring_enable(0, false).unwrap();
    assert!(!rig.port.link().up);
}

#[test]
fn what_workers_send_into_one_ring_is_shown_when_all_before_it_is_released() {
    for features in [PLAIN, PLAIN | PACKED] {
        let folder = Folder::new(&format!("shares-{features:x}"));
        let mut rig = Rig::new(Settings { workers: 2, ..folder.settings(Mode::Server) });
        let mut end = End::new(UnixStream::connect(folder.socket()).unwrap(), 64, features).unwrap();
        rig.wait_up();
        let (mut one, mut two) = (rig.tx, rig.others.remove(0));
        let mut send = |end: &mut End, tx: &mut Box<dyn TxQueue>, frames: u8| {
            (0..frames).for_each(|byte| assert!(end.send([0; 12], &[byte; 60])));
            let mut batch = rig.rx.receive(&mut rig.memory, &mut rig.pool, 64).unwrap();
            let items: Vec<TxItem> = (0..batch.len() as u16).map(TxItem::exclusive).collect();
            let prefixes = Prefixes::default();
            let mut burst = Burst::new(&mut batch, &items, &prefixes, Features::NONE);
            assert_eq!(tx.transmit(&mut burst, &mut rig.pool).sent, u32::from(frames));
            batch.recycle(&mut rig.pool);
            rig.rx.release(&mut rig.pool);
        };
        let shown = |end: &mut End| std::iter::from_fn(|| end.receive()).count();
        for _ in 0..40 {
            // The first to send is the last to be done, then the first.
            send(&mut end, &mut one, 3);
            send(&mut end, &mut two, 2);
            two.flush();
            assert_eq!(shown(&mut end), 0);
            send(&mut end, &mut two, 1);
            one.flush();
            assert_eq!(shown(&mut end), 5);
            send(&mut end, &mut one, 1);
            two.flush();
            assert_eq!(shown(&mut end), 1);
            one.flush();
            assert_eq!(shown(&mut end), 1);
        }
    }
}

#[test]
fn what_is_sent_on_a_ring_that_is_not_enabled_is_thrown_away() {
    for features in [PLAIN, PLAIN | PACKED] {
        let folder = Folder::new(&format!("disabled-{features:x}"));
        let mut rig = Rig::new(folder.settings(Mode::Server));
        let mut end = End::new(UnixStream::connect(folder.socket()).unwrap(), 64, features).unwrap();
        rig.wait_up();
        rig.traffic(&mut end, 100);
        end.frontend().set_vring_enable(1, false).unwrap();
        assert!(!rig.port.link().up);
        // Three rings full.
        let (mut sent, mut thrown) = (0, 0);
        for _ in 0..192 {
            sent += u32::from(end.send([0; 12], &[7; 60]));
            let batch = rig.rx.receive(&mut rig.memory, &mut rig.pool, 64).unwrap();
            thrown += batch.refused().disabled;
            assert_eq!((batch.len(), batch.refused().total()), (0, batch.refused().disabled));
            rig.rx.release(&mut rig.pool);
        }
        assert_eq!((sent, thrown), (192, 192));
        end.frontend().set_vring_enable(1, true).unwrap();
        rig.wait_up();
        rig.traffic(&mut end, 100);
    }
}

#[test]
fn a_client_finds_a_server_that_comes_later() {
    let folder = Folder::new("later");
    let mut rig = Rig::new(folder.settings(Mode::Client));
    wait_until("a reason", || rig.port.link().reason.contains("No such file"));
    let listener = UnixListener::bind(folder.socket()).unwrap();
    let mut end = End::new(listener.accept().unwrap().0, 64, PLAIN).unwrap();
    rig.wait_up();
    rig.traffic(&mut end, 100);
}

#[test]
fn frames_pass_soon_after_the_other_end_is_there() {
    for mode in [Mode::Server, Mode::Client] {
        let folder = Folder::new(&format!("soon-{mode:?}"));
        let mut rig = Rig::new(folder.settings(mode));
        let mut times: Vec<Duration> = Vec::new();
        for _ in 0..5 {
            let begun = Instant::now();
            let stream = match mode {
                Mode::Server => UnixStream::connect(folder.socket()).unwrap(),
                Mode::Client => {
                    let stream = UnixListener::bind(folder.socket()).unwrap().accept().unwrap().0;
                    std::fs::remove_file(folder.socket()).unwrap();
                    stream
                }
            };
            let mut end = End::new(stream, 64, PLAIN).unwrap();
            rig.traffic(&mut end, 1);
            times.push(begun.elapsed());
            drop(end);
            wait_until("the link to be down", || !rig.port.link().up);
        }
        // What is promised; once in a while a test waits for its turn on the CPU.
        times.sort();
        assert!(times[2] < Duration::from_millis(200), "{mode:?}: {times:?}");
    }
}

#[test]
fn a_socket_belongs_to_whom_the_settings_say() {
    use std::os::unix::fs::MetadataExt;
    let folder = Folder::new("owner");
    let group = rustix::process::getgid().as_raw();
    let settings = Settings {
        socket_mode: 0o604,
        socket_group: Some(group.to_string()),
        ..folder.settings(Mode::Server)
    };
    let _open = open(settings).unwrap();
    let metadata = std::fs::metadata(folder.socket()).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.gid()), (0o604, group));
    let nobody = Settings { socket_group: Some("no such group".into()), ..folder.settings(Mode::Server) };
    assert!(open(nobody).map(drop).unwrap_err().to_string().contains("/etc/group"));
    let root = Settings { socket_group: Some("root".into()), ..Folder::new("root").settings(Mode::Client) };
    open(root).map(drop).unwrap();
}

#[test]
fn a_socket_that_is_taken_is_refused_and_a_stale_one_replaced() {
    let folder = Folder::new("taken");
    std::fs::write(folder.socket(), "precious").unwrap();
    let refusal = open(folder.settings(Mode::Server)).map(drop).unwrap_err();
    assert!(matches!(refusal, OpenError::Taken { .. }) && folder.socket().exists(), "{refusal}");
    std::fs::remove_file(folder.socket()).unwrap();
    // A listener that is dropped leaves its file behind.
    drop(UnixListener::bind(folder.socket()).unwrap());
    let first = Rig::new(folder.settings(Mode::Server));
    let refusal = open(folder.settings(Mode::Server)).map(drop).unwrap_err();
    assert!(refusal.to_string().contains("another process listens there"), "{refusal}");
    drop(first);
    Rig::new(folder.settings(Mode::Server));
}

#[test]
fn a_packed_ring_goes_on_after_the_switch_was_away_if_it_is_the_same() {
    let folder = Folder::new("page");
    let pages = PathBuf::from(format!("/dev/shm/vhost-user-{}-page", std::process::id()));
    let settings = || Settings { pages: Some(pages.join("port")), ..folder.settings(Mode::Server) };
    let connect = || UnixStream::connect(folder.socket()).unwrap();
    let mut rig = Rig::new(settings());
    let mut end = End::new(connect(), 64, PLAIN | PACKED).unwrap();
    rig.traffic(&mut end, 100);
    // The other end says each time that its rings begin where they began at first.
    for frames in [1, 64, 100] {
        drop(rig);
        rig = Rig::new(settings());
        end.connect_again(connect()).unwrap();
        rig.traffic(&mut end, frames);
    }
    // Another one has rings of its own.
    drop(end);
    wait_until("the link to be down", || !rig.port.link().up);
    let mut end = End::new(connect(), 64, PLAIN | PACKED).unwrap();
    rig.traffic(&mut end, 100);
    // What has been asked for where a ring stands is told where it is to begin.
    assert!(pages.join("port.0").exists());
    end.frontend().get_vring_base(0).unwrap();
    assert!(!pages.join("port.0").exists() && pages.join("port.1").exists());
    let Rig { port, .. } = rig;
    port.close(Fate::Remove).unwrap();
    assert!(!pages.join("port.1").exists());
    std::fs::remove_dir_all(pages).unwrap();
}

#[test]
fn memory_and_rings_change_under_traffic() {
    let folder = Folder::new("swap");
    let rig = Rig::new(folder.settings(Mode::Server));
    let mut end = End::new(UnixStream::connect(folder.socket()).unwrap(), 64, PLAIN).unwrap();
    rig.wait_up();
    let (worker, swapper) = (std::sync::atomic::AtomicBool::new(true), std::sync::atomic::Ordering::Relaxed);
    let Rig { port, mut rx, mut tx, mut memory, mut pool, .. } = rig;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let prefixes = Prefixes::default();
            while worker.load(swapper) {
                let mut batch = rx.receive(&mut memory, &mut pool, 64).unwrap();
                let items: Vec<TxItem> = (0..batch.len() as u16).map(TxItem::exclusive).collect();
                tx.transmit(&mut Burst::new(&mut batch, &items, &prefixes, Features::NONE), &mut pool);
                batch.recycle(&mut pool);
                rx.release(&mut pool);
                tx.flush();
            }
        });
        let mut got = 0u32;
        for _ in 0..300 {
            for i in 0..16 {
                // A full ring is as good.
                let _ = end.send([0; 12], &[i; 600]);
            }
            end.share().unwrap();
            while let Some((_, frame)) = end.receive() {
                assert!(frame.len() == 600 && frame.iter().all(|byte| *byte == frame[0]));
                got += 1;
            }
        }
        worker.store(false, swapper);
        assert!(got > 100, "hardly a frame came back: {got}");
    });
    assert!(port.link().up, "{}", port.link().reason);
}

#[test]
fn a_broken_ring_ends_the_connection_with_its_reason_and_the_next_is_welcome() {
    let folder = Folder::new("broken");
    let mut rig = Rig::new(folder.settings(Mode::Server));
    let mut end = End::new(UnixStream::connect(folder.socket()).unwrap(), 64, PLAIN).unwrap();
    rig.wait_up();
    let [_, transmit] = end.rings().unwrap();
    transmit.chain(0, &[(0, 60)], NEXT);
    transmit.offer(0);
    wait_until("the ring to be found broken", || {
        rig.echo() == 0 && rig.port.link().reason.starts_with("bad-ring: the guest's transmit ring")
    });
    let mut end = End::new(UnixStream::connect(folder.socket()).unwrap(), 64, PLAIN).unwrap();
    rig.wait_up();
    rig.traffic(&mut end, 100);
}

#[test]
fn messages_that_cannot_be_end_the_connection_with_a_reason() {
    type Attack = (&'static str, fn(&mut End));
    let attacks: [Attack; 3] = [
        ("overflow: ring 2 of a port with 2", |end| {
            let _ = end.frontend().set_vring_num(2, 64);
        }),
        ("were not offered", |end| {
            let _ = end.frontend().set_features(1 << 60);
        }),
        ("disconnected", |end| {
            let _ = end.frontend().reset_owner();
        }),
    ];
    let folder = Folder::new("message");
    let rig = Rig::new(folder.settings(Mode::Server));
    for (reason, attack) in attacks {
        let stream = UnixStream::connect(folder.socket()).unwrap();
        let mut end = End::new(stream, 64, PLAIN).unwrap();
        rig.wait_up();
        attack(&mut end);
        wait_until(reason, || rig.port.link().reason.contains(reason) && !rig.port.link().up);
    }
}

/// A connected front end that uses all of the protocol, and its socket.
fn full_end(rig: &Rig, folder: &Folder) -> (End, UnixStream) {
    let stream = UnixStream::connect(folder.socket()).unwrap();
    let socket = stream.try_clone().unwrap();
    let mut end = End::new(stream, 64, ALL).unwrap();
    let offered = end.frontend().get_protocol_features().unwrap();
    end.frontend().set_protocol_features(offered).unwrap();
    rig.wait_up();
    (end, socket)
}

#[test]
fn the_configuration_of_the_device_can_be_read() {
    let folder = Folder::new("config");
    let rig = Rig::new(Settings { queues: 3, mtu: 9000, ..folder.settings(Mode::Server) });
    let (mut end, _socket) = full_end(&rig, &folder);
    assert_eq!(end.frontend().get_queue_num().unwrap(), 3);
    let flags = VhostUserConfigFlags::empty();
    let (_, config) = end.frontend().get_config(0, 12, flags, &[0; 12]).unwrap();
    assert_eq!(config, [2, 0, 0, 0, 0, 1, 1, 0, 3, 0, 0x28, 0x23]);
    let (_, config) = end.frontend().get_config(8, 100, flags, &[0; 100]).unwrap();
    assert_eq!((config.len(), &config[..5]), (100, &[3, 0, 0x28, 0x23, 0][..]));
}

/// Sends a message that the protocol crate does not know, and gives what it is answered.
fn say(mut socket: &UnixStream, request: u32, body: [u8; 8]) -> u64 {
    let header = [request, 1 | 1 << 3, 8].map(u32::to_ne_bytes).concat();
    std::io::Write::write_all(&mut socket, &[&header[..], &body].concat()).unwrap();
    let mut answer = [0; 20];
    std::io::Read::read_exact(&mut socket, &mut answer).unwrap();
    assert_eq!(answer[..8], [request, 1 | 1 << 2].map(u32::to_ne_bytes).concat());
    u64::from_ne_bytes(answer[12..].try_into().unwrap())
}

#[test]
fn a_guest_may_have_a_smaller_mtu() {
    let folder = Folder::new("mtu");
    let rig = Rig::new(folder.settings(Mode::Server));
    let (end, socket) = full_end(&rig, &folder);
    for (mtu, refused, has) in [(1400u64, 0, 1400), (1501, 1, 1400), (67, 1, 1400), (u64::MAX, 1, 1400)] {
        assert_eq!(say(&socket, 20, mtu.to_ne_bytes()), refused, "{mtu}");
        assert_eq!(rig.port.mtu(), has);
    }
    drop((end, socket));
    wait_until("it is gone", || rig.port.mtu() == 1500);
}

#[test]
fn a_guest_that_moved_is_announced() {
    let folder = Folder::new("rarp");
    let mut rig = Rig::new(folder.settings(Mode::Server));
    let (mut end, socket) = full_end(&rig, &folder);
    rig.traffic(&mut end, 100);
    assert!(!rig.rx.arm());
    assert_eq!(say(&socket, 19, [2, 0, 0, 0, 0, 9, 0, 0]), 0);
    assert!(rig.rx.arm());
    // Comes back to the guest as all does here: from the address, to everybody, RFC 903.
    assert_eq!(rig.echo(), 1);
    let (_, frame) = end.receive().unwrap();
    let address = [2, 0, 0, 0, 0, 9];
    let asked = [&[0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3][..], &address, &[0; 4], &address].concat();
    assert_eq!((frame.len(), &frame[..38]), (60, &[&[0xff; 6][..], &address, &asked].concat()[..]));
    assert_eq!(rig.echo(), 0);
    rig.traffic(&mut end, 100);
}

#[test]
fn regions_of_memory_come_and_go() {
    let folder = Folder::new("regions");
    let mut rig = Rig::new(folder.settings(Mode::Server));
    let (mut end, _socket) = full_end(&rig, &folder);
    assert_eq!(end.frontend().get_max_mem_slots().unwrap(), 32);
    let file = crate::driver::memfd(1 << 20).unwrap();
    let region = |at: u64| vhost_protocol::VhostUserMemoryRegionInfo {
        guest_phys_addr: at << 20,
        memory_size: 1 << 20,
        userspace_addr: at << 20,
        mmap_offset: 0,
        mmap_handle: std::os::fd::AsRawFd::as_raw_fd(&file),
    };
    for at in 1..32 {
        end.frontend().add_mem_region(&region(at)).unwrap();
    }
    rig.traffic(&mut end, 200);
    for at in 1..16 {
        end.frontend().remove_mem_region(&region(at)).unwrap();
    }
    rig.traffic(&mut end, 200);
    assert!(end.frontend().remove_mem_region(&region(1)).is_err());
    wait_until("an end", || rig.port.link().reason.starts_with("bad-message: there is no region"));
    let (mut end, _socket) = full_end(&rig, &folder);
    for at in 1..32 {
        end.frontend().add_mem_region(&region(at)).unwrap();
    }
    assert!(end.frontend().add_mem_region(&region(32)).is_err());
    wait_until("an end", || rig.port.link().reason.starts_with("overflow: 33 memory regions"));
}

#[test]
fn an_inflight_region_is_made_and_taken_back() {
    let folder = Folder::new("inflight");
    let mut rig = Rig::new(folder.settings(Mode::Server));
    let (mut end, socket) = full_end(&rig, &folder);
    let wanted = VhostUserInflight::new(0, 0, 2, 64);
    let (region, file) = end.frontend().get_inflight_fd(&wanted).unwrap();
    assert_eq!(file.metadata().unwrap().len(), region.mmap_size);
    let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
    end.frontend().set_inflight_fd(&region, fd).unwrap();
    rig.traffic(&mut end, 100);
    drop((end, socket));
    for (queues, size, bytes, reason) in [
        (3, 64, u64::MAX, "overflow: "),
        (2, 32_769, u64::MAX, "overflow: "),
        (2, 64, 64, "bad-message: an inflight"),
    ] {
        let (mut end, _socket) = full_end(&rig, &folder);
        let region = VhostUserInflight::new(bytes, 0, queues, size);
        assert!(end.frontend().set_inflight_fd(&region, fd).is_err());
        wait_until(reason, || rig.port.link().reason.starts_with(reason));
    }
}

/// The bits of a log, as far as pages of a front end's memory have them.
fn logged(log: &std::fs::File, pages: u64) -> Vec<bool> {
    let first = GUEST / 4096;
    let mut bytes = vec![0; (pages / 8 + 1) as usize];
    std::os::unix::fs::FileExt::read_exact_at(log, &mut bytes, first / 8).unwrap();
    (0..pages).map(|page| bytes[(page / 8) as usize] >> (page % 8) & 1 != 0).collect()
}

#[test]
fn pages_that_are_written_while_a_guest_moves_are_noted() {
    for (name, features) in [("split", ALL), ("packed", u64::MAX)] {
        let folder = Folder::new(&format!("log-{name}"));
        let mut rig = Rig::new(folder.settings(Mode::Server));
        let stream = UnixStream::connect(folder.socket()).unwrap();
        let mut end = End::new(stream, 64, features & !LOG_ALL).unwrap();
        let protocol = end.frontend().get_protocol_features().unwrap();
        end.frontend().set_protocol_features(protocol).unwrap();
        rig.wait_up();
        assert_eq!(rig.port.peer().unwrap().ring, Some(name));
        rig.traffic(&mut end, 100);

        let bytes = end.memory().region().1.bytes;
        let log = crate::driver::memfd((GUEST + bytes) / 4096 / 8 + 1).unwrap();
        let region = vhost_protocol::VhostUserDirtyLogRegion {
            mmap_size: log.metadata().unwrap().len(),
            mmap_offset: 0,
            mmap_handle: std::os::fd::AsRawFd::as_raw_fd(&log),
        };
        let used = end.features();
        end.frontend().set_log_base(0, Some(region)).unwrap();
        rig.traffic(&mut end, 100);
        assert!(!logged(&log, bytes / 4096).contains(&true), "nobody has asked yet");
        end.frontend().set_features(used | LOG_ALL).unwrap();
        // The used ring is noted for who asks for it, by the address that he gives: here, as it is.
        let layouts = end.pair(0).unwrap().map(|queue| queue.ring().layout());
        let noted = |log: &std::fs::File, layout: &Layout| {
            logged(log, bytes / 4096)[((layout.used - USER) / 4096) as usize]
        };
        rig.traffic(&mut end, 100);
        // The descriptors of a packed ring, which are beside, are written and always noted.
        assert!(layouts.iter().all(|layout| noted(&log, layout) == (name == "packed")), "{name}");
        for (index, layout) in layouts.iter().enumerate() {
            let addresses = vhost_protocol::VringConfigData {
                queue_max_size: 64,
                queue_size: 64,
                flags: 1,
                desc_table_addr: layout.descriptors,
                used_ring_addr: layout.used,
                avail_ring_addr: layout.available,
                log_addr: Some(layout.used - USER + GUEST),
            };
            end.frontend().set_vring_addr(index, &addresses).unwrap();
        }

        let contents = |end: &End| {
            let mut contents = vec![0; bytes as usize];
            end.memory().read(0, &mut contents).unwrap();
            contents
        };
        let before = contents(&end);
        rig.traffic(&mut end, 300);
        let after = contents(&end);
        let bits = logged(&log, bytes / 4096);
        // The other pages the driver has written itself: its frames, what it made available.
        let mut written = Vec::new();
        let [receive, transmit] = end.pair(0).unwrap();
        for queue in [&mut *receive, transmit] {
            written.push(queue.ring().layout().used - USER..queue.ring().layout().used - USER + 4);
            if name == "packed" {
                let at = queue.ring().layout().descriptors - USER;
                written.push(at..at + 64 * 16);
            } else {
                let at = queue.ring().layout().used - USER;
                written.push(at..at + 6 + 64 * 8);
            }
        }
        written.extend((0..64).map(|id| receive.buffer(id)..receive.buffer(id) + 2048));
        let mut changed = 0;
        for place in written.into_iter().flat_map(|range| range.start as usize..range.end as usize) {
            if before[place] != after[place] {
                changed += 1;
                assert!(bits[place / 4096], "{name}: {place:#x} was written and is not noted");
            }
        }
        assert!(changed > 10_000, "hardly anything was written: {changed}");
        let noted = bits.iter().filter(|bit| **bit).count();
        // The frames that the driver sends are only read.
        assert!(noted < bits.len() * 2 / 3, "{noted} of {} pages", bits.len());

        end.frontend().set_features(used).unwrap();
        log.set_len(0).unwrap();
        rig.traffic(&mut end, 100);
        assert!(rig.port.link().up);
    }
}

#[test]
fn a_log_that_cannot_be_is_refused_and_one_that_is_too_short_ignored() {
    let folder = Folder::new("no-log");
    let mut rig = Rig::new(folder.settings(Mode::Server));
    let file = crate::driver::memfd(4096).unwrap();
    let log = |mmap_size, mmap_offset| vhost_protocol::VhostUserDirtyLogRegion {
        mmap_size,
        mmap_offset,
        mmap_handle: std::os::fd::AsRawFd::as_raw_fd(&file),
    };
    for (bytes, offset) in [(4097, 0), (4096, 1), (1, 4096), (u64::MAX / 2, u64::MAX / 2)] {
        let (mut end, _socket) = full_end(&rig, &folder);
        assert!(end.frontend().set_log_base(0, Some(log(bytes, offset))).is_err());
        wait_until("an end", || rig.port.link().reason.contains(": the log: "));
    }
    let (mut end, _socket) = full_end(&rig, &folder);
    end.frontend().set_log_base(0, Some(log(4096, 0))).unwrap();
    rig.traffic(&mut end, 200);
}

#[test]
fn nothing_holds_up_the_end_of_a_port() {
    let folder = Folder::new("end");
    // Half a message, and silence.
    let rig = Rig::new(folder.settings(Mode::Server));
    let mut stream = UnixStream::connect(folder.socket()).unwrap();
    std::io::Write::write_all(&mut stream, &[1, 0, 0]).unwrap();
    wait_until("the connection", || rig.port.link().reason.contains("not started"));
    let begun = Instant::now();
    drop(rig);
    // A server that does not accept, its queue full.
    let server =
        rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&server, &rustix::net::SocketAddrUnix::new(folder.socket()).unwrap()).unwrap();
    rustix::net::listen(&server, 0).unwrap();
    let _queued = UnixStream::connect(folder.socket()).unwrap();
    let rig = Rig::new(folder.settings(Mode::Client));
    wait_until("a reason", || rig.port.link().reason.contains("unavailable"));
    drop(rig);
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_sleeping_worker_is_woken_by_a_kick_and_by_a_new_ring() {
    let folder = Folder::new("sleep");
    let mut rig = Rig::new(folder.settings(Mode::Server));
    let readable = |rig: &Rig| {
        let Source::Ring(fd) = rig.rx.source() else { panic!("a ring has a descriptor") };
        let mut fds = [rustix::event::PollFd::from_borrowed_fd(fd, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut fds, Some(&Default::default())).unwrap() > 0
    };
    assert!(!rig.rx.arm() && !readable(&rig));
    let mut end = End::new(UnixStream::connect(folder.socket()).unwrap(), 64, PLAIN).unwrap();
    rig.wait_up();
    assert!(readable(&rig));
    rig.echo();
    // Silent as long as it is asked.
    assert!(end.send([0; 12], &[7; 60]) && rig.echo() == 1 && !rig.rx.arm() && !readable(&rig));
    assert!(end.send([0; 12], &[7; 60]) && readable(&rig));
    assert_eq!(rig.echo(), 1);
    assert!(end.send([0; 12], &[7; 60]) && rig.rx.arm(), "a frame came before it slept");
}

#[test]
fn a_guest_is_called_once_by_a_descriptor_that_is_new() {
    let folder = Folder::new("called");
    let mut rig = Rig::new(folder.settings(Mode::Server));
    let mut end = End::new(UnixStream::connect(folder.socket()).unwrap(), 64, PLAIN).unwrap();
    rig.wait_up();
    // Neither ring wants calls, and both have what they were owed.
    rig.traffic(&mut end, 10);
    for ring in [0, 1] {
        let call = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        end.frontend().set_vring_call(ring, &call).unwrap();
        wait_until("a call", || call.read().is_ok_and(|calls| calls == 1));
    }
}

#[test]
fn a_ring_that_is_enabled_before_its_time_is_answered_for_who_wants_an_answer() {
    use std::io::{Read, Write};
    let folder = Folder::new("early");
    let _rig = Rig::new(folder.settings(Mode::Server));
    let mut stream = UnixStream::connect(folder.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let message = |words: [u32; 5]| words.map(u32::to_ne_bytes).concat();
    // SET_VRING_ENABLE of ring 0, version 1; the second asks for an answer.
    stream.write_all(&message([18, 0b0001, 8, 0, 1])).unwrap();
    stream.write_all(&message([18, 0b1001, 8, 1, 1])).unwrap();
    let mut answer = [0; 20];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..], message([18, 0b0101, 8, 0, 0]));
}

#[test]
fn who_connects_again_at_once_when_a_port_ends_finds_nobody() {
    use std::io::Read;
    for round in 0..20 {
        let folder = Folder::new(&format!("again-{round}"));
        let rig = Rig::new(folder.settings(Mode::Server));
        let mut stream = UnixStream::connect(folder.socket()).unwrap();
        wait_until("the connection", || rig.port.link().reason.contains("not started"));
        let socket = folder.socket();
        let again = std::thread::spawn(move || {
            while stream.read(&mut [0; 64]).is_ok_and(|bytes| bytes > 0) {}
            UnixStream::connect(socket)
        });
        drop(rig);
        assert!(again.join().unwrap().is_err(), "a port that ended took a connection");
    }
}

#[test]
fn half_a_message_holds_the_session_up_for_a_moment_only() {
    let folder = Folder::new("half");
    let mut rig = Rig::new(folder.settings(Mode::Server));
    let mut stalling = UnixStream::connect(folder.socket()).unwrap();
    stalling.write_all(&[1, 0, 0]).unwrap();
    wait_until("the half message to be given up", || rig.port.link().reason.starts_with("bad-message"));
    let mut end = End::new(UnixStream::connect(folder.socket()).unwrap(), 64, PLAIN).unwrap();
    rig.wait_up();
    rig.traffic(&mut end, 10);
}

use super::*;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder that is gone when the test is over.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("vswitch-state-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn dir(&self) -> PathBuf {
        self.0.join("state")
    }

    fn store(&self) -> Store {
        Store::open(&self.dir()).unwrap()
    }

    fn current(&self) -> PathBuf {
        self.dir().join(CURRENT)
    }

    fn write_config(&self, text: &str) -> PathBuf {
        let path = self.0.join("vswitch.toml");
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn bridges(names: &str) -> Config {
    let text: String = names.chars().map(|name| format!("[[bridge]]\nname = \"{name}\"\n")).collect();
    Config::parse(&text, "").unwrap()
}

fn names(config: &Config) -> String {
    config.bridges.iter().map(|bridge| bridge.name.as_str()).collect()
}

/// Starts as the daemon does, and says with which bridges and from where.
fn start(folder: &Folder, file: Option<&Path>) -> (String, ConfigSource, bool) {
    let mut store = folder.store();
    let start = store.load(file).unwrap();
    assert!(start.notes.is_empty());
    if start.unsaved {
        store.save(&start.config, start.origin).unwrap();
    }
    (names(&start.config), start.source, start.origin.edited)
}

#[test]
fn the_file_holds_when_it_is_new_and_the_state_otherwise() {
    let folder = Folder::new();
    assert_eq!(start(&folder, None), (String::new(), ConfigSource::Empty, false));
    let file = folder.write_config("[[bridge]]\nname = \"a\"\n");
    assert_eq!(start(&folder, Some(&file)), ("a".into(), ConfigSource::File, false));
    assert_eq!(start(&folder, Some(&file)), ("a".into(), ConfigSource::Stored, false));

    let mut store = folder.store();
    let origin = store.load(Some(&file)).unwrap().origin;
    store.save(&bridges("ab"), origin.after_edit()).unwrap();
    drop(store);
    assert_eq!(start(&folder, Some(&file)), ("ab".into(), ConfigSource::Stored, true));
    assert_eq!(start(&folder, None), ("ab".into(), ConfigSource::Stored, true));

    let file = folder.write_config("[[bridge]]\nname = \"c\"\n");
    assert_eq!(start(&folder, Some(&file)), ("c".into(), ConfigSource::File, false));
    assert_eq!(start(&folder, Some(&file)), ("c".into(), ConfigSource::Stored, false));
}

#[test]
fn a_file_that_was_applied_by_hand_is_not_applied_again() {
    let folder = Folder::new();
    let file = folder.write_config("[[bridge]]\nname = \"a\"\n");
    start(&folder, Some(&file));
    let text = "[[bridge]]\nname = \"b\"\n";
    let mut store = folder.store();
    let origin = store.load(Some(&file)).unwrap().origin.after_apply(text.as_bytes());
    store.save(&bridges("b"), origin).unwrap();
    store.save(&bridges("bx"), origin.after_edit()).unwrap();
    drop(store);
    // The old file is no news, and neither is the one that was applied; going back to the old one is.
    assert_eq!(start(&folder, Some(&file)), ("bx".into(), ConfigSource::Stored, true));
    folder.write_config(text);
    assert_eq!(start(&folder, Some(&file)), ("bx".into(), ConfigSource::Stored, true));
    folder.write_config("[[bridge]]\nname = \"a\"\n");
    assert_eq!(start(&folder, Some(&file)), ("a".into(), ConfigSource::File, false));
}

#[test]
fn cut_or_flipped_anywhere_the_last_good_state_is_used_and_the_log_says_so() {
    let folder = Folder::new();
    let mut store = folder.store();
    store.save(&bridges("a"), Origin::file(Digest::of(b"x"))).unwrap();
    store.save(&bridges("ab"), Origin::file(Digest::of(b"x")).after_edit()).unwrap();
    let good = fs::read(folder.current()).unwrap();
    let damaged = (0..good.len()).map(|cut| good[..cut].to_vec()).chain((0..good.len() * 8).map(|bit| {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    }));
    for (number, bytes) in damaged.enumerate() {
        assert!(Stored::decode(&bytes, "").is_err(), "{}", String::from_utf8_lossy(&bytes));
        if number % 67 != 0 {
            continue;
        }
        fs::write(folder.current(), &bytes).unwrap();
        let start = store.load(None).unwrap();
        assert_eq!(names(&start.config), "a", "{}", String::from_utf8_lossy(&bytes));
        let [note] = &start.notes[..] else { panic!("{:?}", start.notes) };
        assert!(note.contains("state.toml: line ") && note.ends_with("state.toml.previous"), "{note}");
        // The damaged file must not become the previous one.
        assert!(start.unsaved);
        store.current = None;
    }
    store.save(&bridges("a"), Origin::default()).unwrap();
    assert_eq!(names(&store.previous().unwrap().unwrap()), "a");
}

#[test]
fn damaged_and_alone_it_is_refused_with_the_line() {
    let folder = Folder::new();
    let mut store = folder.store();
    store.save(&bridges("ab"), Origin::default()).unwrap();
    let good = fs::read_to_string(folder.current()).unwrap();
    for cut in 0..good.len() {
        fs::write(folder.current(), &good[..cut]).unwrap();
        let error = store.load(None).unwrap_err();
        let line = good[..cut].matches('\n').count() + 1;
        let StateError::Damaged { line: said, reason, .. } = &error else { panic!("{error:?}") };
        assert_eq!(*said as usize, line, "{reason}");
        assert!(error.to_string().contains(&format!("state.toml:{line}: the file ")), "{error}");
    }
    fs::write(folder.current(), good.replace("name = \"b\"", "nome = \"b\"")).unwrap();
    let text = store.load(None).unwrap_err().to_string();
    assert!(text.contains("state.toml:5: the checksum in line 1 does not match"), "{text}");
    fs::write(folder.current(), good.replace("state 1,", "state 2,")).unwrap();
    let text = store.load(None).unwrap_err().to_string();
    assert!(text.contains("state.toml:1: the state has version 2"), "{text}");
}

#[test]
fn a_state_that_was_never_committed_is_never_seen() {
    let folder = Folder::new();
    let mut store = folder.store();
    store.save(&bridges("a"), Origin::default()).unwrap();
    let pending = store.prepare(&bridges("ab"), Origin::default()).unwrap();
    // As after a power failure between the halves.
    assert_eq!(names(&store.load(None).unwrap().config), "a");
    drop(pending);
    assert!(!folder.dir().join(NEW).exists());
    fs::write(folder.dir().join(NEW), "left over").unwrap();
    let pending = store.prepare(&bridges("abc"), Origin::default()).unwrap();
    store.commit(pending).unwrap();
    assert_eq!(names(&store.load(None).unwrap().config), "abc");
    assert_eq!(names(&store.previous().unwrap().unwrap()), "a");
    // A missing one, as between two renames of something else, is not an empty directory.
    fs::remove_file(folder.current()).unwrap();
    let start = store.load(None).unwrap();
    assert_eq!((names(&start.config).as_str(), start.notes.len()), ("a", 1));
}

#[test]
fn a_wrong_file_is_refused_with_every_mistake() {
    let folder = Folder::new();
    let file = folder.write_config("[[bridge]]\nnome = \"a\"\n[[port]]\nname = 7\n");
    let text = folder.store().load(Some(&file)).unwrap_err().to_string();
    assert!(text.lines().count() >= 3, "{text}");
    assert!(text.contains("vswitch.toml:2:1: ") && text.contains("vswitch.toml:4:8: "), "{text}");
    let text = folder.store().load(Some(&folder.0.join("absent"))).unwrap_err().to_string();
    assert!(text.contains("absent: No such file") && text.contains("--config"), "{text}");
}

#[test]
fn a_second_daemon_is_kept_out() {
    let folder = Folder::new();
    let first = folder.store();
    let text = Store::open(&folder.dir()).unwrap_err().to_string();
    assert!(
        text.contains(&format!("(process {})", std::process::id())) && text.contains("--state-dir"),
        "{text}"
    );
    drop(first);
    Store::open(&folder.dir()).unwrap();
}

/// Runs the test again in a mount namespace of its own, with a small file system at `FULL_DISK`.
const FULL_DISK: &str = "VSWITCH_TEST_FULL_DISK";

#[test]
fn a_full_or_read_only_disk_changes_nothing_and_is_named() {
    let Some(mount) = std::env::var_os(FULL_DISK).map(PathBuf::from) else {
        let folder = Folder::new();
        let child = Command::new("unshare")
            .arg("--mount")
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "config::state::tests::a_full_or_read_only_disk_changes_nothing_and_is_named"])
            .args(["--nocapture", "--test-threads=1"])
            .env(FULL_DISK, &folder.0)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout) + String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success() && said.contains("1 passed"), "{said}");
        return;
    };
    let run = |command: &str| {
        let status = Command::new("sh").args(["-c", command]).env("AT", &mount).status().unwrap();
        assert!(status.success(), "{command}");
    };
    run("mount -t tmpfs -o size=64k tmpfs $AT");
    let dir = mount.join("state");
    let mut store = Store::open(&dir).unwrap();
    store.save(&bridges("a"), Origin::default()).unwrap();
    let before = fs::read(dir.join(CURRENT)).unwrap();

    run("dd if=/dev/zero of=$AT/filler bs=1k 2>/dev/null; true");
    let error = store.save(&bridges("ab"), Origin::default()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("No space left on device") && text.contains("free some space"), "{text}");
    let api = ApiError::from(error);
    assert!(api.message.contains("nothing was changed") && api.data.fix.unwrap().contains("free some space"));
    assert_eq!(fs::read(dir.join(CURRENT)).unwrap(), before);
    assert!(!dir.join(NEW).exists());
    assert_eq!(names(&store.load(None).unwrap().config), "a");

    // A second mount, as the lock is open for writing in the first.
    run("rm $AT/filler; mount --bind $AT $AT; mount -o remount,bind,ro $AT");
    let text = store.save(&bridges("ab"), Origin::default()).unwrap_err().to_string();
    assert!(text.contains("Read-only file system") && text.contains("--state-dir"), "{text}");
    assert_eq!(names(&store.load(None).unwrap().config), "a");
    run("mount -o remount,bind,rw $AT");
    store.save(&bridges("ab"), Origin::default()).unwrap();
}

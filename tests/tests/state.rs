//! The stored state, cut at any byte: the last good one is loaded, or it is refused with the line.

use std::fs;
use std::path::PathBuf;

use vswitch_tests::cases::{scaled, shuffled};
use vswitch_tests::{Daemon, Lab};

/// The files in the state folder with what is in them.
fn files(daemon: &Daemon) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(daemon.state_folder()).expect("there is a state folder");
    let read =
        |path: PathBuf| path.is_file().then(|| (path.clone(), fs::read(&path).expect("it can be read")));
    entries.filter_map(|entry| read(entry.expect("it can be listed").path())).collect()
}

#[test]
fn cut_at_any_byte_it_is_the_last_good_state_or_a_refusal_with_the_line() {
    let lab = Lab::new("state");
    let configuration = |bridges: &[&str]| {
        let table = |name: &&str| format!("[[bridge]]\nname = \"{name}\"\n");
        bridges.iter().map(table).collect::<String>()
    };
    let mut daemon = lab.start(&configuration(&["first"]));
    for bridges in [&["first", "second"][..], &["first", "second", "third"]] {
        let path = lab.write("edit.toml", &configuration(bridges));
        daemon.ctl().json(&["apply", &path]);
    }
    daemon.stop();
    let whole = files(&daemon);
    assert!(!whole.is_empty(), "nothing is stored");
    let cuts =
        whole.iter().enumerate().flat_map(|(file, (_, bytes))| (0..bytes.len()).map(move |cut| (file, cut)));
    let cuts = shuffled(4, cuts.collect());
    let count = usize::try_from(scaled(60, u64::MAX)).unwrap_or(usize::MAX).min(cuts.len());
    let (mut loaded, mut refused) = (0, 0);
    for &(file, cut) in &cuts[..count] {
        for (number, (path, bytes)) in whole.iter().enumerate() {
            let kept = if number == file { cut } else { bytes.len() };
            fs::write(path, &bytes[..kept]).expect("it can be written");
        }
        let name = whole[file].0.display();
        let text = fs::read_to_string(daemon.configuration()).expect("it can be read");
        match Daemon::attempt(&lab.host, lab.folder(), &text, &[]) {
            Ok(mut started) => {
                let mut bridges: Vec<String> = started
                    .ctl()
                    .rows(&["bridge", "list"])
                    .iter()
                    .map(|row| row["name"].to_string())
                    .collect();
                bridges.sort();
                let good = [
                    &["\"first\""][..],
                    &["\"first\"", "\"second\""],
                    &["\"first\"", "\"second\"", "\"third\""],
                ];
                assert!(
                    good.iter().any(|state| *state == bridges),
                    "{name} cut at {cut} came up as {bridges:?}"
                );
                started.stop();
                loaded += 1;
            }
            Err(failure) => {
                assert!(
                    failure.contains("line") || failure.contains(":1:"),
                    "{name} cut at {cut}: {failure}"
                );
                assert!(!failure.contains("panicked"), "{name} cut at {cut}: {failure}");
                refused += 1;
            }
        }
    }
    println!("{count} cuts: {loaded} loaded, {refused} refused");
}

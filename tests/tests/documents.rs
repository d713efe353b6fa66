//! The documents name only what is there: every file, every item of the code, every link; and the README's set-up is
//! two commands.

use std::fs;
use std::path::{Path, PathBuf};

use vswitch_tests::binaries::workspace;

/// Documents whose links are followed.
const DOCUMENTS: [&str; 5] =
    ["README.md", "ARCHITECTURE.md", "control/API.md", "docs/drops.md", "docs/vhost-user.md"];

/// The crates whose modules ARCHITECTURE.md maps, and that a path of the code may begin with.
const CRATES: [&str; 4] = ["pmd", "vhost", "vswitch", "control"];

/// The crate that a path is of if it does not say one.
const DEFAULT: &str = "vswitch";

fn read(path: impl AsRef<Path>) -> String {
    let path = workspace().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The text of a section: from its heading to the next one of the same level.
fn section<'a>(document: &'a str, heading: &str) -> &'a str {
    let start = document.find(&format!("\n{heading}")).unwrap_or_else(|| panic!("no section {heading:?}"));
    let rest = &document[start + 1..];
    let level = heading.split(' ').next().expect("hashes").len();
    let ends = |line: &str| {
        let hashes = line.len() - line.trim_start_matches('#').len();
        (1..=level).contains(&hashes)
    };
    let mut end = rest.find('\n').map_or(rest.len(), |end| end + 1);
    for line in rest[end..].split_inclusive('\n') {
        if ends(line) {
            break;
        }
        end += line.len();
    }
    &rest[..end]
}

/// Words in `code` quotes outside of fenced blocks, each with the crate whose section it stands in.
fn quoted(document: &str) -> Vec<(Option<&'static str>, String)> {
    let (mut words, mut place, mut fenced) = (Vec::new(), None, false);
    for line in document.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            continue;
        } else if let Some(heading) = line.strip_prefix('#') {
            place = CRATES.into_iter().find(|name| heading.contains(&format!("`{name}`")));
        }
        if !fenced {
            words.extend(line.split('`').skip(1).step_by(2).map(|word| (place, word.to_owned())));
        }
    }
    words
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Whether a quoted word is a path of this repository: made of letters that paths are made of, with a slash or an
/// ending that files here have.
fn is_path(word: &str) -> bool {
    let endings = [".rs", ".md", ".c", ".toml", ".bash"];
    let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c));
    plain && !word.starts_with('/') && (word.contains('/') || endings.iter().any(|end| word.ends_with(end)))
}

/// The module that the first segments of a path lead to (a file, or a folder with all its files), and the segments
/// that are left.
fn module<'a>(segments: &'a [&'a str]) -> (PathBuf, &'a [&'a str]) {
    let (name, mut rest) = match segments {
        [first, rest @ ..] if CRATES.contains(first) => (*first, rest),
        _ => (DEFAULT, segments),
    };
    let mut place = workspace().join(name).join("src");
    while let [first, after @ ..] = rest {
        if place.join(first).is_dir() {
            place.push(first);
        } else if place.join(format!("{first}.rs")).is_file() {
            place.push(format!("{first}.rs"));
        } else {
            break;
        }
        rest = after;
    }
    (place, rest)
}

/// The texts of a module: of its file, or of all files of its folder and the file beside it.
fn texts(place: &Path) -> Vec<String> {
    let mut texts = Vec::new();
    if place.is_file() {
        texts.push(read(place));
    } else {
        let beside = place.with_extension("rs");
        texts.extend(beside.is_file().then(|| read(beside)));
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() || path.extension().is_some_and(|end| end == "rs") {
                texts.extend(self::texts(&path));
            }
        }
    }
    texts
}

/// Whether a text defines an item, a method or a variant of this name.
fn defines(text: &str, name: &str) -> bool {
    let kinds = ["fn", "struct", "enum", "trait", "const", "static", "type", "mod", "union"];
    let starts = |rest: &str, ends: &str| {
        rest.strip_prefix(name)
            .is_some_and(|after| after.is_empty() || after.starts_with(|c| ends.contains(c)))
    };
    text.lines().any(|line| {
        let line = line.trim();
        kinds.iter().any(|kind| {
            line.split_once(&format!("{kind} ")).is_some_and(|(before, rest)| {
                (before.is_empty() || before.ends_with([' ', ')'])) && starts(rest, "(<{:; ")
            })
        }) || starts(line, ",({ ") && line.ends_with([',', '{'])
    })
}

#[test]
fn every_file_that_the_architecture_names_exists() {
    let document = read("ARCHITECTURE.md");
    let mut paths = 0;
    for (place, word) in quoted(&document) {
        if !is_path(&word) {
            continue;
        }
        let here = place.map(|name| workspace().join(name).join("src").join(&word));
        let found = workspace().join(&word).exists() || here.is_some_and(|path| path.exists());
        assert!(found, "ARCHITECTURE.md names {word}, which does not exist");
        paths += 1;
    }
    assert!(paths > 80, "only {paths} paths were recognised");
}

#[test]
fn every_item_that_the_architecture_names_is_defined() {
    let document = read("ARCHITECTURE.md");
    let mut items = 0;
    for (_, word) in quoted(&document) {
        let segments: Vec<&str> = word.split("::").collect();
        if segments.len() < 2 || !segments.iter().all(|segment| is_word(segment)) {
            continue;
        }
        let (place, rest) = module(&segments);
        let defined = texts(&place).iter().any(|text| rest.iter().all(|name| defines(text, name)));
        assert!(defined, "ARCHITECTURE.md names {word}: {rest:?} is not in {}", place.display());
        items += 1;
    }
    assert!(items > 40, "only {items} items were recognised");
}

#[test]
fn the_code_map_names_every_module() {
    let document = read("ARCHITECTURE.md");
    for name in CRATES {
        let map = section(&document, &format!("### `{name}`"));
        for entry in fs::read_dir(workspace().join(name).join("src")).expect("a crate has a src").flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            // A folder, or the file of a module that has one: `worker/`, `flow/cache.rs`.
            let folder = format!("`{}/`", file.trim_end_matches(".rs"));
            let named = map.contains(&format!("`{file}`")) || map.contains(&folder);
            let programs = file == "bin" && map.contains("`bin/");
            assert!(
                named || programs || file == "lib.rs",
                "the code map of {name} does not name {file}: say in ARCHITECTURE.md what it is"
            );
        }
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    for document in DOCUMENTS {
        let text = read(document);
        let folder = workspace().join(document).parent().expect("a folder").to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            if file.contains("://") {
                continue;
            }
            assert!(folder.join(file).exists(), "{document} links to {link}, which does not exist");
            if anchor.is_empty() {
                continue;
            }
            let target = if file.is_empty() { text.clone() } else { read(folder.join(file)) };
            let found = target.lines().any(|line| line.starts_with('#') && slug(line) == anchor);
            assert!(found, "{document}: no section {link}");
        }
    }
}

/// A heading as the address of its section.
fn slug(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn the_set_up_is_two_commands() {
    let document = read("README.md");
    let set_up = section(&document, "## Set-up");
    let commands: Vec<&str> = set_up
        .split("```")
        .skip(1)
        .step_by(2)
        .flat_map(|block| block.lines().skip(1))
        .filter(|line| !line.trim().is_empty())
        .collect();
    assert_eq!(commands, ["scripts/demo", "scripts/test"]);
}

//! docs/drops.md and the code say the same of every drop reason.

use vswitch::telemetry::drops::DropReason;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/drops.md");

/// What the list should be: one row a reason, in the order of the code.
fn table() -> String {
    let rows: String =
        DropReason::all().map(|reason| format!("| `{}` | {} |\n", reason.name(), reason.text())).collect();
    format!("| reason | meaning |\n|---|---|\n{rows}")
}

#[test]
fn the_list_of_drop_reasons_is_that_of_the_code() {
    let document = std::fs::read_to_string(PATH).expect("docs/drops.md can be read");
    let start = document.find("| reason |").expect("docs/drops.md has a table");
    assert!(document[start..] == table(), "the table of docs/drops.md should be:\n\n{}", table());
}

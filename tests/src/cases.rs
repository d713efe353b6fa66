//! Long tables of cases, and the tenth of them that a normal run takes.

use std::env;

use crate::probe::pattern::Pattern;

/// Whether this is a full run (`scripts/test --full`).
pub fn full() -> bool {
    env::var("VSWITCH_TEST_FULL").is_ok_and(|value| value == "1")
}

/// `normal`, or `long` in a full run.
pub fn scaled(normal: u64, long: u64) -> u64 {
    if full() { long } else { normal }
}

/// Puts a table into an order that depends on the seed only.
pub fn shuffled<T>(seed: u64, mut table: Vec<T>) -> Vec<T> {
    let mut pattern = Pattern::new(seed);
    for end in (1..table.len()).rev() {
        table.swap(end, pattern.below(end as u64 + 1) as usize);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::shuffled;

    #[test]
    fn a_shuffled_table_keeps_its_rows_and_its_order_from_run_to_run() {
        let table: Vec<u32> = (0..50).collect();
        let first = shuffled(1, table.clone());
        assert_eq!(first, shuffled(1, table.clone()));
        assert_ne!(first, table);
        let mut sorted = first;
        sorted.sort_unstable();
        assert_eq!(sorted, table);
    }
}

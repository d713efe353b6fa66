//! Huge pages under tables that are looked into at random.
//!
//! A table of megabytes in pages of 4 KB costs a walk of the page tables for nearly every look. The kernel is asked to
//! put memory that is there already into huge pages (`MADV_COLLAPSE`, madvise(2), since Linux 6.1); where it cannot,
//! nothing changes but the speed.
#![allow(unsafe_code)]

/// Bytes of a huge page.
const HUGE: usize = 2 << 20;

/// Asks for huge pages under the memory of a table; its contents stay. False if there are none for all of it, or it is
/// too small for one.
pub fn collapse<T>(table: &[T]) -> bool {
    let range = table.as_ptr_range();
    let (start, end) = ((range.start as usize).next_multiple_of(HUGE), range.end as usize / HUGE * HUGE);
    if start >= end {
        return false;
    }
    // SAFETY: whole pages within the table, whose bytes the call neither changes nor moves to another address.
    unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_COLLAPSE) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_a_table_stays() {
        let table: Vec<u64> = (0..1 << 20).collect();
        collapse(&table);
        assert!(table.iter().copied().eq(0..1 << 20));
        assert!(!collapse(&[1u8]) && !collapse::<u64>(&[]));
    }
}

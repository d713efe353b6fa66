//! Long lists, a page at a time.

/// The page that begins behind the row with the key `after`, out of all rows in any order; with the key to go on
/// behind, if there is more.
pub(super) fn cut<R, K: Ord>(
    mut rows: Vec<R>,
    longest: usize,
    key: impl Fn(&R) -> K,
    after: Option<&K>,
) -> (Vec<R>, Option<K>) {
    rows.retain(|row| after.is_none_or(|after| key(row) > *after));
    rows.sort_by_cached_key(&key);
    let more = rows.len() > longest;
    rows.truncate(longest);
    let next = rows.last().filter(|_| more).map(key);
    (rows, next)
}

//! Placement: which CPUs workers run on, and which worker serves which rx queue.

use control::schema::WorkerPlacement;

use super::workers::WorkerError;

/// The CPUs of the workers: as configured; or each isolated one that this process may use; or the last one.
pub fn cpus(placement: &WorkerPlacement) -> Result<Vec<u16>, WorkerError> {
    let allowed: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
    match placement {
        WorkerPlacement::Cpus(cpus) => {
            if let Some(&cpu) = cpus.iter().find(|cpu| !allowed.contains(&usize::from(**cpu))) {
                return Err(WorkerError::Cpu { cpu, allowed });
            }
            Ok(cpus.clone())
        }
        WorkerPlacement::Auto => {
            let text = std::fs::read_to_string("/sys/devices/system/cpu/isolated").unwrap_or_default();
            let isolated: Vec<u16> =
                cpu_list(&text).into_iter().filter(|cpu| allowed.contains(&usize::from(*cpu))).collect();
            if !isolated.is_empty() {
                return Ok(isolated);
            }
            Ok(vec![allowed.last().map_or(0, |cpu| *cpu as u16)])
        }
    }
}

/// Reads the kernel's list format: `2-5,8` (Documentation/admin-guide/cputopology.rst). What is not
/// understood is left out.
fn cpu_list(text: &str) -> Vec<u16> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) {
            cpus.extend(first..=last);
        }
    }
    cpus
}

/// What is known of one rx queue for placing it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placed<K> {
    /// Whose it is.
    pub key: K,
    /// The worker that serves it.
    pub worker: usize,
    /// What it costs: any unit.
    pub load: f64,
    /// Pinned by hand.
    pub pinned: bool,
}

/// The worker with the fewest queues.
pub fn least_loaded(counts: &[usize]) -> usize {
    counts.iter().enumerate().min_by_key(|(_, count)| **count).map_or(0, |(worker, _)| worker)
}

/// Spreads queues over `workers` by their load: pinned ones stay, the others go, heaviest first, to the
/// worker that has least. A plan that does not lower the highest load by a twentieth is not worth the moves.
/// Gives the new worker of each queue.
pub fn rebalance<K>(queues: &[Placed<K>], workers: usize) -> Vec<usize> {
    let now: Vec<usize> = queues.iter().map(|queue| queue.worker).collect();
    let loads = |plan: &[usize]| {
        let mut loads = vec![0.0; workers];
        for (queue, &worker) in queues.iter().zip(plan) {
            loads[worker] += queue.load;
        }
        loads
    };
    let highest = |plan: &[usize]| loads(plan).into_iter().fold(0.0, f64::max);
    let mut plan = now.clone();
    let mut load = vec![0.0; workers];
    for queue in queues.iter().filter(|queue| queue.pinned) {
        load[queue.worker] += queue.load;
    }
    let mut movable: Vec<usize> = (0..queues.len()).filter(|i| !queues[*i].pinned).collect();
    movable.sort_by(|a, b| queues[*b].load.total_cmp(&queues[*a].load));
    for i in movable {
        // Its own worker wins a tie, so that a balanced switch stays as it is.
        let home = queues[i].worker;
        let best = (0..workers)
            .min_by(|a, b| load[*a].total_cmp(&load[*b]).then_with(|| (*a != home).cmp(&(*b != home))));
        let best = best.unwrap_or(home);
        load[best] += queues[i].load;
        plan[i] = best;
    }
    if highest(&plan) < 0.95 * highest(&now) { plan } else { now }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(loads: &[(usize, f64, bool)]) -> Vec<Placed<usize>> {
        loads
            .iter()
            .enumerate()
            .map(|(key, &(worker, load, pinned))| Placed { key, worker, load, pinned })
            .collect()
    }

    #[test]
    fn the_heaviest_are_spread_and_pinned_ones_stay() {
        let all = queues(&[(0, 5.0, false), (0, 4.0, false), (0, 3.0, false), (0, 2.0, true)]);
        let plan = rebalance(&all, 2);
        assert_eq!(plan[3], 0);
        let first: f64 = all.iter().zip(&plan).filter(|(_, w)| **w == 0).map(|(q, _)| q.load).sum();
        assert!((6.0..=8.0).contains(&first), "{plan:?}");
    }

    #[test]
    fn what_is_balanced_stays() {
        let all = queues(&[(0, 5.0, false), (1, 5.1, false), (1, 0.0, false)]);
        assert_eq!(rebalance(&all, 2), vec![0, 1, 1]);
        assert_eq!(rebalance(&queues(&[]), 2), Vec::<usize>::new());
    }

    #[test]
    fn the_kernels_list_format() {
        assert_eq!(cpu_list("2-4,8\n"), vec![2, 3, 4, 8]);
        assert_eq!(cpu_list("\n"), Vec::<u16>::new());
        assert_eq!(cpu_list("x,3-,1"), vec![1]);
    }

    #[test]
    fn a_cpu_that_is_not_there_is_named() {
        let error = cpus(&WorkerPlacement::Cpus(vec![8191])).unwrap_err();
        assert!(error.to_string().contains("8191"), "{error}");
        assert!(!cpus(&WorkerPlacement::Auto).unwrap().is_empty());
    }
}

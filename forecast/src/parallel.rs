//! Work that is spread over all processors.

use std::thread;

/// Maps items in their order, one part of them on each processor.
///
/// A map that panics is a defect of ours: the panic goes on here.
pub(crate) fn map<T: Sync, R: Send>(items: &[T], f: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let n_threads = thread::available_parallelism().map_or(1, |n| n.get());
    let size = items.len().div_ceil(n_threads).max(1);
    let f = &f;
    thread::scope(|scope| {
        let spawn = |part| scope.spawn(move || -> Vec<R> { <[T]>::iter(part).map(f).collect() });
        let parts: Vec<_> = items.chunks(size).map(spawn).collect();
        parts
            .into_iter()
            .flat_map(|part| part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_item_is_mapped_once_and_in_its_order() {
        let items: Vec<usize> = (0..101).collect();
        assert_eq!(super::map(&items, |item| item * item), items.iter().map(|item| item * item).collect::<Vec<_>>());
        assert!(super::map(&[], |item: &usize| *item).is_empty());
    }
}

//! Fewer of many, evenly spread, without a rhythm of their own.
//!
//! Every 24th origin of an hourly panel begins at one hour of the day, and every 8th at three: errors by lead would then be errors by
//! hour, and what is chosen on such windows suits these hours. So one is drawn from each of equal parts.

use crate::noise::Stream;

const STREAM_THINNING: u32 = 5;

/// At most `n_max` of all, in their order: one of each of so many equal parts, drawn always alike, and the last of all. At least one,
/// where there is one.
pub fn thinned<T: Copy>(all: impl IntoIterator<Item = T>, n_max: usize) -> Vec<T> {
    let all: Vec<T> = all.into_iter().collect();
    let n = all.len();
    let n_parts = n_max.clamp(1, n.max(1)).min(n);
    let mut stream = Stream::new(0, STREAM_THINNING);
    let start = |part: usize| part * n / n_parts;
    let mut kept: Vec<usize> =
        (0..n_parts).map(|part| start(part) + stream.below(start(part + 1) - start(part))).collect();
    if let Some(last) = kept.last_mut() {
        *last = n - 1;
    }
    kept.into_iter().map(|index| all[index]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_kept_where_there_is_room_and_one_of_each_part_where_not() {
        for (n, n_max) in [(0, 5), (1, 5), (5, 5), (4, 100)] {
            assert_eq!(thinned(0..n, n_max), (0..n).collect::<Vec<_>>());
        }
        assert_eq!(thinned(0..7, 0), [6]);
        for (n, n_max) in [(6, 5), (1000, 7), (4000, 3999)] {
            let kept = thinned(0..n, n_max);
            assert_eq!(kept.len(), n_max);
            assert_eq!(kept.last(), Some(&(n - 1)), "the newest");
            for (part, index) in kept.iter().enumerate() {
                assert!((part * n / n_max..(part + 1) * n / n_max).contains(index), "{n} {n_max} {part} {index}");
            }
        }
    }

    #[test]
    fn origins_begin_at_every_hour_of_the_day() {
        for every in [24, 8, 12, 48] {
            let mut of_hour = [0; 24];
            thinned(0..480 * every, 480).into_iter().for_each(|origin| of_hour[origin % 24] += 1);
            assert!(of_hour.iter().all(|n| (5..50).contains(n)), "{every}: {of_hour:?}");
        }
    }
}

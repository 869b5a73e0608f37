//! What all blocks hold of each series: sorted, each time once, looked at.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use chrono_tz::Tz;
use forecast::Bounds;
use rayon::prelude::*;

use crate::{
    Error, Finding, Findings, Frequency, LoadConfig, Notice, Reason, Resample, Row,
    block::{Attribute, Block, Long, Rejected, Values as Held, Wide},
    frame::{Columns, Sorted},
    quality::{Inspector, Values},
    report::{Cell, Rejections},
    resample::resample,
    times::{NO_TIME, instant},
};

/// What to do when a series has different values for one time. Equal values are always taken once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Duplicates {
    /// Take none of them, because none is known to be right.
    #[default]
    Reject,
    /// Take the one that stands first in the file.
    KeepFirst,
    /// Take the one that stands last in the file.
    KeepLast,
}

/// The blocks of all parts, with numbers for the series that they have in common.
#[derive(Default)]
pub(crate) struct Observations {
    series: Vec<String>,
    index: HashMap<String, usize>,
    blocks: Vec<Placed>,
    n_unordered: usize,
    has_long: bool,
    /// By number of the series and of the attribute.
    attributes: BTreeMap<(usize, usize), String>,
    /// What was noticed of them.
    findings: Findings,
}

/// A block, and where it stands.
struct Placed {
    block: Block,
    /// Number of its first row over all parts.
    first_row: usize,
    /// Number of its part.
    part: usize,
    /// Of a wide block: the numbers of the series of its columns.
    series: Arc<[usize]>,
}

/// How the rows of one part follow one another in time.
#[derive(Default)]
pub(crate) struct Order {
    /// The last time of each series, or of all of a wide part.
    last: HashMap<usize, i64>,
}

/// The columns of a part that hold values.
pub(crate) enum ValueColumns {
    /// Those of a wide part, with the numbers of their series.
    Wide { series: Arc<[usize]>, column_of: HashMap<usize, usize> },
    /// That of a long one.
    Long { column: usize },
}

/// What came out of all blocks.
pub(crate) struct Finished {
    pub series: Vec<String>,
    pub rows: Columns,
    pub findings: Findings,
    pub n_combined: usize,
    /// Of each series, by the number of the attribute.
    pub attributes: Vec<BTreeMap<usize, String>>,
}

/// An observation and the row that it stands in, counted over all parts.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Found {
    time: i64,
    /// [`NO_TIME`] when the source does not say.
    available_at: i64,
    value: f64,
    /// NaN when the source does not say.
    sd: f64,
    row: usize,
}

impl Found {
    /// What is unique in the end.
    fn key(&self) -> (i64, i64) {
        (self.time, self.available_at)
    }

    fn says_the_same(&self, other: &Self) -> bool {
        self.value == other.value && (self.sd == other.sd || (self.sd.is_nan() && other.sd.is_nan()))
    }
}

/// A value that is not taken though it can be read.
struct Dropped {
    reason: Reason,
    is_lost: bool,
    row: usize,
    value: f64,
}

/// What is taken of one series, and what was found on the way.
struct Series {
    rows: Sorted,
    dropped: Vec<Dropped>,
    findings: Findings,
    /// Time and number of the last interval.
    end: Option<(i64, i64)>,
    n_combined: usize,
}

/// Where the values of one series are: blocks, and the column or group in each.
type Places = Vec<(usize, usize)>;

impl Observations {
    /// The number of a series.
    pub(crate) fn index_of(&mut self, name: &str) -> usize {
        if let Some(index) = self.index.get(name) {
            return *index;
        }
        let index = self.series.len();
        self.series.push(name.to_owned());
        self.index.insert(name.to_owned(), index);
        index
    }

    /// Adds a block of a part, whose blocks come in order.
    pub(crate) fn add(
        &mut self,
        mut block: Block,
        part: usize,
        first_row: usize,
        columns: &ValueColumns,
        attribute_names: &[String],
        order: &mut Order,
    ) {
        self.n_unordered += block.n_unordered;
        let mut follows = |series: usize, first_time: i64, last_time: i64| {
            let last = order.last.entry(series).or_insert(NO_TIME);
            let is_earlier = first_time < *last;
            *last = last_time;
            usize::from(is_earlier)
        };
        match &mut block.values {
            Held::Wide(Wide { times, .. }) => {
                let mut given = times.iter().copied().filter(|time| *time != NO_TIME);
                if let Some(first) = given.next() {
                    self.n_unordered += follows(0, first, given.next_back().unwrap_or(first));
                }
            }
            Held::Long(long) => {
                self.has_long = true;
                let numbers: Vec<usize> =
                    std::mem::take(&mut long.names).iter().map(|name| self.index_of(name)).collect();
                for group in &mut long.groups {
                    group.series = numbers[group.series];
                    self.n_unordered += follows(group.series, group.first_time, group.last_time);
                }
                for rejected in &mut block.rejected {
                    rejected.series = rejected.series.map(|series| numbers[series]);
                }
                for Attribute { series, attribute, text } in std::mem::take(&mut long.attributes) {
                    self.note_attribute(numbers[series], attribute, text, attribute_names);
                }
            }
        }
        let series = match columns {
            ValueColumns::Wide { series, .. } => {
                for rejected in &mut block.rejected {
                    rejected.series = rejected.series.map(|column| series[column]);
                }
                series.clone()
            }
            ValueColumns::Long { .. } => Arc::from([]),
        };
        self.blocks.push(Placed { block, first_row, part, series });
    }

    fn note_attribute(&mut self, series: usize, attribute: usize, text: String, names: &[String]) {
        let before = self.attributes.insert((series, attribute), text);
        let (Some(before), Some(text)) = (before, self.attributes.get(&(series, attribute))) else { return };
        if before == *text {
            return;
        }
        self.findings.push(Notice::AttributeChanged, || Finding {
            code: Notice::AttributeChanged,
            series: Some(self.series[series].clone()),
            start: None,
            end: None,
            message: format!("`{}` is `{before}` and then `{text}`; the last one counts", names[attribute]),
        });
    }

    /// Rows that are earlier than the row before them (of the same series).
    pub(crate) fn n_unordered(&self) -> usize {
        self.n_unordered
    }

    /// Cells without a value in rows with a time.
    pub(crate) fn n_gaps(&self) -> usize {
        self.blocks.iter().map(|placed| placed.block.n_gaps).sum()
    }

    /// Rows that are known to be off the grid.
    pub(crate) fn n_off_grid(&self) -> usize {
        self.blocks.iter().map(|placed| placed.block.n_off_grid).sum()
    }

    /// The times of all rows, block by block, with the numbers of the rows.
    pub(crate) fn times(&self) -> impl ParallelIterator<Item = (usize, Vec<(usize, i64)>)> {
        self.blocks.par_iter().map(|Placed { block, first_row, part, .. }| {
            let times = match &block.values {
                Held::Wide(wide) => {
                    let given = wide.times.iter().enumerate().filter(|(_, time)| **time != NO_TIME);
                    given.map(|(row, time)| (first_row + row, *time)).collect()
                }
                Held::Long(long) => {
                    let taken = long.times.iter().enumerate().map(|(index, time)| (long.row(index), *time));
                    taken
                        .chain(long.void.iter().map(|(row, time)| (*row as usize, *time)))
                        .map(|(row, time)| (first_row + row, time))
                        .collect()
                }
            };
            (*part, times)
        })
    }

    /// Puts every time at the start of its interval, by `place`; rows that are off the grid are rejected.
    pub(crate) fn place(
        &mut self,
        time_columns: &[usize],
        rejections: &mut Rejections,
        place: impl Fn(i64) -> Option<i64> + Sync,
    ) {
        let off_grid: Vec<Vec<usize>> = self.blocks.par_iter_mut().map(|placed| placed.block.place(&place)).collect();
        for (placed, rows) in self.blocks.iter().zip(off_grid) {
            for row in rows {
                let cell = Cell { row: placed.first_row + row, column: Some(time_columns[placed.part]) };
                rejections.push(Reason::OffGrid, cell, None);
            }
        }
    }

    /// Hands over what was rejected as blocks were read.
    pub(crate) fn reject(&mut self, rejections: &mut Rejections) {
        for Placed { block, first_row, .. } in &mut self.blocks {
            for Rejected { reason, row, column, series, .. } in block.rejected.drain(..) {
                rejections.push(reason, Cell { row: *first_row + row, column }, series);
            }
        }
    }

    /// Takes each series and time once, and looks at what is taken. A series that is all gaps is kept.
    ///
    /// # Errors
    /// [`Error::ResampleOverflow`].
    pub(crate) fn finish(
        mut self,
        config: &LoadConfig,
        frequency: Frequency,
        columns: &[ValueColumns],
        rejections: &mut Rejections,
    ) -> Result<Finished, Error> {
        /// Series that are held a second time.
        const N_SERIES: usize = 64;
        let places = self.places();
        let order = self.order();
        let chunks: Vec<&[usize]> = order.chunks(N_SERIES).collect();
        let mut last_chunks = vec![0; self.blocks.len()];
        for (chunk, numbers) in chunks.iter().enumerate() {
            numbers.iter().flat_map(|number| &places[*number]).for_each(|(block, _)| last_chunks[*block] = chunk);
        }
        let mut rows = Columns::default();
        rows.reserve(self.n_values());
        let inspector = Inspector::new(frequency, config.time_zone, &config.checks);
        let (mut findings, mut ends, mut n_combined) = (std::mem::take(&mut self.findings), Vec::new(), 0);
        let mut ready =
            self.finish_chunk(chunks.first().copied().unwrap_or(&[]), &places, config, frequency, &inspector);
        for (chunk, numbers) in chunks.iter().enumerate() {
            let put = || -> Result<(), Error> {
                for (index, (number, series)) in numbers.iter().zip(ready).enumerate() {
                    let (series, place) = (series?, chunk * N_SERIES + index);
                    for Dropped { reason, is_lost, row, value } in series.dropped {
                        let part = self.blocks[self.blocks.partition_point(|placed| placed.first_row <= row) - 1].part;
                        let cell = Cell { row, column: columns[part].of(*number) };
                        rejections.push_value(reason, is_lost, cell, *number, value);
                    }
                    rows.extend(place, &series.rows);
                    findings.append(series.findings);
                    ends.extend(series.end.map(|(time, ordinal)| (place, time, ordinal)));
                    n_combined += series.n_combined;
                }
                Ok(())
            };
            // One thread puts them together while the others go on.
            let next = chunks.get(chunk + 1).copied().unwrap_or(&[]);
            let (is_put, next) = rayon::join(put, || self.finish_chunk(next, &places, config, frequency, &inspector));
            is_put?;
            ready = next;
            // What is taken stands in the rows now.
            let done = self.blocks.iter_mut().zip(&last_chunks).filter(|(_, last)| **last == chunk);
            done.for_each(|(placed, _)| {
                placed.block.values = Held::Wide(Wide { times: Vec::new(), columns: Vec::new() })
            });
        }
        let names: Vec<String> = order.iter().map(|number| std::mem::take(&mut self.series[*number])).collect();
        let ends = ends.iter().map(|(place, time, ordinal)| (names[*place].as_str(), *time, *ordinal));
        inspector.note_stopped(&mut findings, ends);
        let mut attributes = vec![BTreeMap::new(); self.series.len()];
        for ((series, attribute), text) in std::mem::take(&mut self.attributes) {
            attributes[series].insert(attribute, text);
        }
        let attributes = order.iter().map(|number| std::mem::take(&mut attributes[*number])).collect();
        Ok(Finished { series: names, rows, findings, n_combined, attributes })
    }

    /// The names of the series by their numbers.
    pub(crate) fn series(&self) -> &[String] {
        &self.series
    }

    fn n_values(&self) -> usize {
        let n = |placed: &Placed| match &placed.block.values {
            Held::Wide(wide) => wide.times.len() * wide.columns.len(),
            Held::Long(long) => long.values.len(),
        };
        self.blocks.iter().map(n).sum()
    }

    /// The numbers of the series in the order in which they are given. That in which a long file happens to name them says
    /// nothing.
    fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.series.len()).collect();
        if self.has_long {
            order.sort_by(|a, b| self.series[*a].cmp(&self.series[*b]));
        }
        order
    }

    fn places(&self) -> Vec<Places> {
        let mut places: Vec<Places> = vec![Vec::new(); self.series.len()];
        for (number, placed) in self.blocks.iter().enumerate() {
            match &placed.block.values {
                Held::Wide(_) => {
                    let columns = placed.series.iter().enumerate();
                    columns.for_each(|(column, series)| places[*series].push((number, column)));
                }
                Held::Long(long) => {
                    let groups = long.groups.iter().enumerate();
                    groups.for_each(|(group, held)| places[held.series].push((number, group)));
                }
            }
        }
        places
    }

    fn finish_chunk(
        &self,
        numbers: &[usize],
        places: &[Places],
        config: &LoadConfig,
        frequency: Frequency,
        inspector: &Inspector<'_>,
    ) -> Vec<Result<Series, Error>> {
        let finish = |number: &usize| self.finish_series(*number, &places[*number], config, frequency, inspector);
        numbers.par_iter().map(finish).collect()
    }

    fn finish_series(
        &self,
        number: usize,
        places: &Places,
        config: &LoadConfig,
        frequency: Frequency,
        inspector: &Inspector<'_>,
    ) -> Result<Series, Error> {
        let name = &self.series[number];
        let bounds = config.bounds(name);
        let mut dropped = Vec::new();
        let is_as_it_is = config.resample.is_none() && (!config.reject_out_of_bounds || bounds.is_none());
        let (rows, n_combined) = match self.in_order(places).filter(|_| is_as_it_is) {
            Some(rows) => (rows, 0),
            None => self.put_in_order(places, config, frequency, bounds, &mut dropped)?,
        };
        let (mut findings, mut end) = (Findings::default(), None);
        if let Some(last) = rows.times.last() {
            let values = Values::new(&rows.times, &rows.values, frequency, config.time_zone);
            findings = inspector.look(name, &values, bounds);
            end = Some((*last, values.last_ordinal()));
        }
        Ok(Series { rows, dropped, findings, end, n_combined })
    }

    /// The observations of a series, if the blocks have them in the order of their times, each time once: as most do.
    fn in_order(&self, places: &Places) -> Option<Sorted> {
        let mut rows = Sorted::default();
        for &(number, place) in places {
            let n_before = rows.times.len();
            match &self.blocks[number].block.values {
                Held::Wide(wide) => {
                    let cells = wide.times.iter().zip(&wide.columns[place]);
                    let taken = cells.filter(|(time, value)| **time != NO_TIME && !value.is_nan());
                    for (time, value) in taken {
                        rows.times.push(*time);
                        rows.values.push(*value);
                    }
                    extend_known(&mut rows.available_at, n_before, rows.times.len(), None, NO_TIME);
                    extend_known(&mut rows.sd, n_before, rows.times.len(), None, f64::NAN);
                }
                Held::Long(long) => {
                    let held = long.groups[place].start..long.groups[place].end;
                    rows.times.extend_from_slice(&long.times[held.clone()]);
                    rows.values.extend_from_slice(&long.values[held.clone()]);
                    let known = long.available_at.as_ref().map(|cells| &cells[held.clone()]);
                    extend_known(&mut rows.available_at, n_before, rows.times.len(), known, NO_TIME);
                    let sds = long.sd.as_ref().map(|cells| &cells[held]);
                    extend_known(&mut rows.sd, n_before, rows.times.len(), sds, f64::NAN);
                }
            }
            if !rows.times[n_before.saturating_sub(1)..].is_sorted_by(|a, b| a < b) {
                return None;
            }
        }
        Some(rows)
    }

    /// The observations of a series, however the blocks have them, and how many became part of others.
    fn put_in_order(
        &self,
        places: &Places,
        config: &LoadConfig,
        frequency: Frequency,
        bounds: Option<Bounds>,
        dropped: &mut Vec<Dropped>,
    ) -> Result<(Sorted, usize), Error> {
        let mut found = self.gather(places);
        if config.reject_out_of_bounds
            && let Some(bounds) = bounds
        {
            reject_beyond(bounds, &mut found, dropped);
        }
        let order = |found: &Found| (found.key(), found.row);
        if !found.is_sorted_by_key(order) {
            found.sort_unstable_by_key(order);
        }
        if found.windows(2).any(|pair| pair[0].key() == pair[1].key()) {
            take_once(config.duplicates, &mut found, dropped);
        }
        let n_given = found.len();
        if let Some(rule) = config.resample {
            found = combined(&found, rule, frequency, config.time_zone)?;
        }
        let rows = Sorted {
            times: found.iter().map(|found| found.time).collect(),
            values: found.iter().map(|found| found.value).collect(),
            available_at: Some(found.iter().map(|found| found.available_at).collect()),
            sd: Some(found.iter().map(|found| found.sd).collect()),
        };
        Ok((rows, n_given - found.len()))
    }

    /// The observations of a series, in the order of their rows.
    fn gather(&self, places: &Places) -> Vec<Found> {
        let mut gathered = Vec::new();
        for &(number, place) in places {
            let Placed { block, first_row, .. } = &self.blocks[number];
            match &block.values {
                Held::Wide(wide) => {
                    let cells = wide.times.iter().zip(&wide.columns[place]).enumerate();
                    let taken = cells.filter(|(_, (time, value))| **time != NO_TIME && !value.is_nan());
                    gathered.extend(taken.map(|(row, (&time, &value))| Found {
                        time,
                        available_at: NO_TIME,
                        value,
                        sd: f64::NAN,
                        row: first_row + row,
                    }));
                }
                Held::Long(long) => {
                    let group = &long.groups[place];
                    gathered.extend((group.start..group.end).map(|index| Found {
                        time: long.times[index],
                        available_at: long.available_at.as_ref().map_or(NO_TIME, |cells| cells[index]),
                        value: long.values[index],
                        sd: long.sd.as_ref().map_or(f64::NAN, |cells| cells[index]),
                        row: first_row + long.row(index),
                    }));
                }
            }
        }
        gathered
    }
}

/// Adds cells to a column that exists once something is given for it.
fn extend_known<T: Copy>(column: &mut Option<Vec<T>>, n_before: usize, n: usize, cells: Option<&[T]>, nothing: T) {
    if column.is_none() && cells.is_some() {
        *column = Some(vec![nothing; n_before]);
    }
    match (column, cells) {
        (Some(column), Some(cells)) => column.extend_from_slice(cells),
        (Some(column), None) => column.resize(n, nothing),
        (None, _) => {}
    }
}

impl ValueColumns {
    /// The column in which values of a series stand.
    fn of(&self, series: usize) -> Option<usize> {
        match self {
            ValueColumns::Wide { column_of, .. } => column_of.get(&series).copied(),
            ValueColumns::Long { column } => Some(*column),
        }
    }
}

impl Block {
    /// Puts every time at the start of its interval. Gives the rows that are on none, from which nothing is taken.
    fn place(&mut self, place: &(impl Fn(i64) -> Option<i64> + Sync)) -> Vec<usize> {
        let mut off_grid = Vec::new();
        match &mut self.values {
            Held::Wide(wide) => {
                let mut n_empty = 0;
                for (row, time) in wide.times.iter_mut().enumerate().filter(|(_, time)| **time != NO_TIME) {
                    *time = place(*time).unwrap_or_else(|| {
                        off_grid.push(row);
                        n_empty += wide.columns.iter().filter(|column| column[row].is_nan()).count();
                        NO_TIME
                    });
                }
                // What is no number there is no gap either, and was not counted as one.
                let is_off =
                    |rejected: &&Rejected| rejected.time != NO_TIME && off_grid.binary_search(&rejected.row).is_ok();
                self.n_gaps -= n_empty - self.rejected.iter().filter(is_off).count();
            }
            Held::Long(long) => off_grid = place_long(long, &self.rejected, &mut self.n_gaps, place),
        }
        off_grid.sort_unstable();
        self.rejected.retain(|rejected| rejected.time == NO_TIME || off_grid.binary_search(&rejected.row).is_err());
        off_grid
    }
}

fn place_long(
    long: &mut Long,
    rejected: &[Rejected],
    n_gaps: &mut usize,
    place: &impl Fn(i64) -> Option<i64>,
) -> Vec<usize> {
    let mut off_grid = Vec::new();
    let (mut n_kept, mut start) = (0, 0);
    let rows = long.rows.get_or_insert_with(|| (0..long.times.len() as u32).collect());
    for group in &mut long.groups {
        let first = n_kept;
        for index in start..group.end {
            let Some(time) = place(long.times[index]) else {
                off_grid.push(rows[index] as usize);
                continue;
            };
            long.times[n_kept] = time;
            rows[n_kept] = rows[index];
            long.values[n_kept] = long.values[index];
            if let Some(cells) = &mut long.available_at {
                cells[n_kept] = cells[index];
            }
            if let Some(cells) = &mut long.sd {
                cells[n_kept] = cells[index];
            }
            n_kept += 1;
        }
        start = group.end;
        (group.start, group.end) = (first, n_kept);
    }
    long.times.truncate(n_kept);
    rows.truncate(n_kept);
    long.values.truncate(n_kept);
    long.available_at.iter_mut().for_each(|cells| cells.truncate(n_kept));
    long.sd.iter_mut().for_each(|cells| cells.truncate(n_kept));
    let n_taken = off_grid.len();
    off_grid.extend(long.void.iter().filter(|(_, time)| place(*time).is_none()).map(|(row, _)| *row as usize));
    let rejected: HashSet<usize> = rejected.iter().map(|rejected| rejected.row).collect();
    *n_gaps -= off_grid[n_taken..].iter().filter(|row| !rejected.contains(*row)).count();
    off_grid
}

/// Drops what is outside of the declared range.
fn reject_beyond(bounds: Bounds, found: &mut Vec<Found>, dropped: &mut Vec<Dropped>) {
    found.retain(|&Found { value, row, .. }| {
        let is_inside = bounds.clip(value) == value;
        if !is_inside {
            dropped.push(Dropped { reason: Reason::OutOfBounds, is_lost: true, row, value });
        }
        is_inside
    });
}

/// Takes each time once, of what is sorted.
fn take_once(duplicates: Duplicates, found: &mut Vec<Found>, dropped: &mut Vec<Dropped>) {
    let mut taken = Vec::with_capacity(found.len());
    for group in found.chunk_by(|a, b| a.key() == b.key()) {
        let (first, last) = (group[0], group[group.len() - 1]);
        let are_equal = group.iter().all(|found| found.says_the_same(&first));
        let kept = match duplicates {
            _ if are_equal => Some(first),
            Duplicates::KeepFirst => Some(first),
            Duplicates::KeepLast => Some(last),
            Duplicates::Reject => None,
        };
        for found in group.iter().filter(|found| kept.is_none_or(|kept| kept.row != found.row)) {
            let reason = if are_equal { Reason::DuplicateEqual } else { Reason::DuplicateConflict };
            dropped.push(Dropped { reason, is_lost: kept.is_none(), row: found.row, value: found.value });
        }
        taken.extend(kept);
    }
    *found = taken;
}

/// Combines the observations of each interval.
fn combined(found: &[Found], rule: Resample, frequency: Frequency, tz: Tz) -> Result<Vec<Found>, Error> {
    let row = |found: &Found| Row {
        series: 0,
        valid_time: instant(found.time),
        available_at: (found.available_at != NO_TIME).then(|| instant(found.available_at)),
        value: found.value,
        sd: (!found.sd.is_nan()).then_some(found.sd),
    };
    let rows: Vec<Row> = found.iter().map(row).collect();
    let found = |row: Row| Found {
        time: row.valid_time.timestamp_micros(),
        available_at: row.available_at.map_or(NO_TIME, |t| t.timestamp_micros()),
        value: row.value,
        sd: row.sd.unwrap_or(f64::NAN),
        row: 0,
    };
    Ok(resample(&rows, rule, frequency, tz)?.into_iter().map(found).collect())
}

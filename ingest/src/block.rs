//! A piece of an input, column-wise: the values of each series together, with the rows that they stand in.

use std::path::Path;

use polars::prelude::*;

use crate::{
    Error, LoadConfig, Reason,
    calendar::FixedGrid,
    layout::{Layout, Roles},
    numbers::{self, Numbers},
    report::without_nul,
    source::{Table, is_nameless},
    times::{self, Finer, NO_TIME, Times, Written},
};

/// What a piece holds. Rows are counted from its first one.
pub(crate) struct Block {
    pub n_rows: usize,
    /// Rows that hold nothing at all.
    pub n_blank: usize,
    /// Cells without a value in rows with a time.
    pub n_gaps: usize,
    /// Rows that are earlier than the row before them (of the same series).
    pub n_unordered: usize,
    /// Rows whose time is on no step of the grid, when that can be said already.
    pub n_off_grid: usize,
    pub time_formats: Formats,
    pub available_at_formats: Formats,
    pub rejected: Vec<Rejected>,
    pub values: Values,
}

/// In which formats the times of a column are written.
#[derive(Default)]
pub(crate) struct Formats {
    pub format: Option<crate::TimeFormat>,
    pub first: Option<Written>,
    pub other: Option<Written>,
}

/// A row or cell that is not taken.
pub(crate) struct Rejected {
    pub reason: Reason,
    pub row: usize,
    /// `None` for a row that has no columns.
    pub column: Option<usize>,
    /// Number of the series, as [`Group::series`].
    pub series: Option<usize>,
    /// The time of the row; [`NO_TIME`] when that is what is wrong.
    pub time: i64,
}

pub(crate) enum Values {
    Wide(Wide),
    Long(Long),
}

/// A column per series.
pub(crate) struct Wide {
    /// [`NO_TIME`] where there is none.
    pub times: Vec<i64>,
    /// In the order of the columns that hold values; NaN where there is none.
    pub columns: Vec<Vec<f64>>,
}

/// A row per observation, those of a series together and otherwise in their order.
pub(crate) struct Long {
    /// The series in the order in which they are named first; empty once they have numbers in all that is read.
    pub names: Vec<String>,
    pub groups: Vec<Group>,
    /// Where the values stand; `None` when each stands in the row of its own number.
    pub rows: Option<Vec<u32>>,
    pub times: Vec<i64>,
    pub values: Vec<f64>,
    /// [`NO_TIME`] where a row does not say; `None` where none does.
    pub available_at: Option<Vec<i64>>,
    /// NaN where a row does not say; `None` where none does.
    pub sd: Option<Vec<f64>>,
    /// Rows with a time from which no value is taken, and these times.
    pub void: Vec<(u32, i64)>,
    /// What attributes of series are, wherever they are not as before.
    pub attributes: Vec<Attribute>,
}

/// What an attribute of a series is.
pub(crate) struct Attribute {
    /// Number of the series, as [`Group::series`].
    pub series: usize,
    /// Number of the attribute, in the order in which they are declared.
    pub attribute: usize,
    pub text: String,
}

/// The rows of one series.
pub(crate) struct Group {
    /// Number of the series: among the names of the block, later among all.
    pub series: usize,
    /// Places in [`Long::times`].
    pub start: usize,
    pub end: usize,
    /// The times of its first and its last row, whether a value is taken from these or not.
    pub first_time: i64,
    pub last_time: i64,
}

/// Reads the rows of a table. Nothing is known of columns where there are no `roles`.
///
/// # Errors
/// [`Error::ColumnType`], [`Error::NamelessColumn`].
pub(crate) fn read(
    path: &Path,
    table: &Table,
    roles: Option<&Roles>,
    grid: Option<FixedGrid>,
    config: &LoadConfig,
) -> Result<Block, Error> {
    let n_rows = table.data.height();
    let malformed = table.malformed.iter();
    let rejected = malformed.map(|(row, _)| Rejected {
        reason: Reason::MalformedLine,
        row: *row,
        column: None,
        series: None,
        time: NO_TIME,
    });
    let mut block = Block {
        n_rows,
        n_blank: 0,
        n_gaps: 0,
        n_unordered: 0,
        n_off_grid: 0,
        time_formats: Formats::default(),
        available_at_formats: Formats::default(),
        rejected: rejected.collect(),
        values: Values::Wide(Wide { times: vec![NO_TIME; n_rows], columns: Vec::new() }),
    };
    let Some(roles) = roles else {
        block.n_blank = n_rows - table.malformed.len();
        return Ok(block);
    };
    let finer = if config.resample.is_some() { Finer::Cut } else { Finer::OffGrid };
    let times = times::read(path, &table.data.columns()[roles.time()], config.time_zone, finer)?;
    block.note_times(table, roles.time(), &times);
    if let Some(grid) = grid {
        block.n_off_grid = grid.n_off(&times.micros);
    }
    block.time_formats = Formats { format: times.format, first: times.first, other: times.other };
    block.values = match roles {
        Roles::Wide { time, values } => {
            let declares_series = matches!(&config.layout, Some(Layout::Wide { values }) if !values.is_empty());
            if !declares_series {
                check_nameless(path, table, *time, config)?;
            }
            Values::Wide(block.read_wide(path, table, values, times.micros, config)?)
        }
        Roles::Long { .. } => Values::Long(block.read_long(path, table, roles, times.micros, config)?),
    };
    Ok(block)
}

impl Block {
    /// A row without a time that can be used is rejected, unless it holds nothing at all.
    fn note_times(&mut self, table: &Table, column: usize, times: &Times) {
        let mut reject = |reason, row| {
            self.rejected.push(Rejected { reason, row, column: Some(column), series: None, time: NO_TIME })
        };
        times.bad.iter().for_each(|(row, reason)| reject(*reason, *row));
        let is_blank = |row| table.data.columns().iter().all(|column| column.get(row).is_ok_and(|v| v.is_null()));
        let mut bad = times.bad.iter().map(|(row, _)| *row).peekable();
        for (row, _) in times.micros.iter().enumerate().filter(|(_, micros)| **micros == NO_TIME) {
            if bad.next_if_eq(&row).is_some() {
                continue;
            }
            if !is_blank(row) {
                reject(Reason::UnparsableTime, row);
            } else if table.malformed.binary_search_by_key(&row, |(row, _)| *row).is_err() {
                self.n_blank += 1;
            }
        }
    }

    /// Reads a table with a column per series.
    fn read_wide(
        &mut self,
        path: &Path,
        table: &Table,
        columns: &[usize],
        times: Vec<i64>,
        config: &LoadConfig,
    ) -> Result<Wide, Error> {
        let has_time = |row: &usize| times[*row] != NO_TIME;
        let n_timeless = times.iter().filter(|time| **time == NO_TIME).count();
        let mut read = Vec::with_capacity(columns.len());
        for (series, &index) in columns.iter().enumerate() {
            let Numbers { values, bad, n_gaps } = numbers::read(path, &table.data.columns()[index], &config.numbers)?;
            // Most tables have a time in every row.
            self.n_gaps += match n_timeless {
                0 => n_gaps,
                _ => {
                    let n_empty = values.iter().zip(&times).filter(|(v, time)| v.is_nan() && **time != NO_TIME).count();
                    n_empty - bad.iter().filter(|(row, _)| has_time(row)).count()
                }
            };
            for (row, reason) in bad.into_iter().filter(|(row, _)| has_time(row)) {
                self.rejected.push(Rejected {
                    reason,
                    row,
                    column: Some(index),
                    series: Some(series),
                    time: times[row],
                });
            }
            read.push(values);
        }
        let in_order = times.iter().filter(|time| **time != NO_TIME);
        self.n_unordered = in_order.clone().zip(in_order.skip(1)).filter(|(a, b)| b < a).count();
        Ok(Wide { times, columns: read })
    }

    /// Reads a table with a row per observation.
    fn read_long(
        &mut self,
        path: &Path,
        table: &Table,
        roles: &Roles,
        times: Vec<i64>,
        config: &LoadConfig,
    ) -> Result<Long, Error> {
        let &Roles::Long { series, value, available_at, sd, ref attributes, .. } = roles else {
            unreachable!("the caller has matched the layout")
        };
        let columns = table.data.columns();
        let Names { names, runs } = Names::read(&columns[series], |name| !name.contains('\0'))?;
        let attributes = read_attributes(attributes.iter().map(|index| &columns[*index]), names.len(), &runs)?;
        let numbers = numbers::read(path, &columns[value], &config.numbers)?;
        let known =
            available_at.map(|index| times::read(path, &columns[index], config.time_zone, Finer::Cut)).transpose()?;
        let sds = sd.map(|index| numbers::read(path, &columns[index], &config.numbers)).transpose()?;
        if let Some(times) = &known {
            let (format, first, other) = (times.format, times.first.clone(), times.other.clone());
            self.available_at_formats = Formats { format, first, other };
        }
        let is_whole = !times.contains(&NO_TIME)
            && numbers.is_whole()
            && known.as_ref().is_none_or(|times| times.bad.is_empty())
            && sds.as_ref().is_none_or(|sds| sds.bad.is_empty() && !sds.values.iter().any(|sd| *sd < 0.0));
        // As most files are: everything is taken as it stands.
        if is_whole && runs.len() == names.len() && runs.iter().all(|run| run.series != Names::NONE) {
            let (known, sds) = (known.map(|times| times.micros), sds.map(|sds| sds.values));
            return Ok(Long { attributes, ..self.take_whole(names, &runs, times, numbers.values, known, sds) });
        }

        let of_rows = runs.iter().flat_map(|run| std::iter::repeat_n(run.series, run.end - run.start));
        let mut reader = RowReader {
            block: self,
            columns: [Some(series), Some(value), available_at, sd],
            groups: names.iter().map(|_| Seen { n_values: 0, first_time: NO_TIME, last_time: NO_TIME }).collect(),
            taken: Taken::with_capacity(times.len(), known.is_some(), sds.is_some()),
            void: Vec::new(),
        };
        reader.read(of_rows, &times, &numbers, known.as_ref(), sds.as_ref());
        let RowReader { groups, taken, void, .. } = reader;
        Ok(Long { attributes, ..taken.grouped(names, &groups, void) })
    }

    /// Takes rows in which nothing is missing, and in which each series is named in one run.
    fn take_whole(
        &mut self,
        names: Vec<String>,
        runs: &[Run],
        times: Vec<i64>,
        values: Vec<f64>,
        available_at: Option<Vec<i64>>,
        sd: Option<Vec<f64>>,
    ) -> Long {
        let group = |&Run { series, start, end }: &Run| {
            let of_series = &times[start..end];
            self.n_unordered += of_series.windows(2).filter(|pair| pair[1] < pair[0]).count();
            let (first_time, last_time) = (of_series[0], of_series[of_series.len() - 1]);
            Group { series: series as usize, start, end, first_time, last_time }
        };
        let groups = runs.iter().map(group).collect();
        Long { names, groups, rows: None, times, values, available_at, sd, void: Vec::new(), attributes: Vec::new() }
    }
}

/// A column without a name is none of the series: a separator at the end of each line makes one. Nothing may stand in it.
fn check_nameless(path: &Path, table: &Table, time: usize, config: &LoadConfig) -> Result<(), Error> {
    for (index, column) in table.data.columns().iter().enumerate() {
        if index != time
            && is_nameless(column.name())
            && numbers::read(path, column, &config.numbers)?.n_gaps < column.len()
        {
            return Err(Error::NamelessColumn { path: path.to_owned(), column: index + 1 });
        }
    }
    Ok(())
}

/// What columns say of the series of the rows beside them. An empty cell says nothing.
fn read_attributes<'a>(
    columns: impl Iterator<Item = &'a Column>,
    n_series: usize,
    runs: &[Run],
) -> Result<Vec<Attribute>, Error> {
    let mut read = Vec::new();
    for (attribute, column) in columns.enumerate() {
        let said = Names::read(column, |_| true)?;
        let mut last = vec![Names::NONE; n_series];
        let mut said_runs = said.runs.iter().peekable();
        for run in runs.iter().filter(|run| run.series != Names::NONE) {
            let series = run.series as usize;
            while said_runs.next_if(|said| said.end <= run.start).is_some() {}
            let mut within = said_runs.clone();
            while let Some(said_run) = within.next_if(|said| said.start < run.end) {
                if said_run.series != Names::NONE && said_run.series != last[series] {
                    last[series] = said_run.series;
                    let text = without_nul(&said.names[said_run.series as usize]);
                    read.push(Attribute { series, attribute, text });
                }
            }
        }
    }
    Ok(read)
}

/// The series that the rows of a column name.
struct Names {
    /// In the order in which they are named first.
    names: Vec<String>,
    /// All rows, in order.
    runs: Vec<Run>,
}

/// Rows that follow one another and name one series; there is at least one.
struct Run {
    /// Place among the names; [`Names::NONE`] where a row names none.
    series: u32,
    start: usize,
    end: usize,
}

impl Names {
    const NONE: u32 = u32::MAX;

    /// A text that is no name names nothing, as an empty cell does.
    fn read(column: &Column, is_name: impl Fn(&str) -> bool) -> Result<Self, Error> {
        let column = column.cast(&DataType::String)?;
        let mut known: PlHashMap<&str, u32> = PlHashMap::default();
        let (mut names, mut runs): (Vec<String>, Vec<Run>) = (Vec::new(), Vec::new());
        let mut row = 0;
        let texts = column.str()?;
        let has_nulls = texts.null_count() > 0;
        for array in texts.downcast_iter() {
            let mut last = None;
            for (index, view) in array.views().iter().enumerate() {
                // Most rows name the series of the row before: then they refer to the same bytes, or hold the same few.
                let view = view.as_u128();
                if !has_nulls && last == Some(view) {
                    row += 1;
                    continue;
                }
                last = Some(view);
                let series = match array.get(index).unwrap_or("") {
                    text if text.is_empty() || !is_name(text) => Self::NONE,
                    text => *known.entry(text).or_insert_with(|| {
                        names.push(text.to_owned());
                        names.len() as u32 - 1
                    }),
                };
                if runs.last().is_none_or(|run| run.series != series) {
                    runs.push(Run { series, start: row, end: row });
                }
                row += 1;
            }
        }
        let mut end = row;
        for run in runs.iter_mut().rev() {
            run.end = std::mem::replace(&mut end, run.start);
        }
        Ok(Self { names, runs })
    }
}

/// What was seen of a series so far.
struct Seen {
    n_values: usize,
    first_time: i64,
    last_time: i64,
}

/// What is taken, in the order of the rows.
struct Taken {
    series: Vec<u32>,
    rows: Vec<u32>,
    times: Vec<i64>,
    values: Vec<f64>,
    available_at: Option<Vec<i64>>,
    sd: Option<Vec<f64>>,
}

impl Taken {
    fn with_capacity(n: usize, has_available_at: bool, has_sd: bool) -> Self {
        Self {
            series: Vec::with_capacity(n),
            rows: Vec::with_capacity(n),
            times: Vec::with_capacity(n),
            values: Vec::with_capacity(n),
            available_at: has_available_at.then(|| Vec::with_capacity(n)),
            sd: has_sd.then(|| Vec::with_capacity(n)),
        }
    }

    /// Puts the rows of each series together, in their order.
    fn grouped(self, names: Vec<String>, seen: &[Seen], void: Vec<(u32, i64)>) -> Long {
        let mut start = 0;
        let groups: Vec<Group> = seen
            .iter()
            .enumerate()
            .map(|(series, seen)| {
                let (first, end) = (start, start + seen.n_values);
                start = end;
                Group { series, start: first, end, first_time: seen.first_time, last_time: seen.last_time }
            })
            .collect();
        let Self { series, rows, times, values, available_at, sd } = self;
        if series.is_sorted() {
            return Long {
                names,
                groups,
                rows: Some(rows),
                times,
                values,
                available_at,
                sd,
                void,
                attributes: Vec::new(),
            };
        }
        let mut next: Vec<usize> = groups.iter().map(|group| group.start).collect();
        let place = |series: &u32| {
            let place = next[*series as usize];
            next[*series as usize] += 1;
            place
        };
        let places: Vec<usize> = series.iter().map(place).collect();
        Long {
            names,
            groups,
            rows: Some(scattered(&rows, &places)),
            times: scattered(&times, &places),
            values: scattered(&values, &places),
            available_at: available_at.map(|cells| scattered(&cells, &places)),
            sd: sd.map(|cells| scattered(&cells, &places)),
            void,
            attributes: Vec::new(),
        }
    }
}

/// Puts each cell at its place; every place is taken once.
fn scattered<T: Copy + Default>(cells: &[T], places: &[usize]) -> Vec<T> {
    let mut scattered = vec![T::default(); cells.len()];
    cells.iter().zip(places).for_each(|(cell, place)| scattered[*place] = *cell);
    scattered
}

/// Goes through the rows of a long table.
struct RowReader<'a> {
    block: &'a mut Block,
    /// The columns with series, value, time of knowledge, standard deviation.
    columns: [Option<usize>; 4],
    groups: Vec<Seen>,
    taken: Taken,
    void: Vec<(u32, i64)>,
}

impl Long {
    /// The row in which a value stands.
    pub(crate) fn row(&self, index: usize) -> usize {
        self.rows.as_ref().map_or(index, |rows| rows[index] as usize)
    }
}

impl RowReader<'_> {
    fn read(
        &mut self,
        series: impl Iterator<Item = u32>,
        times: &[i64],
        numbers: &Numbers,
        known: Option<&Times>,
        sds: Option<&Numbers>,
    ) {
        let [series_column, value_column, known_column, sd_column] = self.columns;
        let mut bad_values = Bad::new(&numbers.bad);
        let mut bad_known = Bad::new(known.map_or(&[], |times| &times.bad));
        let mut bad_sds = Bad::new(sds.map_or(&[], |numbers| &numbers.bad));
        for (row, ((&time, index), &value)) in times.iter().zip(series).zip(&numbers.values).enumerate() {
            if time == NO_TIME {
                continue;
            }
            if index == Names::NONE {
                self.reject(Reason::MissingSeries, row, series_column, None, time);
                continue;
            }
            let seen = &mut self.groups[index as usize];
            if seen.first_time == NO_TIME {
                seen.first_time = time;
            }
            self.block.n_unordered += usize::from(time < seen.last_time);
            seen.last_time = time;
            if value.is_nan() {
                match bad_values.reason(row) {
                    Some(reason) => self.reject(reason, row, value_column, Some(index), time),
                    None => {
                        self.block.n_gaps += 1;
                        self.void.push((row as u32, time));
                    }
                }
                continue;
            }
            let available_at = known.map_or(NO_TIME, |times| times.micros[row]);
            if known.is_some()
                && let Some(reason) = bad_known.reason(row)
            {
                self.reject(reason, row, known_column, Some(index), time);
                continue;
            }
            let sd = sds.map_or(f64::NAN, |numbers| numbers.values[row]);
            if sds.is_some() && (sd < 0.0 || bad_sds.reason(row).is_some()) {
                self.reject(Reason::InvalidSd, row, sd_column, Some(index), time);
                continue;
            }
            self.groups[index as usize].n_values += 1;
            self.taken.series.push(index);
            self.taken.rows.push(row as u32);
            self.taken.times.push(time);
            self.taken.values.push(value);
            if let Some(cells) = &mut self.taken.available_at {
                cells.push(available_at);
            }
            if let Some(cells) = &mut self.taken.sd {
                cells.push(sd);
            }
        }
    }

    fn reject(&mut self, reason: Reason, row: usize, column: Option<usize>, series: Option<u32>, time: i64) {
        self.void.push((row as u32, time));
        self.block.rejected.push(Rejected { reason, row, column, series: series.map(|index| index as usize), time });
    }
}

/// Rows of a column that hold something that cannot be used, in order.
struct Bad<'a> {
    rows: &'a [(usize, Reason)],
}

impl<'a> Bad<'a> {
    fn new(rows: &'a [(usize, Reason)]) -> Self {
        Self { rows }
    }

    /// Why a row cannot be used. Rows are asked for in order.
    fn reason(&mut self, row: usize) -> Option<Reason> {
        while let [(first, reason), rest @ ..] = self.rows {
            if *first == row {
                return Some(*reason);
            }
            if *first > row {
                break;
            }
            self.rows = rest;
        }
        None
    }
}

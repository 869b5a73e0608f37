//! The names of schedules in requests, responses and the database.

use forecast::Schedule;

/// The forms that [`parse`] reads, for messages.
pub const FORMS: &str = "`autoregressive`, `full`, `pyramid:SLOPE` or `blocks:SIZE`";

/// The schedule with this name, such as `pyramid:2`; `None` when there is none.
#[must_use]
pub fn parse(name: &str) -> Option<Schedule> {
    let (kind, number) = match name.split_once(':') {
        Some((kind, number)) => (kind, Some(number.parse::<usize>().ok().filter(|&number| number > 0)?)),
        None => (name, None),
    };
    match (kind, number) {
        ("autoregressive", None) => Some(Schedule::Autoregressive),
        ("full", None) => Some(Schedule::Full),
        ("pyramid", Some(slope)) => Some(Schedule::Pyramid { slope }),
        ("blocks", Some(size)) => Some(Schedule::Blocks { size }),
        _ => None,
    }
}

/// The name of a schedule.
#[must_use]
pub fn name(schedule: Schedule) -> String {
    match schedule {
        Schedule::Autoregressive => "autoregressive".to_owned(),
        Schedule::Full => "full".to_owned(),
        Schedule::Pyramid { slope } => format!("pyramid:{slope}"),
        Schedule::Blocks { size } => format!("blocks:{size}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_as_the_schedule_it_was() {
        for schedule in
            [Schedule::Autoregressive, Schedule::Full, Schedule::Pyramid { slope: 2 }, Schedule::Blocks { size: 4 }]
        {
            assert_eq!(parse(&name(schedule)), Some(schedule));
        }
    }

    #[test]
    fn anything_else_is_no_schedule() {
        for text in ["", "Full", "pyramid", "pyramid:0", "pyramid:x", "full:1", "blocks:-1"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}

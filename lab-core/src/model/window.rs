//! Maintenance windows: when something may be interrupted.
//!
//! A window is written in one line, the same in a program, in a file and in a plan: `Tue 20:00-21:00`,
//! `Mon-Fri,Sun 02:00-04:30 +01:00`, `first Sun 22:00-00:00 -05:00`, `daily 03:00-04:00 UTC`. Its time zone is an offset
//! from UTC. Named zones are deliberately absent: their rules are data that changes, and a plan is to follow from what
//! was declared alone. Where clocks change twice a year, a window is an hour off for half of it.

use super::scope::ProgramError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

const DAY: i64 = 24 * 60 * 60;
const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const WEEKS: [&str; 5] = ["first", "second", "third", "fourth", "last"];
/// Farther than from any day to the next fifth of its month's weekdays: every window opens within.
const HORIZON: i64 = 70;

/// Times at which something may be interrupted: any of some windows, or, without one, any time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Windows(pub Vec<Window>);

/// A time that comes again every week or every month.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Window {
    /// Which of a month's weeks; every one when `None`. The last is 4.
    week: Option<usize>,
    /// On which days, Sunday first.
    days: [bool; 7],
    /// From which minute of the day.
    from: i64,
    /// For how many minutes; at most a day.
    minutes: i64,
    /// Minutes that the clock is ahead of UTC.
    offset: i64,
}

/// Whether something may be interrupted at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Always.
    Always,
    /// A window is open until then, in seconds since 1970.
    Until(u64),
    /// The next opens then, in seconds since 1970, and reads like this.
    From(u64, String),
}

impl Windows {
    /// Reads windows as they are written; none of them for any time.
    pub fn new<'a>(windows: impl IntoIterator<Item = &'a str>) -> Result<Windows, ProgramError> {
        windows.into_iter().map(str::parse).collect::<Result<_, _>>().map(Windows)
    }

    /// Returns whether `now`, in seconds since 1970, lies in a window.
    pub fn at(&self, now: u64) -> Opening {
        let now = i64::try_from(now).unwrap_or(i64::MAX / 2);
        let seconds = |at: i64| u64::try_from(at).unwrap_or_default();
        let around: Vec<(i64, i64, &Window)> = self.0.iter().flat_map(|window| window.around(now)).collect();
        if let Some(end) = around.iter().filter(|(start, ..)| *start <= now).map(|(_, end, _)| *end).max() {
            return Opening::Until(seconds(end));
        }
        match around.into_iter().min_by_key(|(start, ..)| *start) {
            Some((start, _, window)) => Opening::From(seconds(start), window.tell(start)),
            None => Opening::Always,
        }
    }
}

impl Window {
    /// Returns the opening that `now` lies in, if any, or the next: from and to, in seconds since 1970.
    fn around(&self, now: i64) -> Option<(i64, i64, &Window)> {
        let today = (now + self.offset * 60).div_euclid(DAY);
        (today - 1..today + HORIZON).filter(|day| self.falls_on(*day)).find_map(|day| {
            let start = day * DAY + (self.from - self.offset) * 60;
            let end = start + self.minutes * 60;
            (end > now).then_some((start, end, self))
        })
    }

    fn falls_on(&self, day: i64) -> bool {
        // 1970 began on a Thursday.
        let weekday = usize::try_from((day + 4).rem_euclid(7)).unwrap_or_default();
        let (_, month, date) = civil(day);
        self.days[weekday]
            && match self.week {
                None => true,
                Some(4) => civil(day + 7).1 != month,
                Some(week) => usize::try_from((date - 1) / 7).is_ok_and(|nth| nth == week),
            }
    }

    /// Returns a time as this window's clock shows it: `Tue 2026-11-24 20:00 UTC`.
    fn tell(&self, at: i64) -> String {
        let local = at + self.offset * 60;
        let (day, minute) = (local.div_euclid(DAY), local.rem_euclid(DAY) / 60);
        let weekday = DAYS[usize::try_from((day + 4).rem_euclid(7)).unwrap_or_default()];
        let (year, month, date) = civil(day);
        format!("{weekday} {year}-{month:02}-{date:02} {} {}", clock(minute), zone(self.offset))
    }
}

/// Returns year, month and day of the month of a day since 1970, in the Gregorian calendar.
fn civil(day: i64) -> (i64, i64, i64) {
    // Counted from the first of March of a year that 400 divides, so that a leap day comes last.
    let shifted = day + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, date)
}

fn clock(minute: i64) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

fn zone(offset: i64) -> String {
    match offset {
        0 => "UTC".into(),
        offset => format!("{}{}", if offset < 0 { '-' } else { '+' }, clock(offset.abs())),
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(week) = self.week {
            write!(f, "{} ", WEEKS[week])?;
        }
        let days: Vec<&str> = DAYS.iter().zip(self.days).filter(|(_, on)| *on).map(|(day, _)| *day).collect();
        if days.len() == DAYS.len() {
            f.write_str("daily")?
        } else {
            f.write_str(&days.join(","))?
        }
        let to = (self.from + self.minutes) % (24 * 60);
        write!(f, " {}-{} {}", clock(self.from), clock(to), zone(self.offset))
    }
}

impl FromStr for Window {
    type Err = ProgramError;

    fn from_str(text: &str) -> Result<Window, ProgramError> {
        let wrong =
            |why: String| ProgramError::new(format!("{text:?} is not a window such as `Tue 20:00-21:00`: {why}"));
        let mut words = text.split_whitespace().peekable();
        let week = words.peek().and_then(|word| WEEKS.iter().position(|week| week.eq_ignore_ascii_case(word)));
        if week.is_some() {
            words.next();
        }
        let days = days(words.next().unwrap_or_default()).map_err(wrong)?;
        let times = words.next().unwrap_or_default();
        let (from, to) = times.split_once('-').ok_or_else(|| wrong("there is no time such as 20:00-21:00".into()))?;
        let (from, to) = (minute(from).map_err(wrong)?, minute(to).map_err(wrong)?);
        let offset = words.next().map_or(Ok(0), offset).map_err(wrong)?;
        if let Some(more) = words.next() {
            return Err(wrong(format!("{more:?} is too much")));
        }
        // What ends before it begins ends on the next day.
        let minutes = if to > from { to - from } else { to + 24 * 60 - from };
        Ok(Window { week, days, from: from % (24 * 60), minutes, offset })
    }
}

fn days(text: &str) -> Result<[bool; 7], String> {
    if text.eq_ignore_ascii_case("daily") {
        return Ok([true; 7]);
    }
    let day = |name: &str| {
        let found = DAYS.iter().position(|day| day.eq_ignore_ascii_case(name));
        found.ok_or_else(|| format!("{name:?} is no day: `daily`, or of {}", DAYS.join(", ")))
    };
    let mut days = [false; 7];
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (mut at, to) = (day(from)?, day(to)?);
        days[at] = true;
        while at != to {
            at = (at + 1) % 7;
            days[at] = true;
        }
    }
    Ok(days)
}

fn minute(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is no time of the day such as 20:00");
    let (hours, minutes) = text.split_once(':').ok_or_else(wrong)?;
    let part = |text: &str| {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<i64>().ok()).flatten().ok_or_else(wrong)
    };
    let (hours, minutes) = (part(hours)?, part(minutes)?);
    let at = hours * 60 + minutes;
    if minutes > 59 || at > 24 * 60 { Err(wrong()) } else { Ok(at) }
}

fn offset(text: &str) -> Result<i64, String> {
    let sign = match text.chars().next() {
        _ if text.eq_ignore_ascii_case("utc") => return Ok(0),
        Some('+') => 1,
        Some('-') => -1,
        _ => return Err(format!("{text:?} is no time zone: `UTC`, or an offset such as +01:00")),
    };
    let offset = minute(&text[1..])?;
    if offset > 14 * 60 { Err(format!("no clock is {text} off")) } else { Ok(sign * offset) }
}

impl TryFrom<String> for Window {
    type Error = ProgramError;

    fn try_from(text: String) -> Result<Window, ProgramError> {
        text.parse()
    }
}

impl From<Window> for String {
    fn from(window: Window) -> String {
        window.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A day since 1970, by counting.
    #[test]
    fn the_calendar_counts_like_a_person() {
        let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let (mut year, mut month, mut date) = (1970, 1, 1);
        for day in 0..60_000 {
            assert_eq!(civil(day), (year, month, date), "day {day}");
            let long = match month {
                2 => 28 + i64::from(leap(year)),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            date += 1;
            if date > long {
                (month, date) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }

    /// Seconds since 1970 of a minute of Sunday, the 22nd of November 2026, in UTC.
    fn at(hours: u64, minutes: u64) -> u64 {
        20_779 * 86_400 + hours * 3_600 + minutes * 60
    }

    #[track_caller]
    fn check(window: &str, now: u64, expected: &str) {
        let shown = match Windows::new([window]).unwrap().at(now) {
            Opening::Always => "always".into(),
            Opening::Until(end) => format!("open for {} minutes", (end - now) / 60),
            Opening::From(_, text) => text,
        };
        assert_eq!(shown, expected, "{window}");
    }

    #[test]
    fn a_window_is_open_from_its_first_second_to_its_last() {
        check("Sun 20:00-21:00", at(19, 59) + 59, "Sun 2026-11-22 20:00 UTC");
        check("Sun 20:00-21:00", at(20, 0), "open for 60 minutes");
        check("Sun 20:00-21:00", at(20, 59), "open for 1 minutes");
        check("Sun 20:00-21:00", at(21, 0), "Sun 2026-11-29 20:00 UTC");
    }

    #[test]
    fn a_window_may_reach_into_the_next_day() {
        check("Sat 22:00-02:00", at(1, 0), "open for 60 minutes");
        check("Sat 22:00-02:00", at(2, 0), "Sat 2026-11-28 22:00 UTC");
        check("daily 00:00-24:00", at(12, 0), "open for 720 minutes");
    }

    #[test]
    fn a_window_has_its_own_clock() {
        check("Sun 20:00-21:00 +01:00", at(19, 0), "open for 60 minutes");
        check("Sun 20:00-21:00 -05:00", at(20, 0), "Sun 2026-11-22 20:00 -05:00");
        // There it is Monday already.
        check("Mon 01:00-02:00 +10:00", at(15, 30), "open for 30 minutes");
    }

    #[test]
    fn a_window_may_come_once_a_month() {
        check("first Sun 22:00-00:00", at(22, 30), "Sun 2026-12-06 22:00 UTC");
        check("fourth Sun 22:00-00:00", at(22, 30), "open for 90 minutes");
        check("last Sun 22:00-00:00", at(22, 30), "Sun 2026-11-29 22:00 UTC");
        check("last Mon 22:00-00:00", at(22, 30), "Mon 2026-11-30 22:00 UTC");
    }

    #[test]
    fn of_several_windows_the_next_counts() {
        let windows = Windows::new(["Tue 20:00-21:00", "Mon-Fri 02:00-03:00"]).unwrap();
        assert!(matches!(windows.at(at(12, 0)), Opening::From(_, text) if text == "Mon 2026-11-23 02:00 UTC"));
        assert_eq!(Windows::default().at(at(12, 0)), Opening::Always);
    }

    #[test]
    fn windows_are_read_as_they_are_written() {
        for (text, shown) in [
            ("Tue 20:00-21:00", "Tue 20:00-21:00 UTC"),
            ("mon-wed,Sun 02:00-04:30 +01:00", "Sun,Mon,Tue,Wed 02:00-04:30 +01:00"),
            ("first Sun 22:00-00:00 -05:30", "first Sun 22:00-00:00 -05:30"),
            ("Fri-Mon 22:00-24:00", "Sun,Mon,Fri,Sat 22:00-00:00 UTC"),
            ("daily 00:00-24:00 UTC", "daily 00:00-00:00 UTC"),
        ] {
            let window: Window = text.parse().unwrap();
            assert_eq!(window.to_string(), shown);
            assert_eq!(shown.parse::<Window>().unwrap(), window);
        }
        for wrong in [
            "",
            "Tue",
            "Tue 20:00",
            "Tuesday 20:00-21:00",
            "Tue 20:00-25:00",
            "Tue 20:0-21:00",
            "fifth Tue 20:00-21:00",
            "Tue 20:00-21:00 CET",
            "Tue 20:00-21:00 +15:00",
            "Tue 20:00-21:00 UTC x",
            "Tue +1:00-02:00",
        ] {
            assert!(wrong.parse::<Window>().is_err(), "{wrong}");
        }
    }
}

//! Points in time as text: RFC 3339, to the millisecond.
//!
//! Source of the day arithmetic: Howard Hinnant, "chrono-compatible low-level date algorithms".

use std::fmt::Write as _;

const MS_PER_DAY: i64 = 86_400_000;
/// 0000-01-01T00:00:00Z, the first time that RFC 3339 can write.
const FIRST_MS: i64 = -62_167_219_200_000;
/// 9999-12-31T23:59:59.999Z, the last.
const LAST_MS: i64 = 253_402_300_799_999;

/// Returns `2026-11-22T10:20:30.400Z` for milliseconds since 1970; `None` outside of the years 0 to 9999.
#[must_use]
pub fn render(ms: i64) -> Option<String> {
    if !(FIRST_MS..=LAST_MS).contains(&ms) {
        return None;
    }
    let (year, month, day) = date(ms.div_euclid(MS_PER_DAY));
    let in_day = ms.rem_euclid(MS_PER_DAY);
    let (seconds, milliseconds) = (in_day / 1000, in_day % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut text = String::with_capacity(24);
    write!(text, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z").ok()?;
    Some(text)
}

/// Returns the milliseconds since 1970 of an RFC 3339 text. Digits beyond the milliseconds are dropped;
/// `None` if it is no such text or the time lies outside of the years 0 to 9999.
#[must_use]
pub fn parse(text: &str) -> Option<i64> {
    let (date_text, rest) = text.split_at_checked(10)?;
    let [year, month, day] = fields(date_text, [4, 2, 2], b'-')?;
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (time_text, rest) = rest.split_at_checked(8)?;
    let [hour, minute, second] = fields(time_text, [2, 2, 2], b':')?;
    // A leap second counts as the second after it.
    let in_range = (1..=12).contains(&month) && (1..=days(year, month)).contains(&day);
    if !in_range || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (milliseconds, rest) = fraction(rest)?;
    let local = day_number(year, month, day) * MS_PER_DAY + ((hour * 60 + minute) * 60 + second) * 1000 + milliseconds;
    let ms = local - offset_minutes(rest)? * 60_000;
    (FIRST_MS..=LAST_MS).contains(&ms).then_some(ms)
}

/// Reads `.123456` in front of the offset; returns whole milliseconds.
fn fraction(text: &str) -> Option<(i64, &str)> {
    let Some(digits) = text.strip_prefix('.') else { return Some((0, text)) };
    let end = digits.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at_checked(end)?;
    if digits.is_empty() {
        return None;
    }
    let ms = digits.bytes().chain(*b"000").take(3).fold(0, |ms, byte| ms * 10 + i64::from(byte - b'0'));
    Some((ms, rest))
}

fn offset_minutes(text: &str) -> Option<i64> {
    if matches!(text, "Z" | "z") {
        return Some(0);
    }
    let (sign, text) = match text.strip_prefix('+') {
        Some(rest) => (1, rest),
        None => (-1, text.strip_prefix('-')?),
    };
    let [hour, minute] = fields(text, [2, 2], b':')?;
    (hour <= 23 && minute <= 59).then_some(sign * (hour * 60 + minute))
}

/// Reads numbers of fixed numbers of digits with one separator between them.
fn fields<const N: usize>(text: &str, widths: [usize; N], separator: u8) -> Option<[i64; N]> {
    let mut numbers = [0; N];
    let mut bytes = text.bytes();
    for (at, (number, width)) in numbers.iter_mut().zip(widths).enumerate() {
        if at > 0 && bytes.next()? != separator {
            return None;
        }
        for _ in 0..width {
            let byte = bytes.next().filter(u8::is_ascii_digit)?;
            *number = *number * 10 + i64::from(byte - b'0');
        }
    }
    bytes.next().is_none().then_some(numbers)
}

fn days(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970 of a date of the proleptic Gregorian calendar.
fn day_number(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The date of a number of days since 1970.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

//! Times as people write them, to milliseconds since 1970 and back. UTC where no
//! offset is said: the same command line means the same everywhere.

/// `2026-11-22`, `2026-11-22T10:44`, `...:05`, `...:05.250`, each with `Z` or
/// `+01:00` behind it, or milliseconds since 1970 as a bare number.
pub fn parse(given: &str) -> Result<i64, String> {
    let wrong = || {
        format!(
            "`{given}` is not a time; write 2026-11-22T10:44:00Z, 2026-11-22, or milliseconds \
             since 1970"
        )
    };
    if let Ok(ms) = given.parse::<i64>() {
        return if ms >= 0 { Ok(ms) } else { Err(wrong()) };
    }
    parse_iso(given).ok_or_else(wrong)
}

fn parse_iso(given: &str) -> Option<i64> {
    let (date, rest) = match given.find(['T', ' ']) {
        Some(at) => (&given[..at], &given[at + 1..]),
        None => (given.strip_suffix('Z').unwrap_or(given), ""),
    };
    let mut parts = date.split('-');
    let year: i64 = digits(parts.next()?, 4)?;
    let month: i64 = digits(parts.next()?, 2)?;
    let day: i64 = digits(parts.next()?, 2)?;
    if parts.next().is_some()
        || !(1970..=9999).contains(&year)
        || !(1..=12).contains(&month)
        || !(1..=days_in(year, month)).contains(&day)
    {
        return None;
    }
    let mut ms = days_from_1970(year, month, day) * 86_400_000;
    if rest.is_empty() {
        return (!given.contains(['T', ' '])).then_some(ms);
    }
    let (clock, offset_minutes) = split_offset(rest)?;
    let (clock, fraction) = match clock.split_once(['.', ',']) {
        Some((clock, fraction)) => (clock, Some(fraction)),
        None => (clock, None),
    };
    let mut parts = clock.split(':');
    let hour: i64 = digits(parts.next()?, 2)?;
    let minute: i64 = digits(parts.next()?, 2)?;
    let second: i64 = match parts.next() {
        Some(s) => digits(s, 2)?,
        None if fraction.is_some() => return None,
        None => 0,
    };
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    ms += ((hour * 60 + minute) * 60 + second) * 1000;
    if let Some(fraction) = fraction {
        if fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let three: String = fraction.chars().chain("00".chars()).take(3).collect();
        ms += three.parse::<i64>().ok()?;
    }
    Some(ms - offset_minutes * 60_000).filter(|ms| *ms >= 0)
}

/// `10:44:00+01:00` -> (`10:44:00`, 60)
fn split_offset(clock: &str) -> Option<(&str, i64)> {
    if let Some(clock) = clock.strip_suffix('Z') {
        return Some((clock, 0));
    }
    let Some(at) = clock.find(['+', '-']) else {
        return Some((clock, 0));
    };
    let sign = if clock.as_bytes()[at] == b'+' { 1 } else { -1 };
    let (hours, minutes) = match &clock[at + 1..] {
        o if o.contains(':') => o.split_once(':')?,
        o if o.len() == 4 && o.is_ascii() => o.split_at(2),
        o => (o, "00"),
    };
    let (hours, minutes): (i64, i64) = (digits(hours, 2)?, digits(minutes, 2)?);
    (hours <= 18 && minutes <= 59).then_some((&clock[..at], sign * (hours * 60 + minutes)))
}

fn digits(s: &str, n: usize) -> Option<i64> {
    (s.len() == n && s.bytes().all(|b| b.is_ascii_digit()))
        .then(|| s.parse().ok())
        .flatten()
}

fn is_leap(year: i64) -> bool {
    (year % 4 == 0 && year % 100 != 0) || year % 400 == 0
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_from_1970(year: i64, month: i64, day: i64) -> i64 {
    let leaps_before = |y: i64| y / 4 - y / 100 + y / 400;
    (year - 1970) * 365 + leaps_before(year - 1) - leaps_before(1969)
        + (1..month).map(|m| days_in(year, m)).sum::<i64>()
        + (day - 1)
}

/// `2026-11-22T10:44:00.000Z`; what has no place on a calendar stays a number.
pub fn format(ms: i64) -> String {
    // 9999-12-31T23:59:59.999Z
    if !(0..=253_402_300_799_999).contains(&ms) {
        return ms.to_string();
    }
    let (mut days, ms_of_day) = (ms / 86_400_000, ms % 86_400_000);
    // At most one year off, from below: 365 days a year overestimates the year.
    let mut year = 1970 + days / 366;
    while days_from_1970(year + 1, 1, 1) <= days {
        year += 1;
    }
    days -= days_from_1970(year, 1, 1);
    let mut month = 1;
    while days >= days_in(year, month) {
        days -= days_in(year, month);
        month += 1;
    }
    let (s, ms) = (ms_of_day / 1000, ms_of_day % 1000);
    format!(
        "{year:04}-{month:02}-{:02}T{:02}:{:02}:{:02}.{ms:03}Z",
        days + 1,
        s / 3600,
        s / 60 % 60,
        s % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_are_known() {
        for (given, ms) in [
            ("0", 0),
            ("1795344240000", 1_795_344_240_000),
            ("1970-01-01", 0),
            ("2000-02-29", 951_782_400_000),
            ("2000-03-01T00:00:00Z", 951_868_800_000),
            ("2026-11-22T10:44:00Z", 1_795_344_240_000),
            ("2026-11-22 10:44", 1_795_344_240_000),
            ("2026-11-22T11:44:00+01:00", 1_795_344_240_000),
            ("2026-11-22T05:14:00.250-0530", 1_795_344_240_250),
            ("2026-11-22T10:44:00.2Z", 1_795_344_240_200),
            ("2026-11-22T10:44:00.123456Z", 1_795_344_240_123),
        ] {
            assert_eq!(parse(given), Ok(ms), "{given}");
        }
    }

    #[test]
    fn times_that_are_none() {
        for given in [
            "",
            "-5",
            "yesterday",
            "2026-13-01",
            "2026-02-29",
            "2026-1-1",
            "2026-11-22T",
            "2026-11-22T25:00",
            "2026-11-22T10",
            "2026-11-22T10:44:00+99:00",
            "2026-11-22T10:44:00.Z",
            "2026-11-22T10:44.5",
            "1970-01-01T00:00:00+01:00",
            "2026-11-22T10:44:00ü",
        ] {
            assert!(parse(given).is_err(), "{given}");
        }
    }

    #[test]
    fn what_is_printed_reads_back() {
        for ms in [
            0,
            951_782_399_999,
            951_782_400_000,
            951_868_800_000,
            1_795_344_240_250,
            4_102_444_799_999,
            253_402_300_799_999,
        ] {
            assert_eq!(parse(&format(ms)), Ok(ms), "{}", format(ms));
        }
        assert_eq!(format(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(format(-1), "-1");
    }
}

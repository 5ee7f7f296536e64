//! One .hgrm file for each series: times in microseconds, bytes and counts as they are.

use klamm_engine::profile::{Series, Unit, hgrm};
use klamm_net::profile::Entry;

/// `produce-sync.us.hgrm`: where it is from, what it is and its unit.
pub fn file_name(entry: &Entry) -> String {
    let unit = match entry.series.unit() {
        Unit::Nanos => "us.",
        // Their names say what they are.
        Unit::Bytes | Unit::Count => "",
    };
    // Names come over a socket: none may leave the folder.
    let plain = |text: &str| -> String {
        let keep = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let chars = text.chars().map(|c| if keep(c) { c } else { '_' });
        chars.collect::<String>().to_lowercase()
    };
    format!("{}-{}.{unit}hgrm", plain(&entry.group), plain(&entry.name))
}

pub fn text(series: &Series) -> String {
    let scale = match series.unit() {
        Unit::Nanos => 1000.0,
        Unit::Bytes | Unit::Count => 1.0,
    };
    hgrm::text(series.histogram(), scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(group: &'static str, name: &'static str, unit: Unit, values: &[u64]) -> Entry {
        let mut series = Series::new(unit);
        values.iter().for_each(|v| series.record(*v));
        Entry {
            group: group.into(),
            name: name.into(),
            series,
        }
    }

    #[test]
    fn percentiles_rise_to_all_and_the_end_sums_up() {
        let values: Vec<u64> = (1..=1000).map(|n| n * 1000).collect();
        let entry = entry("Produce", "sync", Unit::Nanos, &values);
        let text = text(&entry.series);
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .take_while(|line| !line.starts_with('#'))
            .map(|line| {
                line.split_whitespace()
                    .map(|n| n.parse().unwrap())
                    .collect()
            })
            .collect();
        assert!(rows.len() > 20, "{text}");
        assert!(rows.is_sorted_by(|a, b| a[0] <= b[0] && a[1] <= b[1] && a[2] <= b[2]));
        let last = rows.last().unwrap();
        assert_eq!((last[1], last[2]), (1.0, 1000.0));
        let half = rows.iter().find(|row| row[1] >= 0.5).unwrap();
        assert!(
            (490.0..=510.0).contains(&half[0]),
            "in microseconds: {half:?}"
        );
        assert!(text.contains("Total count    =         1000]"), "{text}");
    }

    #[test]
    fn a_file_is_named_for_what_it_holds() {
        let time = entry("Produce", "sync", Unit::Nanos, &[]);
        assert_eq!(file_name(&time), "produce-sync.us.hgrm");
        let bytes = entry("engine", "batch_bytes", Unit::Bytes, &[]);
        assert_eq!(file_name(&bytes), "engine-batch_bytes.hgrm");
        let odd = entry("../x", "/etc/y", Unit::Count, &[]);
        assert_eq!(file_name(&odd), "___x-_etc_y.hgrm");
    }
}

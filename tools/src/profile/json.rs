//! A look as JSON: one object a line.

use klamm_engine::profile::{Series, Unit};
use klamm_net::kafka::profile::PARTS;
use klamm_net::profile::{ENGINE, SHARD, Snapshot};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Serialize)]
pub struct Look<'a> {
    /// What it covers: since the broker's `start`, or the last `interval`.
    covers: &'static str,
    seconds: f64,
    shards: u16,
    apis: Vec<Api<'a>>,
    engine: BTreeMap<&'a str, Figures>,
    shard: BTreeMap<&'a str, Figures>,
}

#[derive(Serialize)]
struct Api<'a> {
    api: &'a str,
    per_second: f64,
    total: Figures,
    parts: BTreeMap<&'a str, Figures>,
    request_bytes: Figures,
    answer_bytes: Figures,
}

/// Times are microseconds, in fields that say so; sizes and counts are plain.
#[derive(Serialize)]
#[serde(untagged)]
enum Figures {
    Times {
        count: u64,
        sum_us: f64,
        mean_us: f64,
        p50_us: f64,
        p90_us: f64,
        p99_us: f64,
        p999_us: f64,
        max_us: f64,
    },
    Amounts {
        count: u64,
        sum: u64,
        mean: f64,
        p50: u64,
        p90: u64,
        p99: u64,
        p999: u64,
        max: u64,
    },
}

pub fn look(snapshot: &Snapshot, live: bool) -> Look<'_> {
    let seconds = snapshot.span().as_secs_f64();
    let group = |group: &str| {
        let entries = snapshot.entries.iter().filter(|e| e.group == group);
        let some = entries.filter(|e| e.series.count() > 0);
        some.map(|e| (e.name.as_ref(), figures(&e.series)))
            .collect()
    };
    let totals = snapshot.entries.iter().filter(|e| e.name == "total");
    let apis = totals.filter(|e| e.series.count() > 0).map(|total| {
        let of = |name| snapshot.get(&total.group, name);
        let parts = PARTS.iter().filter_map(|(_, name)| {
            let series = of(name).filter(|series| series.count() > 0)?;
            Some((*name, figures(series)))
        });
        let amounts = |name| of(name).map_or_else(|| figures(&Series::new(Unit::Bytes)), figures);
        Api {
            api: &total.group,
            per_second: total.series.count() as f64 / seconds,
            total: figures(&total.series),
            parts: parts.collect(),
            request_bytes: amounts("request_bytes"),
            answer_bytes: amounts("answer_bytes"),
        }
    });
    Look {
        covers: if live { "interval" } else { "start" },
        seconds,
        shards: snapshot.shards,
        apis: apis.collect(),
        engine: group(ENGINE),
        shard: group(SHARD),
    }
}

fn figures(series: &Series) -> Figures {
    let at = |quantile| series.histogram().value_at_quantile(quantile);
    let mean = series.sum() as f64 / series.count().max(1) as f64;
    let max = series.histogram().max();
    if series.unit() != Unit::Nanos {
        return Figures::Amounts {
            count: series.count(),
            sum: series.sum(),
            mean,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max,
        };
    }
    let us = |nanos: u64| nanos as f64 / 1000.0;
    Figures::Times {
        count: series.count(),
        sum_us: us(series.sum()),
        mean_us: mean / 1000.0,
        p50_us: us(at(0.5)),
        p90_us: us(at(0.9)),
        p99_us: us(at(0.99)),
        p999_us: us(at(0.999)),
        max_us: us(max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::screen::tests::some;

    #[test]
    fn the_fields_have_their_units() {
        let json = serde_json::to_value(look(&some(), true)).unwrap();
        assert_eq!(json["covers"], "interval");
        assert_eq!(json["seconds"], 2.0);
        let produce = &json["apis"][0];
        assert_eq!(produce["api"], "Produce");
        assert_eq!(produce["per_second"], 1.0);
        assert_eq!(produce["total"]["count"], 2);
        assert_eq!(produce["total"]["sum_us"], 4_000.0);
        assert_eq!(produce["parts"]["sync"]["sum_us"], 3_000.0);
        assert_eq!(produce["parts"]["hop"], serde_json::Value::Null);
        assert_eq!(json["engine"]["batch_bytes"]["sum"], 5_000);
        assert_eq!(
            json["engine"]["batch_bytes"]["sum_us"],
            serde_json::Value::Null
        );
        assert!(json["shard"]["timer"]["p99_us"].is_number());
    }
}

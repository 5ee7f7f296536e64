//! A shorter sequence that still differs.
//!
//! ```text
//!   all steps up to the difference
//!     without the first half, the second, ..., single steps      until none can go
//!     then without single requests of a step, single entries of a multi
//! ```

use crate::steps::Step;
use klamm_tests::zookeeper::records::Request;
use std::time::Instant;

/// `differs` says where, for a sequence that does. Ends at the deadline with what it has.
pub fn shorten(
    steps: &[Step],
    deadline: Instant,
    mut differs: impl FnMut(&[Step]) -> Option<usize>,
) -> Vec<Step> {
    let mut best = steps.to_vec();
    loop {
        let before = best.clone();
        best = fewer_steps(&best, deadline, &mut differs);
        best = smaller_steps(&best, deadline, &mut differs);
        // What one of them took out may be what another step was needed for.
        if best == before || Instant::now() >= deadline {
            return best;
        }
    }
}

/// The candidate in the place of the best, if it differs as well.
fn attempt(
    candidate: Vec<Step>,
    best: &mut Vec<Step>,
    deadline: Instant,
    differs: &mut impl FnMut(&[Step]) -> Option<usize>,
) -> bool {
    if Instant::now() >= deadline {
        return false;
    }
    let Some(at) = differs(&candidate) else {
        return false;
    };
    *best = candidate;
    best.truncate(at + 1);
    true
}

fn fewer_steps(
    steps: &[Step],
    deadline: Instant,
    differs: &mut impl FnMut(&[Step]) -> Option<usize>,
) -> Vec<Step> {
    let mut best = steps.to_vec();
    let mut chunk = best.len().div_ceil(2);
    loop {
        let mut from = 0;
        let mut shorter = false;
        while from < best.len() {
            let mut candidate = best.clone();
            candidate.drain(from..(from + chunk).min(best.len()));
            match attempt(candidate, &mut best, deadline, differs) {
                true => shorter = true,
                false => from += chunk,
            }
        }
        match (chunk, shorter) {
            (1, false) => return best,
            (1, true) => {}
            _ => chunk = chunk.div_ceil(2),
        }
    }
}

fn smaller_steps(
    steps: &[Step],
    deadline: Instant,
    differs: &mut impl FnMut(&[Step]) -> Option<usize>,
) -> Vec<Step> {
    let mut best = steps.to_vec();
    let mut at = 0;
    while at < best.len() {
        let found = fewer(&best[at]).into_iter().any(|step| {
            let mut candidate = best.clone();
            candidate[at] = step;
            attempt(candidate, &mut best, deadline, differs)
        });
        if !found {
            at += 1;
        }
    }
    best
}

/// The step with one thing less, in every way.
fn fewer(step: &Step) -> Vec<Step> {
    let Step::Calls(slot, requests) = step else {
        return Vec::new();
    };
    let mut steps = Vec::new();
    let mut with = |change: &dyn Fn(&mut Vec<Request>)| {
        let mut requests = requests.clone();
        change(&mut requests);
        if !requests.is_empty() {
            steps.push(Step::Calls(*slot, requests));
        }
    };
    for at in 0..requests.len() {
        with(&|requests| {
            requests.remove(at);
        });
    }
    for (at, request) in requests.iter().enumerate() {
        if let Request::Multi(entries) | Request::MultiRead(entries) = request {
            for entry in 0..entries.len() {
                with(&|requests| {
                    if let Request::Multi(entries) | Request::MultiRead(entries) = &mut requests[at]
                    {
                        entries.remove(entry);
                    }
                });
            }
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_is_needed_stays_and_nothing_else() {
        let calls = |n: i32| Step::Calls(0, vec![Request::Ping, Request::Delete("~".into(), n)]);
        let steps: Vec<_> = (0..40).map(calls).collect();
        // It takes 7, then 23.
        let differs = |steps: &[Step]| {
            let has = |n: i32| {
                let wanted = Request::Delete("~".into(), n);
                steps.iter().position(|s| match s {
                    Step::Calls(_, requests) => requests.contains(&wanted),
                    _ => false,
                })
            };
            let (first, second) = (has(7)?, has(23)?);
            (first < second).then_some(second)
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        let short = shorten(&steps, deadline, differs);
        let delete = |n: i32| Step::Calls(0, vec![Request::Delete("~".into(), n)]);
        assert_eq!(short, [delete(7), delete(23)]);
    }
}

//! Several executors at once. Each story is told by what the shards leave behind; the
//! only times in here are the limits beyond which a test has failed.

use super::*;
use crate::io::shards::ShardGone;
use futures_util::future::join_all;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

type Log = RefCell<Vec<u32>>;

const ZERO: ShardId = ShardId(0);
const ONE: ShardId = ShardId(1);

fn config(cores: usize) -> RuntimeConfig {
    RuntimeConfig {
        cores,
        io_memory_bytes: 1 << 16,
        ..RuntimeConfig::default()
    }
}

/// Runs `story` on shard 0 of several that have an empty log each; the others only serve.
fn on_shard_zero(
    config: RuntimeConfig,
    story: impl AsyncFnOnce(Shards<Log>) + Clone + Send + 'static,
) {
    if let Err(reason) = probe::io_uring() {
        eprintln!("skipped: {reason}");
        return;
    }
    let make = async |_: Shards<Log>, _: GlommioIo| Ok::<_, Infallible>(Log::default());
    let told = Arc::new(AtomicUsize::new(0));
    let telling = told.clone();
    run(&config, make, async move |shards: Shards<Log>, _| {
        if shards.here() == ZERO {
            story(shards.clone()).await;
            telling.fetch_add(1, Ordering::Relaxed);
            shards.stop();
        }
        shards.stopping().await;
    })
    .unwrap();
    assert_eq!(told.load(Ordering::Relaxed), 1);
}

/// Fails rather than hangs.
async fn soon<T>(io: &GlommioIo, what: impl Future<Output = T>) -> T {
    let limit = pin!(io.sleep(Duration::from_secs(20)));
    match select(pin!(what), limit).await {
        Either::Left((value, _)) => value,
        Either::Right(_) => panic!("it did not happen within 20 s"),
    }
}

#[test]
fn work_starts_in_call_order_on_its_shard_and_its_own_thread() {
    on_shard_zero(config(3), async |shards| {
        assert_eq!(shards.count(), 3);
        let answers: Vec<_> = (0..100u32)
            .map(|i| {
                shards.submit_to(ONE, move |log: Rc<Log>| async move {
                    log.borrow_mut().push(i);
                    // The later ones end first.
                    GlommioIo::new()
                        .sleep(Duration::from_micros(u64::from(100 - i) * 50))
                        .await;
                    let thread = std::thread::current();
                    (i, thread.name().map(str::to_owned))
                })
            })
            .collect();
        for (i, answer) in join_all(answers).await.into_iter().enumerate() {
            assert_eq!(answer, Ok((i as u32, Some("shard-1".to_owned()))));
        }
        let log = shards
            .submit_to(ONE, |log: Rc<Log>| async move { log.take() })
            .await;
        assert_eq!(log, Ok((0..100).collect()));
        assert!(shards.local().borrow().is_empty());
    });
}

#[test]
fn a_flood_overflows_is_seen_to_and_loses_nothing() {
    const FLOOD: u32 = 20_000;
    on_shard_zero(
        RuntimeConfig {
            mailbox_len: 4,
            ..config(2)
        },
        async |shards| {
            let answers: Vec<_> = (0..FLOOD)
                .map(|i| {
                    shards.submit_to(ONE, move |log: Rc<Log>| async move {
                        log.borrow_mut().push(i);
                        i
                    })
                })
                .collect();
            // No other task of this shard ran since the first: all but what fits is here.
            assert!(
                shards.waiting_for(ONE) > FLOOD as usize / 2,
                "{}",
                shards.waiting_for(ONE)
            );
            assert_eq!(shards.waiting(), shards.waiting_for(ONE));
            let answers = join_all(answers).await;
            assert_eq!(answers, (0..FLOOD).map(Ok).collect::<Vec<_>>());
            let log = shards
                .submit_to(ONE, |log: Rc<Log>| async move { log.take() })
                .await;
            assert_eq!(log, Ok((0..FLOOD).collect()));
            assert_eq!(shards.waiting(), 0);
        },
    );
}

#[test]
fn shards_that_flood_one_another_do_not_block() {
    if probe::io_uring().is_err() {
        return;
    }
    let make = async |_: Shards<Log>, _: GlommioIo| Ok::<_, Infallible>(Log::default());
    let config = RuntimeConfig {
        mailbox_len: 2,
        ..config(3)
    };
    run(&config, make, async |shards: Shards<Log>, io| {
        let to_all = shards.ids().flat_map(|shard| {
            let shards = shards.clone();
            (0..1000u32).map(move |i| shards.submit_to(shard, move |_| async move { i }))
        });
        let answers = soon(&io, join_all(to_all.collect::<Vec<_>>())).await;
        assert_eq!(answers.len(), 3000);
        assert!(answers.iter().all(Result::is_ok));
    })
    .unwrap();
}

#[test]
fn a_shard_that_sleeps_is_woken_by_work() {
    on_shard_zero(config(2), async |shards| {
        let io = GlommioIo::new();
        for _ in 0..20 {
            // Long enough for the other one to go to sleep.
            io.sleep(Duration::from_millis(3)).await;
            assert_eq!(
                soon(&io, shards.submit_to(ONE, |_| async { 1 })).await,
                Ok(1)
            );
        }
    });
}

#[test]
fn nothing_is_served_before_every_context_is_made() {
    if probe::io_uring().is_err() {
        return;
    }
    let made = Arc::new(AtomicUsize::new(0));
    let making = made.clone();
    run(
        &config(3),
        async move |shards: Shards<Log>, io: GlommioIo| {
            // Sent while the others are still being made; done once they are.
            for shard in shards.ids().filter(|shard| *shard != shards.here()) {
                drop(shards.submit_to(shard, |log: Rc<Log>| async move {
                    log.borrow_mut().push(1);
                }));
            }
            io.sleep(Duration::from_millis(20 * u64::from(shards.here().0)))
                .await;
            making.fetch_add(1, Ordering::SeqCst);
            Ok::<_, Infallible>(Log::default())
        },
        async move |shards, io| {
            assert_eq!(
                made.load(Ordering::SeqCst),
                3,
                "a shard serves before all are made"
            );
            let all_came = async {
                while shards.local().borrow().len() < 2 {
                    io.sleep(Duration::from_millis(1)).await;
                }
            };
            soon(&io, all_came).await;
        },
    )
    .unwrap();
}

#[test]
fn where_one_context_cannot_be_made_no_shard_serves() {
    if probe::io_uring().is_err() {
        return;
    }
    let result = run(
        &config(3),
        async |shards: Shards<()>, _| match shards.here() {
            ONE => Err("the disk of shard 1 is broken"),
            _ => Ok(()),
        },
        async |_, _| panic!("it serves"),
    );
    match result {
        Err(RuntimeError::Start {
            shard: ONE,
            error: "the disk of shard 1 is broken",
        }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_panic_on_one_shard_ends_all_and_is_told() {
    if probe::io_uring().is_err() {
        return;
    }
    let make = async |_: Shards<()>, _: GlommioIo| Ok::<_, Infallible>(());
    // Shard 0 waits for an answer that will never come, shard 2 for the end.
    let result = run(&config(3), make, async |shards: Shards<()>, _| {
        if shards.here() == ZERO {
            let answer = shards
                .submit_to(ONE, |_| async { panic!("planted: {}", 41 + 1) })
                .await
                .map(|()| unreachable!("it panicked"));
            assert_eq!(answer, Err(ShardGone(ONE)));
        }
        shards.stopping().await;
    });
    match result {
        Err(RuntimeError::Panicked {
            shard: ONE,
            message,
        }) => assert_eq!(message, "planted: 42"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn any_shard_can_stop_all_and_answers_are_given_to_the_last() {
    if probe::io_uring().is_err() {
        return;
    }
    let answered = Arc::new(AtomicUsize::new(0));
    let answering = answered.clone();
    let make = async |_: Shards<()>, _: GlommioIo| Ok::<_, Infallible>(());
    run(&config(3), make, async move |shards: Shards<()>, io| {
        if shards.here() == ShardId(2) {
            shards.stop();
        }
        shards.stopping().await;
        // Shard 0 is the last to be done; by then the others have nothing more to do.
        if shards.here() == ZERO {
            io.sleep(Duration::from_millis(50)).await;
            for shard in shards.ids() {
                assert_eq!(
                    soon(&io, shards.submit_to(shard, |_| async { 5 })).await,
                    Ok(5)
                );
                answering.fetch_add(1, Ordering::Relaxed);
            }
        }
    })
    .unwrap();
    assert_eq!(answered.load(Ordering::Relaxed), 3);
}

#[test]
fn an_executor_that_cannot_be_made_is_told_and_none_starts() {
    if probe::io_uring().is_err() {
        return;
    }
    let make = async |_: Shards<()>, _: GlommioIo| Ok::<_, Infallible>(());
    // More entries than a ring may have.
    let config = RuntimeConfig {
        ring_depth: 1 << 20,
        ..config(2)
    };
    match run(&config, make, async |_: Shards<()>, _| panic!("it serves")) {
        Err(RuntimeError::Executor { reason, .. }) => assert!(!reason.is_empty()),
        other => panic!("{other:?}"),
    }
}

use super::*;

#[test]
fn pauses_double_up_to_a_bound_and_vary() {
    let check = |failures, random, expected_ms| {
        let pause = backoff(Duration::from_secs(1), Duration::from_secs(300), failures, random);
        assert_eq!(pause.as_millis(), expected_ms, "after {failures}");
    };
    check(1, 0.0, 1000);
    check(1, 0.5, 750);
    check(2, 0.0, 2000);
    check(9, 0.0, 256_000);
    check(10, 0.0, 300_000);
    check(10, 1.0, 150_000);
    check(u32::MAX, 0.0, 300_000);
}

/// `script`: s success, r refused, t target failure, c callback that failed, each noted one second after the one
/// before.
fn slots_after(script: &str) -> (usize, u32, bool) {
    let limits = DeliveryLimits::new(60, 10);
    let mut now = Instant::now();
    let mut target = Target::new(now);
    for result in script.chars() {
        now += Duration::from_secs(1);
        let result = match result {
            's' => Ok(String::new()),
            'r' => Err(Failure::Refused(String::new())),
            'c' => Err(Failure::Received(String::new())),
            _ => Err(Failure::Target(String::new())),
        };
        target.note(&result, &limits, now);
    }
    target.wake(now);
    (target.slots, target.failures, target.look_at.is_some_and(|at| at > now))
}

#[tokio::test]
async fn a_target_earns_its_slots_and_loses_them() {
    let check = |script: &str, expected: (usize, u32, bool)| assert_eq!(slots_after(script), expected, "{script:?}");
    check("", (1, 0, false));
    check("s", (2, 0, false));
    check("sss", (8, 0, false));
    check("sssss", (8, 0, false));
    check("rr", (4, 0, false));
    check("ssst", (1, 1, true));
    check("sssts", (2, 0, false));
    check("cc", (4, 0, false));
    check("tc", (2, 0, false));
}

/// Callbacks of 20 s each that are done after each 20 s, as docs/operations.md counts them.
#[tokio::test]
async fn a_slow_target_is_as_fast_as_its_document_says() {
    let limits = DeliveryLimits::new(60, 10);
    let (now, mut target) = (Instant::now(), Target::new(Instant::now()));
    let mut done = 0;
    let mut rounds = Vec::new();
    while done < 100 {
        let under_way = target.slots.min(100 - done);
        (0..under_way).for_each(|_| target.note(&Err(Failure::Received(String::new())), &limits, now));
        done += under_way;
        rounds.push(done);
    }
    assert_eq!((&rounds[..4], rounds.len()), (&[1, 3, 11, 19][..], 15), "15 times 20 s are five minutes");

    let document = include_str!("../../../../../../docs/operations.md");
    let pause = limits.target_pause_max.as_secs();
    let (slots, attempts) = (limits.per_target_max, limits.in_flight_max);
    for said in [
        format!("**up to {slots}**"),
        format!("**up to {pause} s**"),
        format!("**{attempts} attempts**"),
        format!("{} s to connect and **20 s** in all", send::CALLBACK_CONNECT.as_secs()),
        format!("P0 to P{} go first", plan::LOW_PRIORITY - 1),
    ] {
        assert!(document.contains(&said), "{said}");
    }
}

#[tokio::test]
async fn attempts_that_fail_together_are_one_failure() {
    let limits = DeliveryLimits::new(60, 10);
    let now = Instant::now();
    let mut target = Target::new(now);
    for _ in 0..8 {
        target.note(&Err(Failure::Target(String::new())), &limits, now);
    }
    assert_eq!(target.failures, 1);
    assert!(target.paused_until.is_some_and(|until| until <= now + limits.first_pause));
}

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

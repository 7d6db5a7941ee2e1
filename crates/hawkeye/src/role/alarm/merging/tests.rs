//! What is merged, what it says then, and that a crash loses and repeats nothing.

use super::*;
use crate::portal::db::query;
use crate::role::alarm::tests::{Got, Receiver, Site, event, site, with_priority};
use model::{Event, Status};
use std::collections::BTreeMap;

/// A site whose team has im1 and two mail addresses, with gateways for both ways, which merges when it is told to.
async fn merging_site(receiver: &Receiver) -> Site {
    let mut site = site().await;
    site.config.alarm.merge = 3600;
    site.config.alarm.im = format!("{}/im", receiver.url);
    site.config.alarm.mail = format!("{}/mail", receiver.url);
    site.config.alarm.dashboard = "http://dash/".into();
    site.action(1, "ops", "", "").await;
    site
}

fn low(host: &str, status: Status) -> Event {
    with_priority(event(1, host, status, 1), 4)
}

/// Texts that arrive, by receiver: an instant message's, or a mail's subject.
async fn arrived(receiver: &mut Receiver, count: usize) -> BTreeMap<String, Vec<Got>> {
    let mut all: BTreeMap<String, Vec<Got>> = BTreeMap::new();
    for _ in 0..count {
        let got = receiver.next().await;
        all.entry(got.field("tos").to_string()).or_default().push(got);
    }
    all
}

#[tokio::test]
async fn what_says_the_same_becomes_one_message() {
    let mut receiver = Receiver::start().await;
    let site = merging_site(&receiver).await;
    let events = ["a", "b", "c"].map(|host| low(host, Status::Problem));
    site.queue.append(&events).expect("append");
    site.queue.append(&[low("a", Status::Ok)]).expect("append");
    // A high priority does not wait.
    site.queue.append(&[with_priority(event(1, "h", Status::Problem, 1), 2)]).expect("append");
    let (mut alarm, counters) = site.alarm().await;
    alarm.step().await;
    let high = arrived(&mut receiver, 2).await;
    assert_eq!(high.keys().map(String::as_str).collect::<Vec<_>>(), ["im1", "u1@x,u2@x"]);
    assert_eq!(site.count("hawkeye_delivery WHERE target = 'merge'").await, 12, "four events for three receivers");

    alarm.merging.at = Some(Instant::now());
    let running = site.run(alarm, counters.clone());
    let got = arrived(&mut receiver, 6).await;
    running.stop().await;
    assert_eq!((counters.merged.get(), site.count("hawkeye_delivery").await), (9, 0));
    let im: Vec<&str> = got["im1"].iter().map(|got| got.field("content")).collect();
    let path: String = query("SELECT path FROM falcon_portal.alert_link").one(&site.portal).await.expect("one link");
    let merged = format!("[P4][PROBLEM] 3 cpu.idle e.g. a http://dash/portal/links/{path} ");
    assert_eq!(im, [merged, message::short(&low("a", Status::Ok))]);
    let kept = link::find(&site.portal, &path).await.expect("a portal").expect("kept");
    assert_eq!(kept, events.each_ref().map(message::short).join(",,"));
    for to in ["u1@x", "u2@x"] {
        let mails = &got[to];
        assert_eq!(mails[0].field("subject"), "[P4][PROBLEM] 3 cpu.idle");
        let contents = events.each_ref().map(|event| message::mail(event, "http://dash/"));
        assert_eq!(mails[0].field("content"), contents.join("\r\n"));
        assert_eq!(mails[1].field("subject"), message::short(&low("a", Status::Ok)));
        assert_eq!(mails[1].field("content"), message::mail(&low("a", Status::Ok), "http://dash/"));
    }
}

/// A kill before the merge leaves rows, one behind it leaves deliveries; each arrives once.
#[tokio::test]
async fn what_waits_survives_a_kill_and_arrives_once() {
    let mut receiver = Receiver::start().await;
    let mut site = merging_site(&receiver).await;
    site.config.alarm.mail = String::new();
    site.queue.append(&["a", "b"].map(|host| low(host, Status::Problem))).expect("append");
    let (mut alarm, _) = site.alarm().await;
    alarm.step().await;
    drop(alarm);
    assert_eq!(site.count("hawkeye_delivery WHERE target = 'merge'").await, 2);
    let (mut alarm, _) = site.alarm().await;
    alarm.merging.merge(&mut alarm.deliverer).await.expect("merged");
    assert_eq!(site.count("hawkeye_delivery WHERE target = 'im'").await, 1);
    site.queue.append(&[low("d", Status::Problem)]).expect("append");
    alarm.intake.step(&mut alarm.deliverer).await.expect("stored");
    drop(alarm);
    // Merging is off now: what an earlier run has left is merged at once.
    site.config.alarm.merge = 0;
    site.queue.append(&[low("c", Status::Problem)]).expect("append");
    let running = site.start().await;
    let got = arrived(&mut receiver, 3).await;
    running.stop().await;
    let mut texts: Vec<&str> = got["im1"].iter().map(|got| got.field("content")).collect();
    texts.sort_unstable();
    assert!(texts[0].starts_with("[P4][PROBLEM] 2 cpu.idle e.g. a "), "{texts:?}");
    assert_eq!(texts[1..], ["c", "d"].map(|host| message::short(&low(host, Status::Problem))));
    assert_eq!(site.count("hawkeye_delivery").await, 0);
}

/// What is given up is told with the cases of all that were merged.
#[tokio::test]
async fn cases_learn_what_became_of_a_merged_message() {
    let receiver = Receiver::start().await;
    let mut site = merging_site(&receiver).await;
    site.config.alarm.im = String::new();
    site.config.alarm.mail = String::new();
    site.config.alarm.smtp.host = "127.0.0.1".to_string();
    crate::portal::tests::run(&site.portal, "UPDATE uic.user SET email = 'no address' WHERE id = 1")
        .await
        .expect("row");
    site.queue.append(&["a", "b"].map(|host| low(host, Status::Problem))).expect("append");
    let (mut alarm, counters) = site.alarm().await;
    alarm.step().await;
    alarm.merging.merge(&mut alarm.deliverer).await.expect("merged");
    assert_eq!(site.count("hawkeye_delivery WHERE target = 'smtp'").await, 2);
    let running = site.run(alarm, counters.clone());
    let given_up = || counters.count(Kind::Smtp, Ended::GivenUp) == 1;
    net::patience::until("a mail to no address", async || given_up()).await;
    running.stop().await;
    assert_eq!(site.count("event_cases WHERE told LIKE 'smtp failed: mail address%'").await, 2);
    // So are those of one that goes for its number.
    let mut transaction = site.portal.write().await.expect("a portal");
    assert_eq!(delivery::drop_oldest(&mut transaction, 9).await.expect("dropped"), 1);
    transaction.commit().await.expect("commit");
    assert_eq!(site.count("event_cases WHERE told LIKE 'messages were given up:%'").await, 2);
}

#[test]
fn a_message_merges_so_many_and_so_much() {
    let row = |id: i64, lane: &str, status: &str, bytes: usize| {
        let waiting = Waiting {
            to: lane.to_string(),
            metric: "m".to_string(),
            status: status.to_string(),
            case: format!("case {id}"),
            subject: String::new(),
            content: "x".repeat(bytes),
        };
        Delivery {
            id,
            target: MERGE.to_string(),
            kind: Some(Kind::Im),
            lane: lane.to_string(),
            body: serde_json::to_string(&waiting).expect("JSON"),
            attempts: 0,
            priority: 3,
            created_at: 0,
            begun_at: 0,
        }
    };
    let sizes = |rows: &[Delivery]| groups(rows).iter().map(|group| group.messages.len()).collect::<Vec<_>>();
    let many: Vec<Delivery> = (0..450).map(|id| row(id, "a", "PROBLEM", 10)).collect();
    assert_eq!(sizes(&many), [200, 200, 50]);
    let large: Vec<Delivery> = (0..5).map(|id| row(id, "a", "PROBLEM", 20 << 10)).collect();
    assert_eq!(sizes(&large), [2, 2, 1]);
    let mixed = [
        row(1, "a", "PROBLEM", 1),
        row(2, "a", "OK", 1),
        row(3, "a", "PROBLEM", 1),
        row(4, "b", "PROBLEM", 1),
        Delivery { body: "{}".to_string(), ..row(5, "b", "PROBLEM", 1) },
    ];
    assert_eq!(sizes(&mixed), [2, 1, 1]);
}

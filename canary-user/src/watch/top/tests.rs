//! The screen against a real server, at 80 by 24.

use std::sync::Arc;

use ratatui::backend::TestBackend;
use tokio::sync::watch;

use super::*;
use crate::{
    control,
    watch::{
        Board, Snapshot, server,
        story::{self, DEPLOYMENT},
    },
};

/// A server on the story, and what feeds it.
async fn guard() -> (String, watch::Sender<Arc<Snapshot>>, Board) {
    let listener = server::bind("127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    let (sources, snapshots, board) = sources();
    tokio::spawn(server::serve(listener, sources, std::future::pending()));
    (address, snapshots, board)
}

fn sources() -> (server::Sources, watch::Sender<Arc<Snapshot>>, Board) {
    let (snapshots, receiver) = watch::channel(Arc::<Snapshot>::default());
    let board = Board::default();
    let sources = server::Sources {
        metrics: Default::default(),
        snapshots: receiver,
        board: board.clone(),
        journal: None,
        tls: None,
        commands: axum::Router::new(),
        takes_commands: false,
    };
    (sources, snapshots, board)
}

fn play(index: u64, snapshots: &watch::Sender<Arc<Snapshot>>, board: &Board) {
    (0..=index).for_each(|i| board.record(&story::snapshot(i)));
    let verdict = story::snapshot(index).deployments[DEPLOYMENT].verdict.clone();
    board.tell(crate::guard::Entry::Verdict { deployment: DEPLOYMENT.into(), unix_ms: 1_800_000_020_000, verdict });
    snapshots.send_replace(Arc::new(story::snapshot(index)));
}

fn screen(top: &Top, width: u16, rows: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, rows)).expect("a terminal");
    top.draw(&mut terminal).expect("draws");
    let buffer = terminal.backend().buffer();
    let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..rows).map(|y| format!("{}\n", row(y).trim_end())).collect()
}

async fn press(top: &mut Top, code: KeyCode) -> bool {
    top.key(KeyEvent::new(code, KeyModifiers::NONE)).await
}

#[track_caller]
fn has(screen: &str, parts: &[&str]) {
    for part in parts {
        assert!(screen.contains(part), "'{part}' is not on the screen:\n{screen}");
    }
}

#[tokio::test]
async fn every_pane_fits_80_by_24() {
    let (address, snapshots, board) = guard().await;
    play(story::DECIDED + 8, &snapshots, &board);
    let mut top = Top::new(Client::new(&address, None, Trusted::Machine).expect("valid"), None);
    top.look().await;
    let overview = screen(&top, 80, 24);
    has(
        &overview,
        &[
            "checkout regressed, gone",
            " It was worse, and is gone ",
            "evidence",
            "CPU per turnaround",
            "proven",
            "rollback done and verified",
            "canary v1.5.0 (none running)",
            "q quit",
            "? help",
            "08:00:20 regressed",
        ],
    );
    assert!(overview.contains("▁") && overview.contains("█"), "P(t) over time, from the server's memory:\n{overview}");
    press(&mut top, KeyCode::Enter).await;
    has(
        &screen(&top, 80, 24),
        &[
            "Likely causes",
            "more work per request",
            "ruled out",
            "memory stall          not measured: this kernel has no memory.pressure file",
            "█ proven",
            "Out of its own usual band",
            "08:00:15  canary: CPU per turnaround +31 % since window 60 (so far: step)",
        ],
    );
    press(&mut top, KeyCode::Char('l')).await;
    has(&screen(&top, 80, 24), &["regressed: CPU per turnaround"]);
    press(&mut top, KeyCode::Char('?')).await;
    has(&screen(&top, 80, 24), &["pause the guard", "scroll"]);
    assert!(press(&mut top, KeyCode::Esc).await, "closes the pane first");
    assert!(!press(&mut top, KeyCode::Esc).await, "and then ends");
}

#[tokio::test]
async fn what_to_do_next_stands_at_80_by_24_and_what_was_said_does_not_stay() {
    let (address, snapshots, board) = guard().await;
    play(story::DECIDED + 8, &snapshots, &board);
    let mut top = Top::new(Client::new(&address, None, Trusted::Machine).expect("valid"), None);
    top.look().await;
    has(
        &screen(&top, 80, 24),
        &[
            " It was worse, and is gone   more work per request: CPU per turnaround +31 %",
            "next                  Nothing: mend it before the next rollout",
        ],
    );
    // The guard may not act, another deployment is watched, and something is not measured.
    let mut snapshot = story::snapshot(story::DECIDED);
    snapshot.quality.hooks_missing = vec!["mark_victim: no such tracepoint".to_owned()];
    let mut other = snapshot.deployments[DEPLOYMENT].clone();
    let view = snapshot.deployments.get_mut(DEPLOYMENT).expect("the story's deployment");
    view.verdict.recommendations = story::recommendations();
    view.verdict.recommendations[0].command =
        Some("xargs kill -TERM <'/sys/fs/cgroup/unified/shop/canary-1/cgroup.procs'".to_owned());
    let decision = view.decision.as_mut().expect("decided");
    decision.stage = crate::guard::Stage::Blocked;
    let reason = "mode is observe: says that it would roll back and does nothing".to_owned();
    decision.decision.gates = vec![crate::guard::GateResult { gate: "mode".into(), passed: false, reason }];
    other.verdict = story::snapshot(50).deployments[DEPLOYMENT].verdict.clone();
    snapshot.deployments.insert("aaa".into(), other);
    snapshots.send_replace(Arc::new(snapshot));
    top.look().await;
    let text = screen(&top, 80, 24);
    has(
        &text,
        &[
            "aaa healthy",
            "decision              rollback not done  mode is observe: says that it would",
            "roll back and does nothing",
            "next                  Take the canary back\n",
            "\nxargs kill -TERM <'/sys/fs/cgroup/unified/shop/canary-1/cgroup.procs'\n",
            "not measured here: mark_victim",
        ],
    );
    assert!(!text.contains("also watched"), "the tabs say it:\n{text}");
    press(&mut top, KeyCode::Char('a')).await;
    has(&screen(&top, 80, 24), &["nothing waits for approval"]);
    for _ in 0..=SAID_LOOKS {
        top.look().await;
    }
    assert!(!screen(&top, 80, 24).contains("nothing waits for approval"));
}

#[tokio::test]
async fn a_canary_that_is_gone_is_told_in_the_words_of_the_page_and_alarms_nobody() {
    use ratatui::style::Color;
    let (address, snapshots, board) = guard().await;
    let mut top = Top::new(Client::new(&address, None, Trusted::Machine).expect("valid"), None);
    top.palette = Palette::Colour;
    for (index, word, tab, alarms) in [
        (story::DECIDED, " REGRESSED ", "checkout regressed", true),
        (story::DECIDED + 8, " It was worse, and is gone ", "checkout regressed, gone", false),
    ] {
        play(index, &snapshots, &board);
        top.look().await;
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("a terminal");
        top.draw(&mut terminal).expect("draws");
        has(&screen(&top, 80, 24), &[word, tab]);
        let buffer = terminal.backend().buffer();
        let is_red = |x: u16| buffer[(x, 0)].fg == Color::Red;
        assert_eq!((0..80).any(is_red), alarms, "the tab of {word}");
        assert_eq!(buffer.content().iter().any(|cell| cell.bg == Color::Red), alarms, "{word}");
    }
}

#[tokio::test]
async fn of_many_deployments_the_chosen_one_and_a_pause_are_on_the_screen() {
    let (address, snapshots, board) = guard().await;
    let mut snapshot = story::snapshot(50);
    let one = snapshot.deployments[DEPLOYMENT].clone();
    for n in 0..12 {
        snapshot.deployments.insert(format!("service-{n:02}").into(), one.clone());
    }
    snapshot.paused = Some("by root".to_owned());
    board.record(&snapshot);
    snapshots.send_replace(Arc::new(snapshot));
    let tabs = |top: &Top| screen(top, 80, 24).lines().next().unwrap_or_default().to_owned();
    let client = || Client::new(&address, None, Trusted::Machine).expect("valid");
    let mut first = Top::new(client(), Some(DEPLOYMENT.to_owned()));
    first.look().await;
    assert!(tabs(&first).starts_with(" PAUSED   checkout healthy   service-00 healthy"), "{}", tabs(&first));
    let mut last = Top::new(client(), Some("service-11".to_owned()));
    last.look().await;
    assert!(tabs(&last).starts_with(" PAUSED   … service-"), "{}", tabs(&last));
    assert!(tabs(&last).ends_with("service-11 healthy"), "{}", tabs(&last));
}

#[tokio::test]
async fn what_goes_on_is_listed_before_what_is_over_and_only_the_latest() {
    let (address, snapshots, board) = guard().await;
    play(story::DECIDED, &snapshots, &board);
    let mut top = Top::new(Client::new(&address, None, Trusted::Machine).expect("valid"), None);
    top.look().await;
    let stretches = &mut top.model.shown.as_mut().expect("a deployment").verdict.stretches;
    let over = |n: u64| crate::judge::Stretch { end: Some(n), text: format!("over in {n}"), ..stretches[0].clone() };
    let mut all: Vec<_> = (71..77).map(over).collect();
    all.insert(0, stretches[0].clone());
    *stretches = all;
    press(&mut top, KeyCode::Char('d')).await;
    let text = screen(&top, 80, 40);
    let listed: Vec<&str> = text
        .lines()
        .skip_while(|line| *line != "Out of its own usual band")
        .map(|line| line.strip_prefix("08:00:15  ").unwrap_or(line))
        .collect();
    assert!(listed[1].contains("since window 60"), "{text}");
    assert_eq!(listed[2..5], ["over in 76", "over in 75", "over in 74"], "{text}");
    assert_eq!(listed[5], "3 before: `canary report` or the page");
}

#[tokio::test]
async fn each_recommendation_has_its_command_on_a_line_of_its_own() {
    let (address, snapshots, board) = guard().await;
    play(story::DECIDED, &snapshots, &board);
    let mut top = Top::new(Client::new(&address, None, Trusted::Machine).expect("valid"), None);
    top.look().await;
    top.model.shown.as_mut().expect("a deployment").verdict.recommendations = story::recommendations();
    press(&mut top, KeyCode::Enter).await;
    let text = screen(&top, 80, 40);
    let listed: Vec<&str> = text.lines().skip_while(|line| *line != "Recommendations").collect();
    // The reason of the first is that of the cause above it.
    let told = [
        "1. roll back (risk medium, confidence high)",
        "   systemctl stop 'checkout-canary-1.service'",
        "   undo: deploy the canary again",
        "   unless the rise is meant and paid for",
        "2. throttle (risk medium, confidence medium): keeps its extra work from others",
        "   systemctl set-property --runtime 'checkout-canary-1.service' CPUQuota=50%",
        "   undo: lift the limit again",
        "   unless its users notice",
    ];
    assert!(listed.len() > told.len(), "{text}");
    assert_eq!(listed[1..=told.len()], told, "{text}");
}

#[tokio::test]
async fn commands_are_asked_for_and_what_came_of_them_is_told() {
    let (address, snapshots, board) = guard().await;
    play(50, &snapshots, &board);
    let mut top = Top::new(Client::new(&address, None, Trusted::Machine).expect("valid"), None);
    top.look().await;
    press(&mut top, KeyCode::Char('p')).await;
    has(&screen(&top, 100, 24), &["Pause the guard: no action is begun"]);
    press(&mut top, KeyCode::Char('n')).await;
    assert!(top.asked.is_none() && top.said.is_none(), "not said yes to");
    press(&mut top, KeyCode::Char('a')).await;
    has(&screen(&top, 80, 24), &["nothing waits for approval"]);
    press(&mut top, KeyCode::Char('p')).await;
    press(&mut top, KeyCode::Char('y')).await;
    assert!(top.said.is_some(), "whatever the guard says of it is told");
}

#[tokio::test]
async fn over_the_socket_a_decision_is_approved_by_a_key_and_without_a_token() {
    let dir = tempfile::tempdir().expect("a directory");
    let api = crate::config::ApiConfig { socket: dir.path().join("canary.sock"), ..Default::default() };
    let socket = control::bind(&api).await.expect("a free place");
    let (to_line, mut requests) = control::channel();
    let routes = control::routes(to_line, control::Access::Peer { group: None }, None);
    let (mut sources, snapshots, board) = sources();
    sources.commands = routes;
    tokio::spawn(socket.serve(server::routes(sources), std::future::pending()));

    play(story::DECIDED, &snapshots, &board);
    let mut snapshot = story::snapshot(story::DECIDED);
    let view = snapshot.deployments.get_mut(DEPLOYMENT).and_then(|d| d.decision.as_mut()).expect("decided");
    let reason = "a person has to approve it".to_owned();
    view.decision.gates.push(crate::guard::GateResult { gate: "approval".into(), passed: false, reason });
    let id = view.decision.id.clone();
    snapshots.send_replace(Arc::new(snapshot));

    let mut top = Top::new(Client::over_socket(&api.socket), None);
    top.look().await;
    has(
        &screen(&top, 100, 24),
        &["checkout regressed", "Approve it, or take the canary back by hand", "canary approve"],
    );
    press(&mut top, KeyCode::Char('a')).await;
    has(&screen(&top, 100, 24), &[&format!("Approve {id}: the guard may carry it out?")]);
    let line = tokio::spawn(async move {
        let request = requests.recv().await.expect("a command");
        request.answer.send(Ok(control::Reply::done("Approved."))).expect("it is waited for");
        (request.command, request.by)
    });
    press(&mut top, KeyCode::Char('y')).await;
    assert_eq!(top.said.as_deref(), Some("Approved."));
    let (command, by) = line.await.expect("no panic");
    assert_eq!(command, control::Command::Approve { id });
    assert!(by == "root" || by.starts_with("uid "), "the kernel says who asks: {by}");

    let nobody = dir.path().join("nobody.sock");
    let mut top = Top::new(Client::over_socket(&nobody), None);
    top.look().await;
    assert!(top.said.as_deref().is_some_and(|s| s.contains("no guard listens at") && s.contains("--socket")));
}

#[tokio::test]
async fn a_guard_with_tls_is_watched_by_who_trusts_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let test = "a_guard_with_tls_is_watched_by_who_trusts_it";
    let Some(files) = server::tests::certificate(test, dir.path()) else { return };
    let listener = server::bind("127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let (mut sources, snapshots, board) = sources();
    sources.tls = Some(server::tls::load(&files).expect("certificate and key"));
    tokio::spawn(server::serve(listener, sources, std::future::pending()));
    play(story::DECIDED, &snapshots, &board);
    let secure = format!("https://localhost:{port}");
    let trusted = Trusted::File(&files.certificate);
    let mut top = Top::new(Client::new(&secure, None, trusted).expect("a certificate"), None);
    top.look().await;
    has(&screen(&top, 80, 24), &["checkout regressed", " REGRESSED "]);
    // Another certificate, and no TLS at all.
    let other = tempfile::tempdir().expect("a directory");
    let Some(others) = server::tests::certificate(test, other.path()) else { return };
    let stranger = Client::new(&secure, None, Trusted::File(&others.certificate)).expect("a certificate");
    let plain = Client::new(&format!("127.0.0.1:{port}"), None, Trusted::Machine).expect("an address");
    for client in [stranger, plain] {
        let mut top = Top::new(client, None);
        top.look().await;
        let said = top.said.clone().unwrap_or_default();
        assert!(said.starts_with(LOST) && said.contains("With [tls] it is https://"), "{said}");
    }
    let error = Client::new(&secure, None, Trusted::File(&files.key)).expect_err("a key is no certificate");
    assert!(format!("{error:#}").contains("key.pem"), "{error:#}");
}

#[tokio::test]
async fn a_guard_that_does_not_answer_is_said_and_its_return_too() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = nobody.local_addr().expect("an address").to_string();
    drop(nobody);
    let mut top = Top::new(Client::new(&address, None, Trusted::Machine).expect("valid"), None);
    top.look().await;
    let text = screen(&top, 80, 24);
    has(&text, &["the guard does not answer", &address, "is it the configuration's 'listen'?"]);
}

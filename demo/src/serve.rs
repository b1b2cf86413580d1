//! One instance of the service: HTTP/1.1 on one thread. What a request does is in [`service`](crate::service).
//!
//! Goes in: requests, and [orders](crate::fault::Order) on standard input. Comes out: its address as the first line of standard output,
//! then answers. Ends when standard input closes (its supervisor is gone) or on SIGTERM, after the requests in flight.
//! Started by somebody else than the demo, orders and address go through the [registry](crate::registry).

use std::{
    error::Error as _,
    hint::black_box,
    io::{self, BufRead, Write},
    net::SocketAddr,
    path::PathBuf,
    pin::pin,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::Context;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustix::process::DumpableBehavior;
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    registry::Registration,
    service::{BASE_HEAP_BYTES, Broken, Equipment, Service},
};

/// After SIGTERM, with a registry: for everybody to see that no new connections are wanted. They are served for so long.
const LEAVING: Duration = Duration::from_millis(500);
/// After SIGTERM: for the runtime to learn of a connection that waits to be accepted.
const QUEUED: Duration = Duration::from_millis(5);
/// After SIGTERM: for a request that is on its way on an open connection.
const LAST_REQUEST: Duration = Duration::from_millis(50);

/// Serves until SIGTERM or the end of standard input, with a registry until the demo is gone; there it is ready after that time.
pub async fn serve(
    listen: SocketAddr,
    equipment: Equipment,
    registry: Option<(PathBuf, Duration)>,
) -> anyhow::Result<()> {
    // Crashing is part of the demo; a core file each time is not.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).context("forbid core dumps")?;
    let heap = vec![1u8; BASE_HEAP_BYTES];
    let service = Arc::new(Service::new(equipment)?);
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("listen on {listen}"))?;
    let address = listener.local_addr().context("own address")?;
    let (registration, mut orders) = match registry {
        Some((dir, ready_after)) => {
            sleep(ready_after).await;
            let (registration, orders) = Registration::enter(&dir, address)?;
            (Some(registration), orders)
        }
        None => {
            println!("{address}");
            io::stdout().flush().context("write the address")?;
            (None, read_orders())
        }
    };
    let mut told_to_end = pin!(async {
        terminate.recv().await;
        if let Some(registration) = registration {
            registration.leave();
            sleep(LEAVING).await;
        }
    });
    let (stop, stopping) = watch::channel(());
    let mut connections = JoinSet::new();
    let result = loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.context("accept a connection")?;
                connections.spawn(connection(stream, service.clone(), stopping.clone()));
            }
            line = orders.recv() => match line {
                Some(line) => {
                    let order = serde_json::from_str(&line).with_context(|| format!("read the order '{line}'"));
                    if let Err(e) = order.and_then(|order| service.obey(order)) {
                        break Err(e);
                    }
                }
                None => break Ok(()),
            },
            () = &mut told_to_end => break Ok(()),
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    };
    // Whoever is in the listener's queue has been told that it is connected: closing now would break that off.
    while let Ok(Ok((stream, _))) = timeout(QUEUED, listener.accept()).await {
        connections.spawn(connection(stream, service.clone(), stopping.clone()));
    }
    drop(listener);
    drop(stop);
    while connections.join_next().await.is_some() {}
    black_box(heap);
    result
}

/// Lines of standard input. On a thread of its own, because a blocked read must not keep the runtime from ending.
fn read_orders() -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

async fn connection(stream: TcpStream, service: Arc<Service>, mut stopping: watch::Receiver<()>) {
    // A second handle on the socket, to ask for a reset once hyper has given the connection up.
    let Ok(second) = SockRef::from(&stream).try_clone() else { return };
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let answer = service_fn(move |request| {
        let service = service.clone();
        async move { service.answer(request).await }
    });
    let mut serving = pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    let result = tokio::select! {
        result = serving.as_mut() => result,
        // Fails only once the sender is dropped, and that is the sign.
        _ = stopping.changed() => match timeout(LAST_REQUEST, serving.as_mut()).await {
            Ok(result) => result,
            Err(_) => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        },
    };
    let Err(e) = result else { return };
    match e.source().and_then(|source| source.downcast_ref()) {
        // A close with a linger time of 0 sends RST. It fails only on a socket that is closed already.
        Some(Broken::Reset) => drop(second.set_linger(Some(Duration::ZERO))),
        Some(broken) => eprintln!("canary-demo serve: {broken}"),
        // The client went away, or is about to be told by hyper what it did wrong.
        None => {}
    }
}

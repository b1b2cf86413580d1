//! `/api/v1/events`: what happens, as server-sent events. Those who read too slowly miss windows, never news of the last
//! minutes; the line waits for nobody.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    response::sse::{Event, KeepAlive, Sse},
};
use futures_util::{Stream, stream};
use tokio::sync::{
    broadcast::{self, error::RecvError},
    watch,
};

use super::Api;
use crate::watch::{News, Snapshot, api::WindowEvent};

/// A stream that never ends: `window` after each window (a [`WindowEvent`]), `verdict` on a change of verdict, `decision`
/// when a decision comes to a new stage. The data is JSON.
#[utoipa::path(
    get, path = "/api/v1/events",
    responses((status = 200, description = "events `window`, `verdict` and `decision`", content_type = "text/event-stream", body = String))
)]
pub async fn events(State(api): State<Api>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let mut snapshots = api.snapshots.clone();
    // The latest window is the first event: a page need not wait for the next.
    snapshots.mark_changed();
    let events = stream::unfold((snapshots, api.board.listen()), |(mut snapshots, mut news)| async move {
        let event = next(&mut snapshots, &mut news).await?;
        Some((Ok(event), (snapshots, news)))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
}

/// `None` once the guard ends, so that a reader does not hold it up.
async fn next(snapshots: &mut watch::Receiver<Arc<Snapshot>>, news: &mut broadcast::Receiver<News>) -> Option<Event> {
    loop {
        let event = tokio::select! {
            biased;
            heard = news.recv() => match heard {
                Ok(News::Verdict(change)) => Event::default().event("verdict").json_data(&*change),
                Ok(News::Decision(life)) => Event::default().event("decision").json_data(&*life),
                // The windows tell it.
                Ok(News::Gone { .. }) => continue,
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return None,
            },
            changed = snapshots.changed() => {
                changed.ok()?;
                let snapshot = snapshots.borrow_and_update().clone();
                if snapshot.sequence == 0 {
                    continue;
                }
                let id = snapshot.sequence.to_string();
                Event::default().event("window").id(id).json_data(WindowEvent::from(&*snapshot))
            }
        };
        match event {
            Ok(event) => return Some(event),
            Err(error) => tracing::warn!("write an event: {error}"),
        }
    }
}

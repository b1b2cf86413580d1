//! The line between an instance and the load, which may lose packets on their way to the load: a filter on the load's own sockets
//! drops them before TCP sees them. Nobody acknowledges them, and the instance's kernel sends them again.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use socket2::{SockFilter, SockRef};
use tokio::net::TcpStream;

/// Instructions of classic BPF: `BPF_LD | BPF_W | BPF_ABS`, `BPF_JMP | BPF_JGE | BPF_K` and `BPF_RET | BPF_K` of
/// linux/bpf_common.h.
const LOAD_WORD: u16 = 0x20;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;
/// `SKF_AD_OFF + SKF_AD_RANDOM` of linux/filter.h: no place in a packet, but a random number of 32 bits.
const RANDOM: u32 = 0xffff_f038;
/// How many bytes of a packet a filter keeps.
const NOTHING: u32 = 0;
const EVERYTHING: u32 = u32::MAX;

/// What a line does. It loses nothing until it is told to.
#[derive(Default)]
pub(super) struct Line {
    /// A packet is lost where a random number of 32 bits is less.
    lost_below: AtomicU32,
}

impl Line {
    /// From here on it loses this share of the packets, 0 to 1, whichever they are.
    pub fn lose(&self, share: f64) {
        // What is beyond an integer's ends is cast to the end.
        self.lost_below.store((share * f64::from(u32::MAX)) as u32, Relaxed);
    }
}

/// A line's end at one connection.
pub(super) struct LineEnd {
    line: Arc<Line>,
    /// As in the connection's filter; 0 where it has none.
    lost_below: u32,
}

impl LineEnd {
    pub fn of(line: Arc<Line>) -> Self {
        Self { line, lost_below: 0 }
    }

    /// Makes the connection lose what the line loses by now.
    ///
    /// # Errors
    /// A kernel that does not take the filter.
    pub fn follow(&mut self, stream: &TcpStream) -> io::Result<()> {
        let lost_below = self.line.lost_below.load(Relaxed);
        if lost_below == self.lost_below {
            return Ok(());
        }
        let filter = [
            SockFilter::new(LOAD_WORD, 0, 0, RANDOM),
            // Passes over one instruction.
            SockFilter::new(JUMP_IF_AT_LEAST, 1, 0, lost_below),
            SockFilter::new(RETURN, 0, 0, NOTHING),
            SockFilter::new(RETURN, 0, 0, EVERYTHING),
        ];
        SockRef::from(stream).attach_filter(&filter)?;
        self.lost_below = lost_below;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        time::timeout,
    };

    use super::*;

    #[tokio::test]
    async fn what_a_line_loses_arrives_only_once_it_is_sent_again() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("listen");
        let mut near = TcpStream::connect(listener.local_addr().expect("it is bound")).await.expect("connect");
        let (mut far, _) = listener.accept().await.expect("accept");
        let line = Arc::new(Line::default());
        let mut end = LineEnd::of(line.clone());

        line.lose(1.0);
        end.follow(&near).expect("a filter");
        far.write_all(b"lost").await.expect("write");
        let mut read = [0; 4];
        let arrived = timeout(Duration::from_millis(100), near.read_exact(&mut read)).await;
        assert!(arrived.is_err(), "everything is lost: {arrived:?}");

        line.lose(0.0);
        end.follow(&near).expect("another filter");
        near.read_exact(&mut read).await.expect("it is sent again");
        assert_eq!(&read, b"lost");
    }
}

//! Who is asked for a name, and who is reached by it.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    sync::{Arc, Mutex},
    thread,
};

/// The paths that were posted to a receiver, which answers 200 to each.
pub struct Requests(Arc<Mutex<Vec<String>>>);

impl Requests {
    pub fn of(listener: TcpListener) -> Self {
        let paths = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&paths);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if let Some(path) = answer(stream) {
                    seen.lock().expect("no thread panics with it").push(path);
                }
            }
        });
        Self(paths)
    }

    pub fn saw(&self, path: &str) -> bool {
        self.0.lock().expect("no thread panics with it").iter().any(|seen| seen == path)
    }
}

/// Takes one request with its body, so that the answer is not a reset.
fn answer(stream: TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    reader.read_exact(&mut vec![0; length]).ok()?;
    let mut stream = reader.into_inner();
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok()?;
    first.split(' ').nth(1).map(str::to_owned)
}

/// A name server that knows one name, whose address is the loopback's (RFC 1035).
pub fn answer_for(server: UdpSocket, name: &'static str) {
    thread::spawn(move || {
        let mut packet = [0; 512];
        while let Ok((length, from)) = server.recv_from(&mut packet) {
            if let Some(answer) = dns_answer(&packet[..length], name) {
                // Who does not get it asks again.
                let _ = server.send_to(&answer, from);
            }
        }
    });
}

/// None for what is no question.
fn dns_answer(query: &[u8], name: &str) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    const A: [u8; 2] = [0, 1];
    let mut labels: Vec<u8> = Vec::new();
    for label in name.split('.') {
        labels.push(u8::try_from(label.len()).ok()?);
        labels.extend(label.bytes());
    }
    labels.push(0);
    let end = HEADER + query.get(HEADER..)?.iter().position(|byte| *byte == 0)? + 1;
    let known = query[HEADER..end].eq_ignore_ascii_case(&labels);
    let address = known && query.get(end..end + 2)? == A;
    let mut answer = query[..2].to_vec();
    // An answer by who has the say; no such name where it is another.
    answer.extend([0x85, if known { 0x80 } else { 0x83 }, 0, 1, 0, u8::from(address), 0, 0, 0, 0]);
    answer.extend(query.get(HEADER..end + 4)?);
    if address {
        // The name of the question, type A, class IN, for no time, four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        answer.extend(Ipv4Addr::LOCALHOST.octets());
    }
    Some(answer)
}

//! What the streamed sessions of the measurements run: a server of answers and pictures from memory, as little as it can be,
//! so that the streams are measured and not it. It is this program again, started by the agent.
//!
//! One port speaks both protocols. Whoever says `GET` gets `/bytes/<number>` bytes; whoever says `RFB` gets a picture for
//! each request (RFC 6143). A real desktop speaks first: this one waits for the viewer's version, to know which it is.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
};

use anyhow::Context;

/// Bytes written at once.
const CHUNK: usize = 64 * 1024;
/// The desktop's size: more than any request asks for.
const SIZE: [u16; 2] = [4_096, 4_096];
/// 32 bits a pixel, 24 of them colour, true colour, eight bits each.
const FORMAT: [u8; 16] = [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0];

/// What a viewer says before pictures come: its version, no security, a shared desktop.
pub(crate) const GREETING: &[u8] = b"RFB 003.008\n\x01\x01";
/// Bytes that a viewer gets before pictures come: version, security, its result, and the desktop with its name.
pub(crate) const WELCOME: usize = 12 + 2 + 4 + 24 + NAME.len();
/// Bytes of a picture of one pixel.
pub(crate) const PIXEL: usize = 4 + 12 + 4;
const NAME: &[u8] = b"bench";

/// Asks for the whole of a picture of this size.
pub(crate) fn picture(width: u16, height: u16) -> [u8; 10] {
    let ([w1, w2], [h1, h2]) = (width.to_be_bytes(), height.to_be_bytes());
    [3, 0, 0, 0, 0, 0, w1, w2, h1, h2]
}

/// Serves until it is killed.
pub(crate) fn serve(port: u16) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).context("the port is taken")?;
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || answer(&stream));
    }
    Ok(())
}

/// An end of a connection, however it comes, is no fault.
fn answer(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    match reader.fill_buf()?.first() {
        Some(b'R') => pictures(&mut reader, stream),
        Some(_) => answers(reader, stream),
        None => Ok(()),
    }
}

fn answers(mut reader: impl BufRead, mut to: &TcpStream) -> io::Result<()> {
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let asked = line.split(' ').nth(1).and_then(|path| path.strip_prefix("/bytes/"));
        let length: usize = asked.and_then(|length| length.parse().ok()).unwrap_or(0);
        while line.trim_end() != "" {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
        }
        let mut first = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n"
        )
        .into_bytes();
        // A short answer is one write, as every server makes it.
        let with_head = length.min(CHUNK);
        first.resize(first.len() + with_head, b'x');
        to.write_all(&first)?;
        fill(to, length - with_head)?;
    }
}

fn pictures(reader: &mut impl Read, mut to: &TcpStream) -> io::Result<()> {
    let mut greeting = [0; GREETING.len()];
    reader.read_exact(&mut greeting)?;
    let mut welcome = b"RFB 003.008\n\x01\x01\0\0\0\0".to_vec();
    welcome.extend(SIZE.map(u16::to_be_bytes).concat());
    welcome.extend(FORMAT);
    welcome.extend([0, 0, 0, 5]);
    welcome.extend(NAME);
    to.write_all(&welcome)?;
    let mut request = picture(0, 0);
    loop {
        reader.read_exact(&mut request)?;
        if request[0] != 3 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // One raw rectangle, where the request has it.
        let mut update = vec![0, 0, 0, 1];
        update.extend(&request[2..]);
        update.extend([0; 4]);
        let [.., w1, w2, h1, h2] = request;
        let pixels = usize::from(u16::from_be_bytes([w1, w2])) * usize::from(u16::from_be_bytes([h1, h2]));
        let with_head = (4 * pixels).min(CHUNK);
        update.resize(update.len() + with_head, b'x');
        to.write_all(&update)?;
        fill(to, 4 * pixels - with_head)?;
    }
}

fn fill(mut to: &TcpStream, mut length: usize) -> io::Result<()> {
    static FILL: [u8; CHUNK] = [b'x'; CHUNK];
    while length > 0 {
        let part = length.min(CHUNK);
        to.write_all(&FILL[..part])?;
        length -= part;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected() -> TcpStream {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        thread::spawn(move || answer(&server));
        client
    }

    #[test]
    fn a_picture_is_as_long_as_it_says() {
        let mut client = connected();
        client.write_all(GREETING).unwrap();
        client.read_exact(&mut [0; WELCOME]).unwrap();
        client.write_all(&picture(1, 1)).unwrap();
        let mut pixel = [0; PIXEL];
        client.read_exact(&mut pixel).unwrap();
        assert_eq!(pixel[..16], [0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0]);
        client.write_all(&picture(300, 200)).unwrap();
        client.read_exact(&mut vec![0; 16 + 4 * 300 * 200]).unwrap();
        client.write_all(&picture(1, 1)).unwrap();
        client.read_exact(&mut pixel).unwrap();
        assert_eq!(pixel[..4], [0, 0, 0, 1], "nothing was left over");
    }

    #[test]
    fn a_kept_connection_gets_as_many_bytes_as_it_asks_for() {
        let mut client = connected();
        for length in [0, 64, 3 * CHUNK + 1] {
            write!(client, "GET /bytes/{length} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            let mut reader = BufReader::new(&client);
            let heads: Vec<String> =
                reader.by_ref().lines().map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
            assert!(heads.contains(&format!("Content-Length: {length}")), "{heads:?}");
            reader.read_exact(&mut vec![0; length]).unwrap();
        }
    }
}

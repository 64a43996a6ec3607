//! Connections whose other end is gone without a word are noticed by the kernel: within half a minute, whatever is or is not
//! sent. A viewer that does not read for an hour is there all the same, and stays connected: its machine answers.

use std::{io, net::TcpListener, time::Duration};

use rustix::net::sockopt;

/// Silence before the first question.
const IDLE: Duration = Duration::from_secs(10);
/// Between questions.
const BETWEEN: Duration = Duration::from_secs(5);
/// Questions without an answer.
const QUESTIONS: u32 = 3;
/// How long what was sent may go unanswered, in milliseconds.
const UNANSWERED: u32 = 25_000;

/// Has the kernel look after every connection that this listener accepts: they take their settings from it.
pub(crate) fn watch(listener: &TcpListener) -> io::Result<()> {
    sockopt::set_socket_keepalive(listener, true)?;
    sockopt::set_tcp_keepidle(listener, IDLE)?;
    sockopt::set_tcp_keepintvl(listener, BETWEEN)?;
    sockopt::set_tcp_keepcnt(listener, QUESTIONS)?;
    sockopt::set_tcp_user_timeout(listener, UNANSWERED)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn what_is_accepted_is_looked_after() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        watch(&listener).unwrap();
        let _dialled = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(sockopt::socket_keepalive(&accepted).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&accepted).unwrap(), IDLE);
        assert_eq!(sockopt::tcp_user_timeout(&accepted).unwrap(), UNANSWERED);
    }
}

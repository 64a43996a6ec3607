//! Whether whoever asked is still there. A request that is being answered is not dropped by the HTTP server when its client
//! leaves, because work on the database must not be cut half-way; what waits for a session's application may be, and asks
//! here.

use std::{
    any::Any,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::{HttpRequest, dev::Extensions};
use tokio::{io::Interest, net::TcpStream};

/// A connection's socket, by a descriptor of its own. It goes with the connection.
#[derive(Debug, Clone)]
struct Wire(Arc<OwnedFd>);

/// Keeps with a connection what tells that its other side is gone.
pub(crate) fn remember(stream: &dyn Any, connection: &mut Extensions) {
    let plain = stream.downcast_ref::<TcpStream>();
    let socket = plain.or_else(|| Some(stream.downcast_ref::<TlsStream<TcpStream>>()?.get_ref().0));
    // Out of descriptors, a connection lives without.
    if let Some(Ok(descriptor)) = socket.map(|socket| socket.as_fd().try_clone_to_owned()) {
        connection.insert(Wire(Arc::new(descriptor)));
    }
}

/// Waits until the other side of a request's connection has closed it, or has said that it sends nothing more.
pub(crate) fn of(request: &HttpRequest) -> impl Future<Output = ()> + 'static {
    let wire = request.conn_data::<Wire>().cloned();
    async move {
        if let Some(Wire(descriptor)) = wire
            && let Ok(own) = descriptor.try_clone().map(std::net::TcpStream::from)
            && let Ok(watched) = TcpStream::from_std(own)
        {
            while let Ok(ready) = watched.ready(Interest::READABLE).await {
                if ready.is_read_closed() {
                    return;
                }
                // More was sent, which is not for here: from now on it is waited for what comes next.
                let more = || Err::<(), _>(io::Error::from(io::ErrorKind::WouldBlock));
                drop(watched.try_io(Interest::READABLE, more));
            }
        }
        std::future::pending::<()>().await;
    }
}

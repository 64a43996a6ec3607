//! Terminals over pipes: bytes that go into a pipe in order and once, and a pipe that is followed however often its
//! connection breaks. What a terminal needs, and any other stream of bytes too.
//!
//! A terminal of kind `pty` has three pipes. Its bytes are messages of bytes in `stdout`, in order; keystrokes are messages of
//! bytes, or texts, in `stdin`; sizes are messages of text in `stdctrl`, in the form of
//! [`TerminalControl`](tidegate_model::TerminalControl). Where a program begins and ends is said in `stdout` too, as a text
//! of the same form between the bytes, because those who watch read nothing else.
//!
//! ```no_run
//! use tidegate_client::{Client, Followed, PipeFrom, PipeWriting};
//!
//! # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
//! let handle = "build".parse()?;
//! let (writer, carrier) = client.write_pipe(&handle, "stdout", PipeWriting::default());
//! let carrying = tokio::spawn(carrier.run());
//! writer.bytes(b"hello\r\n").await?;
//! drop(writer);
//! carrying.await??;
//!
//! let mut follower = client.follow_pipe(&handle, "stdout", PipeFrom::After(0));
//! if let Followed::Message(message) = follower.next().await? {
//!     println!("{} bytes", message.payload.as_bytes().len());
//! }
//! # Ok(())
//! # }
//! ```

mod follower;
mod queue;
mod writer;

pub use self::{
    follower::{Followed, PipeFollower, PipeFrom},
    writer::{LostAnswer, PipeCarrier, PipeFlow, PipeWriter, PipeWriting, WriterClosed},
};

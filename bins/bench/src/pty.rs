//! A plain program that reads what another one prints on a PTY: what the machine gives before anything is in between.

use std::{
    io::{Read, Write},
    time::{Duration, Instant},
};

use portable_pty::{CommandBuilder, PtySize, native_pty_system};

use crate::progress::during;

/// A program that waits for a line, then prints `bytes` bytes in lines of 80.
pub(crate) fn workload(bytes: u64) -> [String; 3] {
    let line = "0123456789".repeat(8);
    let script = format!("read -r go; yes {} | head -c {bytes}", &line[..79]);
    ["sh".to_owned(), "-c".to_owned(), script]
}

/// Bytes read and the time it took, from the line that starts the program to the end of what it prints.
pub(crate) async fn read(bytes: u64) -> anyhow::Result<(u64, Duration)> {
    during("plain PTY", async move { tokio::task::spawn_blocking(move || plain(bytes)).await? }).await
}

fn plain(bytes: u64) -> anyhow::Result<(u64, Duration)> {
    let pair =
        native_pty_system().openpty(PtySize { rows: 24, cols: 80, pixel_width: 0, pixel_height: 0 })?;
    let [program, flag, script] = workload(bytes);
    let mut command = CommandBuilder::new(program);
    command.args([flag, script]);
    let mut child = pair.slave.spawn_command(command)?;
    drop(pair.slave);
    let (mut reader, mut writer) = (pair.master.try_clone_reader()?, pair.master.take_writer()?);
    let started = Instant::now();
    writer.write_all(b"\n")?;
    let (mut buffer, mut total) = (vec![0; 64 * 1024], 0);
    // The end of a PTY is an error on Linux.
    while let Ok(read) = reader.read(&mut buffer) {
        if read == 0 {
            break;
        }
        total += read as u64;
    }
    let elapsed = started.elapsed();
    child.wait()?;
    Ok((total, elapsed))
}

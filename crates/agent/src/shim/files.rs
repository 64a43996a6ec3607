//! What a shim leaves for those who come after its session: how it ended, and the last of its output.

use std::path::{Path, PathBuf};

use crate::{
    Error,
    files::{read_json, write_json, write_private},
    platform::Exit,
};

fn exit_path(folder: &Path, generation: i64) -> PathBuf {
    folder.join(format!("exit.{generation}.json"))
}

/// Where the last output of one start lies.
pub(crate) fn output_path(folder: &Path, generation: i64) -> PathBuf {
    folder.join(format!("output.{generation}.log"))
}

/// Writes both, the exit last: whoever finds it finds the output too.
pub(crate) fn write(folder: &Path, generation: i64, exit: &Exit, output: &[u8]) -> Result<(), Error> {
    write_private(&output_path(folder, generation), output)?;
    write_json(&exit_path(folder, generation), exit)
}

/// How this start ended, if a shim said so.
pub(crate) fn read_exit(folder: &Path, generation: i64) -> Result<Option<Exit>, Error> {
    read_json(&exit_path(folder, generation))
}

//! What was read beside what was acknowledged: nothing is kept here but the comparison.

use std::collections::{BTreeMap, BTreeSet};

/// A message of the load: which sender's, and which of theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    pub(crate) sender: usize,
    pub(crate) number: usize,
}

/// A message in the pipe, as a reader got it or as its sender was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) mark: Mark,
    pub(crate) sequence: u64,
}

/// What one cursor did wrong.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wrongs {
    /// Acknowledged and never read.
    pub(crate) lost: Vec<String>,
    /// Read more than once.
    pub(crate) doubled: Vec<String>,
    /// Read after a later one of the same sender.
    pub(crate) disordered: Vec<String>,
    /// Read at another place than its sender was told.
    pub(crate) misplaced: Vec<String>,
}

/// Compares what one cursor read, in its order, with what senders were told.
pub(crate) fn judge(acknowledged: &[Placed], read: &[Placed]) -> Wrongs {
    let mut wrongs = Wrongs::default();
    let mut seen: BTreeMap<Mark, u64> = BTreeMap::new();
    let mut latest: BTreeMap<usize, usize> = BTreeMap::new();
    for Placed { mark, sequence } in read {
        let Mark { sender, number } = *mark;
        if let Some(before) = seen.insert(*mark, *sequence) {
            wrongs.doubled.push(format!("{number} of sender {sender} at {before} and at {sequence}"));
            continue;
        }
        let last = latest.entry(sender).or_insert(number);
        if number < *last {
            wrongs.disordered.push(format!("{number} of sender {sender} came after {last}"));
        }
        *last = number.max(*last);
    }
    for Placed { mark: Mark { sender, number }, sequence } in acknowledged {
        match seen.get(&Mark { sender: *sender, number: *number }) {
            None => wrongs.lost.push(format!("{number} of sender {sender}, acknowledged at {sequence}")),
            Some(found) if found != sequence => wrongs.misplaced.push(format!(
                "{number} of sender {sender} is at {found} and was acknowledged at {sequence}"
            )),
            Some(_) => {}
        }
    }
    wrongs
}

/// Messages that were acknowledged at the place of another one.
pub(crate) fn shared(acknowledged: &[Placed]) -> Vec<String> {
    let (mut places, mut shared) = (BTreeSet::new(), Vec::new());
    for Placed { mark, sequence } in acknowledged {
        if !places.insert(sequence) {
            shared.push(format!("{} of sender {} at {sequence}", mark.number, mark.sender));
        }
    }
    shared
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(sender: usize, number: usize, sequence: u64) -> Placed {
        Placed { mark: Mark { sender, number }, sequence }
    }

    #[test]
    fn what_was_read_once_and_in_order_is_right_whoever_was_first() {
        let acknowledged = [placed(0, 0, 1), placed(1, 0, 2), placed(0, 1, 3)];
        assert_eq!(judge(&acknowledged, &acknowledged), Wrongs::default());
        assert!(shared(&acknowledged).is_empty());
    }

    #[test]
    fn each_kind_of_wrong_is_told_from_the_others() {
        let acknowledged = [placed(0, 0, 1), placed(0, 1, 2), placed(0, 2, 3), placed(1, 0, 3)];
        let read = [placed(0, 1, 2), placed(0, 0, 7), placed(0, 1, 4), placed(1, 0, 3), placed(9, 9, 8)];
        let Wrongs { lost, doubled, disordered, misplaced } = judge(&acknowledged, &read);
        assert_eq!(lost, ["2 of sender 0, acknowledged at 3"]);
        assert_eq!(doubled, ["1 of sender 0 at 2 and at 4"]);
        assert_eq!(disordered, ["0 of sender 0 came after 1"]);
        assert_eq!(misplaced.len(), 2, "{misplaced:?}");
        assert_eq!(shared(&acknowledged), ["0 of sender 1 at 3"]);
    }
}

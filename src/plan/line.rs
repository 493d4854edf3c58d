//! Jobs in publish order, kept as runs: a backlog of a million that was published at once is one entry.

use std::collections::VecDeque;

use crate::clock::Timestamp;

/// Jobs that wait somewhere, the oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Line {
    /// When they were published, and how many at that moment.
    runs: VecDeque<(Timestamp, u64)>,
    len: u64,
}

impl Line {
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds jobs where their publish time belongs: one that comes back stands before the later ones.
    pub fn add(&mut self, published: Timestamp, jobs: u64) {
        if jobs == 0 {
            return;
        }
        self.len += jobs;
        let at = self.runs.partition_point(|(before, _)| *before < published);
        match self.runs.get_mut(at) {
            Some((same, count)) if *same == published => *count += jobs,
            _ => self.runs.insert(at, (published, jobs)),
        }
    }

    /// Takes the oldest.
    pub fn take(&mut self) -> Option<Timestamp> {
        let (published, count) = self.runs.front_mut()?;
        let published = *published;
        *count -= 1;
        if *count == 0 {
            self.runs.pop_front();
        }
        self.len -= 1;
        Some(published)
    }

    /// Moves everything to `other`.
    pub fn pour(&mut self, other: &mut Self) {
        for (published, jobs) in self.runs.drain(..) {
            other.add(published, jobs);
        }
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_back_stands_where_he_stood() {
        let at = Timestamp::from_secs;
        let (mut line, mut other) = (Line::default(), Line::default());
        line.add(at(1), 1_000_000);
        line.add(at(3), 1);
        line.add(at(2), 2);
        line.add(at(3), 0);
        assert_eq!((line.len(), line.runs.len(), line.take()), (1_000_003, 3, Some(at(1))));
        line.add(at(1), 1);
        other.add(at(0), 1);
        line.pour(&mut other);
        assert!(line.is_empty() && line.take().is_none());
        assert_eq!((other.len(), other.take(), other.take()), (1_000_004, Some(at(0)), Some(at(1))));
    }
}

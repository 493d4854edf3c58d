//! When may the row of a finished job be forgotten? Never while a duplicate of it may still be decided.
//!
//! A lane is a queue whose publish times are out of order by at most the slack. Two workers hold one message each, as long
//! as they like; one that dies with the duplicate puts it back at the head of the queue. M1, published at 0, is done. D is
//! another publish of its id within the window. Violation: D is decided, and runs, after the row of M1 was removed.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use lanes::clock::Timestamp;
use lanes::job::Identity;
use lanes::store::State;
use lanes::store::decide::{Copy, CopyKind, RowView, Verb, decide};

use super::world::uuid_of;

const WINDOW: u8 = 3;
const SLACK: u8 = 1;
/// The last message of the lane is published one second before this.
const END: u8 = 9;

/// Up to which publish time is everything of the lane decided? Rows are removed a window and a slack behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watermark {
    /// The highest publish time that was taken.
    HighestTaken,
    /// The lowest publish time in the hands of living workers, else the highest taken.
    LowestInHand,
    /// The same, and what a dead worker held counts until it has been decided again.
    LowestUndecided,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Message {
    published: u8,
    is_duplicate: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Lane {
    queue: VecDeque<Message>,
    hands: [Option<Message>; 2],
    highest_taken: u8,
    /// Publish time of what a dead worker held, until it is decided.
    orphan: Option<u8>,
    row_is_gone: bool,
}

impl Lane {
    /// D is published at `published` and reaches the queue up to the slack later, behind what was published then.
    fn new(published: u8, late: u8) -> Self {
        let mut queue: VecDeque<Message> =
            (1..END).map(|published| Message { published, is_duplicate: false }).collect();
        queue.insert(usize::from(published + late), Message { published, is_duplicate: true });
        Self { queue, hands: [None; 2], highest_taken: 0, orphan: None, row_is_gone: false }
    }

    fn watermark(&self, rule: Watermark) -> u8 {
        let in_hand = self.hands.iter().flatten().map(|message| message.published);
        match rule {
            Watermark::HighestTaken => self.highest_taken,
            Watermark::LowestInHand => in_hand.fold(self.highest_taken, u8::min),
            Watermark::LowestUndecided => in_hand.chain(self.orphan).fold(self.highest_taken, u8::min),
        }
    }

    /// Every lane one step further; `None` for the step that breaks the promise.
    fn steps(&self, rule: Watermark) -> Vec<Option<Self>> {
        let mut steps = Vec::new();
        let mut step = |change: &dyn Fn(&mut Self)| {
            let mut to = self.clone();
            change(&mut to);
            steps.push(Some(to));
        };
        if !self.row_is_gone && self.watermark(rule) >= WINDOW + SLACK {
            step(&|lane| lane.row_is_gone = true);
        }
        let mut broken = false;
        for (hand, held) in self.hands.iter().enumerate() {
            match (held, self.queue.front()) {
                (None, None) => {}
                (None, Some(next)) => step(&|lane| {
                    lane.hands[hand] = lane.queue.pop_front();
                    lane.highest_taken = lane.highest_taken.max(next.published);
                }),
                (Some(message), _) => {
                    broken |= message.is_duplicate && self.decides_to_run(*message);
                    step(&|lane| {
                        lane.hands[hand] = None;
                        lane.orphan = lane.orphan.filter(|published| *published != message.published);
                    });
                    if message.is_duplicate && self.orphan.is_none() {
                        step(&|lane| {
                            lane.hands[hand] = None;
                            lane.queue.push_front(*message);
                            lane.orphan = Some(message.published);
                        });
                    }
                }
            }
        }
        steps.extend(broken.then_some(None));
        steps
    }

    /// The store's own decision about D, with the row of M1 or without.
    fn decides_to_run(&self, duplicate: Message) -> bool {
        let at = |published: u8| Timestamp::from_secs(published.into());
        let done = RowView {
            instance: uuid_of(0),
            state: State::Done,
            holds_key: true,
            published_at: at(0),
            payload_sha256: [0; 32],
            token: None,
            effect_possible: false,
            ended_at: Some(at(0)),
        };
        let kind = CopyKind::Fresh {
            published_at: at(duplicate.published),
            payload_sha256: [0; 32],
            identity: Identity::Stamped,
            redelivered: self.orphan.is_some(),
        };
        let copy = Copy { kind, instance: uuid_of(1), token: uuid_of(2) };
        let rows = if self.row_is_gone { &[][..] } else { &[done] };
        decide(&copy, None, rows, at(END), Duration::from_secs(WINDOW.into())) == Verb::Run
    }
}

/// Steps to the first call that should not have been made, over every lane; `None` = there is no way to it.
fn steps_to_a_second_call(rule: Watermark) -> Option<usize> {
    let starts = (1..WINDOW).flat_map(|published| (0..=SLACK).map(move |late| Lane::new(published, late)));
    let mut depth: HashMap<Lane, usize> = starts.map(|lane| (lane, 0)).collect();
    let mut todo: VecDeque<Lane> = depth.keys().cloned().collect();
    while let Some(lane) = todo.pop_front() {
        let next_depth = depth[&lane] + 1;
        for step in lane.steps(rule) {
            let Some(to) = step else { return Some(next_depth) };
            if !depth.contains_key(&to) {
                depth.insert(to.clone(), next_depth);
                todo.push_back(to);
            }
        }
    }
    None
}

#[test]
fn the_highest_publish_time_taken_is_no_watermark() {
    assert_eq!(steps_to_a_second_call(Watermark::HighestTaken), Some(10));
}

#[test]
fn what_living_workers_hold_is_no_watermark_either() {
    assert_eq!(steps_to_a_second_call(Watermark::LowestInHand), Some(12));
}

#[test]
fn behind_everything_undecided_finished_rows_may_go() {
    assert_eq!(steps_to_a_second_call(Watermark::LowestUndecided), None);
}

//! What the kernel programs lost from one tick to the next.

/// How much that was until the last reading.
#[derive(Debug, Default)]
pub struct Losses {
    before: Lost,
}

/// What was lost, in all or in one tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Events that are in no count.
    pub events: u64,
    /// Abnormal ends of processes that are counted, and whose exit code nobody was told.
    pub exits: u64,
}

impl Losses {
    /// What came on top, of what was lost in all. Where that cannot be read, or went back, nobody knows whether anything was: at
    /// least one, for what is not known is not clean. How many it was is told by the next reading.
    pub fn since(&mut self, total: anyhow::Result<Lost>) -> Lost {
        match total {
            Ok(total) => {
                let before = std::mem::replace(&mut self.before, total);
                Lost {
                    events: total.events.checked_sub(before.events).unwrap_or(1),
                    exits: total.exits.checked_sub(before.exits).unwrap_or(1),
                }
            }
            Err(error) => {
                tracing::warn!("whether events were lost in this tick is not known: {error:#}");
                Lost { events: 1, exits: 0 }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_cannot_be_read_is_not_taken_for_nothing_lost() {
        let mut losses = Losses::default();
        let lost = |events, exits| Lost { events, exits };
        assert_eq!(losses.since(Ok(lost(0, 2))), lost(0, 2), "what is counted all the same is told apart");
        assert_eq!(losses.since(Ok(lost(3, 2))), lost(3, 0));
        assert_eq!(losses.since(Err(anyhow::anyhow!("no memory"))), lost(1, 0));
        assert_eq!([lost(3, 7), lost(5, 7)].map(|total| losses.since(Ok(total))), [lost(0, 5), lost(2, 0)]);
        assert_eq!(
            [lost(4, 7), lost(4, 6)].map(|total| losses.since(Ok(total))),
            [lost(1, 0), lost(0, 1)],
            "it went back"
        );
    }
}

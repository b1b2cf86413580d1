//! What the kernel programs lost from one tick to the next.

/// How much that was until the last reading.
#[derive(Debug, Default)]
pub struct Losses {
    before: u64,
}

impl Losses {
    /// What came on top, of what was lost in all. Where that cannot be read, or went back, nobody knows whether anything was: at
    /// least one, for what is not known is not clean. How many it was is told by the next reading.
    pub fn since(&mut self, total: anyhow::Result<u64>) -> u64 {
        match total {
            Ok(total) => total.checked_sub(std::mem::replace(&mut self.before, total)).unwrap_or(1),
            Err(error) => {
                tracing::warn!("whether events were lost in this tick is not known: {error:#}");
                1
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
        assert_eq!(losses.since(Ok(0)), 0);
        assert_eq!(losses.since(Ok(3)), 3);
        assert_eq!(losses.since(Err(anyhow::anyhow!("no memory"))), 1);
        assert_eq!([3, 5].map(|total| losses.since(Ok(total))), [0, 2]);
        assert_eq!([4, 4, 6].map(|total| losses.since(Ok(total))), [1, 0, 2], "it went back");
    }
}

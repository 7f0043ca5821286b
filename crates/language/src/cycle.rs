//! Stopping a decoder that goes round in circles: exact cycles at the end of an answer.

/// Ends an answer whose end repeats exactly.
///
/// A cycle counts when the answer's end is at least [`COPIES`](Self::COPIES) copies of a period of
/// up to [`LONGEST_PERIOD`](Self::LONGEST_PERIOD) tokens, and at least [`TOKENS`](Self::TOKENS)
/// tokens long; the copy that is being written may be incomplete. vLLM's repetition detection has the same shape (exact
/// copies, a longest period, a least number of copies); the numbers are those proposed for
/// vllm-mlx's. A line printed twice, and short ones printed a few times more, are no cycle.
///
/// It complements [`NoRepeatNgram`](crate::NoRepeatNgram), which makes the model go another way:
/// 30-grams in a window of 90 tokens, the vendor's setting, break periods of up to 61 tokens before
/// this counts them. Longer periods, and those of whitelisted tokens, escape and end here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopCycles {
    /// Tokens that repeat lawfully, as the empty cells of a table do. A cycle of nothing else
    /// counts from [`WHITELISTED_TOKENS`](Self::WHITELISTED_TOKENS) on.
    pub whitelist: Vec<u32>,
}

impl StopCycles {
    /// The longest period looked for, in tokens.
    pub const LONGEST_PERIOD: usize = 128;
    /// Copies of a period that make a cycle.
    pub const COPIES: usize = 3;
    /// Tokens that all copies together have at least: one token or two may well come three times.
    pub const TOKENS: usize = 48;
    /// Tokens that the copies have at least where all are whitelisted: 384 empty cells, more than
    /// the blank part of a form has, and a small part of the answer's limit all the same, because
    /// endless empty cells are one of the ways in which the model fails.
    pub const WHITELISTED_TOKENS: usize = 16 * Self::TOKENS;
}

/// A cycle that ended an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeated {
    /// Tokens after which it repeats.
    pub period: usize,
    /// Tokens cut off the answer: all behind the first copy.
    pub trimmed: usize,
}

/// Looks for cycles token by token.
#[derive(Debug)]
pub(crate) struct CycleDetector {
    whitelist: Vec<u32>,
    /// For the periods from 1 on: how many of the last tokens, without a gap, equal the token one
    /// period before.
    matches: [usize; StopCycles::LONGEST_PERIOD],
    /// How many of the last tokens, without a gap, are whitelisted.
    whitelisted: usize,
}

impl CycleDetector {
    pub(crate) fn new(settings: &StopCycles) -> Self {
        Self {
            whitelist: settings.whitelist.clone(),
            matches: [0; StopCycles::LONGEST_PERIOD],
            whitelisted: 0,
        }
    }

    /// Takes note of the last of `ids`, all tokens so far; called once a token. The cycle with the
    /// shortest period, if there is one.
    pub(crate) fn push(&mut self, ids: &[u32]) -> Option<Repeated> {
        let (last, earlier) = ids.split_last()?;
        self.whitelisted = match self.whitelist.contains(last) {
            true => self.whitelisted + 1,
            false => 0,
        };
        let mut found = None;
        let counters = self.matches.iter_mut().zip(earlier.iter().rev());
        for (period, (matches, id)) in (1..).zip(counters) {
            *matches = if id == last { *matches + 1 } else { 0 };
            let least = match self.whitelisted >= period {
                true => StopCycles::WHITELISTED_TOKENS,
                false => StopCycles::TOKENS,
            };
            // The first copy matches nothing before it.
            let repeats = period + *matches >= least.max(StopCycles::COPIES * period);
            if repeats && found.is_none() {
                found = Some(Repeated {
                    period,
                    trimmed: *matches,
                });
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// After how many of `ids` the detector first finds a cycle, and which.
    fn first_hit(ids: &[u32], whitelist: &[u32]) -> Option<(usize, Repeated)> {
        let settings = StopCycles {
            whitelist: whitelist.to_vec(),
        };
        let mut detector = CycleDetector::new(&settings);
        (1..=ids.len()).find_map(|n| Some((n, detector.push(&ids[..n])?)))
    }

    /// `len` tokens that repeat after `period` and not before.
    fn cycle(period: u32, len: usize) -> Vec<u32> {
        (100..100 + period).cycle().take(len).collect()
    }

    fn repeated(period: usize, trimmed: usize) -> Repeated {
        Repeated { period, trimmed }
    }

    #[test]
    fn three_copies_and_48_tokens_make_a_cycle() {
        for (period, hit) in [
            (1, Some(48)),
            (7, Some(48)),
            (16, Some(48)),
            (17, Some(51)),
            (128, Some(384)),
            (129, None),
        ] {
            let found = first_hit(&cycle(period, 2000), &[]);
            let period = period as usize;
            let expected = hit.map(|hit| (hit, repeated(period, hit - period)));
            assert_eq!(found, expected, "period {period}");
        }
    }

    #[test]
    fn only_what_repeats_is_trimmed() {
        let healthy: Vec<u32> = (0..500).collect();
        let ids = [healthy, cycle(20, 200)].concat();
        assert_eq!(first_hit(&ids, &[]), Some((560, repeated(20, 40))));
    }

    #[test]
    fn a_gap_starts_the_count_anew() {
        let mut ids = cycle(1, 47);
        ids.push(7);
        ids.extend(cycle(1, 47));
        assert_eq!(first_hit(&ids, &[]), None);
        ids.push(100);
        assert_eq!(first_hit(&ids, &[]), Some((96, repeated(1, 47))));
    }

    #[test]
    fn whitelisted_tokens_may_repeat_for_long_but_not_for_ever() {
        let ids = cycle(2, 1000);
        let hit = |whitelist: &[u32]| first_hit(&ids, whitelist);
        assert_eq!(hit(&[100, 101]), Some((768, repeated(2, 766))));
        assert_eq!(
            hit(&[100]),
            Some((48, repeated(2, 46))),
            "another token is among them"
        );
        // Cells with something in them, once a row.
        let row = [cycle(2, 20), vec![5]].concat();
        assert_eq!(
            first_hit(&row.repeat(4), &[100, 101]),
            Some((63, repeated(21, 42)))
        );
    }

    /// The definition, looked up in the whole of `ids`.
    fn naive(ids: &[u32], whitelist: &[u32]) -> Option<Repeated> {
        (1..=128).find_map(|period| {
            let unit = &ids[ids.len().checked_sub(period)?..];
            let lawful = unit.iter().all(|id| whitelist.contains(id));
            let least = (3 * period).max(if lawful { 768 } else { 48 });
            let same = |i: &usize| ids[*i] == ids[*i - period];
            let tail = ids.len().checked_sub(least)?;
            let is_cycle = (tail + period..ids.len()).all(|i| same(&i));
            is_cycle.then(|| Repeated {
                period,
                trimmed: (period..ids.len()).rev().take_while(same).count(),
            })
        })
    }

    /// Cycles one after the other over three tokens, each cut anywhere: of short periods, of long
    /// ones, and long runs of whitelisted tokens.
    fn looping() -> impl Strategy<Value = Vec<u32>> {
        let unit = |tokens: u32, longest: usize| prop::collection::vec(0..tokens, 1..=longest);
        let part = prop_oneof![
            3 => (unit(3, 10), 1..120_usize),
            2 => (unit(3, 140), 100..500_usize),
            1 => (unit(2, 4), 700..900_usize),
        ];
        let part = part.prop_map(|(unit, len)| unit.into_iter().cycle().take(len));
        prop::collection::vec(part, 1..6).prop_map(|parts| parts.into_iter().flatten().collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn counting_agrees_with_the_definition(ids in looping()) {
            let settings = StopCycles { whitelist: vec![0, 1] };
            let mut detector = CycleDetector::new(&settings);
            for n in 1..=ids.len() {
                let found = detector.push(&ids[..n]);
                prop_assert_eq!(found, naive(&ids[..n], &settings.whitelist), "at {}", n);
            }
        }
    }
}

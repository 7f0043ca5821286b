//! Choosing the next token from its logits.

use crate::{Error, Result};

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Sampling {
    /// The most probable token; of equals the one with the lower id.
    #[default]
    Greedy,
    /// A random token.
    Random {
        /// Divides the logits: below 1 the probable become more probable. Positive.
        temperature: f64,
        /// Only the most probable tokens that together have this probability (Holtzman et al.,
        /// 2020); 1 for all.
        top_p: f64,
        /// Only this many most probable tokens; 0 for all.
        top_k: usize,
        /// The same seed gives the same answer.
        seed: u64,
    },
}

impl Sampling {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Options`] when one is out of range.
    pub fn check(&self) -> Result<()> {
        let Self::Random {
            temperature, top_p, ..
        } = *self
        else {
            return Ok(());
        };
        if !(temperature > 0.0 && temperature.is_finite()) {
            return Err(Error::Options(format!(
                "temperature is {temperature}, not a positive number"
            )));
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(Error::Options(format!("top_p is {top_p}, not in (0, 1]")));
        }
        Ok(())
    }
}

/// Chooses token after token.
#[derive(Debug)]
pub(crate) struct Sampler {
    sampling: Sampling,
    random: fastrand::Rng,
}

impl Sampler {
    pub(crate) fn new(sampling: Sampling) -> Self {
        let seed = match sampling {
            Sampling::Greedy => 0,
            Sampling::Random { seed, .. } => seed,
        };
        Self {
            sampling,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// The next token; forbidden ones have a logit of minus infinity. `None` when all are
    /// forbidden or a logit is not a number.
    pub(crate) fn next(&mut self, logits: &[f32]) -> Option<u32> {
        if logits.iter().any(|v| v.is_nan()) {
            return None;
        }
        match self.sampling {
            Sampling::Greedy => largest(logits),
            Sampling::Random {
                temperature,
                top_p,
                top_k,
                ..
            } => self.random(logits, temperature, top_p, top_k),
        }
    }

    fn random(
        &mut self,
        logits: &[f32],
        temperature: f64,
        top_p: f64,
        top_k: usize,
    ) -> Option<u32> {
        let most = f64::from(logits[largest(logits)? as usize]);
        let weight = |v: f32| ((f64::from(v) - most) / temperature).exp();
        let mut candidates: Vec<(f64, u32)> = (0..)
            .zip(logits)
            .map(|(id, v)| (weight(*v), id))
            .filter(|(w, _)| *w > 0.0)
            .collect();
        candidates.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        if top_k > 0 {
            candidates.truncate(top_k);
        }
        let total: f64 = candidates.iter().map(|(w, _)| w).sum();
        let mut sum = 0.0;
        let inside = candidates.iter().take_while(|(w, _)| {
            let inside = sum < top_p * total;
            sum += w;
            inside
        });
        let inside = inside.count().max(1);
        candidates.truncate(inside);
        let kept: f64 = candidates.iter().map(|(w, _)| w).sum();
        let mut left = self.random.f64() * kept;
        let chosen = candidates.iter().find(|(w, _)| {
            left -= w;
            left < 0.0
        });
        chosen.or(candidates.last()).map(|(_, id)| *id)
    }
}

/// The index of the largest value above minus infinity, the first of equals.
fn largest(logits: &[f32]) -> Option<u32> {
    let mut best: Option<(u32, f32)> = None;
    for (id, &v) in (0..).zip(logits) {
        if v > best.map_or(f32::NEG_INFINITY, |(_, most)| most) {
            best = Some((id, v));
        }
    }
    best.map(|(id, _)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 4] = [1.0, 3.0, 3.0, f32::NEG_INFINITY];

    fn random(temperature: f64, top_p: f64, top_k: usize, seed: u64) -> Sampling {
        Sampling::Random {
            temperature,
            top_p,
            top_k,
            seed,
        }
    }

    /// How often each token comes in 4,000 draws.
    fn counts(sampling: Sampling) -> [usize; 4] {
        let mut sampler = Sampler::new(sampling);
        let mut counts = [0; 4];
        (0..4000).for_each(|_| counts[sampler.next(&LOGITS).unwrap() as usize] += 1);
        counts
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        let mut sampler = Sampler::new(Sampling::Greedy);
        assert_eq!(sampler.next(&LOGITS), Some(1));
        assert_eq!(sampler.next(&[f32::NEG_INFINITY; 2]), None);
        assert_eq!(sampler.next(&[0.0, f32::NAN]), None);
    }

    #[test]
    fn draws_follow_the_probabilities_and_never_what_is_forbidden() {
        let [a, b, c, forbidden] = counts(random(1.0, 1.0, 0, 1));
        // e^-2 / (2 + e^-2) of 4,000 is 254.
        assert!(
            (200..310).contains(&a) && b.abs_diff(c) < 260 && forbidden == 0,
            "{a} {b} {c}"
        );
        assert_eq!(counts(random(1.0, 1.0, 1, 1)), [0, 4000, 0, 0]);
        assert_eq!(
            counts(random(1.0, 0.9, 0, 1))[0],
            0,
            "the two best have 0.94"
        );
        assert!(
            counts(random(4.0, 1.0, 0, 1))[0] > 700,
            "a high temperature levels"
        );
    }

    #[test]
    fn a_seed_repeats_its_draws() {
        let draws = |seed| {
            let mut sampler = Sampler::new(random(1.0, 1.0, 0, seed));
            (0..50).map(|_| sampler.next(&LOGITS)).collect::<Vec<_>>()
        };
        assert_eq!(draws(7), draws(7));
        assert_ne!(draws(7), draws(8));
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        for wrong in [
            random(0.0, 1.0, 0, 0),
            random(f64::NAN, 1.0, 0, 0),
            random(1.0, 0.0, 0, 0),
            random(1.0, 1.5, 0, 0),
        ] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
        assert!(random(0.7, 0.9, 40, 0).check().is_ok());
    }
}

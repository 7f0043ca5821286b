use super::*;

/// Values at which rounding, exponents and signs differ.
fn values() -> Vec<f32> {
    let mut values = vec![
        0.0,
        f32::INFINITY,
        f32::NAN,
        f32::MAX,
        f32::MIN_POSITIVE,
        1e-40,
    ];
    for exponent in [-126, -60, -3, 0, 1, 24, 100, 126] {
        // Below, at and above the middle between two bf16 values, of which the even one is above
        // or below; then the largest mantissa.
        for mantissa in [0, 0x7fff, 0x8000, 0x8001, 0x1_7fff, 0x1_8000, 0x7f_ffff] {
            values.push(f32::from_bits(((exponent + 127) as u32) << 23 | mantissa));
        }
    }
    values.extend(values.clone().iter().map(|v| -v));
    values
}

/// Every operation beside its definition, lane by lane.
struct Check<'a> {
    isa: Isa,
    a: &'a [f32],
    b: &'a [f32],
}

impl Check<'_> {
    #[inline(always)]
    fn unary<S: Simd>(&self, s: S, name: &str, of: S::V, definition: impl Fn(f32) -> f32) {
        let mut lanes = [0.0; MAX_LANES];
        s.store_part(&mut lanes[..S::LANES], of);
        for (a, got) in self.a.iter().zip(lanes).take(S::LANES) {
            let wanted = definition(*a);
            let flushed = name == "bf16" && a.is_subnormal() && got == 0.0;
            let same = got == wanted || flushed || got.is_nan() && wanted.is_nan();
            assert!(
                same,
                "{:?}: {name}({a:e}) is {got:e}, not {wanted:e}",
                self.isa
            );
        }
    }

    #[inline(always)]
    fn binary<S: Simd>(&self, s: S, name: &str, of: S::V, definition: impl Fn(f32, f32) -> f32) {
        let mut lanes = [0.0; MAX_LANES];
        s.store_part(&mut lanes[..S::LANES], of);
        for ((a, b), got) in self.a.iter().zip(self.b).zip(lanes).take(S::LANES) {
            let wanted = definition(*a, *b);
            let same = got == wanted || got.is_nan() && wanted.is_nan();
            assert!(
                same,
                "{:?}: {name}({a:e}, {b:e}) is {got:e}, not {wanted:e}",
                self.isa
            );
        }
    }
}

impl Kernel for Check<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (a, b) = (s.load_part(self.a), s.load_part(self.b));
        self.binary(s, "add", s.add(a, b), |a, b| a + b);
        self.binary(s, "sub", s.sub(a, b), |a, b| a - b);
        self.binary(s, "mul", s.mul(a, b), |a, b| a * b);
        let sum = s.mul_add(a, b, s.splat(1.0));
        match S::FUSED {
            true => self.binary(s, "mul_add", sum, |a, b| a.mul_add(b, 1.0)),
            false => self.binary(s, "mul_add", sum, |a, b| a * b + 1.0),
        }
        self.unary(s, "abs", s.abs(a), f32::abs);
        self.unary(s, "round", s.round(a), f32::round_ties_even);
        self.binary(s, "copysign", s.copysign(s.abs(a), b), |a, b| {
            a.abs().copysign(b)
        });
        if !self.a.iter().chain(self.b).any(|v| v.is_nan()) {
            self.binary(s, "max", s.max(a, b), f32::max);
            self.binary(s, "min", s.min(a, b), f32::min);
            let largest = self.a[..S::LANES].iter().copied().fold(f32::MIN, f32::max);
            assert_eq!(s.largest(a), largest, "{:?}", self.isa);
        }
        let mut halves = [bf16::ZERO; MAX_LANES];
        // SAFETY: MAX_LANES values, of which LANES are written.
        unsafe { s.store_bf16(halves.as_mut_ptr(), a) };
        let halves = &halves[..S::LANES];
        self.unary(s, "bf16", s.load_bf16_part(halves), |a| {
            bf16::from_f32(a).to_f32()
        });
        for len in 0..S::LANES {
            let mut part = [0.0; MAX_LANES];
            s.store_part(&mut part[..len], s.load_part(&self.a[..len]));
            let same = part[..len]
                .iter()
                .zip(self.a)
                .all(|(p, a)| p.to_bits() == a.to_bits());
            assert!(
                same && part[len..] == [0.0; MAX_LANES][len..],
                "{:?}",
                self.isa
            );
        }
        // SAFETY: `a` holds at least MAX_LANES values.
        let fourth = unsafe { s.splat_of_four::<3>(self.a.as_ptr()) };
        self.unary(s, "splat_of_four", fourth, |_| self.a[3]);
    }
}

#[test]
fn operations_follow_their_definitions_on_every_set() {
    let values = values();
    for &isa in Isa::available() {
        for shift in 0..values.len() {
            let at = |i: usize| values[i % values.len()];
            for start in (0..values.len()).step_by(8) {
                let a: Vec<f32> = (start..start + MAX_LANES).map(at).collect();
                let b: Vec<f32> = (start..start + MAX_LANES).map(|i| at(i + shift)).collect();
                let (a, b) = (&a, &b);
                dispatch(isa, Check { isa, a, b });
            }
        }
    }
}

/// Sums, powers of two and reciprocals of ordinary numbers.
struct Numbers(Isa);

impl Kernel for Numbers {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self(isa) = self;
        let lane = |v| {
            let mut first = [0.0];
            s.store_part(&mut first, v);
            first[0]
        };
        let ascending: Vec<f32> = (0..MAX_LANES).map(|i| i as f32).collect();
        let n = S::LANES;
        assert_eq!(
            s.sum(s.load_part(&ascending)),
            (n * (n - 1) / 2) as f32,
            "{isa:?}"
        );
        for n in -151..=129 {
            let wanted = (1.5 * f64::from(n).exp2()) as f32;
            let got = lane(s.scale(s.splat(1.5), s.splat(n as f32)));
            assert_eq!(got, wanted, "{isa:?}: 1.5 * 2^{n}");
        }
        for x in [1.0, 1.9999999, 0.3, -7.0, 1e-30, 1e30, 3.4e5] {
            let error = f64::from(lane(s.reciprocal(s.splat(x)))) * f64::from(x) - 1.0;
            assert!(error.abs() < 2e-7, "{isa:?}: 1 / {x} is off by {error}");
        }
        assert!(
            lane(s.reciprocal(s.splat(f32::INFINITY))) < f32::MIN_POSITIVE,
            "{isa:?}"
        );
    }
}

#[test]
fn numbers_follow_their_definitions_on_every_set() {
    for &isa in Isa::available() {
        dispatch(isa, Numbers(isa));
    }
}

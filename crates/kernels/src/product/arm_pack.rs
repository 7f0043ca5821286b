//! bf16 operands for [`Bfmmla`](super::Bfmmla): rows of the left and columns of the right one alike,
//! `[step][group][row][value in group]`.

use super::{SIDE, Value, arm_bf16::GROUP, pack::Ahead};
use crate::{
    Isa,
    simd::{Kernel, Simd, dispatch},
};
use half::bf16;

type Group = [bf16; GROUP];

impl Value for bf16 {
    #[inline(always)]
    unsafe fn store<S: Simd>(s: S, step: *mut bf16, row: usize, column: usize, v: S::V) {
        let mut values = [[bf16::ZERO; GROUP]; SIDE / GROUP];
        // SAFETY: SIDE is more than LANES; these values are in the step by the caller's promise.
        unsafe {
            s.store_bf16(values.as_mut_ptr().cast(), v);
            for (i, group) in values[..S::LANES / GROUP].iter().enumerate() {
                let to = step.add(((column / GROUP + i) * SIDE + row) * GROUP);
                to.cast::<Group>().write(*group);
            }
        }
    }

    fn panel(_: Isa, rows: &[&[bf16]], next: &[&[bf16]], to: &mut [bf16]) {
        let mut ahead = Ahead::new(next);
        for (i, step) in to.chunks_exact_mut(SIDE * SIDE).enumerate() {
            let step: &mut [Group] = bytemuck::cast_slice_mut(step);
            for column in 0..SIDE {
                ahead.fetch();
                let row = rows.get(column).and_then(|row| row.get(i * SIDE..));
                let row = row.unwrap_or(&[]);
                let mut last = [bf16::ZERO; SIDE];
                let values = match row.first_chunk() {
                    Some(whole) => whole,
                    None => {
                        last[..row.len()].copy_from_slice(row);
                        &last
                    }
                };
                let groups: &[Group; SIDE / GROUP] = bytemuck::cast_ref(values);
                for (to, group) in step[column..].iter_mut().step_by(SIDE).zip(groups) {
                    *to = *group;
                }
            }
        }
    }

    fn panel_f32(isa: Isa, rows: &[&[f32]], to: &mut [bf16]) {
        for column in 0..SIDE {
            let row = rows.get(column).copied().unwrap_or(&[]);
            Self::put_row(isa, row, to, column);
        }
    }

    fn panel_of_columns(isa: Isa, rows: &[&[f32]], to: &mut [bf16]) {
        dispatch(isa, Columns { rows, to });
    }
}

/// What [`Value::panel_of_columns`] does.
struct Columns<'a> {
    rows: &'a [&'a [f32]],
    to: &'a mut [bf16],
}

impl Kernel for Columns<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (i, to) in self.to.chunks_exact_mut(GROUP * SIDE).enumerate() {
            let mut rounded = [[bf16::ZERO; SIDE]; GROUP];
            for (t, rounded) in rounded.iter_mut().enumerate() {
                let row = self.rows.get(GROUP * i + t).copied().unwrap_or(&[]);
                for (to, from) in rounded.chunks_exact_mut(S::LANES).zip(row.chunks(S::LANES)) {
                    // SAFETY: the chunk holds LANES values.
                    unsafe { s.store_bf16(to.as_mut_ptr(), s.load_part(from)) };
                }
            }
            let to: &mut [Group] = bytemuck::cast_slice_mut(to);
            for (column, to) in to.iter_mut().enumerate() {
                *to = std::array::from_fn(|t| rounded[t][column]);
            }
        }
    }
}

//! Hints to bring cache lines near before they are used. A line may lie anywhere: nothing is read
//! that the program sees.

macro_rules! hints {
    ($($(#[$doc:meta])+ $name:ident: $x86:ident, $arm:literal;)+) => {$(
        $(#[$doc])+
        #[inline(always)]
        pub(crate) fn $name<T>(p: *const T) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a hint, by an instruction that every machine has.
            unsafe {
                use std::arch::x86_64::{$x86, _mm_prefetch};
                _mm_prefetch::<$x86>(p.cast());
            }
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            unsafe {
                std::arch::asm!(
                    concat!("prfm ", $arm, ", [{}]"),
                    in(reg) p,
                    options(nostack, preserves_flags, readonly)
                );
            }
            #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
            let _ = p;
        }
    )+};
}

hints! {
    /// For reading at once: into the level-1 cache.
    to_read: _MM_HINT_T0, "pldl1keep";
    /// For reading a little later: into the level-2 cache.
    to_read_later: _MM_HINT_T1, "pldl2keep";
    /// For writing.
    to_write: _MM_HINT_ET0, "pstl1keep";
}

//! Enums in one word: a value that has one of several forms is a pointer, and its low bits say which.
//!
//! A Rust enum of pointers takes two words. The entry of a key has room for one: so a collection that lies in an entry is one
//! allocation less, and one pointer nearer. `unsafe` is confined to this module and [`Block`](super::block::Block).

#![expect(unsafe_code, reason = "pointers told apart by their low bits; see each SAFETY note")]

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// The bits of a word that say which form it is.
pub(super) const TAG_BITS: usize = 0b11;

/// One form.
///
/// # Safety
/// It has the size and alignment of a pointer, is never zero, and its lowest two bits are always `TAG`.
pub(super) unsafe trait Tagged: Sized {
    const TAG: usize;
}

/// A box, as one form of a word.
pub(super) struct Large<T, const TAG: usize>(NonNull<u8>, PhantomData<Box<T>>);

// SAFETY: a Large owns its value alone, as a box does.
unsafe impl<T: Send, const TAG: usize> Send for Large<T, TAG> {}
// SAFETY: as above.
unsafe impl<T: Sync, const TAG: usize> Sync for Large<T, TAG> {}
// SAFETY: one pointer, to which `new` gives the tag; it does not change afterwards.
unsafe impl<T, const TAG: usize> Tagged for Large<T, TAG> {
    const TAG: usize = TAG;
}

impl<T, const TAG: usize> Large<T, TAG> {
    pub(super) fn new(value: T) -> Self {
        const { assert!(TAG <= TAG_BITS && align_of::<T>() > TAG_BITS) };
        let start = NonNull::from(Box::leak(Box::new(value))).cast::<u8>();
        Self(start.map_addr(|address| address | TAG), PhantomData)
    }

    #[inline]
    fn start(&self) -> *mut T {
        self.0.as_ptr().map_addr(|address| address & !TAG_BITS).cast()
    }
}

impl<T, const TAG: usize> Deref for Large<T, TAG> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the box taken apart in `new`, which lives as long as `self`.
        unsafe { &*self.start() }
    }
}

impl<T, const TAG: usize> DerefMut for Large<T, TAG> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, exclusive by `&mut self`.
        unsafe { &mut *self.start() }
    }
}

impl<T: Clone, const TAG: usize> Clone for Large<T, TAG> {
    fn clone(&self) -> Self {
        Self::new(T::clone(self))
    }
}

impl<T: std::fmt::Debug, const TAG: usize> std::fmt::Debug for Large<T, TAG> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        T::fmt(self, f)
    }
}

impl<T, const TAG: usize> Drop for Large<T, TAG> {
    fn drop(&mut self) {
        // SAFETY: the very box that `new` took apart; `self` is not used again.
        drop(unsafe { Box::from_raw(self.start()) });
    }
}

/// Makes `Repr`, one word that owns one of some forms, and the enums `Held` and `HeldMut` in which it shows which.
macro_rules! one_word {
    ($($form:ident($kind:ty)),+ $(,)?) => {
        #[repr(transparent)]
        struct Repr(std::ptr::NonNull<u8>);

        /// What the word holds.
        enum Held<'a> {
            $($form(&'a $kind)),+
        }

        /// What the word holds, to be changed.
        enum HeldMut<'a> {
            $($form(&'a mut $kind)),+
        }

        // The tags tell the forms apart, and each is a word.
        const _: () = {
            use $crate::types::word::Tagged;
            let (tags, mut seen) = ([$(<$kind as Tagged>::TAG),+], 0);
            let mut at = 0;
            while at < tags.len() {
                assert!(seen >> tags[at] & 1 == 0);
                seen |= 1 << tags[at];
                at += 1;
            }
            $(assert!(size_of::<$kind>() == size_of::<Repr>());)+
            $(assert!(align_of::<$kind>() == align_of::<Repr>());)+
        };

        #[expect(unsafe_code, reason = "a word is seen as the form that its tag names")]
        const _: () = {
            use $crate::types::word::{TAG_BITS, Tagged};

            const fn is_shared<T: Send + Sync>() {}
            $(is_shared::<$kind>();)+
            // SAFETY: the word owns one of the forms, and all of them are Send.
            unsafe impl Send for Repr {}
            // SAFETY: as above, Sync.
            unsafe impl Sync for Repr {}

            impl Repr {
                #[inline]
                fn held(&self) -> Held<'_> {
                    match self.0.addr().get() & TAG_BITS {
                        $(
                            // SAFETY: `Tagged` promises that the tag is this form's and no other's.
                            <$kind as Tagged>::TAG => Held::$form(unsafe {
                                &*(&raw const self.0).cast::<$kind>()
                            }),
                        )+
                        _ => unreachable!("a word of none of its forms"),
                    }
                }

                #[inline]
                fn held_mut(&mut self) -> HeldMut<'_> {
                    match self.0.addr().get() & TAG_BITS {
                        $(
                            // SAFETY: as in `held`, exclusive by `&mut self`.
                            <$kind as Tagged>::TAG => HeldMut::$form(unsafe {
                                &mut *(&raw mut self.0).cast::<$kind>()
                            }),
                        )+
                        _ => unreachable!("a word of none of its forms"),
                    }
                }
            }

            $(
                impl From<$kind> for Repr {
                    #[inline]
                    fn from(form: $kind) -> Self {
                        // SAFETY: a form is one pointer that is not null; it is owned by the word from here on.
                        unsafe { std::mem::transmute::<$kind, Repr>(form) }
                    }
                }
            )+

            impl Drop for Repr {
                fn drop(&mut self) {
                    match self.held_mut() {
                        // SAFETY: the word is not used again, and a form knows how to drop itself.
                        $(HeldMut::$form(form) => unsafe { std::ptr::drop_in_place(form) },)+
                    }
                }
            }
        };

        impl Clone for Repr {
            fn clone(&self) -> Self {
                match self.held() {
                    $(Held::$form(form) => form.clone().into(),)+
                }
            }
        }

        impl std::fmt::Debug for Repr {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.held() {
                    $(Held::$form(form) => std::fmt::Debug::fmt(form, f),)+
                }
            }
        }
    };
}

pub(super) use one_word;

//! Owned bytes, as small as can be: a member, and a field with its value.

use super::size_class;

/// Owned bytes.
#[derive(Clone)]
pub(super) struct Text(Box<[u8]>);

impl Text {
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What stands outside of `self`.
    pub(super) fn heap_size(&self) -> usize {
        size_class(self.0.len())
    }
}

/// A field and its value in one allocation: the field's length in front, 1 byte or 5.
#[derive(Clone)]
pub(super) struct Pair(Box<[u8]>);

const LONG_FIELD: u8 = 0xff;

impl Pair {
    pub(super) fn new(field: &[u8], value: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(field.len() + value.len() + 5);
        match u8::try_from(field.len()) {
            Ok(len) if len != LONG_FIELD => bytes.push(len),
            _ => {
                bytes.push(LONG_FIELD);
                bytes.extend_from_slice(&(field.len() as u32).to_le_bytes());
            }
        }
        bytes.extend_from_slice(field);
        bytes.extend_from_slice(value);
        Self(bytes.into_boxed_slice())
    }

    fn split(&self) -> (&[u8], &[u8]) {
        match &*self.0 {
            [LONG_FIELD, a, b, c, d, rest @ ..] => {
                rest.split_at(u32::from_le_bytes([*a, *b, *c, *d]) as usize)
            }
            [len, rest @ ..] => rest.split_at(usize::from(*len)),
            [] => (&[], &[]),
        }
    }

    pub(super) fn field(&self) -> &[u8] {
        self.split().0
    }

    pub(super) fn value(&self) -> &[u8] {
        self.split().1
    }

    pub(super) fn heap_size(&self) -> usize {
        size_class(self.0.len())
    }
}

//! A list that mostly has one entry.

use std::{
    mem,
    ops::{Deref, DerefMut},
    slice,
};

/// A list that mostly has one entry, which takes no heap.
// A `SmallVec` asks at each step whether it has spilled, which is a tenth of what a layer costs.
#[derive(Clone, Debug, Default)]
pub(super) enum Few<T> {
    #[default]
    None,
    One(T),
    More(Vec<T>),
}

impl<T> Few<T> {
    #[inline]
    pub(super) fn push(&mut self, value: T) {
        self.insert(self.len(), value);
    }

    /// Before the one that is there now.
    #[inline]
    pub(super) fn insert(&mut self, at: usize, value: T) {
        match self {
            Self::None => *self = Self::One(value),
            _ => self.insert_further(at, value),
        }
    }

    #[cold]
    fn insert_further(&mut self, at: usize, value: T) {
        let mut all = match mem::take(self) {
            Self::None => Vec::new(),
            Self::One(first) => vec![first],
            Self::More(all) => all,
        };
        all.insert(at, value);
        *self = Self::More(all);
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match self {
            Self::None => &[],
            Self::One(one) => slice::from_ref(one),
            Self::More(all) => all,
        }
    }
}

impl<T> DerefMut for Few<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Self::None => &mut [],
            Self::One(one) => slice::from_mut(one),
            Self::More(all) => all,
        }
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let mut few = Self::None;
        values.into_iter().for_each(|value| few.push(value));
        few
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_list_whatever_its_length() {
        let mut few = Few::default();
        let mut list = Vec::new();
        for (at, value) in [(0, 'c'), (0, 'a'), (1, 'b'), (3, 'd')] {
            assert_eq!(*few, *list);
            few.insert(at, value);
            list.insert(at, value);
        }
        assert_eq!(*few, *list);
        few[1] = 'x';
        assert_eq!(*few, ['a', 'x', 'c', 'd']);
        assert_eq!(*('a'..='c').collect::<Few<_>>(), ['a', 'b', 'c']);
    }
}

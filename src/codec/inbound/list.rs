//! A list that allocates only when it is long.

/// How many items need no allocation.
const FEW: usize = 4;

/// None, a few items in place, or many on the heap.
#[derive(Clone, Debug, Default)]
pub(super) enum List<T> {
    #[default]
    Empty,
    Few([T; FEW], usize),
    Many(Vec<T>),
}

impl<T: Copy> List<T> {
    /// Appends an item.
    pub(super) fn push(&mut self, item: T) {
        match self {
            List::Empty => *self = List::Few([item; FEW], 1),
            List::Few(items, len) if *len < FEW => {
                items[*len] = item;
                *len += 1;
            }
            List::Few(items, _) => {
                let mut many = Vec::with_capacity(4 * FEW);
                many.extend_from_slice(items);
                many.push(item);
                *self = List::Many(many);
            }
            List::Many(items) => items.push(item),
        }
    }

    /// The items, in order.
    pub(super) fn as_slice(&self) -> &[T] {
        match self {
            List::Empty => &[],
            List::Few(items, len) => &items[..*len],
            List::Many(items) => items,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_stay_in_order_from_few_to_many() {
        let mut list = List::default();
        for i in 0..20 {
            assert_eq!(list.as_slice(), (0..i).collect::<Vec<_>>());
            list.push(i);
        }
    }
}

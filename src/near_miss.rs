//! Names that were meant as another one: in another case, or one letter off.
//!
//! A name that is not known is ignored in most places, since proxies and clients add their own.
//! One that is nearly a known name is a typo, and ignoring it would do something else than was
//! asked for.

/// The known name that `name`, which is none of them, was probably meant as.
pub(crate) fn find<'k>(name: &[u8], known: &[&'k str]) -> Option<&'k str> {
    let is_meant = |known: &&&str| is_one_edit_off(name, known.as_bytes());
    known.iter().find(is_meant).copied()
}

/// As [`find`], for the fields of an object: a short one is meant only in another case, since names
/// of a few letters are often one letter off each other.
pub(crate) fn find_field<'k>(name: &[u8], known: &[&'k str]) -> Option<&'k str> {
    let is_meant = |known: &&&str| match known.len() {
        FIELD_LEN_MIN.. => is_one_edit_off(name, known.as_bytes()),
        _ => name.eq_ignore_ascii_case(known.as_bytes()),
    };
    known.iter().find(is_meant).copied()
}

const FIELD_LEN_MIN: usize = 5;

/// Whether the names are the same in another case, or become so by one letter that is inserted,
/// deleted, replaced, or swapped with its neighbour. Neither allocates nor looks at a name whose
/// length rules it out.
fn is_one_edit_off(a: &[u8], b: &[u8]) -> bool {
    if a.len().abs_diff(b.len()) > 1 {
        return false;
    }
    let same = |(a, b): &(&u8, &u8)| a.eq_ignore_ascii_case(b);
    let prefix = a.iter().zip(b).take_while(same).count();
    let (a, b) = (&a[prefix..], &b[prefix..]);
    let suffix = a.iter().rev().zip(b.iter().rev()).take_while(same).count();
    match (&a[..a.len() - suffix], &b[..b.len() - suffix]) {
        ([], []) | ([_], []) | ([], [_]) | ([_], [_]) => true,
        ([a1, a2], [b1, b2]) => a1.eq_ignore_ascii_case(b2) && a2.eq_ignore_ascii_case(b1),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_case_and_one_letter_inserted_deleted_replaced_or_swapped_are_near_misses() {
        for name in [
            "valtype", "VALTYPE", "valTypes", "alType", "valTyp", "valTpye", "vaLtYpe", "walType",
            "val-Type", "avlType", "valtyep",
        ] {
            assert_eq!(
                find(name.as_bytes(), &["topic", "valType"]),
                Some("valType"),
                "{name}"
            );
        }
    }

    #[test]
    fn a_short_field_is_meant_in_another_case_only() {
        let known = ["key", "value"];
        assert_eq!(find_field(b"Key", &known), Some("key"));
        assert_eq!(find_field(b"valu", &known), Some("value"));
        assert_eq!(find_field(b"keys", &known), None);
        assert_eq!(find_field(b"kye", &known), None);
    }

    #[test]
    fn two_letters_off_is_another_name() {
        for name in [
            "",
            "val",
            "valueType",
            "vlTyp",
            "typeVal",
            "wallType2",
            "valTyepp",
            "topic",
        ] {
            assert_eq!(find(name.as_bytes(), &["valType"]), None, "{name}");
        }
    }
}

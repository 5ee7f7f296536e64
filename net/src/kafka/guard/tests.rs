use super::*;

/// A metadata request, version 1: an array of strings.
#[test]
fn a_count_beyond_the_bytes_is_refused() {
    let lie = check(3, false, 1, &i32::MAX.to_be_bytes()).expect_err("nothing follows");
    assert!(lie.contains("2147483647"), "{lie}");
    assert_eq!(check(3, false, 1, &(-1i32).to_be_bytes()), Ok(4));
    assert!(check(3, false, 1, &(-2i32).to_be_bytes()).is_err());
    assert!(check(3, false, 1, &[0, 0, 0, 1, 0, 9, b'a']).is_err());
    assert_eq!(check(3, false, 1, &[0, 0, 0, 1, 0, 1, b'a']), Ok(7));
}

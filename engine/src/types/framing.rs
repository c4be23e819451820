//! Owns how records lie in a batch that is not compressed: one behind the other, each as long as it says.
//! Does not know what keys and values mean, nor the batch's header.
//! Invariant: nothing is copied or allocated, and no length is believed that does not fit.

const CUT: &str = "a record is cut short";
const FIELDS: &str = "a record is not as long as what is in it";
const OFFSETS: &str = "the records' offsets are not 0, 1, 2 and so on";
const MORE: &str = "there are more bytes than records";

/// Checks that `records` are `count` records, whose offsets count up from 0; says whether all of them have keys.
///
/// # Errors
/// What is wrong with them, in a few words.
pub fn check(records: &[u8], count: i32) -> Result<bool, &'static str> {
    let mut rest = records;
    let mut keyed = true;
    for n in 0..count {
        let length = int(&mut rest).and_then(|length| usize::try_from(length).ok());
        let length = length.ok_or(CUT)?;
        let (mut record, behind) = rest.split_at_checked(length).ok_or(CUT)?;
        rest = behind;
        let seen = fields(&mut record).filter(|_| record.is_empty());
        let (delta, has_key) = seen.ok_or(FIELDS)?;
        if delta != n {
            return Err(OFFSETS);
        }
        keyed &= has_key;
    }
    match rest {
        [] => Ok(keyed),
        _ => Err(MORE),
    }
}

/// Goes through a record; gives its offset within the batch, and whether it has a key.
fn fields(record: &mut &[u8]) -> Option<(i32, bool)> {
    let _attributes = record.split_off_first()?;
    pass_long(record)?;
    let delta = int(record)?;
    let has_key = nullable(record)?;
    let _has_value = nullable(record)?;
    let headers = int(record)?;
    for _ in 0..u32::try_from(headers).ok()? {
        let name = nullable(record)?;
        let _has_value = nullable(record)?;
        if !name {
            return None;
        }
    }
    Some((delta, has_key))
}

/// Passes over bytes behind their length; false where that is -1, for none.
fn nullable(record: &mut &[u8]) -> Option<bool> {
    let length = int(record)?;
    match usize::try_from(length) {
        Ok(length) => record.split_off(..length).map(|_| true),
        Err(_) => (length == -1).then_some(false),
    }
}

/// A zigzag varint of up to 32 bits.
#[inline]
fn int(bytes: &mut &[u8]) -> Option<i32> {
    let mut value = 0u64;
    for shift in (0..35).step_by(7) {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let value = u32::try_from(value).ok()?;
            return Some((value >> 1) as i32 ^ -((value & 1) as i32));
        }
    }
    None
}

/// Passes over a varint of up to 64 bits.
fn pass_long(bytes: &mut &[u8]) -> Option<()> {
    for _ in 0..10 {
        if *bytes.split_off_first()? & 0x80 == 0 {
            return Some(());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zigzag(value: i64) -> Vec<u8> {
        let mut v = ((value << 1) ^ (value >> 63)) as u64;
        let mut out = Vec::new();
        while v >= 0x80 {
            out.push(v as u8 | 0x80);
            v >>= 7;
        }
        out.push(v as u8);
        out
    }

    fn framed(fields: &[u8]) -> Vec<u8> {
        [zigzag(fields.len() as i64), fields.to_vec()].concat()
    }

    /// Fields of a record; lengths of -1 are nulls.
    fn record(delta: i64, key: i64, value: i64, headers: &[(i64, i64)]) -> Vec<u8> {
        let some = |length: i64| [zigzag(length), vec![b'x'; length.max(0) as usize]].concat();
        let mut fields = vec![0];
        fields.extend(zigzag(-1_000_000));
        fields.extend(zigzag(delta));
        fields.extend([some(key), some(value), zigzag(headers.len() as i64)].concat());
        for (name, value) in headers {
            fields.extend([some(*name), some(*value)].concat());
        }
        fields
    }

    #[test]
    fn sound_records_pass_and_tell_whether_they_have_keys() {
        let check_all = |records: &[Vec<u8>]| {
            let framed: Vec<u8> = records.iter().flat_map(|r| framed(r)).collect();
            check(&framed, records.len() as i32)
        };
        let one = record(0, 3, 200, &[(0, -1), (5, 0)]);
        assert_eq!(check_all(std::slice::from_ref(&one)), Ok(true));
        assert_eq!(check_all(&[one.clone(), record(1, 0, -1, &[])]), Ok(true));
        assert_eq!(check_all(&[one.clone(), record(1, -1, 9, &[])]), Ok(false));
        assert_eq!(check_all(&[one.clone(), one.clone()]), Err(OFFSETS));
        assert_eq!(check_all(&[record(1, 3, 3, &[]), one]), Err(OFFSETS));
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let good = framed(&record(0, 3, 5, &[(1, 1)]));
        for cut in 0..good.len() {
            assert_eq!(check(&good[..cut], 1), Err(CUT), "cut at {cut}");
        }
        assert_eq!(check(&good, 2), Err(CUT));
        assert_eq!(check(&[&good[..], &[0]].concat(), 1), Err(MORE));
        let mut longer = record(0, 3, 5, &[]);
        longer.push(0);
        for bad in [
            longer,
            record(0, -2, 5, &[]),
            record(0, 3, -7, &[]),
            record(0, 3, 5, &[(-1, 1)]),
            record(0, 3, 5, &[(1, -2)]),
            [&record(0, 3, 5, &[])[..10], &zigzag(i64::from(i32::MAX))].concat(),
        ] {
            assert_eq!(check(&framed(&bad), 1), Err(FIELDS), "{bad:?}");
        }
        assert_eq!(check(&[0xff, 0xff, 0xff, 0xff, 0xff, 0], 1), Err(CUT));
        assert_eq!(check(&zigzag(-1), 1), Err(CUT));
    }
}

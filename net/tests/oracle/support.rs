//! Owns the random values, and how a value of ours becomes the same value of the oracle.
//! Does not know particular messages.
//! Keeps: a field is filled only in versions that carry it, because the oracle refuses others.
use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{BrokerId, GroupId, ProducerId, TopicName, TransactionalId};
use kafka_protocol::protocol::{Decodable, Encodable, Message as OracleMessage, StrBytes};
use millrace_net::wire::{Message, Reader, Records, Str, WireError, Writer};
use uuid::Uuid;

/// Splitmix64.
pub struct Rng(u64);

impl Rng {
    /// From `WIRE_SEED` or a fixed seed, which is printed (and shown if the test fails).
    pub fn seeded(test: &str) -> Self {
        let seed = std::env::var("WIRE_SEED")
            .map_or(0x5eed, |seed| seed.parse().expect("WIRE_SEED is a number"));
        println!("{test}: WIRE_SEED={seed}");
        Self(test.bytes().fold(seed, |seed, byte| {
            seed.wrapping_mul(31).wrapping_add(byte.into())
        }))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A random value that `version` can carry.
pub trait Generate {
    fn generate(rng: &mut Rng, version: i16) -> Self;
}

macro_rules! generate_ints {
    ($($ty:ty),*) => {$(
        impl Generate for $ty {
            fn generate(rng: &mut Rng, _: i16) -> Self {
                match rng.below(6) {
                    0 => 0,
                    1 => -1,
                    2 => <$ty>::MAX,
                    3 => <$ty>::MIN,
                    4 => (rng.next() % 100) as $ty,
                    _ => rng.next() as $ty,
                }
            }
        }
    )*};
}
generate_ints!(i8, i16, i32, i64);

impl Generate for u16 {
    fn generate(rng: &mut Rng, _: i16) -> Self {
        rng.next() as u16
    }
}

impl Generate for bool {
    fn generate(rng: &mut Rng, _: i16) -> Self {
        rng.one_in(2)
    }
}

impl Generate for Uuid {
    fn generate(rng: &mut Rng, _: i16) -> Self {
        if rng.one_in(3) {
            return Uuid::nil();
        }
        Uuid::from_u64_pair(rng.next(), rng.next())
    }
}

impl Generate for Str {
    fn generate(rng: &mut Rng, _: i16) -> Self {
        let text = match rng.below(8) {
            0 => String::new(),
            1 => "žluťoučký kůň 🐎".to_owned(),
            // Two bytes of compact length.
            2 if rng.one_in(4) => "x".repeat(126 + rng.below(4)),
            3 if rng.one_in(20) => "long".repeat(4000),
            _ => format!("name-{}", rng.below(1000)),
        };
        Str::from(text)
    }
}

impl Generate for Bytes {
    fn generate(rng: &mut Rng, _: i16) -> Self {
        let length = match rng.below(6) {
            0 => 0,
            1 => 1 + rng.below(3),
            2 => 16_000 + rng.below(1000),
            _ => rng.below(200),
        };
        (0..length)
            .map(|_| rng.next() as u8)
            .collect::<Vec<_>>()
            .into()
    }
}

impl Generate for Records {
    fn generate(rng: &mut Rng, version: i16) -> Self {
        match rng.below(4) {
            0 => Records::Null,
            1 => Bytes::generate(rng, version).into(),
            _ => (0..rng.below(4))
                .map(|_| Bytes::generate(rng, version))
                .collect::<Vec<_>>()
                .into(),
        }
    }
}

impl<T: Generate> Generate for Vec<T> {
    fn generate(rng: &mut Rng, version: i16) -> Self {
        let most = if size_of::<T>() <= 8 && rng.one_in(10) {
            300
        } else {
            4
        };
        (0..rng.below(most))
            .map(|_| T::generate(rng, version))
            .collect()
    }
}

impl<T: Generate> Generate for Option<T> {
    fn generate(rng: &mut Rng, version: i16) -> Self {
        if rng.one_in(4) {
            return None;
        }
        Some(T::generate(rng, version))
    }
}

/// The same value in the oracle's types.
pub trait ToOracle<T> {
    fn to_oracle(&self, version: i16) -> T;
}

macro_rules! same_in_oracle {
    ($($ty:ty),*) => {$(
        impl ToOracle<$ty> for $ty {
            fn to_oracle(&self, _: i16) -> $ty {
                self.clone()
            }
        }
    )*};
}
same_in_oracle!(i8, i16, u16, i32, i64, bool, Uuid, Bytes);

impl ToOracle<BrokerId> for i32 {
    fn to_oracle(&self, _: i16) -> BrokerId {
        BrokerId(*self)
    }
}

impl ToOracle<ProducerId> for i64 {
    fn to_oracle(&self, _: i16) -> ProducerId {
        ProducerId(*self)
    }
}

impl ToOracle<StrBytes> for Str {
    fn to_oracle(&self, _: i16) -> StrBytes {
        StrBytes::from_string(self.to_string())
    }
}

impl ToOracle<TopicName> for Str {
    fn to_oracle(&self, version: i16) -> TopicName {
        TopicName(self.to_oracle(version))
    }
}

impl ToOracle<GroupId> for Str {
    fn to_oracle(&self, version: i16) -> GroupId {
        GroupId(self.to_oracle(version))
    }
}

impl ToOracle<TransactionalId> for Str {
    fn to_oracle(&self, version: i16) -> TransactionalId {
        TransactionalId(self.to_oracle(version))
    }
}

impl ToOracle<Option<Bytes>> for Records {
    fn to_oracle(&self, _: i16) -> Option<Bytes> {
        self.to_bytes()
    }
}

impl<T, U: ToOracle<T>> ToOracle<Vec<T>> for Vec<U> {
    fn to_oracle(&self, version: i16) -> Vec<T> {
        self.iter().map(|value| value.to_oracle(version)).collect()
    }
}

impl<T, U: ToOracle<T>> ToOracle<Option<T>> for Option<U> {
    fn to_oracle(&self, version: i16) -> Option<T> {
        self.as_ref().map(|value| value.to_oracle(version))
    }
}

/// Says which versions of a struct carry which field (and where `Option`s may be null), and that its fields have the
/// same names in the oracle.
macro_rules! mirror {
    (
        $ours:path => $theirs:path {
            $($field:ident: $lo:literal $dots:tt $($hi:literal)?
              $(null $nlo:literal $ndots:tt $($nhi:literal)?)?,)*
        }
    ) => {
        impl crate::support::Generate for $ours {
            fn generate(rng: &mut crate::support::Rng, version: i16) -> Self {
                let mut value = Self::default();
                $(
                    if ($lo $dots $($hi)?).contains(&version) {
                        value.$field = crate::support::Generate::generate(rng, version);
                        $(
                            while !($nlo $ndots $($nhi)?).contains(&version) && value.$field.is_none() {
                                value.$field = crate::support::Generate::generate(rng, version);
                            }
                        )?
                    }
                )*
                value
            }
        }
        crate::support::convert! {
            $ours => $theirs { $($field: $lo $dots $($hi)?,)* }
        }
    };
}
pub(crate) use mirror;

/// The second half of `mirror!`, for a struct of ours that is two of the oracle's.
macro_rules! convert {
    ($ours:path => $theirs:path { $($field:ident: $lo:literal $dots:tt $($hi:literal)?,)* }) => {
        impl crate::support::ToOracle<$theirs> for $ours {
            fn to_oracle(&self, version: i16) -> $theirs {
                let mut value = <$theirs>::default();
                $(
                    if ($lo $dots $($hi)?).contains(&version) {
                        value.$field = crate::support::ToOracle::to_oracle(&self.$field, version);
                    }
                )*
                value
            }
        }
    };
}
pub(crate) use convert;

/// A test per API that compares both messages, and the messages as cases for the hostile tests.
macro_rules! oracle_tests {
    ($($name:ident: $request:ty => $oracle_request:ty, $response:ty => $oracle_response:ty;)*) => {
        $(
            #[test]
            fn $name() {
                crate::support::compare::<$request, $oracle_request>();
                crate::support::compare::<$response, $oracle_response>();
            }
        )*

        pub fn cases(rng: &mut crate::support::Rng) -> Vec<crate::support::Case> {
            let mut cases = Vec::new();
            $(
                crate::support::add_cases::<$request>(rng, &mut cases);
                crate::support::add_cases::<$response>(rng, &mut cases);
            )*
            cases
        }
    };
}
pub(crate) use oracle_tests;

/// Values tried per version.
const ROUNDS: usize = 60;

/// Both codecs agree on the bytes of every value, in both directions, in every version both know; versions the
/// oracle does not know yet come back as they went.
pub fn compare<M, O>()
where
    M: Message + Generate + ToOracle<O> + PartialEq + Debug,
    O: Encodable + Decodable + OracleMessage + PartialEq + Debug,
{
    let mut rng = Rng::seeded(M::NAME);
    let mut compared = 0;
    for version in M::VERSIONS.0..=M::VERSIONS.1 {
        let known = O::VERSIONS.min <= version && version <= O::VERSIONS.max;
        compared += usize::from(known);
        for _ in 0..ROUNDS {
            let ours = M::generate(&mut rng, version);
            let bytes = encode(&ours, version)
                .unwrap_or_else(|error| panic!("v{version} {ours:?}: {error}"));
            if known {
                let theirs = ours.to_oracle(version);
                let mut their_bytes = BytesMut::new();
                theirs
                    .encode(&mut their_bytes, version)
                    .unwrap_or_else(|error| panic!("v{version}: {error}"));
                assert_eq!(bytes, their_bytes.freeze(), "v{version} {ours:?}");
                let back = O::decode(&mut bytes.clone(), version).expect("oracle reads ours");
                assert_eq!(back, theirs, "v{version}");
            }
            assert_eq!(
                decode::<M>(bytes, version).as_ref(),
                Ok(&ours),
                "v{version}"
            );
        }
    }
    assert!(compared > 0, "no version of {} was compared", M::NAME);
}

/// A valid message and how to read it.
pub struct Case {
    pub name: &'static str,
    pub version: i16,
    pub bytes: Bytes,
    pub decode: fn(Bytes, i16) -> Result<(), WireError>,
}

/// Adds a few values of each version.
pub fn add_cases<M: Message + Generate>(rng: &mut Rng, cases: &mut Vec<Case>) {
    for version in M::VERSIONS.0..=M::VERSIONS.1 {
        let mut added = 0;
        while added < 3 {
            let bytes = encode(&M::generate(rng, version), version).expect("valid");
            // Large ones say nothing more about structure and cost time at every byte.
            if bytes.len() > 2000 {
                continue;
            }
            added += 1;
            let decode = |bytes, version| decode::<M>(bytes, version).map(drop);
            cases.push(Case {
                name: M::NAME,
                version,
                bytes,
                decode,
            });
        }
    }
}

pub fn encode<M: Message>(message: &M, version: i16) -> Result<Bytes, WireError> {
    let mut writer = Writer::new();
    message.encode(&mut writer, version)?;
    Ok(writer.into_bytes())
}

pub fn decode<M: Message>(bytes: Bytes, version: i16) -> Result<M, WireError> {
    let mut reader = Reader::new(bytes);
    let message = M::decode(&mut reader, version)?;
    reader.finish()?;
    Ok(message)
}

//! Owns histories: the settings and the list of steps that a seed stands for, and how they are shown.
//! Does not know how a step is done.
//! Invariant: a history is a pure function of its seed, and any subset of its steps is a history too.

use super::clients::admin::NewTopic;
use super::model::{Caching, Retention};
use super::seeds::Rng;
use millrace_engine::rt::sim::{CrashPolicy, Unsynced};

/// What a history is mostly about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flavor {
    /// Some of everything that must be survived.
    Mixed,
    /// More than the journal's ring holds, from many producers to many partitions.
    Pressure,
    /// A disk that fails, fills up or is slow.
    Faults,
    /// Bytes at rest are damaged: this must be noticed, not survived.
    Damage,
}

/// Sizes of the broker, and what the world is like.
#[derive(Clone, Debug)]
pub struct Settings {
    pub flavor: Flavor,
    pub shards: usize,
    pub file_bytes: u64,
    pub files_max: usize,
    pub backlog_bytes: usize,
    pub cache_bytes: u64,
    /// Files synced each by itself.
    pub file_syncs_max: usize,
    pub retention_check_ms: u64,
    /// Network writes that reset their connection, per million.
    pub reset_ppm: u32,
    /// Longest way of a packet.
    pub packet_us: u64,
}

/// How a producer sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sending {
    /// With sequences; repeats what has no answer.
    Idempotent,
    /// The same, and sends everything over a second connection at once, as a late retry would.
    Hedged,
    /// Without sequences and retries; the number is `acks`.
    Plain(i16),
}

/// One producer's work.
#[derive(Clone, Copy, Debug)]
pub struct Producing {
    pub topic: u8,
    pub sending: Sending,
    pub requests: u32,
    /// Requests under way at once.
    pub window: u32,
    /// Partitions in one request.
    pub parts: u32,
    pub records_max: u64,
    pub bytes_max: u64,
    /// Pause between windows, at most.
    pub pause_us: u64,
    /// Every codec, or none.
    pub compressed: bool,
    /// Connections sometimes end in the middle of a request.
    pub torn: bool,
}

/// A file that damage at rest is done to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    Log,
    Sum,
    Index,
    Journal,
    Checkpoint,
    Manifest,
    Meta,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Harm {
    /// One bit is flipped.
    Bit,
    /// A block holds what it held at some earlier time.
    Stale,
    /// A block holds what belongs elsewhere in the file.
    Misdirected,
    /// The whole file is what it was at some earlier time: one that is replaced rather than written to.
    Old,
}

#[derive(Clone, Debug)]
pub enum Step {
    CreateTopic(NewTopic),
    DeleteTopic {
        topic: u8,
    },
    /// More partitions.
    GrowTopic {
        topic: u8,
        more: i32,
    },
    SetTopic {
        topic: u8,
        name: &'static str,
        value: i64,
    },
    Produce {
        producers: u32,
        work: Producing,
    },
    Consume {
        topic: u8,
        readers: u32,
        polls: u32,
        bytes_max: i32,
        /// All partitions at once, in a fetch session.
        session: bool,
    },
    /// Offsets by time.
    LookUp {
        topic: u8,
        lookups: u32,
    },
    DeleteRecords {
        topic: u8,
        index: i32,
        percent: u64,
    },
    Wait {
        us: u64,
    },
    /// Faults end; everything under way is answered.
    Settle,
    Verify,
    JumpWall {
        ms: i64,
    },
    SlowDisk {
        extra_us: u64,
        lasting_us: u64,
    },
    FailDisk {
        reads: u32,
        writes: u32,
        syncs: u32,
    },
    FullDisk {
        spare_bytes: u64,
        lasting_us: u64,
    },
    CutConnections,
    /// Nothing passes between clients and broker for a while; connections stay.
    Silence {
        lasting_us: u64,
    },
    /// The content of all files now, for blocks that go stale.
    Remember,
    Crash {
        policy: CrashPolicy,
        shards: usize,
        /// Crashes during the recovery that follows, each after so many microseconds.
        again: Vec<u64>,
    },
    Stop {
        shards: usize,
    },
    /// Everything settles; then a crash must change nothing.
    Recheck {
        policy: CrashPolicy,
        shards: usize,
        again: Vec<u64>,
    },
    /// Everything settles and the clients end; then a file is damaged, while the broker is down unless `live`.
    Damage {
        target: Target,
        harm: Harm,
        choice: u64,
        live: bool,
        shards: usize,
    },
}

pub struct History {
    pub seed: u64,
    pub settings: Settings,
    pub steps: Vec<Step>,
}

const TOPICS: u64 = 3;

impl History {
    pub fn generate(seed: u64) -> History {
        let mut rng = Rng::new(seed);
        let flavor = match rng.below(20) {
            0..7 => Flavor::Mixed,
            7..13 => Flavor::Pressure,
            13..16 => Flavor::Faults,
            _ => Flavor::Damage,
        };
        let file_bytes = rng.pick(&[128 << 10, 128 << 10, 256 << 10]);
        let settings = Settings {
            flavor,
            shards: rng.between(1, 3) as usize,
            file_bytes,
            files_max: rng.between(2, 4) as usize,
            backlog_bytes: rng.pick(&[32 << 10, 128 << 10, 512 << 10]),
            cache_bytes: rng.pick(&[0, 32 << 10, 256 << 10, 2 << 20]),
            file_syncs_max: 0,
            retention_check_ms: rng.pick(&[20, 200, 2_000]),
            reset_ppm: rng.pick(&[0, 0, 300, 3_000]),
            packet_us: rng.pick(&[100, 100, 100, 2_000, 15_000]),
        };
        let mut history = History {
            seed,
            settings,
            steps: Vec::new(),
        };
        history.fill(&mut rng);
        history.settings.file_syncs_max = rng.pick(&[0, 1, 32, 32]);
        history
    }

    fn fill(&mut self, rng: &mut Rng) {
        let topics = if self.settings.flavor == Flavor::Pressure {
            1
        } else {
            rng.between(1, TOPICS)
        };
        for topic in 0..topics {
            self.steps
                .push(create(rng, topic as u8, self.settings.flavor));
        }
        let rounds = rng.between(1, 4);
        for _ in 0..rounds {
            for _ in 0..rng.between(2, 6) {
                self.work(rng, topics);
                if self.settings.flavor == Flavor::Faults || rng.one_in(5) {
                    self.trouble(rng);
                }
            }
            if self.settings.flavor == Flavor::Damage || rng.one_in(3) {
                self.steps.push(Step::Remember);
            }
            self.end_of_round(rng);
        }
        match self.settings.flavor {
            Flavor::Damage => self.steps.push(damage(rng)),
            Flavor::Mixed | Flavor::Pressure | Flavor::Faults => self.steps.push(Step::Recheck {
                policy: policy(rng),
                shards: rng.between(1, 3) as usize,
                again: again(rng),
            }),
        }
    }

    fn work(&mut self, rng: &mut Rng, topics: u64) {
        let topic = rng.below(topics) as u8;
        let pressure = self.settings.flavor == Flavor::Pressure;
        let step = match rng.below(20) {
            0..9 => {
                let producers = if pressure {
                    rng.between(4, 24)
                } else {
                    rng.between(1, 4)
                };
                Step::Produce {
                    producers: producers as u32,
                    work: producing(rng, topic, pressure),
                }
            }
            9..13 => Step::Consume {
                topic,
                readers: rng.between(1, 3) as u32,
                polls: rng.between(2, 12) as u32,
                bytes_max: rng.pick(&[1, 5_000, 60_000, 1 << 20]),
                session: rng.one_in(3),
            },
            13..15 => Step::DeleteRecords {
                topic,
                index: rng.below(4) as i32,
                percent: rng.pick(&[10, 50, 100, 100]),
            },
            15 => self.setting(rng, topic),
            16 if rng.one_in(2) => Step::GrowTopic {
                topic,
                more: rng.between(1, 3) as i32,
            },
            16 if !pressure => Step::DeleteTopic { topic },
            17 => create(rng, topic, self.settings.flavor),
            18 => Step::JumpWall {
                ms: rng.pick(&[-86_400_000, -3_000, 3_000, 86_400_000]),
            },
            _ => Step::LookUp {
                topic,
                lookups: rng.between(1, 8) as u32,
            },
        };
        self.steps.push(step);
        if rng.one_in(3) {
            self.steps.push(Step::Wait {
                us: rng.between(1, 30_000),
            });
        }
    }

    fn setting(&self, rng: &mut Rng, topic: u8) -> Step {
        let retains = self.settings.flavor == Flavor::Mixed;
        let (name, value) = match rng.below(4) {
            0 if retains => ("retention.bytes", rng.pick(&[-1, 30_000, 300_000])),
            1 if retains => ("retention.ms", rng.pick(&[-1, 400, 3_600_000])),
            _ => ("segment.ms", rng.pick(&[1, 30, 1_000])),
        };
        Step::SetTopic { topic, name, value }
    }

    fn trouble(&mut self, rng: &mut Rng) {
        let step = match rng.below(9) {
            0..2 => Step::CutConnections,
            2..4 => Step::SlowDisk {
                extra_us: rng.pick(&[300, 3_000, 40_000]),
                lasting_us: rng.between(1_000, 300_000),
            },
            4..7 => {
                let kind = rng.below(3);
                let n = rng.between(1, 3) as u32;
                Step::FailDisk {
                    reads: if kind == 0 { n } else { 0 },
                    writes: if kind == 1 { n } else { 0 },
                    syncs: if kind == 2 { n } else { 0 },
                }
            }
            7 => Step::FullDisk {
                spare_bytes: rng.pick(&[0, 8 << 10, 200 << 10]),
                lasting_us: rng.between(1_000, 400_000),
            },
            _ => Step::Silence {
                lasting_us: rng.pick(&[5_000, 80_000, 400_000]),
            },
        };
        self.steps.push(step);
    }

    fn end_of_round(&mut self, rng: &mut Rng) {
        if rng.one_in(4) {
            self.steps.push(Step::Settle);
            self.steps.push(Step::Verify);
        } else if rng.one_in(3) {
            // Late retries while a flush takes long, and then the power goes.
            self.steps.push(Step::SlowDisk {
                extra_us: rng.between(500, 20_000),
                lasting_us: 200_000,
            });
            self.steps.push(Step::Wait {
                us: rng.between(1, 20_000),
            });
            self.steps.push(Step::CutConnections);
            self.steps.push(Step::Wait {
                us: rng.between(1, 30_000),
            });
        } else {
            self.steps.push(Step::Wait {
                us: rng.between(1, 200_000),
            });
        }
        let shards = if rng.one_in(2) {
            self.settings.shards
        } else {
            rng.between(1, 3) as usize
        };
        if rng.one_in(6) {
            self.steps.push(Step::Stop { shards });
        } else {
            self.steps.push(Step::Crash {
                policy: policy(rng),
                shards,
                again: again(rng),
            });
        }
    }
}

fn create(rng: &mut Rng, topic: u8, flavor: Flavor) -> Step {
    let partitions = match flavor {
        Flavor::Pressure => rng.pick(&[4, 12, 24]),
        Flavor::Mixed | Flavor::Faults | Flavor::Damage => rng.between(1, 4) as i32,
    };
    let rolls = rng.one_in(2);
    let retains = flavor == Flavor::Mixed && rng.one_in(3);
    let by = rng.below(3);
    let cached = flavor != Flavor::Damage && rng.one_in(5);
    Step::CreateTopic(NewTopic {
        topic,
        partitions,
        segment_bytes: rng.pick(&[1 << 20, 1 << 20, 128 << 10]),
        segment_ms: rolls.then(|| rng.pick(&[1, 20, 300])),
        retention: Retention {
            ms: (retains && by != 0).then(|| rng.pick(&[1, 1_000, 3_600_000])),
            bytes: (retains && by != 1).then(|| rng.pick(&[1, 20_000, 200_000])),
        },
        caching: cached.then(|| Caching {
            messages: rng.pick(&[1, 5, 60, 100_000]),
            ms: rng.pick(&[0, 2, 15, 100]),
        }),
        stamped: rng.one_in(5),
    })
}

fn producing(rng: &mut Rng, topic: u8, pressure: bool) -> Producing {
    let sending = match rng.below(10) {
        0..5 => Sending::Idempotent,
        5..7 => Sending::Hedged,
        7..9 => Sending::Plain(rng.pick(&[-1, 1])),
        _ => Sending::Plain(0),
    };
    Producing {
        topic,
        sending,
        requests: rng.between(2, if pressure { 16 } else { 30 }) as u32,
        window: rng.between(1, 5) as u32,
        parts: if pressure {
            rng.between(1, 8)
        } else {
            rng.between(1, 3)
        } as u32,
        records_max: rng.between(1, 5),
        bytes_max: rng.pick(if pressure {
            &[300, 3_000, 9_000]
        } else {
            &[100, 3_000, 20_000, 60_000]
        }),
        pause_us: rng.pick(&[0, 0, 500, 5_000]),
        compressed: rng.one_in(4),
        torn: rng.one_in(6),
    }
}

fn policy(rng: &mut Rng) -> CrashPolicy {
    let kept = CrashPolicy::Power {
        data: Unsynced::Kept,
        names: Unsynced::Lost,
    };
    let garbage = CrashPolicy::Power {
        data: Unsynced::Garbage,
        names: Unsynced::Random,
    };
    rng.pick(&[
        CrashPolicy::Process,
        CrashPolicy::POWER,
        garbage,
        garbage,
        CrashPolicy::POWER_LOST,
        kept,
    ])
}

fn again(rng: &mut Rng) -> Vec<u64> {
    let times = if rng.one_in(3) { rng.between(1, 3) } else { 0 };
    let mut after = || rng.pick(&[300, 3_000, 12_000]);
    let at_most: Vec<u64> = (0..times).map(|_| after()).collect();
    at_most.into_iter().map(|us| rng.between(1, us)).collect()
}

fn damage(rng: &mut Rng) -> Step {
    let target = match rng.below(20) {
        0..5 => Target::Log,
        5 => Target::Sum,
        6..8 => Target::Index,
        8..14 => Target::Journal,
        14 => Target::Checkpoint,
        15..19 => Target::Manifest,
        _ => Target::Meta,
    };
    let replaced = matches!(target, Target::Checkpoint | Target::Manifest | Target::Meta);
    Step::Damage {
        target,
        harm: match replaced && rng.one_in(2) {
            true => Harm::Old,
            false => rng.pick(&[Harm::Bit, Harm::Bit, Harm::Stale, Harm::Misdirected]),
        },
        choice: rng.draw(),
        live: matches!(target, Target::Log | Target::Sum | Target::Index) && rng.one_in(3),
        shards: rng.between(1, 3) as usize,
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = format!("{self:?}");
        let brief = text.replace("Power { ", "{ ");
        f.write_str(&brief)
    }
}

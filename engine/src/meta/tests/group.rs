//! Tests of several members without I/O: the code path of one node, with more of them, messages lost, and snapshots sent.

use super::*;
use crate::meta::format::{encode_file, recover, Tail};
use crate::meta::member::{first_snapshot, raft_id, Member, Replacement, Reply};
use crate::meta::{snapshot, MetaError};
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, Message};
use std::collections::VecDeque;

/// A member and the file it would have.
struct Peer {
    id: i32,
    member: Member,
    file: Vec<u8>,
    tail: Tail,
    replies: Vec<Reply>,
    replaced: usize,
}

impl Peer {
    fn new(id: i32, members: &[i32]) -> Peer {
        let (mut metadata, hard_state) = first_snapshot(id);
        metadata.mut_conf_state().voters = members.iter().map(|id| raft_id(*id)).collect();
        let mut image = empty_image();
        image.version = 1;
        let text = snapshot::encode(&image);
        let (file, _) = encode_file(id, id as u64, &metadata, &hard_state, &text);
        Peer::start(id, file)
    }

    fn start(id: i32, file: Vec<u8>) -> Peer {
        let recovered = recover(&file, "file", id).expect("its own file");
        let tail = recovered.tail.clone();
        let text = recovered.image.clone();
        let member = Member::new(
            recovered,
            &file[text],
            id,
            Arc::default(),
            id as u64 * 3,
            "file",
        );
        let member = member.expect("its own file");
        Peer {
            id,
            member,
            file,
            tail,
            replies: Vec::new(),
            replaced: 0,
        }
    }

    fn replace(&mut self, with: &Replacement) {
        let text = snapshot::encode(&with.image);
        let log_id = self.tail.log_id + 100;
        let (file, tail) = encode_file(self.id, log_id, &with.metadata, &with.hard_state, &text);
        (self.file, self.tail) = (file, tail);
        self.replaced += 1;
    }

    /// Does what there is to do, and gives the messages it has for others.
    fn drive(&mut self) -> Vec<Message> {
        while let Some(work) = self.member.take_work().expect("sound") {
            if let Some(replacement) = work.replaces.clone() {
                self.replace(&replacement);
            }
            if !work.records.is_empty() {
                let (bytes, tail) = self.tail.batch(&work.records);
                self.file.extend_from_slice(&bytes);
                self.tail = tail;
            }
            self.member.persisted(work);
            while let Some(replies) = self.member.apply_next().expect("known commands") {
                self.replies.extend(replies);
            }
        }
        self.member.take_messages()
    }

    fn text(&self) -> Vec<u8> {
        snapshot::encode(self.member.image())
    }
}

struct Group {
    peers: Vec<Peer>,
    /// Nothing reaches or leaves these.
    cut_off: Vec<i32>,
}

impl Group {
    fn of_three() -> Group {
        let peers = (1..=3).map(|id| Peer::new(id, &[1, 2, 3])).collect();
        let mut group = Group {
            peers,
            cut_off: Vec::new(),
        };
        group.peers[0].member.campaign().expect("it may");
        group.settle();
        assert!(group.peers[0].member.leads());
        group
    }

    fn settle(&mut self) {
        let mut mail: VecDeque<Message> = VecDeque::new();
        loop {
            for peer in &mut self.peers {
                let cut = self.cut_off.contains(&peer.id);
                mail.extend(peer.drive().into_iter().filter(|_| !cut));
            }
            let Some(message) = mail.pop_front() else {
                return;
            };
            let to = self.peers.iter_mut().find(|p| raft_id(p.id) == message.to);
            if let Some(peer) = to.filter(|p| !self.cut_off.contains(&p.id)) {
                peer.member.step(message).expect("a member's message");
            }
        }
    }

    fn tick(&mut self, times: usize) {
        for _ in 0..times {
            self.peers.iter_mut().for_each(|p| p.member.tick());
            self.settle();
        }
    }

    fn propose(&mut self, to: usize, token: u64, command: &Command) -> Result<(), MetaError> {
        self.peers[to]
            .member
            .propose(token, command.encode().expect("small"))
    }

    fn assert_all_equal(&self) {
        let text = self.peers[0].text();
        for peer in &self.peers {
            assert_eq!(peer.text(), text, "member {}", peer.id);
        }
    }
}

#[test]
fn members_come_to_the_same_image() {
    let mut group = Group::of_three();
    let mut state = 5u64;
    let mut random = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state >> 33
    };
    group.propose(0, 0, &register(1)).expect("it leads");
    for token in 1..200 {
        group
            .propose(0, token, &some_command(&mut random))
            .expect("it leads");
        if token % 3 == 0 {
            group.settle();
        }
    }
    group.settle();
    group.tick(3);
    group.assert_all_equal();
    assert!(
        group.peers[0].replies.iter().map(|r| r.0).eq(0..200),
        "each answered once, in order"
    );
    assert!(group.peers[0].member.image().topic_count() > 0);
    assert_eq!(group.propose(1, 9, &register(1)), Err(MetaError::NotLeader));

    // Each comes back from its file as it was.
    let texts: Vec<_> = group.peers.iter().map(Peer::text).collect();
    let files: Vec<_> = group.peers.iter().map(|p| p.file.clone()).collect();
    group.peers = (1..=3)
        .zip(files)
        .map(|(id, file)| Peer::start(id, file))
        .collect();
    group.peers[2].member.campaign().expect("it may");
    group.settle();
    group.tick(3);
    group.assert_all_equal();
    // The election's own entry is one more.
    let mut image = group.peers[2].member.image().clone();
    image.version -= 1;
    assert_eq!(snapshot::encode(&image), texts[2]);
}

#[test]
fn a_member_far_behind_gets_a_snapshot() {
    let mut group = Group::of_three();
    group.propose(0, 0, &register(1)).expect("it leads");
    group.settle();
    group.cut_off = vec![3];
    for n in 1..50 {
        group
            .propose(0, n, &create(n, &format!("t{n}"), 1))
            .expect("it leads");
        group.settle();
    }
    let leader = &mut group.peers[0];
    let replacement = leader.member.compaction().expect("all is applied");
    leader.replace(&replacement);
    leader.member.compacted();
    group
        .propose(0, 50, &create(50, "t50", 1))
        .expect("it leads");
    group.settle();
    assert_eq!(group.peers[2].member.image().topic_count(), 0);

    group.cut_off.clear();
    group.tick(40);
    group.assert_all_equal();
    assert_eq!(group.peers[2].member.image().topic_count(), 50);
    assert_eq!(group.peers[2].replaced, 1, "by a snapshot");
    let again = Peer::start(3, group.peers[2].file.clone());
    assert_eq!(
        again.member.image().topic_count(),
        50,
        "the snapshot has them all"
    );
}

#[test]
fn a_deposed_leader_takes_nothing_for_done() {
    let mut group = Group::of_three();
    group.propose(0, 0, &register(1)).expect("it leads");
    group.settle();
    group.cut_off = vec![1];
    group
        .propose(0, 1, &create(1, "lost", 1))
        .expect("it does not know yet");
    group.settle();
    assert!(
        group.peers[0].replies.iter().all(|r| r.0 != 1),
        "no majority, no answer"
    );
    // Nobody hears of it until the others gave it up.
    group.tick(25);
    let new = group
        .peers
        .iter()
        .position(|p| p.id != 1 && p.member.leads());
    let new = new.expect("the others elect one of them");
    group
        .propose(new, 2, &create(2, "kept", 1))
        .expect("it leads");
    group.settle();
    group.cut_off.clear();
    group.tick(25);
    group.assert_all_equal();
    let reply = group.peers[0].replies.iter().find(|r| r.0 == 1);
    assert_eq!(reply, Some(&(1, Err(MetaError::NotLeader))));
    assert!(group.peers[0].member.image().topic("lost").is_none());
    assert!(group.peers[0].member.image().topic("kept").is_some());
}

#[test]
fn members_leave_and_what_remains_goes_on() {
    let mut group = Group::of_three();
    group.propose(0, 0, &register(1)).expect("it leads");
    for id in [3, 2] {
        let mut change = ConfChangeV2::default();
        let single = ConfChangeSingle {
            change_type: ConfChangeType::RemoveNode,
            node_id: raft_id(id),
            ..ConfChangeSingle::default()
        };
        change.set_changes(vec![single].into());
        group.peers[0]
            .member
            .propose_members(change)
            .expect("it leads");
        group.settle();
        group.tick(3);
        group.peers.retain(|p| p.id != id);
    }
    assert!(group.peers[0].member.alone());
    let replacement = group.peers[0].member.compaction().expect("all is applied");
    assert_eq!(replacement.metadata.get_conf_state().voters, [raft_id(1)]);
    group.peers[0].replace(&replacement);
    let file = group.peers[0].file.clone();
    let mut alone = Group {
        peers: vec![Peer::start(1, file)],
        cut_off: Vec::new(),
    };
    alone.peers[0].member.campaign().expect("it may");
    alone
        .propose(0, 1, &create(1, "t", 1))
        .expect("alone it wins at once");
    alone.settle();
    assert!(alone.peers[0].member.image().topic("t").is_some());
}

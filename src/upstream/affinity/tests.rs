use super::*;
use crate::base::{CallerSlot, Rng};
use std::{collections::HashMap, sync::Arc};

fn at(seconds: u64) -> Mono {
    Mono(Span::from_secs(seconds).0)
}

fn turn(credential: u32, bytes: u64) -> Turn {
    Turn { credential: CredentialSlot(credential), bytes, long: false, crossed: false }
}

#[test]
fn what_was_noted_is_found_until_the_cache_is_gone() {
    let (affinity, conversation) = (Affinity::default(), Conversation(7));
    assert_eq!(affinity.find(conversation, at(1)), None);
    affinity.note(conversation, turn(3, 200_000), at(1_000));
    let warm = affinity.find(conversation, at(1_010)).unwrap();
    assert_eq!((warm.credential, warm.since, warm.mixed), (CredentialSlot(3), Span::from_secs(10), false));
    assert!((200_000..201_024).contains(&warm.bytes), "{}", warm.bytes);
    assert!(affinity.find(conversation, at(1_299)).is_some());
    assert_eq!(affinity.find(conversation, at(1_300)), None);
    assert_eq!(affinity.last(conversation, at(90_000)).map(|last| last.credential), Some(CredentialSlot(3)));
    assert_eq!(affinity.find(Conversation(8), at(1_010)), None);
}

#[test]
fn an_hours_cache_is_warm_for_an_hour_and_for_as_long_as_it_is_asked_for() {
    let (affinity, conversation) = (Affinity::default(), Conversation(7));
    affinity.note(conversation, Turn { long: true, ..turn(0, 1) }, at(0));
    assert!(affinity.find(conversation, at(3_599)).is_some());
    assert_eq!(affinity.find(conversation, at(3_600)), None);
    affinity.note(conversation, turn(0, 1), at(3_600));
    assert_eq!(affinity.find(conversation, at(3_900)), None);
}

#[test]
fn the_last_turn_counts_and_a_crossing_is_not_forgotten() {
    let (affinity, conversation) = (Affinity::default(), Conversation(7));
    affinity.note(conversation, turn(1, 1), at(1));
    affinity.note(conversation, Turn { crossed: true, ..turn(2, 1) }, at(2));
    affinity.note(conversation, turn(1, 5_000), at(3));
    let warm = affinity.find(conversation, at(3)).unwrap();
    assert_eq!((warm.credential, warm.bytes, warm.mixed), (CredentialSlot(1), 5_120, true));
}

#[test]
fn one_session_under_two_models_is_two() {
    let (affinity, session) = (Affinity::default(), Conversation(7));
    let [large, small] = [0, 1].map(|model| session.under(ModelSlot(model)));
    affinity.note(large, turn(1, 500_000), at(1));
    affinity.note(small, turn(2, 2_000), at(2));
    assert_eq!(affinity.find(large, at(3)).map(|warm| warm.credential), Some(CredentialSlot(1)));
    assert_eq!(affinity.find(small, at(3)).map(|warm| warm.credential), Some(CredentialSlot(2)));
}

#[test]
fn extremes_saturate_and_a_slot_without_room_is_never_warm() {
    let (affinity, conversation) = (Affinity::default(), Conversation(0));
    affinity.note(conversation, turn(65_536, 1), at(1));
    assert_eq!(affinity.last(conversation, at(1)), None);
    affinity.note(conversation, turn(65_535, u64::MAX), Mono(u64::MAX));
    let warm = affinity.last(conversation, Mono(u64::MAX)).unwrap();
    assert_eq!((warm.credential, warm.bytes), (CredentialSlot(65_535), KIBS * 1024));
    affinity.note(conversation, turn(0, 0), Mono(0));
    assert_eq!(affinity.find(conversation, Mono(0)).map(|warm| warm.bytes), Some(0));
}

#[test]
fn the_oldest_of_a_set_makes_way_and_half_a_table_is_remembered() {
    let affinity = Affinity::default();
    let mut rng = Rng(1);
    let all: Vec<Conversation> = (0..SETS * WAYS / 2).map(|_| Conversation(rng.draw())).collect();
    for (place, conversation) in all.iter().enumerate() {
        affinity.note(*conversation, turn(place as u32 % 100, 1), at(place as u64 / 200));
    }
    let now = at(all.len() as u64 / 200);
    let known = |conversations: &[Conversation]| {
        conversations.iter().filter(|conversation| affinity.last(**conversation, now).is_some()).count()
    };
    // Two of a set's four ways are taken on the average; every twentieth set would need more than four.
    assert!(known(&all) * 100 > all.len() * 95, "{} of {}", known(&all), all.len());
    let (old, new) = all.split_at(all.len() / 2);
    assert!(known(new) * 1_000 > new.len() * 990, "{} of the newer {}", known(new), new.len());
    assert!(known(old) <= known(new), "the oldest went first");
}

/// Each conversation has one size for each credential. A reader that gets the size of one with the credential of the
/// other, or of another conversation's, has met a torn entry.
#[test]
fn writers_of_the_same_entries_never_show_a_reader_a_mixture() {
    const CONVERSATIONS: u64 = 8;
    let affinity = Arc::new(Affinity::default());
    let bytes = |conversation: u64, credential: u64| (conversation * 64 + credential * 16 + 1) * 1024;
    let writers = (0..2).map(|seed| {
        let affinity = Arc::clone(&affinity);
        std::thread::spawn(move || {
            let mut rng = Rng(seed);
            for step in 0..40_000_u64 {
                let (conversation, credential) = (rng.below(CONVERSATIONS), rng.below(3));
                let turn = turn(credential as u32, bytes(conversation, credential));
                affinity.note(Conversation(conversation), turn, at(step / 100));
            }
        })
    });
    let reader = {
        let affinity = Arc::clone(&affinity);
        std::thread::spawn(move || {
            let (mut rng, mut found) = (Rng(9), 0_u64);
            for _ in 0..200_000 {
                let conversation = rng.below(CONVERSATIONS);
                if let Some(warm) = affinity.last(Conversation(conversation), at(400)) {
                    assert_eq!(warm.bytes, bytes(conversation, u64::from(warm.credential.0)));
                    found += 1;
                }
            }
            found
        })
    };
    for writer in writers.collect::<Vec<_>>() {
        writer.join().unwrap();
    }
    reader.join().unwrap();
    let known = (0..CONVERSATIONS).filter(|number| affinity.last(Conversation(*number), at(400)).is_some()).count();
    assert!(known as u64 >= CONVERSATIONS - 1, "{known} known after all writers are done");
}

#[test]
fn half_an_entry_of_each_of_two_writers_is_nobodys() {
    let conversation = Conversation(7);
    let words = |turn: Turn| {
        let packed = Packed::new(turn, false, at(1)).unwrap().0;
        (conversation.0 ^ mix(packed), packed)
    };
    let (one, other) = (words(turn(1, 1_024)), words(turn(2, 2_048)));
    for (who, what) in [(one.0, other.1), (other.0, one.1)] {
        let entry = Entry { who: who.into(), what: what.into() };
        assert!(entry.read(conversation).is_none());
    }
    let entry = Entry { who: one.0.into(), what: one.1.into() };
    assert!(entry.read(conversation).is_some());
}

const ID: &str = "6f1ed0ab-4b7e-4f5c-9d7f-1d2b3c4d5e6f";

#[test]
fn header_and_body_name_the_same_conversation() {
    let of = |header: Option<&str>, user_id: Option<&str>| {
        conversation(CallerSlot(1), header.map(str::as_bytes), user_id.map(str::as_bytes))
    };
    let want = of(Some(ID), None);
    assert_eq!(want, Some(Conversation::of(CallerSlot(1), ID.as_bytes())));
    let json = format!(r#"{{"device_id":"d","account_uuid":"","session_id":"{ID}"}}"#);
    let spaced = format!(r#" {{ "session_id" : "{ID}" , "device_id" : "x" }}"#);
    let old = format!("user_0123abcd_account_1111-2222_session_{ID}");
    for user_id in [json.as_str(), &spaced, &old] {
        assert_eq!(of(None, Some(user_id)), want, "{user_id}");
        assert_eq!(of(Some(""), Some(user_id)), want, "an empty header says nothing");
    }
    assert_eq!(of(Some(ID), Some("user_1_account_2_session_3")), want, "the header goes first");
    assert_ne!(conversation(CallerSlot(2), Some(ID.as_bytes()), None), want, "another's is another");
}

#[test]
fn what_names_no_session_is_passed_over() {
    let long = format!("_session_{}", "x".repeat(NAME_LONG));
    let odd =
        ["", "alice", "{}", r#"{"session_id":7}"#, r#"{"session_id":"#, r#"{"session_id":"a"#, "x_session_", &long];
    for user_id in odd {
        assert_eq!(conversation(CallerSlot(1), None, Some(user_id.as_bytes())), None, "{user_id}");
    }
    assert_eq!(conversation(CallerSlot(1), None, None), None);
}

const NAME_LONG: usize = 257;

#[test]
fn numbers_are_spread() {
    let mut sets: HashMap<u64, u32> = HashMap::new();
    for name in 0..16_000_u32 {
        *sets.entry(Conversation::of(CallerSlot(0), &name.to_le_bytes()).0 % 16).or_default() += 1;
    }
    assert!(sets.values().all(|count| (900..1_100).contains(count)), "{sets:?}");
}

//! Streams that live through reloads.

use super::*;
use std::sync::Condvar;

const STREAMS: usize = 300;
const RELOADS: usize = 100;

/// Which event every stream may send by now.
#[derive(Default)]
struct Rounds(Mutex<usize>, Condvar);

impl Rounds {
    fn raise(&self) {
        *self.0.lock().unwrap() += 1;
        self.1.notify_all();
    }

    fn wait(&self, round: usize) {
        drop(self.1.wait_while(self.0.lock().unwrap(), |at| *at < round).unwrap());
    }
}

fn delta(round: usize) -> String {
    event("content_block_delta", &format!(",\"n\":{round}"))
}

/// An upstream whose streams send an event a round, and which answers other requests at once.
fn in_rounds(rounds: &Arc<Rounds>) -> Upstream {
    let rounds = Arc::clone(rounds);
    Upstream::plain(move |got, stream| {
        if got.header("x-quick").is_some() {
            return stream.write_all(answer("200 OK", "", "{}").as_bytes()).is_ok();
        }
        stream.write_all(STREAM_HEAD.as_bytes()).unwrap();
        for round in 0..=RELOADS {
            rounds.wait(round);
            if stream.write_all(chunk(&delta(round)).as_bytes()).is_err() {
                return false;
            }
        }
        stream.write_all(b"0\r\n\r\n").is_ok()
    })
}

/// What is written for a round, and whether it can be used.
fn round_of(upstream: &Upstream, round: usize) -> (String, bool) {
    let good = |more: &str| (with(upstream, more), true);
    match round % 5 {
        0 => (with(upstream, "[[team]]\nname = 7\n"), false),
        1 => good(&format!("[[team]]\nname = \"t{round}\"\n")),
        2 => good(&format!("[timeouts]\nconnect = \"{}s\"\n", round + 1)),
        3 if round.is_multiple_of(2) => {
            let whole = with(upstream, "");
            (whole[..whole.len() / 2].to_owned(), false)
        }
        3 => good(
            "[[upstream]]\nname = \"more\"\nbase_url = \"http://127.0.0.1:9\"\nauth = \"none\"\n\
             [[model]]\nname = \"*\"\ntargets = [{ upstream = \"main\" }]\n",
        ),
        _ => good(""),
    }
}

#[test]
fn three_hundred_streams_live_through_a_hundred_reloads() {
    many_files();
    on_both_drivers(|driver| {
        let rounds = Arc::new(Rounds::default());
        let upstream = in_rounds(&rounds);
        let workers = |text: String| text.replace("workers = 1", "workers = 2");
        let scene = Scene::start(&workers(with(&upstream, "")), driver);
        let mut streams: Vec<Client> = (0..STREAMS).map(|_| scene.forebay.connect()).collect();
        for client in &mut streams {
            client.send(post(BODY).as_bytes());
            assert!(read_head(&mut client.0).unwrap().starts_with("HTTP/1.1 200"));
            assert_eq!(client.read_chunk().unwrap(), delta(0).as_bytes());
        }
        let mut kept = scene.forebay.connect();
        let (mut published, mut refused) = (1, 0);
        for round in 1..=RELOADS {
            let (text, is_good) = round_of(&upstream, round);
            let (status, document) = scene.reload(&workers(text));
            assert_eq!(status, if is_good { 200 } else { 422 }, "{document}");
            published += u64::from(is_good);
            refused += u64::from(!is_good);
            // New requests, on an old connection and on a new one: under the new table, or the last that was good.
            for client in [&mut kept, &mut scene.forebay.connect()] {
                client.send(post_with("x-quick: 1\r\n", BODY).as_bytes());
                let answer = client.read().unwrap();
                let of = answer.header("x-forebay-generation").unwrap().to_owned();
                assert_eq!((answer.status(), of), (200, published.to_string()), "round {round}");
            }
            rounds.raise();
            for (number, client) in streams.iter_mut().enumerate() {
                let came = client.read_chunk().map(|bytes| String::from_utf8(bytes).unwrap());
                assert_eq!(came.as_ref(), Some(&delta(round)), "stream {number} in round {round}");
            }
        }
        for client in &mut streams {
            assert_eq!(client.read_chunk(), None);
            // It has ended, and not been cut: the connection goes on, under the newest table.
            client.send(post_with("x-quick: 1\r\n", BODY).as_bytes());
            let answer = client.read().unwrap();
            assert_eq!(answer.header("x-forebay-generation"), Some(&*published.to_string()));
        }
        eprintln!("{STREAMS} streams, {published} generations, {refused} bad files, 0 broken");
        let history = json(&scene.forebay.admin("/table/history"));
        assert_eq!(history["reloads"].as_array().unwrap().len(), 20);
    });
}

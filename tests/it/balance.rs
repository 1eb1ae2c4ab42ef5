//! Connections go where there is less to do.

use crate::support::*;
use std::io::Write;

#[test]
fn streams_are_spread_over_the_cores() {
    for (_, driver) in DRIVERS {
        let upstream = Upstream::plain(|_, stream| {
            stream.write_all((STREAM_HEAD.to_owned() + &chunk(&event("message_start", ""))).as_bytes()).unwrap();
            // The stream goes on until its client leaves.
            let _ = std::io::Read::read(stream, &mut [0; 1]);
            false
        });
        let config = config(&format!("http://{}", upstream.address), "").replace("workers = 1", "workers = 2");
        let forebay = Forebay::start(&config, driver);
        let mut streams = Vec::new();
        for _ in 0..60 {
            let mut client = forebay.connect();
            client.send(post(BODY).as_bytes());
            read_head(&mut client.0).unwrap();
            client.read_chunk().unwrap();
            streams.push(client);
        }
        let metrics = forebay.admin("/metrics").text();
        let value = |name: &str| -> i64 {
            let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{metrics}"));
            line.rsplit_once(' ').unwrap().1.parse().unwrap()
        };
        let (a, b) = (value("forebay_worker_streams{worker=\"0\"}"), value("forebay_worker_streams{worker=\"1\"}"));
        assert_eq!(a + b, 60);
        // Each handed-on connection weighs five here, and a difference of four is let be.
        assert!((a - b).abs() <= 4, "{a} and {b}, {} handed over", value("forebay_connections_handed_over_total"));
    }
}

//! Every way in which files change, and how a reload begins.

use super::*;
use std::os::unix::fs::symlink;

#[test]
fn every_way_of_changing_a_file_is_noticed() {
    on_both_drivers(|driver| {
        let upstream = echo();
        let text = |seconds: u32| with(&upstream, &format!("[timeouts]\nconnect = \"{seconds}s\"\n"));
        let scene = Scene::start(&text(1), driver);
        // An editor writes another file and renames it over the old one.
        let draft = scene.folder.path().join(".forebay.toml.swp");
        fs::write(&draft, text(2)).unwrap();
        fs::rename(&draft, scene.path()).unwrap();
        let made = reached(&scene.forebay, 2);
        assert_eq!((&made["origin"], &made["outcome"]), (&"watch".into(), &"published".into()));
        assert_eq!(made["changes"][0]["what"], "[timeouts] connect is raised to 2000 ms, from 1000 ms");
        assert_eq!(made["changes"].as_array().unwrap().len(), 1);
        // A careless one empties it first, and takes its time.
        let mut file = fs::File::create(scene.path()).unwrap();
        let new = text(3);
        let (first, second) = new.split_at(new.len() / 2);
        file.write_all(first.as_bytes()).unwrap();
        file.flush().unwrap();
        std::thread::park_timeout(std::time::Duration::from_millis(300));
        file.write_all(second.as_bytes()).unwrap();
        drop(file);
        assert_eq!(reached(&scene.forebay, 3)["outcome"], "published");
        let history = json(&scene.forebay.admin("/table/history")).to_string();
        assert!(!history.contains("refused"), "no half of a file is judged: {history}");
        let made = post_to(&scene.forebay, "/reload", "");
        assert_eq!((made.status(), json(&made)["outcome"].clone()), (200, "unchanged".into()));
        assert_eq!(scene.forebay.ask(&post(BODY)).status(), 200);
    });
}

#[test]
fn a_hang_up_reloads_and_ends_nothing() {
    on_both_drivers(|driver| {
        let upstream = echo();
        let scene = Scene::start(&with(&upstream, ""), driver);
        for _ in 0..3 {
            scene.forebay.signal("HUP");
        }
        assert_eq!(scene.forebay.ask(&post(BODY)).status(), 200);
        assert_eq!(generation(&scene.forebay), 1, "the same files make no generation");
        // While a file is open for writing the watch holds back, so that it is the signal that is seen.
        let mut file = fs::OpenOptions::new().append(true).open(scene.path()).unwrap();
        file.write_all(b"[timeouts]\nconnect = \"1s\"\n").unwrap();
        scene.forebay.signal("HUP");
        let made = reached(&scene.forebay, 2);
        assert_eq!((&made["origin"], &made["outcome"]), (&"SIGHUP".into(), &"published".into()));
        drop(file);
    });
}

#[test]
fn a_change_that_the_system_does_not_tell_is_found() {
    let upstream = echo();
    let scene = Scene::start(&with(&upstream, ""), "1");
    // A directory that is watched hears of what is done to its files by their names in it only.
    let elsewhere = tempfile::tempdir().unwrap();
    fs::hard_link(scene.path(), elsewhere.path().join("same")).unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(elsewhere.path().join("same")).unwrap();
    file.write_all(b"[timeouts]\nconnect = \"1s\"\n").unwrap();
    assert_eq!(reached(&scene.forebay, 2)["origin"], "poll");
}

#[test]
fn a_config_map_is_swapped() {
    on_both_drivers(|driver| {
        let upstream = echo();
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let version = |number: u32, key: &str| {
            let real = at(&format!("..{number}"));
            fs::create_dir(&real).unwrap();
            let text = with(&upstream, &format!("[timeouts]\nconnect = \"{number}s\"\n"));
            let text = text.replace("env = \"PROVIDER_KEY\"", "file = \"key\"");
            fs::write(real.join("forebay.toml"), text).unwrap();
            fs::write(real.join("key"), key).unwrap();
            symlink(format!("..{number}"), at("..data_tmp")).unwrap();
            fs::rename(at("..data_tmp"), at("..data")).unwrap();
        };
        version(1, "sk-first");
        symlink("..data/forebay.toml", at("forebay.toml")).unwrap();
        symlink("..data/key", at("key")).unwrap();
        let forebay = serve(&at("forebay.toml"), driver);
        assert_eq!(forebay.ask(&post(BODY)).text(), r#"{"key":"sk-first"}"#);
        for number in 2..5 {
            version(number, &format!("sk-{number}"));
            fs::remove_dir_all(at(&format!("..{}", number - 1))).unwrap();
            let made = reached(&forebay, u64::from(number));
            assert!(number > 2 || made["origin"] == "watch", "{made}");
            let changes = made["changes"].to_string();
            assert!(changes.contains("another value for its credential `org`") && !changes.contains("sk-"), "{made}");
            assert_eq!(forebay.ask(&post(BODY)).text(), format!("{{\"key\":\"sk-{number}\"}}"));
        }
    });
}

#[test]
fn included_files_come_and_go() {
    on_both_drivers(|driver| {
        let upstream = echo();
        let text = format!("include = [\"keys.d/*.toml\"]\n{}", with(&upstream, ""));
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys.d");
        fs::create_dir(&keys).unwrap();
        fs::write(folder.path().join("forebay.toml"), text).unwrap();
        let forebay = serve(&folder.path().join("forebay.toml"), driver);
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; // of `abc`
        fs::write(keys.join("bob.toml"), format!("[[key]]\nname = \"bob\"\nhash = \"sha256:{hash}\"\n")).unwrap();
        assert_eq!(reached(&forebay, 2)["changes"][0]["what"], "key `bob` is added");
        assert_eq!(forebay.ask(&post(BODY).replace(KEY, "abc")).status(), 200);
        fs::remove_file(keys.join("bob.toml")).unwrap();
        assert_eq!(reached(&forebay, 3)["changes"][0]["what"], "key `bob` is removed");
        assert_eq!(forebay.ask(&post(BODY).replace(KEY, "abc")).status(), 401);
    });
}

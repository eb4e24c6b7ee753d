//! The systemd unit in `config/`.

use std::process::Command;
use std::time::Duration;

use kafka_websocket_proxy::config::Config;

const UNIT: &str = "config/kafka-websocket-proxy.service";

/// The last value of a setting.
fn setting(name: &str) -> String {
    let unit = std::fs::read_to_string(UNIT).unwrap();
    let lines = unit.lines().rev();
    let value = lines
        .filter_map(|line| line.split_once('='))
        .find(|(key, _)| *key == name);
    value.expect(name).1.to_owned()
}

#[test]
fn it_waits_for_the_start_and_the_stop_and_tries_an_address_in_use_again() {
    assert_eq!(setting("Type"), "notify");
    let grace = Config::default().server.shutdown_grace;
    let stop = Duration::from_secs(setting("TimeoutStopSec").parse().unwrap());
    assert!(stop > grace, "{stop:?} for a grace of {grace:?}");
    assert_eq!(setting("Restart"), "on-failure");
    assert_eq!(setting("RestartPreventExitStatus"), "78");
    assert_eq!(setting("StartLimitIntervalSec"), "0");
    assert!(setting("LimitNOFILE").parse::<u64>().unwrap() >= 65_536);
}

/// systemd's own figure: 0 is safest, 10 exposes most.
#[test]
fn its_exposure_is_below_3() {
    let analyzed = Command::new("systemd-analyze")
        .args(["security", "--offline=true", UNIT])
        .output();
    let Ok(analyzed) = analyzed else {
        eprintln!("systemd-analyze is not installed: the exposure of the unit is not looked at");
        return;
    };
    let text = String::from_utf8(analyzed.stdout).unwrap();
    let figure = text.split("exposure level for").nth(1);
    let figure = figure.and_then(|rest| rest.split_whitespace().nth(1));
    let figure: f64 = figure.expect(&text).parse().unwrap();
    assert!(figure < 3.0, "{text}");
}

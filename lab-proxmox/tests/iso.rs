//! The image that a guest reads at its first boot, read back by a tool of somebody else's.

use lab_core::Secret;
use lab_proxmox::CloudInit;
use std::path::{Path, PathBuf};
use std::process::Command;

const USER_DATA: &str = "#cloud-config\nhostname: dev-1\n";
const NETWORK: &str = "version: 2\nethernets: {}\n";

fn image() -> Vec<u8> {
    let seed = CloudInit {
        network: Some(NETWORK.into()),
        ..CloudInit::new("pve1", "local", "dev-1", Secret::new(USER_DATA.to_owned()))
    };
    seed.iso().expose().clone()
}

fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

fn run(tool: &Path, arguments: &[&str]) -> String {
    let output = Command::new(tool).args(arguments).output().expect("the tool runs");
    assert!(output.status.success(), "{tool:?} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("what it prints is text")
}

#[test]
#[ignore = "needs isoinfo or xorriso"]
fn an_independent_tool_reads_every_file_under_its_real_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("seed.iso");
    std::fs::write(&file, image()).unwrap();
    let file = file.to_str().unwrap();
    let contents = [
        ("user-data", USER_DATA),
        ("network-config", NETWORK),
        ("meta-data", r#"{"instance-id":"dev-1","local-hostname":"dev-1"}"#),
    ];
    let mut tools = 0;
    if let Some(isoinfo) = tool("isoinfo") {
        tools += 1;
        let about = run(&isoinfo, &["-d", "-i", file]);
        assert!(about.contains("Volume id: cidata\n"), "{about}");
        assert!(
            about.contains("Joliet with UCS level 3 found") && about.contains("Rock Ridge signatures version 1 found")
        );
        // Joliet has versions; a guest's kernel leaves them out.
        for (names, version) in [("-R", ""), ("-J", ";1")] {
            let listed = run(&isoinfo, &[names, "-f", "-i", file]);
            let mut listed: Vec<&str> = listed.lines().collect();
            listed.sort_unstable();
            let expected = ["/meta-data", "/network-config", "/user-data"].map(|name| format!("{name}{version}"));
            assert_eq!(listed, expected, "{names}");
            for (name, content) in contents {
                let path = format!("/{name}{version}");
                assert_eq!(run(&isoinfo, &[names, "-x", &path, "-i", file]), content, "{names} {name}");
            }
        }
    }
    if let Some(xorriso) = tool("xorriso") {
        tools += 1;
        let out = dir.path().join("out");
        run(&xorriso, &["-osirrox", "on", "-indev", file, "-extract", "/", out.to_str().unwrap()]);
        for (name, content) in contents {
            assert_eq!(std::fs::read_to_string(out.join(name)).unwrap(), content, "{name}");
        }
    }
    assert!(tools > 0, "neither isoinfo nor xorriso is there");
}

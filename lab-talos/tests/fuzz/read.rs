//! What a text is read as, and the texts to begin with: for the tests here and for the fuzzer.

use lab_talos::config;
use lab_talos::kubeconfig::Kubeconfig;
use lab_talos::secrets::Secrets;
use lab_talos::talosconfig::Talosconfig;
use lab_talos::yaml::Yaml;
use lab_talos::{KubernetesVersion, TalosVersion};

/// Reads a text as everything that it might be.
pub(crate) fn read(text: &str) {
    if let Ok(documents) = Yaml::parse(text) {
        let written = Yaml::to_stream(&documents);
        let read = Yaml::parse(&written);
        let same = read.as_ref().is_ok_and(|read| same_all(read, &documents));
        assert!(same, "what is written is not what was read: {written}\n{documents:?}\n{read:?}");
        // What a control plane has is read back from its configuration.
        let _ = Secrets::from_control_plane(&documents).map_err(|error| error.to_string());
    }
    let _ = config::parse(text);
    let _ = Secrets::from_yaml(text).map_err(|error| error.to_string());
    let _ = Talosconfig::from_yaml(text).map(|read| read.to_yaml());
    let _ = Kubeconfig::parse(text);
    let _ = (text.parse::<TalosVersion>(), text.parse::<KubernetesVersion>());
}

/// Returns true when two trees are the same, a whole number being itself however it was written.
fn same(one: &Yaml, other: &Yaml) -> bool {
    match (one, other) {
        (Yaml::Float(one), Yaml::Float(other)) => one == other || one.is_nan() && other.is_nan(),
        (Yaml::Int(int), Yaml::Float(float)) | (Yaml::Float(float), Yaml::Int(int)) => *int as f64 == *float,
        (Yaml::List(one), Yaml::List(other)) => same_all(one, other),
        (Yaml::Map(one), Yaml::Map(other)) => {
            one.len() == other.len()
                && one.iter().zip(other).all(|((key, one), (other_key, other))| key == other_key && same(one, other))
        }
        (one, other) => one == other,
    }
}

fn same_all(one: &[Yaml], other: &[Yaml]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
}

/// How many of the seeds are files as there are.
pub(crate) const ORDINARY: usize = 12;

/// Returns files as they should be, and some that are famous for what they broke.
pub(crate) fn seeds() -> Vec<String> {
    let ordinary: [&str; ORDINARY] = [
        include_str!("../vectors/controlplane.yaml"),
        include_str!("../vectors/worker.yaml"),
        include_str!("../vectors/controlplane-v1.12.yaml"),
        include_str!("../vectors/secrets.yaml"),
        include_str!("../vectors/talosconfig.yaml"),
        "v1.11.6",
        "1.34.1",
        "",
        "---\n---\n...\n",
        "a: &a [1]\nb: *a\n",
        "? [complex, key]\n: value\n",
        "a: 0x7fffffffffffffff\nb: 1e400\nc: .nan\nd: 2001-01-01\ne: 0o17\nf: 1_000\n",
    ];
    let mut seeds = ordinary.map(str::to_owned).to_vec();
    // Deep, and an alias of aliases of aliases: a few lines that stand for thousands of millions of values.
    for (open, close) in [("[", "]"), ("{a: ", "}"), ("- ", ""), ("? ", ""), ("&a ", ""), ("!t ", "")] {
        seeds.push(format!("{}0{}", open.repeat(5_000), close.repeat(5_000)));
    }
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        laughs += &format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(", "));
    }
    seeds.push(laughs);
    seeds
}

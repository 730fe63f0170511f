//! What lies on storages: listed, uploaded, downloaded, deleted.

use super::datacenter::{Datacenter, seconds};
use super::drive;
use super::inventory::Image;
use super::refusal::{Answer, Refusal};
use super::request::Request;
use super::schema::Args;
use super::storage::{Data, Volume, format_of, own_name};
use super::task::Worker;
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha384, Sha512};
use std::sync::Arc;
use std::time::Duration;

/// How long a download takes.
const DOWNLOAD: Duration = Duration::from_secs(45);

fn row(id: &str, volume: &Volume) -> Value {
    let mut row = json!({
        "volid": id, "content": volume.content, "format": volume.format, "size": volume.size,
        "ctime": seconds(volume.since),
    });
    if let Some(vm) = volume.vm {
        row["vmid"] = json!(vm);
    }
    if let Some(parent) = &volume.parent {
        row["parent"] = json!(own_name(parent));
    }
    row
}

/// GET .../content
pub(super) fn list(request: &Request, args: &Args) -> Answer {
    let state = request.datacenter.state();
    let storage = args.required("storage");
    state.storage(storage, request.node())?;
    let vm = args.number("vmid");
    let kind = args.text("content");
    let rows = state.volumes_on(storage, request.node()).filter(|(_, volume)| {
        kind.is_none_or(|kind| kind == volume.content) && vm.is_none_or(|vm| volume.vm.map(u64::from) == Some(vm))
    });
    let seen = rows.filter(|(_, volume)| match (volume.content, volume.vm) {
        ("snippets", _) => request.token.demand(&format!("/storage/{storage}"), &["Datastore.Allocate"], None).is_ok(),
        (_, Some(vm)) => {
            request.token.demand(&format!("/vms/{vm}"), &["VM.Config.Disk"], Some(&state)).is_ok()
                || request.token.demand(&format!("/storage/{storage}"), &["Datastore.Allocate"], None).is_ok()
        }
        _ => true,
    });
    Ok(seen.map(|(id, volume)| row(id, volume)).collect())
}

/// Returns the volume identifier that a path names, with or without its storage.
fn volume_id(args: &Args) -> Result<String, Refusal> {
    let storage = args.required("storage");
    let volume = args.required("volume");
    match volume.split_once(':') {
        Some((named, _)) if named == storage => Ok(volume.to_owned()),
        Some((named, _)) => {
            let text = format!("storage ID mismatch ({named} != {storage})");
            Err(Refusal::parameter("storage", text))
        }
        None => Ok(format!("{storage}:{volume}")),
    }
}

/// GET .../content/{volume}
pub(super) fn info(request: &Request, args: &Args) -> Answer {
    let id = volume_id(args)?;
    let storage = args.required("storage");
    request.token.demand_any(&format!("/storage/{storage}"), &["Datastore.Audit", "Datastore.AllocateSpace"], None)?;
    let state = request.datacenter.state();
    let definition = state.storage(storage, request.node())?;
    let Some(volume) = state.volume(&id, request.node()) else {
        return Err(Refusal::died(format!("volume_size_info on '{id}' failed - no such volume")));
    };
    let place = definition.options.get("path").map_or("/dev", String::as_str);
    let rest = id.split_once(':').map_or("", |(_, rest)| rest);
    Ok(json!({
        "path": format!("{place}/{rest}"), "size": volume.size, "used": volume.size, "format": volume.format,
    }))
}

/// POST .../content
pub(super) fn allocate(request: &Request, args: &Args) -> Answer {
    let datacenter = &request.datacenter;
    let text = args.required("size");
    let kilobytes = |text: &str| text.parse::<u64>().ok().map(|size| size << 10);
    let size = super::vm::size(text).filter(|_| text.ends_with(['M', 'G'])).or_else(|| kilobytes(text));
    let size = size.ok_or_else(|| Refusal::parameter("size", "value does not match the regex pattern"))?;
    let mut state = datacenter.state();
    let (storage, id) = (args.required("storage"), args.vm());
    if args.required("filename") != own_name(&state.free_name(storage, request.node(), id, "raw")) {
        return Err(Refusal::not_simulated("allocating a volume under another name than the next free one"));
    }
    let format = args.text("format").or(Some("raw"));
    let volume =
        drive::allocate(&mut state, storage, request.node(), id, size, format, Data::default(), datacenter.now())?;
    Ok(json!(volume))
}

/// DELETE .../content/{volume}
pub(super) fn delete(request: &Request, args: &Args) -> Answer {
    let id = volume_id(args)?;
    let storage = args.required("storage").to_owned();
    let node = request.node().to_owned();
    let owner = {
        let state = request.datacenter.state();
        state.storage(&storage, &node)?;
        let volume = state.volume(&id, &node);
        let owner = volume.and_then(|volume| volume.vm);
        let backup = volume.is_some_and(|volume| volume.content == "backup");
        if !backup {
            request.token.demand(&format!("/storage/{storage}"), &["Datastore.Allocate"], None)?;
        } else {
            request.token.demand(&format!("/storage/{storage}"), &["Datastore.AllocateSpace"], None)?;
        }
        if let Some(vm) = owner.filter(|vm| !backup && state.vms.contains_key(vm)) {
            return Err(Refusal::died(format!(
                "Cannot remove image, a guest with VMID '{vm}' exists!\nYou can delete the image from the guest's hardware pane"
            )));
        }
        owner
    };
    let name = owner.map(|vm| format!("{vm}@{storage}")).unwrap_or_else(|| format!("{}@{storage}", "iso"));
    let work = move |worker: Worker| async move {
        worker.takes(Duration::from_secs(1)).await?;
        let there = worker.datacenter.state().volume(&id, &node).is_some();
        if !there {
            worker.log(format!("disk image '{id}' does not exist"));
            return Ok(());
        }
        worker.datacenter.state().free(&id, &node)?;
        worker.log(format!("Removed volume '{id}'"));
        Ok(())
    };
    Ok(request.datacenter.begin(request, "imgdel", &name, work)?)
}

/// Checks where a file of this kind and name may go; returns its volume identifier.
fn destination(request: &Request, args: &Args, verb: &str) -> Result<(String, &'static str), Refusal> {
    let (storage, content) = (args.required("storage"), args.required("content"));
    let state = request.datacenter.state();
    let definition = state.storage(storage, request.node())?;
    if !definition.is_files() {
        return Err(Refusal::died(format!("can't {verb} to storage type '{}'", definition.kind)));
    }
    if !definition.holds(content) {
        return Err(Refusal::died(format!("storage '{storage}' does not support '{content}' content")));
    }
    let name = normalised(args.required("filename"));
    let lower = name.to_ascii_lowercase();
    let (content, endings): (&'static str, &[&str]) = match content {
        "iso" => ("iso", &[".iso", ".img"]),
        "import" => ("import", &[".qcow2", ".raw", ".vmdk", ".ova"]),
        "vztmpl" => ("vztmpl", &[".tar.gz", ".tar.xz", ".tar.zst", ".tar.bz2", ".tgz"]),
        other => return Err(Refusal::parameter("content", format!("upload content type '{other}' not allowed"))),
    };
    let ending = endings.iter().find(|ending| lower.ends_with(**ending));
    if ending.is_none_or(|ending| lower.len() == ending.len()) {
        let text = if content == "import" { "invalid filename or wrong extension" } else { "wrong file extension" };
        return Err(Refusal::parameter("filename", text));
    }
    Ok((format!("{storage}:{content}/{name}"), content))
}

fn normalised(name: &str) -> String {
    let name = name.rsplit(['/', '\\']).next().unwrap_or(name);
    name.chars()
        .map(|letter| if letter.is_ascii_alphanumeric() || "_.-".contains(letter) { letter } else { '_' })
        .collect()
}

/// Returns the checksum of bytes in hex.
fn checksum(algorithm: &str, bytes: &[u8]) -> Result<String, Refusal> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    match algorithm {
        "sha256" => Ok(hex(&Sha256::digest(bytes))),
        "sha384" => Ok(hex(&Sha384::digest(bytes))),
        "sha512" => Ok(hex(&Sha512::digest(bytes))),
        other => Err(Refusal::not_simulated(format!("the checksum algorithm {other}"))),
    }
}

/// POST .../upload
pub(super) fn upload(request: &Request, args: &Args) -> Answer {
    let Some(file) = &request.file else { return Err(Refusal::bare(400, "unable to parse upload: no file")) };
    let (id, content) = destination(request, args, "upload")?;
    let wanted = match args.text("checksum").zip(args.text("checksum-algorithm")) {
        Some((wanted, algorithm)) => Some((wanted.to_ascii_lowercase(), checksum(algorithm, &file.bytes)?)),
        None => None,
    };
    request.datacenter.writable()?;
    let bytes = Arc::new(file.bytes.clone());
    let node = request.node().to_owned();
    let work = move |worker: Worker| async move {
        let datacenter = worker.datacenter.clone();
        worker.log(format!("starting file import to: {id}"));
        worker.takes(Duration::from_secs(2)).await?;
        if let Some((wanted, got)) = wanted.filter(|(wanted, got)| wanted != got) {
            return Err(format!("checksum mismatch: got '{got}' != expect '{wanted}'"));
        }
        let volume = uploaded(&datacenter, &id, content, bytes);
        let mut state = datacenter.state();
        let place = state.place(&id, &node);
        state.volumes.insert(place, volume);
        Ok(())
    };
    Ok(request.datacenter.begin(request, "imgcopy", "", work)?)
}

fn uploaded(datacenter: &Datacenter, id: &str, content: &'static str, bytes: Arc<Vec<u8>>) -> Volume {
    let sha256: String = Sha256::digest(bytes.as_slice()).iter().map(|byte| format!("{byte:02x}")).collect();
    let known = datacenter.spec.downloads.iter().find(|image| image.sha256 == sha256);
    // The virtual size stands in the header of a QCOW2 file; a raw one is its own disk.
    let header = bytes.get(24..32).filter(|_| bytes.starts_with(b"QFI\xfb"));
    let virtual_size = header.and_then(|size| Some(u64::from_be_bytes(size.try_into().ok()?)));
    Volume {
        content,
        format: format_of(own_name(id), content),
        size: bytes.len() as u64,
        vm: None,
        parent: None,
        since: datacenter.now(),
        data: Data {
            image: (content == "import").then(|| virtual_size.unwrap_or(bytes.len() as u64)),
            system: known.map(|image| image.system.clone()).unwrap_or_default(),
            bytes: Some(bytes),
            sha256: Some(sha256),
            disk: Default::default(),
        },
    }
}

/// Returns what a download from an address would yield.
fn published(datacenter: &Datacenter, url: &str) -> Option<Image> {
    datacenter.spec.downloads.iter().find(|image| image.url == url).cloned()
}

/// POST .../download-url
pub(super) fn download(request: &Request, args: &Args) -> Answer {
    let (id, content) = destination(request, args, "download")?;
    if args.has("compression") {
        return Err(Refusal::not_simulated("decompressing a download"));
    }
    let wanted = match (args.text("checksum"), args.text("checksum-algorithm")) {
        (Some(wanted), Some("sha256")) => Some(wanted.to_ascii_lowercase()),
        (Some(_), Some(other)) => return Err(Refusal::not_simulated(format!("the checksum algorithm {other}"))),
        _ => None,
    };
    request.datacenter.writable()?;
    let url = args.required("url").to_owned();
    let name = args.required("filename").to_owned();
    let node = request.node().to_owned();
    let work = move |worker: Worker| async move {
        let datacenter = worker.datacenter.clone();
        let there = datacenter.state().volume(&id, &node).map(|volume| volume.data.sha256.clone().unwrap_or_default());
        worker.log(format!("downloading {url} to {id}"));
        match (there, &wanted) {
            (Some(_), None) => {
                return Err(format!("refusing to override existing file '{}'", own_name(&id)));
            }
            (Some(got), Some(wanted)) if got == *wanted => {
                worker.log("file already exists and has the expected checksum");
                return Ok(());
            }
            (Some(got), Some(wanted)) => {
                return Err(format!("checksum mismatch: got '{got}' != expect '{wanted}', aborting"));
            }
            (None, _) => {}
        }
        worker.takes(DOWNLOAD).await?;
        let Some(image) = published(&datacenter, &url) else {
            return Err(format!(
                "download failed: command '/usr/bin/wget --progress=dot:giga -O {}.tmp {url}' failed: exit code 8",
                own_name(&id)
            ));
        };
        if let Some(wanted) = wanted.filter(|wanted| *wanted != image.sha256) {
            return Err(format!("checksum mismatch: got '{}' != expect '{wanted}'", image.sha256));
        }
        let volume =
            Volume { format: format_of(own_name(&id), content), ..Volume::image(content, &image, datacenter.now()) };
        let mut state = datacenter.state();
        let place = state.place(&id, &node);
        state.volumes.insert(place, volume);
        Ok(())
    };
    Ok(request.datacenter.begin(request, "download", &name, work)?)
}

/// GET /nodes/{node}/query-url-metadata
pub(super) fn metadata(request: &Request, args: &Args) -> Answer {
    let url = args.required("url");
    let image = published(&request.datacenter, url)
        .ok_or_else(|| Refusal::parameter("url", "invalid server response: '404 Not Found'"))?;
    Ok(json!({"filename": super::storage::file_name(url), "size": image.size, "mimetype": "application/octet-stream"}))
}

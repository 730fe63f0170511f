//! Storages of the simulated Proxmox cluster, and what lies on them.

mod proxmox;

use proxmox::{DIGEST, IMAGE, Lab, died, errors};
use serde_json::json;

const LOCAL: &str = "/nodes/pve1/storage/local";

#[tokio::test]
async fn an_image_is_downloaded_once_when_its_checksum_says_so() {
    let lab = Lab::start().await;
    let form = |digest: &'static str| {
        [
            ("url", IMAGE),
            ("content", "import"),
            ("filename", "noble.qcow2"),
            ("checksum", digest),
            ("checksum-algorithm", "sha256"),
        ]
    };
    let path = format!("{LOCAL}/download-url");
    let wrong = "ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    let end = lab.task("POST", &path, &form(wrong)).await;
    assert_eq!(end, format!("checksum mismatch: got '{DIGEST}' != expect '{wrong}'"));
    assert_eq!(lab.task("POST", &path, &form(DIGEST)).await, "OK");
    assert_eq!(lab.task("POST", &path, &form(DIGEST)).await, "OK");
    assert_eq!(lab.task("POST", &path, &form(DIGEST)[..3]).await, "refusing to override existing file 'noble.qcow2'");
    let end = lab.task("POST", &path, &form(wrong)).await;
    assert_eq!(end, format!("checksum mismatch: got '{DIGEST}' != expect '{wrong}', aborting"));
    let listed = lab.get(&format!("{LOCAL}/content?content=import")).await.data();
    assert_eq!((&listed[0]["volid"], &listed[0]["format"]), (&json!("local:import/noble.qcow2"), &json!("qcow2")));
    assert_eq!(lab.get("/nodes/pve2/storage/local/content").await.data(), json!([]), "a directory is each node's own");
    let form = [("url", IMAGE), ("content", "import"), ("filename", "noble.img")];
    assert_eq!(lab.post(&path, &form).await.errors(), errors("filename", "invalid filename or wrong extension"));
    let answer = lab
        .post(
            "/nodes/pve1/storage/local-lvm/download-url",
            &[("url", IMAGE), ("content", "import"), ("filename", "a.qcow2")],
        )
        .await;
    assert_eq!(answer.refused(), died("can't download to storage type 'lvmthin'"));
}

#[tokio::test]
async fn a_disk_is_imported_and_as_large_as_its_image() {
    let lab = Lab::start().await;
    let form = [("url", IMAGE), ("content", "import"), ("filename", "noble.qcow2")];
    assert_eq!(lab.task("POST", &format!("{LOCAL}/download-url"), &form).await, "OK");
    let disk = "local-lvm:0,import-from=local:import/noble.qcow2";
    assert_eq!(lab.task("POST", "/nodes/pve1/qemu", &[("vmid", "100"), ("scsi0", disk)]).await, "OK");
    assert_eq!(lab.config(100).await["scsi0"], "local-lvm:vm-100-disk-0,size=3584M");
    let disk = "local-lvm:8,import-from=local:import/noble.qcow2";
    let answer = lab.post("/nodes/pve1/qemu", &[("vmid", "101"), ("scsi0", disk)]).await;
    let text = "'import-from' requires special syntax - use <storage ID>:0,import-from=<source>";
    assert_eq!(answer.errors(), errors("scsi0", text));
    let disk = "local-lvm:0,import-from=local:import/other.qcow2";
    let answer = lab.post("/nodes/pve1/qemu", &[("vmid", "101"), ("scsi0", disk)]).await;
    assert_eq!(answer.refused(), died("volume 'local:import/other.qcow2' does not exist"));
}

#[tokio::test]
async fn storages_refuse_what_they_cannot_hold() {
    let lab = Lab::start().await;
    let create = |disk: &'static str| [("vmid", "100"), ("scsi0", disk)];
    for (disk, text) in
        [("gone:8", "storage 'gone' does not exist"), ("local:8", "storage 'local' does not support vm images")]
    {
        assert_eq!(lab.post("/nodes/pve1/qemu", &create(disk)).await.refused(), died(text));
    }
    let end = lab.task("POST", "/nodes/pve1/qemu", &create("local-zfs:5000")).await;
    assert_eq!(end, "unable to create VM 100 - zfs error: cannot create 'rpool/data/vm-100-disk-0': out of space");
    assert_eq!(lab.get("/nodes/pve1/qemu").await.data(), json!([]), "what failed left nothing");
    let answer = lab.upload_to("nas", "a.iso", b"x", &[("content", "vztmpl")]).await;
    assert_eq!(answer.refused(), died("storage 'nas' does not support 'vztmpl' content"));
    let answer = lab.upload_to("local", "a.exe", b"x", &[("content", "iso")]).await;
    assert_eq!(answer.errors(), errors("filename", "wrong file extension"));
    let answer = lab.post("/nodes/pve1/qemu", &[("vmid", "100"), ("ide2", "local:iso/a.iso")]).await;
    assert_eq!(answer.errors(), errors("ide2", "explicit 'media=cdrom' is required for iso images"));
}

#[tokio::test]
async fn a_file_is_uploaded_listed_and_deleted() {
    let lab = Lab::start().await;
    assert_eq!(lab.upload("local", "my seed.iso", b"some bytes").await, "OK");
    let listed = lab.get(&format!("{LOCAL}/content?content=iso")).await.data();
    assert_eq!((&listed[0]["volid"], &listed[0]["size"]), (&json!("local:iso/my_seed.iso"), &json!(10)));
    let checked = [("content", "iso"), ("checksum-algorithm", "sha256"), ("checksum", DIGEST)];
    let answer = lab.upload_to("local", "a.iso", b"some bytes", &checked).await;
    assert!(lab.end(&answer.data()).await.starts_with("checksum mismatch: got '"));
    assert_eq!(lab.task("DELETE", &format!("{LOCAL}/content/local:iso%2Fmy_seed.iso"), &[]).await, "OK");
    assert_eq!(lab.get(&format!("{LOCAL}/content?content=iso")).await.data(), json!([]));
    lab.machine(100, &[]).await;
    let answer = lab.delete("/nodes/pve1/storage/local-lvm/content/local-lvm:vm-100-disk-0", &[]).await;
    assert_eq!(answer.refused(), died("Cannot remove image, a guest with VMID '100' exists!"));
}

#[tokio::test]
async fn a_backup_server_is_a_storage_and_a_job_names_it() {
    let lab = Lab::start().await;
    let form = [
        ("storage", "pbs"),
        ("type", "pbs"),
        ("server", "10.0.0.6"),
        ("datastore", "lab"),
        ("username", "lab@pbs"),
        ("password", "hidden"),
    ];
    lab.post("/storage", &form).await.data();
    let shown = lab.get("/storage/pbs").await.data();
    assert_eq!((&shown["content"], shown.get("password")), (&json!("backup"), None));
    let again = lab.post("/storage", &form).await;
    assert_eq!(again.refused(), died("create storage failed: storage ID 'pbs' already defined"));
    let job = [
        ("id", "nightly"),
        ("schedule", "02:30"),
        ("storage", "pbs"),
        ("vmid", "100"),
        ("prune-backups", "keep-daily=7"),
    ];
    lab.post("/cluster/backup", &job).await.data();
    assert_eq!(lab.post("/cluster/backup", &job).await.refused(), died("Job 'nightly' already exists"));
    assert_eq!(lab.get("/cluster/backup/nightly").await.data()["schedule"], "02:30");
    assert_eq!(lab.get("/cluster/backup/other").await.errors(), errors("id", "No such job 'other'"));
    let bad = [("id", "bad"), ("schedule", "soon"), ("vmid", "100")];
    let errors = lab.post("/cluster/backup", &bad).await.errors();
    assert!(errors["schedule"].as_str().unwrap().starts_with("invalid format - "), "{errors}");
    lab.machine(100, &[]).await;
    assert_eq!(lab.task("POST", "/nodes/pve1/vzdump", &[("vmid", "100"), ("storage", "pbs")]).await, "OK");
    assert_eq!(lab.get("/nodes/pve1/storage/pbs/content").await.data()[0]["content"], "backup");
    // Destroying with purge takes the machine out of the job, and a job about nothing goes.
    assert_eq!(lab.task("DELETE", "/nodes/pve1/qemu/100", &[("purge", "1")]).await, "OK");
    assert_eq!(lab.get("/cluster/backup").await.data(), json!([]));
}

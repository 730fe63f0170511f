//! Who may do what: API tokens and privileges.

use super::datacenter::Datacenter;
use super::inventory::Token;
use super::refusal::Refusal;
use super::request::unescape;
use super::schema::Args;
use super::state::State;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// All privileges of version 9.
const PRIVILEGES: [&str; 51] = [
    "Datastore.Allocate",
    "Datastore.AllocateSpace",
    "Datastore.AllocateTemplate",
    "Datastore.Audit",
    "Group.Allocate",
    "Mapping.Audit",
    "Mapping.Modify",
    "Mapping.Use",
    "Permissions.Modify",
    "Pool.Allocate",
    "Pool.Audit",
    "Realm.Allocate",
    "Realm.AllocateUser",
    "SDN.Allocate",
    "SDN.Audit",
    "SDN.Use",
    "Sys.AccessNetwork",
    "Sys.Audit",
    "Sys.Console",
    "Sys.Incoming",
    "Sys.Modify",
    "Sys.PowerMgmt",
    "Sys.Syslog",
    "User.Modify",
    "VM.Allocate",
    "VM.Audit",
    "VM.Backup",
    "VM.Clone",
    "VM.Config.CDROM",
    "VM.Config.CPU",
    "VM.Config.Cloudinit",
    "VM.Config.Disk",
    "VM.Config.HWType",
    "VM.Config.Memory",
    "VM.Config.Network",
    "VM.Config.Options",
    "VM.Console",
    "VM.GuestAgent.Audit",
    "VM.GuestAgent.FileRead",
    "VM.GuestAgent.FileSystemMgmt",
    "VM.GuestAgent.FileWrite",
    "VM.GuestAgent.Unrestricted",
    "VM.Migrate",
    "VM.PowerMgmt",
    "VM.Replicate",
    "VM.Snapshot",
    "VM.Snapshot.Rollback",
    "Realm.Audit",
    "Group.Audit",
    "User.Audit",
    "Sys.Notes",
];

/// Returns the token that an `Authorization` header names, or why it is not let in.
pub(super) fn token(datacenter: &Datacenter, header: Option<&str>) -> Result<Token, Refusal> {
    let nobody = || Refusal::bare(401, "No ticket");
    let header = header.ok_or_else(nobody)?;
    let value = header.strip_prefix("PVEAPIToken").ok_or_else(nobody)?;
    let value = unescape(value.trim_start_matches([' ', '=']));
    let (id, secret) = value.split_once('=').ok_or_else(nobody)?;
    let known = datacenter.spec.tokens.iter().find(|token| token.id == id && token.secret == secret);
    known.cloned().ok_or_else(|| Refusal::bare(401, "Authentication failed!"))
}

impl Token {
    /// Returns what may be done on a path. The deepest grant on the way to it counts.
    pub(super) fn privileges(&self, path: &str) -> BTreeSet<String> {
        if self.grants.is_empty() {
            return PRIVILEGES.iter().map(ToString::to_string).collect();
        }
        let covers = |grant: &str| grant == "/" || path == grant || path.starts_with(&format!("{grant}/"));
        let deepest = self.grants.iter().filter(|(grant, _)| covers(grant)).max_by_key(|(grant, _)| grant.len());
        deepest.map(|(_, privileges)| privileges.iter().cloned().collect()).unwrap_or_default()
    }

    fn may(&self, path: &str, privilege: &str, state: Option<&State>) -> bool {
        if self.privileges(path).contains(privilege) {
            return true;
        }
        // Rights on a machine come through its pool too.
        let vm = path.strip_prefix("/vms/").and_then(|id| id.parse().ok());
        let pool = vm.and_then(|vm| state?.pool_of(vm));
        pool.is_some_and(|pool| self.privileges(&format!("/pool/{pool}")).contains(privilege))
    }

    /// Refuses unless every privilege is held on a path.
    pub(super) fn demand(&self, path: &str, privileges: &[&str], state: Option<&State>) -> Result<(), Refusal> {
        match privileges.iter().find(|privilege| !self.may(path, privilege, state)) {
            Some(missing) => Err(Refusal::forbidden(path, missing)),
            None => Ok(()),
        }
    }

    /// Refuses unless one of the privileges is held on a path.
    pub(super) fn demand_any(&self, path: &str, privileges: &[&str], state: Option<&State>) -> Result<(), Refusal> {
        if privileges.iter().any(|privilege| self.may(path, privilege, state)) {
            return Ok(());
        }
        Err(Refusal::forbidden(path, &privileges.join("|")))
    }

    /// Refuses unless the expression of the schema holds.
    pub(super) fn check(&self, expression: &Value, args: &Args, state: &State) -> Result<(), Refusal> {
        let Some([operator, rest @ ..]) = expression.as_array().map(Vec::as_slice) else { return Ok(()) };
        match (operator.as_str(), rest) {
            (Some("and"), all) => all.iter().try_for_each(|part| self.check(part, args, state)),
            (Some("or"), any) => {
                if any.iter().any(|part| self.check(part, args, state).is_ok()) {
                    return Ok(());
                }
                Err(Refusal::new(403, "Permission check failed"))
            }
            (Some("perm"), [path, privileges, options @ ..]) => {
                let options: Vec<&str> = options.iter().filter_map(Value::as_str).collect();
                if let Some(at) = options.iter().position(|option| *option == "require_param")
                    && options.get(at + 1).is_some_and(|param| !args.has(param))
                {
                    return Err(Refusal::new(403, "Permission check failed"));
                }
                let path = filled(path.as_str().unwrap_or_default(), args);
                let privileges: Vec<&str> =
                    privileges.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                if options.contains(&"any") {
                    self.demand_any(&path, &privileges, Some(state))
                } else {
                    self.demand(&path, &privileges, Some(state))
                }
            }
            _ => Err(Refusal::not_simulated(format!("the permission check {expression}"))),
        }
    }

    /// Refuses keys of a configuration that this token may not set, and those that only root may.
    pub(super) fn check_keys<'a>(
        &self,
        vm: u32,
        keys: impl Iterator<Item = (&'a str, Option<&'a str>)>,
        state: &State,
    ) -> Result<(), Refusal> {
        let path = format!("/vms/{vm}");
        for (key, value) in keys {
            let stem = key.trim_end_matches(|letter: char| letter.is_ascii_digit());
            let needed = match stem {
                "cores" | "sockets" | "cpu" | "cpulimit" | "cpuunits" | "vcpus" | "numa" | "affinity" => {
                    "VM.Config.CPU"
                }
                "memory" | "balloon" | "shares" | "hugepages" | "keephugepages" | "allow-ksm" => "VM.Config.Memory",
                "net" => "VM.Config.Network",
                "name" | "description" | "agent" | "onboot" | "ostype" | "tags" | "protection" | "bios" | "acpi"
                | "autostart" | "kvm" | "localtime" | "startdate" | "tablet" | "template" | "freeze" | "tdf"
                | "migrate_downtime" | "migrate_speed" => "VM.Config.Options",
                "startup" => {
                    self.demand("/", &["Sys.Modify"], Some(state))?;
                    "VM.Config.Options"
                }
                "boot" | "bootdisk" | "unused" | "efidisk" | "tpmstate" | "vmstatestorage" => "VM.Config.Disk",
                "ide" | "scsi" | "sata" | "virtio" => match value {
                    Some(value) if super::vm::volume_of(value).ends_with(":cloudinit") => "VM.Config.Cloudinit",
                    Some(value) if super::vm::is_cdrom(value) => "VM.Config.CDROM",
                    _ => "VM.Config.Disk",
                },
                "ciuser" | "cipassword" | "citype" | "ciupgrade" | "cicustom" | "ipconfig" | "nameserver"
                | "searchdomain" | "sshkeys" => {
                    self.demand_any(&path, &["VM.Config.Cloudinit", "VM.Config.Network"], Some(state))?;
                    continue;
                }
                "machine" | "scsihw" | "vga" | "smbios" | "hotplug" | "rng" | "watchdog" | "vmgenid" | "keyboard"
                | "audio" | "spice_enhancements" => "VM.Config.HWType",
                "serial" if value.is_none_or(|value| value == "socket") => "VM.Config.HWType",
                _ => return Err(Refusal::died(format!("only root can set '{key}' config"))),
            };
            self.demand(&path, &[needed], Some(state))?;
            if let Some(bridge) =
                value.filter(|_| stem == "net").and_then(|value| super::vm::drive_option(value, "bridge"))
            {
                let tag = value.and_then(|value| super::vm::drive_option(value, "tag"));
                let tag = tag.map(|tag| format!("/{tag}")).unwrap_or_default();
                self.demand(&format!("/sdn/zones/localnetwork/{bridge}{tag}"), &["SDN.Use"], Some(state))?;
            }
        }
        Ok(())
    }

    /// Returns the effective privileges, path by path, as `/access/permissions` shows them.
    pub(super) fn permissions(&self, path: Option<&str>) -> Value {
        let set = |path: &str| -> Value {
            self.privileges(path).into_iter().map(|privilege| (privilege, json!(1))).collect::<Map<_, _>>().into()
        };
        if let Some(path) = path {
            return json!({path: set(path)});
        }
        let mut paths: BTreeMap<String, Value> = ["/", "/access", "/nodes", "/pool", "/sdn", "/storage", "/vms"]
            .iter()
            .map(|path| (path.to_string(), set(path)))
            .collect();
        paths.extend(self.grants.keys().map(|path| (path.clone(), set(path))));
        json!(paths)
    }
}

fn filled(path: &str, args: &Args) -> String {
    let mut filled = path.to_owned();
    for (name, value) in args.texts() {
        filled = filled.replace(&format!("{{{name}}}"), value);
    }
    filled
}

//! Where a disk is plugged in.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::fmt;
use std::str::FromStr;

/// Where a disk is plugged in: `scsi0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    bus: Bus,
    index: u8,
}

/// The kind of a disk's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bus {
    /// SCSI by virtio: what a Linux guest should have. Disks can be added while it runs.
    Scsi,
    /// A virtio block device. Disks can be added while it runs.
    Virtio,
    /// SATA. Changes need a reboot.
    Sata,
}

impl Bus {
    const ALL: [Bus; 3] = [Bus::Scsi, Bus::Virtio, Bus::Sata];

    fn name(self) -> &'static str {
        match self {
            Bus::Scsi => "scsi",
            Bus::Virtio => "virtio",
            Bus::Sata => "sata",
        }
    }

    /// Returns how many disks the bus takes.
    pub fn places(self) -> u8 {
        match self {
            Bus::Scsi => 31,
            Bus::Virtio => 16,
            Bus::Sata => 6,
        }
    }
}

impl Slot {
    /// Returns the `index`-th place on the SCSI bus.
    ///
    /// # Panics
    ///
    /// When there is no such place: they go from 0 to 30.
    #[track_caller]
    pub fn scsi(index: u8) -> Slot {
        assert!(index < Bus::Scsi.places(), "the SCSI bus has the places 0 to 30, not {index}");
        Slot { bus: Bus::Scsi, index }
    }

    /// Returns the bus.
    pub fn bus(self) -> Bus {
        self.bus
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.bus.name(), self.index)
    }
}

impl FromStr for Slot {
    type Err = String;

    fn from_str(text: &str) -> Result<Slot, String> {
        Bus::ALL
            .into_iter()
            .find_map(|bus| {
                let index = text.strip_prefix(bus.name())?;
                let number: u8 = index.parse().ok()?;
                (number.to_string() == index && number < bus.places()).then_some(Slot { bus, index: number })
            })
            .ok_or_else(|| {
                format!("{text:?} is not a place for a disk: scsi0 to scsi30, virtio0 to virtio15 or sata0 to sata5")
            })
    }
}

impl Serialize for Slot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Slot {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Slot, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_places_that_exist_are_read() {
        for text in ["scsi0", "scsi30", "virtio15", "sata5"] {
            assert_eq!(text.parse::<Slot>().unwrap().to_string(), text);
        }
        for wrong in ["scsi31", "scsi", "scsi01", "ide0", "virtio16", "sata6", "unused0", "scsi-1"] {
            assert!(wrong.parse::<Slot>().is_err(), "{wrong}");
        }
    }
}

//! What the machine can do at this moment, so that figures of different runs can be held against each other.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use folkmoot_core::keys::SecretKey;
use serde::Serialize;

/// How long each part may take.
const TIME: Duration = Duration::from_millis(400);
/// Bytes appended before each sync.
const APPEND_BYTES: usize = 4 << 10;
/// Appends at most, so that a disk that does not sync is not filled.
const APPENDS_MAX: u32 = 50_000;

/// What the machine did.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Calibration {
    /// Appends of 4 KiB, each followed by fdatasync.
    append_fdatasync_per_second: f64,
    /// Ed25519 signatures checked on one core.
    ed25519_verify_per_second: f64,
}

impl Calibration {
    /// Measures; the file system is that of `folder`.
    pub(super) fn take(folder: &Path) -> io::Result<Self> {
        Ok(Self { append_fdatasync_per_second: appends(folder)?, ed25519_verify_per_second: verifications() })
    }

    pub(super) fn line(&self) -> String {
        format!(
            "{:.0} appends of 4 KiB with fdatasync and {:.0} ed25519 verifications a second",
            self.append_fdatasync_per_second, self.ed25519_verify_per_second
        )
    }
}

fn appends(folder: &Path) -> io::Result<f64> {
    let path = folder.join("calibration");
    let mut file = File::create(&path)?;
    let bytes = vec![0x5a; APPEND_BYTES];
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < TIME && count < APPENDS_MAX {
        file.write_all(&bytes)?;
        file.sync_data()?;
        count += 1;
    }
    let rate = f64::from(count) / begun.elapsed().as_secs_f64();
    drop(file);
    std::fs::remove_file(path)?;
    Ok(rate)
}

fn verifications() -> f64 {
    const CONTEXT: &[u8] = b"folkmoot bench";
    let key = SecretKey::from_seed(&[7; 32]);
    let signature = key.sign(CONTEXT, CONTEXT);
    let Some(public) = folkmoot_core::keys::PublicKey::new(&key.author()) else { return 0.0 };
    let begun = Instant::now();
    let mut count = 0_u32;
    while begun.elapsed() < TIME {
        count += u32::from(std::hint::black_box(public.verify(CONTEXT, CONTEXT, &signature)));
    }
    f64::from(count) / begun.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calibration_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let calibration = Calibration::take(folder.path()).unwrap();
        assert!(calibration.append_fdatasync_per_second > 0.0 && calibration.ed25519_verify_per_second > 0.0);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

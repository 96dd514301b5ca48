//! QR codes.

use qrcodegen_no_heap::{QrCode, QrCodeEcc, Version};
use zeroize::Zeroizing;

/// Light modules around a code, by ISO/IEC 18004.
const QUIET_ZONE: usize = 4;

/// A QR code with its quiet zone. Wiped when dropped, for its text may be a secret.
#[derive(Debug)]
pub struct Qr {
    /// Modules along an edge, without the quiet zone.
    side: usize,
    /// Row by row, whether they are dark.
    modules: Zeroizing<Vec<bool>>,
}

impl Qr {
    /// The smallest code of this text; none if it is longer than any QR code.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let mut work = Zeroizing::new(vec![0; Version::MAX.buffer_len()]);
        let mut out = Zeroizing::new(vec![0; Version::MAX.buffer_len()]);
        // Shown on a screen it gets no stains; and the fewer modules, the more terminals it fits.
        let ecc = QrCodeEcc::Low;
        let code =
            QrCode::encode_text(text, &mut work, &mut out, ecc, Version::MIN, Version::MAX, None, true)
                .ok()?;
        let size = code.size();
        let mut modules = Zeroizing::new(Vec::with_capacity(usize::try_from(size * size).ok()?));
        for y in 0..size {
            modules.extend((0..size).map(|x| code.get_module(x, y)));
        }
        Some(Self { side: usize::try_from(size).ok()?, modules })
    }

    /// Modules along an edge.
    #[must_use]
    pub fn edge(&self) -> usize {
        self.side + 2 * QUIET_ZONE
    }

    /// Whether a module is dark.
    #[must_use]
    pub fn is_dark(&self, x: usize, y: usize) -> bool {
        let place = |at: usize| at.checked_sub(QUIET_ZONE).filter(|at| *at < self.side);
        match (place(x), place(y)) {
            (Some(x), Some(y)) => self.modules[y * self.side + x],
            _ => false,
        }
    }
}

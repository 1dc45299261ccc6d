//! Where a request came from, known to everything that is done for it.

use std::net::IpAddr;

use folkmoot_core::audit::Event;

tokio::task_local! {
    static ORIGIN: Origin;
}

/// Where a request came from, and what it is called. A server runs what it does for a request within [`Origin::scope`]; the audit log
/// tells it with all that is recorded there.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The address.
    pub source: IpAddr,
    /// Id of the request.
    pub request: String,
}

impl Origin {
    /// Runs something for a request that came from here.
    pub async fn scope<T>(self, what: impl Future<Output = T>) -> T {
        ORIGIN.scope(self, what).await
    }

    /// Returns the address from which the request came that is being answered.
    pub(super) fn source() -> Option<IpAddr> {
        ORIGIN.try_with(|origin| origin.source).ok()
    }

    /// Adds to an event where it came from.
    pub(super) fn complete(event: &mut Event) {
        // Outside of any request there is nothing to add.
        let _ = ORIGIN.try_with(|origin| {
            if event.source.is_empty() {
                event.source = origin.source.to_string();
            }
            if event.request.is_empty() {
                event.request.clone_from(&origin.request);
            }
        });
    }
}

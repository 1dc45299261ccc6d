//! Metrics of the HTTP shell, and the text that Prometheus reads.

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::host::Host;

const REQUESTS: &str = "folkmoot_http_requests_total";
const REQUEST_SECONDS: &str = "folkmoot_http_request_seconds";
const IN_FLIGHT: &str = "folkmoot_http_requests_in_flight";
const CONNECTIONS: &str = "folkmoot_http_connections";
const LIVE_CONNECTIONS: &str = "folkmoot_live_connections";
const LIVE_SUBSCRIPTIONS: &str = "folkmoot_live_subscriptions";

/// From a cached read to the longest wait.
const SECONDS: [f64; 13] = [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0];
/// How often samples are folded into buckets; without it they pile up in memory.
const UPKEEP: Duration = Duration::from_secs(5);

/// Where metrics are collected.
#[derive(Clone)]
pub(crate) struct Metrics {
    handle: PrometheusHandle,
    process: metrics_process::Collector,
}

impl Metrics {
    /// Installs the recorder of the process.
    ///
    /// # Errors
    /// There is one already.
    pub(crate) fn install() -> Result<Self, metrics_exporter_prometheus::BuildError> {
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
            .install_recorder()?;
        Ok(Self::with(handle))
    }

    /// Makes a recorder that nothing reports to, for tests.
    #[cfg(test)]
    pub(crate) fn detached() -> Self {
        Self::with(PrometheusBuilder::new().build_recorder().handle())
    }

    fn with(handle: PrometheusHandle) -> Self {
        let process = metrics_process::Collector::default();
        process.describe();
        describe_counter!(REQUESTS, Unit::Count, "requests answered, by route, method and status");
        describe_histogram!(REQUEST_SECONDS, Unit::Seconds, "time to the head of the answer, by route");
        describe_gauge!(IN_FLIGHT, Unit::Count, "requests whose answer has not begun");
        describe_gauge!(CONNECTIONS, Unit::Count, "open connections");
        describe_gauge!(LIVE_CONNECTIONS, Unit::Count, "open WebSockets");
        describe_gauge!(LIVE_SUBSCRIPTIONS, Unit::Count, "subscriptions over them");
        Self { handle, process }
    }

    /// Folds samples and reads the machine's figures for ever; run it as a task. `data` is the data directory.
    pub(crate) async fn upkeep(self, data: PathBuf) {
        let mut tick = tokio::time::interval(UPKEEP);
        let mut host = Host::new(&data);
        loop {
            tick.tick().await;
            self.handle.run_upkeep();
            // A file system on a network may hang: then nothing but these figures does.
            host = match tokio::task::spawn_blocking(move || {
                host.collect();
                host
            })
            .await
            {
                Ok(host) => host,
                Err(_) => Host::new(&data),
            };
        }
    }

    /// Returns the metrics as text.
    pub(crate) fn render(&self) -> String {
        self.process.collect();
        self.handle.render()
    }
}

/// Counts something while it lives.
pub(super) struct Counted(Gauge);

impl Counted {
    pub(super) fn connection() -> Self {
        Self::new(gauge!(CONNECTIONS))
    }

    pub(super) fn live_connection() -> Self {
        Self::new(gauge!(LIVE_CONNECTIONS))
    }

    pub(super) fn subscription() -> Self {
        Self::new(gauge!(LIVE_SUBSCRIPTIONS))
    }

    pub(super) fn request() -> Self {
        Self::new(HANDLES.with_borrow_mut(|handles| handles.in_flight.get_or_insert_with(|| gauge!(IN_FLIGHT)).clone()))
    }

    fn new(gauge: Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// Metrics that this thread has used before: finding one by its name and labels takes longer than counting, and every
/// request counts. Their number is bounded, since labels are closed sets.
#[derive(Default)]
struct Handles {
    in_flight: Option<Gauge>,
    answers: Vec<Answers>,
}

struct Answers {
    route: &'static str,
    method: &'static str,
    status: http::StatusCode,
    count: Counter,
    seconds: Histogram,
}

thread_local! {
    static HANDLES: RefCell<Handles> = RefCell::default();
}

impl Handles {
    fn of(&mut self, route: &'static str, method: &'static str, status: http::StatusCode) -> Option<&Answers> {
        let found = |known: &Answers| known.status == status && known.method == method && known.route == route;
        let at = self.answers.iter().position(found).unwrap_or_else(|| {
            let count =
                counter!(REQUESTS, "route" => route, "method" => method, "status" => status.as_u16().to_string());
            let seconds = histogram!(REQUEST_SECONDS, "route" => route);
            self.answers.push(Answers { route, method, status, count, seconds });
            self.answers.len() - 1
        });
        self.answers.get(at)
    }
}

/// Notes an answer. Labels are closed sets: routes are templates, methods those that exist.
pub(super) fn answered(route: &'static str, method: &http::Method, status: http::StatusCode, took: Duration) {
    let method = match *method {
        http::Method::GET => "GET",
        http::Method::HEAD => "HEAD",
        http::Method::POST => "POST",
        http::Method::PUT => "PUT",
        http::Method::PATCH => "PATCH",
        http::Method::DELETE => "DELETE",
        _ => "other",
    };
    HANDLES.with_borrow_mut(|handles| {
        if let Some(answers) = handles.of(route, method, status) {
            answers.count.increment(1);
            answers.seconds.record(took.as_secs_f64());
        }
    });
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn each_kind_of_answer_has_one_handle() {
        let mut handles = Handles::default();
        for _ in 0..3 {
            for (route, method, status) in
                [("/a", "GET", StatusCode::OK), ("/b", "GET", StatusCode::OK), ("/a", "PUT", StatusCode::CONFLICT)]
            {
                let answers = handles.of(route, method, status).unwrap();
                assert_eq!((answers.route, answers.method, answers.status), (route, method, status));
            }
        }
        assert_eq!(handles.answers.len(), 3);
    }
}

//! Begins and ends the export of traces, where it is built in and asked for.

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::AppError;
use crate::clock::SharedClock;
use crate::config::specs::TelemetrySpec;
use crate::telemetry::Telemetry;

/// The export while it goes on.
#[derive(Debug, Default)]
pub(super) struct Traces {
    sending: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Traces {
    /// Begins it, where the configuration asks for it.
    #[cfg(feature = "otlp")]
    pub fn begin(spec: &TelemetrySpec, telemetry: &Telemetry, clock: &SharedClock) -> Result<Self, AppError> {
        let Some(collector) = &spec.otlp else { return Ok(Self::default()) };
        let stop = CancellationToken::new();
        let started = crate::telemetry::otlp::start(collector, clock, stop.clone());
        let (spans, sending) = started.map_err(AppError::Traces)?;
        telemetry.trace_to(spans);
        tracing::info!(%collector, "calls are told as spans");
        Ok(Self { sending: Some((stop, sending)) })
    }

    /// There is nothing to begin in this build; a worker says so at its start.
    #[cfg(not(feature = "otlp"))]
    #[expect(clippy::unnecessary_wraps, reason = "the build with traces can fail here")]
    pub fn begin(_: &TelemetrySpec, _: &Telemetry, _: &SharedClock) -> Result<Self, AppError> {
        Ok(Self::default())
    }

    /// Sends what is left.
    pub async fn end(self) {
        let Some((stop, sending)) = self.sending else { return };
        stop.cancel();
        if let Err(error) = sending.await {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

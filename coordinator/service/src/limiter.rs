//! Token buckets, one for each tenant.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use assay_schedule::TenantId;
use parking_lot::Mutex;

use crate::keys::Tenant;

struct Bucket {
    tokens: f64,
    at: Instant,
}

/// Token buckets. Holds one for each tenant that has asked, and tenants come from the key file: bounded by it.
#[derive(Default)]
pub struct Limiter {
    buckets: Mutex<BTreeMap<TenantId, Bucket>>,
}

impl Limiter {
    /// Takes one token.
    ///
    /// # Errors
    /// How long it lasts until there is one.
    pub fn take(&self, tenant: &Tenant, now: Instant) -> Result<(), Duration> {
        let burst = f64::from(tenant.burst);
        let mut buckets = self.buckets.lock();
        let bucket = buckets.entry(tenant.id).or_insert(Bucket { tokens: burst, at: now });
        let elapsed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.tokens = (bucket.tokens + elapsed * tenant.requests_per_second).min(burst);
        bucket.at = now.max(bucket.at);
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return Ok(());
        }
        // A day at most: the rate may be very small.
        let wait = ((1.0 - bucket.tokens) / tenant.requests_per_second).min(86_400.0);
        Err(Duration::from_secs_f64(wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(requests_per_second: f64, burst: u32) -> Tenant {
        Tenant {
            id: TenantId(1),
            name: "t".into(),
            batches_max: 1,
            bytes_max: 1,
            requests_per_second,
            burst,
            webhook_secret: None,
        }
    }

    #[test]
    fn a_burst_passes_and_then_only_the_rate() {
        let (limiter, tenant, start) = (Limiter::default(), tenant(2.0, 3), Instant::now());
        for _ in 0..3 {
            limiter.take(&tenant, start).unwrap();
        }
        let wait = limiter.take(&tenant, start).unwrap_err();
        assert_eq!(wait, Duration::from_millis(500));
        assert!(limiter.take(&tenant, start + Duration::from_millis(499)).is_err());
        limiter.take(&tenant, start + Duration::from_millis(501)).unwrap();
        assert!(limiter.take(&tenant, start + Duration::from_millis(502)).is_err());
    }

    #[test]
    fn an_idle_bucket_fills_to_its_size_and_a_clock_that_goes_back_gives_nothing() {
        let (limiter, tenant, start) = (Limiter::default(), tenant(1000.0, 2), Instant::now());
        let later = start + Duration::from_secs(3600);
        limiter.take(&tenant, start).unwrap();
        limiter.take(&tenant, later).unwrap();
        limiter.take(&tenant, later).unwrap();
        assert!(limiter.take(&tenant, start).is_err());
        assert!(limiter.take(&tenant, later).is_err());
    }
}

//! Whether a server is fit: it must keep what it has accepted.

use crate::error::Refusal;

/// Oldest major version whose scripts have flags and whose streams take our ids.
const VERSION_MIN: u32 = 7;

/// Reads the answer to `INFO` of one server; returns what an operator should change. Without a memory limit it is only fit
/// if it `may_be_unlimited`: back-pressure goes by that limit.
///
/// # Errors
/// [`Refusal`] with the command that helps.
pub(super) fn inspect(server: &str, info: &str, may_be_unlimited: bool) -> Result<Vec<String>, Refusal> {
    let field = |name: &str| {
        info.lines()
            .find_map(|line| line.trim_end().split_once(':').filter(|(key, _)| *key == name))
            .map(|f| f.1)
    };
    let version = field("redis_version").unwrap_or("unknown");
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < VERSION_MIN) {
        return Err(Refusal::Version { server: server.to_owned(), version: version.to_owned() });
    }
    match field("maxmemory_policy") {
        Some("noeviction") => {}
        None | Some("") => return Err(Refusal::PolicyUnknown { server: server.to_owned() }),
        Some(policy) => {
            return Err(Refusal::Evicts { server: server.to_owned(), policy: policy.to_owned() });
        }
    }
    let mut warnings = Vec::new();
    // While a server loads its file it says that it has none.
    let is_loading = field("loading").is_some_and(|loading| loading != "0");
    if field("aof_enabled") != Some("1") && !is_loading {
        warnings.push(format!(
            "redis at {server} keeps no append-only file: a restart loses data; run `redis-cli CONFIG SET appendonly yes` \
             and write `appendonly yes` to redis.conf"
        ));
    }
    if memory(info).1.is_none() && !may_be_unlimited {
        return Err(Refusal::Unlimited { server: server.to_owned() });
    }
    if memory(info).1.is_none() {
        warnings.push(format!(
            "redis at {server} has no memory limit: the system may kill it before it refuses data; run \
             `redis-cli CONFIG SET maxmemory <bytes>` and write `maxmemory <bytes>` to redis.conf"
        ));
    }
    if field("aof_last_write_status").is_some_and(|status| status != "ok") {
        warnings.push(format!(
            "redis at {server} could not write its append-only file: make room on its disk, then run \
             `redis-cli BGREWRITEAOF`"
        ));
    }
    Ok(warnings)
}

/// Bytes that the server uses, and its limit if it has one.
pub(super) fn memory(info: &str) -> (Option<u64>, Option<u64>) {
    let number = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|value| value.trim_end().parse::<u64>().ok())
    };
    (number("used_memory"), number("maxmemory").filter(|max| *max > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# Server\r\nredis_version:7.0.15\r\n# Memory\r\nused_memory:10\r\nmaxmemory:100\r\n\
                        maxmemory_policy:noeviction\r\naof_enabled:1\r\naof_last_write_status:ok\r\n";

    #[test]
    fn a_server_that_keeps_its_data_passes() {
        assert_eq!(inspect("s", GOOD, false).unwrap(), Vec::<String>::new());
        assert_eq!(inspect("s", &GOOD.replace("7.0.15", "10.2.0"), false).unwrap().len(), 0);
        assert_eq!(memory(GOOD), (Some(10), Some(100)));
    }

    #[test]
    fn a_server_that_still_loads_its_file_is_not_blamed_for_having_none() {
        let loading = GOOD.replace("aof_enabled:1", "loading:1\r\naof_enabled:0");
        assert_eq!(inspect("s", &loading, false).unwrap().len(), 0);
        assert_eq!(inspect("s", &loading.replace("loading:1", "loading:0"), false).unwrap().len(), 1);
    }

    #[test]
    fn every_evicting_policy_is_refused_with_the_command_that_helps() {
        for policy in [
            "allkeys-lru",
            "allkeys-lfu",
            "allkeys-random",
            "volatile-lru",
            "volatile-lfu",
            "volatile-ttl",
            "new",
        ] {
            let refusal = inspect("s", &GOOD.replace("noeviction", policy), false).unwrap_err();
            assert_eq!(refusal, Refusal::Evicts { server: "s".into(), policy: policy.into() });
            assert!(refusal.to_string().contains("CONFIG SET maxmemory-policy noeviction"));
        }
    }

    #[test]
    fn a_policy_that_is_unset_or_hidden_is_refused() {
        for info in [GOOD.replace("noeviction", ""), GOOD.replace("maxmemory_policy", "x"), String::new()] {
            let refusal = inspect("s", &info, false).unwrap_err();
            let expected = if info.is_empty() { "unknown" } else { "CONFIG SET maxmemory-policy" };
            assert!(refusal.to_string().contains(expected), "{refusal}");
        }
    }

    #[test]
    fn old_and_unknown_versions_are_refused() {
        for version in ["6.2.14", "", "x", "5"] {
            let refusal = inspect("s", &GOOD.replace("7.0.15", version), false).unwrap_err();
            assert_eq!(refusal, Refusal::Version { server: "s".into(), version: version.into() });
        }
    }

    #[test]
    fn a_missing_append_only_file_is_warned_of() {
        let warnings = inspect("s", &GOOD.replace("aof_enabled:1", "aof_enabled:0"), false).unwrap();
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("CONFIG SET appendonly yes"));
    }

    #[test]
    fn a_missing_memory_limit_is_refused_unless_it_is_meant() {
        for info in [GOOD.replace("maxmemory:100", "maxmemory:0"), GOOD.replace("maxmemory:100", "x:1")] {
            let refusal = inspect("s", &info, false).unwrap_err();
            assert_eq!(refusal, Refusal::Unlimited { server: "s".into() });
            let text = refusal.to_string();
            assert!(
                text.contains("CONFIG SET maxmemory 2gb") && text.contains("?memory=unlimited"),
                "{text}"
            );
            let warnings = inspect("s", &info, true).unwrap();
            assert!(warnings.len() == 1 && warnings[0].contains("CONFIG SET maxmemory"), "{warnings:?}");
        }
    }
}

//! The simulator's own paths, for tests and load generators on the same machine: `/sim/log`, `/sim/stats`, `/sim/rules`,
//! `/sim/limits`, `/sim/reset`. Not part of any provider's API, and never on more than loopback.

use super::{
    engine::{Engine, Request, error, plain},
    estimate::PromptCache,
    head::Reach,
    limits::LimitSet,
    log::UsageLog,
    rules::Rules,
    script::Script,
};
use serde_json::json;

/// Rows in one answer unless `limit` says otherwise.
const ROWS_DEFAULT: usize = 10_000;

impl Engine {
    pub(super) fn control(&mut self, reach: &Reach, request: &Request<'_>, path: &str, query: &str) -> Script {
        if !request.loopback {
            return error(reach, 403, "the simulator is controlled from its own machine only");
        }
        match (request.method, path) {
            ("GET", "/sim/log") => plain(reach, 200, self.log_page(query)),
            ("GET", "/sim/stats") => {
                let (all, each) = self.log.sums();
                plain(reach, 200, json!({"all": all, "each": each, "rows": self.log.next()}).to_string().into())
            }
            ("GET", "/sim/rules") => plain(reach, 200, json!(self.rules.list()).to_string().into()),
            ("POST", "/sim/rules") => {
                let rules =
                    serde_json::from_slice(request.body).map_err(|error| error.to_string()).and_then(Rules::new);
                self.changed(reach, rules, |engine, rules| engine.rules = rules)
            }
            ("POST", "/sim/limits") => {
                let set = LimitSet::parse(&String::from_utf8_lossy(request.body));
                self.changed(reach, set, |engine, set| engine.limits.reset(Some(set)))
            }
            ("POST", "/sim/reset") => self.changed(reach, Ok(()), |engine, ()| {
                engine.epoch += 1;
                engine.rules = Rules::default();
                engine.limits.reset(None);
                engine.cache = PromptCache::default();
                engine.log = UsageLog::new(engine.options.log_rows_max);
            }),
            (_, "/sim/log" | "/sim/stats" | "/sim/rules" | "/sim/limits" | "/sim/reset") => {
                error(reach, 405, "GET: /sim/log, /sim/stats, /sim/rules. POST: /sim/rules, /sim/limits, /sim/reset")
            }
            _ => error(reach, 404, "there are /sim/log, /sim/stats, /sim/rules, /sim/limits and /sim/reset"),
        }
    }

    fn changed<T>(&mut self, reach: &Reach, wanted: Result<T, String>, apply: impl FnOnce(&mut Engine, T)) -> Script {
        match wanted {
            Ok(wanted) => {
                apply(self, wanted);
                plain(reach, 200, b"{\"ok\":true}".to_vec())
            }
            Err(wrong) => error(reach, 400, &wrong),
        }
    }

    /// `?from=SEQ&limit=N`; `next` is where to go on.
    fn log_page(&self, query: &str) -> Vec<u8> {
        let number = |name: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(key, _)| *key == name).find_map(|(_, value)| value.parse::<u64>().ok())
        };
        let limit = number("limit").map_or(ROWS_DEFAULT, |limit| limit as usize);
        let rows: Vec<_> = self.log.rows(number("from").unwrap_or(0), limit).collect();
        let next = rows.last().map_or_else(|| self.log.next(), |row| row.seq + 1);
        json!({"next": next, "rows": rows}).to_string().into()
    }
}

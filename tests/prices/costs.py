"""What usage of each model in litellm.json costs, in fractions, without anything of forebay's: writes costs.csv."""
import json
import pathlib
import random
from decimal import Decimal
from fractions import Fraction as F

here = pathlib.Path(__file__).parent
models = json.loads((here / "litellm.json").read_text(), parse_float=Decimal, parse_int=Decimal)
random.seed(7)
PREFIX, SUFFIX = "input_cost_per_token_above_", "k_tokens"
WRITE, WRITE_1H, WRITE_12H = (f"cache_creation_input_token_cost{s}" for s in ("", "_above_1hr", "_above_12hr"))


def first(entry, *keys):
    return next((F(entry[key]) for key in keys if key in entry), None)


def rates(entry, prompt):
    """(input, output, read, write 5m, write 1h) for a prompt of that length."""
    if "tiered_pricing" in entry:
        tiers = entry["tiered_pricing"]
        entry, step = [t for t in tiers if prompt > t["range"][0] or t["range"][0] == 0][-1], ""
    else:
        steps = [k[len(PREFIX):-len(SUFFIX)] for k in entry if k.startswith(PREFIX) and k.endswith(SUFFIX)]
        reached = [int(s) for s in steps if s.isdigit() and prompt > int(s) * 1000]
        step = f"_above_{max(reached)}k_tokens" if reached else ""
    base = F(entry["input_cost_per_token"])
    given, output = F(entry["input_cost_per_token" + step]), F(entry["output_cost_per_token" + step])

    def column(default, *keys):
        """At the step, else the plain one raised like the input."""
        at_step = first(entry, *(key + step for key in keys))
        if at_step is not None:
            return at_step
        plain = first(entry, *keys)
        plain = default if plain is None else plain
        return F(int(plain * given / base * 10**12), 10**12)

    read = column(base, "cache_read_input_token_cost")
    short = column(base, WRITE)
    plain_short = first(entry, WRITE)
    hour = column(base if plain_short is None else plain_short, WRITE_1H, WRITE_12H)
    return given, output, read, short, max(hour, short)


lines = ["# model,input,output,cache_read,cache_write_5m,cache_write_1h,searches,tier,micro-dollars"]
for key, entry in models.items():
    if entry.get("mode") not in ("chat", "responses") or ".anthropic." in key:
        continue
    for top in (20_000, 300_000, 2_000_000):
        counts = [random.randrange(n) for n in (top // 6, 20_000, top, top // 10, top // 20)]
        searches, tier = random.choice([0, 0, 3]), random.choice(["standard", "standard", "batch"])
        each = F(entry.get("search_context_cost_per_query", {}).get("search_context_size_medium", Decimal("0.01")))
        cost = sum(n * rate for n, rate in zip(counts, rates(entry, sum(counts) - counts[1]))) + searches * each
        if tier == "batch":
            batch = first(entry, "input_cost_per_token_batches")
            cost *= F(1, 2) if batch is None else batch / F(entry["input_cost_per_token"])
        micro = int(cost * 10**6 + F(1, 2))
        lines.append(",".join(map(str, [key.split("/")[-1], *counts, searches, tier, micro])))
(here / "costs.csv").write_text("\n".join(lines) + "\n")

"""The last scenario: what the router wrote and counted while all the others ran."""
from judge import answered, check, scenario
from laptops import LEFTOVER, LOGIN


@scenario("the router's own account", router_only=True)
def account(world):
    answered(world.machine().say("say a-word-of-a-prompt"))
    written = world.stack.router_writes()
    secrets = {"the org's credential": world.stack.credential, "a developer's key": world.stack.key, "a leftover key": LEFTOVER,
               "a login": LOGIN, "a prompt": "a-word-of-a-prompt"}
    found = [what for what, secret in secrets.items() if secret in written]
    check(not found, "the logs hold secrets", found)
    if world.stack.driver == "crooked":
        return                              # it keeps no account
    lines = world.stack.access_log()
    check(lines, "no access log on standard output", written[-300:])
    check(world.stack.metric("forebay_panics_total") == {"": 0.0}, "panics were counted", world.stack.metric("forebay_panics_total"))

"""Between a function of worker/queue/scripts.py and its Lua script."""

import json

import redis

from worker.queue import scripts


def test_each_script_has_a_function_and_loads(client: redis.Redis) -> None:
    names = {path.stem for path in scripts._LUA.glob("*.lua")} - {"lib"}
    assert names == set(scripts.FUNCTIONS)
    for name in names:
        client.script_load(scripts.script_source(name))


def test_script_has_its_arguments_under_the_names_of_its_functions_parameters() -> None:
    source = scripts.script_source("submit")
    assert "\nlocal id = arguments.id\nlocal owner = arguments.owner\n" in source
    call = scripts.submit(id="a", owner="ann", most=3, fields={"model_id": "m"})
    sent = json.loads(call.sent)
    assert (sent["id"], sent["key"], sent["most"], sent["fields"]) == ("a", "", 3, ["model_id", "m"])
    assert "spare" not in sent  # None is nil there
    assert json.loads(scripts.cancel(id="a", force=True).sent) == {"id": "a", "force": True}

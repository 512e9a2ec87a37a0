"""Between a function of worker/queue/scripts.py and its Lua script."""

import redis

from worker.queue import scripts


def test_each_script_has_a_function_and_loads(client: redis.Redis) -> None:
    names = {path.stem for path in scripts._LUA.glob("*.lua")} - {"lib"}
    assert names == set(scripts.FUNCTIONS)
    for name in names:
        client.script_load(scripts.script_source(name))


def test_script_has_its_arguments_under_the_names_of_its_functions_parameters() -> None:
    source = scripts.script_source("submit")
    assert "\nlocal id = ARGV[1]\nlocal owner = ARGV[2]\n" in source
    assert "\nlocal key_seconds = tonumber(ARGV[5])\n" in source
    assert "\nlocal fields = {unpack(ARGV, 11)}\n" in source
    call = scripts.submit(id="a", owner="ann", most=3, fields={"model_id": "m"})
    assert call.sent == ["a", "ann", "", "", 0, 3, 0, 0, 0, "", "model_id", "m"]
    assert "\nlocal force = ARGV[2] == '1'\n" in scripts.script_source("cancel")
    assert scripts.cancel(id="a", force=True).sent == ["a", 1]
    assert scripts.delivered(id="a", number=1, attempt="{}", pause_ms=None).sent == ["a", 1, "{}", ""]

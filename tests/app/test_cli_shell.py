"""`zturbo` among other programs: its exit status for a wrong call, and what the shell completes."""

import pytest
from typer.testing import CliRunner

import app.cli
from app.cli.exits import Exit


def completed(*words: str) -> list[str]:
    """What bash is told after these words, the last of them unfinished."""
    shell = {
        "_ZTURBO_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(("zturbo", *words)),
        "COMP_CWORD": str(len(words)),
    }
    return CliRunner(env=shell).invoke(app.cli.cli, [], prog_name="zturbo").stdout.split()


@pytest.mark.parametrize(
    "words",
    [("submit", "--nope"), ("nope",), ("submit", "--control-scale", "much"), ("status",), ("worker", "cpu")],
)
def test_wrong_call_has_the_status_of_a_wrong_call(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["zturbo", *words])
    with pytest.raises(SystemExit) as left:
        app.cli.main()
    assert left.value.code == Exit.USAGE


def test_shell_completes_commands_flags_and_values() -> None:
    assert completed("ins") == ["inspect"]
    assert set(completed("submit", "--control")) == {"--control-scale", "--control-start", "--control-end"}
    assert completed("submit", "--preprocess", "") == ["none", "canny", "depth", "pose"]
    assert "portrait_4_3" in completed("generate", "--image-size", "portrait")
    assert completed("worker", "g") == ["gpu"]
